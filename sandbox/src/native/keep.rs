//! A slot that keeps a session: hands asks on, watches limits and the lease, ends everything.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    cgroup::Role,
    errand::{Errand, Tree},
    job::{NewSession, Report},
    shared::{AtStep, StepError},
    slot::{self, Next, Slot, bad_message},
    sys,
    talk::{Ask, Reply},
    watch::{Verdict, Watch},
    wire,
};
use crate::{Over, Start};

/// Most errands at a time. A reader that does not read holds one up.
const ERRANDS: usize = 16;

/// How long pid 1 may take to answer. It may have to wait until thousands of processes are dead.
const ANSWER_NS: u64 = 20_000_000_000;

/// How long all processes may take to stand still.
const STILL: Duration = Duration::from_secs(2);

/// What a slot knows of its session.
struct Keeper<'a> {
    slot: &'a Slot<'a>,
    socket: &'a OwnedFd,
    next: &'a Next,
    watch: Watch<'a>,
    workdir: &'a [u8],
    lease_ns: u64,
    /// When the service was heard last.
    heard_ns: u64,
    /// When limits are looked at next.
    look_ns: u64,
    /// Messages that pid 1 has not answered, and since when it might have answered one.
    owed: u64,
    owed_ns: u64,
    /// Whether pid 1 lives.
    alive: bool,
    paused: bool,
    /// Why everything is or will be dead.
    over: Option<Over>,
    /// Its files, from the moment that they are there.
    tree: Option<Tree>,
    errands: Vec<Errand>,
    /// Times that memory ran out.
    shortages: u64,
    /// Commands that run.
    commands: BTreeMap<u64, Running>,
    buffer: Vec<u8>,
}

/// A command that runs.
#[derive(Default)]
struct Running {
    /// Of the session, when it was started.
    shortages: u64,
    cpu_ns: u64,
    stalled_ns: u64,
    /// How long it had stalled when it was first killed.
    stalled_when_killed_ns: u64,
}

/// Whether to go on.
enum Step {
    On,
    /// The service wants it no more.
    Close,
    /// The lease ran out.
    Expire,
}

/// Keeps the session of pid 1 `next`, which has its message, until the service closes it, its lease
/// runs out or it can't be made.
pub(super) fn keep<'a>(
    slot: &'a Slot<'a>,
    session: &'a NewSession<'_>,
    next: &'a Next,
    socket: &'a OwnedFd,
    watch: Watch<'a>,
    received_ns: u64,
) -> Result<Report, StepError> {
    let mut keeper = Keeper {
        slot,
        socket,
        next,
        watch,
        workdir: session.job.workdir,
        lease_ns: session.lease_ns,
        heard_ns: sys::now_ns(),
        look_ns: 0,
        owed: 0,
        owed_ns: 0,
        alive: true,
        paused: false,
        over: None,
        tree: None,
        errands: Vec::new(),
        shortages: 0,
        commands: BTreeMap::new(),
        buffer: vec![0; wire::MAX_DATAGRAM],
    };
    let kept = loop {
        match keeper.step() {
            Ok(Step::On) => {}
            Ok(step) => break Ok(step),
            Err(e) => break Err(e),
        }
    };
    // In any case: nothing of it lives when the next is made.
    keeper.kill(Over::Ended);
    keeper.reap()?;
    keeper.errands.clear();
    if let Step::Expire = kept? {
        keeper.tree = None;
        keeper.say(0, Reply::Over(Over::Lease));
        keeper.hear_out();
    }
    if keeper.tree.is_none()
        && let Some((step, errno)) = slot.shared.failed()
    {
        return Ok(Report::Failed { step: step.to_owned(), errno });
    }
    let started = (Start::Cold, false);
    Ok(keeper.watch.report(Verdict::Cancelled, started, received_ns, sys::now_ns()))
}

impl Keeper<'_> {
    /// Waits for what comes next, and sees to it.
    fn step(&mut self) -> Result<Step, StepError> {
        let look_ns = if self.alive { self.look_ns } else { u64::MAX };
        let left_ns = look_ns.saturating_sub(sys::now_ns()).min(self.lease_left_ns());
        let timeout = Duration::from_nanos(left_ns).min(Duration::from_secs(3600));
        let timeout =
            Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(self.socket, PollFlags::IN | PollFlags::RDHUP)];
        fds.extend(self.errands.iter().map(|errand| PollFd::new(errand, PollFlags::IN)));
        if self.alive {
            fds.push(PollFd::new(&self.next.pidfd, PollFlags::IN));
            fds.push(PollFd::new(&self.next.socket, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).at("wait for the session"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let errands = self.errands.len();
        let [is_dead, is_said] =
            [1, 2].map(|place| ready.get(errands + place).copied().unwrap_or(false));
        if is_said {
            self.hear()?;
        }
        if is_dead {
            self.kill(Over::Broken);
            self.reap()?;
            if self.tree.is_none() {
                return Ok(Step::Close);
            }
        }
        for place in (0..errands).rev().filter(|place| ready[place + 1]) {
            let errand = self.errands.swap_remove(place);
            // It has answered, unless it died.
            self.say(
                errand.number,
                Reply::refused("read or write a file of the session", &bad_message()),
            );
            if errand.thaws {
                self.thaw();
            }
        }
        if ready[0] {
            let mut buffer = std::mem::take(&mut self.buffer);
            match wire::receive(self.socket, &mut buffer) {
                // The service is gone.
                Ok((0, _)) => sys::exit_now(0),
                Ok((length, fds)) => match wire::read_header(&buffer[..length]) {
                    // It came too late for another.
                    Some((_, request)) if request < self.slot.request => {}
                    Some((_, request)) if request > self.slot.request => sys::exit_now(1),
                    Some((wire::CANCEL, _)) => return Ok(Step::Close),
                    _ => self.answer(&buffer[..length], fds)?,
                },
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => sys::exit_now(0),
            }
            self.buffer = buffer;
        }
        // However much is asked for meanwhile.
        if self.alive && sys::now_ns() >= self.look_ns {
            self.look();
            let next = u64::try_from(self.watch.next_look().as_nanos()).unwrap_or(u64::MAX);
            self.look_ns = sys::now_ns().saturating_add(next);
        }
        if self.lease_left_ns() == 0 {
            self.kill(Over::Lease);
            self.reap()?;
            return Ok(Step::Expire);
        }
        Ok(Step::On)
    }

    /// Takes what is still asked of a session that is gone, until the service says that no more comes:
    /// the slot would take it for its next job.
    fn hear_out(&mut self) {
        loop {
            match wire::receive(self.socket, &mut self.buffer) {
                Ok((0, _)) => sys::exit_now(0),
                Ok((length, _))
                    if wire::read_header(&self.buffer[..length])
                        == Some((wire::CANCEL, self.slot.request)) =>
                {
                    return;
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => sys::exit_now(0),
            }
        }
    }

    fn lease_left_ns(&self) -> u64 {
        self.heard_ns.saturating_add(self.lease_ns).saturating_sub(sys::now_ns())
    }

    /// Looks whether a limit is passed, and whether pid 1 answers.
    fn look(&mut self) {
        let stands = self.paused || self.errands.iter().any(|errand| errand.thaws);
        if self.owed == 0 || stands {
            self.owed_ns = sys::now_ns();
        } else if sys::now_ns().saturating_sub(self.owed_ns) > ANSWER_NS {
            self.kill(Over::Broken);
        }
        self.shortages += self.watch.shortages();
        match self.watch.look(self.next.pid) {
            // Where no control group ends the largest process, all but pid 1 have to go.
            Verdict::Limit(crate::LimitKind::Memory) => {
                self.shortages += 1;
                let kill = Ask::Signal { to: 0, signal: libc::SIGKILL }.encode(0);
                let _ = self.pass(&[wire::header(wire::INLINE, 0), kill].concat(), &[]);
            }
            Verdict::Limit(kind) => self.kill(Over::Limit(kind)),
            Verdict::Ended | Verdict::Cancelled | Verdict::Orphaned => {}
        }
    }

    /// Hears pid 1.
    fn hear(&mut self) -> Result<(), StepError> {
        let mut buffer = [0; 4096];
        let (length, mut fds) = match wire::receive(&self.next.socket, &mut buffer) {
            // It died with an ask unread; its descriptor says the rest.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => return Ok(()),
            received => received.at("hear pid 1")?,
        };
        if self.tree.is_none() && length > 0 {
            let (Some(tmp), Some(work), Some(root)) = (fds.pop(), fds.pop(), fds.pop()) else {
                return Err(bad_message()).at("hear pid 1");
            };
            self.tree = Some(Tree::new(root, work, tmp, self.workdir).at("confine errands")?);
            self.say(0, Reply::Ready);
            return Ok(());
        }
        if let Some(Report::Reply(number, mut reply)) = Report::decode(&buffer[..length]) {
            if reply == Reply::Ready {
                (self.owed, self.owed_ns) = (self.owed.saturating_sub(1), sys::now_ns());
                return Ok(());
            }
            if let Reply::Ended(end) = &mut reply {
                self.shortages += self.watch.shortages();
                let command = self.commands.remove(&number).unwrap_or_default();
                end.out_of_memory = self.shortages > command.shortages;
                end.cpu_ns = self.watch.cpu_ns().saturating_sub(command.cpu_ns);
                end.stalled_ns = command.stalled_when_killed_ns;
            }
            self.say(number, reply);
        }
        Ok(())
    }

    /// Does what the service asks for.
    fn answer(&mut self, message: &[u8], mut fds: Vec<OwnedFd>) -> Result<(), StepError> {
        self.heard_ns = sys::now_ns();
        let in_file = message.first() == Some(&wire::IN_FILE);
        let file = if in_file { fds.last().map(rustix::io::dup).transpose() } else { Ok(None) };
        let file = file.at("keep the ask's file")?;
        let bytes = wire::job(message, &mut fds).at("read an ask")?;
        let (number, ask) = Ask::decode(&bytes).ok_or_else(bad_message).at("read an ask")?;
        let reply = match ask {
            Ask::Start(_) | Ask::Signal { .. } if !self.alive => Reply::Dead,
            // A signal waits with those that it is for.
            Ask::Start(_) if self.paused => Reply::Paused,
            Ask::Start(_) | Ask::Signal { .. } => {
                self.note(number, &ask);
                fds.extend(file);
                match self.pass(message, &fds) {
                    Ok(()) => return Ok(()),
                    Err(_) => Reply::Dead,
                }
            }
            Ask::Pause if !self.alive => Reply::Dead,
            Ask::Pause => self.pause(),
            Ask::Resume => {
                if self.paused {
                    self.paused = false;
                    self.thaw();
                }
                Reply::Done
            }
            Ask::Beat => Reply::Done,
            Ask::End => {
                self.kill(Over::Ended);
                self.reap()?;
                Reply::Done
            }
            Ask::Read { .. } | Ask::Write { .. } | Ask::Freeze { .. } => {
                match self.send_errand(number, &ask, fds) {
                    Ok(()) => return Ok(()),
                    Err(e) => Reply::refused(e.step, &e.source),
                }
            }
        };
        self.say(number, reply);
        Ok(())
    }

    /// Notes what a command used, when it is started and when it is killed.
    fn note(&mut self, number: u64, ask: &Ask<'_>) {
        match *ask {
            Ask::Start(_) => {
                let command = Running {
                    shortages: self.shortages,
                    cpu_ns: self.watch.cpu_ns(),
                    stalled_ns: self.watch.stalled_until_now(self.next.pid),
                    stalled_when_killed_ns: 0,
                };
                self.commands.insert(number, command);
            }
            Ask::Signal { to, signal: libc::SIGKILL } => {
                if let Some(command) = self.commands.get_mut(&to)
                    && command.stalled_when_killed_ns == 0
                {
                    let now = self.watch.stalled_until_now(self.next.pid);
                    command.stalled_when_killed_ns = now.saturating_sub(command.stalled_ns);
                }
            }
            _ => {}
        }
    }

    fn send_errand(
        &mut self,
        number: u64,
        ask: &Ask<'_>,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(), StepError> {
        let Some(tree) = &self.tree else { return Err(bad_message()).at("find the files") };
        if self.errands.len() >= ERRANDS {
            let busy = std::io::Error::from_raw_os_error(libc::EBUSY);
            return Err(busy).at("read or write more files at a time");
        }
        let file = fds.pop().ok_or_else(bad_message).at("read an ask")?;
        let stands = !self.alive || self.paused;
        // Where there is no freezer, the copy is of files that others may change meanwhile.
        let mut thaws = false;
        if matches!(ask, Ask::Freeze { .. }) && !stands {
            thaws = self.freeze().is_ok();
            if !thaws {
                // It may come to stand only now.
                self.thaw();
            }
        }
        let file = File::from(file);
        let errand = Errand::start(number, ask, tree, file, self.socket, self.slot);
        match errand {
            Ok(mut errand) => {
                errand.thaws = thaws;
                self.errands.push(errand);
                Ok(())
            }
            Err(e) => {
                if thaws {
                    self.thaw();
                }
                Err(e)
            }
        }
    }

    /// Passes an ask on to pid 1. One that hears nothing any more ends the session: nobody may wait
    /// for it.
    fn pass(&mut self, message: &[u8], fds: &[OwnedFd]) -> std::io::Result<()> {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let passed = wire::send_now(&self.next.socket, message, &fds);
        match &passed {
            Ok(()) if self.owed == 0 => (self.owed, self.owed_ns) = (1, sys::now_ns()),
            Ok(()) => self.owed += 1,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => self.kill(Over::Broken),
            Err(_) => {}
        }
        passed
    }

    fn pause(&mut self) -> Reply {
        match self.freeze() {
            Ok(()) => {
                self.paused = true;
                Reply::Done
            }
            Err(e) => {
                self.thaw();
                Reply::refused("pause without a v2 control group", &e)
            }
        }
    }

    /// Makes every process stand still.
    fn freeze(&self) -> std::io::Result<()> {
        let cgroups = &self.slot.cgroups;
        if !cgroups.has(Role::Freeze) || !cgroups.has(Role::Frozen) {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        cgroups.write(Role::Freeze, "1")?;
        let started = Instant::now();
        while cgroups.keyed(Role::Frozen, "frozen") != Some(1) {
            if started.elapsed() > STILL {
                return Err(std::io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn thaw(&self) {
        let freezes = self.errands.iter().any(|errand| errand.thaws);
        if !self.paused && !freezes {
            let _ = self.slot.cgroups.write(Role::Freeze, "0");
        }
    }

    /// Kills everything, for the first reason that is given.
    fn kill(&mut self, why: Over) {
        if self.over.is_none() {
            self.over = Some(why);
        }
        // A dead namespace's first process takes all others along, frozen or not.
        sys::kill_pidfd(self.next.pidfd.as_fd());
    }

    /// Waits until pid 1, and with it everything, is dead.
    fn reap(&mut self) -> Result<(), StepError> {
        if self.alive {
            self.paused = false;
            self.errands.iter_mut().for_each(|errand| errand.thaws = false);
            self.thaw();
            self.watch.used = sys::wait_pidfd(self.next.pidfd.as_fd()).at("reap the session")?;
            self.alive = false;
            if self.tree.is_some()
                && let Some(over) = self.over
            {
                self.say(0, Reply::Over(over));
            }
        }
        Ok(())
    }

    fn say(&self, number: u64, reply: Reply) {
        let report = Report::Reply(number, reply);
        if slot::tell(self.socket, self.slot.request, &report).is_err() {
            sys::exit_now(0);
        }
    }
}
