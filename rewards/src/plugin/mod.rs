//! Plugins of reward files: facts that a researcher's own code makes of a grade.
//!
//! What runs such code is not here: a [`PluginLoader`] brings it along, and this crate stays pure.

use std::{fmt, path::Path, sync::Arc};

use assay_repos::Digest;

use crate::{FactValue, GradeRecord};

/// Finds the code of a plugin and makes it ready.
pub trait PluginLoader {
    /// Loads the plugin at `path`, which is below the folder of the reward file as far as its
    /// words say; a link in it may say otherwise.
    ///
    /// # Errors
    ///
    /// Why it can't be used, as a fragment.
    fn load(&self, path: &Path, limits: PluginLimits) -> Result<Arc<dyn Plugin>, String>;
}

/// Code that makes a number of a grade: the same number of the same grade, always.
pub trait Plugin: fmt::Debug + Send + Sync {
    /// Returns the digest of its code.
    fn digest(&self) -> &Digest;

    /// Returns its number, whatever that is.
    ///
    /// # Errors
    ///
    /// [`PluginError`]; there is no number.
    fn evaluate(&self, grade: &PluginGrade<'_>) -> Result<f64, PluginError>;
}

/// What a plugin may use for one grade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// WebAssembly instructions, more or less.
    pub fuel: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// What a plugin gets to see.
#[derive(Clone, Debug)]
pub struct PluginGrade<'a> {
    /// The record, with its tests one by one.
    pub record: &'a GradeRecord,
    /// The facts that it has, by name.
    pub facts: Vec<(String, FactValue)>,
}

/// Why a plugin has no number for a grade.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// It says so itself, or went wrong: the same for this grade everywhere.
    #[error("{0}")]
    Failed(String),
    /// The machine could not run it.
    #[error("could not be run: {0}")]
    Host(String),
}

/// A plugin as a reward file names it.
#[derive(Clone, Debug)]
pub(crate) struct NamedPlugin {
    pub(crate) name: Box<str>,
    pub(crate) on_error: OnError,
    pub(crate) limits: PluginLimits,
    pub(crate) plugin: Arc<dyn Plugin>,
}

impl PartialEq for NamedPlugin {
    fn eq(&self, other: &Self) -> bool {
        let parts =
            |it: &Self| (it.name.clone(), it.on_error, it.limits, it.plugin.digest().clone());
        parts(self) == parts(other)
    }
}

/// What a plugin without a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnError {
    /// Whatever asks for it has no value: not even `known` knows.
    Mask,
    /// The record lacks the fact.
    Absent,
}

impl OnError {
    pub(crate) const ALL: &[(&str, Self)] = &[("mask", Self::Mask), ("absent", Self::Absent)];

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, on_error)| *on_error == self).map_or("", |(name, _)| name)
    }
}

/// Why a fact of a plugin is lacking.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lack {
    pub(crate) why: String,
    /// Whether `known` may say so.
    pub(crate) known: bool,
}

impl NamedPlugin {
    /// Greatest magnitude of a plugin's number.
    pub(crate) const MOST: f64 = 1e12;

    /// Asks for the number of a grade.
    pub(crate) fn ask(&self, grade: &PluginGrade<'_>) -> Result<f64, Lack> {
        // Records are often read without their tests: another grade, and another number.
        let whole = |tests: usize, counted: u32| usize::try_from(counted) == Ok(tests);
        let mut checks = grade.record.checks.iter().filter(|check| check.ran);
        let answer = if checks.all(|check| whole(check.tests.len(), check.counts.total())) {
            self.plugin.evaluate(grade)
        } else {
            Err(PluginError::Host("the record was read without its tests".into()))
        };
        let answer = answer.and_then(|number| {
            if number.abs() <= Self::MOST {
                return Ok(number + 0.0);
            }
            let range = format!("not a number from -{0:e} to {0:e}", Self::MOST);
            Err(PluginError::Failed(format!("returned {number}, {range}")))
        });
        answer.map_err(|error| {
            let known =
                matches!((&error, self.on_error), (PluginError::Failed(_), OnError::Absent));
            Lack { why: error.to_string(), known }
        })
    }
}

/// For reward files that come without a folder.
#[derive(Debug)]
pub(crate) struct NoFolder;

impl PluginLoader for NoFolder {
    fn load(&self, _: &Path, _: PluginLimits) -> Result<Arc<dyn Plugin>, String> {
        Err("plugins lie beside a reward file, and this one was given as text alone; give the \
             service its file: `assay serve --reward FILE`"
            .into())
    }
}

#[cfg(test)]
mod tests;
