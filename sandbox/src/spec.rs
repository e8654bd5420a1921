//! What a sandbox is made of and what it is asked to run.

use std::{
    collections::BTreeMap,
    fmt,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{BackendError, BackendResult};

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
    /// A root filesystem as layers on the host, used read-only and shared; `native` takes these. They
    /// hide what lies below them as overlayfs with `userxattr` has it.
    Layers {
        /// Their root directories on the host, lowest first.
        paths: Arc<[PathBuf]>,
        /// The digest of their content together, `sha256:...`.
        digest: String,
    },
    /// An image that the Docker engine holds, by id or by name; `docker` takes these.
    Docker(String),
    /// A Python interpreter for WASI; `wasm` takes these.
    Wasm {
        /// The module on the host, as `scripts/make-wasm-python.sh` makes it.
        module: PathBuf,
        /// The digest of its content, `sha256:...`.
        digest: String,
    },
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

/// What a sandbox may use. A process that goes over one is ended, and the [`Execution`](crate::Execution) says which.
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
    /// What an interpreter may have done beforehand that then forks to be this command's process.
    /// `argv` is a Python interpreter, options with `-P` among them, a script and its arguments.
    ///
    /// A backend that can't, or that sees that it would make a difference, executes `argv`;
    /// [`Isolation::start`](crate::Isolation) says which it was.
    pub warm: Option<Warm>,
    /// Ends a command that runs when it is cancelled, as signal 9 would. What it used by then is told as
    /// ever, unlike where [`Sandbox::run`](crate::Sandbox::run) is dropped. No command of a session heeds it.
    pub stop: CancellationToken,
}

/// What a warm interpreter has done before there is a command for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warm {
    /// Modules that it has imported, of the image or of `programs`.
    pub modules: Vec<String>,
    /// Programs of ours by absolute path inside, below `/assay`: compiled, to be run or imported
    /// where a sandbox has the very same content there. None of them may be secret.
    pub programs: Arc<BTreeMap<PathBuf, Arc<[u8]>>>,
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
    /// sandbox has. `docker` passes on what crosses it, and no descriptors.
    Fd(OwnedFd),
}

/// Checks what no machine could do.
pub(crate) fn check(spec: &SandboxSpec) -> BackendResult<()> {
    if !is_plain_absolute(&spec.workdir) {
        return bad(format!("work directory {:?} is not a plain absolute path", spec.workdir));
    }
    for mount in ["/proc", "/dev", "/tmp"] {
        if spec.workdir.starts_with(mount) {
            return bad(format!("work directory {:?} lies in {mount}", spec.workdir));
        }
    }
    for layer in &spec.layers {
        match layer {
            Layer::Dir(path) if !path.is_dir() => {
                return bad(format!("layer {} is no directory", path.display()));
            }
            Layer::Dir(_) => {}
            Layer::Files(files) => check_files(files)?,
        }
    }
    for path in spec.trusted.keys() {
        if !is_plain_absolute(path) {
            return bad(format!("trusted file {path:?} is not a plain absolute path"));
        }
        let hidden = [&*spec.workdir, Path::new("/tmp"), Path::new("/dev"), Path::new("/proc")];
        if let Some(place) = hidden.iter().find(|place| path.starts_with(place)) {
            return bad(format!("trusted file {path:?} would be hidden by {place:?}"));
        }
    }
    Ok(())
}

fn check_files(files: &BTreeMap<PathBuf, FileEntry>) -> BackendResult<()> {
    for path in files.keys() {
        if !is_plain_relative(path) {
            return bad(format!("file {path:?} is not a plain relative path"));
        }
        // A path through a file or a link of the same layer; below an absent one is a new directory.
        let above = path.ancestors().skip(1).find(|above| {
            files.get(*above).is_some_and(|entry| !matches!(entry, FileEntry::Absent))
        });
        if let Some(above) = above {
            return bad(format!("file {path:?} lies below {above:?}, which is no directory"));
        }
    }
    Ok(())
}

/// Checks what no machine could do.
pub(crate) fn check_command(command: &Command) -> BackendResult<()> {
    let Some(program) = command.argv.first() else { return bad("empty argv".to_owned()) };
    if !program.starts_with('/') {
        return bad(format!("program {program:?} is not an absolute path"));
    }
    if !command.cwd.as_os_str().is_empty() && !is_plain_relative(&command.cwd) {
        return bad(format!("cwd {:?} is not a plain relative path", command.cwd));
    }
    if command.warm.is_some() && options(&command.argv).is_none() {
        return bad(format!(
            "{:?} is no interpreter with option -P, others of -s -S -B -E -I, and a script",
            command.argv
        ));
    }
    let strings = command.argv.iter().chain(command.env.keys()).chain(command.env.values());
    if let Some(string) = strings.into_iter().find(|string| string.contains('\0')) {
        return bad(format!("{string:?} holds a NUL byte"));
    }
    if let Some(name) = command.env.keys().find(|name| name.is_empty() || name.contains('=')) {
        return bad(format!("{name:?} is no name of an environment variable"));
    }
    for (number, channel) in command.channels.iter().enumerate() {
        if !(3..64).contains(&channel.fd) {
            return bad(format!("channel descriptor {} is not between 3 and 63", channel.fd));
        }
        if command.channels[..number].iter().any(|other| other.fd == channel.fd) {
            return bad(format!("two channels have descriptor {}", channel.fd));
        }
    }
    Ok(())
}

/// Returns an interpreter and its options, without script and arguments; `None` when there is no
/// script, when its folder would be searched for modules, or when an option is none of those that
/// mean the same to every program.
pub(crate) fn options(argv: &[String]) -> Option<&[String]> {
    let script = argv.iter().skip(1).position(|argument| !argument.starts_with('-'))?;
    let options = &argv[..=script];
    let known = |option: &String| ["-P", "-s", "-S", "-B", "-E", "-I"].contains(&&**option);
    (options[1..].iter().all(known) && options.iter().any(|option| option == "-P"))
        .then_some(options)
}

fn bad<T>(what: String) -> BackendResult<T> {
    Err(BackendError::Spec(what))
}

fn is_plain_absolute(path: &Path) -> bool {
    path.strip_prefix("/").is_ok_and(is_plain_relative)
}

/// Whether a path is relative, not empty, and all its components are names.
fn is_plain_relative(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    let plain = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && part.len() < 256;
    !bytes.contains(&0) && bytes.len() < 4096 && bytes.split(|byte| *byte == b'/').all(plain)
}
