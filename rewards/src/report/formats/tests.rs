//! Reports of real tools, made by `tests/fixtures/make.sh`, and hostile ones.

use super::*;
use crate::{
    Evidence, TestStatus,
    testing::{NONCE, ran},
};
use assay_repos::Severity;

mod cargo;
mod delivery;
mod dialects;
mod go_json;
mod json;
mod junit;
mod log;
mod tap;

/// What `collect.sh` writes of files.
fn files(documents: &[&str], status: i32) -> Vec<u8> {
    let mut channel = format!("start {NONCE} files\n");
    for document in documents {
        channel.push_str(&format!("file {NONCE} {}\n{document}\n", document.len()));
    }
    channel.push_str(&format!("end {NONCE} {status}\n"));
    channel.into_bytes()
}

fn printed(document: &str) -> Vec<u8> {
    format!("start {NONCE} stdout\n{document}").into_bytes()
}

fn read(kind: ReportKind, termination: Termination, channel: impl AsRef<[u8]>) -> Report {
    let execution = ran(termination, channel);
    let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
    let report = super::super::parse(kind, &evidence).unwrap();
    let bounded = |test: &crate::TestResult| {
        test.id.len() <= 1024
            && test.message.as_ref().is_none_or(|text| text.len() <= 2048)
            && test.duration_s.is_none_or(|s| s.is_finite() && s >= 0.0)
    };
    assert!(report.tests.iter().all(bounded) && report.flags.len() <= 17);
    assert!(report.flags.iter().all(|flag| flag.evidence.len() <= 200));
    report
}

/// Writes a report as a line for each test, `+` for a pass, and one for each flag.
fn told(report: &Report) -> Vec<String> {
    let test = |test: &crate::TestResult| {
        let sign = match test.status {
            TestStatus::Passed => "+",
            TestStatus::Failed => "-",
            TestStatus::Error => "!",
            TestStatus::Skipped => "s",
            TestStatus::Xfailed => "x",
            TestStatus::Xpassed => "X",
            TestStatus::Timeout => "t",
            TestStatus::Missing => "?",
        };
        format!("{sign} {}", test.id)
    };
    let flag = |flag: &assay_repos::Flag| match flag.severity {
        Severity::Tampering => format!("TAMPERED {}", flag.code),
        _ => flag.code.clone(),
    };
    report.tests.iter().map(test).chain(report.flags.iter().map(flag)).collect()
}

/// Reads `text` and returns what it told.
fn tell(kind: ReportKind, status: i32, channel: impl AsRef<[u8]>) -> Vec<String> {
    told(&read(kind, Termination::Exited(status), channel))
}
