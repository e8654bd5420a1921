//! Control groups, version 1 and 2, whichever this host has for each controller.
//!
//! The service makes the directories below its own groups; slots get open descriptors of the files
//! that they need and no path. A slot's groups live as long as the slot: nothing is made or removed
//! while a command waits.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};

/// What a descriptor that a slot gets is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Role {
    /// v1 `tasks`: a process that writes `0` joins.
    Join,
    /// The v2 directory that sandboxes are cloned into.
    Leaf,
    /// v2 `cgroup.procs` of the group beside it that the slot's own process is in.
    Monitor,
    /// v2 `cpu.pressure` of the leaf.
    Pressure,
    /// v2 `cgroup.freeze` of the leaf.
    Freeze,
    /// v2 `cgroup.events` of the leaf, which says whether all of it is frozen.
    Frozen,
    MemoryMax,
    /// v1 `memory.memsw.limit_in_bytes`.
    MemorySwapMax,
    /// v2 `memory.swap.max`.
    SwapMax,
    MemoryPeak,
    MemoryNow,
    MemoryEvents,
    PidsMax,
    PidsEvents,
    /// v1 `cpuacct.usage`, nanoseconds; writing 0 resets it.
    CpuUsage,
    /// v2 `cpu.stat`.
    CpuStat,
}

const ROLES: [Role; 16] = [
    Role::Join,
    Role::Leaf,
    Role::Monitor,
    Role::Pressure,
    Role::Freeze,
    Role::Frozen,
    Role::MemoryMax,
    Role::MemorySwapMax,
    Role::SwapMax,
    Role::MemoryPeak,
    Role::MemoryNow,
    Role::MemoryEvents,
    Role::PidsMax,
    Role::PidsEvents,
    Role::CpuUsage,
    Role::CpuStat,
];

/// The open cgroup files of one slot.
#[derive(Debug, Default)]
pub(super) struct SlotFiles(Vec<(Role, File)>);

impl SlotFiles {
    /// Pairs roles, as sent, with the descriptors beside them.
    pub(super) fn from_parts(roles: &[u8], fds: impl IntoIterator<Item = OwnedFd>) -> Self {
        let role = |byte: &u8| ROLES.iter().find(|role| **role as u8 == *byte).copied();
        Self(
            roles
                .iter()
                .zip(fds)
                .filter_map(|(byte, fd)| Some((role(byte)?, File::from(fd))))
                .collect(),
        )
    }

    /// Returns the roles, to send them.
    pub(super) fn roles(&self) -> Vec<u8> {
        self.0.iter().map(|(role, _)| *role as u8).collect()
    }

    /// Returns the descriptors, to send them.
    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(|(_, file)| file.as_fd()).collect()
    }

    /// Returns the file of `role`.
    pub(super) fn get(&self, role: Role) -> Option<&File> {
        self.0.iter().find(|(r, _)| *r == role).map(|(_, file)| file)
    }

    /// Whether there is a file of `role`.
    pub(super) fn has(&self, role: Role) -> bool {
        self.get(role).is_some()
    }

    /// Writes to the file of `role`; nothing happens where there is none.
    pub(super) fn write(&self, role: Role, value: &str) -> io::Result<()> {
        self.get(role).map_or(Ok(()), |file| write_at_start(file, value))
    }

    /// Puts the calling process into every v1 group.
    pub(super) fn join(&self) -> io::Result<()> {
        self.0
            .iter()
            .filter(|(role, _)| *role == Role::Join)
            .try_for_each(|(_, file)| write_at_start(file, "0"))
    }

    /// Opens the files by which a process joins every group, when it writes `0` to them.
    pub(super) fn groups(&self) -> io::Result<Vec<OwnedFd>> {
        let joins = self.0.iter().filter(|(role, _)| *role == Role::Join);
        let mut files =
            joins.map(|(_, file)| Ok(file.try_clone()?.into())).collect::<io::Result<Vec<_>>>()?;
        if let Some(leaf) = self.get(Role::Leaf) {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            files.push(openat(leaf, "cgroup.procs", flags, Mode::empty())?);
        }
        Ok(files)
    }

    /// Reads the file of `role` as a number.
    pub(super) fn number(&self, role: Role) -> Option<u64> {
        self.read(role)?.trim().parse().ok()
    }

    /// Reads a number that stands after `key` in the file of `role` (`key 12` or `key=12`).
    pub(super) fn keyed(&self, role: Role, key: &str) -> Option<u64> {
        let text = self.read(role)?;
        keyed(&text, key)
    }

    /// Reads the beginning of the file of `role`.
    pub(super) fn read(&self, role: Role) -> Option<String> {
        let mut buffer = [0; 2048];
        let length = self.get(role)?.read_at(&mut buffer, 0).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

fn write_at_start(file: &File, value: &str) -> io::Result<()> {
    file.write_at(value.as_bytes(), 0).map(drop)
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    text.split_ascii_whitespace()
        .zip(text.split_ascii_whitespace().skip(1))
        .find_map(|(word, next)| if word == key { next.parse().ok() } else { None })
        .or_else(|| {
            text.split_ascii_whitespace()
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
        })
}

/// A controller that a sandbox needs.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpuacct"];

/// A group in one hierarchy.
#[derive(Clone, Debug)]
struct Base {
    path: PathBuf,
    version: u8,
    /// Controllers that it limits or accounts: `memory`, `pids`, `cpuacct`.
    controllers: BTreeSet<String>,
}

/// The groups of one service.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    bases: Vec<Base>,
    /// The open directories, locked: by that others know that this service lives.
    _locks: Vec<File>,
    /// What no group here can do, each with what stands in for it.
    pub(super) fallbacks: Vec<String>,
}

impl Cgroups {
    /// Makes the directory `name` below this process's own groups, wherever that is allowed.
    pub(super) fn create(name: &str) -> Self {
        let mut bases: Vec<Base> = Vec::new();
        let mut locks = Vec::new();
        for mut own in own_groups() {
            if own.version == 2 && own.path.ends_with(SERVICE) {
                // Another backend of this process stepped down before.
                own.path.pop();
            }
            // With v1 controllers present, v2 still serves: it kills and it measures pressure.
            let wanted = own.version == 2
                || CONTROLLERS.iter().any(|controller| own.controllers.contains(*controller));
            if !wanted {
                continue;
            }
            reap_siblings(&own.path);
            let path = own.path.join(name);
            if fs::create_dir(&path).is_ok() {
                locks.extend(File::open(&path).ok().filter(lock));
                let mut base = Base { path, ..own.clone() };
                if base.version == 2 {
                    base.controllers = delegate(&own.path, &base.path);
                }
                bases.push(base);
            }
        }
        let have = |controller: &str| {
            bases.iter().any(|base| {
                base.controllers.contains(controller)
                    // Every v2 group accounts CPU time, with or without the controller.
                    || (controller == "cpuacct" && base.version == 2)
            })
        };
        let fallbacks = [
            (
                "memory",
                "memory: RLIMIT_DATA and polled resident sizes (no memory cgroup can be delegated)",
            ),
            ("pids", "pids: RLIMIT_NPROC (no pids cgroup can be delegated)"),
            ("cpuacct", "cpu: polled process times (no cpu accounting cgroup can be delegated)"),
        ];
        let fallbacks = fallbacks
            .iter()
            .filter(|(controller, _)| !have(controller))
            .map(|(_, text)| (*text).to_owned())
            .collect();
        Self { bases, _locks: locks, fallbacks }
    }

    /// Returns the directories, for the lock file by which the next start finds them.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.bases.iter().map(|base| base.path.as_path())
    }

    /// Makes the groups of slot `number` and opens their files. Processes of `owner` may move
    /// between the slot's v2 groups.
    pub(super) fn slot(&self, number: u32, owner: Option<u32>) -> io::Result<SlotFiles> {
        let mut files = Vec::new();
        for base in &self.bases {
            let directory = base.path.join(format!("s{number}"));
            make(&directory)?;
            if base.version == 1 {
                self.open_v1(base, &directory, &mut files)?;
            } else {
                self.open_v2(base, &directory, owner, &mut files)?;
            }
        }
        Ok(SlotFiles(files))
    }

    fn open_v1(&self, base: &Base, at: &Path, files: &mut Vec<(Role, File)>) -> io::Result<()> {
        files.push((Role::Join, open(&at.join("tasks"))?));
        let mut add = |role, name: &str| {
            if let Ok(file) = open(&at.join(name)) {
                files.push((role, file));
            }
        };
        if base.controllers.contains("memory") {
            add(Role::MemoryMax, "memory.limit_in_bytes");
            add(Role::MemorySwapMax, "memory.memsw.limit_in_bytes");
            add(Role::MemoryPeak, "memory.max_usage_in_bytes");
            add(Role::MemoryNow, "memory.usage_in_bytes");
            add(Role::MemoryEvents, "memory.oom_control");
        }
        if base.controllers.contains("pids") {
            add(Role::PidsMax, "pids.max");
            add(Role::PidsEvents, "pids.events");
        }
        if base.controllers.contains("cpuacct") {
            add(Role::CpuUsage, "cpuacct.usage");
        }
        Ok(())
    }

    fn open_v2(
        &self,
        base: &Base,
        at: &Path,
        owner: Option<u32>,
        files: &mut Vec<(Role, File)>,
    ) -> io::Result<()> {
        for controller in &base.controllers {
            let _ = fs::write(at.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        let (leaf, monitor) = (at.join("box"), at.join("mon"));
        make(&leaf)?;
        make(&monitor)?;
        if let Some(owner) = owner {
            for directory in [at, &leaf, &monitor] {
                std::os::unix::fs::chown(directory.join("cgroup.procs"), Some(owner), None)?;
            }
        }
        files.push((Role::Leaf, File::open(&leaf)?));
        files.push((Role::Monitor, open(&monitor.join("cgroup.procs"))?));
        let has_v1 = |controller| {
            self.bases.iter().any(|b| b.version == 1 && b.controllers.contains(controller))
        };
        let mut add = |role, name: &str| {
            if let Ok(file) = open(&leaf.join(name)) {
                files.push((role, file));
            }
        };
        add(Role::Pressure, "cpu.pressure");
        add(Role::Freeze, "cgroup.freeze");
        add(Role::Frozen, "cgroup.events");
        if base.controllers.contains("memory") {
            add(Role::MemoryMax, "memory.max");
            add(Role::SwapMax, "memory.swap.max");
            add(Role::MemoryPeak, "memory.peak");
            add(Role::MemoryNow, "memory.current");
            add(Role::MemoryEvents, "memory.events");
        }
        if base.controllers.contains("pids") {
            add(Role::PidsMax, "pids.max");
            add(Role::PidsEvents, "pids.events");
        }
        if !has_v1("cpuacct") {
            add(Role::CpuStat, "cpu.stat");
        }
        Ok(())
    }
}

/// The beginning of the name of every service's group.
pub(super) const PREFIX: &str = "assay-sandboxes-";

/// The v2 group that a service steps into, so that its own can hand controllers down.
const SERVICE: &str = "assay-service";

/// Time in which a new group gets its lock, by far.
const LOCKING: Duration = Duration::from_secs(10);

fn lock(directory: &File) -> bool {
    flock(directory, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Removes the groups in `own` of services that are dead, wherever those had their state folders.
fn reap_siblings(own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().flatten() {
        let is_ours_and_old = |directory: &File| {
            directory.metadata().is_ok_and(|metadata| {
                let age = metadata.modified().ok().and_then(|made| made.elapsed().ok());
                metadata.uid() == rustix::process::geteuid().as_raw()
                    && age.is_some_and(|age| age > LOCKING)
            })
        };
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && let Ok(directory) = File::open(entry.path())
            && is_ours_and_old(&directory)
            && lock(&directory)
        {
            remove_tree(&entry.path());
        }
    }
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// Opens a cgroup file for what its mode allows.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .or_else(|_| OpenOptions::new().write(true).open(path))
        .or_else(|_| File::open(path))
}

/// Hands memory and pids down from the v2 group `own` to `base`; returns what came through.
fn delegate(own: &Path, base: &Path) -> BTreeSet<String> {
    let mut have = BTreeSet::new();
    let offered = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
    for controller in ["memory", "pids"] {
        if !offered.split_whitespace().any(|word| word == controller) {
            continue;
        }
        let control = own.join("cgroup.subtree_control");
        let value = format!("+{controller}");
        let mut handed = fs::write(&control, &value);
        if handed.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EBUSY)) {
            // A v2 group with processes of its own hands nothing down. Where this service is alone
            // in it, it steps into a group below.
            let service = own.join(SERVICE);
            let _ = make(&service);
            let _ = fs::write(service.join("cgroup.procs"), "0");
            handed = fs::write(&control, &value);
            if handed.is_err() {
                let _ = fs::write(own.join("cgroup.procs"), "0");
                let _ = fs::remove_dir(&service);
            }
        }
        if handed.is_ok() && fs::write(base.join("cgroup.subtree_control"), &value).is_ok() {
            have.insert(controller.to_owned());
        }
    }
    have
}

/// Returns the groups that this process is in, as directories that can be seen from here.
fn own_groups() -> Vec<Base> {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    membership.lines().filter_map(|line| own_group(line, &mounts)).collect()
}

/// Finds the directory of one line of `/proc/self/cgroup` (`4:memory:/path`).
fn own_group(line: &str, mounts: &str) -> Option<Base> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let controllers: BTreeSet<String> =
        controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let version = if controllers.is_empty() { 2 } else { 1 };
    mounts.lines().find_map(|mount| {
        let (left, right) = mount.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, at) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, _, options) = (right.next()?, right.next()?, right.next()?);
        let matches = match version {
            2 => kind == "cgroup2",
            _ => {
                kind == "cgroup"
                    && controllers.iter().all(|c| options.split(',').any(|option| option == c))
            }
        };
        let below = if root == "/" { path } else { path.strip_prefix(root)? };
        let path = Path::new(at).join(below.trim_start_matches('/'));
        (matches && path.is_dir()).then(|| Base { path, version, controllers: controllers.clone() })
    })
}

/// Kills every process in the groups under `path` and removes them. Gives up after a while.
///
/// Returns whether nothing is left.
pub(super) fn remove_tree(path: &Path) -> bool {
    for attempt in 0..400 {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        if try_remove(path) {
            return true;
        }
    }
    false
}

fn try_remove(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return !path.exists() };
    let mut empty = true;
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            empty &= try_remove(&entry.path());
        }
    }
    if empty && fs::remove_dir(path).is_ok() {
        return true;
    }
    let _ = fs::write(path.join("cgroup.kill"), "1");
    let procs = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let own = std::process::id().to_string();
    for pid in procs.lines().filter(|pid| *pid != own) {
        if let Ok(pid) = pid.parse() {
            super::sys::kill_pid(pid);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_numbers_after_keys() {
        let cases = [
            ("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill", Some(3)),
            ("some avg10=0.00 total=77\nfull avg10=0 total=5\n", "total", Some(77)),
            ("usage_usec 12\nuser_usec 4\n", "usage_usec", Some(12)),
            ("usage_usec\n", "usage_usec", None),
            ("", "max", None),
        ];
        for (text, key, expected) in cases {
            assert_eq!(keyed(text, key), expected, "{text:?}");
        }
    }

    #[test]
    fn finds_own_directory_below_a_bind_mounted_hierarchy() {
        let mounts = "30 20 0:1 / /proc rw - proc proc rw\n\
                      31 20 0:26 / / rw - cgroup cgroup rw,memory\n";
        let found = own_group("4:memory:/", mounts).expect("the root is a directory");
        assert_eq!((found.path, found.version), (PathBuf::from("/"), 1));
        assert!(own_group("5:pids:/", mounts).is_none());
        assert!(own_group("nonsense", mounts).is_none());
    }
}
