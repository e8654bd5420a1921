//! Inside the new process: from fresh namespaces to a running command.
//!
//! This is pid 1 of the sandbox, a fork of its slot that executes no program itself. It prepares
//! what is the same for every job, waits for one, builds its tree, gives up every right, starts the
//! command, reaps, and exits with it; the kernel then kills whatever is left. For a session it goes on
//! as `init.rs` says.

use std::{
    convert::Infallible,
    ffi::CString,
    fmt::Write as _,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    mount::{MountFlags, mount, mount_bind, mount_remount},
    process::fchdir,
};

use super::{
    cgroup::{Role, SlotFiles},
    freeze, init,
    job::{self, Job, JobLayer, NewSession, Request},
    landlock::{self, Confinement},
    net,
    root::{self, QUIET, ROOT, in_root},
    seccomp::Filters,
    shared::{AtStep, Shared, StepError},
    sys,
    tree::{self, c_str, make_directory, open_directory, relative},
    warm::NAMESPACES,
    wire,
};

/// What pid 1 inherits from its slot.
pub(super) struct Inside<'a> {
    /// Where the job comes from: the service's message once more, with the mounts that the slot
    /// opened for it.
    pub(super) socket: OwnedFd,
    pub(super) cgroups: &'a SlotFiles,
    pub(super) shared: &'a Shared,
    /// Where the work tree will be, relative to the root.
    pub(super) workdir: &'a Path,
    /// A network namespace that nothing is in, if there is one.
    pub(super) network: Option<BorrowedFd<'a>>,
    pub(super) seccomp: &'a Filters,
    /// A descriptor of the slot's process: readable once it is dead.
    pub(super) slot: BorrowedFd<'a>,
}

/// The descriptors of a job.
struct Fds {
    /// stdin, stdout, stderr.
    stdio: Vec<OwnedFd>,
    channels: Vec<OwnedFd>,
    /// One for each directory layer: detached mounts.
    mounts: Vec<OwnedFd>,
}

/// Runs as pid 1.
pub(super) fn main(inside: &Inside<'_>) -> ! {
    match start(inside) {
        Ok(command) => {
            sys::close_everything();
            // Reaps orphans, too. The command's end is this process's end and so everybody's.
            while let Some((pid, status)) = sys::wait_any() {
                if pid == command {
                    inside.shared.set_ended(status);
                    sys::exit_now(0);
                }
            }
            sys::exit_now(1)
        }
        Err(e) => {
            inside.shared.set_failed(&e);
            sys::exit_now(1)
        }
    }
}

/// Builds the sandbox and starts the command in it, or lets an interpreter start it. Returns the
/// id of its process, which is our child.
fn start(inside: &Inside<'_>) -> Result<i32, StepError> {
    let confinement = prepare(inside)?;

    let (message, mut fds) = wire::receive_exactly(&inside.socket).at("wait for a job")?;
    if message.is_empty() {
        sys::exit_now(0);
    }
    let message = wire::job(&message, &mut fds).at("read the job")?;
    let none = || std::io::Error::from_raw_os_error(libc::EBADMSG);
    let job = match job::decode(&message) {
        Some(Request::Job(job)) => job,
        Some(Request::Session(session)) => {
            match start_session(inside, &session, fds, confinement)? {}
        }
        _ => return Err(none()).at("read the job"),
    };
    let mut channels = fds.split_off(3.min(fds.len()));
    let mounts = channels.split_off(job.channels.len().min(channels.len()));
    let fds = Fds { stdio: fds, channels, mounts };

    build_tree(&job, &fds.mounts, || Ok(()))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    enter_workdir(&job)?;
    let confinement = with_workdir(confinement, &job)?;
    let lent = confinement.as_ref().filter(|_| job.lent.is_some());
    let lent = lent.map_or(Ok(None), |confinement| confinement.share()).at("share the rules")?;
    give_up_rights(inside, &job, confinement)?;
    if job.lent.is_some()
        && let Some(adopted) = lend(inside, lent)?
    {
        return Ok(adopted);
    }
    run_command(inside, &job, &fds)
}

/// Builds a session's sandbox, hands its files to the slot, and serves it.
fn start_session(
    inside: &Inside<'_>,
    session: &NewSession<'_>,
    mut fds: Vec<OwnedFd>,
    confinement: Option<Confinement>,
) -> Result<Infallible, StepError> {
    let mounts = fds.split_off(usize::from(session.thawed).min(fds.len()));
    let records = fds.pop().map(std::fs::File::from);
    let mut files = Vec::new();
    build_tree(&session.job, &mounts, || {
        let open = |name: &str| open_directory(CWD, Path::new(name)).at("open a writable tree");
        let (work, tmp) = (open("up")?, open("tmp")?);
        if let Some(records) = &records {
            freeze::thaw(records, work.as_fd(), tmp.as_fd()).at("thaw the snapshot")?;
        }
        files.extend([work, tmp]);
        Ok(())
    })?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, "/", flags, Mode::empty()).at("open the root")?;
    let files: Vec<_> = std::iter::once(&root).chain(&files).map(AsFd::as_fd).collect();
    enter_workdir(&session.job)?;
    give_up_rights(inside, &session.job, with_workdir(confinement, &session.job)?)?;
    inside.shared.set_started(sys::now_ns());
    wire::send(&inside.socket, b"T", &files).at("hand the files over")?;
    init::serve(inside, session.job.workdir)
}

/// What the slot answers instead of a process's id when pid 1 is to execute the command.
pub(super) const EXECUTE: i32 = 0;

/// Offers this sandbox to the slot's interpreter; returns the id of the process that it forked, an
/// orphan and so our child. It gets the rules that confine it.
fn lend(inside: &Inside<'_>, rules: Option<OwnedFd>) -> Result<Option<i32>, StepError> {
    let rules: Vec<_> = rules.iter().map(AsFd::as_fd).collect();
    wire::send(&inside.socket, b"L", &rules).at("lend the sandbox")?;
    let mut answer = [0; 4];
    match wire::receive(&inside.socket, &mut answer).at("wait for the interpreter")? {
        (4, _) => Ok(Some(i32::from_le_bytes(answer)).filter(|pid| *pid != EXECUTE)),
        _ => sys::exit_now(1),
    }
}

/// The box: a tmpfs with what the command may write, where its work tree will cover it.
pub(super) const BOX: [(&str, u32); 4] =
    [("up", 0o755), ("wk", 0o755), ("tmp", 0o1777), ("shm", 0o1777)];

/// How much rather the kernel ends a sandbox's processes than others, of at most 1000.
const OOM_SCORE: &str = "500";

/// Does what needs no job: cgroups, the box, `/proc`, the root, in which the box is the current directory
/// then. Returns what confines the command but for its work tree.
fn prepare(inside: &Inside<'_>) -> Result<Option<Confinement>, StepError> {
    tie_to_slot(inside.slot)?;
    inside.cgroups.join().at("join the cgroups")?;
    sys::unshare(libc::CLONE_NEWCGROUP).at("unshare the cgroup namespace")?;
    net::enter(inside.network)?;
    let flags = QUIET | MountFlags::NOEXEC;
    let proc = in_root(ROOT, "/proc");
    mount("proc", &proc, "proc", flags, c"hidepid=invisible")
        .or_else(|_| mount("proc", &proc, "proc", flags, c""))
        .at("mount /proc")?;
    // A warm interpreter in the same group is not what to end when memory runs out. The file is
    // another's as long as we hide our memory.
    sys::set_dumpable(true).at("show the process")?;
    std::fs::write(format!("{proc}/self/oom_score_adj"), OOM_SCORE).at("set the OOM score")?;
    sys::set_dumpable(false).at("hide the process")?;

    let workdir = Path::new("/").join(inside.workdir);
    let at = Path::new(ROOT).join(inside.workdir);
    mount("tmpfs", &at, "tmpfs", QUIET, c"mode=755,size=64k,nr_inodes=32").at("mount the tmpfs")?;
    rustix::process::chdir(&at).at("enter the tmpfs")?;
    for (name, mode) in BOX {
        make_directory(name, mode).at("make a directory")?;
    }
    mount_bind("shm", in_root(ROOT, "/dev/shm")).at("bind /dev/shm")?;
    mount_bind("tmp", in_root(ROOT, "/tmp")).at("bind /tmp")?;
    for path in MASKED {
        // The kernel may lack it.
        let _ = mount_bind(in_root(ROOT, "/dev/null"), in_root(ROOT, path));
    }
    root::enter(ROOT)?;
    rustix::process::chdir(&workdir).at("enter the tmpfs")?;

    let namespaces = NAMESPACES
        .map(|name| std::fs::File::open(format!("/proc/self/ns/{name}")))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .at("open the namespaces")?;
    let counters = if inside.network.is_none() { net::counters("/proc") } else { Vec::new() };
    let fds = namespaces.iter().map(AsFd::as_fd).chain(counters.iter().map(AsFd::as_fd));
    wire::send(&inside.socket, b"N", &fds.collect::<Vec<_>>()).at("hand the namespaces over")?;
    let confinement = landlock::ruleset().at("make the Landlock rules")?;
    sys::install_seccomp(&inside.seccomp.most).at("install the seccomp filter")?;
    Ok(confinement)
}

/// Ends this process with its slot.
pub(super) fn tie_to_slot(slot: BorrowedFd<'_>) -> Result<(), StepError> {
    sys::die_with_parent().at("tie the process to its slot")?;
    // The slot may have died before that.
    let mut gone = [PollFd::from_borrowed_fd(slot, PollFlags::IN)];
    poll(&mut gone, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).at("look for the slot")?;
    if !gone[0].revents().is_empty() {
        sys::exit_now(1);
    }
    Ok(())
}

/// Mounts the work tree over the box, which is the current directory. `fill` runs when the writable
/// trees are there and nothing lies on them yet.
fn build_tree(
    job: &Job<'_>,
    mounts: &[OwnedFd],
    fill: impl FnOnce() -> Result<(), StepError>,
) -> Result<(), StepError> {
    let (own_bytes, own_inodes) = tree::own_share(job);
    let mut options = format!(
        "size={},nr_inodes={}\0",
        job.limits.disk_bytes.saturating_add(own_bytes).max(4096),
        job.limits.inodes.saturating_add(own_inodes),
    );
    mount_remount(".", QUIET, c_str(&options)).at("size the tmpfs")?;
    fill()?;

    let mut mounts = mounts.iter();
    let mut lowers = Vec::new();
    for (number, layer) in job.layers.iter().enumerate() {
        let name = format!("l{number}");
        make_directory(&name, 0o755).at("make a directory")?;
        match layer {
            JobLayer::Dir(_) => root::attach(mounts.next(), &name).at("attach a layer")?,
            JobLayer::Files(files) => tree::write_layer(number, files).at("write a files layer")?,
        }
        lowers.push(name);
    }
    let target = Path::new("/").join(relative(job.workdir));
    if lowers.is_empty() {
        mount_bind("up", &target).at("bind the work tree")?;
        return leave_box();
    }
    lowers.reverse();
    options.clear();
    let _ = write!(options, "lowerdir={},upperdir=up,workdir=wk,userxattr\0", lowers.join(":"));
    mount("overlay", &target, "overlay", QUIET, c_str(&options))
        .at("mount the work tree's overlay")?;
    leave_box()
}

/// Nothing leads to the box any more: not even this process's own directory.
fn leave_box() -> Result<(), StepError> {
    rustix::process::chdir("/").at("enter the root")
}

/// Files of `/proc` that tell about the machine what no test needs.
const MASKED: &[&str] = &["/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/timer_list"];

/// Returns the directory that a command starts in.
pub(super) fn start_directory(job: &Job<'_>) -> PathBuf {
    Path::new("/").join(relative(job.workdir)).join(relative(job.cwd))
}

fn enter_workdir(job: &Job<'_>) -> Result<(), StepError> {
    // We may still open what a command may not, through a link that its files have there: not by those
    // of `/proc`.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, start_directory(job), flags, Mode::empty(), resolve)
        .and_then(fchdir)
        .at("enter the working directory")
}

/// Returns the resource limits that depend on the job.
pub(super) fn resources(job: &Job<'_>, cgroups: &SlotFiles, shared: &Shared) -> Vec<(u32, u64)> {
    let limits = &job.limits;
    let cpu_seconds = limits.cpu_ns.div_ceil(1_000_000_000).saturating_add(2);
    // With a pids cgroup the process limit is a backstop, and refusals are counted there. Else pid 1
    // counts, too.
    let spare = if cgroups.has(Role::PidsMax) { 64 } else { 1 + shared.outside() };
    let mut resources = vec![
        (libc::RLIMIT_FSIZE, limits.disk_bytes),
        (libc::RLIMIT_CPU, cpu_seconds),
        (libc::RLIMIT_NPROC, limits.pids.saturating_add(spare)),
    ];
    if !cgroups.has(Role::MemoryMax) {
        // The watch looks at the sum of all processes; this holds one that outruns it.
        let bytes = limits.memory_bytes.saturating_mul(2).saturating_add(64 << 20);
        resources.push((libc::RLIMIT_DATA, bytes));
    }
    resources
}

/// Adds the work tree to what may be written.
fn with_workdir(
    confinement: Option<Confinement>,
    job: &Job<'_>,
) -> Result<Option<Confinement>, StepError> {
    let workdir = Path::new("/").join(relative(job.workdir));
    let confinement = confinement.map(|confinement| confinement.with_workdir(&workdir));
    confinement.transpose().at("add a Landlock rule")
}

fn give_up_rights(
    inside: &Inside<'_>,
    job: &Job<'_>,
    confinement: Option<Confinement>,
) -> Result<(), StepError> {
    for (resource, value) in resources(job, inside.cgroups, inside.shared) {
        sys::limit_resource(resource, value, value).at("set a resource limit")?;
    }
    confinement.map_or(Ok(()), Confinement::enter).at("enter the Landlock rules")?;
    sys::drop_capabilities().at("drop the capabilities")?;
    sys::install_seccomp(&inside.seccomp.rest).at("install the seccomp filter")
}

/// Puts descriptors in their places and starts the command.
fn run_command(inside: &Inside<'_>, job: &Job<'_>, fds: &Fds) -> Result<i32, StepError> {
    // Out of the way of the numbers that channels ask for.
    let channels = fds
        .channels
        .iter()
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 128))
        .collect::<rustix::io::Result<Vec<_>>>()
        .at("move a channel")?;
    let usage = inside.cgroups.get(Role::CpuUsage).map(rustix::io::dup).transpose();
    for (number, fd) in fds.stdio.iter().enumerate() {
        sys::dup_to(fd.as_fd(), number as i32).at("connect stdio")?;
    }
    sys::close_on_exec_from(3).at("close descriptors")?;
    let strings =
        |items: &[&[u8]]| items.iter().map(|s| CString::new(*s)).collect::<Result<Vec<_>, _>>();
    let nul = "prepare the arguments";
    let argv = strings(&job.argv).map_err(std::io::Error::other).at(nul)?;
    let env = strings(&job.env).map_err(std::io::Error::other).at(nul)?;
    let program = argv.first().cloned().unwrap_or_default();
    let (argv, env) = (sys::CStrings::new(argv), sys::CStrings::new(env));

    // From here on the command's time counts.
    if let Ok(Some(usage)) = usage {
        let _ = rustix::io::pwrite(&usage, b"0", 0);
    }
    // `dup_to` may now replace any descriptor below 128: none of them is used again.
    for (channel, number) in channels.iter().zip(&job.channels) {
        sys::dup_to(channel.as_fd(), *number).at("connect a channel")?;
    }
    inside.shared.set_started(sys::now_ns());
    match sys::spawn(&program, &argv, &env) {
        Ok(pid) => Ok(pid),
        Err(e) => {
            // As a shell does: a command that can't be executed is one that failed.
            let missing = e.kind() == std::io::ErrorKind::NotFound;
            let text = format!("cannot execute {}: {e}\n", program.to_string_lossy());
            let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
            inside.shared.set_ended(if missing { 127 } else { 126 } << 8);
            sys::exit_now(0)
        }
    }
}

/// The flags that pid 1 is cloned with.
pub(super) const CLONED: i32 = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
