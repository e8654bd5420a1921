//! Which warm interpreter a command may come from: what makes two commands able to share one, and what
//! in a work tree forbids it.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use crate::{
    Command, Layer, SandboxSpec, Warm,
    modules::{Held, Provided, Scan},
    spec::options,
};

/// Most interpreters of a slot.
pub(crate) const MOST: usize = 2;

/// After how long an interpreter that could not be started is tried again, unless the reason is one
/// that stays.
const AGAIN: Duration = Duration::from_secs(60);

/// What makes two commands able to come from one interpreter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    /// Its layers, or its name alone.
    pub(crate) image: Arc<[PathBuf]>,
    /// Devices and inodes of the layers: one that was made again is another.
    pub(crate) directories: Arc<[(u64, u64)]>,
    /// The interpreter's own program and options.
    pub(crate) options: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) warm: Warm,
}

impl Lineage {
    /// Returns the lineage that `command` asks for, `None` if it asks for none; the error is why no
    /// interpreter can be its origin.
    pub(crate) fn of(
        image: &Arc<[PathBuf]>,
        directories: &Arc<[(u64, u64)]>,
        spec: &SandboxSpec,
        command: &Command,
    ) -> Option<Result<Self, String>> {
        let (warm, options) = command.warm.as_ref().zip(options(&command.argv))?;
        if let Some(path) = differing(warm, spec) {
            return Some(Err(format!("{} is another program here", path.display())));
        }
        if spec.limits.pids < 2 {
            return Some(Err("one process leaves no room to fork".to_owned()));
        }
        Some(Ok(Self {
            image: Arc::clone(image),
            directories: Arc::clone(directories),
            options: options.to_vec(),
            env: command.env.clone(),
            warm: warm.clone(),
        }))
    }
}

/// Returns one of our programs that is imported beforehand and that a sandbox has otherwise.
fn differing<'w>(warm: &'w Warm, spec: &SandboxSpec) -> Option<&'w Path> {
    let imported = |path: &Path| {
        path.file_stem().is_some_and(|stem| warm.modules.iter().any(|module| stem == &**module))
    };
    let differs =
        |path: &PathBuf, ours: &Arc<[u8]>| spec.trusted.get(path).is_some_and(|own| own != ours);
    let mut programs = warm.programs.iter().filter(|(path, _)| imported(path));
    programs.find(|(path, ours)| differs(path, ours)).map(|(path, _)| path.as_path())
}

/// An interpreter of a slot.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) lineage: Arc<Lineage>,
    pub(crate) held: Held,
}

/// An interpreter that could not be started.
#[derive(Debug)]
struct Stillborn {
    lineage: Arc<Lineage>,
    why: String,
    until: Option<Instant>,
}

/// What a backend remembers about interpreters and work trees.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// What no interpreter could be made for.
    stillborn: Mutex<Vec<Stillborn>>,
    /// What directory layers hold of Python modules. They don't change.
    scans: Mutex<HashMap<Arc<PathBuf>, Arc<Scan>>>,
}

impl Memory {
    /// Returns why there can't be an interpreter of this lineage now.
    pub(crate) fn why_stillborn(&self, lineage: &Lineage) -> Option<String> {
        let now = Instant::now();
        let mut stillborn = lock(&self.stillborn);
        stillborn.retain(|one| one.until.is_none_or(|until| now < until));
        stillborn.iter().find(|one| *one.lineage == *lineage).map(|one| one.why.clone())
    }

    /// Remembers that no interpreter could be started, for good or for a while; returns why, for the
    /// record.
    pub(crate) fn note_stillborn(&self, lineage: Arc<Lineage>, why: &str, lasts: bool) -> String {
        let why = format!("no interpreter: {why}");
        warn!(why, "commands start cold");
        let until = (!lasts).then(|| Instant::now() + AGAIN);
        lock(&self.stillborn).push(Stillborn { lineage, why: why.clone(), until });
        why
    }

    /// Returns why a command in a work tree of these layers can't come from an interpreter that
    /// holds `held`.
    pub(crate) async fn clash(&self, held: &Held, layers: &[Layer]) -> Option<String> {
        match self.provided(layers).await {
            Err(e) => Some(format!("the work tree can't be looked through: {e}")),
            Ok(provided) => provided.clash(held).map(|name| {
                let name = name.display();
                format!("the work tree has a module `{name}`, which the interpreter holds")
            }),
        }
    }

    /// Returns which modules the layers provide. Directories are looked through once.
    async fn provided(&self, layers: &[Layer]) -> io::Result<Provided> {
        let mut scans = Vec::with_capacity(layers.len());
        for layer in layers {
            let Layer::Dir(path) = layer else {
                scans.push(Arc::new(Scan::of(layer)?));
                continue;
            };
            let known = lock(&self.scans).get(path).cloned();
            scans.push(match known {
                Some(scan) => scan,
                None => {
                    let layer = layer.clone();
                    let scan = tokio::task::spawn_blocking(move || Scan::of(&layer)).await;
                    let scan = Arc::new(scan.map_err(io::Error::other)??);
                    debug!(path = %path.display(), "looked for modules");
                    lock(&self.scans).insert(Arc::clone(path), Arc::clone(&scan));
                    scan
                }
            });
        }
        Ok(Provided::by(scans.iter().map(|scan| &**scan)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
