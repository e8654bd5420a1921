//! `assay bench`: what Assay adds to the code that it runs, beside what one would take instead.

use std::{
    collections::BTreeMap,
    fmt, fs,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use assay_proto::v1::{EvaluateRequest, Submission, submission::Kind};
use assay_repos::{Catalog, SubmissionKind, Task};
use assay_sandbox::{Backend, Command, Limits, SandboxSpec};
use clap::Subcommand;
use serde::Serialize;
use tokio::process;

use super::{
    Common,
    output::{Blame as _, CliResult, Exit, wrong},
    score::{judged, to_wire},
    session::Session,
};
use crate::machine::{self, Rootfs};

const WARM_UP: u32 = 10;

/// What `assay bench` measures.
#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    /// A sandbox against bare processes and bubblewrap, and one evaluation of a kata
    Overhead {
        /// How often each is measured, one after the other in turns
        #[arg(short, long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        n: u32,
        /// The function task that is evaluated [default: the first one of set `katas`]
        #[arg(long, value_name = "ID")]
        task: Option<String>,
    },
}

impl Bench {
    pub(super) async fn run(self, common: &Common) -> CliResult {
        let Self::Overhead { n, task } = self;
        if common.server.is_some() {
            return Err(wrong("`bench` measures this machine, so it takes no --server"));
        }
        overhead(common, n, task).await
    }
}

/// Things to be measured, in the order in which they take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    ForkExec,
    Bwrap,
    NativeCold,
    Native,
    Kata,
}

impl Subject {
    const ALL: [Self; 5] =
        [Self::ForkExec, Self::Bwrap, Self::NativeCold, Self::Native, Self::Kata];

    fn name(self) -> &'static str {
        match self {
            Self::ForkExec => "fork_exec",
            Self::Bwrap => "bwrap",
            Self::NativeCold => "native_cold",
            Self::Native => "native",
            Self::Kata => "kata",
        }
    }
}

async fn overhead(common: &Common, n: u32, task: Option<String>) -> CliResult {
    let places = common.places();
    let rootfs = Rootfs::find(&places.cache).not_done()?;
    let rootfs = rootfs.context("there is no root filesystem yet; run `make rootfs`").not_done()?;
    let catalog = Catalog::load(&places.catalog, &places.cache);
    let kata = kata(&catalog, task.as_deref())?;
    let gold = source(kata.gold().wrong()?)?;
    let native = machine::native(&places.cache, |_| {}).not_done()?;
    let cold = machine::native(&places.cache, |config| config.ahead = false).not_done()?;
    let session = Session::open_fresh(common).await?;

    let mut skipped = BTreeMap::new();
    if bwrap(&rootfs).await.is_err() {
        skipped.insert("bwrap", "bubblewrap is not installed, or may not make namespaces here");
    }
    let mut samples: BTreeMap<Subject, Vec<Duration>> = BTreeMap::new();
    let progress = common.output().progress(u64::from(n), "overhead");
    // In turns, so that whatever else the machine does hits all alike.
    for round in 0..WARM_UP + n {
        for subject in Subject::ALL {
            if skipped.contains_key(subject.name()) {
                continue;
            }
            let started = Instant::now();
            match subject {
                Subject::ForkExec => run(process::Command::new("/bin/true")).await.not_done()?,
                Subject::Bwrap => bwrap(&rootfs).await.not_done()?,
                Subject::NativeCold => in_sandbox(&cold, &rootfs).await.not_done()?,
                Subject::Native => in_sandbox(&native, &rootfs).await.not_done()?,
                // Another text each time: nothing is answered from the cache.
                Subject::Kata => evaluate(&session, &kata, format!("{gold}\n# {round}\n")).await?,
            }
            if round >= WARM_UP {
                samples.entry(subject).or_default().push(started.elapsed());
            }
        }
        if round >= WARM_UP {
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    session.close().await;
    let report = Report::new(n, &kata, samples, skipped);
    common.output().line(&report)?;
    Ok(Exit::Done)
}

fn kata(catalog: &Catalog, id: Option<&str>) -> CliResult<Arc<Task>> {
    let found = match id {
        Some(id) => catalog.get(&id.parse().wrong()?),
        None => catalog
            .tasks()
            .find(|task| task.set == "katas" && task.submission.kind == SubmissionKind::Function),
    };
    found
        .cloned()
        .ok_or_else(|| wrong("no such function task in the catalog; see `assay task list`"))
}

fn source(gold: assay_repos::Submission) -> CliResult<String> {
    match to_wire(gold).kind {
        Some(Kind::Source(text)) => Ok(text),
        _ => Err(wrong("the task's solution is no function")),
    }
}

async fn evaluate(session: &Session, kata: &Task, source: String) -> CliResult<()> {
    let request = EvaluateRequest {
        request_id: uuid::Uuid::now_v7().to_string(),
        task_id: kata.id.to_string(),
        submission: Some(Submission { kind: Some(Kind::Source(source)) }),
        ..EvaluateRequest::default()
    };
    let result = session.rewards().evaluate(request).await?.into_inner();
    if judged(result.outcome()) && !result.cached {
        return Ok(());
    }
    let failure = result.failure.map(|failure| failure.detail).unwrap_or_default();
    Err(anyhow::anyhow!("evaluate {}: {} {failure}", kata.id, result.outcome)).not_done()
}

/// Runs `/bin/true` in a sandbox of its own.
async fn in_sandbox(native: &dyn Backend, rootfs: &Rootfs) -> anyhow::Result<()> {
    let spec = SandboxSpec {
        image: rootfs.image(),
        workdir: "/work".into(),
        layers: Vec::new(),
        trusted: Arc::default(),
        limits: Limits::default(),
    };
    let command = Command { argv: vec!["/bin/true".into()], ..Command::default() };
    let execution = native.create(spec).await?.run(command).await?;
    anyhow::ensure!(
        execution.termination.success(),
        "/bin/true in a sandbox: {:?} {}",
        execution.termination,
        execution.stderr.lossy()
    );
    Ok(())
}

async fn bwrap(rootfs: &Rootfs) -> anyhow::Result<()> {
    let mut command = process::Command::new("bwrap");
    command.args(["--unshare-all", "--ro-bind"]).arg(&rootfs.path).args([
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--tmpfs",
        "/tmp",
        "/bin/true",
    ]);
    run(command).await
}

async fn run(mut command: process::Command) -> anyhow::Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().await?;
    anyhow::ensure!(status.success(), "{:?}: {status}", command.as_std());
    Ok(())
}

#[derive(Serialize)]
struct Report {
    n: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    fork_exec: Option<Quantiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bwrap: Option<Quantiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    native_cold: Option<Quantiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    native: Option<Quantiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kata: Option<Quantiles>,
    /// Name of the ratio to p50 by p50 and p99 by p99.
    ratios: BTreeMap<&'static str, Ratio>,
    skipped: BTreeMap<&'static str, &'static str>,
    task: String,
    machine: Machine,
}

#[derive(Clone, Copy, Serialize)]
struct Quantiles {
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Serialize)]
struct Ratio {
    p50: f64,
    p99: f64,
}

#[derive(Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
}

impl Report {
    fn new(
        n: u32,
        kata: &Task,
        samples: BTreeMap<Subject, Vec<Duration>>,
        skipped: BTreeMap<&'static str, &'static str>,
    ) -> Self {
        let of = |subject| samples.get(&subject).and_then(|samples| quantiles(samples.clone()));
        let [fork_exec, bwrap, native_cold, native, kata_time] = Subject::ALL.map(of);
        let pairs = [
            ("native_cold/bwrap", native_cold, bwrap),
            ("native/bwrap", native, bwrap),
            ("native/fork_exec", native, fork_exec),
            ("bwrap/fork_exec", bwrap, fork_exec),
        ];
        let ratio = |(name, a, b): (_, Option<Quantiles>, Option<Quantiles>)| {
            let (a, b) = (a?, b?);
            Some((name, Ratio { p50: a.p50_ms / b.p50_ms, p99: a.p99_ms / b.p99_ms }))
        };
        Self {
            n,
            fork_exec,
            bwrap,
            native_cold,
            native,
            kata: kata_time,
            ratios: pairs.into_iter().filter_map(ratio).collect(),
            skipped,
            task: kata.id.to_string(),
            machine: Machine::read(),
        }
    }
}

/// The nearest-rank quantiles; `None` of no samples.
fn quantiles(mut samples: Vec<Duration>) -> Option<Quantiles> {
    samples.sort_unstable();
    let at = |percent: usize| {
        let rank = (samples.len() * percent).div_ceil(100).max(1);
        samples.get(rank - 1).map(|sample| sample.as_secs_f64() * 1000.0)
    };
    Some(Quantiles { p50_ms: at(50)?, p99_ms: at(99)? })
}

impl Machine {
    fn read() -> Self {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: cpu.map(|(_, name)| name.trim().to_owned()).unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            kernel: kernel.trim().to_owned(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, kernel } = &self.machine;
        writeln!(f, "{cores} cores of {cpu}, Linux {kernel}; n = {} each, in turns", self.n)?;
        writeln!(f, "{:<42} {:>9} {:>9}", "", "p50 ms", "p99 ms")?;
        let rows = [
            ("fork and exec of /bin/true", "fork_exec", &self.fork_exec),
            ("bubblewrap, /bin/true", "bwrap", &self.bwrap),
            ("native sandbox, cold, /bin/true", "native_cold", &self.native_cold),
            ("native sandbox, prepared, /bin/true", "native", &self.native),
            (&format!("evaluation of {}", self.task), "kata", &self.kata),
        ];
        for (what, name, quantiles) in rows {
            match quantiles {
                Some(Quantiles { p50_ms, p99_ms }) => {
                    writeln!(f, "{what:<42} {p50_ms:>9.2} {p99_ms:>9.2}")?;
                }
                None => {
                    let why = self.skipped.get(name).copied().unwrap_or_default();
                    writeln!(f, "{what:<42} skipped: {why}")?;
                }
            }
        }
        let ratios = self.ratios.iter();
        let ratios =
            ratios.map(|(name, Ratio { p50, p99 })| format!("{name} {p50:.2} (p99 {p99:.2})"));
        write!(f, "{}", ratios.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let ms = |range: std::ops::RangeInclusive<u64>| range.map(Duration::from_millis).collect();
        for (samples, expected) in [
            (ms(1..=1), (1.0, 1.0)),
            (ms(1..=2), (1.0, 2.0)),
            (ms(1..=100), (50.0, 99.0)),
            (ms(1..=300), (150.0, 297.0)),
        ] {
            let quantiles = quantiles(samples).unwrap();
            assert_eq!((quantiles.p50_ms, quantiles.p99_ms), expected);
        }
        assert!(quantiles(Vec::new()).is_none());
    }
}
