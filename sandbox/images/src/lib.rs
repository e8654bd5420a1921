//! Root filesystems: OCI images and tarballs become directories that sandboxes are mounted on.
//!
//! ```text
//! registry ──► staged layout ─┐
//! layout (folder, archive) ───┼─► manifest ─► each layer: digest, decompress, diff id, unpack ─► store
//! tarball ────────────────────┘
//! ```
//!
//! Whatever is read here was written by somebody else. A layer is unpacked once, by the digest of
//! its content, and appears whole or not at all; images that have it share it. The crate runs
//! nothing and mounts nothing, and it has never heard of sandboxes.

#![forbid(unsafe_code)]

mod chain;
mod entry;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod import;
mod inside;
mod layout;
mod merged;
mod name;
mod registry;
mod store;
mod stream;
mod unpack;

pub use assay_repos::{Digest, InvalidDigest};
pub use chain::chain;
pub use error::{ImageError, ImageResult};
pub use merged::check_shell;
pub use name::{ImageName, InvalidName};
pub use store::{Image, Limits, Removed, Store, StoreLock};
