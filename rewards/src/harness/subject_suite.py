"""Holds the submission of a sealed suite, and answers what its tests ask of it.

Started as `python3 -P -s -B subject_suite.py` in the work tree, which holds the revision with the
submission and no test. fd 4: frames of assay_peer.py. Nothing that a verdict depends on is in this
process: no test, no expected value, no outcome.
"""

import builtins
import importlib
import os
import sys
import types

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from assay_peer import CONTAINERS, MAKE, TYPES, copy_back, made, wire  # noqa: E402

sys.path.pop(0)
# As the runner of a guarded suite has it: the work tree shadows nothing of the image.
sys.path.append(os.getcwd())
if not os.path.exists("src/__init__.py"):
    sys.path.append(os.path.join(os.getcwd(), "src"))

# What an instance of a subclass is as plain data, whatever the subclass says.
PLAIN = {kind: lambda value, kind=kind: kind.__getitem__(value, slice(None)) for kind in (str, bytes, tuple, list)}
PLAIN |= {int: int.__int__, float: float.__float__, dict: lambda value: dict(dict.items(value))}
PLAIN |= {set: lambda value: set(set.__iter__(value)), frozenset: lambda value: frozenset(frozenset.__iter__(value))}
PLAIN |= {type({}.keys()): set, type({}.items()): set}
MOST_ATTRIBUTES = 100


class Mirrored:
    """A container of a module: the tests may change it where they find it."""

    def __init__(self, container):
        self.container = container


class Own:
    """The argument of a call, itself, as what the call returned."""

    def __init__(self, index):
        self.index = index


class Subject:
    def __init__(self):
        self.held, self.numbers = {}, {}

    def hold(self, value):
        """Keeps `value` for as long as this process lives, and returns its number."""
        number = self.numbers.setdefault(id(value), len(self.numbers))
        self.held[number] = value
        return number

    def refer(self, value):
        kind = type(value)
        if kind is Own:
            return ("own", value.index)
        if kind is Mirrored:
            return ("mirror", self.hold(value.container), value.container)
        if kind is types.ModuleType:
            return ("module", self.hold(value), value.__name__)
        if isinstance(value, type):
            if TYPES.get(value.__name__) is value:
                return ("type", value.__name__)
            if issubclass(value, BaseException):
                return ("error", self.family(value))
            raise wire.CannotCross("a class can't cross")
        for base, plain in PLAIN.items():
            if issubclass(kind, base):
                return ("plain", plain(value))
        if hasattr(kind, "__next__"):
            return ("iterator", self.hold(value))
        if callable(value):
            return ("function", self.hold(value))
        raise wire.CannotCross("an object of type %s can't cross" % kind.__name__[:80])

    def to_reference(self, value):
        return made(value) or self.refer(value)

    def from_reference(self, parts):
        what, *rest = parts
        if what == "yours":
            return self.held[rest[0]]
        if what == "type":
            return TYPES.get(rest[0]) or getattr(builtins, rest[0])
        return MAKE[rest[0]](rest[1])

    def answer(self, request):
        """Returns the answer to a request, ready to be sent."""
        before = self.pack(request[2:]) if request[0] == "call" else b""
        try:
            answer = ("ok", self.do(*request))
        except BaseException as error:
            answer = ("raised", self.describe(error))
        changed = before and self.pack(request[2:]) != before
        return (*answer, request[2:] if changed else None)

    def do(self, what, where, *rest):
        if what == "import":
            return importlib.import_module(where)
        value = self.held[where]
        if what == "get":
            found = getattr(value, rest[0])
            return Mirrored(found) if type(found) in CONTAINERS else found
        if what == "call":
            found = value(*rest[0], **rest[1])
            own = (Own(index) for index, one in enumerate(rest[0]) if one is found and type(one) in CONTAINERS)
            return next(own, found)
        if what == "next":
            return next(value)
        return copy_back(value, rest[0])

    def describe(self, error):
        args = error.args if self.pack(error.args) else None
        attributes = {}
        if len(self.family(type(error))) > 1:
            for name in dir(error)[:MOST_ATTRIBUTES]:
                value = None if name.startswith("_") else getattr(error, name, None)
                if not callable(value) and self.pack(value):
                    attributes[name] = value
        return (self.family(type(error)), text(error), args, attributes)

    def family(self, kind):
        """Returns the name of an exception type with those of its bases, down to what Python brings."""
        if getattr(builtins, kind.__name__, None) is kind:
            return (kind.__name__,)
        bases = tuple(self.family(base) for base in kind.__bases__ if base is not object)
        return (str(kind.__module__), kind.__qualname__, bases, self.hold(kind))

    def pack(self, value):
        try:
            return wire.encode(value, self.to_reference)
        except Exception:
            return b""


def text(error):
    try:
        return str(error)[:100_000]
    except BaseException:
        return "an exception that can't describe itself"


def main():
    reader, writer = os.fdopen(4, "rb"), os.fdopen(os.dup(4), "wb")
    subject = Subject()
    while True:
        try:
            request = wire.receive(reader, subject.from_reference)
        except (EOFError, OSError):
            break
        try:
            wire.send(writer, subject.answer(request), subject.to_reference)
        except OSError:
            break
        except Exception as error:
            wire.send(writer, ("stuck", text(error)[:500]))
    sys.stdout.flush()
    os._exit(0)


main()
