//! Finds the warm interpreter of a container that a command may come from, or starts it.

use std::{io, path::PathBuf, sync::Arc};

use super::{
    frame::{Ask, Frames, Tell},
    lost,
    pool::{Busy, Doing},
};
use crate::{
    BackendResult, Command, SandboxSpec,
    lineage::{Known, Lineage, MOST},
    modules::Held,
    native::{
        job::{Lent, Report},
        warm,
    },
};

/// Finds the interpreter for `command` in a container, or starts one there. The inner error is why
/// there is none; it is `None` for a command that asks for none.
///
/// # Errors
///
/// The container is gone.
pub(super) async fn lent(
    busy: &mut Busy,
    spec: &SandboxSpec,
    command: &Command,
) -> BackendResult<Result<Lent, Option<String>>> {
    let memory = Arc::clone(&busy.docker.memory);
    let slot = busy.slot()?;
    let image = [PathBuf::from(&slot.kind.image)].into();
    let lineage = match Lineage::of(&image, &Arc::default(), spec, command) {
        None => return Ok(Err(None)),
        Some(Err(why)) => return Ok(Err(Some(why))),
        Some(Ok(lineage)) => lineage,
    };
    let script = lineage.options.len();
    let known = slot.interpreters.iter().position(|known| *known.lineage == lineage);
    let number = match known {
        Some(number) => number,
        None => match memory.why_stillborn(&lineage) {
            Some(why) => return Ok(Err(Some(why))),
            None => match start(busy, lineage).await? {
                Ok(number) => number,
                Err((lineage, why, lasts)) => {
                    return Ok(Err(Some(memory.note_stillborn(lineage, &why, lasts))));
                }
            },
        },
    };
    let held = &busy.slot()?.interpreters[number].held;
    Ok(match memory.clash(held, &spec.layers).await {
        Some(why) => Err(Some(why)),
        None => Ok(Lent { number: number as u64, script }),
    })
}

type Stillborn = (Arc<Lineage>, String, bool);

/// Starts an interpreter; the inner error is why there is none, and whether that will stay so.
async fn start(busy: &mut Busy, lineage: Lineage) -> BackendResult<Result<usize, Stillborn>> {
    let slot = busy.slot()?;
    // Forgotten before it is replaced: we may be cancelled meanwhile.
    slot.interpreters.truncate(MOST - 1);
    let number = slot.interpreters.len();
    let frames = frames(number as u64, &lineage);
    slot.send(frames.0).await?;
    busy.doing = Doing::Running;
    let slot = busy.slot()?;
    let answer = slot.output.next(|tell| match tell {
        Tell::Report { report, clean, .. } => Some((report, clean)),
        _ => None,
    });
    let (report, clean) = answer.await?;
    if !clean {
        busy.doing = Doing::NoGood;
        return Err(lost("what an interpreter imports leaves files"));
    }
    busy.doing = Doing::Nothing;
    let lineage = Arc::new(lineage);
    Ok(match report {
        Report::Interpreter(Ok(held)) => {
            let held = Held::read(&held);
            busy.slot()?.interpreters.push(Known { lineage, held });
            Ok(number)
        }
        Report::Interpreter(Err(why)) => Err((lineage, why, true)),
        Report::Failed { step, errno } => {
            let why = format!("{step}: {}", io::Error::from_raw_os_error(errno));
            Err((lineage, why, false))
        }
        Report::Done(_) | Report::Rooted | Report::Reply(..) => {
            busy.doing = Doing::NoGood;
            return Err(lost("the agent makes no sense"));
        }
    })
}

fn frames(number: u64, lineage: &Lineage) -> Frames {
    let mut frames = Frames::default();
    for (path, content) in lineage.warm.programs.iter() {
        let path = path.as_os_str().as_encoded_bytes();
        frames.ask(&Ask::Trusted { path, content });
    }
    let argv = lineage.options.iter().map(String::as_str);
    let argv = argv.chain([warm::PATH]).chain(lineage.warm.modules.iter().map(String::as_str));
    let env: Vec<_> = lineage.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    frames.ask(&Ask::Interpreter {
        number,
        argv: argv.map(str::as_bytes).collect(),
        env: env.iter().map(|pair| pair.as_bytes()).collect(),
    });
    frames
}
