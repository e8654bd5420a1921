//! Where the code of a task comes from.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::Digest;

/// The code that a task is about.
#[derive(Clone, Debug)]
pub struct Source {
    /// As written: `toolz@1.0.0`, or `./tree` for a directory of the task.
    pub repository: String,
    /// The release that this names. Absent for a directory of the task.
    pub package: Option<Arc<Package>>,
    /// The patch that is taken out of the release, relative to the task directory.
    pub revert: Option<PathBuf>,
}

/// A released package: an entry `packages/<name>-<version>/repository.toml` of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The file name of its source distribution.
    pub sdist: String,
    /// Of the source distribution.
    pub digest: Digest,
    /// Its licence, as an SPDX expression.
    pub license: String,
    /// Where the source distribution lies once it is fetched.
    pub archive: PathBuf,
    /// Where it is unpacked at first use.
    pub tree: PathBuf,
}

/// One immutable tree: a directory shared by many sandboxes with a thin layer on top.
#[derive(Clone, Debug)]
pub struct Revision {
    /// The unpacked release; used read-only.
    pub base: Option<Arc<PathBuf>>,
    /// What differs from it.
    pub changes: Arc<BTreeMap<PathBuf, Change>>,
    /// Of both.
    pub digest: Digest,
}

/// What happens to one path of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It becomes a regular file.
    File {
        /// Its content.
        content: Arc<[u8]>,
        /// Whether its mode is 0755 instead of 0644.
        executable: bool,
    },
    /// It is absent, whatever lies below.
    Absent,
}

/// Why there is no [`Revision`].
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The release was not fetched.
    #[error("{} is not there; run `make data`", archive.display())]
    NotFetched {
        /// Where it should be.
        archive: PathBuf,
    },
    /// The release is not the one that was pinned.
    #[error("{} has digest {found}, expected {expected}; delete it and run `make data`", archive.display())]
    WrongDigest {
        /// The file.
        archive: PathBuf,
        /// What it is.
        found: Digest,
        /// What it should be.
        expected: Digest,
    },
    /// The archive holds something that is refused.
    #[error("{}: {what}", archive.display())]
    Archive {
        /// The file.
        archive: PathBuf,
        /// What is wrong with it, as a fragment.
        what: String,
    },
    /// The task's own patch doesn't fit its release.
    #[error("{}: {what}", path.display())]
    Revert {
        /// The patch.
        path: PathBuf,
        /// What is wrong with it, as a fragment.
        what: String,
    },
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
}

impl Revision {
    /// Returns a revision that holds nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self { base: None, changes: Arc::default(), digest: Digest::of("empty") }
    }

    /// Returns the cache folder for unpacked releases.
    pub(crate) fn folder(cache: &Path) -> PathBuf {
        cache.join("revisions")
    }
}
