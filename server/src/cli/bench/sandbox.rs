//! `assay bench sandbox`: every sandbox that is here, in one run and in turns.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use assay_sandbox::{Backend, ImageRef, docker::Docker, native::Native};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use tokio::process::Command;

use super::{
    Machine, Quantiles, Ratio,
    peers::{
        IMAGE, bare, bwrap, docker_exec, docker_exec_api, docker_run, docker_run_pytest, in_docker,
        in_native, nsjail, pytest, sandlock, wasm_python, write_repository,
    },
    quantiles,
};
use crate::{
    cli::{
        Common,
        output::{Blame as _, CliResult, Exit},
    },
    machine::{self, Rootfs},
};

/// What takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    ForkExec,
    Bwrap,
    Nsjail,
    Sandlock,
    DockerExec,
    DockerExecApi,
    DockerRun,
    Docker,
    NativeCold,
    Native,
    DockerRunPytest,
    PytestCold,
    PytestWarm,
    PytestDocker,
    WasmCold,
    WasmWarm,
}

/// Name, what it says to people, whether it is slow.
const SUBJECTS: [(Subject, &str, &str, bool); 16] = [
    (Subject::ForkExec, "fork_exec", "fork and exec of /bin/true", false),
    (Subject::Bwrap, "bwrap", "bubblewrap", false),
    (Subject::Nsjail, "nsjail", "nsjail", false),
    (Subject::Sandlock, "sandlock", "sandlock", false),
    (Subject::DockerExec, "docker_exec", "docker exec (CLI)", true),
    (Subject::DockerExecApi, "docker_exec_api", "docker exec (API)", true),
    (Subject::DockerRun, "docker_run", "docker run (CLI)", true),
    (Subject::Docker, "docker", "assay, docker", false),
    (Subject::NativeCold, "native_cold", "assay, native, cold", false),
    (Subject::Native, "native", "assay, native, prepared", false),
    (Subject::DockerRunPytest, "docker_run_pytest", "one pytest file: docker run (CLI)", true),
    (Subject::PytestCold, "pytest_cold", "one pytest file: native, python executed", true),
    (Subject::PytestWarm, "pytest_warm", "one pytest file: native, warm python", false),
    (Subject::PytestDocker, "pytest_docker", "one pytest file: docker, warm python", false),
    (Subject::WasmCold, "wasm_cold", "one function: wasm, python started", true),
    (Subject::WasmWarm, "wasm_warm", "one function: wasm, waiting python", false),
];

/// What the subjects need.
struct Stage {
    rootfs: Rootfs,
    native: Native,
    cold: Native,
    docker: Option<Docker>,
    wasm: Option<(Box<dyn Backend>, ImageRef)>,
    /// A container for `docker exec`, removed with this.
    container: Option<String>,
    nsjail: PathBuf,
    sandlock: PathBuf,
    repository: tempfile::TempDir,
}

impl Stage {
    async fn set(common: &Common) -> CliResult<Self> {
        let cache = &common.places().cache;
        let rootfs = super::rootfs(common)?;
        let repository = tempfile::tempdir().not_done()?;
        write_repository(repository.path()).not_done()?;
        let docker = machine::docker(cache).await.ok();
        let container = match &docker {
            Some(_) => up().await.ok(),
            None => None,
        };
        Ok(Self {
            rootfs,
            native: machine::native(cache, |_| {}).not_done()?,
            cold: machine::native(cache, |config| config.ahead = false).not_done()?,
            docker,
            wasm: wasm(cache).not_done()?,
            container,
            nsjail: cache.join("peers/nsjail"),
            sandlock: cache.join("peers/bin/sandlock"),
            repository,
        })
    }

    async fn run(&self, subject: Subject) -> anyhow::Result<()> {
        let Self { rootfs, native, cold, .. } = self;
        match subject {
            Subject::ForkExec => bare().await,
            Subject::Bwrap => bwrap(rootfs).await,
            Subject::Nsjail => nsjail(&self.nsjail, rootfs).await,
            Subject::Sandlock => sandlock(&self.sandlock).await,
            Subject::DockerExec => docker_exec(self.container.as_deref().unwrap_or_default()).await,
            Subject::DockerExecApi => {
                docker_exec_api(self.container.as_deref().unwrap_or_default()).await
            }
            Subject::DockerRun => docker_run().await,
            Subject::Docker => in_docker(self.docker()?).await,
            Subject::NativeCold => in_native(cold, rootfs).await,
            Subject::Native => in_native(native, rootfs).await,
            Subject::DockerRunPytest => docker_run_pytest(self.repository.path()).await,
            Subject::PytestCold => pytest(native, rootfs.image(), false).await,
            Subject::PytestWarm => pytest(native, rootfs.image(), true).await,
            Subject::PytestDocker => {
                pytest(self.docker()?, ImageRef::Docker(IMAGE.to_owned()), true).await
            }
            Subject::WasmCold | Subject::WasmWarm => match &self.wasm {
                Some((wasm, image)) => {
                    wasm_python(&**wasm, image.clone(), subject == Subject::WasmWarm).await
                }
                None => anyhow::bail!("no Python for WASI here; run `make wasm`"),
            },
        }
    }

    fn docker(&self) -> anyhow::Result<&Docker> {
        self.docker.as_ref().context("no Docker engine answers")
    }

    async fn clear(self) {
        if let Some(container) = &self.container {
            let _ = docker(&["rm", "-f", container]).await;
        }
    }
}

/// The wasm backend and its Python, where both are here.
#[cfg(feature = "wasm")]
fn wasm(cache: &std::path::Path) -> anyhow::Result<Option<(Box<dyn Backend>, ImageRef)>> {
    use crate::wasm::{WasmImage, start};
    let Some(found) = WasmImage::find(cache, "python")? else { return Ok(None) };
    Ok(Some((Box::new(start(cache, |_| {})?), found.image())))
}

#[cfg(not(feature = "wasm"))]
fn wasm(_: &std::path::Path) -> anyhow::Result<Option<(Box<dyn Backend>, ImageRef)>> {
    Ok(None)
}

/// Starts a container that waits.
async fn up() -> anyhow::Result<String> {
    docker(&["run", "-d", "--rm", "--network", "none", IMAGE, "/bin/sleep", "3600"]).await
}

async fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).output().await?;
    ensure!(output.status.success(), "docker {}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub(super) async fn run(common: &Common, n: u32, in_flight: &[u32]) -> CliResult {
    let stage = Stage::set(common).await?;
    let mut skipped = BTreeMap::new();
    let mut subjects = Vec::new();
    for (subject, name, what, slow) in SUBJECTS {
        match stage.run(subject).await {
            Ok(()) => subjects.push((subject, name, what, slow)),
            Err(error) => {
                skipped.insert(name, format!("{error:#}; see scripts/peers.sh"));
            }
        }
    }
    let mut rows = Vec::new();
    let total = in_flight.len() as u64 * u64::from(ROUNDS);
    let progress = common.output().progress(total, "sandboxes");
    for &k in in_flight {
        let mut measured: BTreeMap<Subject, Series> = BTreeMap::new();
        // In turns, so that whatever else the machine does hits all alike.
        for round in 0..=ROUNDS {
            for &(subject, _, _, slow) in &subjects {
                let share = n.div_ceil(if slow { 10 * ROUNDS } else { ROUNDS });
                let series = together(&stage, subject, share.max(k), k).await.not_done()?;
                // The first round warms up.
                if round > 0 {
                    measured.entry(subject).or_default().add(series);
                }
            }
            progress.inc(u64::from(round > 0));
        }
        let base = |subject| measured.get(&subject).and_then(Series::row);
        let bwrap = base(Subject::Bwrap);
        for (subject, name, what, _) in &subjects {
            let Some((quantiles, per_s, n)) = base(*subject) else { continue };
            let to_bwrap = bwrap.as_ref().map(|(bwrap, ..)| Ratio {
                p50: quantiles.p50_ms / bwrap.p50_ms,
                p99: quantiles.p99_ms / bwrap.p99_ms,
            });
            rows.push(Row { name, what, in_flight: k, n, quantiles, per_s, to_bwrap });
        }
    }
    progress.finish_and_clear();
    stage.clear().await;
    common.output().line(&Report { rows, skipped, machine: Machine::read() })?;
    Ok(Exit::Done)
}

/// Turns that each subject takes at each number in flight.
const ROUNDS: u32 = 5;

/// Runs of one subject.
#[derive(Default)]
struct Series {
    samples: Vec<Duration>,
    took: Duration,
}

impl Series {
    fn add(&mut self, other: Self) {
        self.samples.extend(other.samples);
        self.took += other.took;
    }

    fn row(&self) -> Option<(Quantiles, f64, usize)> {
        let n = self.samples.len();
        Some((quantiles(self.samples.clone())?, n as f64 / self.took.as_secs_f64(), n))
    }
}

async fn together(stage: &Stage, subject: Subject, n: u32, k: u32) -> anyhow::Result<Series> {
    let started = Instant::now();
    let runs = (0..n).map(|_| async {
        let started = Instant::now();
        stage.run(subject).await.map(|()| started.elapsed())
    });
    let samples = futures::stream::iter(runs).buffer_unordered(k as usize).try_collect().await?;
    Ok(Series { samples, took: started.elapsed() })
}

#[derive(Serialize)]
struct Report {
    rows: Vec<Row>,
    /// What could not be measured, and why.
    skipped: BTreeMap<&'static str, String>,
    machine: Machine,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    #[serde(skip)]
    what: &'static str,
    in_flight: u32,
    n: usize,
    #[serde(flatten)]
    quantiles: Quantiles,
    per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_bwrap: Option<Ratio>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, kernel } = &self.machine;
        writeln!(f, "{cores} cores of {cpu}, Linux {kernel}; of /bin/true where nothing is said")?;
        let head = ["in flight", "n", "p50 ms", "p99 ms", "per s", "p50/bwrap", "p99/bwrap"];
        let [flight, n, p50, p99, rate, r50, r99] = head;
        write!(f, "{:<42} {flight:>9} {n:>6} {p50:>9} {p99:>9} {rate:>8} {r50:>9} {r99:>9}", "")?;
        for Row { what, in_flight, n, quantiles, per_s, to_bwrap, .. } in &self.rows {
            let Quantiles { p50_ms, p99_ms } = quantiles;
            write!(
                f,
                "\n{what:<42} {in_flight:>9} {n:>6} {p50_ms:>9.2} {p99_ms:>9.2} {per_s:>8.0}"
            )?;
            if let Some(Ratio { p50, p99 }) = to_bwrap {
                write!(f, " {p50:>9.2} {p99:>9.2}")?;
            }
        }
        for (name, why) in &self.skipped {
            write!(f, "\n{name} skipped: {why}")?;
        }
        Ok(())
    }
}
