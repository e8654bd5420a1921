//! What a sandbox is made of and what it is asked to run.

use std::{collections::BTreeMap, fmt, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use uuid::Uuid;

/// One sandbox, from `create` until it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SandboxId(Uuid);

impl SandboxId {
    /// Makes a new id. Ids sort by creation time.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The root filesystem of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageRef {
    /// An unpacked root filesystem on the host, used read-only; `native` takes these.
    Rootfs {
        /// Its root directory on the host.
        path: PathBuf,
        /// The digest of its content, `sha256:...`.
        digest: String,
    },
    /// An image that the Docker engine holds, by id or by name; `docker` takes these.
    Docker(String),
}

/// A file that a layer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileEntry {
    /// A regular file, owned by the sandbox's user.
    File {
        /// Its content.
        content: Arc<[u8]>,
        /// Whether its mode is 0755 instead of 0644.
        executable: bool,
    },
    /// A symbolic link with this target. Never followed on the host.
    Symlink(PathBuf),
    /// The path is absent, whatever lower layers hold: a file or a whole directory.
    Absent,
}

/// A part of the work tree. Upper layers win over lower ones.
#[derive(Clone, Debug)]
pub enum Layer {
    /// A directory on the host, shared read-only by many sandboxes.
    Dir(Arc<PathBuf>),
    /// A few files, by path relative to the work directory. Paths are plain: not absolute, no `..`,
    /// no empty component; a backend refuses others with [`BackendError::Spec`](crate::BackendError).
    Files(Arc<BTreeMap<PathBuf, FileEntry>>),
}

/// Everything that a sandbox holds.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// The root filesystem.
    pub image: ImageRef,
    /// Where the work tree appears inside; absolute. Writable, unlike the rest of the root.
    pub workdir: PathBuf,
    /// The work tree, lowest layer first.
    pub layers: Vec<Layer>,
    /// Files that the sandboxed user can read but not write or replace, by absolute path inside
    /// (runner and launcher scripts). They are outside the work tree.
    pub trusted: Arc<BTreeMap<PathBuf, Arc<[u8]>>>,
    /// What the sandbox may use.
    pub limits: Limits,
}

/// What a sandbox may use. A process that goes over one is ended, and the [`Execution`] says which.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Wall-clock time from the start of the command.
    pub wall: Duration,
    /// CPU time of all processes together, user and system.
    pub cpu: Duration,
    /// Memory of all processes together, in bytes, without the disk.
    pub memory_bytes: u64,
    /// Processes and threads at the same time.
    pub pids: u32,
    /// Bytes in the writable layer and in `/tmp` together.
    pub disk_bytes: u64,
    /// Files in the writable layer and in `/tmp` together.
    pub inodes: u64,
    /// Bytes kept of stdout, of stderr and of each channel: half from the head, half from the tail.
    pub output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(60),
            cpu: Duration::from_secs(60),
            memory_bytes: 1 << 30,
            pids: 128,
            disk_bytes: 256 << 20,
            inodes: 20_000,
            output_bytes: 1 << 20,
        }
    }
}

/// One command to run in a sandbox.
#[derive(Debug, Default)]
pub struct Command {
    /// Program (absolute path inside) and arguments.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// The working directory, relative to the work tree.
    pub cwd: PathBuf,
    /// Bytes fed to stdin, which then ends.
    pub stdin: Arc<[u8]>,
    /// Further file descriptors of the process.
    pub channels: Vec<Channel>,
}

/// A file descriptor that the command finds open, beside 0, 1 and 2.
#[derive(Debug)]
pub struct Channel {
    /// Its number inside, 3 or above.
    pub fd: i32,
    /// What is at its other end.
    pub end: ChannelEnd,
}

/// What a [`Channel`] is connected to.
#[derive(Debug)]
pub enum ChannelEnd {
    /// The host collects what is written to it, up to `max_bytes`; more is a truncated capture.
    /// Collected bytes come back in [`Execution::channels`](crate::Execution), in order of `Command::channels`.
    Collect {
        /// Most bytes kept. Unlike stdout, only the head is kept.
        max_bytes: usize,
    },
    /// An open descriptor of ours, such as one end of a socket pair whose other end another
    /// sandbox has. `docker` refuses it.
    Fd(OwnedFd),
}
