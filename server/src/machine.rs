//! The backends of this machine.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use assay_fleet::Backends;
use assay_repos::Catalog;
use assay_sandbox::{
    BackendResult, ImageRef,
    docker::Docker,
    native::{Native, NativeConfig},
};
use serde::Deserialize;
use tokio::time::timeout;
use tracing::{info, warn};

/// How long a Docker engine may take to say that it is there.
pub(crate) const ENGINE_ANSWERS: Duration = Duration::from_secs(5);

/// A root filesystem that `scripts/make-rootfs.sh` made.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Rootfs {
    pub(crate) path: PathBuf,
    pub(crate) digest: String,
    pub(crate) python: String,
    pub(crate) pytest: String,
    pub(crate) source: String,
}

impl Rootfs {
    /// Reads what is known of the Python root filesystem; `None` when it was not made yet.
    ///
    /// # Errors
    ///
    /// Its description can't be read, or its tree is gone.
    pub(crate) fn find(cache: &Path) -> anyhow::Result<Option<Self>> {
        let file = cache.join("rootfs/python/rootfs.toml");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
        };
        let rootfs: Self = toml::from_str(&text)
            .with_context(|| format!("{} is damaged; run `make rootfs`", file.display()))?;
        let tree = &rootfs.path;
        anyhow::ensure!(tree.is_dir(), "{} is gone; run `make rootfs`", tree.display());
        Ok(Some(rootfs))
    }

    pub(crate) fn image(&self) -> ImageRef {
        ImageRef::Rootfs { path: self.path.clone(), digest: self.digest.clone() }
    }
}

/// Finds what can run the tasks here. An image that is not there fails its tasks, not the service.
///
/// # Errors
///
/// What is there is damaged, or doesn't start.
pub(crate) async fn backends(
    cache: &Path,
    catalog: &Catalog,
    instead: Option<&str>,
) -> anyhow::Result<Backends> {
    let mut backends = Backends::new();
    #[cfg(feature = "wasm")]
    {
        let asked = catalog.tasks().map(|task| task.image.as_str()).chain(instead);
        backends = crate::wasm::add(backends, cache, asked)?;
    }
    if let Some(rootfs) = Rootfs::find(cache)? {
        let (image, digest) = (rootfs.image(), rootfs.digest.clone());
        backends = backends.with_image("python", Arc::new(native(cache, |_| {})?), image, digest);
    } else {
        warn!("there is no root filesystem yet, so most tasks can't run; run `make rootfs`");
    }
    let images: BTreeSet<&str> = catalog
        .tasks()
        .map(|task| task.image.as_str())
        .chain(instead)
        .filter(|image| image.starts_with("docker:"))
        .collect();
    if images.is_empty() {
        return Ok(backends);
    }
    let docker = match timeout(ENGINE_ANSWERS, docker(cache)).await {
        Ok(Ok(docker)) => Arc::new(docker),
        Ok(Err(error)) => {
            info!(%error, "no Docker engine, so image tasks can't run");
            return Ok(backends);
        }
        Err(_) => {
            warn!("the Docker engine does not answer, so image tasks can't run");
            return Ok(backends);
        }
    };
    for image in images {
        let name = image.trim_start_matches("docker:");
        // By its id: an image that is built again under its name is another one.
        match docker.image_digest(name).await {
            Ok(id) => {
                let by_id = ImageRef::Docker(id.clone());
                backends = backends.with_image(image, Arc::clone(&docker) as _, by_id, id);
            }
            Err(error) => info!(%error, "an image is not there, so its tasks can't run"),
        }
    }
    Ok(backends.with_docker(docker))
}

/// Connects to the Docker engine of this machine.
///
/// # Errors
///
/// There is none, or it doesn't answer as one.
pub(crate) async fn docker(cache: &Path) -> BackendResult<Docker> {
    Docker::connect(cache.join("containers")).await
}

/// Starts the native backend. Its lock files lie in one place for all services of a user, so that
/// each clears away what any killed one left.
///
/// # Errors
///
/// This machine makes no sandboxes; `assay doctor` says why.
pub(crate) fn native(cache: &Path, set: impl FnOnce(&mut NativeConfig)) -> anyhow::Result<Native> {
    let mut config = NativeConfig::new(cache.join("sandboxes"));
    set(&mut config);
    Native::start(config).context("start the native backend; `assay doctor` says what it needs")
}
