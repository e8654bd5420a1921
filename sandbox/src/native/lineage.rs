//! Which warm interpreter a command may come from, and whether it has to be started first.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use super::{
    failed, gone,
    job::{self, Lent, Report},
    pool::{Busy, Inner, Slot, State, receive_report},
    run, setup,
};
use crate::{
    BackendResult, Command, Layer, SandboxSpec, Warm,
    modules::{Held, Provided, Scan},
    spec::options,
};

/// Most interpreters of a slot.
const MOST: usize = 2;

/// What makes two commands able to come from one interpreter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lineage {
    image: PathBuf,
    /// The interpreter's own program and options.
    options: Vec<String>,
    env: BTreeMap<String, String>,
    warm: Warm,
}

/// An interpreter of a slot.
#[derive(Debug)]
pub(super) struct Known {
    lineage: Arc<Lineage>,
    held: Held,
}

/// Finds the interpreter for `command` in the slot of `busy`, or starts one there. The inner error
/// is why there is none; it is `None` for a command that asks for none.
///
/// # Errors
///
/// The slot is gone.
pub(super) async fn lent(
    busy: &mut Busy,
    image: &Path,
    spec: &SandboxSpec,
    command: &Command,
) -> BackendResult<Result<Lent, Option<String>>> {
    let Some(warm) = &command.warm else { return Ok(Err(None)) };
    let Some(options) = options(&command.argv) else { return Ok(Err(None)) };
    let lineage = Lineage {
        image: image.to_owned(),
        options: options.to_vec(),
        env: command.env.clone(),
        warm: warm.clone(),
    };
    if let Some(path) = differing(warm, spec) {
        return Ok(Err(Some(format!("{} is another program here", path.display()))));
    }
    if spec.limits.pids < 2 {
        return Ok(Err(Some("one process leaves no room to fork".to_owned())));
    }
    let number = match number(busy, lineage).await? {
        Ok(number) => number,
        Err(why) => return Ok(Err(Some(why))),
    };
    let provided = match provided(&busy.inner, &spec.layers).await {
        Ok(provided) => provided,
        Err(e) => return Ok(Err(Some(format!("the work tree can't be looked through: {e}")))),
    };
    let held = busy.slot()?.interpreters.get(number).map(|known| &known.held);
    if let Some(name) = held.and_then(|held| provided.clash(held)) {
        let name = name.display();
        let why = format!("the work tree has a module `{name}`, which the interpreter holds");
        return Ok(Err(Some(why)));
    }
    Ok(Ok(Lent { number: number as u64, script: options.len() }))
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

/// Returns the number of the slot's interpreter of this lineage; starts it if there is none.
async fn number(busy: &mut Busy, lineage: Lineage) -> BackendResult<Result<usize, String>> {
    let inner = Arc::clone(&busy.inner);
    let slot = busy.slot_mut()?;
    if let Some(number) = slot.interpreters.iter().position(|known| *known.lineage == lineage) {
        return Ok(Ok(number));
    }
    if let Some(why) = inner.lock().why_stillborn(&lineage) {
        return Ok(Err(why));
    }
    // Forgotten before it is replaced: we may be cancelled meanwhile.
    slot.interpreters.truncate(MOST - 1);
    let number = slot.interpreters.len();
    ask(slot, number as u64, &lineage)?;
    // Until the slot answers nobody else can use it.
    busy.running = true;
    let slot = busy.slot_mut()?;
    let report = receive_report(slot).await;
    let report = report.map_err(|e| gone(&format!("slot {}: {e}", slot.number)))?;
    let lineage = Arc::new(lineage);
    let started = match report {
        Report::Interpreter(Ok(held)) => {
            slot.interpreters
                .push(Known { lineage: Arc::clone(&lineage), held: Held::read(&held) });
            Ok(number)
        }
        Report::Interpreter(Err(why)) => Err((why, None)),
        Report::Failed { step, errno } => {
            let why = format!("{step}: {}", io::Error::from_raw_os_error(errno));
            Err((why, Some(Instant::now() + AGAIN)))
        }
        Report::Done(_) | Report::Reply(..) => return Err(gone("slot gave another answer")),
    };
    busy.running = false;
    Ok(started.map_err(|(why, until)| {
        let why = format!("no interpreter: {why}");
        warn!(why, "commands start cold");
        inner.lock().stillborn.push(Stillborn { lineage, why: why.clone(), until });
        why
    }))
}

/// After how long an interpreter that could not be started is tried again, unless the reason is one
/// that stays.
const AGAIN: Duration = Duration::from_secs(60);

/// An interpreter that could not be started.
#[derive(Debug)]
pub(super) struct Stillborn {
    lineage: Arc<Lineage>,
    why: String,
    until: Option<Instant>,
}

impl State {
    /// Returns why there can't be an interpreter of this lineage now.
    fn why_stillborn(&mut self, lineage: &Lineage) -> Option<String> {
        let now = Instant::now();
        self.stillborn.retain(|one| one.until.is_none_or(|until| now < until));
        let known = self.stillborn.iter().find(|one| *one.lineage == *lineage);
        known.map(|one| one.why.clone())
    }
}

fn ask(slot: &Slot, number: u64, lineage: &Lineage) -> BackendResult<()> {
    let Lineage { image, options, env, warm } = lineage;
    let mount = match &slot.mappings {
        Some((_, for_images)) => Some(
            setup::detached_mount(image, Some(for_images.as_fd()))
                .map_err(|e| failed("mount the image for an interpreter", e))?,
        ),
        None => None,
    };
    let message = job::encode_interpreter(number, image, options, env, warm, mount.is_some());
    let fds = mount.iter().map(AsFd::as_fd).collect();
    run::send(slot.socket.get_ref(), message, fds)
        .map_err(|e| gone(&format!("slot takes no request: {e}")))
}

/// Returns which modules the layers provide. Directories are looked through once.
async fn provided(inner: &Arc<Inner>, layers: &[Layer]) -> io::Result<Provided> {
    let mut scans = Vec::with_capacity(layers.len());
    for layer in layers {
        let Layer::Dir(path) = layer else {
            scans.push(Arc::new(Scan::of(layer)?));
            continue;
        };
        let known = inner.lock().scans.get(path).cloned();
        scans.push(match known {
            Some(scan) => scan,
            None => {
                let layer = layer.clone();
                let scan = tokio::task::spawn_blocking(move || Scan::of(&layer)).await;
                let scan = Arc::new(scan.map_err(io::Error::other)??);
                debug!(path = %path.display(), "looked for modules");
                inner.lock().scans.insert(Arc::clone(path), Arc::clone(&scan));
                scan
            }
        });
    }
    Ok(Provided::by(scans.iter().map(|scan| &**scan)))
}
