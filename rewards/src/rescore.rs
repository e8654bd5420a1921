//! What a reward file would make of records that are there already.

use assay_repos::{Digest, TaskId};
use serde::Serialize;

use crate::{GradeRecord, RewardSpec, score};

/// Most changes that are told one by one.
const CHANGES: usize = 10;
/// Most distinct rewards that get a bar of their own; more are put into as many intervals.
const BARS: usize = 10;

/// Scores records by one reward file, or by two to compare them. Holds a number per record and
/// file.
#[derive(Debug)]
pub struct Rescoring {
    new: Scores,
    old: Option<Scores>,
    records: u64,
    changed: u64,
    most: Vec<Change>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rescored {
    /// Records scored.
    pub records: u64,
    /// Under the file in question.
    pub new: Spread,
    /// Under the one that it is compared with.
    pub old: Option<Spread>,
    /// How many records have another reward, or none where there was one, or the other way round.
    pub changed: Option<u64>,
    /// The ten that changed most; first those that gained or lost their number.
    pub most_changed: Vec<Change>,
}

/// The rewards of all records under one file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The name of the file.
    pub name: String,
    /// The digest of its text.
    pub digest: String,
    /// Records without a reward.
    pub without: u64,
    /// Records with a reward, and with advice to leave them out.
    pub masked: u64,
    /// The mean of the rewards that there are.
    pub mean: Option<f64>,
    /// Their sample standard deviation (divided by n - 1).
    pub std: Option<f64>,
    /// How they are distributed, the least first; the same bars for both files.
    pub histogram: Vec<Bar>,
}

/// Rewards from `from` up to but not including `to`; the last bar includes its end. A single
/// reward where both are equal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bar {
    /// The least.
    pub from: f64,
    /// The end.
    pub to: f64,
    /// How many there are.
    pub count: u64,
}

/// A record whose reward is another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The record.
    pub grade: Digest,
    /// Its task.
    pub task: TaskId,
    /// Its reward under the old file; `null` for none.
    pub old: Option<f64>,
    /// Its reward under the new one.
    pub new: Option<f64>,
}

#[derive(Debug)]
struct Scores {
    spec: RewardSpec,
    rewards: Vec<f64>,
    without: u64,
    masked: u64,
}

impl Rescoring {
    /// Starts with no record.
    #[must_use]
    pub fn new(new: RewardSpec, old: Option<RewardSpec>) -> Self {
        Self {
            new: Scores::new(new),
            old: old.map(Scores::new),
            records: 0,
            changed: 0,
            most: Vec::new(),
        }
    }

    /// Scores one more record. `id` is asked where the record is one of those that changed most.
    pub fn add(&mut self, record: &GradeRecord, id: impl FnOnce() -> Digest) {
        self.records += 1;
        let new = self.new.add(record);
        let Some(old) = self.old.as_mut().map(|old| old.add(record)) else { return };
        if old == new {
            return;
        }
        self.changed += 1;
        let size = size(old, new);
        let full = self.most.len() == CHANGES;
        if full && self.most.last().is_some_and(|least| least.size() >= size) {
            return;
        }
        self.most.truncate(CHANGES - 1);
        let at = self.most.partition_point(|change| change.size() >= size);
        self.most.insert(at, Change { grade: id(), task: record.task.clone(), old, new });
    }

    /// Sums up.
    #[must_use]
    pub fn finish(self) -> Rescored {
        let Self { new, old, records, changed, most } = self;
        let bars = bars(new.rewards.iter().chain(old.iter().flat_map(|old| &old.rewards)));
        Rescored {
            records,
            changed: old.as_ref().map(|_| changed),
            new: new.spread(&bars),
            old: old.map(|old| old.spread(&bars)),
            most_changed: most,
        }
    }
}

impl Change {
    fn size(&self) -> f64 {
        size(self.old, self.new)
    }
}

/// How much of a change it is: of a number that appears or is lost, more than any other.
fn size(old: Option<f64>, new: Option<f64>) -> f64 {
    match (old, new) {
        (Some(old), Some(new)) => (old - new).abs(),
        (None, None) => 0.0,
        _ => f64::INFINITY,
    }
}

impl Scores {
    fn new(spec: RewardSpec) -> Self {
        Self { spec, rewards: Vec::new(), without: 0, masked: 0 }
    }

    fn add(&mut self, record: &GradeRecord) -> Option<f64> {
        let scored = score(record, &self.spec);
        match scored.reward {
            Some(reward) => {
                self.rewards.push(reward);
                self.masked += u64::from(scored.mask.is_some());
            }
            None => self.without += 1,
        }
        scored.reward
    }

    fn spread(self, bars: &[(f64, f64)]) -> Spread {
        let Self { spec, rewards, without, masked } = self;
        let n = rewards.len() as f64;
        let mean = (n > 0.0).then(|| rewards.iter().map(|reward| reward / n).sum::<f64>());
        let std = mean.filter(|_| n > 1.0).map(|mean| {
            let squares: f64 = rewards.iter().map(|reward| (reward - mean).powi(2)).sum();
            (squares / (n - 1.0)).sqrt()
        });
        let mut histogram: Vec<Bar> =
            bars.iter().map(|&(from, to)| Bar { from, to, count: 0 }).collect();
        for reward in rewards {
            let after = histogram.partition_point(|bar| bar.from <= reward);
            if let Some(bar) = histogram.get_mut(after.saturating_sub(1)) {
                bar.count += 1;
            }
        }
        Spread {
            name: spec.name().to_owned(),
            digest: spec.digest().to_string(),
            without,
            masked,
            mean: mean.filter(|mean| mean.is_finite()),
            std: std.filter(|std| std.is_finite()),
            histogram,
        }
    }
}

/// Returns the ends of the bars: one for each reward where there are few, else equal intervals.
fn bars<'r>(rewards: impl Iterator<Item = &'r f64> + Clone) -> Vec<(f64, f64)> {
    let mut distinct: Vec<f64> = Vec::new();
    for &reward in rewards.clone() {
        if let Err(at) = distinct.binary_search_by(|known| known.total_cmp(&reward)) {
            if distinct.len() == BARS {
                let (lo, hi) = rewards.fold((reward, reward), |(lo, hi), &reward| {
                    (f64::min(lo, reward), f64::max(hi, reward))
                });
                return (0..BARS).map(|i| (cut(lo, hi, i), cut(lo, hi, i + 1))).collect();
            }
            distinct.insert(at, reward);
        }
    }
    distinct.into_iter().map(|reward| (reward, reward)).collect()
}

/// Returns where the `i`th of [`BARS`] intervals starts.
fn cut(lo: f64, hi: f64, i: usize) -> f64 {
    // Not from the width, which may be too large for a number.
    let part = i as f64 / BARS as f64;
    lo * (1.0 - part) + hi * part
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::{Outcome, testing};

    fn spec(value: &str) -> RewardSpec {
        let text =
            format!("schema = 1\nname = \"t\"\n[[term]]\nname = \"x\"\nvalue = \"{value}\"\n");
        RewardSpec::parse(&text, Path::new("t.toml")).unwrap()
    }

    fn records() -> Vec<GradeRecord> {
        let mut records: Vec<_> = (0..=4).map(|held| testing::record((held, 4), (0, 0))).collect();
        records[0].external.insert("judge".into(), 3.0);
        records.push(GradeRecord { outcome: Outcome::InfraError, ..records[0].clone() });
        records
    }

    fn rescore(new: &RewardSpec, old: Option<&RewardSpec>) -> Rescored {
        let mut rescoring = Rescoring::new(new.clone(), old.cloned());
        records().iter().for_each(|record| rescoring.add(record, || record.id()));
        rescoring.finish()
    }

    #[test]
    fn one_file() {
        let spec = spec("must_pass.all");
        let rescored = rescore(&spec, None);
        assert_eq!((rescored.records, rescored.changed, rescored.old), (6, None, None));
        let new = rescored.new;
        assert_eq!((new.without, new.masked, new.mean), (1, 0, Some(0.2)));
        assert!((new.std.unwrap() - 0.2_f64.sqrt()).abs() < 1e-12);
        let bars: Vec<_> = new.histogram.iter().map(|bar| (bar.from, bar.to, bar.count)).collect();
        assert_eq!(bars, [(0.0, 0.0, 4), (1.0, 1.0, 1)]);
    }

    #[test]
    fn two_files_have_the_same_bars() {
        let (old, new) = (spec("must_pass.all"), spec("must_pass.fraction"));
        let rescored = rescore(&new, Some(&old));
        assert_eq!(rescored.changed, Some(3));
        let old = rescored.old.unwrap();
        let counts = |spread: &Spread| -> Vec<_> {
            spread.histogram.iter().map(|bar| (bar.from, bar.count)).collect()
        };
        assert_eq!(counts(&old), [(0.0, 4), (0.25, 0), (0.5, 0), (0.75, 0), (1.0, 1)]);
        assert_eq!(counts(&rescored.new), [(0.0, 1), (0.25, 1), (0.5, 1), (0.75, 1), (1.0, 1)]);
        let most: Vec<_> = rescored.most_changed.iter().map(|change| change.new).collect();
        assert_eq!(most, [Some(0.75), Some(0.5), Some(0.25)]);
        assert_eq!(rescored.most_changed[0].grade, records()[3].id());
    }

    #[test]
    fn a_number_that_is_lost_is_the_greatest_change() {
        let (old, new) = (spec("must_pass.all"), spec("external.judge"));
        let rescored = rescore(&new, Some(&old));
        assert_eq!((rescored.changed, rescored.new.without), (Some(5), 5));
        let most: Vec<_> = rescored.most_changed.iter().map(|c| (c.old, c.new)).collect();
        assert_eq!(
            most[..4],
            [(Some(0.0), None), (Some(0.0), None), (Some(0.0), None), (Some(1.0), None)]
        );
        assert_eq!(most[4], (Some(0.0), Some(3.0)));
    }

    proptest! {
        #[test]
        fn every_reward_has_its_bar(rewards in prop::collection::vec(-1e12..1e12_f64, 0..60), few in any::<bool>()) {
            let rewards: Vec<_> =
                rewards.into_iter().map(|reward| if few { (reward / 4e11).round() + 0.0 } else { reward }).collect();
            let bars = bars(rewards.iter());
            prop_assert!(bars.len() <= BARS);
            prop_assert!(bars.windows(2).all(|pair| pair[0].0 < pair[1].0));
            let spec = spec("must_pass.all");
            let scores = Scores { rewards: rewards.clone(), ..Scores::new(spec.clone()) };
            let spread = scores.spread(&bars);
            prop_assert_eq!(spread.histogram.iter().map(|bar| bar.count).sum::<u64>(), rewards.len() as u64);
            prop_assert!(rewards.is_empty() || spread.histogram[0].from <= rewards.iter().copied().fold(f64::MAX, f64::min));
        }
    }
}
