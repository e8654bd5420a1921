//! The containers of a backend: started when needed, handed out, taken back.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, oneshot},
    time::{sleep, timeout},
};
use tracing::debug;

use super::{
    Docker,
    frame::{Ask, Frames, Tell},
    lost,
    slot::{Kind, Slot},
};
use crate::{BackendResult, idle::Idle};

/// Most containers that stand ready for long: the one that has rested longest goes first.
const MOST_IDLE: usize = 16;
/// How long others stay that nobody needs.
const NEEDLESS: Duration = Duration::from_secs(30);
/// How long an agent may take to end a run that nobody wants any more.
const CANCELLED: Duration = Duration::from_secs(15);

/// Containers without a sandbox.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<Idle<Slot>>,
    runtime: Handle,
}

impl Pool {
    /// `most` is how many may rest at any time.
    pub(super) fn new(most: usize, runtime: Handle) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::new(Idle::new(MOST_IDLE, most)), runtime })
    }

    fn lock(&self) -> MutexGuard<'_, Idle<Slot>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(self: &Arc<Self>, slot: Slot) {
        let (gone, begins) = self.lock().put(slot);
        drop(gone);
        if begins {
            let pool = Arc::downgrade(self);
            self.runtime.spawn(async move {
                loop {
                    sleep(NEEDLESS).await;
                    let Some(pool) = pool.upgrade() else { return };
                    let (needless, goes_on) = pool.lock().needless();
                    drop(needless);
                    if !goes_on {
                        return;
                    }
                }
            });
        }
    }

    /// Takes one of this kind that lives: the one that rested least, whose memory is warm.
    fn take(&self, kind: &Kind) -> Option<Slot> {
        loop {
            let mut slot = {
                let mut idle = self.lock();
                let place = idle.iter().rposition(|slot| slot.kind == *kind)?;
                idle.take(place)?
            };
            if slot.is_idle() {
                return Some(slot);
            }
        }
    }
}

impl Docker {
    /// Returns a container of this kind. One that is started for a caller who is gone by then goes
    /// to the pool.
    pub(super) async fn slot(&self, kind: Kind) -> BackendResult<Slot> {
        if let Some(slot) = self.pool.take(&kind) {
            return Ok(slot);
        }
        // All that there are, resting or not, are no more than may have a sandbox.
        let surplus = self.pool.lock().beyond(self.permits.available_permits());
        drop(surplus);
        let (sender, receiver) = oneshot::channel();
        let docker = self.clone();
        tokio::spawn(async move {
            let slot = Slot::start(&docker, kind).await;
            if let Err(Ok(slot)) = sender.send(slot) {
                docker.pool.put(slot);
            }
        });
        receiver.await.map_err(|_| lost("nobody starts it any more"))?
    }
}

/// What a container does for whoever has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Nothing,
    /// It will report, and can be told to hurry.
    Running,
    /// Something is wrong with it.
    NoGood,
}

/// A container in somebody's hands. Dropping it ends what runs there and hands it back.
#[derive(Debug)]
pub(super) struct Busy {
    pub(super) docker: Docker,
    slot: Option<Slot>,
    pub(super) doing: Doing,
    permit: Option<OwnedSemaphorePermit>,
}

impl Busy {
    pub(super) fn new(docker: Docker, slot: Slot, permit: OwnedSemaphorePermit) -> Self {
        Self { docker, slot: Some(slot), doing: Doing::Nothing, permit: Some(permit) }
    }

    pub(super) fn slot(&mut self) -> BackendResult<&mut Slot> {
        self.slot.as_mut().ok_or_else(|| lost("it was handed back"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Some(mut slot) = self.slot.take() else { return };
        match self.doing {
            Doing::Nothing => self.docker.pool.put(slot),
            Doing::NoGood => {}
            Doing::Running => {
                // It counts until it is dead.
                let (pool, permit) = (Arc::clone(&self.docker.pool), self.permit.take());
                let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
                runtime.spawn(async move {
                    match timeout(CANCELLED, cancel(&mut slot)).await {
                        Ok(Ok(true)) => pool.put(slot),
                        other => debug!(?other, "a container is given up"),
                    }
                    drop(permit);
                });
            }
        }
    }
}

/// Ends a run; whether the container can be used for another.
async fn cancel(slot: &mut Slot) -> BackendResult<bool> {
    let mut frames = Frames::default();
    frames.ask(&Ask::Cancel);
    slot.send(frames.0).await?;
    loop {
        let over = slot.output.next(|tell| {
            Some(match tell {
                Tell::Report { clean, report, .. } => Some((clean, report)),
                _ => None,
            })
        });
        if let Some((clean, report)) = over.await? {
            slot.forget_if_lost(&report);
            return Ok(clean);
        }
    }
}
