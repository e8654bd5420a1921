//! The compiler and the pool of memories, shared by all sandboxes of a service.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher as _},
    io::{self, Write as _},
    num::NonZero,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tracing::{info, warn};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module,
    PoolingAllocationConfig, Store, UpdateDeadline,
};

use super::{
    memory::{Budget, Share},
    wasi::{self, FUEL, Host},
};

/// Most entries of a table; CPython has 24 thousand.
pub(super) const TABLE: usize = 100_000;
/// What a program may use of its thread's stack.
pub(super) const STACK: usize = 2 << 20;
/// How often running programs look at their limits.
const TICK: Duration = Duration::from_millis(5);
/// Most programs that are compiled at the same time: each may take a gigabyte.
const MAX_PLACES: usize = 4;

/// An engine with its imports. Everything that runs counts its instructions.
pub(super) struct Compiler {
    engine: Engine,
    linker: Linker<Host>,
    /// Where compiled modules lie; `None` when the folder is not ours alone.
    cache: Option<PathBuf>,
    /// Modules of ours one at a time: each takes all CPUs.
    compiling: Mutex<()>,
    /// How many processes compile.
    places: Mutex<usize>,
    max_places: usize,
    place_free: Condvar,
    ticker: Arc<Ticker>,
    memory: Budget,
}

impl Compiler {
    /// Makes an engine that can hold so many programs at a time, and so much memory of theirs.
    pub(super) fn new(cache: &Path, slots: u32, memory_bytes: u64) -> wasmtime::Result<Self> {
        let engine = engine(slots, Threads::All)?;
        let mut linker = Linker::new(&engine);
        wasi::link(&mut linker)?;
        let cache = match own_folder(cache) {
            Ok(()) => Some(cache.to_owned()),
            Err(error) => {
                warn!(%error, folder = %cache.display(), "compiled modules are not kept");
                None
            }
        };
        let ticker = Ticker::start(engine.clone())?;
        Ok(Self {
            engine,
            linker,
            cache,
            compiling: Mutex::default(),
            places: Mutex::default(),
            max_places: thread::available_parallelism().map_or(1, NonZero::get).min(MAX_PLACES),
            place_free: Condvar::new(),
            ticker,
            memory: Budget::new(memory_bytes),
        })
    }

    /// Compiles a module of ours with this hash, or takes it from the folder of those that were
    /// compiled.
    pub(super) fn load(&self, wasm: &[u8], hash: &str) -> wasmtime::Result<InstancePre<Host>> {
        let Some(cache) = &self.cache else {
            return self.linker.instantiate_pre(&Module::new(&self.engine, wasm)?);
        };
        let mut hasher = DefaultHasher::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        let file = cache.join(format!("{hash}-{:016x}.cwasm", hasher.finish()));
        let one_at_a_time = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_file() {
            // JUSTIFICATION: CPython compiles in half a minute and loads in milliseconds.
            // SAFETY: the file has to be what `Module::serialize` returned. The folder belongs to
            // this user and nobody else can write to it, as `own_folder` saw; we alone name files
            // like this, and rename them into place when they are whole. wasmtime refuses those
            // of other versions and settings.
            match unsafe { Module::deserialize_file(&self.engine, &file) } {
                Ok(module) => return self.linker.instantiate_pre(&module),
                Err(error) => warn!(%error, "a compiled module is damaged; it is made again"),
            }
        }
        info!(module = hash, "compiling a WebAssembly module, once");
        let module = Module::new(&self.engine, wasm)?;
        drop(one_at_a_time);
        if let Err(error) = keep(&file, &module.serialize()?) {
            warn!(%error, file = %file.display(), "cannot keep a compiled module");
        }
        self.linker.instantiate_pre(&module)
    }

    /// Makes a program out of what our compiler process wrote, or says why it can't be linked.
    ///
    /// # Errors
    ///
    /// The host has no room for it.
    pub(super) fn link(
        &self,
        compiled: &[u8],
    ) -> wasmtime::Result<Result<InstancePre<Host>, String>> {
        // JUSTIFICATION: a program that takes the service's time and memory to compile ends it.
        // SAFETY: the bytes have to be what `Module::serialize` returned. Our own executable wrote
        // them, with the same settings, to a file that only that process and this one had. A
        // program that makes the compiler write something else has found a hole in it, by which it
        // could as well have it write such code.
        let module = unsafe { Module::deserialize(&self.engine, compiled) }?;
        match self.linker.instantiate_pre(&module) {
            Err(error) if is_host_error(&error) => Err(error),
            linked => Ok(linked.map_err(|error| format!("{error:#}"))),
        }
    }

    /// Waits for a place to compile a program in a process of its own.
    pub(super) fn place(&self, cancelled: &AtomicBool) -> Place<'_> {
        let mut taken = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken >= self.max_places && !cancelled.load(Ordering::Relaxed) {
            let waited = self.place_free.wait_timeout(taken, TICK);
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken += 1;
        Place(self)
    }

    /// Makes a place for one program to run.
    pub(super) fn store(&self, host: Host) -> wasmtime::Result<Store<Host>> {
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| host);
        store.set_fuel(FUEL)?;
        store.epoch_deadline_callback(|context| {
            context.data().check()?;
            Ok(UpdateDeadline::Continue(1))
        });
        store.set_epoch_deadline(1);
        Ok(store)
    }

    /// Returns a share of the memory that there is for all programs.
    pub(super) fn share(&self) -> Share {
        self.memory.share()
    }

    /// Has time pass for programs until this is dropped.
    pub(super) fn tick(&self) -> Ticking {
        self.ticker.change(|running| *running += 1);
        Ticking(Arc::clone(&self.ticker))
    }
}

/// A place to compile a program, free again when dropped.
pub(super) struct Place<'c>(&'c Compiler);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.places.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.place_free.notify_one();
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        self.ticker.stop.store(true, Ordering::Relaxed);
        self.ticker.change(|_| {});
    }
}

/// How many threads compile one module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    One,
    All,
}

/// Makes an engine that can hold so many programs at a time. What one compiles, any other can load.
pub(super) fn engine(slots: u32, threads: Threads) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(slots)
        .total_memories(slots)
        .total_tables(slots)
        .max_memories_per_module(1)
        .max_tables_per_module(1)
        .table_elements(TABLE)
        .max_memory_size(1 << 32)
        .max_unused_warm_slots(slots);
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK)
        // The same bits on every machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .memory_init_cow(true)
        .parallel_compilation(threads == Threads::All)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

/// Whether it is the host that could not do something, not a program that asked for what can't be.
pub(super) fn is_host_error(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<io::Error>()
            || cause.is::<rustix::io::Errno>()
            || cause.is::<wasmtime::OutOfMemory>()
            || cause.is::<wasmtime::PoolConcurrencyLimitError>()
    })
}

/// Makes a folder that nobody but this user can enter, or finds it so.
fn own_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let meta = fs::symlink_metadata(path)?;
    let ours = meta.uid() == rustix::process::geteuid().as_raw();
    if !meta.is_dir() || !ours || meta.mode() & 0o022 != 0 {
        let why = "it is not a folder that this user alone can write to";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

/// Writes a file in one step: whoever reads it finds all of it or nothing.
fn keep(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = file.with_extension(format!("{}.part", std::process::id()));
    let mut out = fs::File::create(&part)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&part, file)
}

/// A thread that moves the engine's epoch on while programs run.
struct Ticker {
    running: Mutex<usize>,
    changed: Condvar,
    stop: AtomicBool,
}

impl Ticker {
    fn start(engine: Engine) -> io::Result<Arc<Self>> {
        let ticker = Arc::new(Self {
            running: Mutex::new(0),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let own = Arc::clone(&ticker);
        let run = move || {
            while !own.stop.load(Ordering::Relaxed) {
                let running = own.running.lock().unwrap_or_else(PoisonError::into_inner);
                if *running == 0 && !own.stop.load(Ordering::Relaxed) {
                    drop(own.changed.wait(running).unwrap_or_else(PoisonError::into_inner));
                    continue;
                }
                drop(running);
                thread::sleep(TICK);
                engine.increment_epoch();
            }
        };
        thread::Builder::new().name("wasm-ticker".into()).spawn(run)?;
        Ok(ticker)
    }

    fn change(&self, change: impl FnOnce(&mut usize)) {
        change(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

/// Time passes while there is one of these.
pub(super) struct Ticking(Arc<Ticker>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.change(|running| *running -= 1);
    }
}
