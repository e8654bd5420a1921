//! One run: pipes to the command, the job to its slot, the report back.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use async_trait::async_trait;
use rustix::fs::{MemfdFlags, memfd_create};
use tracing::{debug, warn};

use super::{
    Place, failed, gone,
    job::{self, Done, Report},
    lineage,
    output::{Drain, Drains},
    pool::{Slot, receive_report},
    wire,
};
use crate::{
    BackendResult, Capture, ChannelEnd, Command, Execution, Isolation, Sandbox, SandboxId,
    SandboxSpec, Start, Termination, Usage, collect::Collector,
};

/// A sandbox that a slot is kept for. The slot makes it when it runs.
pub(super) struct NativeSandbox {
    pub(super) id: SandboxId,
    pub(super) place: Place,
    pub(super) spec: SandboxSpec,
}

#[async_trait]
impl Sandbox for NativeSandbox {
    fn id(&self) -> SandboxId {
        self.id
    }

    async fn run(self: Box<Self>, command: Command) -> BackendResult<Execution> {
        let Self { id, mut place, spec } = *self;
        crate::spec::check_command(&command)?;
        let connected =
            connect(&spec, &command).map_err(|e| failed("make pipes for the command", e))?;
        let lent = lineage::lent(&mut place.busy, &place.image, &spec, &command).await?;
        let process = lent.as_ref().ok().copied();
        let job = job::encode(&spec, place.making(), &command, process);
        let Place { mut busy, mounts, .. } = place;
        let slot = busy.request()?;
        send_job(slot, job, &connected, mounts.as_deref().unwrap_or_default(), &command)
            .map_err(|e| gone(&format!("slot takes no command: {e}")))?;
        drop(mounts);
        let Connected { ours, stdin, theirs } = connected;
        // The command has its own now; as long as ours were open, no pipe would end.
        drop(theirs);
        // Ends of socket pairs, too: the peer must see when the sandbox's end is closed.
        drop(command.channels);

        let mut drains = Drains::new(ours);
        let slot = busy.slot()?;
        let pump = async {
            tokio::join!(feed(stdin, &command.stdin), drains.drain());
            std::future::pending::<()>().await;
        };
        let stop = async {
            command.stop.cancelled().await;
            // A slot that is gone says so itself.
            let _ = send_cancel(slot);
            std::future::pending::<()>().await;
        };
        let report = tokio::select! {
            report = receive_report(slot) => report,
            () = pump => unreachable!("it never ends"),
            () = stop => unreachable!("it never ends"),
        };
        let report = report.map_err(|e| gone(&format!("slot {}: {e}", slot.number)))?;
        let fallbacks = slot.fallbacks.as_ref().clone();
        busy.running = false;
        let lost = match &report {
            Report::Done(done) => done.lost,
            // Should that have been the interpreter's doing, another will be better.
            _ => lent.is_ok(),
        };
        if lost {
            busy.slot_mut()?.interpreters.clear();
        }
        drop(busy);
        let captures = drains.finish();
        match report {
            Report::Rooted | Report::Interpreter(_) | Report::Reply(..) => {
                Err(gone("slot gave another answer"))
            }
            Report::Failed { step, errno } => {
                warn!(sandbox_id = %id, step, errno, "sandbox could not be made");
                Err(failed(&step, io::Error::from_raw_os_error(errno)))
            }
            Report::Done(done) => {
                debug!(sandbox_id = %id, ?done, "sandbox ended");
                let start = match lent {
                    Err(Some(why)) => Start::ColdInstead(why),
                    _ => done.start.clone(),
                };
                let isolation = Isolation { backend: "native".to_owned(), fallbacks, start };
                let captures = captures.map_err(|e| failed("read what the command wrote", e))?;
                Ok(execution(&done, captures, isolation))
            }
        }
    }
}

/// Puts together what came of a command; `captures` are of stdout, stderr and collected channels.
pub(crate) fn execution(done: &Done, captures: Vec<Capture>, isolation: Isolation) -> Execution {
    let status = done.wait_status;
    let termination = match done.limit {
        Some(kind) => Termination::Limit(kind),
        None if libc::WIFSIGNALED(status) => Termination::Signaled(libc::WTERMSIG(status)),
        None => Termination::Exited(libc::WEXITSTATUS(status)),
    };
    let mut captures = captures.into_iter();
    Execution {
        termination,
        stdout: captures.next().unwrap_or_default(),
        stderr: captures.next().unwrap_or_default(),
        channels: captures.collect(),
        usage: usage(done),
        isolation,
    }
}

/// What a sandbox used.
pub(super) fn usage(done: &Done) -> Usage {
    Usage {
        wall: Duration::from_nanos(done.wall_ns),
        cpu: Duration::from_nanos(done.cpu_ns),
        peak_memory_bytes: done.peak_memory_bytes,
        setup: Duration::from_nanos(done.setup_ns),
        pids_refused: done.pids_refused,
        stalled: Duration::from_nanos(done.stalled_ns),
        instructions: None,
    }
}

/// The descriptors around a command.
struct Connected {
    /// Stdout, stderr and collected channels.
    ours: Vec<Drain>,
    /// Where stdin is fed, if there is any.
    stdin: Option<tokio::net::unix::pipe::Sender>,
    /// Stdin, stdout, stderr and one for each channel, `None` where the command brings its own.
    theirs: Vec<Option<OwnedFd>>,
}

fn connect(spec: &SandboxSpec, command: &Command) -> io::Result<Connected> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    let stdin = if command.stdin.is_empty() {
        theirs.push(Some(std::fs::File::open("/dev/null")?.into()));
        None
    } else {
        let (read, write) = pipe()?;
        theirs.push(Some(read));
        rustix::io::ioctl_fionbio(&write, true)?;
        Some(tokio::net::unix::pipe::Sender::from_owned_fd_unchecked(write)?)
    };
    for _ in 0..2 {
        let (read, write) = pipe()?;
        ours.push(Drain::new(read, Collector::head_and_tail(spec.limits.output_bytes))?);
        theirs.push(Some(write));
    }
    for channel in &command.channels {
        theirs.push(match channel.end {
            ChannelEnd::Collect { max_bytes } => {
                let (read, write) = pipe()?;
                ours.push(Drain::new(read, Collector::head_only(max_bytes))?);
                Some(write)
            }
            ChannelEnd::Fd(_) => None,
        });
    }
    Ok(Connected { ours, stdin, theirs })
}

async fn feed(pipe: Option<tokio::net::unix::pipe::Sender>, bytes: &[u8]) {
    use tokio::io::AsyncWriteExt;
    let Some(mut pipe) = pipe else { return };
    // A command that reads no more of it is no error.
    let _ = pipe.write_all(bytes).await;
}

fn send_job(
    slot: &Slot,
    job: Vec<u8>,
    connected: &Connected,
    mounts: &[OwnedFd],
    command: &Command,
) -> io::Result<()> {
    let own = command.channels.iter().map(|channel| match &channel.end {
        ChannelEnd::Fd(fd) => Some(fd.as_fd()),
        ChannelEnd::Collect { .. } => None,
    });
    let own = std::iter::repeat_n(None, 3).chain(own);
    let mut fds: Vec<_> = connected
        .theirs
        .iter()
        .zip(own)
        .filter_map(|(theirs, own)| theirs.as_ref().map(AsFd::as_fd).or(own))
        .collect();
    fds.extend(mounts.iter().map(AsFd::as_fd));
    send(slot.socket.get_ref(), slot.request, job, fds)
}

/// Has a slot end its sandbox and report, if it has not yet.
pub(super) fn send_cancel(slot: &Slot) -> io::Result<()> {
    wire::send(slot.socket.get_ref(), &wire::header(wire::CANCEL, slot.request), &[])
}

/// Sends a slot what it is asked for, as a part of the request of this number.
pub(super) fn send(
    socket: impl AsFd,
    request: u64,
    job: Vec<u8>,
    fds: Vec<BorrowedFd<'_>>,
) -> io::Result<()> {
    let file;
    let mut fds = fds;
    let message;
    if job.len() < wire::MAX_DATAGRAM {
        message = [wire::header(wire::INLINE, request), job].concat();
    } else {
        message = wire::header(wire::IN_FILE, request);
        file = memfd_create("job", MemfdFlags::CLOEXEC)?;
        io::Write::write_all(&mut std::fs::File::from(file.try_clone()?), &job)?;
        fds.push(file.as_fd());
    }
    wire::send(socket, &message, &fds)
}
