//! Layers, layouts and a store to put them in.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use assay_images::{Digest, Image, ImageError, Store};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// This machine's name to images.
pub(crate) const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// A store of its own, and a folder beside it.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::below(&folder.path().join("cache"));
        Self { folder, store }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and returns where.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("a file");
        path
    }

    /// Imports an image of these layers.
    pub(crate) fn import(&self, layers: &[Vec<u8>]) -> Result<Image, ImageError> {
        let path = self.path("layout");
        let _ = fs::remove_dir_all(&path);
        Layout::of(layers).write(&path);
        self.store.import(&path, Some("test".parse().expect("a name")))
    }

    /// Everything in the store but its lock and empty folders.
    pub(crate) fn holdings(&self) -> Vec<String> {
        let mut found = Vec::new();
        let root = self.path("cache/images");
        for folder in ["layers", "names", "staging"] {
            for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
                found.push(format!("{folder}/{}", entry.file_name().display()));
            }
        }
        found
    }
}

/// An image that is being written as a tar.
pub(crate) struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// A layer with a shell, without which there is no image.
    pub(crate) fn with_shell() -> Self {
        let shell = fs::read("/bin/sh").expect("a shell on this machine");
        Self::new().file("bin/sh", 0o755, &shell)
    }

    /// Adds an entry as it comes: no path is too strange.
    pub(crate) fn raw(
        mut self,
        path: &[u8],
        link: &[u8],
        content: &[u8],
        set: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_entry_type(EntryType::Regular);
        set(&mut header);
        header.set_cksum();
        self.0.append(&header, content).expect("an entry");
        self
    }

    pub(crate) fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.raw(path.as_bytes(), b"", content, |header| header.set_mode(mode))
    }

    pub(crate) fn folder(self, path: &str) -> Self {
        self.kind(path, "", EntryType::Directory)
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.kind(path, target, EntryType::Symlink)
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.kind(path, target, EntryType::Link)
    }

    pub(crate) fn kind(self, path: &str, link: &str, kind: EntryType) -> Self {
        self.raw(path.as_bytes(), link.as_bytes(), b"", |header| header.set_entry_type(kind))
    }

    pub(crate) fn extended(mut self, extensions: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(extensions.iter().copied()).expect("extensions");
        self
    }

    pub(crate) fn tar(self) -> Vec<u8> {
        self.0.into_inner().expect("a tar")
    }
}

/// An OCI image layout: documents and blobs, to be spoilt before they are written.
pub(crate) struct Layout {
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
    pub(crate) layers: Vec<Value>,
    pub(crate) config: Value,
    pub(crate) platform: Option<Value>,
}

impl Layout {
    pub(crate) fn of(layers: &[Vec<u8>]) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(Digest::of).collect();
        let config = json!({
            "architecture": ARCHITECTURE, "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let mut layout =
            Self { blobs: BTreeMap::new(), layers: Vec::new(), config, platform: None };
        for layer in layers {
            let descriptor = layout.add(layer, "application/vnd.oci.image.layer.v1.tar");
            layout.layers.push(descriptor);
        }
        layout
    }

    /// Adds a blob and returns its descriptor.
    pub(crate) fn add(&mut self, blob: &[u8], media_type: &str) -> Value {
        let digest = Digest::of(blob);
        self.blobs.insert(digest.clone(), blob.to_vec());
        json!({ "mediaType": media_type, "digest": digest, "size": blob.len() })
    }

    pub(crate) fn write(mut self, path: &Path) {
        let config = self.config.to_string();
        let config = self.add(config.as_bytes(), "application/vnd.oci.image.config.v1+json");
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": self.layers });
        let manifest =
            self.add(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
        self.write_index(path, vec![manifest]);
    }

    pub(crate) fn write_index(mut self, path: &Path, mut manifests: Vec<Value>) {
        if let Some(platform) = self.platform.take() {
            manifests[0]["platform"] = platform;
        }
        let blobs = path.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a folder");
        for (digest, blob) in &self.blobs {
            fs::write(blobs.join(digest.hex()), blob).expect("a blob");
        }
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        fs::write(path.join("index.json"), index.to_string()).expect("an index");
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
    }
}
