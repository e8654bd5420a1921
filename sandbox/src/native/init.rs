//! Pid 1 of a session: starts commands, one after another, and reaps.
//!
//! It has given up every right before it hears of the first command: what it could be made to do,
//! the sandbox's user can do himself. It executes no program, and nobody inside can read or change
//! its memory (it is not dumpable, and there is no ptrace), stop or signal it (it is the first of its
//! namespace and handles no signal) or reach its socket. Its children share nothing with it.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::fcntl_dupfd_cloexec,
    process::{WaitOptions, wait},
};

use super::{
    cgroup::Role,
    job::Report,
    setup::Inside,
    shared::{AtStep, StepError},
    sys,
    talk::{Ask, End, Reply, Start},
    tree::relative,
    wire,
};

/// Descriptors below are a command's: channels have numbers up to 63.
const COMMANDS: i32 = 64;
/// Where our own two are, below the limit on open files.
const KEPT: i32 = 1000;

struct Init {
    socket: OwnedFd,
    /// The working directory that commands start in.
    workdir: PathBuf,
    /// The numbers of commands by their process ids.
    running: BTreeMap<i32, u64>,
    /// Those that were started by killing what there was.
    cleared: Vec<u64>,
}

/// Serves a session until its slot ends it.
pub(super) fn serve(inside: &Inside<'_>, workdir: &[u8]) -> Result<Infallible, StepError> {
    let socket = fcntl_dupfd_cloexec(&inside.socket, KEPT).at("keep the socket")?;
    let ended = sys::child_signals(KEPT).at("watch for dead children")?;
    inside.cgroups.write(Role::CpuUsage, "0").at("reset the CPU time")?;
    // The slot's: control groups, its socket to the service, ours of the job.
    sys::close_range(0, KEPT as u32 - 1);
    sys::close_range(KEPT as u32 + 2, u32::MAX);
    let workdir = Path::new("/").join(relative(workdir));
    let mut init = Init { socket, workdir, running: BTreeMap::new(), cleared: Vec::new() };
    let mut buffer = vec![0; wire::MAX_DATAGRAM];
    loop {
        let mut fds = [
            PollFd::new(&init.socket, PollFlags::IN),
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).at("wait for a command"),
        }
        let is_called = !fds[0].revents().is_empty();
        if !fds[1].revents().is_empty() {
            while rustix::io::read(&ended, &mut [0_u8; 128]).is_ok_and(|length| length > 0) {}
            init.reap(WaitOptions::NOHANG);
        }
        if is_called {
            match wire::receive(&init.socket, &mut buffer) {
                Ok((0, _)) => sys::exit_now(0),
                Ok((length, fds)) => {
                    init.answer(&buffer[..length], fds);
                    init.say(0, Reply::Ready);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).at("receive a command"),
            }
        }
    }
}

impl Init {
    fn answer(&mut self, message: &[u8], mut fds: Vec<OwnedFd>) {
        let Ok(bytes) = wire::job(message, &mut fds) else { return };
        match Ask::decode(&bytes) {
            Some((number, Ask::Start(start))) => {
                // Before a command may take their numbers.
                let moved = fds.iter().map(|fd| fcntl_dupfd_cloexec(fd, COMMANDS));
                let moved = moved.collect::<Result<Vec<_>, _>>();
                drop(fds);
                let started = moved.map_err(io::Error::from).and_then(|fds| {
                    if fds.len() == 3 + start.channels.len() {
                        self.start(number, &start, &fds)
                    } else {
                        Err(io::Error::from_raw_os_error(libc::EBADF))
                    }
                });
                if let Err(e) = started {
                    self.say(number, Reply::refused("take the command's descriptors", &e));
                }
            }
            Some((number, Ask::Signal { to, signal })) => {
                match self.running.iter().find(|(_, number)| **number == to) {
                    // Not reaped yet: the group is still its own.
                    Some((pid, _)) => {
                        sys::signal_group(*pid, signal);
                        // It may have been stopped before it had one.
                        if signal == libc::SIGKILL {
                            sys::kill_pid(*pid);
                        }
                    }
                    None if to == 0 => sys::signal_group(1, signal),
                    None => {}
                }
                self.say(number, Reply::Done);
            }
            _ => {}
        }
    }

    /// Starts a command, or tells whoever reads its stderr why not.
    fn start(&mut self, number: u64, start: &Start<'_>, fds: &[OwnedFd]) -> io::Result<()> {
        let strings =
            |items: &[&[u8]]| items.iter().map(|s| CString::new(*s)).collect::<Result<Vec<_>, _>>();
        let argv = strings(&start.argv)?;
        let program = argv.first().cloned().unwrap_or_default();
        let (argv, env) = (sys::CStrings::new(argv), sys::CStrings::new(strings(&start.env)?));
        let refuse = |init: &mut Self, what: &str, place: &OsStr, e: &io::Error| {
            let text = format!("cannot {what} {}: {e}\n", place.to_string_lossy());
            let _ = rustix::io::write(&fds[2], text.as_bytes());
            let wait_status = 126 << 8;
            init.say(number, Reply::Ended(End { wait_status, ..End::default() }));
        };
        let cwd = self.workdir.join(relative(start.cwd));
        if let Err(e) = rustix::process::chdir(&cwd) {
            refuse(self, "enter", cwd.as_os_str(), &e.into());
            return Ok(());
        }
        let mut spawned = self.spawn(start, fds, &program, &argv, &env);
        if spawned.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EAGAIN)) {
            // As many processes as there may be. Nobody forks out of a pending SIGKILL, so one
            // round gets all of them.
            sys::signal_group(1, libc::SIGKILL);
            self.reap(WaitOptions::empty());
            self.cleared.push(number);
            spawned = self.spawn(start, fds, &program, &argv, &env);
        }
        match spawned {
            Ok(pid) => {
                self.running.insert(pid, number);
            }
            Err(e) => refuse(self, "execute", OsStr::from_bytes(program.to_bytes()), &e),
        }
        Ok(())
    }

    fn spawn(
        &self,
        start: &Start<'_>,
        fds: &[OwnedFd],
        program: &CStr,
        argv: &sys::CStrings,
        env: &sys::CStrings,
    ) -> io::Result<i32> {
        let numbers = (0..3).chain(start.channels.iter().copied());
        let connected = fds.iter().zip(numbers).try_for_each(|(fd, number)| {
            if number >= COMMANDS {
                return Err(io::Error::from_raw_os_error(libc::EBADF));
            }
            sys::dup_to(fd.as_fd(), number)
        });
        // Not by a spawn that waits for the execution: whoever stops the new process before that,
        // as all processes here may, would stop us.
        // SAFETY: pid 1 has one thread.
        let forked = connected.and_then(|()| unsafe { sys::fork() });
        if matches!(forked, Ok(None)) {
            let _ = rustix::process::setsid();
            let e = sys::execute(program, argv, env);
            let text = format!("cannot execute {}: {e}\n", program.to_string_lossy());
            let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
            // As a shell does.
            let missing = e.kind() == io::ErrorKind::NotFound;
            sys::exit_now(if missing { 127 } else { 126 });
        }
        sys::close_range(0, COMMANDS as u32 - 1);
        forked.map(Option::unwrap_or_default)
    }

    /// Reaps children: those that are dead, or with other `options` all of them.
    fn reap(&mut self, options: WaitOptions) {
        while let Ok(Some((pid, status))) = wait(options) {
            let Some(number) = self.running.remove(&pid.as_raw_nonzero().get()) else { continue };
            let cleared = self.cleared.contains(&number);
            self.cleared.retain(|other| *other != number);
            let end = End { wait_status: status.as_raw(), cleared, ..End::default() };
            self.say(number, Reply::Ended(end));
        }
    }

    fn say(&self, number: u64, reply: Reply) {
        // Whoever does not hear it is gone, and so are we soon.
        let _ = wire::send(&self.socket, &Report::Reply(number, reply).encode(), &[]);
    }
}
