//! The results of a tool that is not ours, added up and weighed against how its process ended.
//!
//! Nothing vouches for such a report but itself: the code under test shares a process, or files,
//! with whatever writes it. Two kinds of trouble are told apart. A *gap* is what a crash leaves:
//! lost results, no end. A *contradiction* is more success than the rest of the report or the
//! process has room for, and no crash makes one. With either, nothing passed.

use std::{
    borrow::Cow,
    hash::{BuildHasher as _, RandomState},
};

use assay_repos::{Flag, ReportKind, Severity};
use assay_sandbox::{LimitKind, Termination};
use hashbrown::{HashTable, hash_table::Entry};

use super::{
    MAX_EVIDENCE, MAX_FLAGS, MAX_ID, MAX_MESSAGE, NO_END, Progress, Report, TestResult, TestStatus,
    badness, bounded, bounded_id, describe, discredited,
};

/// Most tests of a report.
pub(super) const MAX_TESTS: usize = 200_000;
/// Most bytes of the ids and messages of all tests, as records write them. One file name of a
/// short report can stand in every id.
const MAX_TEXT: usize = 16 << 20;
/// What stands between the parts of an id: file, class or binary, groups, name.
const BETWEEN: &str = " > ";

/// What is known of the tests of a report while it is read.
#[derive(Default)]
pub(super) struct Suite {
    tests: Vec<TestResult>,
    /// Where a test is, by the hash of its id: ids are kept once, and hashed once.
    places: HashTable<(u64, usize)>,
    hasher: RandomState,
    flags: Vec<Flag>,
    /// Whether there was a gap or a contradiction.
    incredible: bool,
    /// The first test that passed when it was tried again, and how many did.
    flaky: Option<(String, u32)>,
    unfinished: usize,
    /// Bytes of ids and messages so far, those of replaced results among them.
    text: usize,
    /// Whether a report without a result shows that the tool ran.
    started: bool,
    /// Tests that were announced by [`admits`](Self::admits).
    announced: usize,
}

impl Suite {
    /// Adds a result. Of several for one id, the worst counts.
    pub(super) fn add(&mut self, result: TestResult) {
        let message = result.message.as_deref().unwrap_or_default();
        self.text += written(&result.id) + written(message);
        if self.text > MAX_TEXT {
            return self.too_many();
        }
        let hash = self.hasher.hash_one(&result.id);
        let tests = &mut self.tests;
        let same = |(other, place): &(u64, usize)| *other == hash && tests[*place].id == result.id;
        match self.places.entry(hash, same, |(hash, _)| *hash) {
            Entry::Occupied(known) => {
                let known = &mut tests[known.get().1];
                if badness(result.status) > badness(known.status) {
                    *known = result;
                }
            }
            Entry::Vacant(_) if tests.len() == MAX_TESTS => self.too_many(),
            Entry::Vacant(place) => {
                place.insert((hash, tests.len()));
                tests.push(result);
            }
        }
    }

    /// Whether there is room for another test: asked before anything is made of it, also of tests
    /// that share an id.
    pub(super) fn admits(&mut self) -> bool {
        self.announced += 1;
        self.announced <= MAX_TESTS
    }

    /// Says that there are more than [`MAX_TESTS`], or more than [`MAX_TEXT`] bytes of them.
    pub(super) fn too_many(&mut self) {
        let text = MAX_TEXT >> 20;
        let evidence = format!("more than {MAX_TESTS} tests, or {text} MiB of ids and messages");
        self.gap("report.truncated", &evidence);
    }

    /// Adds a test that began and has no result.
    pub(super) fn unfinished(&mut self, id: String, why: &str) {
        self.unfinished += 1;
        let message = Some(why.to_owned());
        self.add(TestResult { id, status: TestStatus::Missing, duration_s: None, message });
    }

    /// Says that a test passed when it was tried again. It counts as passed.
    pub(super) fn flaky(&mut self, id: &str) {
        let (_, count) = self.flaky.get_or_insert_with(|| (id.to_owned(), 0));
        *count += 1;
    }

    /// Says that the tool ran, whether there are results or not.
    pub(super) fn started(&mut self) {
        self.started = true;
    }

    /// What a crash can leave. Nothing passes.
    pub(super) fn gap(&mut self, code: &str, evidence: &str) {
        self.incredible = true;
        self.flag(code, Severity::Warning, evidence);
    }

    /// What no crash can leave. Nothing passes.
    pub(super) fn contradiction(&mut self, code: &str, evidence: &str) {
        self.incredible = true;
        self.flag(code, Severity::Tampering, evidence);
    }

    fn flag(&mut self, code: &str, severity: Severity, evidence: &str) {
        // The gravest are kept, however many others came before.
        if self.flags.len() == MAX_FLAGS {
            let mild = self.flags.iter().position(|flag| flag.severity < severity);
            let Some(mild) = mild else { return };
            self.flags.remove(mild);
        }
        let evidence = bounded(evidence, MAX_EVIDENCE);
        self.flags.push(Flag { code: code.into(), severity, evidence });
    }

    /// Compares the results with the end of the process.
    pub(super) fn finish(mut self, kind: ReportKind, termination: Termination) -> Report {
        let failing = |test: &&TestResult| {
            matches!(test.status, TestStatus::Failed | TestStatus::Error | TestStatus::Timeout)
        };
        let failed = self.tests.iter().find(failing).map(|test| test.id.clone());
        match (termination, failed) {
            (Termination::Exited(0), Some(id)) => {
                let evidence = format!("exit status 0, but {id} failed");
                match kind {
                    // A test may print what another tool says of a failure.
                    ReportKind::Log(_) => self.gap("report.exit", &evidence),
                    _ => self.contradiction("report.exit", &evidence),
                }
            }
            (Termination::Exited(code), None) if code != 0 => {
                self.gap("report.exit", &format!("exit status {code}, but no test failed"));
            }
            // A shell between says so of a signal. mocha's status is the number of failures.
            (Termination::Exited(code), _) if code > 128 && kind != ReportKind::Mocha => {
                self.gap("report.exit", &format!("exit status {code}: ended by a signal"));
            }
            (Termination::Exited(_), _) => {}
            (Termination::Signaled(_), _) => self.gap("report.exit", &describe(termination)),
            // The limit is in the record.
            (Termination::Limit(_), _) => self.incredible = true,
        }
        let out_of_time = matches!(
            termination,
            Termination::Limit(LimitKind::Wall | LimitKind::WallStarved | LimitKind::Cpu)
        );
        for test in &mut self.tests {
            if out_of_time && self.unfinished > 0 && test.status == TestStatus::Missing {
                test.status = TestStatus::Timeout;
            } else if self.incredible {
                discredited(test, NO_END);
            }
        }
        if let Some((id, count)) = self.flaky.take() {
            let evidence = format!("{count} tests passed when tried again, {id} among them");
            self.flag("report.flaky", Severity::Info, &evidence);
        }
        let progress = match (self.incredible, self.tests.is_empty() && !self.started) {
            (false, _) => Progress::Ended,
            (true, false) => Progress::Started,
            (true, true) => Progress::Alive,
        };
        let (tests, flags) = (self.tests, self.flags);
        let canaries = Vec::new();
        Report { tests, progress, broke_off: false, flags, defect: None, canaries }
    }
}

/// Returns how many bytes JSON has for a text without control characters but newline and tab.
fn written(text: &str) -> usize {
    let escaped = |byte: u8| matches!(byte, b'"' | b'\\' | b'\n' | b'\t');
    let count = || text.bytes().filter(|byte| escaped(*byte)).count();
    text.len() + if has(text, escaped) { count() } else { 0 }
}

/// Makes a result of what a report says: ids and messages bounded, without terminal codes.
pub(super) fn result(
    id: String,
    status: TestStatus,
    duration_s: Option<f64>,
    message: &str,
) -> TestResult {
    let message = message.trim();
    TestResult {
        id,
        status,
        duration_s: duration_s.filter(|s| s.is_finite() && *s >= 0.0),
        message: (!message.is_empty()).then(|| bounded(&without_escapes(message), MAX_MESSAGE)),
    }
}

/// Returns the id of the test that these parts name; empty ones are left out.
pub(super) fn id<'a>(parts: impl IntoIterator<Item = &'a str, IntoIter: Clone>) -> String {
    let parts = parts.into_iter();
    // A report of 100,000 tests is mostly ids.
    let bytes = parts.clone().map(|part| part.len() + BETWEEN.len()).sum();
    let mut id = String::with_capacity(bytes);
    for part in parts {
        // Control characters of two bytes begin with 0xc2.
        let odd = has(part, |byte| byte < b' ' || matches!(byte, 0x7f | 0xc2));
        let part = if odd { without_escapes(part) } else { part.into() };
        let part = part.trim();
        if !id.is_empty() && !part.is_empty() {
            id.push_str(BETWEEN);
        }
        match odd {
            true => id.extend(part.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c })),
            false => id.push_str(part),
        }
    }
    if id.len() > MAX_ID { bounded_id(&id) } else { id }
}

/// Whether a byte is of this kind. All are looked at, which the compiler makes many at a time of.
fn has(text: &str, kind: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(false, |found, byte| found | kind(byte))
}

/// Returns `text` without the escape sequences of terminals: colours, links, titles.
pub(super) fn without_escapes(text: &str) -> Cow<'_, str> {
    if !text.contains('\u{1b}') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('[') => _ = chars.find(|c| ('@'..='~').contains(c)),
            Some(']') => _ = chars.find(|c| matches!(c, '\u{7}' | '\\')),
            _ => {}
        }
    }
    out.into()
}
