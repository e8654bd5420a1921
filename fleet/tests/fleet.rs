//! The fleet with a backend that does what each test says.

mod common;

use std::{
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::{Duration, SystemTime},
};

use assay_fleet::{
    Backends, Evaluation, EvaluationResult, Evaluator, Fleet, FleetConfig, FleetHandle,
    OnDisconnect, Priority, Selector, Stats, Stop, Stopped, SubmitError,
};
use assay_repos::Submission;
use assay_rewards::{Fault, Outcome, score};
use assay_sandbox::{BackendError, Execution, ImageRef, LimitKind, Termination};
use common::{
    id, soon,
    stage::{Call, Stage, broken, contents, exited, is_grader, limit, printed, reported},
};
use tempfile::TempDir;
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A fleet with a catalog, in directories of its own.
struct Harness {
    dir: TempDir,
    handle: FleetHandle,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Harness {
    fn start(stage: &Stage) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), stage, |_| {})
    }

    fn start_in(dir: TempDir, stage: &Stage, set: impl FnOnce(&mut FleetConfig)) -> Self {
        let config = config(dir.path(), stage, set);
        let (fleet, handle) = Fleet::start(config).unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(fleet.run(stop.clone()));
        Self { dir, handle, stop, running }
    }

    /// Ends the fleet and returns its directories.
    async fn stop(self) -> TempDir {
        self.stop.cancel();
        soon("the end of the fleet", self.running).await.unwrap();
        self.dir
    }

    async fn evaluate(&self, evaluation: Evaluation) -> Arc<EvaluationResult> {
        let mut ticket = self.handle.submit(vec![evaluation]).await.unwrap().remove(0);
        soon("a result", ticket.wait()).await.unwrap()
    }
}

fn config(dir: &Path, stage: &Stage, set: impl FnOnce(&mut FleetConfig)) -> FleetConfig {
    let catalog = common::catalog(&dir.join("tasks"));
    let image = ImageRef::Rootfs { path: "/rootfs".into(), digest: "sha256:image".into() };
    let backends =
        Backends::new().with_image("python", Arc::new(stage.clone()), image, "sha256:image");
    let mut config = FleetConfig::new(dir.join("data"), catalog, backends);
    config.workers = 4;
    set(&mut config);
    config
}

/// A program for task `task`. Different names are different programs.
fn program(name: &str, task: &str, text: &str) -> Evaluation {
    let submission = Submission::Source(format!("# {name}\n{text}\n"));
    Evaluation {
        run_id: "run".into(),
        ..Evaluation::new(id(name), task.parse().unwrap(), submission)
    }
}

/// The same program, whoever asks.
fn same(name: &str) -> Evaluation {
    let submission = Submission::Source("print(1)\n".into());
    Evaluation { submission, ..program(name, "t.exit", "") }
}

fn in_ms(ms: u64) -> Option<SystemTime> {
    Some(SystemTime::now() + Duration::from_millis(ms))
}

/// A stage whose commands wait until the gate is opened.
fn gated() -> (Stage, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    let stage = Stage::new({
        let gate = Arc::clone(&gate);
        move |_| {
            let gate = Arc::clone(&gate);
            async move {
                gate.notified().await;
                Ok(exited(0))
            }
        }
    });
    (stage, gate)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(what, wait).await;
}

fn assert_adds_up(stats: Stats) {
    assert_eq!(stats.requested, stats.answered() + stats.unanswered as u64, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn retries_wait_longer_each_time_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(async |_| Err(broken()));
    let set = config(dir.path(), &stage, |_| {});
    let evaluator = Arc::new(Evaluator::new(set.catalog, set.backends));
    let started = tokio::time::Instant::now();
    let verdict = evaluator.evaluate(program("r", "t.exit", "")).await.unwrap();
    assert_eq!((verdict.record.outcome, verdict.retries), (Outcome::InfraError, 2));
    assert_eq!(started.elapsed().as_millis(), 100 + 400);
    // A backend that hangs is given up as well, a minute after its command's limit.
    let stage = Stage::new(async |_| std::future::pending().await);
    let set = config(dir.path(), &stage, |_| {});
    let wall_s = set.catalog.get(&"t.exit".parse().unwrap()).unwrap().limits.wall_s;
    let evaluator = Arc::new(Evaluator::new(set.catalog, set.backends));
    let started = tokio::time::Instant::now();
    let verdict = evaluator.evaluate(program("h", "t.exit", "")).await.unwrap();
    let failure = verdict.record.failure.unwrap();
    assert_eq!(
        (verdict.record.outcome, failure.kind.as_str()),
        (Outcome::InfraError, "backend_hung")
    );
    assert_eq!(started.elapsed().as_secs(), 3 * (wall_s as u64 + 60));
    // Nothing at all handed in: what the tests say of the revision as it is.
    let stage = Stage::honest();
    let set = config(dir.path(), &stage, |_| {});
    let evaluator = Arc::new(Evaluator::new(set.catalog, set.backends));
    let base = evaluator.baseline("t.exit".parse().unwrap()).await.unwrap();
    assert_eq!((base.record.outcome, base.record.patch.empty), (Outcome::Scored, true));
    assert!(evaluator.baseline("t.none".parse().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_result_that_cannot_be_stored_is_not_seen() {
    let stage = Stage::honest();
    let fleet = Harness::start(&stage);
    let db = rusqlite::Connection::open(fleet.dir.path().join("data/assay.db")).unwrap();
    db.execute_batch("ALTER TABLE results RENAME TO hidden").unwrap();
    let mut ticket = fleet.handle.submit(vec![program("r", "t.exit", "")]).await.unwrap().remove(0);
    assert_eq!(soon("the end", ticket.wait()).await, Err(Stopped));
    assert_adds_up(fleet.handle.stats());
    assert_eq!(fleet.handle.stats().answered(), 0);

    // It is asked for again when the disk is well: accepted once, run again, answered once.
    db.execute_batch("ALTER TABLE hidden RENAME TO results").unwrap();
    let result = fleet.evaluate(program("r", "t.exit", "")).await;
    assert_eq!((result.reward, result.sequence), (Some(1.0), 1));
    assert_adds_up(fleet.handle.stats());
}

#[tokio::test]
async fn a_submission_becomes_a_reward() {
    let stage = Stage::honest();
    let fleet = Harness::start(&stage);
    let good = fleet.evaluate(program("good", "t.exit", "")).await;
    assert_eq!((good.outcome, good.reward), (Outcome::Scored, Some(1.0)), "{good:?}");
    assert_eq!((good.sequence, good.cached, good.tests.passed), (1, false, 1));
    let bad = fleet.evaluate(program("bad", "t.exit", "exit 3")).await;
    assert_eq!((bad.outcome, bad.reward), (Outcome::Scored, Some(0.0)), "{bad:?}");
    assert_eq!(bad.failure, None, "a failing test is no failure");

    // The record is stored under its name and gives the same number again.
    let record = fleet.handle.grade(good.grade_id.as_ref().unwrap()).await.unwrap().unwrap();
    assert_eq!(record.id(), good.grade_id.clone().unwrap());
    let task = fleet.handle.catalog().get(&good.task).unwrap();
    let spec = fleet.handle.rewards().find_for("", task.submission.kind).unwrap().spec;
    assert_eq!(score(&record, &spec).reward, good.reward);
    assert_eq!(good.digests.submission, record.submission_digest.to_string());

    let page = fleet.handle.results("run", 0, 10, Duration::ZERO).await.unwrap();
    assert_eq!((page.results, page.pending), (vec![good, bad], 0));
    assert_adds_up(fleet.handle.stats());
}

#[tokio::test]
async fn equal_submissions_share_one_run() {
    let (stage, gate) = gated();
    let fleet = Harness::start(&stage);
    let group: Vec<_> = (0..20)
        .map(|n| {
            let mut evaluation = same(&format!("r{n}"));
            evaluation.generation.tokens = n;
            evaluation.external.insert("n".into(), n as f64);
            evaluation
        })
        .collect();
    let tickets = fleet.handle.submit(group.clone()).await.unwrap();
    until("the run", || stage.counts.running.load(SeqCst) == 1).await;
    gate.notify_one();
    let mut grades = std::collections::BTreeSet::new();
    let mut cached = 0;
    for (mut ticket, asked) in tickets.into_iter().zip(&group) {
        let result = soon("a result", ticket.wait()).await.unwrap();
        assert_eq!((result.outcome, result.reward), (Outcome::Scored, Some(1.0)));
        assert_eq!(result.request_id, asked.request_id);
        assert_eq!(result.generation, asked.generation, "another's generation came back");
        cached += usize::from(result.cached);
        let record = fleet.handle.grade(result.grade_id.as_ref().unwrap()).await.unwrap().unwrap();
        assert_eq!(record.external, asked.external);
        grades.insert(record.id());
    }
    assert_eq!((stage.created(), cached, grades.len()), (1, 19, 20));
    assert_eq!(fleet.handle.stats().cached, 19);

    // Later, and by another service in the same place.
    assert!(fleet.evaluate(same("later")).await.cached);
    let dir = fleet.stop().await;
    let fleet = Harness::start_in(dir, &stage, |_| {});
    assert!(fleet.evaluate(same("much later")).await.cached);
    assert_eq!(stage.created(), 1);
    // Other text, another task, another stop policy: another run.
    for other in [
        Evaluation { submission: Submission::Source("print(2)\n".into()), ..same("text") },
        Evaluation { task: "t.two".parse().unwrap(), ..same("task") },
        Evaluation { stop: Stop::Decisive, ..same("stop") },
    ] {
        gate.notify_one();
        let mut ticket = fleet.handle.submit(vec![other]).await.unwrap().remove(0);
        let opened = tokio::time::timeout(Duration::from_millis(100), ticket.wait()).await;
        let result = match opened {
            Ok(result) => result.unwrap(),
            Err(_) => {
                gate.notify_one();
                soon("a result", ticket.wait()).await.unwrap()
            }
        };
        assert!(!result.cached, "{}", result.request_id);
    }
}

#[tokio::test]
async fn flaky_tasks_and_failures_of_ours_are_not_shared() {
    let stage = Stage::honest();
    let fleet = Harness::start(&stage);
    for n in 0..3 {
        let flaky = Evaluation { task: "t.flaky".parse().unwrap(), ..same(&format!("f{n}")) };
        assert!(!fleet.evaluate(flaky).await.cached);
    }
    assert_eq!(stage.created(), 3);
    stage.counts.fail_create.store(3, SeqCst);
    assert_eq!(fleet.evaluate(same("unlucky")).await.outcome, Outcome::InfraError);
    let lucky = fleet.evaluate(same("lucky")).await;
    assert_eq!((lucky.outcome, lucky.cached), (Outcome::Scored, false));
}

#[tokio::test]
async fn who_waits_for_another_run_is_in_nobodys_way() {
    let (stage, gate) = gated();
    let dir = tempfile::tempdir().unwrap();
    let fleet = Harness::start_in(dir, &stage, |config| config.workers = 2);
    let mut first = fleet.handle.submit(vec![same("a")]).await.unwrap();
    // Or another of them could be the one that runs.
    until("the run", || stage.counts.running.load(SeqCst) == 1).await;
    first.extend(fleet.handle.submit(vec![same("b"), same("c")]).await.unwrap());
    let mut other = fleet.handle.submit(vec![program("d", "t.exit", "")]).await.unwrap().remove(0);
    until("both runs", || stage.counts.running.load(SeqCst) == 2).await;

    // When the one that runs is called off, one of the others takes over.
    let running = fleet.handle.cancel(&Selector::Requests(vec![id("a")]));
    assert_eq!(running, 1);
    until("the next run", || stage.created() == 3).await;
    // It may be on its way to the gate still.
    let d = async {
        loop {
            tokio::select! {
                result = other.wait() => break result,
                () = tokio::time::sleep(Duration::from_millis(10)) => gate.notify_waiters(),
            }
        }
    };
    assert_eq!(soon("d", d).await.unwrap().outcome, Outcome::Scored);
    let mut outcomes = Vec::new();
    for mut ticket in first {
        gate.notify_one();
        outcomes.push(soon("a result", ticket.wait()).await.unwrap().outcome);
    }
    assert_eq!(outcomes, [Outcome::Cancelled, Outcome::Scored, Outcome::Scored]);
    assert_eq!(stage.created(), 3);
    assert_eq!(stage.counts.killed.load(SeqCst), 1);
}

#[tokio::test]
async fn workers_bound_what_runs() {
    let stage = Stage::new(async |_| {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(exited(0))
    });
    let fleet = Harness::start(&stage);
    let work = (0..40).map(|n| program(&format!("r{n}"), "t.exit", "")).collect();
    for mut ticket in fleet.handle.submit(work).await.unwrap() {
        soon("a result", ticket.wait()).await.unwrap();
    }
    assert_eq!(stage.counts.most_running.load(SeqCst), 4);
    assert_eq!(fleet.handle.stats().scored, 40);
}

#[tokio::test]
async fn an_infra_fault_is_retried_on_a_fresh_sandbox_then_reported() {
    let stage = Stage::honest();
    let fleet = Harness::start(&stage);
    stage.counts.fail_create.store(2, SeqCst);
    let lucky = fleet.evaluate(program("lucky", "t.exit", "")).await;
    assert_eq!((lucky.outcome, lucky.reward), (Outcome::Scored, Some(1.0)));
    assert_eq!((stage.created(), fleet.handle.stats().retried), (3, 2));

    stage.counts.fail_create.store(usize::MAX, SeqCst);
    let unlucky = fleet.evaluate(program("unlucky", "t.exit", "")).await;
    let failure = unlucky.failure.as_ref().unwrap();
    assert_eq!((unlucky.outcome, unlucky.reward), (Outcome::InfraError, None));
    assert_eq!((failure.fault, failure.attempts, failure.retryable), (Fault::Infra, 3, true));
    assert!(failure.detail.contains("mount overlay: out of luck"), "{}", failure.detail);
    assert_eq!(stage.created(), 6);
    assert_eq!(
        unlucky.mask.as_deref().map(str::is_empty),
        Some(false),
        "no reason to leave it out"
    );
}

/// What a backend can do wrong, and what the machine can do to it.
#[tokio::test]
async fn no_fault_of_ours_ever_gives_a_number() {
    type Wrong = fn(Call) -> Result<Execution, BackendError>;
    let cases: [(&str, Wrong, Outcome, Fault, usize); 8] = [
        ("run fails", |_| Err(broken()), Outcome::InfraError, Fault::Infra, 3),
        (
            "backend gone",
            |_| Err(BackendError::Gone { backend: "fake", what: "died".into() }),
            Outcome::InfraError,
            Fault::Infra,
            3,
        ),
        (
            "no image",
            |_| Err(BackendError::ImageNotFound("python".into())),
            Outcome::InfraError,
            Fault::Infra,
            1,
        ),
        ("bad spec", |_| Err(BackendError::Spec("x".into())), Outcome::InfraError, Fault::Infra, 1),
        (
            "can't",
            |_| Err(BackendError::Unsupported { backend: "fake", what: "do it".into() }),
            Outcome::InvalidTask,
            Fault::Task,
            1,
        ),
        ("starved", |_| Ok(limit(LimitKind::WallStarved)), Outcome::InfraError, Fault::Infra, 3),
        ("panic", |_| panic!("on purpose"), Outcome::InfraError, Fault::Infra, 1),
        (
            "starved at the second check",
            |call| Ok(if call.number % 2 == 0 { exited(0) } else { limit(LimitKind::WallStarved) }),
            Outcome::InfraError,
            Fault::Infra,
            6,
        ),
    ];
    for (name, wrong, outcome, fault, created) in cases {
        let stage = Stage::new(move |call| async move { wrong(call) });
        let fleet = Harness::start(&stage);
        let task = if name.ends_with("check") { "t.two" } else { "t.exit" };
        let result = fleet.evaluate(program("r", task, "")).await;
        let failure = result.failure.clone().unwrap_or_else(|| panic!("{name}: {result:?}"));
        assert_eq!((result.reward, result.outcome), (None, outcome), "{name}: {failure:?}");
        assert_eq!((failure.fault, stage.created()), (fault, created), "{name}: {failure:?}");
        assert!(!result.is_valid(), "{name}");
        assert_adds_up(fleet.handle.stats());
    }
}

#[tokio::test]
async fn a_task_that_cannot_run_here_gives_no_number() {
    let fleet = Harness::start(&Stage::honest());
    let result = fleet.evaluate(program("r", "t.docker", "")).await;
    let failure = result.failure.as_ref().unwrap();
    assert_eq!((result.outcome, result.reward), (Outcome::InfraError, None));
    assert!(failure.detail.contains("needs a Docker engine"), "{}", failure.detail);

    // Its files are gone when the service needs them.
    let private = fleet.dir.path().join("tasks/function/private");
    std::fs::rename(&private, fleet.dir.path().join("away")).unwrap();
    let result = fleet.evaluate(program("f", "t.function", "def f(x): return x")).await;
    let failure = result.failure.as_ref().unwrap();
    assert_eq!((result.outcome, result.reward), (Outcome::InfraError, None), "{failure:?}");
    assert_eq!((&*failure.kind, failure.attempts), ("files_changed", 3), "{failure:?}");
    // They are back.
    std::fs::rename(fleet.dir.path().join("away"), &private).unwrap();
    let found = fleet.handle.evaluator();
    let again = program("g", "t.function", "def f(x): return x");
    let verdict = found.evaluate(again).await.unwrap();
    assert_ne!(verdict.record.failure.map(|failure| failure.kind), Some("files_changed".into()));
}

#[tokio::test]
async fn a_rejected_submission_has_its_number_and_never_runs() {
    let stage = Stage::honest();
    let fleet = Harness::start(&stage);
    for (name, task, submission) in [
        ("empty", "t.exit", Submission::Source(String::new())),
        ("no patch", "t.patch", Submission::Patch("not a patch".into())),
        ("no code", "t.function", Submission::Completion(String::new())),
    ] {
        let result = fleet.evaluate(Evaluation { submission, ..program(name, task, "") }).await;
        assert_eq!(result.outcome, Outcome::SubmissionRejected, "{name}: {result:?}");
        assert_eq!(result.failure.as_ref().unwrap().fault, Fault::Submission, "{name}");
        assert_eq!(result.reward, Some(0.0), "{name}");
    }
    assert_eq!(stage.created(), 0);
}

#[tokio::test]
async fn what_a_submission_does_to_itself_is_its_own() {
    for (kind, name) in [
        (LimitKind::Wall, "wall_limit"),
        (LimitKind::Cpu, "cpu_limit"),
        (LimitKind::Memory, "memory_limit"),
    ] {
        let stage = Stage::new(move |_| async move { Ok(limit(kind)) });
        let fleet = Harness::start(&stage);
        let result = fleet.evaluate(program("r", "t.exit", "")).await;
        let failure = result.failure.as_ref().unwrap();
        assert_eq!((failure.kind.as_str(), failure.fault), (name, Fault::Submission));
        assert_eq!((result.outcome, result.reward), (Outcome::Scored, Some(0.0)), "{name}");
        assert_eq!(stage.created(), 1, "{name} was retried");
    }
}

#[tokio::test]
async fn deadlines_and_cancellation_hold_while_it_runs() {
    let stage = Stage::endless();
    let fleet = Harness::start(&stage);
    let started = std::time::Instant::now();
    let late = Evaluation { deadline: in_ms(150), ..program("late", "t.exit", "") };
    let result = fleet.evaluate(late).await;
    assert_eq!((result.outcome, result.reward), (Outcome::DeadlineExceeded, None));
    assert!((140..1000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert_eq!(stage.counts.killed.load(SeqCst), 1);

    let mut ticket =
        fleet.handle.submit(vec![program("no", "t.exit", "")]).await.unwrap().remove(0);
    until("the run", || stage.counts.running.load(SeqCst) == 1).await;
    assert_eq!(fleet.handle.cancel(&Selector::Run("run".into())), 1);
    let started = std::time::Instant::now();
    let result = soon("the end", ticket.wait()).await.unwrap();
    assert_eq!((result.outcome, result.reward), (Outcome::Cancelled, None));

    // A caller that hangs up.
    let hung = Evaluation { on_disconnect: OnDisconnect::Cancel, ..program("hung", "t.exit", "") };
    let ticket = fleet.handle.submit(vec![hung]).await.unwrap();
    until("the run", || stage.counts.running.load(SeqCst) == 1).await;
    drop(ticket);
    until("the kill", || stage.counts.killed.load(SeqCst) == 3).await;
    assert!(started.elapsed() < Duration::from_secs(1), "cancelling took {:?}", started.elapsed());
    let result = soon("the end", fleet.handle.wait(&id("hung"))).await.unwrap().unwrap();
    assert_eq!(result.outcome, Outcome::Cancelled);
    assert_adds_up(fleet.handle.stats());
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let stage = Stage::endless();
    let dir = tempfile::tempdir().unwrap();
    let fleet = Harness::start_in(dir, &stage, |config| config.queue_capacity = 5);
    let work = |from: usize, count: usize| -> Vec<_> {
        (from..from + count).map(|n| program(&format!("r{n}"), "t.exit", "")).collect()
    };
    fleet.handle.submit(work(0, 5)).await.unwrap();
    match fleet.handle.submit(work(5, 1)).await {
        Err(SubmitError::Busy { retry_after, unanswered: 5, capacity: 5 }) => {
            assert!(retry_after >= Duration::from_millis(100), "{retry_after:?}");
        }
        other => panic!("{other:?}"),
    }
    fleet.handle.submit(work(0, 2)).await.unwrap();
    let error = fleet.handle.submit(vec![program("x", "t.nothing", "")]).await.unwrap_err();
    assert!(matches!(error, SubmitError::UnknownTask { .. }), "{error}");
    let reward = Evaluation { reward: "no-such".into(), ..program("x", "t.exit", "") };
    let error = fleet.handle.submit(vec![reward]).await.unwrap_err();
    assert!(matches!(error, SubmitError::UnknownReward { .. }), "{error}");
    assert!(fleet.handle.submit(Vec::new()).await.unwrap().is_empty());
    assert!(fleet.handle.wait(&id("x")).await.unwrap().is_none());
}

#[tokio::test]
async fn urgent_work_runs_first() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let (stage, gate) = {
        let (order, gate) = (Arc::clone(&order), Arc::new(Notify::new()));
        let stage = Stage::new({
            let gate = Arc::clone(&gate);
            move |call| {
                let text = String::from_utf8(contents(&call)).unwrap();
                let name = text.split("# ").nth(1).unwrap().lines().next().unwrap().to_owned();
                let (order, gate) = (Arc::clone(&order), Arc::clone(&gate));
                async move {
                    if name == "first" {
                        gate.notified().await;
                    }
                    order.lock().unwrap().push(name);
                    Ok(exited(0))
                }
            }
        });
        (stage, gate)
    };
    let dir = tempfile::tempdir().unwrap();
    let fleet = Harness::start_in(dir, &stage, |config| config.workers = 1);
    let mut tickets = fleet.handle.submit(vec![program("first", "t.exit", "")]).await.unwrap();
    until("the run", || stage.counts.running.load(SeqCst) == 1).await;
    for (name, priority) in [
        ("low", Priority::Low),
        ("normal 1", Priority::Normal),
        ("high 1", Priority::High),
        ("normal 2", Priority::Normal),
        ("high 2", Priority::High),
    ] {
        let work = Evaluation { priority, ..program(name, "t.exit", "") };
        tickets.extend(fleet.handle.submit(vec![work]).await.unwrap());
    }
    gate.notify_one();
    for mut ticket in tickets {
        soon("a result", ticket.wait()).await.unwrap();
    }
    let order = order.lock().unwrap().clone();
    assert_eq!(order, ["first", "high 1", "high 2", "normal 1", "normal 2", "low"]);
}

#[tokio::test]
async fn a_stop_lets_work_finish_and_keeps_the_rest() {
    let (stage, gate) = gated();
    let dir = tempfile::tempdir().unwrap();
    let fleet = Harness::start_in(dir, &stage, |config| config.workers = 1);
    let cancel =
        |name| Evaluation { on_disconnect: OnDisconnect::Cancel, ..program(name, "t.exit", "") };
    let work = vec![cancel("runs"), cancel("waits"), program("waits too", "t.exit", "")];
    let mut tickets = fleet.handle.submit(work).await.unwrap();
    until("the run", || stage.counts.running.load(SeqCst) == 1).await;
    fleet.stop.cancel();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(fleet.handle.submit(vec![program("new", "t.exit", "")]).await.is_err());
    gate.notify_one();
    assert_eq!(soon("it", tickets[0].wait()).await.unwrap().outcome, Outcome::Scored);
    assert_eq!(soon("the stop", tickets[1].wait()).await, Err(Stopped));
    drop(tickets);
    let dir = fleet.stop().await;

    // What takes longer than the grace period runs again, from the start.
    let fleet = Harness::start_in(dir, &stage, |config| config.grace = Duration::from_millis(10));
    assert_eq!(fleet.handle.stats().requested, 2);
    until("the runs", || stage.counts.running.load(SeqCst) == 2).await;
    let dir = fleet.stop().await;
    assert_eq!(stage.counts.running.load(SeqCst), 0);

    let fleet = Harness::start_in(dir, &Stage::honest(), |_| {});
    for name in ["waits", "waits too"] {
        let result = soon("it", fleet.handle.wait(&id(name))).await.unwrap().unwrap();
        assert_eq!(result.outcome, Outcome::Scored, "{name}");
    }
    let page = fleet.handle.results("run", 0, 10, Duration::ZERO).await.unwrap();
    assert_eq!(page.results.len(), 3, "something has two results, or none");
}

#[tokio::test]
async fn a_service_that_breaks_off_runs_its_work_again() {
    let stage = Stage::endless();
    let fleet = Harness::start(&stage);
    let work: Vec<_> = (0..10).map(|n| program(&format!("r{n}"), "t.exit", "")).collect();
    fleet.handle.submit(work.clone()).await.unwrap();
    until("the runs", || stage.counts.running.load(SeqCst) == 4).await;
    let Harness { dir, handle, running, .. } = fleet;
    running.abort();
    let _ = running.await;
    drop(handle);
    until("the kills", || stage.counts.running.load(SeqCst) == 0).await;

    let fleet = Harness::start_in(dir, &Stage::honest(), |_| {});
    // The client doesn't know either, and asks again.
    let again = fleet.handle.submit(work).await.unwrap();
    for mut ticket in again {
        assert_eq!(soon("a result", ticket.wait()).await.unwrap().reward, Some(1.0));
    }
    let stats = fleet.handle.stats();
    assert_eq!((stats.requested, stats.scored), (10, 10));
}

#[tokio::test]
async fn expected_outputs_never_enter_a_sandbox() {
    let stage = Stage::new(async |call: Call| {
        let all = String::from_utf8_lossy(&contents(&call)).into_owned();
        assert!(!all.contains("expected-"), "the sandbox holds an expected output: {all}");
        let input = String::from_utf8(call.command.stdin.to_vec()).unwrap();
        assert_eq!(call.command.argv, ["/usr/bin/python3", "main.py"]);
        Ok(printed(&input.replace("input", "expected")))
    });
    let fleet = Harness::start(&stage);
    let result = fleet.evaluate(program("good", "t.stdio", "")).await;
    assert_eq!((result.reward, result.tests.passed), (Some(1.0), 2), "{result:?}");
    assert_eq!(stage.created(), 2, "cases share a sandbox");

    let wrong = Stage::new(async |_| Ok(printed("wrong\n")));
    let fleet = Harness::start(&wrong);
    let result = fleet.evaluate(program("bad", "t.stdio", "")).await;
    assert_eq!((result.reward, result.tests.failed), (Some(0.0), 2));
    let decisive = Evaluation { stop: Stop::Decisive, ..program("d", "t.stdio", "") };
    let result = fleet.evaluate(decisive).await;
    assert_eq!((result.tests.failed, wrong.created()), (1, 3), "{result:?}");
}

#[tokio::test]
async fn the_subject_of_a_sealed_check_sees_no_test_and_dies_with_its_grader() {
    let stage = Stage::new(async |call: Call| {
        let all = String::from_utf8_lossy(&contents(&call)).into_owned();
        let private = all.contains("expected-1");
        if is_grader(&call) {
            assert!(private, "the grader has no tests");
            assert!(!all.contains("return 7"), "the grader holds the submission");
            return Ok(reported(&call.command, &["test_1"], "passed"));
        }
        assert!(!private, "the subject sees the tests");
        assert!(all.contains("return 7"), "the subject has no submission");
        if all.contains("endless") {
            call.command.stop.cancelled().await;
            return Ok(Execution { termination: Termination::Signaled(9), ..exited(0) });
        }
        Ok(exited(0))
    });
    let fleet = Harness::start(&stage);
    for text in ["def f(x): return 7", "def f(x): return 7 # endless"] {
        let started = std::time::Instant::now();
        let result = fleet.evaluate(program(text, "t.function", text)).await;
        assert_eq!((result.outcome, result.reward), (Outcome::Scored, Some(1.0)), "{result:?}");
        assert!(started.elapsed() < Duration::from_secs(3));
    }
    assert_eq!((stage.created(), stage.counts.killed.load(SeqCst)), (4, 0), "it is stopped");
    assert_eq!(stage.counts.running.load(SeqCst), 0);
}

#[tokio::test]
async fn a_forged_report_is_no_pass() {
    let forged = Stage::new(async |mut call: Call| {
        call.command.stdin = b"guessed\n".as_slice().into();
        Ok(reported(&call.command, &["tests/test_lib.py::test_x"], "passed"))
    });
    let patch = "--- a/lib.py\n+++ b/lib.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n";
    let asked =
        Evaluation { submission: Submission::Patch(patch.into()), ..program("p", "t.patch", "") };
    let fleet = Harness::start(&forged);
    let result = fleet.evaluate(asked.clone()).await;
    assert_ne!(result.outcome, Outcome::Scored, "{result:?}");
    assert!(result.reward.is_none_or(|reward| reward <= 0.0), "{result:?}");

    // The same, told by the right nonce: patch, overlay and command are what they should be.
    let honest = Stage::new(async |call: Call| {
        let all = String::from_utf8_lossy(&contents(&call)).into_owned();
        assert!(all.contains("x = 2") && all.contains("def test_x"), "{all}");
        assert_eq!(call.command.argv.last().unwrap(), "tests");
        Ok(reported(&call.command, &["tests/test_lib.py::test_x"], "passed"))
    });
    let fleet = Harness::start(&honest);
    let result = fleet.evaluate(asked).await;
    assert_eq!((result.outcome, result.tests.passed), (Outcome::Scored, 1), "{result:?}");
    assert!(result.reward.is_some_and(|reward| reward > 0.9), "{result:?}");
}

#[tokio::test]
async fn a_decisive_stop_skips_the_rest_and_says_so() {
    let stage = Stage::honest();
    let fleet = Harness::start(&stage);
    let failing = |name, stop| Evaluation { stop, ..program(name, "t.two", "exit 1") };
    let all = fleet.evaluate(failing("all", Stop::All)).await;
    assert_eq!((all.tests.failed, stage.created()), (2, 2));
    let decisive = fleet.evaluate(failing("decisive", Stop::Decisive)).await;
    assert_eq!((decisive.tests.failed, stage.created()), (1, 3));
    let record = fleet.handle.grade(decisive.grade_id.as_ref().unwrap()).await.unwrap().unwrap();
    assert!(!record.complete);
}

#[tokio::test]
async fn the_books_balance_under_load() {
    let stage = Stage::new(async |call: Call| {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let text = String::from_utf8(contents(&call)).unwrap();
        match text.split("do ").nth(1).and_then(|rest| rest.split_whitespace().next()) {
            Some("fail") => Ok(exited(1)),
            Some("break") => Err(BackendError::ImageNotFound("gone".into())),
            Some("cannot") => Err(BackendError::Unsupported { backend: "fake", what: "".into() }),
            Some("hang") => std::future::pending().await,
            _ => Ok(exited(0)),
        }
    });
    let fleet = Harness::start(&stage);
    let books = tokio::spawn({
        let handle = fleet.handle.clone();
        async move {
            loop {
                assert_adds_up(handle.stats());
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        }
    });
    let mut tickets = Vec::new();
    for n in 0..210 {
        let what = ["pass", "fail", "break", "cannot", "hang", "reject", "same"][n % 7];
        let mut work = program(&format!("r{n}"), "t.exit", &format!("do {what}"));
        match what {
            "hang" if n % 2 == 0 => work.deadline = in_ms(50),
            "reject" => work.submission = Submission::Source(String::new()),
            "same" => work.submission = same("x").submission,
            _ => {}
        }
        tickets.extend(fleet.handle.submit(vec![work]).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    for n in (0..210).filter(|n| n % 7 == 4 && n % 2 == 1) {
        let _ = fleet.handle.cancel(&Selector::Requests(vec![id(&format!("r{n}"))]));
    }
    for mut ticket in tickets {
        soon("a result", ticket.wait()).await.unwrap();
    }
    books.abort();
    assert!(books.await.unwrap_err().is_cancelled(), "the books did not balance");
    let stats = fleet.handle.stats();
    assert_adds_up(stats);
    let counts = (stats.scored, stats.rejected, stats.invalid, stats.infra);
    assert_eq!(counts, (90, 30, 30, 30), "{stats:?}");
    assert_eq!((stats.cancelled, stats.deadline_exceeded, stats.cached), (15, 15, 29), "{stats:?}");
    let page = fleet.handle.results("run", 0, 1000, Duration::ZERO).await.unwrap();
    let sequences: Vec<_> = page.results.iter().map(|result| result.sequence).collect();
    assert_eq!(sequences, (1..=210).collect::<Vec<_>>());
    for result in &page.results {
        let numbered = matches!(result.outcome, Outcome::Scored | Outcome::SubmissionRejected);
        assert_eq!(result.reward.is_some(), numbered, "{result:?}");
    }
}
