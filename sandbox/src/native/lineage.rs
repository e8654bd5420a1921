//! Which warm interpreter a command may come from, and whether it has to be started first.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::{debug, warn};

use super::{
    failed, gone,
    job::{self, Report},
    pool::{Busy, Inner, Slot, receive_report},
    run, setup,
};
use crate::{BackendResult, Command, Layer, Warm, modules::Provided, modules::Scan, spec};

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

/// An interpreter that is up, for one command.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) number: u64,
    /// The place of the script in the command's `argv`.
    pub(super) script: usize,
    pub(super) provided: Provided,
}

/// Finds the interpreter for `command` in the slot of `busy`, or starts one there. The inner error
/// is why there is none; a command that asks for none gets an empty one.
///
/// # Errors
///
/// The slot is gone.
pub(super) async fn parent(
    busy: &mut Busy,
    image: &Path,
    layers: &[Layer],
    command: &Command,
) -> BackendResult<Result<Parent, String>> {
    let Some(warm) = &command.warm else { return Ok(Err(String::new())) };
    let Some(options) = spec::options(&command.argv) else { return Ok(Err(String::new())) };
    let inner = Arc::clone(&busy.inner);
    let provided = match provided(&inner, layers).await {
        Ok(provided) => provided,
        Err(e) => return Ok(Err(format!("the work tree can't be looked through: {e}"))),
    };
    let lineage = Lineage {
        image: image.to_owned(),
        options: options.to_vec(),
        env: command.env.clone(),
        warm: warm.clone(),
    };
    let parent = |number| Parent { number, script: options.len(), provided };
    let slot = busy.slot()?;
    if let Some(number) = slot.interpreters.iter().position(|known| **known == lineage) {
        return Ok(Ok(parent(number as u64)));
    }
    let stillborn = inner.lock().stillborn.iter().find(|(known, _)| **known == lineage).cloned();
    if let Some((_, why)) = stillborn {
        return Ok(Err(why));
    }
    let number = slot.interpreters.len() % MOST;
    let lineage = Arc::new(lineage);
    // Until the slot answers nobody else can use it.
    busy.running = true;
    let started = start(busy.slot()?, number as u64, &lineage).await?;
    busy.running = false;
    match started {
        Ok(()) => {
            let known = &mut busy.slot_mut()?.interpreters;
            known.truncate(number);
            known.push(lineage);
            Ok(Ok(parent(number as u64)))
        }
        Err(why) => {
            let why = format!("no interpreter: {why}");
            warn!(why, options = ?lineage.options, "commands start cold");
            inner.lock().stillborn.push((lineage, why.clone()));
            Ok(Err(why))
        }
    }
}

async fn start(slot: &Slot, number: u64, lineage: &Lineage) -> BackendResult<Result<(), String>> {
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
    run::send(slot, message, fds).map_err(|e| gone(&format!("slot takes no request: {e}")))?;
    let report = receive_report(slot).await;
    match report.map_err(|e| gone(&format!("slot {}: {e}", slot.number)))? {
        Report::Interpreter(started) => Ok(started),
        Report::Failed { step, errno } => {
            Ok(Err(format!("{step}: {}", io::Error::from_raw_os_error(errno))))
        }
        Report::Done(_) => Err(gone("slot gave another answer")),
    }
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
