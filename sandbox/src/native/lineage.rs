//! Finds the warm interpreter of a slot that a command may come from, or starts it.

use std::{io, os::fd::AsFd, path::PathBuf, sync::Arc};

use super::{
    failed, gone,
    job::{self, Lent, Report},
    pool::{Busy, Slot, receive_report},
    root,
    rooted::RootKey,
    run,
};
use crate::{
    BackendResult, Command, SandboxSpec,
    lineage::{Known, Lineage, MOST},
    modules::Held,
};

/// Finds the interpreter for `command` in the slot of `busy`, or starts one there. The inner error
/// is why there is none; it is `None` for a command that asks for none.
///
/// # Errors
///
/// The slot is gone.
pub(super) async fn lent(
    busy: &mut Busy,
    image: &Arc<[PathBuf]>,
    spec: &SandboxSpec,
    command: &Command,
) -> BackendResult<Result<Lent, Option<String>>> {
    let directories = busy.slot()?.root.as_ref().map(RootKey::directories).unwrap_or_default();
    let lineage = match Lineage::of(image, &directories, spec, command) {
        None => return Ok(Err(None)),
        Some(Err(why)) => return Ok(Err(Some(why))),
        Some(Ok(lineage)) => lineage,
    };
    let script = lineage.options.len();
    let number = match number(busy, lineage).await? {
        Ok(number) => number,
        Err(why) => return Ok(Err(Some(why))),
    };
    if let Some(known) = busy.slot()?.interpreters.get(number)
        && let Some(why) = busy.inner.memory.clash(&known.held, &spec.layers).await
    {
        return Ok(Err(Some(why)));
    }
    Ok(Ok(Lent { number: number as u64, script }))
}

/// Returns the number of the slot's interpreter of this lineage; starts it if there is none.
async fn number(busy: &mut Busy, lineage: Lineage) -> BackendResult<Result<usize, String>> {
    let inner = Arc::clone(&busy.inner);
    let slot = busy.slot_mut()?;
    if let Some(number) = slot.interpreters.iter().position(|known| *known.lineage == lineage) {
        return Ok(Ok(number));
    }
    if let Some(why) = inner.memory.why_stillborn(&lineage) {
        return Ok(Err(why));
    }
    // Forgotten before it is replaced: we may be cancelled meanwhile.
    slot.interpreters.truncate(MOST - 1);
    let number = slot.interpreters.len();
    let slot = busy.request()?;
    ask(slot, number as u64, &lineage)?;
    let slot = busy.slot_mut()?;
    let report = receive_report(slot).await;
    let report = report.map_err(|e| gone(&format!("slot {}: {e}", slot.number)))?;
    let lineage = Arc::new(lineage);
    let (why, lasts) = match report {
        Report::Interpreter(Ok(held)) => {
            let held = Held::read(&held);
            slot.interpreters.push(Known { lineage, held });
            busy.running = false;
            return Ok(Ok(number));
        }
        Report::Interpreter(Err(why)) => (why, true),
        Report::Failed { step, errno } => {
            (format!("{step}: {}", io::Error::from_raw_os_error(errno)), false)
        }
        Report::Done(_) | Report::Rooted | Report::Reply(..) => {
            return Err(gone("slot gave another answer"));
        }
    };
    busy.running = false;
    Ok(Err(inner.memory.note_stillborn(lineage, &why, lasts)))
}

fn ask(slot: &Slot, number: u64, lineage: &Lineage) -> BackendResult<()> {
    let Lineage { image, options, env, warm, .. } = lineage;
    let mounts = slot.mappings.as_ref().map(|(_, for_images)| {
        let mounts = image.iter().map(|path| root::detached_mount(path, Some(for_images.as_fd())));
        mounts.collect::<io::Result<Vec<_>>>()
    });
    let mounts = mounts.transpose().map_err(|e| failed("mount the image for an interpreter", e))?;
    let message = job::encode_interpreter(number, image, options, env, warm, mounts.is_some());
    let fds = mounts.iter().flatten().map(AsFd::as_fd).collect();
    run::send(slot.socket.get_ref(), slot.request, message, fds)
        .map_err(|e| gone(&format!("slot takes no request: {e}")))
}
