//! Starts the process of a command, or of an interpreter.

use std::{
    convert::Infallible,
    ffi::CString,
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::path_of;
use crate::native::{
    shared::{AtStep as _, StepError},
    sys::{self, CStrings},
};

/// Stands before the agent when memory runs out.
const OOM_SCORE: &str = "500";
/// Descriptors from here on are out of the way of those that a command gets.
const ABOVE: i32 = 128;

/// What is executed.
pub(super) struct Program<'a> {
    pub(super) argv: &'a [&'a [u8]],
    pub(super) env: &'a [&'a [u8]],
    /// Absolute.
    pub(super) cwd: &'a [u8],
    pub(super) stdio: [BorrowedFd<'a>; 3],
    /// Further descriptors and their numbers.
    pub(super) channels: Vec<(BorrowedFd<'a>, i32)>,
}

/// Starts `program` in a process that gives up its rights in `give_up`; returns once it is executed.
///
/// A program that can't be executed is one that fails, as a shell has it.
pub(super) fn start(
    program: &Program<'_>,
    give_up: impl FnOnce() -> Result<(), StepError>,
) -> Result<i32, StepError> {
    // Ends when the program is executed.
    let (failed, failing) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("make a pipe")?;
    // SAFETY: the agent has one thread.
    match unsafe { sys::fork() }.at("make a process")? {
        None => {
            drop(failed);
            let Err(e) = become_it(program, &failing, give_up);
            let errno = e.source.raw_os_error().unwrap_or(libc::EINVAL);
            let _ =
                rustix::io::write(&failing, &[&errno.to_le_bytes(), e.step.as_bytes()].concat());
            sys::exit_now(1)
        }
        Some(pid) => {
            drop(failing);
            let mut word = [0; 200];
            let length = rustix::io::retry_on_intr(|| rustix::io::read(&failed, &mut word))
                .at("wait for the process")?;
            match word[..length].split_first_chunk() {
                None => Ok(pid),
                Some((errno, step)) => {
                    let errno = i32::from_le_bytes(*errno);
                    eprintln!("{}", String::from_utf8_lossy(step));
                    Err(io::Error::from_raw_os_error(errno)).at("start the command")
                }
            }
        }
    }
}

fn become_it(
    program: &Program<'_>,
    failing: &OwnedFd,
    give_up: impl FnOnce() -> Result<(), StepError>,
) -> Result<Infallible, StepError> {
    rustix::process::setsid().at("start a session")?;
    fs::write("/proc/self/oom_score_adj", OOM_SCORE)
        .at("stand before the agent when memory runs out")?;
    let strings =
        |items: &[&[u8]]| items.iter().map(|s| CString::new(*s)).collect::<Result<Vec<_>, _>>();
    let nul = "prepare the arguments";
    let argv = strings(program.argv).map_err(io::Error::other).at(nul)?;
    let env = strings(program.env).map_err(io::Error::other).at(nul)?;
    let path = argv.first().cloned().unwrap_or_default();
    let (argv, env) = (CStrings::new(argv), CStrings::new(env));

    // Their numbers may be taken by one another.
    let up = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, ABOVE);
    let stdio = program.stdio.map(up);
    let channels: Vec<_> = program.channels.iter().map(|(fd, to)| (up(*fd), *to)).collect();
    let failing = up(failing.as_fd()).at("move a descriptor")?;
    for (fd, to) in stdio.into_iter().zip(0..).chain(channels) {
        sys::dup_to(fd.at("move a descriptor")?.as_fd(), to).at("connect a descriptor")?;
    }
    give_up()?;
    rustix::process::chdir(path_of(program.cwd)).at("enter the working directory")?;
    let e = sys::execute(&path, &argv, &env);
    let missing = e.kind() == io::ErrorKind::NotFound;
    let text = format!("cannot execute {}: {e}\n", path.to_string_lossy());
    let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
    drop(failing);
    sys::exit_now(if missing { 127 } else { 126 })
}
