//! `assay reward`: reward files, and what they make of records that are there already.

mod diff;
mod dry_run;
pub(super) mod plugins;
mod remote;

use std::{fmt, fs, path::PathBuf};

use anyhow::Context as _;
use assay_proto::v1::GradeFilter;
use assay_rewards::{Explanation, RewardError, RewardSpec, explain};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    Common,
    output::{Blame as _, CliResult, Exit, wrong},
    records::RecordsAt,
    session::{Session, is_file, read_spec},
};

/// What `assay reward` does.
#[derive(Debug, Subcommand)]
pub(super) enum Reward {
    /// Check reward files: unknown facts and keys, possible NaN, terms that can't be reached
    Lint {
        /// The files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Write expressions with the usual spaces; everything else stays as it is
    Fmt {
        /// Change nothing, name the files that would be, and end with status 2 if there are any
        #[arg(long)]
        check: bool,
        /// The files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Show how a grade comes to its number: gate, terms, combination, mask, each with its facts
    Explain {
        #[command(flatten)]
        subject: Subject,
        /// The id of the grade, or how it starts; needed where there are several
        #[arg(long, value_name = "ID")]
        grade: Option<String>,
    },
    /// Score stored grades, without running anything: how rewards are distributed, and what differs
    DryRun {
        #[command(flatten)]
        subject: Subject,
        /// The reward file to compare with, or the name of one
        #[arg(long, value_name = "FILE")]
        against: Option<String>,
        /// Of this task alone; with --server
        #[arg(long, value_name = "ID")]
        task: Option<String>,
        /// Of this run alone; with --server
        #[arg(long, value_name = "ID")]
        run: Option<String>,
    },
    /// Say what two reward files say otherwise, however they are written; ends with status 1 where they
    /// differ
    Diff {
        /// The old reward file, or the name of one that comes with Assay, or that the service knows
        #[arg(value_name = "OLD")]
        old: String,
        /// The new one
        #[arg(value_name = "NEW")]
        new: String,
    },
    /// Keep reward files at a service, each as the newest version of its name
    Put {
        /// The files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// List the reward files of a service, in all their versions
    List {
        /// Those of this name
        #[arg(long)]
        name: Option<String>,
    },
}

/// A reward file and the grades that it is to score.
#[derive(Args, Debug)]
pub(super) struct Subject {
    /// The reward file, or the name of one that comes with Assay, or that the service knows
    #[arg(value_name = "FILE")]
    file: String,
    #[command(flatten)]
    records: RecordsAt,
}

impl Reward {
    pub(super) async fn run(self, common: &Common) -> CliResult {
        match self {
            Self::Lint { files } => lint(common, files).await,
            Self::Diff { old, new } => diff::run(common, &old, &new).await,
            Self::Put { files } => remote::put(common, files).await.map(|()| Exit::Done),
            Self::List { name } => remote::list(common, name).await.map(|()| Exit::Done),
            Self::Explain { subject, grade } if common.server.is_some() => {
                subject.records.none()?;
                let session = Session::open(common, None).await?;
                common.output().line(&remote::explain(&session, &subject.file, grade).await?)?;
                Ok(Exit::Done)
            }
            Self::DryRun { subject, against, task, run } if common.server.is_some() => {
                subject.records.none()?;
                let session = Session::open(common, None).await?;
                let filter = GradeFilter {
                    task_id: task.unwrap_or_default(),
                    run_id: run.unwrap_or_default(),
                    ..GradeFilter::default()
                };
                let against = against.as_deref();
                let report = remote::dry_run(&session, &subject.file, against, filter).await?;
                common.output().line(&report)?;
                Ok(Exit::Done)
            }
            Self::DryRun { task: Some(_), .. } | Self::DryRun { run: Some(_), .. } => Err(wrong(
                "--task and --run choose among the grades of a service: name it with --server",
            )),
            Self::Fmt { check, files } => fmt_files(common, check, files),
            Self::Explain { subject, grade } => {
                let spec = find_spec(&subject.file)?;
                let (grade, record) = subject.records.open(common)?.pick(grade.as_deref())?;
                let explanation = explain(&record, &spec);
                common.output().line(&Explained { grade: grade.to_string(), explanation })?;
                Ok(Exit::Done)
            }
            Self::DryRun { subject, against, .. } => {
                let new = find_spec(&subject.file)?;
                let old = against.as_deref().map(find_spec).transpose()?;
                dry_run::run(common, &subject.records.open(common)?, new, old)
            }
        }
    }
}

async fn lint(common: &Common, files: Vec<PathBuf>) -> CliResult {
    let session = match common.server {
        Some(_) => Some(Session::open(common, None).await?),
        None => None,
    };
    let mut exit = Exit::Done;
    for file in files {
        let shown = file.display().to_string();
        let text = fs::read_to_string(&file).with_context(|| format!("read {shown}")).wrong()?;
        let linted = match &session {
            Some(session) => remote::lint(session, text).await?,
            None => plugins::parse(&text, &file)
                .map(|spec| (spec.name().to_owned(), spec.digest().to_string()))
                .map_err(|errors| errors.iter().map(Problem::from).collect()),
        };
        let report = match linted {
            Ok((name, digest)) => Report {
                file: shown,
                ok: true,
                name: Some(name),
                digest: Some(digest),
                errors: Vec::new(),
            },
            Err(errors) => {
                exit = Exit::Wrong;
                Report { file: shown, ok: false, name: None, digest: None, errors }
            }
        };
        common.output().line(&report)?;
    }
    Ok(exit)
}

fn fmt_files(common: &Common, check: bool, files: Vec<PathBuf>) -> CliResult {
    let mut exit = Exit::Done;
    for file in files {
        let shown = file.display().to_string();
        let text = fs::read_to_string(&file).with_context(|| format!("read {shown}")).wrong()?;
        let formatted = RewardSpec::format(&text, &file).map_err(|errors| wrong(told(&errors)))?;
        if formatted == text {
            continue;
        }
        if check {
            exit = Exit::Wrong;
        } else {
            fs::write(&file, formatted).with_context(|| format!("write {shown}")).not_done()?;
        }
        common.output().line(&Formatted { file: shown, changed: !check })?;
    }
    Ok(exit)
}

#[derive(Serialize)]
struct Formatted {
    file: String,
    changed: bool,
}

impl fmt::Display for Formatted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.changed { "formatted" } else { "not formatted" };
        write!(f, "{}: {what}", self.file)
    }
}

/// Reads a reward file, or finds the one of that name among those that come with Assay.
fn find_spec(file: &str) -> CliResult<RewardSpec> {
    if is_file(file) {
        return read_spec(file);
    }
    RewardSpec::preset(file).cloned().ok_or_else(|| {
        let names: Vec<_> = RewardSpec::presets().iter().map(RewardSpec::name).collect();
        let names = names.join(", ");
        wrong(format!("no reward `{file}`; name a .toml file, or one of those here: {names}"))
    })
}

#[derive(Serialize)]
struct Explained {
    grade: String,
    #[serde(flatten)]
    explanation: Explanation,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.explanation.fmt(f)
    }
}

/// Puts what is wrong with a reward file into one message.
pub(super) fn told(errors: &[RewardError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[derive(Serialize)]
struct Report {
    file: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    errors: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    line: u32,
    column: u32,
    message: String,
}

impl From<&RewardError> for Problem {
    fn from(error: &RewardError) -> Self {
        Self { line: error.line, column: error.column, message: error.message.clone() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &self.digest) {
            (Some(name), Some(digest)) => write!(f, "{}: ok, `{name}` {digest}", self.file),
            _ => {
                let count = self.errors.len();
                let plural = if count == 1 { "" } else { "s" };
                write!(f, "{}: {count} error{plural}", self.file)?;
                for Problem { line, column, message } in &self.errors {
                    write!(f, "\n  {line}:{column}: {message}")?;
                }
                Ok(())
            }
        }
    }
}
