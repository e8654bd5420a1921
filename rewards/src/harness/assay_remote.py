"""The tests' end of a sealed suite: modules of the submission, of which this process has no line.

`install` puts stand-ins where tests import the code under test. What they ask of one is asked of the
submission's process (subject_suite.py), whose functions get data and give data, or raise. Whatever else
the tests try to have of it raises `CannotCross` and is noted as `trouble`: then the test is no pass,
whatever it catches. The submission can ask for nothing, and is told nothing but arguments.

Each frame may be hostile. It yields values, by types that are listed here and in assay_peer.py, and
exceptions that are builtin or made here. No line of it decides what equals what.
"""

import builtins
import importlib.machinery
import os
import sys
import threading
import types

from assay_peer import CONTAINERS, MAKE, TYPES, copy_back, made, wire

# Other attributes of modules between double underscores are asked for. `__all__` would let
# `from module import *` put the submission's names over those of the tests.
NOT_ASKED = {"__all__", "__path__", "__wrapped__", "__test__", "__getattr__", "__signature__", "__code__"}
# What these show is this process, and not the submission's: a test that finds nothing there would be content.
OF_THIS_PROCESS = {"capsys", "capsysbinary", "capfd", "capfdbinary", "caplog", "recwarn", "monkeypatch"}
OF_THIS_PROCESS |= {"tmp_path", "tmp_path_factory", "tmpdir", "tmpdir_factory"}


class Gone(Exception):
    """The submission's process ended, or broke the protocol."""


class RemoteError(Exception):
    """The submission raised what has no counterpart here."""


class Own:
    """An argument of the call, as what it returned."""

    def __init__(self, index):
        self.index = index


class Remote:
    """The submission's process. `trouble` is why something that a test asked for could not be had."""

    def __init__(self, reader, writer, modules):
        self.reader, self.writer, self.modules = reader, writer, modules
        self.gone = self.trouble = None
        self.lock = threading.Lock()
        self.families, self.functions = {}, {}

    def begin(self, item):
        """Notes that a test of pytest's begins, whose own function has to be the tests'."""
        self.trouble = None
        elsewhere = OF_THIS_PROCESS.intersection(getattr(item, "fixturenames", ()))
        if elsewhere:
            self.trouble = "`%s` shows nothing of the submission's process" % min(elsewhere)
        if type(getattr(item, "obj", None)) is Function:
            self.trouble = "the submission is asked to run this test"

    def refuse(self, why):
        self.trouble = self.trouble or why
        raise wire.CannotCross(why)

    def lose(self, why):
        self.gone = self.gone or "the submission's process %s" % why
        self.trouble = self.trouble or self.gone
        raise Gone(self.gone)

    def request(self, *message):
        """Asks the submission, and returns what it answers."""
        with self.lock:
            if self.gone:
                self.lose("")
            try:
                wire.send(self.writer, message, self.to_reference)
                answer = wire.receive(self.reader, self.from_reference)
            except wire.CannotCross as error:
                self.refuse(str(error))
            except (OSError, EOFError):
                self.lose("ended")
            except Exception as error:
                self.lose("broke the protocol: %s" % type(error).__name__)
        if type(answer) is tuple and answer[:1] == ("stuck",):
            self.refuse(str(answer[-1])[:500])
        if type(answer) is not tuple or len(answer) != 3 or answer[0] not in ("ok", "raised"):
            self.lose("broke the protocol")
        kind, value, after = answer
        if message[0] == "call":
            copy_back(message[2:], after)
        if kind == "raised":
            raise self.rebuild(value)
        if type(value) is Own:
            arguments = message[2] if message[0] == "call" else ()
            if type(value.index) is not int or not 0 <= value.index < len(arguments):
                self.lose("broke the protocol")
            return arguments[value.index]
        return value

    def to_reference(self, value):
        kind = type(value)
        if kind in (Function, Iterator) or kind in MIRRORS.values():
            return ("yours", value._assay[1])
        if isinstance(value, type):
            number = vars(value).get("_assay_number")
            if number is not None:
                return ("yours", number)
            if TYPES.get(value.__name__, getattr(builtins, value.__name__, None)) is value:
                return ("type", value.__name__)
        return made(value) or self.refuse("what a test passes is no data: %s" % kind.__name__[:80])

    def from_reference(self, parts):
        what, *rest = parts
        if what == "made":
            return MAKE[rest[0]](rest[1])
        if what == "type":
            return TYPES[rest[0]]
        if what == "plain":
            return rest[0]
        if what == "own":
            return Own(rest[0])
        if what == "error":
            kind = self.family(rest[0])
            if issubclass(AssertionError, kind):  # whoever catches it catches failed assertions
                raise wire.CannotCross("an exception type of the submission is %s" % kind.__name__)
            return kind
        number = rest[0]
        if type(number) is not int:
            raise ValueError("no number")
        if what == "function":
            return self.functions.setdefault(number, Function(self, number))
        if what == "iterator":
            return Iterator(self, number)
        if what == "mirror":
            mirror = MIRRORS[type(rest[1])](rest[1])
            mirror._assay = (self, number)
            return mirror
        if what == "module" and rest[1] in self.modules:
            module = sys.modules.get(rest[1])
            return module if type(module) is RemoteModule else RemoteModule(self, number, rest[1])
        raise wire.CannotCross("a module that is not the submission's can't cross")

    def rebuild(self, described):
        try:
            names, text, args, attributes = described
            kind = self.family(names)
            if kind is RemoteError:
                return RemoteError("%s: %s" % (names[0], text))
            error = kind(*(args if type(args) is tuple else (text,)))
            if "_assay_number" in vars(kind):
                for name, value in attributes.items():
                    if not name.startswith("_") and not hasattr(Exception, name):
                        vars(error)[name] = value
                vars(error)["_assay_text"] = str(text)
            return error
        except Exception:  # such as UnicodeDecodeError, which wants five arguments
            return RemoteError("an exception that has no counterpart here: %s" % str(described)[:500])

    def family(self, names):
        """Returns the exception type of that name: Python's own, or one that is made here."""
        if type(names) is not tuple or len(names) not in (1, 4):
            raise ValueError("no exception type")
        if len(names) == 1:
            kind = getattr(builtins, str(names[0]), None)
            fits = isinstance(kind, type) and (issubclass(kind, Exception) or kind is SystemExit)
            return kind if fits else RemoteError
        module, name, bases, number = str(names[0]), str(names[1]), names[2], int(names[3])
        if number not in self.families:
            parents = tuple(map(self.family, bases))
            body = {"__module__": module, "__qualname__": name, "__str__": told, "_assay_number": number}
            self.families[number] = type(name.rpartition(".")[2], parents or (Exception,), body)
        return self.families[number]


def told(error):
    return vars(error).get("_assay_text") or Exception.__str__(error)


class RemoteModule(types.ModuleType):
    """A module of the submission."""

    def __init__(self, remote, number, name):
        super().__init__(name)
        vars(self)["_assay"] = (remote, number)

    def __getattr__(self, name):
        if name in NOT_ASKED or name.startswith(("_pytest", "pytest")):
            raise AttributeError("module %r has no attribute %r here" % (self.__name__, name))
        remote, number = vars(self)["_assay"]
        return remote.request("get", number, name)

    def __setattr__(self, name, value):
        if name.startswith("__") or isinstance(value, types.ModuleType):
            return super().__setattr__(name, value)
        vars(self)["_assay"][0].refuse("a test can't set attributes of the submission")

    def __delattr__(self, name):
        vars(self)["_assay"][0].refuse("a test can't delete attributes of the submission")

    def __dir__(self):
        vars(self)["_assay"][0].refuse("a test can't list the names of the submission")


class Remains:
    """Something of the submission that is no data: it can't be compared or computed with."""

    __slots__ = ("_assay",)

    def __init__(self, remote, number):
        object.__setattr__(self, "_assay", (remote, number))

    def __getattr__(self, name):
        # Whoever looks for a mark of its own, such as pytest, finds none.
        if name.startswith("_") or name.startswith("pytest"):
            raise AttributeError(name)
        self._assay[0].refuse("attributes of functions can't cross")


REFUSED = "eq ne lt le gt ge hash bool reduce_ex setattr delattr dir enter exit mro_entries"
for operation in REFUSED.split():
    def refused(self, *others, operation=operation):
        self._assay[0].refuse("`__%s__` of what is no data can't cross" % operation)

    setattr(Remains, "__%s__" % operation, refused)


class Function(Remains):
    __slots__ = ()

    def __call__(self, *args, **kwargs):
        remote, number = self._assay
        return remote.request("call", number, args, kwargs)


class Iterator(Remains):
    __slots__ = ()

    def __iter__(self):
        return self

    def __next__(self):
        remote, number = self._assay
        return remote.request("next", number)


def mirror(kind, changes):
    """Returns a type like `kind`, data of this process, whose instances do to the submission's container
    what is done to them."""

    def changing(name):
        change = getattr(kind, name)

        def method(self, *args, **kwargs):
            result = change(self, *args, **kwargs)
            remote, number = self._assay
            remote.request("become", number, kind(self))
            return result

        return method

    methods = {name: changing(name) for name in changes.split() if hasattr(kind, name)}
    methods["copy"] = lambda self: kind(self)
    methods["__reduce_ex__"] = lambda self, _: (kind, (kind(self),))
    return type(kind.__name__, (kind,), methods)


CHANGES = "__setitem__ __delitem__ __iadd__ __imul__ __ior__ __iand__ __isub__ __ixor__ append extend insert remove pop"
CHANGES += " clear sort reverse popitem update setdefault add discard difference_update intersection_update"
CHANGES += " symmetric_difference_update"
MIRRORS = {kind: mirror(kind, CHANGES) for kind in CONTAINERS}


class Finder:
    """Finds the modules of the submission before anybody else does, but for those of Python itself."""

    def __init__(self, remote):
        self.remote = remote

    def find_spec(self, name, path=None, target=None):
        if name not in self.remote.modules or name.partition(".")[0] in sys.stdlib_module_names:
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
