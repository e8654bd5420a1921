//! `assay reward`: reward files.

use std::{fmt, fs, path::PathBuf};

use anyhow::Context as _;
use assay_rewards::{RewardError, RewardSpec};
use clap::Subcommand;
use serde::Serialize;

use super::{
    Common,
    output::{Blame as _, CliResult, Exit},
};

/// What `assay reward` does.
#[derive(Debug, Subcommand)]
pub(super) enum Reward {
    /// Check reward files: unknown facts and keys, possible NaN, terms that can't be reached
    Lint {
        /// The files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

impl Reward {
    pub(super) fn run(self, common: &Common) -> CliResult {
        let Self::Lint { files } = self;
        let mut exit = Exit::Done;
        for file in files {
            let shown = file.display().to_string();
            let text =
                fs::read_to_string(&file).with_context(|| format!("read {shown}")).wrong()?;
            let report = match RewardSpec::parse(&text, &file) {
                Ok(spec) => Report {
                    file: shown,
                    ok: true,
                    name: Some(spec.name().to_owned()),
                    digest: Some(spec.digest().to_string()),
                    errors: Vec::new(),
                },
                Err(errors) => {
                    exit = Exit::Wrong;
                    let errors = errors.iter().map(Problem::from).collect();
                    Report { file: shown, ok: false, name: None, digest: None, errors }
                }
            };
            common.output().line(&report)?;
        }
        Ok(exit)
    }
}

/// Puts what is wrong with a reward file into one message.
pub(super) fn explain(errors: &[RewardError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[derive(Serialize)]
struct Report {
    file: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    errors: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    line: u32,
    column: u32,
    message: String,
}

impl From<&RewardError> for Problem {
    fn from(error: &RewardError) -> Self {
        Self { line: error.line, column: error.column, message: error.message.clone() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &self.digest) {
            (Some(name), Some(digest)) => write!(f, "{}: ok, `{name}` {digest}", self.file),
            _ => {
                let count = self.errors.len();
                let plural = if count == 1 { "" } else { "s" };
                write!(f, "{}: {count} error{plural}", self.file)?;
                for Problem { line, column, message } in &self.errors {
                    write!(f, "\n  {line}:{column}: {message}")?;
                }
                Ok(())
            }
        }
    }
}
