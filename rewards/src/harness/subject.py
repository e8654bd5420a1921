"""Runs the submission of a sealed function task and answers calls to it.

stdin: the entry point's name in the first line, the submission's source in the rest.
fd 4: frames of wire.py. First we say ("ready",) or ("broken", message). Then, for each
(args, kwargs), we answer ("ok", result, args), ("raised", exception name, message, args) or
("stuck", message): the result can't cross. `args` are the arguments after the call, so that what
the function did to them in place can be copied back; None where nothing could have changed.

Nothing that a verdict depends on is in this process: no test, no expected value, no outcome.
"""

import os
import sys

sys.path.insert(0, "/assay")
from wire import CannotCross, receive, send  # noqa: E402

sys.path.pop(0)


def main():
    text = sys.stdin.buffer.read().decode("utf-8", "replace")
    entry, _, source = text.partition("\n")
    reader, writer = os.fdopen(4, "rb"), os.fdopen(4, "wb", closefd=False)
    names = {"__name__": "submission", "__builtins__": __builtins__}
    try:
        exec(compile(source, "<submission>", "exec"), names)
        function = names[entry]
    except KeyError:
        return send(writer, ("broken", "the submission does not define `%s`" % entry))
    except BaseException as error:  # SystemExit too: the submission ends itself, not the run
        return send(writer, ("broken", describe(error)))
    send(writer, ("ready",))
    while True:
        try:
            args, kwargs = receive(reader)
        except EOFError:
            return None
        mutable = any(type(arg) in (list, dict, set) for arg in args)
        try:
            result = function(*args, **kwargs)
            answer = ("ok", result)
        except BaseException as error:
            answer = ("raised", type(error).__name__[:80], describe(error).partition(": ")[2])
        try:
            send(writer, (*answer, args if mutable else None))
        except (CannotCross, RuntimeError) as error:
            send(writer, ("stuck", describe(error)))


def describe(error):
    try:
        return ("%s: %s" % (type(error).__name__, error))[:500]
    except BaseException:
        return "an exception that can't describe itself"


main()
sys.stdout.flush()
os._exit(0)
