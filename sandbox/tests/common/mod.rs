//! What the tests share.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use assay_sandbox::{
    ImageRef, Limits, SandboxSpec,
    native::{Native, NativeConfig},
};

/// Returns the Python root filesystem, or says why there is none.
pub(crate) fn rootfs() -> Option<ImageRef> {
    let cache = std::env::var_os("ASSAY_CACHE").map(PathBuf::from).or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
        base.map(|base| base.join("assay"))
    })?;
    let path = cache.join("rootfs/python/tree");
    if !path.is_dir() {
        println!("skipped: no root filesystem; run `make rootfs`");
        return None;
    }
    Some(ImageRef::Rootfs { path, digest: "sha256:test".to_owned() })
}

/// Starts a backend.
pub(crate) fn native() -> Option<Native> {
    rootfs()?;
    let state = tempfile::tempdir().expect("a folder").keep();
    let mut config = NativeConfig::new(state);
    config.spawner = env!("CARGO_BIN_EXE_assay-spawner").into();
    Some(Native::start(config).expect("a backend"))
}

/// Returns a sandbox with an empty work tree.
pub(crate) fn spec() -> SandboxSpec {
    SandboxSpec {
        image: rootfs().expect("a root filesystem"),
        workdir: "/work".into(),
        layers: Vec::new(),
        trusted: Arc::new(BTreeMap::new()),
        limits: Limits::default(),
    }
}
