//! What clients hand in: patches, and answers that a patch is taken out of.
#![no_main]

use std::{
    path::{Component, Path},
    sync::{Arc, LazyLock},
};

use assay_repos::{ApplyError, Catalog, Revision, Submission, Task, apply};
use libfuzzer_sys::fuzz_target;

/// A task that takes patches, and its revision.
static TASK: LazyLock<(Arc<Task>, Revision)> = LazyLock::new(|| {
    let catalog = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../repos/catalog");
    let catalog = Catalog::load(&[catalog], Path::new("/nonexistent"));
    let task = catalog.get(&"roman.0001".parse().expect("an id")).expect("a task");
    (Arc::clone(task), task.revision().expect("a revision"))
});

fuzz_target!(|input: (bool, &str)| {
    let (task, revision) = &*TASK;
    let (raw, text) = input;
    let text = text.to_owned();
    let submission = if raw { Submission::Patch(text) } else { Submission::Completion(text) };
    match apply(task, revision, &submission) {
        Ok(applied) => {
            for path in applied.changes.keys() {
                let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
                assert!(plain && path.components().next().is_some(), "{path:?}");
                assert!(!path.ends_with("conftest.py") && !path.ends_with("pytest.ini"), "{path:?}");
            }
            assert_eq!(apply(task, revision, &submission).expect("twice").digest, applied.digest);
        }
        Err(ApplyError::Rejected(rejection)) => assert!(!rejection.detail.is_empty()),
        Err(ApplyError::Source(error)) => panic!("no fault of ours: {error}"),
    }
});
