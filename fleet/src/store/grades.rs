//! The grade records of a data directory, for who wants to read many of them.

use std::{path::Path, time::SystemTime};

use assay_repos::{Digest, TaskId};
use assay_rewards::GradeRecord;
use rusqlite::{Connection, Params, Row, params};

use super::{HandedIn, OpenError, TaskStats, database, ledger, rows::to_ms, schema, submissions};
use crate::StoreError;

/// Rows that one look at the database reads at most: milliseconds of work, between which whoever
/// asked can stop it.
const PAGE: usize = 1000;
/// The same where each may be long, and be shown to a plugin.
const WHOLE_PAGE: usize = 20;

/// The grade records in a data directory. A service may use it meanwhile.
#[derive(Debug)]
pub struct Grades(Connection);

/// Which grades are meant. What it doesn't say doesn't matter.
#[derive(Clone, Debug, Default)]
pub struct GradeFilter {
    /// Those that answered an evaluation of this run.
    pub run_id: Option<String>,
    /// Those of this task.
    pub task: Option<TaskId>,
    /// Those that answered an evaluation at this time or later: of `run_id`, where one is named,
    /// and for the first time.
    pub since: Option<SystemTime>,
    /// And before this one.
    pub until: Option<SystemTime>,
    /// These, as far as they are stored; empty for all.
    pub ids: Vec<Digest>,
}

/// The one grade that an abbreviated id means.
#[derive(Clone, Debug, PartialEq)]
pub enum Picked {
    /// No id starts so.
    None,
    /// This one.
    One(Box<(Digest, GradeRecord)>),
    /// Several ids start so.
    Several,
}

impl Grades {
    /// Opens a data directory to read it.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when there is no database in it, or not one of this version.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        schema::read(data_dir).map(Self)
    }

    /// Calls `visit` with each record: its id, and its canonical JSON. In the order of their ids;
    /// equal records are stored once.
    ///
    /// # Errors
    ///
    /// The first one of `visit`, or [`StoreError`] when the database can't be read.
    pub fn each<E: From<StoreError>>(
        &self,
        mut visit: impl FnMut(&str, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |source| database("read the grades", source);
        let sql = "SELECT id, body FROM grades ORDER BY id";
        let mut all = self.0.prepare(sql).map_err(failed)?;
        let mut rows = all.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let (id, body) = columns(row).map_err(failed)?;
            visit(id, body)?;
        }
        Ok(())
    }

    /// Returns the grade whose id is `id`, or starts with it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it can't be read.
    pub fn pick(&self, id: &str) -> Result<Picked, StoreError> {
        let failed = |source| database("read a grade", source);
        // Ids are hexadecimal, so what starts so sorts before the start with a `g`.
        let sql =
            "SELECT id, body FROM grades WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id LIMIT 2";
        let mut found = self.0.prepare_cached(sql).map_err(failed)?;
        let mut rows = found.query([id]).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else { return Ok(Picked::None) };
        let (name, body) = columns(row).map_err(failed)?;
        let damaged = || StoreError::Damaged { what: format!("grade record {name}") };
        let name: Digest = name.parse().map_err(|_| damaged())?;
        let record = GradeRecord::from_json(body).map_err(|_| damaged())?;
        let one = Picked::One(Box::new((name, record)));
        Ok(if rows.next().map_err(failed)?.is_some() { Picked::Several } else { one })
    }

    /// Returns those of `ids` that are not stored.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the database can't be read.
    pub fn missing<'i>(&self, ids: &'i [Digest]) -> Result<Vec<&'i Digest>, StoreError> {
        let failed = |source| database("look for grades", source);
        let mut found =
            self.0.prepare_cached("SELECT 1 FROM grades WHERE id = ?").map_err(failed)?;
        let mut missing = Vec::new();
        for id in ids {
            if !found.exists([id.as_str()]).map_err(failed)? {
                missing.push(id);
            }
        }
        Ok(missing)
    }

    /// Returns what is known of one task, or of every one that was ever answered.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the database can't be read.
    pub fn task_stats(&self, task: Option<&TaskId>) -> Result<Vec<TaskStats>, StoreError> {
        let failed = |source| database("read the ledger", source);
        // Earlier versions counted nothing.
        if !self.0.table_exists(None, "ledgers").map_err(failed)? {
            return Ok(Vec::new());
        }
        ledger::stats(&self.0, task).map_err(failed)
    }

    /// Returns the submission that a grade came from; `None` where it is not kept (any more).
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the database can't be read.
    pub fn handed_in(&self, grade: &Digest) -> Result<Option<HandedIn>, StoreError> {
        // Earlier versions kept none.
        let kept = self.0.table_exists(None, "handed_in");
        let failed = |source| database("read a submission", source);
        if !kept.map_err(failed)? {
            return Ok(None);
        }
        submissions::find(&self.0, grade.as_str()).map_err(failed)
    }

    /// Starts to read the grades of `filter`, a page at a time. `whole`: with their tests one by
    /// one, which takes longer.
    #[must_use]
    pub fn scan(self, mut filter: GradeFilter, whole: bool) -> GradeScan {
        filter.ids.sort();
        filter.ids.dedup();
        GradeScan { grades: self, filter, whole, after: String::new(), over: false }
    }
}

/// Grades read a page at a time, in the order of their ids. Between two pages nothing is held but
/// a connection, however long that takes.
#[derive(Debug)]
pub struct GradeScan {
    grades: Grades,
    filter: GradeFilter,
    /// Whether their tests are read one by one.
    whole: bool,
    /// The id of the last one that was read.
    after: String,
    over: bool,
}

impl GradeScan {
    /// Whether there is nothing more to read.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Calls `visit` with the next grades, a thousand at most: each with its id, or `None` for a
    /// record that this version can't read.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the database can't be read.
    pub fn next_page(
        &mut self,
        mut visit: impl FnMut(&str, Option<GradeRecord>),
    ) -> Result<(), StoreError> {
        let Self { grades: Grades(db), filter, whole, after, over } = self;
        let (parse, most): (fn(&[u8]) -> _, _) = match *whole {
            true => (GradeRecord::from_json, WHOLE_PAGE),
            false => (GradeRecord::skim_json, PAGE),
        };
        let mut read = 0;
        let mut last = String::new();
        let mut one = |row: &Row<'_>| -> rusqlite::Result<()> {
            let (id, body) = columns(row)?;
            read += 1;
            id.clone_into(&mut last);
            let record = parse(body).ok();
            let task =
                |record: &GradeRecord| filter.task.as_ref().is_none_or(|task| *task == record.task);
            if record.as_ref().is_none_or(task) {
                visit(id, record);
            }
            Ok(())
        };
        let since = filter.since.map_or(i64::MIN, to_ms);
        let until = filter.until.map_or(i64::MAX, to_ms);
        let timed = filter.since.is_some() || filter.until.is_some();
        let page = most as i64;
        let done = if !filter.ids.is_empty() {
            let from = filter.ids.partition_point(|id| id.as_str() <= after.as_str());
            let ids = &filter.ids[from..];
            *over = ids.len() <= most;
            let ids = &ids[..ids.len().min(most)];
            let all = ids.iter().try_for_each(|id| {
                let run = filter.run_id.as_deref();
                rows(db, OF_IDS, params![id.as_str(), run, timed, since, until], &mut one)
            });
            if let Some(id) = ids.last() {
                id.as_str().clone_into(after);
            }
            return all.map_err(|source| database("read the grades", source));
        } else if let Some(run) = &filter.run_id {
            rows(db, OF_RUN, params![run, &*after, since, until, page], &mut one)
        } else if let Some(task) = &filter.task {
            let task = task.as_str();
            rows(db, OF_TASK, params![task, &*after, timed, since, until, page], &mut one)
        } else if timed {
            rows(db, OF_TIME, params![&*after, since, until, page], &mut one)
        } else {
            rows(db, OF_ALL, params![&*after, page], &mut one)
        };
        done.map_err(|source| database("read the grades", source))?;
        *over = read < most;
        *after = last;
        Ok(())
    }
}

pub(super) const OF_IDS: &str = "SELECT id, body FROM grades WHERE id = ?1
    AND (?2 IS NULL AND NOT ?3 OR EXISTS (SELECT 1 FROM graded
        WHERE grade = ?1 AND (?2 IS NULL OR run_id = ?2)
        AND finished_ms >= ?4 AND finished_ms < ?5))";
pub(super) const OF_RUN: &str = "SELECT id, body FROM graded CROSS JOIN grades ON id = grade
    WHERE run_id = ? AND grade > ? AND finished_ms >= ? AND finished_ms < ?
    ORDER BY grade LIMIT ?";
pub(super) const OF_TASK: &str = "SELECT id, body FROM task_grades CROSS JOIN grades ON id = grade
    WHERE task = ?1 AND grade > ?2 AND (NOT ?3 OR EXISTS (SELECT 1 FROM graded
        WHERE grade = id AND finished_ms >= ?4 AND finished_ms < ?5))
    ORDER BY grade LIMIT ?6";
/// Reads the short rows of every grade there is, and no more of those that are not meant: pages go by
/// their ids.
const OF_TIME: &str = "SELECT id, body FROM
    (SELECT DISTINCT grade FROM graded WHERE grade > ? AND finished_ms >= ?
        AND finished_ms < ? ORDER BY grade LIMIT ?)
    CROSS JOIN grades ON id = grade ORDER BY id";
const OF_ALL: &str = "SELECT id, body FROM grades WHERE id > ? ORDER BY id LIMIT ?";

fn rows(
    db: &Connection,
    sql: &str,
    params: impl Params,
    mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        visit(row)?;
    }
    Ok(())
}

fn columns<'r>(row: &'r Row<'_>) -> rusqlite::Result<(&'r str, &'r [u8])> {
    Ok((row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_bytes()?))
}
