//! A task: a problem, how a submission is read, what is run and how much it may use.

mod files;
mod limits;
mod lock;
mod signature;
mod words;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use globset::GlobSet;
use serde::{Deserialize, Serialize};

use crate::{
    Change, Digest, Revision, Source, SourceError, Submission, TaskId, deny, prompt, tree,
};

pub use files::{TaskFile, write_task};
pub use limits::TaskLimits;
pub use lock::{Lock, LockedTest};
pub use signature::{InvalidSignature, Signature, Type};
pub use words::{
    DenyAction, Extract, Language, LogParser, Mode, ReportKind, Split, SubmissionKind,
};

/// A task directory that was read and found valid.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its name, unique in a catalog.
    pub id: TaskId,
    /// The set it belongs to: `set` of the file, else what the id says before its first `.`.
    pub set: String,
    /// What it may be used for.
    pub split: Split,
    /// The language of the code.
    pub language: Language,
    /// Free words for filters.
    pub tags: Vec<String>,
    /// Where the submission runs: `python` (the default; `toolchains` for functions in other languages), an image
    /// by its name, `wasm:python`, or `docker:NAME` for one of the engine.
    pub image: String,
    /// Where the work tree appears in the sandbox; absolute.
    pub workdir: PathBuf,
    /// The code it is about. Function tasks have none.
    pub source: Option<Source>,
    /// What the policy is asked.
    pub prompt: Prompt,
    /// How a submission is read.
    pub submission: SubmissionRule,
    /// What a check may use.
    pub limits: TaskLimits,
    /// What is run, in this order. Never empty.
    pub checks: Vec<Check>,
    /// Files of the revision that are restored from a trusted copy after the submission.
    pub tests: GlobSet,
    /// Over every file of the task directory: names, executable bits and content.
    pub digest: Digest,
    /// Whether expected values ever enter the process of the code under test.
    pub mode: Mode,
    /// What `assay task validate` found, if it ran.
    pub lock: Option<Lock>,
    /// The task directory.
    pub dir: PathBuf,
    pub(crate) memo: Memo,
}

/// The tests that must not get worse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MustKeep {
    /// None.
    Nothing,
    /// Those that pass with and without the gold submission, by `private/expected.lock.json`.
    Lock,
    /// These.
    Tests(Vec<String>),
}

/// One command of a task with the report that it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, unique in the task.
    pub id: String,
    /// Program and arguments. Empty for [`ReportKind::Function`].
    pub run: Vec<String>,
    /// How its results are read.
    pub report: ReportKind,
    /// Where the command leaves its report, relative to the work tree; the last part of the path may have
    /// `*` and `?`. Absent: what it prints is the report. For kinds that a foreign tool writes alone.
    pub report_path: Option<String>,
    /// The tests that the submission has to make pass. Empty: all of them.
    pub must_pass: Vec<String>,
    /// The tests that must go on passing.
    pub must_keep: MustKeep,
}

/// What the policy is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The problem, relative to the task directory.
    pub template: PathBuf,
    /// Files of the revision that are shown with it.
    pub context: Vec<PathBuf>,
}

/// How a submission is read, and what it may touch.
#[derive(Clone, Debug)]
pub struct SubmissionRule {
    /// What is handed in.
    pub kind: SubmissionKind,
    /// How it is taken out of a raw completion.
    pub extract: Extract,
    /// The function that is called, for [`SubmissionKind::Function`].
    pub entry: Option<String>,
    /// Its types, where the language needs them: C and Rust.
    pub signature: Option<Signature>,
    /// The file that a program's source becomes, for [`SubmissionKind::Program`].
    pub path: Option<PathBuf>,
    /// Most bytes of a submission, before anything is parsed.
    pub max_bytes: u64,
    /// Paths it may not touch.
    pub deny: GlobSet,
    /// `deny` as written.
    pub deny_globs: Vec<String>,
    /// What happens when it does.
    pub deny_action: DenyAction,
}

/// One turn of the conversation that a policy is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `user`; later also `system`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// One run of a program on known input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StdioCase {
    /// The file name without its ending; the test's id.
    pub name: String,
    /// What the program reads.
    pub input: Vec<u8>,
    /// What it should print. Never enters a sandbox.
    pub expected: Vec<u8>,
}

/// Why a task that loaded can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A file of the task directory is gone or unreadable.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the task directory is not what it should be.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, as a fragment.
        what: String,
    },
    /// Its code is not there.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// What a task's directory and release gave, read once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memo(Arc<MemoParts>);

#[derive(Debug, Default)]
struct MemoParts {
    revision: OnceLock<Revision>,
    overlay: OnceLock<Arc<BTreeMap<PathBuf, Change>>>,
}

impl Task {
    /// Returns what the policy is asked, the same for everybody.
    ///
    /// # Errors
    ///
    /// When the problem can't be read, or the context's revision is not there.
    pub fn messages(&self) -> Result<Vec<ChatMessage>, TaskError> {
        prompt::messages(self)
    }

    /// Returns the digest of [`messages`](Self::messages).
    ///
    /// # Errors
    ///
    /// As for `messages`.
    pub fn prompt_digest(&self) -> Result<Digest, TaskError> {
        Ok(prompt::digest(&self.messages()?))
    }

    /// Returns whether everything it needs was fetched; reads nothing of it.
    ///
    /// # Errors
    ///
    /// [`SourceError::NotFetched`] says what to do.
    pub fn available(&self) -> Result<(), SourceError> {
        match self.source.as_ref().and_then(|source| source.package.as_ref()) {
            Some(package) if !package.archive.is_file() && !package.tree.is_dir() => {
                Err(SourceError::NotFetched { archive: package.archive.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Returns the submission that solves it.
    ///
    /// # Errors
    ///
    /// When `private/` doesn't hold it.
    pub fn gold(&self) -> Result<Submission, TaskError> {
        let text = |name: &str| {
            String::from_utf8(self.private_file(name)?).map_err(|_| TaskError::Content {
                path: self.dir.join("private").join(name),
                what: "is not UTF-8".into(),
            })
        };
        let whole = self.dir.join("private/gold");
        Ok(match self.submission.kind {
            SubmissionKind::Files if whole.is_dir() => {
                let trouble = |(path, source)| TaskError::Read { path, source };
                let read = |entry: tree::Entry| {
                    let content = self.private_file(Path::new("gold").join(&entry.path))?;
                    Ok((entry.path, content))
                };
                let files = tree::walk(&whole).map_err(trouble)?.into_iter().map(read);
                Submission::Files(files.collect::<Result<_, TaskError>>()?)
            }
            SubmissionKind::Patch | SubmissionKind::Files | SubmissionKind::Episode => {
                Submission::Patch(text("gold.patch")?)
            }
            SubmissionKind::Function | SubmissionKind::Program => {
                Submission::Source(text(&format!("gold.{}", self.language.extension()))?)
            }
        })
    }

    /// Returns the submission that says nothing.
    #[must_use]
    pub fn empty(&self) -> Submission {
        match self.submission.kind {
            SubmissionKind::Patch | SubmissionKind::Files | SubmissionKind::Episode => {
                Submission::Patch(String::new())
            }
            SubmissionKind::Function | SubmissionKind::Program => Submission::Source(String::new()),
        }
    }

    /// Returns the content of `private/<name>`.
    ///
    /// # Errors
    ///
    /// When it is not there; [`io::ErrorKind::NotFound`] where it may be absent.
    pub fn private_file(&self, name: impl AsRef<Path>) -> Result<Vec<u8>, TaskError> {
        let path = self.dir.join("private").join(name);
        fs::read(&path).map_err(|source| TaskError::Read { path, source })
    }

    /// Says whether the task's files are still those that were loaded. What was read of others
    /// judges another task.
    ///
    /// # Errors
    ///
    /// [`SourceError::Changed`], or why they can't be read.
    pub fn unchanged(&self) -> Result<(), SourceError> {
        let unreadable = |(path, source)| SourceError::Io { what: "cannot read", path, source };
        if tree::digest(&self.dir).map_err(unreadable)? == self.digest {
            return Ok(());
        }
        let what = "holds other files than those that were loaded; put them back, or start the \
                    service again";
        Err(SourceError::Changed { path: self.dir.clone(), what })
    }

    /// Returns the tests that `check` must keep.
    ///
    /// # Errors
    ///
    /// When they stand in `private/expected.lock.json`, which is not there.
    pub fn kept_tests(&self, check: &Check) -> Result<Vec<String>, TaskError> {
        match (&check.must_keep, &self.lock) {
            (MustKeep::Nothing, _) => Ok(Vec::new()),
            (MustKeep::Tests(tests), _) => Ok(tests.clone()),
            (MustKeep::Lock, Some(lock)) if lock.checks.contains_key(&check.id) => {
                Ok(lock.kept(&check.id))
            }
            (MustKeep::Lock, _) => Err(TaskError::Content {
                path: self.dir.join("private/expected.lock.json"),
                what: format!("has no check `{}`; run `assay task validate {}`", check.id, self.id),
            }),
        }
    }

    /// Returns the files that go on last, over revision and submission: the revision's own tests
    /// and runner configuration, then `private/tests/`, which mirrors the work tree.
    ///
    /// # Errors
    ///
    /// When one can't be read.
    pub fn trusted_overlay(
        &self,
        revision: &Revision,
    ) -> Result<Arc<BTreeMap<PathBuf, Change>>, TaskError> {
        if let Some(overlay) = self.memo.0.overlay.get() {
            return Ok(overlay.clone());
        }
        let since = revision.stamp();
        let mut overlay = BTreeMap::new();
        if self.source.is_some() {
            for path in revision.files()? {
                if (self.tests.is_match(&path) || deny::configures_runner(&path))
                    && let Some(file) = revision.read(&path)?
                {
                    overlay.insert(path, file);
                }
            }
        }
        overlay.extend(self.private_files("tests")?);
        self.unchanged()?;
        revision.unchanged_since(since.as_ref())?;
        Ok(self.memo.0.overlay.get_or_init(|| Arc::new(overlay)).clone())
    }

    /// Returns what goes over the tests in a control run, where those that have to pass must fail:
    /// the files of `private/control/`, which mirrors the work tree. Empty where the task has none.
    ///
    /// # Errors
    ///
    /// When one can't be read.
    pub fn control_files(&self) -> Result<BTreeMap<PathBuf, Change>, TaskError> {
        self.private_files("control")
    }

    fn private_files(&self, folder: &str) -> Result<BTreeMap<PathBuf, Change>, TaskError> {
        let within = self.dir.join("private").join(folder);
        if !within.is_dir() {
            return Ok(BTreeMap::new());
        }
        let files =
            tree::walk(&within).map_err(|(path, source)| TaskError::Read { path, source })?;
        let file = |entry: tree::Entry| {
            let content = self.private_file(Path::new(folder).join(&entry.path))?.into();
            Ok((entry.path, Change::File { content, executable: entry.executable }))
        };
        files.into_iter().map(file).collect()
    }

    /// Returns the runs of a program and what they should print, in order of their names.
    ///
    /// # Errors
    ///
    /// When a case has no `.out`, or can't be read.
    pub fn stdio_cases(&self) -> Result<Vec<StdioCase>, TaskError> {
        let dir = self.dir.join("private/cases");
        if !dir.is_dir() {
            return Ok(Vec::new());
        }
        let files = tree::walk(&dir).map_err(|(path, source)| TaskError::Read { path, source })?;
        let inputs = files.iter().filter(|entry| entry.path.extension().is_some_and(|e| e == "in"));
        inputs
            .map(|entry| {
                let read = |ending| {
                    self.private_file(Path::new("cases").join(entry.path.with_extension(ending)))
                };
                Ok(StdioCase {
                    name: entry.path.with_extension("").to_string_lossy().into_owned(),
                    input: read("in")?,
                    expected: read("out")?,
                })
            })
            .collect()
    }

    /// Returns the tree that submissions are applied to; unpacks the release at first use.
    ///
    /// # Errors
    ///
    /// When the release was not fetched, or is not the pinned one.
    pub fn revision(&self) -> Result<Revision, SourceError> {
        let Some(source) = &self.source else { return Ok(Revision::empty()) };
        if let Some(revision) = self.memo.0.revision.get() {
            if let Some(package) = &source.package {
                // It may have been deleted since.
                package.unpacked()?;
            }
            return Ok(revision.clone());
        }
        let revision = Revision::of(source, &self.dir)?;
        self.unchanged()?;
        Ok(self.memo.0.revision.get_or_init(|| revision).clone())
    }
}
