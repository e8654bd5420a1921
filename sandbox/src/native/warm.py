"""A Python interpreter that has imported what it was told to, and forks into sandboxes.

A slot starts it as `python OPTIONS /assay/warm.py MODULE...`, in the image and never with a work
tree. Descriptor 3 is a socket of datagrams. The first datagram to us brings the files by which to
join the slot's control groups, where forks then are from birth on. Each later one is a command for
a sandbox that is ready and lacks a process; its layout is that of `request` in warm.rs. Each of ours
begins with a letter:

    +            ready: the modules are imported; or, the second time, the groups are joined
    - why        no: not able to start, or this command had better be executed
    F pid        forked; what follows is the fork's
    S time       about to run the script, at this time of the monotonic clock, in nanoseconds
    X errno step the fork could not enter the sandbox
    E status     the fork is dead, with its CPU nanoseconds and most resident bytes: the last word
                 on a command that was not refused

The fork gives up every right before it reads a byte of the sandbox. It leaves this module and
becomes what `python OPTIONS SCRIPT ARG...` would be, standing just before the script's first line.
"""

import builtins
import ctypes
import fcntl
import gc
import os
import resource
import socket
import struct
import sys
import time

OURS = "/assay"
ABOVE = 200  # descriptors from here on are out of the way of those that a command gets
MAX_DATAGRAM = 48 << 10
MAX_FDS = 200
IN_FILE = 2

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
CAPABILITY_VERSION_3 = 0x20080522
# In the order in which they come: mount, network, ipc, uts, cgroup.
NAMESPACES = 0x00020000, 0x40000000, 0x08000000, 0x04000000, 0x02000000
CLONE_NEWPID = 0x20000000
OOM_SCORE = 500  # as in setup.rs

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
        self.rest, self.fds = message[1:], fds
        self.argv = [os.fsdecode(part) for part in self.list(self.bytes)]
        self.cwd = self.bytes()
        self.limits = self.list(lambda: (self.u64(), self.u64()))
        self.filter = self.bytes()
        self.names = {os.fsdecode(name) for name in self.list(self.bytes)}
        self.nested = {os.fsdecode(name) for name in self.list(self.bytes)}
        numbers = self.list(self.u64)
        first = 3 + len(numbers)
        self.stdio, self.channels = fds[:3], list(zip(fds[3:first], numbers))
        self.namespaces, self.pid_namespace = fds[first : first + 5], fds[first + 5]
        self.clocks = fds[first + 6 :]

    def u64(self):
        (number,) = struct.unpack_from("<Q", self.rest)
        self.rest = self.rest[8:]
        return number

    def bytes(self):
        length = self.u64()
        part, self.rest = self.rest[:length], self.rest[length:]
        return part

    def list(self, item):
        return [item() for _ in range(self.u64())]


def step(name, result):
    """Raises what a C call that returned `result` failed with."""
    if result != 0:
        raise Failed(name, ctypes.get_errno())


def fork(request):
    """Forks into the sandbox's process namespace; returns 0 in the fork."""
    step("enter the process namespace", libc.setns(request.pid_namespace, CLONE_NEWPID))
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
        os.closerange(3, ABOVE)
        for fd, to in moved:
            os.dup2(fd, to)
            os.close(fd)
        at = "set a resource limit"
        for number, value in request.limits:
            most = resource.getrlimit(number)[1]
            value = value if most == resource.RLIM_INFINITY else min(value, most)
            resource.setrlimit(number, (value, value))
    except OSError as error:
        raise Failed(at, error.errno)
    header, none = struct.pack("<Ii", CAPABILITY_VERSION_3, 0), bytes(24)
    step("drop the capabilities", libc.capset(header, none))
    program = ctypes.create_string_buffer(request.filter, len(request.filter))
    fprog = struct.pack("@HP", len(request.filter) // 8, ctypes.addressof(program))
    install = (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog)
    step("install the seccomp filter", libc.prctl(*install, None, None))


def receive(channel):
    message, ancillary, _, _ = channel.recvmsg(MAX_DATAGRAM, socket.CMSG_SPACE(MAX_FDS * 4))
    fds = [
        fd
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (fd,) in struct.iter_unpack("@i", data[: len(data) // 4 * 4])
    ]
    return message, fds


def clash(request):
    """Returns why the command may find other modules than a cold interpreter, or None."""
    held = {name.partition(".")[0] for name in sys.modules} - {"__main__"}
    held -= set(sys.builtin_module_names)
    # A package's own `types.py` is nobody's `types`; its own copy of a dependency may become one.
    shadowed = held & request.names or (held - STANDARD) & request.nested
    if shadowed:
        return "the work tree has a module `%s`, which the interpreter holds" % min(shadowed)


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


def join(groups):
    for group in groups:
        os.write(group, b"0")
        os.close(group)


COMPILED = {}
STANDARD = getattr(sys, "stdlib_module_names", frozenset())


def serve(channel):
    """Answers requests. Returns in the fork of one, with its arguments."""
    problem = preload(sys.argv[1:])
    channel.send(b"-" + problem.encode() if problem else b"+")
    join(receive(channel)[1])
    channel.send(b"+")
    while True:
        message, fds = receive(channel)
        if not message:
            os._exit(0)
        request = Request(message, fds)
        why = clash(request)
        pid = 0
        if why:
            channel.send(b"-" + why.encode("utf-8", "replace")[:1000])
        else:
            try:
                pid = fork(request)
            except Failed as failed:
                tell(channel, failed)
            else:
                if pid == 0:
                    become(request, channel)
                    return request.argv
                channel.send(struct.pack("<cQ", b"F", pid))
        # The pipes of a command end with its processes.
        for fd in request.fds:
            os.close(fd)
        if not why:
            channel.send(struct.pack("<ciQQ", b"E", *reap(pid)))


def reap(pid):
    """Returns wait status, CPU nanoseconds and most resident bytes of a fork, if there is one."""
    if not pid:
        return 0, 0, 0
    _, status, used = os.wait4(pid, 0)
    return status, int((used.ru_utime + used.ru_stime) * 1e9), used.ru_maxrss * 1024


def become(request, channel):
    try:
        enter(request)
    except Failed as failed:
        tell(channel, failed)
        os._exit(1)
    channel.send(struct.pack("<cQ", b"S", time.monotonic_ns()))
    channel.close()


def tell(channel, failed):
    name, errno = failed.args
    channel.send(struct.pack("<ci", b"X", errno) + name.encode())


def begin(argv):
    """Makes the script the main module; returns its code and its names."""
    script = argv[0]
    sys.orig_argv[:] = sys.orig_argv[: sys.orig_argv.index(__file__)] + argv
    sys.argv[:] = argv
    main = type(sys)("__main__")
    main.__file__, main.__builtins__ = script, builtins
    sys.modules["__main__"] = main
    with open(script, "rb") as file:
        source = file.read()
    code = COMPILED.get((script, source))
    COMPILED.clear()
    return code or compile(source, script, "exec"), vars(main)


channel = socket.socket(fileno=fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, ABOVE))
os.close(3)
exec(*begin(serve(channel)))
