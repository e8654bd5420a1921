//! A container with an agent in it, which makes one sandbox after the other.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bollard::{
    Docker as Engine,
    container::{AttachContainerResults, LogOutput},
    models::{
        ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
        ResourcesUlimits,
    },
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptions, RemoveContainerOptionsBuilder,
        StartContainerOptions,
    },
};
use futures::{FutureExt as _, Stream, StreamExt as _};
use rustix::process::{Resource, getrlimit};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    time::timeout,
};
use tracing::{debug, warn};
use uuid::Uuid;

use super::{
    Docker, OWNER_LABEL,
    agent::{self, TRUSTED},
    frame::{Inbox, Tell},
    gone, lost,
};
use crate::{BackendError, BackendResult, SandboxSpec, lineage::Known, native::job::Report};

/// How long an agent may take to say that it is ready.
const READY: Duration = Duration::from_secs(30);
/// What a container may use beyond its sandbox: the agent, what it keeps of output, interpreters.
const OWN_MEMORY: u64 = 96 << 20;
/// The agent, its interpreters, and a fork of one that is on its way.
const OWN_PIDS: u64 = 2 + crate::lineage::MOST as u64;
/// Most bytes of trusted files.
const TRUSTED_BYTES: u64 = 64 << 20;

/// What makes two sandboxes able to be made in one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) image: String,
    workdir: PathBuf,
    memory_bytes: u64,
    pids: u32,
    disk_bytes: u64,
    inodes: u64,
}

impl Kind {
    pub(super) fn of(image: &str, spec: &SandboxSpec) -> Self {
        let limits = &spec.limits;
        Self {
            image: image.to_owned(),
            workdir: spec.workdir.clone(),
            memory_bytes: limits.memory_bytes,
            pids: limits.pids,
            disk_bytes: limits.disk_bytes,
            inodes: limits.inodes,
        }
    }
}

/// A container. Dropping it ends and removes it. It knows nothing of the pool that it is in.
pub(super) struct Slot {
    removal: Removal,
    pub(super) kind: Kind,
    pub(super) input: Input,
    pub(super) output: Output,
    /// Its warm interpreters; the place of each is its number.
    pub(super) interpreters: Vec<Known>,
    pub(super) fallbacks: Arc<Vec<String>>,
    /// The highest user id in it.
    ids: u32,
}

/// What an agent says, frame by frame.
pub(super) struct Output {
    stream: Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>,
    inbox: Inbox,
}

impl Slot {
    /// Starts a container and waits until its agent is ready.
    pub(super) async fn start(docker: &Docker, kind: Kind) -> BackendResult<Self> {
        let name = format!("assay-{}", Uuid::now_v7());
        let engine = &docker.engine;
        let body = body(docker, &kind)?;
        let removal = Removal { engine: engine.clone(), name: name.clone() };
        let options = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
        engine.create_container(Some(options), body).await.map_err(|error| match error {
            bollard::errors::Error::DockerResponseServerError { status_code: 404, .. } => {
                BackendError::ImageNotFound(kind.image.clone())
            }
            error => gone(error),
        })?;
        let attach = AttachContainerOptionsBuilder::new();
        let attach = attach.stdin(true).stdout(true).stderr(true).stream(true).build();
        let AttachContainerResults { output, input } =
            engine.attach_container(&name, Some(attach)).await.map_err(gone)?;
        engine.start_container(&name, None::<StartContainerOptions>).await.map_err(gone)?;
        let mut output = Output { stream: Box::pin(output), inbox: Inbox::default() };
        let hello = timeout(
            READY,
            output.next(|tell| match tell {
                Tell::Hello { ids, fallbacks } => {
                    let text = |bytes: &&[u8]| String::from_utf8_lossy(bytes).into_owned();
                    Some((ids, fallbacks.iter().map(text).collect::<Vec<_>>()))
                }
                _ => None,
            }),
        );
        let (ids, mut fallbacks) =
            hello.await.map_err(|_| lost("the agent does not get ready"))??;
        if docker.is_podman {
            fallbacks.push("inodes: as many as memory holds (Podman limits none)".to_owned());
        }
        debug!(container = name, image = kind.image, "a container is ready");
        Ok(Self {
            removal,
            kind,
            input: writer(input),
            output,
            interpreters: Vec::new(),
            fallbacks: Arc::new(fallbacks),
            ids: u32::try_from(ids).unwrap_or(u32::MAX),
        })
    }

    /// Whether its agent lives and has nothing to say.
    pub(super) fn is_idle(&mut self) -> bool {
        self.output.next(|_| Some(())).now_or_never().is_none()
    }

    /// Returns a user that no sandbox has now, on this machine where its containers share users
    /// with it.
    pub(super) fn next_user(&self) -> u32 {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Not those of the image, nor those that hosts give to people and services.
        let (first, last) = match self.ids {
            ids if ids > 1 << 30 => (1 << 29, 1 << 30),
            ids => (10_000, ids.saturating_sub(1)),
        };
        let own = std::process::id().wrapping_mul(4099);
        let count = u32::max(last.saturating_sub(first), 1);
        first + NEXT.fetch_add(1, Relaxed).wrapping_add(own) % count
    }

    /// Sends frames, all of them whoever drops this afterwards.
    pub(super) async fn send(&mut self, frames: Vec<u8>) -> BackendResult<()> {
        self.input.send(frames).await.map_err(|_| lost("the agent takes nothing any more"))
    }

    /// Forgets interpreters that are gone, or may be, by the report of a run.
    pub(super) fn forget_if_lost(&mut self, report: &Report) {
        if !matches!(report, Report::Done(done) if !done.lost) {
            self.interpreters.clear();
        }
    }
}

/// Where whole frames to an agent go.
pub(super) type Input = mpsc::Sender<Vec<u8>>;

/// Writes frames to an agent until nobody has any more for it, and then ends its input.
fn writer(mut input: Pin<Box<dyn AsyncWrite + Send>>) -> Input {
    let (sender, mut frames) = mpsc::channel::<Vec<u8>>(4);
    tokio::spawn(async move {
        while let Some(frames) = frames.recv().await {
            let written = async {
                input.write_all(&frames).await?;
                input.flush().await
            };
            if written.await.is_err() {
                return;
            }
        }
        let _ = input.shutdown().await;
    });
    sender
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("name", &self.removal.name).finish_non_exhaustive()
    }
}

impl Output {
    /// Waits for the next frame, which `read` makes something of. Cancel safe.
    ///
    /// # Errors
    ///
    /// The container has ended, or the frame is none that belongs here.
    pub(super) async fn next<T>(
        &mut self,
        read: impl FnOnce(Tell<'_>) -> Option<T>,
    ) -> BackendResult<T> {
        let mut complaint = String::new();
        loop {
            match self.inbox.next() {
                Ok(None) => {}
                Ok(Some(frame)) => {
                    return Tell::read(frame)
                        .and_then(read)
                        .ok_or_else(|| lost("the agent makes no sense"));
                }
                Err(e) => return Err(lost(&format!("the agent makes no sense: {e}"))),
            }
            match self.stream.next().await {
                Some(Ok(LogOutput::StdErr { message })) => {
                    let text = String::from_utf8_lossy(&message);
                    warn!(text = %text.trim_end(), "an agent complains");
                    complaint = text.trim_end().chars().take(300).collect();
                }
                Some(Ok(other)) => self.inbox.push(&other.into_bytes()),
                Some(Err(error)) => return Err(gone(error)),
                None if complaint.is_empty() => return Err(lost("its container ended")),
                None => return Err(lost(&format!("its container ended: {complaint}"))),
            }
        }
    }
}

fn body(docker: &Docker, kind: &Kind) -> BackendResult<ContainerCreateBody> {
    let workdir = kind.workdir.to_string_lossy().into_owned();
    // The engine mounts no tmpfs twice, so that the disk's limit is divided between three.
    let tmpfs = |share: u64, mode: &str| {
        let part = |what: u64| (what / share).max(1);
        let (size, files) = (part(kind.disk_bytes), part(kind.inodes));
        let files = if docker.is_podman { String::new() } else { format!("nr_inodes={files},") };
        format!("rw,nosuid,nodev,exec,size={size},{files}mode={mode}")
    };
    let number = |what: u64, name: &str| {
        i64::try_from(what).map_err(|_| BackendError::Spec(format!("{name} is too large")))
    };
    // Pages of a tmpfs count as memory: a full disk must be ENOSPC, not the end.
    let memory = kind.memory_bytes.saturating_add(kind.disk_bytes).saturating_add(OWN_MEMORY);
    let memory = number(memory, "memory")?;
    let ulimit = |name: &str, value: i64| ResourcesUlimits {
        name: Some(name.into()),
        soft: Some(value),
        hard: Some(value),
    };
    let mut mounts = HashMap::from([
        (workdir.clone(), tmpfs(2, "0777")),
        ("/tmp".into(), tmpfs(4, "1777")),
        ("/dev/shm".into(), tmpfs(4, "1777")),
        (TRUSTED.into(), format!("rw,nosuid,nodev,size={TRUSTED_BYTES},mode=0755")),
    ]);
    let mut ulimits = vec![ulimit("core", 0), ulimit("nofile", 1024)];
    if docker.is_podman {
        // It asks for a million otherwise, more than it may have itself.
        let most = getrlimit(Resource::Nproc).maximum.unwrap_or(u64::MAX).min(32_768);
        ulimits.push(ulimit("nproc", most as i64));
        // Its read-only roots have writable places otherwise.
        for place in ["/run", "/var/tmp"] {
            mounts.entry(place.into()).or_insert_with(|| "ro,size=4k".into());
        }
    }
    let host = HostConfig {
        network_mode: Some("none".into()),
        // Ports of one sandbox's connections must not be taken for the next.
        sysctls: Some(HashMap::from([("net.ipv4.tcp_max_tw_buckets".into(), "0".into())])),
        // Its own numbers, in its own place.
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        memory: Some(memory),
        memory_swap: Some(memory),
        pids_limit: Some(i64::from(kind.pids) + OWN_PIDS as i64),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(vec!["SETUID".into(), "SETGID".into()]),
        security_opt: Some(vec!["no-new-privileges".into()]),
        readonly_rootfs: Some(true),
        tmpfs: Some(mounts),
        ipc_mode: Some("none".into()),
        binds: Some(docker.program.binds()),
        ulimits: Some(ulimits),
        auto_remove: Some(true),
        // Or the engine would store every byte that an agent says.
        log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
        ..HostConfig::default()
    };
    let arguments = [agent::ARGUMENT.to_owned(), workdir, agent::INTERPRETERS_USER.to_string()];
    Ok(ContainerCreateBody {
        image: Some(kind.image.clone()),
        entrypoint: Some(docker.program.entrypoint(arguments)),
        cmd: Some(Vec::new()),
        user: Some("0:0".into()),
        working_dir: Some("/".into()),
        env: Some(Vec::new()),
        hostname: Some("sandbox".into()),
        open_stdin: Some(true),
        // The container ends with our connection, however that ends.
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        labels: Some(HashMap::from([(OWNER_LABEL.into(), docker.owner.to_string())])),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

/// Removes a container when it is dropped.
struct Removal {
    engine: Engine,
    name: String,
}

impl Drop for Removal {
    fn drop(&mut self) {
        let (engine, name) = (self.engine.clone(), std::mem::take(&mut self.name));
        // Without a runtime the connection ends soon, and the container with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { remove(&engine, &name).await });
        }
    }
}

/// Removes a container, if it is there, whatever it does.
pub(super) async fn remove(engine: &Engine, name: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match engine.remove_container(name, Some(options)).await {
        // 409: it is being removed already.
        Ok(())
        | Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404 | 409, ..
        }) => {}
        Err(error) => warn!(container = name, %error, "cannot remove the container"),
    }
}
