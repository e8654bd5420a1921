//! The command line: exit statuses and the shapes of what it prints.

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{assay, folder, lines};

/// Writes a task that passes with an answer that no attack knows, and code that does nothing has not.
fn write_secret_task(catalog: &Path, id: &str) -> PathBuf {
    let dir = support::write_program_task(catalog, id, "train");
    let task = fs::read_to_string(dir.join("task.toml")).unwrap();
    let check = r#"["/usr/bin/grep", "--quiet", "the answer is 42", "main.py"]"#;
    let task = task.replace(r#"["/usr/bin/python3", "main.py"]"#, check);
    fs::write(dir.join("task.toml"), task).unwrap();
    fs::write(dir.join("private/gold.py"), "print('the answer is 42')\n").unwrap();
    dir
}

#[test]
fn wrong_arguments_and_files_end_with_2() {
    let folder = folder();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let binary = file("binary.patch", b"\xff\xfe");
    let reward = file("bad.toml", b"schema = 1\nname = \"bad\"\nunknown = 1\n");
    let token = file("token", b"short");
    let cases: &[(&str, &[&str], &str)] = &[
        ("no command", &[], "Usage"),
        ("no submission", &["score", "--task", "programs.echo"], "--gold"),
        ("two submissions", &["score", "--task", "programs.echo", "--gold", "--empty"], "--empty"),
        ("no such task", &["score", "--task", "no.such", "--gold"], "no task `no.such`"),
        (
            "no such task, a file",
            &["score", "--task", "no.such", "--source", "catalog/programs/echo/private/gold.py"],
            "unknown task `no.such`",
        ),
        ("malformed task id", &["score", "--task", "../x", "--gold"], "not a task id"),
        (
            "no such file",
            &["score", "--task", "programs.echo", "--patch", "none.patch"],
            "none.patch",
        ),
        ("not text", &["score", "--task", "programs.echo", "--patch", &binary], "not UTF-8"),
        (
            "no such reward",
            &["score", "--task", "programs.echo", "--gold", "--reward", "none"],
            "reward",
        ),
        (
            "bad reward file",
            &["score", "--task", "programs.echo", "--gold", "--reward", &reward],
            "unknown",
        ),
        ("show nothing", &["task", "show", "no.such"], "no task `no.such`"),
        ("validate nothing", &["task", "validate"], "--all"),
        ("validate an unknown one", &["task", "validate", "no.such"], "no task `no.such`"),
        ("listen to all", &["serve", "--listen", "0.0.0.0:0"], "--token-file"),
        ("short token", &["serve", "--listen", "0.0.0.0:0", "--token-file", &token], "16"),
        ("lint nothing", &["reward", "lint", "none.toml"], "none.toml"),
        ("import nothing", &["task", "import", "humaneval", "none.jsonl"], "none.jsonl"),
        ("unknown split", &["task", "list", "--split", "test"], "train, held_out, none"),
        ("no URL", &["task", "list", "--server", "::"], "--server"),
    ];
    for (name, args, said) in cases {
        let output = assay(folder.path(), args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        assert!(stderr.contains(said), "{name}: {stderr}");
        assert!(output.stdout.is_empty(), "{name}");
    }
}

#[test]
fn what_cannot_be_done_ends_with_1() {
    let folder = folder();
    let nobody = ["task", "list", "--server", "http://127.0.0.1:9"];
    let output = assay(folder.path(), &nobody).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("http://127.0.0.1:9"), "{stderr}");

    // There is no root filesystem in this cache: an answer, and no verdict.
    let score = ["score", "--task", "programs.echo", "--gold", "--json"];
    let output = assay(folder.path(), &score).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let line = &lines(&output)[0];
    assert_eq!(line["outcome"], "INFRA_ERROR");
    assert_eq!(line["failure"]["fault"], "INFRA");
    assert!(line.get("reward").is_none(), "absent, not null: {line}");

    let repeat = ["score", "--task", "programs.echo", "--gold", "--repeat", "3", "--json"];
    let output = assay(folder.path(), &repeat).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let lines = lines(&output);
    let expected = json!({
        "requested": 3, "scored": 0, "rejected": 0, "tampered": 0, "invalid": 0, "infra": 3,
        "cancelled": 0, "deadline_exceeded": 0, "valid": 0,
    });
    assert_eq!(
        (lines.len(), &lines[3]),
        (4, &json!({ "summary": expected })),
        "no mean of nothing"
    );

    // Nobody knows whether a task is valid.
    let validate = ["task", "validate", "programs.echo", "--json"];
    let output = assay(folder.path(), &validate).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let summary = &self::lines(&output)[1]["summary"];
    let tasks = ["tasks", "valid", "invalid", "undecided"].map(|name| summary[name].as_u64());
    assert_eq!(tasks, [Some(1), Some(0), Some(0), Some(1)], "{summary}");
    let evaluations = &summary["evaluations"];
    assert_eq!((&evaluations["requested"], &evaluations["infra"]), (&json!(2), &json!(2)));
}

#[test]
fn a_listing_has_the_stated_fields_and_skips_bad_tasks() {
    let folder = folder();
    let bad = support::write_program_task(&folder.path().join("catalog"), "programs.bad", "train");
    let text = fs::read_to_string(bad.join("task.toml")).unwrap();
    fs::write(bad.join("task.toml"), text.replace("split =", "splitt =")).unwrap();

    let output = assay(folder.path(), &["task", "list", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let expected = json!({
        "id": "programs.echo", "set": "programs", "split": "train", "language": "python",
        "kind": "program", "valid": true,
    });
    assert_eq!(lines(&output), [expected]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("programs/bad/task.toml:3") && stderr.contains("`split`"), "{stderr}");

    let output =
        assay(folder.path(), &["task", "show", "programs.echo", "--json"]).output().unwrap();
    let shown = &lines(&output)[0];
    assert_eq!(shown["messages"][0]["content"], "Write a program that passes.");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("gold"), "the public view only");
}

#[test]
fn serve_says_where_it_listens_and_stops_when_told() {
    let folder = folder();
    let data = folder.path().join("data");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--json", "--data", data.to_str().unwrap()];
    let mut child =
        assay(folder.path(), &serve).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    let url = format!("http://{}", line["listening"].as_str().unwrap());

    let list = ["task", "list", "--json", "--server", &url];
    let output = assay(folder.path(), &list).output().unwrap();
    assert_eq!(lines(&output).len(), 1);
    let validate = ["task", "validate", "--all", "--server", &url];
    assert_eq!(assay(folder.path(), &validate).output().unwrap().status.code(), Some(2));

    let asked = Instant::now();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let mut rest = String::new();
    stdout.read_line(&mut rest).unwrap();
    assert_eq!(rest, "", "one line on stdout, nothing else");
    assert!(data.join("assay.db").exists());
}

/// Whether this machine runs real sandboxes.
fn ready() -> bool {
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_assay"));
    let ready = doctor.args(["doctor", "--json"]).output().unwrap().status.success();
    if !ready {
        println!("skipped: `assay doctor` says that this machine is not ready");
    }
    ready
}

#[test]
fn validate_finds_what_is_wrong_with_a_task() {
    if !ready() {
        return;
    }
    let folder = folder();
    let catalog = folder.path().join("catalog");
    write_secret_task(&catalog, "programs.good");
    let bad = support::write_program_task(&catalog, "programs.bad", "train");
    fs::write(bad.join("private/gold.py"), "raise SystemExit(1)\n").unwrap();
    let assay = |args: &[&str]| {
        let mut command = assay(folder.path(), args);
        command.env_remove("ASSAY_CACHE").output().unwrap()
    };
    let output =
        assay(&["task", "validate", "programs.good", "programs.bad", "--runs", "2", "--json"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = lines(&output);
    let of = |id: &str| lines.iter().find(|line| line["task"] == id).unwrap();
    let good = of("programs.good");
    assert_eq!((&good["valid"], &good["problems"]), (&json!(true), &json!([])), "{good}");
    let bad = of("programs.bad");
    assert_eq!(bad["valid"], false);
    assert!(bad["problems"].to_string().contains("gold is SCORED with reward 0"), "{bad}");
    let summary = &lines.last().unwrap()["summary"];
    assert_eq!((&summary["runs"], &summary["invalid"]), (&json!(2), &json!(1)), "{summary}");
    assert_eq!((&summary["tasks"], &summary["undecided"]), (&json!(2), &json!(0)), "{summary}");
    let evaluations = summary["evaluations"].as_object().unwrap();
    let sum: u64 = evaluations.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(sum, 2 * evaluations["requested"].as_u64().unwrap(), "{summary}");

    let one = assay(&["task", "validate", "programs.good", "--json"]);
    assert_eq!(one.status.code(), Some(0), "{}", String::from_utf8_lossy(&one.stderr));
}

#[test]
fn a_task_that_code_without_any_effect_solves_is_invalid() {
    if !ready() {
        return;
    }
    let folder = folder();
    let catalog = folder.path().join("catalog");
    let write = |id: &str, language: &str, test: &str, gold: (&str, &str)| {
        let dir = support::write_program_task(&catalog, id, "train");
        let task = format!(
            "schema = 1\nid = \"{id}\"\nlanguage = \"{language}\"\nsplit = \"train\"\n\n\
             [prompt]\ntemplate = \"problem.md\"\n\n[submission]\nkind = \"function\"\nentry = \"twice\"\n\
             signature = \"(words: list<str>, n: i64) -> i64\"\n\n\
             [[check]]\nid = \"asserts\"\nreport = \"function\"\n"
        );
        let task = match language {
            "python" => task.replace("signature = \"(words: list<str>, n: i64) -> i64\"\n", ""),
            _ => task,
        };
        fs::write(dir.join("task.toml"), task).unwrap();
        fs::write(dir.join("private/tests.py"), test).unwrap();
        fs::write(dir.join("private").join(gold.0), gold.1).unwrap();
    };
    support::write_program_task(&catalog, "programs.weak", "train");
    let (weak, strong) =
        ("def test_it(f): assert not f(['a'], 0)\n", "def test_it(f): assert f(['a'], 1) == 2\n");
    let assay = |args: &[&str]| {
        let mut command = assay(folder.path(), args);
        command.env_remove("ASSAY_CACHE").output().unwrap()
    };
    let c = "#include <stdint.h>\nint64_t twice(char **w, size_t l, int64_t n) { return 2 * n; }\n";
    for (language, gold) in [
        ("python", ("gold.py", "def twice(words, n): return 2 * n\n")),
        ("c", ("gold.c", c)),
        ("rust", ("gold.rs", "fn twice(words: &[String], n: i64) -> i64 { 2 * n }\n")),
    ] {
        write(&format!("functions.{language}_weak"), language, weak, gold);
    }
    write("functions.c_strong", "c", strong, ("gold.c", c));
    let functions = ["python_weak", "c_weak", "rust_weak", "c_strong"];
    let ids = functions.map(|name| format!("functions.{name}"));
    let mut validate = vec!["task", "validate", "--json", "programs.weak"];
    validate.extend(ids.iter().map(String::as_str));
    let output = assay(&validate);
    for line in lines(&output).iter().filter(|line| line["task"].is_string()) {
        let is_weak = line["task"].as_str().is_some_and(|id| id.ends_with("weak"));
        let told = line["problems"].to_string().contains("that does nothing passes");
        assert_eq!((is_weak, !is_weak), (told, line["valid"] == true), "{line}");
    }
    assert_eq!(lines(&output).last().unwrap()["summary"]["tasks"], 5);

    let output = assay(&["task", "attack", "functions.c_weak", "--json"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(lines(&output)[0]["problems"].to_string().contains("does nothing passes"));
}

#[test]
fn an_attack_that_earns_makes_a_task_invalid() {
    if !ready() {
        return;
    }
    let folder = folder();
    let catalog = folder.path().join("catalog");
    let weak = write_secret_task(&catalog, "programs.weak");
    fs::create_dir(weak.join("private/attacks")).unwrap();
    // Nothing earns more than what is right: it stands for an attack that works.
    fs::copy(weak.join("private/gold.py"), weak.join("private/attacks/found_by_a_policy.py"))
        .unwrap();
    let assay = |args: &[&str]| {
        let mut command = assay(folder.path(), args);
        command.env_remove("ASSAY_CACHE").output().unwrap()
    };
    let own = "private/attacks/found_by_a_policy.py";
    let output = assay(&["task", "attack", "programs.weak", "--json"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let report = &lines(&output)[0];
    assert_eq!(report["earning"], json!([own]), "{report}");
    let tried = report["tried"].as_array().unwrap();
    let of = |name: &str| tried.iter().find(|one| one["attack"] == name).unwrap();
    assert_eq!((&of("gold")["pass"], &of(own)["earns_more"]), (&json!(1.0), &json!(true)));
    assert_eq!(of("python/exit-at-import")["earns_more"], false);

    let output = assay(&["task", "validate", "programs.weak", "--runs", "2", "--json"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let problems = lines(&output)[0]["problems"].to_string();
    assert!(problems.contains(own), "{problems}");

    fs::remove_dir_all(weak.join("private/attacks")).unwrap();
    let output = assay(&["task", "attack", "programs.weak", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));

    let output = assay(&["task", "attack", "--list", "--json"]);
    let listed = lines(&output);
    assert!(listed.len() >= 40, "{} attacks", listed.len());
    assert!(listed.iter().all(|one| one["class"].is_string() && one["row"].is_u64()));
    let bare = assay(&["task", "attack"]);
    assert_eq!(bare.status.code(), Some(2));
}

#[test]
fn the_bench_states_what_it_measured() {
    if !ready() {
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    let output = command.args(["bench", "overhead", "-n", "2", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report = &lines(&output)[0];
    assert_eq!(report["n"], 2);
    for subject in ["fork_exec", "native_cold", "native", "kata"] {
        assert!(report[subject]["p50_ms"].as_f64().unwrap() > 0.0, "{subject}: {report}");
        assert!(report[subject]["p99_ms"].as_f64() >= report[subject]["p50_ms"].as_f64());
    }
    let compared = report["bwrap"].is_object();
    assert!(compared || report["skipped"]["bwrap"].is_string(), "said, if not measured: {report}");
}

#[test]
fn grading_is_measured_by_kind_of_record() {
    let folder = folder();
    let args = &["bench", "grading", "-n", "1000", "--tests", "1000", "--json"];
    let output = assay(folder.path(), args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report = &lines(&output)[0];
    assert_eq!(report["n"], 1000);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let seconds = |key: &str| row[key].as_f64().unwrap();
        assert!(seconds("whole_s") > 0.0 && seconds("scoring_s") > 0.0, "{row}");
        assert!(row["bytes"].as_u64().unwrap() > 1000, "{row}");
    }
    let formats = report["formats"].as_array().unwrap();
    for format in ["junit", "jest", "go-json", "unittest", "cargo", "log:parse_log_django"] {
        let row = formats.iter().find(|row| row["format"] == format).unwrap();
        assert!(row["mb_per_s"].as_f64() > Some(0.0) && row["ratio"].as_f64() > Some(0.0), "{row}");
    }
}

/// The real thing, where this machine has a root filesystem and the catalog's katas.
#[test]
fn a_kata_is_scored_in_a_real_sandbox() {
    let assay = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::piped());
        command
    };
    if !ready() {
        return;
    }
    let gold = assay(&["score", "--task", "katas.add", "--gold", "--json"]).output().unwrap();
    assert_eq!(gold.status.code(), Some(0), "{}", String::from_utf8_lossy(&gold.stderr));
    let line = &lines(&gold)[0];
    assert_eq!((&line["outcome"], &line["reward"]), (&json!("SCORED"), &json!(1.0)), "{line}");
    let mut keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected = [
        "cached",
        "components",
        "grade",
        "integrity",
        "outcome",
        "request_id",
        "reward",
        "task",
        "tests",
        "timings_ms",
        "usage",
    ];
    assert_eq!(keys, expected);

    let empty = assay(&["score", "--task", "katas.add", "--empty", "--json"]).output().unwrap();
    assert_eq!(empty.status.code(), Some(0));
    let line = &lines(&empty)[0];
    assert!(line["reward"].as_f64().unwrap() < 1.0, "{line}");

    let mut child =
        assay(&["score", "--task", "katas.add", "--completion", "-", "--json"]).spawn().unwrap();
    let answer = b"Sure!\n```python\ndef add(a, b):\n    return a - b\n```\n";
    child.stdin.take().unwrap().write_all(answer).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "a failing verdict is a verdict");
    let line = &lines(&output)[0];
    assert_eq!(line["outcome"], "SCORED");
    assert!(line["tests"]["failed"].as_u64().unwrap() > 0, "{line}");
}

/// What is told to end leaves no state behind.
#[test]
fn a_signal_ends_a_command_with_1() {
    if !ready() {
        return;
    }
    let folder = folder();
    let endless = folder.path().join("endless.py");
    fs::write(&endless, "while True: pass\n").unwrap();
    let score = ["score", "--task", "programs.echo", "--source", "endless.py"];
    let mut child = assay(folder.path(), &score)
        .env_remove("ASSAY_CACHE")
        .env("TMPDIR", folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let state = || {
        let entries = fs::read_dir(folder.path()).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("assay-")).count()
    };
    let started = Instant::now();
    while state() == 0 {
        assert!(started.elapsed() < Duration::from_secs(30), "it never started");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(state(), 0, "the temporary state is gone");
}

#[test]
fn images_come_and_go() {
    let folder = folder();
    let image = |args: &[&str]| {
        assay(folder.path(), &[&["--json", "image"], args].concat()).output().unwrap()
    };
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let tar = {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_path_with_name(fs::canonicalize("/bin/sh").unwrap(), "bin/sh").unwrap();
        tar.into_inner().unwrap()
    };
    fs::write(path("small.tar"), &tar).unwrap();
    fs::write(path("cut.tar"), &tar[..tar.len() / 2]).unwrap();

    let added = image(&["import", &path("small.tar"), "--name", "small:1"]);
    assert_eq!(added.status.code(), Some(0), "{}", String::from_utf8_lossy(&added.stderr));
    let listed = lines(&image(&["list"]));
    assert_eq!(listed, lines(&added));
    assert_eq!((&listed[0]["name"], &listed[0]["layers"]), (&json!("small:1"), &json!(1)));

    for (args, code, expected) in [
        (&["import", &path("cut.tar")][..], 2, "cut off"),
        (&["import", &path("no-such.tar")], 2, "no-such.tar"),
        (&["import", &path("small.tar"), "--name", "python"], 2, "are taken"),
        (&["pull", "a@sha256:0"], 2, "no image reference"),
        (&["pull", "127.0.0.1:1/none:1"], 1, "cannot pull the manifest"),
        (&["rm", "other"], 2, "no image `other` (there are: small:1)"),
        (&["list", "--server", "http://127.0.0.1:1"], 2, "--server"),
    ] {
        let output = image(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(expected), "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    let gone = lines(&image(&["rm", "small:1"]));
    assert_eq!(gone, [json!({ "name": "small:1", "layers": 1 })]);
    assert!(lines(&image(&["list"])).is_empty());
}

#[test]
fn doctor_names_what_is_missing_with_its_fix() {
    let folder = folder();
    let rootfs = folder.path().join("cache/rootfs/python");
    let tree = rootfs.join("tree");
    fs::create_dir_all(&tree).unwrap();
    let facts = format!(
        "path = {tree:?}\ndigest = \"sha256:0\"\npython = \"3\"\npytest = \"8\"\nsource = \"nowhere\"\n"
    );
    fs::write(rootfs.join("rootfs.toml"), facts).unwrap();
    let doctor = |cache: &Path| {
        let mut doctor = assay(folder.path(), &["doctor", "--json"]);
        doctor.env("ASSAY_CACHE", cache).env("DOCKER_HOST", "unix:///no/such/docker.sock");
        let output = doctor.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        lines(&output)
    };
    let expect = |found: &[Value], check: &str, state: &str, detail: &str, fix: &str| {
        let found = found.iter().find(|line| line["check"] == check).expect(check);
        assert_eq!(found["state"], state, "{found}");
        assert!(found["detail"].as_str().unwrap().contains(detail), "{found}");
        assert!(found["fix"].as_str().unwrap().contains(fix), "{found}");
    };
    let found = doctor(&folder.path().join("cache"));
    expect(&found, "rootfs", "missing", "there is no /bin/sh", "make rootfs");
    expect(&found, "toolchains", "reduced", "not made yet", "make toolchains");
    expect(&found, "docker", "reduced", "can't run", "DOCKER_HOST");

    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small file system");
        return;
    }
    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&full);
    assert!(mount.status().unwrap().success());
    let found = std::panic::catch_unwind(|| doctor(&full));
    assert!(Command::new("umount").arg(&full).status().unwrap().success());
    expect(&found.unwrap(), "disk", "missing", "MiB free", "assay image rm");
}
