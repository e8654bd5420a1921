//! The `native` backend: namespaces, overlayfs, cgroups and seccomp of the Linux kernel, no daemon.
//!
//! ```text
//! service (many threads) ── spawner (one thread, own executable anew) ── slot ── pid 1 ── command
//!         └──────────────── one socket per slot ──────────────────────────┘
//! ```
//!
//! The service never forks. Its spawner forks slots; a slot is one user namespace with one host
//! user, and makes one sandbox at a time: it clones pid 1 into fresh pid, mount, network, ipc, uts
//! and cgroup namespaces, watches its limits, and reports once everything in it is dead. The service
//! drains the output meanwhile. A killed service takes spawner, slots and sandboxes along.

mod cgroup;
mod instance;
mod job;
mod output;
mod probe;
mod proc;
mod seccomp;
mod setup;
mod shared;
mod slot;
mod spawner;
mod sys;
mod watch;
mod wire;

use std::{
    collections::VecDeque,
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::{debug, warn};

use self::{
    instance::Instance,
    job::{Done, Report},
    output::{Drain, Drains},
    slot::HostIds,
    spawner::NewSlot,
};
pub use self::{
    probe::{Finding, probe},
    spawner::spawner_main_if_asked,
};
use crate::{
    Backend, BackendError, BackendResult, Capture, ChannelEnd, Command, Execution, ImageRef,
    Isolation, Layer, Sandbox, SandboxId, SandboxSpec, Termination, Usage, collect::Collector,
};

/// How a [`Native`] backend is set up.
#[derive(Clone, Debug)]
pub struct NativeConfig {
    /// The executable that becomes the spawner: one whose `main` calls [`spawner_main_if_asked`].
    pub spawner: PathBuf,
    /// Where lock files lie by which a later start finds what a killed service left.
    pub state_dir: PathBuf,
    /// The first of the host's user ids that sandboxes get, when the service is root. Each slot has
    /// its own; the id before it is root inside. Further services on the host go on a thousand ids
    /// higher each.
    pub first_uid: u32,
    /// Most sandboxes at the same time; further ones wait.
    pub max_sandboxes: usize,
}

impl NativeConfig {
    /// Returns the defaults: this executable, 256 sandboxes.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            // Still the same file after the one on disk was replaced.
            spawner: PathBuf::from("/proc/self/exe"),
            state_dir: state_dir.into(),
            first_uid: 200_001,
            max_sandboxes: 256,
        }
    }
}

/// The backend. Clones share everything; when the last one and the last sandbox are dropped, so is
/// everything on the machine.
#[derive(Clone)]
pub struct Native {
    inner: Arc<Inner>,
}

struct Inner {
    config: NativeConfig,
    runtime: Handle,
    /// Whether sandboxes get host users of their own.
    as_root: bool,
    instance: Instance,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    spawner: Option<(std::process::Child, OwnedFd)>,
    /// The one that has rested longest first: the others may still prepare for their next sandbox.
    free: VecDeque<Slot>,
    /// Whether a slot is being made that nobody waits for.
    making_spare: bool,
    slots_made: u32,
}

/// Our end of a slot.
struct Slot {
    number: u32,
    socket: AsyncFd<OwnedFd>,
    /// User namespaces whose id maps layers and images get; absent for an ordinary user.
    mappings: Option<(OwnedFd, OwnedFd)>,
    fallbacks: Arc<Vec<String>>,
}

/// A slot that the spawner was asked for.
struct AskedSlot {
    number: u32,
    socket: OwnedFd,
    fallbacks: Vec<String>,
}

impl AskedSlot {
    /// Waits until it is ready.
    async fn ready(self) -> BackendResult<Slot> {
        let Self { number, socket, mut fallbacks } = self;
        let socket = sys::watch(socket, Interest::READABLE)
            .map_err(|e| failed("make a slot's socket", e))?;
        let (bytes, mut fds) = receive(&socket)
            .await
            .map_err(|e| gone(&format!("slot {number} ended before it was ready: {e}")))?;
        let mut from = wire::Reader(&bytes);
        if from.u64() == Some(0) {
            let own = from.list(wire::Reader::bytes).unwrap_or_default();
            fallbacks.extend(own.iter().map(|text| String::from_utf8_lossy(text).into_owned()));
            let images = fds.pop();
            let mappings = fds.pop().zip(images);
            return Ok(Slot { number, socket, mappings, fallbacks: Arc::new(fallbacks) });
        }
        Err(match Report::decode(from.0) {
            Some(Report::Failed { step, errno }) => {
                failed(&step, io::Error::from_raw_os_error(errno))
            }
            _ => gone(&format!("slot {number} sent no answer")),
        })
    }
}

impl Slot {
    /// Whether it lives and has nothing to say: the spawner may have died and taken it along.
    fn is_idle(&self) -> bool {
        let result = wire::receive(self.socket.get_ref(), &mut [0; 8]);
        matches!(result, Err(rustix::io::Errno::AGAIN))
    }
}

impl Native {
    /// Starts the spawner, after clearing away what services that were killed left in
    /// `config.state_dir`. Slots are made when they are needed.
    ///
    /// # Errors
    ///
    /// [`BackendError::Io`] when the spawner can't be started or there is no tokio runtime here.
    pub fn start(config: NativeConfig) -> BackendResult<Self> {
        let runtime = Handle::try_current()
            .map_err(|e| failed("find a tokio runtime", io::Error::other(e)))?;
        let as_root = rustix::process::geteuid().is_root();
        let instance = Instance::open(&config.state_dir, as_root).map_err(|e| {
            failed(&format!("prepare state folder {}", config.state_dir.display()), e)
        })?;
        let inner = Inner {
            as_root,
            permits: Arc::new(Semaphore::new(config.max_sandboxes)),
            state: Mutex::default(),
            config,
            runtime,
            instance,
        };
        inner.start_spawner(&mut inner.lock())?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    async fn create(&self, spec: SandboxSpec) -> BackendResult<Box<dyn Sandbox>> {
        let image = check_spec(&spec)?;
        let permit = Arc::clone(&self.inner.permits)
            .acquire_owned()
            .await
            .map_err(|e| failed("wait for a free sandbox", io::Error::other(e)))?;
        let slot = self.inner.slot().await?;
        let mounts = open_mounts(&slot, &image, &spec);
        let busy = Busy {
            inner: Arc::clone(&self.inner),
            slot: Some(slot),
            running: false,
            _permit: permit,
        };
        Ok(Box::new(NativeSandbox {
            id: SandboxId::generate(),
            busy,
            mounts: mounts?,
            image,
            spec,
        }))
    }
}

struct NativeSandbox {
    id: SandboxId,
    busy: Busy,
    /// For a service that is root: the image and each directory layer, with the slot's ids.
    mounts: Option<Vec<OwnedFd>>,
    image: PathBuf,
    spec: SandboxSpec,
}

#[async_trait]
impl Sandbox for NativeSandbox {
    fn id(&self) -> SandboxId {
        self.id
    }

    async fn run(self: Box<Self>, command: Command) -> BackendResult<Execution> {
        let Self { id, mut busy, mounts, image, spec } = *self;
        check_command(&command)?;
        let connected =
            connect(&spec, &command).map_err(|e| failed("make pipes for the command", e))?;
        let job = job::encode(&spec, &image, &command, mounts.is_some());
        // From here on a slot is either heard of or given up.
        busy.running = true;
        send_job(busy.slot()?, job, &connected, mounts.as_deref().unwrap_or_default(), &command)
            .map_err(|e| gone(&format!("slot takes no command: {e}")))?;
        drop(mounts);
        let Connected { ours, stdin, theirs } = connected;
        // The command has its own now; as long as ours were open, no pipe would end.
        drop(theirs);
        // Ends of socket pairs, too: the peer must see when the sandbox's end is closed.
        let channels: Vec<_> = command.channels.into_iter().map(|channel| channel.end).collect();
        let collected: Vec<bool> =
            channels.iter().map(|end| matches!(end, ChannelEnd::Collect { .. })).collect();
        drop(channels);

        let mut drains = Drains::new(ours);
        let slot = busy.slot()?;
        let pump = async {
            tokio::join!(feed(stdin, &command.stdin), drains.drain());
            std::future::pending::<()>().await;
        };
        let report = tokio::select! {
            report = receive_report(slot) => report,
            () = pump => unreachable!("it never ends"),
        };
        let report = report.map_err(|e| gone(&format!("slot {}: {e}", slot.number)))?;
        let fallbacks = slot.fallbacks.as_ref().clone();
        busy.running = false;
        drop(busy);
        let mut captures = drains.finish().into_iter();
        let (stdout, stderr) =
            (captures.next().unwrap_or_default(), captures.next().unwrap_or_default());
        debug_assert_eq!(captures.len(), collected.iter().filter(|c| **c).count());
        match report {
            Report::Failed { step, errno } => {
                warn!(sandbox_id = %id, step, errno, "sandbox could not be made");
                Err(failed(&step, io::Error::from_raw_os_error(errno)))
            }
            Report::Done(done) => {
                debug!(sandbox_id = %id, ?done, "sandbox ended");
                Ok(execution(&done, stdout, stderr, captures.collect(), fallbacks))
            }
        }
    }
}

fn execution(
    done: &Done,
    stdout: Capture,
    stderr: Capture,
    channels: Vec<Capture>,
    fallbacks: Vec<String>,
) -> Execution {
    use std::time::Duration;
    let status = done.wait_status;
    let termination = match done.limit {
        Some(kind) => Termination::Limit(kind),
        None if libc::WIFSIGNALED(status) => Termination::Signaled(libc::WTERMSIG(status)),
        None => Termination::Exited(libc::WEXITSTATUS(status)),
    };
    Execution {
        termination,
        stdout,
        stderr,
        channels,
        usage: Usage {
            wall: Duration::from_nanos(done.wall_ns),
            cpu: Duration::from_nanos(done.cpu_ns),
            peak_memory_bytes: done.peak_memory_bytes,
            setup: Duration::from_nanos(done.setup_ns),
            pids_refused: done.pids_refused,
        },
        isolation: Isolation { backend: "native".to_owned(), fallbacks },
    }
}

/// A slot in somebody's hands. Dropping it kills what runs there and then hands the slot back.
struct Busy {
    inner: Arc<Inner>,
    slot: Option<Slot>,
    running: bool,
    _permit: OwnedSemaphorePermit,
}

impl Busy {
    fn slot(&self) -> BackendResult<&Slot> {
        self.slot.as_ref().ok_or_else(|| gone("slot already handed back"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        if !self.running {
            self.inner.lock().free.push_back(slot);
            return;
        }
        if wire::send(slot.socket.get_ref(), wire::CANCEL, &[]).is_err() {
            return;
        }
        let inner = Arc::clone(&self.inner);
        self.inner.runtime.spawn(async move {
            // Only a slot whose sandbox is dead makes another.
            if receive_report(&slot).await.is_ok() {
                inner.lock().free.push_back(slot);
            }
        });
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_spawner(&self, state: &mut State) -> BackendResult<()> {
        let (child, socket) = spawner::start(&self.config.spawner).map_err(|e| {
            failed(&format!("start the spawner {}", self.config.spawner.display()), e)
        })?;
        let start = spawner::encode_start(self.instance.cgroups.paths());
        wire::send(&socket, &start, &[]).map_err(|e| failed("greet the spawner", e))?;
        state.free.clear();
        state.spawner = Some((child, socket));
        Ok(())
    }

    /// Returns a free slot, or makes one.
    async fn slot(self: &Arc<Self>) -> BackendResult<Slot> {
        let asked = {
            let mut state = self.lock();
            let free = loop {
                match state.free.pop_front() {
                    Some(slot) if !slot.is_idle() => {}
                    other => break other,
                }
            };
            if state.free.is_empty() && !state.making_spare {
                self.make_spare(&mut state);
            }
            match free {
                Some(slot) => return Ok(slot),
                None => self.ask_for_slot(&mut state)?,
            }
        };
        asked.ready().await
    }

    /// Has a slot made for whoever comes next, so that nobody waits for one, nor for the network
    /// namespace that a slot makes between two sandboxes.
    fn make_spare(self: &Arc<Self>, state: &mut State) {
        let Ok(asked) = self.ask_for_slot(state) else { return };
        state.making_spare = true;
        let inner = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let slot = asked.ready().await;
            if let Some(inner) = inner.upgrade() {
                let mut state = inner.lock();
                state.making_spare = false;
                // Whoever needs one and gets none will see the error.
                state.free.extend(slot.ok());
            }
        });
    }

    /// Asks the spawner for another slot; starts a new spawner if that one is gone.
    fn ask_for_slot(&self, state: &mut State) -> BackendResult<AskedSlot> {
        let number = state.slots_made % instance::IDS;
        state.slots_made += 1;
        let ids = self.as_root.then(|| HostIds {
            root: self.config.first_uid + self.instance.first_id - 1,
            user: self.config.first_uid + self.instance.first_id + number,
        });
        let files = self
            .instance
            .cgroups
            .slot(number, ids.map(|ids| ids.user))
            .map_err(|e| failed("make a slot's cgroups", e))?;
        let (ours, theirs) = wire::pair().map_err(|e| failed("make a slot's socket", e))?;
        let message = spawner::encode_slot(&NewSlot { ids }, &files);
        let mut fds = vec![theirs.as_fd()];
        fds.extend(files.fds());
        for attempt in 0..2 {
            let Some((_, socket)) = &state.spawner else { break };
            match wire::send(socket, &message, &fds) {
                Ok(()) => {
                    let fallbacks = self.instance.cgroups.fallbacks.clone();
                    return Ok(AskedSlot { number, socket: ours, fallbacks });
                }
                Err(e) if attempt == 0 => {
                    warn!(error = %e, "the spawner is gone; starting another");
                    self.start_spawner(state)?;
                }
                Err(e) => return Err(gone(&format!("spawner: {e}"))),
            }
        }
        Err(gone("no spawner"))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((mut child, socket)) = state.spawner.take() {
            // It kills its slots and removes the cgroups.
            drop(socket);
            let _ = child.wait();
        }
    }
}

fn failed(what: &str, source: io::Error) -> BackendError {
    BackendError::Io { what: what.to_owned(), source }
}

fn gone(what: &str) -> BackendError {
    BackendError::Gone { backend: "native", what: what.to_owned() }
}

/// Receives one datagram. Cancel safe.
async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; 4096];
    loop {
        let mut guard = socket.readable().await?;
        match wire::receive(socket.get_ref(), &mut buffer) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((length, fds)) => {
                buffer.truncate(length);
                return Ok((buffer, fds));
            }
            Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Receives what became of a job. Cancel safe.
async fn receive_report(slot: &Slot) -> io::Result<Report> {
    let (bytes, _) = receive(&slot.socket).await?;
    Report::decode(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The descriptors around a command.
struct Connected {
    /// Stdout, stderr and collected channels.
    ours: Vec<Drain>,
    /// Where stdin is fed, if there is any.
    stdin: Option<tokio::net::unix::pipe::Sender>,
    /// Stdin, stdout, stderr and one for each channel, `None` where the command brings its own.
    theirs: Vec<Option<OwnedFd>>,
}

fn connect(spec: &SandboxSpec, command: &Command) -> io::Result<Connected> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    let stdin = if command.stdin.is_empty() {
        theirs.push(Some(std::fs::File::open("/dev/null")?.into()));
        None
    } else {
        let (read, write) = pipe()?;
        theirs.push(Some(read));
        rustix::io::ioctl_fionbio(&write, true)?;
        Some(tokio::net::unix::pipe::Sender::from_owned_fd_unchecked(write)?)
    };
    for _ in 0..2 {
        let (read, write) = pipe()?;
        ours.push(Drain::new(read, Collector::head_and_tail(spec.limits.output_bytes))?);
        theirs.push(Some(write));
    }
    for channel in &command.channels {
        theirs.push(match channel.end {
            ChannelEnd::Collect { max_bytes } => {
                let (read, write) = pipe()?;
                ours.push(Drain::new(read, Collector::head_only(max_bytes))?);
                Some(write)
            }
            ChannelEnd::Fd(_) => None,
        });
    }
    Ok(Connected { ours, stdin, theirs })
}

async fn feed(pipe: Option<tokio::net::unix::pipe::Sender>, bytes: &[u8]) {
    use tokio::io::AsyncWriteExt;
    let Some(mut pipe) = pipe else { return };
    // A command that reads no more of it is no error.
    let _ = pipe.write_all(bytes).await;
}

fn send_job(
    slot: &Slot,
    job: Vec<u8>,
    connected: &Connected,
    mounts: &[OwnedFd],
    command: &Command,
) -> io::Result<()> {
    let own = command.channels.iter().map(|channel| match &channel.end {
        ChannelEnd::Fd(fd) => Some(fd.as_fd()),
        ChannelEnd::Collect { .. } => None,
    });
    let own = std::iter::repeat_n(None, 3).chain(own);
    let mut fds: Vec<_> = connected
        .theirs
        .iter()
        .zip(own)
        .filter_map(|(theirs, own)| theirs.as_ref().map(AsFd::as_fd).or(own))
        .collect();
    fds.extend(mounts.iter().map(AsFd::as_fd));
    let file;
    let mut message = Vec::with_capacity(job.len() + 1);
    if job.len() < wire::MAX_DATAGRAM {
        message.push(wire::INLINE);
        message.extend(job);
    } else {
        message.extend([wire::IN_FILE; 2]);
        file = memfd_create("job", MemfdFlags::CLOEXEC)?;
        io::Write::write_all(&mut std::fs::File::from(file.try_clone()?), &job)?;
        fds.push(file.as_fd());
    }
    wire::send(slot.socket.get_ref(), &message, &fds)
}

/// Opens image and layers for a slot with host ids of its own.
fn open_mounts(
    slot: &Slot,
    image: &Path,
    spec: &SandboxSpec,
) -> BackendResult<Option<Vec<OwnedFd>>> {
    let Some((for_layers, for_images)) = &slot.mappings else { return Ok(None) };
    let open = |path: &Path, ids: &OwnedFd| {
        setup::detached_mount(path, Some(ids.as_fd())).map_err(|e| {
            let what = format!(
                "mount {} with the sandbox's ids (file systems that can't are no place for it)",
                path.display()
            );
            failed(&what, e)
        })
    };
    let mut mounts = vec![open(image, for_images)?];
    for layer in &spec.layers {
        if let Layer::Dir(path) = layer {
            mounts.push(open(path, for_layers)?);
        }
    }
    Ok(Some(mounts))
}

/// Checks what no machine could do, and returns the image's directory.
fn check_spec(spec: &SandboxSpec) -> BackendResult<PathBuf> {
    let ImageRef::Rootfs { path, .. } = &spec.image else {
        return Err(BackendError::Unsupported {
            backend: "native",
            what: "run a Docker image".to_owned(),
        });
    };
    if !path.is_dir() {
        return Err(BackendError::ImageNotFound(path.display().to_string()));
    }
    crate::spec::check(spec)?;
    let dirs = spec.layers.iter().filter(|layer| matches!(layer, Layer::Dir(_))).count();
    if dirs + 16 > wire::MAX_FDS / 2 {
        return Err(BackendError::Spec(format!("{dirs} directory layers are too many")));
    }
    Ok(path.clone())
}

fn check_command(command: &Command) -> BackendResult<()> {
    crate::spec::check_command(command)
}
