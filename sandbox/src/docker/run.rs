//! One run: the sandbox and the command to the agent, the report back.

use std::{
    collections::BTreeMap,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use async_trait::async_trait;
use rustix::net::{Shutdown, shutdown};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{
        Semaphore,
        mpsc::{self, UnboundedReceiver, UnboundedSender},
    },
};
use tracing::{debug, warn};

use super::{
    frame::{Ask, Frames, MAX_FRAME, Run, Tell, WINDOW},
    io_error, lineage, lost,
    pool::{Busy, Doing},
    slot::{Input, Output},
    tree::Tree,
};
use crate::{
    BackendError, BackendResult, Capture, Channel, ChannelEnd, Command, Execution, Isolation,
    Sandbox, SandboxId, SandboxSpec, Start,
    native::{
        job::{Lent, Report},
        run::execution,
        sys,
    },
    spec,
};

/// Bytes taken from a descriptor of ours at a time.
const CHUNK: usize = 64 << 10;

/// A sandbox that a container is kept for. Its agent makes it when it runs.
pub(super) struct DockerSandbox {
    pub(super) id: SandboxId,
    pub(super) busy: Busy,
    pub(super) spec: SandboxSpec,
    pub(super) tree: Tree,
}

#[async_trait]
impl Sandbox for DockerSandbox {
    fn id(&self) -> SandboxId {
        self.id
    }

    async fn run(self: Box<Self>, command: Command) -> BackendResult<Execution> {
        let Self { id, mut busy, spec, tree } = *self;
        spec::check_command(&command)?;
        let lent = lineage::lent(&mut busy, &spec, &command).await?;
        let user = busy.slot()?.next_user();
        let frames = frames(user, &spec, &tree, &command, lent.as_ref().ok().copied())?;
        drop(tree);
        let Command { channels, stdin, stop, .. } = command;
        let mut kept = Kept::new(&spec, &channels);
        let relays = channels.into_iter().filter_map(|channel| match channel.end {
            ChannelEnd::Fd(fd) => Some(Relay::new(channel.fd, fd)),
            ChannelEnd::Collect { .. } => None,
        });
        let relays = relays.collect::<io::Result<Vec<_>>>();
        let relays = relays.map_err(|e| io_error("watch a channel".to_owned(), e))?;
        let (queues, queued): (BTreeMap<_, _>, Vec<_>) = relays
            .iter()
            .map(|relay| {
                let (queue, queued) = mpsc::unbounded_channel();
                ((relay.number, queue), queued)
            })
            .unzip();

        busy.slot()?.send(frames).await?;
        // From here on the agent is either heard of or given up.
        busy.doing = Doing::Running;
        let slot = busy.slot()?;
        let windows: BTreeMap<i32, Semaphore> = std::iter::once(0)
            .chain(relays.iter().map(|relay| relay.number))
            .map(|number| (number, Semaphore::new(WINDOW)))
            .collect();
        let pump = async {
            let feed = feed(&stdin, &slot.input, &windows[&0]);
            let read = relays.iter().map(|it| it.read(&slot.input, &windows[&it.number]));
            tokio::join!(feed, futures::future::join_all(read));
            std::future::pending::<()>().await;
        };
        let stop = async {
            stop.cancelled().await;
            let mut frames = Frames::default();
            frames.ask(&Ask::Cancel);
            // Of an agent that is gone the other direction tells.
            let _ = slot.input.send(frames.0).await;
            std::future::pending::<()>().await;
        };
        let over = async {
            let writers = relays.iter().zip(queued);
            let writers = writers.map(|(relay, queued)| relay.write_all(queued, &slot.input));
            let hearing = async {
                let over = hear(&mut slot.output, &relays, queues, &windows, &mut kept).await;
                // Nobody is there to read any more; who writes must see that.
                for relay in &relays {
                    let _ = shutdown(relay.fd.get_ref(), Shutdown::Read);
                }
                over
            };
            // What the command said before its end is passed on, to a reader that is still there.
            tokio::join!(hearing, futures::future::join_all(writers)).0
        };
        let (report, clean) = tokio::select! {
            over = over => over?,
            () = pump => unreachable!("it never ends"),
            () = stop => unreachable!("it never ends"),
        };
        // The other ends must see that this one is closed.
        drop(relays);
        let fallbacks = slot.fallbacks.as_ref().clone();
        slot.forget_if_lost(&report);
        busy.doing = if clean { Doing::Nothing } else { Doing::NoGood };
        drop(busy);
        match report {
            Report::Rooted | Report::Interpreter(_) | Report::Reply(..) => {
                Err(lost("its agent gave another answer"))
            }
            Report::Failed { step, errno } => {
                warn!(sandbox_id = %id, step, errno, "sandbox could not be made");
                Err(io_error(step, io::Error::from_raw_os_error(errno)))
            }
            Report::Done(done) => {
                debug!(sandbox_id = %id, ?done, "sandbox ended");
                let start = match lent {
                    Err(Some(why)) => Start::ColdInstead(why),
                    _ => done.start.clone(),
                };
                let isolation = Isolation { backend: "docker".to_owned(), fallbacks, start };
                Ok(execution(&done, kept.captures, isolation))
            }
        }
    }
}

/// Puts together what an agent makes a sandbox of and runs in it.
fn frames(
    user: u32,
    spec: &SandboxSpec,
    tree: &Tree,
    command: &Command,
    lent: Option<Lent>,
) -> BackendResult<Vec<u8>> {
    let mut frames = Frames::default();
    for (path, content) in spec.trusted.iter() {
        frames.ask(&Ask::Trusted { path: path.as_os_str().as_bytes(), content });
    }
    frames.ask(&Ask::User(user));
    tree.ask(&mut frames);
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let env: Vec<_> = command.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let channels = command.channels.iter().map(|channel| match channel.end {
        ChannelEnd::Collect { max_bytes } => (channel.fd, Some(max_bytes as u64)),
        ChannelEnd::Fd(_) => (channel.fd, None),
    });
    let before = frames.0.len();
    frames.ask(&Ask::Run(Run {
        argv: command.argv.iter().map(|argument| argument.as_bytes()).collect(),
        env: env.iter().map(|pair| pair.as_bytes()).collect(),
        cwd: spec.workdir.join(&command.cwd).as_os_str().as_bytes(),
        wall_ns: ns(spec.limits.wall),
        cpu_ns: ns(spec.limits.cpu),
        pids: spec.limits.pids.into(),
        file_bytes: spec.limits.disk_bytes,
        output_bytes: spec.limits.output_bytes as u64,
        channels: channels.collect(),
        stdin: !command.stdin.is_empty(),
        lent,
    }));
    if frames.0.len() - before > MAX_FRAME {
        return Err(BackendError::Spec("arguments and environment are too long".to_owned()));
    }
    Ok(frames.0)
}

/// Feeds a command's stdin, which then ends.
async fn feed(stdin: &[u8], input: &Input, window: &Semaphore) {
    for bytes in stdin.chunks(CHUNK) {
        put(input, window, Ask::Input { number: 0, bytes }).await;
    }
    if !stdin.is_empty() {
        put(input, window, Ask::End(0)).await;
    }
}

/// Sends bytes for a command, as soon as it has taken enough of earlier ones. Of an agent that is gone
/// the other direction tells.
async fn put(input: &Input, window: &Semaphore, ask: Ask<'_>) {
    if let Ask::Input { bytes, .. } = &ask
        && let Ok(room) = window.acquire_many(bytes.len() as u32).await
    {
        room.forget();
    }
    let mut frames = Frames::default();
    frames.ask(&ask);
    let _ = input.send(frames.0).await;
}

/// Takes what an agent says until it reports.
async fn hear(
    output: &mut Output,
    relays: &[Relay],
    mut queues: BTreeMap<i32, UnboundedSender<Vec<u8>>>,
    windows: &BTreeMap<i32, Semaphore>,
    kept: &mut Kept,
) -> BackendResult<(Report, bool)> {
    enum Heard {
        Output(i32, Vec<u8>),
        End(i32),
        Report(Report, Vec<u64>, bool),
        Noted,
    }
    loop {
        let heard = output.next(|tell| {
            Some(match tell {
                Tell::Hello { .. } => return None,
                Tell::Output { number, bytes } => Heard::Output(number, bytes.to_vec()),
                Tell::End(number) => Heard::End(number),
                Tell::Took { number, bytes } => {
                    let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= WINDOW)?;
                    windows.get(&number)?.add_permits(bytes);
                    Heard::Noted
                }
                Tell::Kept { place, tail, bytes } => {
                    kept.push(place, tail, bytes)?;
                    Heard::Noted
                }
                Tell::Report { report, dropped, clean } => Heard::Report(report, dropped, clean),
            })
        });
        match heard.await? {
            Heard::Noted => {}
            Heard::Output(number, bytes) => {
                let relay = relays.iter().find(|relay| relay.number == number);
                if let Some((queue, relay)) = queues.get(&number).zip(relay) {
                    if relay.queued.fetch_add(bytes.len(), Relaxed) + bytes.len() > WINDOW {
                        return Err(lost("the agent says more than it may"));
                    }
                    let _ = queue.send(bytes);
                }
            }
            Heard::End(number) => drop(queues.remove(&number)),
            Heard::Report(report, dropped, clean) => {
                for (capture, dropped) in kept.captures.iter_mut().zip(dropped) {
                    capture.dropped = dropped;
                }
                return Ok((report, clean));
            }
        }
    }
}

/// What is kept of stdout, stderr and collected channels.
struct Kept {
    captures: Vec<Capture>,
    /// Bytes that may still come for each.
    room: Vec<usize>,
}

impl Kept {
    fn new(spec: &SandboxSpec, channels: &[Channel]) -> Self {
        let mut room = vec![spec.limits.output_bytes; 2];
        room.extend(channels.iter().filter_map(|channel| match channel.end {
            ChannelEnd::Collect { max_bytes } => Some(max_bytes),
            ChannelEnd::Fd(_) => None,
        }));
        Self { captures: vec![Capture::default(); room.len()], room }
    }

    /// Takes the next bytes; `None` when there may be none.
    fn push(&mut self, place: u64, tail: bool, bytes: &[u8]) -> Option<()> {
        let place = usize::try_from(place).ok()?;
        let (capture, room) = (self.captures.get_mut(place)?, self.room.get_mut(place)?);
        *room = room.checked_sub(bytes.len())?;
        let to = if tail { &mut capture.tail } else { &mut capture.head };
        to.extend_from_slice(bytes);
        Some(())
    }
}

/// A descriptor of ours that a command has under a number.
struct Relay {
    number: i32,
    fd: AsyncFd<OwnedFd>,
    /// Bytes from the command that are not written yet.
    queued: AtomicUsize,
}

impl Relay {
    fn new(number: i32, fd: OwnedFd) -> io::Result<Self> {
        let fd = sys::watch(fd, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { number, fd, queued: AtomicUsize::new(0) })
    }

    /// Passes on what comes, to its end.
    async fn read(&self, input: &Input, window: &Semaphore) {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = |fd: &AsyncFd<OwnedFd>| Ok(rustix::io::read(fd.get_ref(), &mut buffer)?);
            let length = self.turn(Interest::READABLE, read).await.unwrap_or(0);
            if length == 0 {
                return put(input, window, Ask::End(self.number)).await;
            }
            put(input, window, Ask::Input { number: self.number, bytes: &buffer[..length] }).await;
        }
    }

    /// Writes what the command said, to its end, and tells the agent how much is out.
    async fn write_all(&self, mut queued: UnboundedReceiver<Vec<u8>>, input: &Input) {
        while let Some(bytes) = queued.recv().await {
            self.write(&bytes).await;
            self.queued.fetch_sub(bytes.len(), Relaxed);
            let ask = Ask::Took { number: self.number, bytes: bytes.len() as u64 };
            let mut frames = Frames::default();
            frames.ask(&ask);
            let _ = input.send(frames.0).await;
        }
        let _ = shutdown(self.fd.get_ref(), Shutdown::Write);
    }

    /// Writes what its other end takes.
    async fn write(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let write = |fd: &AsyncFd<OwnedFd>| Ok(rustix::io::write(fd.get_ref(), bytes)?);
            match self.turn(Interest::WRITABLE, write).await {
                Ok(length) => bytes = &bytes[length..],
                // Nobody reads it any more.
                Err(_) => return,
            }
        }
    }

    async fn turn(
        &self,
        interest: Interest,
        mut call: impl FnMut(&AsyncFd<OwnedFd>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            let mut guard = self.fd.ready(interest).await?;
            match guard.try_io(&mut call) {
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_) => {}
            }
        }
    }
}
