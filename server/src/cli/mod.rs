//! The command line.
//!
//! Commands speak `assay.v1` to a service: one in this same process, without a socket, or the one
//! that `--server` names.
//!
//! Exit status: 0 a verdict or a listing was produced (also a failing one), 1 the work could not
//! be done, 2 the arguments or a file are wrong.

mod affected;
mod attack;
mod bench;
mod doctor;
pub(crate) mod grade;
mod image;
mod output;
mod plain;
mod records;
mod reward;
mod score;
mod serve;
mod session;
mod stats;
mod task;
mod validate;

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use self::output::{Blame as _, CliResult, Exit, Output};
use crate::Places;

/// Runs model-written code against real tests in sandboxes, and says what it is worth.
#[derive(Debug, Parser)]
#[command(
    name = "assay",
    version,
    max_term_width = 100,
    after_help = "Exit status: 0 a verdict or a listing was produced (also a failing one), \
                  1 the work could not be done, 2 the arguments or a file are wrong."
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Args, Debug)]
#[command(next_help_heading = "Common options")]
struct Common {
    /// Print one JSON object per line on stdout, and nothing else there
    #[arg(long, global = true)]
    json: bool,
    /// Folders of task sets [default: repos/catalog above this directory]
    #[arg(long, global = true, value_name = "DIR", env = "ASSAY_CATALOG", value_delimiter = ':')]
    catalog: Vec<PathBuf>,
    /// Where state is kept [default: ~/.local/share/assay for `serve`, a temporary folder for others]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Evaluations at the same time [default: one per processor]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Run every task in this image instead of its own, such as wasm:python
    #[arg(long, global = true, value_name = "IMAGE", conflicts_with = "server")]
    image: Option<String>,
    /// Keep each native sandbox to one processor, the one that has the fewest
    #[arg(long, global = true, conflicts_with = "server")]
    pin: bool,
    /// Use a running service instead of one in this process, such as http://127.0.0.1:7400
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    /// File that holds the bearer token of the service
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Common {
    fn output(&self) -> Output {
        Output { json: self.json }
    }

    fn places(&self) -> Places {
        Places::find(&self.catalog)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve evaluations over gRPC
    Serve(serve::Serve),
    /// Evaluate one submission
    Score(score::Score),
    /// List, show, check and import tasks
    #[command(subcommand)]
    Task(task::Task),
    /// Import, pull, list and remove the images that tasks run in
    #[command(subcommand)]
    Image(image::Images),
    /// Check reward files, explain numbers, and score stored grades again
    #[command(subcommand)]
    Reward(reward::Reward),
    /// Show what an evaluation found, take it along, and run it again
    #[command(subcommand)]
    Grade(grade::Grade),
    /// Measure what Assay adds to the code that it runs
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Say what this machine can do, and the fix for what it can't
    Doctor,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let quiet = !matches!(cli.command, Command::Serve(_));
    let level = if quiet { LevelFilter::WARN } else { LevelFilter::INFO };
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var("ASSAY_LOG")
        .from_env_lossy();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if quiet {
        log.without_time().with_target(false).init()
    } else {
        log.init()
    }

    raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the runtime: {error}");
            return Exit::NotDone.into();
        }
    };
    match runtime.block_on(interruptible(cli)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("error: {:#}", failure.error);
            failure.exit.into()
        }
    }
}

/// Lets this process have as many files open as it may: each sandbox takes a few, and a program on wasm
/// a thousand if it likes.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Less is no error, until it is too little.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// A signal drops the command: its sandboxes and its temporary state are gone with it.
async fn interruptible(cli: Cli) -> CliResult {
    // One stops in its own way; the other has nothing to leave behind, and may read for minutes.
    let reads = matches!(cli.command, Command::Reward(_) | Command::Grade(grade::Grade::Show(_)));
    if reads || matches!(cli.command, Command::Serve(_)) {
        return run(cli).await;
    }
    let stop = serve::stop_signal().not_done()?;
    tokio::select! {
        ended = run(cli) => ended,
        () = stop => Err(anyhow::anyhow!("interrupted")).not_done(),
    }
}

async fn run(Cli { common, command }: Cli) -> CliResult {
    match command {
        Command::Serve(args) => args.run(&common).await,
        Command::Score(args) => args.run(&common).await,
        Command::Task(command) => command.run(&common).await,
        Command::Image(command) => command.run(&common).await,
        Command::Reward(command) => command.run(&common).await,
        Command::Grade(command) => command.run(&common).await,
        Command::Bench(command) => command.run(&common).await,
        Command::Doctor => doctor::run(&common).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
