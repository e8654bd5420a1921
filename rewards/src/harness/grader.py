"""Runs the hidden tests of a function task and reports each to the host.

stdin: nonce, entry point and mode, a line each; in guarded mode the submission's source follows.
/assay/tests.py defines `test_*(f)` functions, or one `check(candidate)` as HumanEval does;
/assay/helpers.py, where there is one, holds the functions that the prompt itself defines.
fd 3: JSON lines for the host: start, one test event per test, end.
fd 4, sealed mode: frames of wire.py to the submission's process, which holds no test and no
expected value. In guarded mode, for functions whose values can't cross (generators, callables,
classes), the submission runs in this process and could tamper with it; the record says so.
"""

import os
import sys
import time
from _json import encode_basestring_ascii as quote

sys.path.insert(0, "/assay")
import assay_messages  # noqa: E402
import wire  # noqa: E402

sys.path.pop(0)


class SubmissionGone(Exception):
    """The submission's process ended, or broke the protocol."""


class SubmissionRaised(Exception):
    """The submission raised an exception that is no builtin."""


class Remote:
    """The submission's function, in its own process."""

    def __init__(self):
        self.reader, self.writer = os.fdopen(4, "rb"), os.fdopen(4, "wb", closefd=False)
        self.gone = None
        # Why some call of the running test had no answer: a test may catch what we raise then.
        self.trouble = None
        try:
            state, *message = self._receive()
            if state != "ready":
                self.gone = str(message[0]) if message else "broken"
        except (SubmissionGone, TypeError, ValueError) as error:
            self.gone = self.gone or str(error)

    def __call__(self, *args, **kwargs):
        try:
            return self._call(args, kwargs)
        except (SubmissionGone, wire.CannotCross) as error:
            self.trouble = str(error)
            raise

    def _call(self, args, kwargs):
        if self.gone:
            raise SubmissionGone(self.gone)
        request = (args, kwargs)
        wire.encode(request)  # raises CannotCross before anything is written
        try:
            wire.send(self.writer, request)
        except OSError:
            self._lose("the submission's process ended")
        answer = self._receive()
        if type(answer) is not tuple or not answer:
            self._lose("the submission's process broke the protocol")
        if answer[0] == "ok" and len(answer) == 3:
            copy_back(args, answer[2])
            return answer[1]
        if answer[0] == "raised" and len(answer) == 4:
            copy_back(args, answer[3])
            raise rebuild(str(answer[1]), str(answer[2]))
        if answer[0] == "stuck" and len(answer) == 2:
            raise wire.CannotCross(str(answer[1]))
        self._lose("the submission's process broke the protocol")

    def _receive(self):
        try:
            return wire.receive(self.reader)
        except (EOFError, OSError):
            self._lose("the submission's process ended")
        except (ValueError, MemoryError) as error:
            self._lose("the submission's process broke the protocol: %s" % error)

    def _lose(self, why):
        self.gone = why
        raise SubmissionGone(why)


def copy_back(args, after):
    """Carries what the function did to its mutable arguments over to ours."""
    if type(after) is not tuple or len(after) != len(args):
        return
    for ours, theirs in zip(args, after):
        if type(ours) is not type(theirs):
            continue
        if type(ours) is list:
            ours[:] = theirs
        elif type(ours) in (dict, set):
            ours.clear()
            ours.update(theirs)


def rebuild(name, message):
    kind = getattr(__builtins__, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(message)
        except Exception:
            pass  # such as UnicodeDecodeError, which wants five arguments
    return SubmissionRaised("%s: %s" % (name, message))


class Local:
    """The submission's function, in this process. `probe` sees whatever it returns."""

    trouble = None

    def __init__(self, entry, source, probe):
        self.gone, self.function, self.probe = None, None, probe
        names = {"__name__": "submission"}
        try:
            exec(compile(source, "<submission>", "exec"), names)
            self.function = names[entry]
        except BaseException as error:
            self.gone = "%s: %s" % (type(error).__name__, error)

    def __call__(self, *args, **kwargs):
        if self.gone:
            raise SubmissionGone(self.gone)
        result = self.function(*args, **kwargs)
        self.probe(True, result, None)  # what the tests compare it with, only they know
        return result


class Report:
    """Events for the host. Values are our own strings and numbers."""

    def __init__(self, nonce):
        self.out, self.nonce, self.seq = os.fdopen(3, "wb"), nonce, 0
        self.counts, self.canaries, self.running = {}, {}, ""
        self.messages = assay_messages.Messages()

    def event(self, name, **fields):
        parts = ['"seq":%d,"event":%s' % (self.seq, quote(name))]
        parts += ['"%s":%s' % (key, value) for key, value in fields.items()]
        self.seq += 1
        self.out.write(("{%s}\n" % ",".join(parts)).encode())
        self.out.flush()

    def start(self, names):
        self.event("start", nonce=quote(self.nonce), collected=array(names))

    def lie(self, evidence):
        self.event("conflict", id=quote(self.running), evidence=quote(evidence))

    def test(self, name, status, seconds, message):
        if name in self.canaries:
            return self.event("canary", kind=quote(self.canaries[name]), id=quote(name), status=quote(status))
        self.counts[status] = self.counts.get(status, 0) + 1
        self.event(
            "test",
            id=quote(name),
            status=quote(status),
            duration_s="%.6f" % seconds,
            message=quote(self.messages.cut(message)),
        )

    def end(self, code):
        counts = ",".join("%s:%d" % (quote(k), v) for k, v in self.counts.items())
        self.event("end", nonce=quote(self.nonce), exit=code, counts="{%s}" % counts)


def array(names):
    return "[%s]" % ",".join(quote(name) for name in names)


def main():
    lines = sys.stdin.buffer.read().decode("utf-8", "replace").split("\n", 3)
    nonce, entry, mode = lines[:3]
    report = Report(nonce)
    names = {"__name__": "tests", "__file__": "/assay/tests.py"}
    for path in ("/assay/helpers.py", "/assay/tests.py"):
        if os.path.exists(path):
            with open(path, "rb") as file:
                exec(compile(file.read(), path, "exec"), names)
    if "check" in names:
        tests = ["check"]
    else:
        tests = [name for name in names if name.startswith("test_")]
    report.start(tests)
    submission = Remote() if mode == "sealed" else guarded(report, entry, lines[3], tests, names)
    names.setdefault(entry, submission)  # a HumanEval check calls its function by name, too
    for name in tests:
        report.running = name
        started = time.perf_counter()
        status, message = "passed", ""
        submission.trouble = None
        try:
            names[name](submission)
            if submission.trouble:
                status, message = "error", submission.trouble
        except AssertionError as error:
            status, message = "failed", where(error) or "AssertionError"
        except (SubmissionGone, SubmissionRaised, wire.CannotCross) as error:
            status, message = "error", say(error)
        except Exception as error:
            status, message = "error", "%s: %s" % (type(error).__name__, say(error))
        report.test(name, status, time.perf_counter() - started, message)
    failed = int(any(status != "passed" for status in report.counts))
    report.end(failed)
    report.out.flush()
    os._exit(failed)


def guarded(report, entry, source, tests, names):
    """Returns the submission's function, in this process, and adds canaries to the tests."""
    sys.path.insert(0, "/assay")
    import assay_canary

    sys.path.pop(0)
    taken = {entry, *names}
    kinds = {"assert": assay_canary.ASSERT, "error": assay_canary.ERROR, "true": assay_canary.TRUE}
    for kind, body in kinds.items():
        name = assay_canary.name_like(tests[0] if tests else "check", taken)
        exec(compile(assay_canary.source(body, name), "<tests>", "exec"), names)
        report.canaries[name] = kind
        tests.insert(assay_canary.below(len(tests) + 1), name)
    probe = assay_canary.Probe(report.lie, assay_canary.Origin(os.getcwd(), None))
    probe.trusted = [names]
    return Local(entry, source, probe)


def say(error):
    """Returns the text of `error`, which may hold a value that has none, such as a huge int."""
    try:
        return str(error)
    except Exception:
        return "an error without a text"


def where(error):
    """Returns the line of the tests that `error` came from, with its text."""
    line, trace = None, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == "/assay/tests.py":
            line = trace.tb_lineno
        trace = trace.tb_next
    if line is None:
        return say(error)
    with open("/assay/tests.py", encoding="utf-8", errors="replace") as file:
        text = file.read().split("\n")[line - 1].strip()
    return "line %d: %s %s" % (line, text, say(error))


main()
