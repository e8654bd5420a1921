//! What the container's control groups count, as far as they can be seen from inside.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// Open files of the container's control groups; `None` where there is none.
pub(super) struct Meter {
    cpu: Option<Counter>,
    oom_kills: Option<Counter>,
    forks_refused: Option<Counter>,
}

/// A number in a file.
struct Counter {
    file: File,
    /// The word before it, if the file has more than the number.
    key: &'static str,
    /// What one is worth.
    unit: u64,
}

/// The numbers of a container since its start, all growing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    pub(super) cpu_ns: u64,
    pub(super) oom_kills: u64,
    pub(super) forks_refused: u64,
}

impl Meter {
    pub(super) fn open() -> Self {
        let first = |places: &[(&str, &'static str, u64)]| {
            places.iter().find_map(|(path, key, unit)| {
                let file = File::open(Path::new("/sys/fs/cgroup").join(path)).ok()?;
                Some(Counter { file, key, unit: *unit })
            })
        };
        // Another's numbers, where the container sees the machine's groups as they are.
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let first = |places: &[(&str, &'static str, u64)]| {
            let sees_all = own.lines().any(|line| line.starts_with("0::/") && line != "0::/");
            let places = if sees_all && own.lines().count() == 1 { &[][..] } else { places };
            first(places)
        };
        Self {
            cpu: first(&[("cpu.stat", "usage_usec", 1000), ("cpuacct/cpuacct.usage", "", 1)]),
            oom_kills: first(&[
                ("memory.events", "oom_kill", 1),
                ("memory/memory.oom_control", "oom_kill", 1),
            ]),
            forks_refused: first(&[("pids.events", "max", 1), ("pids/pids.events", "max", 1)]),
        }
    }

    /// Says what can't be counted.
    pub(super) fn fallbacks(&self) -> Vec<&'static str> {
        let mut fallbacks = vec!["peak memory: of the largest process"];
        let lacks = |counter: &Option<Counter>| counter.as_ref().is_none_or(|c| c.read().is_none());
        if lacks(&self.cpu) {
            fallbacks.push("cpu time: of processes, when they are over (no control group to see)");
        }
        if lacks(&self.oom_kills) {
            fallbacks.push("memory: its end looks like a signal (no control group to see)");
        }
        fallbacks
    }

    /// Whether CPU time can be read while a command runs.
    pub(super) fn has_cpu(&self) -> bool {
        self.cpu.is_some()
    }

    pub(super) fn read(&self) -> Reading {
        let read = |counter: &Option<Counter>| {
            counter.as_ref().and_then(Counter::read).unwrap_or_default()
        };
        Reading {
            cpu_ns: read(&self.cpu),
            oom_kills: read(&self.oom_kills),
            forks_refused: read(&self.forks_refused),
        }
    }
}

impl Counter {
    fn read(&self) -> Option<u64> {
        let mut buffer = [0; 4096];
        let length = self.file.read_at(&mut buffer, 0).ok()?;
        number(std::str::from_utf8(&buffer[..length]).ok()?, self.key).map(|n| n * self.unit)
    }
}

/// Returns the number behind `key` at the start of a line.
fn number(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(key));
    lines.find_map(|rest| rest.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_numbers_by_their_words() {
        let events = "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n";
        assert_eq!(number(events, "oom_kill"), Some(2));
        assert_eq!(number(events, "oom"), Some(1));
        assert_eq!(number("37450075\n", ""), Some(37_450_075));
        assert_eq!(number("", "max"), None);
    }
}
