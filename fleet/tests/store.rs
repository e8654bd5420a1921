//! The embedded store: what is accepted is there after a crash, what is answered is answered once.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use assay_fleet::{
    Completion, Embedded, EndedInQueue, Evaluation, Grades, OnDisconnect, OpenError, Priority,
    Queue, ResultStore, Selector, Stopped, StoreError, SubmitError,
};
use assay_repos::{Digest, Mode, PatchFacts, Submission, TaskLimits};
use assay_rewards::{Generation, GradeHeader, GradeRecord, TaskFacts};
use common::{answer, id, request, soon};
use tokio::time::Instant;

fn open(dir: &Path) -> Embedded {
    // A child that another test starts shares the lock of a store that was just dropped, until it
    // executes its program.
    for _ in 0..1000 {
        match Embedded::open(dir, 100) {
            Err(OpenError::InUse(_)) => std::thread::sleep(Duration::from_millis(10)),
            opened => return opened.unwrap(),
        }
    }
    panic!("{} is still in use", dir.display());
}

#[tokio::test]
async fn what_was_accepted_is_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let work: Vec<_> = (0..10).map(|n| request(&format!("r{n}"))).collect();
    first.submit(work.clone()).await.unwrap();
    // A worker has one, another was answered: only the answer counts.
    let lease = first.lease().await.unwrap();
    assert_eq!(lease.evaluation.request_id, id("r0"));
    let lease = first.lease().await.unwrap();
    first.complete(answer(&lease.evaluation, 0.5)).await.unwrap();
    drop(first);

    let second = open(dir.path());
    assert_eq!(second.stats().unanswered, 9);
    let mut left = Vec::new();
    for _ in 0..9 {
        left.push(Arc::unwrap_or_clone(second.lease().await.unwrap().evaluation));
    }
    let wanted: Vec<_> = work.iter().filter(|w| w.request_id != id("r1")).cloned().collect();
    assert_eq!(left, wanted, "lost, changed or out of order");
    let old = second.ticket(&id("r1")).await.unwrap().unwrap().wait().await.unwrap();
    assert_eq!((old.reward, old.sequence), (Some(0.5), 1));
}

#[tokio::test]
async fn the_same_id_is_the_same_request() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut first = store.submit(vec![request("a")]).await.unwrap().remove(0);
    // Again while it waits, twice in one call, with another deadline.
    let retry = Evaluation { priority: Priority::High, ..request("a") };
    let mut again = store.submit(vec![retry, request("a")]).await.unwrap();
    assert_eq!(store.stats().requested, 1);

    let lease = store.lease().await.unwrap();
    assert_eq!(lease.evaluation.priority, Priority::Normal, "the first request holds");
    let stored = store.complete(answer(&lease.evaluation, 1.0)).await.unwrap();
    for ticket in again.iter_mut().chain([&mut first]) {
        assert_eq!(soon("the result", ticket.wait()).await.unwrap(), stored);
    }
    // A second answer is not one.
    let second = store.complete(answer(&lease.evaluation, 0.0)).await.unwrap();
    assert_eq!(second, stored);
    // Again after the answer, also by another service.
    drop(store);
    let store = open(dir.path());
    let mut late = store.submit(vec![request("a")]).await.unwrap().remove(0);
    assert_eq!(*late.wait().await.unwrap(), *stored);
    assert_eq!(store.stats().requested, 0);
}

#[tokio::test]
async fn the_same_id_with_another_body_is_refused_with_its_whole_call() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.submit(vec![request("a")]).await.unwrap();
    let other = Evaluation { submission: Submission::Source("other".into()), ..request("a") };
    for (name, call) in [
        ("alone", vec![other.clone()]),
        ("after a new one", vec![request("b"), other.clone()]),
        (
            "two bodies in one call",
            vec![request("c"), Evaluation { reward: "x".into(), ..request("c") }],
        ),
    ] {
        let error = store.submit(call).await.unwrap_err();
        assert!(matches!(error, SubmitError::Conflict { .. }), "{name}: {error}");
        assert_eq!(store.stats().requested, 1, "{name}");
    }
    // The refused ids are free.
    store.submit(vec![request("b"), request("c")]).await.unwrap();
    assert_eq!(store.stats().requested, 3);
    let nan = Evaluation { external: [("x".to_owned(), f64::NAN)].into(), ..request("d") };
    assert!(matches!(store.submit(vec![nan]).await, Err(SubmitError::Invalid { .. })));
}

#[tokio::test]
async fn a_full_queue_refuses_all_or_nothing_and_known_requests_still_get_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), 3).unwrap();
    store.submit(vec![request("a"), request("b")]).await.unwrap();
    let full = store.submit(vec![request("c"), request("d")]).await.unwrap_err();
    assert!(matches!(full, SubmitError::Busy { unanswered: 2, capacity: 3, .. }), "{full}");
    store.submit(vec![request("c"), request("a")]).await.unwrap();
    assert_eq!(store.submit(vec![request("a"), request("b")]).await.unwrap().len(), 2);
    let many = (0..4).map(|n| request(&format!("m{n}"))).collect();
    let error = store.submit(many).await.unwrap_err();
    assert!(matches!(error, SubmitError::TooMany { requested: 4, capacity: 3 }), "{error}");
    // A leased request still takes its place; an answered one does not.
    let lease = store.lease().await.unwrap();
    assert!(matches!(store.submit(vec![request("d")]).await, Err(SubmitError::Busy { .. })));
    store.complete(answer(&lease.evaluation, 1.0)).await.unwrap();
    store.submit(vec![request("d")]).await.unwrap();
}

#[tokio::test]
async fn concurrent_submissions_of_one_id_are_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let calls = (0..50).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.submit(vec![request("a")]).await.unwrap().remove(0) })
    });
    let tickets = futures::future::join_all(calls.collect::<Vec<_>>()).await;
    assert_eq!(store.stats().requested, 1);
    let lease = store.lease().await.unwrap();
    store.complete(answer(&lease.evaluation, 1.0)).await.unwrap();
    for ticket in tickets {
        assert_eq!(soon("the result", ticket.unwrap().wait()).await.unwrap().reward, Some(1.0));
    }
}

#[tokio::test]
async fn deadlines_and_cancellation_end_requests_in_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let started = std::time::Instant::now();
    let deadline = |ms| Some(SystemTime::now() + Duration::from_millis(ms));
    store
        .submit(vec![
            Evaluation { deadline: deadline(100), ..request("late") },
            Evaluation { deadline: deadline(60_000), ..request("patient") },
            Evaluation { deadline: Some(SystemTime::UNIX_EPOCH), ..request("stale") },
            Evaluation { group_id: "g2".into(), ..request("unwanted") },
            Evaluation { run_id: "other".into(), ..request("other") },
        ])
        .await
        .unwrap();
    let group = Selector::Group { run_id: Some("run".into()), group_id: "g2".into() };
    assert_eq!(store.cancel(&group), 1);
    assert_eq!(store.cancel(&group), 0, "cancelling twice is the same as once");
    let mut ended = Vec::new();
    while ended.len() < 3 {
        for (lease, why) in soon("an end", store.ended()).await {
            assert_eq!(lease.cancelled.is_cancelled(), why == EndedInQueue::Cancelled);
            ended.push((lease.evaluation.request_id.to_string(), why));
        }
    }
    ended.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        ended,
        [
            ("late".to_owned(), EndedInQueue::DeadlineExceeded),
            ("stale".to_owned(), EndedInQueue::DeadlineExceeded),
            ("unwanted".to_owned(), EndedInQueue::Cancelled),
        ]
    );
    assert!(started.elapsed() >= Duration::from_millis(90), "an end came too early");

    // What a worker has is told by its token.
    let lease = store.lease().await.unwrap();
    assert_eq!(lease.evaluation.request_id, id("patient"));
    let unknown = Selector::Requests(vec![id("patient"), id("nobody")]);
    assert_eq!(store.cancel(&unknown), 1);
    assert!(lease.cancelled.is_cancelled());
    assert_eq!(store.cancel(&Selector::Run("other".into())), 1);
}

#[tokio::test]
async fn a_hang_up_cancels_when_it_was_meant_to_and_nobody_else_waits() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let cancel = |name| Evaluation { on_disconnect: OnDisconnect::Cancel, ..request(name) };
    let submit = async |work| store.submit(vec![work]).await.unwrap().remove(0);

    drop(submit(request("kept")).await);
    drop(submit(cancel("kept too")).await.keep_on_drop());
    drop(submit(cancel("dropped")).await);
    drop(submit(request("dropped too")).await.cancel_on_drop());
    let watched = submit(cancel("watched")).await;
    drop(submit(cancel("watched")).await);
    let ended: BTreeSet<_> = soon("the ends", store.ended())
        .await
        .into_iter()
        .map(|(lease, why)| {
            (lease.evaluation.request_id.to_string(), why == EndedInQueue::Cancelled)
        })
        .collect();
    assert_eq!(ended, [("dropped".to_owned(), true), ("dropped too".to_owned(), true)].into());
    assert_eq!(store.stats().queued, 3);

    // A caller that hangs up before it is told that its request was accepted hangs up, too.
    let aborted = store.submit(vec![cancel("aborted")]);
    drop(futures::poll!(Box::pin(aborted))); // pending, or accepted in this very moment
    let ended = soon("the end", store.ended()).await;
    assert_eq!(ended[0].0.evaluation.request_id, id("aborted"));

    // A service that stops drops tickets; that is no hang-up.
    store.close();
    drop(watched);
    assert_eq!(store.stats().queued, 3);
    assert!(store.submit(vec![request("too late")]).await.is_err());
    let mut waiting = store.ticket(&id("kept")).await.unwrap().unwrap();
    assert_eq!(store.release(), 3 + 3, "the three ends were not answered");
    assert_eq!(soon("the stop", waiting.wait()).await, Err(Stopped));
}

#[tokio::test]
async fn results_come_in_order_by_cursor_and_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let work: Vec<_> = (0..5).map(|n| request(&format!("r{n}"))).collect();
    let other = Evaluation { run_id: "other".into(), ..request("other") };
    store.submit(work.iter().cloned().chain([other.clone()]).collect()).await.unwrap();
    let soon_ms = |ms| Instant::now() + Duration::from_millis(ms);

    let empty = store.results("run", 0, 10, soon_ms(10)).await.unwrap();
    assert_eq!((empty.results.len(), empty.cursor, empty.pending), (0, 0, 5));
    let poll = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.results("run", 0, 10, soon_ms(20_000)).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(30)).await;
    store.complete(answer(&other, 0.0)).await.unwrap();
    store.complete(answer(&work[3], 0.3)).await.unwrap();
    let page = poll.await.unwrap();
    assert_eq!((page.results[0].reward, page.cursor, page.pending), (Some(0.3), 1, 4));
    for n in [0, 1, 2, 4] {
        store.complete(answer(&work[n], n as f64)).await.unwrap();
    }
    let page = store.results("run", 1, 3, soon_ms(0)).await.unwrap();
    let rewards: Vec<_> = page.results.iter().map(|result| result.reward.unwrap()).collect();
    assert_eq!((rewards, page.cursor), (vec![0.0, 1.0, 2.0], 4));
    let page = store.results("run", page.cursor, 3, soon_ms(0)).await.unwrap();
    assert_eq!((page.results.len(), page.cursor, page.pending), (1, 5, 0));
    // Numbers survive as they are.
    assert_eq!(page.results[0].reward, Some(4.0));

    // Sequences go on where they were, whatever was deleted and whoever serves.
    store.purge(Duration::ZERO).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    store.purge(Duration::ZERO).await.unwrap();
    assert!(store.ticket(&id("r0")).await.unwrap().is_none());
    drop(store);
    let store = open(dir.path());
    store.submit(vec![request("new")]).await.unwrap();
    let stored = store.complete(answer(&request("new"), 1.0)).await.unwrap();
    assert_eq!(stored.sequence, 6);
}

#[tokio::test]
async fn a_journal_entry_of_another_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop({
        let store = open(dir.path());
        store.submit(vec![request("odd"), request("good")]).await.unwrap();
        store
    });
    let db = rusqlite::Connection::open(dir.path().join("assay.db")).unwrap();
    db.execute("UPDATE requests SET kind = 'episode' WHERE request_id = 'odd'", []).unwrap();
    drop(db);
    let store = open(dir.path());
    assert_eq!(store.lease().await.unwrap().evaluation.request_id, id("good"));
    assert!(store.lease().await.is_none());
    // Asked for again, it runs.
    store.submit(vec![request("odd")]).await.unwrap();
    assert_eq!(store.lease().await.unwrap().evaluation.request_id, id("odd"));
}

/// Also while the service that stored them still runs, and whatever else it stores.
#[tokio::test]
async fn grades_can_be_read_beside_the_service() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Grades::open(dir.path()), Err(OpenError::Io { .. })), "nothing there");
    let store = open(dir.path());
    let grades = Grades::open(dir.path()).unwrap();
    let read = || {
        let mut found = Vec::new();
        let read: Result<(), StoreError> = grades.each(|id, body| {
            let record = GradeRecord::from_json(body).unwrap();
            assert_eq!(record.id().as_str(), id);
            found.push(record.backend);
            Ok(())
        });
        read.unwrap();
        found.sort();
        found
    };
    assert!(read().is_empty());
    for (name, backend) in [("a", "one"), ("b", "two"), ("c", "two")] {
        store.submit(vec![request(name)]).await.unwrap();
        let lease = store.lease().await.unwrap();
        let grade = GradeHeader {
            task: lease.evaluation.task.clone(),
            task_digest: Digest::of("task"),
            image_digest: String::new(),
            submission_digest: Digest::of("submission"),
            backend: backend.into(),
            mode: Mode::Guarded,
            limits: TaskLimits::default(),
            generation: Generation::default(),
            external: BTreeMap::new(),
            task_facts: TaskFacts::default(),
            runner: String::new(),
        };
        let grade = Arc::new(grade.grade(PatchFacts::default(), Vec::new(), &[], None));
        let done = Completion { grade: Some(grade), ..answer(&lease.evaluation, 1.0) };
        store.complete(done).await.unwrap();
    }
    assert_eq!(read(), ["one", "two"], "equal records are one");
    let stopped: Result<(), StoreError> = grades.each(|_, _| Err(StoreError::Stopped));
    assert!(matches!(stopped, Err(StoreError::Stopped)), "an error of the caller ends it");
}

#[tokio::test]
async fn a_purge_takes_old_results_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.submit(vec![request("done"), request("waiting")]).await.unwrap();
    store.complete(answer(&request("done"), 1.0)).await.unwrap();
    store.purge(Duration::from_secs(3600)).await.unwrap();
    assert!(store.ticket(&id("done")).await.unwrap().is_some(), "young, but gone");
    tokio::time::sleep(Duration::from_millis(5)).await;
    store.purge(Duration::ZERO).await.unwrap();
    assert!(store.ticket(&id("done")).await.unwrap().is_none());
    assert!(store.ticket(&id("waiting")).await.unwrap().is_some());
}

/// Kills a process that submits and answers as fast as it can, at a moment of chance, and checks
/// that what it was told holds: every accepted request and every answer that it saw is there.
#[test]
fn nothing_that_was_promised_is_lost_by_sigkill() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Some(dir) = std::env::var_os("ASSAY_TEST_KILLED") {
        runtime().block_on(promise_forever(Path::new(&dir)));
    }
    let mut promises = 0;
    for round in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "nothing_that_was_promised_is_lost_by_sigkill"])
            .env("ASSAY_TEST_KILLED", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (told, lines) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = told.send(line);
            }
        });
        let mut promised: Vec<String> = Vec::new();
        let started = std::time::Instant::now();
        while promised.len() < 20 && started.elapsed() < Duration::from_secs(20) {
            promised.extend(lines.recv_timeout(Duration::from_secs(1)));
        }
        std::thread::sleep(Duration::from_millis(3 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap();
        promised.extend(lines.try_iter());

        let answered: BTreeSet<_> =
            promised.iter().filter_map(|line| line.strip_prefix("answered ")).collect();
        runtime().block_on(async {
            let store = open(dir.path());
            let waiting: BTreeSet<_> =
                futures::future::join_all((0..store.stats().unanswered).map(|_| store.lease()))
                    .await
                    .into_iter()
                    .map(|lease| lease.unwrap().evaluation.request_id.to_string())
                    .collect();
            for name in promised.iter().filter_map(|line| line.strip_prefix("accepted ")) {
                promises += 1;
                let ticket = store.ticket(&id(name)).await.unwrap();
                assert!(ticket.is_some(), "`{name}` was accepted and is lost");
                let again = waiting.contains(name);
                assert!(!(again && answered.contains(name)), "`{name}` runs again");
                assert!(again || ticket.is_some());
            }
            let page = store.results("run", 0, usize::MAX, Instant::now()).await.unwrap();
            let stored: BTreeSet<_> =
                page.results.iter().map(|result| result.request_id.as_str()).collect();
            assert!(stored.is_superset(&answered), "a visible answer is lost");
            assert_eq!(stored.len(), page.results.len());
            assert!(stored.iter().all(|name| !waiting.contains(*name)));
        });
    }
    assert!(promises >= 50, "the child was too slow to test anything: {promises} promises");
}

async fn promise_forever(dir: &Path) -> ! {
    let store = open(dir);
    let mut out = std::io::stdout();
    for n in 0_u64.. {
        let work: Vec<_> = (0..3).map(|k| request(&format!("r{n}.{k}"))).collect();
        let tickets = store.submit(work).await.unwrap();
        for ticket in &tickets {
            writeln!(out, "accepted {}", ticket.request_id()).unwrap();
        }
        let lease = store.lease().await.unwrap();
        store.complete(answer(&lease.evaluation, 1.0)).await.unwrap();
        writeln!(out, "answered {}", lease.evaluation.request_id).unwrap();
        if store.stats().unanswered > 90 {
            for _ in 0..90 {
                let lease = store.lease().await.unwrap();
                store.complete(answer(&lease.evaluation, 1.0)).await.unwrap();
                writeln!(out, "answered {}", lease.evaluation.request_id).unwrap();
            }
        }
    }
    unreachable!("the numbers ran out")
}
