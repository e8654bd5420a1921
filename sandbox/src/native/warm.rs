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
    fs::{MemfdFlags, Mode, memfd_create},
};

use super::{
    job::NewInterpreter,
    root, setup,
    shared::{AtStep, StepError},
    sys::{self, Cloned},
    wire::{self, Writer},
};

/// The program that an interpreter runs.
pub(crate) const PROGRAM: &[u8] = include_bytes!("warm.py");
/// Where it lies inside.
pub(crate) const PATH: &str = "/assay/warm.py";
/// How long an interpreter may take to import what it is told to: less than a caller waits for a
/// sandbox beyond its wall limit.
const IMPORTS: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// How long an interpreter may take to be done with a command whose sandbox is dead.
const DONE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// What a process has to enter to be in a sandbox, in the order in which `warm.py` has them.
pub(crate) const NAMESPACES: [&str; 6] = ["mnt", "net", "ipc", "uts", "cgroup", "pid"];
/// The place of the network there.
pub(crate) const NETWORK: usize = 1;

/// An interpreter that has imported its modules. Dropping it ends it.
pub(super) struct Interpreter {
    pub(super) conversation: Conversation,
    pub(super) pid: i32,
    pidfd: OwnedFd,
}

/// The socket to an interpreter.
pub(crate) struct Conversation(OwnedFd);

/// A command that an interpreter is asked to fork for.
pub(crate) struct Asked<'a> {
    /// The script and its arguments.
    pub(crate) argv: &'a [&'a [u8]],
    /// The working directory, absolute.
    pub(crate) cwd: &'a Path,
    /// Who the fork becomes, where no namespace of its own says that.
    pub(crate) user: Option<u32>,
    /// Resource limits and their values.
    pub(crate) limits: &'a [(u32, u64)],
    /// The filter, as the kernel reads it; empty where the interpreter has it itself.
    pub(crate) seccomp: &'a [u8],
    pub(crate) channels: &'a [i32],
    /// How many sets of Landlock rules are among the descriptors.
    pub(crate) rules: usize,
}

/// What an interpreter, or a fork of it, says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
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
    /// The interpreter is done with the command, and nobody says any more of it.
    Done,
    /// Nothing in time.
    Silence,
    /// Something that makes no sense.
    Nonsense,
    /// There is no interpreter any more, nor a fork of it that has not said that it started.
    Gone,
}

impl Interpreter {
    /// Starts an interpreter on the image behind `image` and waits until it is ready; `rooted` is
    /// whether the slot has a root. Returns with it the names of the modules that it holds; the inner error is why it is none.
    pub(crate) fn start(
        request: &NewInterpreter<'_>,
        image: &[OwnedFd],
        slot: BorrowedFd<'_>,
        groups: &[OwnedFd],
        rooted: bool,
    ) -> Result<Result<(Self, Vec<u8>), String>, StepError> {
        // Namespaces of its own: what a sandbox leaves in its ipc namespace must not live on in ours.
        let namespaces =
            libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWUTS;
        let (socket, theirs) = wire::pair().at("make a socket pair")?;
        // SAFETY: a slot has one thread.
        let cloned = unsafe { sys::clone3(namespaces, None) };
        let Cloned::Parent { pidfd, pid } = cloned.at("clone the interpreter")? else {
            drop(socket);
            let Err(e) = become_interpreter(request, image, &theirs, slot, rooted);
            let errno = e.source.raw_os_error().unwrap_or(libc::EINVAL);
            let failed = [b"X", &errno.to_le_bytes()[..], e.step.as_bytes()].concat();
            let _ = wire::send(&theirs, &failed, &[]);
            sys::exit_now(1)
        };
        drop(theirs);
        let interpreter = Self { conversation: Conversation::new(socket), pid, pidfd };
        let began = interpreter.conversation.begin(groups)?;
        Ok(began.map(|held| (interpreter, held)))
    }
}

impl Conversation {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Waits until the interpreter is ready, and has it join control groups. Returns the names of
    /// the modules that it holds; the inner error is why it is none.
    pub(crate) fn begin(&self, groups: &[OwnedFd]) -> Result<Result<Vec<u8>, String>, StepError> {
        let failed = |errno| Err(io::Error::from_raw_os_error(errno));
        let held = match self.wait(&IMPORTS) {
            Said::Ready(held) => held,
            Said::No(why) => return Ok(Err(why)),
            Said::Failed { errno, .. } => return failed(errno).at("start the interpreter"),
            Said::Silence => return failed(libc::ETIMEDOUT).at("wait for its imports"),
            _ => return failed(libc::EPIPE).at("wait for its imports"),
        };
        // Not before: what it holds by now is not the sandboxes' memory.
        let groups: Vec<_> = groups.iter().map(AsFd::as_fd).collect();
        wire::send(&self.0, b"J", &groups).at("have it join its groups")?;
        match self.wait(&IMPORTS) {
            Said::Joined => Ok(Ok(held)),
            Said::Silence => failed(libc::ETIMEDOUT).at("have it join its groups"),
            _ => failed(libc::EPIPE).at("have it join its groups"),
        }
    }

    /// Has the interpreter fork for a command. `fds` are stdio and channels and, where the fork is
    /// to enter a sandbox, its namespaces, its Landlock rules, and the file that forgets the CPU time
    /// until then, where there are such.
    pub(crate) fn ask(&self, asked: &Asked<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let message = request(asked);
        if message.len() <= wire::MAX_DATAGRAM {
            return wire::send(&self.0, &message, fds);
        }
        let file = memfd_create("request", MemfdFlags::CLOEXEC)?;
        io::Write::write_all(&mut File::from(file.try_clone()?), &message[1..])?;
        let fds: Vec<_> = fds.iter().copied().chain([file.as_fd()]).collect();
        wire::send(&self.0, &[wire::IN_FILE; 2], &fds)
    }

    /// Receives what the interpreter says next.
    pub(crate) fn listen(&self) -> Said {
        let mut buffer = vec![0; wire::MAX_DATAGRAM];
        loop {
            match wire::receive(&self.0, &mut buffer) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) | Ok((0, _)) => return Said::Gone,
                Ok((length, _)) => return said(&buffer[..length]).unwrap_or(Said::Nonsense),
            }
        }
    }

    /// Waits until the interpreter is done with a command whose sandbox is dead, and hears what was
    /// said of it until then. Returns whether it is ready for another.
    pub(crate) fn settle(&self) -> bool {
        let mut done = false;
        loop {
            // It may have died since.
            let most = if done { Timespec { tv_sec: 0, tv_nsec: 0 } } else { DONE };
            match self.wait(&most) {
                Said::Done => done = true,
                Said::Silence => return done,
                Said::Gone | Said::Nonsense => return false,
                _ => {}
            }
        }
    }

    /// Receives what the interpreter says next, if that is soon enough.
    pub(crate) fn wait(&self, most: &Timespec) -> Said {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(most)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => return Said::Silence,
                _ => return self.listen(),
            }
        }
    }
}

impl AsFd for Conversation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        sys::kill_pidfd(self.pidfd.as_fd());
        let _ = sys::wait_pidfd(self.pidfd.as_fd());
    }
}

/// Encodes a command as `warm.py` reads it.
fn request(asked: &Asked<'_>) -> Vec<u8> {
    let mut to = Writer(vec![wire::INLINE]);
    to.u64(asked.argv.len() as u64);
    asked.argv.iter().for_each(|argument| to.bytes(argument));
    to.bytes(asked.cwd.as_os_str().as_bytes());
    // No command is root's.
    to.u64(asked.user.unwrap_or(0).into());
    to.u64(asked.limits.len() as u64);
    for (resource, value) in asked.limits {
        to.u64((*resource).into());
        to.u64(*value);
    }
    to.bytes(asked.seccomp);
    to.u64(asked.channels.len() as u64);
    asked.channels.iter().for_each(|number| to.u64(*number as u64));
    to.u64(asked.rules as u64);
    to.0
}

/// Decodes what an interpreter says; `None` when it makes no sense.
pub(crate) fn said(message: &[u8]) -> Option<Said> {
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
    rooted: bool,
) -> Result<Infallible, StepError> {
    setup::tie_to_slot(slot)?;
    let path = Path::new(OsStr::from_bytes(PATH.as_bytes()));
    let programs = request.programs.iter().map(|(path, content)| (*path, *content));
    let programs: Vec<_> = programs.chain([(path.as_os_str().as_bytes(), PROGRAM)]).collect();
    root::enter_image(image, &programs, rooted)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
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
