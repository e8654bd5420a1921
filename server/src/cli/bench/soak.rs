//! `assay bench soak`: many native sandboxes in a row, beside bare processes.

use std::{
    fmt, fs,
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    Machine,
    peers::{bare, in_native},
    quantiles,
};
use crate::{
    cli::{
        Common,
        output::{Blame as _, CliResult, Exit},
    },
    machine,
};

/// One bare process for so many sandboxes.
const EVERY: u32 = 5;

pub(super) async fn run(common: &Common, n: u32) -> CliResult {
    let rootfs = super::rootfs(common)?;
    let native = machine::native(&common.places().cache, |_| {}).not_done()?;
    let window = (n / 10).clamp(1, 1000);
    for _ in 0..50 {
        in_native(&native, &rootfs).await.not_done()?;
    }
    let before = Holdings::count();
    let (mut ours, mut bares) = (Vec::new(), Vec::new());
    let progress = common.output().progress(u64::from(n), "sandboxes");
    for number in 0..n {
        let started = Instant::now();
        in_native(&native, &rootfs).await.not_done()?;
        ours.push(started.elapsed());
        if number % EVERY == 0 {
            let started = Instant::now();
            bare().await.not_done()?;
            bares.push(started.elapsed());
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    let (ours_window, bare_window) = (window as usize, window.div_ceil(EVERY) as usize);
    let ratio = |ours: &[Duration], bares: &[Duration]| {
        let p50 = |samples: &[Duration]| quantiles(samples.to_vec()).map_or(f64::NAN, |q| q.p50_ms);
        p50(ours) / p50(bares)
    };
    let report = Report {
        n,
        window,
        first: ratio(&ours[..ours_window], &bares[..bare_window]),
        last: ratio(&ours[ours.len() - ours_window..], &bares[bares.len() - bare_window..]),
        before,
        after: Holdings::count(),
        machine: Machine::read(),
    };
    common.output().line(&report)?;
    Ok(Exit::Done)
}

/// What this process and those that it started hold.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Holdings {
    processes: usize,
    fds: usize,
    mounts: usize,
    cgroups: usize,
    /// Resident and shared memory, each page once.
    pub(super) memory_kib: u64,
}

impl Holdings {
    pub(super) fn count() -> Self {
        let lines = |path: &str| fs::read_to_string(path).unwrap_or_default().lines().count();
        let all = family(std::process::id());
        let at = |pid: &u32, name: &str| Path::new("/proc").join(pid.to_string()).join(name);
        let fds = |pid| fs::read_dir(at(pid, "fd")).map_or(0, Iterator::count);
        let kib = |pid| {
            let rollup = fs::read_to_string(at(pid, "smaps_rollup")).unwrap_or_default();
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0)
        };
        Self {
            processes: all.len(),
            fds: all.iter().map(fds).sum(),
            mounts: lines("/proc/self/mounts"),
            cgroups: groups(Path::new("/sys/fs/cgroup")),
            memory_kib: all.iter().map(kib).sum(),
        }
    }
}

/// A process and its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children = tasks
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .collect::<String>();
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        next += 1;
    }
    all
}

/// Directories below one.
fn groups(at: &Path) -> usize {
    let entries = fs::read_dir(at).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| 1 + groups(&entry.path())).sum()
}

#[derive(Serialize)]
struct Report {
    n: u32,
    /// How many runs `first` and `last` are medians of.
    window: u32,
    /// A sandbox's time to a bare process's, at the beginning and at the end.
    first: f64,
    last: f64,
    before: Holdings,
    after: Holdings,
    machine: Machine,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n, window, first, last, before, after, machine } = self;
        let Machine { cpu, cores, kernel } = machine;
        writeln!(f, "{cores} cores of {cpu}, Linux {kernel}; {n} runs of /bin/true in a row")?;
        writeln!(
            f,
            "to a bare process (p50): {first:.2} in the first {window}, {last:.2} in the last"
        )?;
        writeln!(f, "{:<12} {:>10} {:>10}", "", "before", "after")?;
        for (what, before, after) in [
            ("processes", before.processes as u64, after.processes as u64),
            ("descriptors", before.fds as u64, after.fds as u64),
            ("mounts", before.mounts as u64, after.mounts as u64),
            ("cgroups", before.cgroups as u64, after.cgroups as u64),
        ] {
            writeln!(f, "{what:<12} {before:>10} {after:>10}")?;
        }
        write!(f, "{:<12} {:>10} {:>10}", "memory KiB", before.memory_kib, after.memory_kib)
    }
}
