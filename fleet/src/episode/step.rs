//! One step: done once, told to whoever asks, as often as they ask.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use assay_repos::Digest;
use assay_sandbox::Stream;
use tokio::sync::watch;

use super::{EpisodeError, Order, Runs, StepEnd, StepId};

/// What a step did.
#[derive(Clone, Debug)]
pub enum StepEvent {
    /// It wrote these bytes.
    Output(Stream, Vec<u8>),
    /// It ended.
    Ended(Arc<StepEnd>),
    /// It was lost by a fault of ours, or with the episode: why, as a sentence.
    Lost(Arc<str>),
}

/// A step of an episode.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) id: StepId,
    /// Of what was ordered.
    order: Digest,
    pub(super) is_scored: bool,
    log: Mutex<Log>,
    changed: watch::Sender<()>,
    /// Its command's number in the session, once there is one.
    process: AtomicU64,
    /// The end state after it, as a diff, where that was asked for.
    pub(super) patch: OnceLock<String>,
}

/// Most bytes that one event has.
const EVENT_BYTES: usize = 256 << 10;
/// How often the order of stdout and stderr is noted. What comes then is told one after the other.
const RUNS: usize = 4096;

/// What a step did. Output costs its bytes, in however small pieces it came.
#[derive(Debug, Default)]
struct Log {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// What was written in turn: a stream, and where in it that ends.
    runs: Vec<(Stream, usize)>,
    /// `Ended` or `Lost`.
    end: Option<StepEvent>,
    is_forgotten: bool,
}

impl Log {
    fn of(&self, stream: Stream) -> &[u8] {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let all = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        all.extend_from_slice(bytes);
        let end = all.len();
        let is_full = self.runs.len() == RUNS;
        match self.runs.last_mut() {
            // Nothing is noted any more: the last run is over, too.
            _ if is_full => {}
            Some((last, until)) if *last == stream => *until = end,
            _ => self.runs.push((stream, end)),
        }
    }
}

impl Step {
    pub(super) fn new(id: StepId, order: &Order) -> Self {
        Self {
            id,
            order: digest(order),
            is_scored: order.score,
            log: Mutex::default(),
            changed: watch::channel(()).0,
            process: AtomicU64::new(0),
            patch: OnceLock::new(),
        }
    }

    /// Whether it does this.
    pub(super) fn is(&self, order: &Order) -> bool {
        self.order == digest(order)
    }

    pub(super) fn set_process(&self, number: u64) {
        self.process.store(number, Ordering::SeqCst);
    }

    /// Returns the number of its command.
    pub(super) fn process(&self) -> Option<u64> {
        Some(self.process.load(Ordering::SeqCst)).filter(|number| *number != 0)
    }

    /// Notes what it wrote. Nothing comes after its end.
    pub(super) fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut log = self.lock();
        if log.end.is_none() {
            log.write(stream, bytes);
            drop(log);
            self.changed.send_replace(());
        }
    }

    /// Notes that it ended, once.
    pub(super) fn end(&self, end: Result<StepEnd, Arc<str>>) {
        let mut log = self.lock();
        if log.end.is_none() {
            log.end = Some(match end {
                Ok(end) => StepEvent::Ended(Arc::new(end)),
                Err(why) => StepEvent::Lost(why),
            });
            drop(log);
            self.changed.send_replace(());
        }
    }

    /// Returns how many bytes of output it keeps.
    pub(super) fn bytes(&self) -> usize {
        let log = self.lock();
        let rest = match &log.end {
            Some(StepEvent::Ended(end)) => {
                let captures = [&end.stdout, &end.stderr];
                captures.iter().map(|capture| capture.head.len() + capture.tail.len()).sum()
            }
            _ => 0,
        };
        log.stdout.len() + log.stderr.len() + rest
    }

    /// Forgets what it did, but not that it was done.
    pub(super) fn forget(&self) {
        *self.lock() = Log { is_forgotten: true, ..Log::default() };
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(order: &Order) -> Digest {
    let Order { runs, stdin, wall, score } = order;
    let mut digest = Digest::builder();
    match runs {
        Runs::Shell(script) => digest = digest.part("shell").part(script),
        Runs::Program(argv) => {
            digest = digest.part("program").part(argv.len().to_string());
            argv.iter().for_each(|word| digest.push(word));
        }
    }
    digest.part(stdin).part(format!("{wall:?} {score}")).finish()
}

/// What a step did, from its start on.
#[derive(Debug)]
pub struct Follow {
    step: Arc<Step>,
    changed: watch::Receiver<()>,
    /// The run that is told.
    run: usize,
    /// How much of stdout and stderr was told.
    told: [usize; 2],
    is_over: bool,
}

impl Follow {
    pub(super) fn of(step: &Arc<Step>) -> Self {
        let changed = step.changed.subscribe();
        Self { step: Arc::clone(step), changed, run: 0, told: [0; 2], is_over: false }
    }

    /// Waits for what comes next; `None` behind the end. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`EpisodeError::Forgotten`] for a step of long ago.
    pub async fn next(&mut self) -> Result<Option<StepEvent>, EpisodeError> {
        let step = Arc::clone(&self.step);
        loop {
            if self.is_over {
                return Ok(None);
            }
            {
                let log = step.lock();
                if log.is_forgotten {
                    return Err(EpisodeError::Forgotten { step: step.id.clone() });
                }
                if let Some(output) = self.output(&log) {
                    return Ok(Some(output));
                }
                if let Some(end) = &log.end {
                    self.is_over = true;
                    return Ok(Some(end.clone()));
                }
            }
            // The step is ours, and with it the sender.
            let _ = self.changed.changed().await;
        }
    }

    /// Returns output that was not told yet.
    fn output(&mut self, log: &Log) -> Option<StepEvent> {
        while let Some((stream, end)) = log.runs.get(self.run) {
            if let Some(output) = self.tell(log, *stream, *end) {
                return Some(output);
            }
            // The last one may grow.
            if self.run + 1 == log.runs.len() && log.runs.len() < RUNS {
                return None;
            }
            self.run += 1;
        }
        let mut streams = [Stream::Stdout, Stream::Stderr].into_iter();
        streams.find_map(|stream| self.tell(log, stream, log.of(stream).len()))
    }

    /// Returns what was not told of a stream up to its byte `end`.
    fn tell(&mut self, log: &Log, stream: Stream, end: usize) -> Option<StepEvent> {
        let told = &mut self.told[stream as usize];
        let from = *told;
        *told = end.min(from + EVENT_BYTES);
        (from < *told).then(|| StepEvent::Output(stream, log.of(stream)[from..*told].to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use assay_sandbox::{Capture, Termination};

    use super::*;

    fn step() -> Arc<Step> {
        let (runs, stdin) = (Runs::Shell("true".into()), Arc::default());
        let order = Order { runs, stdin, wall: None, score: false };
        Arc::new(Step::new(StepId::new("step").unwrap(), &order))
    }

    fn end() -> StepEnd {
        StepEnd {
            termination: Ok(Termination::Exited(0)),
            stdout: Capture::default(),
            stderr: Capture::default(),
            wall: Duration::ZERO,
            cpu: Duration::ZERO,
            cleared: false,
            shell_kept: false,
            steps_left: 0,
        }
    }

    /// Returns what is told until the end, as text: `o` and `e` are the streams.
    async fn told(follow: &mut Follow) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(event) = follow.next().await.unwrap() {
            told.push(match event {
                StepEvent::Output(stream, bytes) => {
                    let name = if stream == Stream::Stdout { 'o' } else { 'e' };
                    format!("{name}:{}", String::from_utf8(bytes).unwrap())
                }
                StepEvent::Ended(_) => "end".to_owned(),
                StepEvent::Lost(why) => why.to_string(),
            });
        }
        told
    }

    #[tokio::test]
    async fn output_is_told_in_its_order_to_whoever_comes_when() {
        let step = step();
        let mut early = Follow::of(&step);
        step.write(Stream::Stdout, b"a");
        assert!(matches!(early.next().await, Ok(Some(StepEvent::Output(Stream::Stdout, _)))));
        for (stream, bytes) in
            [(Stream::Stdout, b"b"), (Stream::Stderr, b"c"), (Stream::Stdout, b"d")]
        {
            step.write(stream, bytes);
        }
        step.end(Ok(end()));
        step.write(Stream::Stdout, b"late");
        step.end(Err("twice".into()));
        assert_eq!(told(&mut early).await, ["o:b", "e:c", "o:d", "end"]);
        assert_eq!(told(&mut Follow::of(&step)).await, ["o:ab", "e:c", "o:d", "end"]);
        assert_eq!(step.bytes(), 4);
        step.forget();
        assert!(Follow::of(&step).next().await.is_err());
    }

    #[tokio::test]
    async fn a_byte_at_a_time_costs_a_byte() {
        let step = step();
        let mut all = Follow::of(&step);
        for n in 0..100_000 {
            step.write(if n % 2 == 0 { Stream::Stdout } else { Stream::Stderr }, b"x");
            if n % 10_000 == 0 {
                all.next().await.unwrap();
            }
        }
        let kept = |log: &Log| (log.stdout.len(), log.stderr.len(), log.runs.len());
        assert_eq!(kept(&step.lock()), (50_000, 50_000, RUNS));
        step.end(Ok(end()));
        let bytes = |events: &[String]| -> usize {
            events
                .iter()
                .filter_map(|event| event.split_once(':'))
                .map(|(_, text)| text.len())
                .sum()
        };
        let events = told(&mut Follow::of(&step)).await;
        assert_eq!(events.len(), RUNS + 3, "then each stream at once");
        assert_eq!(bytes(&events), 100_000);
        let rest = bytes(&told(&mut all).await);
        assert!((90_000..100_000).contains(&rest), "{rest}");
    }
}
