//! `train.toml`: what to learn, from what, how. Unknown keys are errors with line and suggestion.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::advantage::Advantage;
use crate::loss::Grpo;
use crate::optim::AdamWConfig;

/// A run's configuration. Every key has a default but `policy.path`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Decides every random draw of the run.
    pub seed: u64,
    /// The weights to start from.
    pub policy: PolicyConfig,
    /// Who evaluates.
    pub service: ServiceConfig,
    /// Which tasks to learn from.
    pub tasks: TasksConfig,
    /// How submissions are drawn.
    pub sampling: SamplingConfig,
    /// From rewards to gradients.
    pub loss: LossConfig,
    /// From gradients to weights.
    pub optimizer: AdamWConfig,
    /// The loop.
    pub run: RunConfig,
    /// How the policy is measured.
    pub eval: EvalConfig,
}

/// The weights to start from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// A GGUF file, a Hugging Face folder, or `tiny`: a small model from random weights.
    /// `cache:x` names a file of the cache that the project's scripts fill.
    pub path: String,
    /// Where tensors live.
    pub device: DeviceChoice,
    /// The kind of the compute weights; masters are always fp32.
    pub dtype: Dtype,
}

/// Where tensors live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// A GPU where libtorch finds one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first GPU; an error without one.
    Cuda,
}

/// The kind of the compute weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// bf16 where the device is measurably faster with it, else fp32.
    #[default]
    Auto,
    /// 32-bit floats.
    Fp32,
    /// 16-bit brain floats.
    Bf16,
}

/// Who evaluates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceConfig {
    /// `embedded` starts an `assay serve` for this run; else an address like `http://host:7400`.
    pub server: String,
    /// The `assay` binary of an embedded service; by default beside `assay-train`, then in `PATH`.
    pub assay: Option<PathBuf>,
    /// More arguments for the embedded `assay serve`.
    pub args: Vec<String>,
    /// The reward file that scores; empty for the service's default.
    pub reward: String,
    /// Names the environment variable that holds the bearer token.
    pub token_env: String,
    /// What one evaluation may take in all, queue included.
    pub deadline_s: f64,
    /// For how long a service that does not answer is tried again.
    pub retry_s: f64,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            server: "embedded".into(),
            assay: None,
            args: Vec::new(),
            reward: String::new(),
            token_env: "ASSAY_TOKEN".into(),
            deadline_s: 120.0,
            retry_s: 120.0,
        }
    }
}

/// Which tasks, as the service's filter takes them; empty strings match all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TasksConfig {
    /// The catalog's set.
    pub set: String,
    /// The split of the set.
    pub split: String,
}

impl Default for TasksConfig {
    fn default() -> Self {
        Self { set: "katas".into(), split: "train".into() }
    }
}

/// How submissions are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// Prompts of a step.
    pub prompts: usize,
    /// Samples of a prompt: the size of a group.
    pub samples: usize,
    /// Divides the logits, here and in the loss.
    pub temperature: f64,
    /// Tokens after which a sample is truncated.
    pub max_tokens: usize,
    /// Text that ends a sample.
    pub stop: Vec<String>,
    /// Put at the start of every answer: part of the prompt for the policy, of the submission for
    /// the service.
    pub prefill: String,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            prompts: 16,
            samples: 8,
            temperature: 1.0,
            max_tokens: 64,
            stop: Vec::new(),
            prefill: String::new(),
        }
    }
}

/// From rewards to gradients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// What a sample is compared with.
    pub advantage: Advantage,
    /// Half width of the trust region of the ratio.
    pub epsilon: f64,
    /// Upper bound of the ratio where the advantage is negative.
    pub delta: f64,
    /// Upper bound of the weight for the difference between sampler and trainer.
    pub importance_cap: f64,
    /// Weight of the KL to the policy that the run started from.
    pub kl: f64,
    /// What the policy's loss is a mean over.
    pub mean: Mean,
    /// What becomes of samples that hit `max_tokens`.
    pub truncated: Truncated,
    /// An optimizer step is not taken when sampler and trainer disagree more than this (mean k3).
    pub max_mismatch_kl: f64,
    /// Optimizer steps per batch of samples, each on a part of the groups.
    pub minibatches: usize,
    /// Times the batch is gone through.
    pub epochs: usize,
    /// Tokens of a forward pass, prompts included.
    pub micro_batch_tokens: usize,
    /// The control experiment: rewards are dealt out at random among the samples of a step.
    pub shuffle_rewards: bool,
}

impl Default for LossConfig {
    fn default() -> Self {
        let Grpo { epsilon, delta, importance_cap, kl } = Grpo::default();
        Self {
            advantage: Advantage::default(),
            epsilon,
            delta,
            importance_cap,
            kl,
            mean: Mean::default(),
            truncated: Truncated::default(),
            max_mismatch_kl: 0.1,
            minibatches: 1,
            epochs: 1,
            micro_batch_tokens: 4096,
            shuffle_rewards: false,
        }
    }
}

impl LossConfig {
    /// The constants of the loss alone.
    pub fn grpo(&self) -> Grpo {
        Grpo {
            epsilon: self.epsilon,
            delta: self.delta,
            importance_cap: self.importance_cap,
            kl: self.kl,
        }
    }

    /// Optimizer steps per batch.
    pub fn updates(&self) -> usize {
        self.minibatches * self.epochs
    }
}

/// What the policy's loss is a mean over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mean {
    /// Every token counts the same (DAPO): a long answer pulls more than a short one.
    #[default]
    Token,
    /// Every sample counts the same, whatever its length (GRPO, Shao et al. 2024).
    Sample,
}

/// What becomes of samples that hit `max_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncated {
    /// Their reward counts in the group, but their tokens have no loss.
    #[default]
    Mask,
    /// They are samples like any other.
    Keep,
    /// They count nowhere, as if they had no reward.
    Drop,
}

/// The loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Metrics, checkpoints and logs go here.
    pub out: PathBuf,
    /// Batches to learn from.
    pub steps: u64,
    /// The run ends after the step in which this much time has passed; 0: no limit.
    pub max_minutes: f64,
    /// Steps between checkpoints; 0: at the end alone.
    pub checkpoint_every: u64,
    /// Checkpoints that stay; older ones are deleted.
    pub keep_checkpoints: usize,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            out: "runs/train".into(),
            steps: 100,
            max_minutes: 0.0,
            checkpoint_every: 0,
            keep_checkpoints: 2,
        }
    }
}

/// How the policy is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// The split that is measured; the set is that of `tasks`.
    pub split: String,
    /// Samples per task at temperature 1.
    pub samples: usize,
    /// The `k`s of pass@k beside 1.
    pub pass_at: Vec<usize>,
    /// Whether the likeliest answer is measured too.
    pub greedy: bool,
    /// At most this many tasks; 0: all.
    pub tasks: usize,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { split: "held_out".into(), samples: 16, pass_at: vec![16], greedy: true, tasks: 0 }
    }
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Syntax, an unknown key or a wrong type.
    #[error("{place}: {message}")]
    Parse {
        /// File and line, or the `--set` that brought it in.
        place: String,
        /// What is wrong, with the nearest valid key.
        message: String,
    },
    /// A value that can't be meant.
    #[error("{place}: {message}")]
    Value {
        /// The file.
        place: String,
        /// Which key, what it must be.
        message: String,
    },
}

impl Config {
    /// Reads `path` (without one: the defaults), then applies `sets`, each `key.path=value`.
    pub fn load(path: Option<&Path>, sets: &[String]) -> Result<Self, ConfigError> {
        let (place, text) = match path {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                (path.display().to_string(), text)
            }
            None => ("defaults".to_owned(), String::new()),
        };
        Self::parse(&place, &text, sets)
    }

    /// As [`Self::load`], of a text that messages call `place`.
    pub fn parse(place: &str, text: &str, sets: &[String]) -> Result<Self, ConfigError> {
        let parse_error = |place: String, error: &toml::de::Error| ConfigError::Parse {
            message: suggest(error.message()),
            place,
        };
        let at_line = |error: &toml::de::Error| match error.span() {
            Some(span) => {
                let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
                format!("{place}:{line}")
            }
            None => place.to_owned(),
        };
        // First the file by itself, for its line numbers; then with each `--set` in turn.
        let mut config: Self =
            toml::from_str(text).map_err(|error| parse_error(at_line(&error), &error))?;
        let mut table: toml::Table =
            toml::from_str(text).map_err(|error| parse_error(at_line(&error), &error))?;
        for set in sets {
            let place = format!("--set {set}");
            let wrong = |message: &str| ConfigError::Parse {
                place: place.clone(),
                message: message.to_owned(),
            };
            let (key, value) =
                set.split_once('=').ok_or_else(|| wrong("expected key.path=value"))?;
            insert(&mut table, key.trim(), literal(value.trim())).map_err(wrong)?;
            config = table
                .clone()
                .try_into()
                .map_err(|error: toml::de::Error| parse_error(place.clone(), &error))?;
        }
        config.check(place)?;
        Ok(config)
    }

    fn check(&self, place: &str) -> Result<(), ConfigError> {
        let at_least_one = [
            ("sampling.prompts", self.sampling.prompts),
            ("sampling.max_tokens", self.sampling.max_tokens),
            ("loss.minibatches", self.loss.minibatches),
            ("loss.epochs", self.loss.epochs),
            ("loss.micro_batch_tokens", self.loss.micro_batch_tokens),
            ("eval.samples", self.eval.samples),
        ];
        let not_negative = [
            ("loss.kl", self.loss.kl),
            ("loss.max_mismatch_kl", self.loss.max_mismatch_kl),
            ("optimizer.weight_decay", self.optimizer.weight_decay),
            ("optimizer.grad_clip", self.optimizer.grad_clip),
            ("run.max_minutes", self.run.max_minutes),
        ];
        let positive = [
            ("sampling.temperature", self.sampling.temperature),
            ("loss.epsilon", self.loss.epsilon),
            ("loss.importance_cap", self.loss.importance_cap),
            ("optimizer.lr", self.optimizer.lr),
            ("optimizer.eps", self.optimizer.eps),
            ("service.deadline_s", self.service.deadline_s),
            ("service.retry_s", self.service.retry_s),
        ];
        let wrong = if let Some((key, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            Some(format!("{key} must be at least 1"))
        } else if let Some((key, value)) =
            not_negative.iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite()))
        {
            Some(format!("{key} must not be negative, and is {value}"))
        } else if let Some((key, value)) =
            positive.iter().find(|(_, value)| !(*value > 0.0 && value.is_finite()))
        {
            Some(format!("{key} must be above 0, and is {value}"))
        } else if self.sampling.samples < 2 {
            Some(
                "sampling.samples must be at least 2: a group compares samples with each other"
                    .into(),
            )
        } else if self.loss.epsilon >= 1.0 {
            Some(format!("loss.epsilon must be below 1, and is {}", self.loss.epsilon))
        } else if self.loss.delta <= 1.0 + self.loss.epsilon {
            Some(format!("loss.delta must be above 1 + loss.epsilon, and is {}", self.loss.delta))
        } else if self.optimizer.betas.iter().any(|beta| !(0.0..1.0).contains(beta)) {
            Some(format!("optimizer.betas must lie in [0, 1), and are {:?}", self.optimizer.betas))
        } else if self.loss.minibatches > self.sampling.prompts {
            Some(
                "loss.minibatches must not exceed sampling.prompts: each holds whole groups".into(),
            )
        } else if self.eval.pass_at.iter().any(|&k| k == 0 || k > self.eval.samples) {
            Some(format!(
                "eval.pass_at must lie between 1 and eval.samples = {}",
                self.eval.samples
            ))
        } else if self.sampling.stop.iter().any(String::is_empty) {
            Some("sampling.stop must not hold an empty string".into())
        } else if self.policy.path.is_empty() {
            Some("policy.path is missing: a GGUF file, a Hugging Face folder, or \"tiny\"".into())
        } else {
            None
        };
        match wrong {
            Some(message) => Err(ConfigError::Value { place: place.to_owned(), message }),
            None => Ok(()),
        }
    }
}

/// A `--set` value: TOML where it is TOML, else the text itself.
fn literal(text: &str) -> toml::Value {
    toml::from_str::<toml::Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

fn insert(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), &'static str> {
    match key.split_once('.') {
        _ if key.is_empty() => Err("empty key"),
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((head, rest)) => {
            let inner = table.entry(head).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            insert(inner.as_table_mut().ok_or("a part of the key is not a table")?, rest, value)
        }
    }
}

/// serde's message about an unknown key or variant lists the valid ones; names the nearest instead.
fn suggest(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let Some(got) = names.next().filter(|_| unknown) else {
        return message.replace('\n', " ").trim().to_owned();
    };
    let kind = if message.starts_with("unknown field") { "key" } else { "value" };
    let valid: Vec<&str> = names.collect();
    let nearest = valid.iter().map(|name| (strsim::damerau_levenshtein(got, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= 3.max(got.len() / 3) => {
            format!("unknown {kind} `{got}`, did you mean `{name}`?")
        }
        _ => format!("unknown {kind} `{got}`, expected one of {}", valid.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "seed = 3\n[policy]\npath = \"tiny\"\n[sampling]\nprompts = 4\n";

    #[test]
    fn a_file_with_sets_on_top() {
        let sets = [
            "sampling.samples=6",
            "loss.advantage=mean_std",
            "sampling.stop=[\"x\"]",
            "policy.path=a=b",
        ];
        let config = Config::parse("train.toml", GOOD, &sets.map(str::to_owned)).unwrap();
        assert_eq!((config.seed, config.sampling.prompts, config.sampling.samples), (3, 4, 6));
        assert_eq!(config.loss.advantage, Advantage::MeanStd);
        assert_eq!(config.sampling.stop, ["x"]);
        assert_eq!(config.policy.path, "a=b");
        assert_eq!(config.optimizer, AdamWConfig::default());
    }

    #[test]
    fn what_is_refused_and_where() {
        let cases = [
            (
                "[sampling]\n\nprompt = 3\n",
                "",
                "train.toml:3: unknown key `prompt`, did you mean `prompts`?",
            ),
            ("[smapling]\n", "", "train.toml:1: unknown key `smapling`, did you mean `sampling`?"),
            (
                "[loss]\ntruncated = \"maks\"\n",
                "",
                "train.toml:2: unknown value `maks`, did you mean `mask`?",
            ),
            ("[loss]\nkl = true\n", "", "train.toml:2: invalid type"),
            ("[loss\n", "", "train.toml:1: "),
            (
                GOOD,
                "loss.epsilom=1",
                "--set loss.epsilom=1: unknown key `epsilom`, did you mean `epsilon`?",
            ),
            (GOOD, "seed.x=1", "--set seed.x=1: a part of the key is not a table"),
            (GOOD, "seed", "--set seed: expected key.path=value"),
            (GOOD, "=1", "--set =1: empty key"),
            (GOOD, "sampling.samples=1", "sampling.samples must be at least 2"),
            (GOOD, "optimizer.lr=nan", "optimizer.lr must be above 0"),
            (GOOD, "optimizer.lr=-1e-5", "optimizer.lr must be above 0"),
            (GOOD, "loss.delta=1.1", "loss.delta must be above 1 + loss.epsilon"),
            (GOOD, "eval.pass_at=[32]", "eval.pass_at must lie between 1 and eval.samples = 16"),
            (GOOD, "optimizer.betas=[0.9, 1.0]", "optimizer.betas must lie in [0, 1)"),
            ("", "seed=1", "policy.path is missing"),
        ];
        for (text, set, expected) in cases {
            let sets: Vec<String> =
                [set].iter().filter(|set| !set.is_empty()).map(|set| (*set).to_owned()).collect();
            let error = Config::parse("train.toml", text, &sets).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?} {set:?}: {error}");
        }
    }
}
