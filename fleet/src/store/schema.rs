//! The database file: opened, locked and brought to this version.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::{ledger, submissions};

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another service uses it.
    #[error("{} is in use by another service; give each its own data directory", .0.display())]
    InUse(PathBuf),
    /// A file of it can't be made or opened.
    #[error("cannot open {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite can't use the database.
    #[error("cannot use the database {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A newer version wrote it.
    #[error("{} has version {found}, this service knows {known}; use a newer service", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
}

/// What makes a database of each version from the one before; the first from nothing.
const STEPS: &[&str] = &[JOURNAL, SPECS, ledger::SCHEMA, submissions::SCHEMA, INDEXES];
const VERSION: i64 = STEPS.len() as i64;

/// `requests` is the journal, `pending` names its entries without a result: small rows, so that
/// an answer doesn't rewrite a submission. `runs` counts results, so that a cursor stays good
/// when old results are deleted.
const JOURNAL: &str = "
CREATE TABLE requests (
    id          INTEGER PRIMARY KEY,
    request_id  TEXT NOT NULL UNIQUE,
    body        TEXT NOT NULL,
    accepted_ms INTEGER NOT NULL,
    meta        TEXT NOT NULL,
    kind        TEXT NOT NULL,
    payload     BLOB NOT NULL
) STRICT;
CREATE TABLE pending (id INTEGER PRIMARY KEY) STRICT;
CREATE TABLE results (
    request_id  TEXT PRIMARY KEY,
    run_id      TEXT NOT NULL,
    sequence    INTEGER NOT NULL,
    finished_ms INTEGER NOT NULL,
    body        TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX results_by_run ON results (run_id, sequence);
CREATE INDEX results_by_age ON results (finished_ms);
CREATE TABLE runs (
    run_id      TEXT PRIMARY KEY,
    sequence    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE grades (
    id          TEXT PRIMARY KEY,
    body        BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE cache (
    key         TEXT PRIMARY KEY,
    grade       TEXT NOT NULL,
    stored_ms   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_by_age ON cache (stored_ms);
";

/// `specs` are reward files in their versions, `spec_puts` who put them. `graded` says which runs
/// have a grade, and since when; it outlives the results.
const SPECS: &str = "
CREATE TABLE specs (
    name        TEXT NOT NULL,
    version     INTEGER NOT NULL,
    digest      TEXT NOT NULL UNIQUE,
    text        TEXT NOT NULL,
    put_ms      INTEGER NOT NULL,
    PRIMARY KEY (name, version)
) STRICT;
CREATE TABLE spec_puts (
    request_id  TEXT PRIMARY KEY,
    digest      TEXT NOT NULL,
    put_ms      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE graded (
    grade       TEXT NOT NULL,
    run_id      TEXT NOT NULL,
    finished_ms INTEGER NOT NULL,
    PRIMARY KEY (grade, run_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX graded_by_run ON graded (run_id, grade);
INSERT OR IGNORE INTO graded
    SELECT json_extract(body, '$.grade_id'), run_id, finished_ms FROM results
    WHERE json_extract(body, '$.grade_id') IS NOT NULL ORDER BY finished_ms;
";

/// What is asked for by task or by age is found there. `task_grades` is what an index on the task in
/// the records would be, without parsing each that is written; `submission_total` is the sum of all
/// sizes. And of submissions that were too large to be kept, nothing is left.
const INDEXES: &str = "
CREATE TABLE task_grades (
    task        TEXT NOT NULL,
    grade       TEXT NOT NULL,
    PRIMARY KEY (task, grade)
) STRICT, WITHOUT ROWID;
INSERT INTO task_grades
    SELECT json_extract(CAST(body AS TEXT), '$.task'), id FROM grades
    WHERE json_valid(CAST(body AS TEXT))
    AND json_type(CAST(body AS TEXT), '$.task') = 'text';
CREATE TABLE submission_total (bytes INTEGER NOT NULL) STRICT;
INSERT INTO submission_total SELECT coalesce(sum(bytes), 0) FROM submissions;
CREATE TRIGGER submission_came AFTER INSERT ON submissions BEGIN
    UPDATE submission_total SET bytes = bytes + new.bytes;
END;
CREATE TRIGGER submission_went AFTER DELETE ON submissions BEGIN
    UPDATE submission_total SET bytes = bytes - old.bytes;
END;
CREATE INDEX quarantine_by_task ON quarantine (task);
CREATE INDEX tallies_by_age ON tallies (last_ms);
CREATE INDEX spec_puts_by_age ON spec_puts (put_ms);
DELETE FROM handed_in WHERE submission NOT IN (SELECT digest FROM submissions);
";

/// The connections to one database. Holding it keeps other services out.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) writer: Connection,
    /// For what is found at once.
    pub(crate) lookups: Connection,
    /// For what may take a while.
    pub(crate) scans: Connection,
    pub(crate) lock: File,
}

/// Opens `assay.db` in `data_dir`; makes both where they are not there.
pub(crate) fn open(data_dir: &Path) -> Result<Database, OpenError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    std::fs::create_dir_all(data_dir).map_err(io(data_dir))?;
    let lock_path = data_dir.join("assay.lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(io(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(source)) => {
            return Err(OpenError::Io { path: lock_path, source });
        }
    }

    let path = data_dir.join("assay.db");
    let database = |source| OpenError::Database { path: path.clone(), source };
    let mut writer = Connection::open(&path).map_err(database)?;
    configure(&writer).map_err(database)?;
    let found: i64 =
        writer.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(database)?;
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    let Some(steps) = STEPS.get(done..) else {
        return Err(OpenError::Newer { path, found, known: VERSION });
    };
    if !steps.is_empty() {
        migrate(&mut writer, steps).map_err(database)?;
    }
    let [lookups, scans] = [reader(&path), reader(&path)];
    Ok(Database {
        writer,
        lookups: lookups.map_err(&database)?,
        scans: scans.map_err(&database)?,
        lock,
    })
}

/// Opens the database of `data_dir` to read it, also while a service uses it.
pub(crate) fn read(data_dir: &Path) -> Result<Connection, OpenError> {
    let path = data_dir.join("assay.db");
    if let Err(source) = std::fs::metadata(&path) {
        return Err(OpenError::Io { path, source });
    }
    let version = |path: &Path| {
        let reader = reader(path)?;
        let found: i64 = reader.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok((reader, found))
    };
    match version(&path) {
        // What is read beside a service has been there since the first version, or is looked for.
        Ok((reader, 1..=VERSION)) => Ok(reader),
        Ok((_, found)) => Err(OpenError::Newer { path, found, known: VERSION }),
        Err(source) => Err(OpenError::Database { path, source }),
    }
}

fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reader = Connection::open_with_flags(path, flags)?;
    reader.busy_timeout(Duration::from_secs(5))?;
    Ok(reader)
}

/// In WAL mode with `synchronous = NORMAL` a commit is a write to the page cache: it survives the
/// end of this process at any moment, which is what we promise. A power failure may take the last
/// commits with it, never the database; FULL would cost an fsync per group, 0.7 ms and more.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // In pages, so 64 MiB: a checkpoint syncs, for some 20 ms, while commits wait.
    connection.pragma_update(None, "wal_autocheckpoint", 16_384)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_user_and_one_version() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("new/data");
        let first = open(&data).unwrap();
        assert!(matches!(open(&data), Err(OpenError::InUse(_))), "two services got in");
        first.writer.pragma_update(None, "user_version", 99).unwrap();
        drop(first);
        let newer = open(&data).unwrap_err();
        assert!(newer.to_string().contains("version 99"), "{newer}");
    }

    /// What the writer does between two commits, and what is asked of one task, reads what it is
    /// about and no more.
    #[test]
    fn nothing_reads_a_whole_table() {
        use super::super::{grades, ledger, writer};

        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path()).unwrap().writer;
        let of_one = [&ledger::TRAILS, &ledger::TALLIES, &ledger::LEDGERS];
        let all = of_one
            .into_iter()
            .map(|question| question.of_one)
            .chain(ledger::PURGE)
            .chain([writer::OLD_RESULTS])
            .chain(writer::PURGE_REQUEST)
            .chain(writer::PURGE_OLD)
            .chain(submissions::PURGE_ONE)
            .chain([grades::OF_IDS, grades::OF_RUN, grades::OF_TASK]);
        for sql in all {
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            for column in 1..=plan.parameter_count() {
                plan.raw_bind_parameter(column, 0).unwrap();
            }
            let (mut steps, mut rows) = (Vec::new(), plan.raw_query());
            while let Some(row) = rows.next().unwrap() {
                steps.push(row.get::<_, String>(3).unwrap());
            }
            assert!(steps.iter().any(|step| step.starts_with("SEARCH")), "{sql}: {steps:?}");
            assert!(steps.iter().all(|step| !step.starts_with("SCAN")), "{sql}: {steps:?}");
        }
    }

    #[test]
    fn a_state_without_these_indexes_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let before = open(dir.path()).unwrap();
        let undo = "DROP INDEX quarantine_by_task; DROP INDEX tallies_by_age;
            DROP INDEX spec_puts_by_age; DROP TABLE task_grades; DROP TABLE submission_total;
            DROP TRIGGER submission_came; DROP TRIGGER submission_went; PRAGMA user_version = 4;
            INSERT INTO grades VALUES ('g1', CAST('{\"task\":\"t.1\"}' AS BLOB)),
                ('g2', x'00ff'), ('g3', CAST('{\"task\":7}' AS BLOB));
            INSERT INTO submissions VALUES ('kept', 7, 0, 'source', x'00');
            INSERT INTO handed_in VALUES ('a', 'kept', 'all'), ('b', 'too large', 'all')";
        before.writer.execute_batch(undo).unwrap();
        drop(before);
        let db = open(dir.path()).unwrap().writer;
        let all = |sql: &str| -> Vec<String> {
            let mut found = db.prepare(sql).unwrap();
            let rows = found.query_map([], |row| row.get(0)).unwrap();
            rows.collect::<rusqlite::Result<_>>().unwrap()
        };
        assert_eq!(all("SELECT grade FROM handed_in"), ["a"]);
        assert_eq!(all("SELECT task || ' ' || grade FROM task_grades"), ["t.1 g1"]);
        assert_eq!(all("SELECT CAST(bytes AS TEXT) FROM submission_total"), ["7"]);
        assert!(db.execute_batch("DROP INDEX tallies_by_age").is_ok());
    }

    #[test]
    fn a_damaged_database_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("assay.db"), [0xff; 8192]).unwrap();
        assert!(matches!(open(dir.path()), Err(OpenError::Database { .. })));
        let blocked = dir.path().join("file");
        std::fs::write(&blocked, "").unwrap();
        assert!(matches!(open(&blocked.join("data")), Err(OpenError::Io { .. })));
    }
}
