//! Control runs: a second run of a check in which tests of the task's own must fail.
//!
//! Reports of tools that are not ours are written in the process that the code under test is in. So
//! when such a report says that tests passed, some of those tests are *spoiled*: a failure is put
//! at the end of each in its source, and the check runs again. They have the names that they had,
//! call the code under test as they did, and say nothing more. Whoever prints results, turns
//! outcomes or disturbs comparisons does so here, too, and a spoiled test that passes tells it.
//!
//! A test is spoiled only where its id says exactly which function it is, in a file that the
//! submission can't change; the first run is as the task wrote it.

mod go;
mod javascript;
mod rust;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use assay_repos::{Change, Digest, Language, ReportKind, Severity};
use assay_sandbox::Execution;

use crate::{
    Canary, CanaryKind, Evidence, Report, TestStatus, TestStatus::Xpassed, parse, report::describe,
};

/// Files of a work tree, by path.
type Files = BTreeMap<PathBuf, Arc<[u8]>>;
/// What tells a test from others: a Go package, a Rust file or nothing, and the name in it.
type TestName = (String, String);
type Places = HashMap<TestName, Vec<Place>>;

/// Most canaries that a record keeps; those that don't hold come first.
const MAX_CANARIES: usize = 16;
/// What stands between the parts of an id.
const BETWEEN: &str = " > ";

/// The tests of a task as they are written, and where a failure can be put in them.
#[derive(Clone, Debug, Default)]
pub struct TestSources {
    syntax: Option<&'static dyn Syntax>,
    files: Files,
    places: Places,
    /// What the task itself has for control runs.
    own: BTreeMap<PathBuf, Change>,
}

/// A run of a check in which tests must fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Files of the work tree that go over those of the first run.
    pub files: BTreeMap<PathBuf, Change>,
    /// The ids of the tests that are spoiled, at least one.
    pub tests: Vec<String>,
}

/// What a control run left behind.
#[derive(Clone, Copy, Debug)]
pub struct ControlRun<'a> {
    /// The tests that are spoiled.
    pub tests: &'a [String],
    /// The run.
    pub execution: &'a Execution,
    /// What tells its report from others. Never empty.
    pub nonce: &'a str,
}

/// How tests of a language are found and spoiled.
trait Syntax: fmt::Debug + Sync {
    /// Whether a file may hold tests, or says whose they are.
    fn needs(&self, path: &Path) -> bool;

    /// Finds every test, also those that can't be spoiled: two of one name are none.
    fn places(&self, files: &Files) -> Places;

    /// Returns the test that an id names.
    fn name(&self, kind: ReportKind, id: &str) -> Option<TestName>;

    /// Returns the id of the test that fails when the one of this id is spoiled.
    fn whole(&self, id: &str) -> String {
        id.to_owned()
    }

    /// Puts a failure into the tests at `places`, first to last, of one file. Returns that file and
    /// others that it needs.
    fn spoil(
        &self,
        file: &Path,
        text: &str,
        places: &[&Place],
        chance: &mut Chance<'_>,
    ) -> BTreeMap<PathBuf, String>;
}

/// Where a test is.
#[derive(Clone, Debug)]
struct Place {
    file: PathBuf,
    /// Where the failure goes, in bytes; absent where it can't be put in.
    at: Option<usize>,
    /// What the failure calls, or is called with: by the language.
    word: String,
    /// What the file is of: a Go package's import path, a test binary's source, or nothing.
    of: String,
}

fn syntax(language: Language) -> Option<&'static dyn Syntax> {
    match language {
        Language::Go => Some(&go::Go),
        Language::Rust => Some(&rust::Rust),
        Language::Javascript => Some(&javascript::Javascript),
        _ => None,
    }
}

impl TestSources {
    /// Whether [`of`](Self::of) has to see a file.
    #[must_use]
    pub fn needs(language: Language, path: &Path) -> bool {
        syntax(language).is_some_and(|syntax| syntax.needs(path))
    }

    /// Finds the tests of a task. `files` are those of the revision with the trusted overlay over
    /// it; `trusted` says which of them no submission can change.
    #[must_use]
    pub fn of(language: Language, files: Files, trusted: impl Fn(&Path) -> bool) -> Self {
        let Some(syntax) = syntax(language) else { return Self::default() };
        let files: Files = files.into_iter().filter(|(path, _)| syntax.needs(path)).collect();
        let mut places = syntax.places(&files);
        let known = |place: &Place| place.at.is_some() && trusted(&place.file);
        places.retain(|_, places| matches!(&places[..], [one] if known(one)));
        Self { syntax: Some(syntax), files, places, ..Self::default() }
    }

    /// Takes what the task has for control runs instead: with these files over its own, every test
    /// that has to pass must fail. Without files, nothing changes.
    #[must_use]
    pub fn or_by_task(self, own: BTreeMap<PathBuf, Change>) -> Self {
        Self { own, ..self }
    }

    /// Chooses what a control run of a check spoils: of the tests that have to pass and did, one,
    /// and of the others in its file each with even odds. Where none of them can be spoiled, any
    /// that passed will do. `seed` decides: a text of chance, never used twice.
    ///
    /// Returns `None` where there is nothing to control: no test that has to pass did, or none can
    /// be spoiled.
    #[must_use]
    pub fn control(
        &self,
        kind: ReportKind,
        must_pass: &[String],
        evidence: &Evidence<'_>,
        seed: &str,
    ) -> Option<Control> {
        if !kind.is_foreign() || self.own.is_empty() && self.places.is_empty() {
            return None;
        }
        let report = parse(kind, evidence).ok()?;
        let passed = report.tests.iter().filter(|test| test.status.passes());
        let passed: Vec<_> = passed.map(|test| test.id.as_str()).collect();
        let has_to: HashSet<_> = must_pass.iter().map(String::as_str).collect();
        let wanted: Vec<_> = passed.iter().copied().filter(|id| has_to.contains(id)).collect();
        if wanted.is_empty() && !must_pass.is_empty() {
            return None;
        }
        if !self.own.is_empty() && !wanted.is_empty() {
            let tests = wanted.into_iter().map(str::to_owned).collect();
            return Some(Control { files: self.own.clone(), tests });
        }
        let syntax = self.syntax?;
        let found = [wanted, passed].map(|ids| self.find(syntax, kind, &ids));
        let mut found = found.into_iter().find(|found| !found.is_empty())?;

        let mut chance = Chance { seed, drawn: 0 };
        let first = found.keys().nth(chance.below(found.len()))?.clone();
        let file = found[&first].file.clone();
        found.retain(|id, place| place.file == file && (*id == first || chance.below(2) == 0));
        let text = std::str::from_utf8(self.files.get(&file)?).ok()?;
        let mut places: Vec<_> = found.values().copied().collect();
        places.sort_unstable_by_key(|place| place.at);
        let files = syntax.spoil(&file, text, &places, &mut chance).into_iter();
        let change = |(path, text): (_, String)| {
            (path, Change::File { content: text.into_bytes().into(), executable: false })
        };
        Some(Control { files: files.map(change).collect(), tests: found.into_keys().collect() })
    }

    /// Returns the tests that can be spoiled, by the ids that have to fail then.
    fn find(
        &self,
        syntax: &dyn Syntax,
        kind: ReportKind,
        ids: &[&str],
    ) -> BTreeMap<String, &Place> {
        let place = |id: &&str| {
            let whole = syntax.whole(id);
            let place = self.places.get(&syntax.name(kind, &whole)?)?.first()?;
            Some((whole, place))
        };
        ids.iter().filter_map(place).collect()
    }
}

impl ControlRun<'_> {
    /// Takes back what a report says for the submission where tests that must fail didn't.
    pub(crate) fn weigh(&self, kind: ReportKind, report: &mut Report) {
        let evidence = Evidence { execution: self.execution, nonce: self.nonce, subject: None };
        let tests = parse(kind, &evidence).map(|report| report.tests).unwrap_or_default();
        let statuses: HashMap<_, _> = tests.iter().map(|test| (&test.id, test.status)).collect();
        let spoiled = self.tests.iter().map(|id| Canary {
            kind: CanaryKind::Spoiled,
            id: id.clone(),
            status: statuses.get(id).copied().unwrap_or(TestStatus::Missing),
        });
        report.canaries.extend(spoiled);
        let green = |canary: &&Canary| canary.status.passes() || canary.status == Xpassed;
        if let Some(canary) = report.canaries.iter().find(green) {
            let Canary { kind, id, status } = canary;
            let evidence = format!("{id} (`{kind}`) has to fail, and is {}", status.as_str());
            let why = "and so is a test that can't pass";
            report.discredit("canary.green", Severity::Tampering, &evidence, why);
        } else if !report.canaries.iter().any(Canary::holds) {
            let id = self.tests.first().map_or("", String::as_str);
            let ended = describe(self.execution.termination);
            let evidence = format!("{id} has to fail when it is spoiled; that run {ended}");
            let why = "and no test that has to fail did";
            report.discredit("canary.missing", Severity::Warning, &evidence, why);
        }
        report.canaries.sort_by_key(Canary::holds);
        report.canaries.truncate(MAX_CANARIES);
    }
}

/// Puts `failure` in at each place.
fn insert(text: &str, places: &[&Place], failure: impl Fn(&Place) -> String) -> String {
    let mut out = String::with_capacity(text.len() + 512 * places.len());
    let mut from = 0;
    for place in places {
        let Some(at) = place.at else { continue };
        out.push_str(&text[from..at]);
        out.push_str(&failure(place));
        from = at;
    }
    out.push_str(&text[from..]);
    out
}

/// Choices that nobody can foretell who doesn't have the seed.
struct Chance<'a> {
    seed: &'a str,
    drawn: u32,
}

impl Chance<'_> {
    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        let digest = Digest::of(format!("{} {}", self.drawn, self.seed));
        u64::from_str_radix(&digest.hex()[..16], 16).unwrap_or_default()
    }

    /// Returns a number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % (end as u64).max(1)).unwrap_or_default()
    }

    /// Returns a word for names: letters alone, in lower case, and new.
    fn word(&mut self) -> String {
        let (consonants, vowels) = (b"bdfgklmnprstv", b"aeiou");
        let mut bits = self.draw();
        let mut letter = |letters: &[u8]| {
            let count = letters.len() as u64;
            let letter = letters[(bits % count) as usize];
            bits /= count;
            char::from(letter)
        };
        (0..5).flat_map(|_| [letter(consonants), letter(vowels)]).collect()
    }
}

#[cfg(test)]
mod tests;
