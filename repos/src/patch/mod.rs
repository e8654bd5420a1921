//! Unified diffs, with git's extended headers: strict parsing, exact application.
//!
//! Context must match byte for byte (no fuzz, line endings included); where a hunk lies may differ
//! from what its header says, as with `patch`. Names and hunk lines borrow from the text.

mod parse;
mod place;
mod tree;

use std::path::PathBuf;

pub(crate) use parse::{check_path, parse};
pub(crate) use tree::Tree;

use crate::{Rejection, RejectionKind};

/// What a patch does to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePatch<'t> {
    /// The line of the patch where it starts, from 1.
    pub(crate) line: usize,
    /// The file before; absent when it is new.
    pub(crate) old: Option<PathBuf>,
    /// The file after; absent when it is deleted.
    pub(crate) new: Option<PathBuf>,
    /// Whether it was executable before, where the patch says so.
    pub(crate) old_executable: Option<bool>,
    /// Whether it is executable after, where the patch says so.
    pub(crate) new_executable: Option<bool>,
    /// The file before stays.
    pub(crate) copy: bool,
    /// In order of lines.
    pub(crate) hunks: Vec<Hunk<'t>>,
}

/// One change within a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hunk<'t> {
    /// The line of the patch where it starts, from 1.
    pub(crate) line: usize,
    /// The line of the file before where it starts, from 1; with no old lines, the one before it.
    pub(crate) old_start: usize,
    /// The same for the file after.
    pub(crate) new_start: usize,
    /// Each with its line end, where it has one.
    pub(crate) lines: Vec<(Side, &'t str)>,
}

/// Which file a line of a hunk is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Both,
    Old,
    New,
}

impl FilePatch<'_> {
    /// Returns the patch that undoes this one.
    pub(crate) fn reversed(mut self) -> Result<Self, Rejection> {
        if self.copy {
            return Err(malformed(self.line, "a copy can't be undone"));
        }
        std::mem::swap(&mut self.old, &mut self.new);
        std::mem::swap(&mut self.old_executable, &mut self.new_executable);
        for hunk in &mut self.hunks {
            std::mem::swap(&mut hunk.old_start, &mut hunk.new_start);
            for (side, _) in &mut hunk.lines {
                *side = match side {
                    Side::Both => Side::Both,
                    Side::Old => Side::New,
                    Side::New => Side::Old,
                };
            }
        }
        Ok(self)
    }

    /// Returns the lines that it adds and the lines that it removes.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let lines = self.hunks.iter().flat_map(|hunk| &hunk.lines);
        lines.fold((0, 0), |(added, removed), (side, _)| match side {
            Side::Both => (added, removed),
            Side::New => (added + 1, removed),
            Side::Old => (added, removed + 1),
        })
    }
}

fn malformed(line: usize, what: impl std::fmt::Display) -> Rejection {
    Rejection { kind: RejectionKind::Malformed, detail: format!("line {line}: {what}") }
}
