//! Our end of a session: asks to the slot, answers to whoever asked, output to whoever reads it.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::poll_fn,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    sync::{oneshot, watch},
    task::AbortHandle,
    time::Instant,
};
use tracing::debug;

use super::{
    failed, gone,
    job::{self, Done, Report},
    pool::{Busy, receive_report},
    run,
    talk::{self, Ask, End, Reply},
};
use crate::{
    BackendError, BackendResult, ChannelEnd, Command, Ended, Event, Isolation, LimitKind, Limits,
    Over, Process, SandboxId, Session, SessionError, SessionSpec, Snapshot, Start, Stream,
    Termination, Usage, collect::Collector,
};

/// Most commands of a session at a time.
const COMMANDS: usize = 32;
/// Pipes of ended commands that are still drained, so that what they left running may write on.
const LEFT_OPEN: usize = 32;
/// What a command may have in its pipes when it has ended.
const IN_PIPES: usize = 1 << 20;
/// Longer than any command runs, and short enough to be added to any time.
const FOREVER: Duration = Duration::from_secs(1 << 30);
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;
/// Most bytes of a file's record beside its content: its path, for the most part.
const RECORD: u64 = 4200;

/// A session that a slot keeps.
pub(super) struct NativeSession {
    id: SandboxId,
    link: Arc<Link>,
    /// What became of it, once it is freed.
    done: watch::Receiver<Option<Result<Done, String>>>,
    workdir: PathBuf,
    limits: Limits,
    fallbacks: Arc<Vec<String>>,
    state_dir: PathBuf,
}

impl fmt::Debug for NativeSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeSession").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a session and its processes share. When the last of them is gone, so is the session.
#[derive(Debug)]
struct Link {
    socket: OwnedFd,
    state: Mutex<LinkState>,
    /// Dropped with this.
    _used: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct LinkState {
    last: u64,
    waiting: HashMap<u64, Waiting>,
    over: Option<Over>,
    /// Whether there is no slot behind it any more.
    closed: bool,
    running: usize,
    left_open: VecDeque<AbortHandle>,
}

/// Somebody who waits for an answer.
#[derive(Debug)]
struct Waiting {
    tell: oneshot::Sender<Reply>,
    /// Whether it is the end of a command, which never comes when all is over.
    for_end: bool,
}

impl NativeSession {
    /// Has a slot make the session; returns when it is ready for a command.
    pub(super) async fn open(
        spec: SessionSpec,
        image: &Path,
        mut busy: Busy,
        mounts: Option<Vec<OwnedFd>>,
    ) -> BackendResult<Self> {
        let message = job::encode_session(&spec, image, mounts.is_some());
        let slot = busy.slot()?;
        let socket = rustix::io::fcntl_dupfd_cloexec(slot.socket.get_ref(), 0)
            .map_err(|e| failed("share a slot's socket", e.into()))?;
        let fallbacks = Arc::clone(&slot.fallbacks);
        let records = spec.from.iter().map(|from| from.file().as_fd());
        let mounts = mounts.unwrap_or_default();
        let fds = records.chain(mounts.iter().map(AsFd::as_fd)).collect();
        run::send(&socket, message, fds)
            .map_err(|e| gone(&format!("slot takes no session: {e}")))?;
        busy.running = true;
        drop(mounts);
        match receive_report(busy.slot()?).await {
            Ok(Report::Reply(0, Reply::Ready)) => {}
            Ok(Report::Failed { step, errno }) => {
                busy.running = false;
                return Err(failed(&step, io::Error::from_raw_os_error(errno)));
            }
            Ok(Report::Done(_)) => {
                busy.running = false;
                return Err(gone("the session died while it was made"));
            }
            Ok(_) => return Err(gone("slot gave another answer")),
            Err(e) => return Err(gone(&format!("slot: {e}"))),
        }
        let id = SandboxId::generate();
        let (used, unused) = oneshot::channel();
        let link = Arc::new(Link { socket, state: Mutex::default(), _used: used });
        let (told, done) = watch::channel(None);
        let runtime = busy.inner.runtime.clone();
        let state_dir = busy.inner.config.state_dir.clone();
        // It holds the link no longer than it takes to hand an answer on.
        runtime.spawn(route(id, busy, Arc::downgrade(&link), unused, told));
        let (workdir, limits) = (spec.sandbox.workdir, spec.sandbox.limits);
        Ok(Self { id, link, done, workdir, limits, fallbacks, state_dir })
    }

    /// Opens a pipe whose end of ours is for tokio.
    fn pipe() -> Result<(OwnedFd, OwnedFd), SessionError> {
        let pipe = pipe_with(PipeFlags::CLOEXEC);
        Ok(pipe.map_err(|e| failed("make a pipe", e.into()))?)
    }

    fn inside(&self, path: &Path) -> Result<PathBuf, SessionError> {
        let inside = self.workdir.join(path);
        let bytes = inside.as_os_str().as_bytes();
        if bytes.contains(&0) || bytes.len() >= 4096 {
            let what = "is too long, or holds a NUL byte".to_owned();
            return Err(file_error(path, what, io::ErrorKind::InvalidInput));
        }
        Ok(inside)
    }
}

/// Hands answers to those who asked, until the session is freed.
async fn route(
    id: SandboxId,
    mut busy: Busy,
    link: std::sync::Weak<Link>,
    mut unused: oneshot::Receiver<()>,
    told: watch::Sender<Option<Result<Done, String>>>,
) {
    // A slot that can't be heard is given up with what it does.
    let mut is_heard = true;
    let done = loop {
        let Ok(slot) = busy.slot() else { return };
        let report = tokio::select! {
            report = receive_report(slot) => report,
            // Nobody can ask for anything any more. Dropping it kills the session.
            _ = &mut unused => return drop(busy),
        };
        match report {
            Ok(Report::Reply(number, reply)) => {
                let Some(link) = link.upgrade() else { continue };
                let mut state = link.lock();
                match reply {
                    Reply::Over(over) => {
                        debug!(sandbox_id = %id, ?over, "session over");
                        state.over = Some(over);
                        state.waiting.retain(|_, waiting| !waiting.for_end);
                    }
                    reply => {
                        if let Some(waiting) = state.waiting.remove(&number) {
                            let _ = waiting.tell.send(reply);
                        }
                    }
                }
            }
            Ok(Report::Done(done)) => break Ok(done),
            Ok(Report::Failed { step, errno }) => {
                break Err(format!("{step}: {}", io::Error::from_raw_os_error(errno)));
            }
            Ok(Report::Interpreter(_)) => break Err("slot gave another answer".to_owned()),
            Err(e) => {
                is_heard = false;
                break Err(format!("slot: {e}"));
            }
        }
    };
    busy.running = !is_heard;
    if let Some(link) = link.upgrade() {
        let mut state = link.lock();
        state.closed = true;
        state.waiting.clear();
    }
    drop(busy);
    told.send_replace(Some(done));
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why there is no answer.
    fn lost(&self) -> SessionError {
        match self.lock().over {
            Some(over) => SessionError::Over(over),
            None => gone("the slot of a session died").into(),
        }
    }

    fn send(
        &self,
        for_end: bool,
        message: impl FnOnce(u64) -> Vec<u8>,
        fds: Vec<BorrowedFd<'_>>,
    ) -> Result<(u64, oneshot::Receiver<Reply>), SessionError> {
        let (tell, answer) = oneshot::channel();
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return Err(self.lost());
        }
        state.last += 1;
        let number = state.last;
        state.waiting.insert(number, Waiting { tell, for_end });
        // In order of their numbers.
        let sent = run::send(&self.socket, message(number), fds);
        if sent.is_err() {
            state.waiting.remove(&number);
        }
        drop(state);
        sent.map_err(|e| gone(&format!("slot takes no ask: {e}")))?;
        Ok((number, answer))
    }

    async fn ask(&self, ask: &Ask<'_>, fds: Vec<BorrowedFd<'_>>) -> Result<Reply, SessionError> {
        let (_, answer) = self.send(false, |number| ask.encode(number), fds)?;
        self.understand(answer.await)
    }

    fn understand(
        &self,
        answer: Result<Reply, oneshot::error::RecvError>,
    ) -> Result<Reply, SessionError> {
        match answer {
            Ok(Reply::Paused) => Err(SessionError::Paused),
            Ok(Reply::Dead) | Err(_) => Err(self.lost()),
            Ok(reply) => Ok(reply),
        }
    }

    /// Drains what an ended command left open, so that what it left running may go on writing.
    fn drain(self: &Arc<Self>, pipe: pipe::Receiver) {
        let drained = tokio::spawn(async move {
            let mut pipe = pipe;
            let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
        });
        let mut state = self.lock();
        state.left_open.push_back(drained.abort_handle());
        state.left_open.retain(|pipe| !pipe.is_finished());
        if state.left_open.len() > LEFT_OPEN
            && let Some(oldest) = state.left_open.pop_front()
        {
            oldest.abort();
        }
    }
}

#[async_trait]
impl Session for NativeSession {
    fn id(&self) -> SandboxId {
        self.id
    }

    fn isolation(&self) -> Isolation {
        Isolation {
            backend: "native".to_owned(),
            fallbacks: self.fallbacks.as_ref().clone(),
            start: Start::Cold,
        }
    }

    fn over(&self) -> Option<Over> {
        self.link.lock().over
    }

    async fn start(
        &self,
        command: Command,
        wall: Duration,
    ) -> Result<Box<dyn Process>, SessionError> {
        crate::spec::check_command(&command)?;
        {
            let mut state = self.link.lock();
            if state.running >= COMMANDS {
                let what = format!("run more than {COMMANDS} commands at a time in a session");
                return Err(BackendError::Unsupported { backend: "native", what }.into());
            }
            state.running += 1;
        }
        // From here on it counts as running, until it is dropped.
        let mut process = NativeProcess::new(Arc::clone(&self.link), wall);
        process.connect(&command, self.limits.output_bytes)?;
        Ok(Box::new(process))
    }

    async fn signal(&self, number: u64, signal: i32) -> Result<(), SessionError> {
        self.link.ask(&Ask::Signal { to: number, signal }, Vec::new()).await.map(drop)
    }

    async fn read(
        &self,
        path: &Path,
        offset: u64,
        most: usize,
    ) -> Result<(Vec<u8>, u64), SessionError> {
        let inside = self.inside(path)?;
        let (read, write) = Self::pipe()?;
        let receiver = receiver(read)?;
        let path_bytes = inside.as_os_str().as_bytes();
        let ask = Ask::Read { path: path_bytes, offset, most: most as u64 };
        let fds = vec![write.as_fd()];
        let (_, answer) = self.link.send(false, |number| ask.encode(number), fds)?;
        drop(write);
        let mut content = Vec::new();
        // One byte more than can come.
        receiver
            .take(most as u64 + 1)
            .read_to_end(&mut content)
            .await
            .map_err(|e| failed("read a session's file", e))?;
        match self.link.understand(answer.await)? {
            Reply::Size(size) => Ok((content, size)),
            reply => Err(refused(path, reply)),
        }
    }

    async fn write(
        &self,
        path: &Path,
        content: Arc<[u8]>,
        executable: bool,
    ) -> Result<(), SessionError> {
        use tokio::io::AsyncWriteExt as _;
        let inside = self.inside(path)?;
        let (read, write) = Self::pipe()?;
        let mut sender = sender(write)?;
        let ask = Ask::Write { path: inside.as_os_str().as_bytes(), executable };
        let (_, answer) = self.link.send(false, |number| ask.encode(number), vec![read.as_fd()])?;
        drop(read);
        // One that takes no more of it says why.
        let _ = sender.write_all(&content).await;
        drop(sender);
        match self.link.understand(answer.await)? {
            Reply::Done => Ok(()),
            reply => Err(refused(path, reply)),
        }
    }

    async fn snapshot(&self) -> Result<Snapshot, SessionError> {
        let file = tempfile::tempfile_in(&self.state_dir)
            .map_err(|e| failed("make a file for a snapshot", e))?;
        let Limits { disk_bytes, inodes, .. } = self.limits;
        // Files come in pieces, each with a few bytes before it.
        let most = disk_bytes.saturating_add(disk_bytes / 64).saturating_add(1 << 20);
        let most = most.saturating_add(inodes.saturating_mul(RECORD));
        match self.link.ask(&Ask::Freeze { most }, vec![file.as_fd()]).await? {
            Reply::Done => Ok(Snapshot::new(file).map_err(|e| failed("look at a snapshot", e))?),
            Reply::Refused { errno, what } => {
                let error = io::Error::from_raw_os_error(errno);
                Err(SessionError::Freeze(format!("{what}{error}")))
            }
            _ => Err(gone("slot gave another answer").into()),
        }
    }

    async fn pause(&self) -> Result<(), SessionError> {
        match self.link.ask(&Ask::Pause, Vec::new()).await? {
            Reply::Refused { errno, .. } if errno != libc::ETIMEDOUT => {
                let what = "pause a session without a v2 control group".to_owned();
                Err(BackendError::Unsupported { backend: "native", what }.into())
            }
            Reply::Refused { errno, .. } => {
                Err(failed("pause a session", io::Error::from_raw_os_error(errno)).into())
            }
            _ => Ok(()),
        }
    }

    async fn resume(&self) -> Result<(), SessionError> {
        self.link.ask(&Ask::Resume, Vec::new()).await.map(drop)
    }

    async fn heartbeat(&self) -> Result<(), SessionError> {
        self.link.ask(&Ask::Beat, Vec::new()).await.map(drop)
    }

    async fn end(&self) -> Result<(), SessionError> {
        self.link.ask(&Ask::End, Vec::new()).await.map(drop)
    }

    async fn close(self: Box<Self>) -> BackendResult<Usage> {
        let Self { link, mut done, .. } = *self;
        let closed = super::wire::send(&link.socket, super::wire::CANCEL, &[]);
        closed.map_err(|e| gone(&format!("slot takes no ask: {e}")))?;
        let told = done.wait_for(Option::is_some).await.map(|told| told.clone());
        match told.ok().flatten() {
            Some(Ok(done)) => Ok(run::usage(&done)),
            Some(Err(what)) => Err(gone(&what)),
            None => Err(gone("the runtime stopped")),
        }
    }
}

fn file_error(path: &Path, what: String, kind: io::ErrorKind) -> SessionError {
    SessionError::File { path: path.display().to_string(), what, kind }
}

/// What a file's errand could not do.
fn refused(path: &Path, reply: Reply) -> SessionError {
    match reply {
        Reply::Refused { errno: 0, what } => file_error(path, what, io::ErrorKind::InvalidInput),
        // A step of ours has a name, what the file did has none.
        Reply::Refused { errno, what } if what.is_empty() => {
            let error = io::Error::from_raw_os_error(errno);
            file_error(path, error.to_string(), error.kind())
        }
        Reply::Refused { errno, what } => failed(&what, io::Error::from_raw_os_error(errno)).into(),
        _ => gone("slot gave another answer").into(),
    }
}

fn receiver(read: OwnedFd) -> Result<pipe::Receiver, SessionError> {
    let made = rustix::io::ioctl_fionbio(&read, true).map_err(io::Error::from);
    let made = made.and_then(|()| pipe::Receiver::from_owned_fd_unchecked(read));
    Ok(made.map_err(|e| failed("watch a pipe", e))?)
}

fn sender(write: OwnedFd) -> Result<pipe::Sender, SessionError> {
    let made = rustix::io::ioctl_fionbio(&write, true).map_err(io::Error::from);
    let made = made.and_then(|()| pipe::Sender::from_owned_fd_unchecked(write));
    Ok(made.map_err(|e| failed("watch a pipe", e))?)
}

/// A command of a session.
struct NativeProcess {
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
    fn new(link: Arc<Link>, wall: Duration) -> Self {
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
    fn connect(&mut self, command: &Command, bytes: usize) -> Result<(), SessionError> {
        let mut theirs = Vec::new();
        let stdin = if command.stdin.is_empty() {
            let null = std::fs::File::open("/dev/null").map_err(|e| failed("open /dev/null", e))?;
            theirs.push(OwnedFd::from(null));
            None
        } else {
            let (read, write) = NativeSession::pipe()?;
            theirs.push(read);
            Some(sender(write)?)
        };
        let mut collect = |room, keep| {
            let (read, write) = NativeSession::pipe()?;
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
        let channels = own.into_iter().filter_map(|own| own.or(collected.next().map(AsFd::as_fd)));
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
            Termination::Limit(LimitKind::Wall)
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
