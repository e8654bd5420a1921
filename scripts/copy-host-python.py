"""Copies the host's Python, a shell and the coreutils, with the libraries they need, into a tree.

Prints the folder, relative to the tree, that third-party packages belong in.
"""

import os
import pathlib
import re
import shutil
import site
import subprocess
import sys
import sysconfig

TOOLS = """sh bash env true false cat echo ls cp mv rm mkdir rmdir ln chmod touch head tail sort uniq wc cut
tr tee sleep date dirname basename pwd test expr seq stat readlink realpath mktemp find grep sed diff
printf id uname kill timeout xargs yes dd""".split()
UNUSED = ("__pycache__", "test", "idlelib", "site-packages", "dist-packages", "config-*", "*.a")


def main() -> None:
    """Copies everything into the tree that the command line names."""
    tree = pathlib.Path(sys.argv[1])
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / "usr" / name).mkdir(parents=True, exist_ok=True)
        (tree / name).symlink_to(f"usr/{name}")

    stdlib = pathlib.Path(sysconfig.get_path("stdlib"))
    shutil.copytree(stdlib, place(tree, stdlib), ignore=shutil.ignore_patterns(*UNUSED), symlinks=True)
    python = pathlib.Path(sys.executable).resolve()
    tools = [pathlib.Path(found) for name in TOOLS if (found := shutil.which(name))]
    for program in [python, *tools]:
        copy(tree, program)
    for name in ("python3", python.name):
        link = tree / "usr/bin" / name
        if not link.exists() and not link.is_symlink():
            link.symlink_to(python)

    binaries = [python, *(tool.resolve() for tool in tools), *stdlib.rglob("*.so")]
    for library in sorted(libraries(binaries)):
        copy(tree, library)
    zones = pathlib.Path("/usr/share/zoneinfo")
    if zones.is_dir():
        shutil.copytree(zones, place(tree, zones), symlinks=True)
    print(site.getsitepackages()[0].lstrip("/"))


def place(tree: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """Returns where a host path lies in the tree, whose /bin and /lib are links into /usr."""
    text = re.sub(r"^/(bin|sbin|lib|lib64)/", r"/usr/\1/", str(path))
    return tree / text.lstrip("/")


def copy(tree: pathlib.Path, path: pathlib.Path) -> None:
    """Copies the file that `path` names or links to."""
    target = place(tree, path)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def libraries(binaries: list[pathlib.Path]) -> set[pathlib.Path]:
    """Returns the shared libraries that the binaries load, the dynamic linker among them."""
    found: set[pathlib.Path] = set()
    for binary in binaries:
        out = subprocess.run(["ldd", os.fspath(binary)], capture_output=True, text=True, check=False).stdout
        found.update(pathlib.Path(match) for match in re.findall(r"(/\S+) \(0x", out))
    return found


if __name__ == "__main__":
    main()
