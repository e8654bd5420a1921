"""Runs pytest and reports each test to the host, without a word on stdout that counts.

Started as `python3 -P -s -B run_pytest.py ARGS`. stdin: the nonce, the files that the submission
changes as a JSON list (null: too many to say), and null or, in a sealed check, the modules that are
the submission's, a JSON object (assay_remote.py). fd 3: JSON lines for the host: alive, start with the
collected ids, one test event per test, one canary event per canary, end. A run that ends early has no
end event, and what contradicts what a test really did is a conflict event.

In guarded mode the code under test shares this process: a determined attacker can forge events.
What keeps honest runs honest: our configuration alone is read, no plugin is loaded by name, and
pytest comes from the image (`-P`), never from the work tree. What shows most others: canaries are
collected and run as tests are, what assertions found equal is probed, and the functions that decide
about outcomes are watched (assay_canary.py).
"""

import ast
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

# Whatever metadata lies in the work tree, it names no plugin.
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"

import pytest  # noqa: E402
from _pytest import _code, fixtures, runner  # noqa: E402
from _pytest import unittest as pytest_unittest  # noqa: E402
from _pytest.assertion import rewrite  # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assay_canary  # noqa: E402
import assay_messages  # noqa: E402

sys.path.pop(0)
# As `python -m pytest` has it, but last: the work tree shadows nothing of the image.
sys.path.append(os.getcwd())

# Where it is decided whether a test passed.
DECIDES = (
    "_pytest.runner",
    "_pytest.reports",
    "_pytest.python",
    "_pytest.unittest",
    "_pytest.outcomes",
    "_pytest.skipping",
    "_pytest.python_api",
    "_pytest.raises",
    "_pytest.recwarn",
    "_pytest.doctest",
    "pluggy._callers",
    "pluggy._hooks",
    "pytest",
    "unittest.case",
    "doctest",
    "math",
    "numpy",
    "numpy.testing",
)


class Reporter:
    def __init__(self):
        self.nonce = sys.stdin.readline().strip()
        self.origin = assay_canary.Origin(os.getcwd(), json.loads(sys.stdin.readline() or "null"))
        modules = json.loads(sys.stdin.readline() or "null")
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # Off the well-known number, and closed in every program that a test starts.
        self.channel = os.fdopen(os.dup(3), "w", encoding="utf-8", errors="backslashreplace")
        os.close(3)
        self.seq = 0
        self.counts = {}
        self.outcomes = {}  # id -> [status, seconds, message] over setup, call and teardown
        self.raised = {}  # (id, phase) -> whether the phase really raised
        self.succeeded = set()  # ids of unittest's tests of which it said so
        self.running = ""
        self.messages = assay_messages.Messages()
        self.uncollected = False  # whether some module could not be collected
        self.stopped = False  # whether code of the submission ended the run
        self.canaries = Canaries()
        self.probe = assay_canary.Probe(self.lie, self.origin)
        self.watch = None
        self.remote = modules and remote(modules)

    def event(self, name, **fields):
        self.channel.write(json.dumps({"seq": self.seq, "event": name, **fields}) + "\n")
        self.channel.flush()
        self.seq += 1

    def test(self, name, status, seconds, message):
        if name in self.canaries.kinds:
            return self.event("canary", kind=self.canaries.kinds[name], id=name, status=status)
        self.counts[status] = self.counts.get(status, 0) + 1
        message = self.messages.cut(message)
        self.event("test", id=name, status=status, duration_s=round(seconds, 6), message=message)

    def lie(self, evidence):
        self.event("conflict", id=self.running, evidence=evidence)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self, session):
        # Before anything of the work tree is imported, and once more when everything is.
        if not self.remote:
            self.watch = assay_canary.Watch(DECIDES, self.origin)
            self.canaries.add(session, "early")
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, session, items):
        yield
        if not self.remote:
            self.canaries.add(session, "late", items)
            assay_canary.watch_unittest(self.probe)

    def pytest_collection_finish(self, session):
        self.event("start", nonce=self.nonce, collected=[item.nodeid for item in session.items])

    def pytest_collectreport(self, report):
        # A module that can't be collected takes its tests along: they are missing, and this says why.
        if report.failed:
            print("cannot collect %s" % report.nodeid, file=sys.stderr)
            self.uncollected = True

    def pytest_keyboard_interrupt(self, excinfo):
        # pytest interrupts itself where modules could not be collected.
        if not isinstance(excinfo.value, pytest.Session.Interrupted):
            self.stopped = self.origin.ended(excinfo.value)

    def pytest_internalerror(self, excinfo):
        self.stopped = self.origin.ended(excinfo.value)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        self.run_canaries()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session):
        # Where pytest itself gives up, nothing passes anyway; an early end by `-x` is none.
        try:
            result = yield
        except session.Failed:
            self.run_canaries(all=True)
            raise
        self.run_canaries(all=True)
        return result

    def run_canaries(self, all=False):
        for canary in self.canaries.due(all):
            self.run_canary(canary)

    def run_canary(self, item):
        """Runs one as pytest runs a test, away from the session's fixtures, counts and ends."""
        session, status = item.session, "passed"
        kept = {name: getattr(session, name) for name in ("_setupstate", "shouldstop", "shouldfail")}
        try:
            session._setupstate = type(session._setupstate)()
            session.shouldstop = session.shouldfail = False
            for report in runner.runtestprotocol(item, log=False, nextitem=None):
                if status in ("passed", "xpassed"):
                    status = status_of(report)
        except Exception:
            status = "error"  # what a canary breaks is its own
        finally:
            for name, value in kept.items():
                setattr(session, name, value)
        self.test(item.nodeid, status, 0, "")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        self.running = item.nodeid
        if self.remote:
            self.remote.begin(item)
        # A matcher of the tests' own may equal what it likes.
        self.probe.trusted = [vars(module) for module in own_modules(item)]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        self.raised[item.nodeid, call.when] = call.excinfo is not None
        report = yield
        silent = isinstance(item, pytest_unittest.TestCaseFunction) and item.nodeid not in self.succeeded
        if silent and call.when == "call" and report.outcome == "passed" and not hasattr(report, "wasxfail"):
            report.outcome, report.longrepr = "failed", "unittest said neither that it passed nor that it failed"
        if self.remote and self.remote.trouble and report.outcome != "failed":
            report.outcome, report.longrepr = "failed", self.remote.trouble
            vars(report).pop("wasxfail", None)
        return report

    def pytest_runtest_logreport(self, report):
        outcome = self.outcomes.setdefault(report.nodeid, ["passed", 0.0, ""])
        outcome[1] += report.duration
        status = status_of(report)
        if status == "passed" and self.raised.get((report.nodeid, report.when), False):
            self.event(
                "conflict", id=report.nodeid, evidence="%s raised but is reported as passed" % report.when
            )
            status = "failed"
        if outcome[0] in ("passed", "xpassed") and status != "passed":
            outcome[0], outcome[2] = status, report.longreprtext
        if report.when == "teardown":
            for name in self.watch.replaced() if self.watch else ():
                self.event("conflict", id=report.nodeid, evidence="the submission replaced %s" % name)
            self.test(report.nodeid, *self.outcomes.pop(report.nodeid))


def remote(modules):
    """Returns the submission's process, whose modules tests find from now on."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import assay_remote

    sys.path.pop(0)
    return assay_remote.install(modules)


def status_of(report):
    expected = hasattr(report, "wasxfail")
    if report.failed:
        return "failed" if report.when == "call" else "error"
    if report.skipped:
        return "xfailed" if expected else "skipped"
    return "xpassed" if expected else "passed"


class Canaries:
    """Tests of known outcome, in modules of their own: pytest imports, collects and runs them as any,
    but no conftest, mark, fixture or count of the suite has to do with them."""

    def __init__(self):
        self.modules, self.waiting, self.at = {}, [], 0
        self.kinds = {}  # by id

    def add(self, session, when, items=()):
        """Imports a module of canaries; the late call collects both, and deals them out among `items`."""
        if when == "early":
            kinds = {"assert": assay_canary.ASSERT, "error": assay_canary.ERROR, "raises": assay_canary.RAISES}
            self.modules[when] = self.load(session, kinds, "test_early.py::test_early")
            return
        kinds = {"late": assay_canary.ASSERT, "true": assay_canary.TRUE}
        if any(isinstance(item, pytest_unittest.TestCaseFunction) for item in items):
            kinds["unittest"] = assay_canary.UNITTEST
        if "numpy.testing" in sys.modules:
            kinds["numpy"] = assay_canary.NUMPY
        like = items[assay_canary.below(len(items))].nodeid if items else "test_late.py::test_late"
        self.modules[when] = self.load(session, kinds, like)
        taken = {item.name for item in items}
        for module, kinds in filter(None, self.modules.values()):
            for item in session.genitems(module):
                self.prepare(item, kinds, items, taken)
        self.waiting = sorted(assay_canary.shuffled(self.waiting), key=lambda place: place[0])

    def load(self, session, kinds, like):
        """Returns a module of pytest's with a test of each kind, and the kinds by their names."""
        names, texts, path = {}, [], like.partition("::")[0]
        for kind, body in kinds.items():
            name = assay_canary.name_like("test_" + kind, set(names))
            names[name] = kind
            text = assay_canary.source(body, name, "self" if kind == "unittest" else "")
            if kind == "unittest":
                lines = ("    " + line for line in text.splitlines())
                text = "import unittest\nclass Test%d(unittest.TestCase):\n%s\n" % (len(names), "\n".join(lines))
            texts.append(text)
        folder = tempfile.mkdtemp()
        file = os.path.join(folder, "test_%s.py" % os.path.basename(folder).lower())
        try:
            with open(file, "w", encoding="utf-8") as out:
                out.write("".join(texts))
            modules, paths = set(sys.modules), list(sys.path)
            module = pytest.Module.from_parent(session, path=Path(file), nodeid=path)
            module.obj  # imports it
            sys.path[:] = paths
            for name in set(sys.modules) - modules:
                if getattr(sys.modules[name], "__file__", None) == file:
                    del sys.modules[name]
            return module, names
        except Exception as error:
            print("canaries could not be made: %r" % error, file=sys.stderr)
            return None
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def prepare(self, item, kinds, items, taken):
        beside = items[assay_canary.below(len(items))] if items else item
        name = assay_canary.name_like(beside.name, taken)
        item._nodeid = "%s::%s" % (beside.nodeid.rpartition("::")[0], name)
        self.kinds[item._nodeid] = kinds[item.name]
        # It asks for no fixture, and nobody reads its traceback, which takes long.
        item._fixtureinfo = fixtures.FuncFixtureInfo(
            argnames=(), initialnames=(), names_closure=[], name2fixturedefs={}
        )
        item.fixturenames = []
        item._initrequest()
        item.repr_failure = lambda failure, **_: failure.typename
        self.waiting.append((assay_canary.below(len(items) + 1), item))

    def due(self, all):
        """Returns those whose turn it is before the next test."""
        due = [item for at, item in self.waiting if all or at <= self.at]
        self.waiting = [place for place in self.waiting if place[1] not in due]
        self.at += 1
        return due


def own_modules(item):
    """Returns the module of a test, and every conftest."""
    plugins = item.config.pluginmanager.get_plugins()
    conftests = [p for p in plugins if str(getattr(p, "__file__", "")).endswith("conftest.py")]
    names = getattr(getattr(item, "obj", None), "__globals__", {})
    module = sys.modules.get(names.get("__name__"))
    return conftests if module is None else [module, *conftests]


def note_success(reporter):
    """unittest's tests are asked whether they said that they passed."""
    original = pytest_unittest.TestCaseFunction.addSuccess

    def addSuccess(self, testcase):
        reporter.succeeded.add(self.nodeid)
        return original(self, testcase)

    pytest_unittest.TestCaseFunction.addSuccess = addSuccess


def probe_comparisons(probe):
    """Has `probe` look at whatever the assertions of test modules found equal."""
    original = rewrite.rewrite_asserts

    def rewrite_asserts(mod, *arguments, **options):
        original(mod, *arguments, **options)
        for node in ast.walk(mod):
            for name, field in ast.iter_fields(node):
                if isinstance(field, list) and any(map(compares, field)):
                    setattr(node, name, [made for one in field for made in probed(one)])

    rewrite.rewrite_asserts = rewrite_asserts
    rewrite.assay_probe = probe


def compares(statement):
    """Whether it is what an assertion was rewritten to where it compares two values."""
    return (
        isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Compare)
        and getattr(statement.targets[0], "id", "").startswith("@py_assert")
        and isinstance(statement.value.ops[0], ast.Eq)
    )


def probed(statement):
    if not compares(statement):
        return [statement]
    values = [statement.targets[0], statement.value.left, *statement.value.comparators]
    # A name can be read again without running anything of the test.
    values = [ast.Name(value.id, ast.Load()) for value in values if isinstance(value, ast.Name)]
    if len(values) != 3:
        return [statement]
    probe = ast.Attribute(ast.Name("@pytest_ar", ast.Load()), "assay_probe", ast.Load())
    call = ast.Expr(ast.Call(probe, values, []))
    return [statement, ast.fix_missing_locations(ast.copy_location(call, statement))]


def remember_statements():
    """For each test that fails, pytest parses the files of its traceback and looks through all of them."""
    original = getattr(_code.code, "getstatementrange_ast", None)
    if original is None:
        return  # of another version
    trees, found = {}, {}

    def getstatementrange_ast(lineno, source, assertion=False, astnode=None):
        file = hash(tuple(source.lines))
        place = file, lineno, assertion
        if place not in found:
            found[place] = original(lineno, source, assertion, trees.get(file, astnode))
            trees[file] = found[place][0]
        return found[place]

    _code.code.getstatementrange_ast = getstatementrange_ast


def main():
    reporter = Reporter()
    note_success(reporter)
    if not reporter.remote:
        probe_comparisons(reporter.probe)
    remember_statements()
    reporter.event("alive", nonce=reporter.nonce)  # from here on the submission's code may run
    options = ["-c", "/dev/null", "--rootdir", os.getcwd(), "--confcutdir", os.getcwd()]
    options += ["-p", "no:cacheprovider", "--tb=short", "-q", "--no-header", "--color=no"]
    code = int(pytest.main(options + sys.argv[1:], plugins=[reporter]))
    if code == 1 and reporter.uncollected and not {"failed", "error"} & set(reporter.counts):
        code = 2  # as where pytest doesn't go on without a module: no test failed
    # What ends by the submission's will has no end of its own, as if it had left without a word.
    if not reporter.stopped:
        reporter.event("end", nonce=reporter.nonce, exit=code, counts=reporter.counts)
    sys.stdout.flush()
    os._exit(code)


main()
