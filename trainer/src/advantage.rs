//! From the rewards of one group to the advantage of each sample.
//!
//! A reward that is absent (or NaN) is no reward: it enters no mean, no deviation and no loss.

use serde::{Deserialize, Serialize};

/// Rewards closer than this are the same reward.
const SAME: f64 = 1e-9;
/// Keeps the quotient finite (INTELLECT-2 and prime-rl use the same value).
const STD_EPSILON: f64 = 1e-6;

/// What a sample is compared with. `A` advantage, `r` reward, all over the valid samples of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advantage {
    /// `A = r - mean(r)` (Dr. GRPO): hard and easy prompts pull with the strength of their spread.
    #[default]
    Mean,
    /// `A = (r - mean(r)) / (std(r) + 1e-6)` with the sample deviation (GRPO).
    MeanStd,
}

/// What a group is worth to the learner.
#[derive(Clone, Debug, PartialEq)]
pub enum Group {
    /// One advantage per sample; `None` where the sample has no reward.
    Kept(Vec<Option<f64>>),
    /// Every valid reward is the same: there is nothing to prefer, and no forward pass is spent.
    ZeroVariance,
    /// Fewer than half of the samples have a reward (or fewer than two): no fair comparison.
    TooFewValid,
}

/// Compares the samples of one group with each other.
pub fn group(rewards: &[Option<f64>], advantage: Advantage) -> Group {
    let rewards: Vec<Option<f64>> =
        rewards.iter().map(|reward| reward.filter(|value| value.is_finite())).collect();
    let valid: Vec<f64> = rewards.iter().flatten().copied().collect();
    if valid.len() < 2 || valid.len() * 2 < rewards.len() {
        return Group::TooFewValid;
    }
    let count = valid.len() as f64;
    let mean = valid.iter().sum::<f64>() / count;
    if valid.iter().all(|reward| (reward - valid[0]).abs() <= SAME) {
        return Group::ZeroVariance;
    }
    let scale = match advantage {
        Advantage::Mean => 1.0,
        Advantage::MeanStd => {
            let squares: f64 = valid.iter().map(|reward| (reward - mean).powi(2)).sum();
            1.0 / ((squares / (count - 1.0)).sqrt() + STD_EPSILON)
        }
    };
    Group::Kept(rewards.iter().map(|reward| reward.map(|value| (value - mean) * scale)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups() {
        let some = |values: &[f64]| values.iter().map(|value| Some(*value)).collect::<Vec<_>>();
        let cases = [
            (
                "mean",
                some(&[1.0, 0.0, 0.0, 0.0]),
                Advantage::Mean,
                Group::Kept(some(&[0.75, -0.25, -0.25, -0.25])),
            ),
            (
                "an absent reward is not a zero",
                vec![Some(1.0), None, Some(0.0)],
                Advantage::Mean,
                Group::Kept(vec![Some(0.5), None, Some(-0.5)]),
            ),
            (
                "nor is NaN",
                vec![Some(1.0), Some(f64::NAN), Some(0.0)],
                Advantage::Mean,
                Group::Kept(vec![Some(0.5), None, Some(-0.5)]),
            ),
            ("all equal", some(&[0.3, 0.1 + 0.2, 0.3]), Advantage::Mean, Group::ZeroVariance),
            (
                "all equal where valid",
                vec![Some(1.0), Some(1.0), None],
                Advantage::MeanStd,
                Group::ZeroVariance,
            ),
            (
                "half is enough",
                vec![Some(1.0), Some(0.0), None, None],
                Advantage::Mean,
                Group::Kept(vec![Some(0.5), Some(-0.5), None, None]),
            ),
            (
                "less than half",
                vec![Some(1.0), Some(0.0), None, None, None],
                Advantage::Mean,
                Group::TooFewValid,
            ),
            ("a group of one", some(&[1.0]), Advantage::MeanStd, Group::TooFewValid),
            ("nothing", vec![], Advantage::Mean, Group::TooFewValid),
        ];
        for (name, rewards, advantage, expected) in cases {
            assert_eq!(group(&rewards, advantage), expected, "{name}");
        }
    }

    #[test]
    fn mean_std_uses_the_sample_deviation() {
        let Group::Kept(advantages) = group(&[Some(0.0), Some(1.0), Some(2.0)], Advantage::MeanStd)
        else {
            panic!("a group with spread is kept");
        };
        // std([0, 1, 2], ddof=1) = 1
        for (advantage, expected) in advantages.iter().zip([-1.0, 0.0, 1.0]) {
            assert!((advantage.unwrap() - expected).abs() < 2e-6);
        }
    }
}
