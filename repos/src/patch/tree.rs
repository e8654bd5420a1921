//! A revision with changes on top.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{FilePatch, place};
use crate::{
    ApplyError, Change, Rejection, RejectionKind, Revision, SourceError,
    source::{Node, node_of},
};

/// A revision on which changes pile up.
pub(crate) struct Tree<'r> {
    revision: &'r Revision,
    changes: BTreeMap<PathBuf, Change>,
    budget: u64,
}

impl<'r> Tree<'r> {
    pub(crate) fn new(revision: &'r Revision) -> Self {
        Self { revision, changes: BTreeMap::new(), budget: place::BUDGET }
    }

    /// Returns what is at `path` now.
    pub(crate) fn node(&self, path: &Path) -> Result<Node, SourceError> {
        match node_of(&self.changes, path) {
            Some(node) => Ok(node),
            None => self.revision.node(path),
        }
    }

    /// Applies what a patch does to one file.
    pub(crate) fn patch(&mut self, patch: &FilePatch<'_>) -> Result<(), ApplyError> {
        let conflict = |line: usize, path: &Path, what: &str| Rejection {
            kind: RejectionKind::Conflict,
            detail: format!("line {line}: {}: {what}", path.display()),
        };
        let (old, mut executable) = match &patch.old {
            None => (Arc::from([]), false),
            Some(path) => match self.node(path)? {
                Node::File { content, executable } => (content, executable),
                Node::Dir => return Err(conflict(patch.line, path, "is a directory").into()),
                Node::Other => return Err(conflict(patch.line, path, "is no regular file").into()),
                Node::Missing => return Err(conflict(patch.line, path, "no such file").into()),
            },
        };
        let name = patch.new.as_ref().or(patch.old.as_ref());
        let content =
            place::place(&patch.hunks, &old, &mut self.budget).map_err(|(line, what)| {
                conflict(line, name.map_or(Path::new(""), PathBuf::as_path), &what)
            })?;
        let Some(new) = &patch.new else {
            let path = patch.old.as_deref().unwrap_or(Path::new(""));
            if !content.is_empty() {
                let what = "is deleted, but holds more than the patch shows";
                return Err(conflict(patch.line, path, what).into());
            }
            self.remove(path);
            return Ok(());
        };
        if patch.old.as_ref() != Some(new) && self.node(new)? != Node::Missing {
            return Err(conflict(patch.line, new, "exists already").into());
        }
        if let Some(said) = patch.new_executable {
            executable = said;
        }
        self.write(new, content.into(), executable)?;
        if let Some(old) = &patch.old
            && old != new
            && !patch.copy
        {
            self.remove(old);
        }
        Ok(())
    }

    /// Makes `path` a file of this content.
    pub(crate) fn write(
        &mut self,
        path: &Path,
        content: Arc<[u8]>,
        executable: bool,
    ) -> Result<(), ApplyError> {
        let conflict = |path: &Path, what: &str| Rejection {
            kind: RejectionKind::Conflict,
            detail: format!("{}: {what}", path.display()),
        };
        for above in path.ancestors().skip(1).filter(|above| *above != Path::new("")) {
            let was_deleted = self.changes.contains_key(above);
            if was_deleted || !matches!(self.node(above)?, Node::Dir | Node::Missing) {
                return Err(conflict(above, "is a file, not a directory").into());
            }
        }
        if matches!(self.node(path)?, Node::Dir | Node::Other) {
            return Err(conflict(path, "is no regular file").into());
        }
        self.changes.insert(path.to_owned(), Change::File { content, executable });
        Ok(())
    }

    /// Takes the file at `path` away.
    pub(crate) fn remove(&mut self, path: &Path) {
        self.changes.insert(path.to_owned(), Change::Absent);
    }

    /// Returns the changes without those that change nothing.
    pub(crate) fn into_effective(self) -> Result<BTreeMap<PathBuf, Change>, SourceError> {
        let mut effective = BTreeMap::new();
        for (path, change) in self.changes {
            let before = self.revision.node(&path)?;
            let same = match (&change, &before) {
                (Change::Absent, Node::Missing) => true,
                (
                    Change::File { content, executable },
                    Node::File { content: old, executable: was },
                ) => content == old && executable == was,
                _ => false,
            };
            if !same {
                effective.insert(path, change);
            }
        }
        Ok(effective)
    }
}
