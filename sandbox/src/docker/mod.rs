//! The `docker` backend: containers of an engine on this machine, over its API.
//!
//! ```text
//! service ── frames over the container's stdin and stdout ── agent (pid 1) ── command
//!                                                              └── warm interpreters
//! ```
//!
//! A container has no network, a read-only root, two capabilities (to become other users), and the
//! engine's limits. It is started once for many sandboxes, one after the other: the agent in it makes
//! the work tree on a capped tmpfs, runs the command as a user that is new in the container, ends all
//! of that user, and wipes whatever a user can write to. Sandboxes that differ in image or limits
//! have different containers.

pub(crate) mod agent;
pub(crate) mod frame;
mod lineage;
mod pool;
mod program;
mod run;
mod slot;
mod tree;

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bollard::{Docker as Engine, query_parameters::ListContainersOptionsBuilder};
use tokio::{runtime::Handle, sync::Semaphore};
use tracing::info;

use self::{
    pool::{Busy, Pool},
    program::Program,
    run::DockerSandbox,
    slot::Kind,
    tree::Tree,
};
use crate::{
    Backend, BackendError, BackendResult, ImageRef, Layer, Sandbox, SandboxId, SandboxSpec,
    lineage::Memory, spec,
};

/// How a [`Docker`] backend is set up.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    /// The executable that becomes the agent in containers: one whose `main` calls
    /// [`helper_main_if_asked`](crate::helper_main_if_asked).
    pub agent: PathBuf,
    /// Where that is kept for containers to see, in a folder that the engine sees, too.
    pub state_dir: PathBuf,
    /// Most sandboxes at the same time; further ones wait.
    pub max_sandboxes: usize,
}

impl DockerConfig {
    /// Returns the defaults: this executable, 64 sandboxes.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self { agent: "/proc/self/exe".into(), state_dir: state_dir.into(), max_sandboxes: 64 }
    }
}

/// Marks our containers; its value is the process id and start time of the service that owns one.
const OWNER_LABEL: &str = "assay.owner";

/// Runs commands in containers of a Docker engine on this machine. Clones share everything; with the
/// last of them and the last sandbox the containers go.
#[derive(Clone)]
pub struct Docker {
    engine: Engine,
    /// Whether that is Podman's socket, which takes less.
    is_podman: bool,
    owner: Arc<str>,
    program: Arc<Program>,
    permits: Arc<Semaphore>,
    pool: Arc<Pool>,
    memory: Arc<Memory>,
}

impl Docker {
    /// Connects to the engine that `DOCKER_HOST` or the usual socket names, and removes containers
    /// that services no longer alive left behind.
    ///
    /// # Errors
    ///
    /// [`BackendError::Gone`] when no engine answers.
    pub async fn connect(config: DockerConfig) -> BackendResult<Self> {
        let engine = Engine::connect_with_defaults().map_err(gone)?;
        let version = engine.version().await.map_err(gone)?;
        let is_podman =
            version.components.iter().flatten().any(|part| part.name.contains("Podman"));
        let DockerConfig { agent, state_dir, max_sandboxes } = config;
        let program = std::fs::create_dir_all(&state_dir)
            .and_then(|()| Program::find(&agent, &state_dir))
            .map_err(|source| {
                let (agent, state_dir) = (agent.display(), state_dir.display());
                io_error(format!("keep the agent {agent} in {state_dir}"), source)
            })?;
        let docker = Self {
            engine,
            is_podman,
            owner: owner(std::process::id()).into(),
            program: Arc::new(program),
            permits: Arc::new(Semaphore::new(max_sandboxes)),
            pool: Pool::new(max_sandboxes, Handle::current()),
            memory: Arc::default(),
        };
        docker.reap_orphans().await?;
        Ok(docker)
    }

    /// Returns the id of an image, which names its content: `sha256:...`.
    ///
    /// # Errors
    ///
    /// [`BackendError::ImageNotFound`] when the engine doesn't hold it.
    pub async fn image_digest(&self, image: &str) -> BackendResult<String> {
        match self.engine.inspect_image(image).await {
            Ok(found) => {
                found.id.ok_or_else(|| BackendError::ImageNotFound(format!("{image} (no id)")))
            }
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                Err(BackendError::ImageNotFound(image.to_owned()))
            }
            Err(error) => Err(gone(error)),
        }
    }

    async fn reap_orphans(&self) -> BackendResult<()> {
        let filters = HashMap::from([("label", vec![OWNER_LABEL])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        for found in self.engine.list_containers(Some(options)).await.map_err(gone)? {
            let owned_by = found.labels.unwrap_or_default().remove(OWNER_LABEL);
            let Some((id, owned_by)) = found.id.zip(owned_by) else { continue };
            let process = owned_by.split('-').next().and_then(|pid| pid.parse().ok());
            if process.is_some_and(|pid| owner(pid) == owned_by) {
                continue; // its service lives
            }
            info!(container = id, "removing the container of a service that is gone");
            slot::remove(&self.engine, &id).await;
        }
        Ok(())
    }
}

impl fmt::Debug for Docker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Docker").field("owner", &self.owner).finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    async fn create(&self, spec: SandboxSpec) -> BackendResult<Box<dyn Sandbox>> {
        let ImageRef::Docker(image) = &spec.image else {
            return Err(unsupported(
                "run an unpacked root filesystem; name an image of its engine",
            ));
        };
        check(&spec)?;
        let kind = Kind::of(image, &spec);
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|e| io_error("wait for a free sandbox".to_owned(), io::Error::other(e)))?;
        let slot = self.slot(kind).await?;
        let busy = Busy::new(self.clone(), slot, permit);
        let tree = if spec.layers.iter().any(|layer| matches!(layer, Layer::Dir(_))) {
            let layers = spec.layers.clone();
            let tree = tokio::task::spawn_blocking(move || Tree::of(&layers)).await;
            tree.map_err(|e| io_error("merge the work tree".to_owned(), io::Error::other(e)))??
        } else {
            Tree::of(&spec.layers)?
        };
        Ok(Box::new(DockerSandbox { id: SandboxId::generate(), busy, spec, tree }))
    }
}

/// Checks what no container can do.
fn check(spec: &SandboxSpec) -> BackendResult<()> {
    spec::check(spec)?;
    if spec.workdir.starts_with(agent::TRUSTED) {
        return Err(unsupported(&format!("have a work directory in {}", agent::TRUSTED)));
    }
    match spec.trusted.keys().find(|path| path.parent() != Some(Path::new(agent::TRUSTED))) {
        None => Ok(()),
        Some(path) => {
            let (path, place) = (path.display(), agent::TRUSTED);
            Err(unsupported(&format!("place the trusted file {path}, which is not in {place}")))
        }
    }
}

/// Reads bytes as frames, and each as what either end says.
#[cfg(fuzzing)]
pub(crate) fn decode_anything(bytes: &[u8]) {
    let mut inbox = frame::Inbox::default();
    for piece in bytes.chunks(7) {
        inbox.push(piece);
        while let Ok(Some(read)) = inbox.next() {
            let (_, _) = (frame::Ask::read(read), frame::Tell::read(read));
        }
    }
    let (_, _) = (frame::Ask::read(bytes), frame::Tell::read(bytes));
}

/// Names a process so that a later one with the same id isn't taken for it.
fn owner(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Field 22, counted from behind the program's name, which may hold blanks.
    let started = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(19)).unwrap_or("0");
    format!("{pid}-{started}")
}

fn gone(error: bollard::errors::Error) -> BackendError {
    BackendError::Gone { backend: "docker", what: error.to_string() }
}

/// A container that can't be used any more.
fn lost(what: &str) -> BackendError {
    BackendError::Gone { backend: "docker", what: format!("a container: {what}") }
}

fn io_error(what: String, source: io::Error) -> BackendError {
    BackendError::Io { what, source }
}

fn unsupported(what: &str) -> BackendError {
    BackendError::Unsupported { backend: "docker", what: what.to_owned() }
}
