//! The flakiness ledger in the database: one row per task and ground, written with the results that
//! it is made of.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use assay_repos::{Digest, TaskId};
use assay_rewards::Role;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, params_from_iter};
use serde::{Serialize, de::DeserializeOwned};

use super::rows::{from_ms, to_ms};
use crate::ledger::{
    Ledger, Observation, QuarantineEvent, Run, Standings, TestHistory, TestName, Why, Witness,
    current,
};

/// The policy version under which those are counted that have been quiet for as long as results are
/// kept.
const OLDER: i64 = -1;

/// `ledgers` has one small blob per task and ground, `witnesses` one per submission that ran there;
/// `tallies` counts answers.
pub(super) const SCHEMA: &str = "
CREATE TABLE ledgers (
    task        TEXT NOT NULL,
    ground      TEXT NOT NULL,
    updated_ms  INTEGER NOT NULL,
    rate        REAL,
    body        BLOB NOT NULL,
    PRIMARY KEY (task, ground)
) STRICT, WITHOUT ROWID;
CREATE TABLE witnesses (
    ground      TEXT NOT NULL,
    submission  TEXT NOT NULL,
    stored_ms   INTEGER NOT NULL,
    body        BLOB NOT NULL,
    PRIMARY KEY (ground, submission)
) STRICT, WITHOUT ROWID;
CREATE INDEX witnesses_by_age ON witnesses (stored_ms);
CREATE TABLE tallies (
    task        TEXT NOT NULL,
    version     INTEGER NOT NULL,
    outcome     TEXT NOT NULL,
    answers     INTEGER NOT NULL,
    runs        INTEGER NOT NULL,
    solved      INTEGER NOT NULL,
    last_ms     INTEGER NOT NULL,
    PRIMARY KEY (task, version, outcome)
) STRICT, WITHOUT ROWID;
CREATE TABLE quarantine (
    id          INTEGER PRIMARY KEY,
    task        TEXT NOT NULL,
    check_id    TEXT NOT NULL,
    test        TEXT NOT NULL,
    added       INTEGER NOT NULL,
    at_ms       INTEGER NOT NULL,
    why         TEXT NOT NULL
) STRICT;
";

/// Ledgers that a commit changes: each is read once and written once, however many of its results
/// the commit holds.
#[derive(Debug, Default)]
pub(super) struct Touched {
    ledgers: HashMap<(TaskId, Digest), Ledger>,
    /// What is to be known once the commit is done.
    events: Vec<(TaskId, QuarantineEvent)>,
}

impl Touched {
    /// Counts an answer, and folds in the run that gave it.
    pub(super) fn observe(
        &mut self,
        db: &Transaction<'_>,
        seen: &Observation,
        grade: Option<&Digest>,
    ) -> rusqlite::Result<()> {
        db.prepare_cached(
            "INSERT INTO tallies (task, version, outcome, answers, runs, solved, last_ms)
             VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET answers = answers + 1, runs = runs + ?4,
                solved = solved + ?5, last_ms = ?6",
        )?
        .execute(params![
            seen.task.as_str(),
            i64::try_from(seen.policy_version).unwrap_or(i64::MAX),
            seen.outcome.as_str(),
            seen.ran,
            seen.solved,
            to_ms(SystemTime::now()),
        ])?;
        match (&seen.run, grade) {
            (Some(run), Some(grade)) => self.fold(db, &seen.task, run, grade, seen.solved),
            _ => Ok(()),
        }
    }

    fn fold(
        &mut self,
        db: &Transaction<'_>,
        task: &TaskId,
        run: &Run,
        grade: &Digest,
        solved: bool,
    ) -> rusqlite::Result<()> {
        let ledger = self.ledger(db, task, &run.ground)?;
        let (ground, submission) = (run.ground.as_str(), run.submission.as_str());
        let last: Option<Vec<u8>> = db
            .prepare_cached("SELECT body FROM witnesses WHERE ground = ? AND submission = ?")?
            .query_row([ground, submission], |row| row.get(0))
            .optional()?;
        let last: Option<Witness> = last.and_then(|body| decode(&body));
        let witness = ledger.fold(run, grade, solved, last.as_ref());
        db.prepare_cached("INSERT OR REPLACE INTO witnesses VALUES (?, ?, ?, ?)")?
            .execute(params![ground, submission, to_ms(SystemTime::now()), encode(&witness)])?;
        if !run.trusted {
            return Ok(());
        }
        // A run that was prepared before a test went into quarantine doesn't take it out again.
        let mut trail = Vec::new();
        trails(db, Some(task), |_, event| trail.push(event))?;
        let known = current(&trail, Some(&run.ground));
        for test in ledger.tests.iter_mut().filter(|test| known.contains(&test.name)) {
            test.role = Role::Quarantined;
        }
        let why = |test: &TestHistory| Why::Ledger {
            ground: run.ground.clone(),
            pairs: test.trusted,
            evidence: test.evidence.clone(),
        };
        let suspects = ledger.suspects().into_iter();
        let suspects: Vec<_> = suspects.map(|test| (test.name.clone(), why(test))).collect();
        // From now on they count as quarantined, for this commit, too.
        for test in &mut ledger.tests {
            if suspects.iter().any(|(name, _)| *name == test.name) {
                test.role = Role::Quarantined;
            }
        }
        for (name, why) in suspects {
            let event = note(db, task, name, true, why)?;
            self.events.push((task.clone(), event));
        }
        Ok(())
    }

    /// Puts a test in or lets it out, because somebody asked for it.
    pub(super) fn quarantine(
        &mut self,
        db: &Transaction<'_>,
        task: &TaskId,
        name: &TestName,
        added: bool,
        reason: &str,
    ) -> rusqlite::Result<()> {
        let (mut asked, mut anyhow) = (false, false);
        trails(db, Some(task), |_, event| {
            if event.name == *name {
                anyhow = event.added;
                asked = event.added && (asked || matches!(event.why, Why::Operator { .. }));
            }
        })?;
        if added == if added { asked } else { anyhow } {
            return Ok(());
        }
        if !added {
            let grounds: Vec<String> = db
                .prepare_cached("SELECT ground FROM ledgers WHERE task = ?")?
                .query_map([task.as_str()], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for ground in grounds.iter().filter_map(|ground| ground.parse().ok()) {
                self.ledger(db, task, &ground)?.acquit(name);
            }
        }
        let why = Why::Operator { reason: reason.to_owned() };
        let event = note(db, task, name.clone(), added, why)?;
        self.events.push((task.clone(), event));
        Ok(())
    }

    fn ledger(
        &mut self,
        db: &Transaction<'_>,
        task: &TaskId,
        ground: &Digest,
    ) -> rusqlite::Result<&mut Ledger> {
        use std::collections::hash_map::Entry;
        match self.ledgers.entry((task.clone(), ground.clone())) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let body: Option<Vec<u8>> = db
                    .prepare_cached("SELECT body FROM ledgers WHERE task = ? AND ground = ?")?
                    .query_row([task.as_str(), ground.as_str()], |row| row.get(0))
                    .optional()?;
                // Of another version: what it counted can't be read any more, and is counted anew.
                Ok(place.insert(body.and_then(|body| decode(&body)).unwrap_or_default()))
            }
        }
    }

    /// Writes what changed, as the last step of the transaction.
    pub(super) fn write(&self, db: &Transaction<'_>) -> rusqlite::Result<()> {
        for ((task, ground), ledger) in &self.ledgers {
            let now = to_ms(SystemTime::now());
            db.prepare_cached("INSERT OR REPLACE INTO ledgers VALUES (?, ?, ?, ?, ?)")?.execute(
                params![task.as_str(), ground.as_str(), now, ledger.flaky_rate(), encode(ledger)],
            )?;
        }
        Ok(())
    }

    /// Tells those who judge, once the transaction is done.
    pub(super) fn publish(self, standings: &Standings) {
        for ((task, ground), ledger) in &self.ledgers {
            standings.know(task, ground, ledger.flaky_rate());
        }
        for (task, event) in self.events {
            standings.note(&task, event);
        }
    }
}

fn note(
    db: &Transaction<'_>,
    task: &TaskId,
    name: TestName,
    added: bool,
    why: Why,
) -> rusqlite::Result<QuarantineEvent> {
    let now = to_ms(SystemTime::now());
    let text = serde_json::to_string(&why)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    db.prepare_cached(
        "INSERT INTO quarantine (task, check_id, test, added, at_ms, why) VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![task.as_str(), name.check, name.test, added, now, text])?;
    Ok(QuarantineEvent { name, added, at: from_ms(now), why })
}

/// Reads what those who judge have to know.
pub(super) fn standings(db: &Connection) -> rusqlite::Result<Standings> {
    let standings = Standings::default();
    let mut rates = db.prepare("SELECT task, ground, rate FROM ledgers WHERE rate IS NOT NULL")?;
    let mut rows = rates.query([])?;
    while let Some(row) = rows.next()? {
        let (task, ground): (String, String) = (row.get(0)?, row.get(1)?);
        if let (Ok(task), Ok(ground)) = (task.parse(), ground.parse()) {
            standings.know(&task, &ground, row.get(2)?);
        }
    }
    trails(db, None, |task, event| standings.note(&task, event))?;
    Ok(standings)
}

/// Reads audit trails, oldest first, of one task or of all.
fn trails(
    db: &Connection,
    task: Option<&TaskId>,
    mut visit: impl FnMut(TaskId, QuarantineEvent),
) -> rusqlite::Result<()> {
    each(db, &TRAILS, task, |row| {
        let (task, why): (String, String) = (row.get(0)?, row.get(5)?);
        let name = TestName { check: row.get(1)?, test: row.get(2)? };
        let (added, at) = (row.get(3)?, from_ms(row.get(4)?));
        if let (Ok(task), Ok(why)) = (task.parse(), serde_json::from_str(&why)) {
            visit(task, QuarantineEvent { name, added, at, why });
        }
        Ok(())
    })
}

/// A question about every task, and the same about one: with `?1 IS NULL OR task = ?1` all would be
/// read for either.
pub(super) struct Question {
    pub(super) of_all: &'static str,
    pub(super) of_one: &'static str,
}

macro_rules! question {
    ($select:literal, $order:literal) => {
        Question {
            of_all: concat!($select, " ", $order),
            of_one: concat!($select, " WHERE task = ? ", $order),
        }
    };
}

pub(super) const TRAILS: Question =
    question!("SELECT task, check_id, test, added, at_ms, why FROM quarantine", "ORDER BY id");
pub(super) const TALLIES: Question =
    question!("SELECT task, version, outcome, answers, runs, solved FROM tallies", "");
pub(super) const LEDGERS: Question =
    question!("SELECT task, ground, body FROM ledgers", "ORDER BY updated_ms");

fn each(
    db: &Connection,
    question: &Question,
    task: Option<&TaskId>,
    mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let sql = if task.is_some() { question.of_one } else { question.of_all };
    let mut found = db.prepare_cached(sql)?;
    let mut rows = found.query(params_from_iter(task.map(TaskId::as_str)))?;
    while let Some(row) = rows.next()? {
        visit(row)?;
    }
    Ok(())
}

/// Forgets submissions that did not run for so long, and counts the answers of policy versions that
/// were quiet for so long together.
pub(super) fn purge(db: &Transaction<'_>, before_ms: i64) -> rusqlite::Result<()> {
    let [witnesses, together, tallies] = PURGE;
    db.prepare_cached(witnesses)?.execute([before_ms])?;
    db.prepare_cached(together)?.execute([before_ms, OLDER])?;
    db.prepare_cached(tallies)?.execute([before_ms, OLDER])?;
    Ok(())
}

pub(super) const PURGE: [&str; 3] = [
    "DELETE FROM witnesses WHERE stored_ms < ?",
    "INSERT INTO tallies
     SELECT task, ?2, outcome, sum(answers), sum(runs), sum(solved), max(last_ms)
     FROM tallies INDEXED BY tallies_by_age
     WHERE last_ms < ?1 AND version != ?2 GROUP BY task, outcome
     ON CONFLICT DO UPDATE SET answers = answers + excluded.answers,
        runs = runs + excluded.runs, solved = solved + excluded.solved,
        last_ms = max(last_ms, excluded.last_ms)",
    "DELETE FROM tallies WHERE last_ms < ?1 AND version != ?2",
];

/// Answers of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub answers: u64,
    /// Those that were run: not answered from the cache, nor before there was anything to run.
    pub runs: u64,
    /// Those that solve the task.
    pub solved: u64,
}

/// What is known of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskStats {
    /// Which.
    pub task: TaskId,
    /// By outcome, as records name them: `SCORED`, ...
    pub outcomes: BTreeMap<String, Tally>,
    /// By policy version; `None` for those whose version nobody told, and for old ones together.
    pub versions: BTreeMap<Option<u64>, Tally>,
    /// On the ground where it ran last.
    pub ledger: Ledger,
    /// Its tests that don't have to be kept there.
    pub quarantined: Vec<TestName>,
    /// What was put into quarantine and let out, oldest first.
    pub trail: Vec<QuarantineEvent>,
}

/// Reads what is known of one task, or of all.
pub(super) fn stats(db: &Connection, task: Option<&TaskId>) -> rusqlite::Result<Vec<TaskStats>> {
    let mut found: BTreeMap<TaskId, TaskStats> = BTreeMap::new();
    each(db, &TALLIES, task, |row| {
        let Some(stats) = entry(&mut found, row.get_ref(0)?.as_str()?) else { return Ok(()) };
        let number = |column| row.get(column).map(i64::unsigned_abs);
        let more = Tally { answers: number(3)?, runs: number(4)?, solved: number(5)? };
        let version = u64::try_from(row.get::<_, i64>(1)?).ok().filter(|version| *version > 0);
        add(stats.outcomes.entry(row.get(2)?).or_default(), more);
        add(stats.versions.entry(version).or_default(), more);
        Ok(())
    })?;
    let mut latest: HashMap<TaskId, Digest> = HashMap::new();
    each(db, &LEDGERS, task, |row| {
        let Some(stats) = entry(&mut found, row.get_ref(0)?.as_str()?) else { return Ok(()) };
        if let Some(ledger) = decode(row.get_ref(2)?.as_bytes()?) {
            stats.ledger = ledger;
            let ground = row.get_ref(1)?.as_str()?.parse();
            latest.extend(ground.ok().map(|ground| (stats.task.clone(), ground)));
        }
        Ok(())
    })?;
    trails(db, task, |task, event| {
        found.entry(task.clone()).or_insert_with(|| TaskStats::of(task)).trail.push(event);
    })?;
    for stats in found.values_mut() {
        let now = crate::ledger::current(&stats.trail, latest.get(&stats.task));
        stats.quarantined = now.into_iter().cloned().collect();
    }
    Ok(found.into_values().collect())
}

fn entry<'f>(found: &'f mut BTreeMap<TaskId, TaskStats>, task: &str) -> Option<&'f mut TaskStats> {
    let task: TaskId = task.parse().ok()?;
    Some(found.entry(task.clone()).or_insert_with(|| TaskStats::of(task)))
}

impl TaskStats {
    fn of(task: TaskId) -> Self {
        Self {
            task,
            outcomes: BTreeMap::new(),
            versions: BTreeMap::new(),
            ledger: Ledger::default(),
            quarantined: Vec::new(),
            trail: Vec::new(),
        }
    }
}

fn add(tally: &mut Tally, more: Tally) {
    tally.answers += more.answers;
    tally.runs += more.runs;
    tally.solved += more.solved;
}

/// What bodies begin with: the version of their format.
const FORMAT: u8 = 1;

fn encode(body: &impl Serialize) -> Vec<u8> {
    // Nothing here has a failing Serialize, and memory for a few bytes per test is there.
    postcard::to_extend(body, vec![FORMAT]).unwrap_or_default()
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    postcard::from_bytes(body.strip_prefix(&[FORMAT])?).ok()
}
