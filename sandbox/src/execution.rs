//! What running a command left behind: facts, no verdict.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One command that ran in a sandbox. When it exists, every process of the sandbox is dead.
#[derive(Clone, Debug)]
pub struct Execution {
    /// How the command's first process ended.
    pub termination: Termination,
    /// What it wrote to stdout.
    pub stdout: Capture,
    /// What it wrote to stderr.
    pub stderr: Capture,
    /// What it wrote to each collected channel, in the order of the command's channels.
    pub channels: Vec<Capture>,
    /// What it used.
    pub usage: Usage,
    /// How the sandbox was confined, as far as this host allows.
    pub isolation: Isolation,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// It exited with this status.
    Exited(i32),
    /// A signal ended it.
    Signaled(i32),
    /// It went over a limit and was killed.
    Limit(LimitKind),
}

impl Termination {
    /// Whether the command exited with status 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }
}

/// A limit that ends a command.
///
/// A full disk or a full process table is none of these: the command sees `ENOSPC` or `EAGAIN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// [`Limits::wall`](crate::Limits), while CPU time was to be had.
    Wall,
    /// [`Limits::wall`](crate::Limits), while the machine starved it of CPU: ours, not the command's.
    WallStarved,
    /// [`Limits::cpu`](crate::Limits).
    Cpu,
    /// [`Limits::memory_bytes`](crate::Limits).
    Memory,
}

/// Output that was drained all the time and kept up to a bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// The first bytes.
    pub head: Vec<u8>,
    /// The last bytes, when some between were dropped.
    pub tail: Vec<u8>,
    /// Bytes dropped between head and tail.
    pub dropped: u64,
}

impl Capture {
    /// Returns all bytes, or `None` when some were dropped.
    #[must_use]
    pub fn complete(&self) -> Option<&[u8]> {
        (self.dropped == 0 && self.tail.is_empty()).then_some(&self.head)
    }

    /// Returns head and tail as text, with a line between them that says what is missing.
    #[must_use]
    pub fn lossy(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.head).into_owned();
        if self.dropped > 0 {
            text.push_str(&format!("\n[{} bytes dropped]\n", self.dropped));
        }
        text.push_str(&String::from_utf8_lossy(&self.tail));
        text
    }
}

/// What a command used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// From the start of the command until every process was dead.
    pub wall: Duration,
    /// User and system time of all processes.
    pub cpu: Duration,
    /// Most memory at a time, in bytes; 0 where nothing can measure it.
    pub peak_memory_bytes: u64,
    /// Making the sandbox ready, before the command started.
    pub setup: Duration,
    /// Times that the fork of a process was refused because of the pids limit.
    pub pids_refused: u64,
    /// How long some thread stood ready to run without a CPU, which neighbours or others of its own
    /// had. Counted from the first look at a run (5 ms to 250 ms after its start); 0 for shorter
    /// ones and where nothing can measure it.
    pub stalled: Duration,
    /// Instructions, counted so that another run of the same program counts the same; `None` where
    /// nothing counts them.
    pub instructions: Option<u64>,
}

/// What confined a sandbox, so that a record can say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// "native", "docker", "wasm" or "fake".
    pub backend: String,
    /// Protections that this host could not give, each with what stood in for it:
    /// `"memory: rlimits (no cgroup can be delegated)"`. Empty when all were on.
    pub fallbacks: Vec<String>,
    /// How the command's first process came to be.
    pub start: Start,
}

/// How the first process of a command came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// Its program was executed.
    #[default]
    Cold,
    /// Its program was executed, although the command may be [warm](crate::Warm); this is why.
    ColdInstead(String),
    /// It is a fork of an interpreter that was up.
    Warm,
}
