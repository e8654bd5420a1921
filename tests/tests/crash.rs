//! SIGKILL in the middle of a group loses no request and repeats no result.

use std::{collections::BTreeMap, time::Duration};

use assay_proto::v1::{
    EvaluateGroupRequest, EvaluateRequest, EvaluateResult, GetResultsRequest,
    evaluate_group_response::Event, submission::Kind,
};
use assay_tests::{Footprint, PATIENCE, Service, passed, request, skipped};
use tokio_stream::StreamExt as _;

const PROGRAM: &str = env!("CARGO_BIN_EXE_assay-under-test");
const RUN: &str = "crash";
const SIZE: usize = 24;

fn group() -> EvaluateGroupRequest {
    let sample = |number: usize| {
        // Half of them wrong, all of them different, each slow enough to be caught half done.
        let wrong = number % 2;
        let source = format!(
            "import time\ndef add(a, b):\n    time.sleep(0.05)\n    return a + b + {wrong}  # {number}"
        );
        request(&format!("sample-{number}"), "katas.add", Kind::Source(source))
    };
    let requests: Vec<EvaluateRequest> = (0..SIZE).map(sample).collect();
    EvaluateGroupRequest {
        requests,
        group_id: "group".into(),
        run_id: RUN.into(),
        ..EvaluateGroupRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_has_exactly_one_result() {
    if skipped() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let mut footprint = Footprint::default();
    let mut seen: BTreeMap<String, EvaluateResult> = BTreeMap::new();

    let service = Service::start(PROGRAM, data.path());
    let mut stream = service.client().await.evaluate_group(group()).await.unwrap().into_inner();
    while seen.len() < 5 {
        let event = stream.next().await.expect("more events").expect("an event").event;
        footprint.look(service.pid());
        if let Some(Event::Result(result)) = event {
            seen.insert(result.request_id.clone(), result);
        }
    }
    service.kill();
    drop(stream);

    let service = Service::start(PROGRAM, data.path());
    for _ in 0..50 {
        if footprint.left().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(footprint.left(), Vec::<String>::new(), "left by the service that was killed");

    let mut client = service.client().await;
    let mut again = BTreeMap::new();
    let mut summary = None;
    let mut stream = client.evaluate_group(group()).await.unwrap().into_inner();
    while let Some(event) = tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time") {
        match event.expect("an event").event {
            Some(Event::Result(result)) => {
                let twice = again.insert(result.request_id.clone(), result);
                assert!(twice.is_none(), "two results for {twice:?}");
            }
            Some(Event::Summary(last)) => summary = Some(last),
            None => {}
        }
    }
    let summary = summary.expect("a summary");
    assert_eq!((again.len(), summary.requested, summary.scored), (SIZE, 24, 24), "{summary:?}");
    for (id, result) in &again {
        let number: usize = id.trim_start_matches("sample-").parse().unwrap();
        assert_eq!(passed(result), number.is_multiple_of(2), "{result:?}");
        if let Some(before) = seen.get(id) {
            let both = [before, result].map(|r| (r.reward, r.grade_id.clone(), r.sequence));
            assert_eq!(both[0], both[1], "{id} changed");
        }
    }

    // The run's own list has each of them once, too.
    let all = GetResultsRequest { run_id: RUN.into(), max_results: 1000, ..Default::default() };
    let listed = client.get_results(all).await.unwrap().into_inner();
    let mut ids: Vec<_> = listed.results.iter().map(|result| &result.request_id).collect();
    ids.sort();
    assert_eq!(ids, again.keys().collect::<Vec<_>>());
    assert_eq!(listed.pending, 0);
}
