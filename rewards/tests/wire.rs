//! What a grader reads from a submission's process. Needs Python 3; skipped where it is not.

use std::{path::Path, process::Command};

#[test]
fn hostile_frames_are_refused() {
    script("hostile_frames.py");
}

#[test]
fn hostile_answers_reach_nothing_of_the_tests() {
    script("hostile_answers.py");
}

fn script(name: &str) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut script = Command::new("python3");
    script.arg(here.join("tests/fixtures").join(name)).arg(here.join("src/harness"));
    let output = match script.output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: no python3: {error}");
            return;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
