//! Tests of known outcome that a runner mixes in where code under test shares its process.
//!
//! `harness/assay_canary.py` has their code; where the tool is not ours, `control/` makes them of the
//! task's own tests. All but one kind must fail: whatever turns outcomes to passes turns these, too.
//! They tell nothing of an attacker who spares them.

use std::fmt;

use assay_repos::ReportKind;
use serde::{Deserialize, Serialize};

use super::TestStatus;

/// What a canary tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryKind {
    /// `assert` on two values that differ.
    Assert,
    /// The same, in a module that is imported after the code under test.
    Late,
    /// An exception that is no assertion.
    Error,
    /// `pytest.raises` around what raises nothing.
    Raises,
    /// Assertions of `unittest.TestCase` that don't hold.
    Unittest,
    /// Assertions of `numpy.testing` that don't hold.
    Numpy,
    /// `assert` on two equal values: the one that has to pass.
    True,
    /// A test of the task's own with a failure put in, in a run of its own.
    Spoiled,
}

impl fmt::Display for CanaryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Assert => "assert",
            Self::Late => "late",
            Self::Error => "error",
            Self::Raises => "raises",
            Self::Unittest => "unittest",
            Self::Numpy => "numpy",
            Self::True => "true",
            Self::Spoiled => "spoiled",
        })
    }
}

/// How one came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// What it tries.
    pub kind: CanaryKind,
    /// The name that it had in this run, like those of the tests beside it.
    pub id: String,
    /// How it ended.
    pub status: TestStatus,
}

impl Canary {
    /// Whether it came out as it has to.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self.kind {
            CanaryKind::True => self.status == TestStatus::Passed,
            _ => matches!(self.status, TestStatus::Failed | TestStatus::Error),
        }
    }
}

/// Returns the kinds that a runner must report before any test has passed.
pub(super) fn required(report: ReportKind) -> &'static [CanaryKind] {
    use CanaryKind::{Assert, Error, Late, Raises, True, Unittest};
    match report {
        ReportKind::Pytest => &[Assert, Late, Error, Raises, True],
        ReportKind::Unittest | ReportKind::Django => &[Assert, Error, Unittest, True],
        ReportKind::Function => &[Assert, Error, True],
        _ => &[],
    }
}

/// What canaries say.
pub(super) struct Verdict {
    /// Evidence of each that had to fail and came out as a pass.
    pub(super) green: Vec<String>,
    /// What is odd, and makes no test pass.
    pub(super) remarks: Vec<(&'static str, String)>,
}

pub(super) fn judge(canaries: &[Canary]) -> Verdict {
    let mut verdict = Verdict { green: Vec::new(), remarks: Vec::new() };
    for canary in canaries.iter().filter(|canary| !canary.holds()) {
        let Canary { kind, id, status } = canary;
        let status = status.as_str();
        match (kind, canary.status) {
            (CanaryKind::True, _) => {
                verdict.remarks.push(("canary.red", format!("{id} has to pass, and is {status}")));
            }
            (_, TestStatus::Skipped) => {
                verdict.remarks.push(("canary.skipped", format!("{id} (`{kind}`) was skipped")));
            }
            _ => verdict.green.push(format!("{id} (`{kind}`) has to fail, and is {status}")),
        }
    }
    verdict
}
