"""A Python interpreter that a snapshot is taken of, and how it goes on from there.

It runs as `python OPTIONS -c THIS MODULE...`, where our own programs lie in /assay: imports the
modules and compiles the programs. Its first output line is the address of `resume`; then come the
names of the modules that it holds, one a line, a blank before those of the standard library. The host
takes its snapshot where the clock is asked for after that. Every run of a command begins as a copy
and goes on with a call of `resume`, which reads the command from a descriptor: the working
directory, then the arguments, NUL between them.

What follows is what `python OPTIONS SCRIPT ARG...` or `python OPTIONS -c CODE ARG...` would do.
"""

import builtins
import gc
import os
import sys
import time

OURS = "/assay"
COMMAND = 64
COMPILED = {}


def preload(modules):
    sys.path.insert(0, OURS)
    for module in modules:
        __import__(module)
    sys.path.pop(0)
    try:
        names = os.listdir(OURS)
    except OSError:
        names = ()
    for name in names:
        path = "%s/%s" % (OURS, name)
        with open(path, "rb") as file:
            source = file.read()
        COMPILED[path, source] = compile(source, path, "exec")


def held():
    names = {name.partition(".")[0] for name in sys.modules} - {"__main__"}
    names -= set(sys.builtin_module_names)
    return [" " + name if name in sys.stdlib_module_names else name for name in sorted(names)]


def command():
    data = b""
    while True:
        piece = os.read(COMMAND, 1 << 16)
        if not piece:
            break
        data += piece
    os.close(COMMAND)
    cwd, *argv = data.decode("utf-8", "surrogateescape").split("\0")
    os.chdir(cwd)
    return argv


def begin(argv):
    """Makes the command the main module; returns its code and its names."""
    sys.orig_argv[:] = argv
    options = next(n for n, argument in enumerate(argv) if n and (argument == "-c" or argument[0] != "-"))
    script, rest = argv[options], argv[options + 1 :]
    main = type(sys)("__main__")
    main.__annotations__, main.__builtins__ = {}, builtins
    sys.modules["__main__"] = main
    if script == "-c":
        sys.argv[:] = ["-c"] + rest[1:]
        return compile(rest[0], "<string>", "exec"), vars(main)
    sys.argv[:] = [script] + rest
    if not sys.flags.safe_path:
        sys.path[0] = script.rpartition("/")[0]
    main.__file__, main.__cached__ = script, None
    try:
        with open(script, "rb") as file:
            source = file.read()
    except OSError as error:
        say("%s: can't open file %r: [Errno %d] %s\n" % (argv[0], script, error.errno, error.strerror))
        raise SystemExit(2)
    code = COMPILED.get((script, source))
    COMPILED.clear()
    return code or compile(source, script, "exec"), vars(main)


def say(text):
    try:
        sys.stderr.write(text)
    except BaseException:
        pass


def status(error):
    """Returns the exit status for what a `SystemExit` holds, and prints it where that is due."""
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    say("%s\n" % code)
    return 1


def end(names):
    """Does what an interpreter does at its end; returns whether output was lost."""
    threading = sys.modules.get("threading")
    if threading:
        threading._shutdown()
    atexit = sys.modules.get("atexit")
    if atexit:
        atexit._run_exitfuncs()
    names.clear()
    lost = False
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            lost = True
    return lost


def resume(exit=os._exit):
    names, result = {}, 1
    try:
        try:
            code, names = begin(command())
            exec(code, names)
            result = 0
        except SystemExit as error:
            result = status(error)
        except BaseException as error:
            trace = error.__traceback__
            while trace and trace.tb_frame.f_globals is globals():
                trace = trace.tb_next
            sys.last_exc, sys.last_type, sys.last_value, sys.last_traceback = error, type(error), error, trace
            sys.excepthook(type(error), error.with_traceback(trace), trace)
        if end(names):
            result = 120
    finally:
        exit(result)


preload(sys.argv[1:])
del sys.argv[1:]
if not sys.flags.safe_path:
    sys.path[0] = ""
gc.collect()
gc.freeze()
sys.stdout.write("%d\n%s\n" % (id(resume), "\n".join(held())))
sys.stdout.flush()
time.time()
