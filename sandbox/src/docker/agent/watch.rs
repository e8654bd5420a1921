//! A command that runs: what goes in and out of it, its limits, and its end.

use std::{io, os::fd::AsFd as _};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    Agent,
    ends::{Ends, Inlet, Launched, Outlet, Sink, size},
    meter::Reading,
};
use crate::{
    Capture, LimitKind,
    docker::frame::{Ask, Run, WINDOW},
    native::{
        job::Done,
        shared::{AtStep as _, StepError},
        sys::{self, Used},
    },
    proc,
};

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;
/// Reads of an outlet before others have their turn.
const TURNS: usize = 16;
/// Least and most time between two looks at what a command uses.
const LOOKS_NS: (u64, u64) = (5_000_000, 250_000_000);

/// A command and its surroundings.
pub(super) struct Watch {
    launched: Launched,
    since_ns: u64,
    started_ns: u64,
    wall_ns: u64,
    cpu_ns: u64,
    before: Reading,
    outlets: Vec<Outlet>,
    inlets: Vec<Inlet>,
    status: Option<i32>,
    limit: Option<LimitKind>,
    cancelled: bool,
    used: Used,
    stalled_ns: u64,
    next_look_ns: u64,
    /// Whether it should have come from an interpreter.
    wanted_one: bool,
}

/// A command that has ended; others of its user may still run.
pub(super) struct Over(Watch);

impl Watch {
    /// Starts the command of `run` as `user`.
    pub(super) fn start(
        agent: &mut Agent,
        run: &Run<'_>,
        user: u32,
        since_ns: u64,
    ) -> Result<Self, StepError> {
        let ends = Ends::new(run).at("make the command's pipes")?;
        let limits = [
            (libc::RLIMIT_FSIZE, run.file_bytes),
            (libc::RLIMIT_CPU, run.cpu_ns.div_ceil(1_000_000_000).saturating_add(2)),
            // A backstop: the control group counts, and says how often it refused.
            (libc::RLIMIT_NPROC, run.pids.saturating_add(16)),
        ];
        let before = agent.meter.read();
        let launched = ends.launch(agent, run, user, &limits)?;
        let started_ns = sys::now_ns();
        let Ends { outlets, inlets, .. } = ends;
        Ok(Self {
            launched,
            since_ns,
            started_ns,
            wall_ns: run.wall_ns,
            cpu_ns: run.cpu_ns,
            before,
            outlets,
            inlets,
            status: None,
            limit: None,
            cancelled: false,
            used: Used::default(),
            stalled_ns: 0,
            next_look_ns: started_ns + LOOKS_NS.0,
            wanted_one: run.lent.is_some(),
        })
    }

    /// Moves bytes until the command has ended, went over a limit or isn't wanted any more.
    pub(super) fn until_the_command_ends(mut self, agent: &mut Agent) -> Result<Over, StepError> {
        let mut buffer = vec![0; CHUNK];
        while self.status.is_none() && self.limit.is_none() && !self.cancelled {
            self.hear(agent)?;
            let now = sys::now_ns();
            if now >= self.next_look_ns {
                self.look(agent, now);
                continue;
            }
            let ready = self.wait(agent, self.next_look_ns - now).at("wait for the command")?;
            if ready.children {
                sys::take_signals(agent.children.as_fd());
                self.bury();
            }
            for place in ready.outlets {
                self.outlets[place].drain(&mut buffer, TURNS)?;
            }
            for place in ready.inlets {
                self.inlets[place].feed()?;
            }
            if ready.service && !agent.hear()? {
                // Nobody is there to hear more; the container ends with us.
                sys::exit_now(0);
            }
        }
        Ok(Over(self))
    }

    /// Does what the service says in the meantime.
    fn hear(&mut self, agent: &mut Agent) -> Result<(), StepError> {
        while let Some(frame) = agent.inbox.next().at("read a frame")? {
            match Ask::read(frame).ok_or(io::ErrorKind::InvalidData).at("read a frame")? {
                Ask::Input { number, bytes } => {
                    self.inlet(number, |inlet| inlet.pending.extend(bytes))?;
                }
                Ask::End(number) => self.inlet(number, |inlet| inlet.ended = true)?,
                Ask::Took { number: took, bytes } => {
                    for outlet in &mut self.outlets {
                        if let Sink::Service { number, room } = &mut outlet.to
                            && *number == took
                        {
                            *room = room.saturating_add(size(bytes)).min(WINDOW);
                        }
                    }
                }
                Ask::Cancel => self.cancelled = true,
                _ => return Err(io::ErrorKind::InvalidData).at("read a frame"),
            }
        }
        Ok(())
    }

    fn inlet(&mut self, number: i32, change: impl FnOnce(&mut Inlet)) -> Result<(), StepError> {
        match self.inlets.iter_mut().find(|inlet| inlet.number == number) {
            None => Ok(()),
            Some(inlet) => {
                change(inlet);
                inlet.feed()
            }
        }
    }

    /// Waits until something can be done, for no more than `most_ns`.
    fn wait(&self, agent: &Agent, most_ns: u64) -> io::Result<Ready> {
        let mut fds = vec![
            PollFd::new(&agent.children, PollFlags::IN),
            PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN),
        ];
        let mut what = Vec::new();
        for (place, outlet) in self.outlets.iter().enumerate() {
            if let Some(fd) = outlet.fd.as_ref().filter(|_| outlet.is_open()) {
                fds.push(PollFd::new(fd, PollFlags::IN));
                what.push((true, place));
            }
        }
        for (place, inlet) in self.inlets.iter().enumerate() {
            if let Some(fd) = inlet.fd.as_ref().filter(|_| !inlet.pending.is_empty()) {
                fds.push(PollFd::new(fd, PollFlags::OUT));
                what.push((false, place));
            }
        }
        let most = Timespec {
            tv_sec: (most_ns / 1_000_000_000) as i64,
            tv_nsec: (most_ns % 1_000_000_000) as i64,
        };
        match poll(&mut fds, Some(&most)) {
            Err(Errno::INTR) | Ok(0) => return Ok(Ready::default()),
            other => other?,
        };
        let is = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let places = |out| {
            let ready = fds[2..]
                .iter()
                .zip(&what)
                .filter(move |(fd, (is_out, _))| *is_out == out && is(fd));
            ready.map(|(_, (_, place))| *place).collect()
        };
        Ok(Ready {
            children: is(&fds[0]),
            service: is(&fds[1]),
            outlets: places(true),
            inlets: places(false),
        })
    }

    /// Buries who has ended.
    fn bury(&mut self) {
        // Not for ever: they may come as fast as they go.
        for (pid, status, used) in std::iter::from_fn(sys::reap).take(TURNS * TURNS) {
            self.used.add(used);
            if pid == self.launched.pid {
                self.status = Some(status);
            }
        }
    }

    /// Compares what was used with the limits, and says when to look again.
    fn look(&mut self, agent: &Agent, now: u64) {
        let reading = agent.meter.read();
        let totals = proc::totals(self.launched.pid);
        self.stalled_ns = self.stalled_ns.max(totals.delayed_ns);
        let cpu = match agent.meter.has_cpu() {
            true => reading.cpu_ns.saturating_sub(self.before.cpu_ns),
            false => self.used.cpu_ns + totals.cpu_ns,
        };
        let wall = now - self.started_ns;
        if reading.oom_kills > self.before.oom_kills {
            self.limit = Some(LimitKind::Memory);
        } else if cpu >= self.cpu_ns {
            self.limit = Some(LimitKind::Cpu);
        } else if wall >= self.wall_ns {
            let starved = proc::starved(self.wall_ns, cpu, self.stalled_ns);
            self.limit = Some(if starved { LimitKind::WallStarved } else { LimitKind::Wall });
        }
        // As many CPUs as there are can't use up the rest sooner than this.
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        let soonest = (self.cpu_ns.saturating_sub(cpu) / cpus).clamp(LOOKS_NS.0, LOOKS_NS.1);
        self.next_look_ns =
            (now + soonest).min(self.started_ns.saturating_add(self.wall_ns)).max(now + 1);
    }
}

impl Over {
    /// Reads the rest of what a command wrote, all of which is dead, and reports. `used` is what was
    /// used by those that had to be ended.
    pub(super) fn finish(self, agent: &mut Agent, used: Used) -> (Done, Vec<Capture>) {
        let Self(mut watch) = self;
        let ended_ns = sys::now_ns();
        watch.used.add(used);
        let mut buffer = vec![0; CHUNK];
        for outlet in &mut watch.outlets {
            // The service hears of no broken channel: it will see that the command has ended.
            let _ = outlet.drain(&mut buffer, usize::MAX);
        }
        let reading = agent.meter.read();
        let killed = reading.oom_kills > watch.before.oom_kills;
        let lost = match watch.launched.lent {
            Some(place) => !agent.settle(place),
            None => watch.wanted_one,
        };
        let cpu_ns = match agent.meter.has_cpu() {
            true => reading.cpu_ns.saturating_sub(watch.before.cpu_ns),
            false => watch.used.cpu_ns,
        };
        let done = Done {
            limit: if killed { Some(LimitKind::Memory) } else { watch.limit },
            wait_status: watch.status.unwrap_or(libc::SIGKILL),
            wall_ns: ended_ns - watch.started_ns,
            cpu_ns,
            peak_memory_bytes: watch.used.largest_bytes,
            setup_ns: watch.started_ns.saturating_sub(watch.since_ns),
            pids_refused: reading.forks_refused.saturating_sub(watch.before.forks_refused),
            stalled_ns: watch.stalled_ns,
            start: watch.launched.start,
            lost,
        };
        let kept = watch.outlets.into_iter().filter_map(|outlet| match outlet.to {
            Sink::Keep(collector) => Some(collector.finish()),
            Sink::Service { .. } => None,
        });
        (done, kept.collect())
    }
}

/// What can be done without waiting.
#[derive(Default)]
struct Ready {
    children: bool,
    service: bool,
    outlets: Vec<usize>,
    inlets: Vec<usize>,
}
