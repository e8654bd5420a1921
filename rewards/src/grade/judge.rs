//! Whose fault it was: the verdict on one check.

use assay_repos::{Flag, Lock, ReportKind, Severity};
use assay_sandbox::{Execution, LimitKind, Start, Termination};

use super::{
    CheckEvidence, CheckRun, MAX_DETAIL,
    expected::{Expected, exact},
};
use crate::{
    CheckRecord, Evidence, Failure, Fault, GradedTest, Outcome, Phase, Progress, Report, Required,
    Role, TestCounts, TestStatus, Usage, parse, parse_stdio,
    report::{bounded, describe, tail},
};

/// Who is to blame, the gravest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Submission,
    Task,
    Infra,
    Tampered,
}

impl Rank {
    pub(super) fn outcome(self) -> Outcome {
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

pub(super) struct Trouble {
    pub(super) rank: Rank,
    pub(super) failure: Failure,
}

impl Trouble {
    pub(super) fn new(rank: Rank, kind: &str, phase: Phase, detail: impl AsRef<str>) -> Self {
        let detail = bounded(detail.as_ref().trim_end(), MAX_DETAIL);
        Self { rank, failure: Failure::new(kind, phase, rank.fault(), detail) }
    }
}

pub(super) struct Judged {
    pub(super) record: CheckRecord,
    pub(super) flags: Vec<Flag>,
    pub(super) trouble: Option<Trouble>,
}

pub(super) fn judge(run: &CheckRun<'_>, lock: Option<&Lock>) -> Judged {
    let check = run.check;
    let mut record = CheckRecord {
        id: check.id.clone(),
        report: check.report,
        ran: run.evidence.is_some(),
        counts: TestCounts::default(),
        must_pass: Required::default(),
        must_keep: Required::default(),
        exact: None,
        tests: Vec::new(),
        canaries: Vec::new(),
        usage: Usage::default(),
        start: start(run),
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
    if let Some(control) = run.control {
        control.weigh(check.report, &mut report);
    }
    // A machine without time leaves whatever it leaves: its contradictions are nobody's.
    let mut flags = match starved(run) {
        Some(_) => Vec::new(),
        None => std::mem::take(&mut report.flags),
    };
    record.canaries = std::mem::take(&mut report.canaries);
    let expected = Expected::of(check, lock, run.quarantined);
    expected.fill(&mut record, std::mem::take(&mut report.tests));
    record.exact = exact(&record, lock, &expected);
    flags.extend(expected.remarks(check, lock, &record));
    // A report that is not believed has no result to show.
    if flags
        .iter()
        .all(|flag| !flag.code.starts_with("report.") && !flag.code.starts_with("canary."))
    {
        flags.extend(vanished(run, &record));
    }
    let trouble = trouble(run, &report, &record, &expected);
    Judged { record, flags, trouble }
}

/// Remarks a command that says it succeeded though tests that the task names never came to a result: they were
/// not collected, or the process ended before them.
fn vanished(run: &CheckRun<'_>, record: &CheckRecord) -> Option<Flag> {
    let Some(Evidence { execution, subject: None, .. }) = runner_evidence(run) else { return None };
    let named = |test: &&GradedTest| test.role != Role::Other && test.status == TestStatus::Missing;
    let missing = record.tests.iter().filter(named).count();
    (execution.termination == Termination::Exited(0) && missing > 0).then(|| Flag {
        code: "tests.vanished".into(),
        severity: Severity::Warning,
        evidence: format!(
            "check {} exited with status 0, and {missing} tests that the task names have no result",
            record.id
        ),
    })
}

/// Returns how the processes of a check came to be; the first that could not be warm speaks for all.
fn start(run: &CheckRun<'_>) -> Start {
    let starts = run.executions();
    let starts = || starts.iter().map(|execution| &execution.isolation.start);
    let cold = starts().find(|start| matches!(start, Start::ColdInstead(_)));
    cold.or_else(|| starts().next()).cloned().unwrap_or_default()
}

/// Returns the execution that the machine had no time for.
fn starved<'r>(run: &'r CheckRun<'_>) -> Option<&'r Execution> {
    let starved = Termination::Limit(LimitKind::WallStarved);
    run.executions().into_iter().find(|execution| execution.termination == starved)
}

/// Finds out whose fault it was that a check did not go well. A test that failed is no trouble.
fn trouble(
    run: &CheckRun<'_>,
    report: &Report,
    record: &CheckRecord,
    expected: &Expected,
) -> Option<Trouble> {
    if let Some(execution) = starved(run) {
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
            // The grader reads the task's tests first. 126 and 127 mean that there was none to run.
            (ReportKind::Function, Termination::Exited(code)) if !matches!(code, 126 | 127) => {
                Rank::Task
            }
            // The image has no `/bin/sh` to collect a report with.
            (kind, Termination::Exited(126 | 127)) if kind.is_foreign() => Rank::Task,
            _ => Rank::Infra,
        };
        return Some(Trouble::new(
            rank,
            "runner_silent",
            Phase::Run,
            last_words(evidence.execution),
        ));
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
        let blame = match (execution.termination, run.check.report) {
            // A suite ends early where it can't import what it tests, too: see below.
            (Termination::Exited(_), ReportKind::Pytest) => None,
            (Termination::Exited(_), _) => Some((Rank::Task, "grader_died")),
            // The tests fit the limits, or no reference solution would pass: values that take the
            // grader over them are the submission's work.
            (Termination::Limit(limit), _) => Some((Rank::Submission, limit_name(limit))),
            (Termination::Signaled(_), _) => Some((Rank::Infra, "grader_died")),
        };
        if let Some((rank, kind)) = blame {
            return Some(Trouble::new(rank, kind, Phase::Run, last_words(execution)));
        }
    }
    if record.counts.ran() > 0 {
        return None;
    }
    // Where tests are known to exist, by the task or by what was collected, it was the submission
    // that kept them from running; and where the process left before its runner was done.
    // A log that shows no run at all may be in words that its parser doesn't know.
    let unread =
        matches!(run.check.report, ReportKind::Log(_)) && report.progress < Progress::Started;
    let tests = expected.names_tests() || !record.tests.is_empty();
    let known = !unread && (tests || report.broke_off);
    let rank = if known { Rank::Submission } else { Rank::Task };
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
        stalled_s: usage.stalled.as_secs_f64(),
        instructions: usage.instructions,
        timed_out: matches!(
            execution.termination,
            Termination::Limit(LimitKind::Wall | LimitKind::WallStarved | LimitKind::Cpu)
        ),
        oom: execution.termination == Termination::Limit(LimitKind::Memory),
    }
}

pub(super) fn add(sum: Usage, more: Usage) -> Usage {
    Usage {
        wall_s: sum.wall_s + more.wall_s,
        cpu_s: sum.cpu_s + more.cpu_s,
        peak_mb: sum.peak_mb.max(more.peak_mb),
        stalled_s: sum.stalled_s + more.stalled_s,
        instructions: match (sum.instructions, more.instructions) {
            (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
            // The first of a sum, or a backend that doesn't count.
            (sum, more) => sum.or(more),
        },
        timed_out: sum.timed_out || more.timed_out,
        oom: sum.oom || more.oom,
    }
}
