//! One request, from its lease to its stored result.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use assay_repos::Digest;
use assay_rewards::{Failure, Fault, GradeRecord, Outcome, Phase, RewardSpec, Score, score};
use futures::FutureExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tracing::{error, info, instrument, warn};

use crate::{
    Completion, Digests, EndedInQueue, Evaluation, EvaluationResult, Evaluator, Lease, Observation,
    Prepared, Queue, ResultStore, Rewards, Run, RunUsage, Timings,
    evaluator::{defect, ms},
    flights::{Flights, Pilot, Seat},
};

/// Tries to store a result before it is given up; the request then runs again later.
const STORE_ATTEMPTS: u32 = 4;

/// Judges requests, one after the other or many at once.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) evaluator: Arc<Evaluator>,
    pub(crate) rewards: Rewards,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) store: Arc<dyn ResultStore>,
    pub(crate) flights: Arc<Flights>,
    /// One for each evaluation that may run.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) load: Arc<Load>,
}

/// How busy the workers are.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// How long a run takes, smoothed.
    service: Mutex<Duration>,
    pub(crate) retried: AtomicU64,
}

impl Load {
    pub(crate) fn service(&self) -> Duration {
        *self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn took(&self, duration: Duration) {
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        *service = if service.is_zero() { duration } else { (*service * 7 + duration) / 8 };
    }
}

/// What became of a request.
struct Judged {
    outcome: Outcome,
    failure: Option<Failure>,
    /// Absent where nothing came to an end.
    record: Option<Arc<GradeRecord>>,
    cached: bool,
    /// Whether it is of a run.
    ran: bool,
    /// The key under which later evaluations find the record.
    key: Option<Digest>,
    /// What the ledger learns from a run of its own.
    run: Option<Box<Run>>,
    timings: Timings,
    /// Others wait for this one until its record is stored.
    _pilot: Option<Pilot>,
}

impl Judged {
    fn by(record: GradeRecord, timings: Timings) -> Self {
        Self {
            outcome: record.outcome,
            failure: record.failure.clone(),
            record: Some(Arc::new(record)),
            cached: false,
            ran: false,
            key: None,
            run: None,
            timings,
            _pilot: None,
        }
    }

    fn without_record(outcome: Outcome, failure: Failure, timings: Timings) -> Self {
        Self {
            outcome,
            failure: Some(failure),
            record: None,
            cached: false,
            ran: false,
            key: None,
            run: None,
            timings,
            _pilot: None,
        }
    }

    fn ended(why: EndedInQueue, phase: Phase, waited: Duration) -> Self {
        let (outcome, kind, detail) = match why {
            EndedInQueue::Cancelled => {
                (Outcome::Cancelled, "cancelled", "the caller called it off")
            }
            EndedInQueue::DeadlineExceeded => {
                (Outcome::DeadlineExceeded, "deadline", "the caller's deadline came first")
            }
        };
        let failure = Failure {
            retryable: why == EndedInQueue::DeadlineExceeded,
            ..Failure::new(kind, phase, Fault::Infra, detail)
        };
        let timings = Timings { queued_ms: ms(waited), ..Timings::default() };
        Self::without_record(outcome, failure, timings)
    }
}

impl Worker {
    /// Judges a request and stores the result.
    #[instrument(skip_all, fields(request_id = %lease.evaluation.request_id, task = %lease.evaluation.task))]
    pub(crate) async fn serve(self: Arc<Self>, lease: Lease, permit: OwnedSemaphorePermit) {
        let waited = lease.accepted.elapsed();
        let judge = AssertUnwindSafe(self.judge(&lease, waited, permit)).catch_unwind();
        let judged = tokio::select! {
            biased;
            () = lease.cancelled.cancelled() => {
                Judged::ended(EndedInQueue::Cancelled, Phase::Run, waited)
            }
            () = until(lease.deadline) => {
                Judged::ended(EndedInQueue::DeadlineExceeded, Phase::Run, waited)
            }
            judged = judge => judged.unwrap_or_else(|_| {
                let failure = Failure {
                    retryable: false,
                    ..Failure::new("defect", Phase::Run, Fault::Infra, "a worker broke off")
                };
                error!("a worker broke off");
                Judged::without_record(Outcome::InfraError, failure, Timings::default())
            }),
        };
        self.answer(&lease.evaluation, judged).await;
    }

    /// Answers a request that no worker had.
    #[instrument(skip_all, fields(request_id = %lease.evaluation.request_id))]
    pub(crate) async fn end(self: Arc<Self>, lease: Lease, why: EndedInQueue) {
        let judged = Judged::ended(why, Phase::Queue, lease.accepted.elapsed());
        self.answer(&lease.evaluation, judged).await;
    }

    async fn judge(&self, lease: &Lease, waited: Duration, permit: OwnedSemaphorePermit) -> Judged {
        let started = Instant::now();
        let prepared = self.evaluator.prepare(Arc::clone(&lease.evaluation)).await;
        let mut timings = Timings {
            queued_ms: ms(waited),
            apply_ms: ms(started.elapsed()),
            ..Timings::default()
        };
        let job = match prepared {
            Ok(Prepared::Job(job)) => match self.spec(&lease.evaluation) {
                Some(spec) if spec.needs_gold() => Box::new(job.with_gold()),
                _ => job,
            },
            Ok(Prepared::Settled(record)) => return Judged::by(*record, timings),
            Ok(Prepared::Unknown(failure)) => {
                return Judged::without_record(Outcome::InvalidTask, failure, timings);
            }
            Err(failure) => {
                return Judged::without_record(Outcome::InfraError, failure, timings);
            }
        };

        let mut permit = Some(permit);
        let mut pilot = None;
        if let Some(key) = job.key() {
            let boarding = Instant::now();
            let known = loop {
                match self.flights.board(key) {
                    Seat::Passenger(passenger) => {
                        // Waiting is no work: somebody else may have the place.
                        permit = None;
                        if let Some(record) = passenger.record().await {
                            break Some(record);
                        }
                    }
                    Seat::Pilot(seat) => {
                        pilot = Some(seat);
                        let known = self.cached(key).await;
                        break match (known, job.richer_key()) {
                            (None, Some(key)) => self.cached(&key).await,
                            (known, _) => known,
                        };
                    }
                }
            };
            timings.queued_ms += ms(boarding.elapsed());
            if let Some(record) = known {
                return Judged { cached: true, ..Judged::by(job.adopt(&record), timings) };
            }
        }
        if permit.is_none() {
            let waiting = Instant::now();
            // The semaphore is never closed.
            permit = Arc::clone(&self.permits).acquire_owned().await.ok();
            timings.queued_ms += ms(waiting.elapsed());
        }

        let started = Instant::now();
        let verdict = job.run().await;
        drop(permit);
        self.load.took(started.elapsed());
        self.load.retried.fetch_add(verdict.retries.into(), Ordering::Relaxed);
        timings.prepare_ms = verdict.timings.prepare_ms;
        timings.run_ms = verdict.timings.run_ms;
        timings.parse_ms = verdict.timings.parse_ms;
        let run = job.observed(&verdict.record);
        let judged = Judged { ran: true, run, ..Judged::by(verdict.record, timings) };
        // A failure that was not the submission's is no answer for others.
        let shared = matches!(judged.outcome, Outcome::Scored | Outcome::Tampered)
            && !judged
                .record
                .as_ref()
                .is_some_and(|record| hung_on_the_clock(record) || job.lacks_gold(record));
        let (Some(pilot), Some(record), true) = (pilot, &judged.record, shared) else {
            return judged;
        };
        pilot.land(Arc::clone(record));
        Judged { key: job.key().cloned(), _pilot: Some(pilot), ..judged }
    }

    async fn cached(&self, key: &Digest) -> Option<Arc<GradeRecord>> {
        self.store.cached(key).await.unwrap_or_else(|error| {
            warn!(%error, "cannot read the cache, running instead");
            None
        })
    }

    async fn answer(&self, evaluation: &Evaluation, judged: Judged) {
        let mut wait = Duration::from_millis(50);
        let scored = self.score(evaluation, &judged).await;
        for attempt in 1..=STORE_ATTEMPTS {
            let done = Completion {
                result: self.result(evaluation, &judged, scored.clone()),
                grade: judged.record.clone(),
                cache: judged.key.clone(),
                observation: Some(observation(evaluation, &judged)),
                handed_in: Some((evaluation.submission.digest(), evaluation.stop)),
            };
            match self.queue.complete(done).await {
                Ok(result) => {
                    info!(
                        outcome = result.outcome.as_str(),
                        reward = result.reward,
                        cached = result.cached,
                        "evaluated"
                    );
                    return;
                }
                Err(error) if attempt == STORE_ATTEMPTS => {
                    let error: &dyn std::error::Error = &error;
                    error!(error, "result not stored; the request will run again");
                    self.queue.abandon(&evaluation.request_id);
                }
                Err(_) => {
                    tokio::time::sleep(wait).await;
                    wait *= 4;
                }
            }
        }
    }

    /// Returns the result of what can't be judged because the infrastructure failed before.
    pub(crate) fn unjudged(&self, evaluation: &Evaluation, failure: Failure) -> EvaluationResult {
        let timings = Timings::default();
        let judged = Judged::without_record(Outcome::InfraError, failure, timings);
        let scored = (no_score(judged.outcome.as_str().to_owned()), Duration::ZERO);
        self.result(evaluation, &judged, scored)
    }

    /// Returns the reward file that was meant when the request was accepted; `None` where it is
    /// gone, as one with plugins may be after a restart: another one would give another number.
    fn spec(&self, evaluation: &Evaluation) -> Option<Arc<RewardSpec>> {
        let task = self.evaluator.catalog().get(&evaluation.task)?;
        let meant = match &evaluation.reward_digest {
            Some(digest) => self.rewards.with_digest(digest),
            None => self.rewards.find_for(&evaluation.reward, task.submission.kind).ok(),
        };
        Some(meant?.spec)
    }

    /// Scores what came of a request, and returns how long that took.
    async fn score(&self, evaluation: &Evaluation, judged: &Judged) -> (Score, Duration) {
        let started = Instant::now();
        let scored = match (&judged.record, self.spec(evaluation)) {
            // A plugin may compute for seconds: no worker waits for one.
            (Some(record), Some(spec)) if spec.has_plugins() => {
                let record = Arc::clone(record);
                let scored = tokio::task::spawn_blocking(move || score(&record, &spec)).await;
                scored.unwrap_or_else(|panic| no_score(defect(&panic).detail))
            }
            (Some(record), Some(spec)) => score(record, &spec),
            (Some(_), None) => no_score(format!("unknown reward `{}`", evaluation.reward)),
            (None, _) => no_score(judged.outcome.as_str().to_owned()),
        };
        (scored, started.elapsed())
    }

    fn result(
        &self,
        evaluation: &Evaluation,
        judged: &Judged,
        (scored, took): (Score, Duration),
    ) -> EvaluationResult {
        let task = self.evaluator.catalog().get(&evaluation.task);
        let mut timings = judged.timings;
        timings.parse_ms += ms(took);
        let record = judged.record.as_deref();
        EvaluationResult {
            request_id: evaluation.request_id.clone(),
            run_id: evaluation.run_id.clone(),
            group_id: evaluation.group_id.clone(),
            task: evaluation.task.clone(),
            outcome: judged.outcome,
            reward: scored.reward,
            components: scored.components,
            mask: scored.mask,
            tests: record.map(GradeRecord::counts).unwrap_or_default(),
            flags: record
                .iter()
                .flat_map(|record| &record.flags)
                .chain(&scored.flags)
                .cloned()
                .collect(),
            failure: judged.failure.clone(),
            timings,
            usage: record
                .map(|record| RunUsage {
                    cpu_ms: record.usage.cpu_s * 1e3,
                    peak_mb: record.usage.peak_mb,
                })
                .unwrap_or_default(),
            digests: Digests {
                task: task.map(|task| task.digest.to_string()).unwrap_or_default(),
                image: record.map(|record| record.image_digest.clone()).unwrap_or_default(),
                submission: record
                    .map(|record| record.submission_digest.to_string())
                    .unwrap_or_default(),
                reward: self
                    .spec(evaluation)
                    .map(|spec| spec.digest().to_string())
                    .unwrap_or_default(),
            },
            cached: judged.cached,
            grade_id: None,
            generation: evaluation.generation.clone(),
            sequence: 0,
        }
    }
}

fn observation(evaluation: &Evaluation, judged: &Judged) -> Observation {
    let solves = |record: &GradeRecord| {
        let pass = RewardSpec::preset("pass")?;
        Some(score(record, pass).reward? >= 1.0)
    };
    Observation {
        task: evaluation.task.clone(),
        policy_version: evaluation.generation.policy_version_max,
        outcome: judged.outcome,
        ran: judged.ran,
        solved: judged.record.as_deref().and_then(solves).unwrap_or(false),
        run: judged.run.clone(),
    }
}

fn no_score(why: String) -> Score {
    Score { reward: None, components: Vec::new(), gate: None, mask: Some(why), flags: Vec::new() }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Whether a run ended at its wall limit, as it might not on a quieter machine: no answer to repeat.
fn hung_on_the_clock(record: &GradeRecord) -> bool {
    record.failure.as_ref().is_some_and(|failure| failure.kind == "wall_limit")
}
