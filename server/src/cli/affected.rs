//! Which stored grades a flaky test cost something.

use std::fmt;

use assay_fleet::Grades;
use assay_repos::TaskId;
use assay_rewards::{GradeRecord, Role};
use serde::Serialize;

use super::{
    Common,
    output::{CliResult, Exit},
};

/// Lists the grades of a task in which a test had to be kept and was not.
pub(super) fn list(
    common: &Common,
    grades: &Grades,
    task: &TaskId,
    check: Option<&str>,
    test: &str,
) -> CliResult {
    let mut failed = Ok(());
    let named = format!("\"task\":\"{task}\"");
    grades.each(|id, body| {
        // Most are of other tasks: they are not read.
        if !contains(body, named.as_bytes()) {
            return Ok(());
        }
        let Ok(record) = GradeRecord::from_json(body) else { return Ok(()) };
        if let Some(alone) = cost(&record, task, check, test) {
            let (grade, outcome) = (id.to_owned(), record.outcome.as_str());
            failed = common.output().line(&Affected { grade, outcome, alone });
        }
        Ok::<_, assay_fleet::StoreError>(())
    })?;
    failed.map(|()| Exit::Done)
}

/// Whether the test broke this record's must-keep: and if so, alone.
fn cost(record: &GradeRecord, task: &TaskId, check: Option<&str>, test: &str) -> Option<bool> {
    let checks = record.checks.iter().filter(|one| check.is_none_or(|check| one.id == check));
    let mut tests = checks.flat_map(|check| &check.tests);
    let broken =
        tests.any(|one| one.id == test && one.role == Role::MustKeep && !one.status.keeps());
    let lost: u32 =
        record.checks.iter().map(|c| c.must_keep.count.saturating_sub(c.must_keep.held)).sum();
    (record.task == *task && broken).then_some(lost == 1)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    // It stands near the beginning, behind the format.
    let head = &text[..text.len().min(512)];
    head.windows(part.len()).any(|window| window == part)
}

#[derive(Serialize)]
struct Affected {
    grade: String,
    outcome: &'static str,
    /// Whether no other test that had to be kept was broken.
    alone: bool,
}

impl fmt::Display for Affected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { grade, outcome, alone } = self;
        let alone = if *alone { "it alone" } else { "among others" };
        write!(f, "{grade}  {outcome}  broken by {alone}")
    }
}
