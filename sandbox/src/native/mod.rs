//! The `native` backend: namespaces, overlayfs, cgroups and seccomp of the Linux kernel, no daemon.
//!
//! ```text
//! service (many threads) ── spawner (one thread, own executable anew) ── slot ── pid 1 ── command
//!         └──────────────── one socket per slot ────────────┴── warm interpreters
//! ```
//!
//! The service never forks. Its spawner forks slots; a slot is one user namespace with one host
//! user, and makes one sandbox at a time: it clones pid 1 into fresh pid, mount, network, ipc, uts
//! and cgroup namespaces (before there is a command for it), watches its limits, and reports once
//! everything in it is dead. The service drains the output meanwhile. A killed service takes
//! spawner, slots and sandboxes along.

mod cgroup;
mod cpus;
mod errand;
mod freeze;
mod init;
mod instance;
pub(crate) mod job;
mod keep;
mod landlock;
mod lending;
mod lineage;
mod link;
mod net;
mod number;
mod output;
mod pool;
mod probe;
mod process;
mod root;
mod rooted;
pub(crate) mod run;
pub(crate) mod seccomp;
mod session;
pub(crate) mod setup;
pub(crate) mod shared;
pub(crate) mod slot;
mod spawner;
#[cfg_attr(not(feature = "docker"), expect(dead_code, reason = "some of it is the Docker agent's"))]
pub(crate) mod sys;
mod talk;
pub(crate) mod tree;
pub(crate) mod warm;
mod watch;
pub(crate) mod wire;

use std::{
    fmt, io,
    num::NonZero,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{runtime::Handle, sync::Semaphore};

pub use self::pool::SlotCounts;
pub use self::probe::{Finding, probe};
pub(crate) use self::spawner::spawner_main_if_asked;
use self::{
    cpus::{Cpu, Cpus},
    instance::Instance,
    job::Making,
    number::Numbers,
    pool::{Busy, Inner, Slot, State},
    rooted::RootKey,
    run::NativeSandbox,
    session::NativeSession,
};
use crate::{
    Backend, BackendError, BackendResult, ImageRef, Layer, Sandbox, SandboxId, SandboxSpec,
    Session, SessionSpec, lineage::Memory, room::Rooms,
};

/// How a [`Native`] backend is set up.
#[derive(Clone, Debug)]
pub struct NativeConfig {
    /// The executable that becomes the spawner: one whose `main` calls
    /// [`helper_main_if_asked`](crate::helper_main_if_asked).
    pub spawner: PathBuf,
    /// Where lock files lie by which a later start finds what a killed service left.
    pub state_dir: PathBuf,
    /// The first of the host's user ids that sandboxes get, when the service is root. Each slot has
    /// its own; the id before it is root inside. Further services on the host go on a thousand ids
    /// higher each.
    pub first_uid: u32,
    /// Most sandboxes at the same time; further ones wait.
    pub max_sandboxes: usize,
    /// Whether a slot prepares its next sandbox after each, for two seconds: a waiting process, for
    /// a third of a short run's time.
    pub ahead: bool,
    /// Resting slots below which more are made, before anybody asks for them; also of those that have
    /// the image and trusted files of a sandbox that found one. One that is taken counts no more, so
    /// the next caller finds one unless more come at once.
    pub idle_low: usize,
    /// Resting slots above which those that nobody needs for a while are ended, with their warm
    /// interpreters: what a burst needed is given back.
    pub idle_high: usize,
    /// How long that while is.
    pub needless: Duration,
    /// Most bytes that all snapshots of sessions take in `state_dir`, and never more than half of
    /// what is free there at the start.
    pub snapshot_bytes: u64,
    /// Whether a sandbox runs on one CPU, the one that has the fewest when it starts, and so leaves
    /// the others alone. A program that looks how many there are finds one; it can ask for more.
    pub pin: bool,
}

impl NativeConfig {
    /// Returns the defaults: this executable, 256 sandboxes, prepared ahead, one resting slot at
    /// least and eight for each CPU (16 for one) after a burst and half a minute.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            // Still the same file after the one on disk was replaced.
            spawner: PathBuf::from("/proc/self/exe"),
            state_dir: state_dir.into(),
            first_uid: 200_001,
            max_sandboxes: 256,
            ahead: true,
            idle_low: 1,
            idle_high: 8 * thread::available_parallelism().map_or(1, NonZero::get).max(2),
            needless: Duration::from_secs(30),
            snapshot_bytes: 16 << 30,
            pin: false,
        }
    }
}

/// The backend. Clones share everything; when the last one and the last sandbox are dropped, so is
/// everything on the machine.
#[derive(Clone)]
pub struct Native {
    inner: Arc<Inner>,
    snapshots: Arc<Rooms>,
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
        let free = rustix::fs::statvfs(&config.state_dir)
            .map_err(|e| failed("look how much disk is free", e.into()))?;
        let half = free.f_bavail.saturating_mul(free.f_frsize) / 2;
        let snapshots = Rooms::new(config.snapshot_bytes.min(half));
        let inner = Inner {
            as_root,
            permits: Arc::new(Semaphore::new(config.max_sandboxes)),
            numbers: Numbers::below(instance::IDS),
            cpus: Cpus::of_this_process(),
            state: Mutex::new(State::new(&config)),
            memory: Memory::default(),
            config,
            runtime,
            instance,
        };
        inner.start_spawner(&mut inner.lock())?;
        Ok(Self { inner: Arc::new(inner), snapshots })
    }

    /// Returns what the slots did since the start.
    #[must_use]
    pub fn slots(&self) -> SlotCounts {
        self.inner.counts()
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
        let place = self.place(&spec).await?;
        Ok(Box::new(NativeSandbox { id: SandboxId::generate(), place, spec }))
    }

    async fn open(&self, spec: SessionSpec) -> BackendResult<Box<dyn Session>> {
        let place = self.place(&spec.sandbox).await?;
        Ok(Box::new(NativeSession::open(spec, place, Arc::clone(&self.snapshots)).await?))
    }
}

/// Where a sandbox will be, and what it is made from there.
struct Place {
    busy: Busy,
    /// The directories of its image.
    image: Arc<[PathBuf]>,
    /// For a service that is root: the directory layers, with the slot's ids.
    mounts: Option<Vec<OwnedFd>>,
}

impl Place {
    /// Returns what the slot has to be told with the job.
    fn making(&self) -> Making {
        Making { cpu: self.busy.cpu.as_ref().map(Cpu::number), mounts: self.mounts.is_some() }
    }
}

impl Native {
    /// Finds a slot for a sandbox.
    async fn place(&self, spec: &SandboxSpec) -> BackendResult<Place> {
        let image = check_spec(spec)?;
        let permit = Arc::clone(&self.inner.permits)
            .acquire_owned()
            .await
            .map_err(|e| failed("wait for a free sandbox", io::Error::other(e)))?;
        let root = RootKey::of(&image, spec)?;
        let slot = self.inner.slot(&root, &image).await?;
        let inner = Arc::clone(&self.inner);
        let cpu = if inner.config.pin { inner.cpus.take() } else { None };
        let mut busy = Busy { inner, slot: Some(slot), running: false, cpu, _permit: Some(permit) };
        rooted::ensure(&mut busy, root, &image).await?;
        let mounts = open_layers(busy.slot()?, spec)?;
        Ok(Place { busy, image, mounts })
    }
}

/// Reads bytes as a request, a report and an interpreter's word.
#[cfg(fuzzing)]
pub(crate) fn decode_anything(bytes: &[u8]) {
    let _ = job::decode(bytes);
    if let Some(report) = job::Report::decode(bytes) {
        assert_eq!(job::Report::decode(&report.encode()), Some(report));
    }
    let _ = talk::Ask::decode(bytes);
    let _ = warm::said(bytes);
    let _ = spawner::decode_slot(bytes);
}

fn failed(what: &str, source: io::Error) -> BackendError {
    BackendError::Io { what: what.to_owned(), source }
}

fn gone(what: &str) -> BackendError {
    BackendError::Gone { backend: "native", what: what.to_owned() }
}

/// Opens the directory layers for a slot with host ids of its own.
fn open_layers(slot: &Slot, spec: &SandboxSpec) -> BackendResult<Option<Vec<OwnedFd>>> {
    let Some((for_layers, _)) = &slot.mappings else { return Ok(None) };
    let directories = spec.layers.iter().filter_map(|layer| match layer {
        Layer::Dir(path) => Some(path),
        Layer::Files(_) => None,
    });
    directories.map(|path| mount(path, for_layers.as_fd())).collect::<BackendResult<_>>().map(Some)
}

/// Opens a directory as a detached mount with these ids.
fn mount(path: &Path, ids: BorrowedFd<'_>) -> BackendResult<OwnedFd> {
    root::detached_mount(path, Some(ids)).map_err(|e| {
        let what = format!(
            "mount {} with the sandbox's ids (file systems that can't are no place for it)",
            path.display()
        );
        failed(&what, e)
    })
}

/// Checks what no machine could do, and returns the image's directories, lowest first.
fn check_spec(spec: &SandboxSpec) -> BackendResult<Arc<[PathBuf]>> {
    let image: Arc<[PathBuf]> = match &spec.image {
        ImageRef::Rootfs { path, .. } => Arc::new([path.clone()]),
        ImageRef::Layers { paths, .. } => Arc::clone(paths),
        ImageRef::Docker(_) => {
            return Err(BackendError::Unsupported {
                backend: "native",
                what: "run a Docker image; `assay image import` takes what `docker save` writes"
                    .to_owned(),
            });
        }
        ImageRef::Wasm { .. } => {
            return Err(BackendError::Unsupported {
                backend: "native",
                what: "run an interpreter for WASI".to_owned(),
            });
        }
    };
    if image.is_empty() {
        return Err(BackendError::Spec("an image without layers".to_owned()));
    }
    if let Some(gone) = image.iter().find(|path| !path.is_dir()) {
        return Err(BackendError::ImageNotFound(gone.display().to_string()));
    }
    crate::spec::check(spec)?;
    let dirs = spec.layers.iter().filter(|layer| matches!(layer, Layer::Dir(_))).count();
    if dirs + image.len() + 16 > wire::MAX_FDS / 2 {
        return Err(BackendError::Spec(format!(
            "{dirs} directory layers on {} of the image are too many",
            image.len()
        )));
    }
    Ok(image)
}
