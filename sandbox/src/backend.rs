//! The contract between those who make sandboxes and those who use them.

use std::{fmt, io};

use async_trait::async_trait;

use crate::{Command, Execution, SandboxId, SandboxSpec, Session, SessionSpec};

/// A way to contain untrusted code.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync {
    /// Returns the name that records and the command line use: `native`, `docker`, `fake`.
    fn name(&self) -> &'static str;

    /// Makes a sandbox that holds what `spec` says and nothing else. Runs nothing in it.
    ///
    /// # Errors
    ///
    /// [`BackendError::Spec`] when the spec can't be met by any machine, others when this one
    /// could not meet it now.
    async fn create(&self, spec: SandboxSpec) -> BackendResult<Box<dyn Sandbox>>;

    /// Opens a sandbox for several commands.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create); [`BackendError::Unsupported`] by default.
    async fn open(&self, _: SessionSpec) -> BackendResult<Box<dyn Session>> {
        let what = "keep a sandbox open for several commands".to_owned();
        Err(BackendError::Unsupported { backend: self.name(), what })
    }
}

/// A place to run one command. Dropping it, or the future of [`run`](Sandbox::run), kills
/// everything inside and frees it.
#[async_trait]
pub trait Sandbox: Send {
    /// Returns its id.
    fn id(&self) -> SandboxId;

    /// Runs `command` until it and all its descendants are dead, then frees the sandbox.
    ///
    /// A command that failed, crashed or went over a limit is an [`Execution`], not an error.
    async fn run(self: Box<Self>, command: Command) -> BackendResult<Execution>;
}

/// What backends return.
pub type BackendResult<T> = Result<T, BackendError>;

/// Why there is no sandbox or no [`Execution`]: ours or the caller's fault, never the program's.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The spec or the command is wrong: no retry helps.
    #[error("bad sandbox spec: {0}")]
    Spec(String),
    /// The image is not on this machine.
    #[error(
        "image `{0}` not found; run `make rootfs`, or `scripts/docker-image.sh` for a Docker image"
    )]
    ImageNotFound(String),
    /// This backend can't do what was asked.
    #[error("the {backend} backend can't {what}")]
    Unsupported {
        /// The backend's name.
        backend: &'static str,
        /// Completes the sentence.
        what: String,
    },
    /// A step of making or ending the sandbox failed on this machine. A retry may help.
    #[error("{what}")]
    Io {
        /// The step, as a fragment: "mount overlay".
        what: String,
        /// What the kernel or the engine said.
        source: io::Error,
    },
    /// The process that makes sandboxes, or the engine, is gone. A retry may help.
    #[error("the {backend} backend is gone: {what}")]
    Gone {
        /// The backend's name.
        backend: &'static str,
        /// What was seen of it last.
        what: String,
    },
}
