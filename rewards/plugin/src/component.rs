//! One component: compiled once, and a fresh instance for each grade.

use std::{fmt, sync::LazyLock};

use assay_repos::{Digest, Severity};
use assay_rewards::{FactValue, Plugin, PluginError, PluginGrade, PluginLimits, Role, TestStatus};
use wasmtime::{
    Config, Engine, OutOfMemory, ResourceLimiter, Store, Trap,
    component::{Component, Linker},
};

use crate::bindings::{self, PluginPre, exports::assay::reward::scoring};

/// How modules and components start. A layer of 0 is a module, one of 1 a component.
const MAGIC: &[u8] = b"\0asm";

/// A component that is ready to be asked.
pub(crate) struct Compiled {
    digest: Digest,
    limits: PluginLimits,
    pre: PluginPre<Room>,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// The same number everywhere: what a machine or a schedule could decide is off.
fn engine() -> Result<&'static Engine, String> {
    static ENGINE: LazyLock<Result<Engine, String>> = LazyLock::new(|| {
        let mut config = Config::new();
        config
            .consume_fuel(true)
            .cranelift_nan_canonicalization(true)
            .wasm_relaxed_simd(false)
            .wasm_backtrace_max_frames(None);
        Engine::new(&config).map_err(|error| format!("WebAssembly can't run here: {error:#}"))
    });
    ENGINE.as_ref().map_err(Clone::clone)
}

impl Compiled {
    /// Compiles a component and starts it once, so that what can't work is told now.
    pub(crate) fn new(bytes: &[u8], limits: PluginLimits) -> Result<Self, String> {
        let engine = engine()?;
        match bytes.strip_prefix(MAGIC) {
            Some([_, _, 1, 0, ..]) => {}
            Some([_, _, 0, 0, ..]) => {
                return Err("a WebAssembly module and no component; make one of it with \
                     `wasm-tools component new`"
                    .into());
            }
            _ => return Err("no WebAssembly component".into()),
        }
        let component = Component::from_binary(engine, bytes)
            .map_err(|error| format!("no valid WebAssembly component: {error:#}"))?;
        let kind = component.component_type();
        let imports: Vec<_> = kind.imports(engine).map(|(name, _)| format!("`{name}`")).collect();
        if !imports.is_empty() {
            let imports = imports.join(", ");
            return Err(format!("it imports {imports}, and a plugin imports nothing"));
        }
        let linked = Linker::new(engine).instantiate_pre(&component);
        let pre = linked.map_err(|error| format!("it can't be linked: {error:#}"))?;
        let pre = PluginPre::new(pre).map_err(|_| {
            let exports: Vec<_> = kind.exports(engine).map(|(name, _)| name).collect();
            let exports = exports.join("`, `");
            format!("it exports `{exports}` and not `assay:reward/scoring@1.0.0` with `evaluate`")
        })?;
        let compiled = Self { digest: Digest::of(bytes), limits, pre };
        compiled.start().map_err(|error| format!("it can't be started: {error}"))?;
        Ok(compiled)
    }

    fn start(&self) -> Result<(Store<Room>, bindings::Plugin), PluginError> {
        let mut store = Store::new(self.pre.engine(), Room::new(self.limits.memory_bytes));
        store.limiter(|room| room);
        store.set_fuel(self.limits.fuel).map_err(|error| PluginError::Host(error.to_string()))?;
        let instance = match self.pre.instance_pre().instantiate(&mut store) {
            Ok(instance) => instance,
            Err(error) => return Err(self.broke(&error, store.data(), true)),
        };
        let plugin = bindings::Plugin::new(&mut store, &instance).map_err(|error| {
            let other = "`evaluate` has another type than in assay:reward@1.0.0";
            PluginError::Failed(format!("{other}: {}", error.root_cause()))
        })?;
        Ok((store, plugin))
    }

    /// Says whose fault an error is. `starting`: what is no trap of the plugin's own code and no
    /// limit is the machine's; later it is an answer that breaks the rules.
    fn broke(&self, error: &wasmtime::Error, room: &Room, starting: bool) -> PluginError {
        let mib = self.limits.memory_bytes >> 20;
        let trap = error.downcast_ref::<Trap>();
        let why = |trap: &Trap| trap.to_string().trim_start_matches("wasm trap: ").to_owned();
        if let Some(why) = room.host_lacks() {
            return why;
        }
        if let Some(error) = error.downcast_ref::<OutOfMemory>() {
            return PluginError::Host(error.to_string());
        }
        PluginError::Failed(match trap {
            Some(Trap::OutOfFuel) => {
                format!("used up its fuel of {} instructions", self.limits.fuel)
            }
            Some(trap) if room.refused => {
                format!("trapped after asking for more than {mib} MiB of memory: {}", why(trap))
            }
            Some(trap) => format!("trapped: {}", why(trap)),
            None if room.refused => format!("needs more than {mib} MiB of memory"),
            None if starting => return PluginError::Host(format!("{error:#}")),
            None => format!("gave no valid answer: {}", error.root_cause()),
        })
    }
}

impl Plugin for Compiled {
    fn digest(&self) -> &Digest {
        &self.digest
    }

    fn evaluate(&self, grade: &PluginGrade<'_>) -> Result<f64, PluginError> {
        let (mut store, plugin) = self.start()?;
        let view = View::of(grade);
        let answer = plugin.assay_reward_scoring().call_evaluate(&mut store, view.grade());
        // A plugin may go on without the memory, to a number that another machine would not give.
        if let (Ok(_), Some(why)) = (&answer, store.data().host_lacks()) {
            return Err(why);
        }
        match answer {
            Ok(Ok(number)) => Ok(number),
            Ok(Err(reason)) => Err(PluginError::Failed(format!("says: {}", cut(&reason)))),
            Err(error) => Err(self.broke(&error, store.data(), false)),
        }
    }
}

/// Most characters of what a plugin says.
const MAX_REASON: usize = 300;

fn cut(reason: &str) -> &str {
    reason.char_indices().nth(MAX_REASON).map_or(reason, |(end, _)| &reason[..end])
}

/// The memory of one instance, tables included. What this refuses is refused everywhere; what the host
/// has not is nobody's answer.
struct Room {
    left: u64,
    /// Whether it asked for more than there is.
    refused: bool,
    /// Why the host could not give what it may have.
    host: Option<String>,
}

/// What an entry of a table takes, at most.
const ENTRY_BYTES: usize = 16;

/// How wasmtime says, without having asked for the room, that a memory or a table can't be so large
/// whatever the host has. Anything else that fails is the host's: the safe side, and a test says when
/// a new version puts it otherwise.
const BEYOND_ITS_TYPE: [&str; 2] =
    ["memory growth exceeds memory type's limits", "overflow calculating new table size"];

impl Room {
    fn new(bytes: u64) -> Self {
        Self { left: bytes, refused: false, host: None }
    }

    fn host_lacks(&self) -> Option<PluginError> {
        self.host.clone().map(PluginError::Host)
    }

    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> bool {
        let more = desired.saturating_sub(current) as u64;
        // Its own maximum, which no one has to be told about.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return false;
        }
        let left = self.left.checked_sub(more);
        self.left = left.unwrap_or(self.left);
        self.refused |= left.is_none();
        left.is_some()
    }

    fn failed(&mut self, error: &wasmtime::Error) {
        if !BEYOND_ITS_TYPE.contains(&error.to_string().as_str()) {
            self.host = Some(format!("no memory for it: {error:#}"));
        }
    }
}

impl ResourceLimiter for Room {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired, maximum))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.failed(&error);
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = |entries: usize| entries.saturating_mul(ENTRY_BYTES);
        Ok(self.grow(bytes(current), bytes(desired), maximum.map(bytes)))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.failed(&error);
        Ok(())
    }

    // The most that a component may have of each.
    fn instances(&self) -> usize {
        100
    }

    fn tables(&self) -> usize {
        100
    }

    fn memories(&self) -> usize {
        10
    }
}

/// A grade in the words of `reward.wit`.
struct View<'g> {
    grade: &'g PluginGrade<'g>,
    task: String,
    facts: Vec<scoring::Fact<'g>>,
    tests: Vec<scoring::Test<'g>>,
    flags: Vec<scoring::Flag<'g>>,
}

impl<'g> View<'g> {
    fn of(grade: &'g PluginGrade<'g>) -> Self {
        let fact = |(name, value): &'g (String, FactValue)| scoring::Fact {
            name,
            value: match value {
                FactValue::Bool(value) => scoring::Value::Condition(*value),
                FactValue::Number(number) => scoring::Value::Number(*number),
                FactValue::Text(text) => scoring::Value::Text(text),
            },
        };
        let tests = grade.record.checks.iter().flat_map(|check| {
            check.tests.iter().map(|test| scoring::Test {
                check: &check.id,
                id: &test.id,
                status: status(test.status),
                role: match test.role {
                    Role::MustPass => scoring::Role::MustPass,
                    Role::MustKeep => scoring::Role::MustKeep,
                    Role::Quarantined => scoring::Role::Quarantined,
                    Role::Other => scoring::Role::Other,
                },
                duration_s: test.duration_s,
                message: test.message.as_deref(),
            })
        });
        let flags = grade.record.flags.iter().map(|flag| scoring::Flag {
            code: &flag.code,
            severity: match flag.severity {
                Severity::Info => scoring::Severity::Info,
                Severity::Warning => scoring::Severity::Warning,
                Severity::Tampering => scoring::Severity::Tampering,
            },
            evidence: &flag.evidence,
        });
        Self {
            grade,
            task: grade.record.task.to_string(),
            facts: grade.facts.iter().map(fact).collect(),
            tests: tests.collect(),
            flags: flags.collect(),
        }
    }

    fn grade(&self) -> scoring::Grade<'_> {
        scoring::Grade {
            task: &self.task,
            backend: &self.grade.record.backend,
            facts: &self.facts,
            tests: &self.tests,
            flags: &self.flags,
        }
    }
}

fn status(status: TestStatus) -> scoring::Status {
    match status {
        TestStatus::Passed => scoring::Status::Passed,
        TestStatus::Failed => scoring::Status::Failed,
        TestStatus::Error => scoring::Status::Error,
        TestStatus::Skipped => scoring::Status::Skipped,
        TestStatus::Xfailed => scoring::Status::Xfailed,
        TestStatus::Xpassed => scoring::Status::Xpassed,
        TestStatus::Timeout => scoring::Status::Timeout,
        TestStatus::Missing => scoring::Status::Missing,
    }
}
