//! What attacks came to.

use std::{collections::BTreeSet, fmt, time::Duration};

use assay_repos::{Attack, Flag, Severity, Task, TaskError};
use assay_rewards::{Failure, Fault, GradeRecord, Outcome, Phase, RewardSpec, score};
use serde::Serialize;

use super::{Exit, infra};

/// What stands for the runs that attacks have to beat, where one of them failed.
pub(super) const NOTHING: &str = "nothing";

/// What stands for code that does nothing, where it passes.
pub(super) const IDLE: &str = "idle";

/// What a record is worth to somebody who wants a reward for nothing: all, a part, or a test or two.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Worth {
    /// The reward of the preset `pass`.
    pass: f64,
    /// That of the preset `fraction`.
    fraction: f64,
    /// Tests that have to pass and do, where the verdict stands.
    held: u32,
}

impl Worth {
    pub(super) fn of(record: &GradeRecord) -> Self {
        let reward = |preset| {
            let spec = RewardSpec::preset(preset);
            spec.and_then(|spec| score(record, spec).reward).unwrap_or_default()
        };
        let held = record.checks.iter().map(|check| check.must_pass.held).sum();
        Self {
            pass: reward("pass"),
            fraction: reward("fraction"),
            held: if record.outcome == Outcome::Scored { held } else { 0 },
        }
    }

    /// Returns the better of each.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            pass: self.pass.max(other.pass),
            fraction: self.fraction.max(other.fraction),
            held: self.held.max(other.held),
        }
    }

    pub(super) fn passes(self) -> bool {
        self.pass >= 1.0 - 1e-9
    }

    fn beats(self, floor: Self) -> bool {
        let more = |a: f64, b: f64| a > b + 1e-9;
        more(self.pass, floor.pass) || more(self.fraction, floor.fraction) || self.held > floor.held
    }
}

/// One attack on one task, or its gold submission.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Tried {
    attack: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    outcome: &'static str,
    #[serde(flatten)]
    worth: Worth,
    earns_more: bool,
    /// Why it does, where that is known and nobody mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<&'static str>,
    flags: Vec<Remark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// How long it took, from asking for it to its record.
    seconds: f64,
    #[serde(skip)]
    infra: bool,
    /// Why there was nothing to try.
    #[serde(skip)]
    unread: Option<String>,
}

#[derive(Debug, Serialize)]
struct Remark {
    code: String,
    severity: Severity,
    evidence: String,
}

impl Tried {
    pub(super) fn new(
        attack: String,
        recipe: Option<&'static Attack>,
        record: &Result<GradeRecord, Failure>,
        took: Duration,
    ) -> Self {
        let seconds = took.as_secs_f64();
        let told = |failure: &Failure| format!("{}: {}", failure.kind, failure.detail);
        let infra = infra(record);
        let class = recipe.map(|recipe| recipe.class.as_str());
        let canaries = |record: &GradeRecord| record.checks.iter().any(|c| !c.canaries.is_empty());
        let controlled = record.as_ref().is_ok_and(canaries);
        let without = |recipe: &&'static Attack| recipe.without_canaries.as_deref();
        let known = recipe.and_then(|recipe| recipe.known.as_deref());
        let known = known.or_else(|| recipe.as_ref().filter(|_| !controlled).and_then(without));
        match record {
            Ok(record) => Self {
                attack,
                class,
                outcome: record.outcome.as_str(),
                worth: Worth::of(record),
                earns_more: false,
                known,
                flags: record.flags.iter().map(remark).collect(),
                failure: record.failure.as_ref().map(told),
                seconds,
                infra,
                unread: None,
            },
            Err(failure) => Self {
                attack,
                class,
                outcome: if infra { Outcome::InfraError } else { Outcome::InvalidTask }.as_str(),
                worth: Worth::default(),
                earns_more: false,
                known,
                flags: Vec::new(),
                failure: Some(told(failure)),
                seconds,
                infra,
                unread: None,
            },
        }
    }

    /// What stands for all attacks of a task whose files can't be read.
    pub(super) fn unreadable(error: &TaskError) -> Self {
        let failure = Failure::new("task_file", Phase::Prepare, Fault::Task, error.to_string());
        let unread = Some(error.to_string());
        Self { unread, ..Self::new("gold".into(), None, &Err(failure), Duration::ZERO) }
    }

    /// Without a floor, nobody knows what is more.
    pub(super) fn compare(&mut self, floor: Option<Worth>) {
        self.earns_more = floor.is_some_and(|floor| self.worth.beats(floor));
    }

    /// Gold first, then by name.
    pub(super) fn order(&self) -> (bool, String) {
        (!self.is_gold(), self.attack.clone())
    }

    /// Why nothing could be tried, if so.
    pub(in crate::cli) fn unread(&self) -> Option<&str> {
        self.unread.as_deref()
    }

    pub(in crate::cli) fn is_infra(&self) -> bool {
        self.infra
    }

    /// Whether it earns more than nothing does, and nobody knew.
    pub(in crate::cli) fn is_news(&self) -> bool {
        self.earns_more && self.known.is_none() && !self.is_gold()
    }

    /// Whether it earns more than nothing does, as we know.
    fn is_known(&self) -> bool {
        self.earns_more && self.known.is_some() && !self.is_gold()
    }

    fn is_gold(&self) -> bool {
        self.attack == "gold"
    }

    /// Whether it is no attack, but what they have to beat, and could not run.
    pub(super) fn is_nothing(&self) -> bool {
        self.attack == NOTHING
    }

    /// Whether it is no attack, but code that does nothing and passes.
    pub(in crate::cli) fn is_idle(&self) -> bool {
        self.attack == IDLE
    }

    fn is_flagged(&self) -> bool {
        let grave = |flag: &Remark| flag.severity >= Severity::Warning;
        !self.is_gold() && self.flags.iter().any(grave)
    }
}

fn remark(flag: &Flag) -> Remark {
    let Flag { code, severity, evidence } = flag.clone();
    Remark { code, severity, evidence }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Worth { pass, fraction, held } = self.worth;
        write!(f, "{}: {}, pass {pass}, fraction {fraction:.3}", self.attack, self.outcome)?;
        if held > 0 {
            write!(f, ", {held} tests held")?;
        }
        let codes: BTreeSet<_> = self.flags.iter().map(|flag| flag.code.as_str()).collect();
        if !codes.is_empty() {
            write!(f, "  [{}]", codes.into_iter().collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }
}

/// All that was tried on one task, as `assay task attack` prints it.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    task: &'a str,
    language: &'static str,
    kind: &'static str,
    mode: &'static str,
    attacks: usize,
    flagged: usize,
    earning: Vec<&'a str>,
    known: Vec<&'a str>,
    problems: Vec<String>,
    tried: &'a [Tried],
}

impl<'a> Report<'a> {
    pub(super) fn new(task: &'a Task, tried: &'a [Tried]) -> Self {
        let is_attack = |one: &&Tried| !one.is_gold() && !one.is_nothing() && !one.is_idle();
        let attacks = || tried.iter().filter(is_attack);
        let names = |which: fn(&Tried) -> bool| {
            attacks().filter(|one| which(one)).map(|one| one.attack.as_str()).collect()
        };
        let mut problems = Vec::new();
        if let Some(gold) = tried.iter().find(|one| one.is_gold())
            && !gold.worth.passes()
        {
            problems.push("gold does not pass, so that no attack does says nothing".to_owned());
        }
        if tried.iter().any(Tried::is_idle) {
            problems.push("code that does nothing passes: no test asks for anything".to_owned());
        }
        Self {
            task: task.id.as_str(),
            language: task.language.as_str(),
            kind: task.submission.kind.as_str(),
            mode: task.mode.as_str(),
            attacks: attacks().count(),
            flagged: attacks().filter(|one| one.is_flagged()).count(),
            earning: names(Tried::is_news),
            known: names(Tried::is_known),
            problems,
            tried,
        }
    }

    /// Whether it is more than "nothing works here".
    pub(super) fn is_news(&self) -> bool {
        !self.earning.is_empty()
            || !self.problems.is_empty()
            || self.tried.iter().any(Tried::is_infra)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, attacks, flagged, earning, known, .. } = self;
        write!(f, "{task}: {attacks} attacks, {} earn more, ", earning.len())?;
        if !known.is_empty() {
            write!(f, "{} do as is known, ", known.len())?;
        }
        write!(f, "{flagged} flagged")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        for one in self.tried {
            let mark = match (one.is_news(), one.is_known()) {
                (true, _) => "EARNS",
                (_, true) => "known",
                _ => "",
            };
            write!(f, "\n  {mark:<6}{one}")?;
            if let Some(failure) = one.failure.as_ref().filter(|_| one.infra) {
                write!(f, "\n        {failure}")?;
            }
        }
        Ok(())
    }
}

/// All tasks together.
#[derive(Default, Serialize)]
pub(super) struct Summary {
    tasks: usize,
    attacks: usize,
    earning: usize,
    known: usize,
    flagged: usize,
    problems: usize,
    infra: usize,
    pub(super) seconds: f64,
}

impl Summary {
    pub(super) fn count(&mut self, report: &Report<'_>) {
        self.tasks += 1;
        self.attacks += report.attacks;
        self.earning += report.earning.len();
        self.known += report.known.len();
        self.flagged += report.flagged;
        self.problems += report.problems.len();
        self.infra += report.tried.iter().filter(|one| one.is_infra()).count();
    }

    /// 2 is for files that are wrong: here, tasks that can be cheated.
    pub(super) fn exit(&self) -> Exit {
        if self.earning + self.problems > 0 {
            Exit::Wrong
        } else if self.infra > 0 {
            Exit::NotDone
        } else {
            Exit::Done
        }
    }
}

#[derive(Serialize)]
pub(super) struct Totals {
    pub(super) summary: Summary,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { tasks, attacks, earning, known, flagged, problems, infra, seconds } =
            &self.summary;
        write!(
            f,
            "{tasks} tasks, {attacks} attacks: {earning} earn more than nothing, {known} do as is known, {flagged} flagged"
        )?;
        if *problems > 0 {
            write!(f, "; {problems} problems")?;
        }
        if *infra > 0 {
            write!(f, "; {infra} runs failed by a fault of this machine")?;
        }
        write!(f, "; {seconds:.1} s")
    }
}
