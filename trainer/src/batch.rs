//! From sampled groups and their verdicts to what the learner trains on, and what to say of it.

use std::collections::BTreeMap;

use crate::advantage::{self, Group};
use crate::config::{LossConfig, Mean, Truncated};
use crate::environment::{Task, Verdict};
use crate::rng::Rng;

/// One prompt with its samples and their verdicts.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// What was asked.
    pub task: Task,
    /// The prompt as the policy read it.
    pub prompt: Vec<i64>,
    /// What it answered, and what that was worth.
    pub samples: Vec<Sampled>,
    /// The service advises against learning from this group.
    pub masked: bool,
}

/// One sample with its verdict.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// Sampled ids, the one that ended the answer included. Never made from text again.
    pub tokens: Vec<i64>,
    /// The sampler's log-prob of each of `tokens`.
    pub log_probs: Vec<f32>,
    /// The answer as the service got it.
    pub text: String,
    /// Whether it ended at the token limit.
    pub truncated: bool,
    /// What it was worth.
    pub verdict: Verdict,
}

/// One sample as the learner sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Which group it is of, counted over the batch.
    pub group: usize,
    /// Ids before the first trained one.
    pub prompt: Vec<i64>,
    /// Trained ids.
    pub completion: Vec<i64>,
    /// The sampler's log-prob of each of `completion`.
    pub sampler_log_probs: Vec<f32>,
    /// How much better than its group.
    pub advantage: f64,
}

/// What a batch of rollouts looked like, before anything was trained.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchStats {
    /// Samples drawn.
    pub samples: usize,
    /// Samples with a reward.
    pub valid: usize,
    /// Samples that solved their task.
    pub passed: usize,
    /// Samples that ended at the token limit.
    pub truncated: usize,
    /// Sum of the rewards that there are.
    pub reward_sum: f64,
    /// Groups sampled.
    pub groups: usize,
    /// Groups whose valid rewards are all the same.
    pub zero_variance: usize,
    /// Groups with too few rewards, or that the service advised against.
    pub dropped: usize,
    /// Sampled tokens.
    pub tokens: usize,
    /// How often each outcome was seen.
    pub outcomes: BTreeMap<String, usize>,
}

/// Turns rewards into advantages and leaves out what has none.
pub fn assemble(
    rollouts: &[Rollout],
    config: &LossConfig,
    rng: &mut Rng,
) -> (Vec<Sample>, BatchStats) {
    let mut stats = BatchStats { groups: rollouts.len(), ..BatchStats::default() };
    for sample in rollouts.iter().flat_map(|rollout| &rollout.samples) {
        stats.samples += 1;
        stats.tokens += sample.tokens.len();
        stats.truncated += usize::from(sample.truncated);
        stats.passed += usize::from(sample.verdict.passed());
        *stats.outcomes.entry(sample.verdict.outcome.clone()).or_default() += 1;
        if let Some(reward) = sample.verdict.reward {
            stats.valid += 1;
            stats.reward_sum += reward;
        }
    }
    let mut rewards: Vec<Vec<Option<f64>>> = rollouts
        .iter()
        .map(|rollout| {
            rollout.samples.iter().map(|sample| reward(sample, config.truncated)).collect()
        })
        .collect();
    if config.shuffle_rewards {
        deal_out(&mut rewards, rng);
    }
    let mut samples = Vec::new();
    for (group, (rollout, rewards)) in rollouts.iter().zip(&rewards).enumerate() {
        if rollout.masked {
            stats.dropped += 1;
            continue;
        }
        let advantages = match advantage::group(rewards, config.advantage) {
            Group::Kept(advantages) => advantages,
            Group::ZeroVariance => {
                stats.zero_variance += 1;
                continue;
            }
            Group::TooFewValid => {
                stats.dropped += 1;
                continue;
            }
        };
        for (sample, advantage) in rollout.samples.iter().zip(advantages) {
            let masked =
                sample.verdict.masked || (sample.truncated && config.truncated == Truncated::Mask);
            let Some(advantage) = advantage.filter(|_| !masked && !sample.tokens.is_empty()) else {
                continue;
            };
            samples.push(Sample {
                group,
                prompt: rollout.prompt.clone(),
                completion: sample.tokens.clone(),
                sampler_log_probs: sample.log_probs.clone(),
                advantage,
            });
        }
    }
    if config.mean == Mean::Sample {
        let tokens: usize = samples.iter().map(|sample| sample.completion.len()).sum();
        let mean = tokens as f64 / samples.len().max(1) as f64;
        for sample in &mut samples {
            sample.advantage *= mean / sample.completion.len() as f64;
        }
    }
    (samples, stats)
}

fn reward(sample: &Sampled, truncated: Truncated) -> Option<f64> {
    let dropped = sample.truncated && truncated == Truncated::Drop;
    sample.verdict.reward.filter(|reward| reward.is_finite() && !dropped)
}

/// Deals the rewards that there are out anew; who has none goes on having none.
fn deal_out(rewards: &mut [Vec<Option<f64>>], rng: &mut Rng) {
    let mut pool: Vec<f64> = rewards.iter().flatten().flatten().copied().collect();
    rng.shuffle(&mut pool);
    for (place, reward) in rewards.iter_mut().flatten().filter(|reward| reward.is_some()).zip(pool)
    {
        *place = Some(reward);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(rewards: &[Option<f64>]) -> Rollout {
        let samples = rewards.iter().enumerate().map(|(number, reward)| Sampled {
            tokens: vec![number as i64; 3],
            log_probs: vec![-1.0; 3],
            text: "abc".into(),
            truncated: false,
            verdict: Verdict {
                outcome: if reward.is_some() { "scored" } else { "infra_error" }.into(),
                reward: *reward,
                ..Verdict::default()
            },
        });
        Rollout {
            task: Task { id: "t".into(), messages: vec![] },
            prompt: vec![9, 9],
            samples: samples.collect(),
            masked: false,
        }
    }

    fn advantages(samples: &[Sample]) -> Vec<f64> {
        samples.iter().map(|sample| sample.advantage).collect()
    }

    #[test]
    fn what_enters_a_batch() {
        let config = LossConfig::default();
        let mut masked = rollout(&[Some(1.0), Some(0.0)]);
        masked.masked = true;
        let rollouts = [
            rollout(&[Some(1.0), Some(0.0), None, Some(0.5)]),
            rollout(&[Some(0.0), Some(0.0), Some(0.0), Some(0.0)]),
            rollout(&[Some(1.0), None, None, None]),
            masked,
        ];
        let (samples, stats) = assemble(&rollouts, &config, &mut Rng::derive(1, 0, "x"));
        assert_eq!(advantages(&samples), [0.5, -0.5, 0.0]);
        assert_eq!(samples[2].completion, [3, 3, 3]);
        assert_eq!((stats.samples, stats.valid, stats.passed), (14, 10, 3));
        assert_eq!((stats.groups, stats.zero_variance, stats.dropped), (4, 1, 2));
        assert_eq!(stats.outcomes["infra_error"], 4);
        assert!((stats.reward_sum - 3.5).abs() < 1e-12);
    }

    #[test]
    fn a_mean_over_samples_weighs_short_and_long_ones_alike() {
        let mut group = rollout(&[Some(1.0), Some(0.0)]);
        group.samples[1].tokens = vec![1; 9];
        group.samples[1].log_probs = vec![-1.0; 9];
        let config = LossConfig { mean: Mean::Sample, ..LossConfig::default() };
        let (samples, _) = assemble(&[group], &config, &mut Rng::derive(1, 0, "x"));
        // 6 tokens on average: 3 tokens weigh twice as much each, 9 two thirds.
        for (advantage, expected) in advantages(&samples).iter().zip([1.0, -1.0 / 3.0]) {
            assert!((advantage - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn truncated_and_masked_samples() {
        let mut group = rollout(&[Some(1.0), Some(0.0), Some(0.0), Some(1.0)]);
        group.samples[1].truncated = true;
        let mut advised = group.clone();
        advised.samples[1].truncated = false;
        advised.samples[1].verdict.masked = true;
        let third = 1.0 / 3.0;
        let cases = [
            ("keep", Truncated::Keep, &group, vec![0.5, -0.5, -0.5, 0.5]),
            ("mask", Truncated::Mask, &group, vec![0.5, -0.5, 0.5]),
            ("drop", Truncated::Drop, &group, vec![third, -2.0 * third, third]),
            ("advice", Truncated::Keep, &advised, vec![0.5, -0.5, 0.5]),
        ];
        for (name, truncated, group, expected) in cases {
            let config = LossConfig { truncated, ..LossConfig::default() };
            let (samples, _) =
                assemble(std::slice::from_ref(group), &config, &mut Rng::derive(1, 0, "x"));
            let got = advantages(&samples);
            assert!(
                got.len() == expected.len()
                    && got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-9),
                "{name}: {got:?}"
            );
        }
    }

    #[test]
    fn shuffling_keeps_the_rewards_and_loses_whose_they_were() {
        let config = LossConfig { shuffle_rewards: true, ..LossConfig::default() };
        let rollouts: Vec<Rollout> =
            (0..50).map(|_| rollout(&[Some(1.0), Some(0.0), None, Some(0.0)])).collect();
        let (samples, stats) = assemble(&rollouts, &config, &mut Rng::derive(1, 0, "x"));
        assert!((stats.reward_sum - 50.0).abs() < 1e-12);
        let first = samples.iter().filter(|sample| sample.completion[0] == 0);
        let mean = first.clone().map(|sample| sample.advantage).sum::<f64>() / first.count() as f64;
        assert!(mean.abs() < 0.2, "the best sample of each group is no longer preferred: {mean}");
        assert!(
            samples.iter().all(|sample| sample.completion[0] != 2),
            "who had no reward has none"
        );
    }
}
