//! The file that a grade can be reproduced from. Whoever reads one reads bytes from outside.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use anyhow::{Context as _, bail, ensure};
use assay_fleet::{HandedIn, Stop};
use assay_repos::{Digest, Submission, TaskFile};
use assay_rewards::GradeRecord;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

/// What the file says that it is.
const FORMAT: &str = "assay-grade";
/// The format that this code writes and reads.
const SCHEMA: u32 = 1;
/// Most bytes of a file that is read.
const MAX_BYTES: u64 = 1 << 30;

/// A grade with all that it came from, but image and releases: those are named by digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bundle {
    format: String,
    schema: u32,
    /// Of the record.
    pub(super) grade: Digest,
    pub(super) record: GradeRecord,
    submission: Handed,
    stop: Halt,
    pub(crate) task: TaskFolder,
    /// What every command had.
    pub(super) environment: BTreeMap<String, String>,
}

/// A task directory, private files and all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskFolder {
    /// The release that it is about, as `name@version`, and that release's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) release: Option<(String, Digest)>,
    files: Vec<OneFile>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneFile {
    path: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    executable: bool,
    /// Text as it is, anything else in base64: one of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Handed {
    Patch(String),
    Source(String),
    Completion(String),
    Files(Vec<OneFile>),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Halt {
    All,
    Decisive,
}

impl Bundle {
    pub(super) fn new(
        grade: Digest,
        record: GradeRecord,
        handed_in: HandedIn,
        release: Option<(String, Digest)>,
        files: Vec<TaskFile>,
    ) -> anyhow::Result<Self> {
        let one = |file: TaskFile| OneFile::of(file.path, file.executable, file.content);
        let stop = match handed_in.stop {
            Stop::All => Halt::All,
            Stop::Decisive => Halt::Decisive,
        };
        Ok(Self {
            format: FORMAT.into(),
            schema: SCHEMA,
            grade,
            record,
            submission: Handed::of(handed_in.submission)?,
            stop,
            task: TaskFolder { release, files: files.into_iter().map(one).collect() },
            environment: assay_fleet::environment(),
        })
    }

    pub(super) fn write(&self, to: impl io::Write) -> anyhow::Result<()> {
        let mut to = io::BufWriter::new(to);
        serde_json::to_writer_pretty(&mut to, self)?;
        io::Write::write_all(&mut to, b"\n")?;
        io::Write::flush(&mut to).map_err(Into::into)
    }

    /// Reads a file, or stdin for `-`.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let mut bytes = Vec::new();
        let most = MAX_BYTES + 1;
        if path == Path::new("-") {
            io::stdin().lock().take(most).read_to_end(&mut bytes)?;
        } else {
            File::open(path)?.take(most).read_to_end(&mut bytes)?;
        }
        ensure!(bytes.len() as u64 <= MAX_BYTES, "longer than {MAX_BYTES} bytes");
        let bundle = Self::decode(&bytes)?;
        let found = bundle.record.id();
        if bundle.grade != found {
            bail!("its record was changed: it is {found}, not {}", bundle.grade);
        }
        Ok(bundle)
    }

    /// Reads what a file holds, without looking whether the record is the one that it names.
    pub(crate) fn decode(bytes: &[u8]) -> anyhow::Result<Self> {
        // What it is, first: a file of another version would have keys that this one doesn't know.
        let Head { format, schema } =
            serde_json::from_slice(bytes).context("not a file of `assay grade export`")?;
        ensure!(format == FORMAT, "not a file of `assay grade export`: its format is `{format}`");
        ensure!(schema == SCHEMA, "written by another version: schema {schema}, known is {SCHEMA}");
        let bundle: Self = serde_json::from_slice(bytes)?;
        let (schema, known) = (bundle.record.schema, GradeRecord::SCHEMA);
        ensure!(schema == known, "its record has schema {schema}, and this version knows {known}");
        Ok(bundle)
    }

    pub(crate) fn submission(&self) -> anyhow::Result<Submission> {
        Ok(match self.submission.clone() {
            Handed::Patch(text) => Submission::Patch(text),
            Handed::Source(text) => Submission::Source(text),
            Handed::Completion(text) => Submission::Completion(text),
            Handed::Files(files) => {
                let files = files.into_iter().map(|file| {
                    let content = file.content()?;
                    Ok((file.path.into(), content))
                });
                Submission::Files(files.collect::<anyhow::Result<_>>()?)
            }
        })
    }

    pub(super) fn stop(&self) -> Stop {
        match self.stop {
            Halt::All => Stop::All,
            Halt::Decisive => Stop::Decisive,
        }
    }
}

/// What every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    schema: u32,
}

impl TaskFolder {
    pub(crate) fn files(&self) -> anyhow::Result<Vec<TaskFile>> {
        let read = |file: &OneFile| {
            let content = file.content()?;
            Ok(TaskFile { path: file.path.clone(), executable: file.executable, content })
        };
        self.files.iter().map(read).collect()
    }
}

impl OneFile {
    fn of(path: String, executable: bool, content: Vec<u8>) -> Self {
        let (text, base64) = match String::from_utf8(content) {
            Ok(text) => (Some(text), None),
            Err(other) => (None, Some(BASE64_STANDARD.encode(other.as_bytes()))),
        };
        Self { path, executable, text, base64 }
    }

    fn content(&self) -> anyhow::Result<Vec<u8>> {
        let path = &self.path;
        match (&self.text, &self.base64) {
            (Some(text), None) => Ok(text.clone().into_bytes()),
            (None, Some(coded)) => {
                BASE64_STANDARD.decode(coded).with_context(|| format!("{path}: not base64"))
            }
            _ => bail!("{path}: needs `text` or `base64`, and not both"),
        }
    }
}

impl Handed {
    fn of(submission: Submission) -> anyhow::Result<Self> {
        Ok(match submission {
            Submission::Patch(text) => Self::Patch(text),
            Submission::Source(text) => Self::Source(text),
            Submission::Completion(text) => Self::Completion(text),
            Submission::Files(files) => {
                let one = |(path, content): (std::path::PathBuf, Vec<u8>)| {
                    let path = path.to_str().context("a path of the submission is not UTF-8")?;
                    Ok(OneFile::of(path.to_owned(), false, content))
                };
                Self::Files(files.into_iter().map(one).collect::<anyhow::Result<_>>()?)
            }
        })
    }
}
