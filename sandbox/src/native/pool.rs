//! The slots of a backend: made when needed, handed out, taken back.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::{debug, info, warn};

use super::{
    NativeConfig,
    cpus::{Cpu, Cpus},
    failed, gone,
    instance::Instance,
    job::Report,
    number::{Number, Numbers},
    rooted::{self, RootKey},
    run::send_cancel,
    slot::HostIds,
    spawner::{self, NewSlot},
    sys, wire,
};
use crate::{
    BackendResult,
    idle::Idle,
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

pub(super) struct State {
    spawner: Option<(std::process::Child, OwnedFd)>,
    free: Idle<Slot>,
    /// How many slots are being made that nobody waits for.
    spares_coming: usize,
    /// The roots that slots make for nobody yet.
    roots_coming: Vec<RootKey>,
    counts: SlotCounts,
}

impl State {
    pub(super) fn new(config: &NativeConfig) -> Self {
        Self {
            spawner: None,
            free: Idle::new(config.idle_high.max(config.idle_low), config.max_sandboxes),
            spares_coming: 0,
            roots_coming: Vec::new(),
            counts: SlotCounts::default(),
        }
    }

    /// Takes a slot that has this root, or else the one that has rested longest. Of several it is one
    /// that has most interpreters, and of those the one that has rested longest: others may still
    /// prepare for their next sandbox.
    fn take(&mut self, root: &RootKey) -> Option<Slot> {
        let suits = |slot: &Slot| slot.has(root).then_some(slot.interpreters.len());
        let most = self.free.iter().filter_map(suits).max();
        let best = |most| self.free.iter().position(|slot| suits(slot) == Some(most));
        self.free.take(most.and_then(best).unwrap_or(0))
    }
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
    /// Slots that were ended because more than [`idle_high`](NativeConfig::idle_high) rested for a
    /// while.
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

    fn has(&self, root: &RootKey) -> bool {
        self.root.as_ref() == Some(root)
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
    /// For a sandbox.
    pub(super) _permit: Option<OwnedSemaphorePermit>,
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
        if send_cancel(&slot).is_err() {
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

    /// Returns a free slot, one that has this root if there is any, or makes one. `image` is the
    /// root's.
    pub(super) async fn slot(
        self: &Arc<Self>,
        root: &RootKey,
        image: &Arc<[PathBuf]>,
    ) -> BackendResult<Slot> {
        let asked = {
            let mut state = self.lock();
            let free = loop {
                match state.take(root) {
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
            // Not when it is used for the first time: often that is the last.
            if free.as_ref().is_some_and(|slot| slot.has(root)) {
                self.root_another(&mut state, root, image);
            }
            self.make_spares(&mut state);
            match (free, asked) {
                (Some(slot), _) => return Ok(slot),
                (None, Some(asked)) => asked,
                (None, None) => return Err(gone("no slot was asked for")),
            }
        };
        asked.ready().await
    }

    /// Has a slot without a root make this one, unless as many as the low watermark rest that have
    /// it: they prepare their next sandboxes while another has one.
    fn root_another(self: &Arc<Self>, state: &mut State, root: &RootKey, image: &Arc<[PathBuf]>) {
        let rest = state.free.iter().filter(|slot| slot.has(root)).count();
        let coming = state.roots_coming.iter().filter(|coming| *coming == root).count();
        let is_full = state.free.iter().len() + coming >= self.config.idle_high;
        if rest + coming >= self.config.idle_low || is_full || !self.config.ahead {
            return;
        }
        let blank = state.free.iter().position(|slot| slot.root.is_none());
        let blank = blank.and_then(|place| state.free.take(place));
        let asked = match blank {
            Some(_) => None,
            None => match self.ask_for_slot(state) {
                Ok(asked) => Some(asked),
                // Whoever needs one and gets none will see the error.
                Err(_) => return,
            },
        };
        state.roots_coming.push(root.clone());
        let (inner, root, image) = (Arc::downgrade(self), root.clone(), Arc::clone(image));
        self.runtime.spawn(async move {
            let slot = match asked {
                Some(asked) => asked.ready().await.ok(),
                None => blank,
            };
            // What is left to wait for ends with the slot.
            let Some(inner) = inner.upgrade() else { return };
            let mut busy =
                Busy { inner: Arc::clone(&inner), slot, running: false, cpu: None, _permit: None };
            if let Err(e) = rooted::ensure(&mut busy, root.clone(), &image).await {
                debug!(error = %e, "no other slot has the root");
            }
            let mut state = inner.lock();
            let place = state.roots_coming.iter().position(|coming| *coming == root);
            place.map(|place| state.roots_coming.swap_remove(place));
        });
    }

    /// Has slots made for whoever comes next, up to the low watermark, so that nobody waits for one,
    /// nor for the network namespace that a slot makes between two sandboxes.
    fn make_spares(self: &Arc<Self>, state: &mut State) {
        while state.free.iter().len() + state.spares_coming < self.config.idle_low {
            // Whoever needs one and gets none will see the error.
            let Ok(asked) = self.ask_for_slot(state) else { return };
            state.spares_coming += 1;
            let inner = Arc::downgrade(self);
            self.runtime.spawn(async move {
                let slot = asked.ready().await;
                if let Some(inner) = inner.upgrade() {
                    inner.lock().spares_coming -= 1;
                    if let Ok(slot) = slot {
                        inner.take_back(slot);
                    }
                }
            });
        }
    }

    /// Lets a slot rest.
    fn take_back(self: &Arc<Self>, slot: Slot) {
        let mut state = self.lock();
        let (gone, begins) = state.free.put(slot);
        state.counts.ended += u64::from(gone.is_some());
        drop(state);
        if begins {
            let (inner, needless) = (Arc::downgrade(self), self.config.needless);
            self.runtime.spawn(async move {
                loop {
                    tokio::time::sleep(needless).await;
                    let Some(inner) = inner.upgrade() else { return };
                    let mut state = inner.lock();
                    let (needless, goes_on) = state.free.needless();
                    state.counts.ended += needless.len() as u64;
                    if !goes_on {
                        return;
                    }
                }
            });
        }
    }

    pub(super) fn counts(&self) -> SlotCounts {
        let state = self.lock();
        SlotCounts { idle: state.free.iter().len(), ..state.counts }
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
