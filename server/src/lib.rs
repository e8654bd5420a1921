//! The composition root: the services over gRPC, and the `assay` command line.
//!
//! This is the one crate that knows both gRPC and the fleet. A handler translates and nothing
//! else: wire message, validated model, one call, wire message.

#![forbid(unsafe_code)]

mod app;
pub mod cli;
#[cfg(fuzzing)]
pub mod fuzz;
mod grpc;
mod machine;
mod places;
#[cfg(feature = "wasm")]
mod wasm;

pub use app::{App, AppConfig, Transport};
pub use grpc::{Token, TokenError};
pub use places::Places;
