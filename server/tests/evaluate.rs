//! `RewardService` over real gRPC, one submission at a time.

mod support;

use std::time::Duration;

use assay_proto::v1::{
    CancelRequest, EvaluateRequest, Fault, GetResultsRequest, OnDisconnect, Outcome, Submission,
};
use support::{Service, request, within_a_second};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn failing_tests_are_no_error() {
    let service = Service::start().await;
    let cases = [
        ("pass", Outcome::Scored, Some(1.0)),
        ("fail", Outcome::Scored, Some(0.0)),
        ("infra", Outcome::InfraError, None),
    ];
    for (program, outcome, reward) in cases {
        let result = service.evaluate(request(program, program)).await.unwrap();
        assert_eq!((result.outcome(), result.reward), (outcome, reward), "{program}: {result:?}");
        assert_eq!(result.request_id, program);
        let fault = result.failure.map(|failure| failure.fault());
        assert_eq!(fault, (reward.is_none()).then_some(Fault::Infra), "{program}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_name_their_fields() {
    let service = Service::start().await;
    let long = "x".repeat(201);
    type Change = Box<dyn Fn(&mut EvaluateRequest)>;
    let change = |change: fn(&mut EvaluateRequest)| -> Change { Box::new(change) };
    let cases: Vec<(&str, Change)> = vec![
        ("request_id", change(|r| r.request_id.clear())),
        ("request_id", Box::new(move |r| r.request_id = long.clone())),
        ("request_id", change(|r| r.request_id = "a\nb".into())),
        ("task_id", change(|r| r.task_id = "../etc".into())),
        ("submission", change(|r| r.submission = None)),
        ("submission", change(|r| r.submission = Some(Submission { kind: None }))),
        ("reward", change(|r| r.reward = "no-such".into())),
        ("priority", change(|r| r.priority = 99)),
        ("stop", change(|r| r.stop = -1)),
        ("on_disconnect", change(|r| r.on_disconnect = 7)),
        ("run_id", change(|r| r.run_id = "\0".into())),
        (
            "deadline",
            change(|r| {
                r.deadline = Some(prost_types::Duration { seconds: -1, nanos: 0 });
            }),
        ),
        (
            "external[\"x\"]",
            change(|r| {
                r.external.insert("x".into(), f64::NAN);
            }),
        ),
    ];
    for (field, change) in cases {
        let mut bad = request("bad", "pass");
        change(&mut bad);
        let status = service.evaluate(bad).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status}");
        let details = status.get_details_bad_request().unwrap();
        let fields: Vec<_> = details.field_violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, [field], "{status}");
        assert!(status.message().contains(field), "{status}");
    }
    assert_eq!(service.seen.started(), 0, "nothing bad ran");

    let unknown = EvaluateRequest { task_id: "no.such".into(), ..request("a", "pass") };
    let status = service.evaluate(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "unknown task `no.such`");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_gives_the_same_result_once() {
    let service = Service::start().await;
    let first = service.evaluate(request("one", "pass")).await.unwrap();
    let again = service.evaluate(request("one", "pass")).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(service.seen.started(), 1);

    let status = service.evaluate(request("one", "fail")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "request_id");
    assert_eq!(service.seen.started(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back() {
    let service = Service::with(|config| {
        config.queue_capacity = 2;
        config.workers = 1;
    })
    .await;
    let hang = |id: &str| {
        let mut client = service.rewards();
        let request = request(id, "hang");
        tokio::spawn(async move { client.evaluate(request).await })
    };
    let waiting = [hang("a"), hang("b")];
    within_a_second("both were accepted", || service.app.fleet().stats().unanswered == 2).await;
    let status = service.evaluate(request("c", "pass")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(wait > Duration::ZERO && wait < Duration::from_secs(60), "{wait:?}");

    // A retry of what was accepted is no new work.
    let mut cancel = service.rewards();
    let request_ids = vec!["a".to_owned(), "b".to_owned(), "unknown".to_owned()];
    let cancel = cancel.cancel(CancelRequest { request_ids, ..CancelRequest::default() });
    assert_eq!(cancel.await.unwrap().into_inner().cancelled, 2);
    for waiting in waiting {
        let result = waiting.await.unwrap().unwrap().into_inner();
        assert_eq!((result.outcome(), result.reward), (Outcome::Cancelled, None));
    }
    assert_eq!(service.evaluate(request("c", "pass")).await.unwrap().reward, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_cancels_within_a_second_or_keeps() {
    let service = Service::start().await;
    let ask = |id: &str, program: &str, on_disconnect: OnDisconnect| EvaluateRequest {
        run_id: "run".into(),
        on_disconnect: on_disconnect.into(),
        ..request(id, program)
    };

    // The call is dropped: the stream is reset.
    let mut client = service.rewards();
    let request = ask("reset", "hang", OnDisconnect::Cancel);
    let call = tokio::spawn(async move { client.evaluate(request).await });
    within_a_second("it runs", || service.seen.started() == 1).await;
    call.abort();
    within_a_second("it is cancelled", || service.seen.killed() == 1).await;

    // The connection is gone.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let addr = service.app.addr().unwrap();
    let request = ask("gone", "hang 2", OnDisconnect::Cancel);
    runtime.spawn(async move {
        let url = format!("http://{addr}");
        let connect =
            assay_proto::v1::reward_service_client::RewardServiceClient::connect(url).await;
        connect.unwrap().evaluate(request).await
    });
    within_a_second("the second runs", || service.seen.started() == 2).await;
    runtime.shutdown_background();
    within_a_second("it is cancelled, too", || service.seen.killed() == 2).await;

    // One that is kept can be collected later.
    let mut client = service.rewards();
    let request = ask("kept", "sleep 300", OnDisconnect::Keep);
    let call = tokio::spawn(async move { client.evaluate(request).await });
    within_a_second("the third runs", || service.seen.started() == 3).await;
    call.abort();
    let collect = GetResultsRequest {
        run_id: "run".into(),
        wait: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
        ..GetResultsRequest::default()
    };
    let mut outcomes = Vec::new();
    let mut cursor = 0;
    while outcomes.len() < 3 {
        let request = GetResultsRequest { cursor, ..collect.clone() };
        let page = service.rewards().get_results(request).await.unwrap().into_inner();
        assert!(!page.results.is_empty(), "nothing within the wait");
        assert!(page.cursor > cursor);
        cursor = page.cursor;
        outcomes.extend(page.results.iter().map(|one| (one.request_id.clone(), one.outcome())));
    }
    outcomes.sort();
    let expected = [
        ("gone".to_owned(), Outcome::Cancelled),
        ("kept".to_owned(), Outcome::Scored),
        ("reset".to_owned(), Outcome::Cancelled),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(service.seen.killed(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_hold() {
    let service = Service::start().await;
    let deadline = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    let late = EvaluateRequest { deadline, ..request("own", "hang") };
    let result = service.evaluate(late).await.unwrap();
    assert_eq!((result.outcome(), result.reward), (Outcome::DeadlineExceeded, None));
    within_a_second("it was ended", || service.seen.killed() == 1).await;

    let mut late = Request::new(request("grpc", "hang 2"));
    late.set_timeout(Duration::from_millis(100));
    let answer = service.rewards().evaluate(late).await;
    match answer {
        Ok(result) => assert_eq!(result.into_inner().outcome(), Outcome::DeadlineExceeded),
        // tonic's own client reports its timer as CANCELLED.
        Err(status) => {
            assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
        }
    }
    within_a_second("the other one, too", || service.seen.killed() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_are_rejected_with_a_reason() {
    let service = Service::start().await;
    let result = service.evaluate(request("big", &"x".repeat(50_000_000))).await.unwrap();
    assert_eq!(result.outcome(), Outcome::SubmissionRejected);
    assert_eq!(result.failure.unwrap().kind, "too_large");
    assert_eq!(service.seen.started(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_those_who_wait() {
    let service = Service::with(|config| config.grace = Duration::from_millis(300)).await;
    let mut client = service.rewards();
    let call = tokio::spawn(async move { client.evaluate(request("a", "hang")).await });
    within_a_second("it runs", || service.seen.started() == 1).await;
    service.app.stop().await;
    let status = call.await.unwrap().unwrap_err();
    assert!(
        matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_paged_and_cancelled_by_run() {
    let service = Service::start().await;
    for (id, run) in [("a", "one"), ("b", "two"), ("c", "one")] {
        let request = EvaluateRequest { run_id: run.into(), ..request(id, "pass") };
        service.evaluate(request).await.unwrap();
    }
    let page = |cursor, max_results| {
        let run_id = "one".into();
        let mut client = service.rewards();
        async move {
            let request = GetResultsRequest { run_id, cursor, max_results, wait: None };
            client.get_results(request).await.unwrap().into_inner()
        }
    };
    let first = page(0, 1).await;
    let second = page(first.cursor, 0).await;
    let ids: Vec<_> =
        first.results.iter().chain(&second.results).map(|one| one.request_id.as_str()).collect();
    assert_eq!(ids, ["a", "c"]);
    assert!(page(second.cursor, 0).await.results.is_empty());

    let nothing = service.rewards().cancel(CancelRequest::default()).await.unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument);
    let no_run = service.rewards().get_results(GetResultsRequest::default()).await.unwrap_err();
    assert_eq!(no_run.code(), Code::InvalidArgument);
}
