"""Runs unittest, or Django's test runner, and reports each test to the host.

Started as `python3 -P -s -B run_unittest.py ARGS`, for `python3 -m unittest ARGS`, or as
`... run_unittest.py --script SCRIPT ARGS`, for `python3 SCRIPT ARGS`, which is to start Django's
runner. stdin: the nonce, and the files that the submission changes as a JSON list (null: too many to
say). fd 3: JSON lines for the host: alive, start with the collected ids, one test
event per test, end. A run that ends early has no end event, and a report that contradicts what a
test really did is a conflict event.

An id is what `TestCase.id()` returns: module.Class.method. A module that can't be loaded is a test
`unittest.loader._FailedTest.MODULE` that breaks. What breaks before the tests of a class or a module
breaks each of them; what breaks after them breaks the last one.

The code under test shares this process: a determined attacker can forge events (guarded mode).
What keeps honest runs honest: unittest comes from the image (`-P`), never from the work tree, and
what a test raises is seen where it is called, whatever `TestCase.run` makes of it. What shows most
others: canaries run as tests do, and what `assertEqual` compares is probed (assay_canary.py).
"""

import contextlib
import functools
import inspect
import json
import os
import runpy
import sys
import time
import traceback
import unittest
import unittest.suite
import unittest.util

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assay_canary  # noqa: E402
import assay_messages  # noqa: E402

sys.path.pop(0)

# Django's own tests use a process per CPU otherwise, and what happens there is not seen here.
os.environ["DJANGO_TEST_PROCESSES"] = "1"

__unittest = True  # tracebacks leave our frames out
# Where it is decided whether a test passed.
DECIDES = ("unittest.case", "unittest.result", "unittest.runner", "unittest.suite", "doctest", "math")
# The worst counts.
STATUSES = ("passed", "xfailed", "skipped", "xpassed", "failed", "error")


class Reporter:
    def __init__(self):
        self.nonce = sys.stdin.readline().strip()
        self.changed = json.loads(sys.stdin.readline() or "null")
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # Off the well-known number, and closed in every program that a test starts.
        self.channel = os.fdopen(os.dup(3), "w", encoding="utf-8", errors="backslashreplace")
        os.close(3)
        self.seq = 0
        self.counts = {}
        self.waiting = {}  # id of an object -> Seen, for collected tests that are not reported yet
        self.last = None  # the test that runs or ran last: what comes after it may still break it
        self.started = self.finished = False
        self.stopped = False  # whether code of the submission ended the run
        self.messages = assay_messages.Messages()
        self.origin = assay_canary.Origin(os.getcwd(), self.changed)
        self.probe = assay_canary.Probe(self.lie, self.origin)
        self.watch = assay_canary.Watch(DECIDES, self.origin)

    def event(self, name, **fields):
        self.channel.write(json.dumps({"seq": self.seq, "event": name, **fields}) + "\n")
        self.channel.flush()
        self.seq += 1

    def start(self, suite):
        self.started = True
        self.waiting = {id(test): Seen(test) for test in tests_of(suite)}
        names = [seen.name for seen in self.waiting.values()]
        self.event("start", nonce=self.nonce, collected=names)

    def lie(self, evidence):
        self.event("conflict", id=self.last.name if self.last else "", evidence=evidence)

    def begin(self, test):
        """Returns what is known of a test that runs now, if it was collected."""
        seen = self.waiting.get(id(test))
        if seen and seen is not self.last:
            self.flush()
            self.last = seen
            # A matcher of the tests' own may equal what it likes.
            self.probe.trusted = [vars(sys.modules.get(type(test).__module__, sys))]
        return seen

    def flush(self):
        """Reports the test that ran last: from now on nothing changes its result."""
        seen, self.last = self.last, None
        if seen:
            self.report(seen)

    def report(self, seen):
        del self.waiting[id(seen.test)]
        if seen.canary and seen.status:
            return self.event("canary", kind=seen.canary, id=seen.name, status=seen.status)
        doubt = seen.doubt()
        if doubt:
            self.event("conflict", id=seen.name, evidence=doubt)
            seen.status = "failed"
        if seen.status is None:
            return  # nobody said how it ended: it is missing
        for name in self.watch.replaced():
            self.event("conflict", id=seen.name, evidence="the submission replaced %s" % name)
        self.counts[seen.status] = self.counts.get(seen.status, 0) + 1
        self.event(
            "test",
            id=seen.name,
            status=seen.status,
            duration_s=round(seen.seconds, 6),
            message=self.messages.cut(seen.message[-assay_messages.LIMIT :]),
        )

    def around(self, description, status, message):
        """A fixture of a class or a module broke or skipped: `setUpClass (module.Class)`."""
        fixture, _, scope = description.partition(" (")
        message = "%s\n%s" % (description, message)
        if fixture.startswith("tearDown"):
            if self.last:
                self.last.ends(status, message)
            return
        self.flush()
        for seen in list(self.waiting.values()):
            if scope.rstrip(")") in seen.scopes and not seen.canary:
                seen.ends(status, message)
                self.report(seen)

    def failing(self):
        return bool(self.counts.get("failed") or self.counts.get("error"))


class Seen:
    """A collected test, and what it really did."""

    def __init__(self, test, canary=None):
        self.test = test
        self.name = test.id()
        self.canary = canary  # its kind, if it is one
        self.status, self.message = None, ""
        self.began = self.seconds = 0.0
        self.called = False
        self.raised = {}  # name of a method -> whether its last call raised
        kind = type(test)
        self.scopes = (unittest.util.strclass(kind), kind.__module__)
        method = getattr(test, getattr(test, "_testMethodName", ""), None)
        self.watched = method is not None
        mark = "__unittest_expecting_failure__"
        self.may_fail = bool(getattr(kind, mark, False) or getattr(method, mark, False))
        if self.watched:
            for name in ("setUp", "tearDown", "asyncSetUp", "asyncTearDown"):
                if hasattr(test, name):
                    self.watch(name, getattr(test, name))
            test.subTest = self.watch_subtests(test.subTest)
            self.watch(test._testMethodName, method, self.begin)

    def begin(self):
        self.called = True
        self.raised["subTest"] = False

    def watch(self, name, function, before=lambda: None):
        @contextlib.contextmanager
        def watching():
            before()
            self.raised[name] = False
            try:
                yield
            except BaseException:
                self.raised[name] = True
                raise

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def watched(*args, **options):
                with watching():
                    return await function(*args, **options)

        else:

            @functools.wraps(function)
            def watched(*args, **options):
                with watching():
                    return function(*args, **options)

        setattr(self.test, name, watched)

    def watch_subtests(self, function):
        @contextlib.contextmanager
        @functools.wraps(function)
        def watched(*args, **options):
            with function(*args, **options):
                try:
                    yield
                except unittest.SkipTest:
                    raise
                except BaseException:
                    self.raised["subTest"] = True
                    raise

        return watched

    def ends(self, status, message):
        if self.status is None or STATUSES.index(status) > STATUSES.index(self.status):
            self.status, self.message = status, message

    def doubt(self):
        """Returns what contradicts the result, if anything."""
        if self.status not in ("passed", "xfailed") or not self.watched:
            return None
        if not self.called:
            return "reported as %s, and was not called" % self.status
        raised = [name for name, raised in self.raised.items() if raised]
        if self.status == "passed" and raised:
            return "%s raised, and it is reported as passed" % raised[0]
        if self.status == "xfailed" and not (raised and self.may_fail):
            return "reported as an expected failure, and is none"
        return None


class Observer(unittest.TextTestResult):
    def startTest(self, test):
        super().startTest(test)
        seen = reporter.begin(test)
        if seen:
            seen.began = time.perf_counter()

    def stopTest(self, test):
        seen = reporter.last
        if seen and seen.test is test:
            seen.seconds = time.perf_counter() - seen.began
        super().stopTest(test)

    def note(self, test, status, message=""):
        """Returns whether the run's own result has to hear of it."""
        if isinstance(test, unittest.suite._ErrorHolder):
            reporter.around(test.description, status, message)
            return True
        seen = reporter.begin(getattr(test, "test_case", test))
        if seen:
            seen.ends(status, message)
        return not (seen and seen.canary)

    def told(self, test, err):
        try:
            return self._exc_info_to_string(err, test)
        except Exception as error:
            return "an exception that can't be shown: %s" % type(error).__name__

    def addSuccess(self, test):
        if self.note(test, "passed"):
            super().addSuccess(test)

    def addError(self, test, err):
        if self.note(test, "error", self.told(test, err)):
            super().addError(test, err)

    def addFailure(self, test, err):
        if self.note(test, "failed", self.told(test, err)):
            super().addFailure(test, err)

    def addSkip(self, test, reason):
        if self.note(test, "skipped", str(reason)):
            super().addSkip(test, reason)

    def addExpectedFailure(self, test, err):
        if self.note(test, "xfailed", self.told(test, err)):
            super().addExpectedFailure(test, err)

    def addUnexpectedSuccess(self, test):
        if self.note(test, "xpassed"):
            super().addUnexpectedSuccess(test)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            failure = issubclass(err[0], test.failureException)
            message = "%s\n%s" % (subtest, self.told(test, err))
            self.note(test, "failed" if failure else "error", message)
        super().addSubTest(test, subtest, err)


class Runner(unittest.TextTestRunner):
    """Observes the first suite that it is given. Tests of test tools have suites of their own."""

    observes = False

    def run(self, suite):
        if reporter.started:
            return super().run(suite)
        self.observes = True
        reporter.start(suite)
        assay_canary.watch_unittest(reporter.probe)
        canaries = add_canaries(suite)
        result = super().run(suite)
        reporter.flush()
        # What ends a run early ends it for tests alone.
        for canary in canaries:
            if id(canary) in reporter.waiting:
                canary.run(reporter.result)
                reporter.flush()
        reporter.finished = True
        return result

    def _makeResult(self):
        if not self.observes:
            return super()._makeResult()
        reporter.result = Observer(self.stream, self.descriptions, self.verbosity)
        return reporter.result


def add_canaries(suite):
    """Puts canaries where one class of tests ends and another begins, and returns them."""
    tests = list(places_of(suite))
    taken = {getattr(test, "_testMethodName", "") for _, _, test in tests}
    bodies = {"assert": assay_canary.ASSERT, "error": assay_canary.ERROR, "true": assay_canary.TRUE}
    bodies["unittest"] = assay_canary.UNITTEST
    canaries = []
    for kind in assay_canary.shuffled(list(bodies)) if tests else []:
        tests = list(places_of(suite))
        kinds = [None, *(type(test) for _, _, test in tests)]
        places = [place for place, before in zip(tests, kinds) if type(place[2]) is not before]
        siblings, at, beside = places[assay_canary.below(len(places))]
        like = getattr(beside, "_testMethodName", "")
        name = assay_canary.name_like(like, taken)
        names = {"__name__": type(beside).__module__}
        exec(assay_canary.source(bodies[kind], name, "self"), names)
        case = type(type(beside).__name__, (unittest.TestCase,), {name: names[name]})
        case.__module__, case.__qualname__ = type(beside).__module__, type(beside).__qualname__
        canary = case(name)
        siblings.insert(at, canary)
        canaries.append(canary)
        reporter.waiting[id(canary)] = Seen(canary, kind)
    return canaries


def places_of(suite):
    """Yields each test with the list that it is in and its place there."""
    for at, part in enumerate(getattr(suite, "_tests", ())):
        if isinstance(part, unittest.TestCase):
            yield suite._tests, at, part
        else:
            yield from places_of(part)


def tests_of(suite):
    try:
        parts = iter(suite)
    except TypeError:
        yield suite
        return
    for part in parts:
        yield from tests_of(part)


def abandon(code):
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def status_of(run):
    """Runs `run`, and returns the exit status that it asks for."""
    try:
        return run()
    except SystemExit as end:
        reporter.stopped = reporter.origin.ended(end)
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
    except BaseException as error:
        reporter.stopped = reporter.origin.ended(error)
        traceback.print_exc()
    return 1


def command():
    program = unittest.main(None, argv=["unittest", *sys.argv[1:]], testRunner=Runner, exit=False)
    return int(not program.result.wasSuccessful())


def script():
    sys.argv = sys.argv[2:]
    sys.path.insert(-1, os.path.dirname(os.path.abspath(sys.argv[0])))
    unittest.TextTestRunner = unittest.runner.TextTestRunner = Runner
    runpy.run_path(sys.argv[0], run_name="__main__")
    return 0


def main():
    reporter.event("alive", nonce=reporter.nonce)  # from here on the code under test may run
    # As `python` has it, but last: the work tree shadows nothing of the image.
    sys.path.append(os.getcwd())
    code = status_of(script if sys.argv[1:2] == ["--script"] else command)
    reporter.flush()
    if not reporter.finished:
        why = "the run was cut short" if reporter.started else "unittest's runner was given no suite"
        print("%s, and status %d was asked for" % (why, code), file=sys.stderr)
        if not reporter.started and not reporter.stopped:
            # Such as arguments that unittest doesn't know.
            code = 2
            reporter.event("end", nonce=reporter.nonce, exit=code, counts={})
        abandon(code or 1)
    failing = reporter.failing()
    if failing and code == 0:
        reporter.event("conflict", id="", evidence="tests failed, and the run ends with status 0")
    # To unittest an unexpected success is a failure of the run; here it is no failed test.
    if not failing and code != 0 and not reporter.counts.get("xpassed"):
        print("status %d was asked for, and no test failed" % code, file=sys.stderr)
        abandon(code)
    code = int(failing) if reporter.counts or reporter.waiting else 5
    reporter.event("end", nonce=reporter.nonce, exit=code, counts=reporter.counts)
    abandon(code)


reporter = Reporter()
main()
