//! What became of every test over time: the flakiness ledger.
//!
//! Two runs of one submission on the same ground (task content, image, backend) should agree on
//! every test. A pair of them that doesn't is a *disagreement*. A submission may hold
//! `if random(): fail`, so what its runs say of each other is nobody's evidence against a test:
//! quarantine and `task.flaky_rate` come from pairs of *trusted* runs alone, whose code is the
//! task's own (the gold submission, or nothing). Disagreements of others are told, no more.

mod quarantine;
mod sketch;

use std::collections::HashMap;

use assay_repos::{Digest, TaskId};
use assay_rewards::{GradeRecord, Outcome, Role, TestStatus};
use serde::{Deserialize, Serialize};

pub(crate) use self::quarantine::{Quarantined, Standings, current};
pub use self::{
    quarantine::{QuarantineEvent, TestName, Why},
    sketch::Sketch,
};

/// Trusted pairs of runs before a task has a flaky rate.
pub const RATE_PAIRS: u64 = 10;
/// Trusted pairs of runs before a test may be quarantined.
pub const QUARANTINE_PAIRS: u64 = 20;
/// Disagreements that it takes: one odd run makes two, so these are at least two of them.
pub const QUARANTINE_DISAGREEMENTS: u64 = 3;
/// The share of its trusted pairs that has to disagree.
pub const QUARANTINE_SHARE: f64 = 0.02;
/// At most one in so many of a check's must-keep tests is quarantined without being asked, rounded
/// up: where more of them are flaky, it is the task that is.
pub const QUARANTINE_ONE_IN: usize = 10;
/// Pairs of disagreeing grades kept as evidence, the newest.
const EVIDENCE: usize = 4;

/// What one answer tells.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Of what.
    pub task: TaskId,
    /// The newest weights that wrote the submission; 0 when not told.
    pub policy_version: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// Whether it was run: not answered from the cache, nor before there was anything to run.
    pub ran: bool,
    /// Whether it solves the task.
    pub solved: bool,
    /// What a run found, that came to its end without any failure.
    pub run: Option<Box<Run>>,
}

/// A run whose tests can be compared with those of others.
#[derive(Clone, Debug)]
pub struct Run {
    /// Task content, image and backend.
    pub ground: Digest,
    /// The submission as it took effect.
    pub submission: Digest,
    /// Whether all code in it is the task's own.
    pub trusted: bool,
    /// The version of the code that ran and read the checks.
    pub runner: String,
    /// How long its checks took, in seconds.
    pub wall_s: f64,
    /// Its tests, as far as their names are the task's.
    pub tests: Vec<Seen>,
}

/// One test of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Check and test.
    pub name: TestName,
    /// How it ended.
    pub status: TestStatus,
    /// What it counted for.
    pub role: Role,
    /// How long it took, in seconds.
    pub duration_s: Option<f64>,
}

/// Pairs of runs of one submission, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairs {
    /// So many.
    pub count: u64,
    /// Those of them that differ.
    pub disagree: u64,
}

impl Pairs {
    fn add(&mut self, differs: bool) {
        self.count = self.count.saturating_add(1);
        self.disagree = self.disagree.saturating_add(differs.into());
    }

    /// Returns the share that differs; 0 of none.
    #[must_use]
    pub fn share(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.disagree as f64 / self.count as f64 }
    }
}

/// What is known of one test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestHistory {
    /// Check and test.
    pub name: TestName,
    /// What it counted for in the last run.
    pub role: Role,
    /// Runs that reported it.
    pub runs: u64,
    /// Those in which it passed.
    pub passes: u64,
    /// Pairs of trusted runs.
    pub trusted: Pairs,
    /// Pairs of other runs: no evidence.
    pub others: Pairs,
    /// How long it took.
    pub durations: Sketch,
    /// The newest pairs of grades of trusted runs that disagree on it.
    pub evidence: Vec<(Digest, Digest)>,
}

/// What is known of a task on one ground.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Runs that it is made of.
    pub runs: u64,
    /// Whether the task was solved, in pairs of trusted runs.
    pub verdicts: Pairs,
    /// How long runs took.
    pub walls: Sketch,
    /// Test by test, in the order in which they were first seen. Never removed: witnesses count on it.
    pub tests: Vec<TestHistory>,
}

/// How the last run of one submission ended, to compare the next one with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Witness {
    grade: Digest,
    runner: String,
    solved: bool,
    /// In the order of the ledger's tests; absent where a test was not reported.
    statuses: Vec<Option<TestStatus>>,
}

impl Ledger {
    /// Counts a run, and compares it with the last one of the same submission. Returns what the
    /// next one is compared with.
    pub(crate) fn fold(
        &mut self,
        run: &Run,
        grade: &Digest,
        solved: bool,
        last: Option<&Witness>,
    ) -> Witness {
        // Another version may read the same report otherwise.
        let last = last.filter(|last| last.runner == run.runner);
        self.runs = self.runs.saturating_add(1);
        self.walls.add(run.wall_s);
        if let Some(last) = last.filter(|_| run.trusted) {
            self.verdicts.add(last.solved != solved);
        }
        let mut places = Places::default();
        let mut statuses = vec![None; self.tests.len()];
        for seen in &run.tests {
            let at = places.find(&self.tests, &seen.name).unwrap_or_else(|| {
                places.learn(&seen.name, self.tests.len());
                self.tests.push(TestHistory::of(seen));
                statuses.push(None);
                self.tests.len() - 1
            });
            let test = &mut self.tests[at];
            test.role = seen.role;
            test.runs = test.runs.saturating_add(1);
            test.passes = test.passes.saturating_add(seen.status.passes().into());
            if let Some(seconds) = seen.duration_s {
                test.durations.add(seconds);
            }
            statuses[at] = Some(seen.status);
            let before = last.and_then(|last| Some((last, (*last.statuses.get(at)?)?)));
            let Some((last, before)) = before else { continue };
            let differs = before != seen.status;
            if run.trusted { &mut test.trusted } else { &mut test.others }.add(differs);
            if differs && run.trusted {
                test.evidence.push((last.grade.clone(), grade.clone()));
                let old = test.evidence.len().saturating_sub(EVIDENCE);
                test.evidence.drain(..old);
            }
        }
        Witness { grade: grade.clone(), runner: run.runner.clone(), solved, statuses }
    }

    /// Returns how often the verdict on the task's own code differs between two runs of it; `None`
    /// while there are too few pairs to say.
    #[must_use]
    pub fn flaky_rate(&self) -> Option<f64> {
        (self.verdicts.count >= RATE_PAIRS).then(|| self.verdicts.share())
    }

    /// Forgets what its own runs said of a test. From here on it is to prove itself anew.
    pub(crate) fn acquit(&mut self, name: &TestName) {
        if let Some(test) = self.tests.iter_mut().find(|test| test.name == *name) {
            (test.trusted, test.evidence) = (Pairs::default(), Vec::new());
        }
    }

    /// Returns the must-keep tests that are to be quarantined now, worst first: their trusted runs
    /// disagree too often, and not too many of their check are quarantined already.
    pub(crate) fn suspects(&self) -> Vec<&TestHistory> {
        let of = |check: &str, role: Role| {
            self.tests.iter().filter(|test| test.name.check == check && test.role == role).count()
        };
        let mut flaky: Vec<_> =
            self.tests.iter().filter(|t| t.role == Role::MustKeep && t.is_flaky()).collect();
        flaky.sort_by(|a, b| b.trusted.share().total_cmp(&a.trusted.share()));
        let mut chosen: Vec<&TestHistory> = Vec::new();
        for test in flaky {
            let check = &test.name.check;
            let already = of(check, Role::Quarantined)
                + chosen.iter().filter(|other| other.name.check == *check).count();
            let all = of(check, Role::Quarantined) + of(check, Role::MustKeep);
            if already < all.div_ceil(QUARANTINE_ONE_IN) {
                chosen.push(test);
            }
        }
        chosen
    }
}

/// Where tests stand in a ledger. Runs report them in the same order, mostly.
#[derive(Default)]
struct Places {
    next: usize,
    /// Made when the order fails.
    all: Option<HashMap<TestName, usize>>,
}

impl Places {
    fn find(&mut self, tests: &[TestHistory], name: &TestName) -> Option<usize> {
        let at = if tests.get(self.next).is_some_and(|test| test.name == *name) {
            self.next
        } else {
            let places = || tests.iter().map(|test| test.name.clone()).zip(0..).collect();
            *self.all.get_or_insert_with(places).get(name)?
        };
        self.next = at + 1;
        Some(at)
    }

    fn learn(&mut self, name: &TestName, at: usize) {
        self.next = at + 1;
        if let Some(all) = &mut self.all {
            all.insert(name.clone(), at);
        }
    }
}

impl TestHistory {
    fn of(seen: &Seen) -> Self {
        Self {
            name: seen.name.clone(),
            role: seen.role,
            runs: 0,
            passes: 0,
            trusted: Pairs::default(),
            others: Pairs::default(),
            durations: Sketch::default(),
            evidence: Vec::new(),
        }
    }

    /// Whether trusted runs disagree on it often enough to act.
    #[must_use]
    pub fn is_flaky(&self) -> bool {
        self.trusted.count >= QUARANTINE_PAIRS
            && self.trusted.disagree >= QUARANTINE_DISAGREEMENTS
            && self.trusted.share() >= QUARANTINE_SHARE
    }
}

/// Returns the tests of a record, of those that `known` says are the task's; `None` when its run
/// was cut short, failed, or can't be trusted as a whole.
pub(crate) fn tests(record: &GradeRecord, known: impl Fn(&str, &str) -> bool) -> Option<Vec<Seen>> {
    if record.outcome != Outcome::Scored || record.failure.is_some() || !record.complete {
        return None;
    }
    let all = record.checks.iter().flat_map(|check| {
        let known = &known;
        check.tests.iter().filter(move |test| known(&check.id, &test.id)).map(|test| Seen {
            name: TestName { check: check.id.clone(), test: test.id.clone() },
            status: test.status,
            role: test.role,
            duration_s: test.duration_s,
        })
    });
    Some(all.collect())
}

#[cfg(test)]
mod tests;
