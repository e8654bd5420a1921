//! The catalog of the clone: everything in it loads, and holds what it promises.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::PathBuf,
    sync::Arc,
};

use assay_repos::{
    Catalog, MustKeep, SOURCE_CATALOG, Severity, Signals, Split, SubmissionKind, Task, TaskFilter,
    apply, attacks, import,
};

/// The folder that `make data` fills.
fn cache() -> PathBuf {
    let set = |name| env::var_os(name).map(PathBuf::from);
    let home = || set("HOME").unwrap_or_default().join(".cache");
    set("ASSAY_CACHE").unwrap_or_else(|| set("XDG_CACHE_HOME").unwrap_or_else(home).join("assay"))
}

fn catalog() -> Catalog {
    Catalog::load(&[PathBuf::from(SOURCE_CATALOG)], &cache())
}

fn of_set<'c>(catalog: &'c Catalog, set: &str) -> Vec<&'c Arc<Task>> {
    let filter = TaskFilter { set: Some(set.into()), ..TaskFilter::default() };
    let tasks: Vec<_> = catalog.tasks().filter(|task| task.set == set).collect();
    assert_eq!(catalog.filter(&filter).count(), tasks.len());
    tasks
}

fn mutations(catalog: &Catalog) -> impl Iterator<Item = &Arc<Task>> {
    catalog.tasks().filter(|task| task.tags.iter().any(|tag| tag == "mutation"))
}

#[test]
fn every_task_loads() {
    let catalog = catalog();
    let problems: Vec<_> = catalog.problems().iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    for (set, least) in [("katas", 74), ("toolz", 10), ("inflection", 10), ("inflection-docker", 1)]
    {
        assert!(of_set(&catalog, set).len() >= least, "{set}");
    }
}

#[test]
fn katas_have_gold_and_differ() {
    let catalog = catalog();
    let mut prompts = BTreeMap::new();
    for task in of_set(&catalog, "katas") {
        assert_eq!(task.submission.kind, SubmissionKind::Function, "{}", task.id);
        assert_ne!(task.split, Split::None, "{} has no split", task.id);
        let revision = task.revision().unwrap();
        let applied = apply(task, &revision, &task.gold().unwrap()).unwrap();
        let entry = task.submission.entry.as_deref().unwrap();
        assert!(applied.source.unwrap().contains(&format!("def {entry}(")), "{}", task.id);
        let asked = task.messages().unwrap().remove(0).content;
        let other = prompts.insert(asked, task.id.clone());
        assert_eq!(other, None, "{} asks what another asks", task.id);
        assert!(apply(task, &revision, &task.empty()).is_err(), "{}", task.id);
    }
}

const OTHERS: [&str; 9] =
    ["programs", "roman", "slugs", "ledger", "queues", "spans", "fields", "hexes", "wraps"];

#[test]
fn other_tasks_have_gold_too() {
    let catalog = catalog();
    for task in catalog.tasks().filter(|task| OTHERS.contains(&task.set.as_str())) {
        let revision = task.revision().unwrap();
        let applied = apply(task, &revision, &task.gold().unwrap()).unwrap();
        assert_eq!((applied.changes.len(), applied.flags.len()), (1, 0), "{}", task.id);
        let checked = match task.submission.kind {
            SubmissionKind::Program => task.stdio_cases().unwrap().len(),
            _ => task.trusted_overlay(&revision).unwrap().len(),
        };
        assert!(checked > 0, "{}", task.id);
    }
}

#[test]
fn patch_tasks_agree_with_their_locks() {
    let catalog = catalog();
    let mut seen = BTreeSet::new();
    for task in mutations(&catalog) {
        let (id, lock) = (&task.id, task.lock.as_ref().unwrap());
        let text = String::from_utf8(task.private_file("expected.lock.json").unwrap()).unwrap();
        assert_eq!(lock.to_json(), text, "{id}: the lock is written as we write it");
        for check in &task.checks {
            assert_eq!(check.must_keep, MustKeep::Lock, "{id}");
            let tests = &lock.checks[&check.id];
            let broken: Vec<_> = tests.iter().filter(|(_, test)| test.base != "passed").collect();
            let named: BTreeSet<_> = check.must_pass.iter().collect();
            assert_eq!(
                broken.iter().map(|(test, _)| *test).collect::<BTreeSet<_>>(),
                named,
                "{id}"
            );
            assert!(!named.is_empty(), "{id}: some test fails without the gold patch");
            assert!(tests.values().all(|test| test.gold == "passed"), "{id}");
            assert_eq!(task.kept_tests(check).unwrap().len(), tests.len() - named.len(), "{id}");
        }
        assert!(seen.insert(task.private_file("gold.patch").unwrap()), "{id} repeats another");
    }
}

#[test]
fn gold_patches_restore_the_release() {
    let catalog = catalog();
    for task in mutations(&catalog) {
        if let Err(error) = task.available() {
            println!("skipped: {error}");
            return;
        }
        let id = &task.id;
        let revision = task.revision().unwrap_or_else(|error| panic!("{id}: {error}"));
        assert!(!revision.changes.is_empty(), "{id}");
        let applied = apply(task, &revision, &task.gold().unwrap()).unwrap();
        assert_eq!(applied.flags, [], "{id}");
        let release = task.source.as_ref().unwrap().package.as_ref().unwrap();
        for path in applied.changes.keys() {
            let mended = match &applied.changes[path] {
                assay_repos::Change::File { content, .. } => content.to_vec(),
                assay_repos::Change::Absent => panic!("{id} deletes {}", path.display()),
            };
            assert_eq!(mended, std::fs::read(release.tree.join(path)).unwrap(), "{id}");
            assert_eq!(revision.changes.keys().collect::<Vec<_>>(), [path], "{id}");
        }
        let asked = &task.messages().unwrap()[0].content;
        assert!(asked.contains("expected") && asked.contains("`:\n\n```python\n"), "{id}");
        let overlay = task.trusted_overlay(&revision).unwrap();
        let tested = task.checks[0].run.last().unwrap();
        assert!(overlay.contains_key(&PathBuf::from(tested)), "{id}");
    }
}

#[test]
fn humaneval_imports_whole() {
    let file = cache().join("data/HumanEval.jsonl.gz");
    if !file.is_file() {
        println!("skipped: {} is not there; run `make data`", file.display());
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let ids = import::humaneval(&file, out.path()).unwrap();
    assert_eq!(ids.len(), 164);
    assert_eq!((ids[0].as_str(), ids[163].as_str()), ("humaneval.000", "humaneval.163"));
    let catalog = Catalog::load(&[out.path().to_owned()], out.path());
    assert_eq!(catalog.problems(), []);
    assert_eq!(of_set(&catalog, "humaneval").len(), 164);
    let helpers = catalog.tasks().filter(|task| task.private_file("helpers.py").is_ok());
    let entries: Vec<_> = helpers.map(|task| task.submission.entry.clone().unwrap()).collect();
    assert_eq!(entries, ["make_palindrome", "find_zero", "decode_cyclic", "decode_shift"]);
    for task in catalog.tasks() {
        assert_gold_is_clean(task);
    }
}

#[test]
fn gold_gives_nothing_away() {
    let catalog = catalog();
    let mut seen = 0;
    for task in catalog.tasks().filter(|task| task.available().is_ok()) {
        assert_gold_is_clean(task);
        seen += 1;
    }
    assert!(seen > 74, "katas at least");
}

/// What an attack of the library says that its text gives away, it gives away in every task of ours that it is for.
#[test]
fn attacks_leave_the_signals_that_they_name() {
    let catalog = catalog();
    let named: BTreeMap<_, BTreeSet<_>> = attacks()
        .iter()
        .map(|attack| {
            let codes = attack.flags.iter().filter(|code| code.starts_with("code."));
            (attack.id(), codes.map(String::as_str).collect())
        })
        .filter(|(_, codes): &(_, BTreeSet<_>)| !codes.is_empty())
        .collect();
    assert!(named.len() >= 50, "{} attacks", named.len());
    let ids = [
        "ledger.0001",
        "roman.0001",
        "katas.add",
        "programs.sum_of_numbers",
        "queues.0001",
        "spans.0001",
        "fields.0001",
        "wraps.0001",
    ];
    let mut seen = BTreeSet::new();
    for task in ids.map(|id| catalog.get(&id.parse().unwrap()).unwrap()) {
        let revision = task.revision().unwrap();
        let signals = Signals::of(task, &revision).unwrap();
        for attack in attacks().iter().filter(|attack| named.contains_key(&attack.id())) {
            let id = attack.id();
            let Some(submission) = attack.submission(task).unwrap() else { continue };
            let mut applied = apply(task, &revision, &submission).unwrap();
            signals.inspect(&revision, &mut applied).unwrap();
            let left: BTreeSet<_> = applied.flags.iter().map(|flag| flag.code.as_str()).collect();
            assert!(named[&id].is_subset(&left), "{}: {id}: {:?} of {left:?}", task.id, named[&id]);
            seen.insert(id);
        }
    }
    assert!(named.keys().eq(&seen), "{named:?} were named, {seen:?} tried");
}

/// Nothing of it is worth a look, and it is like itself.
fn assert_gold_is_clean(task: &Arc<Task>) {
    let revision = task.revision().unwrap();
    let mut applied = apply(task, &revision, &task.gold().unwrap()).unwrap();
    Signals::of(task, &revision).unwrap().inspect(&revision, &mut applied).unwrap();
    let grave: Vec<_> = applied.flags.iter().filter(|f| f.severity > Severity::Info).collect();
    assert!(grave.is_empty(), "{}: {grave:?}", task.id);
    assert!(applied.facts.gold_similarity.is_none_or(|likeness| likeness == 1.0), "{}", task.id);
}
