"""Values and frames between the tests' process and the submission's in a sealed check.

A frame is a 4-byte big-endian length and that many bytes: one value. A value is a tag byte and its
content. Only plain data has a tag: None, bool, int, float (its 8 bytes, so exact), complex, str,
bytes, list, tuple, dict, set, frozenset. An object of any other type, a subclass of these among
them, raises `CannotCross`: its `__eq__` would be the submission's code in the grader's process.
Where both ends agree on references (assay_peer.py), it is a tag `r` and a value that stands for it.
Decoding trusts nothing: odd bytes raise `ValueError`, and sizes and depth are bounded.
"""

import struct

MAX_FRAME = 4 << 20
MAX_DEPTH = 100

_SIZED = {list: b"l", tuple: b"t", set: b"S", frozenset: b"z"}
_MAKE = {tag: kind for kind, tag in _SIZED.items()}


class CannotCross(TypeError):
    """The value is no plain data."""


def encode(value, refer=None):
    """Returns the bytes of `value`; `refer` returns what stands for a value that is no plain data."""
    parts = []
    _encode(value, parts, 0, refer)
    return b"".join(parts)


def _encode(value, parts, depth, refer):
    if depth > MAX_DEPTH:
        raise CannotCross("a value nested deeper than %d levels can't cross" % MAX_DEPTH)
    kind = type(value)
    if value is None:
        parts.append(b"N")
    elif kind is bool:
        parts.append(b"T" if value else b"F")
    elif kind is int:
        raw = value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
        parts.append(b"i" + _size(len(raw)) + raw)
    elif kind is float:
        parts.append(b"f" + struct.pack(">d", value))
    elif kind is complex:
        parts.append(b"c" + struct.pack(">dd", value.real, value.imag))
    elif kind is str:
        raw = value.encode("utf-8", "surrogatepass")
        parts.append(b"s" + _size(len(raw)) + raw)
    elif kind is bytes:
        parts.append(b"b" + _size(len(value)) + value)
    elif kind in _SIZED:
        parts.append(_SIZED[kind] + _size(len(value)))
        for item in value:
            _encode(item, parts, depth + 1, refer)
    elif kind is dict:
        parts.append(b"d" + _size(len(value)))
        for key, item in value.items():
            _encode(key, parts, depth + 1, refer)
            _encode(item, parts, depth + 1, refer)
    elif refer:
        parts.append(b"r")
        _encode(refer(value), parts, depth + 1, refer)
    else:
        raise CannotCross("a value of type %s can't cross" % kind.__name__[:80])


def _size(count):
    return struct.pack(">I", count)


def decode(data, resolve=None):
    """Returns the value that the bytes are of; `resolve` returns what a reference stands for."""
    value, end = _decode(data, 0, 0, resolve)
    if end != len(data):
        raise ValueError("bytes after the value")
    return value


def _decode(data, at, depth, resolve):
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    tag = data[at : at + 1]
    at += 1
    if tag == b"N":
        return None, at
    if tag == b"T":
        return True, at
    if tag == b"F":
        return False, at
    if tag == b"f":
        return struct.unpack(">d", _take(data, at, 8))[0], at + 8
    if tag == b"c":
        return complex(*struct.unpack(">dd", _take(data, at, 16))), at + 16
    if tag == b"r" and resolve:
        parts, at = _decode(data, at, depth + 1, resolve)
        return resolve(parts), at
    if tag not in (b"i", b"s", b"b", b"l", b"t", b"S", b"z", b"d"):
        raise ValueError("unknown tag %r" % tag)
    size = struct.unpack(">I", _take(data, at, 4))[0]
    at += 4
    if tag in (b"i", b"s", b"b"):
        raw = _take(data, at, size)
        at += size
        if tag == b"i":
            return int.from_bytes(raw, "big", signed=True), at
        return (raw.decode("utf-8", "surrogatepass") if tag == b"s" else raw), at
    items = []
    for _ in range(size * (2 if tag == b"d" else 1)):
        item, at = _decode(data, at, depth + 1, resolve)
        items.append(item)
    if tag == b"d":
        return dict(zip(items[::2], items[1::2])), at
    return _MAKE[tag](items), at


def _take(data, at, count):
    raw = data[at : at + count]
    if len(raw) != count:
        raise ValueError("cut short")
    return raw


def send(sock, value, refer=None):
    data = encode(value, refer)
    if len(data) > MAX_FRAME:
        raise CannotCross("a value of %d bytes can't cross" % len(data))
    sock.write(struct.pack(">I", len(data)) + data)
    sock.flush()


def receive(sock, resolve=None):
    """Returns the next value; raises EOFError when the other side is gone."""
    head = sock.read(4)
    if len(head) != 4:
        raise EOFError
    size = struct.unpack(">I", head)[0]
    if size > MAX_FRAME:
        raise ValueError("a frame of %d bytes" % size)
    data = sock.read(size)
    if len(data) != size:
        raise EOFError
    try:
        return decode(data, resolve)
    except TypeError as error:  # what can't be in a set or be a key
        raise CannotCross(str(error)) from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError("not a value: %s" % error) from None
