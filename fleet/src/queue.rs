//! The contract between those who ask, those who work and the store between them.

use std::{fmt, sync::Arc, time::Duration};

use assay_repos::{Digest, TaskId};
use assay_rewards::GradeRecord;
use async_trait::async_trait;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Digests, Evaluation, EvaluationResult, HandedIn, Observation, RequestId, RunUsage, Stats, Stop,
    TaskStats, TestName, Timings, UnknownReward,
};

/// Work that was accepted and not yet answered.
///
/// A request is in the journal before [`submit`](Self::submit) returns, and its result is before
/// anybody sees it. What was accepted and not answered is there again after a crash of the
/// service; a power cut may take the last moments along.
#[async_trait]
pub trait Queue: fmt::Debug + Send + Sync {
    /// Accepts all of `work` or none of it. A request that is known already, with the same body,
    /// is not accepted again: its ticket is for the result that it has or will have.
    ///
    /// The body is what is judged; priority, deadline and `on_disconnect` may differ in a retry,
    /// and those of the first request hold. When the returned future is dropped, the work may have
    /// been accepted.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]; nothing was accepted.
    async fn submit(&self, work: Vec<Evaluation>) -> Result<Vec<Ticket>, SubmitError>;

    /// Waits until a request waits for a worker. Cancel safe.
    async fn ready(&self);

    /// Hands the request that runs next to a worker; `None` when none waits any more. A worker is
    /// found first and asks then, so that no idle one holds a place that others could use.
    async fn lease(&self) -> Option<Lease>;

    /// Waits for requests that were cancelled, or whose deadline came, before a worker had them.
    /// They want an answer like any other. Cancel safe.
    async fn ended(&self) -> Vec<(Lease, EndedInQueue)>;

    /// Answers a request. The first answer holds: it comes back, whoever gave it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could not be stored; nobody saw it.
    async fn complete(&self, done: Completion) -> Result<Arc<EvaluationResult>, StoreError>;

    /// Gives up on a request whose answer could not be stored. Those who wait are told that the
    /// service stopped; the request is kept, and runs when it is asked for again or at the next
    /// start.
    fn abandon(&self, id: &RequestId);

    /// Cancels what `selector` means and returns how many requests that were. They are answered
    /// soon; the work of a worker ends with the token of its lease.
    fn cancel(&self, selector: &Selector) -> usize;

    /// Returns a ticket for a request that was accepted, or `None`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    async fn ticket(&self, id: &RequestId) -> Result<Option<Ticket>, StoreError>;

    /// Returns what was done and how much there is to do, as far as a queue knows.
    fn stats(&self) -> Stats;

    /// Accepts and hands out no more work, and takes dropped tickets for what they are when a
    /// service stops: no hang-up. Answers are still taken.
    fn close(&self);

    /// Tells all who wait that the service stopped, and returns how many requests are left without
    /// an answer. They are kept for the next start.
    fn release(&self) -> usize;
}

/// Results and grade records that were stored.
#[async_trait]
pub trait ResultStore: fmt::Debug + Send + Sync {
    /// Returns results of a run behind `cursor`, at most `max`, in order; waits for the first one
    /// until `deadline`. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    async fn results(
        &self,
        run_id: &str,
        cursor: u64,
        max: usize,
        deadline: Instant,
    ) -> Result<ResultPage, StoreError>;

    /// Returns a grade record.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    async fn grade(&self, id: &Digest) -> Result<Option<GradeRecord>, StoreError>;

    /// Returns what a run under this cache key left behind.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    async fn cached(&self, key: &Digest) -> Result<Option<Arc<GradeRecord>>, StoreError>;

    /// Returns what is known of one task, or of every one that was ever answered.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    async fn task_stats(&self, task: Option<&TaskId>) -> Result<Vec<TaskStats>, StoreError>;

    /// Takes a test out of those that must be kept, or puts it back among them. What is so already
    /// is no error and leaves no trace.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could not be stored.
    async fn quarantine(&self, change: Quarantining) -> Result<(), StoreError>;

    /// Returns the submission that a grade came from; `None` where it is not kept (any more).
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    async fn handed_in(&self, grade: &Digest) -> Result<Option<HandedIn>, StoreError>;

    /// Deletes results that are older than `age`, with their requests. Grade records stay.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be written.
    async fn purge(&self, age: Duration) -> Result<(), StoreError>;
}

/// A request in the hands of a worker.
#[derive(Debug)]
pub struct Lease {
    /// What is to be done.
    pub evaluation: Arc<Evaluation>,
    /// When it was accepted, or found again after a start.
    pub accepted: Instant,
    /// When an answer is no longer of use.
    pub deadline: Option<Instant>,
    /// Cancelled when the work is.
    pub cancelled: CancellationToken,
}

/// Why a request ended before a worker had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedInQueue {
    /// Somebody cancelled it.
    Cancelled,
    /// Its deadline came.
    DeadlineExceeded,
}

/// An answer, with what is stored beside it.
#[derive(Debug)]
pub struct Completion {
    /// The answer.
    pub result: EvaluationResult,
    /// The facts that it was computed from.
    pub grade: Option<Arc<GradeRecord>>,
    /// The key under which `grade` answers later evaluations.
    pub cache: Option<Digest>,
    /// What the answer tells of its task and of the tests; absent for nothing.
    pub observation: Option<Observation>,
    /// Names the submission as it was handed in, and says when its evaluation was to stop; absent
    /// where it need not be kept.
    pub handed_in: Option<(Digest, Stop)>,
}

impl Completion {
    /// Returns what keeps a grade that no evaluation left: as an answer of `run_id` without a reward.
    #[must_use]
    pub fn of_grade(run_id: &str, grade: GradeRecord) -> Self {
        let result = EvaluationResult {
            request_id: RequestId::generate(),
            run_id: run_id.to_owned(),
            group_id: String::new(),
            task: grade.task.clone(),
            outcome: grade.outcome,
            reward: None,
            components: Vec::new(),
            mask: None,
            tests: grade.counts(),
            flags: Vec::new(),
            failure: grade.failure.clone(),
            timings: Timings::default(),
            usage: RunUsage::default(),
            digests: Digests::default(),
            cached: false,
            grade_id: None,
            generation: grade.generation.clone(),
            sequence: 0,
        };
        let grade = Some(Arc::new(grade));
        Self { result, grade, cache: None, observation: None, handed_in: None }
    }
}

/// Somebody's wish about a test that is flaky, or is not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantining {
    /// Whose test.
    pub task: TaskId,
    /// Which.
    pub name: TestName,
    /// Whether it is put in; else let out.
    pub add: bool,
    /// Why, for whoever reads the audit trail.
    pub reason: String,
}

/// Which requests are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// These.
    Requests(Vec<RequestId>),
    /// Those of a group; of this run alone, where one is named.
    Group {
        /// The run, if it matters.
        run_id: Option<String>,
        /// The group.
        group_id: String,
    },
    /// Those of a run.
    Run(String),
}

/// Some results of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResultPage {
    /// In order of their sequence.
    pub results: Vec<Arc<EvaluationResult>>,
    /// Where the next page begins.
    pub cursor: u64,
    /// Requests of the run that have no result yet.
    pub pending: usize,
}

/// Somebody's interest in one result.
#[derive(Debug)]
pub struct Ticket {
    request_id: RequestId,
    result: Option<watch::Receiver<Option<Arc<EvaluationResult>>>>,
    hang_up: Option<Arc<dyn HangUp>>,
    cancels: bool,
}

/// What a queue does when a ticket that cancels was dropped. `result` is the ticket's own
/// receiver: work goes on while another ticket waits for it.
pub(crate) trait HangUp: fmt::Debug + Send + Sync {
    fn hang_up(&self, id: &RequestId, result: watch::Receiver<Option<Arc<EvaluationResult>>>);
}

impl Ticket {
    pub(crate) fn pending(
        request_id: RequestId,
        result: watch::Receiver<Option<Arc<EvaluationResult>>>,
        hang_up: Arc<dyn HangUp>,
        cancels: bool,
    ) -> Self {
        Self { request_id, result: Some(result), hang_up: Some(hang_up), cancels }
    }

    pub(crate) fn finished(result: Arc<EvaluationResult>) -> Self {
        let request_id = result.request_id.clone();
        let (_, result) = watch::channel(Some(result));
        Self { request_id, result: Some(result), hang_up: None, cancels: false }
    }

    /// Returns whose result this is.
    #[must_use]
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    /// From now on, dropping the ticket before the result is there cancels the work, unless
    /// another ticket waits for it. A ticket of a request with
    /// [`OnDisconnect::Cancel`](crate::OnDisconnect) is like that from the start.
    #[must_use]
    pub fn cancel_on_drop(mut self) -> Self {
        self.cancels = true;
        self
    }

    /// From now on, dropping the ticket means nothing.
    #[must_use]
    pub fn keep_on_drop(mut self) -> Self {
        self.cancels = false;
        self
    }

    /// Waits for the result. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Stopped`] when the fleet stopped first; the request is kept and runs at the next start.
    pub async fn wait(&mut self) -> Result<Arc<EvaluationResult>, Stopped> {
        let Some(receiver) = self.result.as_mut() else { return Err(Stopped) };
        let result = receiver.wait_for(Option::is_some).await.map_err(|_| Stopped)?;
        result.clone().ok_or(Stopped)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let (Some(result), Some(hang_up)) = (self.result.take(), self.hang_up.take()) else {
            return;
        };
        if self.cancels && result.borrow().is_none() {
            hang_up.hang_up(&self.request_id, result);
        }
    }
}

/// The fleet stopped before the result was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the service stopped before the result was there; ask again with the same request id")]
pub struct Stopped;

/// Why nothing was accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Too many requests wait for an answer. Retrying later can succeed.
    #[error("the queue is full ({unanswered} requests of at most {capacity} wait for an answer)")]
    Busy {
        /// Requests without an answer.
        unanswered: usize,
        /// Most of them.
        capacity: usize,
        /// When a retry is likely to succeed.
        retry_after: Duration,
    },
    /// More requests at once than the queue ever holds.
    #[error("{requested} requests at once are more than the queue holds ({capacity})")]
    TooMany {
        /// Requests in the call.
        requested: usize,
        /// Most requests without an answer.
        capacity: usize,
    },
    /// The id belongs to a request with another body.
    #[error("request id `{request_id}` was used for another request; use a new id")]
    Conflict {
        /// The id.
        request_id: RequestId,
    },
    /// The catalog has no such task.
    #[error("unknown task `{task}`")]
    UnknownTask {
        /// The request.
        request_id: RequestId,
        /// What it asked for.
        task: TaskId,
    },
    /// There is no such reward file.
    #[error("{source}")]
    UnknownReward {
        /// The request.
        request_id: RequestId,
        /// What it asked for.
        source: UnknownReward,
    },
    /// A field holds what it can't.
    #[error("{field}: {what}")]
    Invalid {
        /// The request.
        request_id: RequestId,
        /// The field.
        field: &'static str,
        /// What is wrong, as a fragment.
        what: String,
    },
    /// The journal could not be written.
    #[error("cannot journal the request")]
    Store(#[from] StoreError),
}

/// The journal or the results could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk of the data directory is full.
    #[error(
        "the disk of the data directory is full: free some of it, then ask again with the same request id"
    )]
    Full,
    /// The database can't be used now: another process holds it, or the disk fails. It may pass.
    #[error(
        "the database of the data directory can't be used now ({0}): see that no other process \
         holds it and that its disk is well, then ask again with the same request id"
    )]
    Unavailable(Arc<rusqlite::Error>),
    /// SQLite said no.
    #[error("database: {what}")]
    Database {
        /// The step, as a fragment.
        what: String,
        /// What SQLite said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// A stored row is not what this version writes.
    #[error("{what} is damaged or of another version")]
    Damaged {
        /// The row.
        what: String,
    },
    /// The fleet stopped.
    #[error("the service has stopped")]
    Stopped,
}
