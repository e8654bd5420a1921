//! Which backend runs a task: the image of the task says.

use std::{collections::BTreeMap, sync::Arc};

use assay_sandbox::{Backend, ImageRef};

/// The images that this service can run, each with its backend.
///
/// `python` and others are root filesystems of the native backend; `wasm:python` is an interpreter for
/// WASI; `docker:NAME` is an image of the engine.
#[derive(Clone, Debug, Default)]
pub struct Backends {
    images: BTreeMap<String, Resolved>,
    docker: Option<Arc<dyn Backend>>,
    instead: Option<String>,
}

/// Where an image runs.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Who makes its sandboxes.
    pub backend: Arc<dyn Backend>,
    /// What the backend calls it.
    pub image: ImageRef,
    /// The digest of its content.
    pub digest: String,
}

/// This service can't run the image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No backend has it.
    #[error("no image `{image}` here (there are: {})", if known.is_empty() { "none" } else { known })]
    Unknown {
        /// As the task names it.
        image: String,
        /// What there is.
        known: String,
    },
    /// It needs an engine that is not there.
    #[error("image `{0}` needs a Docker engine; `assay doctor` says why there is none")]
    NoDocker(String),
    /// It is for WASI, and was not made here.
    #[error("image `{0}` is not here; `assay doctor` says why")]
    NoWasm(String),
}

impl Backends {
    /// Makes an empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an image by the name that tasks use. `digest` names its content: equal digests share
    /// cached results.
    #[must_use]
    pub fn with_image(
        mut self,
        name: impl Into<String>,
        backend: Arc<dyn Backend>,
        image: ImageRef,
        digest: impl Into<String>,
    ) -> Self {
        self.images.insert(name.into(), Resolved { backend, image, digest: digest.into() });
        self
    }

    /// Adds an engine for every `docker:NAME` that was not added by name. Its digest is its name:
    /// add an image by name, with its id, where one may be rebuilt under the same name.
    #[must_use]
    pub fn with_docker(mut self, backend: Arc<dyn Backend>) -> Self {
        self.docker = Some(backend);
        self
    }

    /// Runs every task in `image`, whatever its own is.
    #[must_use]
    pub fn instead_of_all(mut self, image: impl Into<String>) -> Self {
        self.instead = Some(image.into());
        self
    }

    /// Returns the names of the images that were added.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        self.images.keys().map(String::as_str)
    }

    /// Returns where a task of `image` runs.
    ///
    /// # Errors
    ///
    /// [`ResolveError`] when nothing here runs it.
    pub fn resolve(&self, image: &str) -> Result<Resolved, ResolveError> {
        let image = self.instead.as_deref().unwrap_or(image);
        if let Some(resolved) = self.images.get(image) {
            return Ok(resolved.clone());
        }
        let Some(name) = image.strip_prefix("docker:").filter(|name| !name.is_empty()) else {
            if image.starts_with("wasm:") {
                return Err(ResolveError::NoWasm(image.to_owned()));
            }
            let known = self.images().collect::<Vec<_>>().join(", ");
            return Err(ResolveError::Unknown { image: image.to_owned(), known });
        };
        let Some(backend) = &self.docker else {
            return Err(ResolveError::NoDocker(image.to_owned()));
        };
        Ok(Resolved {
            backend: Arc::clone(backend),
            image: ImageRef::Docker(name.to_owned()),
            digest: image.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use assay_sandbox::{BackendError, Fake};

    use super::*;

    #[test]
    fn the_image_names_the_backend() {
        let fake = || -> Arc<dyn Backend> {
            Arc::new(Fake::new(|_, _| Err(BackendError::Spec("never run".into()))))
        };
        let rootfs = ImageRef::Rootfs { path: "/r".into(), digest: "sha256:1".into() };
        let backends = Backends::new().with_image("python", fake(), rootfs.clone(), "sha256:1");
        assert_eq!(backends.resolve("python").unwrap().image, rootfs);
        for (image, error) in [
            ("ruby", "no image `ruby` here (there are: python)"),
            ("", "no image `` here (there are: python)"),
            ("wasm:python", "image `wasm:python` is not here; `assay doctor` says why"),
            ("docker:", "no image `docker:` here (there are: python)"),
            (
                "docker:a:1",
                "image `docker:a:1` needs a Docker engine; `assay doctor` says why there is none",
            ),
        ] {
            assert_eq!(backends.resolve(image).unwrap_err().to_string(), error);
        }

        let id = ImageRef::Docker("sha256:2".into());
        let backends =
            backends.with_docker(fake()).with_image("docker:a:1", fake(), id.clone(), "sha256:2");
        assert_eq!(backends.resolve("docker:a:1").unwrap().image, id);
        let instead = backends.clone().instead_of_all("docker:a:1");
        assert_eq!(instead.resolve("python").unwrap().image, ImageRef::Docker("sha256:2".into()));
        let by_name = backends.resolve("docker:b").unwrap();
        assert_eq!(
            (by_name.image, by_name.digest),
            (ImageRef::Docker("b".into()), "docker:b".into())
        );
    }
}
