//! `assay bench slots`: the memory of slots that rest, the kernel's for them included.

use std::{fmt, fs, time::Duration};

use assay_sandbox::{Backend as _, native::Native};
use futures::future::try_join_all;
use serde::Serialize;

use super::{
    Machine,
    peers::{bin_true, in_native, pytest, spec},
    soak::Holdings,
};
use crate::{
    cli::{
        Common,
        output::{Blame as _, CliResult, Exit},
    },
    machine::{self, Rootfs},
};

/// How often slots are made and given back; the medians count.
const ROUNDS: usize = 5;
/// Interpreters that are measured.
const INTERPRETERS: usize = 8;
/// How long slots take to lie still: longer than a prepared sandbox waits.
const STILL: Duration = Duration::from_millis(2700);

pub(super) async fn run(common: &Common, n: u32) -> CliResult {
    let rootfs = super::rootfs(common)?;
    let cache = common.places().cache;
    let progress = common.output().progress(ROUNDS as u64, "slots");
    let (mut processes, mut kernel) = (Vec::new(), Vec::new());
    let mut counts = None;
    for _ in 0..ROUNDS {
        let native = machine::native(&cache, |config| config.idle_high = n as usize).not_done()?;
        in_native(&native, &rootfs).await.not_done()?;
        let before = Memory::now().await;
        let rested = native.slots().idle as u64;
        rest(&native, &rootfs, n).await?;
        let after = Memory::now().await;
        let made = native.slots().idle as u64 - rested;
        processes.push(after.processes_kib.saturating_sub(before.processes_kib) / made);
        kernel.push(after.kernel_kib.saturating_sub(before.kernel_kib) / made);
        counts = Some(native.slots());
        progress.inc(1);
    }
    progress.finish_and_clear();

    let native = machine::native(&cache, |_| {}).not_done()?;
    rest(&native, &rootfs, INTERPRETERS as u32).await?;
    let before = Memory::now().await;
    let runs = (0..INTERPRETERS).map(|_| pytest(&native, rootfs.image(), true));
    try_join_all(runs).await.not_done()?;
    let after = Memory::now().await;
    let interpreter = after.processes_kib.saturating_sub(before.processes_kib);

    let counts = counts.unwrap_or_default();
    let report = Report {
        n,
        slot_kib: median(processes),
        slot_kernel_kib: median(kernel),
        interpreter_kib: interpreter / INTERPRETERS as u64,
        hits: counts.hits,
        misses: counts.misses,
        machine: Machine::read(),
    };
    common.output().line(&report)?;
    Ok(Exit::Done)
}

/// Has `n` slots made, each run a command, and lets them rest.
async fn rest(native: &Native, rootfs: &Rootfs, n: u32) -> CliResult<()> {
    let sandboxes = (0..n).map(|_| native.create(spec(rootfs.image(), Vec::new())));
    for sandbox in try_join_all(sandboxes).await.not_done()? {
        sandbox.run(bin_true()).await.not_done()?;
    }
    Ok(())
}

fn median(mut samples: Vec<u64>) -> u64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or(0)
}

/// Memory in use: of our processes, and of the kernel for everybody.
struct Memory {
    processes_kib: u64,
    kernel_kib: u64,
}

impl Memory {
    async fn now() -> Self {
        tokio::time::sleep(STILL).await;
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0)
        };
        // Shared memory holds what slots have in their tmpfs.
        let names = ["Slab", "KernelStack", "PageTables", "Percpu", "Shmem"];
        Self {
            processes_kib: Holdings::count().memory_kib,
            kernel_kib: names.iter().map(|name| of(name)).sum(),
        }
    }
}

#[derive(Serialize)]
struct Report {
    /// How many slots rested.
    n: u32,
    /// Of the processes of one slot, each page once.
    slot_kib: u64,
    /// Of the kernel for one slot: its objects, stacks, page tables, and files in memory.
    slot_kernel_kib: u64,
    /// Of one warm interpreter with pytest, each page once.
    interpreter_kib: u64,
    /// Sandboxes that found a resting slot, and that did not.
    hits: u64,
    misses: u64,
    machine: Machine,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n, slot_kib, slot_kernel_kib, interpreter_kib, hits, misses, machine } = self;
        let Machine { cpu, cores, kernel } = machine;
        writeln!(f, "{cores} cores of {cpu}, Linux {kernel}; {n} slots that rest")?;
        writeln!(f, "a slot: {slot_kib} KiB of processes, {slot_kernel_kib} KiB of the kernel")?;
        writeln!(f, "its warm interpreter with pytest: {interpreter_kib} KiB more")?;
        write!(f, "{hits} sandboxes found a slot, {misses} waited for one to be made")
    }
}
