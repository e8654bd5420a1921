//! `assay task stats` and `assay task quarantine`: what became of tasks over time.

mod told;

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use assay_fleet::{Embedded, Grades, ResultStore as _};
use assay_proto::v1::{self, QuarantineAction, QuarantineTaskRequest, TaskStatsRequest, TestName};
use assay_repos::{Catalog, Task, TaskId};
use clap::{ArgGroup, Args};

use self::told::{Event, Listing, Name, Told};
use super::{
    Common, affected,
    output::{Blame as _, CliResult, Exit, wrong},
    score::unknown_task,
    session::Session,
};
use crate::{Places, grpc};

/// What `assay task stats` takes.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("which").required(true).args(["ids", "all"])))]
pub(super) struct Stats {
    /// The tasks
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Every task that was ever answered
    #[arg(long)]
    all: bool,
    /// Every test, not only those whose runs disagree
    #[arg(long)]
    tests: bool,
}

/// What `assay task quarantine` takes.
#[derive(Args, Debug)]
pub(super) struct Quarantine {
    /// The task
    #[arg(value_name = "ID")]
    id: String,
    /// A test that must be kept; without it, those in quarantine are listed
    #[arg(value_name = "TEST")]
    test: Option<String>,
    /// The check that reports it; needed where the task has several
    #[arg(long, requires = "test")]
    check: Option<String>,
    /// Put it back among those that must be kept
    #[arg(long, requires = "test")]
    release: bool,
    /// Change nothing, list the stored grades that the test cost something
    #[arg(long, requires = "test", conflicts_with_all = ["release", "reason"])]
    affected: bool,
    /// Why, for the audit trail
    #[arg(long, requires = "test", value_name = "TEXT")]
    reason: Option<String>,
}

impl Stats {
    pub(super) async fn run(self, common: &Common) -> CliResult {
        for task in known(common, self.ids, self.tests).await? {
            common.output().line(&Told::from(task))?;
        }
        Ok(Exit::Done)
    }
}

impl Quarantine {
    pub(super) async fn run(self, common: &Common) -> CliResult {
        if let (true, Some(test)) = (self.affected, &self.test) {
            if common.server.is_some() {
                return Err(wrong("--affected reads a data directory, so it takes no --server"));
            }
            let grades = Grades::open(&state(common)).wrong()?;
            let task = self.id.parse().with_context(|| self.id.clone()).wrong()?;
            return affected::list(common, &grades, &task, self.check.as_deref(), test);
        }
        if let Some(test) = self.test {
            let action = match self.release {
                true => QuarantineAction::Release,
                false => QuarantineAction::Add,
            };
            let request = QuarantineTaskRequest {
                task_id: self.id.clone(),
                test: Some(TestName { check_id: self.check.unwrap_or_default(), test }),
                action: action.into(),
                reason: self.reason.unwrap_or_default(),
            };
            change(common, request).await?;
        }
        let now = known(common, vec![self.id.clone()], false).await?.pop().unwrap_or_default();
        let told = Listing {
            task: self.id,
            quarantined: now.quarantined.into_iter().map(Name::from).collect(),
            trail: now.trail.into_iter().map(Event::from).collect(),
        };
        common.output().line(&told)?;
        Ok(Exit::Done)
    }
}

/// Asks the service, or reads the data directory, also while a service uses it.
async fn known(
    common: &Common,
    task_ids: Vec<String>,
    all_tests: bool,
) -> CliResult<Vec<v1::TaskStat>> {
    if common.server.is_some() {
        let session = Session::open(common, None).await?;
        let request = TaskStatsRequest { task_ids, all_tests };
        return Ok(session.tasks().task_stats(request).await?.into_inner().tasks);
    }
    let records = Grades::open(&state(common)).wrong()?;
    let told = |stats| grpc::task_stats(stats, all_tests);
    if task_ids.is_empty() {
        return Ok(records.task_stats(None)?.into_iter().map(told).collect());
    }
    let mut found = Vec::new();
    for id in task_ids {
        let id: TaskId = id.parse().with_context(|| id.clone()).wrong()?;
        let known = records.task_stats(Some(&id))?;
        if known.is_empty() {
            // Never asked for; but is there such a task?
            find(common, &id)?;
        }
        found.extend(known.into_iter().map(told));
    }
    Ok(found)
}

/// Asks the service, or writes into a data directory that none uses. None of the requests that wait
/// in it are run.
async fn change(common: &Common, request: QuarantineTaskRequest) -> CliResult<()> {
    if common.server.is_some() {
        let session = Session::open(common, None).await?;
        session.tasks().quarantine_task(request).await?;
        return Ok(());
    }
    let id: TaskId = request.task_id.parse().with_context(|| request.task_id.clone()).wrong()?;
    let wish = grpc::quarantining(&*find(common, &id)?, request)?;
    let store = Embedded::open(&state(common), 1)
        .context("a service that runs is told with --server")
        .wrong()?;
    store.quarantine(wish).await?;
    Ok(())
}

/// Where the state is: that of `--data`, or of `assay serve`.
fn state(common: &Common) -> PathBuf {
    common.data.clone().unwrap_or_else(Places::default_data)
}

fn find(common: &Common, id: &TaskId) -> CliResult<Arc<Task>> {
    let places = common.places();
    let catalog = Catalog::load(&places.catalog, &places.cache);
    catalog.get(id).cloned().ok_or_else(|| unknown_task(&catalog, id))
}
