//! From a file, a folder or a registry to an image of the store.

use std::{
    fs::{self, File},
    path::Path,
};

use tracing::debug;

use crate::{
    Digest, Image, ImageError, ImageName, ImageResult, Limits, Store, chain,
    error::refuse,
    layout::{self, Descriptor, Found, Layout},
    merged,
    store::{LayerFacts, StagedLayer},
    stream::{Digested, decompress},
    unpack,
};

impl Store {
    /// Adds the image at `path`: a folder with an OCI image layout, an archive of one, what
    /// `docker save` wrote, or the tarball of a root filesystem, each plain or compressed with gzip
    /// or zstd. Without `name` it is called as the archive says, or like the file, and replaces no
    /// other image.
    ///
    /// Takes its time with the disk: call it where that is welcome.
    ///
    /// # Errors
    ///
    /// [`ImageError::Refused`] when that is no image for this machine or when any part of it is
    /// wrong; [`ImageError::Io`] when files can't be read or written. The store is as before.
    pub fn import(&self, path: &Path, name: Option<ImageName>) -> ImageResult<Image> {
        let shown = path.display().to_string();
        let of_path = |e: ImageError| e.of(&shown);
        let _lock = self.lock()?;
        let metadata = fs::metadata(path).map_err(ImageError::io("open", path))?;
        if metadata.is_dir() {
            let layout = Layout::open(path)?;
            let found = layout.image().map_err(of_path)?;
            let name = self.called(name, &found, path)?;
            return self.add(&layout, found, name, &shown).map_err(of_path);
        }
        if !metadata.is_file() {
            return refuse("neither a file nor a folder").map_err(of_path);
        }
        let mut budget = self.limits;
        let (staged, diff_id, facts) = self.unpack_tarball(path, &mut budget).map_err(of_path)?;
        let tree = staged.tree();
        if holds_layout(&tree) {
            let layout = Layout::open(&tree)?;
            let found = layout.image().map_err(of_path)?;
            let name = self.called(name, &found, path)?;
            return self.add(&layout, found, name, &shown).map_err(of_path);
        }
        let name = match name {
            Some(name) => name,
            None => {
                let name = named_as(None, path)?;
                // The chain id of one layer is its own.
                self.check_free(&name, &diff_id)?;
                name
            }
        };
        merged::check_shell(std::slice::from_ref(&tree)).map_err(of_path)?;
        self.keep_layer(staged, &diff_id, facts)?;
        self.record_image(name, vec![diff_id], &shown)
    }

    /// Returns the name of an image: as given, as it was called, or like the file at `path`.
    fn called(
        &self,
        given: Option<ImageName>,
        found: &Found,
        path: &Path,
    ) -> ImageResult<ImageName> {
        if let Some(name) = given {
            return Ok(name);
        }
        let name = named_as(found.name.as_deref(), path)?;
        let diff_ids: Vec<_> = found.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        if let Some(digest) = chain(&diff_ids) {
            self.check_free(&name, &digest)?;
        }
        Ok(name)
    }

    /// Unpacks an archive that no digest vouches for, and so has to be whole by itself.
    fn unpack_tarball(
        &self,
        path: &Path,
        budget: &mut Limits,
    ) -> ImageResult<(StagedLayer, Digest, LayerFacts)> {
        let file = File::open(path).map_err(ImageError::io("open", path))?;
        let staged = self.staged_layer()?;
        let before = budget.bytes;
        let mut tar = Digested::new(decompress(file).map_err(ImageError::io("read", path))?);
        unpack::unpack(&mut tar, &staged.tree(), budget)?;
        // Two empty blocks end an archive.
        if tar.zeros < 1024 {
            return refuse("cut off: an archive ends with two empty blocks");
        }
        let (diff_id, _) = tar.finish().map_err(ImageError::io("read", path))?;
        Ok((staged, diff_id, LayerFacts { bytes: before - budget.bytes }))
    }

    /// Adds the layers that are not there yet, then the image.
    pub(crate) fn add(
        &self,
        layout: &Layout,
        found: Found,
        name: ImageName,
        source: &str,
    ) -> ImageResult<Image> {
        let mut budget = self.limits;
        for layer in &found.layers {
            if self.facts(&layer.diff_id).is_some() {
                debug!(diff_id = %layer.diff_id, "this layer is there");
                continue;
            }
            let blob = layout.layer(layer)?;
            self.add_layer(blob, layer.blob.as_ref(), &layer.diff_id, &mut budget)
                .map_err(|e| e.of(format!("layer {}", layer.diff_id)))?;
        }
        let diff_ids: Vec<_> = found.layers.into_iter().map(|layer| layer.diff_id).collect();
        let paths: Vec<_> = diff_ids.iter().map(|diff_id| self.layer(diff_id)).collect();
        merged::check_shell(&paths)?;
        self.record_image(name, diff_ids, source)
    }

    /// Unpacks a layer and keeps it if it is what it must be.
    fn add_layer(
        &self,
        blob: File,
        descriptor: Option<&Descriptor>,
        diff_id: &Digest,
        budget: &mut Limits,
    ) -> ImageResult<()> {
        let staged = self.staged_layer()?;
        let tree = staged.tree();
        let before = budget.bytes;
        let unreadable = || ImageError::io("read", layout::place(diff_id));
        let mut blob = Digested::new(blob);
        let found = {
            let mut tar = Digested::new(decompress(&mut blob).map_err(unreadable())?);
            unpack::unpack(&mut tar, &tree, budget)?;
            tar.finish().map_err(unreadable())?.0
        };
        let (digest, _) = blob.finish().map_err(unreadable())?;
        if let Some(descriptor) = descriptor {
            layout::check_digest(&descriptor.digest, &digest)?;
        }
        layout::check_digest(diff_id, &found).map_err(|e| e.of("unpacked"))?;
        self.keep_layer(staged, diff_id, LayerFacts { bytes: before - budget.bytes })
    }

    fn record_image(
        &self,
        name: ImageName,
        layers: Vec<Digest>,
        source: &str,
    ) -> ImageResult<Image> {
        let Some(digest) = chain(&layers) else { return refuse("no layers") };
        let bytes = layers.iter().filter_map(|layer| Some(self.facts(layer)?.bytes)).sum();
        let image = Image { name, digest, layers, bytes, source: source.to_owned() };
        self.keep(&image)?;
        Ok(image)
    }
}

/// Whether the tree of an archive is an image layout, and no root filesystem with such a file.
fn holds_layout(tree: &Path) -> bool {
    let layout = ["oci-layout", "manifest.json"].iter().any(|name| tree.join(name).is_file());
    layout && !["bin", "usr"].iter().any(|name| tree.join(name).symlink_metadata().is_ok())
}

/// Returns the name that an image was found under, or one like the file at `path`.
fn named_as(found: Option<&str>, path: &Path) -> ImageResult<ImageName> {
    // What has neither is a tag alone.
    let found = found.filter(|name| name.contains([':', '/']));
    let found =
        found.map(|name| name.trim_start_matches("docker.io/").trim_start_matches("library/"));
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let suffixes = [".gz", ".zst", ".tgz", ".tar"];
    let stem = suffixes.iter().fold(file, |stem, suffix| stem.strip_suffix(suffix).unwrap_or(stem));
    found.unwrap_or(stem).parse().or_else(|e| refuse(format!("{e}; name it with --name")))
}
