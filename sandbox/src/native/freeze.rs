//! A session's writable files as records, and back.
//!
//! Both walk one tmpfs. Every name is opened relative to a descriptor of the tree, never through a
//! link; what is no regular file is never opened.

use std::{
    collections::HashMap,
    fs::{File, Permissions},
    io::{self, BufWriter, Read as _, Seek as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, XattrFlags,
        fgetxattr, fsetxattr, ftruncate, linkat, mkdirat, mknodat, readlinkat, seek, statat,
        symlinkat, utimensat,
    },
    io::Errno,
};

use super::{
    errand::Tree,
    tree::{open_below, open_directory, write_absent},
};
use crate::snapshot::{Kind, Record, RecordWriter, Records, Root};

/// Most bytes of a path. Longer ones can't be opened at once, and are left out.
const MAX_PATH: usize = 4000;

/// What overlayfs calls a directory that hides those below it.
const OPAQUE: &str = "user.overlay.opaque";

/// Where records go.
struct To<'f> {
    records: RecordWriter<BufWriter<&'f File>>,
    /// Where the records of files with several names are, by their inodes.
    linked: HashMap<(Root, u64), PathBuf>,
}

/// Writes records of all writable files into `to`, up to `most` bytes.
pub(super) fn freeze(tree: &Tree, to: &File, most: u64) -> io::Result<()> {
    let records = RecordWriter::new(BufWriter::with_capacity(256 << 10, to), most);
    let mut to = To { records, linked: HashMap::new() };
    for (root, at) in [(Root::Work, &tree.work), (Root::Tmp, &tree.tmp)] {
        freeze_tree(&mut to, root, at.as_fd())?;
    }
    to.records.finish()
}

fn freeze_tree(to: &mut To<'_>, root: Root, at: BorrowedFd<'_>) -> io::Result<()> {
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        let Some(here) = gone(open_below(at, here, OFlags::RDONLY | OFlags::DIRECTORY, 0))? else {
            continue;
        };
        for entry in Dir::read_from(&here)? {
            let entry = entry?;
            let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
            let path = folder.join(name);
            if name == "." || name == ".." || path.as_os_str().len() > MAX_PATH {
                continue;
            }
            if freeze_entry(to, root, here.as_fd(), Path::new(name), &path)? {
                folders.push(path);
            }
        }
    }
    Ok(())
}

/// Writes the record of one name; returns whether it is a directory.
fn freeze_entry(
    to: &mut To<'_>,
    root: Root,
    at: BorrowedFd<'_>,
    name: &Path,
    path: &Path,
) -> io::Result<bool> {
    let Some(stat) = gone(statat(at, name, AtFlags::SYMLINK_NOFOLLOW))? else { return Ok(false) };
    let mut record = Record {
        root,
        kind: Kind::Absent,
        mode: stat.st_mode & 0o777,
        modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
        path: path.to_owned(),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let Some(made) = gone(open_below(at, name, flags, 0))? else { return Ok(false) };
            let mut mark = [0; 1];
            let marked = fgetxattr(&made, OPAQUE, &mut mark).is_ok_and(|length| length == 1);
            let hides = marked && mark == *b"y";
            record.kind = if hides { Kind::NewDirectory } else { Kind::Directory };
            to.records.record(&record)?;
            return Ok(true);
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            let Some(file) = gone(open_below(at, name, flags, 0))? else { return Ok(false) };
            let file = &mut File::from(file);
            let metadata = file.metadata()?;
            let inode = (root, metadata.ino());
            if let Some(first) = to.linked.get(&inode) {
                record.kind = Kind::Link;
                to.records.record(&record)?;
                to.records.text(first.as_os_str().as_bytes())?;
                return Ok(false);
            }
            if metadata.nlink() > 1 {
                to.linked.insert(inode, path.to_owned());
            }
            record.kind = Kind::File;
            to.records.record(&record)?;
            freeze_content(&mut to.records, file)?;
        }
        FileType::Symlink => {
            let Some(target) = gone(readlinkat(at, name, Vec::new()))? else { return Ok(false) };
            record.kind = Kind::Symlink;
            to.records.record(&record)?;
            to.records.text(target.to_bytes())?;
        }
        FileType::Fifo => {
            record.kind = Kind::Pipe;
            to.records.record(&record)?;
        }
        FileType::CharacterDevice if is_absent(&stat) => to.records.record(&record)?,
        // A socket is worth nothing without its process; there are no other devices.
        _ => {}
    }
    Ok(false)
}

/// Writes a file's size and the pieces of it that are there: holes take no room.
fn freeze_content<W: io::Write>(to: &mut RecordWriter<W>, file: &mut File) -> io::Result<()> {
    let size = file.metadata()?.len();
    to.number(size)?;
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    while at < size {
        let from = match seek(&*file, SeekFrom::Data(at)) {
            Ok(from) => from,
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let until = seek(&*file, SeekFrom::Hole(from))?.min(size);
        at = from;
        file.seek(io::SeekFrom::Start(from))?;
        while at < until {
            let most = buffer.len().min(usize::try_from(until - at).unwrap_or(usize::MAX));
            let length = file.read(&mut buffer[..most])?;
            if length == 0 {
                break;
            }
            to.piece(at, &buffer[..length])?;
            at += length as u64;
        }
        // Cut off meanwhile.
        if at < until {
            break;
        }
    }
    to.piece(0, &[])
}

/// Takes what vanished meanwhile for nothing.
fn gone<T>(found: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        // LOOP: it became a link.
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn is_absent(stat: &Stat) -> bool {
    stat.st_rdev == 0
}

/// Makes the files that `records` speak of in the empty trees `work` and `tmp`.
pub(super) fn thaw(records: &File, work: BorrowedFd<'_>, tmp: BorrowedFd<'_>) -> io::Result<()> {
    let mut records = Records::of(records);
    // Set last: a directory may be read-only, and whatever is made in it changes its time.
    let mut folders: Vec<Record> = Vec::new();
    let tree = |root| match root {
        Root::Work => work,
        Root::Tmp => tmp,
    };
    while let Some(record) = records.next()? {
        let at = tree(record.root);
        let parent = open_directory(at, record.path.parent().unwrap_or(Path::new("")))?;
        let name = Path::new(record.path.file_name().ok_or(Errno::INVAL)?);
        match record.kind {
            Kind::Directory | Kind::NewDirectory => {
                mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                if record.kind == Kind::NewDirectory {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                    let made = open_below(parent.as_fd(), name, flags, 0)?;
                    fsetxattr(&made, OPAQUE, b"y", XattrFlags::empty())?;
                }
                folders.push(record);
                continue;
            }
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let file = File::from(open_below(parent.as_fd(), name, flags, 0o600)?);
                thaw_content(&mut records, &file)?;
                file.set_permissions(Permissions::from_mode(record.mode))?;
            }
            Kind::Link => {
                let first = records.target()?;
                let above = open_directory(at, first.parent().unwrap_or(Path::new("")))?;
                let first = Path::new(first.file_name().ok_or(Errno::INVAL)?);
                linkat(&above, first, &parent, name, AtFlags::empty())?;
                continue;
            }
            Kind::Symlink => symlinkat(records.target()?, &parent, name)?,
            Kind::Pipe => {
                mknodat(&parent, name, FileType::Fifo, Mode::from_raw_mode(record.mode), 0)?;
            }
            Kind::Absent => {
                write_absent(parent.as_fd(), name.as_os_str())?;
                continue;
            }
        }
        set_modified(&parent, name, &record)?;
    }
    for record in folders.iter().rev() {
        let at = tree(record.root);
        let parent = open_directory(at, record.path.parent().unwrap_or(Path::new("")))?;
        let name = Path::new(record.path.file_name().ok_or(Errno::INVAL)?);
        let made = open_below(at, &record.path, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        File::from(made).set_permissions(Permissions::from_mode(record.mode))?;
        set_modified(&parent, name, record)?;
    }
    Ok(())
}

fn thaw_content(records: &mut Records<'_>, file: &File) -> io::Result<()> {
    ftruncate(file, records.number()?)?;
    let mut piece = Vec::new();
    while let Some(offset) = records.piece(&mut piece)? {
        file.write_all_at(&piece, offset)?;
    }
    Ok(())
}

fn set_modified(at: &OwnedFd, name: &Path, record: &Record) -> io::Result<()> {
    let time = Timespec { tv_sec: record.modified.0, tv_nsec: record.modified.1.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(at, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
