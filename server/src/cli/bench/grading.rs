//! `assay bench grading`: stored grades scored again, as `assay reward dry-run` does it, and reports
//! read.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::Context as _;
use assay_repos::{Digest, Mode, PatchFacts, ReportKind, TaskLimits};
use assay_rewards::{
    CheckRecord, Generation, GradeHeader, GradeRecord, GradedTest, Required, Rescoring, RewardSpec,
    Role, TaskFacts, TestCounts, TestStatus, Usage,
};
use assay_sandbox::Start;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::{Machine, reports, wire, wire::Wire};
use crate::cli::{
    Common,
    output::{Blame as _, CliResult, Exit},
};

/// How many records differ from each other; they come again and again.
const DISTINCT: usize = 1000;
/// Records between two looks at whether somebody wants this to end.
const SLICE: u32 = 10_000;
/// Kinds of records, by how many tests they have.
const KINDS: [(&str, u32); 2] = [("a function with 5 tests", 5), ("a patch with 50 tests", 50)];
/// Most grades that are stored, to be rescored over a socket.
const STORED: u32 = 100_000;
const REWARD: &str = "swe-default";

pub(super) async fn run(common: &Common, n: u32, tests: u32) -> CliResult {
    let spec =
        RewardSpec::preset(REWARD).context("a reward file that comes with Assay").not_done()?;
    let progress = common.output().progress(KINDS.len() as u64 * u64::from(n) * 2, "grades");
    let mut rows = Vec::new();
    for (what, tests) in KINDS {
        let records: Vec<_> = (0..DISTINCT as u32).map(|i| record(tests, i)).collect();
        let lines: Vec<_> = records.iter().map(GradeRecord::to_json).collect();
        let (mut whole, mut scoring) = (Duration::ZERO, Duration::ZERO);
        let mut stored = Rescoring::new(spec.clone(), None);
        let mut parsed = Rescoring::new(spec.clone(), None);
        // In turns, so that whatever else the machine does hits both alike.
        for from in (0..n).step_by(SLICE as usize) {
            let slice = || (from..n.min(from + SLICE)).map(|i| i as usize % DISTINCT);
            let started = cpu();
            for i in slice() {
                let json = lines[i].as_bytes();
                stored.add(&GradeRecord::skim_json(json).not_done()?, || Digest::of(json));
            }
            whole += cpu() - started;
            let started = cpu();
            for i in slice() {
                parsed.add(&records[i], || Digest::of(&lines[i]));
            }
            scoring += cpu() - started;
            progress.inc(2 * slice().count() as u64);
            tokio::task::yield_now().await;
        }
        let same = stored.finish() == parsed.finish();
        same.then_some(())
            .context("a record is worth another number once it was stored")
            .not_done()?;
        let bytes = lines.iter().map(String::len).sum::<usize>() / DISTINCT;
        let (whole_s, scoring_s) = (whole.as_secs_f64(), scoring.as_secs_f64());
        let per_s = f64::from(n) / whole_s;
        rows.push(Row { what, tests, bytes, whole_s, scoring_s, per_s });
    }
    let (_, few) = KINDS[0];
    let records: Vec<_> = (0..DISTINCT as u32).map(|i| record(few, i)).collect();
    let wire = wire::rescore(common, &records, REWARD, n.min(STORED)).await?;
    progress.finish_and_clear();
    let progress = common.output().progress(reports::count() as u64, "formats");
    let formats = reports::measure(tests as usize, || progress.inc(1)).not_done()?;
    progress.finish_and_clear();
    let machine = Machine::read();
    common.output().line(&Report { n, reward: REWARD, rows, wire, tests, formats, machine })?;
    Ok(Exit::Done)
}

/// What this thread used of a CPU so far: neighbours don't count.
pub(super) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// A grade as an evaluation leaves it; those of other numbers have other tests that failed.
fn record(tests: u32, number: u32) -> GradeRecord {
    let mut record = GradeHeader {
        task: "bench.grading".parse().unwrap_or_else(|_| unreachable!("it is an id")),
        task_digest: Digest::of("task"),
        image_digest: Digest::of("image").to_string(),
        submission_digest: Digest::of(number.to_string()),
        backend: "native".into(),
        mode: Mode::Guarded,
        limits: TaskLimits::default(),
        generation: Generation { finish_reason: "stop".into(), ..Generation::default() },
        external: BTreeMap::new(),
        task_facts: TaskFacts::default(),
        runner: "assay".into(),
    }
    .grade(PatchFacts::default(), Vec::new(), &[], None);
    record.complete = true;
    record.patch = PatchFacts { applied: true, files: 1, added: number, ..PatchFacts::default() };
    let one = |test: u32| {
        let passed = !(number + test).is_multiple_of(7);
        GradedTest {
            id: format!("tests/test_module.py::test_number_{test}"),
            status: if passed { TestStatus::Passed } else { TestStatus::Failed },
            role: if test == 0 { Role::MustPass } else { Role::MustKeep },
            duration_s: Some(f64::from(number + test) / 1e6),
            message: (!passed).then(|| "AssertionError: assert 1 == 2".to_owned()),
        }
    };
    let mut check = CheckRecord {
        id: "unit".into(),
        report: ReportKind::Pytest,
        ran: true,
        counts: TestCounts::default(),
        must_pass: Required::default(),
        must_keep: Required::default(),
        exact: None,
        tests: (0..tests).map(one).collect(),
        canaries: Vec::new(),
        usage: Usage { wall_s: 0.1 + f64::from(number) / 1e5, ..Usage::default() },
        start: Start::Warm,
    };
    for test in &check.tests {
        check.counts.add(test.status);
        let required = match test.role {
            Role::MustPass => &mut check.must_pass,
            _ => &mut check.must_keep,
        };
        required.count += 1;
        required.held += u32::from(test.status.passes());
    }
    record.usage = check.usage;
    record.checks.push(check);
    record
}

#[derive(Serialize)]
struct Report {
    /// Of each kind.
    n: u32,
    /// The reward file.
    reward: &'static str,
    rows: Vec<Row>,
    /// Of the first kind, from the database to a client.
    wire: Wire,
    /// Of each report.
    tests: u32,
    formats: Vec<reports::Row>,
    machine: Machine,
}

/// Seconds are of CPU time.
#[derive(Serialize)]
struct Row {
    what: &'static str,
    tests: u32,
    /// Of a record as JSON, on the average.
    bytes: usize,
    /// To read all of them from JSON and score them.
    whole_s: f64,
    /// To score all of them, once they are read.
    scoring_s: f64,
    /// How many are read and scored in a second.
    per_s: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, kernel } = &self.machine;
        writeln!(
            f,
            "one of {cores} cores of {cpu}, Linux {kernel}; {} grades each, by {}",
            self.n, self.reward
        )?;
        write!(
            f,
            "{:<26} {:>6} {:>18} {:>10} {:>9}",
            "", "bytes", "read and score s", "score s", "per s"
        )?;
        for Row { what, bytes, whole_s, scoring_s, per_s, .. } in &self.rows {
            write!(f, "\n{what:<26} {bytes:>6} {whole_s:>18.2} {scoring_s:>10.2} {per_s:>9.0}")?;
        }
        write!(f, "\n{}", self.wire)?;
        write!(f, "\nreports of {} tests", self.tests)?;
        write!(f, "\n{:<28} {:>9} {:>8} {:>7}  than", "", "bytes", "MB per s", "times")?;
        for row in &self.formats {
            write!(f, "\n{row}")?;
        }
        Ok(())
    }
}
