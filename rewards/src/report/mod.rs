//! What an execution reported about its tests. The bytes are hostile.

mod canary;
mod delivery;
mod events;
mod formats;
mod stdio;
mod suite;

use assay_repos::{Digest, Flag, ReportKind, Severity};
use assay_sandbox::{Execution, LimitKind, Termination};
use serde::{Deserialize, Serialize};

pub use canary::{Canary, CanaryKind};
pub use stdio::{CaseRun, outputs_equal, parse_stdio};

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestStatus {
    /// It passed.
    Passed,
    /// An assertion of its own failed, or its output is wrong.
    Failed,
    /// Something else broke: set-up, tear-down, the program.
    Error,
    /// It was skipped.
    Skipped,
    /// It failed, as was expected of it. Counts as a pass.
    Xfailed,
    /// It passed and was expected to fail. Counts as no pass.
    Xpassed,
    /// A time limit ended it.
    Timeout,
    /// It was collected or required, and there is no result that counts.
    Missing,
}

impl TestStatus {
    /// Whether it is a pass.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(self, Self::Passed | Self::Xfailed)
    }

    /// Whether it is no regression of a test that passed before: a pass or a skip.
    #[must_use]
    pub fn keeps(self) -> bool {
        self.passes() || self == Self::Skipped
    }

    /// Whether the test came to a result of its own.
    #[must_use]
    pub fn ran(self) -> bool {
        !matches!(self, Self::Skipped | Self::Missing)
    }

    /// Returns the word that reports and lock files use: `passed`, ...
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Error => "error",
            Self::Skipped => "skipped",
            Self::Xfailed => "xfailed",
            Self::Xpassed => "xpassed",
            Self::Timeout => "timeout",
            Self::Missing => "missing",
        }
    }
}

/// One test of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct TestResult {
    /// Its id: a pytest node id, a function's name, a case's name. At most 1 KiB.
    pub id: String,
    /// How it ended.
    pub status: TestStatus,
    /// How long it took, in seconds; finite and not negative.
    pub duration_s: Option<f64>,
    /// What it said. At most 2 KiB, without control characters but newline and tab.
    pub message: Option<String>,
}

/// How far a runner got, by its own report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Progress {
    /// Not a word with the right nonce.
    Silent,
    /// It runs, and has not collected tests yet.
    Alive,
    /// It collected tests.
    Started,
    /// It reported its end, and nothing contradicts that.
    Ended,
}

/// What an execution reported, made consistent: statuses here can be counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Collected tests in their order, each once. Without a reliable end no test has passed.
    pub tests: Vec<TestResult>,
    /// How far the runner got.
    pub progress: Progress,
    /// Whether the runner spoke and its process left before it told an end: what it ran ended it.
    pub broke_off: bool,
    /// Contradictions and oddities. Tampering where code under test shared the runner's process.
    pub flags: Vec<Flag>,
    /// A contradiction in a report that only our own code could write: our defect.
    pub defect: Option<String>,
    /// How the tests of known outcome came out that the runner mixed in.
    pub canaries: Vec<Canary>,
}

impl Report {
    /// Says that no result that speaks for the submission counts, and why.
    pub(crate) fn discredit(&mut self, code: &str, severity: Severity, evidence: &str, why: &str) {
        self.progress = self.progress.min(Progress::Started);
        self.tests.iter_mut().for_each(|test| discredited(test, why));
        let evidence = bounded(evidence, MAX_EVIDENCE);
        self.flags.push(Flag { code: code.into(), severity, evidence });
    }
}

/// One process that ran a check.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// What is left of the runner, the grader or the command itself. Its first collected channel
    /// is the report.
    pub execution: &'a Execution,
    /// What the runner was given as the first line of its stdin. Never empty.
    pub nonce: &'a str,
    /// The submission's own process in a sealed check; absent elsewhere.
    pub subject: Option<&'a Execution>,
}

/// Why there is no [`Report`]: the caller's mistake, never the submission's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The kind is read by another function.
    #[error("`{0}` reports are not read from one execution; use parse_stdio")]
    Unsupported(ReportKind),
    /// The command had no collected channel.
    #[error("the execution has no collected channel to read a `{0}` report from")]
    NoChannel(ReportKind),
    /// There is nothing to tell our runner's report by.
    #[error("the nonce of a `{0}` report is empty")]
    NoNonce(ReportKind),
}

/// Why results of a report count for nothing.
const NO_END: &str = "by a report that has no valid end";

/// Most bytes of a test's id. A longer one is cut and gets a digest, so that two stay two.
pub(crate) const MAX_ID: usize = 1024;
/// Most bytes of a test's message.
pub(crate) const MAX_MESSAGE: usize = 2048;
/// Most flags of one report; more say nothing new.
const MAX_FLAGS: usize = 16;
/// Most bytes of a flag's evidence.
const MAX_EVIDENCE: usize = 200;

/// Reads the report of one execution.
///
/// # Errors
///
/// [`ReportError`] when the caller asks for what can't be. Whatever the bytes are, they are no
/// error: they make a report in which nothing passed.
pub fn parse(kind: ReportKind, evidence: &Evidence<'_>) -> Result<Report, ReportError> {
    match kind {
        ReportKind::Exit => Ok(parse_exit(evidence.execution)),
        ReportKind::Stdio => Err(ReportError::Unsupported(kind)),
        _ => {
            let channel =
                evidence.execution.channels.first().ok_or(ReportError::NoChannel(kind))?;
            if evidence.nonce.is_empty() {
                return Err(ReportError::NoNonce(kind));
            }
            let (termination, nonce) = (evidence.execution.termination, evidence.nonce);
            if kind.is_foreign() {
                return Ok(formats::parse(kind, channel, termination, nonce));
            }
            let sealed = evidence.subject.is_some();
            let canaries = if sealed { &[] } else { canary::required(kind) };
            Ok(events::parse(channel, termination, nonce, sealed, canaries))
        }
    }
}

/// The one test of an `exit` report.
pub(crate) const EXIT_TEST: &str = "exit";

fn parse_exit(execution: &Execution) -> Report {
    let status = status_of(execution.termination);
    let message = (!status.passes()).then(|| {
        let said = execution.stderr.lossy();
        let said = tail(said.trim_end(), MAX_MESSAGE / 2);
        bounded(&format!("{}\n{said}", describe(execution.termination)), MAX_MESSAGE)
    });
    Report {
        tests: vec![TestResult {
            id: EXIT_TEST.into(),
            status,
            duration_s: Some(execution.usage.wall.as_secs_f64()),
            message,
        }],
        progress: Progress::Ended,
        broke_off: false,
        flags: Vec::new(),
        defect: None,
        canaries: Vec::new(),
    }
}

/// What the end of a process says about the one test that it was.
fn status_of(termination: Termination) -> TestStatus {
    match termination {
        Termination::Exited(0) => TestStatus::Passed,
        Termination::Exited(_) => TestStatus::Failed,
        Termination::Signaled(_) | Termination::Limit(LimitKind::Memory) => TestStatus::Error,
        Termination::Limit(LimitKind::Wall | LimitKind::WallStarved | LimitKind::Cpu) => {
            TestStatus::Timeout
        }
    }
}

/// Says how a process ended, for people.
pub(crate) fn describe(termination: Termination) -> String {
    match termination {
        Termination::Exited(code) => format!("exited with status {code}"),
        Termination::Signaled(signal) => format!("ended by signal {signal}"),
        Termination::Limit(LimitKind::Wall) => "went over the wall-clock limit".into(),
        Termination::Limit(LimitKind::WallStarved) => {
            "went over the wall-clock limit while the machine had no CPU time for it".into()
        }
        Termination::Limit(LimitKind::Cpu) => "went over the CPU time limit".into(),
        Termination::Limit(LimitKind::Memory) => "went over the memory limit".into(),
    }
}

/// Python writes half of a surrogate pair, such as one that stands for a byte of a file name that
/// is not UTF-8, as `\udcXX`: valid JSON by its grammar, but no text. A test may print such names
/// in good faith. Returns the line with each replaced, or `None` when it has none.
fn replace_lone_surrogates(line: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| -> Option<u16> {
        let escape = line.get(at..at + 6)?;
        let digits = escape.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut out = Vec::with_capacity(line.len());
    let (mut at, mut replaced) = (0, false);
    while at < line.len() {
        let length = match (line[at], unit(at)) {
            (b'\\', Some(0xd800..=0xdbff)) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            (b'\\', Some(0xd800..=0xdfff)) => {
                out.extend_from_slice(b"\\ufffd");
                replaced = true;
                at += 6;
                continue;
            }
            (b'\\', _) => 2,
            _ => 1,
        };
        let end = (at + length).min(line.len());
        out.extend_from_slice(&line[at..end]);
        at = end;
    }
    replaced.then_some(out)
}

/// Takes back whatever speaks for the submission: nobody vouches for it, and `why` says so.
fn discredited(test: &mut TestResult, why: &str) {
    use TestStatus::{Error, Failed, Missing, Timeout};
    if matches!(test.status, Failed | Error | Timeout | Missing) {
        return;
    }
    let message = format!("reported as {}, {why}", test.status.as_str());
    (test.status, test.message) = (TestStatus::Missing, Some(message));
}

/// Of two results of one id, the one to believe is the worse.
fn badness(status: TestStatus) -> u8 {
    match status {
        TestStatus::Passed => 0,
        TestStatus::Xfailed => 1,
        TestStatus::Skipped => 2,
        TestStatus::Xpassed => 3,
        TestStatus::Missing => 4,
        TestStatus::Timeout => 5,
        TestStatus::Failed => 6,
        TestStatus::Error => 7,
    }
}

/// Returns an id of at most [`MAX_ID`] bytes that differs when `id` does. Ids keep what control
/// characters they have: they are compared with the task's.
pub(crate) fn bounded_id(id: &str) -> String {
    if id.len() <= MAX_ID {
        return id.to_owned();
    }
    let digest = Digest::of(id);
    let mark = format!("...#{}", &digest.hex()[..16]);
    let mut cut = MAX_ID - mark.len();
    while !id.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{mark}", &id[..cut])
}

/// Returns at most `max` bytes of `text`, control characters but newline and tab replaced.
pub(crate) fn bounded(text: &str, max: usize) -> String {
    let clean = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars().map(clean) {
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(c);
    }
    out
}

/// Returns at most the last `max` bytes of `text`.
pub(crate) fn tail(text: &str, max: usize) -> &str {
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests;
