//! One step: done once, told to whoever asks, as often as they ask.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use assay_sandbox::Stream;
use tokio::sync::watch;

use super::{EpisodeError, Order, StepEnd, StepId};

/// What a step did.
#[derive(Clone, Debug)]
pub enum StepEvent {
    /// It wrote these bytes.
    Output(Stream, Arc<[u8]>),
    /// It ended.
    Ended(Arc<StepEnd>),
    /// It was lost by a fault of ours, or with the episode: why, as a sentence.
    Lost(Arc<str>),
}

/// A step of an episode.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) id: StepId,
    pub(super) order: Order,
    log: Mutex<Log>,
    changed: watch::Sender<()>,
    /// Its command's number in the session, once there is one.
    process: AtomicU64,
    /// The end state after it, as a diff, where that was asked for.
    pub(super) patch: OnceLock<String>,
}

#[derive(Debug, Default)]
struct Log {
    events: Vec<StepEvent>,
    is_over: bool,
    is_forgotten: bool,
}

impl Step {
    pub(super) fn new(id: StepId, order: Order) -> Self {
        Self {
            id,
            order,
            log: Mutex::default(),
            changed: watch::channel(()).0,
            process: AtomicU64::new(0),
            patch: OnceLock::new(),
        }
    }

    pub(super) fn set_process(&self, number: u64) {
        self.process.store(number, Ordering::SeqCst);
    }

    /// Returns the number of its command.
    pub(super) fn process(&self) -> Option<u64> {
        Some(self.process.load(Ordering::SeqCst)).filter(|number| *number != 0)
    }

    /// Notes what it did. Nothing comes after its end.
    pub(super) fn push(&self, event: StepEvent) {
        let mut log = self.lock();
        if !log.is_over {
            log.is_over = !matches!(event, StepEvent::Output(..));
            log.events.push(event);
            drop(log);
            self.changed.send_replace(());
        }
    }

    /// Returns how many bytes of output it keeps.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |event: &StepEvent| match event {
            StepEvent::Output(_, bytes) => bytes.len(),
            StepEvent::Ended(end) => {
                let captures = [&end.stdout, &end.stderr];
                captures.iter().map(|capture| capture.head.len() + capture.tail.len()).sum()
            }
            StepEvent::Lost(_) => 0,
        };
        self.lock().events.iter().map(bytes).sum()
    }

    /// Forgets what it did, but not that it was done.
    pub(super) fn forget(&self) {
        let mut log = self.lock();
        (log.events, log.is_forgotten) = (Vec::new(), true);
        drop(log);
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a step did, from its start on.
#[derive(Debug)]
pub struct Follow {
    step: Arc<Step>,
    changed: watch::Receiver<()>,
    at: usize,
    is_over: bool,
}

impl Follow {
    pub(super) fn of(step: &Arc<Step>) -> Self {
        let changed = step.changed.subscribe();
        Self { step: Arc::clone(step), changed, at: 0, is_over: false }
    }

    /// Waits for what comes next; `None` behind the end. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`EpisodeError::Forgotten`] for a step of long ago.
    pub async fn next(&mut self) -> Result<Option<StepEvent>, EpisodeError> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            {
                let log = self.step.lock();
                if log.is_forgotten {
                    return Err(EpisodeError::Forgotten { step: self.step.id.clone() });
                }
                if let Some(event) = log.events.get(self.at) {
                    self.at += 1;
                    self.is_over = !matches!(event, StepEvent::Output(..));
                    return Ok(Some(event.clone()));
                }
            }
            // The step is ours, and with it the sender.
            let _ = self.changed.changed().await;
        }
    }
}
