//! How the service and the agent in a container talk: frames over the container's stdin and stdout.
//!
//! A frame is a length (32 bits, little endian, of what follows it), a letter and fields as
//! [`Writer`] puts them. Both ends are the same executable, so the encoding has no versions. Neither
//! end takes more than [`MAX_FRAME`] bytes for a frame, nor trusts a length in it.

use std::io;

use crate::native::{
    job::{Lent, Report},
    wire::{Reader, Writer},
};

/// Most bytes of a frame, without its length.
pub(super) const MAX_FRAME: usize = 4 << 20;
/// Most bytes of stdin or of a channel that may be on their way in one direction, so that nobody has to
/// keep more for somebody who is slow, or to wait for them.
pub(super) const WINDOW: usize = 1 << 20;
/// Most bytes of content that the writer of a frame puts into one.
pub(super) const CHUNK: usize = 64 << 10;

/// What the service asks of an agent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask<'a> {
    /// A file that sandboxes can read; further content follows as [`Ask::More`].
    Trusted { path: &'a [u8], content: &'a [u8] },
    /// From here on the work tree, as this user's.
    User(u32),
    /// A directory of the work tree.
    Directory(&'a [u8]),
    /// A file of the work tree; further content follows as [`Ask::More`].
    File { path: &'a [u8], content: &'a [u8], executable: bool },
    /// A link of the work tree.
    Symlink { path: &'a [u8], target: &'a [u8] },
    /// More content of the last file.
    More(&'a [u8]),
    /// Run this in the work tree so far. Ends with a [`Tell::Report`].
    Run(Run<'a>),
    /// Bytes for stdin (0) or a channel.
    Input { number: i32, bytes: &'a [u8] },
    /// No more of them.
    End(i32),
    /// So many bytes of a channel's [`Tell::Output`] have been passed on: as many more may come.
    Took { number: i32, bytes: u64 },
    /// End the run, if there is one.
    Cancel,
    /// Start an interpreter that finds the trusted files so far. Ends with a [`Tell::Report`].
    Interpreter { number: u64, argv: Vec<&'a [u8]>, env: Vec<&'a [u8]> },
}

/// A command, and limits that the container doesn't know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run<'a> {
    pub(super) argv: Vec<&'a [u8]>,
    pub(super) env: Vec<&'a [u8]>,
    /// Absolute.
    pub(super) cwd: &'a [u8],
    pub(super) wall_ns: u64,
    pub(super) cpu_ns: u64,
    pub(super) pids: u64,
    pub(super) file_bytes: u64,
    /// Bytes kept of stdout and of stderr.
    pub(super) output_bytes: u64,
    /// Number of each channel, and for those that are collected the most bytes of it.
    pub(super) channels: Vec<(i32, Option<u64>)>,
    /// Whether stdin comes as [`Ask::Input`]; it is empty otherwise.
    pub(super) stdin: bool,
    pub(super) lent: Option<Lent>,
}

/// What an agent says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tell<'a> {
    /// It is ready. User ids up to this one exist in the container; further, what the container
    /// lacks.
    Hello { ids: u64, fallbacks: Vec<&'a [u8]> },
    /// Bytes that came out of a channel that is not collected.
    Output { number: i32, bytes: &'a [u8] },
    /// No more of them.
    End(i32),
    /// The command took so many bytes of [`Ask::Input`], or never will: as many more may come.
    Took { number: i32, bytes: u64 },
    /// The next bytes kept of stdout (0), stderr (1) or a collected channel (2 and above, in order).
    Kept { place: u64, tail: bool, bytes: &'a [u8] },
    /// What became of the run or the interpreter. Of each capture, how much was dropped. Whether
    /// all of the run is dead and nothing of it left, so that another may come.
    Report { report: Report, dropped: Vec<u64>, clean: bool },
}

/// Puts the frames of a message together.
#[derive(Debug, Default)]
pub(super) struct Frames(pub(super) Vec<u8>);

impl Frames {
    fn frame(&mut self, letter: u8, fields: impl FnOnce(&mut Writer)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0, 0, 0, letter]);
        let mut to = Writer(std::mem::take(&mut self.0));
        fields(&mut to);
        self.0 = to.0;
        let length = (self.0.len() - start - 4) as u32;
        self.0[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Adds what is asked.
    pub(super) fn ask(&mut self, ask: &Ask<'_>) {
        match ask {
            Ask::Trusted { path, content } => self.content(b't', path, content, |_| ()),
            Ask::User(user) => self.frame(b'u', |to| to.u64((*user).into())),
            Ask::Directory(path) => self.frame(b'd', |to| to.bytes(path)),
            Ask::File { path, content, executable } => {
                self.content(b'f', path, content, |to| to.u64((*executable).into()));
            }
            Ask::Symlink { path, target } => self.frame(b'l', |to| {
                to.bytes(path);
                to.bytes(target);
            }),
            Ask::More(bytes) => self.frame(b'm', |to| to.bytes(bytes)),
            Ask::Run(run) => self.frame(b'r', |to| run.encode(to)),
            Ask::Input { number, bytes } => self.numbered(b'i', *number, bytes),
            Ask::End(number) => self.frame(b'e', |to| to.u64(*number as u64)),
            Ask::Took { number, bytes } => self.took(b'k', *number, *bytes),
            Ask::Cancel => self.frame(b'c', |_| ()),
            Ask::Interpreter { number, argv, env } => self.frame(b'p', |to| {
                to.u64(*number);
                encode_list(to, argv);
                encode_list(to, env);
            }),
        }
    }

    /// Adds what is told.
    pub(super) fn tell(&mut self, tell: &Tell<'_>) {
        match tell {
            Tell::Hello { ids, fallbacks } => self.frame(b'H', |to| {
                to.u64(*ids);
                encode_list(to, fallbacks);
            }),
            Tell::Output { number, bytes } => self.numbered(b'O', *number, bytes),
            Tell::End(number) => self.frame(b'E', |to| to.u64(*number as u64)),
            Tell::Took { number, bytes } => self.took(b'T', *number, *bytes),
            Tell::Kept { place, tail, bytes } => {
                for chunk in bytes.chunks(CHUNK) {
                    self.frame(b'K', |to| {
                        to.u64(*place);
                        to.u64((*tail).into());
                        to.bytes(chunk);
                    });
                }
            }
            Tell::Report { report, dropped, clean } => self.frame(b'R', |to| {
                to.bytes(&report.encode());
                to.u64(dropped.len() as u64);
                dropped.iter().for_each(|bytes| to.u64(*bytes));
                to.u64((*clean).into());
            }),
        }
    }

    /// Adds a file: what fits into its first frame, the rest behind it.
    fn content(&mut self, letter: u8, path: &[u8], content: &[u8], more: impl Fn(&mut Writer)) {
        let (first, rest) = content.split_at(content.len().min(CHUNK));
        self.frame(letter, |to| {
            to.bytes(path);
            to.bytes(first);
            more(to);
        });
        rest.chunks(CHUNK).for_each(|chunk| self.ask(&Ask::More(chunk)));
    }

    fn took(&mut self, letter: u8, number: i32, bytes: u64) {
        self.frame(letter, |to| {
            to.u64(number as u64);
            to.u64(bytes);
        });
    }

    fn numbered(&mut self, letter: u8, number: i32, bytes: &[u8]) {
        for chunk in bytes.chunks(CHUNK) {
            self.frame(letter, |to| {
                to.u64(number as u64);
                to.bytes(chunk);
            });
        }
    }
}

fn encode_list(to: &mut Writer, items: &[&[u8]]) {
    to.u64(items.len() as u64);
    items.iter().for_each(|item| to.bytes(item));
}

impl<'a> Run<'a> {
    fn encode(&self, to: &mut Writer) {
        encode_list(to, &self.argv);
        encode_list(to, &self.env);
        to.bytes(self.cwd);
        for number in [self.wall_ns, self.cpu_ns, self.pids, self.file_bytes, self.output_bytes] {
            to.u64(number);
        }
        to.u64(self.channels.len() as u64);
        for (number, most) in &self.channels {
            to.u64(*number as u64);
            to.u64(most.map_or(0, |most| most.saturating_add(1)));
        }
        to.u64(self.stdin.into());
        to.u64(self.lent.is_some().into());
        if let Some(Lent { number, script }) = self.lent {
            to.u64(number);
            to.u64(script as u64);
        }
    }

    fn decode(from: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            argv: from.list(Reader::bytes)?,
            env: from.list(Reader::bytes)?,
            cwd: from.bytes()?,
            wall_ns: from.u64()?,
            cpu_ns: from.u64()?,
            pids: from.u64()?,
            file_bytes: from.u64()?,
            output_bytes: from.u64()?,
            channels: from.list(|from| Some((number(from)?, from.u64()?.checked_sub(1))))?,
            stdin: from.u64()? == 1,
            lent: match from.u64()? {
                0 => None,
                _ => Some(Lent { number: from.u64()?, script: usize::try_from(from.u64()?).ok()? }),
            },
        })
    }
}

fn number(from: &mut Reader<'_>) -> Option<i32> {
    i32::try_from(from.u64()?).ok()
}

impl<'a> Ask<'a> {
    /// Reads a frame; `None` when it is none.
    pub(super) fn read(frame: &'a [u8]) -> Option<Self> {
        let (letter, fields) = frame.split_first()?;
        let mut from = Reader(fields);
        let from = &mut from;
        Some(match letter {
            b't' => Self::Trusted { path: from.bytes()?, content: from.bytes()? },
            b'u' => Self::User(u32::try_from(from.u64()?).ok()?),
            b'd' => Self::Directory(from.bytes()?),
            b'f' => Self::File {
                path: from.bytes()?,
                content: from.bytes()?,
                executable: from.u64()? == 1,
            },
            b'l' => Self::Symlink { path: from.bytes()?, target: from.bytes()? },
            b'm' => Self::More(from.bytes()?),
            b'r' => Self::Run(Run::decode(from)?),
            b'i' => Self::Input { number: number(from)?, bytes: from.bytes()? },
            b'e' => Self::End(number(from)?),
            b'k' => Self::Took { number: number(from)?, bytes: from.u64()? },
            b'c' => Self::Cancel,
            b'p' => Self::Interpreter {
                number: from.u64()?,
                argv: from.list(Reader::bytes)?,
                env: from.list(Reader::bytes)?,
            },
            _ => return None,
        })
    }
}

impl<'a> Tell<'a> {
    /// Reads a frame; `None` when it is none.
    pub(super) fn read(frame: &'a [u8]) -> Option<Self> {
        let (letter, fields) = frame.split_first()?;
        let mut from = Reader(fields);
        let from = &mut from;
        Some(match letter {
            b'H' => Self::Hello { ids: from.u64()?, fallbacks: from.list(Reader::bytes)? },
            b'O' => Self::Output { number: number(from)?, bytes: from.bytes()? },
            b'E' => Self::End(number(from)?),
            b'T' => Self::Took { number: number(from)?, bytes: from.u64()? },
            b'K' => Self::Kept { place: from.u64()?, tail: from.u64()? == 1, bytes: from.bytes()? },
            b'R' => Self::Report {
                report: Report::decode(from.bytes()?)?,
                dropped: from.list(Reader::u64)?,
                clean: from.u64()? == 1,
            },
            _ => return None,
        })
    }
}

/// Bytes as they come in, cut into frames.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
}

impl Inbox {
    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, if it is there.
    ///
    /// # Errors
    ///
    /// It would be too long.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let rest = &self.bytes[self.start..];
        let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME {
            let what = format!("a frame of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.start += 4 + length;
        Ok(Some(&self.bytes[self.start - length..self.start]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::job::Done;

    #[test]
    fn asks_and_tells_come_through() {
        let run = Run {
            argv: vec![b"/bin/sh", b"-c"],
            env: vec![b"A=1"],
            cwd: b"/w",
            wall_ns: 1,
            cpu_ns: 2,
            pids: 3,
            file_bytes: 4,
            output_bytes: 5,
            channels: vec![(3, Some(0)), (4, None)],
            stdin: true,
            lent: Some(Lent { number: 1, script: 2 }),
        };
        let asks = [
            Ask::Trusted { path: b"/a", content: b"x" },
            Ask::User(7),
            Ask::Directory(b"d"),
            Ask::File { path: b"f", content: b"", executable: true },
            Ask::Symlink { path: b"l", target: b"t" },
            Ask::More(b"m"),
            Ask::Run(run.clone()),
            Ask::Run(Run { stdin: false, lent: None, ..run }),
            Ask::Input { number: 0, bytes: b"in" },
            Ask::End(4),
            Ask::Took { number: 4, bytes: 9 },
            Ask::Cancel,
            Ask::Interpreter { number: 1, argv: vec![b"p"], env: vec![] },
        ];
        let mut frames = Frames::default();
        asks.iter().for_each(|ask| frames.ask(ask));
        let mut inbox = Inbox::default();
        // In pieces of any size.
        let mut seen = 0;
        for piece in frames.0.chunks(3) {
            inbox.push(piece);
            while let Some(frame) = inbox.next().unwrap() {
                assert_eq!(Ask::read(frame).as_ref(), asks.get(seen));
                seen += 1;
            }
        }
        assert_eq!(seen, asks.len());

        let report = Report::Done(Done { wait_status: 256, ..Done::default() });
        let tells = [
            Tell::Hello { ids: 9, fallbacks: vec![b"none"] },
            Tell::Output { number: 4, bytes: b"out" },
            Tell::End(4),
            Tell::Took { number: 0, bytes: 9 },
            Tell::Kept { place: 1, tail: true, bytes: b"end" },
            Tell::Report { report, dropped: vec![0, 7], clean: true },
        ];
        for tell in tells {
            let mut frames = Frames::default();
            frames.tell(&tell);
            assert_eq!(Tell::read(&frames.0[4..]), Some(tell));
        }
    }

    #[test]
    fn a_long_file_comes_in_parts() {
        let content: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        let mut frames = Frames::default();
        frames.ask(&Ask::File { path: b"f", content: &content, executable: false });
        let mut inbox = Inbox::default();
        inbox.push(&frames.0);
        let mut got = Vec::new();
        while let Some(frame) = inbox.next().unwrap() {
            match Ask::read(frame).unwrap() {
                Ask::File { content, .. } | Ask::More(content) => got.extend_from_slice(content),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got, content);
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let mut inbox = Inbox::default();
        inbox.push(&u32::MAX.to_le_bytes());
        assert!(inbox.next().is_err());
        assert_eq!((Ask::read(b""), Tell::read(b"R")), (None, None));
    }
}
