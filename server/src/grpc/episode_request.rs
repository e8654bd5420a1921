//! Requests of `EpisodeService` from the wire to the model.

use std::{path::PathBuf, time::Duration};

use assay_fleet::{
    EpisodeId, Evaluation, MAX_SHELL_BYTES, Opening, Order, RequestId, Runs, StepId,
};
use assay_proto::v1;
use assay_repos::{Submission, Task, TaskId};
use assay_sandbox::Limits;

use super::request::{Violations, duration, finite, generation, name, priority};

/// Most bytes of a file that a call carries.
pub(super) const MAX_FILE_BYTES: u64 = 32 << 20;
const DEFAULT_FILE_BYTES: u64 = 1 << 20;

const DEFAULT_STEPS: u32 = 100;
const MAX_STEPS: u32 = 10_000;
const DEFAULT_LEASE: Duration = Duration::from_secs(600);
const LEASE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// Defaults and maxima of what an agent may use.
const WALL_S: (f64, f64) = (3600.0, 24.0 * 3600.0);
const CPU_S: (f64, f64) = (1800.0, 24.0 * 3600.0);
const STEP_WALL_S: (f64, f64) = (120.0, 24.0 * 3600.0);
const OUTPUT_KB: (u64, u64) = (64, 8 << 10);
const MAX_MEMORY_MB: u64 = 64 << 10;
const MAX_PIDS: u64 = 4096;
const MAX_DISK_MB: u64 = 4 << 10;
const MAX_INODES: u64 = 200_000;

pub(super) fn episode_id(id: String) -> Result<EpisodeId, Violations> {
    EpisodeId::new(id).map_err(|error| Violations::one("episode_id", error))
}

pub(super) fn step_id(id: String) -> Result<StepId, Violations> {
    StepId::new(id).map_err(|error| Violations::one("step_id", error))
}

/// Reads what an episode is opened with; `task` is the one that it names.
pub(super) fn opening(request: v1::OpenRequest, task: &Task) -> Result<Opening, Violations> {
    let mut violations = Violations::default();
    let at = |field: &str| field.to_owned();
    let id = violations.keep(at("episode_id"), EpisodeId::new(request.episode_id));
    name(&request.run_id, at("run_id"), &mut violations);
    name(&request.group_id, at("group_id"), &mut violations);
    finite(&request.external, &at, &mut violations);
    let priority = priority(request.priority, at("priority"), &mut violations);
    let generation = generation(request.generation.unwrap_or_default(), &at, &mut violations);
    let lease = duration(request.lease, at("lease"), &mut violations).unwrap_or(DEFAULT_LEASE);
    if !(LEASE.0..=LEASE.1).contains(&lease) {
        violations.add("lease", "expected 1 s to 24 h");
    }
    let max_steps = if request.max_steps == 0 { DEFAULT_STEPS } else { request.max_steps };
    if max_steps > MAX_STEPS {
        violations.add("max_steps", format!("at most {MAX_STEPS}"));
    }
    let (limits, step_wall) = limits(request.limits.unwrap_or_default(), task, &mut violations);
    let evaluation = Evaluation {
        run_id: request.run_id,
        group_id: request.group_id,
        reward: request.reward,
        external: request.external.into_iter().collect(),
        priority,
        generation,
        ..Evaluation::new(
            RequestId::new("episode").map_err(|error| Violations::one("episode_id", error))?,
            task.id.clone(),
            Submission::Patch(String::new()),
        )
    };
    match id {
        Some(id) if violations.0.is_empty() => {
            Ok(Opening { id, evaluation, limits, step_wall, max_steps, lease })
        }
        _ => Err(violations),
    }
}

fn limits(given: v1::AgentLimits, task: &Task, violations: &mut Violations) -> (Limits, Duration) {
    let own = &task.limits;
    let mut seconds = |field: &str, given: f64, (default, most): (f64, f64)| {
        let seconds = if given == 0.0 { default } else { given };
        if !(seconds > 0.0 && seconds <= most) {
            violations.add(format!("limits.{field}"), format!("expected 0 to {most} s"));
        }
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    };
    let wall = seconds("wall_s", given.wall_s, WALL_S);
    let cpu = seconds("cpu_s", given.cpu_s, CPU_S);
    let step_wall = seconds("step_wall_s", given.step_wall_s, STEP_WALL_S);
    let mut count = |field: &str, given: u64, default: u64, most: u64| {
        let count = if given == 0 { default.min(most) } else { given };
        if count > most {
            violations.add(format!("limits.{field}"), format!("at most {most}"));
        }
        count.min(most)
    };
    let memory_mb = count("memory_mb", given.memory_mb, own.memory_mb, MAX_MEMORY_MB);
    let pids = count("pids", given.pids.into(), own.pids, MAX_PIDS);
    let disk_mb = count("disk_mb", given.disk_mb, own.disk_mb, MAX_DISK_MB);
    let inodes = count("inodes", given.inodes, own.inodes, MAX_INODES);
    let output_kb = count("output_kb", given.output_kb, OUTPUT_KB.0, OUTPUT_KB.1);
    let limits = Limits {
        wall,
        cpu,
        memory_bytes: memory_mb << 20,
        pids: u32::try_from(pids).unwrap_or(u32::MAX),
        disk_bytes: disk_mb << 20,
        inodes,
        output_bytes: usize::try_from(output_kb << 10).unwrap_or(usize::MAX),
    };
    (limits, step_wall)
}

/// Reads a step: the episode's id, its own and what it is.
pub(super) fn step(request: v1::ExecRequest) -> Result<(EpisodeId, StepId, Order), Violations> {
    use v1::exec_request::Runs as Wire;
    let mut violations = Violations::default();
    let episode = violations.keep("episode_id".into(), EpisodeId::new(request.episode_id));
    let id = violations.keep("step_id".into(), StepId::new(request.step_id));
    let wall = duration(request.wall, "wall".into(), &mut violations);
    let runs = match request.runs {
        Some(Wire::Shell(text)) => {
            if text.len() > MAX_SHELL_BYTES {
                let most = format!("at most {MAX_SHELL_BYTES} bytes; write a longer one to a file");
                violations.add("shell", most);
            }
            if text.contains('\0') {
                violations.add("shell", "holds a NUL byte");
            }
            Some(Runs::Shell(text))
        }
        Some(Wire::Program(program)) => {
            match program.argv.first() {
                Some(path) if path.starts_with('/') => {}
                _ => violations.add("program.argv", "begins with no absolute path"),
            }
            if program.argv.iter().any(|argument| argument.contains('\0')) {
                violations.add("program.argv", "holds a NUL byte");
            }
            if program.argv.iter().map(String::len).sum::<usize>() > MAX_SHELL_BYTES {
                violations.add("program.argv", format!("at most {MAX_SHELL_BYTES} bytes"));
            }
            Some(Runs::Program(program.argv))
        }
        None => {
            violations.add("runs", "is absent; set one of shell, program");
            None
        }
    };
    match (episode, id, runs) {
        (Some(episode), Some(id), Some(runs)) if violations.0.is_empty() => {
            let stdin = request.stdin.into();
            Ok((episode, id, Order { runs, stdin, wall, score: request.score }))
        }
        _ => Err(violations),
    }
}

/// Reads which signal is meant.
pub(super) fn signal(number: i32) -> Result<i32, Violations> {
    match number {
        1..=31 => Ok(number),
        _ => Err(Violations::one("signal", "expected 1 to 31")),
    }
}

/// Reads a path inside.
pub(super) fn path(text: &str) -> Result<PathBuf, Violations> {
    if text.is_empty() || text.len() > 4000 || text.contains('\0') {
        return Err(Violations::one("path", "expected 1 to 4000 bytes, no NUL byte"));
    }
    Ok(text.into())
}

/// Reads how much of a file is asked for.
pub(super) fn file_bytes(asked: u64) -> Result<usize, Violations> {
    match asked {
        0 => Ok(DEFAULT_FILE_BYTES as usize),
        asked if asked <= MAX_FILE_BYTES => Ok(asked as usize),
        _ => Err(Violations::one("max_bytes", format!("at most {MAX_FILE_BYTES}"))),
    }
}

/// Reads the name of a snapshot.
pub(super) fn snapshot_name(text: String) -> Result<String, Violations> {
    StepId::new(text.clone()).map(|_| text).map_err(|error| Violations::one("name", error))
}

/// Reads the ids of forks.
pub(super) fn fork_ids(texts: Vec<String>) -> Result<Vec<EpisodeId>, Violations> {
    let mut violations = Violations::default();
    let mut ids: Vec<EpisodeId> = Vec::with_capacity(texts.len().min(1024));
    for (index, text) in texts.into_iter().enumerate().take(1024) {
        let field = format!("episode_ids[{index}]");
        let Some(id) = violations.keep(field.clone(), EpisodeId::new(text)) else { continue };
        if ids.contains(&id) {
            violations.add(field, "is also the id of an earlier one here");
        }
        ids.push(id);
    }
    if violations.0.is_empty() { Ok(ids) } else { Err(violations) }
}

/// Reads which task is meant.
pub(super) fn task_id(id: &str) -> Result<TaskId, Violations> {
    id.parse().map_err(|error| Violations::one("task_id", error))
}
