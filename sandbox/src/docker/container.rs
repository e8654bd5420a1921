//! One container: from its configuration to what it left behind.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bollard::{
    container::LogOutput,
    models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, ResourcesUlimits},
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptions, KillContainerOptions,
        RemoveContainerOptionsBuilder, StartContainerOptions, StatsOptionsBuilder,
        WaitContainerOptions,
    },
};
use futures::{Stream, StreamExt as _};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    net::unix::pipe,
    time::{sleep, sleep_until, timeout},
};
use tracing::warn;

use super::{Docker, OWNER_LABEL, gone, io_error, tree::USER, unsupported};
use crate::{
    BackendError, BackendResult, Capture, Channel, ChannelEnd, Command, Execution, Isolation,
    LimitKind, Sandbox, SandboxId, SandboxSpec, Termination, Usage, collect::Collector, proc,
};

/// Fills the work tree from the first `$1` bytes of stdin and becomes the command, with its
/// environment alone. Channels are opened here: `open` fails closed when one is missing.
const ENTRY: &str = r#"cd "$2" && head -c "$1" | tar -x && cd "$3" && shift 3 && exec env -i "$@""#;

/// How often CPU time is read while a container runs.
const POLL: Duration = Duration::from_millis(250);

/// How long the engine may take to tell the end of output after a container died.
const DRAIN: Duration = Duration::from_secs(5);

pub(super) struct Container {
    pub(super) id: SandboxId,
    pub(super) docker: Docker,
    pub(super) image: String,
    pub(super) spec: SandboxSpec,
    pub(super) archive: Vec<u8>,
}

#[async_trait]
impl Sandbox for Container {
    fn id(&self) -> SandboxId {
        self.id
    }

    async fn run(self: Box<Self>, command: Command) -> BackendResult<Execution> {
        let started = Instant::now();
        let name = format!("assay-{}", self.id);
        let dir = self.docker.state_dir.join(self.id.to_string());
        // From here on everything that is made is undone by dropping this.
        let guard = Guard { docker: self.docker.clone(), name: name.clone(), dir: dir.clone() };
        let channels = collected(&command)?;
        let mounts = Mounts::prepare(&dir, &self.spec, channels)
            .map_err(|source| io_error(format!("prepare {}", dir.display()), source))?;
        let options = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
        let body = self.body(&command, &mounts)?;
        let engine = &self.docker.engine;
        let container = engine.create_container(Some(options), body).await.map_err(gone)?.id;
        let attach = AttachContainerOptionsBuilder::new();
        let attach = attach.stdin(true).stdout(true).stderr(true).stream(true).build();
        let streams = engine.attach_container(&name, Some(attach)).await.map_err(gone)?;
        engine.start_container(&name, None::<StartContainerOptions>).await.map_err(gone)?;
        let setup = started.elapsed();

        let limits = self.spec.limits;
        let mut readers = Vec::new();
        for (path, max_bytes) in &mounts.channels {
            let pipe = pipe::OpenOptions::new().read_write(true).open_receiver(path);
            let pipe = pipe.map_err(|source| io_error("open a channel".into(), source))?;
            readers.push((pipe, Collector::head_only(*max_bytes)));
        }
        let mut output = Output::new(streams.output, limits.output_bytes);
        let run = Instant::now();
        let mut cpu = Duration::ZERO;
        let ended = {
            let feed = feed(streams.input, &self.archive, &command.stdin);
            let drain = async { tokio::join!(output.drain(), drain_channels(&mut readers)) };
            tokio::pin!(feed, drain);
            let mut fed = false;
            let watch = self.watch(&container, &mut cpu);
            tokio::pin!(watch);
            loop {
                tokio::select! {
                    () = &mut feed, if !fed => fed = true,
                    _ = &mut drain => unreachable!("channels are read until the container ends"),
                    ended = &mut watch => break ended?,
                }
            }
        };
        let wall = run.elapsed();
        // The container is dead, so nobody writes any more: what is still in flight is the rest.
        if timeout(DRAIN, output.drain()).await.is_err() {
            warn!(sandbox_id = %self.id, "the engine kept the output open");
        }
        let channels = readers.into_iter().map(|(pipe, kept)| rest_of(&pipe, kept)).collect();
        let execution = Execution {
            termination: self.termination(&name, ended).await?,
            stdout: output.stdout.finish(),
            stderr: output.stderr.finish(),
            channels,
            usage: Usage { wall, cpu, setup, ..Usage::default() },
            isolation: Isolation {
                backend: "docker".into(),
                fallbacks: vec![
                    "cpu time: sampled four times a second".into(),
                    "peak memory: not measured".into(),
                ],
                ..Isolation::default()
            },
        };
        guard.remove().await;
        Ok(execution)
    }
}

/// What ended a container.
enum Ended {
    Itself(i64),
    Limit(LimitKind),
}

impl Container {
    fn body(&self, command: &Command, mounts: &Mounts) -> BackendResult<ContainerCreateBody> {
        let limits = &self.spec.limits;
        let workdir = self.spec.workdir.to_string_lossy().into_owned();
        let cwd = self.spec.workdir.join(&command.cwd).to_string_lossy().into_owned();
        let mut script = String::new();
        for (fd, inside) in &mounts.opened {
            script.push_str(&format!("exec {fd}>{inside} && "));
        }
        script.push_str(ENTRY);
        let mut cmd = vec!["/bin/sh".into(), "-c".into(), script, "sh".into()];
        cmd.extend([self.archive.len().to_string(), workdir.clone(), cwd]);
        cmd.extend(command.env.iter().map(|(key, value)| format!("{key}={value}")));
        cmd.extend(command.argv.iter().cloned());
        // One tmpfs can't be mounted twice here, so the disk limit is halved between two.
        let half = |what: u64| (what / 2).max(1);
        let tmpfs = |mode: &str| {
            format!(
                "rw,nosuid,nodev,exec,size={},nr_inodes={},mode={mode},uid={USER},gid={USER}",
                half(limits.disk_bytes),
                half(limits.inodes),
            )
        };
        let number = |what: u64, name: &str| {
            i64::try_from(what).map_err(|_| BackendError::Spec(format!("{name} is too large")))
        };
        // Pages of a tmpfs count as memory: a full disk must be ENOSPC, not the end.
        let memory = number(limits.memory_bytes.saturating_add(limits.disk_bytes), "memory")?;
        let ulimit = |name: &str, value: i64| ResourcesUlimits {
            name: Some(name.into()),
            soft: Some(value),
            hard: Some(value),
        };
        let host = HostConfig {
            network_mode: Some("none".into()),
            memory: Some(memory),
            memory_swap: Some(memory),
            pids_limit: Some(limits.pids.into()),
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges".into()]),
            readonly_rootfs: Some(true),
            tmpfs: Some(HashMap::from([(workdir, tmpfs("0755")), ("/tmp".into(), tmpfs("1777"))])),
            ipc_mode: Some("none".into()),
            binds: Some(mounts.binds.clone()),
            ulimits: Some(vec![ulimit("core", 0), ulimit("nofile", 1024)]),
            // Or the engine would store every byte that a program prints.
            log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
            ..HostConfig::default()
        };
        Ok(ContainerCreateBody {
            image: Some(self.image.clone()),
            entrypoint: Some(Vec::new()),
            cmd: Some(cmd),
            user: Some(format!("{USER}:{USER}")),
            hostname: Some("sandbox".into()),
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            labels: Some(HashMap::from([(OWNER_LABEL.into(), self.docker.owner.to_string())])),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        })
    }

    /// Waits for the end of the container, or brings it about at a limit.
    async fn watch(&self, container: &str, cpu: &mut Duration) -> BackendResult<Ended> {
        let engine = &self.docker.engine;
        let limits = &self.spec.limits;
        let deadline = tokio::time::Instant::now() + limits.wall;
        let mut waits = engine.wait_container(container, None::<WaitContainerOptions>);
        let limit = loop {
            tokio::select! {
                ended = waits.next() => return match ended {
                    Some(Ok(ended)) => Ok(Ended::Itself(ended.status_code)),
                    Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => {
                        Ok(Ended::Itself(code))
                    }
                    Some(Err(error)) => Err(gone(error)),
                    None => Err(BackendError::Gone {
                        backend: "docker",
                        what: "the engine closed the connection".into(),
                    }),
                },
                () = sleep_until(deadline) => {
                    break match self.starved(container, *cpu).await {
                        true => LimitKind::WallStarved,
                        false => LimitKind::Wall,
                    };
                }
                () = sleep(POLL) => {
                    let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
                    let stats = engine.stats(container, Some(options)).next().await;
                    let used = stats
                        .and_then(Result::ok)
                        .and_then(|stats| stats.cpu_stats?.cpu_usage?.total_usage);
                    *cpu = used.map_or(*cpu, Duration::from_nanos);
                    if *cpu >= limits.cpu {
                        break LimitKind::Cpu;
                    }
                }
            }
        };
        match engine.kill_container(container, None::<KillContainerOptions>).await {
            // 409: it ended by itself in the meantime.
            Ok(())
            | Err(bollard::errors::Error::DockerResponseServerError { status_code: 409, .. }) => {}
            Err(error) => return Err(gone(error)),
        }
        waits.next().await;
        Ok(Ended::Limit(limit))
    }

    /// Whether the machine kept CPUs from a container that used `cpu`. An engine elsewhere doesn't
    /// tell: then none is starved.
    async fn starved(&self, container: &str, cpu: Duration) -> bool {
        let state = self.docker.engine.inspect_container(container, None).await.ok();
        let pid = state.and_then(|container| container.state?.pid).unwrap_or_default();
        // The number may mean a process of another machine: ours has the container's id on it.
        let Ok(pid @ 1..) = i32::try_from(pid) else { return false };
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        cgroups.contains(container)
            && proc::starved(ns(self.spec.limits.wall), ns(cpu), proc::totals(pid).delayed_ns)
    }

    async fn termination(&self, name: &str, ended: Ended) -> BackendResult<Termination> {
        let code = match ended {
            Ended::Limit(limit) => return Ok(Termination::Limit(limit)),
            Ended::Itself(code) => code,
        };
        let state = self.docker.engine.inspect_container(name, None).await.map_err(gone)?.state;
        if state.is_some_and(|state| state.oom_killed == Some(true)) {
            return Ok(Termination::Limit(LimitKind::Memory));
        }
        Ok(match i32::try_from(code).unwrap_or(-1) {
            // The engine reports a signal n as 128 + n, as a shell does.
            code @ 129..=159 => Termination::Signaled(code - 128),
            code => Termination::Exited(code),
        })
    }
}

/// Files on the host that the container sees.
struct Mounts {
    binds: Vec<String>,
    /// Host path and most bytes kept of each collected channel.
    channels: Vec<(PathBuf, usize)>,
    /// Number of each channel and its path inside.
    opened: Vec<(i32, String)>,
}

impl Mounts {
    fn prepare(dir: &Path, spec: &SandboxSpec, channels: Vec<(i32, usize)>) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut mounts = Self { binds: Vec::new(), channels: Vec::new(), opened: Vec::new() };
        for (number, (inside, content)) in spec.trusted.iter().enumerate() {
            let path = dir.join(format!("file{number}"));
            fs::write(&path, content)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o444))?;
            mounts.binds.push(format!("{}:{}:ro", path.display(), inside.display()));
        }
        for (fd, max_bytes) in channels {
            let path = dir.join(format!("channel{fd}"));
            let mode = rustix::fs::Mode::from_raw_mode(0o622);
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o622))?; // whatever the umask
            let inside = format!("/run/channel{fd}");
            mounts.binds.push(format!("{}:{inside}", path.display()));
            mounts.channels.push((path, max_bytes));
            mounts.opened.push((fd, inside));
        }
        Ok(mounts)
    }
}

/// Returns number and most bytes of each channel, when all are of a kind that a FIFO can be.
fn collected(command: &Command) -> BackendResult<Vec<(i32, usize)>> {
    let one = |channel: &Channel| match channel.end {
        ChannelEnd::Collect { max_bytes } if (3..=9).contains(&channel.fd) => {
            Ok((channel.fd, max_bytes))
        }
        ChannelEnd::Collect { .. } => Err(unsupported("open a channel other than 3 to 9")),
        ChannelEnd::Fd(_) => Err(unsupported("pass an open descriptor inside")),
    };
    command.channels.iter().map(one).collect()
}

/// Writes the work tree and then the command's own stdin, which ends with it.
async fn feed(mut input: impl AsyncWrite + Unpin, archive: &[u8], stdin: &[u8]) {
    // A command may end, or close its stdin, without reading all of it.
    let _ = async {
        input.write_all(archive).await?;
        input.write_all(stdin).await?;
        input.shutdown().await
    }
    .await;
}

struct Output<S> {
    stream: S,
    stdout: Collector,
    stderr: Collector,
    ended: bool,
}

impl<S: Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin> Output<S> {
    fn new(stream: S, output_bytes: usize) -> Self {
        Self {
            stream,
            stdout: Collector::head_and_tail(output_bytes),
            stderr: Collector::head_and_tail(output_bytes),
            ended: false,
        }
    }

    async fn drain(&mut self) {
        while !self.ended {
            match self.stream.next().await {
                Some(Ok(LogOutput::StdErr { message })) => self.stderr.push(&message),
                Some(Ok(other)) => self.stdout.push(&other.into_bytes()),
                Some(Err(_)) | None => self.ended = true,
            }
        }
    }
}

/// Reads every channel, for ever: our own open end keeps it from ending.
async fn drain_channels(readers: &mut [(pipe::Receiver, Collector)]) {
    let reads = readers.iter_mut().map(|(pipe, kept)| async move {
        loop {
            if pipe.readable().await.is_err() {
                return std::future::pending::<()>().await;
            }
            take(pipe, kept);
        }
    });
    futures::future::join_all(reads).await;
    std::future::pending::<()>().await;
}

fn take(pipe: &pipe::Receiver, kept: &mut Collector) {
    let mut buffer = [0; 1 << 16];
    while let Ok(count @ 1..) = pipe.try_read(&mut buffer) {
        kept.push(&buffer[..count]);
    }
}

fn rest_of(pipe: &pipe::Receiver, mut kept: Collector) -> Capture {
    take(pipe, &mut kept);
    kept.finish()
}

/// Removes the container and its directory, whatever became of the run.
struct Guard {
    docker: Docker,
    name: String,
    dir: PathBuf,
}

impl Guard {
    async fn remove(mut self) {
        let name = std::mem::take(&mut self.name);
        remove(&self.docker, &name).await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
        let name = std::mem::take(&mut self.name);
        if name.is_empty() {
            return;
        }
        let docker = self.docker.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { remove(&docker, &name).await });
        }
    }
}

async fn remove(docker: &Docker, name: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match docker.engine.remove_container(name, Some(options)).await {
        Ok(())
        | Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {}
        Err(error) => warn!(container = name, %error, "cannot remove the container"),
    }
}
