//! The learner: the `assay-train` binary.
//!
//! A causal language model samples submissions, the service says what each is worth, and the
//! weights follow: [`run`] is the loop, the modules below it are what a step consists of. Nothing
//! here knows sandboxes; the world is `assay.v1` and nothing else.

pub mod advantage;
pub mod config;
pub mod embedded;
pub mod environment;
pub mod loss;
pub mod optim;
pub mod pack;
pub mod rng;
pub mod service;
pub mod stats;
