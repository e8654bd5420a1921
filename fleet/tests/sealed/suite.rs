//! A pytest suite whose tests and submission run apart.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use assay_fleet::{Backends, Evaluation, Evaluator};
use assay_repos::{Catalog, Mode, Submission, TaskId};
use assay_rewards::{Fault, GradeRecord, TestStatus};

use super::{said_by_scanner, scanner};
use crate::common::{id, soon};

const CODE: &str = include_str!("shop/shop.py");
const TESTS: &str = include_str!("shop/test_shop.py");
const TASK: &str = r#"
schema = 1
id = "shop.1"
language = "python"
MODE
[source]
repository = "./tree"
tests = ["tests/**"]
[prompt]
template = "problem.md"
[submission]
kind = "files"
[limits]
cpu_s = 6
wall_s = 100
[[check]]
id = "unit"
run = ["python3", "-m", "pytest", "tests/test_shop.py"]
report = "pytest"
must_pass = ["tests/test_shop.py::test_a_generator"]
"#;

/// Writes the task, in a mode, and returns what judges its submissions.
fn evaluator(backends: &Backends, dir: &Path, mode: &str) -> Arc<Evaluator> {
    let dir = dir.join(format!("shop-{}", mode.len()));
    let files = [
        ("task.toml", TASK.replace("MODE", mode)),
        ("problem.md", "Sell.".into()),
        ("tree/shop/__init__.py", CODE.replace("yield start", "return")),
        ("tree/shop/prices.py", "TABLE = {\"tea\": 1.75, \"milk\": 1.25}\n".into()),
        ("tree/shop/errors.py", "class OutOfStock(ValueError):\n    item = None\n".into()),
        ("tree/tests/test_shop.py", "def test_nothing(): pass\n".into()),
        ("private/tests/tests/test_shop.py", TESTS.into()),
        ("private/gold/shop/__init__.py", CODE.into()),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let catalog = Catalog::load(&[dir], Path::new("/nonexistent"));
    assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
    Arc::new(Evaluator::new(Arc::new(catalog), backends.clone()))
}

async fn judge(evaluator: &Arc<Evaluator>, name: &str, code: String) -> GradeRecord {
    let task: TaskId = "shop.1".parse().unwrap();
    let files = BTreeMap::from([("shop/__init__.py".into(), code.into_bytes())]);
    let evaluation = Evaluation::new(id("suite"), task, Submission::Files(files));
    let verdict = soon(name, evaluator.evaluate(evaluation)).await;
    verdict.unwrap_or_else(|failure| panic!("{name}: {failure:?}")).record
}

fn passed(record: &GradeRecord) -> Vec<&str> {
    let tests = record.checks.iter().flat_map(|check| &check.tests);
    let passed = tests.filter(|test| test.status == TestStatus::Passed);
    passed.filter_map(|test| test.id.split_once("::").map(|(_, name)| name)).collect()
}

pub(crate) async fn tests_see_of_a_submission_what_they_see_beside_it(
    backends: &Backends,
    dir: &Path,
) {
    for mode in ["", "mode = \"sealed\""] {
        let evaluator = evaluator(backends, dir, mode);
        let record = judge(&evaluator, "gold", CODE.into()).await;
        let expected = if mode.is_empty() { Mode::Guarded } else { Mode::Sealed };
        assert_eq!((record.mode, &record.failure), (expected, &None));
        assert_eq!(passed(&record).len(), 17, "{mode}: {record:#?}");
        let canaries: usize = record.checks.iter().map(|check| check.canaries.len()).sum();
        assert_eq!(canaries > 0, mode.is_empty(), "nothing can turn outcomes in a sealed run");
    }
    println!("ok: 17 tests of many kinds pass beside their code and apart from it");
}

/// What is appended to a solution, and a test that must not pass for it.
const BAD: [(&str, &str, &str); 18] = [
    (
        "an object that equals everything",
        "class Any:\n    def __eq__(self, other): return True\ndef total(numbers): return Any()",
        "test_plain_values[numbers0-3]",
    ),
    (
        "a text that equals everything, in a list",
        "class Any(int):\n    def __eq__(self, other): return True\ndef countdown(start): return [Any(1)] * 3",
        "test_a_generator",
    ),
    (
        "an iterator whose values equal everything",
        "class Any:\n    def __eq__(self, other): return True\ndef countdown(start): yield from [Any()] * 3",
        "test_a_generator",
    ),
    (
        "a block that swallows assertions",
        "class Till:\n    open = False\n    def __enter__(self): return self\n    def __exit__(self, *_): return True",
        "test_a_context",
    ),
    (
        "unittest's skip",
        "import unittest\ndef total(numbers): raise unittest.SkipTest('no')",
        "TestUnit::test_in_a_class",
    ),
    ("pytest's skip", "import pytest\ndef countdown(start): pytest.skip('no')", "test_a_generator"),
    (
        "pytest's end",
        "import pytest\ndef countdown(start): pytest.exit('no', returncode=0)",
        "test_a_generator",
    ),
    ("an end of the process", "import os\ndef countdown(start): os._exit(0)", "test_a_generator"),
    (
        "an end that tests could catch",
        "def countdown(start): raise SystemExit(0)",
        "test_a_generator",
    ),
    (
        "what no program catches",
        "def buy(item): raise KeyboardInterrupt",
        "test_an_exception_of_its_own",
    ),
    (
        "an exception of the right name elsewhere",
        "class OutOfStock(ValueError): pass\ndef buy(item): raise OutOfStock('no milk today')",
        "test_an_exception_of_its_own",
    ),
    (
        "bytes that are no frames",
        "import os\ndef countdown(start): os.write(4, b'\\0\\0\\0\\1T' * 1000); return [3, 2, 1]",
        "test_a_builtin_exception",
    ),
    (
        "frames of the wrong kind, before they are asked for",
        "import os, wire\ndef countdown(start):\n    for m in [('ok',), ('raised', ('yours', 0), None), \
         ('ok', 1, 2, 3), ('get', 0, '__globals__'), ('call', 0), ('ok', True, None)]:\n        \
         data = wire.encode(m)\n        os.write(4, len(data).to_bytes(4, 'big') + data)\n",
        "test_a_generator",
    ),
    (
        "references to what nobody holds",
        "import os, wire\ndef countdown(start):\n    data = wire.encode(('ok', Any, None), lambda _: ('yours', 9))\n    \
         os.write(4, len(data).to_bytes(4, 'big') + data)\nclass Any: pass",
        "test_a_generator",
    ),
    (
        "values nested too deeply",
        "def countdown(start):\n    value = []\n    for _ in range(200): value = [value]\n    return value",
        "test_a_generator",
    ),
    (
        "what can't cross, where a test awaits a TypeError",
        "def total(numbers):\n    value = []\n    for _ in range(200): value = [value]\n    return value",
        "test_a_type_error",
    ),
    ("an endless generator", "def countdown(start):\n    while True: yield 3", "test_a_generator"),
    (
        "an object for a length",
        "class Basket:\n    def __init__(self, *names): pass\n    def __len__(self): return 10**9\n    \
         def __getattr__(self, name): return self\n    def __call__(self, *_): return self\n    \
         def __eq__(self, other): return True",
        "test_an_object",
    ),
];

pub(crate) async fn no_submission_forges_or_sees_a_test(backends: &Backends, dir: &Path) {
    let evaluator = evaluator(backends, dir, "mode = \"sealed\"");
    for (name, code, test) in BAD {
        let path = "import sys\nsys.path.insert(0, '/assay')\n";
        let record = judge(&evaluator, name, format!("{path}{CODE}\n{code}\n")).await;
        assert!(!passed(&record).contains(&test), "{name}: {record:#?}");
        let fault = record.failure.as_ref().map(|failure| failure.fault);
        assert!(matches!(fault, None | Some(Fault::Submission)), "{name}: {:?}", record.failure);
    }
    println!("ok: {} forgers of a sealed suite leave no pass", BAD.len());

    let lines = TESTS.lines().map(str::trim).filter(|line| line.starts_with("assert "));
    let values = ["no milk today\") as", "test_plain_values", "((1, 2))"];
    let needles: Vec<_> = lines.chain(values).map(str::to_owned).collect();
    let source = format!("{CODE}\n{}\ntotal = scan\n", scanner(&needles));
    let record = judge(&evaluator, "a scanner", source.clone()).await;
    let scan = said_by_scanner(&record).unwrap_or_else(|| panic!("{record:#?}"));
    assert!(scan.hits.is_empty() && scan.places.contains_key("memory"), "{scan:?}");
    println!("ok: a submission looked at {} MB beside its suite: 0 hits", scan.bytes >> 20);

    let guarded = self::evaluator(backends, dir, "");
    let record = judge(&guarded, "a scanner, guarded", source).await;
    let scan = said_by_scanner(&record).unwrap_or_else(|| panic!("{record:#?}"));
    assert!(!scan.hits.is_empty(), "the scanner finds tests in its own process: {scan:?}");
}
