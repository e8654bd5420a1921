//! The JSON of jest, and of vitest, which writes the same. A test's id is its file, the titles
//! around it, and its own.

use serde::Deserialize;

use crate::report::{
    TestStatus,
    suite::{Suite, id, result},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    num_total_tests: u64,
    num_passed_tests: u64,
    num_failed_tests: u64,
    #[serde(default)]
    was_interrupted: bool,
    test_results: Vec<File>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    name: String,
    status: String,
    #[serde(default)]
    message: Option<String>,
    assertion_results: Vec<Test>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Test {
    ancestor_titles: Vec<String>,
    title: String,
    status: String,
    /// In milliseconds.
    #[serde(default)]
    duration: Option<f64>,
    #[serde(default)]
    failure_messages: Option<Vec<String>>,
    /// Tries, the first among them.
    #[serde(default)]
    invocations: Option<u64>,
}

/// Reads one document.
pub(super) fn read(document: &[u8], suite: &mut Suite) {
    let document = match super::json::<Document>(document) {
        Ok(document) => document,
        Err(error) => return suite.gap("report.malformed", &error.to_string()),
    };
    if document.was_interrupted {
        suite.gap("report.no_end", "the run was interrupted");
    }
    let count = |status: Option<&str>| {
        let tests = document.test_results.iter().flat_map(|file| &file.assertion_results);
        tests.filter(|test| status.is_none_or(|status| test.status == status)).count()
    };
    super::same(suite, "tests", document.num_total_tests, count(None));
    super::same(suite, "passed", document.num_passed_tests, count(Some("passed")));
    super::same(suite, "failed", document.num_failed_tests, count(Some("failed")));
    for file in document.test_results {
        // It stands in the id of every test.
        let name = id([file.name.as_str()]);
        let failed = file.assertion_results.iter().any(|test| test.status == "failed");
        if file.status == "failed" && !failed {
            // It could not be loaded, or broke beside its tests.
            let said = file.message.as_deref().unwrap_or_default();
            suite.add(result(name.clone(), TestStatus::Error, None, said));
        }
        for test in file.assertion_results {
            let titles = test.ancestor_titles.iter().map(String::as_str);
            let around = [name.as_str()].into_iter().chain(titles);
            let id = id(around.chain([test.title.as_str()]));
            let status = match test.status.as_str() {
                "passed" => TestStatus::Passed,
                "failed" => TestStatus::Failed,
                "pending" | "skipped" | "todo" | "disabled" => TestStatus::Skipped,
                _ => TestStatus::Error,
            };
            if status == TestStatus::Passed && test.invocations.is_some_and(|tries| tries > 1) {
                suite.flaky(&id);
            }
            let said = test.failure_messages.and_then(|all| all.into_iter().next());
            let seconds = test.duration.map(|ms| ms / 1000.0);
            suite.add(result(id, status, seconds, &said.unwrap_or_default()));
        }
    }
}
