//! A layer's tar becomes a directory as overlayfs expects a lower one.
//!
//! The archive is an attacker's. No path of it is resolved by anything but the kernel, below the new
//! directory (`RESOLVE_IN_ROOT`): a link leads where it would inside, never out. What a sandbox
//! has no use for is dropped (set-user-id bits, extended attributes, the content of `/dev`, `/proc`
//! and `/sys`), and what is none of a layer's business is refused (devices, pipes, sparse files).
//!
//! Modes become 0755 for directories and for files that anybody may execute, 0644 for others: the
//! image's own users protect nothing in a sandbox that has none of them, and a verdict must not
//! depend on whether the service is root. Root keeps owners; for anyone else all is their own.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags},
    io::Errno,
};
use tar::{Entry, EntryType};

use crate::{
    ImageError, ImageResult, Limits,
    entry::{is_sparse, owner, plain, shown, split, target},
    inside::open_inside,
    stream::{Meter, Metered},
};

/// Most bytes between two contents: a header with long names and extensions.
const HEADER_BYTES: u64 = 1 << 20;
/// Most bytes after the end of an archive: it is filled up with zeros to a full block.
const TRAILER_BYTES: u64 = 16 << 20;
/// Most bytes of the names that a layer hides, which are kept until its end.
const HIDDEN_BYTES: usize = 16 << 20;
/// Folders that every sandbox has of its own.
const LEFT_OUT: [&[u8]; 3] = [b"dev", b"proc", b"sys"];
/// What marks a directory that hides those of lower layers; see overlayfs's `userxattr`.
pub(crate) const OPAQUE: &str = "user.overlay.opaque";

/// Unpacks `archive` into `into`, which is empty. Takes what it needs from `budget`.
///
/// # Errors
///
/// [`ImageError::Refused`] when the archive is damaged or holds what is refused, whatever it had
/// unpacked by then; [`ImageError::Io`] when a file can't be written.
pub(crate) fn unpack(archive: impl Read, into: &Path, budget: &mut Limits) -> ImageResult<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(into, flags, Mode::empty())
        .map_err(|e| ImageError::io("open", into)(e.into()))?;
    let mut tree = Tree {
        root,
        into,
        owners: rustix::process::geteuid().is_root(),
        budget,
        last: None,
        whiteouts: Vec::new(),
        opaque: HashSet::new(),
        hidden_bytes: HIDDEN_BYTES,
    };
    let meter = Meter::new(HEADER_BYTES);
    let mut archive = tar::Archive::new(Metered { from: archive, meter: meter.clone() });
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        meter.set(entry.size().min(tree.budget.bytes));
        tree.take(&mut entry)?;
        meter.set(HEADER_BYTES);
    }
    meter.set(TRAILER_BYTES);
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|e| match e.kind() {
        io::ErrorKind::FileTooLarge => ImageError::Refused("goes on after its end".to_owned()),
        _ => damaged(e),
    })?;
    tree.mark_hidden()
}

fn damaged(error: io::Error) -> ImageError {
    ImageError::Refused(match error.kind() {
        io::ErrorKind::FileTooLarge => "more than 1 MiB of headers between two files".to_owned(),
        _ => format!("damaged: {error}"),
    })
}

/// The directory that grows.
struct Tree<'a> {
    root: OwnedFd,
    into: &'a Path,
    /// Whether files get the owners that the archive says.
    owners: bool,
    budget: &'a mut Limits,
    /// The directory that the last entry lay in: mostly the next one's, too.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Folders, and names in them that lower layers have and this one hasn't.
    whiteouts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Folders that show nothing of lower layers.
    opaque: HashSet<Vec<u8>>,
    /// What the names of both may still take.
    hidden_bytes: usize,
}

impl Tree<'_> {
    fn take(&mut self, entry: &mut Entry<'_, impl Read>) -> ImageResult<()> {
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            return Ok(());
        }
        let name = entry.path_bytes().into_owned();
        let path = plain(&name).map_err(|why| named(&name, why))?;
        // Tar's oldest form has no other sign of a directory.
        let folder = name.ends_with(b"/") && entry.header().entry_type() == EntryType::Regular;
        let kind = if folder { EntryType::Directory } else { entry.header().entry_type() };
        self.place(entry, kind, &path).map_err(|e| match e {
            Trouble::Wrong(why) => named(&name, &why),
            Trouble::Kernel(errno) => self.trouble(&name, errno),
        })
    }

    fn place(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        kind: EntryType,
        path: &[u8],
    ) -> Result<(), Trouble> {
        self.count()?;
        let Some((folder, name)) = split(path) else {
            // The root itself: its mode is ours.
            return self.own(self.root.as_fd(), entry);
        };
        let first = path.split(|byte| *byte == b'/').next();
        if !folder.is_empty() && LEFT_OUT.iter().any(|left| first == Some(left)) {
            return self.content(entry, &mut io::sink());
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.hide(folder, hidden);
        }
        if is_sparse(entry) {
            return wrong("a sparse file; make the archive without `--sparse`");
        }
        let parent = self.folder(folder)?;
        let at = OsStr::from_bytes(name);
        match kind {
            EntryType::Directory => self.make_folder(&parent, at, entry),
            EntryType::Regular | EntryType::Continuous => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let make = || rustix::fs::openat(&parent, at, flags, Mode::from_raw_mode(0o600));
                let mut file = File::from(self.replace(&parent, at, make)?);
                self.content(entry, &mut file)?;
                self.own(file.as_fd(), entry)?;
                let executable = entry.header().mode().unwrap_or(0) & 0o111 != 0;
                let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
                rustix::fs::fchmod(&file, mode)?;
                // Python takes bytecode for fresh by its source's time.
                let seconds = i64::try_from(entry.header().mtime().unwrap_or(0)).unwrap_or(0);
                let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
                let times = Timestamps { last_access: time, last_modification: time };
                Ok(rustix::fs::futimens(&file, &times)?)
            }
            EntryType::Symlink => {
                let target = target(entry)?;
                let make = || rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, at);
                self.replace(&parent, at, make)?;
                if self.owners {
                    let (uid, gid) = owner(entry)?;
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    rustix::fs::chownat(&parent, at, Some(uid), Some(gid), flags)?;
                }
                Ok(())
            }
            EntryType::Link => {
                let target = target(entry)?;
                let target = plain(&target).map_err(|why| {
                    Trouble::Wrong(format!("a hard link to {}: {why}", shown(&target)))
                })?;
                let Some((folder, name)) = split(&target) else {
                    return wrong("a hard link to the root");
                };
                let name = OsStr::from_bytes(name);
                let linked = self.existing(folder).map_err(Trouble::from).and_then(|from| {
                    let make = || rustix::fs::linkat(&from, name, &parent, at, AtFlags::empty());
                    self.replace(&parent, at, make)
                });
                match linked {
                    Err(Trouble::Kernel(Errno::PERM)) => wrong("a hard link to a directory"),
                    Err(Trouble::Kernel(Errno::NOENT)) => {
                        wrong(format!("a hard link to {}, which the layer has not", shown(&target)))
                    }
                    other => other,
                }
            }
            EntryType::Block | EntryType::Char => wrong("a device"),
            EntryType::Fifo => wrong("a pipe"),
            other => {
                wrong(format!("a kind of entry that we don't know ({:?})", other.as_byte() as char))
            }
        }
    }

    /// Counts one more file or directory.
    fn count(&mut self) -> Result<(), Trouble> {
        match self.budget.entries.checked_sub(1) {
            Some(left) => self.budget.entries = left,
            None => return wrong("more files than an image may have"),
        }
        Ok(())
    }

    /// Copies the whole content of an entry.
    fn content(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        to: &mut impl io::Write,
    ) -> Result<(), Trouble> {
        let size = entry.size();
        match self.budget.bytes.checked_sub(size) {
            Some(left) => self.budget.bytes = left,
            None => return wrong("more bytes than an image may have"),
        }
        let copied = io::copy(entry, to).map_err(|e| match e.raw_os_error() {
            Some(errno) => Trouble::Kernel(Errno::from_raw_os_error(errno)),
            None => Trouble::Wrong(format!("damaged: {e}")),
        })?;
        if copied == size { Ok(()) } else { wrong("cut off in the middle") }
    }

    /// Makes something new, in the place of a file or a link of that name that came before.
    fn replace<T>(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, Trouble> {
        match make() {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        self.last = None;
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => wrong("there twice, first as a directory"),
            other => Ok(other.and_then(|()| make())?),
        }
    }

    fn make_folder(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &Entry<'_, impl Read>,
    ) -> Result<(), Trouble> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_there =
            stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if !is_there {
            self.replace(parent, name, || rustix::fs::mkdirat(parent, name, FOLDER))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        // Whatever our umask is.
        rustix::fs::fchmod(&made, FOLDER)?;
        self.own(made.as_fd(), entry)
    }

    /// Gives a file the owner that the archive says.
    fn own(&self, file: impl AsFd, entry: &Entry<'_, impl Read>) -> Result<(), Trouble> {
        if self.owners {
            let (uid, gid) = owner(entry)?;
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// Opens a directory of the layer, through links where there are any.
    fn existing(&self, folder: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if folder.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(folder) };
        open_inside(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens a directory of the layer; makes it and those above it where they are not there.
    fn folder(&mut self, folder: &[u8]) -> Result<Rc<OwnedFd>, Trouble> {
        if let Some((last, fd)) = &self.last
            && last == folder
        {
            return Ok(Rc::clone(fd));
        }
        let fd = match self.existing(folder) {
            Err(Errno::NOENT) => {
                let mut made = 0;
                for end in
                    (0..=folder.len()).filter(|end| folder.get(*end).is_none_or(|b| *b == b'/'))
                {
                    made = end;
                    match self.existing(&folder[..end]) {
                        Ok(_) => continue,
                        Err(Errno::NOENT) => {}
                        Err(e) => return Err(e.into()),
                    }
                    self.count()?;
                    let (above, name) = split(&folder[..end]).unwrap_or_default();
                    let above = self.existing(above)?;
                    match rustix::fs::mkdirat(&above, OsStr::from_bytes(name), FOLDER) {
                        Err(Errno::EXIST) => return wrong("below a link that leads nowhere"),
                        other => other?,
                    }
                    let name = OsStr::from_bytes(name);
                    rustix::fs::chmodat(&above, name, FOLDER, AtFlags::empty())?;
                }
                self.existing(&folder[..made])?
            }
            other => other?,
        };
        let fd = Rc::new(fd);
        self.last = Some((folder.to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    /// Remembers what the layer hides: `hidden` is what follows `.wh.` in a name.
    fn hide(&mut self, folder: &[u8], hidden: &[u8]) -> Result<(), Trouble> {
        let bytes = size_of::<(Vec<u8>, Vec<u8>)>() + folder.len() + hidden.len();
        match self.hidden_bytes.checked_sub(bytes) {
            Some(left) => self.hidden_bytes = left,
            None => return wrong("hides more than a layer may"),
        }
        match hidden {
            b".wh..opq" if folder.is_empty() => return wrong("hides all layers below its own"),
            b".wh..opq" => {
                self.folder(folder)?;
                self.opaque.insert(folder.to_vec());
            }
            b"" | b"." | b".." => return wrong("hides nothing that could be there"),
            // What aufs kept for itself.
            hidden if hidden.starts_with(b".wh.") => {}
            hidden => {
                self.folder(folder)?;
                self.whiteouts.push((folder.to_vec(), hidden.to_vec()));
            }
        }
        Ok(())
    }

    /// Writes the marks by which overlayfs hides what lower layers have. Last of all, since what
    /// the layer itself has stays, in whatever order both came.
    fn mark_hidden(&mut self) -> ImageResult<()> {
        for (folder, name) in std::mem::take(&mut self.whiteouts) {
            if !self.opaque.contains(&folder) {
                self.white_out(&folder, &name).map_err(|errno| self.trouble(&name, errno))?;
            }
        }
        for folder in std::mem::take(&mut self.opaque) {
            let marked = self.existing(&folder).and_then(mark_opaque);
            marked.map_err(|errno| self.trouble(&folder, errno))?;
        }
        Ok(())
    }

    fn white_out(&self, folder: &[u8], name: &[u8]) -> rustix::io::Result<()> {
        let parent = self.existing(folder)?;
        let at = OsStr::from_bytes(name);
        match rustix::fs::mknodat(&parent, at, FileType::CharacterDevice, Mode::empty(), 0) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
        // The layer's own. A directory of it shows nothing of the one that was removed.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, at, flags, Mode::empty()) {
            Ok(own) => mark_opaque(own),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn trouble(&self, name: &[u8], errno: Errno) -> ImageError {
        let ours = matches!(
            errno,
            Errno::NOSPC
                | Errno::DQUOT
                | Errno::IO
                | Errno::PERM
                | Errno::ACCESS
                | Errno::ROFS
                | Errno::NOTSUP
                | Errno::MFILE
                | Errno::NFILE
                | Errno::NOMEM
                | Errno::AGAIN
        );
        if ours {
            ImageError::io("write", self.into.join(OsStr::from_bytes(name)))(errno.into())
        } else {
            named(name, &format!("can't be made: {}", io::Error::from(errno)))
        }
    }
}

const FOLDER: Mode = Mode::from_raw_mode(0o755);

/// Why an entry can't be placed.
enum Trouble {
    Wrong(String),
    Kernel(Errno),
}

impl From<&str> for Trouble {
    fn from(why: &str) -> Self {
        Self::Wrong(why.to_owned())
    }
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}

fn wrong<T>(why: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Wrong(why.into()))
}

fn named(name: &[u8], why: &str) -> ImageError {
    ImageError::Refused(format!("{}: {why}", shown(name)))
}

fn mark_opaque(folder: OwnedFd) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(folder, OPAQUE, b"y", XattrFlags::empty())
}
