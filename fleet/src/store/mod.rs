//! The embedded store: a schedule in memory, a journal and results in SQLite.

mod grades;
mod ledger;
mod rows;
mod schema;
mod specs;
mod state;
mod submissions;
mod writer;

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use assay_repos::{Digest, TaskId};
use assay_rewards::GradeRecord;
use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::warn;

pub use self::{
    grades::{GradeFilter, GradeScan, Grades, Picked},
    ledger::{Tally, TaskStats},
    schema::OpenError,
    submissions::HandedIn,
};
use self::{
    rows::{decode, encode},
    state::State,
    writer::{Answer, Command, Writer},
};
use crate::{
    Completion, EndedInQueue, Evaluation, EvaluationResult, Lease, Quarantining, Queue, RequestId,
    ResultPage, ResultStore, Rewards, Selector, Stats, StoreError, SubmitError, Ticket,
    ledger::Standings,
};

/// Commands that wait for the writer before whoever asks has to wait.
const COMMANDS: usize = 1024;
/// Most bytes of submissions without an answer: they are in memory.
const CAPACITY_BYTES: u64 = 1 << 30;
/// Grade records kept in memory for the cache.
const RECENT: usize = 4096;

/// A queue and a result store for one process, in one data directory.
#[derive(Debug)]
pub struct Embedded {
    state: Arc<State>,
    /// Gone when dropped, which ends the writer.
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
    lookups: Reader,
    scans: Reader,
    recent: Mutex<Recent>,
    standings: Arc<Standings>,
    rewards: Rewards,
}

impl Embedded {
    /// Opens a data directory. Requests in it that have no result are in the queue at once.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when the directory is in use or can't be used.
    pub fn open(data_dir: &Path, capacity: usize) -> Result<Self, OpenError> {
        let schema::Database { writer: connection, lookups, scans, lock } = schema::open(data_dir)?;
        let failed = |source| OpenError::Database { path: data_dir.join("assay.db"), source };
        let state = State::new(capacity, CAPACITY_BYTES);
        for (request_id, evaluation) in unanswered(&connection).map_err(failed)? {
            match evaluation {
                Some(evaluation) => {
                    // Nobody waits for it yet, and its client did not hang up.
                    drop(state.add(evaluation).keep_on_drop());
                }
                None => warn!(request_id, "journal entry of another version left alone"),
            }
        }
        let standings = Arc::new(ledger::standings(&connection).map_err(failed)?);
        let rewards = specs::load(&connection).map_err(failed)?;
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let writer = Writer {
            connection,
            commands: receiver,
            state: Arc::clone(&state),
            standings: Arc::clone(&standings),
            rewards: rewards.clone(),
            _lock: lock,
        };
        let writer = std::thread::Builder::new()
            .name("assay-journal".into())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io { path: data_dir.to_owned(), source })?;
        Ok(Self {
            state,
            commands: Some(commands),
            writer: Some(writer),
            lookups: Reader::new(lookups),
            scans: Reader::new(scans),
            recent: Mutex::default(),
            standings,
            rewards,
        })
    }

    /// Returns what has to be known of tasks when their submissions are judged, kept up to date.
    pub(crate) fn standings(&self) -> &Arc<Standings> {
        &self.standings
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or(StoreError::Stopped)?;
        commands.send(command(reply)).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)
    }
}

/// A connection that reads, for one at a time.
#[derive(Clone, Debug)]
struct Reader(Arc<Mutex<Connection>>);

impl Reader {
    fn new(connection: Connection) -> Self {
        Self(Arc::new(Mutex::new(connection)))
    }

    async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Self(connection) = self.clone();
        tokio::task::spawn_blocking(move || {
            query(&connection.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await
        .map_err(|_| StoreError::Stopped)?
        .map_err(|source| database(what, source))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            // At most a commit away; afterwards the data directory is free.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Queue for Embedded {
    async fn submit(&self, work: Vec<Evaluation>) -> Result<Vec<Ticket>, SubmitError> {
        if self.state.is_closed() {
            return Err(StoreError::Stopped.into());
        }
        let Stats { capacity, .. } = self.state.stats();
        if work.len() > capacity {
            return Err(SubmitError::TooMany { requested: work.len(), capacity });
        }
        let mut rows = Vec::with_capacity(work.len());
        for evaluation in work {
            let Some(row) = encode(&evaluation) else {
                return Err(SubmitError::Invalid {
                    request_id: evaluation.request_id,
                    field: "external",
                    what: "a number is not finite".into(),
                });
            };
            rows.push((row, evaluation));
        }
        self.ask(|reply| Command::Accept { work: rows, reply }).await?
    }

    async fn ready(&self) {
        self.state.ready().await;
    }

    async fn lease(&self) -> Option<Lease> {
        self.state.lease()
    }

    async fn ended(&self) -> Vec<(Lease, EndedInQueue)> {
        self.state.ended().await
    }

    async fn complete(&self, done: Completion) -> Result<Arc<EvaluationResult>, StoreError> {
        let Completion { mut result, grade, cache, observation, handed_in } = done;
        let damaged = |_| StoreError::Damaged { what: "the result".into() };
        let stored = grade.as_ref().map(|grade| {
            let json = grade.to_json();
            (Digest::of(&json), json)
        });
        result.grade_id = stored.as_ref().map(|(id, _)| id.clone());
        let body = serde_json::to_string(&result).map_err(damaged)?;
        let cached = cache.clone();
        let answer = Answer { result, body, grade: stored, cache: cached, observation, handed_in };
        let answer = Box::new(answer);
        let result = self.ask(|reply| Command::Complete { answer, reply }).await??;
        if let (Some(key), Some(grade)) = (cache, grade) {
            self.recent.lock().unwrap_or_else(PoisonError::into_inner).put(key, grade);
        }
        Ok(result)
    }

    fn abandon(&self, id: &RequestId) {
        self.state.abandon(id);
    }

    fn cancel(&self, selector: &Selector) -> usize {
        self.state.cancel(selector)
    }

    async fn ticket(&self, id: &RequestId) -> Result<Option<Ticket>, StoreError> {
        if let Some(ticket) = self.state.ticket(id) {
            return Ok(Some(ticket));
        }
        // What left the memory is in the database.
        let id = id.clone();
        let result = self.lookups.read("read a result", move |db| writer::find(db, &id)).await?;
        Ok(result.map(Ticket::finished))
    }

    fn stats(&self) -> Stats {
        self.state.stats()
    }

    fn close(&self) {
        self.state.close();
    }

    fn release(&self) -> usize {
        self.state.release()
    }
}

#[async_trait]
impl ResultStore for Embedded {
    async fn results(
        &self,
        run_id: &str,
        cursor: u64,
        max: usize,
        deadline: Instant,
    ) -> Result<ResultPage, StoreError> {
        loop {
            // Before reading, so that no result is both read and counted as pending.
            let pending = self.state.pending(run_id);
            let run = run_id.to_owned();
            let results =
                self.lookups.read("read results", move |db| page(db, &run, cursor, max)).await?;
            if let Some(last) = results.last() {
                let cursor = last.sequence;
                let pending = pending.min(self.state.pending(run_id));
                return Ok(ResultPage { results, cursor, pending });
            }
            let waited =
                tokio::time::timeout_at(deadline, self.state.stored_after(run_id, cursor)).await;
            if waited != Ok(true) {
                let pending = self.state.pending(run_id);
                return Ok(ResultPage { results: Vec::new(), cursor, pending });
            }
        }
    }

    async fn grade(&self, id: &Digest) -> Result<Option<GradeRecord>, StoreError> {
        let name = id.clone();
        let body = self.lookups.read("read a grade", move |db| grade(db, name.as_str())).await?;
        body.map(|body| {
            GradeRecord::from_json(&body)
                .map_err(|_| StoreError::Damaged { what: format!("grade record {id}") })
        })
        .transpose()
    }

    async fn cached(&self, key: &Digest) -> Result<Option<Arc<GradeRecord>>, StoreError> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner).get(key);
        if recent.is_some() {
            return Ok(recent);
        }
        let name = key.clone();
        let body = self
            .lookups
            .read("read the cache", move |db| {
                let id: Option<String> = db
                    .prepare_cached("SELECT grade FROM cache WHERE key = ?")?
                    .query_row([name.as_str()], |row| row.get(0))
                    .optional()?;
                id.map_or(Ok(None), |id| grade(db, &id))
            })
            .await?;
        // A record of another version is as good as none: the submission runs again.
        let found = body.and_then(|body| GradeRecord::from_json(&body).ok()).map(Arc::new);
        if let Some(found) = &found {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.put(key.clone(), Arc::clone(found));
        }
        Ok(found)
    }

    async fn task_stats(&self, task: Option<&TaskId>) -> Result<Vec<TaskStats>, StoreError> {
        let task = task.cloned();
        self.scans.read("read the ledger", move |db| ledger::stats(db, task.as_ref())).await
    }

    async fn quarantine(&self, change: Quarantining) -> Result<(), StoreError> {
        self.ask(|reply| Command::Quarantine { change, reply }).await?
    }

    async fn handed_in(&self, grade: &Digest) -> Result<Option<HandedIn>, StoreError> {
        let grade = grade.clone();
        self.lookups
            .read("read a submission", move |db| submissions::find(db, grade.as_str()))
            .await
    }

    async fn purge(&self, age: Duration) -> Result<(), StoreError> {
        let Some(before) = SystemTime::now().checked_sub(age) else { return Ok(()) };
        while self.ask(|reply| Command::Purge { before, reply }).await?? {}
        self.state.tidy();
        Ok(())
    }
}

/// The last grade records by cache key; the oldest goes first.
#[derive(Debug, Default)]
struct Recent {
    records: HashMap<Digest, Arc<GradeRecord>>,
    order: VecDeque<Digest>,
}

impl Recent {
    fn get(&self, key: &Digest) -> Option<Arc<GradeRecord>> {
        self.records.get(key).cloned()
    }

    fn put(&mut self, key: Digest, record: Arc<GradeRecord>) {
        if self.records.insert(key.clone(), record).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.records.remove(&oldest);
        }
    }
}

fn unanswered(db: &Connection) -> rusqlite::Result<Vec<(String, Option<Evaluation>)>> {
    db.prepare(
        "SELECT request_id, meta, kind, payload FROM pending JOIN requests USING (id) ORDER BY id",
    )?
    .query_map([], |row| {
        let id: String = row.get(0)?;
        let (meta, kind): (String, String) = (row.get(1)?, row.get(2)?);
        let evaluation = decode(&id, &meta, &kind, row.get(3)?);
        Ok((id, evaluation))
    })?
    .collect()
}

fn page(
    db: &Connection,
    run_id: &str,
    cursor: u64,
    max: usize,
) -> rusqlite::Result<Vec<Arc<EvaluationResult>>> {
    let (cursor, max) = (i64::try_from(cursor).unwrap_or(i64::MAX), i64::try_from(max));
    db.prepare_cached(
        "SELECT sequence, body FROM results WHERE run_id = ? AND sequence > ?
         ORDER BY sequence LIMIT ?",
    )?
    .query_map(params![run_id, cursor, max.unwrap_or(i64::MAX)], |row| {
        writer::read(row.get(0)?, &row.get::<_, String>(1)?)
    })?
    .collect()
}

fn grade(db: &Connection, id: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    db.prepare_cached("SELECT body FROM grades WHERE id = ?")?
        .query_row([id], |row| row.get(0))
        .optional()
}

fn database(what: &str, source: rusqlite::Error) -> StoreError {
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full,
        _ if passes(&source) => StoreError::Unavailable(Arc::new(source)),
        _ => StoreError::Database { what: what.to_owned(), source: Arc::new(source) },
    }
}

/// Whether it is nothing about what was asked, and may pass.
fn passes(error: &rusqlite::Error) -> bool {
    use ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    matches!(
        error.sqlite_error_code(),
        Some(
            CannotOpen
                | DatabaseBusy
                | DatabaseLocked
                | PermissionDenied
                | ReadOnly
                | SystemIoFailure
        )
    )
}
