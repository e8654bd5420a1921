//! What an entry of an archive says of itself.

use std::io::{self, Read};

use rustix::fs::{Gid, Uid};
use tar::{Entry, EntryType};

/// Returns a path without `.` and empty components; the root is empty.
pub(crate) fn plain(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    if path.starts_with(b"/") {
        return Err("an absolute path");
    }
    if path.contains(&0) {
        return Err("a path with a NUL byte");
    }
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let parts: Vec<_> = parts.collect();
    if parts.contains(&&b".."[..]) {
        return Err("a path with `..`");
    }
    Ok(parts.join(&b'/'))
}

/// Splits a plain path into its folder and its name; `None` for the root.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None if path.is_empty() => None,
        None => Some((b"", path)),
    }
}

/// Returns where a link leads.
pub(crate) fn target(entry: &Entry<'_, impl Read>) -> Result<Vec<u8>, &'static str> {
    match entry.link_name_bytes() {
        Some(target) if !target.is_empty() && !target.contains(&0) => Ok(target.into_owned()),
        _ => Err("a link to nothing"),
    }
}

/// Returns whose a file is.
pub(crate) fn owner(entry: &Entry<'_, impl Read>) -> Result<(Uid, Gid), &'static str> {
    // All ones mean "unchanged" to the kernel.
    let id = |id: io::Result<u64>| u32::try_from(id.ok()?).ok().filter(|id| *id != u32::MAX);
    match (id(entry.header().uid()), id(entry.header().gid())) {
        (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
        _ => Err("an owner that is no user id"),
    }
}

/// Whether an entry has fewer bytes in the archive than in its file: in GNU's old form, or in one of
/// those in extended headers.
pub(crate) fn is_sparse(entry: &mut Entry<'_, impl Read>) -> bool {
    let sparse = |key: &str| key.starts_with("GNU.sparse.");
    entry.header().entry_type() == EntryType::GNUSparse
        || entry.pax_extensions().ok().flatten().is_some_and(|mut extensions| {
            extensions.any(|one| one.is_ok_and(|one| one.key().is_ok_and(sparse)))
        })
}

/// A name for people, whose terminal it must not command.
pub(crate) fn shown(name: &[u8]) -> String {
    format!("`{}`", name.escape_ascii())
}
