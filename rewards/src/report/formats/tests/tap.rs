use super::*;

fn tap(status: i32, document: &str) -> Vec<String> {
    tell(ReportKind::Tap, status, printed(document))
}

#[test]
fn real_reports() {
    assert_eq!(
        tap(1, include_str!("../../../../tests/fixtures/tap_node.tap")),
        [
            "+ passes",
            "- fails # really",
            "s skipped",
            "x todo that fails",
            "X todo that passes",
            "+ math > adds",
            "- math > fails",
            "+ math > deep > adds",
            "+ math > deep",
            "- math",
            "+ parent > child",
            "+ parent",
        ]
    );
    assert_eq!(
        tap(0, include_str!("../../../../tests/fixtures/tap_node_passing.tap")),
        [
            "+ passes",
            "s skipped",
            "X todo that passes",
            "+ math > adds",
            "+ math > deep > adds",
            "+ math > deep",
            "+ math",
            "+ parent > child",
            "+ parent",
        ]
    );
    // A file that ends its process tells of itself alone: no test of it is there.
    assert_eq!(
        tap(0, include_str!("../../../../tests/fixtures/tap_node_exit_zero.tap")),
        ["+ /work/js/leaves.test.mjs"]
    );
    let report = read(
        ReportKind::Tap,
        Termination::Exited(1),
        printed(include_str!("../../../../tests/fixtures/tap_node.tap")),
    );
    let failed = &report.tests[1];
    assert!(failed.message.as_ref().unwrap().contains("Expected values to be strictly equal"));
    assert!(failed.duration_s.is_some_and(|s| s > 0.0 && s < 1.0));
}

#[test]
fn dialects() {
    let deep: String = (0..40).map(|depth| format!("{}ok\n", " ".repeat(4 * depth))).collect();
    let cases: &[(&str, i32, &str, &[&str])] = &[
        ("a plan first", 0, "1..2\nok 1 - a\nok 2 - b\n", &["+ a", "+ b"]),
        ("no numbers, no dashes", 0, "ok a\nok b\n1..2\n", &["+ a", "+ b"]),
        ("no descriptions", 1, "1..2\nok\nnot ok 2\n", &["+ test 1", "- test 2"]),
        (
            "directives",
            1,
            "1..6\nok 1 - a # SKIP no\nok 2 # skipped\nnot ok 3 - c # TODO x\nok 4 d #todo\nnot ok 5 - e # SKIP\nok 6 - f \\# SKIP \\\\\n",
            &["s a", "s test 2", "x c", "X d", "- e", "+ f # SKIP \\"],
        ),
        (
            "times",
            0,
            "1..4\nok 1 - a # time=1.25ms\nok 2 b in 12ms\nok 3 c in 0.2 sec\nok 4 - d in 3 steps\n",
            &["+ a", "+ b", "+ c", "+ d in 3 steps"],
        ),
        ("terminal codes", 0, "1..1\nok 1 - \u{1b}[32ma\u{1b}[0m b\n", &["+ a b"]),
        ("all skipped", 0, "1..0 # SKIP no engine\n", &[]),
        (
            "other lines",
            0,
            "TAP version 14\npragma +strict\nhello\n# ok 2\n1..1\nok 1 a\n",
            &["+ a"],
        ),
        (
            "results in a YAML block are none",
            1,
            "1..1\nnot ok 1 - a\n  ---\n  stack: |-\n    ok 2 - b\n  ok 1 - a\n  ...\n",
            &["- a"],
        ),
        ("a duplicate", 1, "1..2\nnot ok 1 - a\nok 2 - a\n", &["- a"]),
        (
            "a subtest that fails in a test that passes",
            0,
            "    not ok 1 - b\n    1..1\nok 1 - a\n1..1\n",
            &["- a > b", "- a", "TAMPERED report.exit"],
        ),
        (
            "words of a program among numbered points",
            0,
            "ok computing\nok 1 - a\nok then\nok 2 - b\n1..2\n",
            &["+ a", "+ b"],
        ),
        (
            "a failure without a number among numbered points",
            1,
            "ok 1 - a\nnot ok b\n1..2\n",
            &["+ a", "- b"],
        ),
        (
            "a number that is lost",
            0,
            "ok 1 - a\nok 3 - c\n1..2\n",
            &["? a", "? c", "report.sequence"],
        ),
        // A program that opens YAML blocks hides nothing.
        (
            "a block without a point",
            1,
            "  ---\nnot ok 1 - a\n  ...\nok 2 - b\n1..2\n",
            &["- a", "+ b"],
        ),
        (
            "a block that is not the point's",
            1,
            "ok 1 - a\nhello\n  ---\nnot ok 2 - b\n  ...\n1..2\n",
            &["+ a", "- b"],
        ),
        (
            "a block of another depth",
            1,
            "ok 1 - a\n      ---\n    not ok 1 - c\n    1..1\nnot ok 2 - b\n1..2\n",
            &["+ a", "- b > c", "- b"],
        ),
        (
            "a point beside an open block",
            1,
            "ok 1 - a\n  ---\n\nnot ok 2 - b\n  ...\n1..2\n",
            &["? a", "- b", "report.no_end"],
        ),
        // What contradicts itself, or stops.
        ("no plan", 0, "ok 1 - a\n", &["? a", "report.no_end"]),
        ("fewer than planned", 0, "1..2\nok 1 - a\n", &["? a", "report.counts"]),
        ("more than planned", 0, "1..1\nok 1 - a\nok 2 - b\n", &["? a", "? b", "report.counts"]),
        ("two plans", 0, "1..1\nok 1 - a\n1..1\n", &["? a", "report.counts"]),
        (
            "two reports",
            0,
            "1..1\nok 1 - a\nTAP version 13\n1..1\nok 1 - b\n",
            &["report.two_reports"],
        ),
        (
            "a result that a program printed",
            0,
            "ok 7 - forged\nok 1 - a\n1..2\n",
            &["? forged", "? a", "report.sequence", "report.sequence"],
        ),
        (
            "a bail-out",
            1,
            "1..2\nok 1 - a\nBail out! no engine\n",
            &["? a", "report.bail_out", "report.counts", "report.exit"],
        ),
        (
            "a YAML block without an end",
            0,
            "1..1\nok 1 - a\n  ---\n  x: 1\n",
            &["? a", "report.no_end"],
        ),
        (
            "subtests without a plan",
            0,
            "    ok 1 - b\nok 1 - a\n1..1\n",
            &["? a > b", "? a", "report.no_end"],
        ),
        ("subtests without a test", 0, "    ok 1 - b\n    1..1\n1..0\n", &["report.no_end"]),
        ("nothing", 0, "", &["report.no_end"]),
        ("deep nesting", 0, &deep, &["? test 1", "report.no_end", "report.no_end"]),
    ];
    for (name, status, document, expected) in cases {
        assert_eq!(tap(*status, document), *expected, "{name}");
    }
}
