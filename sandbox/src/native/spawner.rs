//! The spawner: a small process with one thread that forks slots and reaps them.
//!
//! The service executes its own executable anew for it, since forking a large process with many
//! threads is slow and unsafe. Descriptor 0 is its socket; when the other end is gone it ends all
//! slots, removes the cgroups and exits.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

use rustix::process::{WaitOptions, waitpid};

use super::{
    cgroup::{self, SlotFiles},
    seccomp::Filters,
    slot::{self, HostIds},
    sys::{self, Cloned},
    wire::{self, Reader, Writer},
};

/// The first argument of a process that is to be a spawner.
pub(super) const ARGUMENT: &str = "__spawner";

/// Becomes the spawner of sandboxes if that is what this process was started for.
pub(crate) fn spawner_main_if_asked() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT) {
        run();
    }
}

/// Asks for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NewSlot {
    pub(super) ids: Option<HostIds>,
    /// Whether it prepares its next sandbox before there is a job for it.
    pub(super) ahead: bool,
}

/// Encodes the first message: which cgroup directories to remove at the end.
pub(super) fn encode_start<'a>(paths: impl Iterator<Item = &'a std::path::Path>) -> Vec<u8> {
    // An empty datagram would look like the end.
    let mut to = Writer(vec![0]);
    paths.for_each(|path| to.bytes(path.as_os_str().as_bytes()));
    to.0
}

/// Encodes the request for a slot. Its descriptors are the slot's socket and `files`.
pub(super) fn encode_slot(request: &NewSlot, files: &SlotFiles) -> Vec<u8> {
    let mut to = Writer::default();
    to.u64(u64::from(request.ids.is_some()));
    let ids = request.ids.unwrap_or(HostIds { root: 0, user: 0 });
    to.u64(ids.root.into());
    to.u64(ids.user.into());
    to.u64(u64::from(request.ahead));
    to.bytes(&files.roles());
    to.0
}

fn run() -> ! {
    // A Ctrl-C is for the service, which ends what it started in its own time.
    let _ = rustix::process::setsid();
    // Asked for once, for all slots: before Linux 6.4 the answers are in /proc/self/auxv, which is
    // closed to a slot that hides its memory.
    let _ = (rustix::param::page_size(), rustix::param::clock_ticks_per_second());
    let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else {
        sys::exit_now(1)
    };
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _ = sys::dup_to(null.as_fd(), 0);
    }
    let Ok(filters) = Filters::compile() else { sys::exit_now(1) };
    // Slots need none. Only root may leave the host's without a user namespace.
    let _ = sys::unshare(libc::CLONE_NEWNET);
    let mut directories: Option<Vec<PathBuf>> = None;
    let mut slots = BTreeSet::new();
    loop {
        let (message, fds) = match wire::receive_exactly(&socket) {
            Ok((message, _)) if message.is_empty() => break,
            Ok(message) => message,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => break,
        };
        // Slots that ended since.
        while let Ok(Some((pid, _))) = waitpid(None, WaitOptions::NOHANG) {
            slots.remove(&pid.as_raw_nonzero().get());
        }
        if directories.is_none() {
            let mut from = Reader(&message[1..]);
            let paths = std::iter::from_fn(|| from.bytes());
            directories = Some(paths.map(|p| PathBuf::from(OsStr::from_bytes(p))).collect());
            continue;
        }
        let Some((request, roles)) = decode_slot(&message) else { continue };
        let mut fds = fds.into_iter();
        let Some(slot_socket) = fds.next() else { continue };
        let files = SlotFiles::from_parts(roles, fds);
        // SAFETY: the spawner has one thread.
        match unsafe { sys::clone3(0, None) } {
            Ok(Cloned::Child) => {
                drop(socket);
                slot::main(slot_socket, request, files, &filters)
            }
            Ok(Cloned::Parent { pid, .. }) => {
                slots.insert(pid);
            }
            // The slot's socket closes, and the service sees it gone.
            Err(_) => {}
        }
    }
    slots.into_iter().for_each(sys::kill_pid);
    while sys::wait_any().is_some() {}
    for directory in directories.unwrap_or_default() {
        cgroup::remove_tree(&directory);
    }
    sys::exit_now(0)
}

pub(super) fn decode_slot(bytes: &[u8]) -> Option<(NewSlot, &[u8])> {
    let mut from = Reader(bytes);
    let as_root = from.u64()? == 1;
    let ids = HostIds { root: from.u64()? as u32, user: from.u64()? as u32 };
    let request = NewSlot { ids: as_root.then_some(ids), ahead: from.u64()? == 1 };
    Some((request, from.bytes()?))
}

/// Starts a spawner from `executable` and returns it with the socket to it.
pub(super) fn start(
    executable: &std::path::Path,
) -> std::io::Result<(std::process::Child, OwnedFd)> {
    let (ours, theirs) = wire::pair()?;
    let child = std::process::Command::new(executable)
        .arg(ARGUMENT)
        .env_clear()
        .current_dir("/")
        .stdin(theirs)
        .stdout(std::process::Stdio::null())
        .spawn()?;
    Ok((child, ours))
}
