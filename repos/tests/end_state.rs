//! What becomes of the trees that agents leave.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use assay_repos::{
    ApplyError, Catalog, Change, EndEntry, RejectionKind, Submission, Task, apply, end_state,
};

const TASK: &str = r#"schema = 1
id = "t.1"
[source]
repository = "./tree"
tests = ["tests/**"]
[prompt]
template = "problem.md"
[submission]
kind = "episode"
max_bytes = 2000
[[check]]
id = "unit"
run = ["python3", "-m", "pytest", "tests"]
report = "pytest"
"#;

fn task() -> (Arc<Task>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let files: &[(&str, &[u8])] = &[
        ("problem.md", b"Fix it.\n"),
        ("task.toml", TASK.as_bytes()),
        ("tree/a.py", b"one\ntwo\nthree\n"),
        ("tree/binary", b"\0\xff\n"),
        ("tree/pkg/b.py", b"b\n"),
        ("tree/pkg/deep/c.py", b"c\n"),
        ("tree/tests/test_a.py", b"the hidden one\n"),
    ];
    for (name, content) in files {
        let path = dir.path().join("a").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let catalog = Catalog::load(&[dir.path().to_owned()], dir.path());
    assert_eq!(catalog.problems(), []);
    (catalog.tasks().next().unwrap().clone(), dir)
}

fn file(content: &[u8]) -> EndEntry {
    EndEntry::File { content: content.into(), executable: false }
}

const MADE: EndEntry = EndEntry::Directory { hides: false };
const NEW: EndEntry = EndEntry::Directory { hides: true };

#[test]
fn the_patch_makes_the_same_of_the_revision() {
    let (task, _dir) = task();
    let revision = task.revision().unwrap();
    let gone = || Change::Absent;
    let text = |text: &str| Change::File { content: text.as_bytes().into(), executable: false };
    type Case<'c> = (&'c str, Vec<(&'c str, EndEntry)>, Vec<(&'c str, Change)>, &'c [&'c str]);
    let cases: Vec<Case<'_>> = vec![
        ("nothing", vec![], vec![], &[]),
        ("a touched file", vec![("a.py", file(b"one\ntwo\nthree\n"))], vec![], &[]),
        (
            "a changed file",
            vec![("a.py", file(b"one\nTWO\n"))],
            vec![("a.py", text("one\nTWO\n"))],
            &[],
        ),
        (
            "a new file",
            vec![("n", MADE), ("n/é \"x", file(b"no end"))],
            vec![("n/é \"x", text("no end"))],
            &[],
        ),
        ("a deleted file", vec![("a.py", EndEntry::Absent)], vec![("a.py", gone())], &[]),
        (
            "a deleted folder",
            vec![("pkg", EndEntry::Absent)],
            vec![("pkg/b.py", gone()), ("pkg/deep/c.py", gone())],
            &[],
        ),
        (
            "a folder made anew",
            vec![("pkg", NEW), ("pkg/b.py", file(b"B\n"))],
            vec![("pkg/b.py", text("B\n")), ("pkg/deep/c.py", gone())],
            &[],
        ),
        (
            "a file where a folder was",
            vec![("pkg", file(b"x\n"))],
            vec![("pkg/b.py", gone()), ("pkg/deep/c.py", gone())],
            &["pkg"],
        ),
        (
            "a folder where a file was",
            vec![("a.py", NEW), ("a.py/x", file(b"x"))],
            vec![("a.py", gone())],
            &["a.py/x"],
        ),
        (
            "a link where a file was",
            vec![("a.py", EndEntry::Special)],
            vec![("a.py", gone())],
            &["a.py"],
        ),
        (
            "a link where a folder was",
            vec![("pkg/deep", EndEntry::Special)],
            vec![("pkg/deep/c.py", gone())],
            &["pkg/deep"],
        ),
        ("a new pipe", vec![("pipe", EndEntry::Special)], vec![], &["pipe"]),
        (
            "bytes",
            vec![("new", file(b"\xff")), ("binary", file(b"\0"))],
            vec![],
            &["binary", "new"],
        ),
        ("text for bytes", vec![("binary", file(b"text\n"))], vec![], &["binary"]),
        (
            "a huge file, and bytes",
            vec![("h", EndEntry::TooLarge), ("b", EndEntry::Binary)],
            vec![],
            &["b", "h"],
        ),
        (
            "git's own",
            vec![(".git", MADE), (".git/config", file(b"x"))],
            vec![],
            &[".git", ".git/config"],
        ),
        (
            "litter",
            vec![("pkg/__pycache__/b.pyc", file(b"\xff")), (".pytest_cache", MADE)],
            vec![],
            &[],
        ),
    ];
    for (name, entries, changes, left_out) in cases {
        let entries: Vec<(PathBuf, EndEntry)> =
            entries.into_iter().map(|(path, entry)| (path.into(), entry)).collect();
        let state = end_state(&task, &revision, &entries).unwrap();
        let left: Vec<_> = state.left_out.iter().map(|(path, _)| &**path).collect();
        assert_eq!(left, left_out, "{name}");
        let expected: BTreeMap<PathBuf, Change> =
            changes.into_iter().map(|(path, change)| (path.into(), change)).collect();
        if expected.is_empty() {
            assert_eq!(state.patch, "", "{name}");
            continue;
        }
        let applied = apply(&task, &revision, &Submission::Patch(state.patch.clone()));
        let applied = applied.unwrap_or_else(|e| panic!("{name}: {e}\n{}", state.patch));
        assert_eq!(applied.changes, expected, "{name}\n{}", state.patch);
        assert_eq!(applied.flags, [], "{name}");
    }
}

#[test]
fn what_is_left_out_is_told_up_to_a_number() {
    let (task, _dir) = task();
    let pipes: Vec<_> =
        (0..100_000).map(|n| (PathBuf::from(format!("pipe-{n:05}")), EndEntry::Special)).collect();
    let state = end_state(&task, &task.revision().unwrap(), &pipes).unwrap();
    assert_eq!((state.left_out.len() as u64 + state.left_out_more, &*state.patch), (100_000, ""));
    assert_eq!((state.left_out.len(), &*state.left_out[199].0), (200, "pipe-00199"));
}

#[test]
fn the_tests_that_judge_are_neither_changed_nor_told() {
    let (task, _dir) = task();
    let revision = task.revision().unwrap();
    let entries = [("tests/test_a.py".into(), file(b"def test(): pass\n"))];
    let state = end_state(&task, &revision, &entries).unwrap();
    assert!(!state.patch.contains("hidden"), "{}", state.patch);
    let applied = apply(&task, &revision, &Submission::Patch(state.patch)).unwrap();
    assert!(applied.changes.is_empty() && applied.facts.touches_tests, "{applied:?}");
    // A folder of theirs that was made anew takes none of them away.
    let entries = [("tests".into(), NEW)];
    assert_eq!(end_state(&task, &revision, &entries).unwrap().patch, "");
}

#[test]
fn one_that_is_too_long_is_cut_and_refused() {
    let (task, _dir) = task();
    let revision = task.revision().unwrap();
    for line in ["é\n".repeat(100_000), "x".repeat(1_000_000)] {
        let entries = [("a.py".into(), file(line.as_bytes())), ("b".into(), file(b"x"))];
        let state = end_state(&task, &revision, &entries).unwrap();
        assert!((2001..=2004).contains(&state.patch.len()), "{}", state.patch.len());
        match apply(&task, &revision, &Submission::Patch(state.patch)) {
            Err(ApplyError::Rejected(why)) => assert_eq!(why.kind, RejectionKind::TooLarge),
            other => panic!("{other:?}"),
        }
    }
}
