//! WASI preview 1, as much of it as a sandbox has: files in memory, output that is collected, streams
//! that the host gave, and clocks and randomness that are the same in every run.
//!
//! Every call takes bytes of the program's choice. It never panics on them, costs the program fuel
//! for what it makes the host do, and looks at the limits where it could take long.

mod calls;
mod descriptors;
mod errno;
mod fds;
mod guest;
mod paths;
mod transfer;

use std::{
    fmt, io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Memory, ResourceLimiter};

pub(super) use self::{
    calls::link,
    descriptors::{Descriptors, Object},
    errno::Errno,
    fds::preopened,
};
use super::{fs::Fs, memory::Share};
use crate::{BackendError, LimitKind, Limits, collect::Collector};

/// The time that every run starts at, in seconds since 1970: that of its first instruction.
const STARTED_S: u64 = 1_735_689_600;

/// Fuel that a run starts with: more than any wall limit lets it burn.
pub(super) const FUEL: u64 = i64::MAX as u64;

/// Of `fdflags`.
const APPEND: u16 = 1;
const NONBLOCK: u16 = 4;
/// Of `rights`: the two that mean something here.
const RIGHT_READ: u64 = 1 << 1;
const RIGHT_WRITE: u64 = 1 << 6;
/// Most bytes that one call moves; programs go on from there.
const MOST: usize = 16 << 20;

/// What ends a program from within a host call or an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It called `proc_exit`.
    Exit(i32),
    /// It went over a limit.
    Limit(LimitKind),
    /// Nobody waits for it any more.
    Cancelled,
    /// It stands where its snapshot is to be taken.
    Snapshot,
    /// The host failed it: no result of it counts.
    Void,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped: {self:?}")
    }
}

impl std::error::Error for Stop {}

/// Whether a program may go on.
#[derive(Debug)]
pub(super) struct Watch {
    deadline: Instant,
    started: Instant,
    cpu: Duration,
    cpu_started: Duration,
    /// Time that the program slept and nobody waited for.
    slept: Duration,
    cancelled: Arc<AtomicBool>,
}

impl Watch {
    /// Starts to count, for a program of this thread.
    pub(super) fn start(limits: &Limits, cancelled: Arc<AtomicBool>) -> Self {
        let started = Instant::now();
        Self {
            // A limit beyond what a clock can tell is none.
            deadline: started
                .checked_add(limits.wall)
                .unwrap_or(started + Duration::from_secs(1 << 30)),
            started,
            cpu: limits.cpu,
            cpu_started: thread_cpu(),
            slept: Duration::ZERO,
            cancelled,
        }
    }

    /// Says why the program has to end, if it has to.
    pub(super) fn check(&self) -> Result<(), Stop> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Stop::Cancelled);
        }
        if self.cpu() >= self.cpu {
            return Err(Stop::Limit(LimitKind::Cpu));
        }
        match self.left() {
            Some(_) => Ok(()),
            None => Err(Stop::Limit(LimitKind::Wall)),
        }
    }

    /// The wall time that is left; `None` when there is none.
    fn left(&self) -> Option<Duration> {
        let left = self.deadline.checked_duration_since(Instant::now())?;
        left.checked_sub(self.slept).filter(|left| !left.is_zero())
    }

    /// Lets time pass for the program alone.
    fn sleep(&mut self, time: Duration) -> Result<(), Stop> {
        self.slept = self.slept.saturating_add(time);
        self.check()
    }

    pub(super) fn wall(&self) -> Duration {
        self.started.elapsed().saturating_add(self.slept)
    }

    pub(super) fn cpu(&self) -> Duration {
        thread_cpu().saturating_sub(self.cpu_started)
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Everything of the host that a program can reach.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) fs: Fs,
    pub(super) descriptors: Descriptors,
    pub(super) arguments: Vec<Vec<u8>>,
    /// `NAME=value` each.
    pub(super) environment: Vec<Vec<u8>>,
    /// Stdout, stderr and collected channels.
    pub(super) outputs: Vec<Collector>,
    /// The program's memory, once it has one.
    pub(super) memory: Option<Memory>,
    pub(super) memory_bytes: u64,
    pub(super) peak_memory_bytes: u64,
    /// What its memory takes of that for all programs.
    pub(super) share: Share,
    /// Why the host failed it.
    pub(super) failed: OnceLock<BackendError>,
    /// `None` before it runs.
    pub(super) watch: Option<Watch>,
    /// Whether the program is to be stopped at the first look at a clock after its first output.
    pub(super) to_snapshot: bool,
    /// Fuel left when the call that is under way began, less what that cost.
    fuel: u64,
    random: u64,
}

impl Host {
    pub(super) fn new(fs: Fs, memory_bytes: u64, share: Share, outputs: Vec<Collector>) -> Self {
        Self {
            fs,
            descriptors: Descriptors::default(),
            arguments: Vec::new(),
            environment: Vec::new(),
            outputs,
            memory: None,
            memory_bytes,
            peak_memory_bytes: 0,
            share,
            failed: OnceLock::new(),
            watch: None,
            to_snapshot: false,
            fuel: FUEL,
            random: 0,
        }
    }

    /// Gives the program stdin, stdout and stderr.
    pub(super) fn stdio(&mut self, stdin: Arc<[u8]>) {
        self.descriptors.place(0, Object::Input { bytes: stdin, at: 0 });
        self.descriptors.place(1, Object::Output(0));
        self.descriptors.place(2, Object::Output(1));
    }

    /// Adds a line of ours to stderr, as a shell would.
    pub(super) fn say(&mut self, text: &str) {
        if let Some(stderr) = self.outputs.get_mut(1) {
            stderr.push(text.as_bytes());
        }
    }

    /// Ends the program because of what the host can't do.
    fn void(&self, error: BackendError) -> Stop {
        let _ = self.failed.set(error);
        Stop::Void
    }

    /// The same for one of its channels.
    fn channel_failed(&self, errno: rustix::io::Errno) -> Stop {
        self.void(BackendError::Io { what: "use a channel".into(), source: errno.into() })
    }

    /// Says whether the program may go on.
    pub(super) fn check(&self) -> Result<(), Stop> {
        self.watch.as_ref().map_or(Ok(()), Watch::check)
    }

    /// The program's clock since its start: a nanosecond for each instruction, and what it slept.
    fn now_ns(&self) -> u64 {
        let slept = self.watch.as_ref().map_or(0, |watch| watch.slept.as_nanos());
        (FUEL - self.fuel.min(FUEL)).saturating_add(u64::try_from(slept).unwrap_or(u64::MAX))
    }

    /// The same in nanoseconds since 1970.
    fn today_ns(&self) -> u64 {
        (STARTED_S * 1_000_000_000).saturating_add(self.now_ns())
    }

    /// The next eight bytes of the one random sequence (SplitMix64).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn grow_failed(error: &wasmtime::Error) -> BackendError {
    let source = io::Error::other(format!("{error:#}"));
    BackendError::Io { what: "give a program memory".into(), source }
}

impl ResourceLimiter for Host {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // What no machine could give is refused; what this sandbox may not have ends it.
        if maximum.is_some_and(|maximum| desired > maximum) || desired > 1 << 32 {
            return Ok(false);
        }
        if desired as u64 > self.memory_bytes {
            return Err(Stop::Limit(LimitKind::Memory).into());
        }
        let more = desired.saturating_sub(current) as u64;
        self.share.grow(more).map_err(|error| self.void(error))?;
        self.peak_memory_bytes = self.peak_memory_bytes.max(desired as u64);
        Ok(true)
    }

    // What the program may not have was refused before.
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(self.void(grow_failed(&error)).into())
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(self.void(grow_failed(&error)).into())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && desired <= super::engine::TABLE)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::memory::Budget, *};

    #[test]
    fn what_the_host_refuses_is_no_limit_of_the_programs() {
        let budget = Budget::new(1 << 20);
        let host = || {
            let fs = Fs::new(0, 0, budget.share());
            Host::new(fs, 4 << 20, budget.share(), Vec::new())
        };
        let stop = |result: wasmtime::Result<bool>| result.unwrap_err().downcast::<Stop>().unwrap();
        let mut first = host();
        assert!(first.memory_growing(0, 1 << 20, None).unwrap());
        assert_eq!(
            stop(first.memory_growing(1 << 20, 5 << 20, None)),
            Stop::Limit(LimitKind::Memory)
        );
        assert!(first.failed.get().is_none());
        // Another run has all there is.
        let mut second = host();
        assert_eq!(stop(second.memory_growing(0, 1 << 16, None)), Stop::Void);
        assert!(second.failed.get().is_some());
        drop(first);
        let mut third = host();
        assert!(third.memory_growing(0, 1 << 16, None).unwrap());
        // As wasmtime tells of a kernel that gives no page.
        let failed = wasmtime::Error::from(io::Error::from(io::ErrorKind::OutOfMemory));
        assert_eq!(stop(third.memory_grow_failed(failed).map(|()| true)), Stop::Void);
        assert!(third.failed.get().is_some());
    }
}
