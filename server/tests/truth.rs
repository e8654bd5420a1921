//! What became of tasks over time, and grades that are taken along: with real runs.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use assay_rewards::GradeRecord;
use serde_json::{Value, json};

const LUCK: &str = "test_lib.py::test_luck";

/// A task one of whose tests really is flaky.
fn write_task(catalog: &Path) {
    let files = [
        (
            "task.toml",
            "schema = 1\nid = \"demo.flaky\"\n[source]\nrepository = \"./tree\"\ntests = [\"test_*.py\"]\n\
             [prompt]\ntemplate = \"problem.md\"\n[submission]\nkind = \"patch\"\nextract = \"raw\"\n\
             [[check]]\nid = \"unit\"\nreport = \"pytest\"\n\
             run = [\"python3\", \"-m\", \"pytest\", \"test_lib.py\"]\n\
             must_pass = [\"test_lib.py::test_add\"]\n\
             must_keep = [\"test_lib.py::test_sub\", \"test_lib.py::test_luck\"]\n",
        ),
        ("problem.md", "Solve it.\n"),
        ("tree/lib.py", "def add(a, b):\n    return a\n\n\ndef sub(a, b):\n    return a - b\n"),
        (
            "tree/test_lib.py",
            "import os\n\nimport lib\n\n\ndef test_add():\n    assert lib.add(1, 2) == 3\n\n\n\
             def test_sub():\n    assert lib.sub(3, 2) == 1\n\n\n\
             def test_luck():\n    assert os.urandom(1)[0] < 128\n",
        ),
        (
            "private/gold.patch",
            "--- a/lib.py\n+++ b/lib.py\n@@ -1,2 +1,2 @@\n def add(a, b):\n-    return a\n+    return a + b\n",
        ),
    ];
    for (name, text) in files {
        let path = catalog.join("flaky").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn assay(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    command
        .args(args)
        .env_remove("ASSAY_LOG")
        .env("ASSAY_CATALOG", folder.join("catalog"))
        .current_dir(folder)
        .stdin(Stdio::null());
    command.output().unwrap()
}

/// What a command that worked printed with `--json`.
fn lines(folder: &Path, args: &[&str]) -> Vec<Value> {
    let output = assay(folder, &[args, &["--json"]].concat());
    assert_eq!(
        output.status.code(),
        Some(0),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Returns a folder with the task, and grades of its gold submission, where sandboxes can run.
fn played(times: &str) -> Option<(tempfile::TempDir, Vec<Value>)> {
    let folder = tempfile::tempdir().unwrap();
    write_task(&folder.path().join("catalog"));
    let args = ["score", "--task", "demo.flaky", "--gold", "--reward", "pass", "--data", "data"];
    let args = [&args[..], &["--fresh", "--repeat", times, "--json"]].concat();
    let output = assay(folder.path(), &args);
    if output.status.code() != Some(0) {
        eprintln!("skipped: no sandboxes here: {}", String::from_utf8_lossy(&output.stdout));
        return None;
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    // The last line says what they were together.
    Some((folder, lines.filter(|line| line.get("summary").is_none()).collect()))
}

#[test]
fn a_test_that_is_flaky_is_found_and_let_go() {
    let Some((folder, verdicts)) = played("32") else { return };
    let folder = folder.path();
    let unlucky = verdicts.iter().filter(|verdict| verdict["tests"]["failed"] == 1).count();
    assert!((1..32).contains(&unlucky), "{unlucky} of 32 failed");
    let stats = &lines(folder, &["task", "stats", "demo.flaky", "--tests", "--data", "data"])[0];
    let counted = (&stats["answers"], &stats["runs"], &stats["verdicts"]["pairs"]);
    assert_eq!(counted, (&json!(32), &json!(32), &json!(31)));
    let luck = stats["tests"].as_array().unwrap().iter().find(|test| test["test"] == LUCK).unwrap();
    assert_eq!((&luck["role"], &luck["flaky"]), (&json!("quarantined"), &json!(true)), "{stats}");
    assert_eq!(luck["passes"], 32 - unlucky);
    let name = json!({ "check": "unit", "test": LUCK });
    assert_eq!(stats["quarantined"], json!([name]), "{stats}");
    // From then on every one is solved.
    let solved = |verdict: &&Value| verdict["reward"] == 1.0;
    assert_eq!(verdicts.iter().rev().take(10).filter(solved).count(), 10);
    assert!(verdicts.iter().filter(solved).count() < 32, "before, some were not");
    // The trail names grades that can be looked at.
    let grade = stats["trail"][0]["grades"][0].as_str().unwrap();
    let shown = &lines(folder, &["grade", "show", grade, "--data", "data"])[0];
    assert_eq!(shown["grade"], grade);

    // Each grade that it cost something was broken by it alone.
    let args = ["task", "quarantine", "demo.flaky", LUCK, "--affected", "--data", "data"];
    let affected = lines(folder, &args);
    assert_eq!(affected.len(), verdicts.iter().filter(|verdict| verdict["reward"] != 1.0).count());
    assert!(affected.iter().all(|one| one["alone"] == true), "{affected:?}");

    let quarantine = ["task", "quarantine", "demo.flaky"];
    let change = |args: &[&str]| lines(folder, &[&quarantine, args, &["--data", "data"]].concat());
    let free = &change(&[LUCK, "--release", "--reason", "seeded"])[0];
    assert_eq!((&free["quarantined"], &free["trail"][1]["reason"]), (&json!([]), &json!("seeded")));
    let back = &change(&[LUCK, "--check", "unit", "--reason", "it is not"])[0];
    assert_eq!(
        (&back["quarantined"], back["trail"].as_array().unwrap().len()),
        (&json!([name]), 3)
    );
    assert_eq!(change(&[])[0], *back);

    for (args, said) in [
        (&[&quarantine[..], &["test_lib.py::test_add"]].concat()[..], "can't be quarantined"),
        (&[&quarantine[..], &["test_lib.py::none"]].concat(), "is none that check unit must keep"),
        (&[&quarantine[..], &[LUCK, "--check", "lint"]].concat(), "`lint` is no check"),
        (&["task", "quarantine", "no.such", LUCK], "no task `no.such`"),
        (&["task", "stats", "no.such"], "no task `no.such`"),
        (&["task", "stats", "../x"], "not a task id"),
        (&["task", "stats"], "--all"),
    ] {
        let output = assay(folder, &[args, &["--data", "data"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(said), "{args:?}: {stderr}");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    let none = assay(folder, &["task", "stats", "--all", "--data", "nowhere"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(!folder.join("nowhere").exists());
}

/// What gold used is a part of the grade where the reward file asks for it, so a replay measures it, too.
#[test]
fn a_grade_with_gold_beside_it_is_replayed_with_gold() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_task(&folder.join("catalog"));
    let tests = folder.join("catalog/flaky/tree/test_lib.py");
    let sure = fs::read_to_string(&tests).unwrap().replace("os.urandom(1)[0] < 128", "os");
    fs::write(&tests, sure).unwrap();
    let fast = "schema = 1\nname = 'fast'\n[[term]]\nname = 'speed'\n\
        value = 'clamp(run.cpu_vs_gold, 0, 2)'\n";
    fs::write(folder.join("fast.toml"), fast).unwrap();
    let replayed = |reward: &str, patch: &str| {
        fs::write(folder.join("a.patch"), patch).unwrap();
        let args = ["score", "--task", "demo.flaky", "--patch", "a.patch", "--reward", reward];
        let output = assay(folder, &[&args[..], &["--data", "data", "--json"]].concat());
        if output.status.code() != Some(0) {
            eprintln!("skipped: no sandboxes here: {}", String::from_utf8_lossy(&output.stdout));
            return None;
        }
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        let grade = verdict["grade"].as_str().unwrap();
        lines(folder, &["grade", "export", grade, "--out", "a.json", "--data", "data"]);
        Some(lines(folder, &["grade", "replay", "a.json"]).remove(0))
    };
    let gold = fs::read_to_string(folder.join("catalog/flaky/private/gold.patch")).unwrap();
    let other = gold.replace("a + b", "b + a");
    let Some(with) = replayed("fast.toml", &other) else { return };
    let agrees =
        |said: &Value, what: &str| said["agrees"].as_array().unwrap().contains(&json!(what));
    assert!(agrees(&with, "gold measured"), "{with}");
    for at in [0, 1] {
        assert!(with["beside"]["gold_cpu_s"][at].as_f64().unwrap() > 0.0, "{with}");
    }
    let without = replayed("pass", &other.replace("b + a", "sum([a, b])")).unwrap();
    assert_eq!(without["beside"].get("gold_cpu_s"), None, "{without}");

    // Gold that doesn't pass is told by a flag, the second time, too.
    fs::write(&tests, fs::read_to_string(&tests).unwrap().replace("assert os", "assert not os"))
        .unwrap();
    let absent = replayed("fast.toml", &other.replace("b + a", "a + b + 0")).unwrap();
    assert!(agrees(&absent, "flags gold.absent (info)"), "{absent}");
}

#[test]
fn a_grade_is_taken_along_and_comes_out_the_same() {
    let Some((folder, verdicts)) = played("12") else { return };
    let folder = folder.path();
    let find = |failed: u64| {
        let one = verdicts.iter().find(|verdict| verdict["tests"]["failed"] == failed);
        one.map(|verdict| verdict["grade"].as_str().unwrap().to_owned())
    };
    let (lucky, unlucky) = (find(0).expect("one of 12"), find(1).expect("one of 12"));
    for (grade, out) in [(&lucky, "lucky.json"), (&unlucky, "unlucky.json")] {
        let told =
            &lines(folder, &["grade", "export", &grade[..20], "--out", out, "--data", "data"])[0];
        assert_eq!((&told["grade"], &told["file"]), (&json!(grade), &json!(out)));
    }
    // From here on there is nothing but the file.
    fs::rename(folder.join("catalog"), folder.join("gone")).unwrap();
    fs::create_dir(folder.join("catalog")).unwrap();
    let replay = |file: &str| {
        let output = assay(folder, &["grade", "replay", file, "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let said = serde_json::from_str::<Value>(text.trim()).unwrap_or_default();
        (output.status.code(), said, String::from_utf8(output.stderr).unwrap())
    };
    // One comes out the same again in half of the runs: both ends are there within twenty.
    let mut ends = [false; 2];
    for _ in 0..20 {
        let (code, said, stderr) = replay("lucky.json");
        let same = said["same"] == true;
        assert_eq!(code, Some(i32::from(!same)), "{said} {stderr}");
        assert_eq!(said["grade"][0], lucky);
        let differs = said["differs"].as_array().unwrap();
        let what: Vec<_> = differs.iter().map(|one| one["what"].as_str().unwrap()).collect();
        if same {
            assert!(what.is_empty(), "{said}");
        } else {
            assert_eq!(what, ["reward", &format!("test {LUCK} of check unit")], "{said}");
        }
        assert!(said["beside"]["wall_s"][1].as_f64().unwrap() > 0.0);
        ends[usize::from(same)] = true;
        if ends == [true, true] {
            break;
        }
    }
    assert_eq!(ends, [true, true], "a fair coin fell on one side twenty times");

    let good: Value =
        serde_json::from_slice(&fs::read(folder.join("lucky.json")).unwrap()).unwrap();
    let file = |at: usize, key: &str, value: Value| {
        let mut bad = good.clone();
        bad["task"]["files"][at][key] = value;
        bad
    };
    let with = |pointer: &str, value: Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        bad
    };
    let mut unknown = good.clone();
    unknown["extra"] = json!(1);
    let mut deeper = good.clone();
    deeper["record"]["extra"] = json!(1);
    let mut twice = good.clone();
    let first = twice["task"]["files"][0].clone();
    twice["task"]["files"].as_array_mut().unwrap().push(first);
    let cases = [
        ("an unknown key", unknown, "extra"),
        ("an unknown key of the record", deeper, "extra"),
        ("another version", with("/schema", json!(9)), "another version: schema 9"),
        ("another record's version", with("/record/schema", json!(9)), "its record has schema 9"),
        ("another file", with("/format", json!("tar")), "not a file of `assay grade export`"),
        ("another record", with("/record/outcome", json!("tampered")), "its record was changed"),
        ("another grade", with("/grade", json!(unlucky)), "its record was changed"),
        ("another task", file(0, "text", json!("x")), "its task was changed"),
        ("no task", with("/task/files", json!([])), "its task is not demo.flaky"),
        ("a path that leads out", file(0, "path", json!("../../../escaped")), "no `..`"),
        ("an absolute path", file(0, "path", json!("/tmp/escaped")), "must be relative"),
        ("a path twice", twice, "cannot"),
        ("both contents", file(0, "base64", json!("eA==")), "and not both"),
        (
            "no base64",
            {
                let mut bad = file(0, "base64", json!("*"));
                bad["task"]["files"][0].as_object_mut().unwrap().remove("text");
                bad
            },
            "not base64",
        ),
        ("a list", json!([1]), "not a file of `assay grade export`"),
    ];
    for (name, bad, said) in cases {
        fs::write(folder.join("bad.json"), bad.to_string()).unwrap();
        let (code, _, stderr) = replay("bad.json");
        assert!(stderr.contains(said), "{name}: {stderr}");
        assert_eq!(code, Some(2), "{name}");
    }
    assert!(!Path::new("/tmp/escaped").exists());
    let whole = fs::read_to_string(folder.join("lucky.json")).unwrap();
    for (name, text) in
        [("cut", &whole[..whole.len() / 2]), ("empty", ""), ("deep", &"[".repeat(100_000))]
    {
        fs::write(folder.join("bad.json"), text).unwrap();
        let (code, _, stderr) = replay("bad.json");
        assert_eq!(code, Some(2), "{name}: {stderr}");
    }
    // Where the image is not, it says what to do.
    let cache = folder.join("no-cache");
    let mut elsewhere = Command::new(env!("CARGO_BIN_EXE_assay"));
    elsewhere.args(["grade", "replay", "lucky.json"]).current_dir(folder).env("ASSAY_CACHE", cache);
    let output = elsewhere.env("ASSAY_CATALOG", folder.join("catalog")).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("which is not here") && stderr.contains("assay image pull"),
        "{stderr}"
    );

    // A task that has changed since is not what was judged.
    let export = |args: &[&str]| {
        let args = [&["grade", "export", &lucky], args].concat();
        let output = assay(folder, &args);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let data = ["--data", "data"];
    let (code, stderr) = export(&data);
    assert!(code == Some(2) && stderr.contains("no task `demo.flaky`"), "{stderr}");
    fs::write(folder.join("gone/flaky/problem.md"), "Solve it well.\n").unwrap();
    let (code, stderr) = export(&[&data[..], &["--catalog", "gone"]].concat());
    assert!(code == Some(2) && stderr.contains("when it was judged"), "{stderr}");
    // Records alone have no submission.
    let record: GradeRecord = serde_json::from_value(good["record"].clone()).unwrap();
    let record = record.to_json();
    fs::write(folder.join("one.jsonl"), record).unwrap();
    let (code, stderr) = export(&["--records", "one.jsonl"]);
    assert!(code == Some(2) && stderr.contains("is not kept"), "{stderr}");
}
