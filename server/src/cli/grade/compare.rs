//! What two records of the same submission agree on, and what not.

use std::{collections::BTreeMap, fmt};

use assay_rewards::{Flag, GradeRecord, RewardSpec, Short, score};
use serde::Serialize;

use crate::cli::plain::Plain;

/// The reward that says whether a submission solves its task, and nothing else.
const REWARD: &str = "pass";

/// Two records beside each other.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) same: bool,
    task: String,
    /// The grade that was to be reproduced, and the one that came of it.
    grade: [String; 2],
    /// What both have: outcome, reward, ...
    agrees: Vec<String>,
    differs: Vec<Difference>,
    /// What may explain a difference.
    notes: Vec<String>,
    /// Never compared: they vary.
    beside: BTreeMap<&'static str, [f64; 2]>,
}

#[derive(Debug, Serialize)]
struct Difference {
    what: String,
    was: String,
    is: String,
}

impl Comparison {
    pub(super) fn of(was: &GradeRecord, is: &GradeRecord, notes: Vec<String>) -> Self {
        let mut found = Found::default();
        found.compare("outcome", was, is, |record| record.outcome.as_str().to_owned());
        found.compare("reward", was, is, |record| {
            let reward = RewardSpec::preset(REWARD).and_then(|spec| score(record, spec).reward);
            reward.map_or("none".to_owned(), |reward| Short(reward).to_string())
        });
        found.compare("failure", was, is, |record| match &record.failure {
            None => "none".to_owned(),
            Some(failure) => format!("{} in {}", failure.kind, failure.phase.as_str()),
        });
        found.compare("flags", was, is, flags);
        found.compare("complete", was, is, |record| record.complete.to_string());
        found.compare("submission", was, is, |record| record.submission_digest.to_string());
        found.tests(was, is);
        let mut beside = vec![
            ("wall_s", was.usage.wall_s, is.usage.wall_s),
            ("cpu_s", was.usage.cpu_s, is.usage.cpu_s),
            ("peak_mb", was.usage.peak_mb, is.usage.peak_mb),
        ];
        if was.gold.is_some() || is.gold.is_some() {
            found.compare("gold", was, is, |record| {
                if record.gold.is_some() { "measured" } else { "not measured" }.to_owned()
            });
        }
        if let (Some(was), Some(is)) = (&was.gold, &is.gold) {
            beside.push(("gold_cpu_s", was.cpu_s, is.cpu_s));
        }
        Self {
            same: found.differs.is_empty(),
            task: was.task.to_string(),
            grade: [was.id().to_string(), is.id().to_string()],
            agrees: found.agrees,
            differs: found.differs,
            notes,
            beside: beside.into_iter().map(|(name, was, is)| (name, [was, is])).collect(),
        }
    }
}

/// Codes and severities. Evidence may name what varies: a time, a number of bytes.
fn flags(record: &GradeRecord) -> String {
    let one = |flag: &Flag| format!("{} ({:?})", flag.code, flag.severity);
    let mut all: Vec<_> = record.flags.iter().map(one).collect();
    all.sort();
    if all.is_empty() { "none".to_owned() } else { all.join(", ").to_lowercase() }
}

#[derive(Default)]
struct Found {
    agrees: Vec<String>,
    differs: Vec<Difference>,
}

impl Found {
    fn compare(
        &mut self,
        what: &str,
        was: &GradeRecord,
        is: &GradeRecord,
        read: impl Fn(&GradeRecord) -> String,
    ) {
        let (was, is) = (read(was), read(is));
        if was == is {
            self.agrees.push(format!("{what} {was}"));
        } else {
            self.differs.push(Difference { what: what.to_owned(), was, is });
        }
    }

    fn tests(&mut self, was: &GradeRecord, is: &GradeRecord) {
        let (before, mut now) = (statuses(was), statuses(is));
        let mut equal = 0_usize;
        for (name, was) in before {
            let is = now.remove(&name).unwrap_or_else(|| "not reported".to_owned());
            if was == is {
                equal += 1;
            } else {
                self.differs.push(Difference { what: told(name), was, is });
            }
        }
        for (name, is) in now {
            self.differs.push(Difference { what: told(name), was: "not reported".to_owned(), is });
        }
        let plural = if equal == 1 { "" } else { "s" };
        self.agrees.push(format!("{equal} test{plural}"));
    }
}

fn told((check, test): (&str, &str)) -> String {
    format!("test {test} of check {check}")
}

/// Status and role by check and test. A check that did not run has none.
fn statuses(record: &GradeRecord) -> BTreeMap<(&str, &str), String> {
    let tests = record.checks.iter().flat_map(|check| {
        check.tests.iter().map(move |test| {
            let told = format!("{} ({})", test.status.as_str(), test.role.as_str());
            ((check.id.as_str(), test.id.as_str()), told)
        })
    });
    tests.collect()
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.same { "the same again" } else { "not the same" };
        write!(f, "{}: {verdict}", self.task)?;
        write!(f, "\n  was          {}\n  is           {}", self.grade[0], self.grade[1])?;
        write!(f, "\n  agrees       {}", Plain(&self.agrees.join("; ")))?;
        for Difference { what, was, is } in &self.differs {
            write!(f, "\n  differs      {}: {} -> {}", Plain(what), Plain(was), Plain(is))?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "\n  note         {}", Plain(note)))?;
        for (name, [was, is]) in &self.beside {
            write!(f, "\n  {name:<12} {} -> {}", Short(*was), Short(*is))?;
        }
        Ok(())
    }
}
