use super::*;

fn xml(status: i32, document: &str) -> Vec<String> {
    tell(ReportKind::Junit, status, files(&[document], status))
}

#[test]
fn real_reports() {
    let cases: &[(&str, i32, &str, &[&str])] = &[
        (
            "pytest",
            1,
            include_str!("../../../../tests/fixtures/junit_pytest.xml"),
            &[
                "+ test_all > test_passes",
                "- test_all > test_fails",
                "s test_all > test_skipped",
                "x test_all > test_xfails",
                "+ test_all > test_xpasses", // the report says no more than that it passed
                "- test_all > test_xpasses_strictly",
                "+ test_all > test_texts[a b]",
                "+ test_all > test_texts[[x]]",
                "+ test_all > test_texts[\\x1b[31mred]",
                "+ test_all > test_texts[3 ms]",
                "+ test_all > test_texts[\\xe9\\n]",
                "! test_all > test_passes_and_breaks",
                "! test_all > test_fails_and_breaks",
                "+ test_all.TestCase > test_method",
            ],
        ),
        (
            "pytest, a file that can't be read",
            2,
            include_str!("../../../../tests/fixtures/junit_pytest_collection.xml"),
            &["! pytest > test_bad"],
        ),
        (
            "nextest",
            100,
            include_str!("../../../../tests/fixtures/junit_nextest.xml"),
            &[
                "s a > tests::ignored",
                "+ a > tests::panics",
                "+ a > tests::passes",
                "+ a > tests::writes_around",
                "+ a::it > same",
                "+ a::it > flaky",
                "t a::it > slow",
                "s b > tests::ignored",
                "+ b > tests::panics",
                "+ b > tests::passes",
                "+ b > tests::writes_around",
                "+ b::it > other",
                "- b::it > same",
                "report.flaky",
            ],
        ),
        (
            "node",
            1,
            include_str!("../../../../tests/fixtures/junit_node.xml"),
            &[
                "+ passes",
                "- fails # really",
                "s skipped",
                "x todo that fails",
                "X todo that passes",
                "+ math > adds",
                "- math > fails",
                "+ math > deep > adds",
                "+ parent > child",
            ],
        ),
        (
            // It leaves `todo` out of its counts, calls it passed, and is silent about a file that
            // can't be read.
            "jest-junit",
            1,
            include_str!("../../../../tests/fixtures/junit_jest.xml"),
            &[
                "? passes",
                "- group fails",
                "? group skipped",
                "? group later",
                "report.counts",
                "report.counts",
            ],
        ),
        (
            "vitest",
            1,
            include_str!("../../../../tests/fixtures/junit_vitest.xml"),
            &[
                "- bad.test.js",
                "+ sum.test.js > passes",
                "- sum.test.js > group > fails",
                "s sum.test.js > group > skipped",
                "s sum.test.js > group > later",
            ],
        ),
        (
            "googletest",
            1,
            include_str!("../../../../tests/fixtures/junit_gtest.xml"),
            &[
                "+ Sum > Adds",
                "- Sum > Fails",
                "s Sum > DISABLED_Off",
                "s Sum > Skips",
                "+ Two/Each > Holds/0",
                "+ Two/Each > Holds/1",
            ],
        ),
        (
            "ctest",
            8,
            include_str!("../../../../tests/fixtures/junit_ctest.xml"),
            &["+ passes", "- fails", "+ with blanks", "s skips", "s off", "- slow", "! absent"],
        ),
        (
            "surefire",
            1,
            include_str!("../../../../tests/fixtures/junit_surefire_all.xml"),
            &[
                "+ demo.AllTest > passes",
                "- demo.AllTest > fails",
                "! demo.AllTest > errors",
                "s demo.AllTest > skipped",
                "s demo.AllTest > assumes",
            ],
        ),
        (
            "surefire, a class that can't be set up", // its tests are told nowhere
            1,
            include_str!("../../../../tests/fixtures/junit_surefire_broken.xml"),
            &["! demo.BrokenTest"],
        ),
        (
            "surefire, failures tried again", // each try is counted as a test
            1,
            include_str!("../../../../tests/fixtures/junit_surefire_rerun.xml"),
            &["- demo.FlakyTest > always", "+ demo.FlakyTest > flaky", "report.flaky"],
        ),
        (
            "gradle",
            1,
            include_str!("../../../../tests/fixtures/junit_gradle.xml"),
            &[
                "+ demo.AllTest > passes",
                "- demo.AllTest > fails",
                "- demo.AllTest > errors",
                "s demo.AllTest > skipped",
                "s demo.AllTest > assumes",
            ],
        ),
    ];
    for (name, status, document, expected) in cases {
        let (mut told, mut expected) = (xml(*status, document), expected.to_vec());
        told.sort();
        expected.sort(); // nextest's tests end in any order
        assert_eq!(told, expected, "{name}");
        let crashed = read(ReportKind::Junit, Termination::Signaled(9), files(&[document], 137));
        assert!(crashed.tests.iter().all(|test| !test.status.passes()), "{name}");
    }
}

#[test]
fn dialects() {
    let suite = |inside: &str| format!("<testsuite name=\"S\">{inside}</testsuite>");
    let deep = format!("{}{}", "<a>".repeat(100), "</a>".repeat(100));
    // (name, exit status, document, what it tells)
    let cases: &[(&str, i32, String, &[&str])] = &[
        // Surefire, by its schema.
        (
            "reruns that pass",
            0,
            suite(
                r#"<testcase name="a" classname="p.C" time="1,234.5"><flakyFailure message="m" type="x">t<stackTrace/></flakyFailure></testcase>"#,
            ),
            &["+ p.C > a", "report.flaky"],
        ),
        (
            "reruns that fail",
            1,
            suite(
                r#"<testcase name="a" classname="p.C"><failure/><rerunFailure><stackTrace>x</stackTrace></rerunFailure></testcase>"#,
            ),
            &["- p.C > a"],
        ),
        (
            "a rerun without a failure",
            1,
            suite(r#"<testcase name="a"><rerunError/></testcase>"#),
            &["- S > a"],
        ),
        (
            "a duplicate",
            1,
            suite(r#"<testcase name="a"><failure/></testcase><testcase name="a"/>"#),
            &["- S > a"],
        ),
        (
            "a duplicate, the other way round",
            1,
            suite(r#"<testcase name="a"/><testcase name="a"><error/></testcase>"#),
            &["! S > a"],
        ),
        (
            "terminal codes and entities",
            0,
            suite("<testcase name='a &amp; \u{1b}[31mb\u{1b}[0m &#x263a;'/>"),
            &["+ S > a & b ☺"],
        ),
        (
            "attributes as they may stand",
            0,
            suite("<testcase\n  x:name='no' time = '1,234.5'\tname = \"a='>' é\" classname=''/>"),
            &["+ S > a='>' é"],
        ),
        (
            "a namespace, a prologue",
            0,
            format!(
                "\u{feff}<?xml version='1.0'?><!-- x -->\n{}\n",
                r#"<j:testsuites xmlns:j="u"><j:testsuite name="S"><j:testcase name="a"/></j:testsuite></j:testsuites>"#
            ),
            &["+ S > a"],
        ),
        (
            "output is no result",
            0,
            suite(
                "<testcase name='a'><system-out>&lt;failure/&gt;<![CDATA[<failure/>]]></system-out></testcase>",
            ),
            &["+ S > a"],
        ),
        (
            "a file that can't be loaded",
            1,
            "<testsuites><testsuite name='F' tests='0' errors='1'/><testsuite name='S' tests='1' failures='0'><testcase name='a'/></testsuite></testsuites>".into(),
            &["! F", "+ S > a"],
        ),
        ("nothing", 0, suite(""), &[]),
        // What contradicts itself, or stops.
        (
            "fewer than declared",
            0,
            "<testsuite tests='2'><testcase name='a'/></testsuite>".into(),
            &["? a", "report.counts"],
        ),
        (
            "more than declared",
            0,
            "<testsuite tests='1'><testcase name='a'/><testcase name='b'/></testsuite>".into(),
            &["? a", "? b", "report.counts"],
        ),
        (
            "a failure taken out",
            1,
            "<testsuite tests='1' failures='1'><testcase name='a'/></testsuite>".into(),
            &["? a", "report.counts", "report.exit"],
        ),
        (
            "a failure that is not declared",
            1,
            "<testsuite failures='0'><testcase name='a'><failure/></testcase><testcase name='b'/></testsuite>".into(),
            &["- a", "? b", "report.counts"],
        ),
        (
            "all passed, and an exit status that says no",
            1,
            suite("<testcase name='a'/>"),
            &["? S > a", "report.exit"],
        ),
        (
            "a failure, and an exit status of none",
            0,
            suite("<testcase name='a'><failure/></testcase><testcase name='b'/>"),
            &["- S > a", "? S > b", "TAMPERED report.exit"],
        ),
        (
            "two reports",
            0,
            suite("<testcase name='a'/>").repeat(2),
            &["? S > a", "TAMPERED report.two_reports"],
        ),
        (
            "cut off",
            0,
            "<testsuite><testcase name='a'/><testcase name='b'>".into(),
            &["? a", "report.malformed"],
        ),
        (
            "cut off in a tag",
            0,
            "<testsuite><testcase name='a'/><testca".into(),
            &["? a", "report.malformed"],
        ),
        ("empty", 0, String::new(), &["report.malformed"]),
        ("no XML", 0, "1 passed".into(), &["report.malformed"]),
        ("another root", 0, "<html/>".into(), &["report.malformed"]),
        ("text before", 0, format!("ok\n{}", suite("")), &["report.malformed"]),
        (
            "text after",
            0,
            suite("<testcase name='a'/>") + "ok",
            &["? S > a", "report.malformed"],
        ),
        ("no name", 0, suite("<testcase classname='a'/>"), &["report.malformed"]),
        ("an attribute without a value", 0, suite("<testcase name/>"), &["report.malformed"]),
        ("without quotes", 0, suite("<testcase name=a/>"), &["report.malformed"]),
        ("without a second quote", 0, suite("<testcase name='a\"/>"), &["report.malformed"]),
        ("two words for a name", 0, suite("<testcase my name='a'/>"), &["report.malformed"]),
        ("no name before the value", 0, suite("<testcase ='a'/>"), &["report.malformed"]),
        (
            "tests within tests",
            0,
            suite("<testcase name='a'><x><testcase name='b'/></x></testcase>"),
            &["report.malformed"],
        ),
        (
            "a document type",
            0,
            "<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><testsuite><testcase name='&b;'/></testsuite>".into(),
            &["report.malformed"],
        ),
        (
            "an unknown entity",
            0,
            suite("<testcase name='a'/><testcase name='&b;'/>"),
            &["? S > a", "report.malformed"],
        ),
        ("deep nesting", 0, suite(&deep), &["report.malformed"]),
        (
            "many attributes",
            0,
            suite(&format!("<testcase {}/>", "a='' ".repeat(100_000))),
            &["report.malformed"],
        ),
    ];
    for (name, status, document, expected) in cases {
        assert_eq!(xml(*status, document), *expected, "{name}");
    }
}

#[test]
fn several_files_are_one_report() {
    let one = "<testsuite name='A' tests='1'><testcase name='a'/></testsuite>";
    let two = "<testsuite name='B' tests='1'><testcase name='a'><failure/></testcase></testsuite>";
    assert_eq!(
        tell(ReportKind::Junit, 1, files(&[one, two], 1)),
        ["+ A > a", "- B > a"],
        "as surefire leaves them"
    );
    let bad = files(&[one, "<testsuite>"], 0);
    assert_eq!(tell(ReportKind::Junit, 0, bad), ["? A > a", "report.malformed"]);
}

#[test]
fn what_is_said_is_bounded() {
    let long = "é".repeat(100_000);
    let report = format!(
        "<testsuite><testcase name='{long}1' time='-1'><failure message='{long}'>{long}</failure></testcase>\
         <testcase name='{long}2' time='nan'/><testcase name='a' time='0.5'><error message='m'>a &lt; \u{1b}[1mb\u{1b}[0m</error></testcase></testsuite>"
    );
    let report = read(ReportKind::Junit, Termination::Exited(1), files(&[&report], 1));
    assert_ne!(report.tests[0].id, report.tests[1].id);
    assert_eq!((report.tests[0].duration_s, report.tests[1].duration_s), (None, None));
    assert_eq!(report.tests[2].duration_s, Some(0.5));
    assert_eq!(report.tests[2].message.as_deref(), Some("m\na < b"));
}

#[test]
fn what_breaks_in_a_teardown_of_pytest_is_counted_twice() {
    let xfail = "<skipped type='pytest.xfail' message=''/>";
    for (within, status, expected) in [
        (xfail.repeat(2), 0, "x S > a"),
        (format!("{xfail}<skipped type='pytest.skip' message='late'/>"), 0, "s S > a"),
        ("<skipped type='pytest.skip' message='late'/>".into(), 0, "s S > a"),
        (format!("{xfail}<error/>"), 1, "! S > a"),
    ] {
        let errors = within.contains("error") as u32;
        let document = format!(
            "<testsuite name='pytest' tests='3' errors='{errors}' failures='0'>\
             <testcase classname='S' name='a'>{within}</testcase>\
             <testcase classname='S' name='b'/></testsuite>"
        );
        let told = tell(ReportKind::Junit, status, files(&[&document], status));
        assert_eq!(told, [expected, "+ S > b"], "{within}");
    }
}
