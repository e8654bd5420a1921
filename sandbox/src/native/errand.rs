//! What a slot does in a session's files, each time in a process of its own.
//!
//! That process is beside the sandbox, not in it: nobody inside can see or signal it. For reading and
//! writing it first gives up what the sandbox's user does not have either, so that it can be led
//! nowhere where he could not go himself. Freezing needs more, to read what a command made
//! unreadable; it goes name by name, follows nothing and leaves the tmpfs not once. None of them opens
//! what it need not write for writing.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat2};

use super::{
    freeze,
    job::Report,
    landlock::{self, Confinement},
    setup,
    shared::{AtStep, StepError},
    slot::{self, Slot},
    sys::{self, Cloned},
    talk::{Ask, Reply},
};

/// A session's files.
pub(super) struct Tree {
    /// The root that commands see.
    pub(super) root: OwnedFd,
    /// What they changed in the work tree.
    pub(super) work: OwnedFd,
    /// Their `/tmp`.
    pub(super) tmp: OwnedFd,
    /// Lets nothing be written but what commands may write, where the kernel has Landlock.
    writable: Option<Confinement>,
    /// Lets nothing be written.
    nothing: Option<Confinement>,
}

impl Tree {
    pub(super) fn new(
        root: OwnedFd,
        work: OwnedFd,
        tmp: OwnedFd,
        workdir: &[u8],
    ) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folders = [workdir, b"/tmp", b"/dev/shm"]
            .map(|path| openat2(&root, path, flags, Mode::empty(), INSIDE));
        let folders = folders.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (writable, nothing) = (landlock::below(&folders)?, landlock::below(&[])?);
        Ok(Self { root, work, tmp, writable, nothing })
    }

    /// Gives up writing to what `ask` has no need to write to.
    fn confine(&self, ask: &Ask<'_>) -> std::io::Result<()> {
        let confinement = match ask {
            Ask::Write { .. } => &self.writable,
            _ => &self.nothing,
        };
        confinement.as_ref().map_or(Ok(()), Confinement::enter_alike)
    }
}

/// A process that does one ask and answers it.
pub(super) struct Errand {
    pub(super) number: u64,
    pidfd: OwnedFd,
    /// Whether the session was frozen for it.
    pub(super) thaws: bool,
}

impl AsFd for Errand {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Ends it.
impl Drop for Errand {
    fn drop(&mut self) {
        sys::kill_pidfd(self.pidfd.as_fd());
        let _ = sys::wait_pidfd(self.pidfd.as_fd());
    }
}

impl Errand {
    /// Starts it. It answers on `socket`, the service's.
    pub(super) fn start(
        number: u64,
        ask: &Ask<'_>,
        tree: &Tree,
        file: File,
        socket: &OwnedFd,
        slot: &Slot<'_>,
    ) -> Result<Self, StepError> {
        // SAFETY: a slot has one thread.
        let cloned = unsafe { sys::clone3(0, None) }.at("clone a process")?;
        let Cloned::Parent { pidfd, .. } = cloned else {
            let reply = run(ask, tree, file, slot).unwrap_or_else(|reply| reply);
            let _ = slot::tell(socket, slot.request, &Report::Reply(number, reply));
            sys::exit_now(0)
        };
        Ok(Self { number, pidfd, thaws: false })
    }
}

fn run(ask: &Ask<'_>, tree: &Tree, file: File, slot: &Slot<'_>) -> Result<Reply, Reply> {
    let ours = |e: StepError| Reply::refused(e.step, &e.source);
    setup::tie_to_slot(slot.pidfd()).map_err(ours)?;
    tree.confine(ask).at("enter the Landlock rules").map_err(ours)?;
    if let Ask::Freeze { most } = ask {
        return Ok(match freeze::freeze(tree, &file, *most) {
            Ok(()) => Reply::Done,
            Err(e) => Reply::refused("", &e),
        });
    }
    sys::drop_capabilities().at("drop the capabilities").map_err(ours)?;
    sys::install_seccomp(&slot.seccomp.whole).at("install the seccomp filter").map_err(ours)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let done = match ask {
        Ask::Read { path, offset, most } => read(tree, path, *offset, *most, file),
        Ask::Write { path, executable } => write(tree, path, *executable, file),
        _ => Ok(Reply::Refused { errno: 0, what: "is no errand".to_owned() }),
    };
    // To the caller it is the file's fault: there is no step to name.
    done.map_err(|e| Reply::refused("", &e))
}

/// Opens `path` as a process of the sandbox would, as a regular file or not at all.
fn open(tree: &Tree, path: &[u8], flags: OFlags) -> std::io::Result<Result<File, Reply>> {
    let path = Path::new(OsStr::from_bytes(path));
    // A pipe or a lease must not make us wait, nor a terminal become ours.
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mode = if flags.contains(OFlags::CREATE) { 0o644 } else { 0 };
    let file = openat2(&tree.root, path, flags, Mode::from_raw_mode(mode), INSIDE)?;
    let what = match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => return Ok(Ok(File::from(file))),
        FileType::Directory => "is a directory",
        FileType::Fifo => "is a pipe",
        FileType::Socket => "is a socket",
        _ => "is a device",
    };
    Ok(Err(Reply::Refused { errno: 0, what: what.to_owned() }))
}

/// Links and `..` lead nowhere but inside, and those of `/proc` nowhere.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

const CHUNK: usize = 64 << 10;

fn read(tree: &Tree, path: &[u8], offset: u64, most: u64, mut to: File) -> std::io::Result<Reply> {
    use std::os::unix::fs::FileExt as _;
    let file = match open(tree, path, OFlags::RDONLY)? {
        Ok(file) => file,
        Err(reply) => return Ok(reply),
    };
    let (mut buffer, mut at, mut left) = (vec![0; CHUNK], offset, most);
    while left > 0 {
        let chunk = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        let length = file.read_at(&mut buffer[..chunk], at)?;
        if length == 0 {
            break;
        }
        to.write_all(&buffer[..length])?;
        at += length as u64;
        left -= length as u64;
    }
    // What is in /proc says nothing of its size.
    Ok(Reply::Size(file.metadata()?.len().max(at.min(offset.saturating_add(most)))))
}

fn write(tree: &Tree, path: &[u8], executable: bool, mut from: File) -> std::io::Result<Reply> {
    make_folders(tree, Path::new(OsStr::from_bytes(path)))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let mut file = match open(tree, path, flags)? {
        Ok(file) => file,
        Err(reply) => return Ok(reply),
    };
    if executable {
        fchmod(&file, Mode::from_raw_mode(0o755))?;
    }
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(Reply::Done),
            length => file.write_all(&buffer[..length])?,
        }
    }
}

/// Makes what is missing of the folders above `path`.
fn make_folders(tree: &Tree, path: &Path) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let open = |folder: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&tree.root, folder, flags, Mode::empty(), INSIDE)
    };
    if open(folder).is_ok() {
        return Ok(());
    }
    let mut above: Vec<&Path> = folder.ancestors().collect();
    above.reverse();
    for pair in above.windows(2) {
        let (parent, made) = (open(pair[0])?, pair[1]);
        let Some(name) = made.file_name() else { continue };
        match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
