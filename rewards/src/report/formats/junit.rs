//! JUnit XML, as surefire, gradle, nextest, googletest, ctest, jest, vitest, node and pytest write it.
//!
//! There is no standard, and these dialects are told apart by what they have. A test's id is its
//! `classname` and its `name`; where all classes are called `test`, as node does, the names of the
//! suites around it stand for the class.

use std::borrow::Cow;

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

use super::{
    cut,
    xml::{each_attribute, resolve},
};
use crate::report::{
    MAX_ID, MAX_MESSAGE, TestStatus,
    suite::{Suite, id, result},
};

/// Elements within each other; real reports have fewer than ten.
const MAX_DEPTH: usize = 64;

/// Reads one document.
pub(super) fn read(document: &[u8], suite: &mut Suite) {
    let document = super::text(document);
    let document = document.strip_prefix('\u{feff}').unwrap_or(&document);
    let mut reader = Reader::from_str(document);
    let mut junit = Junit { suite, path: Vec::new(), groups: Vec::new(), case: None, roots: 0 };
    loop {
        let done = match reader.read_event() {
            Ok(event) => junit.event(&event),
            Err(error) => Err(Bad::Malformed(error.to_string())),
        };
        match done {
            Ok(true) => {}
            Ok(false) => break,
            Err(Bad::Malformed(what)) => {
                let at = reader.buffer_position();
                return suite.gap("report.malformed", &format!("byte {at}: {what}"));
            }
            Err(Bad::TooMany) => return suite.too_many(),
            Err(Bad::TwoReports) => {
                return suite.contradiction("report.two_reports", "one file holds two reports");
            }
        }
    }
}

enum Bad {
    Malformed(String),
    TooMany,
    TwoReports,
}

impl<T: Into<String>> From<T> for Bad {
    fn from(what: T) -> Self {
        Self::Malformed(what.into())
    }
}

struct Junit<'a> {
    suite: &'a mut Suite,
    /// The elements around the place that is read.
    path: Vec<Tag>,
    groups: Vec<Group>,
    case: Option<Case>,
    roots: u32,
}

#[derive(Clone, Copy, PartialEq)]
enum Tag {
    Group,
    Case,
    Failure,
    Error,
    Skipped,
    Disabled,
    Flaky,
    Rerun,
    Other,
}

/// A `testsuites` or a `testsuite`: what it declares, and what was seen within.
#[derive(Default)]
struct Group {
    /// Empty for `testsuites`.
    name: String,
    /// The names of the suites around it and its own, as ids have them.
    path: String,
    tests: Option<u64>,
    bad: Option<u64>,
    cases: u64,
    /// Tests and groups right below.
    children: u64,
    bad_cases: u64,
    /// Failures and errors; a test may have several.
    bad_elements: u64,
    /// Tests with an error, and pytest's skips and expected failures: it counts one that passes and breaks later as two, and one that
    /// fails and breaks later, which is two elements, as one.
    broken: u64,
    /// Failed tries besides the one that a test stands for: surefire counts each as a test, nextest none.
    tries: u64,
}

#[derive(Default)]
struct Case {
    id: String,
    time: Option<f64>,
    status: Word,
    failures: u64,
    errors: u64,
    skipped: Option<Skip>,
    /// Whether ctest was told to skip it.
    asked_to_skip: bool,
    disabled: bool,
    flaky: bool,
    rerun_failed: bool,
    /// Failed tries of which there are elements, besides the one that counts.
    tries: u64,
    timed_out: bool,
    message: String,
}

/// The attribute `status`, of googletest and ctest.
#[derive(Clone, Copy, Default, PartialEq)]
enum Word {
    Fail,
    NotRun,
    Disabled,
    #[default]
    Other,
}

/// The type of `skipped`.
#[derive(Clone, Copy, PartialEq)]
enum Skip {
    /// `pytest.xfail`
    Xfail,
    /// `pytest.skip` and what else pytest has.
    Pytest,
    /// `todo`, of node.
    Todo,
    Other,
}

impl Junit<'_> {
    /// Returns whether there is more to read.
    fn event(&mut self, event: &Event<'_>) -> Result<bool, Bad> {
        match event {
            Event::Start(start) => self.start(start)?,
            Event::Empty(start) => {
                self.start(start)?;
                self.end();
            }
            Event::End(_) => self.end(),
            Event::Text(text) => self.text(text)?,
            Event::CData(text) => self.text(text)?,
            Event::GeneralRef(reference) => self.text(&resolve(reference)?)?,
            // Nothing that is declared there would be expanded; no tool writes one.
            Event::DocType(_) => return Err("a document type".into()),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Eof if !self.path.is_empty() => return Err("ends too early".into()),
            Event::Eof if self.roots == 0 => return Err("is empty".into()),
            Event::Eof => return Ok(false),
        }
        Ok(true)
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), Bad> {
        if self.path.len() == MAX_DEPTH {
            return Err("elements are nested too deep".into());
        }
        let tag = match (self.path.last(), start.local_name().as_ref()) {
            (None, _) if self.roots > 0 => return Err(Bad::TwoReports),
            (None | Some(Tag::Group), "testsuites" | "testsuite") => {
                self.group(start)?;
                Tag::Group
            }
            (None, _) => return Err("is no JUnit report".into()),
            (Some(Tag::Group), "testcase") => {
                if !self.suite.admits() {
                    return Err(Bad::TooMany);
                }
                self.case = Some(self.begin(start)?);
                Tag::Case
            }
            (Some(Tag::Case), name) => self.detail(name, start)?,
            (Some(_), "testcase" | "testsuite") => return Err("a test within a test".into()),
            (Some(_), _) => Tag::Other,
        };
        self.roots += u32::from(self.path.is_empty());
        self.path.push(tag);
        Ok(())
    }

    fn end(&mut self) {
        match self.path.pop() {
            Some(Tag::Group) => {
                let Some(group) = self.groups.pop() else { return };
                group.check(self.suite);
                if let Some(above) = self.groups.last_mut() {
                    above.children += 1;
                    above.cases += group.cases;
                    above.bad_cases += group.bad_cases;
                    above.bad_elements += group.bad_elements;
                    above.broken += group.broken;
                    above.tries += group.tries;
                }
            }
            Some(Tag::Case) => {
                let Some(case) = self.case.take() else { return };
                if let Some(group) = self.groups.last_mut() {
                    group.children += 1;
                    group.cases += 1;
                    group.bad_cases += u64::from(case.failures + case.errors > 0);
                    group.bad_elements += case.failures + case.errors;
                    group.broken += u64::from(case.breaks_late());
                    group.tries += case.tries;
                }
                case.report(self.suite);
            }
            _ => {}
        }
    }

    fn group(&mut self, start: &BytesStart<'_>) -> Result<(), Bad> {
        let mut group = Group::default();
        let named = start.local_name().as_ref() == "testsuite";
        each_attribute(start, |name, value| match name {
            "name" if named => group.name = cut(&value, MAX_ID).to_owned(),
            "tests" => group.tests = value.trim().parse().ok(),
            "failures" | "errors" => {
                let count = value.trim().parse::<u64>().unwrap_or_default();
                group.bad = Some(group.bad.unwrap_or_default().saturating_add(count));
            }
            _ => {}
        })?;
        let around = self.groups.last().map_or("", |group| group.path.as_str());
        group.path = id([around, group.name.as_str()]);
        self.groups.push(group);
        Ok(())
    }

    fn begin(&self, start: &BytesStart<'_>) -> Result<Case, Bad> {
        let mut case = Case::default();
        let (mut class, mut name) = (Cow::Borrowed(""), Cow::Borrowed(""));
        each_attribute(start, |key, value| match key {
            "name" => name = value,
            "classname" => class = value,
            "time" => {
                let seconds = value.trim_ascii();
                let grouped = || seconds.replace(',', "").parse().ok();
                case.time = seconds.parse().ok().or_else(grouped);
            }
            "status" => case.status = Word::read(&value),
            "result" if value == "suppressed" => case.disabled = true,
            _ => {}
        })?;
        let (class, name) = (class.trim(), name.trim());
        if name.is_empty() {
            return Err("a test without a name".into());
        }
        case.id = match class {
            "" | "test" => {
                let around = self.groups.last().map_or("", |group| group.path.as_str());
                id([around, name])
            }
            _ if class == name => id([class]),
            _ => id([class, name]),
        };
        Ok(case)
    }

    /// Reads what stands in a test.
    fn detail(&mut self, name: &str, start: &BytesStart<'_>) -> Result<Tag, Bad> {
        let tag = match name {
            "failure" => Tag::Failure,
            "error" => Tag::Error,
            "skipped" => Tag::Skipped,
            "disabled" => Tag::Disabled,
            "flakyFailure" | "flakyError" => Tag::Flaky,
            "rerunFailure" | "rerunError" => Tag::Rerun,
            _ => return Ok(Tag::Other),
        };
        let (mut message, mut kind) = (String::new(), String::new());
        each_attribute(start, |key, value| match key {
            "message" => message = cut(&value, MAX_MESSAGE).to_owned(),
            "type" => kind = cut(&value, MAX_ID).to_owned(),
            _ => {}
        })?;
        let Some(case) = &mut self.case else { return Ok(Tag::Other) };
        match tag {
            Tag::Failure => {
                case.failures += 1;
                case.timed_out |= kind == "test timeout"; // nextest
            }
            Tag::Error => case.errors += 1,
            Tag::Skipped => {
                case.skipped = Some(Skip::read(&kind));
                case.asked_to_skip = message.starts_with("SKIP_");
            }
            Tag::Disabled => case.disabled = true,
            Tag::Flaky => case.flaky = true,
            Tag::Rerun => case.rerun_failed = true,
            _ => {}
        }
        case.tries += u64::from(matches!(tag, Tag::Flaky | Tag::Rerun));
        if tag != Tag::Flaky && !message.is_empty() {
            case.say(&message);
            case.say("\n");
        }
        Ok(tag)
    }

    fn text(&mut self, text: &str) -> Result<(), Bad> {
        match (self.path.last(), &mut self.case) {
            (None, _) if !text.trim().is_empty() => Err("text outside of the report".into()),
            (Some(Tag::Failure | Tag::Error | Tag::Skipped | Tag::Rerun), Some(case)) => {
                case.say(text);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Group {
    /// Compares what is declared with what is there. Honest tools differ by what this lets pass.
    fn check(&self, suite: &mut Suite) {
        let odd = |what: &str, declared: u64, seen: u64| {
            format!("`{}` declares {declared} {what}, and {seen} are there", self.name)
        };
        if let Some(tests) = self.tests {
            let most = self.cases + self.broken + self.tries;
            // node counts what is right below, groups among them.
            if tests != self.children && (tests > most || tests + self.broken < self.cases) {
                suite.gap("report.counts", &odd("tests", tests, self.cases));
            }
        }
        if let Some(bad) = self.bad {
            if self.cases == 0 && bad > 0 && !self.name.is_empty() {
                // A file of tests that could not be loaded: jest-junit says no more.
                let message = "declares failures, and has no test";
                suite.add(result(id([self.name.as_str()]), TestStatus::Error, None, message));
            } else if bad < self.bad_cases
                || bad > self.bad_elements + self.tries && self.tests != Some(0)
            {
                suite.gap("report.counts", &odd("failures", bad, self.bad_cases));
            }
        }
    }
}

impl Case {
    fn say(&mut self, text: &str) {
        // Twice what is kept, because white space and terminal codes go.
        let room = (2 * MAX_MESSAGE).saturating_sub(self.message.len());
        self.message.push_str(cut(text, room));
    }

    /// Whether it may have a result of its own and one of its teardown.
    fn breaks_late(&self) -> bool {
        self.errors > 0 || matches!(self.skipped, Some(Skip::Xfail | Skip::Pytest))
    }

    fn report(self, suite: &mut Suite) {
        let expected = self.skipped == Some(Skip::Xfail) && self.errors == 0;
        let todo = self.skipped == Some(Skip::Todo);
        let failed = self.failures > 0 || self.rerun_failed || self.status == Word::Fail;
        // ctest calls a test skipped whose program is not there, and fails.
        let not_run = self.status == Word::NotRun && self.skipped.is_some();
        let status = match () {
            () if expected || todo && failed => TestStatus::Xfailed,
            () if todo => TestStatus::Xpassed,
            () if self.errors > 0 => TestStatus::Error,
            () if self.timed_out => TestStatus::Timeout,
            () if failed => TestStatus::Failed,
            () if not_run && !self.asked_to_skip => TestStatus::Error,
            () if self.skipped.is_some() || self.disabled => TestStatus::Skipped,
            () if matches!(self.status, Word::NotRun | Word::Disabled) => TestStatus::Skipped,
            () => TestStatus::Passed,
        };
        if self.flaky && status == TestStatus::Passed {
            suite.flaky(&self.id);
        }
        suite.add(result(self.id, status, self.time, &self.message));
    }
}

impl Word {
    fn read(word: &str) -> Self {
        match word {
            "fail" => Self::Fail,
            "notrun" => Self::NotRun,
            "disabled" => Self::Disabled,
            _ => Self::Other,
        }
    }
}

impl Skip {
    fn read(kind: &str) -> Self {
        match kind {
            "pytest.xfail" => Self::Xfail,
            "todo" => Self::Todo,
            _ if kind.starts_with("pytest.") => Self::Pytest,
            _ => Self::Other,
        }
    }
}
