//! `assay grade`: what evaluations found.

pub(crate) mod bundle;
mod compare;
mod export;
mod replay;
mod show;

use clap::Subcommand;

use super::{Common, output::CliResult};

/// What `assay grade` does.
#[derive(Debug, Subcommand)]
pub(super) enum Grade {
    /// Show a stored grade: outcome, flags with their evidence, and the tests that decided
    Show(show::Show),
    /// Write a grade into one file with all that it came from, the task's private tests too
    Export(export::Export),
    /// Run what `export` wrote again and compare; ends with status 1 where the two differ
    Replay(replay::Replay),
}

impl Grade {
    pub(super) async fn run(self, common: &Common) -> CliResult {
        match self {
            Self::Show(show) => show.run(common),
            Self::Export(export) => export.run(common),
            Self::Replay(replay) => replay.run(common).await,
        }
    }
}
