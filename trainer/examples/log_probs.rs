//! Prints log-probs of token sequences in fp32: our half of `tests/parity.py`.
//!
//! Usage: `log_probs MODEL < lines`, each line a JSON array of token ids. For each it prints a JSON
//! array: the log-prob of every token but the first.

use std::io::BufRead;
use std::path::PathBuf;

use anyhow::Context;
use assay_trainer::{model::Model, score::Group, weights};
use tch::{Device, Kind};

fn main() -> anyhow::Result<()> {
    let path: PathBuf = std::env::args_os().nth(1).context("usage: log_probs MODEL")?.into();
    let loaded = weights::load(&path)?;
    let mut model = Model::from_tensors(loaded.config, &loaded.tensors, Kind::Float, Device::Cpu)?;
    for line in std::io::stdin().lock().lines() {
        let tokens: Vec<i64> = serde_json::from_str(&line?).context("parse a line")?;
        let (prompt, completion) = tokens.split_at(1.min(tokens.len()));
        let scored = model.score(&[Group { prompt, completions: vec![completion] }], 1.0, false)?;
        println!("{}", serde_json::to_string(&scored.log_probs)?);
    }
    Ok(())
}
