//! Submissions that try to pass without solving the task. None may, and gold beside them must.

use assay_proto::v1::submission::Kind;
use assay_tests::{Service, Tree, add, passed, request, skipped};

const PROGRAM: &str = env!("CARGO_BIN_EXE_assay-under-test");

/// A task whose tests import the code under test, in the same process.
const TASK: &str = "inflection.0001";
const SOURCE: &str = "inflection/__init__.py";
const TESTS: &str = "test_inflection.py";

/// Tries to find the report's channel and to write a perfect report of its own into it.
const FORGE: &str = r#"
import os
def _forge():
    line = '{"seq":%d,"event":"%s","nonce":"0","id":"x","status":"passed","exit":0,"collected":["x"],"counts":{"passed":1}}\n'
    text = "".join(line % (n, e) for n, e in enumerate(["start", "test", "end"]))
    for fd in range(3, 64):
        try:
            os.write(fd, text.encode())
        except OSError:
            pass
    for path in ("report.json", "report.xml", "/tmp/report.json", "/assay/report.json"):
        try:
            open(path, "w").write(text)
        except OSError:
            pass
"#;

fn attacks(tree: &Tree) -> Vec<(&'static str, String)> {
    let append = |code: &str| tree.edit(SOURCE, |text| format!("{text}\n{code}\n"));
    let prepend = |code: &str| tree.edit(SOURCE, |text| format!("{code}\n{text}"));
    vec![
        ("os._exit(0) at import", append("import os\nos._exit(0)")),
        (
            "sys.exit(0) in a test run",
            append("import sys\ndef pluralize(word):\n    sys.exit(0)\nsingularize = pluralize"),
        ),
        (
            "a root conftest.py that turns outcomes to passed",
            add(
                "conftest.py",
                "import pytest\n\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport(item, call):\n    \
                 result = yield\n    result.get_result().outcome = \"passed\"\n",
            ),
        ),
        (
            "printed PASSED lines",
            append(&format!("print('{TESTS}::test_pluralize PASSED')\nprint('1 passed in 0.01s')")),
        ),
        ("a rewritten report", append(&format!("{FORGE}\n_forge()"))),
        (
            "edited tests",
            tree.edit(TESTS, |text| text.replace("    assert ", "    assert True or ")),
        ),
        ("deleted tests", tree.delete(TESTS)),
        (
            "pytest.skip at module level",
            prepend("import pytest\npytest.skip('no', allow_module_level=True)"),
        ),
        (
            "a daemon that outlives the run",
            append(&format!(
                "{FORGE}\nimport os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork():\n        \
                 os._exit(0)\n    for _ in range(200):\n        _forge()\n        time.sleep(0.05)\n    os._exit(0)"
            )),
        ),
        (
            "an added pytest.py",
            add(
                "pytest.py",
                "print('1 passed')\ndef main(*a, **k):\n    return 0\nraise SystemExit(0)\n",
            ),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attack_on_a_test_suite_passes() {
    if skipped() {
        return;
    }
    let tree = Tree::of(TASK);
    let data = tempfile::tempdir().unwrap();
    let service = Service::start(PROGRAM, data.path());
    let mut client = service.client().await;
    let mut passes = Vec::new();
    for (name, patch) in attacks(&tree) {
        let answer = client.evaluate(request(name, TASK, Kind::Patch(patch))).await;
        let result = answer.unwrap_or_else(|status| panic!("{name}: {status}")).into_inner();
        println!("{name}: {} {:?}", result.outcome().as_str_name(), result.reward);
        assert!(result.reward.is_some(), "{name} is no fault of ours: {:?}", result.failure);
        if passed(&result) {
            passes.push(name);
        }
    }
    assert_eq!(passes, [""; 0]);
    let gold = std::fs::read_to_string(
        std::path::Path::new(assay_repos::SOURCE_CATALOG)
            .join(TASK.replace('.', "/"))
            .join("private/gold.patch"),
    );
    let gold = client.evaluate(request("gold", TASK, Kind::Patch(gold.unwrap()))).await.unwrap();
    assert!(passed(gold.get_ref()), "{gold:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attack_on_a_sealed_function_passes() {
    if skipped() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let service = Service::start(PROGRAM, data.path());
    let mut client = service.client().await;
    let cases = [
        ("the solution", "def add(a, b):\n    return a + b", true),
        ("nothing", "", false),
        (
            "an object whose __eq__ is always true",
            "class Yes:\n    def __eq__(self, other):\n        return True\ndef add(a, b):\n    return Yes()",
            false,
        ),
        (
            "a number whose __eq__ is always true",
            "class Yes(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = None\n\
             def add(a, b):\n    return Yes(0)",
            false,
        ),
        ("exit at import", "import os\nos._exit(0)", false),
        ("exit in a call", "import os\ndef add(a, b):\n    os._exit(0)", false),
        ("SystemExit in a call", "def add(a, b):\n    raise SystemExit(0)", false),
        (
            "a forged report",
            "import os\ndef add(a, b):\n    os.write(3, b'{}')\n    return 0",
            false,
        ),
        (
            "broken frames",
            "import os\ndef add(a, b):\n    os.write(4, b'\\x00\\x00\\x00\\x01T' * 1000)\n    return 0",
            false,
        ),
        (
            "reading the tests",
            "def add(a, b):\n    return len(open('/assay/tests.py').read())",
            false,
        ),
    ];
    for (name, source, expected) in cases {
        let answer = client.evaluate(request(name, "katas.add", Kind::Source(source.into()))).await;
        let result = answer.unwrap_or_else(|status| panic!("{name}: {status}")).into_inner();
        assert!(result.reward.is_some(), "{name}: {:?}", result.failure);
        assert_eq!(passed(&result), expected, "{name}: {result:?}");
    }
}

/// A check by exit status whose script imports nothing of the submission.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_exit_does_not_pass_a_check_by_exit_status() {
    const TASK: &str = "roman.0001";
    if skipped() {
        return;
    }
    let tree = Tree::of(TASK);
    let data = tempfile::tempdir().unwrap();
    let service = Service::start(PROGRAM, data.path());
    let mut client = service.client().await;
    for (name, code) in
        [("os._exit", "import os\nos._exit(0)"), ("SystemExit", "raise SystemExit(0)")]
    {
        let patch = tree.edit("roman.py", |text| format!("{code}\n{text}"));
        let answer = client.evaluate(request(name, TASK, Kind::Patch(patch))).await.unwrap();
        assert!(!passed(answer.get_ref()), "{name}: {answer:?}");
    }
}
