//! An OCI image layout, or what `docker save` writes: from its index to manifest, configuration and
//! layers. Every document is checked against the digest that led to it.
//!
//! Sources: the OCI image specification (image-layout.md, image-index.md, manifest.md, config.md);
//! Docker's `manifest.json`, which older engines and Podman write instead of an index.

use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{Digest, ImageError, ImageResult, error::refuse, inside::open_inside, merged::MACHINE};

/// Most bytes of a manifest, an index or a configuration.
pub(crate) const DOCUMENT_BYTES: u64 = 4 << 20;
/// Most layers of an image. Docker's own limit is 127; a sandbox has each as a mount.
const MOST_LAYERS: usize = 80;
/// How deep an index may lie in an index.
const MOST_INDEXES: usize = 3;

/// A reference to a blob.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// What an image is made of.
#[derive(Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What an image says of itself.
#[derive(Deserialize)]
struct Config {
    architecture: String,
    os: String,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

/// An entry of Docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: PathBuf,
    layers: Vec<PathBuf>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

/// Where a layer lies, and what it must be.
#[derive(Debug)]
pub(crate) struct LayerBlob {
    path: PathBuf,
    /// The digest and the length of the blob; Docker's older form has none.
    pub(crate) blob: Option<Descriptor>,
    pub(crate) diff_id: Digest,
}

/// An image of a layout.
#[derive(Debug)]
pub(crate) struct Found {
    /// What it was called there.
    pub(crate) name: Option<String>,
    /// Lowest first.
    pub(crate) layers: Vec<LayerBlob>,
}

/// A folder with a layout in it.
pub(crate) struct Layout {
    root: OwnedFd,
    path: PathBuf,
}

impl Layout {
    pub(crate) fn open(path: &Path) -> ImageResult<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| ImageError::io("open", path)(e.into()))?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// Finds the one image for this machine.
    pub(crate) fn image(&self) -> ImageResult<Found> {
        match self.file(Path::new("index.json")) {
            Ok(file) => {
                let index: Index =
                    parse(&read(file, DOCUMENT_BYTES)?).map_err(|e| e.of("`index.json`"))?;
                let (manifest, name) = self.choose(index, 1)?;
                self.of_manifest(&manifest, name)
            }
            Err(Errno::NOENT) => self.saved(),
            Err(e) => Err(ImageError::io("open", self.path.join("index.json"))(e.into())),
        }
    }

    /// Follows a manifest whose bytes are known to be right.
    pub(crate) fn of_manifest(&self, bytes: &[u8], name: Option<String>) -> ImageResult<Found> {
        let manifest: Manifest = parse(bytes).map_err(|e| e.of("manifest"))?;
        let config = self.document(&manifest.config).map_err(|e| e.of("configuration"))?;
        let diff_ids = diff_ids(&config)?;
        if diff_ids.len() != manifest.layers.len() {
            return refuse(format!(
                "{} layers, but diff ids of {}",
                manifest.layers.len(),
                diff_ids.len()
            ));
        }
        let layers = manifest.layers.into_iter().zip(diff_ids).map(|(blob, diff_id)| {
            if blob.media_type.contains("encrypted") || blob.media_type.contains("foreign") {
                return refuse(format!(
                    "layer {}: {} is not supported",
                    blob.digest, blob.media_type
                ));
            }
            Ok(LayerBlob { path: place(&blob.digest), blob: Some(blob), diff_id })
        });
        Ok(Found { name, layers: layers.collect::<ImageResult<_>>()? })
    }

    /// Opens what a layer lies in; the error is a refusal where it is not there.
    pub(crate) fn layer(&self, layer: &LayerBlob) -> ImageResult<File> {
        self.open_blob(&layer.path, layer.blob.as_ref().map(|blob| blob.size))
    }

    /// Returns the manifest for this machine, and the name that it has here.
    fn choose(&self, index: Index, depth: usize) -> ImageResult<(Vec<u8>, Option<String>)> {
        let one = fitting(&index)?;
        let name = name_of(one);
        let bytes = self.document(one)?;
        match parse_index(&bytes) {
            Some(inner) if depth < MOST_INDEXES => {
                let (manifest, inner) = self.choose(inner, depth + 1)?;
                Ok((manifest, name.or(inner)))
            }
            Some(_) => refuse("an index in an index, too deep"),
            None => Ok((bytes, name)),
        }
    }

    /// Follows Docker's older `manifest.json`.
    fn saved(&self) -> ImageResult<Found> {
        let file = self.file(Path::new("manifest.json"));
        let file =
            file.map_err(|e| ImageError::io("open", self.path.join("manifest.json"))(e.into()))?;
        let saved: Vec<Saved> =
            parse(&read(file, DOCUMENT_BYTES)?).map_err(|e| e.of("`manifest.json`"))?;
        let [one] = &saved[..] else {
            return refuse(format!("{} images; save one at a time", saved.len()));
        };
        let config = read(self.open_blob(&one.config, None)?, DOCUMENT_BYTES)?;
        // Its file is called by its digest.
        let named = one.config.file_name().and_then(|name| name.to_str());
        let hex = named.map_or("", |name| name.trim_end_matches(".json"));
        if hex != Digest::of(&config).hex() {
            return refuse(format!("configuration {} has another digest", one.config.display()));
        }
        let diff_ids = diff_ids(&config)?;
        if diff_ids.len() != one.layers.len() {
            return refuse(format!(
                "{} layers, but diff ids of {}",
                one.layers.len(),
                diff_ids.len()
            ));
        }
        let layers = one.layers.iter().cloned().zip(diff_ids);
        let layers = layers.map(|(path, diff_id)| LayerBlob { path, blob: None, diff_id });
        let name = one.repo_tags.iter().flatten().next().cloned();
        Ok(Found { name, layers: layers.collect() })
    }

    /// Reads a small blob and checks it.
    fn document(&self, descriptor: &Descriptor) -> ImageResult<Vec<u8>> {
        let file = self.open_blob(&place(&descriptor.digest), Some(descriptor.size))?;
        let bytes = read(file, DOCUMENT_BYTES)?;
        check_digest(&descriptor.digest, &Digest::of(&bytes))?;
        Ok(bytes)
    }

    fn open_blob(&self, path: &Path, size: Option<u64>) -> ImageResult<File> {
        let shown = path.as_os_str().as_encoded_bytes().escape_ascii();
        let file = match self.file(path) {
            Ok(file) => file,
            Err(Errno::NOENT) => return refuse(format!("`{shown}` is missing")),
            Err(e) => return Err(ImageError::io("open", self.path.join(path))(e.into())),
        };
        let metadata = file.metadata().map_err(ImageError::io("open", self.path.join(path)))?;
        if !metadata.is_file() {
            return refuse(format!("`{shown}` is no file"));
        }
        match size {
            Some(size) if size != metadata.len() => {
                refuse(format!("`{shown}` has {} bytes and should have {size}", metadata.len()))
            }
            _ => Ok(file),
        }
    }

    /// Opens a file of the layout, whose links lead nowhere else.
    fn file(&self, path: &Path) -> rustix::io::Result<File> {
        // A pipe would have us wait.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        open_inside(&self.root, path.as_os_str(), flags).map(File::from)
    }
}

/// Returns the digest of the manifest for this machine where `document` is an index; `None` where it
/// is a manifest itself.
pub(crate) fn fitting_manifest(document: &[u8]) -> ImageResult<Option<Digest>> {
    parse_index(document).map(|index| Ok(fitting(&index)?.digest.clone())).transpose()
}

/// Docker's and the specification's media types of an index are many; its content is one.
fn parse_index(document: &[u8]) -> Option<Index> {
    parse(document).ok()
}

/// Returns the one manifest, or index, for this machine.
fn fitting(index: &Index) -> ImageResult<&Descriptor> {
    let fits = |one: &&Descriptor| {
        one.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == MACHINE.1)
    };
    let mut fitting: Vec<_> = index.manifests.iter().filter(fits).collect();
    // An image with two tags.
    fitting.dedup_by(|one, other| one.digest == other.digest);
    match fitting[..] {
        [one] => Ok(one),
        [] => {
            let others = index.manifests.iter().filter_map(|one| one.platform.as_ref());
            let others = others.map(|p| format!("{}/{}", p.os, p.architecture));
            refuse(format!("no image for linux/{} (there are: {})", MACHINE.1, list(others)))
        }
        _ => {
            let names = fitting.iter().filter_map(|one| name_of(one));
            refuse(format!("{} images ({}); save one at a time", fitting.len(), list(names)))
        }
    }
}

/// Returns where a blob lies in a layout.
pub(crate) fn place(digest: &Digest) -> PathBuf {
    Path::new("blobs/sha256").join(digest.hex())
}

/// Returns the diff ids of an image for this machine, lowest layer first.
pub(crate) fn diff_ids(config: &[u8]) -> ImageResult<Vec<Digest>> {
    let config: Config = parse(config).map_err(|e| e.of("configuration"))?;
    if config.os != "linux" || config.architecture != MACHINE.1 {
        let (os, architecture) = (config.os, config.architecture);
        return refuse(format!(
            "an image for {os}/{architecture}; this machine is linux/{}",
            MACHINE.1
        ));
    }
    let diff_ids = config.rootfs.diff_ids;
    match diff_ids.len() {
        0 => refuse("an image without layers"),
        1..=MOST_LAYERS => Ok(diff_ids),
        many => refuse(format!("{many} layers; {MOST_LAYERS} at most")),
    }
}

pub(crate) fn check_digest(expected: &Digest, found: &Digest) -> ImageResult<()> {
    if expected == found {
        return Ok(());
    }
    refuse(format!("the content's digest is {found} and should be {expected}"))
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> ImageResult<T> {
    serde_json::from_slice(bytes).or_else(|e| refuse(e.to_string()))
}

fn read(file: File, most: u64) -> ImageResult<Vec<u8>> {
    let mut bytes = Vec::new();
    match file.take(most + 1).read_to_end(&mut bytes) {
        Ok(length) if length as u64 <= most => Ok(bytes),
        Ok(_) => refuse(format!("a document of more than {} MiB", most >> 20)),
        Err(e) => refuse(format!("can't be read: {e}")),
    }
}

/// The names that Docker, containerd and others give an image in an index.
fn name_of(descriptor: &Descriptor) -> Option<String> {
    let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    keys.iter().find_map(|key| descriptor.annotations.get(*key).cloned())
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
