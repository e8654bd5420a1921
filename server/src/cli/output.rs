//! What commands print, and with which status they end.
//!
//! Stdout holds the answer alone: text, or with `--json` one object per line. Everything else,
//! progress included, goes to stderr.

use std::{
    fmt::Display,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// How a command that produced its answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: a verdict or a listing was produced, also a failing one.
    Done,
    /// 1: the work could not be done.
    NotDone,
    /// 2: the arguments or a file are wrong.
    Wrong,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => 0,
            Exit::NotDone => 1,
            Exit::Wrong => 2,
        }
        .into()
    }
}

/// Why a command has no answer.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
}

pub(crate) type CliResult<T = Exit> = Result<T, CliError>;

/// Says whose fault an error is.
pub(crate) trait Blame<T> {
    /// The arguments or a file are wrong.
    fn wrong(self) -> CliResult<T>;
    /// The work could not be done.
    fn not_done(self) -> CliResult<T>;
}

impl<T, E: Into<anyhow::Error>> Blame<T> for Result<T, E> {
    fn wrong(self) -> CliResult<T> {
        self.map_err(|error| CliError { exit: Exit::Wrong, error: error.into() })
    }

    fn not_done(self) -> CliResult<T> {
        self.map_err(|error| CliError { exit: Exit::NotDone, error: error.into() })
    }
}

/// Makes an error of the arguments or of a file.
pub(crate) fn wrong(message: impl Into<String>) -> CliError {
    CliError { exit: Exit::Wrong, error: anyhow::Error::msg(message.into()) }
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        let exit = match status.code() {
            Code::InvalidArgument | Code::NotFound | Code::Unauthenticated => Exit::Wrong,
            _ => Exit::NotDone,
        };
        let mut message = match status.code() {
            Code::Unavailable => format!("the service can't be reached: {}", status.message()),
            _ => status.message().to_owned(),
        };
        if let Some(wait) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
            message.push_str(&format!(" (try again in {:.1} s)", wait.as_secs_f64()));
        }
        Self { exit, error: anyhow::Error::msg(message) }
    }
}

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Prints one answer: as an object with `--json`, else as text.
    pub(crate) fn line(self, answer: &(impl Serialize + Display)) -> CliResult<()> {
        if self.json { self.object(answer) } else { self.text(answer) }
    }

    /// Prints an object, with `--json` alone.
    pub(crate) fn object(self, answer: &impl Serialize) -> CliResult<()> {
        if !self.json {
            return Ok(());
        }
        let mut line = serde_json::to_string(answer).not_done()?;
        line.push('\n');
        write(&line)
    }

    /// Prints text, without `--json` alone.
    pub(crate) fn text(self, text: impl Display) -> CliResult<()> {
        if self.json { Ok(()) } else { write(&format!("{text}\n")) }
    }

    /// A progress bar on stderr, hidden where that is no terminal.
    pub(crate) fn progress(self, total: u64, what: &'static str) -> ProgressBar {
        let style = ProgressStyle::with_template(
            "{prefix} [{bar:30}] {pos}/{len} {elapsed}, {eta} left {msg}",
        );
        ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8))
            .with_style(
                style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "),
            )
            .with_prefix(what)
    }

    /// A sign of life on stderr for work of unknown length.
    pub(crate) fn spinner(self, what: &'static str) -> ProgressBar {
        let spinner = ProgressBar::new_spinner().with_message(what);
        spinner.enable_steady_tick(Duration::from_millis(120));
        spinner
    }
}

/// Writes to stdout. A reader that hung up (`| head`) ends the command quietly.
fn write(text: &str) -> CliResult<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.not_done(),
    }
}
