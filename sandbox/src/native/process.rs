//! A command of a session: its pipes, its time, its end.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{net::unix::pipe, sync::oneshot, task::AbortHandle, time::Instant};

use super::{
    failed, gone,
    link::Link,
    talk::{self, Ask, End, Reply},
};
use crate::{
    ChannelEnd, Command, Ended, Event, LimitKind, Process, SessionError, Stream, Termination,
    collect::Collector, proc::starved,
};

/// What a command may have in its pipes when it has ended.
const IN_PIPES: usize = 1 << 20;
/// Longer than any command runs, and short enough to be added to any time.
const FOREVER: Duration = Duration::from_secs(1 << 30);
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// A command of a session.
pub(super) struct NativeProcess {
    link: Arc<Link>,
    number: u64,
    /// `None` before its start and after its end.
    answer: Option<oneshot::Receiver<Reply>>,
    started: Instant,
    wall: Duration,
    /// Whether it was killed because its time was up.
    is_late: bool,
    outputs: Outputs,
    feeds: Option<AbortHandle>,
    /// What is still to be told when it has ended.
    last: VecDeque<Event>,
}

impl fmt::Debug for NativeProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeProcess").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The pipes out of a command: stdout, stderr, collected channels.
struct Outputs {
    list: Vec<Output>,
    buffer: Vec<u8>,
}

/// One pipe out of a command.
struct Output {
    /// `None` after its end.
    pipe: Option<pipe::Receiver>,
    /// How many bytes are still handed on as they come.
    room: usize,
    keep: Collector,
}

impl Output {
    fn new(pipe: OwnedFd, room: usize, keep: Collector) -> Result<Self, SessionError> {
        Ok(Self { pipe: Some(receiver(pipe)?), room, keep })
    }

    /// Reads what is there. Returns how many bytes were read, and those of them to hand on.
    fn read(&mut self, buffer: &mut [u8]) -> Option<(usize, Vec<u8>)> {
        let pipe = self.pipe.as_ref()?;
        match pipe.try_read(buffer) {
            Ok(length) if length > 0 => {
                let (now, later) = buffer[..length].split_at(self.room.min(length));
                self.room -= now.len();
                self.keep.push(later);
                Some((length, now.to_vec()))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            _ => {
                self.pipe = None;
                None
            }
        }
    }
}

impl Outputs {
    /// Drains all pipes and waits for bytes to hand on.
    async fn next(&mut self) -> (Stream, Vec<u8>) {
        let Self { list, buffer } = self;
        poll_fn(|context| {
            for (place, output) in list.iter_mut().enumerate() {
                while let Some(pipe) = &output.pipe {
                    if pipe.poll_read_ready(context).is_pending() {
                        break;
                    }
                    match output.read(buffer) {
                        Some((_, bytes)) if !bytes.is_empty() => {
                            return Poll::Ready((stream(place), bytes));
                        }
                        _ => {}
                    }
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// What the pipe at this place is. Channels have no bytes to hand on.
fn stream(place: usize) -> Stream {
    if place == 0 { Stream::Stdout } else { Stream::Stderr }
}

impl NativeProcess {
    pub(super) fn new(link: Arc<Link>, wall: Duration) -> Self {
        Self {
            link,
            number: 0,
            answer: None,
            started: Instant::now(),
            wall,
            is_late: false,
            outputs: Outputs { list: Vec::new(), buffer: vec![0; CHUNK] },
            feeds: None,
            last: VecDeque::new(),
        }
    }

    /// Makes its pipes and has it started. `bytes` of each stream are kept.
    pub(super) fn connect(&mut self, command: &Command, bytes: usize) -> Result<(), SessionError> {
        let mut theirs = Vec::new();
        let stdin = if command.stdin.is_empty() {
            let null = std::fs::File::open("/dev/null").map_err(|e| failed("open /dev/null", e))?;
            theirs.push(OwnedFd::from(null));
            None
        } else {
            let (read, write) = pipe()?;
            theirs.push(read);
            Some(sender(write)?)
        };
        let mut collect = |room, keep| {
            let (read, write) = pipe()?;
            self.outputs.list.push(Output::new(read, room, keep)?);
            Ok::<_, SessionError>(write)
        };
        for _ in 0..2 {
            theirs.push(collect(bytes.div_ceil(2), Collector::tail_only(bytes / 2))?);
        }
        let mut own = Vec::new();
        for channel in &command.channels {
            own.push(match &channel.end {
                ChannelEnd::Collect { max_bytes } => {
                    theirs.push(collect(0, Collector::head_only(*max_bytes))?);
                    None
                }
                ChannelEnd::Fd(fd) => Some(fd.as_fd()),
            });
        }
        let (stdio, collected) = theirs.split_at(3);
        let mut collected = collected.iter();
        let channels =
            own.into_iter().filter_map(|own| own.or_else(|| collected.next().map(AsFd::as_fd)));
        let fds = stdio.iter().map(AsFd::as_fd).chain(channels).collect();
        let start = |number| talk::encode_start(number, command);
        let (number, answer) = self.link.send(true, start, fds)?;
        self.started = Instant::now();
        (self.number, self.answer) = (number, Some(answer));
        if let Some(mut stdin) = stdin {
            let bytes = Arc::clone(&command.stdin);
            let feeds = tokio::spawn(async move {
                use tokio::io::AsyncWriteExt as _;
                // A command that reads no more of it is no error.
                let _ = stdin.write_all(&bytes).await;
            });
            self.feeds = Some(feeds.abort_handle());
        }
        Ok(())
    }

    /// Kills its process group. The answer comes by itself.
    fn kill(&self) {
        let ask = Ask::Signal { to: self.number, signal: libc::SIGKILL };
        let _ = self.link.send(false, |number| ask.encode(number), Vec::new());
    }

    /// Notes what is in the pipes of a command that ended, and the end.
    fn end(&mut self, end: End) {
        let wall = self.started.elapsed();
        let mut captures = Vec::new();
        let Outputs { list, buffer } = &mut self.outputs;
        for (place, mut output) in std::mem::take(list).into_iter().enumerate() {
            let mut read = 0;
            // What it left running may write for ever.
            while read < IN_PIPES
                && let Some((length, bytes)) = output.read(buffer)
            {
                read += length;
                if !bytes.is_empty() {
                    self.last.push_back(Event::Output(stream(place), bytes));
                }
            }
            if let Some(pipe) = output.pipe.take() {
                self.link.drain(pipe);
            }
            captures.push(output.keep.finish());
        }
        let status = end.wait_status;
        let termination = if self.is_late {
            let wall_ns = u64::try_from(self.wall.as_nanos()).unwrap_or(u64::MAX);
            let is_starved = starved(wall_ns, end.cpu_ns, end.stalled_ns);
            Termination::Limit(if is_starved { LimitKind::WallStarved } else { LimitKind::Wall })
        } else if end.out_of_memory && status != 0 {
            Termination::Limit(LimitKind::Memory)
        } else if libc::WIFSIGNALED(status) {
            Termination::Signaled(libc::WTERMSIG(status))
        } else {
            Termination::Exited(libc::WEXITSTATUS(status))
        };
        let mut captures = captures.into_iter();
        let mut capture = || captures.next().unwrap_or_default();
        let (stdout, stderr) = (capture(), capture());
        self.last.push_back(Event::Ended(Box::new(Ended {
            termination,
            stdout,
            stderr,
            channels: captures.collect(),
            wall,
            cpu: Duration::from_nanos(end.cpu_ns),
            cleared: end.cleared,
        })));
    }
}

#[async_trait]
impl Process for NativeProcess {
    fn number(&self) -> u64 {
        self.number
    }

    async fn next(&mut self) -> Result<Event, SessionError> {
        if let Some(event) = self.last.pop_front() {
            return Ok(event);
        }
        let late = self.started + self.wall.min(FOREVER);
        let reply = loop {
            let Some(answer) = &mut self.answer else {
                return Err(gone("the command has ended").into());
            };
            tokio::select! {
                biased;
                reply = answer => break reply,
                (stream, bytes) = self.outputs.next() => return Ok(Event::Output(stream, bytes)),
                () = tokio::time::sleep_until(late), if !self.is_late => {
                    self.is_late = true;
                    self.kill();
                }
            }
        };
        self.answer = None;
        match self.link.understand(reply)? {
            Reply::Ended(end) => self.end(end),
            Reply::Refused { errno, what } => {
                return Err(failed(&what, io::Error::from_raw_os_error(errno)).into());
            }
            _ => return Err(gone("slot gave another answer").into()),
        }
        self.last.pop_front().ok_or_else(|| gone("the command has ended").into())
    }
}

impl Drop for NativeProcess {
    fn drop(&mut self) {
        if let Some(feeds) = &self.feeds {
            feeds.abort();
        }
        if self.answer.is_some() {
            self.kill();
        }
        self.link.lock().running -= 1;
    }
}

/// Returns a pipe: the end to read from, and the end to write to.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd), SessionError> {
    let pipe = pipe_with(PipeFlags::CLOEXEC);
    Ok(pipe.map_err(|e| failed("make a pipe", e.into()))?)
}

/// Has tokio watch the end of a pipe that is ours to read from.
pub(super) fn receiver(read: OwnedFd) -> Result<pipe::Receiver, SessionError> {
    let made = rustix::io::ioctl_fionbio(&read, true).map_err(io::Error::from);
    let made = made.and_then(|()| pipe::Receiver::from_owned_fd_unchecked(read));
    Ok(made.map_err(|e| failed("watch a pipe", e))?)
}

/// Has tokio watch the end of a pipe that is ours to write to.
pub(super) fn sender(write: OwnedFd) -> Result<pipe::Sender, SessionError> {
    let made = rustix::io::ioctl_fionbio(&write, true).map_err(io::Error::from);
    let made = made.and_then(|()| pipe::Sender::from_owned_fd_unchecked(write));
    Ok(made.map_err(|e| failed("watch a pipe", e))?)
}
