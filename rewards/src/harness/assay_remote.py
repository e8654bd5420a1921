"""The tests' end of a sealed suite: modules of the submission, of which this process has no line.

`install` puts stand-ins where tests import the code under test. What they ask of one is asked of the
submission's process (subject_suite.py): data comes back as data, and its exceptions as exceptions of
the same names. Any other object is a `Thing`, which can be called, iterated, indexed, measured and
have attributes. It is never compared: whether two values are equal is decided in this process, and
what the submission says of itself decides nothing. What can't be done this way raises `CannotCross`
and is noted as `trouble`: then the test is no pass, whatever it catches.

Each frame may be hostile. It yields values, by types that are listed here and in assay_peer.py, and
exceptions that are builtin or made here; it reaches no attribute of any object of the tests.
"""

import builtins
import importlib.machinery
import os
import sys
import types

from assay_peer import TYPES, CannotCross, Gone, Peer, known, wire

# Other attributes of modules between double underscores are asked for.
NOT_ASKED = {"__all__", "__path__", "__wrapped__", "__test__", "__getattr__", "__signature__", "__code__"}
OF_THINGS = {"__name__", "__qualname__", "__module__", "__version__", "__file__"}


class RemoteError(Exception):
    """The submission raised what has no counterpart here."""


class Remote(Peer):
    """The submission's process. `trouble` is why something that a test asked for could not be had."""

    def __init__(self, reader, writer, modules):
        super().__init__(reader, writer)
        self.modules, self.trouble = modules, None
        self.offers, self.raised = {}, {}
        self.families, self.class_ids = {}, {}

    def request(self, *message):
        try:
            return super().request(*message)
        except (wire.CannotCross, Gone) as error:
            self.trouble = self.trouble or str(error)
            raise

    def begin(self, item):
        """Notes that a test of pytest's begins, whose own function has to be the tests'."""
        self.trouble = None
        if issubclass(type(getattr(item, "obj", None)), Thing):
            self.trouble = "the submission is asked to run this test"

    def refuse(self, why):
        self.trouble = self.trouble or why
        raise CannotCross(why)

    def refer(self, value):
        kind = type(value)
        if issubclass(kind, (Thing, *MIRRORS.values())):
            return ("yours", value._assay[1])
        if kind is RemoteModule:
            return ("yours", vars(value)["_assay_id"])
        if isinstance(value, type):
            if value in self.class_ids:
                return ("yours", self.class_ids[value])
            if TYPES.get(value.__name__) is value:
                return ("known", "types", value.__name__)
        name = known(value)
        if name:
            return ("known", *name)
        number = self.hold(value)
        shape = "n" if hasattr(kind, "__next__") else "c" if callable(value) else ""
        self.offers[number] = shape
        return ("mine", number, shape, str(getattr(value, "__name__", kind.__name__))[:80])

    def stand_in(self, number, shape, name):
        if type(number) is not int or type(shape) is not str:
            raise ValueError("no reference")
        if shape == "e":
            kind = self.family(name)
            self.class_ids.setdefault(kind, number)
            return kind
        if type(name) is not str:
            raise ValueError("no reference")
        if shape == "m" and name in self.modules:
            module = sys.modules.get(name)
            return module if type(module) is RemoteModule else RemoteModule(self, number, name)
        return thing(shape)(self, number, name)

    def mirror(self, number, container):
        mirror = MIRRORS[type(container)](container)
        mirror._assay = (self, number, type(container).__name__)
        return mirror

    def find(self, module, name):
        return TYPES[name]

    def serve(self, what, number=None, *rest):
        offer = self.offers.get(number)
        if what == "next" and offer == "n":
            return next(self.held[number])
        if what != "call" or offer != "c" or len(rest) != 2 or type(rest[0]) is not tuple or type(rest[1]) is not dict:
            raise CannotCross("an object of the tests can only be called, iterated or handed on")
        try:
            return self.held[number](*rest[0], **rest[1])
        except BaseException as error:
            # The submission may swallow it, but not the verdict.
            if isinstance(error, AssertionError) or not isinstance(error, Exception):
                self.trouble = self.trouble or "%s in a function that the test passed" % type(error).__name__
            raise

    def describe(self, error):
        """Says as much of an error of the tests as may be told: its builtin type, of its text nothing."""
        if getattr(error, "_assay_made", None) is not None:
            return ("yours", error._assay_made)
        number = self.hold(error)
        self.raised[number] = error
        known_by_id = self.class_ids.get(type(error))
        names = (kind.__name__ for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind)
        return ("new", number, next(names) if known_by_id is None else known_by_id, "")

    def rebuild(self, described):
        try:
            if described[0] == "yours":
                return self.raised[described[1]]
            _, number, names, text, args, attributes = described
            error = self.instance(self.family(names), str(text), args)
            for name, value in attributes.items():
                if type(name) is str and not name.startswith("_") and not callable(getattr(error, name, None)):
                    setattr(error, name, value)
            error._assay_made = int(number)
            return error
        except Exception as error:
            self.trouble = self.trouble or "an exception could not cross"
            return RemoteError("an exception could not cross: %s" % type(error).__name__)

    def instance(self, kind, text, args):
        if kind is RemoteError:
            return RemoteError(text)
        try:
            error = kind(*(args if type(args) is tuple else (text,)))
        except Exception:  # such as UnicodeDecodeError, which wants five arguments
            return RemoteError("%s: %s" % (kind.__name__, text))
        if "_assay_family" in vars(kind):
            error._assay_text = text
        return error

    def family(self, names):
        """Returns the exception type of that name: Python's own, or one that is made here."""
        if type(names) is not tuple or len(names) not in (1, 3):
            raise ValueError("no exception type")
        if len(names) == 1:
            kind = getattr(builtins, str(names[0]), None)
            fits = isinstance(kind, type) and (issubclass(kind, Exception) or kind is SystemExit)
            return kind if fits else RemoteError
        module, name, bases = str(names[0]), str(names[1]), names[2]
        if (module, name) not in self.families:
            parents = tuple(kind for kind in map(self.family, bases) if issubclass(kind, BaseException))
            body = {"__module__": module, "__qualname__": name, "_assay_family": name}
            body["__str__"] = lambda error: vars(error).get("_assay_text") or Exception.__str__(error)
            self.families[module, name] = type(name.rpartition(".")[2], parents or (Exception,), body)
        return self.families[module, name]


class RemoteModule(types.ModuleType):
    """A module of the submission."""

    def __init__(self, remote, number, name):
        super().__init__(name)
        vars(self).update(_assay_remote=remote, _assay_id=number)

    def __getattr__(self, name):
        # `from module import *` would put the submission's names over those of the tests.
        if name in NOT_ASKED or name.startswith(("_pytest", "pytest")):
            raise AttributeError("module %r has no attribute %r here" % (self.__name__, name))
        return vars(self)["_assay_remote"].request("get", vars(self)["_assay_id"], name)

    def __setattr__(self, name, value):
        if name.startswith("__") or isinstance(value, types.ModuleType):
            return super().__setattr__(name, value)
        return vars(self)["_assay_remote"].request("set", vars(self)["_assay_id"], name, value)


class Thing:
    """An object of the submission."""

    __slots__ = ("_assay",)

    def __init__(self, remote, number, name):
        object.__setattr__(self, "_assay", (remote, number, name))

    def __getattr__(self, name):
        dunder = name.startswith("__") and name.endswith("__")
        if dunder and name not in OF_THINGS or name.startswith(("_pytest", "pytest")):
            raise AttributeError(name)
        return ask(self, "get", name)

    def __setattr__(self, name, value):
        ask(self, "set", name, value)

    def __str__(self):
        return told(self, str, "str")

    def __repr__(self):
        return told(self, str, "repr")

    def __bool__(self):
        return told(self, bool, "bool")


def refused(operation):
    def method(self, *others):
        remote, _, name = self._assay
        remote.refuse("an object of the submission (%s) can't cross to be used by %s" % (name, operation))

    return method


COMPARED = "eq ne lt le gt ge hash"
COMPUTED = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift divmod"
OTHERWISE = "neg pos abs invert int float index complex bytes reduce_ex copy deepcopy delattr await aiter anext aenter mro_entries"
for operation in "{} {} {}".format(COMPARED, COMPUTED, OTHERWISE).split():
    setattr(Thing, "__%s__" % operation, refused("__%s__" % operation))
for operation in COMPUTED.split():
    setattr(Thing, "__r%s__" % operation, refused("__r%s__" % operation))


def ask(thing, what, *rest):
    remote, number, _ = thing._assay
    return remote.request(what, number, *rest)


def told(thing, kind, *question):
    """Asks for a value of this very type."""
    answer = ask(thing, "ask", *question)
    if type(answer) is not kind:
        thing._assay[0].refuse("`%s` of an object of the submission is no %s" % (question[0], kind.__name__))
    return answer


def call(self, *args, **kwargs):
    return ask(self, "call", args, kwargs)


def iterate(self):
    iterator = ask(self, "ask", "iter")
    if not hasattr(type(iterator), "__next__"):
        self._assay[0].refuse("`iter` of an object of the submission is no iterator")
    return iterator


def measure(self):
    return max(told(self, int, "len"), 0)


def leave(self, kind, error, trace):
    """Tells a context manager of the submission how its block ended. It may take back what the
    submission raised, and nothing that the test itself did."""
    taken = ask(self, "ask", "exit", None if error is None else self._assay[0].describe(error))
    return taken is True and getattr(error, "_assay_made", None) is not None


METHODS = {
    "c": {"__call__": call},
    "n": {"__next__": lambda self: ask(self, "next"), "__iter__": lambda self: self},
    "i": {"__iter__": iterate},
    "l": {"__len__": measure},
    "g": {
        "__getitem__": lambda self, key: ask(self, "item", key),
        "__setitem__": lambda self, key, value: ask(self, "put", key, value),
        "__delitem__": lambda self, key: ask(self, "drop", key),
    },
    "x": {"__enter__": lambda self: ask(self, "ask", "enter"), "__exit__": leave},
    "t": {
        "__instancecheck__": lambda self, other: issubclass(type(other), Thing) and bool_of(self, "isinstance", other),
        "__subclasscheck__": lambda self, other: issubclass(type(other), Thing) and bool_of(self, "issubclass", other),
    },
}
KINDS = {}


def bool_of(thing, question, other):
    return told(thing, bool, question, other)


def thing(shape):
    """Returns the type of things that can do what the letters of `shape` say."""
    shape = "".join(letter for letter in METHODS if letter in shape)
    if shape not in KINDS:
        methods = {}
        for letter in reversed(shape):
            methods.update(METHODS[letter])
        if "n" in shape:
            methods.update(METHODS["n"])
        KINDS[shape] = type("Thing", (Thing,), {"__slots__": (), **methods})
    return KINDS[shape]


def mirror(kind, changes):
    """Returns a type like `kind`, data of this process, whose instances do to the submission's container
    what is done to them."""

    def changing(name):
        change = getattr(kind, name)

        def method(self, *args, **kwargs):
            result = change(self, *args, **kwargs)
            ask(self, "ask", "become", kind(self))
            return result

        return method

    methods = {name: changing(name) for name in changes.split() if hasattr(kind, name)}
    methods["copy"] = lambda self: kind(self)
    methods["__reduce_ex__"] = lambda self, _: (kind, (kind(self),))
    return type(kind.__name__, (kind,), methods)


CHANGES = "__setitem__ __delitem__ __iadd__ __imul__ __ior__ __iand__ __isub__ __ixor__ append extend insert remove pop"
CHANGES += " clear sort reverse popitem update setdefault add discard difference_update intersection_update"
CHANGES += " symmetric_difference_update"
MIRRORS = {kind: mirror(kind, CHANGES) for kind in (list, dict, set)}


class Finder:
    """Finds the modules of the submission before anybody else does."""

    def __init__(self, remote):
        self.remote = remote

    def find_spec(self, name, path=None, target=None):
        if name not in self.remote.modules:
            return None
        folder = self.remote.modules[name]
        spec = importlib.machinery.ModuleSpec(name, self, is_package=folder is not None)
        if folder is not None:  # tests may lie in it
            spec.submodule_search_locations.append(os.path.join(os.getcwd(), folder))
        return spec

    def create_module(self, spec):
        try:
            module = self.remote.request("import", spec.name)
        except SystemExit as error:
            raise ImportError("it ends its process: %s" % error) from None
        if type(module) is not RemoteModule or module.__name__ != spec.name:
            self.remote.refuse("module %s of the submission is none" % spec.name)
        return module

    def exec_module(self, module):
        pass


def install(modules):
    """Has `modules`, a dict from names to the folders of packages and None, be those of the process
    behind fd 4."""
    writer = os.fdopen(os.dup(4), "wb")
    reader = os.fdopen(os.dup(4), "rb")
    os.close(4)
    remote = Remote(reader, writer, modules)
    sys.meta_path.insert(0, Finder(remote))
    return remote
