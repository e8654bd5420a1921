//! One run: a thread that has a program's store, from its tree to what it left behind.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime::{InstancePre, Store, Trap};

use super::{
    Inner, NAME,
    engine::{STACK, is_host_error},
    interpreter::{Interpreter, environment},
    tree,
    wasi::{Errno, FUEL, Host, Object, Stop, Watch, preopened},
};
use crate::{
    BackendError, BackendResult, ChannelEnd, Command, Execution, Isolation, LimitKind, Sandbox,
    SandboxId, SandboxSpec, Start, Termination, Usage,
    collect::Collector,
    modules::{Held, Provided, Scan},
    proc,
};

/// What the thread of a run has beyond what its program may use.
const HOST_STACK: usize = 2 << 20;

pub(super) struct WasmSandbox {
    pub(super) id: SandboxId,
    pub(super) inner: Arc<Inner>,
    pub(super) spec: SandboxSpec,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Ends the program when nobody waits for it any more.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl Sandbox for WasmSandbox {
    fn id(&self) -> SandboxId {
        self.id
    }

    async fn run(self: Box<Self>, command: Command) -> BackendResult<Execution> {
        crate::spec::check_command(&command)?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let cancel = Cancel(Arc::clone(&cancelled));
        let stop = command.stop.clone();
        let (send, mut ended) = oneshot::channel();
        let run = move || {
            let Self { inner, spec, permit, .. } = *self;
            let execution = Run { inner: &inner, spec: &spec, cancelled }.run(command);
            // Whoever hears of the end finds the place free.
            drop(permit);
            let _ = send.send(execution);
        };
        thread::Builder::new()
            .name("wasm-run".into())
            .stack_size(STACK + HOST_STACK)
            .spawn(run)
            .map_err(|source| BackendError::Io { what: "start a thread".into(), source })?;
        let execution = tokio::select! {
            execution = &mut ended => execution,
            () = stop.cancelled() => {
                drop(cancel);
                ended.await
            }
        };
        let gone = || BackendError::Gone { backend: NAME, what: "its thread broke off".into() };
        execution.unwrap_or_else(|_| Err(gone()))
    }
}

/// What a command is run with.
struct Run<'r> {
    inner: &'r Inner,
    spec: &'r SandboxSpec,
    cancelled: Arc<AtomicBool>,
}

/// What a command's first argument names.
enum Program {
    Interpreter(Arc<Interpreter>),
    Module(InstancePre<Host>),
    /// Nothing that runs; the status and the words of a shell.
    None(i32, String),
}

impl Run<'_> {
    fn run(&self, mut command: Command) -> BackendResult<Execution> {
        let began = Instant::now();
        let _ticking = self.inner.compiler.tick();
        let mut host = Host::new(
            tree::build(self.spec, self.inner.compiler.share())?,
            self.spec.limits.memory_bytes,
            self.inner.compiler.share(),
            outputs(&command, self.spec.limits.output_bytes),
        );
        host.stdio(Arc::clone(&command.stdin));
        let program = self.program(&command, &mut host)?;
        let mut start = Start::Cold;
        connect(&mut host, &mut command)?;
        let waiting = match &program {
            Program::Interpreter(interpreter) => {
                let provided = self.provided()?;
                match interpreter.waiting(&command, |held| clash(&provided, held)) {
                    Ok(waiting) => {
                        start = Start::Warm;
                        Some(waiting)
                    }
                    Err(why) if command.warm.is_some() => {
                        start = Start::ColdInstead(why);
                        None
                    }
                    Err(_) => None,
                }
            }
            Program::Module(_) | Program::None(..) => None,
        };
        let compiler = &self.inner.compiler;
        let ended = match (program, waiting) {
            (Program::None(status, words), _) => {
                host.say(&words);
                let store = compiler.store(host).map_err(failed)?;
                Ended::new(Ok(()), store, began).exited(status)
            }
            (_, Some(mut waiting)) => {
                // What there is of a memory was made before this run.
                host.memory = Some(waiting.memory);
                std::mem::swap(&mut host.share, &mut waiting.store.data_mut().share);
                host.peak_memory_bytes = waiting.memory.data_size(&waiting.store) as u64;
                let fits = host.peak_memory_bytes <= self.spec.limits.memory_bytes;
                *waiting.store.data_mut() = host;
                self.started(&mut waiting.store);
                let setup = Instant::now();
                let ended = match fits {
                    true => waiting.run(&command, &self.cwd(&command)),
                    false => Err(Stop::Limit(LimitKind::Memory).into()),
                };
                Ended::new(ended, waiting.store, setup)
            }
            (Program::Interpreter(interpreter), None) => {
                self.cold(interpreter.pre(), host, &command, true)?
            }
            (Program::Module(module), None) => self.cold(&module, host, &command, false)?,
        };
        let mut ended = ended;
        let host = ended.store.data_mut();
        if let Some(error) = host.failed.take().or_else(|| host.fs.host_failed.take()) {
            return Err(error);
        }
        Ok(ended.execution(began, &self.spec.limits, start))
    }

    /// Runs a module from its `_start`; `ours` is whether it is the image's and not a submission's.
    fn cold(
        &self,
        pre: &InstancePre<Host>,
        mut host: Host,
        command: &Command,
        ours: bool,
    ) -> BackendResult<Ended> {
        host.arguments = command.argv.iter().map(|part| part.clone().into_bytes()).collect();
        host.environment = environment(&command.env);
        self.open_folders(&mut host, command);
        let mut store = self.inner.compiler.store(host).map_err(failed)?;
        self.started(&mut store);
        let setup = Instant::now();
        // A module's own start function is the program's, too.
        let instance = match pre.instantiate(&mut store) {
            Ok(instance) => instance,
            Err(error) if is_host_error(&error) => return Err(failed(error)),
            // Nothing is wrong with our own: memory that can't be had is the host's.
            Err(error) if ours && !error.is::<Stop>() && !error.is::<wasmtime::Trap>() => {
                return Err(failed(error));
            }
            Err(error) => return Ok(Ended::new(Err(error), store, setup)),
        };
        if let Some(memory) = instance.get_memory(&mut store, "memory") {
            store.data_mut().memory = Some(memory);
        }
        let ended = match instance.get_typed_func::<(), ()>(&mut store, "_start") {
            Ok(start) => start.call(&mut store, ()),
            Err(error) => Err(error),
        };
        Ok(Ended::new(ended, store, setup))
    }

    /// Starts to count what the program uses.
    fn started(&self, store: &mut Store<Host>) {
        let watch = Watch::start(&self.spec.limits, Arc::clone(&self.cancelled));
        store.data_mut().watch = Some(watch);
        store.set_epoch_deadline(1);
    }

    fn program(&self, command: &Command, host: &mut Host) -> BackendResult<Program> {
        let name = command.argv.first().map_or("", String::as_str);
        if let "python3" | "python" = name.rsplit('/').next().unwrap_or_default() {
            let interpreter = self.inner.interpreter(&self.spec.image)?;
            return Ok(Program::Interpreter(interpreter));
        }
        if !name.ends_with(".wasm") {
            return Ok(Program::None(127, format!("{name}: not in this image\n")));
        }
        let max = self.inner.config.max_module_bytes;
        let wasm = match host.fs.load(name.as_bytes(), max) {
            Ok(wasm) => wasm,
            Err(Errno::Fbig) => {
                return Ok(Program::None(126, format!("{name}: larger than {max} bytes\n")));
            }
            Err(_) => return Ok(Program::None(127, format!("{name}: no such file\n"))),
        };
        Ok(match self.inner.module(&wasm, &self.cancelled)? {
            Ok(module) => Program::Module(module),
            Err(why) => Program::None(126, format!("{name}: {why}\n")),
        })
    }

    /// Returns the modules that the work tree has.
    fn provided(&self) -> BackendResult<Provided> {
        let scans: io::Result<Vec<Scan>> = self.spec.layers.iter().map(Scan::of).collect();
        let scans = scans.map_err(|source| BackendError::Io {
            what: "look through a layer for modules".into(),
            source,
        })?;
        Ok(Provided::by(scans.iter()))
    }

    fn cwd(&self, command: &Command) -> String {
        let workdir = &self.spec.workdir;
        let cwd = match command.cwd.as_os_str().is_empty() {
            true => workdir.clone(),
            false => workdir.join(&command.cwd),
        };
        cwd.to_string_lossy().into_owned()
    }

    /// Opens what a program finds: the work tree, `/tmp` and the folders of trusted files by their
    /// paths, and the working directory for every path that is not absolute.
    fn open_folders(&self, host: &mut Host, command: &Command) {
        let cwd = self.cwd(command);
        let mut folders: Vec<&[u8]> = vec![b"/tmp", self.spec.workdir.as_os_str().as_bytes()];
        folders.extend(self.spec.trusted.keys().filter_map(|path| top(path)));
        folders.dedup();
        let opened = folders.into_iter().map(|path| (path, path));
        for (path, name) in opened.chain([(cwd.as_bytes(), &b"."[..])]) {
            if let Ok(folder) = preopened(&mut host.fs, path, name) {
                host.descriptors.place_free(folder);
            }
        }
    }
}

/// Returns a module of the work tree that one of the interpreter's would stand in for.
fn clash(provided: &Provided, held: &Held) -> Option<String> {
    provided.clash(held).map(|name| name.to_string_lossy().into_owned())
}

/// Returns the first folder of an absolute path.
fn top(path: &Path) -> Option<&[u8]> {
    let path = path.as_os_str().as_bytes();
    let end = path.iter().skip(1).position(|byte| *byte == b'/')? + 1;
    Some(&path[..end])
}

fn outputs(command: &Command, output_bytes: usize) -> Vec<Collector> {
    let stdio = (0..2).map(|_| Collector::head_and_tail(output_bytes));
    let channels = command.channels.iter().filter_map(|channel| match channel.end {
        ChannelEnd::Collect { max_bytes } => Some(Collector::head_only(max_bytes)),
        ChannelEnd::Fd(_) => None,
    });
    stdio.chain(channels).collect()
}

/// Gives a program its channels, at their numbers.
fn connect(host: &mut Host, command: &mut Command) -> BackendResult<()> {
    let mut collected = 2;
    for channel in std::mem::take(&mut command.channels) {
        // Between 3 and 63, as the command's check saw.
        let number = channel.fd.unsigned_abs();
        let object = match channel.end {
            ChannelEnd::Collect { .. } => {
                collected += 1;
                Object::Output(collected - 1)
            }
            ChannelEnd::Fd(fd) => {
                rustix::io::ioctl_fionbio(&fd, true).map_err(|errno| BackendError::Io {
                    what: "prepare a channel".into(),
                    source: errno.into(),
                })?;
                Object::Stream(fd)
            }
        };
        host.descriptors.place(number, object);
    }
    Ok(())
}

/// A program that ended, with what it left.
struct Ended {
    termination: Termination,
    wall: Duration,
    cpu: Duration,
    stalled: Duration,
    setup_until: Instant,
    store: Store<Host>,
}

impl Ended {
    fn new(ended: wasmtime::Result<()>, mut store: Store<Host>, started: Instant) -> Self {
        let host = store.data_mut();
        let (wall, cpu) =
            host.watch.as_ref().map_or_else(Default::default, |watch| (watch.wall(), watch.cpu()));
        // This thread did nothing else.
        let stalled = stalled();
        let mut termination = match ended {
            Ok(()) => Termination::Exited(0),
            Err(error) => termination(&error, host),
        };
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if termination == Termination::Limit(LimitKind::Wall)
            && proc::starved(ns(wall), ns(cpu), ns(stalled))
        {
            termination = Termination::Limit(LimitKind::WallStarved);
        }
        Self { termination, wall, cpu, stalled, setup_until: started, store }
    }

    fn exited(self, status: i32) -> Self {
        Self { termination: Termination::Exited(status), ..self }
    }

    fn execution(self, began: Instant, limits: &crate::Limits, start: Start) -> Execution {
        let fuel = self.store.get_fuel().unwrap_or(FUEL);
        let host = self.store.into_data();
        let mut captures = host.outputs.into_iter().map(Collector::finish);
        Execution {
            termination: self.termination,
            stdout: captures.next().unwrap_or_default(),
            stderr: captures.next().unwrap_or_default(),
            channels: captures.collect(),
            usage: Usage {
                wall: self.wall,
                // Looked at a few milliseconds apart, so it may be over by those.
                cpu: self.cpu.min(limits.cpu),
                peak_memory_bytes: host.peak_memory_bytes,
                setup: self.setup_until.saturating_duration_since(began),
                stalled: self.stalled,
                instructions: Some(FUEL.saturating_sub(fuel)),
                ..Usage::default()
            },
            isolation: Isolation { backend: NAME.into(), fallbacks: Vec::new(), start },
        }
    }
}

/// What a shell would say of a program that ended like this.
fn termination(error: &wasmtime::Error, host: &mut Host) -> Termination {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::Exit(status) => Termination::Exited(*status),
            Stop::Limit(kind) => Termination::Limit(*kind),
            // A program that is no interpreter can't ask for one.
            Stop::Cancelled | Stop::Snapshot | Stop::Void => Termination::Signaled(libc::SIGKILL),
        };
    }
    host.say(&format!("wasm: {}\n", error.root_cause()));
    match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => Termination::Signaled(libc::SIGABRT),
        Some(
            Trap::IntegerDivisionByZero | Trap::IntegerOverflow | Trap::BadConversionToInteger,
        ) => Termination::Signaled(libc::SIGFPE),
        Some(Trap::OutOfFuel) => Termination::Limit(LimitKind::Cpu),
        Some(_) => Termination::Signaled(libc::SIGSEGV),
        // It can't be linked, or has no `_start`: what a shell calls not executable.
        None => Termination::Exited(126),
    }
}

/// How long this thread stood ready without a CPU.
fn stalled() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = text.split_whitespace().nth(1).and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.unwrap_or(0))
}

pub(super) fn failed(error: wasmtime::Error) -> BackendError {
    BackendError::Io {
        what: "make a place for a program".into(),
        source: io::Error::other(format!("{error:#}")),
    }
}
