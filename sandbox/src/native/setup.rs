//! Inside the new process: from fresh namespaces to a running command.
//!
//! This is pid 1 of the sandbox, a fork of its slot that executes no program itself. It prepares
//! what is the same for every job, waits for one, builds its tree, gives up every right, starts the
//! command, reaps, and exits with it; the kernel then kills whatever is left. For a session it goes on
//! as `init.rs` says.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    convert::Infallible,
    ffi::{CStr, CString, OsStr, OsString},
    fmt::Write as _,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, mkdirat, mknodat, openat, openat2,
        statat, symlinkat,
    },
    io::Errno,
    mount::{
        MountFlags, MoveMountFlags, UnmountFlags, mount, mount_bind, mount_move, mount_remount,
        move_mount, unmount,
    },
};

use super::{
    cgroup::{Role, SlotFiles},
    freeze, init,
    job::{self, Job, JobEntry, JobLayer, NewSession, Request},
    landlock::{self, Confinement},
    shared::{AtStep, Shared, StepError},
    sys,
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
    pub(super) seccomp: &'a [seccompiler::sock_filter],
    /// A descriptor of the slot's process: readable once it is dead.
    pub(super) slot: BorrowedFd<'a>,
}

/// The descriptors of a job.
struct Fds {
    /// stdin, stdout, stderr.
    stdio: Vec<OwnedFd>,
    channels: Vec<OwnedFd>,
    /// Those of the image, then each directory layer: detached mounts.
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
    prepare(inside)?;

    let mut buffer = vec![0; wire::MAX_DATAGRAM];
    let (length, mut fds) = wire::receive(&inside.socket, &mut buffer).at("wait for a job")?;
    if length == 0 {
        sys::exit_now(0);
    }
    let message = wire::job(&buffer[..length], &mut fds).at("read the job")?;
    let none = || std::io::Error::from_raw_os_error(libc::EBADMSG);
    let job = match job::decode(&message) {
        Some(Request::Job(job)) => job,
        Some(Request::Session(session)) => match start_session(inside, &session, fds)? {},
        _ => return Err(none()).at("read the job"),
    };
    let mut channels = fds.split_off(3.min(fds.len()));
    let mounts = channels.split_off(job.channels.len().min(channels.len()));
    let fds = Fds { stdio: fds, channels, mounts };

    rustix::process::umask(Mode::empty());
    build_tree(&job, &fds.mounts, || Ok(()))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    enter_workdir(&job)?;
    let confinement = confinement(&job)?;
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
) -> Result<Infallible, StepError> {
    let mounts = fds.split_off(usize::from(session.thawed).min(fds.len()));
    let records = fds.pop().map(std::fs::File::from);
    let mut files = Vec::new();
    rustix::process::umask(Mode::empty());
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
    wire::send(&inside.socket, b"T", &files).at("hand the files over")?;
    enter_workdir(&session.job)?;
    give_up_rights(inside, &session.job, confinement(&session.job)?)?;
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

/// What the command may write, and what its tree is mounted from.
const BOX: [(&str, u32); 7] = [
    ("skel", 0o755),
    ("image", 0o755),
    ("up", 0o755),
    ("wk", 0o755),
    ("proc", 0o755),
    ("tmp", 0o1777),
    ("shm", 0o1777),
];

/// How much rather the kernel ends a sandbox's processes than others, of at most 1000.
const OOM_SCORE: &str = "500";

/// Does what needs no job: cgroups, the one tmpfs that all writable trees share, `/proc`.
fn prepare(inside: &Inside<'_>) -> Result<(), StepError> {
    tie_to_slot(inside.slot)?;
    inside.cgroups.join().at("join the cgroups")?;
    sys::unshare(libc::CLONE_NEWCGROUP).at("unshare the cgroup namespace")?;
    rustix::process::umask(Mode::empty());
    lay_out_box(c"mode=755,size=64k,nr_inodes=32")?;
    let flags = QUIET | MountFlags::NOEXEC;
    mount("proc", "proc", "proc", flags, c"hidepid=invisible")
        .or_else(|_| mount("proc", "proc", "proc", flags, c""))
        .at("mount /proc")?;
    // A warm interpreter in the same group is not what to end when memory runs out. The file is
    // another's as long as we hide our memory.
    sys::set_dumpable(true).at("show the process")?;
    std::fs::write("proc/self/oom_score_adj", OOM_SCORE).at("set the OOM score")?;
    sys::set_dumpable(false).at("hide the process")?;
    let namespaces = NAMESPACES
        .map(|name| std::fs::File::open(format!("proc/self/ns/{name}")))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .at("open the namespaces")?;
    let fds: Vec<_> = namespaces.iter().map(AsFd::as_fd).collect();
    wire::send(&inside.socket, b"N", &fds).at("hand the namespaces over")
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

/// Mounts a tmpfs with the folders of [`BOX`] and enters it.
fn lay_out_box(options: &CStr) -> Result<(), StepError> {
    mount("tmpfs", "/box", "tmpfs", QUIET, options).at("mount the tmpfs")?;
    rustix::process::chdir("/box").at("enter the tmpfs")?;
    for (name, mode) in BOX {
        make_directory(name, mode).at("make a directory")?;
    }
    Ok(())
}

/// Makes the image behind these mounts, with `programs` in it, the root of a mount namespace without work tree and
/// `/proc`.
pub(super) fn enter_image(image: &[OwnedFd], programs: &[(&[u8], &[u8])]) -> Result<(), StepError> {
    rustix::process::umask(Mode::empty());
    lay_out_box(c"mode=755,size=16m,nr_inodes=1024")?;
    attach_image(image)?;
    mount_root(image.len(), &[], programs)?;
    enter_root()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    Ok(())
}

/// Bytes and inodes of the trees that the setup itself writes, which don't count as the command's.
fn own_share(job: &Job<'_>) -> (u64, u64) {
    let pages = |content: &[u8]| (content.len() as u64).next_multiple_of(4096);
    let depth = |path: &[u8]| path.iter().filter(|byte| **byte == b'/').count() as u64 + 1;
    let mut bytes = 0;
    // The root, the folders of `prepare`, three mount points, overlayfs's own two.
    let folders = BOX.len() + job.image.len() + job.layers.len();
    let mut inodes = 6 + folders as u64 + depth(job.workdir);
    for (path, content) in &job.trusted {
        bytes += pages(content);
        inodes += depth(path);
    }
    for layer in &job.layers {
        let JobLayer::Files(files) = layer else { continue };
        for (path, entry) in files {
            inodes += depth(path);
            bytes += match entry {
                JobEntry::File { content, .. } | JobEntry::Symlink(content) => pages(content),
                JobEntry::Absent => 0,
            };
        }
    }
    (bytes, inodes)
}

/// Returns the bytes of memory that the writable tree can take, which the memory limit allows for.
pub(super) fn disk_bytes(job: &Job<'_>) -> u64 {
    job.limits.disk_bytes.saturating_add(own_share(job).0)
}

const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Mounts everything and makes it the root.
///
/// The slot's root holds `/box` (the tmpfs of [`prepare`], the current directory), `/new` (the root
/// to be), `/dev` and the host's `/proc`. `fill` runs when the writable trees are there and nothing
/// lies on them yet.
fn build_tree(
    job: &Job<'_>,
    mounts: &[OwnedFd],
    fill: impl FnOnce() -> Result<(), StepError>,
) -> Result<(), StepError> {
    let (own_bytes, own_inodes) = own_share(job);
    let mut options = format!(
        "size={},nr_inodes={}\0",
        job.limits.disk_bytes.saturating_add(own_bytes).max(4096),
        job.limits.inodes.saturating_add(own_inodes),
    );
    mount_remount("/box", QUIET, c_str(&options)).at("size the tmpfs")?;
    fill()?;

    let (image, layers) =
        mounts.split_at_checked(job.image.len()).ok_or(Errno::BADF).at("read the job")?;
    attach_image(image)?;
    let mut mounts = layers.iter();
    let mut lowers = Vec::new();
    for (number, layer) in job.layers.iter().enumerate() {
        let name = format!("l{number}");
        make_directory(&name, 0o755).at("make a directory")?;
        match layer {
            JobLayer::Dir(_) => attach(mounts.next(), &name).at("attach a layer")?,
            JobLayer::Files(files) => write_layer(number, files).at("write a files layer")?,
        }
        lowers.push(name);
    }

    let workdir = relative(job.workdir);
    mount_root(image.len(), &[Path::new("proc"), workdir], &job.trusted)?;
    mount_move("proc", "/new/proc").at("move /proc")?;

    let target = Path::new("/new").join(workdir);
    if lowers.is_empty() {
        mount_bind("up", &target).at("bind the work tree")?;
    } else {
        lowers.reverse();
        options.clear();
        let _ = write!(options, "lowerdir={},upperdir=up,workdir=wk,userxattr\0", lowers.join(":"));
        mount("overlay", &target, "overlay", QUIET, c_str(&options))
            .at("mount the work tree's overlay")?;
    }

    enter_root()
}

/// Returns where layer `number` of the image lies in the box.
fn image_layer(number: usize) -> Cow<'static, str> {
    // Most images are one directory, which is prepared.
    if number == 0 { "image".into() } else { format!("i{number}").into() }
}

/// Attaches the layers of an image, lowest first.
fn attach_image(mounts: &[OwnedFd]) -> Result<(), StepError> {
    for (number, mount) in mounts.iter().enumerate() {
        let name = image_layer(number);
        if number > 0 {
            make_directory(&name, 0o755).at("make a directory")?;
        }
        attach(Some(mount), &name).at("attach the image")?;
    }
    Ok(())
}

/// Mounts at `/new` the image of `/box`, which has so many layers, with these folders and trusted
/// files, and `/dev` and `/tmp`.
fn mount_root(
    layers: usize,
    folders: &[&Path],
    trusted: &[(&[u8], &[u8])],
) -> Result<(), StepError> {
    let skeleton = open_directory(CWD, Path::new("skel")).at("open the skeleton")?;
    for path in [Path::new("dev"), Path::new("tmp")].iter().chain(folders) {
        make_directories(skeleton.as_fd(), path).at("make a mount point")?;
    }
    for (path, content) in trusted {
        write_file(skeleton.as_fd(), relative(path), content, 0o444).at("write a trusted file")?;
    }
    // No upper layer: nothing can make this one writable.
    let read_only = QUIET | MountFlags::RDONLY;
    let lowers: Vec<_> = (0..layers).rev().map(image_layer).collect();
    let options = format!("lowerdir=skel:{},userxattr\0", lowers.join(":"));
    mount("overlay", "/new", "overlay", read_only, c_str(&options)).at("mount the root overlay")?;
    mount_move("/dev", "/new/dev").at("move /dev")?;
    mount_bind("shm", "/new/dev/shm").at("bind /dev/shm")?;
    mount_bind("tmp", "/new/tmp").at("bind /tmp")
}

/// Makes `/new` the root.
fn enter_root() -> Result<(), StepError> {
    rustix::process::chdir("/new").at("enter the new root")?;
    for path in MASKED {
        // The kernel may lack it.
        let _ = mount_bind("dev/null", *path);
    }
    rustix::process::pivot_root(".", ".").at("pivot the root")?;
    unmount(".", UnmountFlags::DETACH).at("detach the old root")
}

/// Files of `/proc` that tell about the machine what no test needs.
const MASKED: &[&str] = &["proc/kcore", "proc/keys", "proc/key-users", "proc/timer_list"];

fn c_str(options: &str) -> &CStr {
    CStr::from_bytes_until_nul(options.as_bytes()).unwrap_or_default()
}

pub(super) fn relative(path: &[u8]) -> &Path {
    let path = Path::new(OsStr::from_bytes(path));
    path.strip_prefix("/").unwrap_or(path)
}

fn make_directory(name: &str, mode: u32) -> rustix::io::Result<()> {
    mkdirat(CWD, name, Mode::from_raw_mode(mode))
}

fn attach(mount: Option<&OwnedFd>, at: &str) -> rustix::io::Result<()> {
    let mount = mount.ok_or(Errno::BADF)?;
    move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Opens what is below `root`, never through a link or out of it.
pub(super) fn open_below(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: u32,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode), resolve)
}

pub(super) fn open_directory(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    if path.as_os_str().is_empty() {
        return rustix::io::fcntl_dupfd_cloexec(root, 3);
    }
    open_below(root, path, OFlags::PATH | OFlags::DIRECTORY, 0)
}

/// Makes `path` and its parents below `root`.
pub(crate) fn make_directories(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    if path.components().count() == 1 {
        let _ = mkdirat(root, path, Mode::from_raw_mode(0o755));
    }
    match open_directory(root, path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut at = rustix::io::fcntl_dupfd_cloexec(root, 3)?;
    for part in path {
        match mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        at = open_directory(at.as_fd(), Path::new(part))?;
    }
    Ok(at)
}

/// Makes the parent of `path`; returns it and the last component.
pub(crate) fn parent_of<'p>(
    root: BorrowedFd<'_>,
    path: &'p Path,
) -> rustix::io::Result<(OwnedFd, &'p OsStr)> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = make_directories(root, path.parent().unwrap_or(Path::new("")))?;
    Ok((parent, name))
}

pub(crate) fn write_file(
    root: BorrowedFd<'_>,
    path: &Path,
    content: &[u8],
    mode: u32,
) -> rustix::io::Result<()> {
    let (parent, name) = parent_of(root, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let file = open_below(parent.as_fd(), Path::new(name), flags, mode)?;
    let mut rest = content;
    while !rest.is_empty() {
        match rustix::io::write(&file, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes files layer `number` into its directory. Paths come in order, parents before children.
fn write_layer(number: usize, files: &[(&[u8], JobEntry<'_>)]) -> rustix::io::Result<()> {
    let root = open_directory(CWD, Path::new(&format!("l{number}")))?;
    for (place, (path, entry)) in files.iter().enumerate() {
        let file = Path::new(OsStr::from_bytes(path));
        match entry {
            JobEntry::File { content, executable } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                write_file(root.as_fd(), file, content, mode)?;
            }
            JobEntry::Symlink(target) => {
                let (parent, name) = parent_of(root.as_fd(), file)?;
                symlinkat(OsStr::from_bytes(target), &parent, name)?;
            }
            JobEntry::Absent => {
                let below = files[place + 1..].iter().map(|(path, _)| OsStr::from_bytes(path));
                let below: Vec<&Path> =
                    below.map(Path::new).take_while(|path| path.starts_with(file)).collect();
                if below.is_empty() {
                    let (parent, name) = parent_of(root.as_fd(), file)?;
                    write_absent(parent.as_fd(), name)?;
                } else {
                    hide_lower(root.as_fd(), number, file, &below)?;
                }
            }
        }
    }
    Ok(())
}

/// Makes `directory` a new one: nothing of those that it lies on is there, only what is in `own`.
///
/// Name by name, since before Linux 6.6 a tmpfs can't mark the whole directory.
fn hide_lower(
    root: BorrowedFd<'_>,
    number: usize,
    directory: &Path,
    own: &[&Path],
) -> rustix::io::Result<()> {
    let made = make_directories(root, directory)?;
    for name in lower_names(number, directory)? {
        let path = directory.join(&name);
        if own.contains(&&*path) {
            // An entry of its own says what is there.
        } else if own.iter().any(|own| own.starts_with(&path)) {
            hide_lower(root, number, &path, own)?;
        } else {
            write_absent(made.as_fd(), &name)?;
        }
    }
    Ok(())
}

/// Writes what overlayfs takes for "nothing here": character device 0:0.
pub(super) fn write_absent(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Returns the names that directory `path` has in the layers below layer `number` together.
///
/// No others may be marked absent: in a directory that nothing is merged with, overlayfs shows the
/// marks.
fn lower_names(number: usize, path: &Path) -> rustix::io::Result<BTreeSet<OsString>> {
    let (mut names, mut absent) = (BTreeSet::new(), BTreeSet::new());
    'layers: for lower in (0..number).rev() {
        let root = open_directory(CWD, Path::new(&format!("l{lower}")))?;
        for above in path.ancestors().collect::<Vec<_>>().into_iter().rev().skip(1) {
            match statat(&root, above, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
                // A file, a link or nothing on purpose: what lies further down is hidden.
                Ok(_) => break 'layers,
                Err(Errno::NOENT) => continue 'layers,
                Err(e) => return Err(e),
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = open_below(root.as_fd(), path, flags, 0)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            if entry.file_type() == FileType::CharacterDevice {
                absent.insert(name);
            } else if name != "." && name != ".." && !absent.contains(&name) {
                names.insert(name);
            }
        }
    }
    Ok(names)
}

/// Returns the directory that a command starts in.
pub(super) fn start_directory(job: &Job<'_>) -> PathBuf {
    Path::new("/").join(relative(job.workdir)).join(relative(job.cwd))
}

fn enter_workdir(job: &Job<'_>) -> Result<(), StepError> {
    rustix::process::chdir(start_directory(job)).at("enter the working directory")
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

/// Returns the rules for what a sandbox may write.
fn confinement(job: &Job<'_>) -> Result<Option<Confinement>, StepError> {
    landlock::ruleset(&Path::new("/").join(relative(job.workdir))).at("make the Landlock rules")
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
    sys::install_seccomp(inside.seccomp).at("install the seccomp filter")
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

/// Opens the tree at `path` of the caller's mount namespace as a detached, read-only mount.
///
/// With `ids`, what the service's user owns there belongs to the user that this namespace maps.
pub(super) fn detached_mount(path: &Path, ids: Option<BorrowedFd<'_>>) -> std::io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags)?;
    sys::seal_mount(tree.as_fd(), ids)?;
    Ok(tree)
}
