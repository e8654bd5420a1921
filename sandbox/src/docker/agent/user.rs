//! The users that sandboxes run as: acting as one, ending all that it runs, freeing what it holds.

use std::{
    fs::{self, File},
    io,
    os::{fd::BorrowedFd, unix::fs::FileExt as _},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::native::sys::{self, IpcObject, Used};

/// How long processes may take to die once they are killed: they may have gigabytes to free.
const DEATH: Duration = Duration::from_secs(10);
/// How long to wait for one of them to be ours to bury.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Returns the highest user id that exists in this container.
pub(super) fn last_id() -> u64 {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let last = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().ok());
        let (first, _, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        (first + count).checked_sub(1)
    };
    map.lines().filter_map(last).max().unwrap_or(0)
}

/// Makes files as this user from here on, and signals none but its processes. It can't signal us:
/// the user that we are, and will be again, is another.
pub(super) fn act_as(user: u32) -> io::Result<()> {
    sys::set_effective_user(user)
}

/// Is root again.
pub(super) fn act_as_self() -> io::Result<()> {
    sys::set_effective_user(0)
}

/// Kills and buries every process but those that `own` returns, however fast they fork: one signal to
/// all of a user reaches those that a process made before it got its own, and later it makes none.
/// `between` is who a fork of an interpreter is before it becomes that user. Returns what they used.
///
/// The signal comes before any look at who is there, and `own` is asked anew each time: an id that was
/// an interpreter's may be another's by now.
///
/// # Errors
///
/// Some are still there.
pub(super) fn end_all(
    user: u32,
    between: u32,
    own: impl Fn() -> Vec<i32>,
    children: BorrowedFd<'_>,
) -> io::Result<Used> {
    let deadline = Instant::now() + DEATH;
    let mut used = Used::default();
    loop {
        act_as(user)?;
        sys::kill_all();
        act_as_self()?;
        while let Some((_, _, more)) = sys::reap() {
            used.add(more);
        }
        let others = others(&own())?;
        if others.is_empty() {
            return Ok(used);
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        kill(&others, between)?;
        let _ = poll(&mut [PollFd::new(&children, PollFlags::IN)], Some(&TURN));
        sys::take_signals(children);
    }
}

/// Kills those of `pids` that are this user's.
pub(super) fn kill(pids: &[i32], user: u32) -> io::Result<()> {
    act_as(user)?;
    pids.iter().for_each(|pid| sys::kill_pid(*pid));
    act_as_self()
}

/// Returns the processes beside `own`.
fn others(own: &[i32]) -> io::Result<Vec<i32>> {
    let mut others = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        others.extend(pid.filter(|pid| !own.contains(pid)));
    }
    Ok(others)
}

/// Files of the kernel that show what outlives processes, kept open; a kernel without such things has
/// no file.
pub(super) struct Tables {
    ipc: [(Option<File>, IpcObject); 3],
    sockets: Option<File>,
}

impl Tables {
    pub(super) fn open() -> Self {
        let open = |name: &str| File::open(format!("/proc/{name}")).ok();
        Self {
            ipc: [
                (open("sysvipc/shm"), IpcObject::SharedMemory),
                (open("sysvipc/sem"), IpcObject::Semaphores),
                (open("sysvipc/msg"), IpcObject::Messages),
            ],
            sockets: open("net/sockstat"),
        }
    }

    /// Removes the System V objects of this container, all of which are the acting user's.
    pub(super) fn remove_ipc(&self) -> io::Result<()> {
        for (table, kind) in &self.ipc {
            let Some(table) = table else { continue };
            let table = text(table)?;
            let ids = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
            for id in ids.filter_map(|id| id.parse().ok()) {
                sys::remove_ipc(*kind, id)?;
            }
        }
        Ok(())
    }

    /// Returns whether connections of a run still are in the network's tables, where the next one
    /// could find their ports taken.
    pub(super) fn has_connections(&self) -> io::Result<bool> {
        let Some(table) = &self.sockets else { return Ok(false) };
        let table = text(table)?;
        let tcp = table.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
        let fields: Vec<&str> = tcp.split_whitespace().collect();
        let of = |name| fields.windows(2).any(|pair| pair[0] == name && pair[1] != "0");
        Ok(of("inuse") || of("tw"))
    }
}

/// Reads all of a file of `/proc`, from its start.
fn text(file: &File) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match file.read_at(&mut buffer, bytes.len() as u64)? {
            0 => return String::from_utf8(bytes).map_err(io::Error::other),
            length => bytes.extend_from_slice(&buffer[..length]),
        }
    }
}
