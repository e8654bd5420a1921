//! What a bad file gets: one error with file, line and a suggestion. The other tasks load.

use std::{
    fs,
    path::{Path, PathBuf},
};

use assay_repos::{Catalog, Mode, MustKeep, ReportKind, TaskFilter};

const GOOD: &str = r#"schema = 1
id = "set.good"
split = "train"
[prompt]
template = "problem.md"
[submission]
kind = "function"
entry = "f"
[[check]]
id = "unit"
report = "function"
"#;

fn write(path: impl AsRef<Path>, text: &str) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Writes a task directory that is good but for its `task.toml`.
fn write_task(dir: &Path, toml: &str) {
    write(dir.join("task.toml"), toml);
    write(dir.join("problem.md"), "Write f.\n");
    write(dir.join("private/tests.py"), "def test_1(f):\n    assert f(1) == 1\n");
    write(dir.join("private/gold.py"), "def f(x):\n    return x\n");
    write(dir.join("tree/lib.py"), "x = 1\n");
    write(dir.join("private/fix.patch"), "");
}

fn load(dir: &Path) -> Catalog {
    Catalog::load(&[dir.to_owned()], &dir.join(".cache"))
}

#[test]
fn mistakes_are_named_with_line_and_help() {
    // (name, what is replaced in GOOD, by what, the line, parts of the message)
    let cases: &[(&str, &str, &str, u32, &[&str])] = &[
        ("unknown key", "entry", "entri", 8, &["`entri` in [submission]", "did you mean `entry`?"]),
        ("unknown key at the top", "split", "spilt", 3, &["unknown key `spilt`", "`split`?"]),
        ("unknown table", "[prompt]", "[limit]\n[prompt]", 4, &["`limit`", "`limits`?"]),
        ("a key like no other", "split", "zzzzzzz", 3, &["unknown key `zzzzzzz`"]),
        ("wrong type", "\"train\"", "3", 3, &["`split` is an integer: expected a string"]),
        ("wrong word", "\"train\"", "\"trian\"", 3, &["`trian`", "`train`?", "train, held_out"]),
        ("table for a string", "\"problem.md\"", "{}", 5, &["`template` is a table"]),
        (
            "string for a table",
            "[submission]\nkind = \"function\"\nentry = \"f\"",
            "submission = 1",
            6,
            &["unknown key `submission`"],
        ),
        ("no TOML", "[prompt]", "[prompt", 4, &["not valid TOML"]),
        ("a key twice", "split = \"train\"", "schema = 1", 3, &["not valid TOML", "duplicate key"]),
        ("schema of the future", "schema = 1", "schema = 2", 1, &["this version reads 1"]),
        ("schema of no kind", "schema = 1", "schema = -1", 1, &["out of range"]),
        ("id with a slash", "set.good", "../x", 2, &["not a task id"]),
        ("no id", "id = \"set.good\"\n", "", 1, &["the file has no `id`"]),
        ("template outside", "problem.md", "../problem.md", 5, &["no `..`"]),
        ("absolute template", "problem.md", "/etc/passwd", 5, &["must be relative"]),
        ("template missing", "problem.md", "problems.md", 5, &["no such file", "`problem.md`?"]),
        ("template is private", "problem.md", "private/gold.py", 5, &["no policy sees"]),
        (
            "episode without source",
            "\"function\"\nentry",
            "\"episode\"\nentry",
            7,
            &["needs a `[source]`"],
        ),
        (
            "kind without source",
            "\"function\"\nentry",
            "\"patch\"\nentry",
            7,
            &["needs a `[source]`"],
        ),
        (
            "extract that gives no code",
            "entry",
            "extract = \"diff\"\nentry",
            8,
            &["`raw` or `fence`"],
        ),
        (
            "functions in a language that has none here",
            "split",
            "language = \"java\"\nsplit",
            3,
            &["`language` is `java`", "python, javascript, c and rust"],
        ),
        (
            "C without types",
            "split",
            "language = \"c\"\nsplit",
            7,
            &["a function in c needs its types: `signature`"],
        ),
        (
            "types that C has not",
            "split = \"train\"\n[prompt]\ntemplate = \"problem.md\"\n[submission]",
            "language = \"c\"\n[prompt]\ntemplate = \"problem.md\"\n[submission]\n\
             signature = \"(x: list<list<i64>>) -> i64\"",
            7,
            &["C has no `list<list<i64>>` here"],
        ),
        (
            "types that are none",
            "split = \"train\"\n[prompt]\ntemplate = \"problem.md\"\n[submission]",
            "language = \"rust\"\n[prompt]\ntemplate = \"problem.md\"\n[submission]\nsignature = \"(x: int) -> i64\"",
            7,
            &["`int` is no type", "such as `(xs: list<i64>, k: i64) -> f64`"],
        ),
        (
            "types for Python",
            "entry",
            "signature = \"() -> i64\"\nentry",
            8,
            &["`signature` is for functions in c and rust"],
        ),
        (
            "guarded, where no grader shares the process",
            "split",
            "language = \"javascript\"\nmode = \"guarded\"\nsplit",
            3,
            &["functions in javascript are `sealed`"],
        ),
        ("entry that is code", "\"f\"", "\"f(x)\"", 8, &["not the name of a function"]),
        ("no entry", "entry = \"f\"\n", "", 6, &["needs the function's name"]),
        ("path for a function", "entry", "path = \"a.py\"\nentry", 8, &["`path` is for"]),
        ("bad glob", "entry", "deny = [\"a[\"]\nentry", 8, &["bad pattern"]),
        ("deny of no list", "entry", "deny = \"a\"\nentry", 8, &["a list of strings"]),
        ("deny of numbers", "entry", "deny = [\"a\", 1]\nentry", 8, &["a list of strings"]),
        ("no bytes", "entry", "max_bytes = 0\nentry", 8, &["out of range: 1 to"]),
        (
            "too many bytes",
            "entry",
            "max_bytes = 99999999999999999999\nentry",
            8,
            &["out of range"],
        ),
        ("no time", "[prompt]", "[limits]\nwall_s = 0\n[prompt]", 5, &["above 0"]),
        ("not a time", "[prompt]", "[limits]\nwall_s = nan\n[prompt]", 5, &["above 0"]),
        ("for ever", "[prompt]", "[limits]\nwall_s = inf\n[prompt]", 5, &["at most 86400"]),
        ("negative pids", "[prompt]", "[limits]\npids = -1\n[prompt]", 5, &["out of range"]),
        ("limit misspelt", "[prompt]", "[limits]\nmemory_gb = 1\n[prompt]", 5, &["`memory_mb`?"]),
        (
            "report of the future",
            "report = \"function\"",
            "report = \"nextest\"",
            11,
            &["is `junit` here"],
        ),
        (
            "parser of the future",
            "report = \"function\"",
            "report = \"log:x\"",
            11,
            &["`report` is `log:x`", "log:parse_log_pytest"],
        ),
        (
            "parser by another name",
            "report = \"function\"",
            "report = \"log:parse_log_sphinx\"",
            11,
            &["is `log:parse_log_pytest_v2` here"],
        ),
        (
            "parser of failures alone",
            "report = \"function\"",
            "report = \"log:parse_log_p5js\"",
            11,
            &["is not read", "nothing shows that a test passed"],
        ),
        (
            "unittest of nothing",
            "report = \"function\"",
            "report = \"unittest\"\nrun = [\"python3\", \"-m\", \"pytest\", \"a\"]",
            12,
            &["a `unittest` check runs"],
        ),
        (
            "Django in many processes",
            "report = \"function\"",
            "report = \"django\"\nrun = [\"python3\", \"manage.py\", \"test\", \"--parallel=4\"]",
            12,
            &["without `--parallel`"],
        ),
        (
            "junit of no file",
            "report = \"function\"",
            "report = \"junit\"\nrun = [\"x\"]",
            11,
            &["needs `report_path`"],
        ),
        (
            "report outside",
            "report = \"function\"",
            "report = \"junit\"\nrun = [\"x\"]\nreport_path = \"a/../../b.xml\"",
            13,
            &["in the work tree"],
        ),
        (
            "report in any folder",
            "report = \"function\"",
            "report = \"tap\"\nrun = [\"x\"]\nreport_path = \"*/b.tap\"",
            13,
            &["last part"],
        ),
        (
            "report path of no use",
            "report = \"function\"",
            "report = \"exit\"\nrun = [\"x\"]\nreport_path = \"b.xml\"",
            13,
            &["is not for `exit`"],
        ),
        ("report misspelt", "report = \"function\"", "report = \"pytst\"", 11, &["`pytest`?"]),
        (
            "stdio for a function",
            "report = \"function\"",
            "report = \"stdio\"\nrun = [\"x\"]",
            11,
            &["private/cases"],
        ),
        (
            "pytest of nothing",
            "report = \"function\"",
            "report = \"pytest\"\nrun = [\"pytest\"]",
            12,
            &["python3"],
        ),
        ("run for a function", "report =", "run = [\"x\"]\nreport =", 11, &["has no `run`"]),
        ("check id of no name", "\"unit\"", "\"a b\"", 10, &["letters, digits"]),
        ("must_pass twice", "report =", "must_pass = [\"a\", \"a\"]\nreport =", 11, &["twice"]),
        ("must_keep of no kind", "report =", "must_keep = \"lok\"\nreport =", 11, &["is `lock`"]),
        ("image of no kind", "split", "image = \"/ubuntu\"\nsplit", 3, &["`docker:NAME`"]),
        ("image with a blank", "split", "image = \"docker:a b\"\nsplit", 3, &["`docker:NAME`"]),
        ("relative workdir", "split", "workdir = \"work\"\nsplit", 3, &["absolute"]),
        ("workdir outside", "split", "workdir = \"/a/../b\"\nsplit", 3, &["absolute"]),
        ("language of no kind", "split", "language = \"pyton\"\nsplit", 3, &["`python`?"]),
        (
            "package of no kind",
            "[prompt]",
            "[source]\nrepository = \"tolz@1\"\n[prompt]",
            5,
            &["no such package"],
        ),
        (
            "source outside",
            "[prompt]",
            "[source]\nrepository = \"./../x\"\n[prompt]",
            5,
            &["no such directory"],
        ),
        (
            "revert outside",
            "[prompt]",
            "[source]\nrepository = \"./tree\"\nrevert = \"../x\"\n[prompt]",
            6,
            &["no `..`"],
        ),
        (
            "revert missing",
            "[prompt]",
            "[source]\nrepository = \"./tree\"\nrevert = \"private/fixx.patch\"\n[prompt]",
            6,
            &["no such file", "`private/fix.patch`?"],
        ),
    ];
    for (name, old, new, line, parts) in cases {
        let dir = tempfile::tempdir().unwrap();
        assert!(GOOD.contains(old), "{name}: {old:?} is not in GOOD");
        write_task(&dir.path().join("bad"), &GOOD.replacen(old, new, 1));
        write_task(&dir.path().join("other"), &GOOD.replace("set.good", "set.other"));
        let catalog = load(dir.path());
        let ids: Vec<_> = catalog.tasks().map(|task| task.id.as_str()).collect();
        assert_eq!(ids, ["set.other"], "{name}: the other task loads, this one doesn't");
        let at: Vec<_> = catalog.problems().iter().filter(|p| p.line == Some(*line)).collect();
        assert!(!at.is_empty(), "{name}: nothing at line {line}: {:#?}", catalog.problems());
        let found = at.iter().any(|p| parts.iter().all(|part| p.message.contains(part)));
        assert!(found, "{name}: {parts:?} not in {at:#?}");
        assert!(at[0].file.ends_with("bad/task.toml"), "{name}");
        assert!(at[0].to_string().contains(&format!("bad/task.toml:{line}: ")), "{name}");
    }
}

#[test]
fn tests_beside_the_code_are_never_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let text = GOOD.replace("kind = \"function\"\nentry = \"f\"", "kind = \"program\"");
    let text = text.replace("report = \"function\"", "report = \"exit\"\nrun = [\"true\"]");
    write_task(&dir.path().join("a"), &text.replace("split", "mode = \"sealed\"\nsplit"));
    write_task(&dir.path().join("b"), &text.replace("set.good", "set.b"));
    write_task(&dir.path().join("c"), &GOOD.replace("set.good", "set.c"));
    let catalog = load(dir.path());
    let modes: Vec<_> = catalog.tasks().map(|task| task.mode).collect();
    assert_eq!(modes, [Mode::Guarded, Mode::Sealed]);
    let [problem] = catalog.problems() else { panic!("{:?}", catalog.problems()) };
    assert_eq!(problem.line, Some(3));
}

#[test]
fn all_mistakes_of_a_file_come_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let text = GOOD
        .replace("entry", "entri")
        .replace("\"train\"", "\"test\"")
        .replace("id = \"unit\"\n", "");
    write_task(&dir.path().join("bad"), &text);
    let lines: Vec<_> = load(dir.path()).problems().iter().filter_map(|p| p.line).collect();
    assert_eq!(lines, [3, 8, 9], "a key that is misspelt is not missing as well");
}

#[test]
fn ids_are_unique_and_the_first_keeps_its_name() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b", "a", "c/deep"] {
        write_task(&dir.path().join(name), GOOD);
    }
    let catalog = load(dir.path());
    assert_eq!(catalog.tasks().len(), 1);
    assert!(catalog.tasks().next().unwrap().dir.ends_with("a"));
    let [first, second] = catalog.problems() else { panic!("{:?}", catalog.problems()) };
    assert!(first.file.ends_with("b/task.toml") && second.file.ends_with("c/deep/task.toml"));
    assert_eq!(first.line, Some(2));
    assert!(first.message.contains("a/task.toml has already"), "{first}");
}

#[test]
fn what_is_no_task_directory_is_a_problem_of_its_own() {
    type Spoil = fn(&Path);
    let cases: &[(&str, Spoil, &str)] = &[
        (
            "a link out",
            |dir| std::os::unix::fs::symlink("/etc/passwd", dir.join("x")).unwrap(),
            "symbolic link",
        ),
        ("not UTF-8", |dir| fs::write(dir.join("task.toml"), b"\xff").unwrap(), "UTF-8"),
        ("a bad lock", |dir| write(dir.join("private/expected.lock.json"), "{"), "not a lock file"),
        (
            "a strange lock",
            |dir| {
                write(dir.join("private/expected.lock.json"), r#"{"schema":1,"checks":{},"x":1}"#)
            },
            "unknown field `x`",
        ),
        (
            "no tests",
            |dir| fs::remove_file(dir.join("private/tests.py")).unwrap(),
            "needs private/tests.py",
        ),
    ];
    for (name, spoil, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        write_task(&dir.path().join("bad"), GOOD);
        write_task(&dir.path().join("other"), &GOOD.replace("set.good", "set.other"));
        spoil(&dir.path().join("bad"));
        let catalog = load(dir.path());
        assert_eq!(catalog.tasks().len(), 1, "{name}");
        let found = catalog.problems().iter().any(|problem| problem.message.contains(expected));
        assert!(found, "{name}: {:#?}", catalog.problems());
    }
    let catalog =
        Catalog::load(&[PathBuf::from("/nonexistent/catalog")], Path::new("/nonexistent"));
    assert!(catalog.problems()[0].message.contains("cannot be listed"));
}

#[test]
fn a_link_in_the_catalog_leads_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    write_task(&dir.path().join("a"), GOOD);
    std::os::unix::fs::symlink("..", dir.path().join("round")).unwrap();
    let catalog = load(dir.path());
    assert_eq!((catalog.tasks().len(), catalog.problems().len()), (1, 0));
}

#[test]
fn a_digest_covers_every_file() {
    let dir = tempfile::tempdir().unwrap();
    let task = dir.path().join("a");
    write_task(&task, GOOD);
    let digest = || load(dir.path()).tasks().next().unwrap().digest.clone();
    let first = digest();
    assert_eq!(digest(), first);
    write(task.join("private/__pycache__/tests.pyc"), "stray");
    assert_eq!(digest(), first, "Python's caches come by themselves");
    write(task.join("private/tests.py"), "def test_1(f):\n    assert f(2) == 2\n");
    let second = digest();
    assert_ne!(second, first);
    write(task.join("notes.md"), "");
    assert_ne!(digest(), second);
}

#[test]
fn samples_are_the_same_for_the_same_seed() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..20 {
        let text = GOOD.replace("set.good", &format!("set.{number:02}"));
        write_task(&dir.path().join(number.to_string()), &text);
    }
    let catalog = load(dir.path());
    let draw = |count, seed| {
        let drawn = catalog.sample(&TaskFilter::default(), count, seed);
        drawn.iter().map(|task| task.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(draw(8, 1), draw(8, 1));
    assert_ne!(draw(8, 1), draw(8, 2));
    assert_eq!(draw(3, 1), draw(8, 1)[..3]);
    let mut all = draw(100, 3);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 20);
    let other = TaskFilter { set: Some("other".into()), ..TaskFilter::default() };
    assert!(catalog.sample(&other, 5, 1).is_empty());
}

#[test]
fn a_whole_task_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let task = dir.path().join("a");
    write_task(
        &task,
        r#"schema = 1
id = "s.1"
set = "special"
image = "docker:assay-python:1"
workdir = "/src"
[source]
repository = "./tree"
tests = ["tests/**"]
[prompt]
template = "problem.md"
context = ["lib.py"]
[submission]
kind = "patch"
max_bytes = 1_000
deny = ["docs/**"]
deny_action = "reject"
[limits]
wall_s = 1.5
cpu_s = 1
[[check]]
id = "unit"
run = ["python3", "-m", "pytest", "tests/test_a.py"]
report = "pytest"
must_pass = ["tests/test_a.py::test_a"]
must_keep = "lock"
[[check]]
id = "smoke"
run = ["python3", "lib.py"]
report = "exit"
must_keep = ["x"]
"#,
    );
    let lock = r#"{"schema":1,"checks":{"unit":{"b":{"base":"passed","gold":"passed"},
        "a":{"base":"failed","gold":"passed"},"c":{"base":"passed","gold":"failed"}}}}"#;
    write(task.join("private/expected.lock.json"), lock);
    let catalog = load(dir.path());
    assert_eq!(catalog.problems(), []);
    let task = catalog.get(&"s.1".parse().unwrap()).unwrap();
    assert_eq!(
        (task.set.as_str(), task.limits.wall_s, task.limits.memory_mb),
        ("special", 1.5, 1024)
    );
    assert_eq!(
        task.checks.iter().map(|c| c.report).collect::<Vec<_>>(),
        [ReportKind::Pytest, ReportKind::Exit]
    );
    assert_eq!(task.kept_tests(&task.checks[0]).unwrap(), ["b"]);
    assert_eq!(task.checks[1].must_keep, MustKeep::Tests(vec!["x".into()]));
    let asked = &task.messages().unwrap()[0].content;
    assert_eq!(asked, "Write f.\n\n`lib.py`:\n\n```python\nx = 1\n```");
    assert_eq!(task.prompt_digest().unwrap(), task.prompt_digest().unwrap());
    let function = GOOD.replace("[prompt]", "[limits]\nwall_s = 9\n[prompt]");
    write_task(&dir.path().join("f"), &function);
    let catalog = load(dir.path());
    let limits = catalog.get(&"set.good".parse().unwrap()).unwrap().limits;
    assert_eq!((limits.wall_s, limits.cpu_s, limits.memory_mb), (9.0, 5.0, 256));
    let lock = task.lock.clone().unwrap();
    assert_eq!(serde_json::from_str::<assay_repos::Lock>(&lock.to_json()).unwrap(), lock);
}
