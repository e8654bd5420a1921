//! The policy loss of GRPO with two-sided clipping, as plain functions of numbers.
//!
//! Per token, with `l` the log-prob under the weights being trained, `l_old` under the weights at
//! the start of the step (both by the trainer), `l_sampler` as the sampler reported it, `l_ref`
//! under the reference policy, and `A` the advantage of the token's sample:
//!
//! ```text
//! ratio  = exp(l - l_old)
//! weight = min(exp(l_old - l_sampler), C)                          the sampler's share of the mismatch
//! policy = -weight * min(min(ratio, delta) A, clip(ratio, 1 - eps, 1 + eps) A)
//! kl     = exp(l_ref - l) - (l_ref - l) - 1                        k3 (Schulman 2020)
//! loss   = sum(policy + beta kl) / tokens of the whole optimizer step
//! ```
//!
//! `delta` bounds the term that plain GRPO leaves unbounded, `A < 0` with a growing ratio
//! (INTELLECT-2, section 3.4). `weight` is a constant: truncated importance sampling corrects for
//! the difference between the sampler's numerics and the trainer's. The gradient by `l` is
//! analytic, so the head's chunks can be given it directly; `tests/grpo_oracle.py` checks both.

use serde::{Deserialize, Serialize};

/// Log ratios are clamped to this before `exp`; beyond it the gradient is zero.
const LOG_RATIO_LIMIT: f64 = 20.0;

/// The constants of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grpo {
    /// Half width of the trust region of the ratio.
    pub epsilon: f64,
    /// Upper bound of the ratio where the advantage is negative. Above `1 + epsilon`.
    pub delta: f64,
    /// Upper bound `C` of the weight for the difference between sampler and trainer.
    pub importance_cap: f64,
    /// Weight `beta` of the KL to the policy that the run started from; 0: none is computed.
    pub kl: f64,
}

impl Default for Grpo {
    fn default() -> Self {
        Self { epsilon: 0.2, delta: 4.0, importance_cap: 2.0, kl: 0.0 }
    }
}

/// Per-token streams of equal length. All log-probs in nats, temperature applied.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// Under the weights being trained.
    pub log_probs: &'a [f32],
    /// Under the weights at the start of the step.
    pub old: &'a [f32],
    /// As the sampler reported them.
    pub sampler: &'a [f32],
    /// Under the reference policy; needed where `kl` is not 0.
    pub reference: Option<&'a [f32]>,
    /// The advantage of each token's sample.
    pub advantages: &'a [f32],
}

/// Sums over tokens; divide by `tokens` for means. Sums of micro-batches add up to the batch's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Tokens with a loss.
    pub tokens: f64,
    /// `policy + beta kl`.
    pub loss: f64,
    /// Tokens whose policy term is flat because the ratio left its bounds.
    pub clipped: f64,
    /// k3 to the reference policy.
    pub kl: f64,
    /// `w - ln w - 1` with `w = exp(l_old - l_sampler)`: how far sampler and trainer disagree.
    pub mismatch_kl: f64,
    /// Tokens whose weight hit `importance_cap`.
    pub truncated_weights: f64,
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.loss += other.loss;
        self.clipped += other.clipped;
        self.kl += other.kl;
        self.mismatch_kl += other.mismatch_kl;
        self.truncated_weights += other.truncated_weights;
    }
}

/// The loss summed over `tokens`, and its derivative by each of `log_probs`.
///
/// Neither is normalised: the caller divides by the token count of the whole optimizer step.
///
/// # Panics
/// When the streams differ in length, or `kl` is not 0 and there is no reference: errors of the
/// caller, never of data.
pub fn grpo(constants: &Grpo, tokens: &Tokens<'_>) -> (Sums, Vec<f32>) {
    let count = tokens.log_probs.len();
    assert!(
        [tokens.old, tokens.sampler, tokens.advantages].iter().all(|stream| stream.len() == count),
        "one entry per token in every stream"
    );
    let mut sums = Sums::default();
    let gradient = (0..count)
        .map(|i| {
            let reference = (constants.kl != 0.0).then(|| {
                f64::from(tokens.reference.expect("a KL term has reference log-probs")[i])
            });
            let (term, derivative) = token(
                constants,
                f64::from(tokens.log_probs[i]),
                f64::from(tokens.old[i]),
                f64::from(tokens.sampler[i]),
                reference,
                f64::from(tokens.advantages[i]),
            );
            sums += term;
            derivative as f32
        })
        .collect();
    (sums, gradient)
}

/// One token's terms and the derivative of its loss by `l`.
fn token(
    constants: &Grpo,
    l: f64,
    l_old: f64,
    l_sampler: f64,
    l_ref: Option<f64>,
    advantage: f64,
) -> (Sums, f64) {
    let Grpo { epsilon, delta, importance_cap, kl: beta } = *constants;
    let log_ratio = l - l_old;
    let ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp();
    let mismatch_log = (l_old - l_sampler).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
    let mismatch = mismatch_log.exp();
    let weight = mismatch.min(importance_cap);

    let bounded = ratio.min(delta) * advantage;
    let clipped = ratio.clamp(1.0 - epsilon, 1.0 + epsilon) * advantage;
    let mut loss = -weight * bounded.min(clipped);
    // The minimum follows the ratio unless the ratio has left the bound on the side that the
    // advantage pushes to.
    let flat = (advantage > 0.0 && ratio > 1.0 + epsilon)
        || (advantage < 0.0 && (ratio < 1.0 - epsilon || ratio > delta));
    let moves = !flat && log_ratio.abs() <= LOG_RATIO_LIMIT;
    let mut derivative = if moves { -weight * ratio * advantage } else { 0.0 };

    let mut kl = 0.0;
    if let Some(l_ref) = l_ref {
        let difference = l_ref - l;
        let clamped = difference.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
        kl = clamped.exp() - clamped - 1.0;
        loss += beta * kl;
        if difference.abs() <= LOG_RATIO_LIMIT {
            derivative += beta * (1.0 - clamped.exp());
        }
    }
    let sums = Sums {
        tokens: 1.0,
        loss,
        clipped: f64::from(u8::from(flat)),
        kl,
        mismatch_kl: mismatch - mismatch_log - 1.0,
        truncated_weights: f64::from(u8::from(mismatch > importance_cap)),
    };
    (sums, derivative)
}

#[cfg(test)]
#[path = "../tests/unit/loss.rs"]
mod tests;
