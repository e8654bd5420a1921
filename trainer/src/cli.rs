//! The command line of `assay-train`.
//!
//! Progress goes to stderr; with `--json` every event is one object per line on stdout, and nothing
//! else is there. Exit status: 0 done (also when stopped by hand), 1 the work could not be done,
//! 2 the arguments or a file are wrong.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use serde_json::json;

use crate::bench::{self, Workload};
use crate::config::{Config, ConfigError};
use crate::demo;
use crate::environment::EnvironmentError;
use crate::evaluate::{Evaluation, compare, table};
use crate::gguf::LoadError;
use crate::policy::{PolicyError, TINY};
use crate::run::Session;
use crate::stop::Stop;

/// The configuration of `--policy tiny` without a `--config`.
const TINY_CONFIG: &str = include_str!("../tiny.toml");

/// Teaches a language model with what its answers are worth.
#[derive(Debug, Parser)]
#[command(name = "assay-train", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train: sample, evaluate, learn, repeat.
    Run {
        #[command(flatten)]
        common: Common,
        /// Go on from the latest checkpoint under run.out, where there is one.
        #[arg(long)]
        resume: bool,
    },
    /// Measure a policy on a split: pass@1, pass@k, greedy.
    Eval {
        #[command(flatten)]
        common: Common,
        /// Write the measurement to this file.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Compare with an earlier measurement.
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
    },
    /// Compare two measurements task by task, with 95% intervals.
    Compare {
        /// The earlier one.
        before: PathBuf,
        /// The later one.
        after: PathBuf,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Sample answers to a task, and say what they are worth.
    Sample {
        #[command(flatten)]
        common: Common,
        /// The task's id.
        #[arg(long)]
        task: String,
        /// How many answers.
        #[arg(short = 'n', long, default_value_t = 1)]
        samples: usize,
        /// 0 takes the likeliest token.
        #[arg(long, default_value_t = 1.0)]
        temperature: f64,
    },
    /// Time training steps and sampling on a workload; `trainer/tests/bench.py` makes one and times
    /// PyTorch beside it.
    Bench {
        /// The workload as JSON; `-` reads stdin.
        workload: PathBuf,
        /// One JSON object on stdout, as without it.
        #[arg(long)]
        json: bool,
    },
    /// Measure, train, measure again, and report what changed.
    Demo {
        #[command(flatten)]
        common: Common,
        /// The control experiment: rewards are dealt out at random.
        #[arg(long)]
        shuffle_rewards: bool,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// The configuration; paths in it are relative to the working directory.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a key, as in --set optimizer.lr=3e-5.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The policy: a GGUF file, a Hugging Face folder, or "tiny".
    #[arg(long, value_name = "PATH")]
    policy: Option<String>,
    /// The service's address, or "embedded".
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The assay binary of an embedded service.
    #[arg(long, value_name = "PATH")]
    assay: Option<PathBuf>,
    /// Decides every random draw.
    #[arg(long)]
    seed: Option<u64>,
    /// One JSON object per event on stdout.
    #[arg(long)]
    json: bool,
}

impl Common {
    fn load(&self) -> Result<Config, ConfigError> {
        let mut sets = self.set.clone();
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        sets.extend(self.policy.iter().map(|path| format!("policy.path={}", quoted(path))));
        sets.extend(self.server.iter().map(|url| format!("service.server={}", quoted(url))));
        sets.extend(
            self.assay
                .iter()
                .map(|path| format!("service.assay={}", quoted(&path.to_string_lossy()))),
        );
        sets.extend(self.seed.map(|seed| format!("seed={seed}")));
        match &self.config {
            None if self.policy.as_deref() == Some(TINY) => {
                Config::parse("tiny.toml", TINY_CONFIG, &sets)
            }
            path => Config::load(path.as_deref(), &sets),
        }
    }

    fn session(&self, config: Config, resume: bool) -> anyhow::Result<Session> {
        Session::open(config, resume, self.json, Stop::on_signals()?)
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(exit_status(&error))
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { common, resume } => {
            let mut session = common.session(common.load()?, resume)?;
            let ended = session.train()?;
            session.console().event(&json!({"event": "ended", "run": ended}));
        }
        Command::Eval { common, out, against } => {
            let earlier = against.as_deref().map(read_evaluation).transpose()?;
            let mut session = common.session(common.load()?, false)?;
            let evaluation = session.evaluate()?;
            if let Some(path) = &out {
                write_evaluation(path, &evaluation)?;
            }
            let console = session.console();
            console.say(&evaluation.summary.line());
            console.event(&json!({"event": "evaluation", "evaluation": evaluation}));
            if let Some(earlier) = earlier {
                let comparison = compare(&earlier, &evaluation);
                console.say(&table(&comparison));
                console.event(&json!({"event": "comparison", "comparison": comparison}));
            }
        }
        Command::Compare { before, after, json } => {
            let comparison = compare(&read_evaluation(&before)?, &read_evaluation(&after)?);
            match json {
                true => println!("{}", serde_json::to_string(&comparison)?),
                false => print!("{}", table(&comparison)),
            }
        }
        Command::Sample { common, task, samples, temperature } => {
            let mut session = common.session(common.load()?, false)?;
            let task = session.task(&task)?;
            let rollout = session.sample_task(task, temperature, samples.max(1))?;
            for sample in &rollout.samples {
                if common.json {
                    println!(
                        "{}",
                        json!({"text": sample.text, "truncated": sample.truncated, "verdict": sample.verdict})
                    );
                } else {
                    let reward = sample
                        .verdict
                        .reward
                        .map_or("no reward".to_owned(), |reward| format!("reward {reward}"));
                    println!("--- {}, {reward}\n{}", sample.verdict.outcome, sample.text);
                }
            }
        }
        Command::Bench { workload: path, json: _ } => {
            let wrong =
                |message: String| ConfigError::Value { place: path.display().to_string(), message };
            let read = if path.as_os_str() == "-" {
                std::io::read_to_string(std::io::stdin())
            } else {
                std::fs::read_to_string(&path)
            };
            let text = read.map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            let workload: Workload = serde_json::from_str(&text)
                .map_err(|error| wrong(format!("is no workload: {error}")))?;
            println!("{}", serde_json::to_string(&bench::run(&workload)?)?);
        }
        Command::Demo { common, shuffle_rewards } => {
            let mut config = common.load()?;
            config.loss.shuffle_rewards |= shuffle_rewards;
            let mut session = common.session(config, false)?;
            demo::demo(&mut session, common.json)?;
        }
    }
    Ok(())
}

/// Reads what `eval --out` wrote.
pub fn read_evaluation(path: &Path) -> anyhow::Result<Evaluation> {
    let wrong = |message: String| ConfigError::Value { place: path.display().to_string(), message };
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Ok(serde_json::from_str(&text).map_err(|error| wrong(format!("is no evaluation: {error}")))?)
}

/// Writes a measurement so that a reader sees all of it or none.
pub fn write_evaluation(path: &Path, evaluation: &Evaluation) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, serde_json::to_vec(evaluation)?)
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("write {}", path.display()))
}

/// 2 where the arguments or a file are wrong, 1 where the work could not be done.
fn exit_status(error: &anyhow::Error) -> u8 {
    let theirs = error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || cause.is::<LoadError>()
            || matches!(cause.downcast_ref(), Some(PolicyError::NoCuda))
            || matches!(cause.downcast_ref(), Some(EnvironmentError::Refused { .. }))
    });
    if theirs { 2 } else { 1 }
}
