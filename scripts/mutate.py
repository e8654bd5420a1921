#!/usr/bin/env python3
"""Makes `patch` tasks out of a released Python package: small bugs that its own tests notice.

    mutate.py find  TREE MODULE TEST_FILE [--seed N] [--jobs N]
    mutate.py write TREE MODULE TEST_FILE --pick KEY --repository NAME@VERSION --id ID --out DIR

`find` tries every mutation of MODULE (an operator flipped, a branch dropped, off by one) against
TEST_FILE and prints one JSON line for each that at least one test notices while the rest go on
running, in an order that the seed decides, functions taking turns. `write` turns one of them into a
task directory: gold.patch takes the bug out, expected.lock.json says how every test fares with and
without it. It leaves problem.md alone when there is one: a person writes it, from what a user of
the package would see.

TREE is the unpacked release. pytest must be importable by the running interpreter.
"""

import argparse
import ast
import concurrent.futures
import difflib
import hashlib
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

WALL_S = 60

COMPARE = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "+"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"), ast.Div: ("/", "*"),
}  # fmt: skip

PLUGIN = """
import json, os

RANK = {"passed": 0, "skipped": 1, "xfailed": 1, "xpassed": 1, "failed": 2, "error": 3}
found = {}


def pytest_runtest_logreport(report):
    if hasattr(report, "wasxfail"):
        status = "xfailed" if report.skipped else "xpassed"
    elif report.failed:
        status = "failed" if report.when == "call" else "error"
    else:
        status = report.outcome
    before = found.setdefault(report.nodeid, "passed")
    if RANK[status] > RANK[before]:
        found[report.nodeid] = status


def pytest_sessionfinish(session):
    with open(os.environ["STATUS_FILE"], "w") as out:
        json.dump(found, out)
"""


class Finder(ast.NodeVisitor):
    """Collects mutations as (line, start, end, text, kind): replace source[start:end] by text."""

    def __init__(self, source):
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.function = []
        self.found = []

    def at(self, line, column):
        # Columns count UTF-8 bytes.
        text = self.source[self.starts[line - 1] : self.starts[line]]
        return self.starts[line - 1] + len(text.encode()[:column].decode())

    def span(self, node):
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def add(self, node, start, end, text, kind):
        name = ".".join(self.function) or "<module>"
        self.found.append((name, node.lineno, start, end, text, kind))

    def between(self, left, right, pair, kind):
        """Flips the operator that stands between two operands."""
        old, new = pair
        start, end = self.span(left)[1], self.span(right)[0]
        offset = self.source[start:end].find(old)
        if offset >= 0:
            self.add(left, start + offset, start + offset + len(old), new, kind)

    def visit_FunctionDef(self, node):
        self.function.append(node.name)
        for default in node.args.defaults + [d for d in node.args.kw_defaults if d]:
            self.visit(default)
        body = node.body
        if ast.get_docstring(node) is not None:
            body = body[1:]
        for statement in body:
            self.visit(statement)
        self.function.pop()

    def visit_ClassDef(self, node):
        self.function.append(node.name)
        for statement in node.body[1 if ast.get_docstring(node) is not None else 0 :]:
            self.visit(statement)
        self.function.pop()

    def visit_Compare(self, node):
        operands = [node.left, *node.comparators]
        for left, op, right in zip(operands, node.ops, operands[1:]):
            if type(op) in COMPARE:
                self.between(left, right, COMPARE[type(op)], "operator")
        self.generic_visit(node)

    def visit_BinOp(self, node):
        if type(node.op) in ARITHMETIC and not isinstance(node.left, ast.Constant):
            self.between(node.left, node.right, ARITHMETIC[type(node.op)], "operator")
        self.generic_visit(node)

    def visit_BoolOp(self, node):
        pair = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            self.between(left, right, pair, "operator")
            # One side of the condition is forgotten.
            self.add(left, self.span(left)[1], self.span(right)[1], "", "branch")
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        if isinstance(node.op, ast.Not):
            start, _ = self.span(node)
            self.add(node, start, self.span(node.operand)[0], "", "operator")
        self.generic_visit(node)

    def visit_Constant(self, node):
        start, end = self.span(node)
        if isinstance(node.value, bool):
            self.add(node, start, end, str(not node.value), "operator")
        elif isinstance(node.value, int):
            self.add(node, start, end, str(node.value + 1), "off-by-one")
            if node.value > 0:
                self.add(node, start, end, str(node.value - 1), "off-by-one")

    def visit_If(self, node):
        lines = self.starts[node.lineno - 1], self.starts[node.end_lineno]
        is_elif = self.source[self.span(node)[0] :].startswith("elif")
        if not node.orelse and not is_elif:
            self.add(node, *lines, "", "branch")
        self.generic_visit(node)

    def visit_Call(self, node):
        # A call that only wraps its argument is forgotten: `list(x)` becomes `x`.
        if len(node.args) == 1 and not node.keywords and isinstance(node.func, (ast.Name, ast.Attribute)):
            start, end = self.span(node)
            inner = self.source[slice(*self.span(node.args[0]))]
            if not isinstance(node.args[0], ast.Starred):
                self.add(node, start, end, inner, "branch")
        self.generic_visit(node)

    def visit_List(self, node):
        # An entry of a table is forgotten.
        if len(node.elts) >= 5 and all(isinstance(item, ast.Tuple) for item in node.elts):
            for item in node.elts:
                first, last = self.starts[item.lineno - 1], self.starts[item.end_lineno]
                if self.source[first:last].strip().startswith("(") and self.source[first:last].rstrip().endswith(","):
                    self.add(item, first, last, "", "branch")
        self.generic_visit(node)


def mutations(source):
    """Yields (key, function, line, kind, mutated source), each syntactically valid and different."""
    finder = Finder(source)
    finder.visit(ast.parse(source))
    seen = set()
    for function, line, start, end, text, kind in finder.found:
        mutated = source[:start] + text + source[end:]
        try:
            same = ast.dump(ast.parse(mutated)) == ast.dump(ast.parse(source))
        except SyntaxError:
            # A dropped branch may have been all that its block held.
            continue
        key = hashlib.sha256(mutated.encode()).hexdigest()[:12]
        if not same and key not in seen:
            seen.add(key)
            yield key, function, line, kind, mutated


def statuses(tree, module, source, test_file):
    """Runs the tests with `module` replaced; {test id: status}, or None when they can't be run."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        copy = scratch / "tree"
        shutil.copytree(tree, copy)
        (copy / module).write_text(source)
        (scratch / "status_plugin.py").write_text(PLUGIN)
        command = [sys.executable, "-B", "-m", "pytest", "-q", "--tb=no", "-p", "status_plugin",
                   "-p", "no:cacheprovider", test_file]  # fmt: skip
        environment = {"PYTHONPATH": str(scratch), "STATUS_FILE": str(scratch / "status"), "PATH": "/usr/bin:/bin"}
        try:
            run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=WALL_S)
        except subprocess.TimeoutExpired:
            return None
        if run.returncode not in (0, 1):
            return None
        return json.loads((scratch / "status").read_text())


def changed_lines(before, after):
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in list(lines)[2:] if not line.startswith("@@")]


def find(arguments):
    source = (arguments.tree / arguments.module).read_text()
    healthy = statuses(arguments.tree, arguments.module, source, arguments.test_file)
    if not healthy or set(healthy.values()) != {"passed"}:
        sys.exit("mutate: the tests must all pass before anything is mutated")
    candidates = list(mutations(source))
    random.Random(arguments.seed).shuffle(candidates)
    # Functions take turns, so that the first few picks are about different ones.
    turn, turns = {}, []
    for candidate in candidates:
        turn[candidate[1]] = turn.get(candidate[1], -1) + 1
        turns.append((turn[candidate[1]], len(turns), candidate))
    ordered = [candidate for *_, candidate in sorted(turns, key=lambda entry: entry[:2])]

    def judge(candidate):
        return statuses(arguments.tree, arguments.module, candidate[4], arguments.test_file)

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for candidate, found in zip(ordered, pool.map(judge, ordered)):
            key, function, line, kind, mutated = candidate
            if found is None or found.keys() != healthy.keys():
                continue
            failing = sorted(test for test, status in found.items() if status != "passed")
            # A bug that breaks most tests is found by importing the module.
            if failing and len(failing) <= max(3, len(found) // 4):
                print(json.dumps({"key": key, "function": function, "line": line, "kind": kind,
                                  "change": changed_lines(source, mutated), "failing": failing}), flush=True)  # fmt: skip


def write(arguments):
    source = (arguments.tree / arguments.module).read_text()
    picked = [m for m in mutations(source) if m[0] == arguments.pick]
    if not picked:
        sys.exit(f"mutate: {arguments.module} has no mutation {arguments.pick}")
    mutated = picked[0][4]
    base = statuses(arguments.tree, arguments.module, mutated, arguments.test_file)
    gold = statuses(arguments.tree, arguments.module, source, arguments.test_file)
    must_pass = sorted(test for test in gold if gold[test] == "passed" and base[test] != "passed")
    if not must_pass or set(gold.values()) != {"passed"}:
        sys.exit("mutate: some test must fail with the bug and all must pass without it")

    private = arguments.out / "private"
    private.mkdir(parents=True, exist_ok=True)
    patch = difflib.unified_diff(mutated.splitlines(keepends=True), source.splitlines(keepends=True),
                                 f"a/{arguments.module}", f"b/{arguments.module}")  # fmt: skip
    header = f"diff --git a/{arguments.module} b/{arguments.module}\n"
    (private / "gold.patch").write_text(header + "".join(patch))
    tests = {test: {"base": base[test], "gold": gold[test]} for test in sorted(gold)}
    rows = ",\n".join(f"      {json.dumps(test, ensure_ascii=False)}: {json.dumps(both)}" for test, both in tests.items())
    lock = f'{{\n  "schema": 1,\n  "checks": {{\n    "unit": {{\n{rows}\n    }}\n  }}\n}}\n'
    (private / "expected.lock.json").write_text(lock)
    quoted = "\n".join(f"    {json.dumps(test, ensure_ascii=False)}," for test in must_pass)
    image = f'image = "{arguments.image}"\n' if arguments.image else ""
    globs = ", ".join(json.dumps(glob) for glob in arguments.tests_glob)
    (arguments.out / "task.toml").write_text(f'''schema = 1
id = "{arguments.id}"
language = "python"
split = "train"
tags = ["bugfix", "mutation", "{picked[0][3]}"]
{image}
[source]
repository = "{arguments.repository}"
revert = "private/gold.patch"
tests = [{globs}]

[prompt]
template = "problem.md"
context = ["{arguments.module}"]

[submission]
kind = "patch"
extract = "diff"

[limits]
wall_s = 60
cpu_s = 30

[[check]]
id = "unit"
run = ["python3", "-m", "pytest", "{arguments.test_file}"]
report = "pytest"
must_pass = [
{quoted}
]
must_keep = "lock"
''')
    problem = arguments.out / "problem.md"
    if not problem.exists():
        problem.write_text(f"FIXME: {picked[0][1]}: say what is called, what was expected, what came out.\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    for name, action in (("find", find), ("write", write)):
        command = commands.add_parser(name)
        command.set_defaults(action=action)
        command.add_argument("tree", type=pathlib.Path)
        command.add_argument("module")
        command.add_argument("test_file")
        if name == "find":
            command.add_argument("--seed", type=int, default=0)
            command.add_argument("--jobs", type=int, default=2)
        else:
            command.add_argument("--pick", required=True)
            command.add_argument("--repository", required=True)
            command.add_argument("--id", required=True)
            command.add_argument("--image", default="")
            command.add_argument("--tests-glob", action="append", required=True)
            command.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
