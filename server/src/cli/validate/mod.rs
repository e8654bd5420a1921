//! `assay task validate`: whether tasks judge as they should.

mod finding;

use std::{fmt, sync::Arc, time::Instant};

use assay_proto::v1::EvaluateRequest;
use assay_repos::{Catalog, Mode, Task, TaskId};
use assay_rewards::Tally;
use clap::{ArgGroup, Args};
use futures::{StreamExt as _, stream};
use indicatif::ProgressBar;
use serde::Serialize;

use self::finding::{Finding, Verdict};
use super::{
    Common, attack,
    output::{Blame as _, CliResult, Exit, wrong},
    score::{to_wire, unknown_task},
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
    /// Write what was found: private/expected.lock.json of test suites, `mode = "sealed"` where their
    /// tests can run apart from the code under test, and `mode = "guarded"` for functions whose values
    /// can't cross
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
                        finding.try_sealed(app).await;
                    }
                }
            }
            session.close().await;
        }
        progress.finish_and_clear();
        attack(common, &mut findings).await?;

        findings.iter_mut().for_each(Finding::note_leaks);
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

/// Runs the attacks that come with Assay and the tasks' own, once: none may earn more than nothing does.
async fn attack(common: &Common, findings: &mut [Finding]) -> CliResult<()> {
    let session = Session::open_fresh(common).await?;
    if let Some(app) = session.app() {
        let tasks: Vec<_> = findings.iter().map(|finding| Arc::clone(&finding.task)).collect();
        let progress = |total| common.output().progress(total, "attack");
        let found = attack::run(app, &tasks, &attack::Scope::default(), progress).await;
        for (finding, tried) in findings.iter_mut().zip(found) {
            finding.note_attacks(&tried);
        }
    }
    session.close().await;
    Ok(())
}

/// `tasks` is the sum of the three counts that follow it.
#[derive(Default, Serialize)]
struct Summary {
    tasks: usize,
    valid: usize,
    invalid: usize,
    /// Some run failed by a fault of this machine, so nobody knows.
    undecided: usize,
    /// Of gold, of nothing and of the revision alone; attacks are counted apart.
    evaluations: Tally,
    guarded: usize,
    infra: usize,
    attacks: usize,
    not_loaded: usize,
    runs: u32,
    seconds: f64,
}

impl Summary {
    fn count(&mut self, finding: &Finding) {
        self.tasks += 1;
        *match (finding.infra, finding.problems.is_empty()) {
            (0, true) => &mut self.valid,
            (0, false) => &mut self.invalid,
            _ => &mut self.undecided,
        } += 1;
        self.evaluations.add(finding.tally);
        self.guarded += usize::from(finding.task.mode == Mode::Guarded);
        self.infra += finding.infra;
        self.attacks += finding.attacks;
    }
}

#[derive(Serialize)]
struct Totals<'a> {
    summary: &'a Summary,
}

impl fmt::Display for Totals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { tasks, valid, invalid, undecided, guarded, infra, not_loaded, .. } =
            self.summary;
        let Summary { evaluations, attacks, runs, seconds, .. } = self.summary;
        let times = if *runs == 1 { String::new() } else { format!(", {runs} runs each") };
        write!(
            f,
            "{tasks} tasks{times}: {valid} valid, {invalid} not, {guarded} guarded, {attacks} attacks"
        )?;
        if *infra > 0 {
            let all = evaluations.requested as usize + attacks;
            write!(
                f,
                "; {undecided} undecided: {infra} of {all} runs failed by a fault of this machine"
            )?;
        }
        if *not_loaded > 0 {
            write!(f, "; {not_loaded} files did not load")?;
        }
        write!(f, "; {seconds:.1} s")
    }
}
