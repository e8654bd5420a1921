//! `assay task validate`: whether tasks judge as they should.

use std::{collections::BTreeMap, fmt, fs, path::Path, sync::Arc, time::Instant};

use anyhow::Context as _;
use assay_proto::v1::{EvaluateRequest, EvaluateResult, Fault, Outcome};
use assay_repos::{Catalog, Lock, LockedTest, Mode, Task, TaskId};
use assay_rewards::{GradeRecord, RewardSpec, TestStatus, score};
use clap::{ArgGroup, Args};
use futures::{StreamExt as _, stream};
use indicatif::ProgressBar;
use serde::Serialize;

use super::{
    Common,
    output::{Blame as _, CliResult, Exit, wrong},
    score::{to_wire, unknown_task, word},
    session::Session,
    task::report_problems,
};
use crate::App;

/// The reward that says whether a submission solves its task, and nothing else.
const REWARD: &str = "pass";

/// What `assay task validate` takes.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("which").required(true).args(["ids", "all"])))]
pub(super) struct Validate {
    /// The tasks
    #[arg(value_name = "ID")]
    ids: Vec<TaskId>,
    /// Every task of the catalog
    #[arg(long)]
    all: bool,
    /// Run everything this many times; no verdict may differ
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Write what was found: private/expected.lock.json of test suites, and `mode = "guarded"` for
    /// functions whose values can't cross into the sealed grader
    #[arg(long)]
    write_lock: bool,
}

impl Validate {
    pub(super) async fn run(self, common: &Common) -> CliResult {
        if common.server.is_some() {
            return Err(wrong("`task validate` needs private files, so it takes no --server"));
        }
        let started = Instant::now();
        let places = common.places();
        let catalog = Catalog::load(&places.catalog, &places.cache);
        let tasks = self.tasks(&catalog)?;
        if self.all {
            report_problems(&catalog);
        }

        let output = common.output();
        let mut findings: Vec<Finding> = tasks.into_iter().map(Finding::new).collect();
        let bases = findings.iter().filter(|finding| finding.has_base()).count();
        let total = (findings.len() * 2 + bases) as u64 * u64::from(self.runs);
        let progress = output.progress(total, "validate");
        for _ in 0..self.runs {
            // A service of its own each time: nothing is answered from a cache.
            let session = Session::open_fresh(common).await?;
            run_once(&session, &mut findings, &progress).await?;
            if let Some(app) = session.app() {
                run_bases(app, &mut findings, &progress).await;
                if self.write_lock {
                    for finding in &mut findings {
                        finding.note_lock(app).await?;
                    }
                }
            }
            session.close().await;
        }
        progress.finish_and_clear();

        let mut summary = Summary { runs: self.runs, ..Summary::default() };
        for mut finding in findings {
            finding.judge();
            if self.write_lock && finding.infra == 0 {
                finding.write().wrong()?;
            }
            summary.count(&finding);
            let report = finding.report();
            output.object(&report)?;
            if !report.valid || report.mark.is_some() {
                output.text(&report)?;
            }
        }
        if self.all {
            summary.not_loaded = catalog.problems().len();
        }
        summary.seconds = started.elapsed().as_secs_f64();
        output.line(&Totals { summary: &summary })?;
        Ok(if summary.infra > 0 {
            Exit::NotDone
        } else if summary.invalid + summary.not_loaded > 0 {
            Exit::Wrong
        } else {
            Exit::Done
        })
    }

    fn tasks(&self, catalog: &Catalog) -> CliResult<Vec<Arc<Task>>> {
        if self.all {
            return Ok(catalog.tasks().cloned().collect());
        }
        let find = |id| catalog.get(id).cloned().ok_or_else(|| unknown_task(catalog, id));
        self.ids.iter().map(find).collect()
    }
}

/// What one run of one submission said. Two runs of it must say the same.
#[derive(Clone, Debug, PartialEq)]
struct Verdict {
    outcome: Outcome,
    reward: Option<f64>,
    tests: BTreeMap<&'static str, u32>,
    failure: Option<(Fault, String)>,
    grade: String,
}

impl From<EvaluateResult> for Verdict {
    fn from(result: EvaluateResult) -> Self {
        let tests = result.tests.unwrap_or_default();
        Self {
            outcome: result.outcome(),
            reward: result.reward,
            tests: BTreeMap::from([
                ("passed", tests.passed),
                ("failed", tests.failed),
                ("errors", tests.errors),
                ("skipped", tests.skipped),
                ("missing", tests.missing),
            ]),
            failure: result
                .failure
                .map(|failure| (failure.fault(), format!("{}: {}", failure.kind, failure.detail))),
            grade: result.grade_id,
        }
    }
}

impl Verdict {
    fn same_as(&self, other: &Self) -> bool {
        (self.outcome, self.reward, &self.tests) == (other.outcome, other.reward, &other.tests)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(self.outcome.as_str_name(), "OUTCOME_"))?;
        if let Some(reward) = self.reward {
            write!(f, " with reward {reward}")?;
        }
        let count = |(name, count): (&&str, &u32)| (*count > 0).then(|| format!("{count} {name}"));
        let tests: Vec<_> = self.tests.iter().filter_map(count).collect();
        if !tests.is_empty() {
            write!(f, " ({})", tests.join(", "))?;
        }
        if let Some((_, failure)) = &self.failure {
            write!(f, ", {failure}")?;
        }
        Ok(())
    }
}

/// One task and what its runs said.
#[derive(Debug)]
struct Finding {
    task: Arc<Task>,
    gold: Vec<Verdict>,
    empty: Vec<Verdict>,
    /// Of the revision without any submission; absent where there is no revision.
    base: Option<GradeRecord>,
    problems: Vec<String>,
    infra: usize,
    mark: Option<&'static str>,
    lock: Option<Lock>,
}

async fn run_once(
    session: &Session,
    findings: &mut [Finding],
    progress: &ProgressBar,
) -> CliResult<()> {
    let client = session.rewards();
    let mut jobs = Vec::with_capacity(findings.len() * 2);
    for (index, finding) in findings.iter_mut().enumerate() {
        match finding.task.gold() {
            Ok(gold) => jobs.push((index, true, finding.task.id.clone(), gold)),
            Err(error) => {
                finding.problem(format!("no gold submission: {:#}", anyhow::Error::new(error)))
            }
        }
        jobs.push((index, false, finding.task.id.clone(), finding.task.empty()));
    }
    let mut verdicts = stream::iter(jobs)
        .map(|(index, gold, task, submission)| {
            let mut client = client.clone();
            let request = EvaluateRequest {
                request_id: uuid::Uuid::now_v7().to_string(),
                task_id: task.to_string(),
                submission: Some(to_wire(submission)),
                reward: REWARD.to_owned(),
                ..EvaluateRequest::default()
            };
            async move { (index, gold, client.evaluate(request).await) }
        })
        .buffer_unordered(64);
    while let Some((index, gold, answer)) = verdicts.next().await {
        let verdict = Verdict::from(answer?.into_inner());
        let finding = &mut findings[index];
        if gold {
            finding.gold.push(verdict)
        } else {
            finding.empty.push(verdict)
        }
        progress.inc(1);
    }
    Ok(())
}

/// Runs the tests of revisions without any submission, in the place of the service's workers.
async fn run_bases(app: &App, findings: &mut [Finding], progress: &ProgressBar) {
    let evaluator = app.fleet().evaluator();
    let jobs: Vec<_> = (0..).zip(&*findings).filter(|(_, finding)| finding.has_base()).collect();
    let jobs: Vec<_> =
        jobs.into_iter().map(|(at, finding)| (at, finding.task.id.clone())).collect();
    let mut bases = stream::iter(jobs)
        .map(|(at, task)| async move { (at, evaluator.baseline(task).await) })
        .buffer_unordered(app.fleet().stats().workers);
    while let Some((at, base)) = bases.next().await {
        let finding: &mut Finding = &mut findings[at];
        finding.note_base(base);
        progress.inc(1);
    }
}

impl Finding {
    fn new(task: Arc<Task>) -> Self {
        Self {
            task,
            gold: Vec::new(),
            empty: Vec::new(),
            base: None,
            problems: Vec::new(),
            infra: 0,
            mark: None,
            lock: None,
        }
    }

    fn problem(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.problems.contains(&what) {
            self.problems.push(what);
        }
    }

    /// Reads test by test what the last run found, without and with the gold submission.
    async fn note_lock(&mut self, app: &App) -> CliResult<()> {
        let Some(gold) = self.gold.last().and_then(|verdict| verdict.grade.parse().ok()) else {
            return Ok(());
        };
        let Some(gold) = app.fleet().grade(&gold).await.not_done()? else { return Ok(()) };
        let stuck = |record: &GradeRecord| {
            let mut tests = record.checks.iter().flat_map(|check| &check.tests);
            tests.any(|test| test.message.as_ref().is_some_and(|text| text.contains("can't cross")))
        };
        if self.task.mode == Mode::Sealed && stuck(&gold) {
            self.mark = Some("guarded");
        }
        let Some(base) = &self.base else { return Ok(()) };
        let lock = lock(base, &gold);
        if self.lock.as_ref().is_some_and(|earlier| *earlier != lock) {
            self.problem("two runs gave a test different results");
        }
        self.lock = Some(lock);
        Ok(())
    }

    /// Whether there is something to look at before a submission.
    fn has_base(&self) -> bool {
        self.task.source.is_some()
    }

    fn note_base(&mut self, base: Result<assay_fleet::Verdict, assay_rewards::Failure>) {
        let record = match base {
            Ok(verdict) => verdict.record,
            Err(failure) => {
                return self.problem(format!("no baseline: {}: {}", failure.kind, failure.detail));
            }
        };
        if let Some(failure) = &record.failure {
            self.infra += usize::from(failure.fault == assay_rewards::Fault::Infra);
            let why = &failure.detail;
            self.problem(format!("the baseline is {}: {why}", record.outcome.as_str()));
        } else if RewardSpec::preset(REWARD)
            .is_some_and(|spec| score(&record, spec).reward.is_some_and(|reward| reward >= 1.0))
        {
            self.problem("the revision passes without any submission");
        }
        self.base = Some(record);
    }

    fn judge(&mut self) {
        let infra = |verdict: &&Verdict| {
            verdict.failure.as_ref().is_some_and(|(fault, _)| *fault == Fault::Infra)
        };
        self.infra += self.gold.iter().chain(&self.empty).filter(infra).count();
        if let Some(bad) = self.gold.iter().find(|verdict| !earns(verdict)) {
            self.problem(format!("gold is {bad}; expected SCORED with reward 1"));
        }
        if let Some(good) = self.empty.iter().find(|verdict| earns(verdict)) {
            self.problem(format!("the empty submission is {good}; expected less than 1"));
        }
        if let Some(unjudged) = self.empty.iter().find(|verdict| verdict.reward.is_none()) {
            self.problem(format!("the empty submission is {unjudged}; expected a verdict"));
        }
        for (name, verdicts) in [("gold", &self.gold), ("empty", &self.empty)] {
            let Some(first) = verdicts.first() else { continue };
            if let Some(other) = verdicts.iter().find(|verdict| !verdict.same_as(first)) {
                let what = format!("verdicts of {name} differ: {first}; {other}");
                self.problems.push(what);
                break;
            }
        }
    }

    /// Writes what the runs found into the task's folder.
    fn write(&mut self) -> anyhow::Result<()> {
        if self.mark.is_some() {
            mark_guarded(&self.task.dir.join("task.toml"))?;
        }
        if let Some(lock) = self.lock.take().filter(|_| self.problems.is_empty()) {
            let path = self.task.dir.join("private/expected.lock.json");
            fs::write(&path, lock.to_json())
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    fn report(&self) -> Report<'_> {
        Report {
            task: self.task.id.as_str(),
            set: &self.task.set,
            valid: self.problems.is_empty(),
            mode: self.task.mode.as_str(),
            gold: self.gold.iter().map(ToString::to_string).collect(),
            empty: self.empty.iter().map(ToString::to_string).collect(),
            problems: &self.problems,
            mark: self.mark,
        }
    }
}

fn lock(base: &GradeRecord, gold: &GradeRecord) -> Lock {
    let status = |record: &GradeRecord, check: &str, test: &str| {
        let mut checks = record.checks.iter();
        let check = checks.find(|one| one.id == check);
        let found = check.and_then(|check| check.tests.iter().find(|one| one.id == test));
        found.map_or(TestStatus::Missing, |test| test.status).as_str().to_owned()
    };
    let mut lock = Lock { schema: 1, checks: BTreeMap::new() };
    for check in base.checks.iter().chain(&gold.checks) {
        let tests = lock.checks.entry(check.id.clone()).or_default();
        for test in &check.tests {
            tests.entry(test.id.clone()).or_insert_with(|| LockedTest {
                base: status(base, &check.id, &test.id),
                gold: status(gold, &check.id, &test.id),
            });
        }
    }
    lock
}

fn earns(verdict: &Verdict) -> bool {
    verdict.outcome == Outcome::Scored && verdict.reward.is_some_and(|reward| reward >= 1.0 - 1e-9)
}

/// Adds `mode = "guarded"` to the top of a task file, where no table has begun.
fn mark_guarded(path: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut lines: Vec<&str> = text.lines().collect();
    let tables = lines.iter().position(|line| line.trim_start().starts_with('['));
    let top = tables.unwrap_or(lines.len());
    let place =
        lines[..top].iter().rposition(|line| !line.trim().is_empty()).map_or(0, |at| at + 1);
    lines.insert(place, "mode = \"guarded\"");
    fs::write(path, lines.join("\n") + "\n").with_context(|| format!("write {}", path.display()))
}

#[derive(Serialize)]
struct Report<'a> {
    task: &'a str,
    set: &'a str,
    valid: bool,
    mode: &'static str,
    gold: Vec<String>,
    empty: Vec<String>,
    problems: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<&'static str>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.task)?;
        for problem in self.problems {
            write!(f, "\n  {problem}")?;
        }
        if let Some(mark) = self.mark {
            write!(f, "\n  its values can't cross into the sealed grader: {mark}")?;
        }
        Ok(())
    }
}

#[derive(Default, Serialize)]
struct Summary {
    tasks: usize,
    valid: usize,
    invalid: usize,
    guarded: usize,
    infra: usize,
    not_loaded: usize,
    runs: u32,
    seconds: f64,
}

impl Summary {
    fn count(&mut self, finding: &Finding) {
        self.tasks += 1;
        if finding.problems.is_empty() {
            self.valid += 1;
        } else {
            self.invalid += 1;
        }
        self.guarded += usize::from(finding.task.mode == Mode::Guarded);
        self.infra += finding.infra;
    }
}

#[derive(Serialize)]
struct Totals<'a> {
    summary: &'a Summary,
}

impl fmt::Display for Totals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { tasks, valid, invalid, guarded, infra, not_loaded, runs, seconds } =
            self.summary;
        let times = if *runs == 1 { String::new() } else { format!(", {runs} runs each") };
        write!(f, "{tasks} tasks{times}: {valid} valid, {invalid} not, {guarded} guarded")?;
        if *infra > 0 {
            write!(f, "; {infra} runs failed by a fault of this machine")?;
        }
        if *not_loaded > 0 {
            write!(f, "; {not_loaded} files did not load")?;
        }
        write!(f, "; {seconds:.1} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_goes_before_the_tables() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("task.toml");
        let cases = [
            (
                "id = \"a\"\n\n[limits]\nwall_s = 1\n",
                "id = \"a\"\nmode = \"guarded\"\n\n[limits]\nwall_s = 1\n",
            ),
            ("id = \"a\"\n", "id = \"a\"\nmode = \"guarded\"\n"),
            ("[[check]]\nid = \"u\"\n", "mode = \"guarded\"\n[[check]]\nid = \"u\"\n"),
        ];
        for (before, after) in cases {
            fs::write(&path, before).unwrap();
            mark_guarded(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after);
        }
    }
}
