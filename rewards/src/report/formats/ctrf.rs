//! CTRF, the Common Test Report Format. A test's id is its suite and its name.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use crate::report::{
    TestStatus,
    suite::{Suite, id, result},
};

#[derive(Deserialize)]
struct Document {
    results: Results,
}

#[derive(Deserialize)]
struct Results {
    summary: Summary,
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Summary {
    tests: u64,
    passed: u64,
    failed: u64,
    #[serde(default)]
    pending: u64,
    #[serde(default)]
    skipped: u64,
    #[serde(default)]
    other: u64,
}

#[derive(Deserialize)]
struct Test {
    name: String,
    status: String,
    /// In milliseconds.
    #[serde(default)]
    duration: Option<f64>,
    #[serde(default)]
    suite: Option<Path>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    trace: Option<String>,
    #[serde(default)]
    flaky: Option<bool>,
}

/// Most suites around a test.
const MAX_SUITES: usize = 64;

/// One suite before version 0.0.7 or so, those around the test since.
struct Path(Vec<String>);

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Suites)
    }
}

struct Suites;

impl<'de> Visitor<'de> for Suites {
    type Value = Path;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a suite, or a list of at most {MAX_SUITES}")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Path, E> {
        Ok(Path(vec![name.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Path, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = list.next_element()? {
            if names.len() == MAX_SUITES {
                return Err(A::Error::invalid_length(MAX_SUITES + 1, &self));
            }
            names.push(name);
        }
        Ok(Path(names))
    }
}

/// Reads one document.
pub(super) fn read(document: &[u8], suite: &mut Suite) {
    let Results { summary, tests } = match super::json::<Document>(document) {
        Ok(document) => document.results,
        Err(error) => return suite.gap("report.malformed", &error.to_string()),
    };
    let told = [
        ("passed", summary.passed),
        ("failed", summary.failed),
        ("skipped", summary.pending.saturating_add(summary.skipped)),
        ("other", summary.other),
    ];
    for (word, told) in told {
        let counts = |test: &&Test| word_of(&test.status) == word;
        super::same(suite, word, told, tests.iter().filter(counts).count());
    }
    super::same(suite, "tests", summary.tests, tests.len());
    for test in tests {
        let around = test.suite.iter().flat_map(|Path(names)| names);
        let id = id(around.chain([&test.name]).map(String::as_str));
        let status = match word_of(&test.status) {
            "passed" => TestStatus::Passed,
            "failed" => TestStatus::Failed,
            "skipped" => TestStatus::Skipped,
            _ => TestStatus::Error,
        };
        if test.flaky == Some(true) && status == TestStatus::Passed {
            suite.flaky(&id);
        }
        let said = test.message.or(test.trace).unwrap_or_default();
        suite.add(result(id, status, test.duration.map(|ms| ms / 1000.0), &said));
    }
}

fn word_of(status: &str) -> &'static str {
    match status {
        "passed" => "passed",
        "failed" => "failed",
        "skipped" | "pending" => "skipped",
        _ => "other",
    }
}
