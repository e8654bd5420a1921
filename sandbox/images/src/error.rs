//! Why there is no image.

use std::{io, path::PathBuf};

use crate::ImageName;

/// What this crate returns.
pub type ImageResult<T> = Result<T, ImageError>;

/// Why there is no image: what was given is wrong, or this machine or a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// What was given is no image that we take. Says which part of it, and why.
    #[error("{0}")]
    Refused(String),
    /// There is no image of this name.
    #[error(
        "no image `{name}` (there are: {})",
        if known.is_empty() { "none" } else { known }
    )]
    Unknown {
        /// The name that was asked for.
        name: ImageName,
        /// Those that there are.
        known: String,
    },
    /// A file of ours, or the one that was given, can't be read or written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The step: "read", "make".
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The registry did not give what was asked for. A retry may help.
    #[error("cannot pull {what} of {reference}")]
    Registry {
        /// What was asked for.
        what: String,
        /// Of which image.
        reference: String,
        /// What was answered.
        source: Box<oci_client::errors::OciDistributionError>,
    },
}

impl ImageError {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// Says of what a refusal speaks.
    pub(crate) fn of(self, what: impl std::fmt::Display) -> Self {
        match self {
            Self::Refused(why) => Self::Refused(format!("{what}: {why}")),
            other => other,
        }
    }
}

/// Refuses what was given.
pub(crate) fn refuse<T>(why: impl Into<String>) -> ImageResult<T> {
    Err(ImageError::Refused(why.into()))
}
