//! What the real runners write is what the parser reads: honest suites leave no flag, whatever
//! corner of pytest or unittest they use, and dishonest ones leave no pass.
//!
//! Needs Python 3.11, the root filesystem's pytest (`make rootfs`) and Django (`make data`); skipped
//! where they are not.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use assay_repos::{Check, Digest, Flag, MustKeep, PatchFacts, ReportKind, TaskLimits};
use assay_rewards::{
    CheckEvidence, CheckRun, Evidence, Generation, GradeHeader, GradeRecord, Outcome, TaskFacts,
    harness,
};
use assay_sandbox::{Capture, Execution, Isolation, Termination, Usage};

const NONCE: &str = "c0ffee";
const PYTEST: ReportKind = ReportKind::Pytest;

/// Every way that a test can end in good faith, with the status that it should have.
const HONEST: &str = r#"
import os, subprocess, sys, threading, unittest
import pytest

def test_passed(): pass
def test_failed(): assert 0
def test_failed_by_exit(): sys.exit(0)
def test_failed_with_odd_bytes(): raise ValueError(os.fsdecode(b"\xff") + "\0")
def test_failed_badly():
    class Odd(Exception):
        def __str__(self): raise RuntimeError
    raise Odd
@pytest.mark.skip
def test_skipped(): pass
def test_skipped_within(): pytest.skip("no")
@pytest.mark.xfail
def test_xfailed(): assert 0
def test_xfailed_within(): pytest.xfail("no")
@pytest.mark.xfail
def test_xpassed(): pass
@pytest.mark.xfail(strict=True)
def test_failed_strictly(): pass
@pytest.mark.xfail(raises=KeyError)
def test_failed_otherwise(): raise ValueError
@pytest.fixture
def bad_setup(): raise OSError
@pytest.fixture
def bad_teardown():
    yield
    raise OSError
def test_error_before(bad_setup): pass
def test_error_after(bad_teardown): pass
def test_failed_and_error_after(bad_teardown): assert 0
def test_passed_printing():
    print("FAILED test_it.py::test_passed"); os.write(1, b"1 passed\n"); os.write(2, b"\xff")
def test_passed_with_a_child():
    subprocess.run([sys.executable, "-c", "import os\nfor fd in range(3, 20):\n try: os.write(fd, b'x')\n except OSError: pass"])
def test_passed_forking():
    child = os.fork()
    if child == 0: os._exit(3)
    os.waitpid(child, 0)
def test_passed_with_a_thread():
    threading.Thread(target=lambda: 1 / 0, daemon=True).start()
@pytest.mark.parametrize("x", ["a b", "é\n", "\0", "]::[", os.fsdecode(b"\xff"), "y" * 3000], ids=str)
def test_passed_with(x): pass
class TestUnit(unittest.TestCase):
    def test_passed(self): pass
    def test_failed(self): self.fail()
    @unittest.expectedFailure
    def test_xfailed(self): self.fail()
    @unittest.skip("no")
    def test_skipped(self): pass
"#;

#[test]
fn honest_suites_leave_no_flag() {
    let Some(python) = Python::find() else { return };
    let record = python.grade(PYTEST, &[("test_it.py", HONEST)], &["test_it.py"], &[]);
    assert_eq!((record.outcome, &record.failure), (Outcome::Scored, &None), "{:#?}", record.flags);
    assert_eq!(record.flags, []);
    let tests = &record.checks[0].tests;
    assert_eq!(tests.len(), 29);
    for test in tests {
        let name = test.id.split("::test_").nth(1).unwrap();
        assert!(name.starts_with(test.status.as_str()), "{}: {:?}", test.id, test.status);
    }
}

#[test]
fn what_failed_says_where_and_why() {
    let Some(python) = Python::find() else { return };
    let code = "def add(a, b):\n    return a - b\n";
    let tests = "import pytest, it\n\n@pytest.mark.parametrize('a', [1, 2])\ndef test_a(a):\n    assert it.add(a, 1) == 9\ndef test_b():\n    it.add(\n        1,\n        'x')\n";
    let files = &[("it.py", code), ("test_it.py", tests)];
    let record = python.grade(PYTEST, files, &["test_it.py"], &[]);
    let messages: Vec<_> =
        record.checks[0].tests.iter().map(|test| test.message.as_deref().unwrap()).collect();
    let why = |left, a| {
        format!(
            "test_it.py:5: in test_a\n    assert it.add(a, 1) == 9\nE   assert {left} == 9\n\
             E    +  where {left} = <function add at 0x...>({a}, 1)\n\
             E    +    where <function add at 0x...> = it.add"
        )
    };
    // The second is at the place of the first, of which pytest is told what it found there.
    for (message, why) in messages.iter().zip([why(0, 1), why(1, 2)]) {
        assert_eq!(without_addresses(message), why);
    }
    let second = messages[2];
    assert!(
        second.starts_with(
            "test_it.py:7: in test_b\n    it.add(\nit.py:2: in add\n    return a - b\n"
        ) && second.contains("TypeError: unsupported operand"),
        "{second}"
    );
}

/// Takes addresses out of a text.
fn without_addresses(text: &str) -> String {
    let mut parts = text.split("0x");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |said, part| {
        said + "0x..." + part.trim_start_matches(|c: char| c.is_ascii_hexdigit())
    })
}

#[test]
fn suites_that_cannot_run_blame_the_submission_of_a_known_task() {
    let Some(python) = Python::find() else { return };
    let must_pass = &["test_it.py::test_a"];
    let good = "def test_a(): pass\n";
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("syntax error", &[("test_it.py", "def test_a(: pass")]),
        ("import error", &[("test_it.py", "import nowhere\ndef test_a(): pass")]),
        ("no such test", &[("test_it.py", "def test_b(): pass")]),
        (
            "skip at module level",
            &[("test_it.py", "import pytest\npytest.skip('', allow_module_level=True)")],
        ),
        ("exit at import", &[("test_it.py", "import sys\nsys.exit(0)")]),
        ("os._exit at import", &[("test_it.py", "import os\nos._exit(0)")]),
        (
            "os._exit in a conftest",
            &[("conftest.py", "import os\nos._exit(0)"), ("test_it.py", good)],
        ),
        ("os._exit in a test", &[("test_it.py", "import os\ndef test_a(): os._exit(0)")]),
        (
            "os._exit after the test",
            &[("test_it.py", "import os\ndef test_a(): pass\ndef test_b(): os._exit(0)")],
        ),
        (
            "os._exit when all is over",
            &[
                ("conftest.py", "import os\ndef pytest_sessionfinish(): os._exit(0)"),
                ("test_it.py", good),
            ],
        ),
        (
            "a polite exit",
            &[("test_it.py", "import pytest\ndef test_a(): pytest.exit('', returncode=0)")],
        ),
        ("killed by itself", &[("test_it.py", "import os\ndef test_a(): os.kill(os.getpid(), 9)")]),
        ("a crash", &[("test_it.py", "import ctypes\ndef test_a(): ctypes.string_at(0)")]),
    ];
    for (name, files) in cases {
        let record = python.grade(PYTEST, files, &["test_it.py"], must_pass);
        assert_eq!(record.outcome, Outcome::Scored, "{name}: {record:#?}");
        assert_eq!(record.checks[0].must_pass.held, 0, "{name}: {record:#?}");
    }
}

#[test]
fn who_goes_on_without_a_module_is_no_forger() {
    let Some(python) = Python::find() else { return };
    let files = [("test_a.py", "import nowhere\n"), ("test_b.py", "def test_b(): pass\n")];
    let args = ["test_a.py", "test_b.py", "--continue-on-collection-errors"];
    let record = python.grade(PYTEST, &files, &args, &["test_a.py::test_a"]);
    assert_eq!((record.outcome, &record.flags[..]), (Outcome::Scored, &[][..]), "{record:#?}");
    assert_eq!(record.checks[0].must_pass.held, 0, "{record:#?}");
}

/// A test of each kind that fails: what turns outcomes around has to turn them all.
const FAILING: &str = r#"
import unittest
import helper
def test_a(): assert helper.value() == 1
class TestUnit(unittest.TestCase):
    def test_b(self): self.assertEqual(helper.value(), 1)
"#;
const MUST_PASS: &[&str] = &["test_it.py::test_a", "test_it.py::TestUnit::test_b"];

/// Ways to turn failures to passes, by the file that they come in. The helper is what a submission
/// would be: imported by the tests.
const FORGERS: &[(&str, &str, &str)] = &[
    (
        "makereport wrapped, its result turned",
        "conftest.py",
        r#"
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    out = yield
    out.get_result().outcome = "passed"
"#,
    ),
    (
        "makereport wrapped, its result replaced",
        "conftest.py",
        r#"
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    out = yield
    report = out.get_result()
    report.outcome, report.longrepr = "passed", None
    out.force_result(report)
"#,
    ),
    (
        "the exception taken away before",
        "conftest.py",
        r#"
import pytest
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item, call):
    call.excinfo = None
"#,
    ),
    (
        "logreport turned",
        "conftest.py",
        r#"
import pytest
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    report.outcome = "passed"
"#,
    ),
    (
        "tests that are not called",
        "conftest.py",
        r#"
import pytest, unittest
@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    return True
unittest.TestCase.run = lambda self, result: result.addSuccess(self)
"#,
    ),
    (
        "reports made elsewhere",
        "helper.py",
        r#"
from _pytest.reports import TestReport
make = TestReport.from_item_and_call.__func__
def forged(cls, item, call):
    call.excinfo = None
    return make(cls, item, call)
TestReport.from_item_and_call = classmethod(forged)
"#,
    ),
    (
        "calls that never fail",
        "helper.py",
        r#"
from _pytest.runner import CallInfo
def forged(cls, func, when, reraise=None):
    return cls(result=None, excinfo=None, start=0, stop=0, duration=0, when=when, _ispytest=True)
CallInfo.from_call = classmethod(forged)
"#,
    ),
    (
        "a plugin registered on the way",
        "helper.py",
        r#"
import gc, pytest
class Plugin:
    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem):
        return True
for thing in gc.get_objects():
    if isinstance(thing, pytest.PytestPluginManager):
        thing.register(Plugin())
"#,
    ),
    (
        "outcomes that are always good",
        "helper.py",
        r#"
from _pytest.reports import TestReport
TestReport.outcome = property(lambda self: "passed", lambda self, value: None)
"#,
    ),
    (
        "assertions that say nothing",
        "helper.py",
        r#"
import unittest
for name in dir(unittest.TestCase):
    if name.startswith("assert"):
        setattr(unittest.TestCase, name, lambda *a, **k: None)
"#,
    ),
    (
        "a value that equals everything",
        "helper.py",
        r#"
class Yes:
    def __eq__(self, other):
        return True
def value():
    return Yes()
"#,
    ),
    (
        "a number that equals everything, deep within",
        "helper.py",
        r#"
class Yes(int):
    __eq__ = lambda self, other: True
    __hash__ = None
class Both(Yes):
    pass
def value():
    return Both(7)
"#,
    ),
    (
        "a value that is said to equal everything",
        "helper.py",
        r#"
def value():
    from unittest import mock
    return mock.ANY
"#,
    ),
    (
        "a type that borrows what equals everything",
        "helper.py",
        r#"
from unittest import mock
class Any(type(mock.ANY)):
    pass
class Borrowed:
    __eq__ = type(mock.ANY).__eq__
    __hash__ = None
def value():
    return Borrowed()
"#,
    ),
    (
        "a value that equals everything, with a number",
        "helper.py",
        r#"
class Yes:
    def __eq__(self, other):
        return 1
def value():
    return Yes()
"#,
    ),
    (
        "unittest's tests that are not run",
        "helper.py",
        r#"
import unittest
unittest.TestCase.run = lambda self, result=None: result.addSuccess(self)
"#,
    ),
    (
        "tests emptied while they are collected",
        "helper.py",
        r#"
import functools
import _pytest.python as python
make = python.PyCollector._genfunctions
def emptied(self, name, obj):
    setattr(self.obj, name, functools.wraps(obj)(lambda *args, **options: None))
    return make(self, name, getattr(self.obj, name))
python.PyCollector._genfunctions = emptied
"#,
    ),
    (
        "failures of tests that called us",
        "helper.py",
        r#"
from _pytest.runner import CallInfo
make, called = CallInfo.from_call.__func__, []
def from_call(cls, func, when, reraise=None):
    called.clear()
    call = make(cls, func, when, reraise)
    if called:
        call.excinfo = None
    return call
CallInfo.from_call = classmethod(from_call)
def value():
    called.append(1)
    return 0
"#,
    ),
    (
        "the runner found in frames, its results turned",
        "helper.py",
        r#"
import sys
frame = sys._getframe()
while frame.f_back:
    frame = frame.f_back
    found = frame.f_locals.get("reporter")
    if found:
        test = type(found).test
        type(found).test = lambda self, name, status, *rest: test(self, name, "passed", *rest)
"#,
    ),
    (
        "the runner found in memory, its words turned",
        "helper.py",
        r#"
import gc
for thing in gc.get_objects():
    if type(thing).__name__ == "Reporter":
        say = thing.event
        def event(name, **fields):
            if fields.get("status") in ("failed", "error"):
                fields["status"] = "passed"
            say(name, **fields)
        thing.event = event
"#,
    ),
];

#[test]
fn forgers_are_told_by_canaries() {
    let Some(python) = Python::find() else { return };
    let value = "\ndef value(): return 0\n";
    for (name, place, code) in FORGERS {
        let helper = match *place {
            "helper.py" if code.contains("def value") => (*code).to_owned(),
            "helper.py" => format!("{code}{value}"),
            _ => value.to_owned(),
        };
        let mut files = vec![("test_it.py", FAILING), ("helper.py", helper.as_str())];
        if *place == "conftest.py" {
            files.push((place, code));
        }
        let record = python.grade(PYTEST, &files, &["test_it.py"], MUST_PASS);
        assert_eq!(record.checks[0].must_pass.held, 0, "{name}: {record:#?}");
        assert_eq!(record.outcome, Outcome::Tampered, "{name}: {record:#?}");
        // Hooks of a conftest, which no submission brings, see the tests alone.
        let told = |flag: &Flag| {
            flag.code == "canary.green"
                || ["equals", "replaced"].iter().any(|word| flag.evidence.contains(word))
                || *place == "conftest.py" && flag.code == "report.conflict"
        };
        assert!(record.flags.iter().any(told), "{name}: {:#?}", record.flags);
    }
    let honest = [("test_it.py", FAILING), ("helper.py", value)];
    let record = python.grade(PYTEST, &honest, &["test_it.py"], MUST_PASS);
    assert_eq!((record.outcome, &record.flags[..]), (Outcome::Scored, &[][..]));
    assert!(record.checks[0].canaries.len() >= 5, "{:?}", record.checks[0].canaries);
}

#[test]
fn forgers_leave_no_pass() {
    let Some(python) = Python::find() else { return };
    let failing = "def test_a(): assert 0\n";
    let exit_green = r#"
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_sessionfinish(session):
    yield
    session.exitstatus = 0
"#;
    let forge = r#"
import gc
def test_a():
    for thing in gc.get_objects():
        if type(thing).__name__ == "Reporter":
            thing.event("test", id="test_it.py::test_a", status="passed", duration_s=0, message="")
    assert 0
"#;
    let no_canary = r#"
import gc
def take_over(runner):
    report = runner.test
    runner.run_canary = lambda item: None
    runner.test = lambda name, status, *rest: report(name, "passed", *rest)
for thing in gc.get_objects():
    if type(thing).__name__ == "Reporter":
        take_over(thing)
def test_a(): assert 0
"#;
    // Assertions that raise what pytest takes for an expected failure.
    let expected = r#"
import builtins, _pytest.outcomes
builtins.AssertionError = _pytest.outcomes.XFailed
def test_a(): assert 0
"#;
    let declared = "import pytest\ndef test_a(): pytest.xfail('so be it')\n";
    type Files<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(&str, Files<'_>, Outcome)] = &[
        ("exit", &[("conftest.py", exit_green), ("test_it.py", failing)], Outcome::Tampered),
        ("a result of its own", &[("test_it.py", forge)], Outcome::Tampered),
        ("no canary", &[("test_it.py", no_canary)], Outcome::Tampered),
        ("assertions that expect to fail", &[("test_it.py", expected)], Outcome::Tampered),
        // An expected failure is a pass only where the task expects it.
        ("declared as expected", &[("test_it.py", declared)], Outcome::Scored),
    ];
    for (name, files, outcome) in cases {
        let record = python.grade(PYTEST, files, &["test_it.py"], &["test_it.py::test_a"]);
        assert_eq!(record.checks[0].must_pass.held, 0, "{name}: {record:#?}");
        assert_eq!(record.outcome, *outcome, "{name}: {record:#?}");
    }
}

/// Nothing that a suite depends on tells it that there are canaries.
#[test]
fn canaries_disturb_no_suite() {
    let Some(python) = Python::find() else { return };
    let suite = r#"
import pytest, unittest
seen = []
@pytest.fixture(autouse=True)
def counted(request): seen.append(request.node.name)
@pytest.fixture(scope="module", params=[1, 2])
def both(request): return request.param
def setup_function(function): seen.append(function.__name__)
class TestClass:
    @classmethod
    def setup_class(cls): cls.times = getattr(cls, "times", 0) + 1
    def test_a(self): assert self.times == 1
    def test_b(self): assert self.times == 1
class TestUnit(unittest.TestCase):
    made = 0
    @classmethod
    def setUpClass(cls): cls.made += 1
    def test_c(self): self.assertEqual(self.made, 1)
    def test_d(self): self.assertEqual(self.made, 1)
def test_both(both): assert both in (1, 2)
def test_seen():
    known = {"test_a", "test_b", "test_c", "test_d", "test_both", "test_both[1]", "test_both[2]"}
    assert set(seen) <= known | {"test_seen"}
"#;
    let odd = r#"
import unittest.mock
class Any:
    def __eq__(self, other): return True
def test_any(): assert 3 == Any()
def test_mock(): assert [3] == [unittest.mock.ANY]
"#;
    let last = "def test_fails(): assert 0\ndef test_after(): pass\n";
    let doctest = "def f():\n    \"\"\"\n    >>> 1 + 1\n    2\n    \"\"\"\n";
    // (what, the suite, pytest's arguments, tests that pass)
    let cases = [
        ("fixtures and classes", suite, vec!["test_it.py"], 7),
        ("a part of it", suite, vec!["test_it.py", "-k", "test_c or test_a"], 2),
        ("matchers of its own", odd, vec!["test_it.py"], 2),
        ("stops early", last, vec!["test_it.py", "-x"], 0),
        ("doctests", doctest, vec!["test_it.py", "--doctest-modules"], 1),
    ];
    // Where they stand is a matter of chance.
    for _ in 0..3 {
        for (name, text, args, passed) in &cases {
            let record = python.grade(PYTEST, &[("test_it.py", text)], args, &[]);
            assert_eq!(record.flags, [], "{name}");
            assert_eq!(record.counts().passed as usize, *passed, "{name}: {record:#?}");
            let canaries = &record.checks[0].canaries;
            assert!(canaries.iter().all(|canary| canary.holds()), "{name}: {canaries:?}");
            assert!(canaries.len() >= 4, "{name}: {canaries:?}");
        }
    }
}

mod ends;
mod unittest;

/// Hooks, marks and globals that honest projects have, and canaries must not meet.
#[test]
fn canaries_meet_nothing_of_the_suite() {
    let Some(python) = Python::find() else { return };
    let plain = "def test_a(): assert [1] == [1]\ndef test_b(): assert 2 == 2\n";
    let fails = "def test_a(): assert [1] == [1]\ndef test_b(): assert 2 == 3\n";
    let hook = |name: &str, body: &str| format!("import pytest\n{name}\n{body}");
    let wrapper = "@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport(item, call):\n    report = (yield).get_result()";
    // (what, conftest.py, the suite, tests that pass)
    let cases = [
        ("marked as failing", String::new(), "import pytest\npytestmark = pytest.mark.xfail\ndef test_a(): assert 0\n", 1),
        ("marked as skipped", String::new(), "import pytest\npytestmark = pytest.mark.skip\ndef test_a(): assert 0\n", 0),
        ("a global that can't be compared", String::new(), "class Odd:\n    def __eq__(self, other): raise TypeError\n    __class__ = property(lambda self: 1 / 0)\nX = Odd()\ndef test_a(): pass\n", 1),
        ("a type of types", String::new(), "class M(type):\n    def __eq__(self, other): return self is other\nclass A(metaclass=M): pass\ndef test_a():\n    a = A()\n    assert a == a\n", 1),
        ("a mock that remembers", String::new(), "from unittest.mock import MagicMock\ndef test_a():\n    m = MagicMock()\n    assert [m] == [m]\n    assert m == m\n    assert not m.mock_calls[2:]\n", 1),
        ("itself within", String::new(), "def test_a():\n    a = []\n    a.append(a)\n    assert a == a\n", 1),
        ("every report has a message", hook(wrapper, "    if report.failed: item.told = report.longrepr.reprcrash.message"), fails, 1),
        ("every test has a page", "import pytest\n@pytest.fixture(autouse=True)\ndef page(): return 1\ndef pytest_runtest_teardown(item): item.funcargs['page']\n".into(), plain, 2),
        ("every function has a text", hook(wrapper, "    assert item.function.__doc__ is None and item.module"), plain, 2),
        ("stops at a failure", hook("def pytest_runtest_makereport(item, call):", "    if call.excinfo: item.session.shouldstop = 'enough'"), plain, 2),
        ("counts", hook("def pytest_collection_finish(session):", "    assert len(session.items) == 2"), plain, 2),
        ("counts failures", hook("failed = []\ndef pytest_runtest_logreport(report):\n    failed.extend([1] * report.failed)\ndef pytest_sessionfinish(session):", "    session.exitstatus = int(bool(failed))"), plain, 2),
        ("tries again", hook("from _pytest.runner import runtestprotocol\n@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_protocol(item, nextitem):", "    for report in runtestprotocol(item, nextitem=nextitem, log=False): item.ihook.pytest_runtest_logreport(report=report)\n    return True"), plain, 2),
        ("skips what has no mark", hook("def pytest_runtest_setup(item):", "    if 'test_' not in item.name or not item.path.name.startswith('test_it'): pytest.skip('no')"), plain, 2),
        ("helpers that match anything", "class Any:\n    def __eq__(self, other): return True\n".into(), "import conftest\ndef test_a(): assert {'a': 1} == {'a': conftest.Any()}\n", 1),
    ];
    for _ in 0..2 {
        for (what, conftest, suite, passed) in &cases {
            let files = [("test_it.py", *suite), ("conftest.py", conftest.as_str())];
            let record = python.grade(PYTEST, &files, &["test_it.py"], &[]);
            assert_eq!(record.flags, [], "{what}");
            assert_eq!(record.counts().passed, *passed, "{what}: {record:#?}");
            let canaries = &record.checks[0].canaries;
            assert!(
                canaries.len() >= 5 && canaries.iter().all(|one| one.holds()),
                "{what}: {canaries:?}"
            );
        }
    }
}

struct Python {
    packages: PathBuf,
}

fn cache() -> Option<PathBuf> {
    env::var_os("ASSAY_CACHE").map(PathBuf::from).or_else(|| {
        let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let base = base.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
        Some(base?.join("assay"))
    })
}

impl Python {
    fn find() -> Option<Self> {
        let packages = cache()?.join("rootfs/python/tree/usr/lib/python3/dist-packages");
        let works = Command::new("python3")
            .args(["-P", "-c", "import pytest"])
            .env("PYTHONPATH", &packages)
            .stderr(Stdio::null())
            .status();
        if packages.join("pytest").is_dir() && works.is_ok_and(|status| status.success()) {
            return Some(Self { packages });
        }
        println!("skipped: no Python 3.11 with the pytest of the root filesystem (make rootfs)");
        None
    }

    /// Runs a suite of these files, without a sandbox: they are ours.
    fn grade(
        &self,
        report: ReportKind,
        files: &[(&str, &str)],
        args: &[&str],
        must_pass: &[&str],
    ) -> GradeRecord {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (name, text) in files {
            write(name, text);
        }
        match report {
            PYTEST => write("runner", harness::PYTEST_RUNNER),
            _ => write("runner", harness::UNITTEST_RUNNER),
        }
        write("assay_canary.py", harness::CANARY);
        write("assay_messages.py", harness::MESSAGES);
        // What a submission changes here is what the tests import.
        let changed: Vec<_> = files.iter().map(|(name, _)| *name).collect();
        let changed: Vec<_> = changed.into_iter().filter(|name| !is_test(name)).collect();
        let execution = self.run(dir.path(), args, &format!("{NONCE}\n{changed:?}\n"));
        let check = Check {
            id: "unit".into(),
            run: Vec::new(),
            report,
            report_path: None,
            must_pass: must_pass.iter().map(ToString::to_string).collect(),
            must_keep: MustKeep::Nothing,
        };
        let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
        let evidence = Some(CheckEvidence::Process(evidence));
        let run = CheckRun { check: &check, evidence, control: None, quarantined: None };
        header().grade(PatchFacts::default(), Vec::new(), &[run], None)
    }

    fn run(&self, dir: &Path, args: &[&str], stdin: &str) -> Execution {
        let mut child = Command::new("sh")
            .args(["-c", "exec python3 -P -s -B runner \"$@\" 3>report", "sh"])
            .args(args)
            .current_dir(dir)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("PYTHONPATH", &self.packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let capture = |head| Capture { head, ..Capture::default() };
        use std::os::unix::process::ExitStatusExt as _;
        let termination = match (output.status.code(), output.status.signal()) {
            (Some(code), _) => Termination::Exited(code),
            (_, signal) => Termination::Signaled(signal.unwrap_or_default()),
        };
        Execution {
            termination,
            stdout: Capture::default(),
            stderr: capture(output.stderr),
            channels: vec![capture(fs::read(dir.join("report")).unwrap())],
            usage: Usage::default(),
            isolation: Isolation::default(),
        }
    }
}

fn is_test(name: &str) -> bool {
    ["test", "conftest.py", "shop/tests.py", "manage.py"]
        .iter()
        .any(|start| name.starts_with(start))
}

fn header() -> GradeHeader {
    GradeHeader {
        task: "demo.0001".parse().unwrap(),
        task_digest: Digest::of(""),
        image_digest: String::new(),
        submission_digest: Digest::of(""),
        backend: "none".into(),
        mode: assay_repos::Mode::Guarded,
        limits: TaskLimits::default(),
        generation: Generation::default(),
        external: Default::default(),
        task_facts: TaskFacts::default(),
        runner: "test".into(),
    }
}
