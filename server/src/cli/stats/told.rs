//! What is known of tasks, as it is printed.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use assay_proto::v1::{self, QuarantineAction};
use assay_rewards::Short;
use serde::Serialize;

use crate::cli::plain::Plain;

#[derive(Serialize)]
pub(super) struct Listing {
    pub(super) task: String,
    pub(super) quarantined: Vec<Name>,
    pub(super) trail: Vec<Event>,
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} in quarantine", self.task, tests(self.quarantined.len()))?;
        self.quarantined.iter().try_for_each(|name| write!(f, "\n  {name}"))?;
        trail(f, &self.trail)
    }
}

fn tests(count: usize) -> String {
    format!("{count} test{}", if count == 1 { "" } else { "s" })
}

fn trail(f: &mut fmt::Formatter<'_>, trail: &[Event]) -> fmt::Result {
    if !trail.is_empty() {
        f.write_str("\n  trail")?;
    }
    trail.iter().try_for_each(|event| write!(f, "\n    {event}"))
}

#[derive(Serialize)]
pub(super) struct Told {
    task: String,
    #[serde(flatten)]
    all: Counted,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    infra_rate: Option<f64>,
    outcomes: BTreeMap<String, Counted>,
    policy_versions: BTreeMap<u64, Counted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flaky_rate: Option<f64>,
    verdicts: Pairs,
    tests: Vec<Test>,
    quarantined: Vec<Name>,
    trail: Vec<Event>,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Counted {
    answers: u64,
    runs: u64,
    solved: u64,
}

#[derive(Serialize)]
struct Spread {
    mean: f64,
    p50: f64,
    p95: f64,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Pairs {
    pairs: u64,
    disagree: u64,
}

#[derive(Serialize)]
struct Test {
    #[serde(flatten)]
    name: Name,
    role: String,
    runs: u64,
    passes: u64,
    trusted: Pairs,
    others: Pairs,
    flaky: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<Spread>,
}

#[derive(Serialize)]
pub(super) struct Name {
    check: String,
    test: String,
}

#[derive(Serialize)]
pub(super) struct Event {
    #[serde(flatten)]
    name: Name,
    added: bool,
    at_s: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    counted: Option<Pairs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    grades: Vec<String>,
}

impl From<v1::TaskStat> for Told {
    fn from(task: v1::TaskStat) -> Self {
        let all = Counted::from(task.all.unwrap_or_default());
        let infra = task.outcomes.get("INFRA_ERROR").map_or(0, |tally| tally.answers);
        let judged: u64 = ["SCORED", "SUBMISSION_REJECTED", "TAMPERED"]
            .iter()
            .filter_map(|outcome| task.outcomes.get(*outcome))
            .map(|tally| tally.answers)
            .sum();
        let rate = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
        Self {
            task: task.task_id,
            pass_rate: rate(all.solved, judged),
            infra_rate: rate(infra, all.answers),
            all,
            outcomes: task.outcomes.into_iter().map(|(name, tally)| (name, tally.into())).collect(),
            policy_versions: task
                .policy_versions
                .into_iter()
                .map(|(version, tally)| (version, tally.into()))
                .collect(),
            duration_s: task.runs.map(Spread::from),
            flaky_rate: task.flaky_rate,
            verdicts: task.verdicts.unwrap_or_default().into(),
            tests: task.tests.into_iter().map(Test::from).collect(),
            quarantined: task.quarantined.into_iter().map(Name::from).collect(),
            trail: task.trail.into_iter().map(Event::from).collect(),
        }
    }
}

impl From<v1::Tally> for Counted {
    fn from(v1::Tally { answers, runs, solved }: v1::Tally) -> Self {
        Self { answers, runs, solved }
    }
}

impl From<v1::Durations> for Spread {
    fn from(v1::Durations { mean_s, p50_s, p95_s, .. }: v1::Durations) -> Self {
        Self { mean: mean_s, p50: p50_s, p95: p95_s }
    }
}

impl From<v1::Pairs> for Pairs {
    fn from(v1::Pairs { count, disagree }: v1::Pairs) -> Self {
        Self { pairs: count, disagree }
    }
}

impl From<v1::TestName> for Name {
    fn from(v1::TestName { check_id, test }: v1::TestName) -> Self {
        Self { check: check_id, test }
    }
}

impl From<v1::TestStat> for Test {
    fn from(test: v1::TestStat) -> Self {
        Self {
            name: test.test.unwrap_or_default().into(),
            role: test.role,
            runs: test.runs,
            passes: test.passes,
            trusted: test.trusted.unwrap_or_default().into(),
            others: test.others.unwrap_or_default().into(),
            flaky: test.flaky,
            duration_s: test.durations.map(Spread::from),
        }
    }
}

impl From<v1::QuarantineEvent> for Event {
    fn from(event: v1::QuarantineEvent) -> Self {
        Self {
            added: event.action() == QuarantineAction::Add,
            at_s: event.at.map_or(0, |at| at.seconds.unsigned_abs()),
            name: event.test.unwrap_or_default().into(),
            reason: event.reason,
            counted: event.pairs.map(Pairs::from),
            grades: event.grade_ids,
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counted { answers, runs, solved } = self.all;
        write!(f, "{}: {answers} answers, {runs} of them run, {solved} solved", self.task)?;
        if let Some(rate) = self.pass_rate {
            write!(f, " ({} of those judged)", Percent(rate))?;
        }
        let outcomes =
            self.outcomes.iter().map(|(name, tally)| format!("{name} {}", tally.answers));
        write!(f, "\n  outcomes     {}", outcomes.collect::<Vec<_>>().join(", "))?;
        if let Some(rate) = self.infra_rate.filter(|rate| *rate > 0.0) {
            write!(f, "; infra {}", Percent(rate))?;
        }
        for (version, tally) in &self.policy_versions {
            let policy = match version {
                0 => "not told, or long ago".to_owned(),
                version => format!("version {version}"),
            };
            write!(f, "\n  policy       {policy}: {} of {} solved", tally.solved, tally.answers)?;
        }
        if let Some(spread) = &self.duration_s {
            write!(f, "\n  run          {spread}")?;
        }
        let Pairs { pairs, disagree } = self.verdicts;
        write!(
            f,
            "\n  verdict      {disagree} of {pairs} pairs of runs of its own solution differ"
        )?;
        match self.flaky_rate {
            Some(rate) => write!(f, ", flaky rate {}", Short(rate))?,
            None => write!(f, ", too few for a flaky rate")?,
        }
        for test in &self.tests {
            let Test { name, role, runs, passes, trusted, others, flaky, duration_s } = test;
            write!(f, "\n  {role:<12} {name}: passed {passes} of {runs}")?;
            for (what, Pairs { pairs, disagree }) in [("own", trusted), ("others'", others)] {
                if *pairs > 0 {
                    write!(f, ", {disagree} of {pairs} {what} pairs differ")?;
                }
            }
            if let Some(spread) = duration_s {
                write!(f, ", {spread}")?;
            }
            if *flaky {
                f.write_str(", flaky")?;
            }
        }
        if !self.quarantined.is_empty() {
            write!(f, "\n  quarantine   {}", tests(self.quarantined.len()))?;
        }
        trail(f, &self.trail)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of check {}", Plain(&self.test), Plain(&self.check))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mean, p50, p95 } = self;
        write!(f, "mean {mean:.3} s, p50 {p50:.3} s, p95 {p95:.3} s")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, added, at_s, reason, counted, grades } = self;
        let what = if *added { "in" } else { "out" };
        write!(f, "{} {what:<3} {name}", Utc(*at_s))?;
        if let Some(Pairs { pairs, disagree }) = counted {
            write!(f, ": {disagree} of {pairs} own pairs differ")?;
        }
        if let Some(reason) = reason {
            let reason = if reason.is_empty() { "no reason given" } else { reason };
            write!(f, ": by hand, {}", Plain(reason))?;
        }
        for pair in grades.chunks(2) {
            write!(f, "\n      {}", pair.join(" differs from "))?;
        }
        Ok(())
    }
}

struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", self.0 * 100.0)
    }
}

/// A time as `2026-01-31T23:59:59Z`.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.min(1 << 37));
        let stamp = prost_types::Timestamp::from(time);
        write!(f, "{stamp}")
    }
}
