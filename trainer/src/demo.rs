//! Measure, train, measure again: what `make demo` shows. It reports what it measured, whatever
//! that is.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;
use serde_json::json;

use crate::cli::write_evaluation;
use crate::evaluate::{Comparison, Evaluation, Summary, compare, table};
use crate::metrics;
use crate::report::{self, Report};
use crate::run::{Ended, Session};

/// What a demo measured, as `result.json` keeps it.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    seed: u64,
    shuffle_rewards: bool,
    before: &'a Summary,
    after: &'a Summary,
    comparison: &'a Comparison,
    run: &'a Ended,
    seconds: f64,
    report: PathBuf,
}

/// Runs the demo in `session`; files go to `run.out`, the table to stdout (`json`: to stderr).
pub fn demo(session: &mut Session, json: bool) -> anyhow::Result<()> {
    let started = Instant::now();
    let out = session.config().run.out.clone();
    let before = measured(session, "before")?;
    let run = session.train()?;
    let after = measured(session, "after")?;
    let comparison = compare(&before, &after);

    let path = out.join("report.html");
    let steps = metrics::read(&metrics::path(&out)).context("read the run's metrics")?;
    let seconds = started.elapsed().as_secs_f64();
    let report = Report {
        config: session.config(),
        before: &before,
        after: &after,
        comparison: &comparison,
        steps: &steps,
        run: &run,
        seconds,
    };
    std::fs::write(&path, report::html(&report))
        .with_context(|| format!("write {}", path.display()))?;
    let config = session.config();
    let outcome = Outcome {
        seed: config.seed,
        shuffle_rewards: config.loss.shuffle_rewards,
        before: &before.summary,
        after: &after.summary,
        comparison: &comparison,
        run: &run,
        seconds,
        report: path.canonicalize().unwrap_or(path),
    };
    let result = out.join("result.json");
    std::fs::write(&result, serde_json::to_vec_pretty(&outcome)?)
        .with_context(|| format!("write {}", result.display()))?;

    let text = format!("\n{}\n{}", table(&comparison), closing(&outcome, &before));
    if json {
        session.console().say(&text);
        session.console().event(&json!({"event": "demo", "demo": outcome}));
    } else {
        println!("{text}");
    }
    Ok(())
}

fn measured(session: &mut Session, when: &str) -> anyhow::Result<Evaluation> {
    let evaluation = session.evaluate()?;
    write_evaluation(&session.config().run.out.join(format!("{when}.json")), &evaluation)?;
    let console = session.console();
    console.say(&format!("{when}: {} in {:.0} s", evaluation.summary.line(), evaluation.seconds));
    console.event(&json!({"event": when, "summary": evaluation.summary}));
    Ok(evaluation)
}

fn closing(outcome: &Outcome<'_>, before: &Evaluation) -> String {
    let control = if outcome.shuffle_rewards { ", rewards shuffled (control)" } else { "" };
    let ended = match outcome.run.reason {
        "steps" => String::new(),
        reason => format!(", ended early: {reason}"),
    };
    format!(
        "{} tasks of {}/{} x {} samples, seed {}{control}, {} steps{ended}, {:.1} minutes\nreport: {}",
        before.tasks.len(),
        before.set,
        before.split,
        before.samples,
        outcome.seed,
        outcome.run.step,
        outcome.seconds / 60.0,
        outcome.report.display(),
    )
}
