//! What the service asks of a session, and what the session answers.
//!
//! Asks go to the slot, which hands those about commands on to pid 1. Each has a number; the answer
//! has the same one. A command's answer comes when it has ended.

use super::{
    job::{LIMITS, encode_env, encode_strings, text},
    wire::{Reader, Writer},
};
use crate::{Command, Over};

/// An ask.
#[derive(Debug)]
pub(super) enum Ask<'a> {
    /// Start a command. Descriptors: stdin, stdout, stderr, one for each channel.
    Start(Start<'a>),
    /// Send this signal to the process group of the command with this number; 0: to everything.
    Signal {
        to: u64,
        signal: i32,
    },
    /// Write a file's bytes into the descriptor.
    Read {
        path: &'a [u8],
        offset: u64,
        most: u64,
    },
    /// Make a file of what comes out of the descriptor.
    Write {
        path: &'a [u8],
        executable: bool,
    },
    /// Write records of all writable files into the descriptor, up to so many bytes.
    Freeze {
        most: u64,
    },
    Pause,
    Resume,
    /// Renew the lease.
    Beat,
    /// Kill everything, keep the files.
    End,
}

/// A command.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) argv: Vec<&'a [u8]>,
    pub(super) env: Vec<&'a [u8]>,
    pub(super) cwd: &'a [u8],
    pub(super) channels: Vec<i32>,
}

const START: u64 = 0;
const SIGNAL: u64 = 1;
const READ: u64 = 2;
const WRITE: u64 = 3;
const FREEZE: u64 = 4;
const PAUSE: u64 = 5;
const RESUME: u64 = 6;
const BEAT: u64 = 7;
const END: u64 = 8;

/// Encodes the start of a command.
pub(super) fn encode_start(number: u64, command: &Command) -> Vec<u8> {
    let mut to = Writer(Vec::with_capacity(1024));
    to.u64(number);
    to.u64(START);
    encode_strings(&mut to, &command.argv);
    encode_env(&mut to, &command.env);
    to.bytes(command.cwd.as_os_str().as_encoded_bytes());
    to.u64(command.channels.len() as u64);
    command.channels.iter().for_each(|channel| to.u64(channel.fd as u64));
    to.0
}

impl<'a> Ask<'a> {
    /// Encodes any other ask.
    pub(super) fn encode(&self, number: u64) -> Vec<u8> {
        let mut to = Writer(Vec::with_capacity(128));
        to.u64(number);
        match self {
            // By `encode_start`.
            Self::Start(_) => to.u64(START),
            Self::Signal { to: command, signal } => {
                to.u64(SIGNAL);
                to.u64(*command);
                to.u64(*signal as u64);
            }
            Self::Read { path, offset, most } => {
                to.u64(READ);
                to.bytes(path);
                to.u64(*offset);
                to.u64(*most);
            }
            Self::Write { path, executable } => {
                to.u64(WRITE);
                to.bytes(path);
                to.u64(u64::from(*executable));
            }
            Self::Freeze { most } => {
                to.u64(FREEZE);
                to.u64(*most);
            }
            Self::Pause => to.u64(PAUSE),
            Self::Resume => to.u64(RESUME),
            Self::Beat => to.u64(BEAT),
            Self::End => to.u64(END),
        }
        to.0
    }

    /// Decodes an ask and its number; `None` when the bytes are none.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<(u64, Self)> {
        let mut from = Reader(bytes);
        let from = &mut from;
        let number = from.u64()?;
        let ask = match from.u64()? {
            START => Self::Start(Start {
                argv: from.list(Reader::bytes)?,
                env: from.list(Reader::bytes)?,
                cwd: from.bytes()?,
                channels: from.list(|from| i32::try_from(from.u64()?).ok())?,
            }),
            SIGNAL => Self::Signal { to: from.u64()?, signal: from.u64()? as i32 },
            READ => Self::Read { path: from.bytes()?, offset: from.u64()?, most: from.u64()? },
            WRITE => Self::Write { path: from.bytes()?, executable: from.u64()? != 0 },
            FREEZE => Self::Freeze { most: from.u64()? },
            PAUSE => Self::Pause,
            RESUME => Self::Resume,
            BEAT => Self::Beat,
            END => Self::End,
            _ => return None,
        };
        Some((number, ask))
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The session is ready for its first command, or pid 1 for the next message; to number 0.
    Ready,
    /// Every process is dead, and why; to number 0.
    Over(Over),
    /// It was done.
    Done,
    /// A file of this size was read.
    Size(u64),
    /// A command ended.
    Ended(End),
    /// It was not done: an errno, or 0 and what was wrong.
    Refused { errno: i32, what: String },
    /// It was not done: all is paused.
    Paused,
    /// It was not done: every process is dead.
    Dead,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// The raw wait status.
    pub(super) wait_status: i32,
    /// Whether everything else was killed to start it.
    pub(super) cleared: bool,
    /// Whether memory ran out meanwhile. The slot knows.
    pub(super) out_of_memory: bool,
    /// CPU time of the session meanwhile. The slot knows.
    pub(super) cpu_ns: u64,
    /// How long it had stood without a CPU when it was killed, else 0. The slot knows.
    pub(super) stalled_ns: u64,
}

const OVERS: [Over; 7] = [
    Over::Ended,
    Over::Lease,
    Over::Broken,
    Over::Limit(LIMITS[0]),
    Over::Limit(LIMITS[1]),
    Over::Limit(LIMITS[2]),
    Over::Limit(LIMITS[3]),
];

impl Reply {
    pub(super) fn refused(what: &str, e: &std::io::Error) -> Self {
        Self::Refused { errno: e.raw_os_error().unwrap_or(libc::EIO), what: what.to_owned() }
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        match self {
            Self::Ready => to.u64(0),
            Self::Over(over) => {
                to.u64(1);
                to.u64(OVERS.iter().position(|o| o == over).unwrap_or_default() as u64);
            }
            Self::Done => to.u64(2),
            Self::Size(size) => {
                to.u64(3);
                to.u64(*size);
            }
            Self::Ended(end) => {
                to.u64(4);
                to.u64(u64::from(end.wait_status as u32));
                to.u64(u64::from(end.cleared));
                to.u64(u64::from(end.out_of_memory));
                to.u64(end.cpu_ns);
                to.u64(end.stalled_ns);
            }
            Self::Refused { errno, what } => {
                to.u64(5);
                to.u64(*errno as u64);
                to.bytes(what.as_bytes());
            }
            Self::Paused => to.u64(6),
            Self::Dead => to.u64(7),
        }
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Option<Self> {
        Some(match from.u64()? {
            0 => Self::Ready,
            1 => Self::Over(*OVERS.get(usize::try_from(from.u64()?).ok()?)?),
            2 => Self::Done,
            3 => Self::Size(from.u64()?),
            4 => Self::Ended(End {
                wait_status: from.u64()? as i32,
                cleared: from.u64()? != 0,
                out_of_memory: from.u64()? != 0,
                cpu_ns: from.u64()?,
                stalled_ns: from.u64()?,
            }),
            5 => Self::Refused { errno: from.u64()? as i32, what: text(from)? },
            6 => Self::Paused,
            7 => Self::Dead,
            _ => return None,
        })
    }
}
