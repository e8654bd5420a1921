"""Both ends of what crosses between the tests of a sealed suite and the code that they test.

Frames of wire.py on one socket, each a request or an answer. While an end waits for an answer it
serves requests of the other, since tests pass functions to what they test.

    ("import", name)   ("call", id, args, kwargs)   ("get", id, name)   ("set", id, name, value)
    ("item", id, key)   ("put", id, key, value)   ("drop", id, key)   ("next", id)   ("ask", id, what, ...)
    ("ok", value, arguments)   ("raised", exception, arguments)   ("stuck", why)

`arguments` are what the call did to its own, None where it did nothing. Plain data and some values of
the standard library are copied; of anything else a reference crosses (wire.py's tag `r`):

    ("mine", id, shape, name)   ("yours", id)   ("known", module, name)   ("made", type, parts)
    ("mirror", id, container)

The tests' end trusts no frame: assay_remote.py says what may come of one. It offers less than it
asks for: its functions can be called, its iterators be advanced, and nothing else can be had of it.
"""

import collections
import datetime
import decimal
import fractions
import functools
import pathlib
import sys
import threading
import uuid

import wire

# A repository may have a module of that name.
sys.modules.pop("wire", None)

MAX_NESTED = 40
ANSWERS = ("ok", "raised", "stuck")
# Types that say the same on both ends.
TYPES = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)}
TYPES.update((kind.__name__, kind) for kind in (bytearray, range, object, type, type(None), collections.deque))
# What a test may mean to be called where it is passed to.
KNOWN = "builtins _operator operator math cmath itertools functools _functools collections string re statistics".split()
PRIVATE = {"print", "open", "input", "eval", "exec", "compile", "globals", "locals", "vars", "breakpoint", "__import__"}


class Gone(Exception):
    """The other end is no more, or broke the protocol."""


class CannotCross(wire.CannotCross):
    """A value is neither plain data nor something that the other end could use by reference."""


def moment(value):
    offset = value.utcoffset() if value.tzinfo else None
    if value.tzinfo is not None and type(value.tzinfo) is not datetime.timezone:
        raise CannotCross("a time of a zone with rules can't cross")
    seconds = None if offset is None else offset.total_seconds()
    return (*value.timetuple()[:6], value.microsecond, seconds, value.fold)


def from_moment(parts):
    *fields, seconds, fold = parts
    zone = None if seconds is None else datetime.timezone(datetime.timedelta(seconds=seconds))
    return datetime.datetime(*fields, tzinfo=zone, fold=fold)


# Exact types of the standard library: to plain data, and back.
MADE = {
    bytearray: (bytes, bytearray),
    range: (lambda value: (value.start, value.stop, value.step), lambda parts: range(*parts)),
    slice: (lambda value: (value.start, value.stop, value.step), lambda parts: slice(*parts)),
    type(...): (lambda value: None, lambda parts: ...),
    collections.deque: (lambda value: (list(value), value.maxlen), lambda parts: collections.deque(*parts)),
    collections.OrderedDict: (lambda value: list(value.items()), collections.OrderedDict),
    collections.Counter: (dict, collections.Counter),
    collections.defaultdict: (
        lambda value: (value.default_factory, dict(value)),
        lambda parts: collections.defaultdict(*parts),
    ),
    decimal.Decimal: (str, decimal.Decimal),
    fractions.Fraction: (lambda value: (value.numerator, value.denominator), lambda parts: fractions.Fraction(*parts)),
    datetime.date: (lambda value: (value.year, value.month, value.day), lambda parts: datetime.date(*parts)),
    datetime.timedelta: (
        lambda value: (value.days, value.seconds, value.microseconds),
        lambda parts: datetime.timedelta(*parts),
    ),
    datetime.datetime: (moment, from_moment),
    uuid.UUID: (str, uuid.UUID),
    pathlib.PosixPath: (str, pathlib.PosixPath),
    pathlib.PurePosixPath: (str, pathlib.PurePosixPath),
}
MAKE = {kind.__name__: make for kind, (_, make) in MADE.items()}


def known(value):
    """Returns the name of a function or type of the standard library, that the other end has, too."""
    owner = getattr(value, "__objclass__", None)  # such as `str.upper`
    if owner is not None and TYPES.get(getattr(owner, "__name__", "")) is owner:
        name = value.__name__
        return ("builtins", "%s.%s" % (owner.__name__, name)) if getattr(owner, name, None) is value else None
    module, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if type(module) is not str or type(name) is not str or module not in KNOWN or name in PRIVATE:
        return None
    return (module, name) if getattr(sys.modules.get(module), name, None) is value else None


def find_known(module, name):
    if module not in KNOWN or type(name) is not str:
        raise ValueError("nothing is known as %r" % (name,))
    __import__(module)
    return functools.reduce(getattr, name.split("."), sys.modules[module])


class Peer:
    """One end. Subclasses say what a value is to the other (`refer`), what the other's is here
    (`stand_in`, `mirror`, `rebuild`), and what it may ask for (`serve`)."""

    def __init__(self, reader, writer):
        self.reader, self.writer, self.gone = reader, writer, None
        self.held, self.ids = {}, {}
        self.lock, self.nested = threading.RLock(), 0

    def hold(self, value):
        """Keeps `value` for as long as this end lives, and returns its id."""
        number = self.ids.setdefault(id(value), len(self.ids))
        self.held[number] = value
        return number

    def to_reference(self, value):
        made = MADE.get(type(value))
        if made:
            return ("made", type(value).__name__, made[0](value))
        return self.refer(value)

    def from_reference(self, parts):
        what, *rest = parts
        if what == "yours":
            return self.held[rest[0]]
        if what == "made":
            return MAKE[rest[0]](rest[1])
        if what == "known":
            return self.find(*rest)
        if what == "mine":
            return self.stand_in(*rest)
        if what == "mirror":
            return self.mirror(*rest)
        raise ValueError("no reference")

    def send(self, message):
        try:
            wire.send(self.writer, message, self.to_reference)
        except OSError:
            self.lose("the submission's process ended")

    def receive(self):
        try:
            message = wire.receive(self.reader, self.from_reference)
        except (EOFError, OSError):
            self.lose("the submission's process ended")
        except wire.CannotCross:
            raise
        except Exception as error:
            self.lose("the submission's process broke the protocol: %s" % type(error).__name__)
        if type(message) is not tuple or not message or type(message[0]) is not str:
            self.lose("the submission's process broke the protocol")
        return message

    def lose(self, why):
        self.gone = self.gone or why
        raise Gone(self.gone)

    def request(self, *message):
        """Asks the other end, and returns what it answers."""
        with self.lock:
            if self.gone:
                raise Gone(self.gone)
            self.send(message)
            while True:
                answer = self.receive()
                if answer[0] not in ANSWERS:
                    self.answer(answer)
                elif answer[0] == "stuck" or len(answer) != 3:
                    raise CannotCross(str(answer[-1])[:500])
                else:
                    if message[0] == "call":
                        copy_back(message[2:], answer[2])
                    if answer[0] == "ok":
                        return answer[1]
                    raise self.rebuild(answer[1])

    def answer(self, request):
        """Does what the other end asks for, and says what came of it."""
        self.nested += 1
        try:
            if self.nested > MAX_NESTED:
                return self.send(("stuck", "calls are nested deeper than %d" % MAX_NESTED))
            before = self.pack(request[2:]) if request[0] == "call" else None
            try:
                answer = ("ok", self.serve(*request))
            except Gone:
                raise
            except CannotCross as error:
                return self.send(("stuck", str(error)[:500]))
            except BaseException as error:
                answer = ("raised", self.describe(error))
            after = None
            if before is not None and self.pack(request[2:]) != before:
                after = request[2:]
            try:
                self.send((*answer, after))
            except (wire.CannotCross, RuntimeError, TypeError) as error:
                self.send(("stuck", str(error)[:500]))
        finally:
            self.nested -= 1

    def pack(self, arguments):
        try:
            return wire.encode(arguments, self.to_reference)
        except Exception:
            return b""


def copy_back(before, after):
    """Does to our mutable values what was done to their copies."""
    if type(after) is not type(before) or type(before) not in (tuple, list, dict, set, bytearray, collections.deque):
        return
    if type(before) is tuple:
        for ours, theirs in zip(before, after):
            copy_back(ours, theirs)
    elif type(before) is list:
        before[:] = [kept(ours, theirs) for ours, theirs in zip(before, after)] + after[len(before) :]
    elif type(before) is dict:
        merged = {key: kept(before.get(key), value) for key, value in after.items()}
        before.clear()
        before.update(merged)
    elif type(before) is set:
        before.clear()
        before.update(after)
    else:
        before.clear()
        before.extend(after)


def kept(ours, theirs):
    """Returns our own object, changed, where there is one of the same kind; else theirs."""
    if type(ours) is type(theirs) and type(ours) in (list, dict, set, bytearray, collections.deque):
        copy_back(ours, theirs)
        return ours
    return theirs
