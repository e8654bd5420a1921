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
        ("tree/shop/errors.py", "class OutOfStock(ValueError):\n    code = 404\n".into()),
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

/// Tests that use more of the code than its answers.
const BESIDE: &str = "TestBeside::";
/// All others.
const APART: usize = 15;

pub(crate) async fn tests_see_of_a_submission_what_they_see_beside_it(
    backends: &Backends,
    dir: &Path,
) {
    for mode in ["", "mode = \"sealed\""] {
        let evaluator = evaluator(backends, dir, mode);
        let record = judge(&evaluator, "gold", CODE.into()).await;
        let guarded = mode.is_empty();
        let expected = if guarded { Mode::Guarded } else { Mode::Sealed };
        assert_eq!((record.mode, &record.failure), (expected, &None));
        let passed = passed(&record);
        let beside = passed.iter().filter(|test| test.starts_with(BESIDE)).count();
        assert_eq!((passed.len() - beside, beside > 0), (APART, guarded), "{record:#?}");
        let canaries: usize = record.checks.iter().map(|check| check.canaries.len()).sum();
        assert_eq!(canaries > 0, guarded, "nothing can turn outcomes in a sealed run");
    }
    println!("ok: {APART} tests pass beside their code and apart from it, others beside it alone");
}

/// Whether another solution, with this appended, is as right.
const GOOD: [(&str, &str); 4] = [
    (
        "a named tuple for a tuple",
        "import typing\nclass Long(typing.NamedTuple):\n    name: str\n    length: int\n\
         def longest(names): return Long('bb', 2)",
    ),
    (
        "numbers of types of their own",
        "import enum\nclass Number(enum.IntEnum):\n    THREE = 3\n    MANY = 42\n    ONE = 1\n    NO = 0\n\
         def total(numbers): return Number(sum(numbers))",
    ),
    ("another kind of iterator", "def countdown(start): return map(int, '321')"),
    (
        "a thread of its own",
        "import threading\nthreading.Thread(target=sum, args=([1],), daemon=True).start()",
    ),
];

/// What is appended to a solution, and a test that fails for it. The submission stays, and other
/// tests pass, where it says so.
const BAD: [(&str, &str, &str, bool); 21] = [
    (
        "an object that equals everything",
        "class Any:\n    def __eq__(self, other): return True\ndef total(numbers): return Any()",
        "test_plain_values[numbers0-3]",
        true,
    ),
    (
        "a number that equals everything",
        "class Any(int):\n    def __eq__(self, other): return True\ndef countdown(start): return [Any(1)] * 3",
        "test_a_generator",
        true,
    ),
    (
        "an iterator whose values equal everything",
        "class Any:\n    def __eq__(self, other): return True\ndef countdown(start): yield from [Any()] * 3",
        "test_a_generator",
        true,
    ),
    (
        "a copy of what it was given",
        "def same(names): return list(names)",
        "test_what_is_handed_back",
        true,
    ),
    (
        "an exception type that assertions have, too",
        "OutOfStock = AssertionError\nfrom . import errors\nerrors.OutOfStock = AssertionError\ndef buy(item): pass",
        "test_an_exception_that_is_awaited",
        false,
    ),
    (
        "unittest's skip",
        "import unittest\ndef total(numbers): raise unittest.SkipTest('no')",
        "TestUnit::test_in_a_class",
        true,
    ),
    (
        "pytest's skip",
        "import pytest\ndef countdown(start): pytest.skip('no')",
        "test_a_generator",
        true,
    ),
    (
        "pytest's expected failure",
        "import pytest\ndef countdown(start): pytest.xfail('no')",
        "test_a_generator",
        true,
    ),
    (
        "pytest's end",
        "import pytest\ndef countdown(start): pytest.exit('no', returncode=0)",
        "test_a_generator",
        true,
    ),
    (
        "an end of the process",
        "import os\ndef countdown(start): os._exit(0)",
        "test_a_generator",
        false,
    ),
    (
        "an end that tests could catch",
        "def countdown(start): raise SystemExit(0)",
        "test_a_generator",
        true,
    ),
    (
        "what no program catches",
        "def buy(item): raise KeyboardInterrupt",
        "test_an_exception_of_its_own",
        true,
    ),
    (
        "an exception of the right name elsewhere",
        "class OutOfStock(ValueError):\n    item, code = 'milk', 404\nOutOfStock.__module__ = 'shop.errors'\n\
         def buy(item): raise OutOfStock('no milk today')",
        "test_an_exception_of_its_own",
        true,
    ),
    (
        "bytes that are no frames",
        "import os\ndef price(name): os.write(4, b'\\0\\0\\0\\1?' * 10); raise KeyError('gold')",
        "test_a_builtin_exception",
        false,
    ),
    (
        "requests, where there are answers",
        "import os\nfrom assay_peer import wire\ndef price(name):\n    data = wire.encode(('get', 0, '__globals__'))\n    \
         os.write(4, len(data).to_bytes(4, 'big') + data)\n    raise KeyError('gold')",
        "test_a_builtin_exception",
        false,
    ),
    (
        "what can't cross, where a test awaits a TypeError",
        "def total(numbers):\n    value = []\n    for _ in range(200): value = [value]\n    return value",
        "test_a_type_error",
        true,
    ),
    (
        "an endless generator",
        "def countdown(start):\n    while True: yield 3",
        "test_a_generator",
        false,
    ),
    (
        "a test for a function",
        "def test_nested_values(): pass\ndef receipt(basket): return True",
        "test_nested_values",
        true,
    ),
    ("a name that is gone", "del receipt", "test_nested_values", true),
    ("a module that ends", "raise SystemExit(0)", "test_plain_values[numbers0-3]", false),
    ("a module that is none", "import sys\nsys.modules[__name__] = 7", "test_nested_values", false),
];

pub(crate) async fn no_submission_forges_or_sees_a_test(backends: &Backends, dir: &Path) {
    let evaluator = evaluator(backends, dir, "mode = \"sealed\"");
    for (name, code) in GOOD {
        let record = judge(&evaluator, name, format!("{CODE}\n{code}\n")).await;
        assert_eq!(passed(&record).len(), APART, "{name}: {record:#?}");
    }
    for (name, code, test, stays) in BAD {
        let path = "import sys\nsys.path.insert(0, '/assay')\n";
        let record = judge(&evaluator, name, format!("{path}{CODE}\n{code}\n")).await;
        assert!(!passed(&record).contains(&test), "{name}: {record:#?}");
        let statuses = record.checks.iter().flat_map(|check| &check.tests).map(|test| test.status);
        use TestStatus::{Error, Failed, Missing, Passed, Timeout};
        for status in statuses {
            assert!(
                matches!(status, Passed | Failed | Error | Missing | Timeout),
                "{name}: {status:?}"
            );
        }
        if stays {
            assert!(passed(&record).contains(&"test_values_of_the_library"), "{name}: {record:#?}");
        }
        let fault = record.failure.as_ref().map(|failure| failure.fault);
        assert!(matches!(fault, None | Some(Fault::Submission)), "{name}: {:?}", record.failure);
    }
    println!(
        "ok: {} other solutions pass apart from their tests, {} forgers fail",
        GOOD.len(),
        BAD.len()
    );

    let lines = TESTS.lines().map(str::trim).filter(|line| line.starts_with("assert "));
    let values = ["no milk today\") as", "test_plain_values", "1.9000", "it should have"];
    let needles: Vec<_> = lines.chain(values).map(str::to_owned).collect();
    let source = format!("{CODE}\n{}\nbuy = scan\n", scanner(&needles));
    let record = judge(&evaluator, "a scanner", source.clone()).await;
    let scan = said_by_scanner(&record).unwrap_or_else(|| panic!("{record:#?}"));
    assert!(scan.hits.is_empty() && scan.places.contains_key("memory"), "{scan:?}");
    println!("ok: a submission looked at {} MB beside its suite: 0 hits", scan.bytes >> 20);

    let guarded = self::evaluator(backends, dir, "");
    let record = judge(&guarded, "a scanner, guarded", source).await;
    let scan = said_by_scanner(&record).unwrap_or_else(|| panic!("{record:#?}"));
    assert!(!scan.hits.is_empty(), "the scanner finds tests in its own process: {scan:?}");
}
