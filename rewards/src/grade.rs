//! From what checks left behind to a [`GradeRecord`]: whose fault it was, what counts, what holds.

use std::collections::{BTreeMap, BTreeSet};

use assay_repos::{
    Check, Digest, Flag, Lock, Mode, MustKeep, PatchFacts, Rejection, ReportKind, Severity, TaskId,
    TaskLimits,
};
use assay_sandbox::{Execution, LimitKind, Termination};

use crate::{
    CaseRun, CheckRecord, Evidence, Failure, Fault, Generation, GradeRecord, GradedTest, Outcome,
    Phase, Progress, Report, Required, Role, TaskFacts, TestCounts, TestResult, TestStatus, Usage,
    parse, parse_stdio,
    report::{bounded, bounded_id, describe, tail},
};

/// Most bytes of a failure's detail.
const MAX_DETAIL: usize = 2048;

/// What is known of an evaluation before anything runs.
#[derive(Clone, Debug, PartialEq)]
pub struct GradeHeader {
    /// The task.
    pub task: TaskId,
    /// Its content.
    pub task_digest: Digest,
    /// The root filesystem or image.
    pub image_digest: String,
    /// The submission as it takes effect; as handed in while it has not been applied.
    pub submission_digest: Digest,
    /// Where checks run: `native`, `docker`, `fake`.
    pub backend: String,
    /// Whether expected values enter the process of the code under test.
    pub mode: Mode,
    /// The limits that hold.
    pub limits: TaskLimits,
    /// How the submission came to be.
    pub generation: Generation,
    /// What the trainer passes in. What is not finite is left out, and a flag says so.
    pub external: BTreeMap<String, f64>,
    /// What is known of the task.
    pub task_facts: TaskFacts,
    /// The version of the code that runs and reads checks.
    pub runner: String,
}

/// One check of a task and what it left behind.
#[derive(Clone, Debug)]
pub struct CheckRun<'a> {
    /// The check.
    pub check: &'a Check,
    /// What is left; absent when it did not run.
    pub evidence: Option<CheckEvidence<'a>>,
}

/// What a check left behind.
#[derive(Clone, Debug)]
pub enum CheckEvidence<'a> {
    /// Of `pytest`, `function` and `exit` checks.
    Process(Evidence<'a>),
    /// Of `stdio` checks: every case, in order.
    Cases(Vec<CaseRun<'a>>),
}

impl GradeHeader {
    /// Makes the record of an evaluation whose checks ran.
    ///
    /// The outcome is `TAMPERED` when any report contradicts itself or any flag says so; else
    /// `INFRA_ERROR` or `INVALID_TASK` when a check failed by our or the task's fault; else
    /// `SCORED`, with the submission's own failure, if there was one.
    #[must_use]
    pub fn grade(
        self,
        patch: PatchFacts,
        flags: Vec<Flag>,
        runs: &[CheckRun<'_>],
        lock: Option<&Lock>,
    ) -> GradeRecord {
        let mut record = self.record(Outcome::Scored, None);
        record.patch = patch;
        record.flags.extend(flags);
        record.complete = runs.iter().all(CheckRun::ran_whole);
        let mut worst: Option<Trouble> = None;
        for run in runs {
            let judged = judge(run, lock);
            record.usage = add(record.usage, judged.record.usage);
            record.checks.push(judged.record);
            record.flags.extend(judged.flags);
            for execution in run.executions() {
                for fallback in &execution.isolation.fallbacks {
                    if !record.isolation.contains(fallback) {
                        record.isolation.push(fallback.clone());
                    }
                }
            }
            // The first of the gravest.
            let graver = |trouble: &Trouble| worst.as_ref().is_none_or(|w| w.rank < trouble.rank);
            if let Some(trouble) = judged.trouble.filter(graver) {
                worst = Some(trouble);
            }
        }
        if let Some(flag) = record.flags.iter().find(|flag| flag.severity == Severity::Tampering) {
            let detail = format!("{}: {}", flag.code, flag.evidence);
            worst = Some(Trouble::new(Rank::Tampered, "tampered", Phase::Parse, detail));
        }
        if let Some(Trouble { rank, failure }) = worst {
            record.outcome = rank.outcome();
            record.failure = Some(failure);
        }
        record
    }

    /// Makes the record of a submission that was not run.
    #[must_use]
    pub fn rejected(self, rejection: &Rejection, patch: PatchFacts, flags: Vec<Flag>) -> GradeRecord {
        let failure = Failure::new(
            rejection.kind.as_str(),
            Phase::Apply,
            Fault::Submission,
            bounded(&rejection.detail, MAX_DETAIL),
        );
        let mut record = self.record(Outcome::SubmissionRejected, Some(failure));
        record.patch = PatchFacts { applied: false, ..patch };
        record.flags.extend(flags);
        record
    }

    /// Makes the record of an evaluation that could not be finished: `INVALID_TASK`,
    /// `INFRA_ERROR`, `DEADLINE_EXCEEDED` or `CANCELLED`.
    #[must_use]
    pub fn failed(self, outcome: Outcome, failure: Failure) -> GradeRecord {
        let failure = Failure { detail: bounded(&failure.detail, MAX_DETAIL), ..failure };
        self.record(outcome, Some(failure))
    }

    fn record(self, outcome: Outcome, failure: Option<Failure>) -> GradeRecord {
        let finite = |number: &f64| number.is_finite();
        let (external, odd): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.external.into_iter().partition(|(_, value)| value.is_finite());
        let flags = odd.into_iter().map(|(name, value)| Flag {
            code: "external.not_finite".into(),
            severity: Severity::Warning,
            evidence: format!("external.{} is {value}", bounded(&name, 100)),
        });
        GradeRecord {
            schema: GradeRecord::SCHEMA,
            task: self.task,
            task_digest: self.task_digest,
            image_digest: self.image_digest,
            submission_digest: self.submission_digest,
            backend: self.backend,
            mode: self.mode,
            isolation: Vec::new(),
            outcome,
            failure,
            patch: PatchFacts::default(),
            checks: Vec::new(),
            flags: flags.collect(),
            usage: Usage::default(),
            generation: self.generation,
            external,
            task_facts: TaskFacts {
                difficulty: self.task_facts.difficulty.filter(finite),
                flaky_rate: self.task_facts.flaky_rate.filter(finite),
            },
            limits: self.limits,
            complete: false,
            runner: self.runner,
        }
    }
}

impl CheckRun<'_> {
    /// Whether this run alone decides that the submission is no solution, or that there will be no
    /// verdict: an evaluation that stops at the first decisive failure stops after it.
    #[must_use]
    pub fn is_decisive(&self, lock: Option<&Lock>) -> bool {
        let judged = judge(self, lock);
        let short = |required: Required| required.held < required.count;
        self.evidence.is_some()
            && (judged.trouble.is_some()
                || short(judged.record.must_pass)
                || short(judged.record.must_keep))
    }

    fn ran_whole(&self) -> bool {
        match &self.evidence {
            None => false,
            Some(CheckEvidence::Process(_)) => true,
            Some(CheckEvidence::Cases(cases)) => cases.iter().all(|case| case.execution.is_some()),
        }
    }

    fn executions(&self) -> Vec<&Execution> {
        match &self.evidence {
            None => Vec::new(),
            Some(CheckEvidence::Process(evidence)) => {
                [Some(evidence.execution), evidence.subject].into_iter().flatten().collect()
            }
            Some(CheckEvidence::Cases(cases)) => {
                cases.iter().filter_map(|case| case.execution).collect()
            }
        }
    }

    /// The executions of the submission's own code: a sealed function check's grader is ours.
    fn submission_executions(&self) -> Vec<&Execution> {
        match &self.evidence {
            Some(CheckEvidence::Process(Evidence { subject: Some(subject), .. })) => vec![subject],
            _ => self.executions(),
        }
    }
}

/// Who is to blame, the gravest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Submission,
    Task,
    Infra,
    Tampered,
}

impl Rank {
    fn outcome(self) -> Outcome {
        match self {
            Self::Submission => Outcome::Scored,
            Self::Task => Outcome::InvalidTask,
            Self::Infra => Outcome::InfraError,
            Self::Tampered => Outcome::Tampered,
        }
    }

    fn fault(self) -> Fault {
        match self {
            Self::Submission | Self::Tampered => Fault::Submission,
            Self::Task => Fault::Task,
            Self::Infra => Fault::Infra,
        }
    }
}

struct Trouble {
    rank: Rank,
    failure: Failure,
}

impl Trouble {
    fn new(rank: Rank, kind: &str, phase: Phase, detail: impl AsRef<str>) -> Self {
        let detail = bounded(detail.as_ref().trim_end(), MAX_DETAIL);
        Self { rank, failure: Failure::new(kind, phase, rank.fault(), detail) }
    }
}

struct Judged {
    record: CheckRecord,
    flags: Vec<Flag>,
    trouble: Option<Trouble>,
}

fn judge(run: &CheckRun<'_>, lock: Option<&Lock>) -> Judged {
    let check = run.check;
    let mut record = CheckRecord {
        id: check.id.clone(),
        report: check.report,
        ran: run.evidence.is_some(),
        counts: TestCounts::default(),
        must_pass: Required::default(),
        must_keep: Required::default(),
        tests: Vec::new(),
        usage: Usage::default(),
    };
    let report = match &run.evidence {
        None => return Judged { record, flags: Vec::new(), trouble: None },
        Some(CheckEvidence::Process(evidence)) => parse(check.report, evidence),
        Some(CheckEvidence::Cases(cases)) => Ok(parse_stdio(cases)),
    };
    record.usage = run.submission_executions().into_iter().map(used).fold(Usage::default(), add);
    let mut report = match report {
        Ok(report) => report,
        Err(error) => {
            let mut trouble =
                Trouble::new(Rank::Infra, "report_channel", Phase::Parse, error.to_string());
            trouble.failure.retryable = false; // a caller's mistake stays one
            return Judged { record, flags: Vec::new(), trouble: Some(trouble) };
        }
    };
    let mut flags = std::mem::take(&mut report.flags);
    let expected = Expected::of(check, lock);
    expected.fill(&mut record, std::mem::take(&mut report.tests));
    flags.extend(expected.remarks(check, lock, &record));
    let trouble = trouble(run, &report, &record, &expected);
    Judged { record, flags, trouble }
}

/// What the task says about the tests of one check.
struct Expected {
    must_pass: BTreeSet<String>,
    must_keep: BTreeSet<String>,
    /// Tests that the task doesn't name have to pass, too, except `may_fail`.
    all: bool,
    may_fail: BTreeSet<String>,
}

impl Expected {
    fn of(check: &Check, lock: Option<&Lock>) -> Self {
        let ids = |ids: &[String]| ids.iter().map(|id| bounded_id(id)).collect::<BTreeSet<_>>();
        let mut must_pass = ids(&check.must_pass);
        let mut must_keep = match &check.must_keep {
            MustKeep::Nothing => BTreeSet::new(),
            MustKeep::Tests(tests) => ids(tests),
            MustKeep::Lock => lock.map(|lock| ids(&lock.kept(&check.id))).unwrap_or_default(),
        };
        let mut may_fail = BTreeSet::new();
        let all = must_pass.is_empty();
        if all {
            // "All of them" includes those that are known to exist and did not show up.
            for (id, test) in lock.and_then(|lock| lock.checks.get(&check.id)).into_iter().flatten() {
                let passes = matches!(test.gold.as_str(), "passed" | "xfailed");
                let set = if passes { &mut must_pass } else { &mut may_fail };
                set.insert(bounded_id(id));
            }
            must_pass.retain(|id| !must_keep.contains(id));
        } else {
            must_keep.retain(|id| !must_pass.contains(id));
        }
        Self { must_pass, must_keep, all, may_fail }
    }

    fn names_tests(&self) -> bool {
        !(self.must_pass.is_empty() && self.must_keep.is_empty())
    }

    fn role(&self, id: &str) -> Role {
        if self.must_pass.contains(id) {
            Role::MustPass
        } else if self.must_keep.contains(id) {
            Role::MustKeep
        } else if self.all && !self.may_fail.contains(id) {
            Role::MustPass
        } else {
            Role::Other
        }
    }

    /// Puts the results into the record, and a missing one for each test that was not reported.
    fn fill(&self, record: &mut CheckRecord, results: Vec<TestResult>) {
        let seen: BTreeSet<String> = results.iter().map(|test| test.id.clone()).collect();
        let absent = self.must_pass.iter().chain(&self.must_keep).filter(|id| !seen.contains(*id));
        let absent = absent.map(|id| TestResult {
            id: id.clone(),
            status: TestStatus::Missing,
            duration_s: None,
            message: Some("not in the report".into()),
        });
        let absent: Vec<_> = absent.collect();
        for TestResult { id, status, duration_s, message } in results.into_iter().chain(absent) {
            let role = self.role(&id);
            record.counts.add(status);
            match role {
                Role::MustPass => count(&mut record.must_pass, status.passes()),
                Role::MustKeep => count(&mut record.must_keep, status.keeps()),
                Role::Other => {}
            }
            record.tests.push(GradedTest { id, status, role, duration_s, message });
        }
    }

    fn remarks(&self, check: &Check, lock: Option<&Lock>, record: &CheckRecord) -> Vec<Flag> {
        let mut flags = Vec::new();
        if check.must_keep == MustKeep::Lock && lock.is_none() {
            flags.push(Flag {
                code: "task.no_lock".into(),
                severity: Severity::Info,
                evidence: format!("check {} keeps the tests of a lock that is not there", check.id),
            });
        }
        let kept = |test: &&GradedTest| test.role == Role::MustKeep;
        let skipped = |test: &&GradedTest| test.status == TestStatus::Skipped;
        let skips = record.tests.iter().filter(kept).filter(skipped).count();
        if skips > 0 {
            flags.push(Flag {
                code: "tests.newly_skipped".into(),
                severity: Severity::Warning,
                evidence: format!("{skips} tests of check {} that passed before", check.id),
            });
        }
        flags
    }
}

fn count(required: &mut Required, held: bool) {
    required.count = required.count.saturating_add(1);
    required.held = required.held.saturating_add(u32::from(held));
}

/// Finds out whose fault it was that a check did not go well. A test that failed is no trouble.
fn trouble(
    run: &CheckRun<'_>,
    report: &Report,
    record: &CheckRecord,
    expected: &Expected,
) -> Option<Trouble> {
    let starved = Termination::Limit(LimitKind::WallStarved);
    if let Some(execution) = run.executions().iter().find(|e| e.termination == starved) {
        let detail = describe(execution.termination);
        return Some(Trouble::new(Rank::Infra, "machine_starved", Phase::Run, detail));
    }
    if let Some(defect) = &report.defect {
        return Some(Trouble::new(Rank::Infra, "report_defect", Phase::Parse, defect));
    }
    if let Some(evidence) = runner_evidence(run)
        && report.progress == Progress::Silent
    {
        // Nothing of the submission ran before the runner spoke.
        let rank = match (run.check.report, evidence.execution.termination) {
            // The grader reads the task's tests first.
            (ReportKind::Function, Termination::Exited(_)) => Rank::Task,
            _ => Rank::Infra,
        };
        return Some(Trouble::new(rank, "runner_silent", Phase::Run, last_words(evidence.execution)));
    }
    for execution in run.submission_executions() {
        if let Termination::Limit(limit) = execution.termination {
            let detail = describe(execution.termination);
            return Some(Trouble::new(Rank::Submission, limit_name(limit), Phase::Run, detail));
        }
    }
    if let Some(Evidence { execution, subject: Some(_), .. }) = runner_evidence(run)
        && report.progress < Progress::Ended
    {
        // The submission could reach the grader by values alone.
        let rank = match execution.termination {
            Termination::Exited(_) => Rank::Task,
            Termination::Signaled(_) | Termination::Limit(_) => Rank::Infra,
        };
        return Some(Trouble::new(rank, "grader_died", Phase::Run, last_words(execution)));
    }
    if record.counts.ran() > 0 {
        return None;
    }
    // A task whose tests are known to exist has them taken away by the submission.
    let rank = if expected.names_tests() { Rank::Submission } else { Rank::Task };
    let detail = match runner_evidence(run) {
        Some(evidence) => last_words(evidence.execution),
        None => "no test ran".to_owned(),
    };
    Some(Trouble::new(rank, "no_tests_ran", Phase::Run, detail))
}

/// The process of a check whose report comes by events.
fn runner_evidence<'r>(run: &'r CheckRun<'_>) -> Option<&'r Evidence<'r>> {
    match &run.evidence {
        Some(CheckEvidence::Process(evidence)) if run.check.report != ReportKind::Exit => {
            Some(evidence)
        }
        _ => None,
    }
}

fn last_words(execution: &Execution) -> String {
    let said = execution.stderr.lossy();
    format!("{}\n{}", describe(execution.termination), tail(said.trim_end(), MAX_DETAIL / 2))
}

fn limit_name(limit: LimitKind) -> &'static str {
    match limit {
        LimitKind::Wall | LimitKind::WallStarved => "wall_limit",
        LimitKind::Cpu => "cpu_limit",
        LimitKind::Memory => "memory_limit",
    }
}

fn used(execution: &Execution) -> Usage {
    let usage = execution.usage;
    Usage {
        wall_s: usage.wall.as_secs_f64(),
        cpu_s: usage.cpu.as_secs_f64(),
        peak_mb: usage.peak_memory_bytes as f64 / f64::from(1 << 20),
        timed_out: matches!(
            execution.termination,
            Termination::Limit(LimitKind::Wall | LimitKind::WallStarved | LimitKind::Cpu)
        ),
        oom: execution.termination == Termination::Limit(LimitKind::Memory),
    }
}

fn add(sum: Usage, more: Usage) -> Usage {
    Usage {
        wall_s: sum.wall_s + more.wall_s,
        cpu_s: sum.cpu_s + more.cpu_s,
        peak_mb: sum.peak_mb.max(more.peak_mb),
        timed_out: sum.timed_out || more.timed_out,
        oom: sum.oom || more.oom,
    }
}
