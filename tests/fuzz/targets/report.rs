//! What a sandbox reports: without the nonce nothing passes.
#![no_main]

use assay_repos::ReportKind;
use assay_rewards::{Evidence, Progress, parse};
use assay_sandbox::{Capture, Execution, Isolation, Termination, Usage};
use libfuzzer_sys::fuzz_target;

/// What the input can't hold but by our own doing.
const NONCE: &str = "0123456789abcdef0123456789abcdef";

fuzz_target!(|input: (u8, i32, bool, &[u8])| {
    let (kind, status, with_nonce, bytes) = input;
    let kind = [ReportKind::Pytest, ReportKind::Function, ReportKind::Exit][usize::from(kind % 3)];
    // `NONCE` stands for one byte, so that the fuzzer can put it where it likes.
    let mut report = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            0x01 if with_nonce => report.extend_from_slice(NONCE.as_bytes()),
            _ => report.push(*byte),
        }
    }
    let knows = report.windows(NONCE.len()).any(|part| part == NONCE.as_bytes());
    let execution = Execution {
        termination: Termination::Exited(status & 0xff),
        stdout: Capture::default(),
        stderr: Capture::default(),
        channels: vec![Capture { head: report, ..Capture::default() }],
        usage: Usage::default(),
        isolation: Isolation::default(),
    };
    let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
    if let Ok(report) = parse(kind, &evidence)
        && kind != ReportKind::Exit
        && !knows
    {
        assert!(report.progress < Progress::Ended, "{:?}", report.tests);
    }
});
