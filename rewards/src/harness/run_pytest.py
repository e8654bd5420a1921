"""Runs pytest and reports each test to the host, without a word on stdout that counts.

Started as `python3 -P -s -B run_pytest.py ARGS`. stdin: the nonce. fd 3: JSON lines for the host:
alive, start with the collected ids, one test event per test, end. A run that ends early has no end event,
and a report that contradicts what a test really raised is a conflict event.

The code under test shares this process: a determined attacker can forge events (guarded mode).
What keeps honest runs honest: our configuration alone is read, no plugin is loaded by name, and
pytest comes from the image (`-P`), never from the work tree.
"""

import json
import os
import sys

# Whatever metadata lies in the work tree, it names no plugin.
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"

import pytest  # noqa: E402

# As `python -m pytest` has it, but last: the work tree shadows nothing of the image.
sys.path.append(os.getcwd())

MESSAGE_LIMIT = 2000


class Reporter:
    def __init__(self):
        self.nonce = sys.stdin.readline().strip()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # Off the well-known number, and closed in every program that a test starts.
        self.channel = os.fdopen(os.dup(3), "w", encoding="utf-8", errors="backslashreplace")
        os.close(3)
        self.seq = 0
        self.counts = {}
        self.outcomes = {}  # id -> [status, seconds, message] over setup, call and teardown
        self.raised = {}  # (id, phase) -> whether the phase really raised

    def event(self, name, **fields):
        self.channel.write(json.dumps({"seq": self.seq, "event": name, **fields}) + "\n")
        self.channel.flush()
        self.seq += 1

    def test(self, name, status, seconds, message):
        self.counts[status] = self.counts.get(status, 0) + 1
        self.event(
            "test", id=name, status=status, duration_s=round(seconds, 6), message=message[:MESSAGE_LIMIT]
        )

    def pytest_collection_finish(self, session):
        self.event("start", nonce=self.nonce, collected=[item.nodeid for item in session.items])

    def pytest_collectreport(self, report):
        # A module that can't be collected takes its tests along: they are missing, and this says why.
        if report.failed:
            print("cannot collect %s" % report.nodeid, file=sys.stderr)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        self.raised[item.nodeid, call.when] = call.excinfo is not None
        return (yield)

    def pytest_runtest_logreport(self, report):
        outcome = self.outcomes.setdefault(report.nodeid, ["passed", 0.0, ""])
        outcome[1] += report.duration
        expected = hasattr(report, "wasxfail")
        if report.failed:
            status = "failed" if report.when == "call" else "error"
        elif report.skipped:
            status = "xfailed" if expected else "skipped"
        else:
            status = "xpassed" if expected else "passed"
        if status == "passed" and self.raised.get((report.nodeid, report.when), False):
            self.event(
                "conflict", id=report.nodeid, evidence="%s raised but is reported as passed" % report.when
            )
            status = "failed"
        if outcome[0] in ("passed", "xpassed") and status != "passed":
            outcome[0], outcome[2] = status, report.longreprtext
        if report.when == "teardown":
            self.test(report.nodeid, *self.outcomes.pop(report.nodeid))


def main():
    reporter = Reporter()
    reporter.event("alive", nonce=reporter.nonce)  # from here on the submission's code may run
    options = ["-c", "/dev/null", "--rootdir", os.getcwd(), "--confcutdir", os.getcwd()]
    options += ["-p", "no:cacheprovider", "--tb=short", "-q", "--no-header", "--color=no"]
    code = int(pytest.main(options + sys.argv[1:], plugins=[reporter]))
    reporter.event("end", nonce=reporter.nonce, exit=code, counts=reporter.counts)
    sys.stdout.flush()
    os._exit(code)


main()
