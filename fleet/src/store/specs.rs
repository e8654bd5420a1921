//! Reward files in the database.

use std::{path::Path, sync::Arc, time::SystemTime};

use assay_rewards::RewardSpec;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tracing::{info, warn};

use super::{
    Embedded,
    rows::{from_ms, to_ms},
    writer::Command,
};
use crate::{Put, PutError, RequestId, Rewards, SpecVersion};

/// A reward file on its way into the database.
#[derive(Debug)]
pub(crate) struct PutSpec {
    /// Absent where nobody retries: the text alone says what it is then.
    pub(crate) request_id: Option<RequestId>,
    pub(crate) spec: Arc<RewardSpec>,
}

impl Embedded {
    /// Returns the reward files.
    #[must_use]
    pub fn rewards(&self) -> &Rewards {
        &self.rewards
    }

    /// Stores a reward file: as the newest version of its name, or, where its text is there
    /// already, as the version that it is.
    ///
    /// # Errors
    ///
    /// [`PutError`]; nothing was stored.
    pub async fn put_spec(
        &self,
        request_id: Option<RequestId>,
        spec: RewardSpec,
    ) -> Result<SpecVersion, PutError> {
        if let Some(known) = self.rewards.check(&spec)?
            && (request_id.is_none() || known.put.is_none())
        {
            return Ok(known);
        }
        let put = PutSpec { request_id, spec: Arc::new(spec) };
        self.ask(|reply| Command::PutSpec { put, reply }).await?
    }
}

/// Stores one. `None`: its request id belongs to another text.
pub(crate) fn put(transaction: &Transaction<'_>, put: &PutSpec) -> rusqlite::Result<Option<Put>> {
    let PutSpec { request_id, spec } = put;
    let (name, digest) = (spec.name(), spec.digest().as_str());
    let now = to_ms(SystemTime::now());
    if let Some(id) = request_id {
        transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO spec_puts (request_id, digest, put_ms) VALUES (?, ?, ?)",
            )?
            .execute(params![id.as_str(), digest, now])?;
        let first: String = transaction
            .prepare_cached("SELECT digest FROM spec_puts WHERE request_id = ?")?
            .query_row([id.as_str()], |row| row.get(0))?;
        if first != digest {
            return Ok(None);
        }
    }
    transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO specs (name, version, digest, text, put_ms)
             SELECT ?1, 1 + coalesce(max(version), 0), ?2, ?3, ?4 FROM specs WHERE name = ?1",
        )?
        .execute(params![name, digest, spec.text(), now])?;
    transaction
        .prepare_cached("SELECT version, put_ms FROM specs WHERE digest = ?")?
        .query_row([digest], |row| Ok(Put { version: row.get(0)?, at: from_ms(row.get(1)?) }))
        .optional()
}

/// Whether all that is wrong with a file is that a text has no folder that its plugins could lie in.
fn lacks_plugins_alone(text: &str) -> bool {
    // How a file is written depends on no plugin.
    RewardSpec::format(text, Path::new("text")).is_ok()
}

/// Reads all of them.
pub(crate) fn load(db: &Connection) -> rusqlite::Result<Rewards> {
    let rewards = Rewards::default();
    let mut all = db.prepare("SELECT name, version, text, put_ms FROM specs")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        let (name, version): (String, u32) = (row.get(0)?, row.get(1)?);
        let text: String = row.get(2)?;
        let put = Put { version, at: from_ms(row.get(3)?) };
        match RewardSpec::parse(&text, Path::new(&name)) {
            Ok(spec) => rewards.add(SpecVersion { spec: Arc::new(spec), put: Some(put) }),
            Err(_) if lacks_plugins_alone(&text) => {
                let why = "a stored reward file has plugins: it is there while `--reward` names its \
                           file";
                info!(name, version, "{why}");
            }
            // Another version of Assay took it.
            Err(errors) => {
                let error = errors.first().map(ToString::to_string);
                warn!(
                    name,
                    version,
                    error,
                    "a stored reward file is refused by this version, and left alone"
                );
            }
        }
    }
    Ok(rewards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_waits_for_its_plugins_is_not_refused() {
        let file = "schema = 1\nname = 't'\n[plugin.p]\npath = 'p.wasm'\n[[term]]\nname = 'p'\n\
            value = 'plugin.p'\n";
        assert!(RewardSpec::parse(file, Path::new("t")).is_err());
        assert!(lacks_plugins_alone(file));
        assert!(!lacks_plugins_alone(&file.replace("value = 'plugin.p'", "value = 'plugin.q'")));
    }
}
