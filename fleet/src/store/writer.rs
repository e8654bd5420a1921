//! The one thread that writes: what was asked while it committed is in its next commit.
//!
//! A request becomes accepted and a result visible here, after the commit and in its order, so
//! that no reader is ahead of the database.

use std::{fs::File, sync::Arc, time::SystemTime};

use assay_repos::Digest;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tokio::sync::{mpsc, oneshot};

use super::{
    ledger::{self, Touched},
    rows::{Row, to_ms},
    specs::{self, PutSpec},
    state::{Room, State},
    submissions,
};
use crate::{
    Evaluation, EvaluationResult, Observation, Put, PutError, Quarantining, RequestId, Rewards,
    SpecVersion, Stop, StoreError, SubmitError, Ticket, ledger::Standings,
};

/// Most commands in one commit.
const GROUP: usize = 256;
/// Most rows that a purge deletes in one commit.
const PURGE: usize = 1000;

/// What the thread is asked to do, each with where its answer goes.
#[derive(Debug)]
pub(crate) enum Command {
    Accept {
        work: Vec<(Row, Evaluation)>,
        reply: oneshot::Sender<Result<Vec<Ticket>, SubmitError>>,
    },
    Complete {
        answer: Box<Answer>,
        reply: oneshot::Sender<Result<Arc<EvaluationResult>, StoreError>>,
    },
    Quarantine {
        change: Quarantining,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    PutSpec {
        put: PutSpec,
        reply: oneshot::Sender<Result<SpecVersion, PutError>>,
    },
    /// Deletes what is older; answers whether there is more.
    Purge {
        before: SystemTime,
        reply: oneshot::Sender<Result<bool, StoreError>>,
    },
}

/// A result on its way into the database, serialised by whoever asks.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) result: EvaluationResult,
    pub(crate) body: String,
    pub(crate) grade: Option<(Digest, String)>,
    /// The cache key that the grade answers from now on.
    pub(crate) cache: Option<Digest>,
    pub(crate) observation: Option<Observation>,
    pub(crate) handed_in: Option<(Digest, Stop)>,
}

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) state: Arc<State>,
    pub(crate) standings: Arc<Standings>,
    pub(crate) rewards: Rewards,
    /// Keeps other services out for as long as this one writes.
    pub(crate) _lock: File,
}

/// What a command did to the database, to be said once it is committed.
enum Effect {
    Accepted(Vec<Known>),
    Refused(SubmitError),
    Answered(Arc<EvaluationResult>),
    Quarantined,
    /// `None`: the request id belongs to another text.
    Put(Option<Put>),
    Purged(bool),
}

/// What the journal knew of a request.
enum Known {
    Unanswered,
    Answered(Arc<EvaluationResult>),
}

impl Writer {
    /// Serves until every sender is gone.
    pub(crate) fn run(mut self) {
        while let Some(first) = self.commands.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP
                && let Ok(next) = self.commands.try_recv()
            {
                group.push(next);
            }
            self.serve(group);
        }
        // Leaves one file behind; the next start would do it as well.
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    fn serve(&mut self, group: Vec<Command>) {
        match self.commit(&group) {
            Ok(effects) => {
                for (command, effect) in group.into_iter().zip(effects) {
                    self.reply(command, Ok(effect));
                }
            }
            // One of them may be at fault; the others should not suffer. Where it is the database,
            // each would wait for it as long as all did.
            Err(error) if group.len() > 1 && !super::passes(&error) => {
                for command in group {
                    self.serve(vec![command]);
                }
            }
            Err(source) => {
                let error = super::database("write", source);
                for command in group {
                    self.reply(command, Err(error.clone()));
                }
            }
        }
    }

    fn commit(&mut self, group: &[Command]) -> rusqlite::Result<Vec<Effect>> {
        let mut transaction = self.connection.transaction()?;
        let mut room = self.state.room();
        let mut touched = Touched::default();
        let mut effects = Vec::with_capacity(group.len());
        for command in group {
            effects.push(match command {
                Command::Accept { work, .. } => accept(&mut transaction, work, &mut room)?,
                Command::Complete { answer, .. } => complete(&transaction, answer, &mut touched)?,
                Command::Quarantine { change, .. } => {
                    quarantine(&transaction, change, &mut touched)?
                }
                Command::PutSpec { put, .. } => Effect::Put(specs::put(&transaction, put)?),
                Command::Purge { before, .. } => purge(&transaction, *before)?,
            });
        }
        touched.write(&transaction)?;
        transaction.commit()?;
        touched.publish(&self.standings);
        Ok(effects)
    }

    fn reply(&self, command: Command, effect: Result<Effect, StoreError>) {
        // A receiver that is gone lost interest; a ticket in the message hangs up when dropped.
        match (command, effect) {
            (Command::Accept { work, reply }, Ok(Effect::Accepted(known))) => {
                let tickets =
                    work.into_iter().zip(known).map(|((_, evaluation), known)| match known {
                        Known::Unanswered => self.state.add(evaluation),
                        Known::Answered(result) => Ticket::finished(result),
                    });
                let _ = reply.send(Ok(tickets.collect()));
            }
            (Command::Accept { reply, .. }, Ok(Effect::Refused(error))) => {
                let _ = reply.send(Err(error));
            }
            (Command::Complete { reply, .. }, Ok(Effect::Answered(result))) => {
                self.state.answer(&result);
                let _ = reply.send(Ok(result));
            }
            (Command::Quarantine { reply, .. }, Ok(Effect::Quarantined)) => {
                let _ = reply.send(Ok(()));
            }
            (Command::Quarantine { reply, .. }, Err(error)) => {
                let _ = reply.send(Err(error));
            }
            (Command::PutSpec { put, reply }, Ok(Effect::Put(done))) => {
                let _ = reply.send(self.known(put, done));
            }
            (Command::Purge { reply, .. }, Ok(Effect::Purged(more))) => {
                let _ = reply.send(Ok(more));
            }
            (Command::Accept { reply, .. }, Err(error)) => {
                let _ = reply.send(Err(error.into()));
            }
            (Command::Complete { reply, .. }, Err(error)) => {
                let _ = reply.send(Err(error));
            }
            (Command::PutSpec { reply, .. }, Err(error)) => {
                let _ = reply.send(Err(error.into()));
            }
            (Command::Purge { reply, .. }, Err(error)) => {
                let _ = reply.send(Err(error));
            }
            (command, Ok(_)) => unreachable!("{command:?} has another effect"),
        }
    }

    /// Makes a reward file that is stored by now known to requests.
    fn known(
        &self,
        PutSpec { request_id, spec }: PutSpec,
        put: Option<Put>,
    ) -> Result<SpecVersion, PutError> {
        match (put, request_id) {
            (None, Some(request_id)) => Err(PutError::Conflict { request_id }),
            (put, _) => {
                let known = SpecVersion { spec, put };
                self.rewards.add(known.clone());
                Ok(known)
            }
        }
    }
}

/// Journals all of `work`, or nothing.
fn accept(
    transaction: &mut Transaction<'_>,
    work: &[(Row, Evaluation)],
    room: &mut Room,
) -> rusqlite::Result<Effect> {
    let savepoint = transaction.savepoint()?;
    let mut known = Vec::with_capacity(work.len());
    let (mut new, mut bytes) = (0, 0);
    let now = to_ms(SystemTime::now());
    for (row, _) in work {
        let id = row.request_id.as_str();
        let inserted = savepoint
            .prepare_cached(
                "INSERT OR IGNORE INTO requests
                 (request_id, body, accepted_ms, meta, kind, payload) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![id, row.body.as_str(), now, row.meta, row.kind, row.payload])?;
        if inserted == 1 {
            let rowid = savepoint.last_insert_rowid();
            savepoint.prepare_cached("INSERT INTO pending (id) VALUES (?)")?.execute([rowid])?;
            new += 1;
            bytes += row.payload.len() as u64;
            known.push(Known::Unanswered);
            continue;
        }
        let body: String = savepoint
            .prepare_cached("SELECT body FROM requests WHERE request_id = ?")?
            .query_row([id], |row| row.get(0))?;
        if body != row.body.as_str() {
            // Dropping a savepoint rolls it back.
            let request_id = row.request_id.clone();
            return Ok(Effect::Refused(SubmitError::Conflict { request_id }));
        }
        known.push(match find(&savepoint, &row.request_id)? {
            Some(result) => Known::Answered(result),
            None => Known::Unanswered,
        });
    }
    if !room.take(new, bytes) {
        return Ok(Effect::Refused(SubmitError::Busy {
            unanswered: room.unanswered,
            capacity: room.capacity,
            retry_after: std::time::Duration::ZERO,
        }));
    }
    savepoint.commit()?;
    Ok(Effect::Accepted(known))
}

fn quarantine(
    transaction: &Transaction<'_>,
    change: &Quarantining,
    touched: &mut Touched,
) -> rusqlite::Result<Effect> {
    let Quarantining { task, name, add, reason } = change;
    touched.quarantine(transaction, task, name, *add, reason)?;
    Ok(Effect::Quarantined)
}

fn complete(
    transaction: &Transaction<'_>,
    answer: &Answer,
    touched: &mut Touched,
) -> rusqlite::Result<Effect> {
    let Answer { result, body, grade, cache, observation, handed_in } = answer;
    if let Some(first) = find(transaction, &result.request_id)? {
        return Ok(Effect::Answered(first));
    }
    let now = to_ms(SystemTime::now());
    if let Some((id, grade)) = grade {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO grades (id, body) VALUES (?, ?)")?
            .execute(params![id.as_str(), grade.as_bytes()])?;
        if let Some(key) = cache {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO cache (key, grade, stored_ms) VALUES (?, ?, ?)",
                )?
                .execute(params![key.as_str(), id.as_str(), now])?;
        }
        transaction
            .prepare_cached("INSERT OR IGNORE INTO task_grades VALUES (?, ?)")?
            .execute([result.task.as_str(), id.as_str()])?;
        transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO graded (grade, run_id, finished_ms) VALUES (?, ?, ?)",
            )?
            .execute(params![id.as_str(), result.run_id, now])?;
    }
    let id = grade.as_ref().map(|(id, _)| id);
    if let (Some(id), Some((submission, stop))) = (id, handed_in) {
        submissions::keep(transaction, &result.request_id, id, submission, *stop)?;
    }
    if let Some(observation) = observation {
        touched.observe(transaction, observation, id)?;
    }
    let sequence: i64 = transaction
        .prepare_cached(
            "INSERT INTO runs (run_id, sequence) VALUES (?, 1)
             ON CONFLICT DO UPDATE SET sequence = sequence + 1 RETURNING sequence",
        )?
        .query_row([&result.run_id], |row| row.get(0))?;
    transaction
        .prepare_cached(
            "INSERT INTO results (request_id, run_id, sequence, finished_ms, body)
             VALUES (?, ?, ?, ?, ?)",
        )?
        .execute(params![result.request_id.as_str(), result.run_id, sequence, now, body])?;
    transaction
        .prepare_cached(
            "DELETE FROM pending WHERE id = (SELECT id FROM requests WHERE request_id = ?)",
        )?
        .execute([result.request_id.as_str()])?;
    let sequence = sequence.unsigned_abs();
    Ok(Effect::Answered(Arc::new(EvaluationResult { sequence, ..result.clone() })))
}

pub(super) const OLD_RESULTS: &str = "SELECT request_id FROM results WHERE finished_ms < ? LIMIT ?";
pub(super) const PURGE_REQUEST: [&str; 2] =
    ["DELETE FROM requests WHERE request_id = ?", "DELETE FROM results WHERE request_id = ?"];
pub(super) const PURGE_OLD: [&str; 2] =
    ["DELETE FROM cache WHERE stored_ms < ?", "DELETE FROM spec_puts WHERE put_ms < ?"];

fn purge(transaction: &Transaction<'_>, before: SystemTime) -> rusqlite::Result<Effect> {
    let before = to_ms(before);
    let old: Vec<String> = transaction
        .prepare_cached(OLD_RESULTS)?
        .query_map(params![before, PURGE as i64], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in &old {
        for sql in PURGE_REQUEST {
            transaction.prepare_cached(sql)?.execute([id])?;
        }
    }
    for sql in PURGE_OLD {
        transaction.prepare_cached(sql)?.execute([before])?;
    }
    ledger::purge(transaction, before)?;
    let more = submissions::purge(transaction, None)?;
    Ok(Effect::Purged(more || old.len() == PURGE))
}

/// Reads the result of a request.
pub(crate) fn find(
    connection: &Connection,
    id: &RequestId,
) -> rusqlite::Result<Option<Arc<EvaluationResult>>> {
    connection
        .prepare_cached("SELECT sequence, body FROM results WHERE request_id = ?")?
        .query_row([id.as_str()], |row| read(row.get(0)?, &row.get::<_, String>(1)?))
        .optional()
}

/// Reads a stored result.
pub(crate) fn read(sequence: i64, body: &str) -> rusqlite::Result<Arc<EvaluationResult>> {
    let result: EvaluationResult = serde_json::from_str(body).map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(e))
    })?;
    Ok(Arc::new(EvaluationResult { sequence: sequence.unsigned_abs(), ..result }))
}
