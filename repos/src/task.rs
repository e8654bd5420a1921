//! A task: a problem, how a submission is read, what is run and how much it may use.

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
    /// Where checks run: `python` (the default), or `docker:NAME` for an image of the engine.
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

/// What a task may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Training.
    Train,
    /// Measuring alone.
    HeldOut,
    /// The task doesn't say.
    None,
}

/// The language of a task's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Language {
    Python,
    Rust,
    Go,
    Javascript,
    Typescript,
    Java,
    C,
    Cpp,
    Shell,
}

/// What a policy hands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubmissionKind {
    /// A change to the revision.
    Patch,
    /// Whole files.
    Files,
    /// The source of one function, with what it needs.
    Function,
    /// The source of a program.
    Program,
    /// The end state of an episode.
    Episode,
}

/// How a submission is taken out of a raw completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extract {
    /// The completion is the submission.
    Raw,
    /// The first fenced block, else the whole text.
    Fence,
    /// The first unified diff, fenced or not.
    Diff,
    /// Blocks of `<<<<<<< SEARCH`, `=======`, `>>>>>>> REPLACE`, each after its path.
    SearchReplace,
    /// Fenced blocks, each after its path.
    Files,
}

/// What happens to the part of a submission that touches a denied path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenyAction {
    /// It is left out, and a flag says so.
    DropAndFlag,
    /// The whole submission is rejected.
    Reject,
}

/// Whether expected values ever enter the process of the code under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They don't: a verdict can't be forged.
    Sealed,
    /// They do: forging is made evident.
    Guarded,
}

/// How the results of a check are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportKind {
    /// Events of our pytest runner.
    Pytest,
    /// Events of our grader, which calls the submission's function in another sandbox.
    Function,
    /// stdout, compared with `private/cases/NAME.out`.
    Stdio,
    /// The exit status: 0 passes.
    Exit,
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

/// What a check may use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskLimits {
    /// Wall-clock time in seconds.
    pub wall_s: f64,
    /// CPU time of all processes together, in seconds.
    pub cpu_s: f64,
    /// Memory of all processes together, in MiB.
    pub memory_mb: u64,
    /// Processes and threads at the same time.
    pub pids: u64,
    /// Output kept of each stream, in KiB.
    pub output_kb: u64,
    /// Writable disk, in MiB.
    pub disk_mb: u64,
    /// Writable files.
    pub inodes: u64,
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self {
            wall_s: 60.0,
            cpu_s: 60.0,
            memory_mb: 1024,
            pids: 128,
            output_kb: 1024,
            disk_mb: 256,
            inodes: 20_000,
        }
    }
}

impl TaskLimits {
    /// Returns what holds for tasks of this kind that don't say otherwise: a function that is
    /// called a few times needs less than a test suite.
    #[must_use]
    pub fn for_kind(kind: SubmissionKind) -> Self {
        match kind {
            SubmissionKind::Function => {
                Self { wall_s: 15.0, cpu_s: 5.0, memory_mb: 256, ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}

/// Gives an enum its words: as files, records and the wire write them.
macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the word for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Returns what `word` means, if anything.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(Split { Train = "train", HeldOut = "held_out", None = "none" });
words!(Language {
    Python = "python", Rust = "rust", Go = "go", Javascript = "javascript",
    Typescript = "typescript", Java = "java", C = "c", Cpp = "cpp", Shell = "shell",
});
words!(SubmissionKind {
    Patch = "patch", Files = "files", Function = "function", Program = "program",
    Episode = "episode",
});
words!(Extract {
    Raw = "raw", Fence = "fence", Diff = "diff", SearchReplace = "search_replace", Files = "files",
});
words!(DenyAction { DropAndFlag = "drop_and_flag", Reject = "reject" });
words!(Mode { Sealed = "sealed", Guarded = "guarded" });
words!(ReportKind {
    Pytest = "pytest", Function = "function", Stdio = "stdio", Exit = "exit",
});

/// What `assay task validate` found: the status of every test without and with the gold
/// submission. The file is `private/expected.lock.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The format, 1.
    pub schema: u32,
    /// By check, by test.
    pub checks: BTreeMap<String, BTreeMap<String, LockedTest>>,
}

/// The status of one test in a [`Lock`]: `passed`, `failed`, `error`, `skipped`, `xfailed`,
/// `xpassed`, `timeout` or `missing`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedTest {
    /// Without a submission.
    pub base: String,
    /// With the gold submission.
    pub gold: String,
}

impl Lock {
    /// Returns the tests of `check` that pass both without and with the gold submission.
    #[must_use]
    pub fn kept(&self, check: &str) -> Vec<String> {
        let passes = |status: &str| matches!(status, "passed" | "xfailed");
        let tests = self.checks.get(check).into_iter().flatten();
        tests
            .filter(|(_, test)| passes(&test.base) && passes(&test.gold))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Returns the file's text, a test a line: the same for the same content.
    #[must_use]
    pub fn to_json(&self) -> String {
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        let row = |(test, both): (&String, &LockedTest)| {
            let (base, gold) = (quote(&both.base), quote(&both.gold));
            format!("      {}: {{\"base\": {base}, \"gold\": {gold}}}", quote(test))
        };
        let check = |(check, tests): (&String, &BTreeMap<String, LockedTest>)| {
            let rows: Vec<_> = tests.iter().map(row).collect();
            format!("    {}: {{\n{}\n    }}", quote(check), rows.join(",\n"))
        };
        let checks: Vec<_> = self.checks.iter().map(check).collect();
        let checks = checks.join(",\n");
        format!("{{\n  \"schema\": {},\n  \"checks\": {{\n{checks}\n  }}\n}}\n", self.schema)
    }
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
        let hidden = self.dir.join("private/tests");
        if hidden.is_dir() {
            let trouble = |(path, source)| TaskError::Read { path, source };
            for entry in tree::walk(&hidden).map_err(trouble)? {
                let content = self.private_file(Path::new("tests").join(&entry.path))?.into();
                overlay.insert(entry.path, Change::File { content, executable: entry.executable });
            }
        }
        Ok(self.memo.0.overlay.get_or_init(|| Arc::new(overlay)).clone())
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
            return Ok(revision.clone());
        }
        let revision = Revision::of(source, &self.dir)?;
        Ok(self.memo.0.revision.get_or_init(|| revision).clone())
    }
}

impl Language {
    /// Returns the usual ending of its files, without the dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Python => "py",
            Self::Rust => "rs",
            Self::Go => "go",
            Self::Javascript => "js",
            Self::Typescript => "ts",
            Self::Java => "java",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::Shell => "sh",
        }
    }
}
