//! What the service asks a slot to do, and what the slot answers.

use std::{
    collections::BTreeMap,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{
    talk::Reply,
    wire::{Reader, Writer},
};
use crate::{Command, FileEntry, Layer, LimitKind, Limits, SandboxSpec, SessionSpec, Start, Warm};

/// What a service may ask of a slot.
#[derive(Debug)]
pub(crate) enum Request<'a> {
    Root(NewRoot<'a>),
    Job(Box<Job<'a>>),
    Session(Box<NewSession<'a>>),
    Interpreter(NewInterpreter<'a>),
}

/// A sandbox for several commands, which come later.
///
/// The descriptors of its message are the records that it starts with (when it is `thawed`), one
/// for each [`Source::Mount`] and the memory file when the message was too long.
#[derive(Debug)]
pub(crate) struct NewSession<'a> {
    /// After how long without a word of the service it ends.
    pub(crate) lease_ns: u64,
    pub(crate) thawed: bool,
    /// Its files and limits, and no command.
    pub(crate) job: Job<'a>,
}

/// An interpreter to be started and kept. The descriptors of its message are the image's mounts,
/// where they are a [`Source::Mount`].
#[derive(Debug)]
pub(crate) struct NewInterpreter<'a> {
    /// Which one it is to this slot; another of this number ends.
    pub(crate) number: u64,
    pub(crate) image: Vec<Source<'a>>,
    pub(crate) argv: Vec<&'a [u8]>,
    pub(crate) env: Vec<&'a [u8]>,
    pub(crate) programs: Vec<(&'a [u8], &'a [u8])>,
}

/// That a fork of an interpreter may be a job's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lent {
    /// Which interpreter.
    pub(crate) number: u64,
    /// The place of the script in `argv`.
    pub(crate) script: usize,
}

/// A directory that a sandbox is built on.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// The next descriptor of the message: a detached mount with the sandbox's ids.
    Mount,
    /// A path that the slot opens itself, in its copy of the host's mount namespace.
    Path(&'a [u8]),
}

/// One layer of the work tree.
#[derive(Debug)]
pub(crate) enum JobLayer<'a> {
    Dir(Source<'a>),
    Files(Vec<(&'a [u8], JobEntry<'a>)>),
}

/// One entry of a files layer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum JobEntry<'a> {
    File { content: &'a [u8], executable: bool },
    Symlink(&'a [u8]),
    Absent,
}

/// Limits in the units of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobLimits {
    pub(crate) wall_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) pids: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) inodes: u64,
}

/// What a slot's sandboxes have as their root from now on. The descriptors of its message are the
/// image's mounts, where they are a [`Source::Mount`].
#[derive(Debug)]
pub(crate) struct NewRoot<'a> {
    /// Where their work trees are.
    pub(crate) workdir: &'a [u8],
    /// The layers of the image, lowest first.
    pub(crate) image: Vec<Source<'a>>,
    /// Paths and contents.
    pub(crate) trusted: Vec<(&'a [u8], &'a [u8])>,
}

/// One sandbox and the command to run in it.
///
/// The descriptors of its message are stdin, stdout, stderr, one for each of `channels`, one for
/// each [`Source::Mount`], and the memory file when the message was too long.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) workdir: &'a [u8],
    pub(crate) layers: Vec<JobLayer<'a>>,
    pub(crate) limits: JobLimits,
    pub(crate) argv: Vec<&'a [u8]>,
    pub(crate) env: Vec<&'a [u8]>,
    pub(crate) cwd: &'a [u8],
    pub(crate) channels: Vec<i32>,
    /// The only CPU that it may run on.
    pub(crate) cpu: Option<u32>,
    pub(crate) lent: Option<Lent>,
}

impl<'a> Job<'a> {
    /// Returns the directories that it is built on.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &Source<'a>> {
        self.layers.iter().filter_map(|layer| match layer {
            JobLayer::Dir(source) => Some(source),
            JobLayer::Files(_) => None,
        })
    }
}

const JOB: u64 = 0;
const INTERPRETER: u64 = 1;
const SESSION: u64 = 2;
const ROOT: u64 = 3;

const MOUNT: u64 = 0;
const PATH: u64 = 1;
const FILES: u64 = 2;

/// What a slot is to know of a sandbox that its description does not say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Making {
    /// The only CPU that it may run on, where it is to have one.
    pub(crate) cpu: Option<u32>,
    /// Whether directories travel as descriptors, not as paths.
    pub(crate) mounts: bool,
}

/// Encodes a job.
pub(crate) fn encode(
    spec: &SandboxSpec,
    making: Making,
    command: &Command,
    lent: Option<Lent>,
) -> Vec<u8> {
    let mut to = Writer(Vec::with_capacity(1024));
    to.u64(JOB);
    encode_job(&mut to, spec, making, command, lent);
    to.0
}

/// Encodes a session.
pub(crate) fn encode_session(spec: &SessionSpec, making: Making) -> Vec<u8> {
    let mut to = Writer(Vec::with_capacity(1024));
    to.u64(SESSION);
    to.u64(u64::try_from(spec.lease.as_nanos()).unwrap_or(u64::MAX));
    to.u64(u64::from(spec.from.is_some()));
    encode_job(&mut to, &spec.sandbox, making, &Command::default(), None);
    to.0
}

fn encode_job(
    to: &mut Writer,
    spec: &SandboxSpec,
    Making { cpu, mounts }: Making,
    command: &Command,
    lent: Option<Lent>,
) {
    let source = |to: &mut Writer, path: &Path| encode_source(to, path, mounts);
    to.bytes(spec.workdir.as_os_str().as_bytes());
    to.u64(spec.layers.len() as u64);
    for layer in &spec.layers {
        match layer {
            Layer::Dir(path) => source(to, path),
            Layer::Files(files) => {
                to.u64(FILES);
                encode_files(to, files);
            }
        }
    }
    encode_limits(to, &spec.limits);
    encode_strings(to, &command.argv);
    encode_env(to, &command.env);
    to.bytes(command.cwd.as_os_str().as_bytes());
    to.u64(command.channels.len() as u64);
    command.channels.iter().for_each(|channel| to.u64(channel.fd as u64));
    to.u64(cpu.map_or(0, |number| u64::from(number) + 1));
    to.u64(u64::from(lent.is_some()));
    if let Some(Lent { number, script }) = lent {
        to.u64(number);
        to.u64(script as u64);
    }
}

/// Encodes the making of a root.
pub(crate) fn encode_root(
    workdir: &Path,
    image: &[PathBuf],
    trusted: &BTreeMap<PathBuf, std::sync::Arc<[u8]>>,
    mounts: bool,
) -> Vec<u8> {
    let mut to = Writer(Vec::with_capacity(1024));
    to.u64(ROOT);
    to.bytes(workdir.as_os_str().as_bytes());
    encode_image(&mut to, image, mounts);
    encode_contents(&mut to, trusted);
    to.0
}

/// Encodes the start of an interpreter that is called by `options`, without a script.
pub(crate) fn encode_interpreter(
    number: u64,
    image: &[PathBuf],
    options: &[String],
    env: &BTreeMap<String, String>,
    warm: &Warm,
    mounts: bool,
) -> Vec<u8> {
    let mut to = Writer(Vec::with_capacity(1024));
    to.u64(INTERPRETER);
    to.u64(number);
    encode_image(&mut to, image, mounts);
    let program = [super::warm::PATH.to_owned()];
    encode_strings(&mut to, options.iter().chain(&program).chain(&warm.modules));
    encode_env(&mut to, env);
    encode_contents(&mut to, &warm.programs);
    to.0
}

fn encode_image(to: &mut Writer, image: &[PathBuf], mounts: bool) {
    to.u64(image.len() as u64);
    image.iter().for_each(|path| encode_source(to, path, mounts));
}

fn encode_source(to: &mut Writer, path: &Path, mounts: bool) {
    if mounts {
        to.u64(MOUNT);
    } else {
        to.u64(PATH);
        to.bytes(path.as_os_str().as_bytes());
    }
}

pub(crate) fn encode_strings<'s>(
    to: &mut Writer,
    strings: impl IntoIterator<Item = &'s String, IntoIter: Clone>,
) {
    let strings = strings.into_iter();
    to.u64(strings.clone().count() as u64);
    strings.for_each(|string| to.bytes(string.as_bytes()));
}

pub(crate) fn encode_env(to: &mut Writer, env: &BTreeMap<String, String>) {
    to.u64(env.len() as u64);
    env.iter().for_each(|(name, value)| to.bytes(format!("{name}={value}").as_bytes()));
}

fn encode_contents(to: &mut Writer, files: &BTreeMap<PathBuf, std::sync::Arc<[u8]>>) {
    to.u64(files.len() as u64);
    for (path, content) in files {
        to.bytes(path.as_os_str().as_bytes());
        to.bytes(content);
    }
}

fn encode_files(to: &mut Writer, files: &BTreeMap<PathBuf, FileEntry>) {
    to.u64(files.len() as u64);
    for (path, entry) in files {
        to.bytes(path.as_os_str().as_bytes());
        match entry {
            FileEntry::File { content, executable } => {
                to.u64(u64::from(*executable));
                to.bytes(content);
            }
            FileEntry::Symlink(target) => {
                to.u64(2);
                to.bytes(target.as_os_str().as_bytes());
            }
            FileEntry::Absent => to.u64(3),
        }
    }
}

fn encode_limits(to: &mut Writer, limits: &Limits) {
    to.u64(u64::try_from(limits.wall.as_nanos()).unwrap_or(u64::MAX));
    to.u64(u64::try_from(limits.cpu.as_nanos()).unwrap_or(u64::MAX));
    to.u64(limits.memory_bytes);
    to.u64(limits.pids.into());
    to.u64(limits.disk_bytes);
    to.u64(limits.inodes);
}

/// Decodes a request; `None` when the bytes are none.
pub(crate) fn decode(bytes: &[u8]) -> Option<Request<'_>> {
    let mut from = Reader(bytes);
    let from = &mut from;
    Some(match from.u64()? {
        ROOT => Request::Root(NewRoot {
            workdir: from.bytes()?,
            image: from.list(source)?,
            trusted: contents(from)?,
        }),
        JOB => Request::Job(Box::new(job(from)?)),
        SESSION => Request::Session(Box::new(NewSession {
            lease_ns: from.u64()?,
            thawed: from.u64()? != 0,
            job: job(from)?,
        })),
        INTERPRETER => Request::Interpreter(NewInterpreter {
            number: from.u64()?,
            image: from.list(source)?,
            argv: from.list(Reader::bytes)?,
            env: from.list(Reader::bytes)?,
            programs: contents(from)?,
        }),
        _ => return None,
    })
}

fn source<'a>(from: &mut Reader<'a>) -> Option<Source<'a>> {
    Some(match from.u64()? {
        MOUNT => Source::Mount,
        PATH => Source::Path(from.bytes()?),
        _ => return None,
    })
}

fn contents<'a>(from: &mut Reader<'a>) -> Option<Vec<(&'a [u8], &'a [u8])>> {
    from.list(|from| Some((from.bytes()?, from.bytes()?)))
}

fn job<'a>(from: &mut Reader<'a>) -> Option<Job<'a>> {
    Some(Job {
        workdir: from.bytes()?,
        layers: from.list(|from| {
            Some(match from.u64()? {
                MOUNT => JobLayer::Dir(Source::Mount),
                PATH => JobLayer::Dir(Source::Path(from.bytes()?)),
                FILES => JobLayer::Files(from.list(|from| Some((from.bytes()?, entry(from)?)))?),
                _ => return None,
            })
        })?,
        limits: JobLimits {
            wall_ns: from.u64()?,
            cpu_ns: from.u64()?,
            memory_bytes: from.u64()?,
            pids: from.u64()?,
            disk_bytes: from.u64()?,
            inodes: from.u64()?,
        },
        argv: from.list(Reader::bytes)?,
        env: from.list(Reader::bytes)?,
        cwd: from.bytes()?,
        channels: from.list(|from| i32::try_from(from.u64()?).ok())?,
        cpu: from.u64()?.checked_sub(1).map(u32::try_from).transpose().ok()?,
        lent: match from.u64()? {
            0 => None,
            _ => Some(Lent { number: from.u64()?, script: usize::try_from(from.u64()?).ok()? }),
        },
    })
}

fn entry<'a>(from: &mut Reader<'a>) -> Option<JobEntry<'a>> {
    Some(match from.u64()? {
        flag @ (0 | 1) => JobEntry::File { content: from.bytes()?, executable: flag == 1 },
        2 => JobEntry::Symlink(from.bytes()?),
        3 => JobEntry::Absent,
        _ => return None,
    })
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// A step of making the sandbox failed, with this errno.
    Failed { step: String, errno: i32 },
    /// The command ran, and everything in the sandbox is dead.
    Done(Done),
    /// The slot has the root that it was asked for.
    Rooted,
    /// There is an interpreter, which holds modules of these names (as
    /// [`Held::read`](crate::modules::Held) takes them), or there is a reason why not.
    Interpreter(Result<Vec<u8>, String>),
    /// What became of an ask of this number; a session says more than this one.
    Reply(u64, Reply),
}

/// The facts of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// The limit that it was killed for.
    pub(crate) limit: Option<LimitKind>,
    /// The raw wait status of the command.
    pub(crate) wait_status: i32,
    pub(crate) wall_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) peak_memory_bytes: u64,
    pub(crate) setup_ns: u64,
    pub(crate) pids_refused: u64,
    pub(crate) stalled_ns: u64,
    pub(crate) start: Start,
    /// Whether the interpreter that it should have come from is gone.
    pub(crate) lost: bool,
}

pub(crate) fn text(from: &mut Reader<'_>) -> Option<String> {
    Some(String::from_utf8_lossy(from.bytes()?).into_owned())
}

pub(crate) const LIMITS: [LimitKind; 4] =
    [LimitKind::Wall, LimitKind::WallStarved, LimitKind::Cpu, LimitKind::Memory];

impl Report {
    /// Encodes the report.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        match self {
            Self::Failed { step, errno } => {
                to.u64(0);
                to.bytes(step.as_bytes());
                to.u64(*errno as u64);
            }
            Self::Done(done) => {
                to.u64(1);
                let limit = done.limit.and_then(|kind| LIMITS.iter().position(|k| *k == kind));
                to.u64(limit.map_or(0, |position| position as u64 + 1));
                to.u64(u64::from(done.wait_status as u32));
                to.u64(done.wall_ns);
                to.u64(done.cpu_ns);
                to.u64(done.peak_memory_bytes);
                to.u64(done.setup_ns);
                to.u64(done.pids_refused);
                to.u64(done.stalled_ns);
                match &done.start {
                    Start::Cold => to.u64(0),
                    Start::Warm => to.u64(1),
                    Start::ColdInstead(why) => {
                        to.u64(2);
                        to.bytes(why.as_bytes());
                    }
                }
                to.u64(u64::from(done.lost));
            }
            Self::Interpreter(Ok(held)) => {
                to.u64(2);
                to.bytes(held);
            }
            Self::Interpreter(Err(why)) => {
                to.u64(3);
                to.bytes(why.as_bytes());
            }
            Self::Rooted => to.u64(5),
            Self::Reply(number, reply) => {
                to.u64(4);
                to.u64(*number);
                reply.encode(&mut to);
            }
        }
        to.0
    }

    /// Decodes a report; `None` when the bytes are none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        Some(match from.u64()? {
            0 => Self::Failed { step: text(&mut from)?, errno: from.u64()? as i32 },
            1 => Self::Done(Done {
                limit: match from.u64()? {
                    0 => None,
                    n => Some(*LIMITS.get(n as usize - 1)?),
                },
                wait_status: from.u64()? as i32,
                wall_ns: from.u64()?,
                cpu_ns: from.u64()?,
                peak_memory_bytes: from.u64()?,
                setup_ns: from.u64()?,
                pids_refused: from.u64()?,
                stalled_ns: from.u64()?,
                start: match from.u64()? {
                    0 => Start::Cold,
                    1 => Start::Warm,
                    _ => Start::ColdInstead(text(&mut from)?),
                },
                lost: from.u64()? != 0,
            }),
            2 => Self::Interpreter(Ok(from.bytes()?.to_vec())),
            3 => Self::Interpreter(Err(text(&mut from)?)),
            4 => Self::Reply(from.u64()?, Reply::decode(&mut from)?),
            5 => Self::Rooted,
            _ => return None,
        })
    }
}
