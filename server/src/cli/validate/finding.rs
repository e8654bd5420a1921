//! What validation finds out about one task.

use std::{collections::BTreeMap, fmt, fs, path::Path, sync::Arc};

use anyhow::Context as _;
use assay_fleet::{Evaluation, RequestId};
use assay_proto::v1::{EvaluateResult, Fault, Outcome};
use assay_repos::{Lock, LockedTest, Mode, Task};
use assay_rewards::{GradeRecord, RewardSpec, Tally, TestStatus, score};
use serde::Serialize;

use super::REWARD;
use crate::{
    App,
    cli::{
        attack::Tried,
        output::{Blame as _, CliResult},
        score::{model, word},
    },
};

/// One task and what its runs said.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) task: Arc<Task>,
    pub(super) gold: Vec<Verdict>,
    pub(super) empty: Vec<Verdict>,
    /// Of the revision without any submission; absent where there is no revision.
    base: Option<GradeRecord>,
    pub(super) problems: Vec<String>,
    /// Of all runs, also of those that no verdict came of.
    pub(super) tally: Tally,
    /// Runs that failed by a fault of this machine.
    pub(super) infra: usize,
    /// How many attacks were tried.
    pub(super) attacks: usize,
    /// The mode that the task should say.
    mark: Option<Mode>,
    lock: Option<Lock>,
}

impl Finding {
    pub(super) fn new(task: Arc<Task>) -> Self {
        Self {
            task,
            gold: Vec::new(),
            empty: Vec::new(),
            base: None,
            problems: Vec::new(),
            tally: Tally::default(),
            infra: 0,
            attacks: 0,
            mark: None,
            lock: None,
        }
    }

    pub(super) fn problem(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.problems.contains(&what) {
            self.problems.push(what);
        }
    }

    /// Reads test by test what the last run found, without and with the gold submission.
    pub(super) async fn note_lock(&mut self, app: &App) -> CliResult<()> {
        let Some(gold) = self.gold.last().and_then(|verdict| verdict.grade.parse().ok()) else {
            return Ok(());
        };
        let Some(gold) = app.fleet().grade(&gold).await.not_done()? else { return Ok(()) };
        let stuck = |record: &GradeRecord| {
            let mut tests = record.checks.iter().flat_map(|check| &check.tests);
            tests.any(|test| test.message.as_ref().is_some_and(|text| text.contains("can't cross")))
        };
        if self.task.mode == Mode::Sealed && stuck(&gold) {
            self.mark = Some(Mode::Guarded);
        }
        let Some(base) = &self.base else { return Ok(()) };
        let lock = lock(base, &gold);
        if self.lock.as_ref().is_some_and(|earlier| *earlier != lock) {
            self.problem("two runs gave a test different results");
        }
        self.lock = Some(lock);
        Ok(())
    }

    /// Finds out whether a guarded suite can be sealed: whether every test, without and with the gold
    /// submission, comes out as it does beside the code under test.
    pub(super) async fn try_sealed(&mut self, app: &App) {
        let sealable = self.task.checks.iter().all(|check| check.report.is_sealable());
        let Some(lock) = self.lock.as_ref().filter(|_| sealable && self.task.mode == Mode::Guarded)
        else {
            return;
        };
        let file = self.task.dir.join("task.toml");
        // Who wrote down a mode meant it.
        if fs::read_to_string(file).is_ok_and(|text| text.lines().any(says_mode)) {
            return;
        }
        let Ok(gold) = self.task.gold() else { return };
        let evaluator = app.fleet().evaluator().in_mode(&self.task, Mode::Sealed);
        let gold = Evaluation::new(RequestId::generate(), self.task.id.clone(), gold);
        let both = (evaluator.baseline(self.task.id.clone()).await, evaluator.evaluate(gold).await);
        if let (Ok(base), Ok(gold)) = both
            && [&base, &gold].iter().all(|verdict| verdict.record.failure.is_none())
            && *lock == self::lock(&base.record, &gold.record)
        {
            self.mark = Some(Mode::Sealed);
        }
    }

    /// Whether there is something to look at before a submission.
    pub(super) fn has_base(&self) -> bool {
        self.task.source.is_some()
    }

    pub(super) fn note_base(&mut self, base: Result<assay_fleet::Verdict, assay_rewards::Failure>) {
        let record = match base {
            Ok(verdict) => verdict.record,
            Err(failure) => {
                self.infra += 1;
                self.tally.count(assay_rewards::Outcome::InfraError);
                return self.problem(format!("no baseline: {}: {}", failure.kind, failure.detail));
            }
        };
        self.tally.count(record.outcome);
        if let Some(failure) = &record.failure {
            self.infra += usize::from(failure.fault == assay_rewards::Fault::Infra);
            let why = &failure.detail;
            self.problem(format!("the baseline is {}: {why}", record.outcome.as_str()));
        } else if RewardSpec::preset(REWARD)
            .is_some_and(|spec| score(&record, spec).reward.is_some_and(|reward| reward >= 1.0))
        {
            self.problem("the revision passes without any submission");
        }
        self.base = Some(record);
    }

    /// Looks for what gives the solution away; runs nothing.
    pub(super) fn note_leaks(&mut self) {
        // A task that can't be read or has no gold submission says so where it is run.
        for leak in assay_repos::leaks(&self.task).unwrap_or_default() {
            self.problem(leak);
        }
    }

    pub(super) fn note_attacks(&mut self, tried: &[Tried]) {
        self.attacks = tried.iter().filter(|one| !one.is_idle()).count();
        for attack in tried {
            if attack.is_idle() {
                self.problem(format!(
                    "a {} that does nothing passes; expected a test that it fails",
                    self.task.submission.kind.as_str()
                ));
            }
            self.infra += usize::from(attack.is_infra());
            if let Some(why) = attack.unread() {
                self.problem(format!("its attacks can't be read: {why}"));
            }
            if attack.is_news() {
                self.problem(format!("an attack earns more than nothing does: {attack}"));
            }
        }
    }

    pub(super) fn judge(&mut self) {
        let infra = |verdict: &&Verdict| {
            verdict.failure.as_ref().is_some_and(|(fault, _)| *fault == Fault::Infra)
        };
        self.infra += self.gold.iter().chain(&self.empty).filter(infra).count();
        for verdict in self.gold.iter().chain(&self.empty) {
            self.tally.count(model(verdict.outcome));
        }
        if let Some(bad) = self.gold.iter().find(|verdict| !earns(verdict)) {
            self.problem(format!("gold is {bad}; expected SCORED with reward 1"));
        }
        if let Some(good) = self.empty.iter().find(|verdict| earns(verdict)) {
            self.problem(format!("the empty submission is {good}; expected less than 1"));
        }
        if let Some(unjudged) = self.empty.iter().find(|verdict| verdict.reward.is_none()) {
            self.problem(format!("the empty submission is {unjudged}; expected a verdict"));
        }
        for (name, verdicts) in [("gold", &self.gold), ("empty", &self.empty)] {
            let Some(first) = verdicts.first() else { continue };
            if let Some(other) = verdicts.iter().find(|verdict| !verdict.same_as(first)) {
                let what = format!("verdicts of {name} differ: {first}; {other}");
                self.problems.push(what);
                break;
            }
        }
    }

    /// Writes what the runs found into the task's folder.
    pub(super) fn write(&mut self) -> anyhow::Result<()> {
        if let Some(mode) = self.mark.filter(|_| self.problems.is_empty()) {
            write_mode(&self.task.dir.join("task.toml"), mode)?;
        }
        if let Some(lock) = self.lock.take().filter(|_| self.problems.is_empty()) {
            let path = self.task.dir.join("private/expected.lock.json");
            fs::write(&path, lock.to_json())
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    pub(super) fn report(&self) -> Report<'_> {
        Report {
            task: self.task.id.as_str(),
            set: &self.task.set,
            valid: self.problems.is_empty(),
            mode: self.task.mode.as_str(),
            gold: self.gold.iter().map(ToString::to_string).collect(),
            empty: self.empty.iter().map(ToString::to_string).collect(),
            problems: &self.problems,
            mark: self.mark.map(Mode::as_str),
        }
    }
}

fn lock(base: &GradeRecord, gold: &GradeRecord) -> Lock {
    let status = |record: &GradeRecord, check: &str, test: &str| {
        let mut checks = record.checks.iter();
        let check = checks.find(|one| one.id == check);
        let found = check.and_then(|check| check.tests.iter().find(|one| one.id == test));
        found.map_or(TestStatus::Missing, |test| test.status).as_str().to_owned()
    };
    let mut lock = Lock { schema: 1, checks: BTreeMap::new() };
    for check in base.checks.iter().chain(&gold.checks) {
        let tests = lock.checks.entry(check.id.clone()).or_default();
        for test in &check.tests {
            tests.entry(test.id.clone()).or_insert_with(|| LockedTest {
                base: status(base, &check.id, &test.id),
                gold: status(gold, &check.id, &test.id),
            });
        }
    }
    lock
}

fn earns(verdict: &Verdict) -> bool {
    verdict.outcome == Outcome::Scored && verdict.reward.is_some_and(|reward| reward >= 1.0 - 1e-9)
}

fn says_mode(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, _)| key.trim() == "mode")
}

/// Has a task file say its mode: at its top, where no table has begun.
fn write_mode(path: &Path, mode: Mode) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let line = format!("mode = \"{mode}\"");
    let mut lines: Vec<&str> = text.lines().collect();
    let table = |lines: &[&str]| lines.iter().position(|line| line.trim_start().starts_with('['));
    let top = table(&lines).unwrap_or(lines.len());
    let mut at = 0;
    lines.retain(|line| {
        at += 1;
        at > top || !says_mode(line)
    });
    let tables = table(&lines);
    let top = tables.unwrap_or(lines.len());
    let place =
        lines[..top].iter().rposition(|line| !line.trim().is_empty()).map_or(0, |at| at + 1);
    lines.insert(place, &line);
    fs::write(path, lines.join("\n") + "\n").with_context(|| format!("write {}", path.display()))
}

/// What one run of one submission said. Two runs of it must say the same.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    outcome: Outcome,
    reward: Option<f64>,
    tests: BTreeMap<&'static str, u32>,
    failure: Option<(Fault, String)>,
    grade: String,
}

impl From<EvaluateResult> for Verdict {
    fn from(result: EvaluateResult) -> Self {
        let tests = result.tests.unwrap_or_default();
        Self {
            outcome: result.outcome(),
            reward: result.reward,
            tests: BTreeMap::from([
                ("passed", tests.passed),
                ("failed", tests.failed),
                ("errors", tests.errors),
                ("skipped", tests.skipped),
                ("missing", tests.missing),
            ]),
            failure: result
                .failure
                .map(|failure| (failure.fault(), format!("{}: {}", failure.kind, failure.detail))),
            grade: result.grade_id,
        }
    }
}

impl Verdict {
    fn same_as(&self, other: &Self) -> bool {
        (self.outcome, self.reward, &self.tests) == (other.outcome, other.reward, &other.tests)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(self.outcome.as_str_name(), "OUTCOME_"))?;
        if let Some(reward) = self.reward {
            write!(f, " with reward {reward}")?;
        }
        let count = |(name, count): (&&str, &u32)| (*count > 0).then(|| format!("{count} {name}"));
        let tests: Vec<_> = self.tests.iter().filter_map(count).collect();
        if !tests.is_empty() {
            write!(f, " ({})", tests.join(", "))?;
        }
        if let Some((_, failure)) = &self.failure {
            write!(f, ", {failure}")?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
pub(super) struct Report<'a> {
    task: &'a str,
    set: &'a str,
    pub(super) valid: bool,
    mode: &'static str,
    gold: Vec<String>,
    empty: Vec<String>,
    problems: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mark: Option<&'static str>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.task)?;
        for problem in self.problems {
            write!(f, "\n  {problem}")?;
        }
        if let Some(mark) = self.mark {
            let why = match mark {
                "sealed" => "its tests run apart from the code under test as they do beside it",
                _ => "its values can't cross into the sealed grader",
            };
            write!(f, "\n  {why}: {mark}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_goes_before_the_tables() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("task.toml");
        let cases = [
            (
                "id = \"a\"\n\n[limits]\nwall_s = 1\n",
                "id = \"a\"\nmode = \"guarded\"\n\n[limits]\nwall_s = 1\n",
            ),
            ("id = \"a\"\n", "id = \"a\"\nmode = \"guarded\"\n"),
            ("[[check]]\nid = \"u\"\n", "mode = \"guarded\"\n[[check]]\nid = \"u\"\n"),
            (
                "mode = \"sealed\"\nid = \"a\"\n[x]\nmode = \"sealed\"\n",
                "id = \"a\"\nmode = \"guarded\"\n[x]\nmode = \"sealed\"\n",
            ),
        ];
        for (before, after) in cases {
            fs::write(&path, before).unwrap();
            write_mode(&path, Mode::Guarded).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after);
        }
    }
}
