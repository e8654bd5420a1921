use super::*;

fn go(status: i32, document: &str) -> Vec<String> {
    tell(ReportKind::GoJson, status, printed(document))
}

#[test]
fn real_reports() {
    let failing = go(1, include_str!("../../../../tests/fixtures/go_failing.json"));
    assert_eq!(
        failing,
        [
            "! example.com/m/bad",
            "+ example.com/m/one > TestPasses",
            "- example.com/m/one > TestFails",
            "s example.com/m/one > TestSkipped",
            "+ example.com/m/one > TestForges",
            "+ example.com/m/one > TestForges/sub_test",
            "+ example.com/m/one > Example",
            "+ example.com/m/two > TestPasses",
            "- example.com/m/two > TestPanics",
        ]
    );
    assert_eq!(
        go(0, include_str!("../../../../tests/fixtures/go_passing.json")),
        ["+ example.com/m/two > TestPasses"]
    );
    // `TestMain` leaves before any test: the package passes, and no test did.
    assert_eq!(go(0, include_str!("../../../../tests/fixtures/go_exit_zero.json")), [""; 0]);
    assert_eq!(
        go(1, include_str!("../../../../tests/fixtures/go_exit_zero_in_test.json")),
        ["+ example.com/m/two > TestPasses", "- example.com/m/two > TestLeaves"]
    );
}

#[test]
fn events() {
    let event = |action: &str, test: &str| {
        let test = if test.is_empty() { String::new() } else { format!(r#","Test":"{test}""#) };
        format!("{{\"Action\":\"{action}\",\"Package\":\"p\"{test}}}\n")
    };
    let all = |events: &[(&str, &str)]| -> String {
        events.iter().map(|(action, test)| event(action, test)).collect()
    };
    let a = [("run", "A"), ("pass", "A")];
    let good = all(&[a[0], a[1], ("pass", "")]);
    let cases: &[(&str, i32, String, &[&str])] = &[
        ("what the rows below are changed from", 0, good.clone(), &["+ p > A"]),
        (
            "twice, by -count=2",
            1,
            all(&[a[0], a[1], ("run", "A"), ("fail", "A"), ("fail", "")]),
            &["- p > A"],
        ),
        (
            "a result lost in an open line",
            0,
            all(&[a[0], a[1], ("run", "B"), ("pass", "")]),
            &["+ p > A", "? p > B"],
        ),
        (
            "a result that a test printed",
            0,
            all(&[a[0], ("pass", "B"), a[1], ("pass", "")]),
            &["? p > A", "? p > B", "TAMPERED report.sequence"],
        ),
        (
            "a result printed before the true one",
            1,
            all(&[a[0], a[1], ("fail", "A"), ("fail", "")]),
            &["- p > A", "TAMPERED report.sequence"],
        ),
        (
            "a package that fails beside its tests",
            1,
            all(&[a[0], a[1], ("fail", "")]),
            &["! p", "? p > A"],
        ),
        ("a package without tests", 0, event("skip", ""), &[]),
        ("no end", 0, all(&a), &["? p > A", "report.no_end"]),
        (
            "after the end",
            0,
            good.clone() + &event("pass", "B"),
            &["? p > A", "TAMPERED report.after_end"],
        ),
        ("lines of the build", 0, format!("# p\nwarning\n{good}ok  p\n"), &["+ p > A"]),
        ("half an event", 0, good.clone() + "{\"Act", &["? p > A", "report.malformed"]),
        ("NUL bytes", 0, good.clone() + "{\0\0}\n", &["? p > A", "report.malformed"]),
        (
            "deep nesting",
            0,
            good.clone() + "{\"Action\":" + &"[".repeat(9000) + "\n",
            &["? p > A", "report.malformed"],
        ),
        (
            "two keys",
            0,
            good.replace("\"run\"", "\"run\",\"Action\":\"run\""),
            &["? p > A", "report.malformed"],
        ),
        ("nothing", 0, String::new(), &[]),
    ];
    for (name, status, document, expected) in cases {
        let mut told = go(*status, document);
        if *name == "two keys" {
            told.retain(|line| !line.starts_with("TAMPERED"));
        }
        assert_eq!(told, *expected, "{name}");
    }
    let stuck = printed(&all(&[a[0], a[1], ("run", "B")]));
    let report =
        read(ReportKind::GoJson, Termination::Limit(assay_sandbox::LimitKind::Wall), stuck);
    assert_eq!(told(&report), ["? p > A", "t p > B", "report.no_end"]);
}
