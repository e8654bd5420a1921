"""What a run that shares its process with code under test is watched by.

Canaries are tests of known outcome that a runner mixes in with the task's own, under names like
theirs: some must stay red, one must stay green. Whoever turns outcomes to green without looking
whose they are turns these, too. The host knows which kinds it has to hear of.

A `Probe` looks at values that a test found equal: one that says it equals `NEVER`, which nothing
equals, would have said so of any expected value. A `Watch` remembers the functions that decide
whether a test passed, and tells which of them code under test has replaced. Neither may be noticed
by an honest suite: types are compared by identity, everything that a value does is caught, and each
type is asked once.
"""

import itertools
import os
import sys

# By kind, the body of a function. Each but `true` has to raise.
ASSERT = "    left, right = [%(a)d, {'key': ('x', %(a)d)}], [%(a)d, {'key': ('x', %(b)d)}]\n    assert left == right\n"
ERROR = "    return [%(a)d][%(b)d]\n"
TRUE = "    left, right = [%(a)d], [%(a)d]\n    assert left == right\n"
RAISES = "    import pytest\n    with pytest.raises(ValueError):\n        %(a)d + %(b)d\n"
# Each assertion has to raise; the first that doesn't lets its canary pass. `self` is a TestCase.
UNITTEST = """
    for method, *values in [
        ("Equal", %(a)d, %(b)d), ("Equal", [%(a)d], [%(b)d]), ("Equal", "%(a)d", "%(b)d"), ("Equal", {1: %(a)d}, {}),
        ("NotEqual", %(a)d, %(a)d), ("True", []), ("False", [%(a)d]), ("Is", self, %(a)d), ("IsNone", %(a)d),
        ("In", %(a)d, [%(b)d]), ("NotIn", %(a)d, [%(a)d]), ("IsInstance", %(a)d, str), ("AlmostEqual", %(a)d, %(b)d),
        ("Greater", %(a)d, %(b)d), ("CountEqual", [%(a)d], [%(b)d]), ("Raises", ValueError, int, "%(a)d"),
    ]:
        try:
            getattr(self, "assert" + method)(*values)
        except self.failureException:
            continue
        return
    self.fail()
"""
NUMPY = """
    import numpy.testing
    for method, *values in [
        ("equal", %(a)d, %(b)d), ("array_equal", [%(a)d], [%(b)d]), ("allclose", [%(a)d.0], [%(b)d.0]),
        ("almost_equal", %(a)d.0, %(b)d.0),
    ]:
        try:
            getattr(numpy.testing, "assert_" + method)(*values)
        except AssertionError:
            continue
        return
    raise AssertionError
"""

__unittest = True  # tracebacks leave our frames out
_NAMES = ("again", "copy", "default", "empty", "large", "mixed", "none", "order", "repeat", "single", "twice", "zero")


def below(count):
    """Returns a number of this run alone. An interpreter that waits for runs has no such state."""
    return int.from_bytes(os.urandom(4), "big") % count


def shuffled(items):
    return [items.pop(below(len(items))) for _ in range(len(items))]


def source(body, name, parameters="*_"):
    """Returns the source of a canary's function."""
    a = 2 + below(90)
    return "def %s(%s):\n%s" % (name, parameters, body % {"a": a, "b": a + 1 + below(9)})


def name_like(neighbour, taken):
    """Returns a name for a canary that `taken` doesn't have, like that of a test beside it."""
    name = neighbour.partition("[")[0]
    name = name if name.isidentifier() else "test"
    while name in taken:
        name = "%s_%s" % (name, _NAMES[below(len(_NAMES))])
    taken.add(name)
    return name


class Origin:
    """Tells code under test from the rest. `changed` are the files that the submission touches,
    relative to `root`; None: whatever lies below it."""

    def __init__(self, root, changed):
        self.root = os.path.join(os.path.realpath(root), "")
        self.changed = None if changed is None else {os.path.join(self.root, path) for path in changed}

    def of_submission(self, names):
        """Whether a function with these globals may be the submission's."""
        module = sys.modules.get(names.get("__name__")) if type(names) is dict else None
        if module is None or module.__dict__ is not names:
            return True  # made by exec: whose it is, nobody can say
        return self.holds(module)

    def holds(self, module):
        """Whether the submission may have written a module."""
        file = getattr(module, "__file__", None)
        if type(file) is not str:
            return module.__name__ not in sys.builtin_module_names
        return self.owns(file)

    def owns(self, file):
        """Whether the submission may have written a file."""
        file = os.path.realpath(file)
        return file.startswith(self.root) and (self.changed is None or file in self.changed)

    def ended(self, error):
        """Whether `error` is the end of a run that came out of the submission's code: one that is no `Exception`."""
        trace, theirs = error.__traceback__, False
        while trace:
            theirs = theirs or self.owns(trace.tb_frame.f_code.co_filename)
            trace = trace.tb_next
        return theirs and not isinstance(error, Exception)


class _Never:
    """Equals nothing, and leaves the other side the first word."""

    __hash__ = None

    def __repr__(self):
        return "an object that nothing equals"


NEVER = _Never()
_NATIVE = type(object.__eq__)
_PLAIN = {id(kind) for kind in (bool, int, float, complex, str, bytes, type(None), type)}
_SAYS = {id(kind) for kind in (bool, int, str)}
_LISTS, _DICT, _ITEMS = (list, tuple), dict, dict.items
_MOST = 500  # values that one comparison is looked through for
_DEPTH = 5


class Probe:
    """Finds values that equal everything, and calls `report(evidence)`.

    `trusted` are the globals of functions that may say what they like: the tests' own.
    """

    def __init__(self, report, origin):
        self.report, self.origin, self.trusted = report, origin, []
        self.known = {}  # id of a type -> the type, so that no other gets its id

    def __call__(self, equal, *values):
        """`equal`: what the comparison of the values said. Called after it."""
        if equal is not True:
            return
        try:
            self._look(values[0], values[-1], _DEPTH, itertools.count())
        except BaseException as error:
            if type(error) is KeyboardInterrupt:
                raise

    def _look(self, one, other, depth, count):
        if one is other or next(count) > _MOST:
            return
        kinds = [type(one), type(other)]
        if all(id(kind) in _PLAIN for kind in kinds):
            return
        for value, kind in zip((one, other), kinds):
            if id(kind) not in _PLAIN and id(kind) not in self.known:
                self.known[id(kind)] = kind
                if self._lies(kind, value):
                    name = type.__dict__["__qualname__"].__get__(kind)
                    self.report("a value of type %.80s says that it equals %r" % (name, NEVER))
        if not depth:
            return
        within = [kind.__mro__ for kind in kinds]
        if all(any(base in mro for base in _LISTS) for mro in within):
            for pair in itertools.islice(zip(one, other), _MOST):
                self._look(*pair, depth - 1, count)
        elif all(_DICT in mro for mro in within):
            for key, value in itertools.islice(_ITEMS(one), _MOST):
                if id(type(key)) in _PLAIN and key in other:
                    self._look(value, _DICT.__getitem__(other, key), depth - 1, count)
        elif kinds[0] is kinds[1]:
            parts = [object.__getattribute__(value, "__dict__") for value in (one, other)]
            if type(parts[0]) is type(parts[1]) is _DICT:
                self._look(*parts, depth - 1, count)

    def _lies(self, kind, value):
        equal = kind.__eq__
        if type(equal) is _NATIVE:
            return False
        mocks = [sys.modules[name] for name in ("unittest.mock", "mock") if name in sys.modules]
        if any(equal is type(mock.ANY).__eq__ for mock in mocks):
            return not self._mocks()
        if any(mock.NonCallableMock in kind.__mro__ for mock in mocks):
            return False  # it would remember being asked
        names = getattr(equal, "__globals__", None)
        if any(names is trusted for trusted in self.trusted):
            return False
        # The image may have a function that says yes, but no type of the submission borrows it.
        if names and not self.origin.of_submission(names) and not any(map(self._theirs, kind.__mro__)):
            return False
        said = value == NEVER
        return id(type(said)) in _SAYS and bool(said)

    def _theirs(self, kind):
        module = sys.modules.get(kind.__module__)
        if any(getattr(module, "__dict__", None) is trusted for trusted in self.trusted):
            return False
        return module is None or self.origin.holds(module)

    def _mocks(self):
        """Whether the tests themselves speak of mocks."""
        for path in {names.get("__file__") for names in self.trusted} - {None}:
            with open(path, encoding="utf-8", errors="replace") as file:
                if "mock" in file.read():
                    return True
        return False


def watch_unittest(probe):
    """Has `probe` look at what `assertEqual` found equal, and hear of tests that broke off unnoticed, where
    unittest is in use."""
    case = sys.modules.get("unittest.case")
    if case is None:
        return
    watch_parts(case, probe.report)
    original = case.TestCase._getAssertEqualityFunc

    def choose(self, first, second):
        compare = original(self, first, second)

        def compared(first, second, msg=None):
            __tracebackhide__ = True
            compare(first, second, msg=msg)
            probe(True, first, second)

        return compared

    case.TestCase._getAssertEqualityFunc = choose


def watch_parts(case, report):
    """Reports each part of a test that raised and counts as a success all the same: unittest has an exception
    of its own by which it leaves a test whose result it knows, and code under test may raise it, too."""
    original = case._Outcome.testPartExecutor

    @case.contextlib.contextmanager
    def testPartExecutor(self, *arguments, **options):
        raised = None
        with original(self, *arguments, **options):
            try:
                yield
            except BaseException as error:
                raised = type(error)
                raise
        if raised and self.success and not self.expectedFailure:
            report("it raised %.80s, and unittest takes it for a success" % type.__dict__["__qualname__"].__get__(raised))

    case._Outcome.testPartExecutor = testPartExecutor


_CALLED = (type(len), type(len.__call__))


class Watch:
    """Remembers what decides about outcomes: functions of modules, and of their classes."""

    def __init__(self, modules, origin):
        self.origin, self.places, self.told = origin, [], set()
        for name in modules:
            module = sys.modules.get(name)
            if module is not None:
                self._remember(name.rpartition(".")[2], module)
                for kind in [value for value in vars(module).values() if type(value) is type]:
                    if kind.__module__ == name:
                        self._remember(kind.__name__, kind)

    def _remember(self, name, holder):
        for key, value in list(vars(holder).items()):
            code = getattr(getattr(value, "__func__", value), "__code__", None)
            if code is not None or type(value) in _CALLED:
                self.places.append((name, holder.__dict__, key, value, code))

    def replaced(self):
        """Yields the name of each that code under test has replaced since; each once."""
        for name, holder, key, value, code in self.places:
            now = holder.get(key)
            same_code = code is None or getattr(value, "__func__", value).__code__ is code
            if now is value and same_code:
                continue
            names = getattr(getattr(now, "__func__", now), "__globals__", None)
            theirs = not same_code or names is None or self.origin.of_submission(names)
            if theirs and (name, key) not in self.told:
                self.told.add((name, key))
                yield "%s.%s" % (name, key)
