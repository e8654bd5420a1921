//! Brings tasks of other formats into ours.

mod humaneval;

use std::{io, path::PathBuf};

pub use humaneval::humaneval;

/// Why an import stopped. What was written before stays, and the next import writes it anew.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file could not be read or written.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried: "cannot read".
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A row is not what the format says.
    #[error("{}:{line}: {message}", file.display())]
    Row {
        /// The file that is imported.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, as a fragment.
        message: String,
    },
}
