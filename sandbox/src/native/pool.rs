//! The slots of a backend: made when needed, handed out, taken back.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::{info, warn};

use super::{
    NativeConfig,
    cpus::{Cpu, Cpus},
    failed, gone,
    instance::Instance,
    job::Report,
    number::{Number, Numbers},
    rooted::RootKey,
    slot::HostIds,
    spawner::{self, NewSlot},
    sys, wire,
};
use crate::{
    BackendResult,
    lineage::{Known, Memory},
};

/// What all clones of a backend and all its sandboxes share.
pub(super) struct Inner {
    pub(super) config: NativeConfig,
    pub(super) runtime: Handle,
    /// Whether sandboxes get host users of their own.
    pub(super) as_root: bool,
    pub(super) instance: Instance,
    pub(super) permits: Arc<Semaphore>,
    pub(super) numbers: Numbers,
    pub(super) cpus: Cpus,
    pub(super) state: Mutex<State>,
    pub(super) memory: Memory,
}

#[derive(Default)]
pub(super) struct State {
    spawner: Option<(std::process::Child, OwnedFd)>,
    /// The one that has rested longest first: the others may still prepare for their next sandbox.
    free: VecDeque<Slot>,
    /// How many slots are being made that nobody waits for.
    spares_coming: usize,
    counts: SlotCounts,
}

/// What a backend's slots did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// Slots that rest now.
    pub idle: usize,
    /// Sandboxes that found a resting slot.
    pub hits: u64,
    /// Sandboxes that had to wait until a slot was made: demand that
    /// [`idle_low`](NativeConfig::idle_low) did not foresee.
    pub misses: u64,
    /// Slots that were ended because more than [`idle_high`](NativeConfig::idle_high) rested.
    pub ended: u64,
}

/// Our end of a slot.
pub(super) struct Slot {
    pub(super) number: Number,
    pub(super) socket: AsyncFd<OwnedFd>,
    /// User namespaces whose id maps layers and images get; absent for an ordinary user.
    pub(super) mappings: Option<(OwnedFd, OwnedFd)>,
    pub(super) fallbacks: Arc<Vec<String>>,
    /// The number of the last request to it. What it answers to others came too late.
    pub(super) request: u64,
    /// The root that its sandboxes have, if it has made one.
    pub(super) root: Option<RootKey>,
    /// Its warm interpreters; the place of each is its number.
    pub(super) interpreters: Vec<Known>,
}

/// A slot that the spawner was asked for.
struct AskedSlot {
    number: Number,
    socket: OwnedFd,
    fallbacks: Vec<String>,
}

impl AskedSlot {
    /// Waits until it is ready.
    async fn ready(self) -> BackendResult<Slot> {
        let Self { number, socket, mut fallbacks } = self;
        let socket = sys::watch(socket, Interest::READABLE)
            .map_err(|e| failed("make a slot's socket", e))?;
        let (bytes, mut fds) = receive(&socket)
            .await
            .map_err(|e| gone(&format!("slot {number} ended before it was ready: {e}")))?;
        let mut from = wire::Reader(&bytes);
        if from.u64() == Some(0) {
            let own = from.list(wire::Reader::bytes).unwrap_or_default();
            fallbacks.extend(own.iter().map(|text| String::from_utf8_lossy(text).into_owned()));
            let images = fds.pop();
            let mappings = fds.pop().zip(images);
            return Ok(Slot {
                number,
                socket,
                mappings,
                fallbacks: Arc::new(fallbacks),
                request: 0,
                root: None,
                interpreters: Vec::new(),
            });
        }
        Err(match Report::decode(from.0) {
            Some(Report::Failed { step, errno }) => {
                failed(&step, io::Error::from_raw_os_error(errno))
            }
            _ => gone(&format!("slot {number} sent no answer")),
        })
    }
}

impl Slot {
    /// Whether it lives and has nothing to say: the spawner may have died and taken it along.
    fn is_idle(&self) -> bool {
        let result = wire::receive(self.socket.get_ref(), &mut [0; 8]);
        matches!(result, Err(rustix::io::Errno::AGAIN))
    }
}

/// A slot in somebody's hands. Dropping it kills what runs there and then hands the slot back.
pub(super) struct Busy {
    pub(super) inner: Arc<Inner>,
    pub(super) slot: Option<Slot>,
    /// Whether a job was sent whose report is still due.
    pub(super) running: bool,
    /// The only one that its sandbox runs on.
    pub(super) cpu: Option<Cpu>,
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Busy {
    pub(super) fn slot_mut(&mut self) -> BackendResult<&mut Slot> {
        self.slot.as_mut().ok_or_else(|| gone("slot already handed back"))
    }

    /// Returns the slot, for a request to be sent. From here on it is either heard of or given up.
    pub(super) fn request(&mut self) -> BackendResult<&mut Slot> {
        self.running = true;
        let slot = self.slot_mut()?;
        slot.request += 1;
        Ok(slot)
    }

    pub(super) fn slot(&self) -> BackendResult<&Slot> {
        self.slot.as_ref().ok_or_else(|| gone("slot already handed back"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Some(mut slot) = self.slot.take() else { return };
        if !self.running {
            self.inner.take_back(slot);
            return;
        }
        let cancel = wire::header(wire::CANCEL, slot.request);
        if wire::send(slot.socket.get_ref(), &cancel, &[]).is_err() {
            return;
        }
        let inner = Arc::clone(&self.inner);
        self.inner.runtime.spawn(async move {
            // Only a slot whose sandbox is dead makes another. A session may have more to say first.
            let report = loop {
                match receive_report(&slot).await {
                    Ok(Report::Reply(..)) => {}
                    Ok(report) => break report,
                    Err(_) => return,
                }
            };
            if matches!(report, Report::Done(done) if done.lost) {
                slot.interpreters.clear();
            }
            inner.take_back(slot);
        });
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn start_spawner(&self, state: &mut State) -> BackendResult<()> {
        let (child, socket) = spawner::start(&self.config.spawner).map_err(|e| {
            failed(&format!("start the spawner {}", self.config.spawner.display()), e)
        })?;
        let start = spawner::encode_start(self.instance.cgroups.paths());
        wire::send(&socket, &start, &[]).map_err(|e| failed("greet the spawner", e))?;
        state.free.clear();
        state.spawner = Some((child, socket));
        Ok(())
    }

    /// Returns a free slot, one that has this root if there is any, or makes one.
    pub(super) async fn slot(self: &Arc<Self>, root: &RootKey) -> BackendResult<Slot> {
        let asked = {
            let mut state = self.lock();
            let free = loop {
                let suits = |slot: &Slot| slot.root.as_ref() == Some(root);
                let place = state.free.iter().position(suits).unwrap_or(0);
                match state.free.remove(place) {
                    Some(slot) if !slot.is_idle() => {}
                    other => break other,
                }
            };
            if free.is_some() {
                state.counts.hits += 1;
            } else {
                state.counts.misses += 1;
                let SlotCounts { hits, misses, .. } = state.counts;
                if misses.is_power_of_two() {
                    info!(misses, hits, "a sandbox waits for its slot to be made");
                }
            }
            // Whoever waits comes before those that nobody waits for.
            let asked = free.is_none().then(|| self.ask_for_slot(&mut state)).transpose()?;
            self.make_spares(&mut state);
            match (free, asked) {
                (Some(slot), _) => return Ok(slot),
                (None, Some(asked)) => asked,
                (None, None) => return Err(gone("no slot was asked for")),
            }
        };
        asked.ready().await
    }

    /// Has slots made for whoever comes next, up to the low watermark, so that nobody waits for one,
    /// nor for the network namespace that a slot makes between two sandboxes.
    fn make_spares(self: &Arc<Self>, state: &mut State) {
        while state.free.len() + state.spares_coming < self.config.idle_low {
            // Whoever needs one and gets none will see the error.
            let Ok(asked) = self.ask_for_slot(state) else { return };
            state.spares_coming += 1;
            let inner = Arc::downgrade(self);
            self.runtime.spawn(async move {
                let slot = asked.ready().await;
                if let Some(inner) = inner.upgrade() {
                    let mut state = inner.lock();
                    state.spares_coming -= 1;
                    state.free.extend(slot.ok());
                }
            });
        }
    }

    /// Lets a slot rest, or ends it above the high watermark.
    fn take_back(&self, slot: Slot) {
        let mut state = self.lock();
        if state.free.len() < self.config.idle_high.max(self.config.idle_low) {
            state.free.push_back(slot);
        } else {
            state.counts.ended += 1;
        }
    }

    pub(super) fn counts(&self) -> SlotCounts {
        let state = self.lock();
        SlotCounts { idle: state.free.len(), ..state.counts }
    }

    /// Asks the spawner for another slot; starts a new spawner if that one is gone.
    fn ask_for_slot(&self, state: &mut State) -> BackendResult<AskedSlot> {
        let number = self.numbers.take().ok_or_else(|| gone("as many slots as there are ids"))?;
        let ids = self.as_root.then(|| HostIds {
            root: self.config.first_uid + self.instance.first_id - 1,
            user: self.config.first_uid + self.instance.first_id + number.get(),
        });
        let files = self
            .instance
            .cgroups
            .slot(number.get(), ids.map(|ids| ids.user))
            .map_err(|e| failed("make a slot's cgroups", e))?;
        let (ours, theirs) = wire::pair().map_err(|e| failed("make a slot's socket", e))?;
        let message = spawner::encode_slot(&NewSlot { ids, ahead: self.config.ahead }, &files);
        let mut fds = vec![theirs.as_fd()];
        fds.extend(files.fds());
        for attempt in 0..2 {
            let Some((_, socket)) = &state.spawner else { break };
            match wire::send(socket, &message, &fds) {
                Ok(()) => {
                    let fallbacks = self.instance.cgroups.fallbacks.clone();
                    return Ok(AskedSlot { number, socket: ours, fallbacks });
                }
                Err(e) if attempt == 0 => {
                    warn!(error = %e, "the spawner is gone; starting another");
                    self.start_spawner(state)?;
                }
                Err(e) => return Err(gone(&format!("spawner: {e}"))),
            }
        }
        Err(gone("no spawner"))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((mut child, socket)) = state.spawner.take() {
            // It kills its slots and removes the cgroups.
            drop(socket);
            let _ = child.wait();
        }
    }
}

/// Receives one datagram. Cancel safe.
async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; wire::MAX_DATAGRAM];
    loop {
        let mut guard = socket.readable().await?;
        match wire::receive(socket.get_ref(), &mut buffer) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((length, fds)) => {
                buffer.truncate(length);
                return Ok((buffer, fds));
            }
            Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Receives what became of the last request. Cancel safe.
pub(super) async fn receive_report(slot: &Slot) -> io::Result<Report> {
    loop {
        let (bytes, _) = receive(&slot.socket).await?;
        let mut from = wire::Reader(&bytes);
        match from.u64() {
            Some(request) if request == slot.request => {
                return Report::decode(from.0).ok_or_else(|| io::ErrorKind::InvalidData.into());
            }
            Some(request) if request < slot.request => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
