use std::collections::{BTreeMap, BTreeSet};

use assay_repos::{LockedTest, LogParser, MustKeep, RejectionKind, ReportKind};
use assay_sandbox::{Capture, LimitKind, Start, Termination};

use super::*;
use crate::{
    Role, TestStatus,
    testing::{NONCE, capture, check, header, honest, ran},
};

fn lock(tests: &[(&str, &str, &str)]) -> Lock {
    let locked = tests.iter().map(|(id, base, gold)| {
        ((*id).to_owned(), LockedTest { base: (*base).into(), gold: (*gold).into() })
    });
    Lock { schema: 1, checks: BTreeMap::from([("unit".to_owned(), locked.collect())]) }
}

fn grade(check: &Check, evidence: CheckEvidence<'_>, lock: Option<&Lock>) -> GradeRecord {
    let run = CheckRun { check, evidence: Some(evidence), control: None, quarantined: None };
    header().grade(PatchFacts { applied: true, ..PatchFacts::default() }, Vec::new(), &[run], lock)
}

/// Grades a pytest check that has to make `a` pass and keep `b`.
fn pytest(execution: &Execution) -> GradeRecord {
    let check = check(ReportKind::Pytest, &["a"], MustKeep::Tests(vec!["b".into()]));
    let evidence = Evidence { execution, nonce: NONCE, subject: None };
    let record = grade(&check, CheckEvidence::Process(evidence), None);
    let back = GradeRecord::from_json(record.to_json().as_bytes()).unwrap();
    assert_eq!((back.id(), &back), (record.id(), &record));
    record
}

fn solved(record: &GradeRecord) -> bool {
    let whole = |required: Required| required.held == required.count;
    record.outcome == Outcome::Scored
        && record.checks.iter().all(|c| whole(c.must_pass) && whole(c.must_keep))
}

/// The end of a report without a test.
fn end(seq: u64, exit: i32) -> String {
    format!(
        "{{\"seq\":{seq},\"event\":\"end\",\"nonce\":\"{NONCE}\",\"exit\":{exit},\"counts\":{{}}}}\n"
    )
}

fn kind(record: &GradeRecord) -> &str {
    record.failure.as_ref().map_or("", |failure| &failure.kind)
}

#[test]
fn says_how_its_processes_came_to_be() {
    let reason = || Start::ColdInstead("the work tree has a module `json`".into());
    let cases = [
        (Start::Cold, Start::Cold, Start::Cold),
        (Start::Warm, Start::Warm, Start::Warm),
        (Start::Warm, reason(), reason()),
        (reason(), Start::Warm, reason()),
    ];
    for (grader, subject, expected) in cases {
        let started = |start: &Start| {
            let (report, exit) = honest(&[("a", "passed")]);
            let mut execution = ran(Termination::Exited(exit), report);
            execution.isolation.start = start.clone();
            execution
        };
        let (execution, subject) = (started(&grader), started(&subject));
        let evidence = Evidence { execution: &execution, nonce: NONCE, subject: Some(&subject) };
        let check = check(ReportKind::Function, &["a"], MustKeep::Tests(Vec::new()));
        let record = grade(&check, CheckEvidence::Process(evidence), None);
        assert_eq!(record.checks[0].start, expected, "{grader:?}");
        let back = GradeRecord::from_json(record.to_json().as_bytes()).unwrap();
        assert_eq!(back, record);
        let says = record.to_json().contains("\"start\"");
        assert_eq!(says, expected != Start::Cold, "older records lack the field");
    }
}

#[test]
fn statuses_count_by_role() {
    // (status of `a`, which must pass; status of `b`, which must keep; does each hold)
    let cases = [
        ("passed", "passed", true, true),
        // Code under test can declare its own failure as expected.
        ("xfailed", "xfailed", false, true),
        ("failed", "failed", false, false),
        ("error", "error", false, false),
        ("skipped", "skipped", false, true),
        ("xpassed", "xpassed", false, false),
    ];
    for (a, b, pass, keep) in cases {
        let (report, exit) = honest(&[("a", a), ("b", b)]);
        let record = pytest(&ran(Termination::Exited(exit), report));
        let check = &record.checks[0];
        assert_eq!(record.outcome, Outcome::Scored, "{a} {b}: {:?}", record.failure);
        assert_eq!(check.must_pass, Required { count: 1, held: pass.into() }, "{a}");
        assert_eq!(check.must_keep, Required { count: 1, held: keep.into() }, "{b}");
    }
    // What is not reported is missing, whatever the rest.
    let (report, exit) = honest(&[("c", "passed")]);
    let record = pytest(&ran(Termination::Exited(exit), report));
    assert_eq!(record.counts().missing, 2);
    assert!(!solved(&record));
    // A command that succeeds without them is remarked; one that fails is not.
    let codes = |record: &GradeRecord| -> Vec<_> {
        record.flags.iter().map(|flag| flag.code.clone()).collect()
    };
    assert_eq!(codes(&record), ["tests.vanished"]);
    let (report, exit) = honest(&[("c", "failed")]);
    assert_eq!(codes(&pytest(&ran(Termination::Exited(exit), report))), [""; 0]);
}

#[test]
fn whose_fault() {
    use Outcome::{InfraError, Scored, Tampered};
    let (passed, _) = honest(&[("a", "passed"), ("b", "passed")]);
    let (failed, _) = honest(&[("a", "failed"), ("b", "passed")]);
    let (nothing, _) = honest(&[]);
    let first = |n: usize| passed.split_inclusive('\n').take(n).collect::<String>();
    let exited = Termination::Exited;
    let limit = Termination::Limit;
    let cases = [
        ("solved", exited(0), passed.clone(), Scored, ""),
        ("failed", exited(1), failed.clone(), Scored, ""),
        ("os._exit(0) at import", exited(0), first(1), Scored, "no_tests_ran"),
        ("os._exit(0) in a test", exited(0), first(3), Scored, "no_tests_ran"),
        ("module-level skip", exited(5), nothing.clone(), Scored, "no_tests_ran"),
        ("killed itself", Termination::Signaled(9), first(3), Scored, "no_tests_ran"),
        ("endless loop", limit(LimitKind::Cpu), first(3), Scored, "cpu_limit"),
        ("endless sleep", limit(LimitKind::Wall), first(3), Scored, "wall_limit"),
        ("memory bomb", limit(LimitKind::Memory), first(3), Scored, "memory_limit"),
        ("sleep at import", limit(LimitKind::Wall), first(1), Scored, "wall_limit"),
        ("hangs after the end", limit(LimitKind::Wall), passed.clone(), Scored, "wall_limit"),
        ("starved", limit(LimitKind::WallStarved), first(3), InfraError, "machine_starved"),
        (
            "starved, complete",
            limit(LimitKind::WallStarved),
            passed.clone(),
            InfraError,
            "machine_starved",
        ),
        (
            "starved, and a line of its own",
            limit(LimitKind::WallStarved),
            passed.clone() + "PASSED\n",
            InfraError,
            "machine_starved",
        ),
        ("never started", exited(127), String::new(), InfraError, "runner_silent"),
        (
            "killed before a word",
            Termination::Signaled(9),
            String::new(),
            InfraError,
            "runner_silent",
        ),
        (
            "another run's report",
            exited(0),
            passed.replace(NONCE, "0ld"),
            InfraError,
            "runner_silent",
        ),
        ("exit status disagrees", exited(1), passed.clone(), Tampered, "tampered"),
        ("crashed after the end", Termination::Signaled(11), passed.clone(), Tampered, "tampered"),
        ("failure hidden", exited(0), failed.clone(), Tampered, "tampered"),
        ("a line of its own", exited(0), passed.clone() + "PASSED\n", Tampered, "tampered"),
    ];
    for (name, termination, report, outcome, failure) in cases {
        let record = pytest(&ran(termination, report));
        assert_eq!((record.outcome, kind(&record)), (outcome, failure), "{name}: {record:#?}");
        assert_eq!(solved(&record), name == "solved", "{name}");
        let fault = record.failure.as_ref().map(|failure| (failure.fault, failure.retryable));
        let expected = match outcome {
            InfraError => Some((Fault::Infra, true)),
            _ => (!failure.is_empty()).then_some((Fault::Submission, false)),
        };
        assert_eq!(fault, expected, "{name}");
        let passing = record.checks[0].tests.iter().any(|test| test.status.passes());
        assert_eq!(passing, matches!(name, "solved" | "failed"), "{name}: {record:#?}");
    }
}

#[test]
fn no_test_without_anybody_expecting_one_is_the_tasks_fault() {
    let (nothing, exit) = honest(&[]);
    let execution = ran(Termination::Exited(exit), nothing);
    let evidence =
        || CheckEvidence::Process(Evidence { execution: &execution, nonce: NONCE, subject: None });
    let check = self::check(ReportKind::Pytest, &[], MustKeep::Lock);
    let record = grade(&check, evidence(), None);
    assert_eq!((record.outcome, kind(&record)), (Outcome::InvalidTask, "no_tests_ran"));
    assert_eq!(record.failure.unwrap().fault, Fault::Task);
    // Tests that were collected are known to exist, too: a guarded function that ends its grader.
    let started = honest(&[("a", "passed")]).0.split_inclusive('\n').take(2).collect::<String>();
    let ended = ran(Termination::Exited(0), started);
    let function = self::check(ReportKind::Function, &[], MustKeep::Nothing);
    let guarded = Evidence { execution: &ended, nonce: NONCE, subject: None };
    let record = grade(&function, CheckEvidence::Process(guarded), None);
    assert_eq!((record.outcome, kind(&record)), (Outcome::Scored, "no_tests_ran"));
    // So does a runner that spoke and was left by its process before it collected any.
    let alive = honest(&[("a", "passed")]).0.split_inclusive('\n').take(1).collect::<String>();
    use Outcome::{InfraError, InvalidTask, Scored};
    for (termination, report, outcome) in [
        (Termination::Exited(0), alive.clone(), Scored),
        (Termination::Exited(3), alive.clone(), Scored),
        (Termination::Signaled(11), alive.clone(), Scored),
        // A machine without memory sends this.
        (Termination::Signaled(9), alive.clone(), InvalidTask),
        (Termination::Limit(LimitKind::WallStarved), alive.clone(), InfraError),
        (Termination::Exited(1), String::new(), InfraError),
        // The end of a run that pytest itself gave up.
        (Termination::Exited(4), alive + &end(1, 4), InvalidTask),
    ] {
        let execution = ran(termination, report);
        let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
        let record = grade(&check, CheckEvidence::Process(evidence), None);
        assert_eq!(record.outcome, outcome, "{termination:?}: {record:#?}");
    }
    // A lock says that there are tests: the submission made them vanish.
    let record = grade(&check, evidence(), Some(&lock(&[("a", "failed", "passed")])));
    assert_eq!((record.outcome, kind(&record)), (Outcome::Scored, "no_tests_ran"));
    assert_eq!(record.checks[0].must_pass, Required { count: 1, held: 0 });
}

#[test]
fn a_log_without_a_run_is_the_tasks_fault() {
    let check = check(ReportKind::Log(LogParser::Pytest), &["t.py::a"], MustKeep::Nothing);
    let banner = "== test session starts ==\ncollected 0 items / 1 error\n";
    let listed = "== short test summary info ==\nPASSED t.py::a\n== 1 passed in 0.1s ==\n";
    for (status, printed, outcome, held) in [
        (127, "sh: pytest: not found\n", Outcome::InvalidTask, 0),
        (0, "", Outcome::InvalidTask, 0),
        // Without pytest's own words, whatever looks like a result is none.
        (0, "PASSED t.py::a\n", Outcome::InvalidTask, 0),
        (2, banner, Outcome::Scored, 0),
        (0, listed, Outcome::Scored, 1),
    ] {
        let execution =
            ran(Termination::Exited(status), format!("start {NONCE} stdout\n{printed}"));
        let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
        let record = grade(&check, CheckEvidence::Process(evidence), None);
        assert_eq!((record.outcome, record.checks[0].must_pass.held), (outcome, held), "{printed}");
    }
}

#[test]
fn locks_say_what_counts() {
    let lock = lock(&[
        ("fixed", "failed", "passed"),
        ("kept", "passed", "passed"),
        ("kept_xfail", "xfailed", "xfailed"),
        ("broken", "failed", "failed"),
        ("gone", "passed", "missing"),
    ]);
    let (report, exit) = honest(&[
        ("fixed", "passed"),
        ("kept", "skipped"),
        ("broken", "failed"),
        ("new", "failed"),
    ]);
    let execution = ran(Termination::Exited(exit), report);
    let roles = |must_pass: &[&str]| {
        let check = check(ReportKind::Pytest, must_pass, MustKeep::Lock);
        let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
        let record = grade(&check, CheckEvidence::Process(evidence), Some(&lock));
        assert_eq!(record.flags[0].code, "tests.newly_skipped");
        // As with gold: `fixed`, `broken`, and `gone`, which no run with gold reports.
        assert_eq!(record.checks[0].exact, Some(Required { count: 6, held: 3 }));
        let tests = record.checks.into_iter().flat_map(|check| check.tests);
        tests.map(|test| (test.id, test.role)).collect::<BTreeMap<_, _>>()
    };
    let expected = |roles: &[(&str, crate::Role)]| {
        roles.iter().map(|(id, role)| ((*id).to_owned(), *role)).collect::<BTreeMap<_, _>>()
    };
    use crate::Role::{MustKeep as Keep, MustPass as Pass, Other};
    assert_eq!(
        roles(&["fixed"]),
        expected(&[
            ("fixed", Pass),
            ("kept", Keep),
            ("kept_xfail", Keep),
            ("broken", Other),
            ("new", Other),
        ])
    );
    // "All of them": what the gold submission passes, and what nobody knows.
    assert_eq!(
        roles(&[]),
        expected(&[
            ("fixed", Pass),
            ("kept", Keep),
            ("kept_xfail", Keep),
            ("broken", Other),
            ("new", Pass),
        ])
    );
}

#[test]
fn sealed_functions() {
    use Outcome::{InfraError, InvalidTask, Scored};
    let (passed, _) = honest(&[("a", "passed"), ("b", "passed")]);
    let (half, _) = honest(&[("a", "passed"), ("b", "error")]);
    let first = |n: usize| passed.split_inclusive('\n').take(n).collect::<String>();
    let exited = Termination::Exited;
    let limit = Termination::Limit;
    let killed = Termination::Signaled(9);
    // (grader's end, its report, subject's end, outcome, failure, tests passed)
    let cases = [
        ("solved", exited(0), passed.clone(), killed, Scored, "", 2),
        ("wrong", exited(1), half.clone(), exited(0), Scored, "", 1),
        ("loops", exited(1), half.clone(), limit(LimitKind::Cpu), Scored, "cpu_limit", 1),
        (
            "starved",
            exited(1),
            half.clone(),
            limit(LimitKind::WallStarved),
            InfraError,
            "machine_starved",
            1,
        ),
        (
            "grader starved",
            limit(LimitKind::WallStarved),
            first(3),
            exited(0),
            InfraError,
            "machine_starved",
            1,
        ),
        (
            "both too slow",
            limit(LimitKind::Wall),
            first(3),
            limit(LimitKind::Wall),
            Scored,
            "wall_limit",
            1,
        ),
        (
            "grader over a limit",
            limit(LimitKind::Memory),
            first(3),
            exited(0),
            Scored,
            "memory_limit",
            1,
        ),
        ("grader killed", killed, first(3), exited(0), InfraError, "grader_died", 1),
        ("tests can't be read", exited(1), String::new(), killed, InvalidTask, "runner_silent", 0),
        ("grader never started", killed, String::new(), killed, InfraError, "runner_silent", 0),
        ("no grader", exited(127), String::new(), killed, InfraError, "runner_silent", 0),
        ("tests end the grader", exited(1), first(3), exited(0), InvalidTask, "grader_died", 1),
        ("our report is odd", exited(0), half.clone(), exited(0), InfraError, "report_defect", 0),
    ];
    for (name, grader, report, subject, outcome, failure, passes) in cases {
        let check = check(ReportKind::Function, &[], MustKeep::Nothing);
        let (execution, subject) = (ran(grader, report), ran(subject, ""));
        let evidence = Evidence { execution: &execution, nonce: NONCE, subject: Some(&subject) };
        let record = grade(&check, CheckEvidence::Process(evidence), None);
        assert_eq!((record.outcome, kind(&record)), (outcome, failure), "{name}: {record:#?}");
        assert_eq!(record.counts().passed, passes, "{name}");
        assert_eq!(record.usage.wall_s, 1.5, "{name}: the grader's time is ours");
        assert_eq!(solved(&record), name == "solved", "{name}");
    }
}

#[test]
fn programs_and_commands() {
    let printed = |termination, stdout: Capture| Execution { stdout, ..ran(termination, "") };
    let right = printed(Termination::Exited(0), capture("1\n2\n"));
    let wrong = printed(Termination::Exited(0), capture("1\n"));
    let slow = printed(Termination::Limit(LimitKind::Wall), capture("1\n2\n"));
    let starved = printed(Termination::Limit(LimitKind::WallStarved), capture("1\n2\n"));
    let cases = |executions: &[Option<&Execution>]| {
        let check = check(ReportKind::Stdio, &[], MustKeep::Nothing);
        let names: Vec<_> = (0..executions.len()).map(|i| format!("case{i}")).collect();
        let runs = names.iter().zip(executions).map(|(name, execution)| CaseRun {
            name,
            execution: *execution,
            expected: b"1\n2",
        });
        grade(&check, CheckEvidence::Cases(runs.collect()), None)
    };
    let record = cases(&[Some(&right), Some(&right)]);
    assert!(solved(&record) && record.complete);
    let record = cases(&[Some(&right), Some(&wrong)]);
    assert_eq!(
        (record.outcome, record.counts().passed, record.counts().failed),
        (Outcome::Scored, 1, 1)
    );
    let record = cases(&[Some(&slow), Some(&right)]);
    assert_eq!((record.outcome, kind(&record)), (Outcome::Scored, "wall_limit"));
    assert!(record.usage.timed_out && !solved(&record));
    assert_eq!(cases(&[Some(&starved)]).outcome, Outcome::InfraError);
    assert_eq!(cases(&[]).outcome, Outcome::InvalidTask);
    let record = cases(&[Some(&wrong), None]);
    assert!(!record.complete && !solved(&record));

    for (termination, passes) in [
        (Termination::Exited(0), true),
        (Termination::Exited(1), false),
        (Termination::Signaled(9), false),
    ] {
        let check = check(ReportKind::Exit, &[], MustKeep::Nothing);
        let execution = ran(termination, "");
        let evidence = Evidence { execution: &execution, nonce: "", subject: None };
        let record = grade(&check, CheckEvidence::Process(evidence), None);
        assert_eq!((record.outcome, solved(&record)), (Outcome::Scored, passes));
    }
    // What collects the report of another tool is a shell of the image: whether there is one is
    // the task's business. When it starts and says nothing, that is ours.
    for (status, outcome) in [(127, Outcome::InvalidTask), (1, Outcome::InfraError)] {
        let check = check(ReportKind::Junit, &["a"], MustKeep::Nothing);
        let execution = ran(Termination::Exited(status), "");
        let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
        let record = grade(&check, CheckEvidence::Process(evidence), None);
        assert_eq!((record.outcome, kind(&record)), (outcome, "runner_silent"));
    }
}

#[test]
fn the_gravest_fault_of_all_checks_is_the_outcome() {
    let check = check(ReportKind::Pytest, &["a"], MustKeep::Nothing);
    let (passed, _) = honest(&[("a", "passed")]);
    let [solved, silent, forged] = [
        ran(Termination::Exited(0), passed.clone()),
        ran(Termination::Exited(1), ""),
        ran(Termination::Exited(0), passed + "x\n"),
    ];
    let outcome = |executions: &[&Execution]| {
        let runs = executions.iter().map(|execution| CheckRun {
            check: &check,
            evidence: Some(CheckEvidence::Process(Evidence {
                execution,
                nonce: NONCE,
                subject: None,
            })),
            control: None,
            quarantined: None,
        });
        let runs: Vec<_> = runs.collect();
        assert_eq!(runs[0].is_decisive(None), !std::ptr::eq(executions[0], &solved));
        header().grade(PatchFacts::default(), Vec::new(), &runs, None).outcome
    };
    assert_eq!(outcome(&[&solved, &solved]), Outcome::Scored);
    assert_eq!(outcome(&[&solved, &silent]), Outcome::InfraError);
    assert_eq!(outcome(&[&silent, &forged, &solved]), Outcome::Tampered);
}

#[test]
fn a_quarantined_test_counts_for_nothing_and_is_told() {
    let named = check(ReportKind::Pytest, &["a"], MustKeep::Tests(vec!["b".into(), "c".into()]));
    let all = check(ReportKind::Pytest, &[], MustKeep::Lock);
    let lock = lock(&[("a", "failed", "passed"), ("b", "passed", "passed")]);
    // (the check, quarantined, how b and c end, whether it is solved, the role of b)
    let cases: [(_, &[&str], _, _, _, _); 6] = [
        (&named, &[], "passed", "passed", true, Role::MustKeep),
        (&named, &[], "failed", "passed", false, Role::MustKeep),
        (&named, &["b"], "failed", "passed", true, Role::Quarantined),
        (&named, &["b"], "failed", "failed", false, Role::Quarantined),
        // A test that has to pass can't be let off.
        (&named, &["a", "nobody's"], "failed", "passed", false, Role::MustKeep),
        (&all, &["b"], "failed", "passed", true, Role::Quarantined),
    ];
    for (check, quarantined, b, c, expected, role) in cases {
        let tests = [("a", "passed"), ("b", b), ("c", c)];
        let (report, exit) = honest(&tests);
        let execution = ran(Termination::Exited(exit), report);
        let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
        let set: BTreeSet<String> = quarantined.iter().map(|id| (*id).to_owned()).collect();
        let evidence = Some(CheckEvidence::Process(evidence));
        let run = CheckRun { check, evidence, control: None, quarantined: Some(&set) };
        assert_eq!(run.is_decisive(Some(&lock)), !expected, "{quarantined:?} {b}");
        let facts = PatchFacts { applied: true, ..PatchFacts::default() };
        let record = header().grade(facts, Vec::new(), &[run], Some(&lock));
        assert_eq!(solved(&record), expected, "{quarantined:?} {b}");
        let graded = record.checks[0].tests.iter().find(|test| test.id == "b").unwrap();
        assert_eq!((graded.role, graded.status.as_str()), (role, b), "{quarantined:?}");
        // With the gold submission it may end either way: that is no difference.
        let counted = 2 + u32::from(role == Role::MustKeep);
        assert_eq!(record.checks[0].exact.unwrap().count, counted, "{quarantined:?}");
    }
    // One that doesn't show up is told as well, and tests are known to exist.
    let silent = ran(Termination::Exited(1), "");
    let evidence = Evidence { execution: &silent, nonce: NONCE, subject: None };
    let only = check(ReportKind::Pytest, &[], MustKeep::Tests(vec!["b".into()]));
    let set = BTreeSet::from(["b".to_owned()]);
    let evidence = Some(CheckEvidence::Process(evidence));
    let run = CheckRun { check: &only, evidence, control: None, quarantined: Some(&set) };
    let record = header().grade(PatchFacts::default(), Vec::new(), &[run], None);
    let tests = &record.checks[0].tests;
    assert_eq!((tests[0].role, tests[0].status), (Role::Quarantined, TestStatus::Missing));
}

#[test]
fn records_that_were_not_run() {
    let rejection = Rejection { kind: RejectionKind::Conflict, detail: "x\0".repeat(5000) };
    let record = header().rejected(
        &rejection,
        PatchFacts { applied: true, ..PatchFacts::default() },
        vec![],
    );
    assert_eq!((record.outcome, kind(&record)), (Outcome::SubmissionRejected, "patch_conflict"));
    let detail = record.failure.unwrap().detail;
    assert!(!record.patch.applied && detail.len() <= MAX_DETAIL && !detail.contains('\0'));

    let mut head = header();
    head.external = BTreeMap::from([("good".into(), 1.5), ("bad".into(), f64::NAN)]);
    head.task_facts.difficulty = Some(f64::INFINITY);
    let failure = Failure::new("sandbox_start", Phase::Prepare, Fault::Infra, "");
    let record = head.failed(Outcome::InfraError, failure);
    assert_eq!(record.external, BTreeMap::from([("good".into(), 1.5)]));
    assert_eq!(
        (record.flags[0].code.as_str(), record.task_facts.difficulty),
        ("external.not_finite", None)
    );
    assert_eq!(GradeRecord::from_json(record.to_json().as_bytes()).unwrap(), record);
}

#[test]
fn flags_of_the_submission_can_tamper() {
    let flag = |severity| Flag { code: "patch.shadow".into(), severity, evidence: String::new() };
    let outcome =
        |severity| header().grade(PatchFacts::default(), vec![flag(severity)], &[], None).outcome;
    assert_eq!(outcome(Severity::Warning), Outcome::Scored);
    assert_eq!(outcome(Severity::Tampering), Outcome::Tampered);
}

#[test]
fn records_of_other_schemas_and_noise_are_refused() {
    let (report, exit) = honest(&[("a", "passed"), ("b", "passed")]);
    let json = pytest(&ran(Termination::Exited(exit), report)).to_json();
    for bad in [
        json.replace("\"schema\":1", "\"schema\":2"),
        json.replace("\"schema\":1", "\"schema\":1,\"extra\":1"),
        json[..json.len() / 2].to_owned(),
        "[".repeat(100_000),
        String::new(),
    ] {
        assert!(GradeRecord::from_json(bad.as_bytes()).is_err());
    }
}

#[test]
fn a_report_read_by_a_wrong_channel_is_our_mistake() {
    let execution = Execution { channels: Vec::new(), ..ran(Termination::Exited(0), "") };
    let record = pytest(&execution);
    assert_eq!((record.outcome, kind(&record)), (Outcome::InfraError, "report_channel"));
    assert!(!record.failure.unwrap().retryable);
}
