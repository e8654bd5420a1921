//! The Docker backend in its plain form: a container per evaluation, over the engine's API.
//!
//! The container has no network, no capability, a read-only root, and the engine's limits. Its work
//! tree is a capped tmpfs that a small shell script fills from the attached stdin before it becomes
//! the command, so nothing is built, committed or copied through the engine's storage. Collected
//! channels are FIFOs, and trusted files read-only binds, of a host directory that only we write.

mod container;
mod tree;

use std::{collections::HashMap, fmt, io, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bollard::{
    Docker as Engine,
    query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder},
};
use tracing::{info, warn};

use crate::{Backend, BackendError, BackendResult, ImageRef, Sandbox, SandboxId, SandboxSpec};
use container::Container;

/// Marks our containers; its value is the process id and start time of the service that owns one.
const OWNER_LABEL: &str = "assay.owner";

/// Runs commands in containers of a Docker engine on this machine. Cheap to clone.
#[derive(Clone)]
pub struct Docker {
    engine: Engine,
    owner: Arc<str>,
    /// Holds a directory per running container. On this machine: the engine binds from it.
    state_dir: Arc<PathBuf>,
}

impl Docker {
    /// Connects to the engine that `DOCKER_HOST` or the usual socket names, and removes containers
    /// that services no longer alive left behind.
    ///
    /// # Errors
    ///
    /// [`BackendError::Gone`] when no engine answers.
    pub async fn connect(state_dir: PathBuf) -> BackendResult<Self> {
        let engine = Engine::connect_with_defaults().map_err(gone)?;
        engine.ping().await.map_err(gone)?;
        std::fs::create_dir_all(&state_dir)
            .map_err(|source| io_error(format!("create {}", state_dir.display()), source))?;
        let docker = Self {
            engine,
            owner: owner(std::process::id()).into(),
            state_dir: Arc::new(state_dir),
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
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            if let Err(error) = self.engine.remove_container(&id, Some(options)).await {
                warn!(container = id, %error, "cannot remove it");
            }
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
        self.image_digest(image).await?;
        let archive = tree::archive(&spec.layers)?;
        Ok(Box::new(Container {
            id: SandboxId::generate(),
            docker: self.clone(),
            image: image.clone(),
            spec,
            archive,
        }))
    }
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

fn io_error(what: String, source: io::Error) -> BackendError {
    BackendError::Io { what, source }
}

fn unsupported(what: &str) -> BackendError {
    BackendError::Unsupported { backend: "docker", what: what.to_owned() }
}
