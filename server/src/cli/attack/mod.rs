//! `assay task attack`: whether anything but a solution earns a reward.

mod tried;

use std::{fmt, sync::Arc, time::Instant};

use assay_fleet::{Evaluation, RequestId};
use assay_repos::{
    Attack as Recipe, Catalog, Submission, Task, TaskError, TaskId, attack_classes, attacks,
    idle_submission, own_attacks,
};
use assay_rewards::{Failure, Fault, GradeRecord};
use clap::{ArgGroup, Args};
use futures::{StreamExt as _, stream};
use indicatif::ProgressBar;
use serde::Serialize;

pub(super) use self::tried::Tried;
use self::tried::{IDLE, NOTHING, Report, Summary, Worth};
use super::{
    Common,
    output::{CliResult, Exit, Output, wrong},
    score::unknown_task,
    session::Session,
    task::report_problems,
};
use crate::App;

/// What `assay task attack` takes.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("which").required(true).args(["ids", "all", "list"])))]
pub(super) struct Attack {
    /// The tasks
    #[arg(value_name = "ID")]
    ids: Vec<TaskId>,
    /// Every task of the catalog
    #[arg(long)]
    all: bool,
    /// List the attacks that come with Assay, and run none
    #[arg(long)]
    list: bool,
    /// Run those attacks, too, that end by a limit of time or memory
    #[arg(long)]
    slow: bool,
}

impl Attack {
    pub(super) async fn run(self, common: &Common) -> CliResult {
        let output = common.output();
        if self.list {
            return list(output);
        }
        if common.server.is_some() {
            return Err(wrong("`task attack` needs private files, so it takes no --server"));
        }
        let started = Instant::now();
        let places = common.places();
        let catalog = Catalog::load(&places.catalog, &places.cache);
        let tasks = self.tasks(&catalog)?;
        let session = Session::open_fresh(common).await?;
        let Some(app) = session.app() else {
            return Err(wrong("`task attack` needs a service in this process"));
        };
        let scope = Scope { slow: self.slow, gold: true };
        let found = run(app, &tasks, &scope, |total| output.progress(total, "attack")).await;
        session.close().await;

        let mut summary = Summary::default();
        for (task, tried) in tasks.iter().zip(&found) {
            let report = Report::new(task, tried);
            summary.count(&report);
            output.object(&report)?;
            if !self.all || report.is_news() {
                output.text(&report)?;
            }
        }
        if self.all {
            report_problems(&catalog);
        }
        summary.seconds = started.elapsed().as_secs_f64();
        let exit = summary.exit();
        output.line(&tried::Totals { summary })?;
        Ok(exit)
    }

    fn tasks(&self, catalog: &Catalog) -> CliResult<Vec<Arc<Task>>> {
        if self.all {
            return Ok(catalog.tasks().cloned().collect());
        }
        let find = |id| catalog.get(id).cloned().ok_or_else(|| unknown_task(catalog, id));
        self.ids.iter().map(find).collect()
    }
}

/// What runs are for.
#[derive(Clone, Debug)]
enum Role {
    Gold,
    /// What anything earns: nothing at all.
    Floor,
    /// The same, by code that does nothing.
    Idle,
    Attack {
        name: String,
        /// Of the library; none of a task's own.
        recipe: Option<&'static Recipe>,
    },
}

/// Runs all attacks that fit each task, once, beside what shows what they would have to beat.
pub(super) async fn run(
    app: &App,
    tasks: &[Arc<Task>],
    scope: &Scope,
    progress: impl FnOnce(u64) -> ProgressBar,
) -> Vec<Vec<Tried>> {
    let mut found: Vec<Vec<Tried>> = tasks.iter().map(|_| Vec::new()).collect();
    let mut jobs = Vec::new();
    for (at, task) in tasks.iter().enumerate() {
        match roles(task, scope) {
            Ok(roles) => {
                let job = |(role, submission)| (at, task.id.clone(), role, submission);
                jobs.extend(roles.into_iter().map(job));
            }
            Err(error) => found[at].push(Tried::unreadable(&error)),
        }
    }
    let progress = progress(jobs.len() as u64);
    let evaluator = app.fleet().evaluator();
    let mut runs = stream::iter(jobs)
        .map(|(at, task, role, submission)| async move {
            let started = Instant::now();
            let verdict = match submission {
                Some(submission) => {
                    let evaluation = Evaluation::new(RequestId::generate(), task, submission);
                    evaluator.evaluate(evaluation).await
                }
                None => evaluator.baseline(task).await,
            };
            (at, role, verdict.map(|verdict| verdict.record), started.elapsed())
        })
        .buffer_unordered(app.fleet().stats().workers);
    let mut floors = vec![Worth::default(); tasks.len()];
    while let Some((at, role, record, took)) = runs.next().await {
        progress.inc(1);
        match (role, record) {
            (Role::Floor | Role::Idle, record) if infra(&record) => {
                found[at].push(Tried::new(NOTHING.into(), None, &record, took));
            }
            // What the task can't run has no worth.
            (Role::Floor | Role::Idle, Err(_)) => {}
            (role @ (Role::Floor | Role::Idle), Ok(record)) => {
                let worth = Worth::of(&record);
                floors[at] = floors[at].max(worth);
                if matches!(role, Role::Idle) && worth.passes() {
                    found[at].push(Tried::new(IDLE.into(), None, &Ok(record), took));
                }
            }
            (Role::Gold, record) => found[at].push(Tried::new("gold".into(), None, &record, took)),
            (Role::Attack { name, recipe }, record) => {
                found[at].push(Tried::new(name, recipe, &record, took));
            }
        }
    }
    progress.finish_and_clear();
    for (tried, floor) in found.iter_mut().zip(floors) {
        // A machine that failed doesn't say what nothing earns, so no attack earns more.
        let floor = (!tried.iter().any(Tried::is_nothing)).then_some(floor);
        for one in tried.iter_mut() {
            one.compare(floor);
        }
        tried.sort_by_key(|one| one.order());
    }
    found
}

/// What is run beside the floor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scope {
    /// Attacks that end by a limit, too.
    pub(super) slow: bool,
    /// The gold submission.
    pub(super) gold: bool,
}

type Run = (Role, Option<Submission>);

/// Returns what is run on a task; no submission means the revision as it is.
fn roles(task: &Task, scope: &Scope) -> Result<Vec<Run>, TaskError> {
    let mut roles = vec![(Role::Floor, Some(task.empty()))];
    if task.source.is_some() {
        roles.push((Role::Floor, None));
    }
    roles.extend(idle_submission(task).map(|idle| (Role::Idle, Some(idle))));
    if scope.gold {
        roles.push((Role::Gold, Some(task.gold()?)));
    }
    for attack in attacks().iter().filter(|attack| scope.slow || !attack.slow) {
        if let Some(submission) = attack.submission(task)? {
            let role = Role::Attack { name: attack.id(), recipe: Some(attack) };
            roles.push((role, Some(submission)));
        }
    }
    for (name, submission) in own_attacks(task)? {
        let name = format!("private/attacks/{name}");
        roles.push((Role::Attack { name, recipe: None }, Some(submission)));
    }
    Ok(roles)
}

fn list(output: Output) -> CliResult {
    for class in attack_classes() {
        for attack in attacks().iter().filter(|attack| attack.class == class.name) {
            output.line(&Listed { attack, row: class.row })?;
        }
    }
    Ok(Exit::Done)
}

struct Listed {
    attack: &'static Recipe,
    row: u32,
}

impl Serialize for Listed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            attack: String,
            language: &'a str,
            class: &'a str,
            row: u32,
            tries: &'a str,
            kinds: Vec<&'static str>,
            reports: Vec<&'static str>,
            slow: bool,
            flags: &'a [String],
            #[serde(skip_serializing_if = "Option::is_none")]
            known: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            without_canaries: Option<&'a str>,
        }
        let Recipe { language, class, tries, kinds, reports, slow, flags, known, .. } = self.attack;
        Line {
            attack: self.attack.id(),
            language: language.as_str(),
            class,
            row: self.row,
            tries,
            kinds: kinds.iter().map(|kind| kind.as_str()).collect(),
            reports: reports.iter().map(|report| report.as_str()).collect(),
            slow: *slow,
            flags,
            known: known.as_deref(),
            without_canaries: self.attack.without_canaries.as_deref(),
        }
        .serialize(serializer)
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recipe { class, tries, .. } = self.attack;
        write!(f, "{:<45} {class:<20} {tries}", self.attack.id())
    }
}

/// A failure of the machine, if it was one.
fn infra(record: &Result<GradeRecord, Failure>) -> bool {
    let failure = match record {
        Ok(record) => record.failure.as_ref(),
        Err(failure) => Some(failure),
    };
    failure.is_some_and(|failure| failure.fault == Fault::Infra)
}
