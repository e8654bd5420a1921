//! Sealed pytest suites: the tests run in one sandbox, over the revision without any submission, and
//! the submission in another, without any test. Where tests import a module that is the
//! submission's, `assay_remote.py` asks the other sandbox (`docs/integrity.md`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use assay_repos::{Applied, Change, Check, Mode, ReportKind, Revision, Task, TaskError};
use assay_rewards::{Failure, harness};
use assay_sandbox::{Channel, ChannelEnd, Command, FileEntry, Layer, Warm};

use super::{
    Ground,
    run::{self, Left, Subject, environment, nonce},
    sealed,
};
use crate::Timings;

/// What an interpreter for subjects has done before there is one.
static SUBJECT: LazyLock<Warm> = LazyLock::new(|| {
    run::warm(
        &["wire", "assay_peer"],
        [
            ("subject_suite.py", harness::SUBJECT_SUITE),
            ("assay_peer.py", harness::PEER),
            ("wire.py", harness::WIRE),
        ],
    )
});

/// What divides the files of a task between its tests and a submission.
#[derive(Debug)]
pub(crate) struct Seal {
    /// The modules that tests have from the submission: a JSON object from names to the folder of each
    /// that is a package, and null.
    modules: String,
    /// Takes away the tests.
    pub(super) hidden: Layer,
}

impl Seal {
    /// Finds what is the submission's: every module of the revision and of the gold submission that
    /// is no test. `tests` are the files of the trusted overlay.
    pub(super) fn of(
        task: &Task,
        revision: &Revision,
        tests: Vec<PathBuf>,
        gold: Option<&Applied>,
    ) -> Result<Self, TaskError> {
        let suite = task.checks.iter().any(|check| check.report == ReportKind::Pytest);
        if task.mode == Mode::Guarded || !suite {
            return Ok(Self { modules: String::new(), hidden: Layer::Files(Arc::default()) });
        }
        let mut files = revision.files()?;
        let added = gold.into_iter().flat_map(|gold| &gold.changes);
        files.extend(
            added.filter(|(_, to)| matches!(to, Change::File { .. })).map(|(path, _)| path.clone()),
        );
        files.retain(|path| !task.tests.is_match(path) && !tests.contains(path));
        // A folder `src` that is no package is on the path of whoever imports from it.
        let below_src = |path: &Path| path.strip_prefix("src").ok().map(Path::to_owned);
        let src = !files.iter().any(|path| path == Path::new("src/__init__.py"));
        let mut modules = BTreeMap::new();
        for path in &files {
            modules.extend(module(path, Path::new("")));
            if let Some(path) = below_src(path).filter(|_| src) {
                modules.extend(module(&path, Path::new("src")));
            }
        }
        let modules = serde_json::to_string(&modules).unwrap_or_default();
        let hidden = tests.into_iter().map(|path| (path, FileEntry::Absent)).collect();
        Ok(Self { modules, hidden: Layer::Files(Arc::new(hidden)) })
    }
}

/// Returns the module that a file below `root` is, with its folder if it is a package.
fn module(path: &Path, root: &Path) -> Option<(String, Option<PathBuf>)> {
    let parts: Option<Vec<_>> = path.iter().map(|part| part.to_str()).collect();
    let parts = parts?;
    let (file, folders) = parts.split_last()?;
    let name = file.strip_suffix(".py")?;
    let package = name == "__init__" && !folders.is_empty();
    let parts: Vec<_> = folders.iter().copied().chain((!package).then_some(name)).collect();
    let is_name = |part: &&str| part.chars().all(|c| c.is_alphanumeric() || c == '_');
    let folder = package.then(|| root.join(path.parent().unwrap_or(root)));
    parts.iter().all(is_name).then(|| (parts.join("."), folder))
}

/// Runs a `pytest` check.
pub(super) async fn run(
    ground: &Ground,
    subject: Subject<'_>,
    check: &Check,
    timings: &mut Timings,
) -> Result<Left, Failure> {
    let (ours, theirs) = sealed::pair()?;
    let nonce = nonce();
    let mut grader = run::runner(check)?;
    // No file of the submission is there.
    grader.stdin = format!("{nonce}\n[]\n{}\n", ground.seal.modules).into_bytes().into();
    grader.warm = grader.warm.filter(|_| subject.warm);
    grader.channels.push(Channel { fd: 4, end: ChannelEnd::Fd(ours.into()) });
    let command = Command {
        argv: ["/usr/bin/python3", "-P", "-s", "-B", "/assay/subject_suite.py"]
            .map(String::from)
            .into(),
        env: environment(),
        channels: vec![Channel { fd: 4, end: ChannelEnd::Fd(theirs.into()) }],
        warm: subject.warm.then(|| SUBJECT.clone()),
        ..Command::default()
    };
    let grader = (sealed::grader_spec(ground, ground.tests_spec()), grader);
    let subject = (ground.subject_spec(subject.applied), command);
    sealed::both(ground, nonce, grader, subject, timings).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_have_the_names_that_tests_import_them_by() {
        let cases = [
            ("inflection.py", Some(("inflection", None))),
            ("toolz/__init__.py", Some(("toolz", Some("at/toolz")))),
            ("toolz/sandbox/core.py", Some(("toolz.sandbox.core", None))),
            ("__init__.py", Some(("__init__", None))),
            ("docs/make-it.py", None),
            ("README.md", None),
            ("py", None),
        ];
        for (path, expected) in cases {
            let expected =
                expected.map(|(name, folder)| (name.to_owned(), folder.map(PathBuf::from)));
            assert_eq!(module(Path::new(path), Path::new("at")), expected, "{path}");
        }
    }
}
