//! CTRF, jest and mocha: one JSON document each.

use super::*;

fn of(kind: ReportKind, status: i32, document: &str) -> Vec<String> {
    tell(kind, status, files(&[document], status))
}

#[test]
fn real_reports() {
    let mut jest =
        of(ReportKind::Jest, 1, include_str!("../../../../tests/fixtures/jest_jest.json"));
    jest.sort();
    assert_eq!(
        jest,
        [
            "! /work/jest/bad.test.js",
            "+ /work/jest/sum.test.js > passes",
            "- /work/jest/sum.test.js > group > fails",
            "s /work/jest/sum.test.js > group > later",
            "s /work/jest/sum.test.js > group > skipped",
        ]
    );
    let mut vitest =
        of(ReportKind::Jest, 1, include_str!("../../../../tests/fixtures/jest_vitest.json"));
    vitest.sort();
    assert_eq!(vitest, jest);
    assert_eq!(
        of(ReportKind::Mocha, 2, include_str!("../../../../tests/fixtures/mocha_mocha.json")),
        [
            "+ /work/mocha/test.js > passes",
            "+ /work/mocha/test.js > group flaky",
            "s /work/mocha/test.js > group skipped",
            "- /work/mocha/test.js > group fails",
            "- /work/mocha/test.js > broken \"before all\" hook: set-up for \"never runs\"",
            "report.flaky",
        ]
    );
}

#[test]
fn contradictions() {
    let jest = r#"{"numTotalTests":1,"numPassedTests":1,"numFailedTests":0,"testResults":[{"name":"f","status":"passed","assertionResults":[{"ancestorTitles":["g"],"title":"a","status":"passed","duration":5}]}]}"#;
    let ctrf = r#"{"results":{"tool":{"name":"x"},"summary":{"tests":1,"passed":1,"failed":0,"pending":0,"skipped":0,"other":0},"tests":[{"name":"a","status":"passed","duration":5,"suite":["f","g"]}]}}"#;
    let mocha = r#"{"stats":{"passes":1,"pending":0,"failures":0},"passes":[{"fullTitle":"g a","file":"f","duration":5,"err":{}}],"pending":[],"failures":[]}"#;
    for (kind, good, id) in [
        (ReportKind::Jest, jest, "f > g > a"),
        (ReportKind::Ctrf, ctrf, "f > g > a"),
        (ReportKind::Mocha, mocha, "f > g a"),
    ] {
        let (pass, lost) = (format!("+ {id}"), format!("? {id}"));
        assert_eq!(of(kind, 0, good), [pass.as_str()], "{kind}");
        assert_eq!(tell(kind, 0, printed(good)), [pass], "{kind}: printed");
        assert_eq!(of(kind, 1, good), [lost.clone(), "report.exit".into()], "{kind}");
        let odd = good.replace("\"a\"", r#""\ud83d""#).replace("\"g a\"", r#""g \ud83d""#);
        assert_eq!(
            of(kind, 0, &odd),
            [format!("+ {}\u{fffd}", id.trim_end_matches('a'))],
            "{kind}"
        );
        let more = good.replacen(":1,\"", ":2,\"", 1);
        assert_eq!(of(kind, 0, &more), [lost, "report.counts".into()], "{kind}");
        for (name, bad) in [
            ("two reports", good.repeat(2)),
            ("cut off", good[..good.len() - 1].to_owned()),
            ("noise before", format!("> test\n{good}")),
            ("empty", String::new()),
            ("deep nesting", "[".repeat(100_000)),
            ("another document", "{}".into()),
        ] {
            assert_eq!(of(kind, 0, &bad), ["report.malformed"], "{kind}: {name}");
        }
    }
    let flaky = ctrf.replace("\"duration\"", "\"flaky\":true,\"duration\"");
    assert_eq!(of(ReportKind::Ctrf, 0, &flaky), ["+ f > g > a", "report.flaky"]);
    let other = ctrf.replace("\"status\":\"passed\"", "\"status\":\"great\"");
    assert_eq!(of(ReportKind::Ctrf, 1, &other), ["! f > g > a", "report.counts", "report.counts"]);
    let before = ctrf.replace(r#"["f","g"]"#, "\"f > g\"");
    assert_eq!(of(ReportKind::Ctrf, 0, &before), ["+ f > g > a"]);
    let without = ctrf.replace(r#"["f","g"]"#, "null");
    assert_eq!(of(ReportKind::Ctrf, 0, &without), ["+ a"]);
    let deep = ctrf.replace(r#"["f","g"]"#, &format!("[{}\"g\"]", "\"\",".repeat(64)));
    assert_eq!(of(ReportKind::Ctrf, 0, &deep), ["report.malformed"]);
    let stopped = jest.replacen('{', "{\"wasInterrupted\":true,", 1);
    assert_eq!(of(ReportKind::Jest, 0, &stopped), ["? f > g > a", "report.no_end"]);
}
