//! When a sandbox has had enough: wall-clock time, CPU time, memory.

use std::time::Duration;

use super::{
    cgroup::{Role, SlotFiles},
    job::{Done, Job, JobLimits, Report},
    shared::Shared,
    sys::{self, Used},
};
use crate::{
    LimitKind, Start,
    proc::{self, Totals, starved},
};

/// Why waiting for a sandbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its command did.
    Ended,
    /// It was killed at this limit.
    Limit(LimitKind),
    /// Nobody wants its result any more.
    Cancelled,
    /// The service is gone.
    Orphaned,
}

/// Least and most time between two looks at what a sandbox uses.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// Most time between two looks where only they limit the memory.
const LOOK_AT_MEMORY: Duration = Duration::from_millis(20);

/// Time between two looks whether the command has started.
const STARTING: Duration = Duration::from_millis(10);

/// Watches one sandbox.
pub(super) struct Watch<'a> {
    cgroups: &'a SlotFiles,
    shared: &'a Shared,
    limits: JobLimits,
    cpus: u32,
    has_peak: bool,
    cpu_base_ns: u64,
    memory_base: u64,
    oom_base: u64,
    refused_base: u64,
    /// Microseconds of CPU pressure at the first look, which short runs never take.
    pressure_base: Option<u64>,
    /// What `/proc` told at the last look, where cgroups tell too little.
    last: Totals,
    /// Most memory at any look.
    seen_memory: u64,
    /// What the kernel told when pid 1 was reaped.
    pub(super) used: Used,
}

impl<'a> Watch<'a> {
    /// Takes the counters as they stand before a sandbox is made.
    pub(super) fn new(
        cgroups: &'a SlotFiles,
        shared: &'a Shared,
        job: &Job<'_>,
        cpus: u32,
    ) -> Self {
        // Before Linux 6.12 a v2 group's peak can't be reset: it would be the slot's, not ours.
        let has_peak =
            cgroups.has(Role::MemoryPeak) && cgroups.write(Role::MemoryPeak, "0").is_ok();
        let cpu = |key| cgroups.keyed(Role::CpuStat, key).map(|us| us * 1000);
        Self {
            cgroups,
            shared,
            limits: job.limits,
            cpus,
            has_peak,
            cpu_base_ns: cpu("usage_usec").unwrap_or(0),
            memory_base: cgroups.number(Role::MemoryNow).unwrap_or(0),
            oom_base: cgroups.keyed(Role::MemoryEvents, "oom_kill").unwrap_or(0),
            refused_base: cgroups.keyed(Role::PidsEvents, "max").unwrap_or(0),
            pressure_base: None,
            last: Totals::default(),
            seen_memory: 0,
            used: Used::default(),
        }
    }

    /// Returns how long the slot may sleep before the next [`look`](Self::look).
    pub(super) fn next_look(&self) -> Duration {
        if self.shared.started_ns().is_none() {
            return STARTING;
        }
        let wall = Duration::from_nanos(self.wall_left_ns());
        // All CPUs together use it up at most this fast.
        let cpu = self.limits.cpu_ns.saturating_sub(self.cpu_ns()) / u64::from(self.cpus);
        let most = if self.counts_memory() { LOOK.1 } else { LOOK_AT_MEMORY };
        Duration::from_nanos(cpu).clamp(LOOK.0, most).min(wall)
    }

    /// Looks whether a limit is passed.
    pub(super) fn look(&mut self, pid: i32) -> Verdict {
        // Before the command starts the counters still are the last one's.
        if self.shared.started_ns().is_none() {
            return Verdict::Ended;
        }
        let wall_is_over = self.wall_left_ns() == 0;
        let has_pressure = self.cgroups.has(Role::Pressure);
        if !self.counts_cpu() || !self.counts_memory() || (wall_is_over && !has_pressure) {
            let delayed_ns = self.last.delayed_ns;
            self.last = proc::totals(pid);
            // Of those that have died since, too.
            self.last.delayed_ns = self.last.delayed_ns.max(delayed_ns);
            self.seen_memory = self.seen_memory.max(self.last.resident_bytes);
        }
        let limit = self.limits.memory_bytes;
        if !self.counts_memory() && self.last.resident_bytes > limit && proc::memory(pid) > limit {
            return Verdict::Limit(LimitKind::Memory);
        }
        if self.cpu_ns() > self.limits.cpu_ns {
            return Verdict::Limit(LimitKind::Cpu);
        }
        if self.oom_kills() > 0 {
            return Verdict::Limit(LimitKind::Memory);
        }
        let pressure = self.cgroups.keyed(Role::Pressure, "total");
        self.pressure_base.get_or_insert(pressure.unwrap_or(0));
        if wall_is_over {
            let stalled_ns = self.stalled_ns(pressure);
            return Verdict::Limit(if starved(self.limits.wall_ns, self.cpu_ns(), stalled_ns) {
                LimitKind::WallStarved
            } else {
                LimitKind::Wall
            });
        }
        Verdict::Ended
    }

    /// Says how the run ended, after everything in it is dead.
    pub(super) fn report(
        &self,
        verdict: Verdict,
        (start, lost): (Start, bool),
        received_ns: u64,
        ended_ns: u64,
    ) -> Report {
        let Some(started_ns) = self.shared.started_ns() else {
            return Report::Failed {
                step: "make the sandbox: it was killed".to_owned(),
                errno: libc::EINTR,
            };
        };
        let limit = match verdict {
            Verdict::Limit(kind) => Some(kind),
            _ if self.oom_kills() > 0 => Some(LimitKind::Memory),
            _ => None,
        };
        let cpu_ns = self.cpu_ns();
        let wait_status = match self.shared.wait_status() {
            Some(status) => status,
            None if limit.is_some() || verdict == Verdict::Cancelled => libc::SIGKILL,
            None => {
                return Report::Failed {
                    step: "wait for pid 1 of the sandbox: it was killed".to_owned(),
                    errno: libc::EINTR,
                };
            }
        };
        // The kernel's own backstop came first.
        let by_cpu = libc::WIFSIGNALED(wait_status)
            && matches!(libc::WTERMSIG(wait_status), libc::SIGXCPU | libc::SIGKILL)
            && cpu_ns >= self.limits.cpu_ns;
        Report::Done(Done {
            limit: limit.or(by_cpu.then_some(LimitKind::Cpu)),
            wait_status,
            wall_ns: ended_ns.saturating_sub(started_ns),
            cpu_ns,
            peak_memory_bytes: self
                .cgroups
                .number(Role::MemoryPeak)
                .filter(|_| self.has_peak)
                .map_or(self.seen_memory.max(self.used.largest_bytes), |peak| {
                    peak.saturating_sub(self.memory_base)
                }),
            setup_ns: started_ns.saturating_sub(received_ns),
            pids_refused: self
                .cgroups
                .keyed(Role::PidsEvents, "max")
                .map_or(0, |refused| refused.saturating_sub(self.refused_base)),
            stalled_ns: match self.pressure_base {
                // Never looked at.
                None => 0,
                Some(_) => self.stalled_ns(self.cgroups.keyed(Role::Pressure, "total")),
            },
            start,
            lost,
        })
    }

    /// Returns how long it stalled since the first look.
    pub(super) fn stalled_until_now(&mut self, pid: i32) -> u64 {
        let pressure = self.cgroups.keyed(Role::Pressure, "total");
        if pressure.is_some() {
            self.pressure_base = self.pressure_base.or(pressure);
        } else {
            let delayed_ns = proc::totals(pid).delayed_ns;
            self.last.delayed_ns = self.last.delayed_ns.max(delayed_ns);
        }
        self.stalled_ns(pressure)
    }

    /// Returns how long it stalled since the first look, given the present count of the pressure in
    /// microseconds.
    fn stalled_ns(&self, pressure: Option<u64>) -> u64 {
        match (pressure, self.pressure_base) {
            (Some(now), Some(base)) => now.saturating_sub(base) * 1000,
            (Some(_), None) => 0,
            (None, _) => self.last.delayed_ns,
        }
    }

    fn wall_left_ns(&self) -> u64 {
        match self.shared.started_ns() {
            Some(started) => {
                started.saturating_add(self.limits.wall_ns).saturating_sub(sys::now_ns())
            }
            None => self.limits.wall_ns,
        }
    }

    fn counts_cpu(&self) -> bool {
        self.cgroups.has(Role::CpuUsage) || self.cgroups.has(Role::CpuStat)
    }

    fn counts_memory(&self) -> bool {
        self.cgroups.has(Role::MemoryMax)
    }

    /// Returns the CPU time until now.
    pub(super) fn cpu_ns(&self) -> u64 {
        if let Some(ns) = self.cgroups.number(Role::CpuUsage) {
            return ns;
        }
        match self.cgroups.keyed(Role::CpuStat, "usage_usec") {
            Some(us) => (us * 1000).saturating_sub(self.cpu_base_ns),
            None => self.last.cpu_ns.max(self.used.cpu_ns),
        }
    }

    /// Returns how often memory ran out since the last time that this was asked, for sandboxes that
    /// go on when it did.
    pub(super) fn shortages(&mut self) -> u64 {
        let kills = self.oom_kills();
        self.oom_base += kills;
        kills
    }

    /// How many processes were ended for want of memory.
    pub(super) fn oom_kills(&self) -> u64 {
        let kills = self.cgroups.keyed(Role::MemoryEvents, "oom_kill");
        kills.unwrap_or(0).saturating_sub(self.oom_base)
    }
}
