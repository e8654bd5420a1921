//! `assay bench overhead`: one sandbox at a time, and one kata through the fleet.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use assay_proto::v1::{EvaluateRequest, Submission, submission::Kind};
use assay_repos::{Catalog, SubmissionKind, Task};
use serde::Serialize;

use super::{
    Machine, Quantiles, Ratio,
    peers::{bare, bwrap, in_native},
    quantiles,
};
use crate::{
    cli::{
        Common,
        output::{Blame as _, CliResult, Exit, wrong},
        score::{judged, to_wire},
        session::Session,
    },
    machine,
};

const WARM_UP: u32 = 10;

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

pub(super) async fn run(common: &Common, n: u32, task: Option<String>) -> CliResult {
    let places = common.places();
    let rootfs = super::rootfs(common)?;
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
                Subject::ForkExec => bare().await.not_done()?,
                Subject::Bwrap => bwrap(&rootfs).await.not_done()?,
                Subject::NativeCold => in_native(&cold, &rootfs).await.not_done()?,
                Subject::Native => in_native(&native, &rootfs).await.not_done()?,
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
