//! From what checks left behind to a [`GradeRecord`]: whose fault it was, what counts, what holds.

mod expected;
mod gold;
mod judge;

use std::collections::{BTreeMap, BTreeSet};

use assay_repos::{
    Check, Digest, Flag, Lock, Mode, PatchFacts, Rejection, Severity, TaskId, TaskLimits,
};
use assay_sandbox::Execution;

use crate::{
    CaseRun, ControlRun, Evidence, Failure, Fault, Generation, GradeRecord, Outcome, Phase,
    Required, TaskFacts, Usage, report::bounded,
};
use judge::{Rank, Trouble, add, judge};

/// Most bytes of a failure's detail.
const MAX_DETAIL: usize = 2048;

/// What is known of an evaluation before anything runs.
#[derive(Clone, Debug, PartialEq)]
pub struct GradeHeader {
    /// The task.
    pub task: TaskId,
    /// Its content.
    pub task_digest: Digest,
    /// The root filesystem or image.
    pub image_digest: String,
    /// The submission as it takes effect; as handed in while it has not been applied.
    pub submission_digest: Digest,
    /// Where checks run: `native`, `docker`, `fake`.
    pub backend: String,
    /// Whether expected values enter the process of the code under test.
    pub mode: Mode,
    /// The limits that hold.
    pub limits: TaskLimits,
    /// How the submission came to be.
    pub generation: Generation,
    /// What the trainer passes in. What is not finite is left out, and a flag says so.
    pub external: BTreeMap<String, f64>,
    /// What is known of the task.
    pub task_facts: TaskFacts,
    /// The version of the code that runs and reads checks.
    pub runner: String,
}

/// One check of a task and what it left behind.
#[derive(Clone, Debug)]
pub struct CheckRun<'a> {
    /// The check.
    pub check: &'a Check,
    /// What is left; absent when it did not run.
    pub evidence: Option<CheckEvidence<'a>>,
    /// The same check with tests that must fail; absent where nothing was to be controlled.
    pub control: Option<ControlRun<'a>>,
    /// Tests that don't have to go on passing, because they are known to be flaky; absent for
    /// none. It takes nothing away from those that the submission has to make pass.
    pub quarantined: Option<&'a BTreeSet<String>>,
}

/// What a check left behind.
#[derive(Clone, Debug)]
pub enum CheckEvidence<'a> {
    /// Of every check but `stdio`.
    Process(Evidence<'a>),
    /// Of `stdio` checks: every case, in order.
    Cases(Vec<CaseRun<'a>>),
}

impl GradeHeader {
    /// Makes the record of an evaluation whose checks ran.
    ///
    /// The outcome is `TAMPERED` when the report of any check that the machine had time for
    /// contradicts itself, or any flag says so; else
    /// `INFRA_ERROR` or `INVALID_TASK` when a check failed by our or the task's fault; else
    /// `SCORED`, with the submission's own failure, if there was one.
    #[must_use]
    pub fn grade(
        self,
        patch: PatchFacts,
        flags: Vec<Flag>,
        runs: &[CheckRun<'_>],
        lock: Option<&Lock>,
    ) -> GradeRecord {
        let mut record = self.record(Outcome::Scored, None);
        record.patch = patch;
        record.flags.extend(flags);
        record.complete = runs.iter().all(CheckRun::ran_whole);
        let mut worst: Option<Trouble> = None;
        for run in runs {
            let judged = judge(run, lock);
            record.usage = add(record.usage, judged.record.usage);
            record.checks.push(judged.record);
            record.flags.extend(judged.flags);
            for execution in run.executions() {
                for fallback in &execution.isolation.fallbacks {
                    if !record.isolation.contains(fallback) {
                        record.isolation.push(fallback.clone());
                    }
                }
            }
            // The first of the gravest.
            let graver = |trouble: &Trouble| worst.as_ref().is_none_or(|w| w.rank < trouble.rank);
            if let Some(trouble) = judged.trouble.filter(graver) {
                worst = Some(trouble);
            }
        }
        if let Some(flag) = record.flags.iter().find(|flag| flag.severity == Severity::Tampering) {
            let detail = format!("{}: {}", flag.code, flag.evidence);
            worst = Some(Trouble::new(Rank::Tampered, "tampered", Phase::Parse, detail));
        }
        if let Some(Trouble { rank, failure }) = worst {
            record.outcome = rank.outcome();
            record.failure = Some(failure);
        }
        record
    }

    /// Makes the record of a submission that was not run.
    #[must_use]
    pub fn rejected(
        self,
        rejection: &Rejection,
        patch: PatchFacts,
        flags: Vec<Flag>,
    ) -> GradeRecord {
        let failure = Failure::new(
            rejection.kind.as_str(),
            Phase::Apply,
            Fault::Submission,
            bounded(&rejection.detail, MAX_DETAIL),
        );
        let mut record = self.record(Outcome::SubmissionRejected, Some(failure));
        record.patch = PatchFacts { applied: false, ..patch };
        record.flags.extend(flags);
        record
    }

    /// Makes the record of an evaluation that could not be finished: `INVALID_TASK`,
    /// `INFRA_ERROR`, `DEADLINE_EXCEEDED` or `CANCELLED`.
    #[must_use]
    pub fn failed(self, outcome: Outcome, failure: Failure) -> GradeRecord {
        let failure = Failure { detail: bounded(&failure.detail, MAX_DETAIL), ..failure };
        self.record(outcome, Some(failure))
    }

    fn record(self, outcome: Outcome, failure: Option<Failure>) -> GradeRecord {
        let finite = |number: &f64| number.is_finite();
        let (external, odd): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.external.into_iter().partition(|(_, value)| value.is_finite());
        let flags = odd.into_iter().map(|(name, value)| Flag {
            code: "external.not_finite".into(),
            severity: Severity::Warning,
            evidence: format!("external.{} is {value}", bounded(&name, 100)),
        });
        GradeRecord {
            schema: GradeRecord::SCHEMA,
            task: self.task,
            task_digest: self.task_digest,
            image_digest: self.image_digest,
            submission_digest: self.submission_digest,
            backend: self.backend,
            mode: self.mode,
            isolation: Vec::new(),
            outcome,
            failure,
            patch: PatchFacts::default(),
            checks: Vec::new(),
            flags: flags.collect(),
            usage: Usage::default(),
            gold: None,
            generation: self.generation,
            external,
            task_facts: TaskFacts {
                difficulty: self.task_facts.difficulty.filter(finite),
                flaky_rate: self.task_facts.flaky_rate.filter(finite),
            },
            limits: self.limits,
            complete: false,
            runner: self.runner,
        }
    }
}

impl CheckRun<'_> {
    /// Whether this run alone decides that the submission is no solution, or that there will be no
    /// verdict: an evaluation that stops at the first decisive failure stops after it.
    #[must_use]
    pub fn is_decisive(&self, lock: Option<&Lock>) -> bool {
        let judged = judge(self, lock);
        let short = |required: Required| required.held < required.count;
        self.evidence.is_some()
            && (judged.trouble.is_some()
                || short(judged.record.must_pass)
                || short(judged.record.must_keep))
    }

    fn ran_whole(&self) -> bool {
        match &self.evidence {
            None => false,
            Some(CheckEvidence::Process(_)) => true,
            Some(CheckEvidence::Cases(cases)) => cases.iter().all(|case| case.execution.is_some()),
        }
    }

    fn executions(&self) -> Vec<&Execution> {
        let control = self.control.map(|control| control.execution);
        let grader = match &self.evidence {
            Some(CheckEvidence::Process(Evidence { execution, subject: Some(_), .. })) => {
                Some(*execution)
            }
            _ => None,
        };
        grader.into_iter().chain(self.submission_executions()).chain(control).collect()
    }

    /// The executions that are the submission's own: a sealed function check's grader is ours, and
    /// so is a control run.
    fn submission_executions(&self) -> Vec<&Execution> {
        match &self.evidence {
            None => Vec::new(),
            Some(CheckEvidence::Process(evidence)) => {
                vec![evidence.subject.unwrap_or(evidence.execution)]
            }
            Some(CheckEvidence::Cases(cases)) => {
                cases.iter().filter_map(|case| case.execution).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests;
