//! What goes in and out of a command, and how its process comes to be between them.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::Timespec,
    io::Errno,
    net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair},
    pipe::{PipeFlags, pipe_with},
};

use super::{
    Agent,
    command::{self, Program},
    path_of, tell,
};
use crate::{
    Start,
    collect::Collector,
    docker::frame::{Run, Tell, WINDOW},
    native::{
        job::Lent,
        shared::{AtStep as _, StepError},
        sys,
        warm::{Asked, Said},
    },
};

/// How long an interpreter may take to make a process.
const PROCESS_COMES: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// Something that a command writes to.
pub(super) struct Outlet {
    /// `None` after its end.
    pub(super) fd: Option<OwnedFd>,
    pub(super) to: Sink,
}

pub(super) enum Sink {
    Keep(Collector),
    /// The service, under this number, so many more bytes for now.
    Service {
        number: i32,
        room: usize,
    },
}

/// Something that a command reads from.
pub(super) struct Inlet {
    pub(super) number: i32,
    pub(super) fd: Option<OwnedFd>,
    pub(super) pending: VecDeque<u8>,
    /// Whether no more will come.
    pub(super) ended: bool,
}

impl Outlet {
    /// Whether anything can be taken.
    pub(super) fn is_open(&self) -> bool {
        self.fd.is_some() && !matches!(self.to, Sink::Service { room: 0, .. })
    }

    /// Takes what is there now, in no more than so many turns: a writer may be as fast as we are.
    pub(super) fn drain(&mut self, buffer: &mut [u8], turns: usize) -> Result<(), StepError> {
        for _ in 0..turns {
            let Some(fd) = &self.fd else { break };
            let most = match &self.to {
                Sink::Keep(_) => buffer.len(),
                Sink::Service { room: 0, .. } => break,
                Sink::Service { room, .. } => buffer.len().min(*room),
            };
            match rustix::io::read(fd, &mut buffer[..most]) {
                Ok(0) => self.end()?,
                Ok(length) => match &mut self.to {
                    Sink::Keep(collector) => collector.push(&buffer[..length]),
                    Sink::Service { number, room } => {
                        *room -= length;
                        tell(&[Tell::Output { number: *number, bytes: &buffer[..length] }])?;
                    }
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.end()?,
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), StepError> {
        self.fd = None;
        match self.to {
            Sink::Keep(_) => Ok(()),
            Sink::Service { number, .. } => tell(&[Tell::End(number)]),
        }
    }
}

impl Inlet {
    /// Writes what the command takes now.
    pub(super) fn feed(&mut self) -> Result<(), StepError> {
        let before = self.pending.len();
        while let Some(fd) = &self.fd {
            let (bytes, _) = self.pending.as_slices();
            if bytes.is_empty() {
                if self.ended {
                    // A socket is read from, too, through another descriptor.
                    let _ = shutdown(fd, Shutdown::Write);
                    self.fd = None;
                }
                break;
            }
            match rustix::io::write(fd, bytes) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.fd = None,
            }
        }
        if self.fd.is_none() {
            // It reads no more.
            self.pending.clear();
        }
        match before - self.pending.len() {
            0 => Ok(()),
            took => tell(&[Tell::Took { number: self.number, bytes: took as u64 }]),
        }
    }
}

/// The process of a command.
pub(super) struct Launched {
    pub(super) pid: i32,
    pub(super) start: Start,
    /// The place of the interpreter that it came from.
    pub(super) lent: Option<usize>,
}

/// Both ends of what connects a command.
pub(super) struct Ends {
    pub(super) outlets: Vec<Outlet>,
    pub(super) inlets: Vec<Inlet>,
    /// Stdin, stdout and stderr, then each channel.
    theirs: Vec<OwnedFd>,
}

impl Ends {
    pub(super) fn new(run: &Run<'_>) -> io::Result<Self> {
        let mut ends = Self { outlets: Vec::new(), inlets: Vec::new(), theirs: Vec::new() };
        if run.stdin {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            ends.theirs.push(read);
            ends.inlet(0, write)?;
        } else {
            ends.theirs.push(std::fs::File::open("/dev/null")?.into());
        }
        for _ in 0..2 {
            ends.collected(Collector::head_and_tail(size(run.output_bytes)))?;
        }
        for (number, most) in &run.channels {
            match most {
                Some(most) => ends.collected(Collector::head_only(size(*most)))?,
                None => {
                    let flags = SocketFlags::CLOEXEC;
                    let (ours, theirs) =
                        socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                    // To close a descriptor that comes could take as long as its sender likes.
                    let _ = sys::refuse_rights(ours.as_fd());
                    ends.inlet(*number, rustix::io::fcntl_dupfd_cloexec(&ours, 3)?)?;
                    ends.outlet(ours, Sink::Service { number: *number, room: WINDOW })?;
                    ends.theirs.push(theirs);
                }
            }
        }
        Ok(ends)
    }

    fn collected(&mut self, collector: Collector) -> io::Result<()> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        self.theirs.push(write);
        self.outlet(read, Sink::Keep(collector))
    }

    fn outlet(&mut self, fd: OwnedFd, to: Sink) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        self.outlets.push(Outlet { fd: Some(fd), to });
        Ok(())
    }

    fn inlet(&mut self, number: i32, fd: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let (fd, pending) = (Some(fd), VecDeque::new());
        self.inlets.push(Inlet { number, fd, pending, ended: false });
        Ok(())
    }

    /// Starts the command.
    pub(super) fn launch(
        &self,
        agent: &mut Agent,
        run: &Run<'_>,
        user: u32,
        limits: &[(u32, u64)],
    ) -> Result<Launched, StepError> {
        let mut start = Start::Cold;
        if let Some(lent) = run.lent {
            match self.lend(agent, run, user, limits, lent)? {
                Ok(pid) => {
                    let lent = Some(lent.number as usize);
                    return Ok(Launched { pid, start: Start::Warm, lent });
                }
                Err(why) => start = Start::ColdInstead(format!("the warm interpreter: {why}")),
            }
        }
        let numbers = run.channels.iter().map(|(number, _)| *number);
        let fds = self.theirs.iter().map(AsFd::as_fd);
        let [stdin, stdout, stderr] = [0, 1, 2].map(|place: usize| self.theirs[place].as_fd());
        let program = Program {
            argv: &run.argv,
            env: &run.env,
            cwd: run.cwd,
            stdio: [stdin, stdout, stderr],
            channels: fds.skip(3).zip(numbers).collect(),
        };
        let pid = command::start(&program, || {
            for (resource, value) in limits {
                sys::limit_resource(*resource, *value, *value).at("set a resource limit")?;
            }
            sys::become_user(user, user).at("become the sandbox's user")?;
            sys::drop_capabilities().at("drop the capabilities")
        })?;
        Ok(Launched { pid, start, lent: None })
    }

    /// Has an interpreter fork the command's process. Returns its id; the inner error is why it can't.
    fn lend(
        &self,
        agent: &mut Agent,
        run: &Run<'_>,
        user: u32,
        limits: &[(u32, u64)],
        lent: Lent,
    ) -> Result<Result<i32, String>, StepError> {
        let place = lent.number as usize;
        let interpreter = agent.interpreters.get(place).and_then(Option::as_ref);
        let Some(interpreter) = interpreter else { return Ok(Err("it is gone".to_owned())) };
        let channels: Vec<_> = run.channels.iter().map(|(number, _)| *number).collect();
        let asked = Asked {
            argv: run.argv.get(lent.script..).unwrap_or_default(),
            cwd: path_of(run.cwd),
            user: Some(user),
            limits,
            seccomp: &[],
            channels: &channels,
            rules: 0,
        };
        let fds: Vec<BorrowedFd<'_>> = self.theirs.iter().map(AsFd::as_fd).collect();
        if let Err(e) = interpreter.conversation.ask(&asked, &fds) {
            return Ok(Err(e.to_string()));
        }
        let oom_kills = agent.meter.read().oom_kills;
        let said = interpreter.conversation.wait(&PROCESS_COMES);
        let out_of_memory = agent.meter.read().oom_kills > oom_kills;
        let e = match said {
            Said::Started { pid, .. } => return Ok(Ok(pid)),
            Said::Failed { step, errno } => {
                eprintln!("{step}");
                io::Error::from_raw_os_error(errno)
            }
            Said::Silence => io::Error::from_raw_os_error(libc::ETIMEDOUT),
            // A kill for want of memory was none of the command's.
            Said::Gone | Said::Done if out_of_memory => io::Error::from_raw_os_error(libc::ENOMEM),
            // It speaks of its fork no more, and the fork has said nothing.
            Said::Done => {
                agent.end_interpreter(place);
                return Ok(Err("its fork died".to_owned()));
            }
            Said::Gone => {
                agent.end_interpreter(place);
                return Ok(Err("it ended".to_owned()));
            }
            _ => io::Error::from_raw_os_error(libc::EPIPE),
        };
        agent.settle(place);
        Err(e).at("have the warm interpreter start the command")
    }
}

pub(super) fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
