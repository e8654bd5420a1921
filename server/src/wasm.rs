//! The images for WASI of this machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use assay_fleet::Backends;
use assay_sandbox::{
    ImageRef,
    wasm::{Wasm, WasmConfig},
};
use serde::Deserialize;
use tracing::warn;

/// An interpreter that `scripts/make-wasm-python.sh` made.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct WasmImage {
    pub(crate) module: PathBuf,
    pub(crate) digest: String,
    pub(crate) python: String,
    pub(crate) source: String,
}

impl WasmImage {
    /// Reads what is known of the image `wasm:NAME`; `None` when it was not made yet.
    ///
    /// # Errors
    ///
    /// Its description can't be read, or its module is gone.
    pub(crate) fn find(cache: &Path, name: &str) -> anyhow::Result<Option<Self>> {
        let file = cache.join("wasm").join(name).join("image.toml");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
        };
        let image: Self = toml::from_str(&text)
            .with_context(|| format!("{} is damaged; run `make wasm`", file.display()))?;
        let module = &image.module;
        anyhow::ensure!(module.is_file(), "{} is gone; run `make wasm`", module.display());
        Ok(Some(image))
    }

    pub(crate) fn image(&self) -> ImageRef {
        ImageRef::Wasm { module: self.module.clone(), digest: self.digest.clone() }
    }
}

/// Adds those of the images `asked` that are for WASI and are here. They get ready meanwhile.
///
/// # Errors
///
/// What is there is damaged, or this machine has no room for an engine.
pub(crate) fn add<'a>(
    mut backends: Backends,
    cache: &Path,
    asked: impl Iterator<Item = &'a str>,
) -> anyhow::Result<Backends> {
    let mut names: Vec<&str> = asked.filter_map(|image| image.strip_prefix("wasm:")).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Ok(backends);
    }
    let wasm = start(cache, |_| {})?;
    for name in names {
        let Some(found) = WasmImage::find(cache, name)? else {
            warn!("there is no image `wasm:{name}` yet, so its tasks can't run; run `make wasm`");
            continue;
        };
        let (image, loaded, early) = (found.image(), found.image(), wasm.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = early.load(&loaded) {
                warn!(%error, "an interpreter does not get ready");
            }
        });
        let backend = Arc::new(wasm.clone());
        backends = backends.with_image(format!("wasm:{name}"), backend, image, found.digest);
    }
    Ok(backends)
}

/// Starts the wasm backend.
///
/// # Errors
///
/// This machine has no room for it.
pub(crate) fn start(cache: &Path, set: impl FnOnce(&mut WasmConfig)) -> anyhow::Result<Wasm> {
    let mut config = WasmConfig::new(cache.join("wasm/compiled"));
    set(&mut config);
    Wasm::start(config).context("start the wasm backend")
}
