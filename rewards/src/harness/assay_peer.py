"""What both ends of a sealed suite know: the tests (assay_remote.py) and the submission (subject_suite.py).

Frames of wire.py on one socket. The tests ask, the submission answers, and never the other way round:

    ("import", name)   ("get", module, name)   ("call", function, args, kwargs)   ("next", iterator)
    ("become", container, value)
    ("ok", value, arguments)   ("raised", exception, arguments)   ("stuck", why)

`arguments` are what the call did to its own, None where it did nothing. Modules, functions and so on are
the numbers that the submission gave them. Data is copied. What wire.py has no tag for is a reference:

    ("made", type, parts)   ("type", name)   ("yours", number)
    ("plain", value)   ("own", index)   ("function", number)   ("iterator", number)
    ("module", number, name)   ("mirror", number, container)   ("error", family)

of which the tests send those of the first line alone.
"""

import collections
import datetime
import decimal
import fractions
import pathlib
import sys
import uuid

import wire

# A repository may have a module of that name.
sys.modules.pop("wire", None)

# Types that say the same on both ends.
TYPES = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)}
TYPES.update((kind.__name__, kind) for kind in (bytearray, range, object, type, type(None), collections.deque))
CONTAINERS = (list, dict, set)


def zoned(value):
    if value.tzinfo is not None and type(value.tzinfo) is not datetime.timezone:
        raise wire.CannotCross("a time of a zone with rules can't cross")
    return value.microsecond, value.tzinfo, value.fold


def moment(parts):
    *fields, fold = parts
    return datetime.datetime(*fields, fold=fold)


# Exact types of the standard library: to plain data, and back.
MADE = {
    bytearray: (bytes, bytearray),
    range: (lambda value: (value.start, value.stop, value.step), lambda parts: range(*parts)),
    slice: (lambda value: (value.start, value.stop, value.step), lambda parts: slice(*parts)),
    type(...): (lambda value: None, lambda parts: ...),
    collections.deque: (lambda value: (list(value), value.maxlen), lambda parts: collections.deque(*parts)),
    collections.OrderedDict: (lambda value: list(value.items()), collections.OrderedDict),
    collections.Counter: (dict, collections.Counter),
    decimal.Decimal: (str, decimal.Decimal),
    fractions.Fraction: (lambda value: (value.numerator, value.denominator), lambda parts: fractions.Fraction(*parts)),
    datetime.date: (lambda value: (value.year, value.month, value.day), lambda parts: datetime.date(*parts)),
    datetime.time: (
        lambda value: (value.hour, value.minute, value.second, *zoned(value)),
        lambda parts: datetime.time(*parts[:-1], fold=parts[-1]),
    ),
    datetime.timedelta: (
        lambda value: (value.days, value.seconds, value.microseconds),
        lambda parts: datetime.timedelta(*parts),
    ),
    datetime.datetime: (lambda value: (*value.timetuple()[:6], *zoned(value)), moment),
    datetime.timezone: (lambda value: value.utcoffset(None), datetime.timezone),
    uuid.UUID: (str, uuid.UUID),
    pathlib.PosixPath: (str, pathlib.PosixPath),
    pathlib.PurePosixPath: (str, pathlib.PurePosixPath),
}
MAKE = {kind.__name__: make for kind, (_, make) in MADE.items()}


def made(value):
    """Returns the reference to an instance of a type of the standard library, or None."""
    known = MADE.get(type(value))
    return known and ("made", type(value).__name__, known[0](value))


def copy_back(before, after):
    """Does to our mutable values what was done to their copies."""
    if type(after) is not type(before):
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
    elif type(before) in (bytearray, collections.deque):
        before.clear()
        before.extend(after)


def kept(ours, theirs):
    """Returns our own object, changed, where there is one of the same kind; else theirs."""
    if type(ours) is type(theirs) and type(ours) in (*CONTAINERS, bytearray, collections.deque):
        copy_back(ours, theirs)
        return ours
    return theirs
