//! Reports as tools write them, of tests in files of fifty, one in [`FAILS`] of which fails.

use std::{fmt::Write as _, ops::Range};

use assay_repos::{LogParser, ReportKind};
use serde_json::json;

/// What tells our runner's report from others.
pub(super) const NONCE: &str = "0123456789abcdef0123456789abcdef";
/// One test of so many fails.
pub(super) const FAILS: usize = 50;
const FILE: usize = 50;
/// Kinds of canaries that our runner reports.
const CANARIES: [&str; 4] = ["assert", "error", "unittest", "true"];
const MESSAGE: &str = "assert left == right\n  left: {\"name\": 'value & more', 'count': 12}\n  right: <None>\n  at tests/module.rs:123:45";

/// What a check's channel has, and where the tool's report is in it.
pub(super) struct Sample {
    pub(super) channel: Vec<u8>,
    pub(super) document: Range<usize>,
}

/// One test: `file` of `test`, and whether it fails.
struct Test {
    file: usize,
    number: usize,
    fails: bool,
}

/// Returns a report of this kind.
pub(super) fn of(kind: ReportKind, tests: usize) -> Option<Sample> {
    let files: Vec<Vec<Test>> = (0..tests)
        .map(|at| Test { file: at / FILE, number: at, fails: at % FAILS == FAILS - 1 })
        .fold(Vec::new(), |mut files: Vec<Vec<Test>>, test| {
            if test.file == files.len() {
                files.push(Vec::new());
            }
            files[test.file].push(test);
            files
        });
    let document = match kind {
        ReportKind::Junit => junit(&files),
        ReportKind::Jest => jest(&files),
        ReportKind::Mocha => mocha(&files),
        ReportKind::Ctrf => ctrf(&files),
        ReportKind::GoJson => go(&files),
        ReportKind::Unittest => events(&files),
        ReportKind::Tap => tap(&files),
        ReportKind::Cargo | ReportKind::Log(LogParser::Cargo) => cargo(&files),
        ReportKind::Log(parser) => log(parser, &files)?,
        _ => return None,
    };
    let head = match kind {
        ReportKind::Unittest => String::new(),
        ReportKind::Junit | ReportKind::Ctrf => {
            format!("start {NONCE} files\nfile {NONCE} {}\n", document.len())
        }
        _ => format!("start {NONCE} stdout\n"),
    };
    let tail = match kind {
        ReportKind::Junit | ReportKind::Ctrf => format!("\nend {NONCE} 1\n"),
        _ => String::new(),
    };
    let range = head.len()..head.len() + document.len();
    Some(Sample { channel: [head, document, tail].concat().into_bytes(), document: range })
}

fn failures(tests: &[Test]) -> usize {
    tests.iter().filter(|test| test.fails).count()
}

fn all(files: &[Vec<Test>]) -> (usize, usize) {
    (files.iter().map(Vec::len).sum(), files.iter().map(|tests| failures(tests)).sum())
}

macro_rules! put {
    ($out:ident, $($arg:tt)*) => { _ = writeln!($out, $($arg)*) };
}

fn junit(files: &[Vec<Test>]) -> String {
    let (tests, failed) = all(files);
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    put!(out, "<testsuites name=\"all\" tests=\"{tests}\" failures=\"{failed}\" errors=\"0\">");
    let message = quick_xml::escape::escape(MESSAGE);
    for tests in files {
        let (file, count, failed) = (tests[0].file, tests.len(), failures(tests));
        put!(
            out,
            "  <testsuite name=\"org.example.Module{file}Test\" tests=\"{count}\" failures=\"{failed}\" errors=\"0\" skipped=\"0\" time=\"1.25\">"
        );
        for Test { number, fails, .. } in tests {
            let case = format!(
                "    <testcase classname=\"org.example.Module{file}Test\" name=\"handles_case_{number}\" time=\"0.025\""
            );
            match fails {
                false => put!(out, "{case}/>"),
                true => put!(
                    out,
                    "{case}>\n      <failure message=\"left == right\" type=\"AssertionError\">{message}</failure>\n    </testcase>"
                ),
            }
        }
        put!(out, "  </testsuite>");
    }
    out + "</testsuites>\n"
}

fn jest(files: &[Vec<Test>]) -> String {
    let (tests, failed) = all(files);
    let results: Vec<_> = files
        .iter()
        .map(|tests| {
            let file = tests[0].file;
            let tests: Vec<_> = tests
                .iter()
                .map(|Test { number, fails, .. }| {
                    let messages = if *fails { vec![MESSAGE] } else { Vec::new() };
                    json!({
                        "ancestorTitles": ["module", "when it is called"],
                        "duration": 3, "failureDetails": [], "failureMessages": messages,
                        "fullName": format!("module when it is called handles case {number}"),
                        "invocations": 1, "location": null, "numPassingAsserts": 1,
                        "status": if *fails { "failed" } else { "passed" },
                        "title": format!("handles case {number}"),
                    })
                })
                .collect();
            json!({
                "assertionResults": tests, "endTime": 1_700_000_000_999_u64, "message": "",
                "name": format!("/work/src/module_{file}.test.js"), "startTime": 1_700_000_000_000_u64,
                "status": "failed", "summary": "",
            })
        })
        .collect();
    json!({
        "numFailedTests": failed, "numPassedTests": tests - failed, "numTotalTests": tests,
        "success": false, "testResults": results, "wasInterrupted": false,
    })
    .to_string()
}

fn mocha(files: &[Vec<Test>]) -> String {
    let (tests, failed) = all(files);
    let list = |wanted: Option<bool>| -> Vec<_> {
        let all = files.iter().flatten();
        all.filter(|test| wanted.is_none_or(|fails| test.fails == fails))
            .map(|Test { file, number, fails }| {
                let err = if *fails { json!({"message": MESSAGE}) } else { json!({}) };
                json!({
                    "title": format!("handles case {number}"),
                    "fullTitle": format!("module when it is called handles case {number}"),
                    "file": format!("/work/test/module_{file}.js"),
                    "duration": 3, "currentRetry": 0, "speed": "fast", "err": err,
                })
            })
            .collect()
    };
    json!({
        "stats": {"suites": files.len(), "tests": tests, "passes": tests - failed, "pending": 0, "failures": failed},
        "tests": list(None), "pending": [], "failures": list(Some(true)), "passes": list(Some(false)),
    })
    .to_string()
}

fn ctrf(files: &[Vec<Test>]) -> String {
    let (tests, failed) = all(files);
    let list: Vec<_> = files
        .iter()
        .flatten()
        .map(|Test { file, number, fails }| {
            let mut test = json!({
                "name": format!("handles case {number}"), "duration": 25,
                "status": if *fails { "failed" } else { "passed" },
                "suite": [format!("module_{file}"), "when it is called"],
                "filePath": format!("src/module_{file}.test.js"),
            });
            if *fails {
                test["message"] = MESSAGE.into();
            }
            test
        })
        .collect();
    json!({"reportFormat": "CTRF", "specVersion": "0.0.0", "results": {
        "tool": {"name": "example"}, "tests": list,
        "summary": {"tests": tests, "passed": tests - failed, "failed": failed, "pending": 0, "skipped": 0, "other": 0, "start": 1, "stop": 2},
    }})
    .to_string()
}

fn go(files: &[Vec<Test>]) -> String {
    let mut out = String::new();
    for tests in files {
        let package = format!("example.com/project/internal/module{}", tests[0].file);
        let mut event = |action: &str, test: &str, rest: &str| {
            put!(
                out,
                "{{\"Time\":\"2026-01-02T03:04:05.123456789Z\",\"Action\":\"{action}\",\"Package\":\"{package}\"{test}{rest}}}"
            );
        };
        event("start", "", "");
        for Test { number, fails, .. } in tests {
            let test = format!(",\"Test\":\"TestHandlesCase{number}\"");
            let (word, action) = if *fails { ("FAIL", "fail") } else { ("PASS", "pass") };
            event("run", &test, "");
            event(
                "output",
                &test,
                &format!(",\"Output\":\"=== RUN   TestHandlesCase{number}\\n\""),
            );
            if *fails {
                event("output", &test, &format!(",\"Output\":{}", json!(MESSAGE)));
            }
            event(
                "output",
                &test,
                &format!(",\"Output\":\"--- {word}: TestHandlesCase{number} (0.02s)\\n\""),
            );
            event(action, &test, ",\"Elapsed\":0.02");
        }
        event(if failures(tests) > 0 { "fail" } else { "pass" }, "", ",\"Elapsed\":1.25");
    }
    out
}

fn events(files: &[Vec<Test>]) -> String {
    let (tests, failed) = all(files);
    let name = |test: &Test| format!("tests.test_module_{}.Module.test_{}", test.file, test.number);
    let ids: Vec<_> = files.iter().flatten().map(name).collect();
    let mut out = String::new();
    put!(out, "{}", json!({"seq": 0, "event": "alive", "nonce": NONCE}));
    put!(out, "{}", json!({"seq": 1, "event": "start", "nonce": NONCE, "collected": ids}));
    for (seq, kind) in CANARIES.iter().enumerate() {
        let status = if *kind == "true" { "passed" } else { "failed" };
        let canary = json!({"seq": seq + 2, "event": "canary", "kind": kind, "id": format!("tests.test_module_0.Module.{kind}"), "status": status});
        put!(out, "{canary}");
    }
    for test in files.iter().flatten() {
        let (status, message) = if test.fails { ("failed", MESSAGE) } else { ("passed", "") };
        put!(
            out,
            "{}",
            json!({
                "seq": test.number + 2 + CANARIES.len(), "event": "test", "id": name(test), "status": status,
                "duration_s": 0.025, "message": message,
            })
        );
    }
    let counts = match failed {
        0 => json!({"passed": tests}),
        _ => json!({"failed": failed, "passed": tests - failed}),
    };
    put!(
        out,
        "{}",
        json!({"seq": tests + 2 + CANARIES.len(), "event": "end", "nonce": NONCE, "exit": 1, "counts": counts})
    );
    out
}

fn tap(files: &[Vec<Test>]) -> String {
    let mut out = String::from("TAP version 14\n");
    for Test { file, number, fails } in files.iter().flatten() {
        let not = if *fails { "not " } else { "" };
        put!(out, "{not}ok {} - module_{file} handles case {number}", number + 1);
        put!(out, "  ---\n  duration_ms: 3.125");
        if *fails {
            put!(out, "  error: 'left == right'\n  code: 'ERR_TEST_FAILURE'");
        }
        put!(out, "  ...");
    }
    put!(out, "1..{}", all(files).0);
    out
}

fn cargo(files: &[Vec<Test>]) -> String {
    let mut out = String::new();
    for tests in files {
        let (file, failed) = (tests[0].file, failures(tests));
        put!(
            out,
            "     Running tests/module_{file}.rs (target/debug/deps/module_{file}-0123456789abcdef)\n\nrunning {} tests",
            tests.len()
        );
        for Test { number, fails, .. } in tests {
            let word = if *fails { "FAILED" } else { "ok" };
            put!(out, "test module_{file}::cases::handles_case_{number} ... {word}");
        }
        if failed > 0 {
            put!(out, "\nfailures:\n");
            for Test { number, .. } in tests.iter().filter(|test| test.fails) {
                put!(
                    out,
                    "---- module_{file}::cases::handles_case_{number} stdout ----\n{MESSAGE}\n"
                );
            }
        }
        put!(
            out,
            "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s\n",
            if failed > 0 { "FAILED" } else { "ok" },
            tests.len() - failed
        );
    }
    out
}

fn log(parser: LogParser, files: &[Vec<Test>]) -> Option<String> {
    let (count, failed) = all(files);
    let passed = count - failed;
    let mut out = String::new();
    let rule = "=".repeat(30);
    let (head, tail) = match parser {
        LogParser::Pytest => (
            format!("{rule} short test summary info {rule}"),
            format!("{rule} {failed} failed, {passed} passed in 12.34s {rule}"),
        ),
        LogParser::Django => {
            (String::new(), format!("Ran {count} tests in 12.345s\n\nFAILED (failures={failed})"))
        }
        LogParser::Sympy => (
            format!("{rule} test process starts {rule}"),
            format!("tests finished: {passed} passed, {failed} failed, in 12.34 seconds"),
        ),
        LogParser::GoTest => (String::new(), "FAIL\nFAIL\texample.com/project\t12.345s".into()),
        LogParser::Jest => {
            let counts = format!("{failed} failed, {passed} passed, {count} total");
            (String::new(), format!("Tests:       {counts}"))
        }
        LogParser::Phpunit => {
            (String::new(), format!("Tests: {count}, Assertions: {count}, Failures: {failed}."))
        }
        LogParser::Minitest => (
            String::new(),
            format!("{count} runs, {count} assertions, {failed} failures, 0 errors, 0 skips"),
        ),
        _ => return None,
    };
    put!(out, "{head}");
    for tests in files {
        let file = tests[0].file;
        if parser == LogParser::Phpunit {
            put!(out, "Module {file} (Tests\\Module{file}Test)");
        }
        for Test { number, fails, .. } in tests {
            let of = |passes: &'static str, failing: &'static str| match fails {
                true => failing,
                false => passes,
            };
            match parser {
                LogParser::Django => {
                    let word = of("ok", "FAIL");
                    put!(
                        out,
                        "test_case_{number} (tests.test_module_{file}.Module.test_case_{number}) ... {word}"
                    );
                }
                LogParser::Sympy => put!(out, "test_case_{number} {}", of("ok", "F")),
                LogParser::GoTest => {
                    put!(out, "=== RUN   TestHandlesCase{number}");
                    put!(out, "--- {}: TestHandlesCase{number} (0.02s)", of("PASS", "FAIL"));
                }
                LogParser::Jest => put!(out, "    {} handles case {number} (3 ms)", of("✓", "✕")),
                LogParser::Phpunit => put!(out, " {} Handles case {number}", of("✔", "✘")),
                LogParser::Minitest => {
                    let sign = of(".", "F");
                    put!(out, "Module{file}Test#test_case_{number} = 0.02 s = {sign}");
                }
                _ => {
                    let (word, said) = (of("PASSED", "FAILED"), of("", " - assert 1 == 2"));
                    put!(out, "{word} tests/test_module_{file}.py::test_case_{number}{said}");
                }
            }
        }
    }
    put!(out, "{tail}");
    Some(out)
}
