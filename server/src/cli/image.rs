//! `assay image`: root filesystems of this machine that tasks can name.

use std::{fmt, fs, path::PathBuf};

use anyhow::Context as _;
use assay_images::{Image, ImageError, ImageName, Store};
use clap::Subcommand;
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::{
    Common,
    output::{Blame as _, CliError, CliResult, Exit, wrong},
};

/// What `assay image` does.
#[derive(Debug, Subcommand)]
pub(super) enum Images {
    /// Add an image from a file or folder: an OCI image layout, what `docker save` wrote, or the
    /// tarball of a root filesystem; plain, .gz or .zst
    Import {
        /// The file or folder
        path: PathBuf,
        /// What tasks call it [default: what the archive says, or the file's name]
        #[arg(long)]
        name: Option<ImageName>,
    },
    /// Add an image from a registry
    Pull {
        /// As Docker takes it, such as `ghcr.io/org/image:tag`
        reference: String,
        /// What tasks call it [default: the reference]
        #[arg(long)]
        name: Option<ImageName>,
    },
    /// List images
    List,
    /// Remove an image, and what it alone needs on the disk
    Rm {
        /// The image
        name: ImageName,
    },
}

impl Images {
    pub(super) async fn run(self, common: &Common) -> CliResult {
        if common.server.is_some() {
            return Err(wrong("images are this machine's, so `image` takes no --server"));
        }
        let output = common.output();
        let store = Store::below(&common.places().cache);
        match self {
            Self::Import { path, name } => {
                let at = || format!("open {}", path.display());
                fs::metadata(&path).with_context(at).wrong()?;
                let spinner = output.spinner("unpacking");
                let image = spawn_blocking(move || store.import(&path, name)).await.not_done()?;
                spinner.finish_and_clear();
                output.line(&Line::from(image?))?;
            }
            Self::Pull { reference, name } => {
                let spinner = output.spinner("pulling");
                let image = store.pull(&reference, name).await;
                spinner.finish_and_clear();
                output.line(&Line::from(image?))?;
            }
            Self::List => {
                for image in store.list()? {
                    output.line(&Line::from(image))?;
                }
            }
            Self::Rm { name } => {
                let shown = name.clone();
                let removed = spawn_blocking(move || store.remove(&shown)).await.not_done()??;
                output.line(&Gone { name, layers: removed.layers })?;
            }
        }
        Ok(Exit::Done)
    }
}

impl From<ImageError> for CliError {
    fn from(error: ImageError) -> Self {
        let exit = match error {
            ImageError::Refused(_) | ImageError::Unknown { .. } => Exit::Wrong,
            ImageError::Io { .. } | ImageError::Registry { .. } => Exit::NotDone,
        };
        Self { exit, error: error.into() }
    }
}

/// An image as `assay image list` prints it.
#[derive(Serialize)]
struct Line {
    name: ImageName,
    digest: String,
    layers: usize,
    bytes: u64,
    source: String,
}

impl From<Image> for Line {
    fn from(image: Image) -> Self {
        let Image { name, digest, layers, bytes, source } = image;
        Self { name, digest: digest.into(), layers: layers.len(), bytes, source }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, digest, layers, bytes, source } = self;
        let digest = digest.get(..19).unwrap_or_default();
        let layers = format!("{layers} layer{}", if *layers == 1 { "" } else { "s" });
        let mib = bytes.div_ceil(1 << 20);
        write!(f, "{:<32} {digest} {layers:>9} {mib:>6} MiB  {source}", name.as_str())
    }
}

#[derive(Serialize)]
struct Gone {
    name: ImageName,
    /// Layers that are gone from the disk, if nobody else may have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<usize>,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layers {
            Some(layers) => write!(f, "removed {} and {layers} of its layers", self.name),
            None => write!(
                f,
                "removed {}; its layers stay until the next `rm`, as a running service or an image \
                 that can't be read may have them",
                self.name
            ),
        }
    }
}
