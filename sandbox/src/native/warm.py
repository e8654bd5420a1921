"""A Python interpreter that has imported what it was told to, and forks into sandboxes.

A slot starts it as `python OPTIONS /assay/warm.py MODULE...`, in the image and never with a work
tree. Descriptor 3 is a socket of datagrams. The first datagram to us brings the files by which to
join the slot's control groups, where forks then are from birth on. Each later one is a command for
a sandbox that is ready and lacks a process; its layout is that of `request` in warm.rs. Each of ours
begins with a letter:

    + names      ready: these modules are imported (a line each; blank before the standard library's)
    J            joined
    - why        not able to start
    S time pid   the command's process, of this id in the sandbox, is about to run the script, at this
                 time of the monotonic clock, in nanoseconds
    X errno step the process could not be made; the errno may be 0
    D            done with the command, in any case, and after S or X: without them its process died

A fork enters the sandbox's process namespace, if it has one, and forks once more; the second is an orphan, which
pid 1 of the sandbox adopts as it would a child. It gives up every right before it reads a byte of
the work tree. Then it leaves this module and becomes what `python OPTIONS SCRIPT ARG...` would be,
standing just before the script's first line.
"""

import _socket
import builtins
import ctypes
import errno
import fcntl
import gc
import os
import resource
import struct
import sys
import time

OURS = "/assay"
ABOVE = 200  # descriptors from here on are out of the way of those that a command gets
MAX_DATAGRAM = 48 << 10
MAX_FDS = 200
IN_FILE = 2
OOM_SCORE = 500  # as in setup.rs

PR_SET_DUMPABLE, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 4, 22, 2
CAPABILITY_VERSION_3 = 0x20080522
LANDLOCK_RESTRICT_SELF = 446
# In the order in which they come: mount, network, ipc, uts, cgroup.
NAMESPACES = 0x00020000, 0x40000000, 0x08000000, 0x04000000, 0x02000000
CLONE_NEWPID = 0x20000000

STANDARD = getattr(sys, "stdlib_module_names", frozenset())
COMPILED = {}

libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A step of entering the sandbox failed; args: its name and the errno."""


class Request:
    """A command, and what its process needs to enter the sandbox."""

    def __init__(self, message, fds):
        if message[0] == IN_FILE:
            with open(fds.pop(), "rb") as file:
                file.seek(0)
                message = b"-" + file.read()
        self.message, self.at, self.fds = message, 1, fds
        self.argv = [os.fsdecode(part) for part in self.list(self.bytes)]
        self.cwd = self.bytes()
        self.user = self.u64()
        self.limits = self.list(lambda: (self.u64(), self.u64()))
        self.filter = self.bytes()
        numbers = self.list(self.u64)
        first = 3 + len(numbers)
        self.stdio, self.channels = fds[:3], list(zip(fds[3:first], numbers))
        # Where a sandbox has a user instead, there are none.
        self.namespaces, self.pid_namespace = fds[first : first + 5], fds[first + 5 : first + 6]
        rules = first + 6 + self.u64()
        self.rules, self.clocks = fds[first + 6 : rules], fds[rules:]

    def u64(self):
        (number,) = struct.unpack_from("<Q", self.message, self.at)
        self.at += 8
        return number

    def bytes(self):
        length = self.u64()
        self.at += length
        return self.message[self.at - length : self.at]

    def list(self, item):
        return [item() for _ in range(self.u64())]


def step(name, result):
    """Raises what a C call that returned `result` failed with."""
    if result != 0:
        raise Failed(name, ctypes.get_errno())


def fork():
    try:
        return os.fork()
    except OSError as error:
        raise Failed("fork the interpreter", error.errno)


def enter(request):
    """Makes this fork a process of the sandbox, as one that is executed there would be."""
    try:
        at = "enter the working directory"
        for namespace, kind in zip(request.namespaces, NAMESPACES):
            step("enter a namespace", libc.setns(namespace, kind))
        os.chdir(request.cwd)
        at = "start a session"
        os.setsid()
        os.umask(0o022)
        at = "stand before the interpreter when memory runs out"
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("%d" % OOM_SCORE)
        at = "reset the CPU time"
        for clock in request.clocks:
            os.write(clock, b"0")
        at = "connect stdio"
        # Their numbers may be taken by one another.
        moved = [(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE), to) for fd, to in request.channels]
        for to, fd in enumerate(request.stdio):
            os.dup2(fd, to)
        rules = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE) for fd in request.rules]
        os.closerange(3, ABOVE)
        for fd, to in moved:
            os.dup2(fd, to)
            os.close(fd)
        at = "set a resource limit"
        for number, value in request.limits:
            most = resource.getrlimit(number)[1]
            if most == resource.RLIM_INFINITY:
                most = 2**63 - 1
            resource.setrlimit(number, (min(value, most),) * 2)
        if request.user:
            at = "become the sandbox's user"
            os.setgroups([])
            os.setresgid(*(request.user,) * 3)
            os.setresuid(*(request.user,) * 3)
    except OSError as error:
        raise Failed(at, error.errno)
    for fd in rules:
        step("enter the Landlock rules", libc.syscall(LANDLOCK_RESTRICT_SELF, fd, 0))
        os.close(fd)
    header, none = struct.pack("<Ii", CAPABILITY_VERSION_3, 0), bytes(24)
    step("drop the capabilities", libc.capset(header, none))
    if request.user:
        # As after an execution, which another user's would not be.
        step("show the memory", libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
    if request.filter:
        program = ctypes.create_string_buffer(request.filter, len(request.filter))
        fprog = struct.pack("@HP", len(request.filter) // 8, ctypes.addressof(program))
        install = (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog)
        step("install the seccomp filter", libc.prctl(*install, None, None))


def receive(channel):
    message, ancillary, _, _ = channel.recvmsg(MAX_DATAGRAM, _socket.CMSG_SPACE(MAX_FDS * 4))
    fds = [
        fd
        for level, kind, data in ancillary
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
        for (fd,) in struct.iter_unpack("@i", data[: len(data) // 4 * 4])
    ]
    return message, fds


def preload(modules):
    """Imports `modules`, and compiles our own programs; returns why that is no use, or None."""
    sys.path.insert(0, OURS)
    for module in modules:
        try:
            __import__(module)
        except BaseException as error:
            return "cannot import %s: %s" % (module, error)
    sys.path.pop(0)
    for name in os.listdir(OURS):
        path = os.path.join(OURS, name)
        with open(path, "rb") as file:
            source = file.read()
        COMPILED[path, source] = compile(source, path, "exec")
    gc.collect()
    gc.freeze()


def held():
    """Returns the names of the modules that code could mean others by."""
    names = {name.partition(".")[0] for name in sys.modules} - {"__main__"}
    names -= set(sys.builtin_module_names)
    return "\n".join(" " + name if name in STANDARD else name for name in names)


def join(groups):
    for group in groups:
        os.write(group, b"0")
        os.close(group)


def serve(channel):
    """Answers requests. Returns in the process of one, with its arguments."""
    problem = preload(sys.argv[1:])
    channel.send(b"-" + problem.encode("utf-8", "replace")[:1000] if problem else b"+" + held().encode())
    join(receive(channel)[1])
    channel.send(b"J")
    while True:
        message, fds = receive(channel)
        if not message:
            os._exit(0)
        request = Request(message, fds)
        # Closed at our end when the first fork is gone, for the second to read.
        gone, going = os.pipe()
        # Closed by the second when it has said how it began, or is dead.
        begun, beginning = os.pipe()
        pid = 0
        try:
            for namespace in request.pid_namespace:
                step("enter the process namespace", libc.setns(namespace, CLONE_NEWPID))
            pid = fork()
        except Failed as failed:
            tell(channel, failed)
        else:
            if pid == 0:
                become(request, channel, gone, going, beginning)
                return request.argv
        # The pipes of a command end with its processes.
        for fd in (*request.fds, beginning):
            os.close(fd)
        if pid:
            os.waitpid(pid, 0)
        os.close(going)
        os.close(gone)
        os.read(begun, 1)
        os.close(begun)
        channel.send(b"D")


def become(request, channel, gone, going, beginning):
    """Makes the first fork the second, and that the command's process."""
    try:
        if fork() != 0:
            os._exit(0)
        os.close(going)
        os.read(gone, 1)
        beginning = fcntl.fcntl(beginning, fcntl.F_DUPFD_CLOEXEC, ABOVE)
        enter(request)
        channel.send(struct.pack("<cQi", b"S", time.monotonic_ns(), os.getpid()))
        channel.close()
        os.close(beginning)
    except Failed as failed:
        tell(channel, failed)
        os._exit(1)
    except BaseException as error:
        tell(channel, Failed("enter the sandbox: %r" % error, errno.EINVAL))
        os._exit(1)


def tell(channel, failed):
    name, number = failed.args
    channel.send(struct.pack("<ci", b"X", number) + name.encode("utf-8", "replace")[:1000])


def begin(argv):
    """Makes the script the main module; returns its code and its names."""
    script = argv[0]
    sys.orig_argv[:] = sys.orig_argv[: sys.orig_argv.index(__file__)] + argv
    sys.argv[:] = argv
    # Of folders that were not there yet, or were others: times of day don't tell them apart.
    for path in [path for path, finder in sys.path_importer_cache.items() if finder is None or path == OURS]:
        del sys.path_importer_cache[path]
    threading = sys.modules.get("threading")
    if threading:
        threading.main_thread()._set_native_id()
    main = type(sys)("__main__")
    main.__annotations__, main.__builtins__, main.__file__, main.__cached__ = {}, builtins, script, None
    sys.modules["__main__"] = main
    with open(script, "rb") as file:
        source = file.read()
    code = COMPILED.get((script, source))
    COMPILED.clear()
    return code or compile(source, script, "exec"), vars(main)


channel = _socket.socket(fileno=fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, ABOVE))
os.close(3)
exec(*begin(serve(channel)))
