//! Starts the process of a command, or of an interpreter.

use std::{
    convert::Infallible,
    ffi::CString,
    fs, io,
    os::fd::{AsFd as _, BorrowedFd},
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
    give_up: impl Fn() -> Result<(), StepError>,
) -> Result<i32, StepError> {
    // Written by the new process, in the memory that it shares with us until it executes.
    let mut failed = None;
    // SAFETY: the agent has one thread; nothing below panics.
    let pid = unsafe {
        sys::vfork(&mut || {
            let Err(e) = become_it(program, &give_up);
            failed = Some(e);
        })
    };
    match (pid.at("make a process")?, failed) {
        (pid, None) => Ok(pid),
        (_, Some(e)) => Err(e),
    }
}

fn become_it(
    program: &Program<'_>,
    give_up: &impl Fn() -> Result<(), StepError>,
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
    for (fd, to) in stdio.into_iter().zip(0..).chain(channels) {
        sys::dup_to(fd.at("move a descriptor")?.as_fd(), to).at("connect a descriptor")?;
    }
    give_up()?;
    rustix::process::chdir(path_of(program.cwd)).at("enter the working directory")?;
    let e = sys::execute(&path, &argv, &env);
    let missing = e.kind() == io::ErrorKind::NotFound;
    let text = format!("cannot execute {}: {e}\n", path.to_string_lossy());
    let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
    sys::exit_now(if missing { 127 } else { 126 })
}
