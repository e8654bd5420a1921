//! A slot: one small process in a user namespace of its own that makes one sandbox after another.
//!
//! It is forked by the spawner, has one thread, holds the capabilities of its namespace and nothing
//! on the host, and talks to the service by one socket. When the service, the spawner or the slot
//! dies, so does the sandbox.

mod enter;
mod wait;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::{enter::fresh_namespaces, wait::wait};
use super::{
    cgroup::{Role, SlotFiles},
    cpus,
    job::{self, Job, NewInterpreter, NewRoot, NewSession, Report, Request, Source},
    keep,
    lending::Lending,
    net::Network,
    root::{self, Root},
    seccomp::Filters,
    setup::{self, Inside},
    shared::{AtStep, Shared, StepError},
    spawner::NewSlot,
    sys::{self, Cloned},
    tree,
    warm::{Interpreter, NAMESPACES, NETWORK},
    watch::{Verdict, Watch},
    wire,
};

/// Which ids a slot has on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostIds {
    /// What root inside is: nobody's id, which no process runs as.
    pub(super) root: u32,
    /// What the sandboxed user is.
    pub(super) user: u32,
}

/// Runs a slot until its socket is closed.
pub(super) fn main(
    socket: OwnedFd,
    NewSlot { ids, ahead }: NewSlot,
    cgroups: SlotFiles,
    seccomp: &Filters,
) -> ! {
    let status = match Slot::prepare(ids, ahead, cgroups, seccomp) {
        Ok((mut slot, fds)) => {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            let mut ready = wire::Writer::default();
            ready.u64(0);
            ready.u64(slot.fallbacks.len() as u64);
            slot.fallbacks.iter().for_each(|fallback| ready.bytes(fallback.as_bytes()));
            match wire::send(&socket, &ready.0, &fds) {
                Ok(()) => {
                    drop(fds);
                    slot.serve(&socket);
                    0
                }
                Err(_) => 1,
            }
        }
        Err(e) => {
            let errno = e.source.raw_os_error().unwrap_or(libc::EINVAL);
            let mut failed = wire::Writer::default();
            failed.u64(1);
            failed.0.extend(Report::Failed { step: e.step.to_owned(), errno }.encode());
            let _ = wire::send(&socket, &failed.0, &[]);
            1
        }
    };
    sys::exit_now(status)
}

/// How long a prepared sandbox waits for its job.
const REST: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Resource limits that are the same for every sandbox: soft and hard.
pub(crate) const RESOURCES: [(u32, u64, u64); 6] = [
    (libc::RLIMIT_CORE, 0, 0),
    (libc::RLIMIT_NOFILE, 1024, 1024),
    (libc::RLIMIT_MEMLOCK, 64 << 10, 64 << 10),
    (libc::RLIMIT_MSGQUEUE, 64 << 10, 64 << 10),
    (libc::RLIMIT_SIGPENDING, 1024, 1024),
    (libc::RLIMIT_STACK, 8 << 20, 64 << 20),
];

pub(super) struct Slot<'a> {
    /// The namespace whose mounts are the host's, where directories are found by path; `None` where
    /// the service sends mounts.
    host_mounts: Option<(OwnedFd, OwnedFd)>,
    pub(super) cgroups: SlotFiles,
    pub(super) seccomp: &'a Filters,
    pub(super) shared: &'static Shared,
    own_pidfd: OwnedFd,
    cpus: u32,
    memory_limit: u64,
    pids_limit: u64,
    fallbacks: Vec<String>,
    /// Whether the next sandbox is cloned before its job comes.
    ahead: bool,
    /// The number of the request that it works on, or worked on last.
    pub(super) request: u64,
    /// What its sandboxes have as their root, once there was one.
    root: Option<Root>,
    /// One for the next sandbox, if nothing is in it.
    network: Option<Network>,
    next: Option<Next>,
    /// The namespaces of the present sandbox, until somebody knows that it ended; in the order of
    /// [`NAMESPACES`].
    pub(super) namespaces: Vec<OwnedFd>,
    /// Warm interpreters by their numbers.
    interpreters: BTreeMap<u64, Interpreter>,
}

/// Pid 1 of a sandbox that has no job yet.
pub(super) struct Next {
    pub(super) pidfd: OwnedFd,
    pub(super) pid: i32,
    pub(super) socket: OwnedFd,
    /// Once it has prepared itself: its namespaces, in the order of [`NAMESPACES`].
    namespaces: Vec<OwnedFd>,
}

impl Next {
    /// Waits until it has prepared itself, unless it is dead. Returns the network, if it is a new one.
    fn hear(&mut self) -> Option<Network> {
        let fds = loop {
            match wire::receive(&self.socket, &mut [0; 8]) {
                Err(rustix::io::Errno::INTR) => {}
                received => break received.map_or_else(|_| Vec::new(), |(_, fds)| fds),
            }
        };
        self.namespaces = fds;
        let counters = self.namespaces.split_off(NAMESPACES.len().min(self.namespaces.len()));
        let network = self.namespaces.get(NETWORK).map(rustix::io::dup)?.ok()?;
        (!counters.is_empty()).then(|| Network::new(network, counters))
    }

    /// Sends its message.
    fn send(&self, message: &[u8], fds: &[OwnedFd]) {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        if wire::send(&self.socket, message, &fds).is_err() {
            // One that failed to prepare itself is gone and has said why; any other would wait on.
            sys::kill_pidfd(self.pidfd.as_fd());
        }
    }
}

impl<'a> Slot<'a> {
    /// Does one job after the other until the service closes the socket.
    fn serve(&mut self, socket: &OwnedFd) {
        loop {
            if self.rest(socket).is_err() {
                return;
            }
            let (message, fds) = match wire::receive_exactly(socket) {
                Ok(message) => message,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
            };
            if message.is_empty() {
                return;
            }
            let Some((first, request)) = wire::read_header(&message) else { return };
            // What came too late for the last request.
            if first == wire::CANCEL || request <= self.request {
                continue;
            }
            self.request = request;
            let report = self.answer(&message, fds, socket).unwrap_or_else(|e| {
                let errno = e.source.raw_os_error().unwrap_or(libc::EINVAL);
                Report::Failed { step: e.step.to_owned(), errno }
            });
            if tell(socket, request, &report).is_err() {
                return;
            }
            // The last hold on the dead sandbox's mounts: the kernel takes its time to undo them.
            self.namespaces.clear();
            // For the next sandbox, while nobody waits.
            let is_used = !matches!(report, Report::Interpreter(_) | Report::Rooted);
            self.network.take_if(|network| is_used && !network.is_fresh());
            let fresh = if is_used { fresh_namespaces() } else { Ok(()) };
            if fresh.is_err() || (self.ahead && self.clone_next().is_err()) {
                return;
            }
        }
    }

    /// Clones pid 1 of the next sandbox, which prepares itself and then waits for its job.
    fn clone_next(&mut self) -> Result<(), StepError> {
        let Some(root) = self.root.as_ref().filter(|_| self.next.is_none()) else { return Ok(()) };
        self.shared.reset();
        let (ours, theirs) = wire::pair().at("make a socket pair")?;
        let leaf = self.cgroups.get(Role::Leaf).map(AsFd::as_fd);
        // SAFETY: a slot has one thread.
        let cloned = unsafe { sys::clone3(setup::CLONED, leaf) }.at("clone the sandbox")?;
        let Cloned::Parent { pidfd, pid } = cloned else {
            drop(ours);
            setup::main(&Inside {
                socket: theirs,
                cgroups: &self.cgroups,
                shared: self.shared,
                workdir: &root.workdir,
                network: self.network.as_ref().map(AsFd::as_fd),
                seccomp: self.seccomp,
                slot: self.own_pidfd.as_fd(),
            })
        };
        self.next = Some(Next { pidfd, pid, socket: ours, namespaces: Vec::new() });
        Ok(())
    }

    /// Waits for something to receive. What the next sandbox could have is given up if nobody comes
    /// for it soon: it takes memory, and another costs little.
    fn rest(&mut self, socket: &OwnedFd) -> Result<(), StepError> {
        loop {
            let waits = self.next.is_some() || self.network.is_some();
            let preparing = self.next.as_ref().filter(|next| next.namespaces.is_empty());
            let mut fds = vec![PollFd::new(socket, PollFlags::IN | PollFlags::RDHUP)];
            fds.extend(preparing.map(|next| PollFd::new(&next.socket, PollFlags::IN)));
            match poll(&mut fds, waits.then_some(&REST)) {
                Ok(0) => {
                    self.end_next()?;
                    self.network = None;
                }
                Ok(_) if !fds[0].revents().is_empty() => return Ok(()),
                Ok(_) => {
                    drop(fds);
                    self.hear_next();
                    // It is dead, and whoever wants it will see.
                    if self.next.as_ref().is_some_and(|next| next.namespaces.is_empty()) {
                        return Ok(());
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).at("wait for a job"),
            }
        }
    }

    /// Waits until the next sandbox is prepared, if there is one that is not.
    fn hear_next(&mut self) {
        if let Some(next) = self.next.as_mut().filter(|next| next.namespaces.is_empty())
            && let Some(network) = next.hear()
        {
            self.network = Some(network);
        }
    }

    /// Ends the prepared sandbox, if there is one.
    fn end_next(&mut self) -> Result<(), StepError> {
        let Some(next) = self.next.take() else { return Ok(()) };
        sys::kill_pidfd(next.pidfd.as_fd());
        sys::wait_pidfd(next.pidfd.as_fd()).at("reap the prepared sandbox").map(drop)
    }

    /// Does what the service asks for.
    fn answer(
        &mut self,
        message: &[u8],
        mut fds: Vec<OwnedFd>,
        socket: &OwnedFd,
    ) -> Result<Report, StepError> {
        let received_ns = sys::now_ns();
        let in_file = message.first() == Some(&wire::IN_FILE);
        let file = if in_file { fds.last().map(rustix::io::dup).transpose() } else { Ok(None) };
        let file = file.at("keep the job's file")?;
        let bytes = wire::job(message, &mut fds).at("read the job")?;
        let request = job::decode(&bytes).ok_or_else(bad_message).at("read the job")?;
        match request {
            Request::Root(request) => self.make_root(&request, fds),
            Request::Interpreter(request) => self.start_interpreter(&request, fds),
            Request::Job(job) => {
                let stdio = fds.len().min(3 + job.channels.len());
                let held = if job.lent.is_some() { &fds[..stdio] } else { &[] };
                let held = held.iter().map(rustix::io::dup).collect::<Result<_, _>>();
                let held = held.at("keep the command's descriptors")?;
                fds.extend(self.open_mounts(job.directories())?);
                fds.extend(file);
                self.run(&job, message, fds, held, socket, received_ns)
            }
            Request::Session(session) => {
                fds.extend(self.open_mounts(session.job.directories())?);
                fds.extend(file);
                self.keep(&session, message, fds, socket, received_ns)
            }
        }
    }

    /// Makes another root for the sandboxes to come.
    fn make_root(
        &mut self,
        new: &NewRoot<'_>,
        mut image: Vec<OwnedFd>,
    ) -> Result<Report, StepError> {
        image.extend(self.open_mounts(new.image.iter())?);
        self.end_next()?;
        if self.root.take().is_some_and(|root| root.unmount().is_err()) {
            // Where the pieces are is anybody's guess.
            sys::exit_now(1);
        }
        self.root = Some(Root::mount(new, &image)?);
        Ok(Report::Rooted)
    }

    /// Makes a sandbox for several commands and keeps it.
    fn keep(
        &mut self,
        session: &NewSession<'_>,
        message: &[u8],
        fds: Vec<OwnedFd>,
        socket: &OwnedFd,
        received_ns: u64,
    ) -> Result<Report, StepError> {
        let next = self.ready(&session.job)?;
        let watch = Watch::new(&self.cgroups, self.shared, &session.job, self.cpus);
        next.send(message, &fds);
        drop(fds);
        match keep::keep(self, session, &next, socket, watch, received_ns) {
            Ok(report) => Ok(report),
            // Whatever is left of the session ends with the slot.
            Err(_) => sys::exit_now(1),
        }
    }

    /// Sets the limits of a job; returns pid 1 of its sandbox, which waits for it.
    fn ready(&mut self, job: &Job<'_>) -> Result<Next, StepError> {
        self.apply_limits(job)?;
        self.clone_next()?;
        self.hear_next();
        let mut next = self.next.take().ok_or_else(bad_message).at("clone the sandbox")?;
        self.namespaces = std::mem::take(&mut next.namespaces);
        self.shared.set_outside(1 + self.interpreters.len() as u64);
        // What it starts inherits it.
        job.cpu.map_or(Ok(()), |cpu| cpus::pin(next.pid, cpu)).at("choose its CPU")?;
        Ok(next)
    }

    /// Returns a descriptor of the slot's own process.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.own_pidfd.as_fd()
    }

    fn start_interpreter(
        &mut self,
        request: &NewInterpreter<'_>,
        mut fds: Vec<OwnedFd>,
    ) -> Result<Report, StepError> {
        fds.extend(self.open_mounts(request.image.iter())?);
        let image = fds.get(..request.image.len()).ok_or_else(bad_message).at("read the job")?;
        self.interpreters.remove(&request.number);
        let groups = self.cgroups.groups().at("open the control groups")?;
        let rooted = self.root.is_some();
        let started = Interpreter::start(request, image, self.own_pidfd.as_fd(), &groups, rooted)?;
        Ok(Report::Interpreter(started.map(|(interpreter, held)| {
            self.interpreters.insert(request.number, interpreter);
            held
        })))
    }

    /// Makes the sandbox, runs the command, and waits until everything in it is dead. `held` are
    /// stdio and channels once more, for a process that an interpreter forks.
    fn run(
        &mut self,
        job: &Job<'_>,
        message: &[u8],
        fds: Vec<OwnedFd>,
        held: Vec<OwnedFd>,
        socket: &OwnedFd,
        received_ns: u64,
    ) -> Result<Report, StepError> {
        let next = self.ready(job)?;
        let mut watch = Watch::new(&self.cgroups, self.shared, job, self.cpus);
        next.send(message, &fds);
        drop(fds);
        let mut lending =
            job.lent.map(|lent| Lending::new(job, lent, self.interpreters.get(&lent.number), held));
        let verdict = match wait(self, &next, socket, &mut watch, &mut lending) {
            Ok(Verdict::Orphaned) => sys::exit_now(0),
            Ok(verdict) => verdict,
            // Whatever is left of the sandbox ends with the slot.
            Err(_) => sys::exit_now(1),
        };
        let ended_ns = sys::now_ns();
        let (start, lost, failed) = lending.map(Lending::finish).unwrap_or_default();
        if lost && let Some(lent) = job.lent {
            self.interpreters.remove(&lent.number);
        }
        if let Some((step, errno)) = self.shared.failed() {
            return Ok(Report::Failed { step: step.to_owned(), errno });
        }
        if let Some((step, errno)) = failed.filter(|_| verdict == Verdict::Ended) {
            return Ok(Report::Failed { step, errno });
        }
        Ok(watch.report(verdict, (start, lost), received_ns, ended_ns))
    }

    /// Opens directories by path, in the host's mount namespace.
    fn open_mounts<'s>(
        &self,
        sources: impl Iterator<Item = &'s Source<'s>>,
    ) -> Result<Vec<OwnedFd>, StepError> {
        let Some((host, own)) = &self.host_mounts else { return Ok(Vec::new()) };
        sys::setns(host.as_fd(), libc::CLONE_NEWNS).at("enter the host's mounts")?;
        let opened = sources
            .map(|source| match source {
                Source::Path(path) => {
                    use std::os::unix::ffi::OsStrExt;
                    root::detached_mount(Path::new(std::ffi::OsStr::from_bytes(path)), None)
                }
                Source::Mount => Err(io::Error::from_raw_os_error(libc::EBADMSG)),
            })
            .collect::<io::Result<Vec<_>>>()
            .at("open a layer");
        sys::setns(own.as_fd(), libc::CLONE_NEWNS).at("leave the host's mounts")?;
        opened
    }

    /// Sets the cgroup limits where they differ from the last job's.
    fn apply_limits(&mut self, job: &Job<'_>) -> Result<(), StepError> {
        // The tmpfs counts as memory: a full disk must be ENOSPC before it is a kill.
        let disk = job.limits.disk_bytes.saturating_add(tree::own_share(job).0);
        let memory = job.limits.memory_bytes.saturating_add(disk);
        if memory != self.memory_limit {
            self.memory_limit = 0;
            let value = memory.to_string();
            // Memory with swap may never be below memory: which goes first depends on the direction.
            let _ = self.cgroups.write(Role::MemorySwapMax, &value);
            self.cgroups.write(Role::MemoryMax, &value).at("limit the memory")?;
            self.cgroups.write(Role::MemorySwapMax, &value).at("limit the memory with swap")?;
            let _ = self.cgroups.write(Role::SwapMax, "0");
            self.memory_limit = memory;
        }
        // Pid 1 and interpreters are ours.
        let pids = job.limits.pids.saturating_add(1 + self.interpreters.len() as u64);
        if pids != self.pids_limit {
            self.cgroups.write(Role::PidsMax, &pids.to_string()).at("limit the processes")?;
            self.pids_limit = pids;
        }
        Ok(())
    }
}

/// Says what became of the request of this number.
pub(super) fn tell(socket: impl AsFd, request: u64, report: &Report) -> io::Result<()> {
    wire::send(socket, &[&request.to_le_bytes()[..], &report.encode()].concat(), &[])
}

pub(super) fn bad_message() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADMSG)
}
