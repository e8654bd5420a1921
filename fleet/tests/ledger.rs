//! The flakiness ledger: what counts, what does not, and that nothing counts twice.

mod common;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use assay_fleet::{
    Backends, Completion, Embedded, Evaluation, EvaluationResult, Fleet, FleetConfig, FleetHandle,
    Grades, HandedIn, Observation, QUARANTINE_PAIRS, Quarantining, Queue as _, ResultStore as _,
    Run, Seen, Stop, StoreError, TaskStats, TestName, Why,
};
use assay_repos::{Catalog, Digest, Submission};
use assay_rewards::{GradeRecord, Outcome, Role, TestStatus};
use assay_sandbox::{Execution, ImageRef};
use common::{
    answer, id, request, soon,
    stage::{Call, Stage, broken, capture, contents, exited},
    write,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LUCK: &str = "t.py::luck";
const GOLD: &str = "--- a/lib.py\n+++ b/lib.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n";
/// Another solution: not the task's own code.
const OTHER: &str = "--- a/lib.py\n+++ b/lib.py\n@@ -1 +1 @@\n-x = 1\n+x = 1 + 1\n";

fn catalog(dir: &Path) -> Arc<Catalog> {
    let toml = format!(
        "schema = 1\nid = \"l.flaky\"\n[source]\nrepository = \"./tree\"\n\
         [prompt]\ntemplate = \"problem.md\"\n[submission]\nkind = \"patch\"\nextract = \"raw\"\n\
         [[check]]\nid = \"unit\"\nrun = [\"python3\", \"-m\", \"pytest\", \"t.py\"]\nreport = \"pytest\"\n\
         must_pass = [\"t.py::fix\"]\nmust_keep = [\"t.py::old\", \"{LUCK}\"]\n"
    );
    write(&dir.join("flaky/task.toml"), &toml);
    write(&dir.join("flaky/problem.md"), "Solve it.\n");
    write(&dir.join("flaky/tree/lib.py"), "x = 1\n");
    write(&dir.join("flaky/private/gold.patch"), GOLD);
    let catalog = Catalog::load(&[dir.to_owned()], &dir.join(".cache"));
    assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
    Arc::new(catalog)
}

/// What our runner leaves when the tests end so.
fn report(call: &Call, tests: &[(&str, bool)]) -> Execution {
    let stdin = String::from_utf8(call.command.stdin.to_vec()).unwrap();
    let nonce = stdin.lines().next().unwrap();
    let word = |passes| if passes { "passed" } else { "failed" };
    let names: Vec<_> = tests.iter().map(|(test, _)| test).collect();
    let mut events = vec![
        serde_json::json!({"event": "alive", "nonce": nonce}),
        serde_json::json!({"event": "start", "nonce": nonce, "collected": names}),
    ];
    let mut counts = serde_json::Map::new();
    for (test, passes) in tests {
        let status = word(*passes);
        let event =
            serde_json::json!({"event": "test", "id": test, "status": status, "duration_s": 0.1});
        events.push(event);
        let count = counts.get(status).and_then(serde_json::Value::as_u64).unwrap_or(0);
        counts.insert(status.to_owned(), (count + 1).into());
    }
    for (kind, status) in [
        ("assert", "failed"),
        ("late", "failed"),
        ("error", "failed"),
        ("raises", "failed"),
        ("true", "passed"),
    ] {
        let event =
            serde_json::json!({"event": "canary", "kind": kind, "id": kind, "status": status});
        events.push(event);
    }
    let exit = i32::from(tests.iter().any(|(_, passes)| !passes));
    events
        .push(serde_json::json!({"event": "end", "nonce": nonce, "exit": exit, "counts": counts}));
    let lines = events.into_iter().enumerate().map(|(seq, mut event)| {
        event["seq"] = seq.into();
        format!("{event}\n")
    });
    Execution { channels: vec![capture(&lines.collect::<String>())], ..exited(exit) }
}

/// `luck` fails in every second run; a test that a submission made up is there, too.
fn unlucky() -> (Stage, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let stage = Stage::new(move |call: Call| {
        let lucky = count.fetch_add(1, SeqCst).is_multiple_of(2);
        let made_up = String::from_utf8_lossy(&contents(&call)).contains("1 + 1");
        async move {
            let mut tests = vec![("t.py::fix", true), ("t.py::old", true), (LUCK, lucky)];
            if made_up {
                tests.push(("t.py::made_up", lucky));
            }
            Ok(report(&call, &tests))
        }
    });
    (stage, runs)
}

struct Harness {
    dir: TempDir,
    handle: FleetHandle,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Harness {
    fn start(dir: TempDir, stage: &Stage) -> Self {
        let image = ImageRef::Rootfs { path: "/rootfs".into(), digest: "sha256:image".into() };
        let stage = Arc::new(stage.clone());
        let backends = Backends::new().with_image("python", stage, image, "sha256:image");
        let catalog = catalog(&dir.path().join("tasks"));
        let (fleet, handle) =
            Fleet::start(FleetConfig::new(dir.path().join("data"), catalog, backends)).unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(fleet.run(stop.clone()));
        Self { dir, handle, stop, running }
    }

    async fn stop(self) -> TempDir {
        self.stop.cancel();
        soon("the end of the fleet", self.running).await.unwrap();
        self.dir
    }

    async fn evaluate(&self, name: &str, patch: &str, fresh: bool) -> Arc<EvaluationResult> {
        let submission = Submission::Patch(patch.to_owned());
        let task = "l.flaky".parse().unwrap();
        let work = Evaluation {
            fresh,
            reward: "pass".into(),
            ..Evaluation::new(id(name), task, submission)
        };
        let mut ticket = self.handle.submit(vec![work]).await.unwrap().remove(0);
        soon("a result", ticket.wait()).await.unwrap()
    }

    async fn record(&self, result: &EvaluationResult) -> GradeRecord {
        self.handle.grade(result.grade_id.as_ref().unwrap()).await.unwrap().unwrap()
    }

    async fn stats(&self) -> TaskStats {
        let task = "l.flaky".parse().unwrap();
        self.handle.task_stats(Some(&task)).await.unwrap().remove(0)
    }
}

fn luck() -> TestName {
    TestName { check: "unit".into(), test: LUCK.into() }
}

#[tokio::test]
async fn a_flaky_test_is_quarantined_by_the_tasks_own_solution() {
    let (stage, runs) = unlucky();
    let fleet = Harness::start(tempfile::tempdir().unwrap(), &stage);
    // An unlucky one, before: it stays what it was.
    runs.store(1, SeqCst);
    let before = fleet.evaluate("before", OTHER, false).await;
    assert_eq!((before.reward, before.cached), (Some(0.0), false));
    let again = fleet.evaluate("again", OTHER, false).await;
    assert_eq!((again.reward, again.cached), (Some(0.0), true));

    for number in 0..=QUARANTINE_PAIRS {
        let stats = fleet.stats().await;
        assert!(stats.quarantined.is_empty(), "after {number} runs: {stats:#?}");
        fleet.evaluate(&format!("gold {number}"), GOLD, true).await;
    }
    let stats = fleet.stats().await;
    assert_eq!(stats.quarantined, [luck()]);
    let [event] = stats.trail.as_slice() else { panic!("{:#?}", stats.trail) };
    let Why::Ledger { pairs, evidence, .. } = &event.why else { panic!("{event:#?}") };
    assert_eq!((pairs.count, pairs.disagree), (QUARANTINE_PAIRS, QUARANTINE_PAIRS));
    // The records that disagree can be looked at.
    for (one, other) in evidence {
        let both = [fleet.handle.grade(one).await, fleet.handle.grade(other).await];
        let both = both.map(|record| status(&record.unwrap().unwrap(), LUCK));
        assert!(both[0].0 != both[1].0 && both[0].1 == Role::MustKeep, "{both:?}");
    }
    let all = stats.outcomes["SCORED"];
    assert_eq!((all.answers, all.runs), (QUARANTINE_PAIRS + 3, QUARANTINE_PAIRS + 2));
    assert_eq!(stats.ledger.runs, QUARANTINE_PAIRS + 2, "what the cache answered counts as no run");
    let names: Vec<_> = stats.ledger.tests.iter().map(|test| test.name.test.as_str()).collect();
    assert_eq!(names, ["t.py::fix", "t.py::old", LUCK], "a submission made one up");

    // The same submission is another question now, and an unlucky run no regression.
    runs.store(1, SeqCst);
    let after = fleet.evaluate("after", OTHER, false).await;
    assert_eq!((after.reward, after.cached), (Some(1.0), false));
    let record = fleet.record(&after).await;
    assert_eq!(status(&record, LUCK), (TestStatus::Failed, Role::Quarantined));
    assert_eq!(record.task_facts.flaky_rate, Some(1.0), "frozen when it was judged");
    let old = fleet.record(&before).await;
    assert_eq!(status(&old, LUCK), (TestStatus::Failed, Role::MustKeep));
    assert_eq!(old.task_facts.flaky_rate, None);

    // It is known after a restart.
    let fleet = Harness::start(fleet.stop().await, &stage);
    let later = fleet.evaluate("later", OTHER, false).await;
    assert_eq!((later.reward, later.cached), (Some(1.0), true));

    // Let out, it is to be kept again, and has to prove itself anew before it is put back.
    let change = |add, reason: &str| Quarantining {
        task: "l.flaky".parse().unwrap(),
        name: luck(),
        add,
        reason: reason.to_owned(),
    };
    for _ in 0..2 {
        fleet.handle.quarantine(change(false, "mended")).await.unwrap();
    }
    let stats = fleet.stats().await;
    assert_eq!((stats.quarantined.len(), stats.trail.len()), (0, 2), "asked twice, done once");
    runs.store(1, SeqCst);
    let free = fleet.evaluate("free", OTHER, false).await;
    assert_eq!(free.reward, Some(0.0), "the key before the quarantine holds again: {free:#?}");
    for number in 0..3 {
        fleet.evaluate(&format!("gold again {number}"), GOLD, true).await;
    }
    assert!(fleet.stats().await.quarantined.is_empty());
    for _ in 0..2 {
        fleet.handle.quarantine(change(true, "by hand")).await.unwrap();
    }
    let stats = fleet.stats().await;
    assert_eq!((stats.quarantined, stats.trail.len()), (vec![luck()], 3));
    fleet.stop().await;
}

fn status(record: &GradeRecord, test: &str) -> (TestStatus, Role) {
    let test = record.checks[0].tests.iter().find(|one| one.id == test).unwrap();
    (test.status, test.role)
}

/// A policy that breaks a test now and then can't buy its quarantine with that.
#[tokio::test]
async fn a_policy_alone_moves_nothing() {
    let (stage, _) = unlucky();
    let fleet = Harness::start(tempfile::tempdir().unwrap(), &stage);
    for number in 0..60 {
        // The same code, and others that are as odd.
        let patch = if number % 3 == 0 { OTHER.replace("1 + 1", "1 + 1 ") } else { OTHER.into() };
        fleet.evaluate(&format!("odd {number}"), &patch, true).await;
    }
    let stats = fleet.stats().await;
    let luck = stats.ledger.tests.iter().find(|test| test.name == luck()).unwrap();
    assert!(luck.others.disagree >= 20 && luck.others.count >= 50, "{luck:#?}");
    assert_eq!((luck.trusted.count, stats.ledger.verdicts.count), (0, 0));
    assert!(stats.quarantined.is_empty() && stats.trail.is_empty());
    let last = fleet.evaluate("last", OTHER, true).await;
    assert_eq!(fleet.record(&last).await.task_facts.flaky_rate, None);
    fleet.stop().await;
}

#[tokio::test]
async fn what_failed_by_our_fault_is_counted_and_tells_nothing_of_tests() {
    let stage = Stage::new(async |_| Err(broken()));
    let fleet = Harness::start(tempfile::tempdir().unwrap(), &stage);
    let result = fleet.evaluate("a", GOLD, false).await;
    assert_eq!(result.outcome, Outcome::InfraError);
    let rejected = fleet.evaluate("b", "no patch", false).await;
    assert_eq!(rejected.outcome, Outcome::SubmissionRejected);
    let stats = fleet.stats().await;
    assert_eq!((stats.outcomes["INFRA_ERROR"].answers, stats.ledger.runs), (1, 0));
    let rejected_all = stats.outcomes["SUBMISSION_REJECTED"];
    assert_eq!((rejected_all.answers, rejected_all.runs, rejected_all.solved), (1, 0, 0));
    assert_eq!(stats.outcomes["INFRA_ERROR"].runs, 1);
    // The submission of each is kept as it was handed in.
    let grade = rejected.grade_id.clone().unwrap();
    let dir = fleet.stop().await;
    let grades = Grades::open(&dir.path().join("data")).unwrap();
    let kept = grades.handed_in(&grade).unwrap().unwrap();
    let wanted = HandedIn { submission: Submission::Patch("no patch".into()), stop: Stop::All };
    assert_eq!(kept, wanted);
}

/// A run of a suite, with an answer that has a grade.
fn observed(evaluation: &Evaluation, tests: usize, number: u64) -> Completion {
    let header = assay_rewards::GradeHeader {
        task: evaluation.task.clone(),
        task_digest: Digest::of("task"),
        image_digest: number.to_string(),
        submission_digest: Digest::of("submission"),
        backend: "fake".into(),
        mode: assay_repos::Mode::Guarded,
        limits: Default::default(),
        generation: Default::default(),
        external: Default::default(),
        task_facts: Default::default(),
        runner: "r".into(),
    };
    let record = header.grade(Default::default(), Vec::new(), &[], None);
    let seen = |test| Seen {
        name: TestName {
            check: "unit".into(),
            test: format!("tests/test_some_module.py::test_{test}"),
        },
        status: if (number + test as u64).is_multiple_of(97) {
            TestStatus::Failed
        } else {
            TestStatus::Passed
        },
        role: Role::MustKeep,
        duration_s: Some(0.001 * (1 + test % 7) as f64),
    };
    let run = Run {
        ground: Digest::of("ground"),
        submission: Digest::of("submission"),
        trusted: false,
        runner: "r".into(),
        wall_s: 1.0,
        tests: (0..tests).map(seen).collect(),
    };
    Completion {
        grade: Some(Arc::new(record)),
        observation: Some(Observation {
            task: evaluation.task.clone(),
            policy_version: 3,
            outcome: Outcome::Scored,
            ran: true,
            solved: true,
            run: Some(Box::new(run)),
        }),
        handed_in: Some((evaluation.submission.digest(), Stop::All)),
        ..answer(evaluation, 1.0)
    }
}

/// Kills a process that answers as fast as it can, at a moment of chance: what the ledger counts is
/// what there are results of, no more and no less.
#[test]
fn nothing_is_lost_or_counted_twice_by_sigkill() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Some(dir) = std::env::var_os("ASSAY_TEST_KILLED") {
        runtime().block_on(answer_forever(Path::new(&dir)));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut counted = 0;
    for round in 0..6_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "nothing_is_lost_or_counted_twice_by_sigkill"])
            .env("ASSAY_TEST_KILLED", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // Kept open until the end: a closed pipe would end the child in its own way.
        let answers = told.by_ref().filter(|line| line.starts_with("answered")).take(15).count();
        assert_eq!(answers, 15, "the child ended early");
        std::thread::sleep(Duration::from_millis(2 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        runtime().block_on(async {
            let store = Embedded::open(dir.path(), 100).unwrap();
            let page =
                store.results("run", 0, usize::MAX, tokio::time::Instant::now()).await.unwrap();
            let stats = store.task_stats(None).await.unwrap().remove(0);
            let results = page.results.len() as u64;
            let tally = stats.outcomes["SCORED"];
            assert_eq!((tally.answers, tally.runs, tally.solved), (results, results, results));
            assert_eq!(stats.versions[&Some(3)], tally);
            assert_eq!(stats.ledger.runs, results);
            assert!(stats.ledger.tests.iter().all(|test| test.runs == results), "{stats:#?}");
            // One submission, so every run but the first is a pair with the one before it.
            assert!(stats.ledger.tests.iter().all(|test| test.others.count == results - 1));
            assert!(results >= counted + 15, "a visible answer is lost");
            counted = results;
        });
    }
}

async fn answer_forever(dir: &Path) -> ! {
    let store = Embedded::open(dir, 1000).unwrap();
    let before = store.results("run", 0, usize::MAX, tokio::time::Instant::now()).await.unwrap();
    for n in before.cursor.. {
        let work: Vec<_> = (0..3).map(|k| request(&format!("r{n}.{k}"))).collect();
        store.submit(work.clone()).await.unwrap();
        // Several in one commit, and one that comes twice.
        let mut done: Vec<_> =
            work.iter().map(|one| store.complete(observed(one, 20, n))).collect();
        done.push(store.complete(observed(&work[0], 20, n)));
        for result in futures::future::join_all(done).await {
            result.unwrap();
        }
        println!("answered {n}");
    }
    unreachable!("the numbers ran out")
}

/// What the ledger adds to an answer. Told, not asserted: times of a busy machine.
#[tokio::test]
async fn what_a_suite_of_a_thousand_tests_costs() {
    for tests in [0, 10, 1000] {
        let mut took = [Duration::ZERO; 2];
        for (with, took) in took.iter_mut().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let store = Embedded::open(dir.path(), 1000).unwrap();
            for number in 0..50 {
                let work = request(&format!("r{number}"));
                store.submit(vec![work.clone()]).await.unwrap();
                let mut done = observed(&work, tests, number);
                if with == 0 {
                    done.observation = None;
                }
                let started = Instant::now();
                store.complete(done).await.unwrap();
                *took += started.elapsed();
            }
        }
        let [without, with] = took.map(|took| took.as_secs_f64() * 1e3 / 50.0);
        println!(
            "{tests} tests: {without:.3} ms an answer without the ledger, {with:.3} ms with it"
        );
    }
}

#[tokio::test]
async fn a_state_of_the_first_version_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), 10).unwrap();
    store.submit(vec![request("a")]).await.unwrap();
    let done = store.complete(observed(&request("a"), 1, 0)).await.unwrap();
    drop(store);
    let old = rusqlite::Connection::open(dir.path().join("assay.db")).unwrap();
    let ours = ["ledgers", "witnesses", "tallies", "quarantine", "submissions", "handed_in"];
    for table in
        ours.into_iter().chain(["specs", "spec_puts", "graded", "task_grades", "submission_total"])
    {
        old.execute_batch(&format!("DROP TABLE {table}")).unwrap();
    }
    old.pragma_update(None, "user_version", 1).unwrap();
    drop(old);
    // As it is, it can be read, and holds nothing of this.
    let grade = done.grade_id.clone().unwrap();
    let grades = Grades::open(dir.path()).unwrap();
    assert_eq!(grades.handed_in(&grade).unwrap(), None);
    assert!(grades.task_stats(None).unwrap().is_empty());
    let mut found = 0;
    let read: Result<(), StoreError> = grades.each(|_, _| {
        found += 1;
        Ok(())
    });
    read.unwrap();
    assert_eq!(found, 1);
    drop(grades);
    let store = Embedded::open(dir.path(), 10).unwrap();
    assert!(store.ticket(&id("a")).await.unwrap().is_some());
    store.submit(vec![request("b")]).await.unwrap();
    store.complete(observed(&request("b"), 1, 1)).await.unwrap();
    assert_eq!(store.task_stats(None).await.unwrap()[0].ledger.runs, 1);
}
