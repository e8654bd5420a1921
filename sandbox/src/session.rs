//! The contract for sandboxes that run several commands: what an agent works in.

use std::{io, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    BackendError, BackendResult, Capture, Command, Isolation, LimitKind, SandboxId, SandboxSpec,
    Snapshot, Termination, Usage,
};

/// What a session is made of.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// Its files and limits. Limits hold over the session's whole life, its wall-clock time
    /// included; `output_bytes` holds for each command.
    pub sandbox: SandboxSpec,
    /// The writable files that it starts with, of a session with the same layers.
    pub from: Option<Snapshot>,
    /// After how long without a call it is ended and freed.
    pub lease: Duration,
}

/// A sandbox that stays for several commands. Dropping it, with its [`Process`]es, kills everything
/// inside and frees it.
///
/// Commands share files, processes and limits; whatever one leaves running is there for the next.
/// The sandbox is as confined as one for a single command, from its first moment to its last.
#[async_trait]
pub trait Session: std::fmt::Debug + Send + Sync {
    /// Returns its id.
    fn id(&self) -> SandboxId;

    /// Returns how it is confined, as far as this host allows.
    fn isolation(&self) -> Isolation;

    /// Returns why it has no process any more, if that is so.
    fn over(&self) -> Option<Over>;

    /// Starts a command beside those that run. It is killed when it has run for `wall`.
    ///
    /// Where no further process can be made, because earlier commands left as many as there may
    /// be, those are killed first, and [`Ended::cleared`] says so.
    async fn start(
        &self,
        command: Command,
        wall: Duration,
    ) -> Result<Box<dyn Process>, SessionError>;

    /// Sends a signal to the process group of the command with this [number](Process::number), or
    /// with number 0 to every process of the session. One that has ended is no error.
    async fn signal(&self, number: u64, signal: i32) -> Result<(), SessionError>;

    /// Reads up to `most` bytes of a regular file from `offset` on, as the sandbox's user would.
    /// Returns them with the size of the file. A path is absolute inside, or relative to the work
    /// tree; links lead nowhere but inside.
    async fn read(
        &self,
        path: &Path,
        offset: u64,
        most: usize,
    ) -> Result<(Vec<u8>, u64), SessionError>;

    /// Makes `path` a regular file of this content, as the sandbox's user would. Missing folders
    /// are made.
    async fn write(
        &self,
        path: &Path,
        content: Arc<[u8]>,
        executable: bool,
    ) -> Result<(), SessionError>;

    /// Freezes the writable files: what was changed in the work tree, and `/tmp`. Processes stand
    /// still meanwhile, where the host can make them.
    async fn snapshot(&self) -> Result<Snapshot, SessionError>;

    /// Makes all its processes stand still until [`resume`](Self::resume). No command can be started
    /// meanwhile; files can be read. The lease and the wall-clock time go on.
    async fn pause(&self) -> Result<(), SessionError>;

    /// Undoes [`pause`](Self::pause).
    async fn resume(&self) -> Result<(), SessionError>;

    /// Renews the lease, as every other call does.
    async fn heartbeat(&self) -> Result<(), SessionError>;

    /// Kills every process. Afterwards its files can be read and frozen, and nothing changes them.
    async fn end(&self) -> Result<(), SessionError>;

    /// Kills every process, frees the sandbox and returns what all commands together used.
    async fn close(self: Box<Self>) -> BackendResult<Usage>;
}

/// A command of a session. Dropping it before its end kills its process group.
#[async_trait]
pub trait Process: std::fmt::Debug + Send {
    /// Returns its number in the session, from 1.
    fn number(&self) -> u64;

    /// Waits for what the command does next: a piece of output, or its end, which comes once.
    /// Whoever doesn't call it for long makes a command wait that writes much. Cancel safe.
    async fn next(&mut self) -> Result<Event, SessionError>;
}

/// What a command did.
#[derive(Clone, Debug)]
pub enum Event {
    /// It wrote these bytes. Only the first half of
    /// [`Limits::output_bytes`](crate::Limits::output_bytes) comes so; [`Ended`] holds the rest.
    Output(Stream, Vec<u8>),
    /// It ended.
    Ended(Box<Ended>),
}

/// Where a command wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// The end of a command.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How its first process ended. Of [`LimitKind`]s there are `Wall` and `WallStarved`, for the
    /// command's own time, and `Memory`, when the session was out of memory while it ran.
    pub termination: Termination,
    /// What it wrote to stdout behind what came as [`Event::Output`].
    pub stdout: Capture,
    /// What it wrote to stderr behind what came as [`Event::Output`].
    pub stderr: Capture,
    /// What it wrote to each collected channel, in the order of the command's channels.
    pub channels: Vec<Capture>,
    /// From its start to the end of its first process.
    pub wall: Duration,
    /// CPU time of the session meanwhile.
    pub cpu: Duration,
    /// Whether what earlier commands left running was killed to make room for it.
    pub cleared: bool,
}

/// Why a session has no process any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Over {
    /// It was asked to.
    Ended,
    /// Nobody called it for as long as its lease; it is freed.
    Lease,
    /// It went over a limit of its whole life.
    Limit(LimitKind),
    /// Its first process, which is ours, is dead: what runs inside did that.
    Broken,
}

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ended => "it was ended",
            Self::Lease => "nobody called it for as long as its lease",
            Self::Limit(LimitKind::Cpu) => "it used up its CPU time",
            Self::Limit(LimitKind::Memory) => "it used up its memory",
            Self::Limit(LimitKind::Wall) => "its time was up",
            Self::Limit(LimitKind::WallStarved) => {
                "its time was up, for which others had taken the CPU"
            }
            Self::Broken => "its first process died",
        })
    }
}

/// Why a session did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It has no process any more, or is freed.
    #[error("the session is over: {0}")]
    Over(Over),
    /// It stands still.
    #[error("the session is paused")]
    Paused,
    /// The path is no regular file, or what the kernel says to the sandbox's user.
    #[error("{path}: {what}")]
    File {
        /// As asked for.
        path: String,
        /// What is wrong with it.
        what: String,
        /// What kind of error it is.
        kind: io::ErrorKind,
    },
    /// There is no room for a further snapshot. Later there may be.
    #[error("snapshots take all of the {bytes} bytes that there are for them")]
    NoRoom {
        /// What there is for all of them.
        bytes: u64,
    },
    /// The session's files can't be frozen: what runs inside made them so.
    #[error("the files can't be frozen: {0}")]
    Freeze(String),
    /// Ours or the caller's fault, never the sandboxed program's.
    #[error(transparent)]
    Backend(#[from] BackendError),
}
