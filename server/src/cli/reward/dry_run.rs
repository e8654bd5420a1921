//! `assay reward dry-run`: stored grades under another reward file.

use std::fmt;

use assay_rewards::{Bar, Change, Rescored, Rescoring, RewardSpec, Short, Spread};
use serde::Serialize;

use crate::cli::{
    Common,
    output::{CliResult, Exit, wrong},
    records::{Records, Stored},
};

/// Longest bar, in characters.
const WIDTH: u64 = 30;

pub(super) fn run(
    common: &Common,
    records: &Records,
    new: RewardSpec,
    old: Option<RewardSpec>,
) -> CliResult {
    let spinner = common.output().spinner("scoring");
    let whole = new.has_plugins() || old.as_ref().is_some_and(RewardSpec::has_plugins);
    let mut rescoring = Rescoring::new(new, old);
    records.each(whole, |Stored { record, json }| {
        rescoring.add(&record, || Stored::id(json));
        Ok(())
    })?;
    spinner.finish_and_clear();
    let rescored = rescoring.finish();
    if rescored.records == 0 {
        return Err(wrong(format!("there is no grade in {records}")));
    }
    common.output().line(&Report { rescored, unreadable: 0, complete: true })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) rescored: Rescored,
    /// Grades whose records can't be read.
    pub(super) unreadable: u64,
    /// Whether there are no more than these.
    pub(super) complete: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rescored { records, new, old, changed, most_changed } = &self.rescored;
        write!(f, "{records} grade{}", if *records == 1 { "" } else { "s" })?;
        if !self.complete {
            f.write_str(" of more")?;
        }
        if self.unreadable > 0 {
            write!(f, "; {} can't be read by this version", self.unreadable)?;
        }
        for spread in old.iter().chain([new]) {
            summary(f, spread)?;
        }
        histogram(f, new, old.as_ref())?;
        let Some(changed) = changed else { return Ok(()) };
        write!(f, "\n{changed} changed")?;
        if !most_changed.is_empty() {
            f.write_str(", most of all")?;
        }
        most_changed.iter().try_for_each(|change| one(f, change))
    }
}

fn summary(f: &mut fmt::Formatter<'_>, spread: &Spread) -> fmt::Result {
    let Spread { name, without, masked, mean, std, .. } = spread;
    let mean = mean.map_or("none".into(), |mean| Short(mean).to_string());
    let std = std.map_or("none".into(), |std| Short(std).to_string());
    write!(f, "\n{name}: mean {mean}, std {std}, {without} without a reward, {masked} masked")
}

/// One line for each bar, those of the old file on the left.
fn histogram(f: &mut fmt::Formatter<'_>, new: &Spread, old: Option<&Spread>) -> fmt::Result {
    let labels: Vec<_> = new.histogram.iter().map(label).collect();
    let wide = labels.iter().map(String::len).max().unwrap_or(0).max("reward".len());
    let bars = || old.iter().flat_map(|old| &old.histogram).chain(&new.histogram);
    let most = bars().map(|bar| bar.count).max().unwrap_or(0).max(1);
    let digits = most.to_string().len();
    let column = |bar: &Bar| {
        // What is there is seen, however little it is.
        let length = (bar.count * WIDTH).div_ceil(most);
        format!("{:>digits$} {}", bar.count, "#".repeat(length as usize))
    };
    let cell = digits + 1 + WIDTH as usize;
    write!(f, "\n{:<wide$}", "reward")?;
    if let Some(old) = old {
        write!(f, "  {:<cell$}", old.name)?;
    }
    write!(f, "  {}", new.name)?;
    for (i, (bar, label)) in new.histogram.iter().zip(&labels).enumerate() {
        write!(f, "\n{label:>wide$}")?;
        if let Some(old) = old.and_then(|old| old.histogram.get(i)) {
            write!(f, "  {:<cell$}", column(old))?;
        }
        write!(f, "  {}", column(bar).trim_end())?;
    }
    Ok(())
}

fn label(bar: &Bar) -> String {
    if bar.from == bar.to {
        Short(bar.from).to_string()
    } else {
        format!("{}..{}", Short(bar.from), Short(bar.to))
    }
}

fn one(f: &mut fmt::Formatter<'_>, Change { grade, task, old, new }: &Change) -> fmt::Result {
    let told = |reward: &Option<f64>| reward.map_or("none".into(), |it| Short(it).to_string());
    let short: String = grade.as_str().chars().take(19).collect();
    write!(f, "\n  {short} {task}: {} -> {}", told(old), told(new))
}
