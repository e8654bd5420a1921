//! Compiles programs of submissions in a process of their own.
//!
//! A small module can take any time and memory to compile, and can break the compiler off. So a
//! child does it, the service's executable once more, with limits; it reads the module on stdin and
//! writes to stdout what became of it. Both are files in memory, so that neither side waits for the
//! other.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    process::{Pid, PidfdFlags, pidfd_open},
};
use wasmtime::{Engine, Module};

use super::{
    NAME,
    engine::{Threads, engine, is_host_error},
};
use crate::{
    BackendError, BackendResult,
    native::{seccomp, sys},
};

/// The first argument of a process that is to compile a module; its limits follow, the CPU time in
/// seconds and the memory in bytes.
const ARGUMENT: &str = "__compiler";
/// Most bytes of a compiled module.
const MAX_COMPILED: u64 = 64 << 20;
/// Wall time for each second of CPU time: who is over it was starved of CPU by the host.
const WALL_PER_CPU: u32 = 10;
/// How often the child's parent looks whether anybody still waits.
const LOOK: Duration = Duration::from_millis(20);

/// The first byte of the answer.
const COMPILED: u8 = 0;
const REFUSED: u8 = 1;
const FAILED: u8 = 2;

/// What compiling a module may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct CompileLimits {
    pub(super) cpu: Duration,
    pub(super) memory_bytes: u64,
}

/// Becomes the compiler of one module if that is what this process was started for.
pub(crate) fn main_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != ARGUMENT) {
        return;
    }
    let mut number = || arguments.next()?.to_str()?.parse::<u64>().ok();
    let (Some(cpu_s), Some(memory_bytes)) = (number(), number()) else { sys::exit_now(1) };
    let answer = answer(cpu_s, memory_bytes)
        .unwrap_or_else(|error| [&[FAILED], error.to_string().as_bytes()].concat());
    let written = io::stdout().write_all(&answer).and_then(|()| io::stdout().flush());
    sys::exit_now(written.is_err().into())
}

fn answer(cpu_s: u64, memory_bytes: u64) -> io::Result<Vec<u8>> {
    sys::die_with_parent()?;
    sys::close_range(3, u32::MAX);
    let engine = engine(1, Threads::One).map_err(|error| io::Error::other(format!("{error:#}")))?;
    // What is refused from here on is refused by the limit, not by the host.
    let mut room = Vec::<u8>::new();
    let fits = usize::try_from(memory_bytes).map(|bytes| room.try_reserve_exact(bytes));
    if !matches!(std::hint::black_box(fits), Ok(Ok(()))) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    drop(std::hint::black_box(room));
    for (resource, soft, hard) in [
        (libc::RLIMIT_CORE, 0, 0),
        (libc::RLIMIT_NOFILE, 64, 64),
        (libc::RLIMIT_FSIZE, MAX_COMPILED, MAX_COMPILED),
        (libc::RLIMIT_DATA, memory_bytes, memory_bytes),
        // At the hard limit a process is killed by a signal that says nothing.
        (libc::RLIMIT_CPU, cpu_s, cpu_s.saturating_add(1)),
    ] {
        sys::limit_resource(resource, soft, hard)?;
    }
    let filter = seccomp::compile()?;
    sys::set_no_new_privs()?;
    sys::install_seccomp(&filter)?;
    let mut wasm = Vec::new();
    io::stdin().read_to_end(&mut wasm)?;
    compiled(&engine, &wasm)
}

fn compiled(engine: &Engine, wasm: &[u8]) -> io::Result<Vec<u8>> {
    let module = Module::new(engine, wasm).and_then(|module| module.serialize());
    match module {
        Ok(module) => Ok([&[COMPILED], &module[..]].concat()),
        Err(error) if is_host_error(&error) => Err(io::Error::other(format!("{error:#}"))),
        Err(error) => Ok([&[REFUSED], format!("{error:#}").as_bytes()].concat()),
    }
}

/// Compiles `wasm` with `executable`. Returns what [`Module::serialize`] did, or why the module is
/// at fault.
///
/// # Errors
///
/// The host could not do it, or nobody waits any more.
pub(super) fn compile(
    executable: &Path,
    wasm: &[u8],
    limits: CompileLimits,
    cancelled: &AtomicBool,
) -> BackendResult<Result<Vec<u8>, String>> {
    let failed = |source| BackendError::Io { what: "compile a program".into(), source };
    let mut input = memory_file().map_err(failed)?;
    input.write_all(wasm).and_then(|()| input.rewind()).map_err(failed)?;
    let mut output = memory_file().map_err(failed)?;
    let status = (|| {
        let arguments =
            [ARGUMENT.into(), number(limits.cpu.as_secs()), number(limits.memory_bytes)];
        let mut child = Command::new(executable)
            .args::<_, OsString>(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(input)
            .stdout(output.try_clone()?)
            .stderr(Stdio::null())
            .spawn()?;
        let ended = wait(&mut child, limits.cpu * WALL_PER_CPU, cancelled);
        if ended.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        ended
    })();
    if cancelled.load(Ordering::Relaxed) {
        return Err(BackendError::Gone { backend: NAME, what: "nobody waits for it".into() });
    }
    let status = status.map_err(failed)?;
    if let Some(why) = over(status, limits) {
        return Ok(Err(why));
    }
    let mut answer = Vec::new();
    output.rewind().and_then(|()| output.read_to_end(&mut answer)).map_err(failed)?;
    match (status.success(), answer.split_first()) {
        (true, Some((&COMPILED, module))) => Ok(Ok(module.to_vec())),
        (true, Some((&REFUSED, why))) => Ok(Err(String::from_utf8_lossy(why).into_owned())),
        (true, Some((&FAILED, why))) => {
            Err(failed(io::Error::other(String::from_utf8_lossy(why).into_owned())))
        }
        _ => Err(failed(io::Error::other(format!(
            "the compiler ended without an answer ({status})"
        )))),
    }
}

fn number(number: u64) -> OsString {
    number.to_string().into()
}

fn memory_file() -> io::Result<File> {
    Ok(File::from(memfd_create("module", MemfdFlags::CLOEXEC)?))
}

/// Waits until the child has ended.
fn wait(child: &mut Child, wall: Duration, cancelled: &AtomicBool) -> io::Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
    let pidfd: OwnedFd = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec::try_from(LOOK).map_err(io::Error::other)?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if cancelled.load(Ordering::Relaxed) || started.elapsed() > wall {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Why a compiler that ended like this did so because of its module; `None` where that isn't so.
fn over(status: ExitStatus, limits: CompileLimits) -> Option<String> {
    /// Of a Rust program that panicked.
    const PANICKED: i32 = 101;
    let mib = |bytes: u64| bytes >> 20;
    match (status.signal(), status.code()) {
        (Some(libc::SIGXCPU), _) => {
            Some(format!("takes more than {} s to compile", limits.cpu.as_secs()))
        }
        (Some(libc::SIGXFSZ), _) => {
            Some(format!("takes more than {} MiB when compiled", mib(MAX_COMPILED)))
        }
        // Rust ends so when it is refused memory, and when its stack is used up.
        (Some(libc::SIGABRT), _) => {
            Some(format!("takes more than {} MiB to compile", mib(limits.memory_bytes)))
        }
        (Some(libc::SIGSEGV | libc::SIGILL), _) | (_, Some(PANICKED)) => {
            Some("breaks the compiler off".to_owned())
        }
        // Among them SIGKILL, with which a host that is out of memory ends what it likes.
        _ => None,
    }
}
