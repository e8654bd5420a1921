//! What comes through the channel, whatever the format.

use assay_repos::Severity;
use assay_sandbox::{Capture, LimitKind};

use super::*;

const GOOD: &str = "<testsuite name='S'><testcase name='a'/></testsuite>";

#[test]
fn deliveries() {
    let good = String::from_utf8(files(&[GOOD], 0)).unwrap();
    let head = format!("start {NONCE} files\n");
    let file = |bytes: usize| format!("file {NONCE} {bytes}\n");
    let end = format!("end {NONCE} 0\n");
    let cases: &[(&str, String, &[&str])] = &[
        ("what the rows below are changed from", good.clone(), &["+ S > a"]),
        ("no file", format!("{head}{end}"), &["report.absent"]),
        ("a link", format!("{head}refused {NONCE} a link\n{end}"), &["TAMPERED report.refused"]),
        (
            "a place that could not be cleared",
            format!("{head}refused {NONCE} an old one that stays\n{end}"),
            &["report.refused"],
        ),
        (
            "a link beside a file",
            good.replace(&head, &format!("{head}refused {NONCE} a link\n")),
            &["? S > a", "TAMPERED report.refused"],
        ),
        ("no end", good.replace(&end, ""), &["? S > a", "report.no_end"]),
        ("cut off in a file", head.clone() + &file(99) + GOOD, &["? S > a", "report.no_end"]),
        (
            "a file that grew",
            good.replace(&file(GOOD.len()), &file(GOOD.len() - 9)),
            &["report.changed"],
        ),
        (
            "a file of a size that is none",
            good.replace(&file(GOOD.len()), &file(0).replace(" 0", " -3")),
            &["? S > a", "report.no_end", "report.malformed"],
        ),
        (
            "a nonce of another's",
            good.replace(&end, &end.replace("5eed", "bad")),
            &["? S > a", "TAMPERED report.foreign_line"],
        ),
        (
            "a line of another's",
            good.replace(&end, &format!("x\n{end}")),
            &["? S > a", "TAMPERED report.foreign_line"],
        ),
        ("two ends", good.clone() + &end, &["? S > a", "TAMPERED report.after_end"]),
        (
            "another exit status",
            good.replace(&end, &end.replace(" 0", " 1")),
            &["? S > a", "TAMPERED report.exit"],
        ),
    ];
    for (name, channel, expected) in cases {
        assert_eq!(tell(ReportKind::Junit, 0, channel), *expected, "{name}");
    }
    for (name, channel) in [
        ("nothing", String::new()),
        ("another nonce", good.replace("start 5eed", "start bad")),
        ("half a line", format!("start {NONCE} stdout")),
        ("neither files nor stdout", good.replace("files", "tape")),
    ] {
        let report = read(ReportKind::Junit, Termination::Exited(0), channel);
        assert_eq!(report.progress, Progress::Silent, "{name}");
        assert_eq!(told(&report), [""; 0], "{name}");
    }
}

#[test]
fn ends_of_the_process() {
    let limit = Termination::Limit;
    for (termination, flags) in
        [(Termination::Signaled(11), 1), (limit(LimitKind::Wall), 0), (limit(LimitKind::Memory), 0)]
    {
        let report = read(ReportKind::Junit, termination, files(&[GOOD], 0));
        assert_eq!(report.tests[0].status, TestStatus::Missing, "{termination:?}");
        assert_eq!((report.flags.len(), report.progress), (flags, Progress::Started));
    }
}

#[test]
fn half_a_line_of_a_process_that_did_not_end_is_not_read() {
    let document = "1..12\nok 1 - a\nok 1";
    for termination in [Termination::Signaled(9), Termination::Limit(LimitKind::WallStarved)] {
        let told = told(&read(ReportKind::Tap, termination, printed(document)));
        assert!(!told.iter().any(|line| line.contains("sequence") || line.contains("test 2")));
        assert!(told.iter().any(|line| line.contains("report.counts")), "{told:?}");
    }
    let mut execution = ran(Termination::Exited(0), printed(document));
    execution.channels[0].dropped = 1;
    let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
    let report = crate::parse(ReportKind::Tap, &evidence).unwrap();
    assert_eq!(told(&report), ["? a", "report.truncated", "report.counts"]);
}

#[test]
fn a_report_that_is_cut_has_no_pass() {
    for (dropped, tail) in [(1, ""), (0, "x")] {
        let mut execution = ran(Termination::Exited(0), files(&[GOOD], 0));
        execution.channels[0].dropped = dropped;
        execution.channels[0] = Capture { tail: tail.into(), ..execution.channels[0].clone() };
        let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
        let report = crate::parse(ReportKind::Junit, &evidence).unwrap();
        assert_eq!(told(&report), ["? S > a", "report.truncated"]);
        assert_eq!(report.flags[0].severity, Severity::Warning);
    }
}

#[test]
fn long_names_of_many_tests_make_no_large_record() {
    let (many, name) = (20_000, "\\u0001".repeat(4000));
    let test = |n: usize| {
        format!(r#"{{"ancestorTitles":[],"title":"{n}","status":"passed","duration":1}}"#)
    };
    let tests: Vec<String> = (0..many).map(test).collect();
    let jest = format!(
        r#"{{"numTotalTests":{many},"numPassedTests":{many},"numFailedTests":0,"testResults":[{{"name":"{name}","status":"passed","assertionResults":[{}]}}]}}"#,
        tests.join(",")
    );
    // A name that takes the whole report, hashed for every test, would take minutes.
    let header = format!("     Running {} (target/debug/deps/a-0)\n", "x".repeat(8 << 20));
    let lines: String = (0..many).map(|n| format!("test {n} ... ok\n")).collect();
    let cargo = format!(
        "{header}running {many} tests\n{lines}test result: ok. {many} passed; 0 failed; 0 ignored\n"
    );
    for (kind, document) in [(ReportKind::Jest, jest), (ReportKind::Cargo, cargo)] {
        let report = read(kind, Termination::Exited(0), printed(&document));
        assert!(report.tests.iter().all(|test| !test.id.contains(char::is_control)));
        let written: usize = report.tests.iter().map(|test| test.id.len()).sum();
        assert!((1 << 20..=16 << 20).contains(&written), "{kind}: {written} bytes");
        assert!(report.tests.iter().all(|test| !test.status.passes()), "{kind}");
        assert!(report.flags.iter().any(|flag| flag.code == "report.truncated"), "{kind}");
    }
}

#[test]
fn a_status_that_stands_for_a_signal_is_a_gap() {
    let failed = "<testsuite name='S'><testcase name='a'/><testcase name='b'><failure/></testcase></testsuite>";
    for (status, expected) in
        [(1, &["+ S > a", "- S > b"][..]), (139, &["? S > a", "- S > b", "report.exit"])]
    {
        assert_eq!(tell(ReportKind::Junit, status, files(&[failed], status)), expected);
    }
}

#[test]
fn more_tests_than_are_read() {
    let many = 200_001;
    let xml: String = (0..many).map(|n| format!("<testcase name='{n}'/>")).collect();
    let go = |n: usize| {
        format!(
            "{{\"Action\":\"run\",\"Package\":\"p\",\"Test\":\"{n}\"}}\n{{\"Action\":\"pass\",\"Package\":\"p\",\"Test\":\"{n}\"}}\n"
        )
    };
    let go: String = (0..many).map(go).collect();
    let cargo: String = (0..many).map(|n| format!("test {n} ... ok\n")).collect();
    for (kind, channel) in [
        (ReportKind::Junit, files(&[&format!("<testsuite>{xml}</testsuite>")], 0)),
        (ReportKind::Tap, printed(&format!("1..{many}\n{}", "ok\n".repeat(many)))),
        (ReportKind::GoJson, printed(&format!("{go}{{\"Action\":\"pass\",\"Package\":\"p\"}}\n"))),
        (ReportKind::Cargo, printed(&format!("running {many} tests\n{cargo}"))),
    ] {
        let report = read(kind, Termination::Exited(0), channel);
        assert!(report.tests.len() <= 200_000, "{kind}");
        assert!(report.tests.iter().all(|test| !test.status.passes()), "{kind}");
        assert!(report.flags.iter().any(|flag| flag.code == "report.truncated"), "{kind}");
    }
}

/// Runs `collect.sh` on what lies in `tree`, and returns what it handed over.
fn collected(tree: &std::path::Path, pattern: &str, command: &str) -> (i32, Vec<u8>) {
    let script = tree.join("collect");
    std::fs::write(&script, crate::harness::COLLECT).unwrap();
    let channel = tree.join("channel");
    let mut shell = std::process::Command::new("/bin/sh");
    shell.current_dir(tree).args(["-c", "printf '%s\\n' \"$0\" | exec /bin/sh \"$@\" 3>channel"]);
    shell.args([NONCE, "collect", "files", pattern, "/bin/sh", "-c", command]);
    let output = shell.output().unwrap();
    (output.status.code().unwrap(), std::fs::read(channel).unwrap())
}

#[test]
fn the_place_of_a_report_is_cleared_or_nothing_runs() {
    let tree = tempfile::tempdir().unwrap();
    let out = tree.path().join("out of it");
    std::fs::create_dir(&out).unwrap();
    for name in ["a.xml", "b.xml"] {
        std::fs::write(out.join(name), GOOD).unwrap();
    }
    let write = format!("printf %s \"{GOOD}\" >'out of it/b.xml'; exit 3");
    let (status, channel) = collected(tree.path(), "out of it/*.xml", &write);
    assert_eq!((status, channel), (3, files(&[GOOD], 3)));

    // More names than a command line holds: `rm` can't even start.
    for number in 0..10_000 {
        std::fs::write(out.join(format!("{number:0>220}.xml")), "").unwrap();
    }
    let (status, channel) = collected(tree.path(), "out of it/*.xml", ": >ran");
    assert_eq!(status, 1);
    assert!(!tree.path().join("ran").exists());
    assert_eq!(tell(ReportKind::Junit, status, channel), ["report.refused", "report.exit"]);
}
