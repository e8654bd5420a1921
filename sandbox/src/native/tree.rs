//! The files of a work tree: what the setup writes below a directory, never through a link.

use std::{
    collections::BTreeSet,
    ffi::{CStr, OsStr, OsString},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt as _},
    },
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, mkdirat, mknodat, openat2, statat,
        symlinkat,
    },
    io::Errno,
};

use super::{
    job::{Job, JobEntry, JobLayer},
    setup::BOX,
};

/// Bytes and inodes of what the setup itself writes to a box, which don't count as the command's.
pub(super) fn own_share(job: &Job<'_>) -> (u64, u64) {
    // The root, its folders, those of the layers, overlayfs's own two.
    let (mut bytes, mut inodes) = (0, 3 + (BOX.len() + job.layers.len()) as u64);
    for layer in &job.layers {
        let JobLayer::Files(files) = layer else { continue };
        let entries = files.iter().map(|(path, entry)| match entry {
            JobEntry::File { content, .. } | JobEntry::Symlink(content) => (*path, *content),
            JobEntry::Absent => (*path, &[][..]),
        });
        let room = room(entries);
        bytes += room.0;
        inodes += room.1;
    }
    (bytes, inodes)
}

/// Bytes and inodes that files of these paths and contents take of a tmpfs, at most.
pub(super) fn room<'f>(files: impl Iterator<Item = (&'f [u8], &'f [u8])>) -> (u64, u64) {
    files.fold((0, 0), |(bytes, inodes), (path, content)| {
        let depth = path.iter().filter(|byte| **byte == b'/').count() as u64 + 1;
        (bytes + (content.len() as u64).next_multiple_of(4096), inodes + depth)
    })
}

/// Returns mount options that end in a NUL as the kernel takes them.
pub(super) fn c_str(options: &str) -> &CStr {
    CStr::from_bytes_until_nul(options.as_bytes()).unwrap_or_default()
}

pub(super) fn relative(path: &[u8]) -> &Path {
    let path = Path::new(OsStr::from_bytes(path));
    path.strip_prefix("/").unwrap_or(path)
}

pub(super) fn make_directory(name: &str, mode: u32) -> rustix::io::Result<()> {
    mkdirat(CWD, name, Mode::from_raw_mode(mode))
}

/// Opens what is below `root`, never through a link or out of it.
pub(super) fn open_below(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: u32,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode), resolve)
}

pub(super) fn open_directory(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    if path.as_os_str().is_empty() {
        return rustix::io::fcntl_dupfd_cloexec(root, 3);
    }
    open_below(root, path, OFlags::PATH | OFlags::DIRECTORY, 0)
}

/// Makes `path` and its parents below `root`.
pub(crate) fn make_directories(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    if path.components().count() == 1 {
        let _ = mkdirat(root, path, Mode::from_raw_mode(0o755));
    }
    match open_directory(root, path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut at = rustix::io::fcntl_dupfd_cloexec(root, 3)?;
    for part in path {
        match mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        at = open_directory(at.as_fd(), Path::new(part))?;
    }
    Ok(at)
}

/// Makes the parent of `path`; returns it and the last component.
pub(crate) fn parent_of<'p>(
    root: BorrowedFd<'_>,
    path: &'p Path,
) -> rustix::io::Result<(OwnedFd, &'p OsStr)> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = make_directories(root, path.parent().unwrap_or(Path::new("")))?;
    Ok((parent, name))
}

pub(crate) fn write_file(
    root: BorrowedFd<'_>,
    path: &Path,
    content: &[u8],
    mode: u32,
) -> rustix::io::Result<()> {
    let (parent, name) = parent_of(root, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let file = open_below(parent.as_fd(), Path::new(name), flags, mode)?;
    let mut rest = content;
    while !rest.is_empty() {
        match rustix::io::write(&file, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes files layer `number` into its directory. Paths come in order, parents before children.
pub(super) fn write_layer(
    number: usize,
    files: &[(&[u8], JobEntry<'_>)],
) -> rustix::io::Result<()> {
    let root = open_directory(CWD, Path::new(&format!("l{number}")))?;
    for (place, (path, entry)) in files.iter().enumerate() {
        let file = Path::new(OsStr::from_bytes(path));
        match entry {
            JobEntry::File { content, executable } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                write_file(root.as_fd(), file, content, mode)?;
            }
            JobEntry::Symlink(target) => {
                let (parent, name) = parent_of(root.as_fd(), file)?;
                symlinkat(OsStr::from_bytes(target), &parent, name)?;
            }
            JobEntry::Absent => {
                let below = files[place + 1..].iter().map(|(path, _)| OsStr::from_bytes(path));
                let below: Vec<&Path> =
                    below.map(Path::new).take_while(|path| path.starts_with(file)).collect();
                if below.is_empty() {
                    let (parent, name) = parent_of(root.as_fd(), file)?;
                    write_absent(parent.as_fd(), name)?;
                } else {
                    hide_lower(root.as_fd(), number, file, &below)?;
                }
            }
        }
    }
    Ok(())
}

/// Makes `directory` a new one: nothing of those that it lies on is there, only what is in `own`.
///
/// Name by name, since before Linux 6.6 a tmpfs can't mark the whole directory.
fn hide_lower(
    root: BorrowedFd<'_>,
    number: usize,
    directory: &Path,
    own: &[&Path],
) -> rustix::io::Result<()> {
    let made = make_directories(root, directory)?;
    for name in lower_names(number, directory)? {
        let path = directory.join(&name);
        if own.contains(&&*path) {
            // An entry of its own says what is there.
        } else if own.iter().any(|own| own.starts_with(&path)) {
            hide_lower(root, number, &path, own)?;
        } else {
            write_absent(made.as_fd(), &name)?;
        }
    }
    Ok(())
}

/// Writes what overlayfs takes for "nothing here": character device 0:0.
pub(super) fn write_absent(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Returns the names that directory `path` has in the layers below layer `number` together.
///
/// No others may be marked absent: in a directory that nothing is merged with, overlayfs shows the
/// marks.
fn lower_names(number: usize, path: &Path) -> rustix::io::Result<BTreeSet<OsString>> {
    let (mut names, mut absent) = (BTreeSet::new(), BTreeSet::new());
    'layers: for lower in (0..number).rev() {
        let root = open_directory(CWD, Path::new(&format!("l{lower}")))?;
        for above in path.ancestors().collect::<Vec<_>>().into_iter().rev().skip(1) {
            match statat(&root, above, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
                // A file, a link or nothing on purpose: what lies further down is hidden.
                Ok(_) => break 'layers,
                Err(Errno::NOENT) => continue 'layers,
                Err(e) => return Err(e),
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = open_below(root.as_fd(), path, flags, 0)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            if entry.file_type() == FileType::CharacterDevice {
                absent.insert(name);
            } else if name != "." && name != ".." && !absent.contains(&name) {
                names.insert(name);
            }
        }
    }
    Ok(names)
}
