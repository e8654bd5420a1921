//! One episode: its session, its shell, its steps.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use assay_sandbox::{LimitKind, Over, Session, SessionSpec, Snapshot};
use tokio::{sync::OnceCell, task::AbortHandle, time::Instant};
use tracing::{Instrument as _, info_span};

use super::{
    Ended, EpisodeError, EpisodeId, Opening, Order, StepId, Submitted,
    driver::Driver,
    shell::ShellState,
    step::{Follow, Step},
    submit::HandedIn,
};
use crate::evaluator::Workplace;

/// Output of steps that is kept for those who ask again. Beyond, the oldest is forgotten.
const KEPT_BYTES: usize = 64 << 20;
/// Most bytes of the states that are to be scored. Beyond, a step's is not known.
const SCORED_BYTES: usize = 64 << 20;
/// Most snapshots of an episode.
const SNAPSHOTS: usize = 8;
/// What a sandbox's lease has beyond the episode's, which ends it in order.
const LEASE_EXTRA: Duration = Duration::from_secs(30);

/// An agent at work on a task.
#[derive(Debug)]
pub struct Episode {
    opening: Opening,
    parent: Option<EpisodeId>,
    pub(super) workplace: Workplace,
    state: Mutex<State>,
    pub(super) handed_in: OnceCell<HandedIn>,
    pub(super) submitted: OnceCell<Submitted>,
}

#[derive(Debug)]
struct State {
    /// Gone when it is closed or handed in.
    session: Option<Arc<dyn Session>>,
    is_handed_in: bool,
    touched: Instant,
    beaten: Instant,
    /// Calls that go on, however long they take.
    holds: usize,
    shell: ShellState,
    steps: HashMap<StepId, Arc<Step>>,
    /// In order of their start.
    order: VecDeque<StepId>,
    running: Option<(Arc<Step>, AbortHandle)>,
    /// Steps that this episode and those that it was forked from have taken.
    taken: u32,
    /// Whether the last one was starved.
    is_starved: bool,
    snapshots: BTreeMap<String, Frozen>,
}

/// An episode at one moment.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    snapshot: Snapshot,
    shell: ShellState,
    taken: u32,
}

/// Where a fork comes from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) parent: EpisodeId,
    pub(super) frozen: Frozen,
}

impl Episode {
    pub(super) async fn open(
        opening: Opening,
        workplace: Workplace,
        from: Option<Origin>,
    ) -> Result<Self, EpisodeError> {
        let (parent, frozen) = from.map(|from| (from.parent, from.frozen)).unzip();
        let spec = SessionSpec {
            sandbox: workplace.spec.clone(),
            from: frozen.as_ref().map(|frozen| frozen.snapshot.clone()),
            lease: opening.lease.saturating_mul(2).saturating_add(LEASE_EXTRA),
        };
        let session = Arc::from(workplace.backend.open(spec).await?);
        let now = Instant::now();
        let state = State {
            session: Some(session),
            is_handed_in: false,
            touched: now,
            beaten: now,
            holds: 0,
            shell: frozen.as_ref().map(|frozen| frozen.shell.clone()).unwrap_or_default(),
            steps: HashMap::new(),
            order: VecDeque::new(),
            running: None,
            taken: frozen.map_or(0, |frozen| frozen.taken),
            is_starved: false,
            snapshots: BTreeMap::new(),
        };
        Ok(Self {
            opening,
            parent,
            workplace,
            state: Mutex::new(state),
            handed_in: OnceCell::new(),
            submitted: OnceCell::new(),
        })
    }

    /// Returns what it was opened with.
    #[must_use]
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Returns the episode that it was forked from.
    #[must_use]
    pub fn parent(&self) -> Option<&EpisodeId> {
        self.parent.as_ref()
    }

    /// Returns where its work tree is, inside.
    #[must_use]
    pub fn workdir(&self) -> &Path {
        &self.workplace.spec.workdir
    }

    /// Returns how many steps it may still take.
    #[must_use]
    pub fn steps_left(&self) -> u32 {
        self.opening.max_steps.saturating_sub(self.lock().taken)
    }

    /// Does a step, or returns one that was done or is being done under this id.
    ///
    /// # Errors
    ///
    /// [`EpisodeError::Conflict`] when the id stands for another step, [`EpisodeError::Busy`] while
    /// another runs, [`EpisodeError::OutOfSteps`].
    pub fn exec(self: &Arc<Self>, id: StepId, order: Order) -> Result<Follow, EpisodeError> {
        let mut state = self.lock();
        if let Some(known) = state.steps.get(&id) {
            return match known.is(&order) {
                true => Ok(Follow::of(known)),
                false => Err(EpisodeError::Conflict { id: id.to_string() }),
            };
        }
        let session = state.session()?;
        if let Some((running, _)) = &state.running {
            return Err(EpisodeError::Busy { step: running.id.clone() });
        }
        if state.taken >= self.opening.max_steps {
            return Err(EpisodeError::OutOfSteps { max: self.opening.max_steps });
        }
        state.taken += 1;
        let step = Arc::new(Step::new(id.clone(), &order));
        let span = info_span!("step", episode_id = %self.opening.id, step_id = %id);
        let driver = Driver { episode: Arc::clone(self), step: Arc::clone(&step), order };
        let driver = tokio::spawn(driver.run(session, state.shell.clone()).instrument(span));
        state.running = Some((Arc::clone(&step), driver.abort_handle()));
        state.steps.insert(id.clone(), Arc::clone(&step));
        state.order.push_back(id);
        Ok(Follow::of(&step))
    }

    /// Sends a signal to a step that runs, or to every process of the sandbox.
    ///
    /// # Errors
    ///
    /// [`EpisodeError::NoStep`]; a step that has ended is no error.
    pub async fn signal(&self, step: Option<&StepId>, signal: i32) -> Result<(), EpisodeError> {
        let (session, process) = {
            let state = self.lock();
            let process = match step {
                None => Some(0),
                Some(id) => {
                    let no_step = || EpisodeError::NoStep { step: id.clone() };
                    state.steps.get(id).ok_or_else(no_step)?.process()
                }
            };
            (state.session()?, process)
        };
        if let Some(process) = process {
            session.signal(process, signal).await?;
        }
        Ok(())
    }

    /// Reads a file; see [`Session::read`].
    ///
    /// # Errors
    ///
    /// [`SessionError::File`] says what is wrong with it.
    pub async fn read(
        &self,
        path: &Path,
        offset: u64,
        most: usize,
    ) -> Result<(Vec<u8>, u64), EpisodeError> {
        let session = self.lock().session()?;
        Ok(session.read(path, offset, most).await?)
    }

    /// Writes a file; see [`Session::write`].
    ///
    /// # Errors
    ///
    /// [`SessionError::File`] says what is wrong with it.
    pub async fn write(
        &self,
        path: &Path,
        content: Arc<[u8]>,
        executable: bool,
    ) -> Result<(), EpisodeError> {
        let session = self.lock().session()?;
        Ok(session.write(path, content, executable).await?)
    }

    /// Makes all its processes stand still, or go on.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`](assay_sandbox::BackendError) where the host can't.
    pub async fn pause(&self, pause: bool) -> Result<(), EpisodeError> {
        let session = self.lock().session()?;
        if pause {
            session.pause().await?
        } else {
            session.resume().await?
        }
        Ok(())
    }

    /// Keeps what it is now under a name; returns the size in bytes. The same name is kept once.
    ///
    /// # Errors
    ///
    /// [`EpisodeError::Busy`] while a step runs.
    pub async fn snapshot(&self, name: &str) -> Result<u64, EpisodeError> {
        {
            let state = self.lock();
            if let Some(known) = state.snapshots.get(name) {
                return Ok(known.snapshot.bytes());
            }
            if state.snapshots.len() >= SNAPSHOTS {
                return Err(EpisodeError::TooManySnapshots { most: SNAPSHOTS });
            }
        }
        let frozen = self.freeze().await?;
        let bytes = frozen.snapshot.bytes();
        self.lock().snapshots.insert(name.to_owned(), frozen);
        Ok(bytes)
    }

    /// Returns what it was when a snapshot of this name was made.
    pub(super) fn frozen(&self, name: &str) -> Result<Frozen, EpisodeError> {
        let none = || EpisodeError::NoSnapshot { name: name.to_owned() };
        self.lock().snapshots.get(name).cloned().ok_or_else(none)
    }

    /// Returns what it is now.
    pub(super) async fn freeze(&self) -> Result<Frozen, EpisodeError> {
        let _held = self.hold();
        let (session, shell, taken) = {
            let state = self.lock();
            if let Some((running, _)) = &state.running {
                return Err(EpisodeError::Busy { step: running.id.clone() });
            }
            (state.session()?, state.shell.clone(), state.taken)
        };
        Ok(Frozen { snapshot: session.snapshot().await?, shell, taken })
    }

    /// Returns the session of an episode that is to be handed in, how many steps it took and why it
    /// ends. From now on it takes no more.
    pub(super) fn retire(&self) -> Result<(Arc<dyn Session>, u32, Ended), EpisodeError> {
        let mut state = self.lock();
        // Asked again because the first who asked hung up.
        let session = state.session.clone().ok_or(EpisodeError::Submitted)?;
        state.is_handed_in = true;
        let ended = match session.over() {
            Some(over @ (Over::Limit(_) | Over::Broken)) => Ended::Over(over),
            _ if state.is_starved => Ended::Over(Over::Limit(LimitKind::WallStarved)),
            _ if state.taken >= self.opening.max_steps => Ended::OutOfSteps,
            _ => Ended::Submitted,
        };
        Ok((session, state.taken, ended))
    }

    /// Returns the end states that steps left which are to be scored.
    pub(super) fn scored_steps(&self) -> Vec<(StepId, Option<String>)> {
        let state = self.lock();
        let steps = state.order.iter().filter_map(|id| state.steps.get(id));
        let scored = steps.filter(|step| step.is_scored);
        scored.map(|step| (step.id.clone(), step.patch.get().cloned())).collect()
    }

    /// Ends its sandbox and whatever runs in it.
    pub(super) fn free(&self) {
        let mut state = self.lock();
        if let Some((step, driver)) = state.running.take() {
            driver.abort();
            drop(state);
            step.end(Err("the episode ended".into()));
            state = self.lock();
        }
        state.session = None;
        state.snapshots.clear();
    }

    /// Renews the lease.
    pub(super) fn touch(&self) {
        self.lock().touched = Instant::now();
    }

    /// Keeps the lease from running out until the hold is dropped.
    pub(super) fn hold(&self) -> Hold<'_> {
        self.lock().holds += 1;
        Hold(self)
    }

    /// Looks at the lease; `None` when it has run out. Else returns what renews the sandbox's, if
    /// that is due.
    pub(super) fn look(
        self: &Arc<Self>,
        now: Instant,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let mut state = self.lock();
        if state.running.is_some() || state.holds > 0 {
            state.touched = now;
        }
        if now.duration_since(state.touched) > self.opening.lease {
            return None;
        }
        let due = now.duration_since(state.beaten) > self.opening.lease / 2;
        let session = state.session.clone().filter(|_| due);
        if due {
            state.beaten = now;
        }
        Some(async move {
            if let Some(session) = session {
                let _ = session.heartbeat().await;
            }
        })
    }

    /// Why it is forgotten when nobody calls it.
    pub(super) fn why_forgotten(&self) -> Ended {
        if self.lock().is_handed_in { Ended::Submitted } else { Ended::Lease }
    }

    /// Notes that its step ended, and the shell that it left. One that was starved doesn't count.
    pub(super) fn step_ended(&self, shell: Option<ShellState>, is_starved: bool) {
        let mut state = self.lock();
        state.touched = Instant::now();
        state.running = None;
        state.taken -= u32::from(is_starved);
        state.is_starved = is_starved;
        if let Some(shell) = shell {
            state.shell = shell;
        }
    }

    /// Keeps the end state that a step left, as a diff, if there is room for it.
    pub(super) fn keep_patch(&self, step: &Step, patch: String) {
        let state = self.lock();
        let patches = state.steps.values().filter_map(|step| step.patch.get());
        if patches.map(String::len).sum::<usize>() + patch.len() <= SCORED_BYTES {
            let _ = step.patch.set(patch);
        }
    }

    /// Forgets the output of the oldest steps when there is too much.
    pub(super) fn forget(&self) {
        self.lock().forget();
    }

    /// Whether it is what this would open.
    pub(super) fn is(&self, opening: &Opening, from: Option<&Origin>) -> bool {
        self.opening == *opening && self.parent.as_ref() == from.map(|from| &from.parent)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that goes on.
pub(super) struct Hold<'e>(&'e Episode);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.holds -= 1;
        state.touched = Instant::now();
    }
}

impl State {
    fn session(&self) -> Result<Arc<dyn Session>, EpisodeError> {
        let session = self.session.clone().filter(|_| !self.is_handed_in);
        session.ok_or(EpisodeError::Submitted)
    }

    fn forget(&mut self) {
        let steps = self.order.iter().rev().filter_map(|id| self.steps.get(id));
        let mut kept = 0;
        for step in steps {
            kept += step.bytes();
            if kept > KEPT_BYTES {
                step.forget();
            }
        }
    }
}
