//! `assay grade show`: one grade record, for people.

use std::fmt;

use assay_repos::{Flag, Severity};
use assay_rewards::{
    Canary, CheckRecord, Failure, Fault, GradeRecord, GradedTest, Required, Role, Short,
    TestStatus, Usage,
};
use assay_sandbox::Start;
use clap::Args;
use serde::Serialize;

use crate::cli::{
    Common,
    output::{CliResult, Exit},
    plain::Plain,
    records::RecordsAt,
};

/// Most tests of a check that are named.
const TESTS: usize = 40;
/// Most lines of a test's message.
const LINES: usize = 12;

/// What `assay grade show` takes.
#[derive(Args, Debug)]
pub(in crate::cli) struct Show {
    /// The id of the grade, or how it starts
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    records: RecordsAt,
}

impl Show {
    pub(super) fn run(self, common: &Common) -> CliResult {
        let (grade, record) = self.records.open(common)?.pick(Some(&self.id))?;
        common.output().line(&Shown { grade: grade.to_string(), record })?;
        Ok(Exit::Done)
    }
}

/// The whole record with `--json`; as text, what decided.
#[derive(Serialize)]
struct Shown {
    grade: String,
    #[serde(flatten)]
    record: GradeRecord,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { grade, record } = self;
        write!(f, "{}  {}", record.task, record.outcome.as_str())?;
        if !record.complete {
            f.write_str("  incomplete")?;
        }
        row(f, "grade", grade)?;
        if let Some(failure) = &record.failure {
            self::failure(f, failure)?;
        }
        record.flags.iter().try_for_each(|flag| self::flag(f, flag))?;
        let patch = &record.patch;
        let applied = if patch.applied { "applied" } else { "not applied" };
        let files = plural(patch.files.into(), "file");
        let remark = if patch.touches_tests { ", touches tests" } else { "" };
        let (added, removed) = (patch.added, patch.removed);
        row(f, "submission", format_args!("{applied}, {files}, +{added} -{removed}{remark}"))?;
        record.checks.iter().try_for_each(|check| self::check(f, check))?;
        row(f, "usage", Used(&record.usage))?;
        let limits = &record.limits;
        let (wall, cpu, memory) = (limits.wall_s, limits.cpu_s, limits.memory_mb);
        let limits = format_args!("wall {wall} s, cpu {cpu} s, memory {memory} MB");
        row(f, "limits", limits)?;
        row(f, "ran", format_args!("{}, {}, {}", record.backend, record.mode, record.runner))?;
        if !record.isolation.is_empty() {
            row(f, "isolation", Plain(&record.isolation.join("; ")))?;
        }
        row(f, "task", &record.task_digest)?;
        row(f, "image", Plain(&record.image_digest))?;
        row(f, "as judged", &record.submission_digest)
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, what: impl fmt::Display) -> fmt::Result {
    write!(f, "\n  {name:<12} {what}")
}

fn failure(f: &mut fmt::Formatter<'_>, failure: &Failure) -> fmt::Result {
    let Failure { kind, phase, fault, attempts, detail, .. } = failure;
    let fault = match fault {
        Fault::Submission => "submission",
        Fault::Task => "task",
        Fault::Infra => "infra",
    };
    let tries = if *attempts > 1 { format!(", {attempts} tries") } else { String::new() };
    let (kind, phase) = (Plain(kind), phase.as_str());
    row(f, "failure", format_args!("{kind} in {phase}, fault {fault}{tries}"))?;
    message(f, detail)
}

/// Whole, on one line: what it says is evidence.
fn flag(f: &mut fmt::Formatter<'_>, flag: &Flag) -> fmt::Result {
    let severity = match flag.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Tampering => "tampering",
    };
    row(f, severity, format_args!("{}: {}", Plain(&flag.code), Plain(&flag.evidence)))
}

fn check(f: &mut fmt::Formatter<'_>, check: &CheckRecord) -> fmt::Result {
    let start = match &check.start {
        Start::Cold => String::new(),
        Start::Warm => ", warm".to_owned(),
        Start::ColdInstead(why) => format!(", cold: {}", Plain(why)),
    };
    let name = format_args!("{} ({}{start})", Plain(&check.id), check.report).to_string();
    if !check.ran {
        return row(f, "check", format_args!("{name}: did not run"));
    }
    let counts = check.counts;
    row(f, "check", format_args!("{name}: {} passed", counts.passed))?;
    for (count, what) in [
        (counts.failed, "failed"),
        (counts.errors, "errors"),
        (counts.skipped, "skipped"),
        (counts.missing, "missing"),
    ] {
        if count > 0 {
            write!(f, ", {count} {what}")?;
        }
    }
    let required = [("must_pass", Some(check.must_pass)), ("must_keep", Some(check.must_keep))];
    for (name, required) in required.into_iter().chain([("exact", check.exact)]) {
        if let Some(Required { held, count }) = required.filter(|required| required.count > 0) {
            write!(f, "; {name} {held}/{count}")?;
        }
    }
    if !check.canaries.is_empty() {
        f.write_str("\n    canaries  ")?;
        check.canaries.iter().try_for_each(|canary| self::canary(f, canary))?;
    }
    let mut shown: Vec<_> = check.tests.iter().filter(|test| weight(test) < SILENT).collect();
    // Stable: tests of the same weight stay in the order of the report.
    shown.sort_by_key(|test| weight(test));
    shown.iter().take(TESTS).try_for_each(|test| self::test(f, test))?;
    match shown.len().saturating_sub(TESTS) {
        0 => Ok(()),
        more => write!(f, "\n    and {more} more; --json has all"),
    }
}

/// Its kind and colour; where that is wrong, what it was called.
fn canary(f: &mut fmt::Formatter<'_>, canary: &Canary) -> fmt::Result {
    let colour = match canary.status {
        TestStatus::Failed | TestStatus::Error => "red",
        TestStatus::Passed | TestStatus::Xfailed | TestStatus::Xpassed => "green",
        other => other.as_str(),
    };
    write!(f, " {} {colour}", canary.kind)?;
    if canary.holds() { Ok(()) } else { write!(f, "! ({})", Plain(&canary.id)) }
}

/// The weight of what isn't shown: it passed as before, or nobody asked it to.
const SILENT: u8 = 4;

/// Sorts the tests that decided to the front.
fn weight(test: &GradedTest) -> u8 {
    match (test.role, test.status.passes()) {
        (Role::MustPass, false) => 0,
        (Role::MustPass, true) => 1,
        (Role::MustKeep, _) if !test.status.keeps() => 2,
        (Role::Quarantined, _) => 3,
        (Role::MustKeep, true) => SILENT,
        (_, passes) => 3 + u8::from(passes),
    }
}

fn test(f: &mut fmt::Formatter<'_>, test: &GradedTest) -> fmt::Result {
    let GradedTest { id, status, role, duration_s, message } = test;
    let role = role.as_str();
    write!(f, "\n    {role:<11} {:<8} {}", status.as_str(), Plain(id))?;
    if let Some(seconds) = duration_s {
        write!(f, "  {} s", Short(*seconds))?;
    }
    match message {
        Some(text) if *status != TestStatus::Passed => self::message(f, text),
        _ => Ok(()),
    }
}

/// What something said, its lines kept, bounded.
fn message(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut lines = text.trim_end().lines();
    for line in lines.by_ref().take(LINES) {
        write!(f, "\n      | {}", Plain(line))?;
    }
    match lines.count() {
        0 => Ok(()),
        more => write!(f, "\n      | and {}; --json has all", plural(more as u64, "more line")),
    }
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

struct Used<'a>(&'a Usage);

impl fmt::Display for Used<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { wall_s, cpu_s, peak_mb, stalled_s, instructions, timed_out, oom } = self.0;
        write!(f, "wall {} s, cpu {} s, peak {peak_mb:.0} MB", Short(*wall_s), Short(*cpu_s))?;
        if *stalled_s > 0.0 {
            write!(f, ", stalled {} s", Short(*stalled_s))?;
        }
        if let Some(instructions) = instructions {
            write!(f, ", {instructions} instructions")?;
        }
        let timed_out = if *timed_out { ", a time limit ended it" } else { "" };
        let oom = if *oom { ", the memory limit ended it" } else { "" };
        write!(f, "{timed_out}{oom}")
    }
}
