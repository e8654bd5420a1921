//! What a step was like: one JSON line, and one row of a live table.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::batch::BatchStats;
use crate::learner::Update;

/// Rows between two headings of the table.
const ROWS_PER_HEADING: usize = 20;

/// One step. Shares are of the samples (or groups, or tokens) that their name says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Counted from 1.
    pub step: u64,
    /// Mean over the samples that have a reward; absent when none has.
    pub reward_mean: Option<f64>,
    /// Samples that solved their task, of those with a reward.
    pub pass_share: Option<f64>,
    /// Samples with a reward.
    pub valid_share: f64,
    /// Groups dropped because every reward was the same.
    pub zero_variance_share: f64,
    /// Groups dropped because too few rewards came back, or on the service's advice.
    pub dropped_groups: usize,
    /// Samples that ended at the token limit.
    pub truncated_share: f64,
    /// Tokens of a sample.
    pub tokens_mean: f64,
    /// Mean k3 between sampler and trainer, over trained tokens.
    pub mismatch_kl: f64,
    /// Trained tokens whose ratio left its bounds.
    pub clip_share: f64,
    /// Trained tokens whose importance weight hit its cap.
    pub capped_share: f64,
    /// Mean k3 to the starting policy; 0 where the loss has no such term.
    pub kl: f64,
    /// Mean entropy of the policy at trained tokens, in nats.
    pub entropy: f64,
    /// Loss per trained token.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Optimizer steps not taken.
    pub skipped_updates: usize,
    /// Tokens with a loss.
    pub trained_tokens: u64,
    /// Sampled tokens per second of sampling.
    pub sample_tokens_per_s: f64,
    /// Tokens through the model forward and backward per second of training.
    pub train_tokens_per_s: f64,
    /// How often each outcome was seen.
    pub outcomes: BTreeMap<String, usize>,
    /// Seconds per phase.
    pub seconds: Seconds,
}

/// Seconds of a step's phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Sampling, evaluation beside it.
    pub sample: f64,
    /// Waiting for the last verdicts.
    pub wait: f64,
    /// Forward, backward, optimizer.
    pub train: f64,
    /// The whole step.
    pub total: f64,
}

impl StepMetrics {
    /// Puts together what the parts of a step have counted.
    pub fn new(step: u64, lr: f64, batch: BatchStats, update: &Update, seconds: Seconds) -> Self {
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let tokens = update.sums.tokens.max(1.0);
        let valid = (batch.valid > 0).then_some(batch.valid as f64);
        Self {
            step,
            reward_mean: valid.map(|valid| batch.reward_sum / valid),
            pass_share: valid.map(|valid| batch.passed as f64 / valid),
            valid_share: share(batch.valid, batch.samples),
            zero_variance_share: share(batch.zero_variance, batch.groups),
            dropped_groups: batch.dropped,
            truncated_share: share(batch.truncated, batch.samples),
            tokens_mean: share(batch.tokens, batch.samples),
            mismatch_kl: update.sums.mismatch_kl / tokens,
            clip_share: update.sums.clipped / tokens,
            capped_share: update.sums.truncated_weights / tokens,
            kl: update.sums.kl / tokens,
            entropy: update.entropy / tokens,
            loss: update.sums.loss / tokens,
            // JSON knows neither infinity nor NaN.
            grad_norm: if update.grad_norm.is_finite() { update.grad_norm } else { -1.0 },
            lr,
            skipped_updates: update.skipped,
            trained_tokens: update.sums.tokens as u64,
            sample_tokens_per_s: batch.tokens as f64 / seconds.sample.max(1e-9),
            train_tokens_per_s: update.forward_tokens as f64 / seconds.train.max(1e-9),
            outcomes: batch.outcomes,
            seconds,
        }
    }
}

/// `metrics.jsonl`: one line per step, each written as a whole.
#[derive(Debug)]
pub struct MetricsFile {
    file: File,
}

impl MetricsFile {
    /// Opens `path` to go on after `step`: lines of later steps, or broken ones, are left behind.
    pub fn open(path: &Path, step: u64) -> std::io::Result<Self> {
        let kept: String = match read(path) {
            Ok(lines) => lines.iter().filter(|line| line.step <= step).map(line).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let new = path.with_extension("jsonl.new");
        std::fs::write(&new, kept)?;
        std::fs::rename(&new, path)?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)? })
    }

    /// Adds a step.
    pub fn push(&mut self, metrics: &StepMetrics) -> std::io::Result<()> {
        self.file.write_all(line(metrics).as_bytes())
    }
}

fn line(metrics: &StepMetrics) -> String {
    serde_json::to_string(metrics).expect("numbers and strings are JSON") + "\n"
}

/// The steps of a `metrics.jsonl`; lines that are no step are left out.
pub fn read(path: &Path) -> std::io::Result<Vec<StepMetrics>> {
    let lines = BufReader::new(File::open(path)?).lines().collect::<Result<Vec<_>, _>>()?;
    Ok(lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Where a run says how it goes: JSON lines on stdout or nothing there, a table on stderr.
#[derive(Debug)]
pub struct Console {
    json: bool,
    rows: usize,
    bar: ProgressBar,
}

impl Console {
    /// `json` puts one object per event on stdout.
    pub fn new(json: bool) -> Self {
        // A bar that is redrawn belongs on a terminal alone.
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let style = ProgressStyle::with_template("  {msg} {wide_bar} {pos}/{len}")
            .expect("the template is well-formed");
        bar.set_style(style);
        Self { json, rows: 0, bar }
    }

    /// Shows that `done` of `total` are done with `what`.
    pub fn progress(&self, what: &str, done: usize, total: usize) {
        if self.bar.message() != what {
            self.bar.set_message(what.to_owned());
        }
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        if done == total {
            self.bar.set_length(0);
            self.bar.set_message("");
        }
    }

    /// A line for people.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// An object for programs, where they listen.
    pub fn event(&self, event: &impl Serialize) {
        if self.json {
            let text = serde_json::to_string(event).expect("events are JSON");
            self.bar.suspend(|| println!("{text}"));
        }
    }

    /// A row of the table, and its object.
    pub fn step(&mut self, metrics: &StepMetrics, last: u64) {
        #[derive(Serialize)]
        struct Event<'a> {
            event: &'a str,
            #[serde(flatten)]
            metrics: &'a StepMetrics,
        }
        self.event(&Event { event: "step", metrics });
        if self.rows.is_multiple_of(ROWS_PER_HEADING) {
            self.say("   step  reward  pass  valid  same  cut  tokens  mismatch   clip  entropy   grad  tok/s   time");
        }
        self.rows += 1;
        let percent = |share: f64| format!("{:.0}%", share * 100.0);
        let optional =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        self.say(&format!(
            "{:>7} {:>7} {:>5} {:>6} {:>5} {:>4} {:>7.1} {:>9.1e} {:>6} {:>8.3} {:>6.2} {:>6.0} {:>5.1}s",
            format!("{}/{last}", metrics.step),
            optional(metrics.reward_mean),
            metrics.pass_share.map_or("-".to_owned(), percent),
            percent(metrics.valid_share),
            percent(metrics.zero_variance_share),
            percent(metrics.truncated_share),
            metrics.tokens_mean,
            metrics.mismatch_kl,
            format!("{:.1}%", metrics.clip_share * 100.0),
            metrics.entropy,
            metrics.grad_norm,
            metrics.train_tokens_per_s,
            metrics.seconds.total,
        ));
    }
}

/// Where a run keeps its metrics.
pub fn path(out: &Path) -> PathBuf {
    out.join("metrics.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_file_forgets_what_is_run_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        let step = |step| StepMetrics { step, ..StepMetrics::default() };
        let mut file = MetricsFile::open(&path, 0).unwrap();
        (1..=4).for_each(|number| file.push(&step(number)).unwrap());
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "{\"step\": 5, \"rew")
            .unwrap();
        MetricsFile::open(&path, 2).unwrap().push(&step(3)).unwrap();
        assert_eq!(read(&path).unwrap(), [step(1), step(2), step(3)]);
    }

    #[test]
    fn shares_are_of_what_they_say() {
        let batch = BatchStats {
            samples: 8,
            valid: 4,
            passed: 1,
            reward_sum: 2.0,
            groups: 2,
            zero_variance: 1,
            tokens: 80,
            ..BatchStats::default()
        };
        let metrics = StepMetrics::new(1, 1e-5, batch, &Update::default(), Seconds::default());
        assert_eq!((metrics.reward_mean, metrics.pass_share), (Some(0.5), Some(0.25)));
        assert_eq!(
            (metrics.valid_share, metrics.zero_variance_share, metrics.tokens_mean),
            (0.5, 0.5, 10.0)
        );
        let nothing = StepMetrics::new(
            1,
            1e-5,
            BatchStats::default(),
            &Update::default(),
            Seconds::default(),
        );
        assert_eq!((nothing.reward_mean, nothing.pass_share), (None, None));
    }
}
