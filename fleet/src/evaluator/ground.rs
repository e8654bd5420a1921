//! What all evaluations of a task share: its files as layers, its private parts, its limits.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use assay_repos::{
    Applied, ApplyError, Change, Digest, Language, Mode, ReportKind, Revision, Signals,
    SourceError, StdioCase, SubmissionKind, Task, TaskError, TaskLimits, apply,
};
use assay_rewards::{GradeHeader, GradeRecord, TestSources, harness};
use assay_sandbox::{FileEntry, Layer, Limits, SandboxSpec};

use super::suite::Seal;
use crate::{Resolved, Seen, Stop, ledger};

pub(crate) type Trusted = Arc<BTreeMap<PathBuf, Arc<[u8]>>>;

/// A task made ready to be run many times.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) task: Arc<Task>,
    /// Where the submission runs, and where the grader of a `function` check does.
    pub(crate) resolved: Resolved,
    pub(crate) judge: Resolved,
    pub(crate) revision: Revision,
    pub(crate) limits: Limits,
    /// Lowest first: what lies below the submission.
    below: Vec<Layer>,
    /// What lies above it.
    overlay: Layer,
    /// For checks whose tests share a sandbox with the code under test.
    pub(crate) runner: Trusted,
    /// For `function` checks: the grader's files, with the private ones, and those that the submission
    /// is run with, or compiled with.
    pub(crate) grader: Trusted,
    pub(crate) subject: Trusted,
    /// For checks whose report comes from a foreign tool: what a control run spoils.
    pub(crate) tests: TestSources,
    /// For sealed `pytest` checks.
    pub(crate) seal: Seal,
    /// For `stdio` checks.
    pub(crate) cases: Vec<StdioCase>,
    /// What submissions give away is told by it.
    pub(crate) signals: Signals,
    /// Of everything here that a verdict depends on.
    digest: Digest,
    /// What the ledger compares runs on: task content, image and backend.
    pub(crate) ledger: Digest,
    /// The gold submission as it takes effect, or why there is none.
    pub(crate) gold: Result<Applied, String>,
    /// The tests that the task itself names, by check.
    named: HashSet<(String, String)>,
}

impl Ground {
    pub(crate) fn of(
        task: Arc<Task>,
        resolved: Resolved,
        judge: Resolved,
    ) -> Result<Self, TaskError> {
        let revision = task.revision()?;
        let overlay = task.trusted_overlay(&revision)?;
        let tests = test_sources(&task, &revision, &overlay)?;
        let hidden: Vec<_> = overlay.keys().cloned().collect();
        let overlay = entries(&overlay);
        let below = revision
            .base
            .iter()
            .map(|base| Layer::Dir(Arc::clone(base)))
            .chain([Layer::Files(Arc::new(entries(&revision.changes)))])
            .collect();
        let reports = |kind| task.checks.iter().any(|check| check.report == kind);
        let mut grader = BTreeMap::new();
        let mut subject = BTreeMap::new();
        if reports(ReportKind::Function) {
            let files = [
                ("grader.py", harness::GRADER),
                ("wire.py", harness::WIRE),
                ("assay_messages.py", harness::MESSAGES),
            ];
            for (name, text) in files {
                grader.insert(inside(name), text.as_bytes().into());
            }
            if task.mode == Mode::Guarded {
                grader.insert(inside("assay_canary.py"), harness::CANARY.as_bytes().into());
            }
            grader.insert(inside("tests.py"), task.private_file("tests.py")?.into());
            match task.private_file("helpers.py") {
                Ok(helpers) => {
                    grader.insert(inside("helpers.py"), helpers.into());
                }
                Err(TaskError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            for (name, text) in subject_files(&task) {
                subject.insert(inside(name), text.as_bytes().into());
            }
        }
        let mut runner = BTreeMap::new();
        if reports(ReportKind::Pytest) {
            runner.insert(inside("run_pytest.py"), harness::PYTEST_RUNNER.as_bytes().into());
        }
        if reports(ReportKind::Pytest) && task.mode == Mode::Sealed {
            runner.insert(inside("assay_remote.py"), harness::REMOTE.as_bytes().into());
            subject.insert(inside("subject_suite.py"), harness::SUBJECT_SUITE.as_bytes().into());
            for files in [&mut runner, &mut subject] {
                files.insert(inside("assay_peer.py"), harness::PEER.as_bytes().into());
                files.insert(inside("wire.py"), harness::WIRE.as_bytes().into());
            }
        }
        if reports(ReportKind::Unittest) || reports(ReportKind::Django) {
            runner.insert(inside("run_unittest.py"), harness::UNITTEST_RUNNER.as_bytes().into());
        }
        if task.checks.iter().any(|check| check.report.is_ours()) {
            runner.insert(inside("assay_canary.py"), harness::CANARY.as_bytes().into());
            runner.insert(inside("assay_messages.py"), harness::MESSAGES.as_bytes().into());
        }
        if task.checks.iter().any(|check| check.report.is_foreign()) {
            runner.insert(inside("collect.sh"), harness::COLLECT.as_bytes().into());
        }
        if runs_node(&task) {
            runner.insert(inside("freeze.js"), harness::FREEZE.as_bytes().into());
        }
        let signals = Signals::of(&task, &revision)?;
        let cases = if reports(ReportKind::Stdio) { task.stdio_cases()? } else { Vec::new() };
        let digest = Digest::builder()
            .part(task.digest.as_str())
            .part(revision.digest.as_str())
            .part(&resolved.digest)
            .part(resolved.backend.name())
            .part(&judge.digest)
            // Checks, mode and limits are in the task's files; their defaults are ours.
            .part(format!("{:?} {:?} {:?}", task.checks, task.mode, task.limits))
            .finish();
        let ledger = Digest::builder()
            .part(task.digest.as_str())
            .part(&resolved.digest)
            .part(resolved.backend.name())
            .finish();
        let gold = apply_gold(&task, &revision)?;
        let seal = Seal::of(&task, &revision, hidden, gold.as_ref().ok())?;
        task.unchanged()?;
        Ok(Self {
            ledger,
            gold,
            named: named(&task),
            limits: limits(&task.limits),
            overlay: Layer::Files(Arc::new(overlay)),
            below,
            runner: Arc::new(runner),
            grader: Arc::new(grader),
            subject: Arc::new(subject),
            tests,
            seal,
            cases,
            signals,
            digest,
            revision,
            resolved,
            judge,
            task,
        })
    }

    /// Whether one run speaks for all with the same key. Not for a task that is marked as flaky.
    pub(crate) fn cacheable(&self) -> bool {
        !self.task.tags.iter().any(|tag| tag == "flaky")
    }

    /// Whether all code of a submission is the task's own: the gold submission, or nothing.
    pub(crate) fn trusts(&self, applied: &Applied) -> bool {
        let code = applied.code();
        self.gold.as_ref().is_ok_and(|gold| gold.code() == code)
            || code == Applied::nothing().code()
    }

    /// Returns the tests of a record that the ledger counts. Names that a submission may have made
    /// up are none of its business: code under test can report any.
    pub(crate) fn seen(&self, record: &GradeRecord, trusted: bool) -> Option<Vec<Seen>> {
        ledger::tests(record, |check, test| {
            trusted
                || self.task.mode == Mode::Sealed
                || self.named.contains(&(check.to_owned(), test.to_owned()))
        })
    }

    /// Returns what has to be equal for two evaluations to share a run. The submission's size is
    /// no part of it: the same code with other words around it is the same code.
    pub(crate) fn key(
        &self,
        build: &Digest,
        header: &GradeHeader,
        applied: &Applied,
        stop: Stop,
        quarantined: &Digest,
    ) -> Digest {
        let facts = assay_repos::PatchFacts { bytes: 0, ..applied.facts };
        Digest::builder()
            .part(self.digest.as_str())
            .part(build.as_str())
            .part(&header.runner)
            .part(applied.digest.as_str())
            .part(format!("{facts:?} {:?}", applied.flags))
            .part(quarantined.as_str())
            .part(match stop {
                Stop::All => "all",
                Stop::Decisive => "decisive",
            })
            .finish()
    }

    /// Returns a sandbox that holds the submission over the revision, and the overlay over both.
    pub(crate) fn spec(&self, applied: &Applied) -> SandboxSpec {
        let mut changes = entries(&applied.changes);
        if self.task.submission.kind == SubmissionKind::Program
            && let (Some(path), Some(source)) = (&self.task.submission.path, &applied.source)
        {
            let content = source.as_bytes().into();
            changes.insert(path.clone(), FileEntry::File { content, executable: false });
        }
        let mut layers = self.below.clone();
        layers.push(Layer::Files(Arc::new(changes)));
        layers.push(self.overlay.clone());
        SandboxSpec { layers, ..self.bare(&self.runner) }
    }

    /// Returns a sandbox that holds the tests over the revision, and nothing of a submission.
    pub(super) fn tests_spec(&self) -> SandboxSpec {
        let mut layers = self.below.clone();
        layers.push(self.overlay.clone());
        SandboxSpec { layers, ..self.bare(&self.runner) }
    }

    /// Returns a sandbox that holds the submission over the revision, and no test.
    pub(super) fn subject_spec(&self, applied: &Applied) -> SandboxSpec {
        let mut layers = self.below.clone();
        layers.push(Layer::Files(Arc::new(entries(&applied.changes))));
        layers.push(self.seal.hidden.clone());
        SandboxSpec { layers, ..self.bare(&self.subject) }
    }

    /// Returns a sandbox that holds the revision without the files that judge what is done to it.
    pub(crate) fn agent_spec(&self) -> Result<SandboxSpec, SourceError> {
        let tests =
            self.revision.files()?.into_iter().filter(|path| self.task.tests.is_match(path));
        let hidden: BTreeMap<_, _> = tests.map(|path| (path, FileEntry::Absent)).collect();
        let mut layers = self.below.clone();
        layers.push(Layer::Files(Arc::new(hidden)));
        Ok(SandboxSpec { layers, ..self.bare(&Trusted::default()) })
    }

    /// Returns a sandbox that holds `trusted` and nothing else.
    pub(crate) fn bare(&self, trusted: &Trusted) -> SandboxSpec {
        SandboxSpec {
            image: self.resolved.image.clone(),
            workdir: self.task.workdir.clone(),
            layers: Vec::new(),
            trusted: Arc::clone(trusted),
            limits: self.limits,
        }
    }
}

/// Finds the tests that a control run can spoil, where a check may have one.
fn test_sources(
    task: &Task,
    revision: &Revision,
    overlay: &BTreeMap<PathBuf, Change>,
) -> Result<TestSources, TaskError> {
    if !task.checks.iter().any(|check| check.report.is_foreign()) {
        return Ok(TestSources::default());
    }
    let mut files = BTreeMap::new();
    let paths = revision.files()?.into_iter().chain(overlay.keys().cloned());
    for path in paths.filter(|path| TestSources::needs(task.language, path)) {
        let change = match overlay.get(&path) {
            Some(change) => Some(change.clone()),
            None => revision.read(&path)?,
        };
        if let Some(Change::File { content, .. }) = change {
            files.insert(path, content);
        }
    }
    // Go's tests are denied to every submission.
    let trusted = |path: &Path| task.language == Language::Go || overlay.contains_key(path);
    Ok(TestSources::of(task.language, files, trusted).or_by_task(task.control_files()?))
}

/// Returns the gold submission of a task, or why there is none.
fn apply_gold(task: &Task, revision: &Revision) -> Result<Result<Applied, String>, TaskError> {
    let gold = match task.gold() {
        Ok(gold) => gold,
        Err(TaskError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(Err("the task has no gold submission".into()));
        }
        Err(error @ TaskError::Content { .. }) => return Ok(Err(error.to_string())),
        Err(error) => return Err(error),
    };
    match apply(task, revision, &gold) {
        Ok(applied) => Ok(Ok(applied)),
        Err(ApplyError::Rejected(rejection)) => Ok(Err(format!("gold: {rejection}"))),
        Err(ApplyError::Source(error)) => Err(TaskError::Source(error)),
    }
}

/// What runs beside the submission of a function task, by its language.
fn subject_files(task: &Task) -> Vec<(&'static str, Cow<'static, str>)> {
    let fixed = |files: &[(&'static str, &'static str)]| {
        files.iter().map(|&(name, text)| (name, text.into())).collect()
    };
    let compiled =
        || Some((task.submission.entry.as_deref()?, task.submission.signature.as_ref()?));
    let mut files: Vec<_> = match task.language {
        Language::Javascript => fixed(&[("subject.js", harness::SUBJECT_JS)]),
        Language::C => {
            fixed(&[("subject.c", harness::SUBJECT_C), ("compile.sh", harness::COMPILE)])
        }
        Language::Rust => {
            fixed(&[("subject.rs", harness::SUBJECT_RUST), ("compile.sh", harness::COMPILE)])
        }
        _ => fixed(&[("subject.py", harness::SUBJECT), ("wire.py", harness::WIRE)]),
    };
    match (task.language, compiled()) {
        (Language::C, Some((entry, signature))) => {
            files.push(("call.h", harness::c_prototype(entry, signature).into()));
            files.push(("call.c", harness::c_call(entry, signature).into()));
        }
        (Language::Rust, Some((entry, signature))) => {
            files.push(("call.rs", harness::rust_call(entry, signature).into()));
        }
        _ => {}
    }
    files
}

/// Whether tests of node share a process with the submission.
pub(crate) fn runs_node(task: &Task) -> bool {
    matches!(task.language, Language::Javascript | Language::Typescript)
        && task.checks.iter().any(|check| check.report.is_foreign())
}

/// Where our own programs lie in a sandbox.
pub(crate) fn inside(name: &str) -> PathBuf {
    Path::new("/assay").join(name)
}

/// Returns the tests that a task's own files name, by check.
fn named(task: &Task) -> HashSet<(String, String)> {
    let mut names = HashSet::new();
    for check in &task.checks {
        let kept = task.kept_tests(check).unwrap_or_default();
        let locked = task.lock.iter().filter_map(|lock| lock.checks.get(&check.id));
        let locked = locked.flatten().map(|(test, _)| test.clone());
        let tests = check.must_pass.iter().cloned().chain(kept).chain(locked);
        names.extend(tests.map(|test| (check.id.clone(), test)));
    }
    names
}

pub(super) fn entries(changes: &BTreeMap<PathBuf, Change>) -> BTreeMap<PathBuf, FileEntry> {
    let entry = |change: &Change| match change {
        Change::File { content, executable } => {
            FileEntry::File { content: Arc::clone(content), executable: *executable }
        }
        Change::Absent => FileEntry::Absent,
    };
    changes.iter().map(|(path, change)| (path.clone(), entry(change))).collect()
}

fn limits(task: &TaskLimits) -> Limits {
    let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or(Limits::default().wall);
    let mib = |mb: u64| mb.saturating_mul(1 << 20);
    Limits {
        wall: seconds(task.wall_s),
        cpu: seconds(task.cpu_s),
        memory_bytes: mib(task.memory_mb),
        pids: u32::try_from(task.pids).unwrap_or(u32::MAX),
        disk_bytes: mib(task.disk_mb),
        inodes: task.inodes,
        output_bytes: usize::try_from(task.output_kb.saturating_mul(1024)).unwrap_or(usize::MAX),
    }
}
