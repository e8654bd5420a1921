//! The learner: the `assay-train` binary.
//!
//! A causal language model samples submissions, the service says what each is worth, and the
//! weights follow: [`run`] is the loop, the modules below it are what a step consists of. Nothing
//! here knows sandboxes; the world is `assay.v1` and nothing else.

pub mod advantage;
mod attention;
pub mod batch;
pub mod bench;
mod cache;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod demo;
pub mod embedded;
pub mod environment;
pub mod evaluate;
pub mod gguf;
pub mod learner;
pub mod loss;
pub mod metrics;
pub mod model;
pub mod optim;
pub mod pack;
pub mod policy;
pub mod report;
pub mod rng;
pub mod rollout;
pub mod run;
pub mod sample;
pub mod score;
pub mod service;
pub mod stats;
pub mod stop;
pub mod tokenizer;
pub mod toy;
pub mod weights;
