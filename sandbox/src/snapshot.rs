//! What a session's writable files were at one moment: frozen once, thawed into many sessions.
//!
//! The files lie in one unlinked file of ours, as records; nothing of them is ever on the host under
//! a name. Only our own code writes records. What they speak of is hostile all the same: names are
//! bytes, sizes are claims, and a reader takes no more into memory than it was told to.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::File,
    io::{self, BufReader, Read, Write},
    os::unix::{ffi::OsStringExt as _, fs::FileExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::room::Room;

/// The writable files of a session at one moment: what it changed in its work tree, and `/tmp`.
/// Clones share it; the last one dropped frees it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    file: Arc<Kept>,
    bytes: u64,
}

/// A file, and then the room that it takes.
#[derive(Debug)]
struct Kept {
    file: File,
    _room: Option<Room>,
}

/// One path of a work tree that a session changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenEntry {
    /// Relative to the work tree. Made of plain names, but not always UTF-8.
    pub path: PathBuf,
    /// What is there.
    pub what: Frozen,
}

/// What a session left at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// A directory. Of one that `hides` what lower layers hold there, nothing of theirs is left.
    Directory {
        /// Whether it was made anew where there was one.
        hides: bool,
    },
    /// A regular file.
    File {
        /// Its size in bytes.
        bytes: u64,
        /// What it holds.
        content: Content,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Symlink(PathBuf),
    /// A named pipe.
    Pipe,
    /// Nothing, where lower layers hold something.
    Absent,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// All of it. Names of one file share it.
    Kept(Arc<[u8]>),
    /// Nothing that was asked for.
    Unwanted,
    /// More than was asked for.
    TooLarge,
}

/// What is asked for of a work tree.
#[derive(Clone, Copy)]
pub struct Pick<'a> {
    /// Most bytes of a file that is read.
    pub file_bytes: u64,
    /// Most bytes of all files together whose content is kept.
    pub all_bytes: u64,
    /// Whether there is to be an entry for a path.
    pub path: &'a dyn Fn(&Path) -> bool,
    /// Whether a file's content is to be kept.
    pub content: &'a dyn Fn(&[u8]) -> bool,
}

impl std::fmt::Debug for Pick<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file_bytes, all_bytes, .. } = self;
        f.debug_struct("Pick")
            .field("file_bytes", file_bytes)
            .field("all_bytes", all_bytes)
            .finish_non_exhaustive()
    }
}

impl Pick<'_> {
    /// Asks for everything, as far as there is room.
    #[must_use]
    pub fn all(file_bytes: u64, all_bytes: u64) -> Self {
        Self { file_bytes, all_bytes, path: &|_| true, content: &|_| true }
    }
}

impl Snapshot {
    /// Takes over a file of records, and the room that it needs.
    pub(crate) fn new(file: File, mut room: Option<Room>) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        if let Some(room) = &mut room {
            room.settle(bytes);
        }
        Ok(Self { file: Arc::new(Kept { file, _room: room }), bytes })
    }

    /// Makes one of a work tree, for scripted sessions.
    ///
    /// # Errors
    ///
    /// There is no room for it.
    pub fn of(entries: &[FrozenEntry]) -> io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        let mut to = RecordWriter::new(&mut file, u64::MAX);
        for FrozenEntry { path, what } in entries {
            let (kind, mode) = match what {
                Frozen::Directory { hides: false } => (Kind::Directory, 0o755),
                Frozen::Directory { hides: true } => (Kind::NewDirectory, 0o755),
                Frozen::File { executable, .. } => {
                    (Kind::File, if *executable { 0o755 } else { 0o644 })
                }
                Frozen::Symlink(_) => (Kind::Symlink, 0o777),
                Frozen::Pipe => (Kind::Pipe, 0o644),
                Frozen::Absent => (Kind::Absent, 0),
            };
            let (root, path) = (Root::Work, path.clone());
            to.record(&Record { root, kind, mode, modified: (0, 0), path })?;
            match what {
                Frozen::File { bytes, content, .. } => {
                    to.number(*bytes)?;
                    if let Content::Kept(content) = content {
                        for (place, piece) in content.chunks(1 << 16).enumerate() {
                            to.piece((place << 16) as u64, piece)?;
                        }
                    }
                    to.piece(0, &[])?;
                }
                Frozen::Symlink(target) => to.text(target.as_os_str().as_encoded_bytes())?,
                _ => {}
            }
        }
        to.finish()?;
        Self::new(file, None)
    }

    /// Returns the file of records.
    pub(crate) fn file(&self) -> &File {
        &self.file.file
    }

    /// Returns its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads what the session changed in its work tree, as far as it is asked for. Directories come
    /// before what is in them. Blocks.
    ///
    /// # Errors
    ///
    /// The file can't be read.
    pub fn work_tree(&self, pick: &Pick<'_>) -> io::Result<Vec<FrozenEntry>> {
        let mut records = Records::of(self.file());
        let (mut entries, mut room) = (Vec::new(), pick.all_bytes);
        // What may have further names: what was read of it, or where it is.
        let mut files: HashMap<PathBuf, Result<Frozen, u64>> = HashMap::new();
        while let Some(record) = records.next()? {
            let is_picked = record.root == Root::Work && (pick.path)(&record.path);
            let what = match record.kind {
                Kind::Directory => Frozen::Directory { hides: false },
                Kind::NewDirectory => Frozen::Directory { hides: true },
                Kind::Absent => Frozen::Absent,
                Kind::Pipe => Frozen::Pipe,
                Kind::Symlink => Frozen::Symlink(records.target()?),
                Kind::File if is_picked => {
                    let what = records.file(record.is_executable(), pick, &mut room)?;
                    files.insert(record.path.clone(), Ok(what.clone()));
                    what
                }
                Kind::File => {
                    if record.root == Root::Work {
                        files.insert(record.path, Err(records.place()));
                    }
                    records.number()?;
                    records.content(None)?;
                    continue;
                }
                Kind::Link => {
                    let first = records.target()?;
                    if !is_picked {
                        continue;
                    }
                    let known = files.get_mut(&first).ok_or_else(broken)?;
                    if let Err(place) = *known {
                        let mut earlier = Records::at(self.file(), place);
                        *known = Ok(earlier.file(record.is_executable(), pick, &mut room)?);
                    }
                    known.clone().map_err(|_| broken())?
                }
            };
            if is_picked {
                entries.push(FrozenEntry { path: record.path, what });
            }
        }
        Ok(entries)
    }
}

/// Which tree a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Root {
    Work,
    Tmp,
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Directory,
    /// One that hides what lower layers hold there.
    NewDirectory,
    /// Its size and its pieces follow.
    File,
    /// Another name of a file of the same tree; that one's path, of an earlier record, follows.
    Link,
    /// Its target follows.
    Symlink,
    Pipe,
    Absent,
}

/// The head of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) root: Root,
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
    /// When it was changed, in seconds and nanoseconds.
    pub(crate) modified: (i64, u32),
    pub(crate) path: PathBuf,
}

impl Record {
    fn is_executable(&self) -> bool {
        self.mode & 0o100 != 0
    }
}

const ROOTS: [Root; 2] = [Root::Work, Root::Tmp];
const KINDS: [Kind; 7] = [
    Kind::Directory,
    Kind::NewDirectory,
    Kind::File,
    Kind::Link,
    Kind::Symlink,
    Kind::Pipe,
    Kind::Absent,
];

/// Writes records, and no more than so many bytes of them.
pub(crate) struct RecordWriter<W> {
    to: W,
    room: u64,
}

impl<W: Write> RecordWriter<W> {
    pub(crate) fn new(to: W, room: u64) -> Self {
        Self { to, room }
    }

    pub(crate) fn record(&mut self, record: &Record) -> io::Result<()> {
        self.bytes(&[record.root as u8, record.kind as u8])?;
        self.number(record.mode.into())?;
        self.number(record.modified.0 as u64)?;
        self.number(record.modified.1.into())?;
        self.text(record.path.as_os_str().as_encoded_bytes())
    }

    pub(crate) fn number(&mut self, number: u64) -> io::Result<()> {
        self.bytes(&number.to_le_bytes())
    }

    /// Writes a length and so many bytes.
    pub(crate) fn text(&mut self, text: &[u8]) -> io::Result<()> {
        self.number(text.len() as u64)?;
        self.bytes(text)
    }

    /// Writes a piece of a file; one of no bytes is the last.
    pub(crate) fn piece(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.number(offset)?;
        self.text(bytes)
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let too_large = || io::Error::from_raw_os_error(libc::EFBIG);
        self.room = self.room.checked_sub(bytes.len() as u64).ok_or_else(too_large)?;
        self.to.write_all(bytes)
    }
}

/// Most bytes of a path, of a link's target and of a piece.
const MAX_TEXT: u64 = 1 << 20;

/// Reads records from the start of a file.
pub(crate) struct Records<'f> {
    from: BufReader<Cursor<'f>>,
}

impl<'f> Records<'f> {
    pub(crate) fn of(file: &'f File) -> Self {
        Self::at(file, 0)
    }

    fn at(file: &'f File, at: u64) -> Self {
        Self { from: BufReader::with_capacity(256 << 10, Cursor { file, at }) }
    }

    /// Returns where in the file it is.
    fn place(&self) -> u64 {
        self.from.get_ref().at - self.from.buffer().len() as u64
    }

    /// Returns the next record; whatever belongs to the last one must have been read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Record>> {
        let mut head = [0; 2];
        if self.from.read(&mut head[..1])? == 0 {
            return Ok(None);
        }
        self.from.read_exact(&mut head[1..])?;
        let root = ROOTS.into_iter().find(|root| *root as u8 == head[0]).ok_or_else(broken)?;
        let kind = KINDS.into_iter().find(|kind| *kind as u8 == head[1]).ok_or_else(broken)?;
        Ok(Some(Record {
            root,
            kind,
            mode: self.number()? as u32 & 0o777,
            modified: (self.number()? as i64, self.number()? as u32),
            path: self.target()?,
        }))
    }

    pub(crate) fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.from.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn target(&mut self) -> io::Result<PathBuf> {
        let mut text = Vec::new();
        self.text(&mut text)?;
        Ok(OsString::from_vec(text).into())
    }

    /// Reads the next piece of a file into `piece` and returns its place; `None` after the last.
    pub(crate) fn piece(&mut self, piece: &mut Vec<u8>) -> io::Result<Option<u64>> {
        let offset = self.number()?;
        self.text(piece)?;
        Ok((!piece.is_empty()).then_some(offset))
    }

    fn text(&mut self, text: &mut Vec<u8>) -> io::Result<()> {
        let length = self.number()?;
        if length > MAX_TEXT {
            return Err(broken());
        }
        text.resize(length as usize, 0);
        self.from.read_exact(text)
    }

    /// Reads what follows the head of a file's record, as far as it is asked for.
    fn file(&mut self, executable: bool, pick: &Pick<'_>, room: &mut u64) -> io::Result<Frozen> {
        let bytes = self.number()?;
        let fits = bytes <= pick.file_bytes.min(*room);
        let content = match self.content(fits.then_some(bytes))? {
            None => Content::TooLarge,
            Some(content) if (pick.content)(&content) => {
                *room -= bytes;
                Content::Kept(content.into())
            }
            Some(_) => Content::Unwanted,
        };
        Ok(Frozen::File { bytes, content, executable })
    }

    /// Reads a file's pieces: as content of so many bytes, or to skip them.
    fn content(&mut self, bytes: Option<u64>) -> io::Result<Option<Vec<u8>>> {
        let mut content = bytes.map(|bytes| vec![0; bytes as usize]);
        let mut piece = Vec::new();
        while let Some(offset) = self.piece(&mut piece)? {
            let Some(content) = &mut content else { continue };
            let from = usize::try_from(offset).map_err(|_| broken())?;
            let to = from.checked_add(piece.len()).ok_or_else(broken)?;
            content.get_mut(from..to).ok_or_else(broken)?.copy_from_slice(&piece);
        }
        Ok(content)
    }
}

/// A place in a file that others read, too.
struct Cursor<'f> {
    file: &'f File,
    at: u64,
}

impl Read for Cursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the snapshot is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(root: Root, kind: Kind, path: &str) -> Record {
        Record { root, kind, mode: 0o755, modified: (-7, 9), path: path.into() }
    }

    fn snapshot(write: impl FnOnce(&mut RecordWriter<&mut File>) -> io::Result<()>) -> Snapshot {
        let mut file = tempfile::tempfile().unwrap();
        let mut to = RecordWriter::new(&mut file, 1 << 20);
        write(&mut to).unwrap();
        to.finish().unwrap();
        Snapshot::new(file, None).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let snapshot = snapshot(|to| {
            to.record(&record(Root::Work, Kind::NewDirectory, "d"))?;
            to.record(&record(Root::Work, Kind::File, "d/sparse"))?;
            to.number(6)?;
            to.piece(4, b"ab")?;
            to.piece(0, b"")?;
            to.record(&record(Root::Tmp, Kind::File, "secret"))?;
            to.number(1)?;
            to.piece(0, b"x")?;
            to.piece(0, b"")?;
            to.record(&record(Root::Work, Kind::Symlink, "link"))?;
            to.text(b"/etc/passwd")?;
            to.record(&record(Root::Work, Kind::Link, "other"))?;
            to.text(b"d/sparse")?;
            to.record(&record(Root::Work, Kind::Absent, "gone"))
        });
        let entry = |path: &str, what| FrozenEntry { path: path.into(), what };
        let file = |content: &Content| Frozen::File {
            bytes: 6,
            content: content.clone(),
            executable: true,
        };
        let whole = Content::Kept(b"\0\0\0\0ab"[..].into());
        for (most, content) in [(6, &whole), (5, &Content::TooLarge)] {
            let expected = [
                entry("d", Frozen::Directory { hides: true }),
                entry("d/sparse", file(content)),
                entry("link", Frozen::Symlink("/etc/passwd".into())),
                entry("other", file(content)),
                entry("gone", Frozen::Absent),
            ];
            assert_eq!(snapshot.work_tree(&Pick::all(most, 100)).unwrap(), expected);
            assert_eq!(snapshot.work_tree(&Pick::all(100, most)).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_not_asked_for_takes_no_room() {
        let snapshot = snapshot(|to| {
            for (path, content) in
                [("litter", b"lit"), ("binary", b"\xff\xff\xff"), ("text", b"txt")]
            {
                to.record(&record(Root::Work, Kind::File, path))?;
                to.number(3)?;
                to.piece(0, content)?;
                to.piece(0, b"")?;
            }
            for path in ["name of litter", "another"] {
                to.record(&record(Root::Work, Kind::Link, path))?;
                to.text(b"litter")?;
            }
            Ok(())
        });
        let pick = Pick {
            path: &|path| path != Path::new("litter"),
            content: &|content| std::str::from_utf8(content).is_ok(),
            ..Pick::all(3, 6)
        };
        let entry = |path: &str, content| FrozenEntry {
            path: path.into(),
            what: Frozen::File { bytes: 3, content, executable: true },
        };
        let expected = [
            entry("binary", Content::Unwanted),
            entry("text", Content::Kept(b"txt"[..].into())),
            entry("name of litter", Content::Kept(b"lit"[..].into())),
            entry("another", Content::Kept(b"lit"[..].into())),
        ];
        assert_eq!(snapshot.work_tree(&pick).unwrap(), expected);
    }

    #[test]
    fn damage_is_an_error() {
        let cases: [(&str, &[u8]); 4] = [
            ("an unknown kind", &[0, 99]),
            ("an unknown tree", &[9, 0]),
            ("the end within a record", &[0, 0, 1]),
            ("a path of all memory", &[&[0, 0][..], &[0; 24], &[255; 8]].concat()),
        ];
        for (name, bytes) in cases {
            let snapshot = snapshot(|to| to.bytes(bytes));
            assert!(snapshot.work_tree(&Pick::all(1, 1)).is_err(), "{name}");
        }
        let beyond = snapshot(|to| {
            to.record(&record(Root::Work, Kind::File, "f"))?;
            to.number(1)?;
            to.piece(u64::MAX, b"x")
        });
        assert!(beyond.work_tree(&Pick::all(1, 1)).is_err(), "a piece beyond the file's end");
        let astray = snapshot(|to| {
            to.record(&record(Root::Work, Kind::Link, "f"))?;
            to.text(b"nowhere")
        });
        assert!(astray.work_tree(&Pick::all(1, 1)).is_err(), "a name of no file");
    }

    #[test]
    fn there_is_an_end_to_what_is_written() {
        let mut to = RecordWriter::new(Vec::new(), 12);
        assert!(to.number(1).is_ok());
        assert_eq!(to.number(2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
