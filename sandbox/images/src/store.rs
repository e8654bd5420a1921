//! The images of this machine: layers by digest, and records that name them.
//!
//! ```text
//! images/lock              shared by whoever uses layers or adds some, exclusive for whoever removes
//! images/layers/HEX/tree   a layer, by its diff id
//! images/names/NAME.json   an image: its layers
//! images/staging/          what is not whole yet, or not any more
//! ```

use std::{
    collections::HashSet,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tempfile::{NamedTempFile, TempDir};
use tracing::{info, warn};

use crate::{Digest, ImageError, ImageName, ImageResult, error::refuse};

/// An image of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// What tasks call it.
    pub name: ImageName,
    /// The digest of its content: the chain id of its layers.
    pub digest: Digest,
    /// The diff ids of its layers, lowest first.
    pub layers: Vec<Digest>,
    /// Bytes of all files in its layers.
    pub bytes: u64,
    /// Where it came from.
    pub source: String,
}

/// What an image may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files of an image, or of an archive of one.
    pub bytes: u64,
    /// Files and directories of all layers together.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 32 << 30, entries: 4_000_000 }
    }
}

/// The images below one cache folder. Clones are the same store, and so are other processes' with
/// that folder.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    pub(crate) limits: Limits,
}

/// Keeps what is in a store from being removed, as long as it lives.
#[derive(Debug)]
pub struct StoreLock(#[expect(dead_code, reason = "an open file is the lock")] fs::File);

/// What the removal of an image did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Layers that no image has any more and that are gone; `None` while others use the store, who
    /// may use these, too, and while a record can't be read. A later removal takes them.
    pub layers: Option<usize>,
}

/// What is known of a layer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LayerFacts {
    pub(crate) bytes: u64,
}

/// A layer that is not in its place yet; gone when dropped.
pub(crate) struct StagedLayer(TempDir);

impl StagedLayer {
    pub(crate) fn tree(&self) -> PathBuf {
        self.0.path().join(TREE)
    }
}

const TREE: &str = "tree";
const FACTS: &str = "layer.json";

impl Store {
    /// Returns the store below `cache`. Nothing is read or made yet.
    #[must_use]
    pub fn below(cache: &Path) -> Self {
        Self { root: cache.join("images"), limits: Limits::default() }
    }

    /// Returns the same store with other limits for what is added.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Returns all images, by name. A record that is damaged, or whose layers are gone, is logged
    /// and left out.
    ///
    /// # Errors
    ///
    /// [`ImageError::Io`] when the store can't be read.
    pub fn list(&self) -> ImageResult<Vec<Image>> {
        Ok(self.records()?.0)
    }

    /// Returns all images, by name, and how many records can't be read: what they hold is unknown.
    fn records(&self) -> ImageResult<(Vec<Image>, usize)> {
        let names = self.names();
        let entries = match fs::read_dir(&names) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(e) => return Err(ImageError::io("read", names)(e)),
        };
        let (mut images, mut unreadable) = (Vec::new(), 0);
        for entry in entries {
            let path = entry.map_err(ImageError::io("read", &names))?.path();
            let why = match self.record(&path) {
                Ok(Ok(image)) => {
                    images.push(image);
                    continue;
                }
                Ok(Err(why)) => why,
                // It was removed meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => {
                    unreadable += 1;
                    e.to_string()
                }
            };
            let path = path.display();
            warn!(%path, why, "an image can't be used; remove the file or import it again");
        }
        images.sort_by(|a: &Image, b| a.name.cmp(&b.name));
        Ok((images, unreadable))
    }

    /// Reads the record of an image, or says why it is no use.
    fn record(&self, path: &Path) -> io::Result<Result<Image, String>> {
        let image: Image = match serde_json::from_slice(&fs::read(path)?) {
            Ok(image) => image,
            Err(e) => return Ok(Err(e.to_string())),
        };
        if path.file_name() != Some(image.name.file_name().as_ref()) {
            return Ok(Err(format!("it names `{}`", image.name)));
        }
        Ok(match image.layers.iter().find(|layer| !self.layer(layer).is_dir()) {
            Some(gone) => Err(format!("layer {gone} is gone")),
            None => Ok(image),
        })
    }

    /// Refuses a name that nobody asked for where another image has it.
    pub(crate) fn check_free(&self, name: &ImageName, digest: &Digest) -> ImageResult<()> {
        let path = self.names().join(name.file_name());
        match self.record(&path) {
            Ok(Ok(other)) if other.digest != *digest => refuse(format!(
                "there is another image `{name}`; replace it with --name {name}, or choose a name"
            )),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(ImageError::io("read", path)(e)),
            // The same, or one that is no use.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Returns the directories of an image's layers, lowest first. One that is there several times is
    /// where it is uppermost, since overlayfs takes none twice: whatever it shows or hides further
    /// down, it shows or hides there, too.
    #[must_use]
    pub fn paths(&self, image: &Image) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        let layers = image.layers.iter().rev().filter(|layer| seen.insert(*layer));
        let mut paths: Vec<_> = layers.map(|layer| self.layer(layer)).collect();
        paths.reverse();
        paths
    }

    /// Removes an image, and the layers that no image has any more.
    ///
    /// # Errors
    ///
    /// [`ImageError::Unknown`] when there is none of this name.
    pub fn remove(&self, name: &ImageName) -> ImageResult<Removed> {
        let path = self.names().join(name.file_name());
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let known: Vec<_> = self.list()?.iter().map(|one| one.name.to_string()).collect();
                return Err(ImageError::Unknown { name: name.clone(), known: known.join(", ") });
            }
            Err(e) => return Err(ImageError::io("remove", path)(e)),
        }
        let lock = self.lock_file()?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(Removed { layers: None });
        }
        let (images, unreadable) = self.records()?;
        if unreadable > 0 {
            return Ok(Removed { layers: None });
        }
        let used: HashSet<_> = images.into_iter().flat_map(|image| image.layers).collect();
        let used: HashSet<_> = used.iter().map(Digest::hex).collect();
        let layers = self.root.join("layers");
        let mut removed = 0;
        for entry in fs::read_dir(&layers).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|hex| used.contains(hex)) {
                continue;
            }
            // First out of its place: half a layer must not be taken for a whole one.
            let to = self.staged()?;
            fs::rename(entry.path(), to.path().join("removed"))
                .and_then(|()| to.close())
                .map_err(ImageError::io("remove", entry.path()))?;
            removed += 1;
        }
        Ok(Removed { layers: Some(removed) })
    }

    /// Keeps everything in the store while the result lives; clears away what killed processes left,
    /// if nobody else has it open.
    ///
    /// # Errors
    ///
    /// [`ImageError::Io`] when the store can't be made.
    pub fn lock(&self) -> ImageResult<StoreLock> {
        let lock = self.lock_file()?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let staging = self.root.join("staging");
            for entry in fs::read_dir(&staging).into_iter().flatten().flatten() {
                info!(path = %entry.path().display(), "removing what an interrupted import left");
                let path = entry.path();
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let gone =
                    if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                gone.map_err(ImageError::io("remove", path))?;
            }
        }
        flock(&lock, FlockOperation::LockShared)
            .map_err(|e| ImageError::io("lock", &self.root)(e.into()))?;
        Ok(StoreLock(lock))
    }

    fn lock_file(&self) -> ImageResult<fs::File> {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        // Ours alone: what is in an image is none of our neighbours' business.
        let make = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root);
        make.map_err(ImageError::io("make", &self.root))?;
        let path = self.root.join("lock");
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        file.map_err(ImageError::io("open", path))
    }

    fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// Returns where a layer's tree lies, or would.
    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex()).join(TREE)
    }

    /// Returns what is known of a layer; `None` when it is not there.
    pub(crate) fn facts(&self, diff_id: &Digest) -> Option<LayerFacts> {
        let text = fs::read(self.root.join("layers").join(diff_id.hex()).join(FACTS)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Makes a folder for what is not whole yet. It is gone when dropped.
    pub(crate) fn staged(&self) -> ImageResult<TempDir> {
        let staging = self.root.join("staging");
        fs::create_dir_all(&staging)
            .and_then(|()| TempDir::new_in(&staging))
            .map_err(ImageError::io("make", staging))
    }

    pub(crate) fn staged_layer(&self) -> ImageResult<StagedLayer> {
        let layer = StagedLayer(self.staged()?);
        let tree = layer.tree();
        fs::create_dir(&tree)
            .and_then(|()| {
                fs::set_permissions(&tree, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            })
            .map_err(ImageError::io("make", tree))?;
        Ok(layer)
    }

    /// Puts a layer in its place. Another process may have been faster: it has the same, then.
    pub(crate) fn keep_layer(
        &self,
        layer: StagedLayer,
        diff_id: &Digest,
        facts: LayerFacts,
    ) -> ImageResult<()> {
        let folder = layer.0.path();
        let at = || ImageError::io("write", folder);
        let text = serde_json::to_vec(&facts).map_err(|e| at()(e.into()))?;
        fs::write(folder.join(FACTS), text).map_err(at())?;
        // A machine that loses power must not keep the name without the content.
        let opened = fs::File::open(folder).map_err(at())?;
        rustix::fs::syncfs(&opened).map_err(|e| at()(e.into()))?;
        let layers = self.root.join("layers");
        fs::create_dir_all(&layers).map_err(ImageError::io("make", &layers))?;
        let place = layers.join(diff_id.hex());
        match fs::rename(folder, &place) {
            Err(_) if self.facts(diff_id).is_some() => Ok(()),
            renamed => renamed.map_err(ImageError::io("make", place)),
        }
    }

    /// Writes the record of an image whose layers are all there. One of the same name is replaced.
    pub(crate) fn keep(&self, image: &Image) -> ImageResult<()> {
        let names = self.names();
        let place = names.join(image.name.file_name());
        let written = (|| {
            fs::create_dir_all(&names)?;
            let staging = self.root.join("staging");
            fs::create_dir_all(&staging)?;
            let mut file = NamedTempFile::new_in(staging)?;
            serde_json::to_writer_pretty(&mut file, image)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&place)?;
            fs::File::open(&names)?.sync_all()
        })();
        written.map_err(ImageError::io("write", place))
    }
}
