//! Our end of a session: what is asked of it.

use std::{
    fmt, io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::AsyncReadExt as _,
    sync::{oneshot, watch},
};

use super::{
    Place, failed, gone,
    job::{self, Done, Report},
    link::{Link, route},
    pool::receive_report,
    process::{self, NativeProcess},
    run,
    talk::{Ask, Reply},
};
use crate::{
    BackendError, BackendResult, Command, Isolation, Limits, Over, Process, SandboxId, Session,
    SessionError, SessionSpec, Snapshot, Start, Usage, room::Rooms,
};

/// Most commands of a session at a time.
const COMMANDS: usize = 32;
/// Most bytes of a record beside a file's content: its path and another's, for the most part.
const RECORD: u64 = 8200;

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
    /// For the snapshots of all sessions.
    snapshots: Arc<Rooms>,
}

impl fmt::Debug for NativeSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeSession").field("id", &self.id).finish_non_exhaustive()
    }
}

impl NativeSession {
    /// Has a slot make the session; returns when it is ready for a command.
    pub(super) async fn open(
        spec: SessionSpec,
        place: Place,
        snapshots: Arc<Rooms>,
    ) -> BackendResult<Self> {
        let message = job::encode_session(&spec, place.making());
        let Place { mut busy, mounts, .. } = place;
        let slot = busy.request()?;
        let request = slot.request;
        let socket = rustix::io::fcntl_dupfd_cloexec(slot.socket.get_ref(), 0)
            .map_err(|e| failed("share a slot's socket", e.into()))?;
        let fallbacks = Arc::clone(&slot.fallbacks);
        let records = spec.from.iter().map(|from| from.file().as_fd());
        let mounts = mounts.iter().flatten();
        let fds = records.chain(mounts.map(AsFd::as_fd)).collect();
        run::send(&socket, request, message, fds)
            .map_err(|e| gone(&format!("slot takes no session: {e}")))?;
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
        let link = Arc::new(Link::new(socket, request, used));
        let (told, done) = watch::channel(None);
        let runtime = busy.inner.runtime.clone();
        let state_dir = busy.inner.config.state_dir.clone();
        // It holds the link no longer than it takes to hand an answer on.
        runtime.spawn(route(id, busy, Arc::downgrade(&link), unused, told));
        let (workdir, limits) = (spec.sandbox.workdir, spec.sandbox.limits);
        Ok(Self { id, link, done, workdir, limits, fallbacks, state_dir, snapshots })
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
        let mut started = NativeProcess::new(Arc::clone(&self.link), wall);
        started.connect(&command, self.limits.output_bytes)?;
        Ok(Box::new(started))
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
        let (read, write) = process::pipe()?;
        let receiver = process::receiver(read)?;
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
        let (read, write) = process::pipe()?;
        let mut sender = process::sender(write)?;
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
        let no_room = SessionError::NoRoom { bytes: self.snapshots.bytes() };
        let Some(room) = self.snapshots.take(most).await else { return Err(no_room) };
        let link = Arc::clone(&self.link);
        // To its end, also where nobody waits for it any more: it takes its room until then.
        let frozen = tokio::spawn(async move {
            let ask = Ask::Freeze { most: room.bytes() };
            let reply = link.ask(&ask, vec![file.as_fd()]).await?;
            Ok::<_, SessionError>((reply, file, room))
        });
        let (reply, file, room) =
            frozen.await.map_err(|e| failed("wait for a snapshot", io::Error::other(e)))??;
        match reply {
            Reply::Done => {
                Ok(Snapshot::new(file, Some(room)).map_err(|e| failed("look at a snapshot", e))?)
            }
            Reply::Refused { errno: libc::EFBIG, .. } if room.bytes() < most => Err(no_room),
            Reply::Refused { errno: libc::ENOSPC, .. } => Err(no_room),
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
        link.close().map_err(|e| gone(&format!("slot takes no ask: {e}")))?;
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
