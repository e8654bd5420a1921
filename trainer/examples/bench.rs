//! Runs a workload (JSON on stdin) and prints what it took (JSON): our half of `tests/bench.py`.

use anyhow::Context;
use assay_trainer::bench;

fn main() -> anyhow::Result<()> {
    let workload =
        serde_json::from_reader(std::io::stdin().lock()).context("parse the workload")?;
    let report = bench::run(&workload)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
