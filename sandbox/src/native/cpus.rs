//! Which CPU a sandbox runs on, where each is to have one.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// The CPUs that this process may use, and how many sandboxes are on each.
#[derive(Clone, Debug)]
pub(super) struct Cpus(Arc<Mutex<Vec<(u32, usize)>>>);

impl Cpus {
    pub(super) fn of_this_process() -> Self {
        let own = sched_getaffinity(None).unwrap_or_default();
        let numbers = (0..CpuSet::MAX_CPU).filter(|number| own.is_set(*number));
        Self(Arc::new(Mutex::new(numbers.map(|number| (number as u32, 0)).collect())))
    }

    /// Returns the one that has the fewest sandboxes; `None` when none are known.
    pub(super) fn take(&self) -> Option<Cpu> {
        let mut cpus = lock(&self.0);
        let (number, sandboxes) = cpus.iter_mut().min_by_key(|(_, sandboxes)| *sandboxes)?;
        *sandboxes += 1;
        Some(Cpu { number: *number, cpus: self.clone() })
    }
}

/// A CPU that has a sandbox for as long as this lives.
#[derive(Debug)]
pub(super) struct Cpu {
    number: u32,
    cpus: Cpus,
}

impl Cpu {
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        let mut cpus = lock(&self.cpus.0);
        if let Some((_, sandboxes)) = cpus.iter_mut().find(|(number, _)| *number == self.number) {
            *sandboxes -= 1;
        }
    }
}

/// Keeps the process `pid` on the CPU of this number, and what it starts from then on.
pub(super) fn pin(pid: i32, cpu: u32) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    if cpu as usize >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    cpus.set(cpu as usize);
    Ok(sched_setaffinity(Pid::from_raw(pid), &cpus)?)
}

fn lock(cpus: &Mutex<Vec<(u32, usize)>>) -> MutexGuard<'_, Vec<(u32, usize)>> {
    cpus.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_spread() {
        let cpus = Cpus(Arc::new(Mutex::new(vec![(3, 0), (5, 0)])));
        let take = || cpus.take().unwrap();
        let (first, second, third) = (take(), take(), take());
        assert_eq!([&first, &second, &third].map(Cpu::number), [3, 5, 3]);
        drop(first);
        drop(third);
        assert_eq!(take().number(), 3);
        assert!(Cpus(Arc::default()).take().is_none());
    }
}
