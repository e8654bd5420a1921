//! `EvaluateGroup`: results as they are ready, the summary last.

mod support;

use std::time::{Duration, Instant};

use assay_proto::v1::{
    EvaluateGroupRequest, EvaluateRequest, EvaluateResult, GroupSummary, OnDisconnect, Outcome,
    evaluate_group_response::Event,
};
use support::{Service, request, within_a_second};
use tonic::Code;
use tonic_types::StatusExt as _;

fn group(programs: &[&str]) -> EvaluateGroupRequest {
    let one = |(index, program): (usize, &&str)| request(&format!("r{index}"), program);
    EvaluateGroupRequest {
        requests: programs.iter().enumerate().map(one).collect(),
        group_id: "g".into(),
        run_id: "run".into(),
        ..EvaluateGroupRequest::default()
    }
}

async fn collect(
    service: &Service,
    request: EvaluateGroupRequest,
) -> (Vec<EvaluateResult>, GroupSummary) {
    let mut stream = service.rewards().evaluate_group(request).await.unwrap().into_inner();
    let mut results = Vec::new();
    loop {
        match stream.message().await.unwrap().expect("a summary before the end").event.unwrap() {
            Event::Result(result) => results.push(result),
            Event::Summary(summary) => {
                assert!(stream.message().await.unwrap().is_none(), "the summary is last");
                return (results, summary);
            }
        }
    }
}

fn ms(ms: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: 0, nanos: ms * 1_000_000 })
}

#[tokio::test(flavor = "multi_thread")]
async fn fast_results_do_not_wait_for_slow_ones() {
    let service = Service::start().await;
    let programs = ["sleep 1500", "pass", "fail", "infra", "pass"];
    let (results, summary) = collect(&service, group(&programs)).await;
    assert_eq!(results.len(), 5);
    assert_eq!(results[4].request_id, "r0", "the slow one is last");
    assert!(results.iter().all(|one| one.group_id == "g" && one.run_id == "run"));
    assert_eq!(
        (summary.requested, summary.scored, summary.infra, summary.valid, summary.duplicates),
        (5, 4, 1, 4, 1)
    );
    assert_eq!(summary.mean, Some(0.75));
    assert!((summary.std.unwrap() - 0.5).abs() < 1e-12);
    let ranks = [("r0", 2.0), ("r1", 2.0), ("r2", 4.0), ("r4", 2.0)];
    assert_eq!(summary.ranks, ranks.map(|(id, rank)| (id.to_owned(), rank)).into());
    // Three texts ran once each, the fault of ours was tried again.
    assert!(service.seen.started() >= 4, "{}", service.seen.started());
}

#[tokio::test(flavor = "multi_thread")]
async fn stragglers_are_cut_after_their_deadline_alone() {
    let service = Service::start().await;
    // Enough are valid at once, yet the slow one counts: its deadline is far.
    let patient = EvaluateGroupRequest {
        want_valid: 1,
        straggler_deadline: ms(900),
        ..group(&["pass", "sleep 200"])
    };
    let (_, summary) = collect(&service, patient).await;
    assert_eq!((summary.valid, summary.cancelled), (2, 0));

    // Past the deadline with enough valid samples: the rest is cancelled, and says so.
    let mut cut = group(&["pass 2", "hang"]);
    cut.requests.iter_mut().for_each(|one| one.request_id.push_str("-cut"));
    let cut = EvaluateGroupRequest { want_valid: 1, straggler_deadline: ms(100), ..cut };
    let (results, summary) = collect(&service, cut).await;
    assert_eq!((summary.valid, summary.cancelled, summary.requested), (1, 1, 2));
    assert_eq!(results[1].outcome(), Outcome::Cancelled);
    assert_eq!(results[1].reward, None);

    // Past the deadline with too few: it waits until there are enough.
    let mut few = group(&["sleep 1500 2", "hang 2", "infra 2"]);
    few.requests.iter_mut().for_each(|one| one.request_id.push_str("-few"));
    let few = EvaluateGroupRequest { want_valid: 1, straggler_deadline: ms(1), ..few };
    let (_, summary) = collect(&service, few).await;
    assert_eq!((summary.valid, summary.cancelled, summary.infra), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_cancels_the_group() {
    let service = Service::start().await;
    let request = EvaluateGroupRequest {
        on_disconnect: OnDisconnect::Cancel.into(),
        ..group(&["pass", "hang", "hang 2", "hang 3", "hang 4", "hang 5"])
    };
    let mut stream = service.rewards().evaluate_group(request).await.unwrap().into_inner();
    assert!(matches!(stream.message().await.unwrap().unwrap().event, Some(Event::Result(_))));
    within_a_second("four run", || service.seen.started() >= 5).await;
    let hung_up = Instant::now();
    drop(stream);
    within_a_second("all are cancelled", || {
        service.seen.killed() >= 4 && service.app.fleet().stats().unanswered == 0
    })
    .await;
    assert!(hung_up.elapsed() < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_groups_are_refused_whole() {
    let service = Service::start().await;
    let mut twice = group(&["pass", "fail"]);
    twice.requests[1].request_id = "r0".into();
    let mut bad_member = group(&["pass", "pass"]);
    bad_member.requests[1].submission = None;
    let cases = [
        ("requests", group(&[])),
        (
            "requests",
            EvaluateGroupRequest {
                requests: vec![EvaluateRequest::default(); 1025],
                ..EvaluateGroupRequest::default()
            },
        ),
        ("requests[1].request_id", twice),
        ("requests[1].submission", bad_member),
        ("want_valid", EvaluateGroupRequest { want_valid: 3, ..group(&["pass"]) }),
        (
            "straggler_deadline",
            EvaluateGroupRequest {
                straggler_deadline: Some(prost_types::Duration { seconds: -5, nanos: 0 }),
                ..group(&["pass"])
            },
        ),
    ];
    for (field, request) in cases {
        let status = service.rewards().evaluate_group(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, field);
    }
    let mut unknown = group(&["pass", "pass"]);
    unknown.requests[1].task_id = "no.such".into();
    let status = service.rewards().evaluate_group(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(service.seen.started(), 0);
}
