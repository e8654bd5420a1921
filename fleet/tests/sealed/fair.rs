//! What calls cost a submission, and what becomes of their arguments: tasks and submissions of these
//! tests alone.

use std::{fs, path::Path, sync::Arc};

use assay_fleet::{Backends, Evaluator};
use assay_repos::{Catalog, TaskId};
use assay_rewards::{GradeRecord, Outcome, TestStatus};

use super::grade;

/// A task: its language, the signature of its function `f`, the tests, and a submission.
struct Row {
    name: &'static str,
    language: &'static str,
    signature: &'static str,
    tests: &'static str,
    source: &'static str,
}

/// A hundred calls with more than a megabyte each, in 48 MB.
const LARGE: &str = r#"
def test_large(f):
    words, numbers = ["word", "of", ""] * 1000, list(range(1000))
    for call in range(100):
        data = bytes([call]) * 1_000_000
        assert f(data, words, numbers) == data
"#;

const ROWS: [Row; 5] = [
    Row {
        name: "c_large",
        language: "c",
        signature: "(data: bytes, words: list<str>, numbers: list<i64>) -> bytes",
        tests: LARGE,
        // The result is an argument, and what it may do to another it does.
        source: "#include <stdint.h>\n#include <stddef.h>\n\
                 uint8_t *f(const uint8_t *data, size_t size, char **words, size_t count,\n\
                 const int64_t *numbers, size_t more, size_t *len) {\n\
                 words[0] = words[count - 1]; words[1][0] = 'x'; *len = size; return (uint8_t *)data; }\n",
    },
    Row {
        name: "rust_large",
        language: "rust",
        signature: "(data: bytes, words: list<str>, numbers: list<i64>) -> bytes",
        tests: LARGE,
        source: "fn f(data: &[u8], _: &[String], _: &[i64]) -> Vec<u8> { data.to_vec() }",
    },
    Row {
        name: "js_kinds",
        language: "javascript",
        signature: "",
        tests: r#"
def test_tuples_do_not_change(f):
    given = (3, 1, [2])
    assert f(given) == [3, 1, [2], 9]
    assert given == (3, 1, [2])
def test_sets_change(f):
    given = {1, (2, 3)}
    f(given)
    assert given == {1, (2, 3), 9}
def test_keys_of_any_kind(f):
    given = {(1, (2,)): "a", b"b": [], frozenset({3}): (4,), 5: None}
    f(given)
    assert given == {(1, (2,)): "a", b"b": [], frozenset({3}): (4,), 5: None, "k": 9}
def test_what_is_within_keeps_its_kind(f):
    given = [(2, 1), frozenset({1}), b"ba", [(5, 4)], {(3, 2)}]
    f(given)
    assert given == [(2, 1), frozenset({1}), b"ba", [(5, 4)], {(3, 2)}, 9]
    assert [type(one).__name__ for one in given] == ["tuple", "frozenset", "bytes", "list", "set", "int"]
def test_sets_of_tuples_come_back(f):
    assert f({(1, 2)}) == {(1, 2), 9}
def test_two_that_python_takes_for_one(f):
    try:
        f({"both": [(1, 2), (1, 2)]})
    except TypeError as error:
        assert "hold the same" in str(error), error
"#,
        source: r#"
function f(x) {
  if (Array.isArray(x)) {
    for (const one of x) if (Array.isArray(one) || one instanceof Uint8Array) one.reverse();
    for (const one of x) if (one instanceof Set) one.delete(1);
    x.forEach((one) => Array.isArray(one) && one.reverse());
    x.push(9);
  } else if (x instanceof Set) x.add(9);
  else if (x instanceof Map) x.set("k", 9);
  else return new Set(x.both);
  return x;
}
"#,
    },
    Row {
        name: "py_words",
        language: "python",
        signature: "",
        tests: r#"
def test(f):
    raise ValueError("\U0001f600" * 3000)
for number in range(1000):
    globals()["test_%d" % number] = test
def test_last(f):
    assert f(1) == 1
"#,
        source: "def f(x): return x",
    },
    Row {
        name: "py_stays",
        language: "python",
        signature: "",
        tests: "def test_it(f):\n    assert f(1) == 1\n",
        // It doesn't leave when nobody calls it any more.
        source: "import os, time\nos._exit = lambda code: time.sleep(1000)\ndef f(x): return x",
    },
];

pub(super) async fn submissions_pay_for_what_they_do_alone(backends: Backends, dir: &Path) {
    for row in &ROWS {
        write(row, dir);
    }
    let catalog = Catalog::load(&[dir.to_owned()], Path::new("/nonexistent"));
    assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
    let evaluator = Arc::new(Evaluator::new(Arc::new(catalog), backends));
    for Row { name, source, .. } in &ROWS {
        let task: TaskId = format!("fair.{name}").parse().unwrap();
        let record = grade(&evaluator, &task, (*source).to_owned()).await;
        assert_eq!((record.outcome, &record.failure), (Outcome::Scored, &None), "{record:#?}");
        check(name, &record);
    }
    println!("ok: {} submissions pay for what they do alone", ROWS.len());
}

fn check(name: &str, record: &GradeRecord) {
    let check = &record.checks[0];
    let passed = |id: &str| {
        let test = check.tests.iter().find(|test| test.id == id);
        test.is_some_and(|test| test.status == TestStatus::Passed)
    };
    match name {
        "py_words" => {
            assert_eq!((check.counts.passed, check.counts.errors), (1, 1000), "{:?}", check.counts);
            assert!(passed("test_last"));
        }
        "js_kinds" => {
            // An error, whatever the test makes of it: no answer came.
            let two = "test_two_that_python_takes_for_one";
            let others = check.tests.iter().filter(|test| test.id != two);
            let wrong: Vec<_> = others.filter(|test| !passed(&test.id)).collect();
            assert!(wrong.is_empty() && check.tests.len() == 6, "{wrong:#?}");
            let told = check.tests.iter().find(|test| test.id == two).unwrap();
            assert_eq!(told.status, TestStatus::Error, "{told:?}");
            assert!(told.message.as_ref().is_some_and(|said| said.contains("hold the same")));
        }
        _ => assert!(check.tests.iter().all(|test| passed(&test.id)), "{name}: {record:#?}"),
    }
    if name == "py_stays" {
        // It slept most of the time, until it was stopped.
        let usage = check.usage;
        assert!(usage.cpu_s > 0.0 && usage.cpu_s < usage.wall_s / 2.0, "{usage:?}");
    }
}

fn write(row: &Row, dir: &Path) {
    let Row { name, language, signature, tests, source } = row;
    let dir = dir.join(name);
    fs::create_dir_all(dir.join("private")).unwrap();
    let signature = match *signature {
        "" => String::new(),
        signature => format!("signature = \"{signature}\"\n"),
    };
    let image = if *language == "python" { "python" } else { "toolchains" };
    let task = format!(
        "schema = 1\nid = \"fair.{name}\"\nlanguage = \"{language}\"\nimage = \"{image}\"\nsplit = \"train\"\n\n\
         [prompt]\ntemplate = \"problem.md\"\n\n\
         [submission]\nkind = \"function\"\nentry = \"f\"\n{signature}\n\
         [[check]]\nid = \"asserts\"\nreport = \"function\"\n\n\
         [limits]\ncpu_s = 20\nwall_s = 100\nmemory_mb = 128\ndisk_mb = 16\n"
    );
    let task = if name.ends_with("large") { task.replace("= 128", "= 48") } else { task };
    let gold = match *language {
        "c" => "gold.c",
        "rust" => "gold.rs",
        "javascript" => "gold.js",
        _ => "gold.py",
    };
    for (name, text) in [
        ("task.toml", task.as_str()),
        ("problem.md", "Write `f`.\n"),
        ("private/tests.py", *tests),
        (&format!("private/{gold}"), *source),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
}
