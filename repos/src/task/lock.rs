//! What validating a task found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
