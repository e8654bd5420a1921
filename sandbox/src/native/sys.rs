//! The system calls that neither `rustix` nor the standard library offers in a safe form.
//!
//! Every `unsafe` of the backend that is a plain system call lives here.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// Turns the result of a C call into a `Result`.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Which of the two processes returns from [`clone3`].
pub(crate) enum Cloned {
    /// The new process.
    Child,
    /// The caller: a descriptor of the new process, and its id.
    Parent { pidfd: OwnedFd, pid: i32 },
}

/// Makes a process like `fork` does, with namespace `flags` and, where given, in a v2 cgroup.
///
/// # Safety
///
/// The caller's process must have one thread: another could hold a lock that the child then waits
/// for in vain.
pub(crate) unsafe fn clone3(flags: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: `clone_args` is plain old data, for which zeros mean "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (flags | libc::CLONE_PIDFD) as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` outlives the call and asks for no shared memory and no new stack, so the child
    // goes on from here on its own copy of everything.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel stored a new descriptor there that nobody else knows.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pidfd, pid: pid as i32 })
}

/// Makes a process as `fork` does, where the filter refuses [`clone3`]. Returns its id, or `None` in the
/// new one.
///
/// # Safety
///
/// As for [`clone3`].
pub(crate) unsafe fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the caller has one thread, so the child finds no lock held.
    let pid = check(unsafe { libc::fork() }.into())?;
    Ok((pid != 0).then_some(pid as i32))
}

/// Makes a process that shares this one's memory and calls `child` there; returns its id once it has
/// executed a program or ended. Nothing is copied, and what `child` writes down can be read here.
///
/// # Safety
///
/// The caller's process must have one thread, and `child` must not unwind.
pub(crate) unsafe fn vfork(mut child: &mut dyn FnMut()) -> io::Result<i32> {
    const STACK: usize = 256 << 10;
    extern "C" fn call(child: *mut libc::c_void) -> libc::c_int {
        // SAFETY: it points to the variable below, which waits for us to be done with it.
        unsafe { (*child.cast::<&mut dyn FnMut()>())() };
        1
    }
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the new process has a stack of its own, whose end it starts from; this one stands
    // still until the new one needs neither that nor `child` any more.
    let pid = unsafe {
        let end = stack.as_mut_ptr_range().end.cast();
        libc::clone(call, end, flags, std::ptr::from_mut(&mut child).cast())
    };
    check(pid.into()).map(|pid| pid as i32)
}

/// What a process and the children that it waited for used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) cpu_ns: u64,
    /// Resident memory of the largest of them.
    pub(crate) largest_bytes: u64,
}

impl Used {
    /// Adds what another used.
    pub(crate) fn add(&mut self, other: Self) {
        self.cpu_ns += other.cpu_ns;
        self.largest_bytes = self.largest_bytes.max(other.largest_bytes);
    }
}

/// Waits for the process behind `pidfd`.
pub(crate) fn wait_pidfd(pidfd: BorrowedFd<'_>) -> io::Result<Used> {
    // SAFETY: both are plain old data.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `info` and `usage` outlive the call. The system call, unlike libc's function,
        // tells the usage.
        let result = check(unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PIDFD,
                pidfd.as_raw_fd(),
                &raw mut info,
                libc::WEXITED,
                &raw mut usage,
            )
        });
        match result {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        return Ok(used(&usage));
    }
}

fn used(usage: &libc::rusage) -> Used {
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
    Used {
        cpu_ns: ns(usage.ru_utime) + ns(usage.ru_stime),
        largest_bytes: usage.ru_maxrss as u64 * 1024,
    }
}

/// Waits for any child and returns its id and raw wait status; `None` when there is no child.
pub(crate) fn wait_any() -> Option<(i32, i32)> {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if pid > 0 {
            return Some((pid, status));
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

/// Buries a child that has ended, if there is one: its id, its raw wait status and what it used.
pub(crate) fn reap() -> Option<(i32, i32, Used)> {
    let mut status = 0;
    // SAFETY: plain old data.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `status` and `usage` outlive the call.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
    (pid > 0).then(|| (pid, status, used(&usage)))
}

/// Returns a descriptor, `least` or above, that is readable when a child of this process has ended,
/// until [`take_signals`].
pub(crate) fn child_signals(least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the set is plain old data, initialised before use, and outlives the calls; the kernel
    // makes the descriptors for us, and the first is closed when its owner is dropped.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()).into())?;
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let fd = check(libc::signalfd(-1, &raw const set, flags).into())?;
        let first = OwnedFd::from_raw_fd(fd as RawFd);
        Ok(rustix::io::fcntl_dupfd_cloexec(&first, least)?)
    }
}

/// Forgets the signals behind a descriptor of [`child_signals`].
pub(crate) fn take_signals(fd: BorrowedFd<'_>) {
    let mut buffer = [0; size_of::<libc::signalfd_siginfo>()];
    while rustix::io::read(fd, &mut buffer).is_ok() {}
}

/// Sends SIGKILL to every process that this one may signal, but not to itself or to pid 1.
pub(crate) fn kill_all() {
    // SAFETY: sends signals, touches no memory.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Kinds of System V objects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IpcObject {
    SharedMemory,
    Semaphores,
    Messages,
}

/// Removes a System V object.
pub(crate) fn remove_ipc(kind: IpcObject, id: i32) -> io::Result<()> {
    // SAFETY: removal passes no memory.
    let result = unsafe {
        match kind {
            IpcObject::SharedMemory => libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()),
            IpcObject::Semaphores => libc::semctl(id, 0, libc::IPC_RMID),
            IpcObject::Messages => libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()),
        }
    };
    check(result.into()).map(drop)
}

/// Sends `signal` to the process group `group`; to every process that this one may signal but
/// itself, where that is 1.
pub(crate) fn signal_group(group: i32, signal: i32) {
    // SAFETY: sends a signal, touches no memory.
    unsafe { libc::kill(-group, signal) };
}

/// Ends the process at once, without running anything of the standard library's.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: always sound; nothing of this process is used afterwards.
    unsafe { libc::_exit(status) }
}

/// Sends SIGKILL to the process `pid`, if it is there.
pub(crate) fn kill_pid(pid: i32) {
    // SAFETY: sends a signal, touches no memory.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Sends SIGKILL to the process behind `pidfd`, if it still runs.
pub(crate) fn kill_pidfd(pidfd: BorrowedFd<'_>) {
    // SAFETY: passes no memory (the null `siginfo` means a plain kill).
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
}

/// Opens a descriptor of the process `pid`.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: passes no memory.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Enters the namespace behind `fd`, which must be of `kind` (a `CLONE_NEW...` flag).
pub(crate) fn setns(fd: BorrowedFd<'_>, kind: i32) -> io::Result<()> {
    // SAFETY: passes no memory.
    check(unsafe { libc::setns(fd.as_raw_fd(), kind) }.into()).map(drop)
}

/// Leaves the namespaces in `flags` for fresh ones.
pub(crate) fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: only namespace flags are passed: no memory or descriptor table changes owner.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// Sets all user and group ids of this process; drops supplementary groups where that is allowed.
pub(crate) fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: plain system calls; this process has one thread, so no other one keeps old ids. The
    // raw calls avoid libc's broadcast to threads, which there are none of.
    unsafe {
        // Denied to ordinary users, whose groups then stay: they are unmapped inside.
        libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>());
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// Sets the user and group that this process acts as; it stays what it was besides, and can go back.
pub(crate) fn set_effective_user(id: u32) -> io::Result<()> {
    const KEEP: u32 = u32::MAX;
    // SAFETY: as in `become_user`. Only root may change the group, so it comes first on the way out
    // and last on the way back.
    unsafe {
        let group = || check(libc::syscall(libc::SYS_setresgid, KEEP, id, KEEP));
        if id != 0 {
            group()?;
        }
        check(libc::syscall(libc::SYS_setresuid, KEEP, id, KEEP))?;
        if id == 0 {
            group()?;
        }
    }
    Ok(())
}

/// Becomes a user whose programs can become any other: the capabilities for that stay with them.
pub(crate) fn become_user_with_identity_capabilities(id: u32) -> io::Result<()> {
    const CAP_SETGID: u64 = 6;
    const CAP_SETUID: u64 = 7;
    let header = CapabilityHeader { version: CAPABILITIES_3, pid: 0 };
    let both = 1 << CAP_SETGID | 1 << CAP_SETUID;
    // Effective, permitted, inheritable; each low half first in its triple.
    let sets: [u32; 6] = [both, both, both, 0, 0, 0];
    prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0)?;
    become_user(id, id)?;
    // SAFETY: version 3 reads a header and two triples of 32-bit words, which both are.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) })?;
    for capability in [CAP_SETGID, CAP_SETUID] {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability, 0)?;
    }
    Ok(())
}

/// Calls `prctl` with integer arguments.
fn prctl(option: i32, a: u64, b: u64, c: u64) -> io::Result<()> {
    // SAFETY: only options that take integers are passed (callers are in this file).
    check(unsafe { libc::prctl(option, a, b, c, 0) }.into()).map(drop)
}

/// Has the kernel send SIGKILL to this process when its parent dies.
pub(crate) fn die_with_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0, 0)
}

/// Shows this process's memory and `/proc` entries to others of the same user, or hides them.
pub(crate) fn set_dumpable(dumpable: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into(), 0, 0)
}

/// No program that this process executes can gain privileges.
pub(crate) fn set_no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0)
}

/// Empties the bounding and ambient capability sets: nothing executed from now on has any.
pub(crate) fn drop_bounding_capabilities() -> io::Result<()> {
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_DROP, capability, 0, 0) {
            // Above the last capability that this kernel knows.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        }
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0, 0)
}

/// Empties the effective, permitted and inheritable capability sets.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITIES_3, pid: 0 };
    let none = [0u32; 6];
    // SAFETY: version 3 reads a header and two triples of 32-bit words, which both are.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }).map(drop)
}

/// Lets the program that this process executes next enter namespaces of its user namespace: the one
/// capability for that and `CAP_SYS_CHROOT`, which the mount namespace also asks for.
pub(crate) fn keep_namespace_capabilities() -> io::Result<()> {
    for capability in [CAP_SYS_CHROOT, CAP_SYS_ADMIN] {
        let raise = libc::PR_CAP_AMBIENT_RAISE as u64;
        prctl(libc::PR_CAP_AMBIENT, raise, capability, 0)?;
    }
    Ok(())
}

/// Makes the capabilities of [`keep_namespace_capabilities`] inheritable, which an empty bounding
/// set forbids later. They pass to no program by that alone.
pub(crate) fn allow_namespace_capabilities() -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITIES_3, pid: 0 };
    // Effective, permitted, inheritable; each low half first in its triple.
    let mut sets = [0u32; 6];
    // SAFETY: version 3 has two triples of 32-bit words, which the kernel fills in or reads.
    unsafe {
        check(libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()))?;
        sets[2] |= 1 << CAP_SYS_CHROOT | 1 << CAP_SYS_ADMIN;
        check(libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr())).map(drop)
    }
}

const CAP_SYS_CHROOT: u64 = 18;
const CAP_SYS_ADMIN: u64 = 21;
const CAPABILITIES_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// Returns a compiled seccomp filter as the kernel reads it.
pub(crate) fn bytes_of(program: &[seccompiler::sock_filter]) -> &[u8] {
    // SAFETY: a `sock_filter` is two bytes and a half word in eight bytes, without padding.
    unsafe { std::slice::from_raw_parts(program.as_ptr().cast(), size_of_val(program)) }
}

/// Installs a compiled seccomp filter for this process and its descendants.
pub(crate) fn install_seccomp(program: &[seccompiler::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
    // SAFETY: `program` points to `len` instructions that outlive the call; the kernel only reads
    // them, and seccompiler's `sock_filter` has the layout of the kernel's.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    })
    .map(drop)
}

/// Sets a resource limit, never above the hard limit in force.
pub(crate) fn limit_resource(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives both calls.
    unsafe {
        check(libc::getrlimit(resource as _, &raw mut limit).into())?;
        let hard = hard.min(limit.rlim_max);
        limit = libc::rlimit { rlim_cur: soft.min(hard), rlim_max: hard };
        check(libc::setrlimit(resource as _, &raw const limit).into()).map(drop)
    }
}

/// Makes the detached mount behind `tree` read-only, without set-user-id programs and devices,
/// and, where `ids` is given, with the id mapping of that user namespace.
pub(crate) fn seal_mount(tree: BorrowedFd<'_>, ids: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    if let Some(ids) = ids {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = ids.as_raw_fd() as u64;
    }
    // SAFETY: path and `attr` outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Returns the monotonic clock in nanoseconds: the same for all processes.
pub(crate) fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call, which can't fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Switches the loopback interface of this network namespace on.
pub(crate) fn loopback_up() -> io::Result<()> {
    // SAFETY: `ifreq` is plain old data; the descriptor is new and ours; `request` outlives the
    // call, which reads the interface's name and flags alone.
    unsafe {
        let fd =
            check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).into())?;
        let socket = OwnedFd::from_raw_fd(fd as RawFd);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request).into())
            .map(drop)
    }
}

/// Makes `from` also known as descriptor `to`, which the programs executed later inherit.
pub(crate) fn dup_to(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    // SAFETY: whoever calls this owns the low descriptor numbers of a process about to execute
    // another program, so no `OwnedFd` in use is replaced.
    check(unsafe { libc::dup2(from.as_raw_fd(), to) }.into()).map(drop)
}

/// Lets no descriptor come out of a Unix socket any more: its sender gets an error. Since Linux 6.16.
pub(crate) fn refuse_rights(socket: BorrowedFd<'_>) -> io::Result<()> {
    const SO_PASSRIGHTS: i32 = 83;
    let no = 0i32;
    // SAFETY: `no` outlives the call, which reads as many bytes as it has.
    check(
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PASSRIGHTS,
                (&raw const no).cast(),
                size_of::<i32>() as u32,
            )
        }
        .into(),
    )
    .map(drop)
}

/// Whether [`refuse_rights`] works here.
pub(crate) fn can_refuse_rights() -> bool {
    std::os::unix::net::UnixStream::pair()
        .is_ok_and(|(one, _)| refuse_rights(std::os::fd::AsFd::as_fd(&one)).is_ok())
}

/// Marks all descriptors from `first` on to be closed on execution.
pub(crate) fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: closes nothing now, so no `OwnedFd` is invalidated.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Closes every descriptor of a process that will use none any more.
pub(crate) fn close_everything() {
    close_range(0, u32::MAX);
}

/// Closes the descriptors from `first` to `last`.
pub(crate) fn close_range(first: u32, last: u32) {
    // SAFETY: the caller (pid 1 of a sandbox) uses none of them afterwards: whatever it needs it has
    // moved elsewhere, and it ends without dropping what it inherited.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Strings in the form that `execve` takes them.
pub(crate) struct CStrings {
    _owned: Vec<CString>,
    pointers: Vec<*mut libc::c_char>,
}

impl CStrings {
    /// Copies `strings`.
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers =
            strings.iter().map(|s| s.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect();
        Self { _owned: strings, pointers }
    }
}

/// Starts `program` in a session of its own, with all signals at their defaults.
///
/// The child shares this process's memory until it executes, so nothing is copied.
pub(crate) fn spawn(program: &CStr, argv: &CStrings, env: &CStrings) -> io::Result<i32> {
    const FLAGS: i32 = libc::POSIX_SPAWN_SETSIGDEF
        | libc::POSIX_SPAWN_SETSIGMASK
        | libc::POSIX_SPAWN_SETSID as i32;
    let mut pid = 0;
    // SAFETY: all structures are initialised by their init functions before use and live until the
    // call returns; `argv` and `env` end in null and own what they point to.
    let error = unsafe {
        let mut attr = std::mem::zeroed::<libc::posix_spawnattr_t>();
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::posix_spawnattr_init(&raw mut attr);
        libc::sigfillset(&raw mut all);
        libc::sigemptyset(&raw mut none);
        libc::posix_spawnattr_setsigdefault(&raw mut attr, &raw const all);
        libc::posix_spawnattr_setsigmask(&raw mut attr, &raw const none);
        libc::posix_spawnattr_setflags(&raw mut attr, FLAGS as libc::c_short);
        let error = libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            std::ptr::null(),
            &raw const attr,
            argv.pointers.as_ptr(),
            env.pointers.as_ptr(),
        );
        libc::posix_spawnattr_destroy(&raw mut attr);
        error
    };
    if error == 0 { Ok(pid) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Executes `program` in the place of this one, with all signals at their defaults; returns why it
/// could not.
pub(crate) fn execute(program: &CStr, argv: &CStrings, env: &CStrings) -> io::Error {
    // SAFETY: `argv` and `env` end in null and own what they point to; the signal set is
    // initialised before use; defaults call nothing of ours.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::execve(program.as_ptr(), argv.pointers.as_ptr().cast(), env.pointers.as_ptr().cast());
    }
    io::Error::last_os_error()
}

/// Registers a descriptor, made non-blocking, with the tokio runtime around.
pub(crate) fn watch(
    fd: OwnedFd,
    interest: tokio::io::Interest,
) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, which the returned
    // value owns and does last.
    Ok(unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, interest) }?)
}
