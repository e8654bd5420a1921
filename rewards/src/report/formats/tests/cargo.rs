use super::*;

fn cargo(status: i32, document: &str) -> Vec<String> {
    tell(ReportKind::Cargo, status, printed(document))
}

#[test]
fn real_reports() {
    let cases: &[(&str, i32, &str, &[&str])] = &[
        (
            "two packages",
            101,
            include_str!("../../../../tests/fixtures/cargo_failing.txt"),
            &[
                "s a src/lib.rs > tests::ignored",
                "+ a src/lib.rs > tests::passes",
                "+ a src/lib.rs > tests::writes_around",
                "+ a src/lib.rs > tests::panics",
                "- it tests/it.rs > same", // both packages have one, and the worse counts
                "s b src/lib.rs > tests::ignored",
                "+ b src/lib.rs > tests::panics",
                "+ b src/lib.rs > tests::passes",
                "+ b src/lib.rs > tests::writes_around",
                "+ it tests/it.rs > other",
                "+ a doc > a/src/lib.rs - f (line 1)",
                "+ b doc > b/src/lib.rs - f (line 1)",
            ],
        ),
        (
            "all pass",
            0,
            include_str!("../../../../tests/fixtures/cargo_passing.txt"),
            &[
                "s a src/lib.rs > tests::ignored",
                "+ a src/lib.rs > tests::panics",
                "+ a src/lib.rs > tests::passes",
                "+ a src/lib.rs > tests::writes_around",
                "+ it tests/it.rs > same",
                "+ a doc > a/src/lib.rs - f (line 1)",
            ],
        ),
        (
            "what tests print stands before their results",
            0,
            include_str!("../../../../tests/fixtures/cargo_nocapture.txt"),
            &[
                "s a src/lib.rs > tests::ignored",
                "+ a src/lib.rs > tests::panics",
                "+ a src/lib.rs > tests::passes",
                "? a src/lib.rs > tests::writes_around",
            ],
        ),
        (
            "a test that aborts",
            101,
            include_str!("../../../../tests/fixtures/cargo_abort.txt"),
            &[
                "s a src/lib.rs > tests::ignored",
                "+ a src/lib.rs > tests::panics",
                "+ a src/lib.rs > tests::passes",
                "? a src/lib.rs > tests::writes_around",
                "? it tests/it.rs > aborts",
                "! it tests/it.rs",
                "+ a doc > a/src/lib.rs - f (line 1)",
            ],
        ),
        (
            "a test that ends the process",
            0,
            include_str!("../../../../tests/fixtures/cargo_exit_zero.txt"),
            &["? it tests/it.rs > leaves", "report.no_end"],
        ),
        (
            "no compile",
            101,
            include_str!("../../../../tests/fixtures/cargo_no_compile.txt"),
            &["! build"],
        ),
    ];
    for (name, status, document, expected) in cases {
        let mut told = cargo(*status, document);
        // libtest runs tests side by side: their order differs from run to run.
        let mut expected = expected.to_vec();
        told.sort();
        expected.sort();
        assert_eq!(told, expected, "{name}");
    }
    let report = read(
        ReportKind::Cargo,
        Termination::Exited(101),
        printed(include_str!("../../../../tests/fixtures/cargo_failing.txt")),
    );
    let same = report.tests.iter().find(|test| test.id.ends_with("same")).unwrap();
    assert!(same.message.as_ref().unwrap().contains("left == right"));
}

#[test]
fn texts() {
    let good = "     Running tests/it.rs (target/debug/deps/it-0a)\n\nrunning 2 tests\ntest a ... ok\ntest m::b ... ok\n\n\
                test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
    let id = |sign: &str, name: &str| format!("{sign} it tests/it.rs > {name}");
    let lost = || vec![id("?", "a"), id("?", "m::b")];
    let with = |mut tests: Vec<String>, flag: &str| {
        tests.push(flag.to_owned());
        tests
    };
    let cases: Vec<(&str, String, Vec<String>)> = vec![
        ("what the rows below are changed from", good.into(), vec![id("+", "a"), id("+", "m::b")]),
        (
            "times and colours",
            good.replace("a ... ok", "a ... \u{1b}[32mok\u{1b}[0m <0.001s>"),
            vec![id("+", "a"), id("+", "m::b")],
        ),
        (
            "a reason",
            good.replace("a ... ok", "a ... ignored, slow")
                .replace("2 passed; 0 failed; 0", "1 passed; 0 failed; 1"),
            vec![id("s", "a"), id("+", "m::b")],
        ),
        ("no end", good.replace("test result", "x"), with(lost(), "report.no_end")),
        (
            "a result that a test printed",
            good.replace("test a", "test forged ... ok\ntest a"),
            vec![id("?", "forged"), id("?", "a"), id("?", "m::b"), "report.counts".into()],
        ),
        (
            "a result twice",
            good.replace("test m", "test a ... ok\ntest m"),
            with(lost(), "report.duplicate_test"),
        ),
        (
            "a test too few",
            good.replace("test a ... ok\n", ""),
            vec![id("?", "m::b"), "report.counts".into()],
        ),
        ("a failure hidden", good.replace("0 failed", "1 failed"), with(lost(), "report.counts")),
        (
            "a lone result",
            good.replace("test a", "ok\ntest a"),
            with(lost(), "report.foreign_line"),
        ),
        (
            "a list within a list",
            good.replace("test m", "running 1 test\ntest m"),
            with(lost(), "report.two_reports"),
        ),
        (
            "a result after the list",
            format!("{good}test c ... ok\n"),
            with(lost(), "report.after_end"),
        ),
        ("two lists of one binary", good.repeat(2), with(lost(), "TAMPERED report.two_reports")),
        (
            "a program's words between results",
            good.replace(
                "test m",
                "Running job (1)\nDoc-tests x\nerror: could not compile\ntest m",
            ),
            vec![id("+", "a"), id("+", "m::b")],
        ),
        (
            "a result that is quoted after the list",
            format!("{good}warning: `test parse ... ok` is no result\n"),
            vec![id("+", "a"), id("+", "m::b")],
        ),
        ("nothing", String::new(), vec![]),
    ];
    for (name, document, expected) in cases {
        assert_eq!(cargo(0, &document), expected, "{name}");
    }
}

#[test]
fn what_failed_tests_printed_is_no_result() {
    let other = "     Running tests/it.rs (target/debug/deps/it-0a)\n\nrunning 1 test\ntest a ... ok\nok\n\nfailures:\n\n\
                 test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\nerror: test failed, to rerun pass `-p x`\n";
    let document = |printed: &str, passed: u32| {
        format!(
            "     Running tests/it.rs (target/debug/deps/it-0a)\n\nrunning 2 tests\ntest a ... ok\ntest b ... FAILED\n\n\
             failures:\n\n---- b stdout ----\n{printed}\n\nfailures:\n    b\n\n\
             test result: FAILED. {passed} passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\n\
             error: test failed, to rerun pass `--test it`\n\
             \x20    Running tests/on.rs (target/debug/deps/on-0a)\n\nrunning 1 test\ntest c ... ok\n\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n"
        )
    };
    let read_whole = ["+ it tests/it.rs > a", "- it tests/it.rs > b", "+ on tests/on.rs > c"];
    assert_eq!(cargo(101, &document("assertion failed", 1)), read_whole);
    assert_eq!(cargo(101, &document(other, 1)), read_whole);
    // A summary that fits nothing is no end, and no pass.
    let lost = cargo(101, &document(other, 7));
    assert_eq!(lost, ["? it tests/it.rs > a", "- it tests/it.rs > b", "report.counts"]);
}
