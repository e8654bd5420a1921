//! What a process and everything below it use, from `/proc`: for hosts where no cgroup counts. And
//! what starving is.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Over a tree of processes: sums, if nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// CPU time of all that live, and of their children that were waited for.
    pub(crate) cpu_ns: u64,
    /// Resident memory; pages that several share count for each, so this is the most it can be.
    pub(crate) resident_bytes: u64,
    /// Most time that a living thread stood runnable without a CPU.
    pub(crate) delayed_ns: u64,
}

/// Sums up the process `pid` and all its descendants. Whoever loses its parent goes to pid 1 of its
/// namespace, so nothing escapes from below that one.
pub(crate) fn totals(pid: i32) -> Totals {
    let mut totals = Totals::default();
    visit(pid, |at, threads| {
        if let Some((ticks, pages)) = fs::read(at.join("stat")).ok().and_then(|stat| times(&stat)) {
            totals.cpu_ns += ticks * (1_000_000_000 / ticks_per_second());
            totals.resident_bytes += pages * page_size();
        }
        for thread in threads {
            let schedstat = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
            let delayed = schedstat.split_whitespace().nth(1).and_then(|ns| ns.parse().ok());
            totals.delayed_ns = totals.delayed_ns.max(delayed.unwrap_or(0u64));
        }
    });
    totals
}

/// Returns the memory of the process `pid` and all its descendants, a page that several share
/// counted once. Costs a walk through their page tables.
pub(crate) fn memory(pid: i32) -> u64 {
    let mut bytes = 0;
    visit(pid, |at, _| {
        let read = |name| fs::read_to_string(at.join(name)).unwrap_or_default();
        // Whoever can hide its page tables has all that it maps counted.
        let resident =
            || times(read("stat").as_bytes()).map_or(0, |(_, pages)| pages * page_size());
        bytes += proportional_kib(&read("smaps_rollup")).map_or_else(resident, |kib| kib * 1024);
    });
    bytes
}

/// Calls `see` with the folder in `/proc` of `pid` and each of its descendants, and those of their
/// threads.
fn visit(pid: i32, mut see: impl FnMut(&Path, &[PathBuf])) {
    let mut left = vec![pid];
    while let Some(pid) = left.pop() {
        let at = Path::new("/proc").join(pid.to_string());
        let threads = fs::read_dir(at.join("task")).into_iter().flatten().flatten();
        let threads: Vec<_> = threads.map(|thread| thread.path()).collect();
        for thread in &threads {
            let children = fs::read_to_string(thread.join("children")).unwrap_or_default();
            left.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        see(&at, &threads);
    }
}

/// Returns the `Pss` line of a `smaps_rollup`.
fn proportional_kib(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Whether a command that reached its wall limit was starved of CPU by the machine.
///
/// `stalled_ns` is how long some of its threads stood runnable without a CPU: the `some` line of its
/// own cgroup's pressure, else the most delayed thread's `schedstat`. A command that crowds itself,
/// also one that pins its threads to one CPU, has a thread running whenever another waits, so that
/// it can't stall for longer than it runs. What it stalls beyond that, others took: for a command
/// that wants one CPU, more than a quarter of the limit means that it got less than 3/8 of it.
pub(crate) fn starved(wall_ns: u64, cpu_ns: u64, stalled_ns: u64) -> bool {
    stalled_ns > cpu_ns.saturating_add(wall_ns / 4)
}

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// Returns clock ticks (user and system, own and of waited-for children) and resident pages from
/// `/proc/<pid>/stat`. The name in it is the program's choice: fields count from its last `)`.
fn times(stat: &[u8]) -> Option<(u64, u64)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(((14..=17).map(field).sum::<Option<u64>>()?, field(24)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_behind_any_name() {
        let tail = b" S 1 1 1 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 100 2000000 77 184467";
        for name in ["1 (sh)", "1 (a b) c)", "1 (x) R 9 9 9)", "1 (\u{fffd})"] {
            let stat = [name.as_bytes(), tail].concat();
            assert_eq!(times(&stat), Some((100, 77)), "{name}");
        }
        for stat in [&b""[..], b"1 (sh", b"1 (sh) S 1 2"] {
            assert_eq!(times(stat), None);
        }
    }

    #[test]
    fn tells_starved_from_slow() {
        let cases = [
            ("sleeps", 10, 0, 0, false),
            ("spins alone", 10, 10, 0, false),
            ("four threads on two idle CPUs", 10, 20, 9, false),
            ("forty threads pinned to one CPU, awake half of the time", 10, 5, 5, false),
            ("spins beside forty others", 10, 1, 9, true),
            ("spins beside another", 10, 5, 5, false),
            ("waits a little", 10, 1, 3, false),
        ];
        for (name, wall, cpu, stalled, expected) in cases {
            assert_eq!(starved(wall * 1000, cpu * 1000, stalled * 1000), expected, "{name}");
        }
    }

    #[test]
    fn reads_proportional_sizes() {
        let rollup = "55d-7ff ---p 0 00:00 0 [rollup]\nRss:  8 kB\nPss:                  4711 kB\nPss_Anon: 1 kB\n";
        assert_eq!(proportional_kib(rollup), Some(4711));
        assert_eq!(proportional_kib(""), None);
    }

    #[test]
    fn sums_up_this_process() {
        let totals = totals(std::process::id() as i32);
        assert!(totals.resident_bytes > 1 << 20, "{totals:?}");
        let memory = memory(std::process::id() as i32);
        assert!((1..=totals.resident_bytes * 2).contains(&memory), "{memory} of {totals:?}");
    }
}
