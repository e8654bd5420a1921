"""Prints the digest of a directory tree: `sha256:` over sorted paths, modes and contents.

Ownership and times don't count, nor what is made from the rest: Python bytecode, `etc/ld.so.cache`.
"""

import hashlib
import os
import stat
import sys


DERIVED = {b"etc/ld.so.cache"}


def entries(root: bytes):
    """Yields (path relative to root, full path), parents before children, in byte order."""
    stack = [b""]
    while stack:
        folder = stack.pop()
        names = sorted(os.listdir(os.path.join(root, folder)), reverse=True)
        for name in names:
            path = os.path.join(folder, name)
            if name == b"__pycache__" or path in DERIVED:
                continue
            full = os.path.join(root, path)
            yield path, full
            if os.path.isdir(full) and not os.path.islink(full):
                stack.append(path)


def digest(root: str) -> str:
    """Returns the digest of the tree under `root`."""
    lines = []
    for path, full in entries(os.fsencode(root)):
        status = os.lstat(full)
        if stat.S_ISLNK(status.st_mode):
            kind, content = b"link", os.readlink(full)
        elif stat.S_ISDIR(status.st_mode):
            kind, content = b"dir", b""
        elif stat.S_ISREG(status.st_mode):
            with open(full, "rb") as file:
                kind, content = b"file", file.read()
        else:
            sys.exit(f"tree-digest.py: {full!r} is no file, directory or link")
        # A link has no mode of its own.
        mode = b"-" if kind == b"link" else b"%o" % stat.S_IMODE(status.st_mode)
        content = hashlib.sha256(content).hexdigest().encode()
        lines.append(b"%s\0%s\0%s\0%s\n" % (path, kind, mode, content))
    return "sha256:" + hashlib.sha256(b"".join(sorted(lines))).hexdigest()


if __name__ == "__main__":
    print(digest(sys.argv[1]))
