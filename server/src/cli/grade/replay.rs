//! `assay grade replay`: what `export` wrote, run again and compared.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, ensure};
use assay_fleet::{Backends, Evaluation, Evaluator, Prepared, RequestId, TestName};
use assay_repos::{Catalog, write_task};
use assay_rewards::{Failure, GradeRecord, Outcome, Role};
use clap::Args;
use tempfile::TempDir;

use super::{bundle::Bundle, compare::Comparison};
use crate::cli::{
    Common,
    output::{Blame as _, CliResult, Exit, wrong},
};

/// What `assay grade replay` takes.
#[derive(Args, Debug)]
pub(in crate::cli) struct Replay {
    /// What `assay grade export` wrote; - reads stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Replay {
    pub(super) async fn run(self, common: &Common) -> CliResult {
        if common.server.is_some() {
            return Err(wrong("a replay runs here, so it takes no --server"));
        }
        let shown = self.file.display();
        let bundle = Bundle::read(&self.file).with_context(|| format!("read {shown}")).wrong()?;
        // Made for this alone, and nobody else's to look into: it holds hidden tests.
        let folder = TempDir::with_prefix("assay-").context("make a temporary folder");
        let folder = folder.not_done()?;
        let read = unpack(common, &bundle, &folder).with_context(|| format!("read {shown}"));
        let catalog = Arc::new(read.wrong()?);

        let places = common.places();
        let instead = common.image.as_deref();
        let machine = crate::machine::backends(&places.cache, &catalog, instead, common.pin);
        let (backends, _images) = machine.await.not_done()?;
        let backends = match instead {
            Some(image) => backends.instead_of_all(image),
            None => backends,
        };
        let backends = find_image(backends, &bundle.record, &catalog).not_done()?;

        let was = &bundle.record;
        let evaluator =
            Evaluator::new(catalog, backends).with_quarantine(&was.task, quarantined(was));
        let evaluation = Evaluation {
            external: was.external.clone(),
            generation: was.generation.clone(),
            stop: bundle.stop(),
            fresh: true,
            ..Evaluation::new(RequestId::generate(), was.task.clone(), bundle.submission().wrong()?)
        };
        let spinner = common.output().spinner("evaluating");
        let judged = judge(Arc::new(evaluator), evaluation, asked_gold(was)).await;
        spinner.finish_and_clear();
        let is = judged.map_err(|failure| wrong(failure.detail))?;
        if is.outcome == Outcome::InfraError && was.outcome != Outcome::InfraError {
            let detail = is.failure.map(|failure| failure.detail).unwrap_or_default();
            return Err(anyhow::anyhow!("it can't run here: {detail}")).not_done();
        }
        let comparison = Comparison::of(was, &is, notes(&bundle, &is));
        common.output().line(&comparison)?;
        Ok(if comparison.same { Exit::Done } else { Exit::NotDone })
    }
}

/// Runs it again, with the task's gold submission beside it where that ran the first time.
async fn judge(
    evaluator: Arc<Evaluator>,
    evaluation: Evaluation,
    beside_gold: bool,
) -> Result<GradeRecord, Failure> {
    Ok(match evaluator.prepare(Arc::new(evaluation)).await? {
        Prepared::Job(job) if beside_gold => job.with_gold().run().await.record,
        Prepared::Job(job) => job.run().await.record,
        Prepared::Settled(record) => *record,
        Prepared::Unknown(failure) => return Err(failure),
    })
}

/// Whether gold ran beside it, or was to.
fn asked_gold(record: &GradeRecord) -> bool {
    record.gold.is_some() || record.flags.iter().any(|flag| flag.code == "gold.absent")
}

/// Writes the task into a folder of its own and reads it as any other.
fn unpack(common: &Common, bundle: &Bundle, folder: &TempDir) -> anyhow::Result<Catalog> {
    let (id, wanted) = (&bundle.record.task, &bundle.record.task_digest);
    let root = folder.path().join("tasks");
    std::fs::create_dir(&root).context("make a folder for the task")?;
    let dir = root.join("task");
    write_task(&dir, &bundle.task.files()?)?;
    let places = common.places();
    // Releases come from the catalog here; where a task has the same id, the first one counts.
    let roots: Vec<PathBuf> = std::iter::once(root).chain(places.catalog).collect();
    let catalog = Catalog::load(&roots, &places.cache);
    let of_it = |problem: &&assay_repos::LoadProblem| problem.file.starts_with(&dir);
    let problem = catalog.problems().iter().find(of_it).map(ToString::to_string);
    let task = catalog.get(id).filter(|task| task.dir == dir);
    let task = task.with_context(|| problem.unwrap_or_else(|| format!("its task is not {id}")))?;
    ensure!(task.digest == *wanted, "its task was changed: it is {}, not {wanted}", task.digest);
    let package = task.source.as_ref().and_then(|source| source.package.as_ref());
    if let (Some((name, digest)), Some(package)) = (&bundle.task.release, package) {
        ensure!(
            package.digest == *digest,
            "{name} is {} in the catalog here, and was {digest} when it was judged",
            package.digest
        );
    }
    Ok(catalog)
}

/// Makes sure that the task runs in the image of the record, under whatever name it goes here.
fn find_image(
    backends: Backends,
    record: &GradeRecord,
    catalog: &Catalog,
) -> anyhow::Result<Backends> {
    let GradeRecord { image_digest, backend, .. } = record;
    let fits = |name: &str| {
        let resolved = backends.resolve(name).ok();
        resolved.is_some_and(|it| it.digest == *image_digest && it.backend.name() == backend)
    };
    let image = catalog.get(&record.task).map(|task| task.image.clone()).unwrap_or_default();
    if fits(&image) {
        return Ok(backends);
    }
    let found = backends.images().find(|name| fits(name)).map(str::to_owned);
    if let Some(name) = found {
        return Ok(backends.instead_of_all(name));
    }
    let here = match backends.resolve(&image) {
        Ok(resolved) => {
            format!("`{image}` is {} on {} here", resolved.digest, resolved.backend.name())
        }
        Err(error) => error.to_string(),
    };
    anyhow::bail!(
        "the grade was made in image {image_digest} on {backend}, which is not here: {here}. Fetch \
         that image with `assay image pull` or `assay image import` (for `python`, `make rootfs` of \
         the same version), or run this where it is; `assay doctor` says what this machine has"
    )
}

fn quarantined(record: &GradeRecord) -> impl Iterator<Item = TestName> {
    record.checks.iter().flat_map(|check| {
        let tests = check.tests.iter().filter(|test| test.role == Role::Quarantined);
        tests.map(|test| TestName { check: check.id.clone(), test: test.id.clone() })
    })
}

/// What is not as it was, and may be why results differ.
fn notes(bundle: &Bundle, is: &GradeRecord) -> Vec<String> {
    let was = &bundle.record;
    let mut notes = Vec::new();
    let mut note = |what: &str, was: &str, is: &str| {
        if was != is {
            notes.push(format!("{what}: {was} then, {is} now"));
        }
    };
    note("runner", &was.runner, &is.runner);
    note("isolation", &was.isolation.join("; "), &is.isolation.join("; "));
    let limits = |record: &GradeRecord| serde_json::to_string(&record.limits).unwrap_or_default();
    note("limits", &limits(was), &limits(is));
    let environment = |all: &std::collections::BTreeMap<String, String>| format!("{all:?}");
    note(
        "environment",
        &environment(&bundle.environment),
        &environment(&assay_fleet::environment()),
    );
    notes
}
