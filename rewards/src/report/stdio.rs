//! Programs judged by what they print. Expected output never enters a sandbox.

use assay_sandbox::{Execution, Termination};

use super::{MAX_ID, MAX_MESSAGE, Progress, Report, TestResult, TestStatus, bounded};

/// One case of a `stdio` check: a test.
#[derive(Clone, Copy, Debug)]
pub struct CaseRun<'a> {
    /// Its name; the test's id.
    pub name: &'a str,
    /// What became of the program; absent when the case was not run.
    pub execution: Option<&'a Execution>,
    /// What it should have printed.
    pub expected: &'a [u8],
}

/// Compares what programs printed with what they should have printed: a case passes when its
/// program exited with status 0, no output was dropped and [`outputs_equal`] holds.
#[must_use]
pub fn parse_stdio(cases: &[CaseRun<'_>]) -> Report {
    let tests = cases.iter().map(judge).collect();
    let (flags, canaries) = (Vec::new(), Vec::new());
    let progress = Progress::Ended;
    Report { tests, progress, broke_off: false, flags, defect: None, canaries }
}

/// Compares two outputs byte for byte, except for white space (space, tab, carriage return,
/// vertical tab, form feed) at the ends of lines and empty lines at the end.
///
/// Every line counts: printing a prefix of what is expected is not equal.
#[must_use]
pub fn outputs_equal(expected: &[u8], printed: &[u8]) -> bool {
    first_difference(expected, printed).is_none()
}

fn judge(case: &CaseRun<'_>) -> TestResult {
    let (status, message) = match case.execution {
        None => (TestStatus::Missing, Some("the case was not run".to_owned())),
        Some(execution) => match super::status_of(execution.termination) {
            TestStatus::Passed => compare(case.expected, execution),
            // A program that dies was not wrong about its output: an error, whatever it printed.
            TestStatus::Failed => (TestStatus::Error, Some(died(execution))),
            status => (status, Some(died(execution))),
        },
    };
    TestResult {
        id: bounded(case.name, MAX_ID),
        status,
        duration_s: case.execution.map(|execution| execution.usage.wall.as_secs_f64()),
        message,
    }
}

fn compare(expected: &[u8], execution: &Execution) -> (TestStatus, Option<String>) {
    debug_assert_eq!(execution.termination, Termination::Exited(0));
    let Some(printed) = execution.stdout.complete() else {
        let dropped = execution.stdout.dropped;
        let message = format!("printed more than the output limit: {dropped} bytes were dropped");
        return (TestStatus::Failed, Some(message));
    };
    match first_difference(expected, printed) {
        None => (TestStatus::Passed, None),
        // What was expected stays unsaid: messages may be shown to a policy.
        Some(line) => (TestStatus::Failed, Some(format!("output differs at line {line}"))),
    }
}

fn died(execution: &Execution) -> String {
    let said = execution.stderr.lossy();
    let text = format!(
        "{}\n{}",
        super::describe(execution.termination),
        super::tail(said.trim_end(), MAX_MESSAGE / 2)
    );
    bounded(text.trim_end(), MAX_MESSAGE)
}

/// Returns the first line, from 1, at which two outputs differ.
fn first_difference(expected: &[u8], printed: &[u8]) -> Option<usize> {
    let (mut expected, mut printed) = (lines(expected), lines(printed));
    for line in 1.. {
        match (expected.next(), printed.next()) {
            (None, None) => return None,
            (left, right) if left == right => {}
            _ => return Some(line),
        }
    }
    None
}

fn lines(output: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = output.iter().rposition(|byte| !is_space(*byte) && *byte != b'\n');
    let output = &output[..end.map_or(0, |last| last + 1)];
    // An output of nothing has no line, not an empty one.
    output.split(|byte| *byte == b'\n').map(trim_line_end).filter(move |_| !output.is_empty())
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !is_space(*byte));
    &line[..end.map_or(0, |last| last + 1)]
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)
}
