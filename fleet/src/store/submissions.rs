//! Submissions as they were handed in, by their content, for as long as there is room.

use std::time::SystemTime;

use assay_repos::{Digest, Submission};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::rows::{decode_submission, to_ms};
use crate::{RequestId, Stop};

/// Most bytes of one that is kept.
const MAX_BYTES: i64 = 16 << 20;
/// Most bytes of all together; the oldest go first.
const MAX_TOTAL: i64 = 2 << 30;
/// Most rows that one purge deletes.
const PURGE: i64 = 1000;

/// `submissions` are contents, `handed_in` says which of them a grade came from.
pub(super) const SCHEMA: &str = "
CREATE TABLE submissions (
    digest      TEXT PRIMARY KEY,
    bytes       INTEGER NOT NULL,
    stored_ms   INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    payload     BLOB NOT NULL
) STRICT;
CREATE INDEX submissions_by_age ON submissions (stored_ms, bytes);
CREATE TABLE handed_in (
    grade       TEXT PRIMARY KEY,
    submission  TEXT NOT NULL,
    stop        TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX handed_in_by_submission ON handed_in (submission);
";

/// A submission as it was handed in.
#[derive(Clone, Debug, PartialEq)]
pub struct HandedIn {
    /// Itself.
    pub submission: Submission,
    /// When its evaluation was to stop.
    pub stop: Stop,
}

/// Keeps the submission of a request for its grade.
pub(super) fn keep(
    db: &Transaction<'_>,
    request: &RequestId,
    grade: &Digest,
    submission: &Digest,
    stop: Stop,
) -> rusqlite::Result<()> {
    let mut kept = db
        .prepare_cached("SELECT 1 FROM submissions WHERE digest = ?")?
        .exists([submission.as_str()])?;
    if !kept {
        let now = to_ms(SystemTime::now());
        kept = db
            .prepare_cached(
                "INSERT INTO submissions
                 SELECT ?1, length(payload), ?2, kind, payload FROM requests
                 WHERE request_id = ?3 AND length(payload) <= ?4",
            )?
            .execute(params![submission.as_str(), now, request.as_str(), MAX_BYTES])?
            > 0;
    }
    // A row without its submission would say nothing, and never go.
    if !kept {
        return Ok(());
    }
    let stop = match stop {
        Stop::All => "all",
        Stop::Decisive => "decisive",
    };
    db.prepare_cached("INSERT OR IGNORE INTO handed_in VALUES (?, ?, ?)")?.execute([
        grade.as_str(),
        submission.as_str(),
        stop,
    ])?;
    Ok(())
}

/// Deletes the oldest submissions beyond `most` bytes; returns whether there are more to delete.
pub(super) fn purge(db: &Transaction<'_>, most: Option<i64>) -> rusqlite::Result<bool> {
    let total: i64 =
        db.prepare_cached("SELECT bytes FROM submission_total")?.query_row([], |row| row.get(0))?;
    let mut over = total - most.unwrap_or(MAX_TOTAL);
    if over <= 0 {
        return Ok(false);
    }
    let mut oldest = Vec::new();
    let mut rows = db.prepare_cached(OLDEST)?;
    let mut rows = rows.query([PURGE])?;
    while over > 0
        && let Some(row) = rows.next()?
    {
        oldest.push(row.get::<_, String>(0)?);
        over -= row.get::<_, i64>(1)?;
    }
    for digest in &oldest {
        for sql in PURGE_ONE {
            db.prepare_cached(sql)?.execute([digest])?;
        }
    }
    Ok(over > 0)
}

pub(super) const OLDEST: &str = "SELECT digest, bytes FROM submissions ORDER BY stored_ms LIMIT ?";
pub(super) const PURGE_ONE: [&str; 2] =
    ["DELETE FROM submissions WHERE digest = ?", "DELETE FROM handed_in WHERE submission = ?"];

/// Returns the submission that a grade came from, if it is kept.
pub(super) fn find(db: &Connection, grade: &str) -> rusqlite::Result<Option<HandedIn>> {
    let found = db
        .prepare_cached(
            "SELECT kind, payload, stop FROM handed_in
             JOIN submissions ON submissions.digest = handed_in.submission WHERE grade = ?",
        )?
        .query_row([grade], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, String>(2)?))
        })
        .optional()?;
    Ok(found.and_then(|(kind, payload, stop)| {
        let stop = match stop.as_str() {
            "all" => Stop::All,
            "decisive" => Stop::Decisive,
            _ => return None,
        };
        Some(HandedIn { submission: decode_submission(&kind, payload)?, stop })
    }))
}

#[cfg(test)]
mod tests {
    use super::{super::schema, *};

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let schema::Database { writer: mut db, .. } = schema::open(dir.path()).unwrap();
        let add = |name: &str, bytes: i64, stored_ms: i64| {
            let payload = vec![b'x'; usize::try_from(bytes).unwrap()];
            let row = params![name, bytes, stored_ms, "source", payload];
            db.execute("INSERT INTO submissions VALUES (?, ?, ?, ?, ?)", row).unwrap();
            db.execute("INSERT INTO handed_in VALUES (?, ?, 'all')", [name, name]).unwrap();
        };
        for (name, bytes, at) in [("old", 40, 1), ("older", 30, 0), ("new", 50, 2)] {
            add(name, bytes, at);
        }
        let mut left = |most| {
            let transaction = db.transaction().unwrap();
            assert!(!purge(&transaction, Some(most)).unwrap());
            transaction.commit().unwrap();
            ["older", "old", "new"].map(|name| find(&db, name).unwrap().is_some())
        };
        assert_eq!(left(120), [true, true, true]);
        assert_eq!(left(119), [false, true, true]);
        assert_eq!(left(50), [false, false, true]);
        assert_eq!(left(0), [false, false, false]);
    }

    #[test]
    fn of_one_that_is_too_large_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let schema::Database { writer: mut db, .. } = schema::open(dir.path()).unwrap();
        let sizes = [("fits", MAX_BYTES), ("large", MAX_BYTES + 1)];
        for (name, bytes) in sizes {
            db.execute(
                "INSERT INTO requests (request_id, body, accepted_ms, meta, kind, payload)
                 VALUES (?, '', 0, '', 'source', zeroblob(?))",
                params![name, bytes],
            )
            .unwrap();
            let transaction = db.transaction().unwrap();
            let digest = Digest::of(name);
            keep(&transaction, &name.parse().unwrap(), &digest, &digest, Stop::All).unwrap();
            transaction.commit().unwrap();
        }
        let count = |table: &str| -> i64 {
            db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        };
        assert_eq!((count("submissions"), count("handed_in")), (1, 1));
        assert!(find(&db, Digest::of("fits").as_str()).unwrap().is_some());
    }
}
