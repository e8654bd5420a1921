use std::{collections::BTreeMap, path::Path};

use assay_sandbox::Termination;

use super::*;
use crate::testing::{NONCE, ran};

const GO: &str = r#"/*
package no
*/
package wraps_test

import "testing"

func TestLong(t *testing.T) {
}

func TestShort(tt *testing.T) { _ = tt }
func TestNobody(_ *testing.T) {
}
func TestTwice(t *testing.T) {
}
func TestMain(m *testing.M) {
}
func helper(t *testing.T) {
}
"#;

const RUST: &str = r#"#![deny(warnings)]
#[test]
fn plain() {
    assert_eq!(1, 1);
}

#[test]
#[should_panic]
fn broken() {
    panic!();
}

#[tokio::test]
async fn later() -> Result<(), Box<dyn Error>> { Ok(()) }

#[rstest]
fn given(#[case] a: u32) {
}

mod inner {
    /// Says something.
    #[test]
    fn deep() {
        #![allow(unused)]
    }
    #[test]
    fn deeper() {
    }
}
fn helper() {
}
"#;

const JAVASCRIPT: &str = r#"const test = require('node:test');
test('one', () => {});
  it("it's two", async () => {
  });
test(`three ${1}`, () => {});
test('four');
test('twice', () => {});
test('twice', () => {});
"#;

fn files(list: &[(&str, &str)]) -> Files {
    list.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().into())).collect()
}

fn sources(language: Language, list: &[(&str, &str)]) -> TestSources {
    TestSources::of(language, files(list), |path| !path.starts_with("theirs"))
}

/// The tests of `sources` that can be spoiled.
fn names(sources: &TestSources) -> Vec<String> {
    let mut names: Vec<_> =
        sources.places.keys().map(|(of, name)| format!("{of} {name}")).collect();
    names.sort();
    names
}

#[test]
fn tests_are_found_where_one_name_is_one_test() {
    let go = [
        ("go.mod", "// text\nmodule \"example.com/m\" // it\n\ngo 1.19\n"),
        ("long_test.go", GO),
        ("a/b/x_test.go", "package b\nfunc TestLong(t *testing.T) {\n}\n"),
        ("a/b/y_test.go", "package b_test\nfunc TestTwice(t *testing.T) {\n}\n"),
        ("a/b/z_test.go", "package b\nfunc TestTwice(_ *testing.T) {\n}\n"),
        ("theirs/x_test.go", "package theirs\nfunc TestLong(t *testing.T) {\n}\n"),
    ];
    let expected = [
        "example.com/m TestLong",
        "example.com/m TestShort",
        "example.com/m TestTwice",
        "example.com/m/a/b TestLong",
    ];
    assert_eq!(names(&sources(Language::Go, &go)), expected);
    assert_eq!(names(&sources(Language::Go, &go[1..2])), [""; 0], "nobody knows the import path");

    let rust = [
        ("tests/it.rs", RUST),
        ("tests/all/main.rs", "#[test]\nfn whole() {\n}\n"),
        ("tests/all/part.rs", "#[test]\nfn part() {\n}\n"),
        ("src/lib.rs", "#[test]\nfn own() {\n}\n"),
        ("a/tests/two.rs", "#[test]\nfn same() {\n}\n"),
        ("b/tests/two.rs", "#[test]\nfn same() {\n}\n"),
    ];
    let expected = [
        "tests/all/main.rs whole",
        "tests/it.rs inner::deeper",
        "tests/it.rs later",
        "tests/it.rs plain",
    ];
    assert_eq!(names(&sources(Language::Rust, &rust)), expected);

    let javascript = [
        ("test/a.test.js", JAVASCRIPT),
        ("test/b.test.js", "test('typed', () => {});\n"),
        ("test/c.test.ts", "test('typed', () => {});\ntest('alone', () => {});\n"),
        ("node_modules/x/test.js", "test('y', () => {});"),
    ];
    assert_eq!(names(&sources(Language::Javascript, &javascript)), [" it's two", " one"]);
    assert_eq!(names(&sources(Language::Python, &[("test_a.py", "def test_a(): pass")])), [""; 0]);
}

#[test]
fn files_are_asked_for_by_language() {
    let cases = [
        (Language::Go, "a/x_test.go", true),
        (Language::Go, "go.mod", true),
        (Language::Go, "a/x.go", false),
        (Language::Rust, "tests/it.rs", true),
        (Language::Rust, "src/tests.rs", false),
        (Language::Javascript, "src/a.spec.mjs", true),
        (Language::Javascript, "src/a.js", false),
        (Language::Javascript, "node_modules/a/test/a.js", false),
        (Language::C, "tests/a.c", false),
    ];
    for (language, path, expected) in cases {
        assert_eq!(TestSources::needs(language, Path::new(path)), expected, "{language} {path}");
    }
}

/// What `go test -json` says of these tests of the package `example.com/m`.
fn go_report(tests: &[(&str, &str)]) -> String {
    let package = r#""Package":"example.com/m""#;
    let mut report = format!("start {NONCE} stdout\n");
    for (test, action) in tests {
        report += &format!("{{\"Action\":\"run\",{package},\"Test\":\"{test}\"}}\n");
        report += &format!("{{\"Action\":\"{action}\",{package},\"Test\":\"{test}\"}}\n");
    }
    let end = if tests.iter().any(|(_, action)| *action == "fail") { "fail" } else { "pass" };
    report + &format!("{{\"Action\":\"{end}\",{package}}}\n")
}

fn go_sources() -> TestSources {
    sources(Language::Go, &[("go.mod", "module example.com/m\n"), ("long_test.go", GO)])
}

#[test]
fn what_is_spoiled_is_a_choice_of_chance_among_what_passed() {
    let sources = go_sources();
    let choose = |must_pass: &[&str], tests: &[(&str, &str)], seed: &str| {
        let execution = ran(Termination::Exited(0), go_report(tests));
        let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
        let must_pass: Vec<_> =
            must_pass.iter().map(|test| format!("example.com/m > {test}")).collect();
        sources.control(ReportKind::GoJson, &must_pass, &evidence, seed)
    };
    let both = [("TestLong", "pass"), ("TestLong/sub/sub", "pass"), ("TestShort", "pass")];
    let mut seen = BTreeMap::<_, u32>::new();
    for seed in 0..40 {
        let control = choose(&["TestLong/sub/sub", "TestShort"], &both, &seed.to_string()).unwrap();
        assert_eq!(control.files.len(), 2);
        *seen.entry(control.tests).or_default() += 1;
    }
    let [long, short] = ["TestLong", "TestShort"].map(|test| format!("example.com/m > {test}"));
    let sets = [vec![long.clone()], vec![long.clone(), short.clone()], vec![short.clone()]];
    assert!(seen.keys().eq(&sets), "{seen:?}");

    let alone = choose(&["TestLong"], &both, "0").unwrap();
    assert_eq!(alone.tests, [long], "tests that don't have to pass are spared");
    let other = choose(&["TestNobody"], &[("TestNobody", "pass"), ("TestShort", "pass")], "0");
    assert_eq!(other.unwrap().tests, [short], "what can't be spoiled is no canary");
    assert_eq!(choose(&["TestLong"], &[("TestLong", "fail"), ("TestShort", "pass")], "0"), None);
    assert_eq!(choose(&["TestNobody"], &[("TestNobody", "pass")], "0"), None);
    assert_eq!(choose(&[], &[], "0"), None);
}

#[test]
fn what_a_task_has_for_control_runs_takes_the_place_of_choices() {
    let file = Change::File { content: (*b"wrong").into(), executable: true };
    let own: BTreeMap<_, _> = [(PathBuf::from("check.sh"), file)].into();
    let sources = sources(Language::C, &[]).or_by_task(own.clone());
    let choose = |must_pass: &[&str]| {
        let report = format!("start {NONCE} stdout\nok 1 - a\nok 2 - b\nnot ok 3 - c\n1..3\n");
        let execution = ran(Termination::Exited(1), report);
        let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
        let must_pass: Vec<_> = must_pass.iter().map(|test| (*test).to_owned()).collect();
        sources.control(ReportKind::Tap, &must_pass, &evidence, "0")
    };
    let tests = ["a".to_owned(), "b".to_owned()].into();
    assert_eq!(choose(&["a", "b", "c"]), Some(Control { files: own, tests }));
    assert_eq!(choose(&["c"]), None);
    assert_eq!(choose(&[]), None, "without names nobody knows what has to fail");
}

#[test]
fn a_failure_stands_in_the_source() {
    let spoil = |sources: &TestSources, kind: ReportKind, report: &str, id: &str| {
        let execution = ran(Termination::Exited(0), format!("start {NONCE} stdout\n{report}"));
        let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
        let control = sources.control(kind, &[id.to_owned()], &evidence, "seed").expect(id);
        assert_eq!(control.tests, [id]);
        let text = |change| match change {
            Change::File { content, .. } => String::from_utf8(content.to_vec()).unwrap(),
            Change::Absent => unreachable!(),
        };
        control.files.into_iter().map(|(path, change)| (path, text(change))).collect::<Vec<_>>()
    };
    let report = go_report(&[("TestShort", "pass")]);
    let report = report.split_once('\n').unwrap().1;
    let go = spoil(&go_sources(), ReportKind::GoJson, report, "example.com/m > TestShort");
    let [(_, spoiled), (path, helper)] = &go[..] else { panic!("{go:?}") };
    let package = path.parent().unwrap().to_str().unwrap();
    assert!(helper.starts_with(&format!("package {package}\n")), "{helper}");
    let function = helper.rsplit_once("\nfunc ").unwrap().1.split_once('(').unwrap().0;
    let line =
        format!("func TestShort(tt *testing.T) {{ defer {package}.{function}(tt); _ = tt }}");
    assert!(spoiled.contains(&line), "{spoiled}");
    let line = format!("\npackage wraps_test; import \"example.com/m/{package}\"\n");
    assert!(spoiled.contains(&line), "{spoiled}");
    assert!(helper.contains(r#"[]byte("/*\x0apackage no\x0a*/\x0a"#), "{helper}");
    assert_eq!(spoiled.lines().count(), GO.lines().count());

    let report = "     Running tests/it.rs (target/debug/deps/it-0123)\n\nrunning 1 test\ntest inner::deeper ... ok\n\n\
                  test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
    let manifest = ("a/Cargo.toml", "[package]\nedition = \"2024\"\n");
    let rust = sources(Language::Rust, &[manifest, ("a/tests/it.rs", RUST)]);
    let rust = spoil(&rust, ReportKind::Cargo, report, "it tests/it.rs > inner::deeper");
    assert!(rust[0].1.contains("    fn deeper() { struct "), "{}", rust[0].1);
    let last = rust[0].1.lines().last().unwrap();
    assert!(last.starts_with(" #[used] #[unsafe(link_section = "), "{last}");
    assert!(last.contains(r#"write("tests/it.rs", "#), "{last}");
    assert_eq!(rust[0].1.lines().count(), RUST.lines().count() + 1);

    let report = "TAP version 13\nok 1 - it's two\n1..1\n";
    let javascript = sources(Language::Javascript, &[("test/a.test.js", JAVASCRIPT)]);
    let javascript = spoil(&javascript, ReportKind::Tap, report, "it's two");
    let text = &javascript[0].1;
    assert!(text.contains("(it)(\"it's two\", async () => {"), "{text}");
    assert!(
        text.starts_with("try { require('fs').writeFileSync(__filename, \"const test = "),
        "{text}"
    );
}

#[test]
fn what_a_control_run_says_is_weighed() {
    let id = |test: &str| format!("example.com/m > {test}");
    let spoiled = [id("TestLong"), id("TestShort")];
    let exited = Termination::Exited;
    // (what it is, its report, how it ended, the flag that it leaves, whether results count)
    type Tests<'a> = &'a [(&'a str, &'a str)];
    let rows: [(&str, Tests<'_>, _, Option<&str>, bool); 7] = [
        ("both fail", &[("TestLong", "fail"), ("TestShort", "fail")], exited(1), None, true),
        ("the first ends the run", &[("TestLong", "fail")], exited(1), None, true),
        (
            "one passes",
            &[("TestLong", "fail"), ("TestShort", "pass")],
            exited(1),
            Some("canary.green"),
            false,
        ),
        (
            "all pass",
            &[("TestLong", "pass"), ("TestShort", "pass")],
            exited(0),
            Some("canary.green"),
            false,
        ),
        (
            "they are skipped",
            &[("TestLong", "skip"), ("TestShort", "skip")],
            exited(0),
            Some("canary.missing"),
            false,
        ),
        ("others run", &[("TestOther", "fail")], exited(1), Some("canary.missing"), false),
        ("a failure, and status 0", &[("TestLong", "fail")], exited(0), None, true),
    ];
    for (name, tests, termination, flag, counts) in rows {
        let first = ran(exited(0), go_report(&[("TestLong", "pass"), ("TestShort", "pass")]));
        let evidence = Evidence { execution: &first, nonce: NONCE, subject: None };
        let mut report = parse(ReportKind::GoJson, &evidence).unwrap();
        let second = ran(termination, go_report(tests));
        let control = ControlRun { tests: &spoiled, execution: &second, nonce: NONCE };
        control.weigh(ReportKind::GoJson, &mut report);
        let flags: Vec<_> = report.flags.iter().map(|flag| flag.code.as_str()).collect();
        assert_eq!(flags, flag.as_slice(), "{name}");
        let tampering = report.flags.iter().any(|flag| flag.severity == Severity::Tampering);
        assert_eq!(tampering, flag == Some("canary.green"), "{name}");
        let passed = report.tests.iter().filter(|test| test.status.passes()).count();
        assert_eq!(passed, if counts { 2 } else { 0 }, "{name}");
        assert_eq!(report.canaries.len(), 2, "{name}");
    }
}
