//! Where untrusted code runs: one trait, several backends.
//!
//! A [`Backend`] makes [`Sandbox`]es, a sandbox runs one [`Command`] and leaves an [`Execution`]. For
//! agents it opens [`Session`]s: sandboxes that run several commands, one after another or at once.
//! The crate has never heard of tasks, tests or gRPC; it knows trees, limits and processes.

mod backend;
mod collect;
#[cfg(feature = "docker")]
pub mod docker;
mod execution;
mod fake;
#[cfg(fuzzing)]
pub mod fuzz;
mod idle;
mod lineage;
mod modules;
pub mod native;
mod proc;
mod room;
mod session;
mod snapshot;
mod spec;
#[cfg(feature = "wasm")]
pub mod wasm;

/// Becomes a helper of a backend, in a process of its own, if that is what this process was started
/// for.
///
/// Every binary that uses [`native`], [`docker`] or [`wasm`] calls it first thing in `main`: they start its
/// executable once more, and that process never returns from here.
pub fn helper_main_if_asked() {
    native::spawner_main_if_asked();
    #[cfg(feature = "docker")]
    docker::agent::main_if_asked();
    #[cfg(feature = "wasm")]
    wasm::compiler_main_if_asked();
}

pub use backend::{Backend, BackendError, BackendResult, Sandbox};
pub use execution::{Capture, Execution, Isolation, LimitKind, Start, Termination, Usage};
pub use fake::Fake;
pub use session::{Ended, Event, Over, Process, Session, SessionError, SessionSpec, Stream};
pub use snapshot::{Content, Frozen, FrozenEntry, Pick, Snapshot};
pub use spec::{
    Channel, ChannelEnd, Command, FileEntry, ImageRef, Layer, Limits, SandboxId, SandboxSpec, Warm,
};
