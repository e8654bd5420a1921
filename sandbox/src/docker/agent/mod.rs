//! The process of ours in a container: it makes the work tree of one sandbox after the other, runs the
//! command in it as a user of its own, ends all of that user and leaves nothing behind.
//!
//! It is the service's own executable, started as the container's pid 1, so that whoever loses its
//! parent becomes its child. It is root inside and has two capabilities, to become other users; what
//! it does to files of a sandbox it does as the sandbox's user. It has one thread.

mod command;
mod ends;
mod meter;
mod place;
mod user;
mod warm;
mod watch;

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use self::{
    meter::Meter,
    place::Place,
    warm::{Interpreter, NewInterpreter},
    watch::Watch,
};
use super::frame::{Ask, Frames, Inbox, Run, Tell};
use crate::{
    Capture,
    native::{
        job::Report,
        seccomp,
        shared::{AtStep as _, StepError},
        slot, sys,
    },
};

/// The first argument of a process that is to be an agent; the work directory and the interpreters'
/// user follow.
pub(super) const ARGUMENT: &str = "__agent";
/// The user of interpreters: neither one of an image nor one that sandboxes get.
pub(super) const INTERPRETERS_USER: u32 = 9_999;
/// Where the files lie that a sandbox may read alone.
pub(super) const TRUSTED: &str = "/assay";
/// Where a sandbox may write, beside its work tree.
const SCRATCH: [&str; 3] = ["/tmp", "/dev/shm", "/dev/mqueue"];

/// Becomes the agent of a container if that is what this process was started for.
pub(crate) fn main_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != ARGUMENT) {
        return;
    }
    let workdir = arguments.next().map(PathBuf::from).unwrap_or_default();
    let user = arguments.next().and_then(|id| id.to_str()?.parse().ok());
    let result = match user {
        Some(user) => Agent::new(&workdir, user).and_then(|mut agent| agent.serve()),
        None => Err(StepError {
            step: "read the arguments",
            source: io::ErrorKind::InvalidInput.into(),
        }),
    };
    if let Err(e) = result {
        eprintln!("{}: {}", e.step, e.source);
        sys::exit_now(1);
    }
    sys::exit_now(0)
}

struct Agent {
    inbox: Inbox,
    workdir: Place,
    /// The work tree and whatever else a sandbox's user writes to.
    writable: Vec<Place>,
    trusted: Place,
    interpreters: Vec<Option<Interpreter>>,
    interpreters_user: u32,
    /// Tells when a child has ended.
    children: OwnedFd,
    meter: Meter,
    tables: user::Tables,
}

/// A sandbox that is being made.
#[derive(Default)]
struct Making {
    /// When its first frame came.
    since_ns: Option<u64>,
    user: Option<u32>,
    /// Where further content goes.
    file: Option<OwnedFd>,
    failed: Option<StepError>,
}

impl Agent {
    fn new(workdir: &Path, interpreters_user: u32) -> Result<Self, StepError> {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        for (resource, soft, hard) in slot::RESOURCES {
            sys::limit_resource(resource, soft, hard).at("set a resource limit")?;
        }
        // As an interpreter's and a command's: what they inherit is closed.
        sys::close_on_exec_from(3).at("close descriptors")?;
        place::refuse_others(workdir)?;
        // Engines give a mount the mode of what it hides.
        let writable = SCRATCH.iter().map(Path::new).filter(|path| path.is_dir());
        let writable = writable.map(|path| Place::open(path, 0o1777));
        let writable = writable.collect::<io::Result<Vec<_>>>();
        let trusted = Place::open(Path::new(TRUSTED), 0o755);
        // Ours, too: we need nothing that it denies, and for each command it would take time again.
        let seccomp = seccomp::compile().at("compile the seccomp filter")?;
        sys::install_seccomp(&seccomp).at("install the seccomp filter")?;
        Ok(Self {
            inbox: Inbox::default(),
            workdir: Place::open(workdir, 0o777).at("open the work directory")?,
            writable: writable.at("open a directory that sandboxes write to")?,
            trusted: trusted.at("open the directory of trusted files")?,
            interpreters: Vec::new(),
            interpreters_user,
            children: sys::child_signals(3).at("watch for children")?,
            meter: Meter::open(),
            tables: user::Tables::open(),
        })
    }

    /// Does what it is asked until the service is gone.
    fn serve(&mut self) -> Result<(), StepError> {
        let mut fallbacks = self.meter.fallbacks();
        if !sys::can_refuse_rights() {
            fallbacks.push("channels: descriptors can be sent through them (before Linux 6.16)");
        }
        let ids = user::last_id();
        if ids >= u64::from(u32::MAX) - 1 {
            fallbacks.push("user namespace: none (the engine is not set up for it)");
        }
        let fallbacks = fallbacks.iter().map(|text| text.as_bytes()).collect();
        tell(&[Tell::Hello { ids, fallbacks }])?;
        let mut making = Making::default();
        loop {
            let frame = self.inbox.next().at("read a frame")?.map(<[u8]>::to_vec);
            let Some(frame) = frame else {
                match self.hear()? {
                    true => continue,
                    false => return Ok(()),
                }
            };
            let ask = Ask::read(&frame).ok_or(io::ErrorKind::InvalidData).at("read a frame")?;
            match ask {
                Ask::Run(run) => {
                    let made = std::mem::take(&mut making);
                    let (report, kept, clean) = self.run(made, &run)?;
                    answer(report, &kept, clean)?;
                }
                Ask::Interpreter { number, argv, env } => {
                    let made = std::mem::take(&mut making);
                    let new = NewInterpreter { number, argv, env };
                    let report = self.start_interpreter(made, &new);
                    let undone = self.undo(self.interpreters_user);
                    if let Err(e) = &undone {
                        eprintln!("{}: {}", e.step, e.source);
                    }
                    answer(report, &[], undone.is_ok())?;
                }
                // Late ones, of a run that is over.
                Ask::Input { .. } | Ask::End(_) | Ask::Took { .. } | Ask::Cancel => {}
                // Whatever comes behind a failure is of no use.
                _ if making.failed.is_some() => {}
                part => {
                    making.since_ns.get_or_insert_with(sys::now_ns);
                    if let Err(e) = self.make(&mut making, &part) {
                        making.failed = Some(e);
                    }
                }
            }
        }
    }

    /// Reads what the service sent; whether it is still there.
    fn hear(&mut self) -> Result<bool, StepError> {
        let mut buffer = [0; 64 << 10];
        loop {
            match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => {
                    self.inbox.push(&buffer[..length]);
                    return Ok(true);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).at("read from the service"),
            }
        }
    }

    /// Adds a part to the sandbox that is being made.
    fn make(&self, making: &mut Making, part: &Ask<'_>) -> Result<(), StepError> {
        let tree = self.workdir.root();
        match part {
            Ask::Trusted { path, content } => {
                let name = path_of(path).strip_prefix(TRUSTED);
                let name = name.map_err(|_| io::ErrorKind::InvalidInput).at("place a file")?;
                let file = place::write(self.trusted.root(), name, content, 0o444);
                making.file = Some(file.at("write a trusted file")?);
            }
            Ask::User(id) => {
                user::act_as(*id).at("act as the sandbox's user")?;
                making.user = Some(*id);
            }
            Ask::Directory(path) => {
                place::directory(tree, path_of(path)).at("make a directory")?;
            }
            Ask::File { path, content, executable } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                let file = place::write(tree, path_of(path), content, mode);
                making.file = Some(file.at("write a file of the work tree")?);
            }
            Ask::Symlink { path, target } => {
                place::symlink(tree, path_of(path), path_of(target)).at("make a link")?;
            }
            Ask::More(content) => {
                let file = making.file.as_ref().ok_or(io::ErrorKind::InvalidData);
                place::append(file.at("read a frame")?.as_fd(), content).at("write a file")?;
            }
            _ => return Err(io::ErrorKind::InvalidData).at("read a frame"),
        }
        Ok(())
    }

    /// Runs a command in the sandbox that was made, and undoes the sandbox; whether nothing of it is
    /// left.
    fn run(
        &mut self,
        made: Making,
        run: &Run<'_>,
    ) -> Result<(Report, Vec<Capture>, bool), StepError> {
        user::act_as_self().at("act as root again")?;
        let Making { since_ns, user, failed, file } = made;
        drop(file);
        let user = user.ok_or(io::ErrorKind::InvalidData).at("run as nobody")?;
        let since_ns = since_ns.unwrap_or_else(sys::now_ns);
        let ran = match failed {
            Some(e) => Err(e),
            None => Watch::start(self, run, user, since_ns)
                .and_then(|watch| watch.until_the_command_ends(self)),
        };
        // Before anything that it wrote is read to its end. An error here ends the container.
        let between = self.interpreters_user;
        let used = user::end_all(user, between, || self.own_processes(), self.children.as_fd());
        let used = used.at("end all processes")?;
        // Segments outlive processes, and what follows needs memory.
        user::act_as(user).at("act as the sandbox's user")?;
        let freed = self.tables.remove_ipc();
        user::act_as_self().at("act as root again")?;
        // One that was killed for want of memory, say.
        self.interpreters.iter_mut().for_each(|one| {
            one.take_if(|one| one.pid().is_none());
        });
        let (report, kept) = match ran {
            Ok(over) => {
                let (done, kept) = over.finish(self, used);
                (Report::Done(done), kept)
            }
            Err(e) => (failure(&e), Vec::new()),
        };
        let undone = freed.at("remove its IPC objects").and_then(|()| self.undo(user));
        if let Err(e) = &undone {
            eprintln!("{}: {}", e.step, e.source);
        }
        Ok((report, kept, undone.is_ok()))
    }

    /// Removes whatever a sandbox left, whose processes are dead.
    ///
    /// # Errors
    ///
    /// Something is left: this container must not be used again.
    fn undo(&self, user: u32) -> Result<(), StepError> {
        let places = || self.writable.iter().chain([&self.workdir]);
        user::act_as(user).at("act as the sandbox's user")?;
        let wiped: io::Result<()> = places().try_for_each(Place::wipe);
        user::act_as_self().at("act as root again")?;
        wiped.at("remove what a command left")?;
        self.trusted.wipe().at("remove trusted files")?;
        if self.tables.has_connections().at("look for connections")? {
            return Err(io::ErrorKind::AddrInUse).at("find no connection left");
        }
        match places().chain([&self.trusted]).find(|place| !place.is_clean()) {
            None => Ok(()),
            Some(place) => Err(io::Error::other(place.name())).at("find a directory empty again"),
        }
    }

    /// Returns the processes that belong to no sandbox.
    fn own_processes(&self) -> Vec<i32> {
        let interpreters = self.interpreters.iter().flatten().filter_map(Interpreter::pid);
        std::iter::once(std::process::id() as i32).chain(interpreters).collect()
    }
}

/// Tells what became of a run, or of the start of an interpreter.
fn answer(report: Report, kept: &[Capture], clean: bool) -> Result<(), StepError> {
    let dropped = kept.iter().map(|capture| capture.dropped).collect();
    let parts = (0..).zip(kept).flat_map(|(place, capture)| {
        let part = |tail, bytes| Tell::Kept { place, tail, bytes };
        [part(false, &*capture.head), part(true, &*capture.tail)]
    });
    let parts: Vec<_> = parts.chain([Tell::Report { report, dropped, clean }]).collect();
    tell(&parts)
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Reports a step that failed.
fn failure(e: &StepError) -> Report {
    let errno = e.source.raw_os_error().unwrap_or(libc::EINVAL);
    Report::Failed { step: e.step.to_owned(), errno }
}

/// Tells the service.
fn tell(parts: &[Tell<'_>]) -> Result<(), StepError> {
    let mut frames = Frames::default();
    parts.iter().for_each(|part| frames.tell(part));
    place::append(rustix::stdio::stdout(), &frames.0).at("write to the service")
}
