//! What a check may use.

use serde::{Deserialize, Serialize};

use super::SubmissionKind;

/// What a check may use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskLimits {
    /// Wall-clock time in seconds.
    pub wall_s: f64,
    /// CPU time of all processes together, in seconds.
    pub cpu_s: f64,
    /// Memory of all processes together, in MiB.
    pub memory_mb: u64,
    /// Processes and threads at the same time.
    pub pids: u64,
    /// Output kept of each stream, in KiB.
    pub output_kb: u64,
    /// Writable disk, in MiB.
    pub disk_mb: u64,
    /// Writable files.
    pub inodes: u64,
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self {
            wall_s: 60.0,
            cpu_s: 60.0,
            memory_mb: 1024,
            pids: 128,
            output_kb: 1024,
            disk_mb: 256,
            inodes: 20_000,
        }
    }
}

impl TaskLimits {
    /// Returns what holds for tasks of this kind that don't say otherwise: a function that is
    /// called a few times needs less than a test suite.
    #[must_use]
    pub fn for_kind(kind: SubmissionKind) -> Self {
        match kind {
            SubmissionKind::Function => {
                Self { wall_s: 15.0, cpu_s: 5.0, memory_mb: 256, ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}
