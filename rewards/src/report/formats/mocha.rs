//! The JSON of mocha. A test's id is its file and its full title. Hooks that break stand among the
//! failures, and the tests that they kept from running nowhere.

use serde::Deserialize;

use crate::report::{
    TestStatus,
    suite::{Suite, id, result},
};

#[derive(Deserialize)]
struct Document {
    stats: Stats,
    passes: Vec<Test>,
    pending: Vec<Test>,
    failures: Vec<Test>,
}

#[derive(Deserialize)]
struct Stats {
    passes: u64,
    pending: u64,
    failures: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Test {
    full_title: String,
    #[serde(default)]
    file: Option<String>,
    /// In milliseconds.
    #[serde(default)]
    duration: Option<f64>,
    #[serde(default)]
    current_retry: u64,
    #[serde(default)]
    err: Trouble,
}

#[derive(Default, Deserialize)]
struct Trouble {
    #[serde(default)]
    message: Option<String>,
}

/// Reads one document.
pub(super) fn read(document: &[u8], suite: &mut Suite) {
    let Document { stats, passes, pending, failures } = match super::json(document) {
        Ok(document) => document,
        Err(error) => return suite.gap("report.malformed", &error.to_string()),
    };
    super::same(suite, "passed", stats.passes, passes.len());
    super::same(suite, "pending", stats.pending, pending.len());
    super::same(suite, "failed", stats.failures, failures.len());
    let lists = [
        (TestStatus::Passed, passes),
        (TestStatus::Skipped, pending),
        (TestStatus::Failed, failures),
    ];
    for (status, tests) in lists {
        for test in tests {
            let file = test.file.as_deref().unwrap_or_default();
            let id = id([file, test.full_title.as_str()]);
            if status == TestStatus::Passed && test.current_retry > 0 {
                suite.flaky(&id);
            }
            let seconds = test.duration.map(|ms| ms / 1000.0);
            suite.add(result(id, status, seconds, &test.err.message.unwrap_or_default()));
        }
    }
}
