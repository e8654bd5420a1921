//! What ends a test or a run from within: exceptions that runners give a meaning of their own, and
//! code that ends the process.

use super::*;

const UNITTEST: ReportKind = ReportKind::Unittest;

/// Both kinds of tests over code that raises where an assertion should.
const SUITE: &str = r#"
import unittest
import helper
class TestUnit(unittest.TestCase):
    def test_a(self): helper.stop()
    def test_b(self):
        with self.subTest(): helper.stop()
    def test_c(self): self.addCleanup(helper.stop)
class TestBefore(unittest.TestCase):
    def setUp(self): helper.stop()
    def test_d(self): pass
class TestAfter(unittest.TestCase):
    def tearDown(self): helper.stop()
    def test_e(self): pass
"#;
const FUNCTION: &str = "\ndef test_f(): helper.stop()\n";

#[test]
fn no_exception_ends_a_test_as_passed() {
    let Some(python) = Python::find() else { return };
    use Outcome::{Scored, Tampered};
    // What the code raises, and whether a runner of unittest's tests takes that for a success.
    let cases = [
        ("unittest.case._ShouldStop", Tampered),
        ("type('Odd', (unittest.case._ShouldStop,), {})", Tampered),
        ("unittest.SkipTest", Scored),
        ("unittest.case._UnexpectedSuccess", Scored),
        ("_pytest.outcomes.Skipped", Scored),
        ("_pytest.outcomes.XFailed", Scored),
        ("_pytest.outcomes.Exit", Scored),
        ("_pytest.outcomes.Failed", Scored),
        ("pytest.Session.Interrupted", Scored),
        ("pytest.Session.Failed", Scored),
        ("StopIteration", Scored),
        ("StopAsyncIteration", Scored),
        ("GeneratorExit", Scored),
        ("asyncio.CancelledError", Scored),
        ("bdb.BdbQuit", Scored),
        ("KeyboardInterrupt", Scored),
        ("SystemExit(0)", Scored),
        ("doctest.DocTestFailure(None, None, None)", Scored),
    ];
    let ids = |form: fn(&str, &str) -> String| {
        let unit = ["a", "b", "c"].map(|test| ("TestUnit", test));
        let around = [("TestBefore", "d"), ("TestAfter", "e")];
        unit.iter().chain(&around).map(|(class, test)| form(class, test)).collect::<Vec<_>>()
    };
    let of_pytest = ids(|class, test| format!("test_it.py::{class}::test_{test}"));
    let of_unittest = ids(|class, test| format!("test_it.{class}.test_{test}"));
    let both = format!("{SUITE}{FUNCTION}");
    for (raised, outcome) in cases {
        let helper = format!(
            "import asyncio, bdb, doctest, pytest, unittest, _pytest.outcomes\n\
             def stop():\n    try:\n        error = {raised}\n    except AttributeError:\n        error = Exception\n    raise error\n"
        );
        for (report, suite, args, names) in [
            (PYTEST, both.as_str(), "test_it.py", &of_pytest),
            (UNITTEST, SUITE, "test_it", &of_unittest),
        ] {
            let files = [("test_it.py", suite), ("helper.py", helper.as_str())];
            let mut names: Vec<_> = names.iter().map(String::as_str).collect();
            if report == PYTEST {
                names.push("test_it.py::test_f");
            }
            let record = python.grade(report, &files, &[args], &names);
            let what = format!("{raised}, {report}: {record:#?}");
            assert_eq!(record.checks[0].must_pass.held, 0, "{what}");
            assert_eq!(record.outcome, outcome, "{what}");
            let told = record.flags.iter().any(|flag| flag.evidence.contains("raised"));
            assert_eq!(told, outcome == Tampered, "{what}");
        }
    }
}

/// What raises and goes on in good faith.
#[test]
fn tests_that_stop_early_are_told_from_those_that_are_stopped() {
    let Some(python) = Python::find() else { return };
    let suite = r#"
import unittest
class TestUnit(unittest.TestCase):
    @unittest.expectedFailure
    def test_xfailed_in_a_part(self):
        with self.subTest(): self.fail()
        self.fail()
    def test_skipped_in_a_part(self):
        with self.subTest(): self.skipTest("no")
    def test_passed_over_another(self):
        class Inner(unittest.TestCase):
            def test(self): raise unittest.case._ShouldStop
        try:
            raise unittest.case._ShouldStop
        except unittest.case._ShouldStop:
            pass
    def test_failed_in_a_part(self):
        for i in range(3):
            with self.subTest(i=i): self.assertEqual(i, 0)
"#;
    for (report, args) in
        [(PYTEST, &["test_it.py"][..]), (UNITTEST, &["test_it"]), (UNITTEST, &["-f", "test_it"])]
    {
        let record = python.grade(report, &[("test_it.py", suite)], args, &[]);
        assert_eq!((record.outcome, &record.flags[..]), (Outcome::Scored, &[][..]), "{report}");
    }
}

/// A task that names no test: whoever ends the process gets what they deserve, and a suite that could
/// not run is the task's affair.
#[test]
fn ending_the_process_is_a_verdict_where_no_test_is_named() {
    let Some(python) = Python::find() else { return };
    use Outcome::{InvalidTask, Scored};
    let suite = "import unittest, helper\n\
                 class A(unittest.TestCase):\n    def test_a(self): self.assertEqual(helper.value, 1)\n";
    let empty = "import helper\n";
    let absent = "import pytest, unittest\npytest.exit('no database')\n";
    let pytest = |args: &'static str| (PYTEST, args);
    let unittest = |args: &'static str| (UNITTEST, args);
    let file = "test_it.py";
    // (what, the submission, the suite, the runner and its arguments, the outcome)
    let cases = [
        ("solved", "value = 1", suite, pytest(file), Scored),
        ("solved", "value = 1", suite, unittest("test_it"), Scored),
        ("os._exit", "import os\nos._exit(0)", suite, pytest(file), Scored),
        ("os._exit", "import os\nos._exit(0)", suite, unittest("test_it"), Scored),
        ("sys.exit", "import sys\nsys.exit(0)", suite, pytest(file), Scored),
        ("sys.exit", "import sys\nsys.exit(0)", suite, unittest("test_it"), Scored),
        ("an interrupt", "raise KeyboardInterrupt", suite, pytest(file), Scored),
        ("an interrupt", "raise KeyboardInterrupt", suite, unittest("test_it"), Scored),
        ("a crash", "import ctypes\nctypes.string_at(0)", suite, pytest(file), Scored),
        // To pytest a module that can't be collected, and maybe the image lacks something.
        ("pytest.exit", "import pytest\npytest.exit('')", suite, pytest(file), InvalidTask),
        ("an exception", "import nowhere", suite, pytest(file), InvalidTask),
        ("no tests", "value = 1", empty, pytest(file), InvalidTask),
        ("no tests", "value = 1", empty, unittest("test_it"), InvalidTask),
        ("no such file", "value = 1", suite, pytest("test_there.py"), InvalidTask),
        ("no such option", "value = 1", suite, pytest("--bogus"), InvalidTask),
        ("no such option", "value = 1", suite, unittest("--bogus"), InvalidTask),
        ("the suite leaves", "value = 1", absent, pytest(file), InvalidTask),
        ("the suite leaves", "value = 1", absent, unittest("test_it"), InvalidTask),
    ];
    for (what, helper, suite, (report, args), outcome) in cases {
        let files = [("test_it.py", suite), ("helper.py", helper)];
        let record = python.grade(report, &files, &[args], &[]);
        let what = format!("{what}, {report}: {record:#?}");
        assert_eq!(record.outcome, outcome, "{what}");
        let solved = record.checks[0].must_pass.held > 0;
        assert_eq!(solved, what.starts_with("solved"), "{what}");
        let failure = record.failure.as_ref().map(|failure| failure.kind.as_str());
        assert_eq!(failure, (!solved).then_some("no_tests_ran"), "{what}");
    }
}

/// However much tests say, their report can be read.
#[test]
fn messages_never_make_a_report_too_long() {
    let Some(python) = Python::find() else { return };
    let text = r#"
import unittest
class A(unittest.TestCase):
    def fails(self): self.fail("\U0001f600" * 3000)
for number in range(4000):
    setattr(A, "test_%d" % number, A.fails)
"#;
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("test_it.py", text),
        ("runner", harness::UNITTEST_RUNNER),
        ("assay_canary.py", harness::CANARY),
        ("assay_messages.py", harness::MESSAGES),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let execution = python.run(dir.path(), &["test_it"], &format!("{NONCE}\n[]\n"));
    let report = &execution.channels[0].head;
    // As much as the host reads.
    assert!(report.len() < 16 << 20, "{} bytes", report.len());
    let lines = String::from_utf8_lossy(report);
    let said = lines.lines().filter(|line| line.contains("\\ude00")).count();
    assert!((2000..4000).contains(&said), "{said} of 4000 messages, as many as there is room for");
    assert!(lines.lines().next_back().is_some_and(|line| line.contains("\"failed\": 4000")));
}
