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
from assay_peer import TYPES, CannotCross, Gone, Peer, copy_back, find_known  # noqa: E402

sys.path.pop(0)
# As the runner of a guarded suite has it: the work tree shadows nothing of the image.
sys.path.append(os.getcwd())
if not os.path.exists("src/__init__.py"):
    sys.path.append(os.path.join(os.getcwd(), "src"))

SHAPES = {"n": "__next__", "i": "__iter__", "l": "__len__", "g": "__getitem__", "c": "__call__", "x": "__enter__"}


class Callback:
    """A function of the tests."""

    def __init__(self, peer, number, name):
        self._assay_id, self._assay_peer, self.__name__ = number, peer, name

    def __call__(self, *args, **kwargs):
        return self._assay_peer.request("call", self._assay_id, args, kwargs)


class Stream:
    """An iterator of the tests."""

    def __init__(self, peer, number, name):
        self._assay_id, self._assay_peer = number, peer

    def __iter__(self):
        return self

    def __next__(self):
        return self._assay_peer.request("next", self._assay_id)


class Foreign:
    """An object of the tests, to be handed on. There is nothing to be had of it."""

    def __init__(self, peer, number, name):
        self._assay_id = number


class Mirrored:
    """A container that is an attribute of something: the tests may change it where they find it."""

    def __init__(self, container):
        self.container = container


class CallbackEnded(BaseException):
    """A function of the tests ended by what no program should catch."""


class Subject(Peer):
    def __init__(self, reader, writer):
        super().__init__(reader, writer)
        self.foreign = {}

    def refer(self, value):
        kind = type(value)
        if kind in (Callback, Stream, Foreign):
            return ("yours", value._assay_id)
        if kind is Mirrored:
            return ("mirror", self.hold(value.container), value.container)
        if isinstance(value, type) and TYPES.get(value.__name__) is value:
            return ("known", "types", value.__name__)
        if isinstance(value, type) and issubclass(value, BaseException):
            return ("mine", self.hold(value), "e", family(value))
        if kind is types.ModuleType:
            return ("mine", self.hold(value), "m", value.__name__)
        shape = "".join(letter for letter, method in SHAPES.items() if hasattr(kind, method))
        return ("mine", self.hold(value), shape + "t" * isinstance(value, type), kind.__qualname__[:80])

    def stand_in(self, number, shape, name):
        if number not in self.foreign:
            kind = Stream if shape == "n" else Callback if shape == "c" else Foreign
            self.foreign[number] = kind(self, number, name)
        return self.foreign[number]

    def find(self, module, name):
        return TYPES[name] if module == "types" else find_known(module, name)

    def serve(self, what, where, *rest):
        if what == "import":
            return importlib.import_module(where)
        value = self.held[where]
        if what == "call":
            return value(*rest[0], **rest[1])
        if what == "get":
            found = getattr(value, rest[0])
            return Mirrored(found) if type(found) in (list, dict, set) else found
        if what == "set":
            return setattr(value, *rest)
        if what == "item":
            return value[rest[0]]
        if what == "put":
            value[rest[0]] = rest[1]
            return None
        if what == "drop":
            del value[rest[0]]
            return None
        if what == "next":
            return next(value)
        return ASK[rest[0]](self, value, *rest[1:])

    def describe(self, error):
        mine = getattr(error, "_assay_yours", None)
        if mine is not None:
            return ("yours", mine)
        attributes = getattr(error, "__dict__", {}).items()
        attributes = {key: value for key, value in attributes if type(key) is str and self.pack(value)}
        args = error.args if self.pack(error.args) else None
        return ("new", self.hold(error), family(type(error)), text(error), args, attributes)

    def rebuild(self, described):
        if described[0] == "yours":
            return self.held[described[1]]
        _, number, name, message = described
        kind = getattr(builtins, name, None) if type(name) is str else self.held.get(name)
        try:
            error = kind(message) if issubclass(kind, Exception) else CallbackEnded(message)
        except Exception:
            error = Exception(message)
        error._assay_yours = number
        return error

    def leave(self, value, described):
        error = described and self.rebuild(described)
        return bool(value.__exit__(error and type(error), error, error and error.__traceback__))


ASK = {
    "str": lambda self, value: str(value),
    "repr": lambda self, value: repr(value),
    "len": lambda self, value: len(value),
    "bool": lambda self, value: bool(value),
    "iter": lambda self, value: iter(value),
    "enter": lambda self, value: value.__enter__(),
    "exit": Subject.leave,
    "isinstance": lambda self, value, other: isinstance(other, value),
    "issubclass": lambda self, value, other: issubclass(other, value),
    "become": lambda self, value, other: copy_back(value, other),
}


def family(kind):
    """Returns the name of an exception type with those of its bases, down to what Python brings."""
    if getattr(builtins, kind.__name__, None) is kind:
        return (kind.__name__,)
    return (str(kind.__module__), kind.__qualname__, tuple(family(base) for base in kind.__bases__ if base is not object))


def text(error):
    try:
        return str(error)[:100_000]
    except BaseException:
        return "an exception that can't describe itself"


def main():
    subject = Subject(os.fdopen(4, "rb"), os.fdopen(os.dup(4), "wb"))
    try:
        while True:
            try:
                subject.answer(subject.receive())
            except CannotCross as error:
                subject.send(("stuck", str(error)))
    except Gone:
        pass
    sys.stdout.flush()
    os._exit(0)


main()
