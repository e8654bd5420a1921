//! How a job gets its process from a warm interpreter: what pid 1, the slot and the interpreter say to
//! each other, step by step.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use super::{
    cgroup::Role,
    cpus,
    job::{Job, Lent},
    setup,
    shared::Shared,
    slot::Slot,
    sys,
    warm::{Asked, Interpreter, Said},
    wire,
};
use crate::Start;

/// A job whose process an interpreter may fork.
pub(super) struct Lending<'a> {
    job: &'a Job<'a>,
    lent: Lent,
    pub(super) interpreter: Option<&'a Interpreter>,
    /// Stdio and channels, until the interpreter or nobody needs them.
    held: Vec<OwnedFd>,
    pub(super) stage: Stage,
    /// Whether the interpreter has taken the command.
    asked: bool,
    /// When it was asked, by [`now_ns`](super::sys::now_ns).
    asked_ns: u64,
    start: Start,
    failed: Option<(String, i32)>,
}

/// How long an interpreter may take to make a process, in nanoseconds.
const PROCESS_COMES_NS: u64 = 20_000_000_000;

/// How far a lent sandbox has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Pid 1 builds its tree.
    Building,
    /// The interpreter was asked for a process.
    Asked,
    /// There is a process, or there will be none.
    Settled,
}

impl<'a> Lending<'a> {
    /// Begins with a sandbox whose pid 1 has its job; `held` are stdio and channels.
    pub(super) fn new(
        job: &'a Job<'a>,
        lent: Lent,
        interpreter: Option<&'a Interpreter>,
        held: Vec<OwnedFd>,
    ) -> Self {
        Self {
            job,
            lent,
            interpreter,
            held,
            stage: Stage::Building,
            asked: false,
            asked_ns: 0,
            start: Start::Cold,
            failed: None,
        }
    }

    /// Pid 1 has built its tree: has the interpreter fork, or else pid 1 execute the command.
    pub(super) fn lend(&mut self, slot: &Slot<'_>, pid_1: &OwnedFd) {
        let rules = match wire::receive(pid_1, &mut [0; 8]) {
            Ok((length, rules)) if length > 0 => rules,
            _ => {
                // It is dead.
                self.stage = Stage::Settled;
                return;
            }
        };
        let asked = match self.interpreter {
            None => Err("it is gone".to_owned()),
            Some(interpreter) => self.ask(slot, interpreter, &rules).map_err(|e| e.to_string()),
        };
        self.held.clear();
        self.asked = asked.is_ok();
        self.asked_ns = sys::now_ns();
        self.stage = match asked {
            Ok(()) => Stage::Asked,
            Err(why) => {
                self.execute_instead(&why, pid_1);
                Stage::Settled
            }
        };
    }

    /// Has pid 1 execute the command.
    fn execute_instead(&mut self, why: &str, pid_1: &OwnedFd) {
        self.interpreter = None;
        self.start = Start::ColdInstead(format!("the warm interpreter: {why}"));
        let _ = wire::send(pid_1, &setup::EXECUTE.to_le_bytes(), &[]);
    }

    fn ask(&self, slot: &Slot<'_>, interpreter: &Interpreter, rules: &[OwnedFd]) -> io::Result<()> {
        let fds = self.held.iter().chain(&slot.namespaces).chain(rules).map(AsFd::as_fd);
        let clock = slot.cgroups.get(Role::CpuUsage).map(AsFd::as_fd);
        let fds: Vec<_> = fds.chain(clock).collect();
        let asked = Asked {
            argv: self.job.argv.get(self.lent.script..).unwrap_or_default(),
            cwd: &setup::start_directory(self.job),
            user: None,
            limits: &setup::resources(self.job, &slot.cgroups, slot.shared),
            seccomp: sys::bytes_of(&slot.seccomp.whole),
            rules: rules.len(),
            channels: &self.job.channels,
        };
        self.job.cpu.map_or(Ok(()), |cpu| cpus::pin(interpreter.pid, cpu))?;
        interpreter.conversation.ask(&asked, &fds)
    }

    /// Hears the interpreter; returns whether the sandbox is to be ended. `out_of_memory` is whether a
    /// process was ended for want of memory, which then was none of the command's.
    pub(super) fn hear(
        &mut self,
        said: Said,
        pid_1: &OwnedFd,
        shared: &Shared,
        out_of_memory: bool,
    ) -> bool {
        match said {
            // It speaks of its fork no more, and the fork has said nothing.
            Said::Done if !out_of_memory => {
                self.stage = Stage::Settled;
                self.execute_instead("its fork died", pid_1);
            }
            Said::Started { now_ns, pid } => {
                self.stage = Stage::Settled;
                self.start = Start::Warm;
                shared.set_started(now_ns);
                let _ = wire::send(pid_1, &pid.to_le_bytes(), &[]);
            }
            Said::Failed { step, errno } => {
                self.stage = Stage::Settled;
                self.failed = Some((step, errno));
            }
            Said::Gone if !out_of_memory => {
                self.stage = Stage::Settled;
                self.execute_instead("it ended", pid_1);
            }
            _ => {
                self.stage = Stage::Settled;
                self.interpreter = None;
                let step = "have the warm interpreter start the command".to_owned();
                let errno = if out_of_memory { libc::ENOMEM } else { libc::EPIPE };
                self.failed = Some((step, errno));
            }
        }
        self.failed.is_some()
    }

    /// Gives up a process that does not come: it is stuck, or the interpreter is.
    /// Returns whether the sandbox is to be ended.
    pub(super) fn is_overdue(&mut self) -> bool {
        let overdue = self.stage == Stage::Asked
            && sys::now_ns().saturating_sub(self.asked_ns) > PROCESS_COMES_NS;
        if overdue {
            self.stage = Stage::Settled;
            let step = "start the command: no process came of the warm interpreter".to_owned();
            self.failed = Some((step, libc::ETIMEDOUT));
        }
        overdue
    }

    /// Leaves the interpreter ready for the next job, once all of the sandbox is dead. Returns how
    /// the process started, whether there is no interpreter any more, and why there was no process.
    pub(super) fn finish(self) -> (Start, bool, Option<(String, i32)>) {
        let ready = self.interpreter.is_some_and(|it| !self.asked || it.conversation.settle());
        (self.start, !ready, self.failed)
    }
}
