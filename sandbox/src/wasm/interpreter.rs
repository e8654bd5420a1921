//! Python that is already up: snapshots of an interpreter's memory, and copies of them that wait.
//!
//! CPython takes tens of milliseconds to start. So it starts once for each set of options,
//! environment and preloaded modules, and stops at a place where all that it is lies in its linear
//! memory, its stack pointer, and nowhere else (`resume.py`). A copy is a fresh instance with the
//! pages that differ and that stack pointer; a call of a Python function by its place in the table
//! goes on from there. The interpreter has seen no code and no work tree but our own programs.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::AtomicBool, mpsc},
    thread,
    time::Duration,
};

use tracing::{debug, warn};
use wasmtime::{Global, Instance, InstancePre, Memory, Ref, Store, TypedFunc, Val};

use super::{
    engine::Compiler,
    fs::{Content, Fs},
    wasi::{Host, Object, Stop, Watch, preopened},
};
use crate::{Command, Limits, Warm, collect::Collector, modules::Held};

const RESUME: &str = include_str!("resume.py");
/// Where an interpreter reads its command: above all channels.
const COMMAND_FD: u32 = 64;
/// Where the root folder is open in an interpreter. Numbers from the next one on are those of files
/// that the module itself holds.
const ROOT_FD: u32 = 65;
/// Snapshots of one image at a time; the one that was asked for least lately makes room.
pub(super) const MAX_SNAPSHOTS: usize = 8;
/// What an interpreter may use before there is a command for it.
const LIMITS: Limits = Limits {
    wall: Duration::from_secs(30),
    cpu: Duration::from_secs(30),
    memory_bytes: 1 << 30,
    pids: 1,
    disk_bytes: 0,
    inodes: 0,
    output_bytes: 1 << 20,
};
/// Pages are compared and copied in these.
const PAGE: usize = 4096;
/// Where CPython 3.12 keeps the table index of a function object's `vectorcall`, on 32 bits.
const VECTORCALL_OFFSET: usize = 64;

/// What makes one snapshot another than the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    options: Vec<String>,
    env: BTreeMap<String, String>,
    modules: Vec<String>,
    programs: BTreeMap<PathBuf, Arc<[u8]>>,
}

/// A module that is a Python interpreter, and its snapshots.
pub(super) struct Interpreter {
    pre: InstancePre<Host>,
    compiler: Arc<Compiler>,
    /// The one used last comes last.
    snapshots: Mutex<Vec<(Key, Arc<Taking>)>>,
    refill: mpsc::Sender<Weak<Snapshot>>,
    /// How many copies of a snapshot wait for a command.
    ahead: usize,
}

/// A snapshot, once it is there. Those who come while it is taken wait for it; where it failed, the
/// next one tries again.
type Taking = Mutex<Option<Arc<Snapshot>>>;

struct Snapshot {
    compiler: Arc<Compiler>,
    pre: InstancePre<Host>,
    /// What differs from a fresh instance, in order.
    pieces: Vec<(usize, Box<[u8]>)>,
    memory_bytes: usize,
    stack_pointer: i32,
    /// The address of the function that goes on, and the table index of what calls it.
    resume: (i32, u64),
    held: Held,
    waiting: Mutex<Vec<Waiting>>,
}

/// An interpreter that waits for its command.
pub(super) struct Waiting {
    pub(super) store: Store<Host>,
    pub(super) memory: Memory,
    call: TypedFunc<(i32, i32, i32, i32), i32>,
    resume: i32,
}

impl Interpreter {
    /// Makes an interpreter out of a module, with a thread that makes its copies.
    pub(super) fn new(compiler: Arc<Compiler>, pre: InstancePre<Host>, ahead: usize) -> Self {
        let (refill, wanted) = mpsc::channel::<Weak<Snapshot>>();
        let run = move || {
            for snapshot in wanted {
                // Those that nobody asks for any more have their copies go, too.
                while let Some(snapshot) = snapshot.upgrade() {
                    if snapshot.lock().len() >= ahead {
                        break;
                    }
                    match snapshot.copy() {
                        Ok(copy) => snapshot.lock().push(copy),
                        Err(error) => {
                            warn!(%error, "cannot prepare an interpreter");
                            break;
                        }
                    }
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("wasm-refill".into()).spawn(run) {
            warn!(%error, "no interpreters are prepared");
        }
        Self { pre, compiler, snapshots: Mutex::default(), refill, ahead }
    }

    /// Returns the module itself, to be run from its start.
    pub(super) fn pre(&self) -> &InstancePre<Host> {
        &self.pre
    }

    /// Returns an interpreter that is up, for `command`.
    ///
    /// `clashes` says which module of the work tree those that it holds would hide.
    ///
    /// # Errors
    ///
    /// Why the command has to start one from the beginning.
    pub(super) fn waiting(
        &self,
        command: &Command,
        clashes: impl FnOnce(&Held) -> Option<String>,
    ) -> Result<Waiting, String> {
        let options = options(&command.argv).ok_or("its arguments are not of the plain kind")?;
        let Warm { modules, programs } = command.warm.clone().unwrap_or_default();
        let key = Key {
            options: options.to_vec(),
            env: command.env.clone(),
            modules,
            programs: BTreeMap::clone(&programs),
        };
        let snapshot = self.snapshot(key)?;
        if let Some(module) = clashes(&snapshot.held) {
            return Err(format!("the work tree has a module `{module}`"));
        }
        let waiting = snapshot.lock().pop();
        if self.ahead > 0 {
            let _ = self.refill.send(Arc::downgrade(&snapshot));
        }
        match waiting {
            Some(waiting) => Ok(waiting),
            None => snapshot.copy().map_err(|error| format!("{error:#}")),
        }
    }

    fn snapshot(&self, key: Key) -> Result<Arc<Snapshot>, String> {
        let taking = {
            let mut all = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            let found = all.iter().position(|(other, _)| *other == key);
            let entry = match found {
                Some(at) => all.remove(at),
                None => (key.clone(), Arc::default()),
            };
            if all.len() >= MAX_SNAPSHOTS {
                all.remove(0);
            }
            all.push(entry.clone());
            entry.1
        };
        let mut taking = taking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = &*taking {
            return Ok(Arc::clone(taken));
        }
        Ok(Arc::clone(taking.insert(Arc::new(self.take(&key)?))))
    }

    /// Starts an interpreter and has it stop where it can be copied.
    fn take(&self, key: &Key) -> Result<Snapshot, String> {
        let mut fs = Fs::new(LIMITS.disk_bytes, LIMITS.inodes, self.compiler.share());
        for (path, content) in &key.programs {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let folder = fs.place_dir(folder.as_os_str().as_encoded_bytes(), false);
            let content = Content::Shared(Arc::clone(content));
            fs.place_file(folder, name.as_encoded_bytes(), content, false);
        }
        let outputs = (0..2).map(|_| Collector::head_and_tail(LIMITS.output_bytes)).collect();
        let mut host = Host::new(fs, LIMITS.memory_bytes, self.compiler.share(), outputs);
        host.stdio(Arc::default());
        open_root(&mut host);
        host.arguments = key.options.iter().map(|option| option.clone().into_bytes()).collect();
        host.arguments.extend([b"-c".to_vec(), RESUME.as_bytes().to_vec()]);
        host.arguments.extend(key.modules.iter().map(|module| module.clone().into_bytes()));
        host.environment = environment(&key.env);
        host.to_snapshot = true;
        let text = |error: wasmtime::Error| format!("{error:#}");

        let mut store = self.compiler.store(host).map_err(text)?;
        let instance = self.pre.instantiate(&mut store).map_err(text)?;
        let Exports { memory, stack_pointer, .. } = Exports::of(&instance, &mut store)?;
        let fresh = memory.data(&store).to_vec();
        store.data_mut().memory = Some(memory);
        store.data_mut().watch = Some(Watch::start(&LIMITS, Arc::new(AtomicBool::new(false))));
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start").map_err(text)?;
        let ticking = self.compiler.tick();
        let ended = start.call(&mut store, ());
        drop(ticking);
        let stopped = ended.as_ref().err().and_then(|error| error.downcast_ref::<Stop>()).copied();
        let outputs = std::mem::take(&mut store.data_mut().outputs);
        let mut outputs = outputs.into_iter().map(|output| output.finish().lossy());
        let (told, errors) = (outputs.next().unwrap_or_default(), outputs.next());
        if stopped != Some(Stop::Snapshot) {
            let why = errors.unwrap_or_default();
            let why = why.lines().last().unwrap_or("no reason given");
            return Err(format!("the interpreter did not come up ({stopped:?}): {why}"));
        }
        let (address, held) = told.split_once('\n').unwrap_or_default();
        let address: u32 = address.parse().map_err(|_| "the interpreter told no address")?;

        let bytes = memory.data(&store);
        let vectorcall = (address as usize).checked_add(VECTORCALL_OFFSET);
        let vectorcall = vectorcall.and_then(|at| bytes.get(at..at + 4)?.try_into().ok());
        let vectorcall = u32::from_le_bytes(vectorcall.ok_or("the function is not in memory")?);
        let pieces = differing(&fresh, bytes);
        let memory_bytes = bytes.len();
        let stack_pointer = stack_pointer.get(&mut store).i32().ok_or("no stack pointer")?;
        let snapshot = Snapshot {
            compiler: Arc::clone(&self.compiler),
            pre: self.pre.clone(),
            pieces,
            memory_bytes,
            stack_pointer,
            resume: (address as i32, vectorcall.into()),
            held: Held::read(held.as_bytes()),
            waiting: Mutex::default(),
        };
        debug!(
            copied = snapshot.pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>(),
            memory_bytes,
            modules = ?key.modules,
            "took a snapshot of an interpreter"
        );
        Ok(snapshot)
    }
}

impl Snapshot {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an instance that is where the snapshot was taken.
    fn copy(&self) -> wasmtime::Result<Waiting> {
        let share = || self.compiler.share();
        let host = Host::new(Fs::new(0, 0, share()), LIMITS.memory_bytes, share(), Vec::new());
        let mut store = self.compiler.store(host)?;
        let instance = self.pre.instantiate(&mut store)?;
        let exports = Exports::of(&instance, &mut store).map_err(wasmtime::Error::msg)?;
        let Exports { memory, stack_pointer, table } = exports;
        let more = self.memory_bytes.saturating_sub(memory.data_size(&store));
        memory.grow(&mut store, (more / (1 << 16)) as u64)?;
        let bytes = memory.data_mut(&mut store);
        for (at, piece) in &self.pieces {
            bytes[*at..*at + piece.len()].copy_from_slice(piece);
        }
        stack_pointer.set(&mut store, Val::I32(self.stack_pointer))?;
        let Some(Ref::Func(Some(call))) = table.get(&mut store, self.resume.1) else {
            return Err(wasmtime::Error::msg("the table holds no function to go on with"));
        };
        let call = call.typed(&store)?;
        store.data_mut().memory = Some(memory);
        Ok(Waiting { store, memory, call, resume: self.resume.0 })
    }
}

impl Waiting {
    /// Goes on with `command`, which starts in the folder `cwd`. Returns as the program's start would.
    pub(super) fn run(&mut self, command: &Command, cwd: &str) -> wasmtime::Result<()> {
        let host = self.store.data_mut();
        open_root(host);
        let fields: Vec<&str> =
            std::iter::once(cwd).chain(command.argv.iter().map(String::as_str)).collect();
        let bytes = fields.join("\0").into_bytes().into();
        host.descriptors.place(COMMAND_FD, Object::Input { bytes, at: 0 });
        self.store.set_epoch_deadline(1);
        // No arguments, neither by position nor by name.
        self.call.call(&mut self.store, (self.resume, 0, 0, 0))?;
        // It ends by `proc_exit`; who comes here took that way from it.
        Err(Stop::Exit(1).into())
    }
}

fn open_root(host: &mut Host) {
    if let Ok(root) = preopened(&mut host.fs, b"/", b"/") {
        host.descriptors.place(ROOT_FD, root);
    }
}

/// What `scripts/wasm-interpreter.py` has an interpreter export.
struct Exports {
    memory: Memory,
    stack_pointer: Global,
    table: wasmtime::Table,
}

impl Exports {
    fn of(instance: &Instance, store: &mut Store<Host>) -> Result<Self, String> {
        let missing = |what| format!("the interpreter does not export {what}");
        Ok(Self {
            memory: instance.get_memory(&mut *store, "memory").ok_or(missing("its memory"))?,
            stack_pointer: instance
                .get_global(&mut *store, "__stack_pointer")
                .ok_or(missing("its stack pointer"))?,
            table: instance
                .get_table(&mut *store, "__indirect_function_table")
                .ok_or(missing("its table"))?,
        })
    }
}

/// Returns the interpreter and its options, where these and what follows are of a kind that
/// `resume.py` knows: options that mean the same to every program, then a script or `-c`.
fn options(argv: &[String]) -> Option<&[String]> {
    let known = |option: &&String| ["-P", "-s", "-S", "-B", "-E", "-I"].contains(&option.as_str());
    let count = 1 + argv.iter().skip(1).take_while(known).count();
    match argv.get(count).map(String::as_str) {
        Some("-c") => argv.get(count + 1).map(|_| &argv[..count]),
        Some(script) if script.starts_with('-') => None,
        Some(_) => Some(&argv[..count]),
        None => None,
    }
}

pub(super) fn environment(env: &BTreeMap<String, String>) -> Vec<Vec<u8>> {
    env.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect()
}

/// Returns the runs of pages of `now` that are not as in `fresh`, nor zero beyond its end.
fn differing(fresh: &[u8], now: &[u8]) -> Vec<(usize, Box<[u8]>)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (number, page) in now.chunks(PAGE).enumerate() {
        let at = number * PAGE;
        let same = match fresh.get(at..at + page.len()) {
            Some(before) => before == page,
            None => page.iter().all(|byte| *byte == 0),
        };
        match runs.last_mut() {
            _ if same => {}
            Some((_, end)) if *end == at => *end = at + page.len(),
            _ => runs.push((at, at + page.len())),
        }
    }
    runs.into_iter().map(|(start, end)| (start, now[start..end].into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_options_from_scripts() {
        let cases: [(&[&str], Option<usize>); 7] = [
            (&["python3", "main.py"], Some(1)),
            (&["python3", "-I", "-c", "pass"], Some(2)),
            (&["python3", "-P", "-s", "-S", "-B", "/x.py", "-c"], Some(5)),
            (&["python3", "-c"], None),
            (&["python3", "-m", "this"], None),
            (&["python3", "-X", "dev", "x.py"], None),
            (&["python3"], None),
        ];
        for (argv, expected) in cases {
            let argv: Vec<String> = argv.iter().map(|part| (*part).to_owned()).collect();
            assert_eq!(options(&argv).map(<[String]>::len), expected, "{argv:?}");
        }
    }

    #[test]
    fn finds_what_differs() {
        let fresh = vec![1; 3 * PAGE];
        let mut now = vec![0; 5 * PAGE];
        now[..3 * PAGE].fill(1);
        now[PAGE] = 2;
        now[4 * PAGE] = 3;
        let found = differing(&fresh, &now);
        let places: Vec<_> = found.iter().map(|(at, piece)| (*at, piece.len())).collect();
        assert_eq!(places, [(PAGE, PAGE), (4 * PAGE, PAGE)]);
    }
}
