//! CTRF, the Common Test Report Format. A test's id is its suite and its name.

use serde::Deserialize;

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

/// One suite before version 0.0.7 or so, those around the test since.
#[derive(Deserialize)]
#[serde(untagged)]
enum Path {
    One(String),
    Many(Vec<String>),
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
        let path = match &test.suite {
            None => Vec::new(),
            Some(Path::One(name)) => vec![name.as_str()],
            Some(Path::Many(names)) => names.iter().map(String::as_str).collect(),
        };
        let id = id(path.into_iter().chain([test.name.as_str()]));
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
