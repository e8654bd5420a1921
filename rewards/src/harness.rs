//! The programs that run inside sandboxes and write the reports which [`parse`](crate::parse)
//! reads. Each says at its top what it reads and writes.

mod native;

pub use native::{c_call, c_prototype, rust_call};

/// `/assay/run_pytest.py`: runs pytest and reports each test.
pub const PYTEST_RUNNER: &str = include_str!("harness/run_pytest.py");

/// `/assay/assay_canary.py`: tests of known outcome, for runners that share a process with code
/// under test.
pub const CANARY: &str = include_str!("harness/assay_canary.py");

/// `/assay/assay_messages.py`: what tests said, bounded; every runner of ours in Python needs it.
pub const MESSAGES: &str = include_str!("harness/assay_messages.py");

/// `/assay/preload_pytest.py`: imports what every run of pytest does, before there is one.
pub const PYTEST_PRELOAD: &str = include_str!("harness/preload_pytest.py");

/// `/assay/run_unittest.py`: runs unittest or Django's test runner and reports each test.
pub const UNITTEST_RUNNER: &str = include_str!("harness/run_unittest.py");

/// `/assay/collect.sh`: runs the command of a check and hands over the report of a foreign tool.
pub const COLLECT: &str = include_str!("harness/collect.sh");

/// `/assay/freeze.js`: keeps code under test from replacing what node's tests assert with.
pub const FREEZE: &str = include_str!("harness/freeze.js");

/// `/assay/grader.py`: runs the hidden tests of a function task.
pub const GRADER: &str = include_str!("harness/grader.py");

/// `/assay/subject.py`: holds the submission of a sealed function task and answers calls to it.
pub const SUBJECT: &str = include_str!("harness/subject.py");

/// `/assay/assay_remote.py`: what the tests of a sealed suite have in the place of the submission.
pub const REMOTE: &str = include_str!("harness/assay_remote.py");

/// `/assay/subject_suite.py`: holds the submission of a sealed suite and answers its tests.
pub const SUBJECT_SUITE: &str = include_str!("harness/subject_suite.py");

/// `/assay/assay_peer.py`: what both ends of a sealed suite have in common.
pub const PEER: &str = include_str!("harness/assay_peer.py");

/// `/assay/wire.py`: the values and frames between grader and subject; both need it.
pub const WIRE: &str = include_str!("harness/wire.py");

/// `/assay/subject.js`: the same for a submission in JavaScript.
pub const SUBJECT_JS: &str = include_str!("harness/subject.js");

/// `/assay/subject.c`: the same for C, with `call.h` and `call.c` beside it.
pub const SUBJECT_C: &str = include_str!("harness/subject.c");

/// `/assay/subject.rs`: the same for Rust, with `call.rs` beside it.
pub const SUBJECT_RUST: &str = include_str!("harness/subject.rs");

/// `/assay/compile.sh`: makes a program of a submission in C or Rust and its subject.
pub const COMPILE: &str = include_str!("harness/compile.sh");

/// Returns the frame by which a subject says that there is no function to call, and why. At most
/// 1500 bytes of the reason are kept.
#[must_use]
pub fn broken(why: &str) -> Vec<u8> {
    let mut end = why.len().min(1500);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    let mut value = b"t\0\0\0\x02".to_vec();
    for text in ["broken", &why[..end]] {
        value.push(b's');
        value.extend((text.len() as u32).to_be_bytes());
        value.extend(text.as_bytes());
    }
    let mut frame = (value.len() as u32).to_be_bytes().to_vec();
    frame.extend(value);
    frame
}
