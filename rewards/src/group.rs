//! What the samples of one prompt have in common.

use assay_repos::Digest;

use crate::Outcome;

/// One sample of a group.
#[derive(Clone, Copy, Debug)]
pub struct GroupSample<'a> {
    /// How it ended.
    pub outcome: Outcome,
    /// Its reward, where it has one.
    pub reward: Option<f64>,
    /// Whether its own advice is to leave it out.
    pub masked: bool,
    /// What was submitted, where that is known.
    pub submission: Option<&'a Digest>,
}

/// A group in numbers. `requested` is the sum of the seven outcomes that follow it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupStats {
    /// Samples asked for.
    pub requested: u32,
    /// Samples that were run and judged.
    pub scored: u32,
    /// Samples rejected by their own fault.
    pub rejected: u32,
    /// Samples whose report contradicts itself.
    pub tampered: u32,
    /// Samples of a task that can't judge.
    pub invalid: u32,
    /// Samples lost to a failure of ours.
    pub infra: u32,
    /// Samples called off.
    pub cancelled: u32,
    /// Samples whose deadline came first.
    pub deadline_exceeded: u32,
    /// Samples with a reward and without advice to leave them out: those of `mean` and `std`.
    pub valid: u32,
    /// Samples that repeat what another sample of the group submitted.
    pub duplicates: u32,
    /// The mean reward of the valid samples.
    pub mean: Option<f64>,
    /// Their sample standard deviation (divided by n - 1); absent for fewer than two.
    pub std: Option<f64>,
    /// Advice to leave out the whole group, with its reason.
    pub mask: Option<String>,
}

/// Sums up a group. Advises to leave it out when less than the fraction `min_valid` of it is valid
/// ([`RewardSpec::group_min_valid`](crate::RewardSpec::group_min_valid)), or nothing is.
#[must_use]
pub fn summarize(samples: &[GroupSample<'_>], min_valid: f64) -> GroupStats {
    let mut stats = GroupStats::default();
    let mut rewards = Vec::with_capacity(samples.len());
    let mut submissions: Vec<&Digest> = Vec::with_capacity(samples.len());
    for sample in samples {
        stats.requested += 1;
        *match sample.outcome {
            Outcome::Scored => &mut stats.scored,
            Outcome::SubmissionRejected => &mut stats.rejected,
            Outcome::Tampered => &mut stats.tampered,
            Outcome::InvalidTask => &mut stats.invalid,
            Outcome::InfraError => &mut stats.infra,
            Outcome::Cancelled => &mut stats.cancelled,
            Outcome::DeadlineExceeded => &mut stats.deadline_exceeded,
        } += 1;
        if let Some(reward) = sample.reward.filter(|reward| reward.is_finite() && !sample.masked) {
            rewards.push(reward);
        }
        submissions.extend(sample.submission);
    }
    let known = submissions.len();
    submissions.sort_unstable();
    submissions.dedup();
    stats.duplicates = (known - submissions.len()) as u32;
    stats.valid = rewards.len() as u32;
    let n = rewards.len() as f64;
    if !rewards.is_empty() {
        let mean = rewards.iter().sum::<f64>() / n;
        stats.mean = Some(mean).filter(|mean| mean.is_finite());
        if rewards.len() > 1 {
            let squares: f64 = rewards.iter().map(|reward| (reward - mean).powi(2)).sum();
            stats.std = Some((squares / (n - 1.0)).sqrt()).filter(|std| std.is_finite());
        }
    }
    if !samples.is_empty() && (n == 0.0 || n < min_valid * samples.len() as f64) {
        stats.mask =
            Some(format!("{} of {} samples are valid", stats.valid, stats.requested));
    }
    stats
}
