//! The words that task files, records and the wire use.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReportKind {
    /// Events of our pytest runner.
    Pytest,
    /// Events of our unittest runner.
    Unittest,
    /// The same, under Django's own test runner.
    Django,
    /// Events of our grader, which calls the submission's function in another sandbox.
    Function,
    /// stdout, compared with `private/cases/NAME.out`.
    Stdio,
    /// The exit status: 0 passes.
    Exit,
    /// JUnit XML, of a file or of several.
    Junit,
    /// The Test Anything Protocol, 13 and 14; also what `node --test` prints.
    Tap,
    /// The events of `go test -json`.
    GoJson,
    /// The text of `cargo test`.
    Cargo,
    /// CTRF, the Common Test Report Format: JSON, of a file or of several.
    Ctrf,
    /// The JSON of jest and vitest.
    Jest,
    /// The JSON of mocha.
    Mocha,
    /// Text for people, stdout and stderr together, as an imported task names its parser.
    Log(LogParser),
}

/// How a log is read, by the names that SWE-bench and its kin have for it. Ids are as their rows
/// have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogParser {
    /// pytest with `-rA` or `-v`.
    Pytest,
    /// The same; of a parameter that is a path, ids have the last part alone.
    PytestOptions,
    /// The same as `Pytest` in all that is read here.
    PytestV2,
    /// The same as `Pytest` in all that is read here.
    Seaborn,
    /// The same; mouse buttons have numbers in ids.
    Matplotlib,
    /// unittest with `-v`, also under Django's runner.
    Django,
    /// SymPy's own runner with `--verbose`.
    Sympy,
    /// `go test -v`, without packages.
    GoTest,
    /// `cargo test`, without binaries.
    Cargo,
    /// Gradle with passed and failed tests logged.
    GradleCustom,
    /// Ant's junit task with a formatter that prints `[PASS]`.
    Ant,
    /// jest with `--verbose`.
    Jest,
    /// vitest with `--reporter=verbose`.
    Vitest,
    /// PHPUnit with `--testdox`.
    Phpunit,
    /// minitest with `--verbose`.
    Minitest,
}

impl ReportKind {
    /// Whether the tests share a process, or files, with the code under test.
    #[must_use]
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Function | Self::Stdio)
    }

    /// Whether its tests can run in another sandbox than the code under test.
    #[must_use]
    pub fn is_sealable(self) -> bool {
        !self.is_open() || self == Self::Pytest
    }

    /// Whether a test tool that is not ours writes the report.
    #[must_use]
    pub fn is_foreign(self) -> bool {
        self.is_open() && !self.is_ours() && self != Self::Exit
    }

    /// Whether a runner of ours for a Python test framework writes the report.
    #[must_use]
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Pytest | Self::Unittest | Self::Django)
    }
}

impl Serialize for ReportKind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ReportKind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(from)?;
        Self::from_word(&word)
            .ok_or_else(|| D::Error::custom(format!("`{word}` is no kind of report")))
    }
}

impl Language {
    /// Whether our grader can call functions in it, in a sandbox of their own.
    #[must_use]
    pub fn has_functions(self) -> bool {
        matches!(self, Self::Python | Self::Javascript | Self::C | Self::Rust)
    }

    /// Whether a caller has to know a function's types beforehand.
    pub(crate) fn has_signatures(self) -> bool {
        matches!(self, Self::C | Self::Rust)
    }

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

/// Gives an enum its words: as files, records and the wire write them.
macro_rules! words {
    ($type:ident { $($variant:ident $(($inner:path))? = $word:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in order.
            pub const ALL: &[Self] = &[$(Self::$variant $(($inner))?),+];

            /// Returns the word for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant $(($inner))? => $word),+ }
            }

            /// Returns what `word` means, if anything.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant $(($inner))?),)+ _ => None }
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
    Pytest = "pytest", Unittest = "unittest", Django = "django",
    Function = "function", Stdio = "stdio", Exit = "exit",
    Junit = "junit", Tap = "tap", GoJson = "go-json", Cargo = "cargo", Ctrf = "ctrf",
    Jest = "jest", Mocha = "mocha",
    Log(LogParser::Pytest) = "log:parse_log_pytest",
    Log(LogParser::PytestOptions) = "log:parse_log_pytest_options",
    Log(LogParser::PytestV2) = "log:parse_log_pytest_v2",
    Log(LogParser::Seaborn) = "log:parse_log_seaborn",
    Log(LogParser::Matplotlib) = "log:parse_log_matplotlib",
    Log(LogParser::Django) = "log:parse_log_django",
    Log(LogParser::Sympy) = "log:parse_log_sympy",
    Log(LogParser::GoTest) = "log:parse_log_gotest",
    Log(LogParser::Cargo) = "log:parse_log_cargo",
    Log(LogParser::GradleCustom) = "log:parse_log_gradle_custom",
    Log(LogParser::Ant) = "log:parse_log_ant",
    Log(LogParser::Jest) = "log:parse_log_jest",
    Log(LogParser::Vitest) = "log:parse_log_vitest",
    Log(LogParser::Phpunit) = "log:parse_log_phpunit",
    Log(LogParser::Minitest) = "log:parse_log_minitest",
});
