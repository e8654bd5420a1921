//! The `wasm` backend: programs for WASI preview 1 in this process, through wasmtime.
//!
//! A program can do arithmetic in its own memory and call what [`wasi`] gives it, nothing else: no
//! system call, process, socket or file of the host is in its reach. Its tree is in memory ([`fs`]).
//! Instructions are counted, and clocks, randomness and the order of folders are the same in every
//! run, so that two runs of a program cost the same to the instruction. Python commands begin as
//! copies of an interpreter that is up ([`interpreter`]).
//!
//! One thread per run; limits are looked at every few milliseconds (wasmtime's epochs) and in host
//! calls that could take long.

mod compile;
mod engine;
mod fs;
mod interpreter;
mod memory;
mod run;
mod tree;
mod wasi;

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use wasmtime::InstancePre;

pub(crate) use self::compile::main_if_asked as compiler_main_if_asked;
use self::{
    compile::CompileLimits,
    engine::{Compiler, is_host_error},
    interpreter::Interpreter,
    run::WasmSandbox,
    wasi::Host,
};
use crate::{Backend, BackendError, BackendResult, ImageRef, Sandbox, SandboxId, SandboxSpec};

const NAME: &str = "wasm";
/// Programs of work trees that stay compiled.
const MAX_MODULES: usize = 32;

/// How a [`Wasm`] backend is set up.
#[derive(Clone, Debug)]
pub struct WasmConfig {
    /// Where compiled interpreters are kept. A folder that this user alone can write to: what lies
    /// there is executed.
    pub state_dir: PathBuf,
    /// Most sandboxes at the same time; further ones wait.
    pub max_sandboxes: u32,
    /// Most memory of all programs and of the files that they write, waiting interpreters included.
    pub memory_bytes: u64,
    /// How many interpreters wait for a command, for each kind of command that was seen lately.
    pub ahead: u32,
    /// The executable that compiles the programs that work trees bring: one whose `main` calls
    /// [`helper_main_if_asked`](crate::helper_main_if_asked).
    pub compiler: PathBuf,
    /// Most bytes of such a program.
    pub max_module_bytes: u64,
    /// Most CPU time that compiling one may take, in whole seconds.
    pub compile_cpu: Duration,
    /// Most memory that compiling one may take.
    pub compile_memory_bytes: u64,
}

impl WasmConfig {
    /// Returns the defaults: 128 sandboxes in three quarters of the machine's memory, 8 waiting
    /// interpreters, this executable, programs of 4 MiB that compile in 30 s and a gigabyte.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        let machine = rustix::system::sysinfo();
        let memory_bytes = machine.totalram * u64::from(machine.mem_unit);
        Self {
            state_dir: state_dir.into(),
            max_sandboxes: 128,
            memory_bytes: memory_bytes / 4 * 3,
            ahead: 8,
            // Still the same file after the one on disk was replaced.
            compiler: PathBuf::from("/proc/self/exe"),
            max_module_bytes: 4 << 20,
            compile_cpu: Duration::from_secs(30),
            compile_memory_bytes: 1 << 30,
        }
    }
}

/// The backend. Clones share everything.
#[derive(Clone)]
pub struct Wasm {
    inner: Arc<Inner>,
}

/// An interpreter, once it is there. Those who come while it is loaded wait for it; where that
/// failed, the next one tries again.
type Loading = Arc<Mutex<Option<Arc<Interpreter>>>>;

struct Inner {
    config: WasmConfig,
    compiler: Arc<Compiler>,
    permits: Arc<Semaphore>,
    interpreters: Mutex<HashMap<ImageRef, Loading>>,
    /// Compiled programs by the digest of their bytes, the one used last at the end.
    modules: Mutex<Vec<([u8; 32], InstancePre<Host>)>>,
}

impl Wasm {
    /// Makes an engine. Nothing is compiled yet.
    ///
    /// # Errors
    ///
    /// [`BackendError::Io`] when this machine gives no room for the memories of so many sandboxes.
    pub fn start(config: WasmConfig) -> BackendResult<Self> {
        // Room for copies that wait and for one that is being made, for as many kinds as are kept.
        let ahead = interpreter::MAX_SNAPSHOTS as u32 * (config.ahead + 1);
        let slots = config.max_sandboxes.saturating_add(ahead);
        let compiler =
            Compiler::new(&config.state_dir, slots, config.memory_bytes).map_err(run::failed)?;
        Ok(Self {
            inner: Arc::new(Inner {
                permits: Arc::new(Semaphore::new(config.max_sandboxes as usize)),
                compiler: Arc::new(compiler),
                interpreters: Mutex::default(),
                modules: Mutex::default(),
                config,
            }),
        })
    }

    /// Makes an image ready before the first sandbox asks for it. Compiles it where nobody did
    /// before: that takes half a minute.
    ///
    /// # Errors
    ///
    /// [`BackendError::ImageNotFound`], or [`BackendError::Spec`] when it is no interpreter.
    pub fn load(&self, image: &ImageRef) -> BackendResult<()> {
        self.inner.interpreter(image).map(|_| ())
    }
}

impl fmt::Debug for Wasm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wasm").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for Wasm {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn create(&self, spec: SandboxSpec) -> BackendResult<Box<dyn Sandbox>> {
        crate::spec::check(&spec)?;
        self.inner.module_of(&spec.image)?;
        let permit = Arc::clone(&self.inner.permits).acquire_owned().await;
        let permit = permit
            .map_err(|_| BackendError::Gone { backend: NAME, what: "it was closed".into() })?;
        let inner = Arc::clone(&self.inner);
        Ok(Box::new(WasmSandbox { id: SandboxId::generate(), inner, spec, permit }))
    }
}

impl Inner {
    /// Returns the file of an image, and its digest.
    fn module_of<'i>(&self, image: &'i ImageRef) -> BackendResult<(&'i Path, &'i str)> {
        match image {
            ImageRef::Wasm { module, digest } if module.is_file() => Ok((module, digest)),
            ImageRef::Wasm { module, .. } => {
                Err(BackendError::ImageNotFound(module.display().to_string()))
            }
            ImageRef::Rootfs { .. } | ImageRef::Layers { .. } | ImageRef::Docker(_) => {
                Err(BackendError::Unsupported {
                    backend: NAME,
                    what: "run a root filesystem; name a WebAssembly module".into(),
                })
            }
        }
    }

    fn interpreter(&self, image: &ImageRef) -> BackendResult<Arc<Interpreter>> {
        let (file, digest) = self.module_of(image)?;
        let loading = {
            let mut all = self.interpreters.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(image.clone()).or_default())
        };
        let mut loading = loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = &*loading {
            return Ok(Arc::clone(loaded));
        }
        let wrong = |why: String| BackendError::Spec(format!("image {}: {why}", file.display()));
        let wasm = std::fs::read(file).map_err(|source| BackendError::Io {
            what: format!("read image {}", file.display()),
            source,
        })?;
        let hash: String = Sha256::digest(&wasm).iter().map(|byte| format!("{byte:02x}")).collect();
        if digest.strip_prefix("sha256:") != Some(&hash) {
            return Err(wrong(format!("its digest is sha256:{hash}, not {digest}")));
        }
        let pre =
            self.compiler.load(&wasm, &hash).map_err(|error| match is_host_error(&error) {
                true => run::failed(error),
                false => wrong(format!("{error:#}")),
            })?;
        let ahead = self.config.ahead as usize;
        let interpreter = Arc::new(Interpreter::new(Arc::clone(&self.compiler), pre, ahead));
        Ok(Arc::clone(loading.insert(interpreter)))
    }

    /// Compiles a program of a work tree, or finds it compiled. Says why it can't be run.
    fn module(
        &self,
        wasm: &[u8],
        cancelled: &AtomicBool,
    ) -> BackendResult<Result<InstancePre<Host>, String>> {
        let digest: [u8; 32] = Sha256::digest(wasm).into();
        if let Some(known) = self.known(&digest) {
            return Ok(Ok(known));
        }
        let _place = self.compiler.place(cancelled);
        // Somebody may have had the same one.
        if let Some(known) = self.known(&digest) {
            return Ok(Ok(known));
        }
        let WasmConfig { compiler, compile_cpu: cpu, compile_memory_bytes, .. } = &self.config;
        let limits = CompileLimits { cpu: *cpu, memory_bytes: *compile_memory_bytes };
        let compiled = match compile::compile(compiler, wasm, limits, cancelled)? {
            Ok(compiled) => compiled,
            Err(why) => return Ok(Err(why)),
        };
        let linked = self.compiler.link(&compiled).map_err(run::failed)?;
        if let Ok(module) = &linked {
            let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
            if modules.len() >= MAX_MODULES {
                modules.remove(0);
            }
            modules.push((digest, module.clone()));
        }
        Ok(linked)
    }

    fn known(&self, digest: &[u8; 32]) -> Option<InstancePre<Host>> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let at = modules.iter().position(|(known, _)| known == digest)?;
        let known = modules.remove(at);
        modules.push(known.clone());
        Some(known.1)
    }
}
