//! Measures a policy on the tasks of a split, and compares two measurements.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::batch::{Rollout, Sampled};
use crate::config::Config;
use crate::environment::{Environment, Phase, Task, Verdict};
use crate::model::Model;
use crate::rng::Rng;
use crate::rollout::{Draw, RolloutError, rollout};
use crate::stats::{self, Paired};
use crate::tokenizer::Tokenizer;

/// One measurement, as `assay-train eval --out` writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Version of this format.
    pub schema: u32,
    /// Whose weights.
    pub policy: String,
    /// Optimizer steps behind them.
    pub policy_version: u64,
    /// The tasks' set.
    pub set: String,
    /// And split.
    pub split: String,
    /// What the draws were made from.
    pub seed: u64,
    /// Samples per task at temperature 1.
    pub samples: usize,
    /// Seconds that it took.
    pub seconds: f64,
    /// The figures.
    pub summary: Summary,
    /// What they are made of.
    pub tasks: Vec<TaskEvaluation>,
}

/// Means over tasks. A sample without a reward is left out; so is a task that is left with none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Tasks with at least one valid sample.
    pub tasks: usize,
    /// Samples without a reward.
    pub invalid: usize,
    /// pass@1 at temperature 1.
    pub pass_at_1: f64,
    /// Unbiased pass@k, for the `k`s asked for and the tasks with at least `k` valid samples.
    pub pass_at: BTreeMap<usize, f64>,
    /// pass@1 of the likeliest answer, where measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greedy: Option<f64>,
    /// Mean reward at temperature 1.
    pub reward: f64,
    /// Samples that ended at the token limit.
    pub truncated_share: f64,
}

/// One task of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskEvaluation {
    /// Its id.
    pub task: String,
    /// The last thing that the policy was asked.
    pub question: String,
    /// Samples with a reward.
    pub valid: usize,
    /// Samples that solved it.
    pub passed: usize,
    /// Whether the likeliest answer solves it; absent when not measured or without a reward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greedy: Option<bool>,
    /// Samples at temperature 1.
    pub samples: Vec<Shown>,
    /// The likeliest answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greedy_sample: Option<Shown>,
}

/// One answer with its verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// What the policy answered.
    pub text: String,
    /// Whether it ended at the token limit.
    pub truncated: bool,
    /// What it was worth.
    pub verdict: Verdict,
}

/// Two measurements of the same tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// pass@1 at temperature 1; absent with fewer than two common tasks.
    pub pass_at_1: Option<Paired>,
    /// pass@1 of the likeliest answer.
    pub greedy: Option<Paired>,
    /// pass@k by k.
    pub pass_at: BTreeMap<usize, Paired>,
    /// Tasks that only one of the two has a figure for.
    pub unpaired: usize,
}

/// Samples and greedily decodes every task of `config.eval`.
pub fn evaluate(
    config: &Config,
    model: &Model,
    tokenizer: &Tokenizer,
    environment: &mut dyn Environment,
    policy_version: u64,
    progress: &dyn Fn(usize, usize),
) -> Result<Evaluation, RolloutError> {
    let started = Instant::now();
    let mut ids = environment.task_ids(&config.tasks.set, &config.eval.split)?;
    if config.eval.tasks > 0 {
        ids.truncate(config.eval.tasks);
    }
    let tasks = ids.iter().map(|id| environment.task(id)).collect::<Result<Vec<Task>, _>>()?;
    let label = format!(
        "eval-{policy_version}-{}",
        Rng::derive(config.seed, policy_version, "label").next_u64() % 1000
    );
    let draw = Draw {
        tasks: &tasks,
        samples: config.eval.samples,
        temperature: 1.0,
        sampling: &config.sampling,
        seed: Rng::derive(config.seed, policy_version, "eval").next_u64(),
        phase: Phase::Eval,
        policy_version,
        label: &label,
    };
    let (sampled, _) = rollout(model, tokenizer, environment, &draw, progress)?;
    let greedy = if config.eval.greedy {
        let label = format!("{label}-greedy");
        let draw = Draw { samples: 1, temperature: 0.0, label: &label, ..draw };
        rollout(model, tokenizer, environment, &draw, progress)?.0
    } else {
        Vec::new()
    };
    let tasks: Vec<TaskEvaluation> = sampled
        .into_iter()
        .enumerate()
        .map(|(number, rollout)| {
            let likeliest = greedy.get(number).and_then(|rollout| rollout.samples.first());
            task_evaluation(rollout, likeliest)
        })
        .collect();
    Ok(Evaluation {
        schema: 1,
        policy: config.policy.path.clone(),
        policy_version,
        set: config.tasks.set.clone(),
        split: config.eval.split.clone(),
        seed: config.seed,
        samples: config.eval.samples,
        seconds: started.elapsed().as_secs_f64(),
        summary: summarise(&tasks, &config.eval.pass_at),
        tasks,
    })
}

fn task_evaluation(rollout: Rollout, likeliest: Option<&Sampled>) -> TaskEvaluation {
    let shown = |sample: &Sampled| Shown {
        text: sample.text.clone(),
        truncated: sample.truncated,
        verdict: sample.verdict.clone(),
    };
    let valid = |verdict: &Verdict| verdict.reward.is_some();
    TaskEvaluation {
        question: rollout
            .task
            .messages
            .last()
            .map(|message| message.content.clone())
            .unwrap_or_default(),
        task: rollout.task.id,
        valid: rollout.samples.iter().filter(|sample| valid(&sample.verdict)).count(),
        passed: rollout.samples.iter().filter(|sample| sample.verdict.passed()).count(),
        greedy: likeliest
            .filter(|sample| valid(&sample.verdict))
            .map(|sample| sample.verdict.passed()),
        samples: rollout.samples.iter().map(shown).collect(),
        greedy_sample: likeliest.map(shown),
    }
}

fn summarise(tasks: &[TaskEvaluation], pass_at: &[usize]) -> Summary {
    let samples: Vec<&Shown> = tasks.iter().flat_map(|task| &task.samples).collect();
    let rewards: Vec<f64> = samples.iter().filter_map(|sample| sample.verdict.reward).collect();
    let mean = |values: &[f64]| if values.is_empty() { 0.0 } else { stats::mean(values) };
    let at = |k: usize| tasks.iter().filter_map(|task| pass(task, k)).collect::<Vec<f64>>();
    let greedy: Vec<f64> = tasks.iter().filter_map(greedy).collect();
    Summary {
        tasks: tasks.iter().filter(|task| task.valid > 0).count(),
        invalid: samples.len() - rewards.len(),
        pass_at_1: mean(&at(1)),
        pass_at: pass_at.iter().map(|&k| (k, mean(&at(k)))).collect(),
        greedy: (!greedy.is_empty()).then(|| mean(&greedy)),
        reward: mean(&rewards),
        truncated_share: samples.iter().filter(|sample| sample.truncated).count() as f64
            / samples.len().max(1) as f64,
    }
}

fn pass(task: &TaskEvaluation, k: usize) -> Option<f64> {
    stats::pass_at_k(task.valid, task.passed, k)
}

fn greedy(task: &TaskEvaluation) -> Option<f64> {
    task.greedy.map(|solved| f64::from(u8::from(solved)))
}

/// What changed between two measurements, task by task.
pub fn compare(before: &Evaluation, after: &Evaluation) -> Comparison {
    let by_id: BTreeMap<&str, &TaskEvaluation> =
        before.tasks.iter().map(|task| (task.task.as_str(), task)).collect();
    let pairs: Vec<(&TaskEvaluation, &TaskEvaluation)> = after
        .tasks
        .iter()
        .filter_map(|task| Some((*by_id.get(task.task.as_str())?, task)))
        .collect();
    let paired = |figure: &dyn Fn(&TaskEvaluation) -> Option<f64>| {
        let both =
            pairs.iter().filter_map(|(before, after)| Some((figure(before)?, figure(after)?)));
        let (before, after): (Vec<f64>, Vec<f64>) = both.unzip();
        stats::paired(&before, &after, 0)
    };
    let ks = before.summary.pass_at.keys().filter(|k| after.summary.pass_at.contains_key(k));
    let pass_at_1 = paired(&|task| pass(task, 1));
    let common = pass_at_1.as_ref().map_or(0, |paired| paired.tasks);
    Comparison {
        greedy: paired(&greedy),
        pass_at: ks.filter_map(|&k| Some((k, paired(&|task| pass(task, k))?))).collect(),
        unpaired: before.tasks.len() + after.tasks.len() - 2 * common,
        pass_at_1,
    }
}

impl Summary {
    /// One line for people.
    pub fn line(&self) -> String {
        let percent = |share: f64| format!("{:.1}%", share * 100.0);
        let mut line = format!("pass@1 {}", percent(self.pass_at_1));
        if let Some(greedy) = self.greedy {
            line += &format!(", greedy {}", percent(greedy));
        }
        for (k, share) in &self.pass_at {
            line += &format!(", pass@{k} {}", percent(*share));
        }
        line += &format!(" ({} tasks", self.tasks);
        if self.invalid > 0 {
            line += &format!(", {} samples without a verdict", self.invalid);
        }
        line + ")"
    }
}

/// The table that a comparison prints.
pub fn table(comparison: &Comparison) -> String {
    let mut rows = Vec::new();
    if let Some(paired) = &comparison.pass_at_1 {
        rows.push(("pass@1 (T=1)".to_owned(), paired));
    }
    if let Some(paired) = &comparison.greedy {
        rows.push(("greedy pass@1".to_owned(), paired));
    }
    rows.extend(comparison.pass_at.iter().map(|(k, paired)| (format!("pass@{k} (T=1)"), paired)));
    let mut text = format!(
        "{:<16}{:>8}{:>8}{:>8}   {}\n",
        "", "before", "after", "gain", "95% interval (t; bootstrap)"
    );
    for (name, paired) in rows {
        let points = |share: f64| format!("{:+.1}", share * 100.0);
        let [t, bootstrap] = [paired.t95, paired.bootstrap95]
            .map(|[low, high]| format!("[{}, {}]", points(low), points(high)));
        text += &format!(
            "{name:<16}{:>7.1}%{:>7.1}%{:>8}   {t}; {bootstrap}\n",
            paired.before * 100.0,
            paired.after * 100.0,
            points(paired.gain),
        );
    }
    if comparison.unpaired > 0 {
        text += &format!(
            "{} tasks have a figure on one side alone and are left out\n",
            comparison.unpaired
        );
    }
    text
}

#[cfg(test)]
#[path = "../tests/unit/evaluate.rs"]
mod tests;
