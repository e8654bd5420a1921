//! `assay reward` and `assay grade` on files that lie here.

mod support;

use std::{collections::BTreeMap, fs};

use assay_repos::{Digest, Flag, Mode, PatchFacts, ReportKind, Severity, TaskLimits};
use assay_rewards::{
    CheckRecord, Generation, GradeHeader, GradeRecord, GradedTest, Outcome, Required, Role,
    TaskFacts, TestCounts, TestStatus, Usage,
};
use assay_sandbox::Start;
use serde_json::{Value, json};
use support::{assay, folder, lines};

const MINE: &str = "schema = 1\nname = \"mine\"\n[[term]]\nname = \"part\"\n\
    value = \"must_pass.fraction\"\nweight = 0.5\n";

#[test]
fn lint_says_where() {
    let folder = folder();
    let good = folder.path().join("good.toml");
    fs::write(
        &good,
        "schema = 1\nname = \"good\"\n[[term]]\nname = \"solved\"\nvalue = \"must_pass.all\"\n",
    )
    .unwrap();
    let bad = folder.path().join("bad.toml");
    fs::write(
        &bad,
        "schema = 1\nname = \"bad\"\n[[term]]\nname = \"solved\"\nvalue = \"must_pass.al\"\n",
    )
    .unwrap();
    let output = assay(folder.path(), &["reward", "lint", "good.toml", "bad.toml", "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let lines = lines(&output);
    assert_eq!((&lines[0]["ok"], &lines[0]["name"]), (&json!(true), &json!("good")));
    assert_eq!((&lines[1]["ok"], &lines[1]["errors"][0]["line"]), (&json!(false), &json!(5)));
}

#[test]
fn two_files_that_say_the_same_do_not_differ() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("mine.toml"), MINE).unwrap();
    let again = "# The same.\nname = 'again'\nschema = 1\ncombine = { op = 'sum' }\n[[term]]\n\
        weight = 5e-1\nvalue = '( must_pass.fraction )'\nname = 'part'\n";
    fs::write(folder.join("again.toml"), again).unwrap();
    let diff = |args: &[&str]| {
        let output = assay(folder, &[&["reward", "diff"], args].concat()).output().unwrap();
        let told = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), told(output.stdout), told(output.stderr))
    };
    let (code, said, _) = diff(&["mine.toml", "again.toml"]);
    assert_eq!((code, said.as_str()), (Some(0), "mine -> again: no difference\n"));
    let (code, said, _) = diff(&["mine.toml", "again.toml", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["same"], &said["differences"]), (Some(0), &json!(true), &json!([])));

    let (code, said, _) = diff(&["fraction", "mine.toml"]);
    let expected = "\
fraction -> mine
  gate.require  - tests.ran
  gate.require  - integrity.ok
  gate.require  - must_keep.all
  term passed   - must_pass.fraction, weight 1
  term part     + must_pass.fraction, weight 0.5
";
    assert_eq!((code, said.as_str()), (Some(1), expected));
    let (code, said, _) = diff(&["mine.toml", "fraction", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &said["same"], &said["new"]["name"]),
        (Some(1), &json!(false), &json!("fraction"))
    );
    let first = json!({ "what": "gate.require", "old": null, "new": "tests.ran" });
    assert_eq!(said["differences"][0], first);

    for (args, told) in [
        (["mine.toml", "none.toml"], "read none.toml"),
        (["mine.toml", "passs"], "no reward `passs`"),
    ] {
        let (code, _, stderr) = diff(&args);
        assert!(code == Some(2) && stderr.contains(told), "{args:?}: {stderr}");
    }
}

#[test]
fn expressions_are_formatted_in_place() {
    let folder = folder();
    let text = |value: &str| {
        format!("schema=1\nname = \"x\"\n[[term]]\nname = \"a\"\nvalue = \"{value}\"\n")
    };
    let (loose, tidy) = (text("max(1,tests.passed)"), text("max(1, tests.passed)"));
    let read = || fs::read_to_string(folder.path().join("loose.toml")).unwrap();
    fs::write(folder.path().join("loose.toml"), &loose).unwrap();
    fs::write(folder.path().join("tidy.toml"), &tidy).unwrap();
    fs::write(folder.path().join("bad.toml"), text("max(1,test.passed)")).unwrap();
    let fmt = |args: &[&str]| {
        assay(folder.path(), &[&["reward", "fmt", "--json"], args].concat()).output().unwrap()
    };
    let check = fmt(&["--check", "tidy.toml", "loose.toml"]);
    assert_eq!(check.status.code(), Some(2));
    assert_eq!(lines(&check), [json!({ "file": "loose.toml", "changed": false })]);
    assert_eq!(read(), loose);
    let done = fmt(&["tidy.toml", "loose.toml"]);
    assert_eq!(done.status.code(), Some(0));
    assert_eq!(lines(&done), [json!({ "file": "loose.toml", "changed": true })]);
    assert_eq!(read(), tidy);
    assert_eq!(fmt(&["--check", "tidy.toml", "loose.toml"]).status.code(), Some(0));
    let bad = fmt(&["bad.toml"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("bad.toml:5:16: unknown fact"));
}

/// Grades of a task with two tests, so many of them held, as JSON lines.
fn grades(held: &[u32]) -> String {
    let record = |held: &u32| {
        let mut record = GradeHeader {
            task: "demo.0001".parse().unwrap(),
            task_digest: Digest::of("task"),
            image_digest: String::new(),
            submission_digest: Digest::of(held.to_string()),
            backend: "fake".into(),
            mode: Mode::Guarded,
            limits: TaskLimits::default(),
            generation: Generation::default(),
            external: BTreeMap::new(),
            task_facts: TaskFacts::default(),
            runner: "test".into(),
        }
        .grade(PatchFacts::default(), Vec::new(), &[], None);
        record.patch.applied = true;
        record.complete = true;
        record.checks.push(CheckRecord {
            id: "unit".into(),
            report: ReportKind::Pytest,
            ran: true,
            counts: TestCounts { passed: *held, failed: 2 - held, ..TestCounts::default() },
            must_pass: Required { held: *held, count: 2 },
            must_keep: Required::default(),
            exact: None,
            tests: Vec::new(),
            canaries: Vec::new(),
            usage: Usage::default(),
            start: Start::Cold,
        });
        record.to_json() + "\n"
    };
    held.iter().map(record).collect()
}

#[test]
fn a_number_is_explained() {
    let folder = folder();
    fs::write(folder.path().join("one.jsonl"), grades(&[1])).unwrap();
    fs::write(folder.path().join("many.jsonl"), grades(&[0, 1, 2])).unwrap();
    let explain = |args: &[&str]| {
        assay(folder.path(), &[&["reward", "explain"], args].concat()).output().unwrap()
    };
    let one = explain(&["swe-default", "--records", "one.jsonl", "--json"]);
    assert_eq!(one.status.code(), Some(0), "{}", String::from_utf8_lossy(&one.stderr));
    let tree = &lines(&one)[0];
    assert_eq!((&tree["name"], &tree["reward"]), (&json!("swe-default"), &json!(0.1)));
    let near = &tree["terms"][1];
    assert_eq!((&near["name"], &near["when"]["value"]), (&json!("near"), &json!(true)));
    let fact = json!({ "name": "must_pass.fraction", "value": 0.5 });
    assert_eq!((&near["part"], &near["value"]["facts"][0]), (&json!(0.1), &fact));

    let id = tree["grade"].as_str().unwrap();
    let picked = explain(&["pass", "--records", "many.jsonl", "--grade", &id[..15]]);
    let text = String::from_utf8_lossy(&picked.stdout);
    assert!(text.starts_with("pass on demo.0001, SCORED: reward 0\ngate: holds"), "{text}");

    for (args, said) in [
        (&["pass", "--records", "many.jsonl"][..], "several grades in many.jsonl; name one"),
        (
            &["pass", "--records", "many.jsonl", "--grade", "sha256:"],
            "several grades in many.jsonl start",
        ),
        (&["pass", "--records", "many.jsonl", "--grade", "xyz"], "no grade xyz in many.jsonl"),
        (&["pass", "--records", "."], "several grades in ."),
        (&["pass", "--records", "none.jsonl"], "none.jsonl"),
        (&["pass", "--records", "catalog"], "no assay.db, and no .json or .jsonl file"),
        (&["passs", "--records", "one.jsonl"], "no reward `passs`"),
        (&["no.toml", "--records", "one.jsonl"], "read no.toml"),
    ] {
        let output = explain(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(said), "{args:?}: {stderr}");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_grade_is_shown_with_all_its_evidence() {
    let folder = folder();
    let plain: GradeRecord = serde_json::from_str(grades(&[1]).trim()).unwrap();
    let mut record = plain.clone();
    let test = |id: &str, status, role, message: &str| GradedTest {
        id: id.into(),
        status,
        role,
        duration_s: Some(0.25),
        message: Some(message.into()),
    };
    record.checks[0].tests = vec![
        test("t::kept", TestStatus::Passed, Role::MustKeep, ""),
        test("t::broken", TestStatus::Error, Role::MustKeep, "gone"),
        test("t::good", TestStatus::Passed, Role::MustPass, "printed"),
        test("t::bad\n\u{1b}[2J", TestStatus::Failed, Role::MustPass, "left\n\u{1b}[31mright"),
    ];
    let evidence = format!("canary {} was green\n\u{202e}", "long ".repeat(1000));
    record.outcome = Outcome::Tampered;
    record.flags = vec![Flag {
        code: "canary.green".into(),
        severity: Severity::Tampering,
        evidence: evidence.clone(),
    }];
    let lines_of = [&record, &plain].map(|record| record.to_json() + "\n").concat();
    fs::write(folder.path().join("grades.jsonl"), lines_of).unwrap();
    let id = record.id().to_string();
    let show = |args: &[&str]| {
        let args = [&["grade", "show", "--records", "grades.jsonl"], args].concat();
        assay(folder.path(), &args).output().unwrap()
    };
    // With or without the prefix, whole or shortened: one way to name a grade.
    for name in [&id[..], &id[..14], id.trim_start_matches("sha256:"), &id[7..11]] {
        let output = show(&[name]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("demo.0001  TAMPERED\n"), "{text}");
        assert!(text.contains(&id), "{text}");
        let flag = format!(
            "\n  tampering    canary.green: canary {} was green\\n\\u{{202e}}\n",
            "long ".repeat(1000)
        );
        assert!(text.contains(&flag), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what:?} in {text}"));
        let order = [
            at(
                "must_pass   failed   t::bad\\n\\u{1b}[2J  0.25 s\n      | left\n      | \\u{1b}[31mright",
            ),
            at("must_pass   passed   t::good"),
            at("must_keep   error    t::broken"),
        ];
        assert!(order.is_sorted(), "{text}");
        assert!(!text.contains("t::kept") && !text.contains("printed"), "{text}");
    }
    let object = &lines(&show(&[&id, "--json"]))[0];
    assert_eq!((&object["grade"], &object["outcome"]), (&json!(id), &json!("tampered")));
    assert_eq!(object["flags"][0]["evidence"], evidence);
    assert_eq!(object["checks"][0]["tests"].as_array().unwrap().len(), 4);

    for (args, said) in [
        (&["sha256:"][..], "several grades in grades.jsonl start with sha256:"),
        (&["xyz"], "no grade xyz in grades.jsonl"),
        (&["ab", "--server", "http://127.0.0.1:9"], "takes no --server"),
    ] {
        let output = show(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(said), "{args:?}: {stderr}");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn stored_grades_are_scored_again() {
    let folder = folder();
    fs::write(folder.path().join("many.jsonl"), grades(&[0, 1, 2, 2])).unwrap();
    let dry_run = |args: &[&str]| {
        assay(folder.path(), &[&["reward", "dry-run"], args].concat()).output().unwrap()
    };
    let compared =
        dry_run(&["swe-default", "--records", "many.jsonl", "--against", "pass", "--json"]);
    assert_eq!(compared.status.code(), Some(0), "{}", String::from_utf8_lossy(&compared.stderr));
    let report = &lines(&compared)[0];
    assert_eq!((&report["records"], &report["changed"]), (&json!(4), &json!(1)));
    assert_eq!((&report["old"]["mean"], &report["new"]["mean"]), (&json!(0.5), &json!(0.525)));
    assert_eq!(report["new"]["histogram"][1], json!({ "from": 0.1, "to": 0.1, "count": 1 }));
    assert_eq!(report["most_changed"][0]["new"], 0.1);

    let alone = dry_run(&["pass", "--records", "many.jsonl"]);
    let expected = "\
4 grades
pass: mean 0.5, std 0.57735, 0 without a reward, 0 masked
reward  pass
     0  2 ##############################
     1  2 ##############################
";
    assert_eq!(String::from_utf8_lossy(&alone.stdout), expected);

    let damaged =
        grades(&[1, 1]).replacen("{\"schema\":1", "{\"schema\":7", 2).replacen("7", "1", 1);
    fs::write(folder.path().join("bad.jsonl"), damaged).unwrap();
    fs::write(folder.path().join("cut.jsonl"), &grades(&[1])[..100]).unwrap();
    fs::write(folder.path().join("empty.jsonl"), "\n").unwrap();
    for (file, said) in [
        ("bad.jsonl", "bad.jsonl:2: grade record has schema 7"),
        ("cut.jsonl", "cut.jsonl:1: not a grade record"),
        ("empty.jsonl", "there is no grade in empty.jsonl"),
    ] {
        let output = dry_run(&["pass", "--records", file]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{file}");
        assert!(stderr.contains(said), "{file}: {stderr}");
    }
}
