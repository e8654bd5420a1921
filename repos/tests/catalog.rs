//! The catalog of the clone: everything in it loads, and holds what it promises.

use std::path::{Path, PathBuf};

use assay_repos::{Catalog, SOURCE_CATALOG, Split, SubmissionKind, TaskFilter, apply};

fn catalog() -> Catalog {
    Catalog::load(&[PathBuf::from(SOURCE_CATALOG)], Path::new("/nonexistent"))
}

#[test]
fn every_task_loads() {
    let catalog = catalog();
    let problems: Vec<_> = catalog.problems().iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(catalog.tasks().len() > 0);
}

#[test]
fn katas_have_gold_and_differ_between_splits() {
    let catalog = catalog();
    let katas = TaskFilter { set: Some("katas".into()), ..TaskFilter::default() };
    let mut prompts = std::collections::BTreeMap::new();
    for task in catalog.filter(&katas) {
        assert_eq!(task.submission.kind, SubmissionKind::Function, "{}", task.id);
        assert_ne!(task.split, Split::None, "{} has no split", task.id);
        let gold = task.gold().unwrap();
        let applied = apply(task, &task.revision().unwrap(), &gold).unwrap();
        let entry = task.submission.entry.as_deref().unwrap();
        assert!(applied.source.unwrap().contains(&format!("def {entry}(")), "{}", task.id);
        let asked = task.messages().unwrap().remove(0).content;
        assert_eq!(
            prompts.insert(asked, task.id.clone()),
            None,
            "{} asks what another asks",
            task.id
        );
        assert!(apply(task, &task.revision().unwrap(), &task.empty()).is_err(), "{}", task.id);
    }
}
