//! Attacks on the runner from within: what the canaries saw is in the record, for people.
//!
//! `assay score` evaluates each in a real sandbox, and `assay grade show` has to name the evidence.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use assay_tests::{add, cache, change, skipped};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_assay-under-test");

const TASK: &str = r#"
schema = 1
id = "demo.0001"
language = "python"
[source]
repository = "./tree"
[prompt]
template = "problem.md"
[submission]
kind = "patch"
extract = "diff"
[[check]]
id = "unit"
report = "pytest"
run = ["python3", "-m", "pytest", "test_value.py"]
must_pass = ["test_value.py::test_plain", "test_value.py::TestUnit::test_unit"]
"#;

const TESTS: &str = r#"
import unittest
import lib
def test_plain(): assert lib.value() == 1
class TestUnit(unittest.TestCase):
    def test_unit(self): self.assertEqual(lib.value(), 1)
"#;

const CONFTEST: &str = r#"
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        report.outcome = "passed"
        report.longrepr = None
"#;

/// The same hooks, from a module that the tests import: found by walking the caller's frames.
fn from_source(hooks: &str) -> String {
    format!(
        r#"
import sys
import pytest
class Hooks:
{hooks}
frame = sys._getframe()
while frame is not None:
    for value in list(frame.f_locals.values()):
        config = getattr(value, "config", None)
        manager = getattr(config, "pluginmanager", None)
        if manager is not None and not manager.has_plugin("hooks"):
            manager.register(Hooks(), "hooks")
    frame = frame.f_back
"#
    )
}

const FLIP: &str = r#"
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        call.excinfo = None
"#;
const REWRITE: &str = r#"
    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        outcome = yield
        outcome.get_result().outcome = "passed"
"#;
const EQUAL: &str = r#"
class Yes:
    def __eq__(self, other): return True
    __hash__ = None
def value(): return Yes()
"#;
const UNITTEST: &str = r#"
import unittest
unittest.TestCase.assertEqual = lambda self, *rest: None
"#;
/// The runner's own object, in a frame below; its every word turned.
const FRAMES: &str = r#"
import sys
frame = sys._getframe()
while frame is not None:
    runner = frame.f_locals.get("reporter")
    if runner is not None:
        report = runner.test
        runner.test = lambda name, status, *rest: report(name, "passed", *rest)
    frame = frame.f_back
"#;

#[test]
fn what_canaries_saw_is_shown() {
    if skipped() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let task = folder.path().join("tasks/demo/0001");
    let write = |path: &str, text: &str| {
        let path = task.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("task.toml", TASK);
    write("problem.md", "Let value() be 1.\n");
    const LIB: &str = "def value(): return 0\n";
    write("tree/lib.py", LIB);
    write("private/tests/test_value.py", TESTS);
    let lib = |code: &str| {
        let kept = if code.contains("def value") { "" } else { LIB };
        change("lib.py", LIB, &format!("{code}{kept}"))
    };

    // (name, patch, outcome, what `grade show` has to say)
    let rows = [
        ("honest", lib("def value(): return 1\n"), "SCORED", "canaries   "),
        (
            "conftest",
            add("conftest.py", CONFTEST),
            "SCORED",
            "patch.runner_config: left out: conftest.py",
        ),
        ("flip", lib(&from_source(FLIP)), "TAMPERED", "canary.green: test_value.py::"),
        ("rewrite", lib(&from_source(REWRITE)), "TAMPERED", "canary.green: test_value.py::"),
        (
            "equal",
            lib(EQUAL),
            "TAMPERED",
            "report.conflict: test_value.py::test_plain: a value of type Yes",
        ),
        ("unittest", lib(UNITTEST), "TAMPERED", "(`unittest`) has to fail, and is passed"),
        ("frames", lib(FRAMES), "TAMPERED", "canary.green: test_value.py::"),
    ];
    for (name, patch, outcome, evidence) in rows {
        let file = folder.path().join(format!("{name}.patch"));
        fs::write(&file, &patch).unwrap();
        let said = assay(
            folder.path(),
            &["score", "--json", "--task", "demo.0001", "--patch", file.to_str().unwrap()],
        );
        let line: Value =
            serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{name}: {said:?}"));
        assert_eq!(line["outcome"], outcome, "{name}: {line}");
        let solved = line["reward"].as_f64().unwrap() > 0.9;
        assert_eq!(solved, name == "honest", "{name}: {line}");
        let grade = line["grade"].as_str().unwrap();
        let shown = assay(folder.path(), &["grade", "show", grade]);
        let text = String::from_utf8(shown.stdout).unwrap();
        println!("{text}");
        assert!(text.contains(evidence), "{name}: {text}");
    }
}

/// `task validate --write-lock` writes the mode that a suite can have, and no other.
#[test]
fn suites_that_can_be_sealed_are_found() {
    if skipped() {
        return;
    }
    const CODE: &str =
        "class Box:\n    def __init__(self, value): self.value = value\ndef value(): return 1\n";
    const OBJECT: &str = "import lib\ndef test_plain(): assert lib.Box(lib.value()).value == 1\n";
    const DATA: &str = "import lib\ndef test_plain(): assert lib.value() == 1\n";
    let folder = tempfile::tempdir().unwrap();
    // (name, what its file says of its mode, its tests, what it says afterwards)
    let rows = [
        ("data", "", DATA, "mode = \"sealed\""),
        ("object", "", OBJECT, ""),
        ("said", "mode = \"guarded\"", DATA, "mode = \"guarded\""),
    ];
    for (name, mode, tests, _) in rows {
        let head = format!("schema = 1\nid = \"demo.{name}\"\n{mode}\n");
        let task = TASK.replace("\nschema = 1\nid = \"demo.0001\"\n", &head);
        let task = task.replace(", \"test_value.py::TestUnit::test_unit\"", "");
        let wrong = CODE.replace("return 1", "return 0");
        let files = [
            ("task.toml", task.as_str()),
            ("problem.md", "Let value() be right.\n"),
            ("tree/lib.py", &wrong),
            ("private/tests/test_value.py", tests),
            ("private/gold.patch", &change("lib.py", &wrong, CODE)),
        ];
        for (path, text) in files {
            let path = folder.path().join("tasks").join(name).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    let said = assay(
        folder.path(),
        &["task", "validate", "demo.data", "demo.object", "demo.said", "--write-lock"],
    );
    assert!(said.status.success(), "{said:?}");
    for (name, _, _, mode) in rows {
        let task = folder.path().join("tasks").join(name);
        let text = fs::read_to_string(task.join("task.toml")).unwrap();
        let found = text.lines().find(|line| line.starts_with("mode")).unwrap_or_default();
        assert_eq!(found, mode, "{name}: {said:?}");
        assert!(task.join("private/expected.lock.json").exists(), "{name}");
    }
    let again =
        assay(folder.path(), &["task", "validate", "demo.data", "demo.object", "demo.said"]);
    assert!(again.status.success(), "{again:?}");
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(text.contains("3 tasks: 3 valid, 0 not, 2 guarded"), "{text}");
}

/// Tests of other languages are run again, some of them spoiled: honest work passes, and the record shows it.
#[test]
fn honest_work_passes_where_tests_are_spoiled() {
    if skipped() {
        return;
    }
    if !cache().join("rootfs/toolchains/rootfs.toml").exists() {
        eprintln!("skipped: rootfs/toolchains is not in the cache; run `make toolchains`");
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let assay = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["--catalog", assay_repos::SOURCE_CATALOG, "--data"]).arg(data.path());
        command.args(arguments).output().unwrap()
    };
    for task in ["queues.0001", "spans.0001", "wraps.0001"] {
        let said = assay(&["score", "--json", "--task", task, "--gold"]);
        let line: Value =
            serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
        assert_eq!(line["outcome"], "SCORED", "{task}: {line}");
        assert_eq!(line["integrity"]["ok"], true, "{task}: {line}");
        assert!(line["reward"].as_f64().unwrap() > 0.9, "{task}: {line}");
        let shown = assay(&["grade", "show", line["grade"].as_str().unwrap()]);
        let text = String::from_utf8(shown.stdout).unwrap();
        assert!(text.contains("canaries   spoiled red"), "{task}: {text}");
    }
}

fn assay(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("--catalog")
        .arg(folder.join("tasks"))
        .arg("--data")
        .arg(folder.join("data"))
        .args(arguments)
        .output()
        .unwrap()
}
