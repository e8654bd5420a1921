//! One evaluation, from a submission to a grade record.
//!
//! [`Evaluator::prepare`] reads the task and applies the submission; [`Job::run`] runs the checks
//! in sandboxes and reads what they left behind, again in fresh ones when that was our fault.

mod gold;
mod ground;
mod run;
mod sealed;
mod suite;

pub use self::run::environment;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use assay_repos::{
    Applied, ApplyError, Catalog, Digest, Language, Mode, PatchFacts, Revision, SourceError, Stamp,
    SubmissionKind, Task, TaskError, TaskId, apply,
};
use assay_rewards::{Failure, Fault, GradeHeader, GradeRecord, Outcome, Phase, TaskFacts, harness};
use assay_sandbox::{Backend, BackendError, SandboxSpec};
use tokio::time::Instant;
use tracing::{info, warn};

use self::ground::Ground;
use crate::{
    Backends, Evaluation, ResolveError, Resolved, Stop, Timings,
    ledger::{self, QuarantineEvent, Quarantined, Standings, TestName, Why},
};

/// Most tries at one evaluation, the first among them.
const ATTEMPTS: u32 = 3;
/// The wait before the second try; four times as long before the third.
const BACKOFF: Duration = Duration::from_millis(100);

/// Judges submissions: knows the tasks and the backends.
#[derive(Debug)]
pub struct Evaluator {
    catalog: Arc<Catalog>,
    backends: Backends,
    grounds: Mutex<HashMap<TaskId, Arc<Ground>>>,
    /// What records say of the code that runs and reads checks.
    runner: String,
    /// What is known of tasks beside their files.
    standings: Arc<Standings>,
    /// Cached results are of this build alone: another may read the same report otherwise.
    build: Digest,
}

/// What [`Evaluator::prepare`] made of a submission.
#[derive(Debug)]
pub enum Prepared {
    /// It can run.
    Job(Box<Job>),
    /// There is a verdict without running it.
    Settled(Box<GradeRecord>),
    /// There is no such task: not even a record.
    Unknown(Failure),
}

/// A submission that was applied and can run.
#[derive(Debug)]
pub struct Job {
    ground: Arc<Ground>,
    applied: Applied,
    header: GradeHeader,
    quarantined: Arc<Quarantined>,
    stop: Stop,
    key: Option<Digest>,
    /// Of the revision, before anything was read of it.
    since: Option<Stamp>,
    /// Whether the gold submission runs beside it.
    gold: bool,
    /// Whether it was asked to run past the cache.
    fresh: bool,
}

/// What [`Job::run`] found out.
#[derive(Debug)]
pub struct Verdict {
    /// The facts.
    pub record: GradeRecord,
    /// `prepare_ms`, `run_ms` and `parse_ms` of all tries together.
    pub timings: Timings,
    /// Tries after the first.
    pub retries: u32,
}

impl Evaluator {
    /// Makes an evaluator of these tasks on these backends.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, backends: Backends) -> Self {
        let programs = [
            harness::PYTEST_RUNNER,
            harness::PYTEST_PRELOAD,
            harness::UNITTEST_RUNNER,
            harness::CANARY,
            harness::COLLECT,
            harness::FREEZE,
            harness::GRADER,
            harness::REMOTE,
            harness::SUBJECT_SUITE,
            harness::PEER,
            harness::SUBJECT,
            harness::SUBJECT_JS,
            harness::SUBJECT_C,
            harness::SUBJECT_RUST,
            harness::COMPILE,
            harness::WIRE,
        ];
        let digest = programs.iter().fold(Digest::builder(), |all, one| all.part(one)).finish();
        let runner = format!("assay-{}+{}", env!("CARGO_PKG_VERSION"), &digest.hex()[..12]);
        let (grounds, standings) = Default::default();
        Self { catalog, backends, grounds, runner, standings, build: build() }
    }

    /// Judges as if these tests of a task were in quarantine, and no others.
    #[must_use]
    pub fn with_quarantine(self, task: &TaskId, tests: impl IntoIterator<Item = TestName>) -> Self {
        let standings = Standings::default();
        for name in tests {
            let why = Why::Operator { reason: String::new() };
            let event = QuarantineEvent { name, added: true, at: SystemTime::UNIX_EPOCH, why };
            standings.note(task, event);
        }
        Self { standings: Arc::new(standings), ..self }
    }

    /// Judges by what a store knows of tasks: which tests are flaky.
    #[must_use]
    pub(crate) fn informed_by(self, standings: &Arc<Standings>) -> Self {
        Self { standings: Arc::clone(standings), ..self }
    }

    /// Returns an evaluator of one task as it would be in this mode.
    #[must_use]
    pub fn in_mode(&self, task: &Task, mode: Mode) -> Arc<Self> {
        let mut task = task.clone();
        task.mode = mode;
        Arc::new(Self::new(Arc::new(Catalog::of(task)), self.backends.clone()))
    }

    /// Returns the tasks.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Judges a submission outside any queue.
    pub async fn evaluate(self: &Arc<Self>, evaluation: Evaluation) -> Result<Verdict, Failure> {
        match self.prepare(Arc::new(evaluation)).await? {
            Prepared::Job(job) => Ok(job.run().await),
            Prepared::Settled(record) => Ok(Verdict::settled(*record)),
            Prepared::Unknown(failure) => Err(failure),
        }
    }

    /// Judges the revision as it is, without any submission: which tests fail before one?
    ///
    /// # Errors
    ///
    /// A [`Failure`] when there is no such task.
    pub async fn baseline(self: &Arc<Self>, task: TaskId) -> Result<Verdict, Failure> {
        let empty = assay_repos::Submission::Patch(String::new());
        let evaluation = Evaluation::new(crate::RequestId::generate(), task, empty);
        match self.prepare_with(Arc::new(evaluation), |_, _| Ok(Applied::nothing())).await? {
            Prepared::Job(job) => Ok(job.run().await),
            Prepared::Settled(record) => Ok(Verdict::settled(*record)),
            Prepared::Unknown(failure) => Err(failure),
        }
    }

    /// Reads the task and applies the submission, again when our own failure of that may have
    /// passed. The first use of a release unpacks it.
    ///
    /// # Errors
    ///
    /// A [`Failure`] of code of ours.
    pub async fn prepare(
        self: &Arc<Self>,
        evaluation: Arc<Evaluation>,
    ) -> Result<Prepared, Failure> {
        self.prepare_with(evaluation, |ground, evaluation| {
            let mut applied = apply(&ground.task, &ground.revision, &evaluation.submission)?;
            ground.signals.inspect(&ground.revision, &mut applied)?;
            Ok(applied)
        })
        .await
    }

    async fn prepare_with(
        self: &Arc<Self>,
        evaluation: Arc<Evaluation>,
        apply: fn(&Ground, &Evaluation) -> Result<Applied, ApplyError>,
    ) -> Result<Prepared, Failure> {
        let mut attempts = 1;
        loop {
            let (evaluator, wanted) = (Arc::clone(self), Arc::clone(&evaluation));
            let once = tokio::task::spawn_blocking(move || evaluator.prepare_once(&wanted, apply));
            let mut prepared = once.await.map_err(|panic| defect(&panic))?;
            if let Prepared::Settled(record) = &mut prepared
                && try_again(record, &mut attempts).await
            {
                continue;
            }
            return Ok(prepared);
        }
    }

    fn prepare_once(
        &self,
        evaluation: &Evaluation,
        apply: fn(&Ground, &Evaluation) -> Result<Applied, ApplyError>,
    ) -> Prepared {
        let Some(task) = self.catalog.get(&evaluation.task) else {
            let detail = format!("the catalog has no task `{}`", evaluation.task);
            return Prepared::Unknown(Failure::new(
                "unknown_task",
                Phase::Prepare,
                Fault::Task,
                detail,
            ));
        };
        let mut header = GradeHeader {
            task: task.id.clone(),
            task_digest: task.digest.clone(),
            image_digest: task.image.clone(),
            submission_digest: evaluation.submission.digest(),
            backend: String::new(),
            mode: task.mode,
            limits: task.limits,
            generation: evaluation.generation.clone(),
            external: evaluation.external.clone(),
            task_facts: TaskFacts::default(),
            runner: self.runner.clone(),
        };
        let (resolved, judge) = match self.places(task) {
            Ok(found) => found,
            Err(error) => {
                let failure = permanent("image_not_found", Fault::Infra, error.to_string());
                return settled(header, failure);
            }
        };
        header.image_digest.clone_from(&resolved.digest);
        header.backend = resolved.backend.name().to_owned();

        let ground = match self.ground(task, resolved, judge) {
            Ok(ground) => ground,
            Err(error) => return settled(header, task_failure(&error)),
        };
        let since = ground.revision.stamp();
        let applied = match apply(&ground, evaluation) {
            Ok(applied) => applied,
            Err(ApplyError::Rejected(rejection)) => {
                // It may not fit what is missing.
                if let Err(error) = ground.revision.unchanged_since(since.as_ref()) {
                    return settled(header, source_failure(&error));
                }
                let facts =
                    PatchFacts { bytes: evaluation.submission.len(), ..PatchFacts::default() };
                let record = header.rejected(&rejection, facts, Vec::new());
                return Prepared::Settled(Box::new(record));
            }
            Err(ApplyError::Source(error)) => return settled(header, source_failure(&error)),
        };
        header.submission_digest = applied.digest.clone();
        let stop = evaluation.stop;
        let standing = self.standings.of(&task.id, &ground.ledger);
        header.task_facts.flaky_rate = standing.flaky_rate;
        let shared = ground.cacheable() && !evaluation.fresh;
        let key =
            shared.then(|| ground.key(&self.build, &header, &applied, stop, &standing.digest()));
        let quarantined = standing.quarantined;
        let gold = false;
        Prepared::Job(Box::new(Job {
            ground,
            applied,
            header,
            quarantined,
            stop,
            key,
            since,
            gold,
            fresh: evaluation.fresh,
        }))
    }
}

impl Evaluator {
    /// Returns where an agent works on a task, with the task's limits: the revision without the
    /// tests that judge it, and nothing private. Blocks: the first use of a release unpacks it.
    ///
    /// # Errors
    ///
    /// A [`Failure`] of the task or of ours.
    pub(crate) fn workplace(&self, task: &Arc<Task>) -> Result<Workplace, Failure> {
        let (resolved, judge) = self
            .places(task)
            .map_err(|error| permanent("image_not_found", Fault::Infra, error.to_string()))?;
        let ground = self.ground(task, resolved, judge).map_err(|error| task_failure(&error))?;
        let spec = ground.agent_spec().map_err(|error| source_failure(&error))?;
        Ok(Workplace {
            backend: Arc::clone(&ground.resolved.backend),
            revision: ground.revision.clone(),
            task: Arc::clone(task),
            spec,
        })
    }

    /// Where the submission runs, and where the grader of a function task does. That is in Python,
    /// whatever the submission is in.
    fn places(&self, task: &Task) -> Result<(Resolved, Resolved), ResolveError> {
        let resolved = self.backends.resolve(&task.image)?;
        let function = task.submission.kind == SubmissionKind::Function;
        let judge = match function && task.language != Language::Python {
            true => self.backends.resolve("python")?,
            false => resolved.clone(),
        };
        Ok((resolved, judge))
    }

    fn ground(
        &self,
        task: &Arc<Task>,
        resolved: Resolved,
        judge: Resolved,
    ) -> Result<Arc<Ground>, TaskError> {
        let lock = || self.grounds.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&task.id).cloned();
        if let Some(known) = known {
            // Its release may have been deleted since.
            known.task.revision()?;
            return Ok(known);
        }
        let ground = Ground::of(Arc::clone(task), resolved, judge);
        // A file that is gone is the task's fault only if it never was there.
        let ground = ground.map_err(|error| task.unchanged().err().map_or(error, Into::into))?;
        let ground = Arc::new(ground);
        lock().insert(task.id.clone(), Arc::clone(&ground));
        Ok(ground)
    }
}

/// Where an agent works on a task.
#[derive(Debug)]
pub(crate) struct Workplace {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) task: Arc<Task>,
    pub(crate) revision: Revision,
    pub(crate) spec: SandboxSpec,
}

impl Job {
    /// Has the gold submission run the same checks, each right after this one's, so that the record
    /// says what both used.
    #[must_use]
    pub fn with_gold(mut self) -> Self {
        self.key = self.key.as_ref().map(beside_gold);
        self.gold = true;
        self
    }

    /// Returns what has to be equal for two jobs to share one run; `None` when no run is shared,
    /// because the task is flaky.
    #[must_use]
    pub fn key(&self) -> Option<&Digest> {
        self.key.as_ref()
    }

    /// Returns the key of a run that says all that this job's does, and more.
    #[must_use]
    pub fn richer_key(&self) -> Option<Digest> {
        self.key.as_ref().filter(|_| !self.gold).map(beside_gold)
    }

    /// Makes this job's record out of another's with the same key.
    #[must_use]
    pub fn adopt(&self, record: &GradeRecord) -> GradeRecord {
        let mut own = GradeRecord {
            generation: self.header.generation.clone(),
            external: self.header.external.clone(),
            patch: self.applied.facts,
            ..record.clone()
        };
        // A plugin sees every fact: what nobody asked for must not depend on what ran before.
        if !self.gold {
            own.gold = None;
            own.flags.retain(|flag| flag.code != "gold.absent");
        }
        own
    }

    /// Whether gold should have run beside it, and left nothing to compare with: the next try may.
    #[must_use]
    pub(crate) fn lacks_gold(&self, record: &GradeRecord) -> bool {
        self.gold && record.gold.is_none() && self.ground.gold.is_ok()
    }

    /// Returns what a record of this job's own run tells the ledger.
    pub(crate) fn observed(&self, record: &GradeRecord) -> Option<Box<ledger::Run>> {
        // A run past the cache is asked for by whoever looks after the task, never by a policy.
        let trusted = self.fresh && self.ground.trusts(&self.applied);
        Some(Box::new(ledger::Run {
            ground: self.ground.ledger.clone(),
            submission: self.applied.code(),
            trusted,
            runner: record.runner.clone(),
            wall_s: record.usage.wall_s,
            tests: self.ground.seen(record, trusted)?,
        }))
    }

    /// Runs the checks. Dropping the future kills what runs.
    pub async fn run(&self) -> Verdict {
        let mut timings = Timings::default();
        let (mut attempts, mut since) = (1, self.since.clone());
        loop {
            let mut record = match self.once(&mut timings).await {
                Ok(record) => record,
                Err(failure) => self.failed(failure),
            };
            if let Err(failure) = self.on_whole_ground(&record, since.as_ref()).await {
                record = self.failed(failure);
            }
            if try_again(&mut record, &mut attempts).await {
                since = self.ground.revision.stamp();
                continue;
            }
            return Verdict { record, timings, retries: attempts - 1 };
        }
    }

    async fn once(&self, timings: &mut Timings) -> Result<GradeRecord, Failure> {
        let gold = self.gold.then_some(&self.ground.gold);
        let beside = gold.and_then(|gold| gold.as_ref().ok());
        let (ran, gold_ran) = run::checks(self, beside, timings).await?;
        let started = Instant::now();
        let mut record = self.grade(ran, &self.applied).await;
        match (gold, gold_ran) {
            (Some(Ok(gold)), Some(ran)) => {
                gold::keep(&mut record, &self.grade(ran, gold).await)?;
            }
            (Some(Err(why)), _) => record.lack_gold(why),
            _ => {}
        }
        timings.parse_ms += ms(started.elapsed());
        Ok(record)
    }

    /// Says whether the revision was whole all the time, where a verdict may come of that: a test
    /// may fail because of what is missing, but none passes.
    async fn on_whole_ground(
        &self,
        record: &GradeRecord,
        since: Option<&Stamp>,
    ) -> Result<(), Failure> {
        let is_verdict = matches!(record.outcome, Outcome::Scored | Outcome::Tampered);
        let (counts, since) = (record.counts(), since.cloned());
        let passes = record.failure.is_none() && counts.passed == counts.total();
        let all_pass = passes && (!self.gold || record.gold.is_some());
        if since.is_none() || !is_verdict || all_pass {
            return Ok(());
        }
        let ground = Arc::clone(&self.ground);
        let look = move || ground.revision.unchanged_since(since.as_ref());
        let looked = tokio::task::spawn_blocking(look).await.map_err(|panic| defect(&panic))?;
        looked.map_err(|error| Failure { phase: Phase::Run, ..source_failure(&error) })
    }

    fn failed(&self, failure: Failure) -> GradeRecord {
        let record = self.header.clone().failed(outcome_of(failure.fault), failure);
        GradeRecord { patch: self.applied.facts, ..record }
    }

    /// Makes the record. Reports are as long as submissions make them: no worker waits for one.
    async fn grade(&self, ran: run::Ran, applied: &Applied) -> GradeRecord {
        let (ground, header) = (Arc::clone(&self.ground), self.header.clone());
        let quarantined = Arc::clone(&self.quarantined);
        let (facts, flags) = (applied.facts, applied.flags.clone());
        let graded = tokio::task::spawn_blocking(move || {
            let runs = ran.evidence(&ground, &quarantined);
            header.grade(facts, flags, &runs, ground.task.lock.as_ref())
        });
        graded.await.unwrap_or_else(|panic| self.failed(defect(&panic)))
    }
}

/// The key of a job's runs with the gold submission beside them.
fn beside_gold(key: &Digest) -> Digest {
    Digest::builder().part(key.as_str()).part("gold").finish()
}

impl Verdict {
    fn settled(record: GradeRecord) -> Self {
        Self { record, timings: Timings::default(), retries: 0 }
    }
}

/// Waits a little and returns true where a failure of ours may have passed. Counts attempts.
async fn try_again(record: &mut GradeRecord, attempts: &mut u32) -> bool {
    let ours = record.outcome == Outcome::InfraError;
    let Some(failure) = &mut record.failure else { return false };
    failure.attempts = *attempts;
    if !ours || !failure.retryable || *attempts == ATTEMPTS {
        return false;
    }
    warn!(task = %record.task, kind = failure.kind, attempts, detail = failure.detail, "trying again");
    tokio::time::sleep(BACKOFF * 4_u32.pow(*attempts - 1)).await;
    *attempts += 1;
    true
}

/// Names this executable, by its size and the time that it was written.
fn build() -> Digest {
    let facts = std::env::current_exe().and_then(std::fs::metadata);
    let facts = facts.and_then(|facts| Ok((facts.len(), facts.modified()?)));
    Digest::of(format!("{:?}", facts.ok()))
}

/// The failure of code of ours that panicked.
pub(crate) fn defect(panic: &tokio::task::JoinError) -> Failure {
    permanent("defect", Fault::Infra, format!("a worker broke off: {panic}"))
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn outcome_of(fault: Fault) -> Outcome {
    match fault {
        Fault::Task => Outcome::InvalidTask,
        // Whatever it is, a failure to run is no verdict on the submission.
        Fault::Submission | Fault::Infra => Outcome::InfraError,
    }
}

fn settled(header: GradeHeader, failure: Failure) -> Prepared {
    info!(task = %header.task, kind = failure.kind, detail = failure.detail, "not run");
    Prepared::Settled(Box::new(header.failed(outcome_of(failure.fault), failure)))
}

fn permanent(kind: &str, fault: Fault, detail: impl Into<String>) -> Failure {
    Failure { retryable: false, ..Failure::new(kind, Phase::Prepare, fault, detail) }
}

fn task_failure(error: &TaskError) -> Failure {
    match error {
        TaskError::Source(source) => source_failure(source),
        // The file was there when the task was loaded: a disk that fails, not a task that is wrong.
        TaskError::Read { source, .. } if source.kind() != io::ErrorKind::NotFound => {
            Failure::new("task_file_io", Phase::Prepare, Fault::Infra, chain(error))
        }
        TaskError::Read { .. } | TaskError::Content { .. } => {
            permanent("task_file", Fault::Task, chain(error))
        }
    }
}

fn source_failure(error: &SourceError) -> Failure {
    let detail = chain(error);
    match error {
        SourceError::NotFetched { .. } | SourceError::WrongDigest { .. } => {
            permanent("source_not_fetched", Fault::Infra, detail)
        }
        SourceError::Changed { .. } => {
            Failure::new("files_changed", Phase::Prepare, Fault::Infra, detail)
        }
        SourceError::Io { .. } => Failure::new("source_io", Phase::Prepare, Fault::Infra, detail),
        SourceError::Archive { .. } | SourceError::Revert { .. } => {
            permanent("source", Fault::Task, detail)
        }
    }
}

fn backend_failure(error: &BackendError, phase: Phase) -> Failure {
    let (kind, fault, retryable) = match error {
        BackendError::Spec(_) => ("sandbox_spec", Fault::Infra, false),
        BackendError::ImageNotFound(_) => ("image_not_found", Fault::Infra, false),
        BackendError::Unsupported { .. } => ("unsupported", Fault::Task, false),
        BackendError::Io { .. } if phase == Phase::Prepare => ("sandbox_start", Fault::Infra, true),
        BackendError::Io { .. } => ("sandbox_run", Fault::Infra, true),
        BackendError::Gone { .. } => ("backend_gone", Fault::Infra, true),
    };
    Failure { retryable, ..Failure::new(kind, phase, fault, chain(error)) }
}

/// An error with its causes, for people.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
