//! Requests without an answer, in memory. The writer thread adds and answers them, in the order
//! of its commits; workers take them; anybody cancels them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    EndedInQueue, Evaluation, EvaluationResult, Lease, OnDisconnect, RequestId, Selector, Stats,
    Ticket, queue::HangUp, schedule::Schedule,
};

/// A result that comes, or came.
pub(crate) type ResultWatch = watch::Receiver<Option<Arc<EvaluationResult>>>;

#[derive(Debug)]
pub(crate) struct State {
    inner: Mutex<Inner>,
    /// There may be work for a worker.
    work: Notify,
    /// Work may have ended in the queue, or the next deadline may be another.
    ended: Notify,
    /// A result was stored.
    stored: Notify,
    capacity: usize,
    capacity_bytes: u64,
}

#[derive(Debug, Default)]
struct Inner {
    live: HashMap<RequestId, Live>,
    schedule: Schedule<Lease>,
    cancelled: Vec<Lease>,
    runs: HashMap<String, Run>,
    /// Of the submissions in `live`.
    bytes: u64,
    /// The counts in it.
    stats: Stats,
    closed: bool,
}

/// What the queue may still take. Only the writer thread makes it less.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) unanswered: usize,
    pub(crate) capacity: usize,
    /// Of submissions.
    pub(crate) bytes: u64,
}

impl Room {
    /// Takes the room of `new` requests with `bytes` of submissions, if there is as much. One
    /// alone always fits: it will be too large for its task, and is better told so.
    pub(crate) fn take(&mut self, new: usize, bytes: u64) -> bool {
        let alone = self.unanswered + new == 1;
        let fits = self.unanswered + new <= self.capacity && (bytes <= self.bytes || alone);
        if fits {
            self.unanswered += new;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        fits
    }
}

#[derive(Debug)]
struct Live {
    evaluation: Arc<Evaluation>,
    cancelled: CancellationToken,
    result: watch::Sender<Option<Arc<EvaluationResult>>>,
}

/// What is known of a run without asking the database.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    pending: usize,
    /// Of the last stored result; `None` before the first one since the start.
    sequence: Option<u64>,
}

impl State {
    pub(crate) fn new(capacity: usize, capacity_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            work: Notify::new(),
            ended: Notify::new(),
            stored: Notify::new(),
            capacity: capacity.max(1),
            capacity_bytes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that holds it panics half way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> Stats {
        let inner = self.lock();
        Stats {
            queued: inner.schedule.len(),
            unanswered: inner.live.len(),
            capacity: self.capacity,
            ..inner.stats
        }
    }

    /// Returns what may still be added.
    pub(crate) fn room(&self) -> Room {
        let inner = self.lock();
        Room {
            unanswered: inner.live.len(),
            capacity: self.capacity,
            bytes: self.capacity_bytes.saturating_sub(inner.bytes),
        }
    }

    /// Adds a request that was journaled, unless it is there already, and returns a ticket for it.
    pub(crate) fn add(self: &Arc<Self>, evaluation: Evaluation) -> Ticket {
        let id = evaluation.request_id.clone();
        let mut inner = self.lock();
        if !inner.live.contains_key(&id) {
            inner.add(Arc::new(evaluation));
            self.work.notify_waiters();
            self.ended.notify_waiters();
        }
        let ticket = inner.live.get(&id).map(|live| self.watch(live));
        drop(inner);
        // It was added above if it was not there.
        ticket.unwrap_or_else(|| unreachable!("`{id}` was just added"))
    }

    /// Returns a ticket for a request without an answer.
    pub(crate) fn ticket(self: &Arc<Self>, id: &RequestId) -> Option<Ticket> {
        self.lock().live.get(id).map(|live| self.watch(live))
    }

    fn watch(self: &Arc<Self>, live: &Live) -> Ticket {
        let cancels = live.evaluation.on_disconnect == OnDisconnect::Cancel;
        let hang_up: Arc<dyn HangUp> = Arc::clone(self) as _;
        let id = live.evaluation.request_id.clone();
        Ticket::pending(id, live.result.subscribe(), hang_up, cancels)
    }

    /// Shows a stored result to everybody who waits for it.
    pub(crate) fn answer(&self, result: &Arc<EvaluationResult>) {
        let mut inner = self.lock();
        if let Some(live) = inner.forget(&result.request_id) {
            live.result.send_replace(Some(Arc::clone(result)));
            inner.stats.count(result.outcome, result.cached);
        }
        let run = inner.runs.entry(result.run_id.clone()).or_default();
        run.sequence = run.sequence.max(Some(result.sequence));
        drop(inner);
        self.stored.notify_waiters();
    }

    /// Drops a request without an answer: whoever waits for it is told that the fleet stopped.
    pub(crate) fn abandon(&self, id: &RequestId) {
        let mut inner = self.lock();
        if inner.forget(id).is_some() {
            inner.stats.requested -= 1;
        }
    }

    pub(crate) async fn ready(&self) {
        loop {
            let mut changed = std::pin::pin!(self.work.notified());
            changed.as_mut().enable();
            {
                let inner = self.lock();
                if !inner.closed && inner.schedule.len() > 0 {
                    return;
                }
            }
            changed.await;
        }
    }

    pub(crate) fn lease(&self) -> Option<Lease> {
        let mut inner = self.lock();
        if inner.closed { None } else { inner.schedule.pop() }
    }

    pub(crate) async fn ended(&self) -> Vec<(Lease, EndedInQueue)> {
        loop {
            let mut changed = std::pin::pin!(self.ended.notified());
            changed.as_mut().enable();
            let next = {
                let mut inner = self.lock();
                let late = inner.schedule.expired(Instant::now());
                let cancelled = std::mem::take(&mut inner.cancelled);
                let ended: Vec<_> = late
                    .into_iter()
                    .map(|lease| (lease, EndedInQueue::DeadlineExceeded))
                    .chain(cancelled.into_iter().map(|lease| (lease, EndedInQueue::Cancelled)))
                    .collect();
                if !ended.is_empty() {
                    return ended;
                }
                inner.schedule.next_deadline()
            };
            match next {
                Some(deadline) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(deadline) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    pub(crate) fn cancel(&self, selector: &Selector) -> usize {
        let mut inner = self.lock();
        let ids: Vec<RequestId> = match selector {
            Selector::Requests(ids) => ids.clone(),
            Selector::Group { run_id, group_id } => inner.select(|e| {
                e.group_id == *group_id && run_id.as_ref().is_none_or(|run| e.run_id == *run)
            }),
            Selector::Run(run_id) => inner.select(|e| e.run_id == *run_id),
        };
        let count = ids.iter().filter(|id| inner.cancel(id)).count();
        drop(inner);
        self.ended.notify_waiters();
        count
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.stored.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Drops every request without an answer, and returns how many they were.
    pub(crate) fn release(&self) -> usize {
        let mut inner = self.lock();
        let ids: Vec<RequestId> = inner.live.keys().cloned().collect();
        for id in &ids {
            inner.forget(id);
        }
        inner.stats.requested -= ids.len() as u64;
        ids.len()
    }

    /// Waits until a result with a sequence above `cursor` was stored; `false` when none will be.
    /// Cancel safe.
    pub(crate) async fn stored_after(&self, run_id: &str, cursor: u64) -> bool {
        loop {
            let mut changed = std::pin::pin!(self.stored.notified());
            changed.as_mut().enable();
            {
                let inner = self.lock();
                let known = inner.runs.get(run_id).and_then(|run| run.sequence);
                if known.is_some_and(|sequence| sequence > cursor) {
                    return true;
                }
                if inner.closed {
                    return false;
                }
            }
            changed.await;
        }
    }

    pub(crate) fn pending(&self, run_id: &str) -> usize {
        self.lock().runs.get(run_id).map_or(0, |run| run.pending)
    }

    /// Forgets what the database knows as well.
    pub(crate) fn tidy(&self) {
        self.lock().runs.retain(|_, run| run.pending > 0);
    }
}

impl HangUp for State {
    fn hang_up(&self, id: &RequestId, result: ResultWatch) {
        let mut inner = self.lock();
        // Dropped while we hold the lock: of two tickets dropped at once, one is the last.
        drop(result);
        let last = inner.live.get(id).is_some_and(|live| live.result.receiver_count() == 0);
        // A service that stops drops its clients' tickets; that is no hang-up of theirs.
        if last && !inner.closed && inner.cancel(id) {
            drop(inner);
            self.ended.notify_waiters();
        }
    }
}

impl Inner {
    fn add(&mut self, evaluation: Arc<Evaluation>) {
        let cancelled = CancellationToken::new();
        let now = Instant::now();
        let lease = Lease {
            evaluation: Arc::clone(&evaluation),
            accepted: now,
            deadline: evaluation.deadline.and_then(|deadline| now.checked_add(until(deadline))),
            cancelled: cancelled.clone(),
        };
        let (id, priority, deadline) =
            (evaluation.request_id.clone(), evaluation.priority, lease.deadline);
        self.stats.requested += 1;
        self.bytes += evaluation.submission.len();
        self.runs.entry(evaluation.run_id.clone()).or_default().pending += 1;
        self.live
            .insert(id.clone(), Live { evaluation, cancelled, result: watch::channel(None).0 });
        // What is not live doesn't wait, so this id is not taken.
        let _ = self.schedule.push(id, priority, deadline, lease);
    }

    fn forget(&mut self, id: &RequestId) -> Option<Live> {
        let live = self.live.remove(id)?;
        self.schedule.remove(id);
        self.bytes -= live.evaluation.submission.len();
        if let Some(run) = self.runs.get_mut(&live.evaluation.run_id) {
            run.pending = run.pending.saturating_sub(1);
        }
        Some(live)
    }

    fn select(&self, wanted: impl Fn(&Evaluation) -> bool) -> Vec<RequestId> {
        self.live
            .iter()
            .filter(|(_, live)| wanted(&live.evaluation))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Returns whether there was something to cancel.
    fn cancel(&mut self, id: &RequestId) -> bool {
        let Some(live) = self.live.get(id) else { return false };
        if live.cancelled.is_cancelled() {
            return false;
        }
        live.cancelled.cancel();
        self.cancelled.extend(self.schedule.remove(id));
        true
    }
}

/// How long until `time`; nothing when it has passed.
fn until(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::now()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use assay_repos::Submission;

    use super::*;

    fn request(name: &str) -> Evaluation {
        let submission = Submission::Source(String::new());
        Evaluation::new(name.parse().unwrap(), "t".parse().unwrap(), submission)
    }

    fn due(name: &str, seconds: u64) -> Evaluation {
        let deadline = Some(SystemTime::now() + Duration::from_secs(seconds));
        Evaluation { deadline, ..request(name) }
    }

    fn names(ended: &[(Lease, EndedInQueue)]) -> Vec<&str> {
        ended.iter().map(|(lease, _)| lease.evaluation.request_id.as_str()).collect()
    }

    #[test]
    fn the_queue_is_bounded_by_requests_and_by_bytes() {
        // (name, in the queue, bytes that are free, new requests, their bytes, whether they fit)
        let cases = [
            ("fits", 1, 100, 2, 100, true),
            ("one too many", 1, 100, 3, 0, false),
            ("one byte too many", 1, 100, 2, 101, false),
            ("too large, but alone", 0, 100, 1, 101, true),
            ("too large in company", 0, 100, 2, 101, false),
            ("nothing new in a full queue", 3, 0, 0, 0, true),
        ];
        for (name, unanswered, bytes, new, new_bytes, fits) in cases {
            let mut room = Room { unanswered, capacity: 3, bytes };
            assert_eq!(room.take(new, new_bytes), fits, "{name}");
            assert_eq!(room.unanswered, unanswered + if fits { new } else { 0 }, "{name}");
        }
        let state = State::new(3, 100);
        drop(
            state
                .add(Evaluation { submission: Submission::Source("x".repeat(60)), ..request("a") }),
        );
        assert_eq!((state.room().bytes, state.room().unanswered), (40, 1));
        state.abandon(&"a".parse().unwrap());
        assert_eq!((state.room().bytes, state.room().unanswered), (100, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_end_requests_when_they_come_and_not_before() {
        let state = State::new(10, u64::MAX);
        let start = Instant::now();
        for (name, seconds) in [("c", 30), ("a", 10), ("b", 20)] {
            drop(state.add(due(name, seconds)));
        }
        drop(state.add(request("never")));
        // A worker has it before its deadline: the end is the worker's to see.
        drop(state.add(due("leased", 5)));
        assert_eq!(state.inner.lock().unwrap().schedule.len(), 5);
        for (name, seconds) in [("leased", 5), ("a", 10), ("b", 20)] {
            let ended = state.ended().await;
            assert_eq!(names(&ended), [name]);
            assert_eq!(ended[0].1, EndedInQueue::DeadlineExceeded);
            // The clock of deadlines is the system's, which didn't stop meanwhile.
            let late = start.elapsed().abs_diff(Duration::from_secs(seconds));
            assert!(late < Duration::from_millis(500), "{name} was {late:?} off");
        }
        // Another that comes meanwhile and ends earlier is seen.
        let (ended, ()) = tokio::join!(state.ended(), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(state.add(due("d", 2)));
        });
        assert_eq!(names(&ended), ["d"]);
        assert!(start.elapsed() < Duration::from_secs(25));
        assert_eq!(names(&state.ended().await), ["c"]);
        let forever = tokio::time::timeout(Duration::from_secs(1 << 20), state.ended()).await;
        assert!(forever.is_err(), "a request without a deadline ended");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_told_of_work_that_is_not_there() {
        let state = State::new(10, u64::MAX);
        let idle = async |state: &State| {
            tokio::time::timeout(Duration::from_secs(60), state.ready()).await.is_err()
        };
        assert!(idle(&state).await);
        drop(state.add(request("a")));
        assert!(!idle(&state).await);
        assert!(state.lease().is_some());
        assert!(state.lease().is_none(), "handed out twice");
        assert!(idle(&state).await);
        let (ready, ()) = tokio::join!(idle(&state), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(state.add(request("b")));
        });
        assert!(!ready, "work came and nobody was told");
        state.close();
        assert!(idle(&state).await, "a closed queue hands out work");
        assert!(state.lease().is_none());
    }
}
