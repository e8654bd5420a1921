//! What a run was worth: reports to facts, facts to a number. Pure and synchronous.
//!
//! Facts first, score second. [`parse`] reads what one execution reported, [`GradeHeader::grade`]
//! makes a [`GradeRecord`] of it, and [`score`] turns a record into a number by a [`RewardSpec`].
//! The record alone is kept: a million of them can be scored again without running anything.
//!
//! Everything here reads bytes that untrusted code may have written. Nothing panics on them, and
//! what can't be understood never passes.
#![forbid(unsafe_code)]

pub mod harness;

mod report;

mod control;

mod record;

mod grade;

mod facts;

mod expr;

mod plugin;

mod spec;

mod score;

mod explain;

mod diff;

mod rescore;

mod tally;

mod group;

#[cfg(test)]
mod docs;

#[cfg(test)]
mod testing;

pub use assay_repos::{Flag, PatchFacts, Severity};
pub use control::{Control, ControlRun, TestSources};
pub use diff::{Difference, diff};
pub use explain::{
    Explained, ExplainedFact, ExplainedTerm, Explanation, FactValue, Short, explain,
};
pub use grade::{CheckEvidence, CheckRun, GradeHeader};
pub use group::{GroupSample, GroupStats, summarize};
pub use plugin::{Plugin, PluginError, PluginGrade, PluginLimits, PluginLoader};
pub use record::{
    CheckRecord, Failure, Fault, Generation, GradeRecord, GradedTest, Outcome, Phase, PolicyPhase,
    RecordError, Required, Role, TaskFacts, TestCounts, Usage,
};
pub use report::{
    Canary, CanaryKind, CaseRun, Evidence, Progress, Report, ReportError, TestResult, TestStatus,
    outputs_equal, parse, parse_stdio,
};
pub use rescore::{Bar, Change, Rescored, Rescoring, Spread};
pub use score::{Component, Score, score};
pub use spec::{RewardError, RewardSpec};
pub use tally::Tally;
