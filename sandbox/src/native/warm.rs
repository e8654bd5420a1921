//! A slot's side of a warm interpreter; `warm.py` is the other.
//!
//! An interpreter is in its slot's user namespace, where it may enter namespaces and nothing else,
//! and in a mount namespace with the image and our own programs. It holds no work tree, no pipe of a
//! command and no secret, so one serves all sandboxes of its slot.

use std::{
    convert::Infallible,
    ffi::{CString, OsStr},
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
};

use super::{
    job::{Job, Lent, NewInterpreter},
    setup,
    shared::{AtStep, StepError},
    sys::{self, Cloned},
    wire::{self, Writer},
};

/// The program that an interpreter runs.
const PROGRAM: &[u8] = include_bytes!("warm.py");
/// Where it lies inside.
pub(super) const PATH: &str = "/assay/warm.py";
/// How long an interpreter may take to import what it is told to: less than a caller waits for a
/// sandbox beyond its wall limit.
const IMPORTS: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// How long an interpreter may take to be done with a command whose sandbox is dead.
const DONE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// What a process has to enter to be in a sandbox, in the order in which `warm.py` has them.
pub(super) const NAMESPACES: [&str; 6] = ["mnt", "net", "ipc", "uts", "cgroup", "pid"];

/// An interpreter that has imported its modules. Dropping it ends it.
pub(super) struct Interpreter {
    pub(super) socket: OwnedFd,
    pidfd: OwnedFd,
}

/// What is left to a process that an interpreter forks.
pub(super) struct Rights<'a> {
    /// Resource limits and their values.
    pub(super) limits: &'a [(u32, u64)],
    /// The filter, as the kernel reads it.
    pub(super) seccomp: &'a [u8],
    /// How many sets of Landlock rules are among the descriptors.
    pub(super) rules: usize,
}

/// What an interpreter, or a fork of it, says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It holds modules of these names.
    Ready(Vec<u8>),
    Joined,
    /// It can't start.
    No(String),
    /// The command's process, of this id in its sandbox, runs the script since then.
    Started {
        now_ns: u64,
        pid: i32,
    },
    /// There is no such process.
    Failed {
        step: String,
        errno: i32,
    },
    /// The interpreter is done with the command.
    Done,
    /// Nothing in time.
    Silence,
    /// There is no interpreter any more.
    Gone,
}

impl Interpreter {
    /// Starts an interpreter on the image behind `image` and waits until it is ready. Returns with
    /// it the names of the modules that it holds; the inner error is why it is none.
    pub(super) fn start(
        request: &NewInterpreter<'_>,
        image: &[OwnedFd],
        slot: BorrowedFd<'_>,
        groups: &[OwnedFd],
    ) -> Result<Result<(Self, Vec<u8>), String>, StepError> {
        // Namespaces of its own: what a sandbox leaves in its ipc namespace must not live on in ours.
        let namespaces =
            libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWUTS;
        let (socket, theirs) = wire::pair().at("make a socket pair")?;
        // SAFETY: a slot has one thread.
        let cloned = unsafe { sys::clone3(namespaces, None) };
        let Cloned::Parent { pidfd, .. } = cloned.at("clone the interpreter")? else {
            drop(socket);
            let Err(e) = become_interpreter(request, image, &theirs, slot);
            let errno = e.source.raw_os_error().unwrap_or(libc::EINVAL);
            let failed = [b"X", &errno.to_le_bytes()[..], e.step.as_bytes()].concat();
            let _ = wire::send(&theirs, &failed, &[]);
            sys::exit_now(1)
        };
        drop(theirs);
        let interpreter = Self { socket, pidfd };
        let failed = |errno| Err(io::Error::from_raw_os_error(errno));
        let held = match interpreter.wait(&IMPORTS) {
            Said::Ready(held) => held,
            Said::No(why) => return Ok(Err(why)),
            Said::Failed { errno, .. } => return failed(errno).at("start the interpreter"),
            Said::Silence => return failed(libc::ETIMEDOUT).at("wait for its imports"),
            _ => return failed(libc::EPIPE).at("wait for its imports"),
        };
        // Not before: what it holds by now is not the sandboxes' memory.
        let groups: Vec<_> = groups.iter().map(AsFd::as_fd).collect();
        wire::send(&interpreter.socket, b"J", &groups).at("have it join its groups")?;
        match interpreter.wait(&IMPORTS) {
            Said::Joined => Ok(Ok((interpreter, held))),
            Said::Silence => failed(libc::ETIMEDOUT).at("have it join its groups"),
            _ => failed(libc::EPIPE).at("have it join its groups"),
        }
    }

    /// Has the interpreter fork into a sandbox. `fds` are stdio and channels, the sandbox's
    /// namespaces, its Landlock rules, and the file that forgets the CPU time until then, where there
    /// are such.
    pub(super) fn ask(
        &self,
        job: &Job<'_>,
        lent: Lent,
        rights: &Rights<'_>,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let message = request(job, lent, rights);
        if message.len() <= wire::MAX_DATAGRAM {
            return wire::send(&self.socket, &message, fds);
        }
        let file = memfd_create("request", MemfdFlags::CLOEXEC)?;
        io::Write::write_all(&mut File::from(file.try_clone()?), &message[1..])?;
        let fds: Vec<_> = fds.iter().copied().chain([file.as_fd()]).collect();
        wire::send(&self.socket, &[wire::IN_FILE; 2], &fds)
    }

    /// Receives what the interpreter says next.
    pub(super) fn listen(&self) -> Said {
        let mut buffer = vec![0; wire::MAX_DATAGRAM];
        loop {
            match wire::receive(&self.socket, &mut buffer) {
                Err(rustix::io::Errno::INTR) => {}
                Ok((length, _)) => return said(&buffer[..length]).unwrap_or(Said::Gone),
                Err(_) => return Said::Gone,
            }
        }
    }

    /// Waits until the interpreter is done with a command whose sandbox is dead, if it is not yet,
    /// and hears what was said of it until then. Returns whether it is ready for another.
    pub(super) fn settle(&self, mut done: bool) -> bool {
        loop {
            let most = if done { Timespec { tv_sec: 0, tv_nsec: 0 } } else { DONE };
            match self.wait(&most) {
                Said::Done => done = true,
                Said::Silence => return done,
                Said::Gone => return false,
                _ => {}
            }
        }
    }

    fn wait(&self, most: &Timespec) -> Said {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(most)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => return Said::Silence,
                _ => return self.listen(),
            }
        }
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        sys::kill_pidfd(self.pidfd.as_fd());
        let _ = sys::wait_pidfd(self.pidfd.as_fd());
    }
}

/// Encodes a command as `warm.py` reads it.
fn request(job: &Job<'_>, lent: Lent, rights: &Rights<'_>) -> Vec<u8> {
    let Rights { limits, seccomp, rules } = rights;
    let mut to = Writer(vec![wire::INLINE]);
    let argv = job.argv.get(lent.script..).unwrap_or_default();
    to.u64(argv.len() as u64);
    argv.iter().for_each(|argument| to.bytes(argument));
    to.bytes(setup::start_directory(job).as_os_str().as_bytes());
    to.u64(limits.len() as u64);
    for (resource, value) in *limits {
        to.u64((*resource).into());
        to.u64(*value);
    }
    to.bytes(seccomp);
    to.u64(job.channels.len() as u64);
    job.channels.iter().for_each(|number| to.u64(*number as u64));
    to.u64(*rules as u64);
    to.0
}

/// Decodes what an interpreter says; `None` when it makes no sense.
pub(super) fn said(message: &[u8]) -> Option<Said> {
    let (letter, rest) = message.split_first()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let number = |bytes: &[u8]| Some(u64::from_le_bytes(*bytes.first_chunk()?));
    let short = |bytes: &[u8]| Some(i32::from_le_bytes(*bytes.first_chunk()?));
    Some(match letter {
        b'+' => Said::Ready(rest.to_vec()),
        b'J' => Said::Joined,
        b'-' => Said::No(text(rest)),
        b'S' => Said::Started { now_ns: number(rest)?, pid: short(rest.get(8..)?)? },
        b'X' => Said::Failed { step: text(rest.get(4..)?), errno: short(rest)? },
        b'D' => Said::Done,
        _ => return None,
    })
}

/// Runs in the new process: executes the interpreter in the image, with what it needs to enter
/// sandboxes of this slot.
fn become_interpreter(
    request: &NewInterpreter<'_>,
    image: &[OwnedFd],
    socket: &OwnedFd,
    slot: BorrowedFd<'_>,
) -> Result<Infallible, StepError> {
    setup::tie_to_slot(slot)?;
    let path = Path::new(OsStr::from_bytes(PATH.as_bytes()));
    let programs = request.programs.iter().map(|(path, content)| (*path, *content));
    let programs: Vec<_> = programs.chain([(path.as_os_str().as_bytes(), PROGRAM)]).collect();
    setup::enter_image(image, &programs)?;
    // Pipes, as a command has them: what Python makes of stdio depends on that.
    let (read, write) = rustix::pipe::pipe().at("make a pipe")?;
    let channel = rustix::io::fcntl_dupfd_cloexec(socket, 128).at("keep the socket")?;
    for (fd, number) in [(&read, 0), (&write, 1), (&write, 2), (&channel, 3)] {
        sys::dup_to(fd.as_fd(), number).at("connect stdio")?;
    }
    sys::close_on_exec_from(4).at("close descriptors")?;
    sys::keep_namespace_capabilities().at("keep the right to enter namespaces")?;
    let strings =
        |items: &[&[u8]]| items.iter().map(|s| CString::new(*s)).collect::<Result<Vec<_>, _>>();
    let nul = "prepare the arguments";
    let argv = strings(&request.argv).map_err(io::Error::other).at(nul)?;
    let env = strings(&request.env).map_err(io::Error::other).at(nul)?;
    let program = argv.first().cloned().unwrap_or_default();
    let e = sys::execute(&program, &sys::CStrings::new(argv), &sys::CStrings::new(env));
    Err(e).at("execute the interpreter")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_the_interpreter_and_nothing_else() {
        let started = [&b"S"[..], &6u64.to_le_bytes(), &3i32.to_le_bytes()].concat();
        let cases = [
            (b"+ json\nx".to_vec(), Some(Said::Ready(b" json\nx".to_vec()))),
            (b"J".to_vec(), Some(Said::Joined)),
            (b"-no".to_vec(), Some(Said::No("no".into()))),
            (started, Some(Said::Started { now_ns: 6, pid: 3 })),
            (
                [&b"X"[..], &13i32.to_le_bytes(), b"join"].concat(),
                Some(Said::Failed { step: "join".into(), errno: 13 }),
            ),
            (b"D".to_vec(), Some(Said::Done)),
            (b"".to_vec(), None),
            (b"?".to_vec(), None),
            (b"S12345678901".to_vec(), None),
            (b"X1".to_vec(), None),
        ];
        for (message, expected) in cases {
            assert_eq!(said(&message), expected, "{message:?}");
        }
    }
}
