//! `assay reward` against a service, and what that keeps when it is killed.

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Output, Stdio},
};

use serde_json::{Value, json};
use support::{assay, grade, store};

const MINE: &str = "schema = 1\nname = \"mine\"\n[[term]]\nname = \"part\"\n\
    value = \"must_pass.fraction\"\nweight = 0.5\n";

/// A service that is killed when dropped, as a crash would.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--json", "--data", "data"];
        let mut child = assay(folder, &[&serve, args].concat());
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        let url = format!("http://{}", line["listening"].as_str().unwrap());
        Self { child, url }
    }

    fn run(&self, folder: &Path, args: &[&str]) -> Output {
        assay(folder, &[args, &["--server", &self.url]].concat()).output().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_says_what_the_command_line_says() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    support::write_program_task(&folder.join("catalog"), "programs.echo", "train");
    fs::write(folder.join("mine.toml"), MINE).unwrap();
    let bad = MINE.replace("must_pass.fraction", "must_pass.fractoin");
    fs::write(folder.join("bad.toml"), &bad).unwrap();
    let grades: Vec<_> = (0..30).map(|number| grade(number, number % 3)).collect();
    let id = grades[1].id().to_string();
    store(&folder.join("data"), "run", grades).await;
    let service = Serving::start(folder, &[]);

    for args in [
        &["reward", "lint", "mine.toml"][..],
        &["reward", "explain", "mine.toml", "--grade", &id[..15]],
        &["reward", "explain", "swe-default", "--grade", &id, "--json"],
        &["reward", "dry-run", "mine.toml", "--against", "pass"],
        &["reward", "dry-run", "mine.toml", "--against", "pass", "--json"],
    ] {
        let there = said(&service.run(folder, args));
        let here = assay(folder, &[args, &["--data", "data"]].concat()).output().unwrap();
        assert_eq!(there, said(&here), "{args:?}");
        assert!(there.len() > 50, "{args:?}: {there}");
    }
    let there = service.run(folder, &["reward", "lint", "bad.toml"]);
    let here = assay(folder, &["reward", "lint", "bad.toml"]).output().unwrap();
    assert_eq!((&there.stdout, there.status.code()), (&here.stdout, Some(2)));
    assert_eq!(here.status.code(), Some(2));

    let none = service.run(folder, &["reward", "dry-run", "pass", "--run", "other"]);
    assert_eq!(none.status.code(), Some(2));
    let of_run = ["reward", "dry-run", "pass", "--run", "run", "--task", "programs.echo", "--json"];
    let of_run: Value = serde_json::from_str(&said(&service.run(folder, &of_run))).unwrap();
    assert_eq!((&of_run["records"], &of_run["complete"]), (&json!(30), &json!(true)));

    for (args, told) in [
        (&["reward", "put", "bad.toml"][..], "did you mean `must_pass.fraction`?"),
        (&["reward", "put", "none.toml"], "read none.toml"),
        (&["reward", "explain", "pass"], "--grade"),
        (&["reward", "explain", "pass", "--grade", "0000000000"], "no grade"),
        (&["reward", "explain", "pass", "--grade", "xyz"], "is no grade id"),
        (&["reward", "explain", "passs", "--grade", &id], "did you mean `pass`?"),
        (&["reward", "dry-run", "pass", "--records", "data"], "--records names grades"),
        (
            &["score", "--task", "programs.echo", "--gold", "--reward", "mine.toml"],
            "assay reward put",
        ),
    ] {
        let output = service.run(folder, args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(told), "{args:?}: {stderr}");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    }
    for args in [&["reward", "list"][..], &["reward", "dry-run", "pass", "--run", "run"]] {
        let output = assay(folder, args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--server"), "{args:?}");
    }
}

/// What was put is there after SIGKILL, under the same version; files named at the start are
/// versions like any other.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_survives_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("catalog")).unwrap();
    fs::write(folder.join("mine.toml"), MINE).unwrap();
    store(&folder.join("data"), "run", [grade(1, 1)]).await;
    let service = Serving::start(folder, &["--reward", "mine.toml"]);
    let list = |service: &Serving| -> Vec<(u64, bool)> {
        let told = said(&service.run(folder, &["reward", "list", "--name", "mine", "--json"]));
        let line = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
        let version =
            |one: Value| (one["version"].as_u64().unwrap(), one["newest"].as_bool().unwrap());
        told.lines().map(line).map(version).collect()
    };
    assert_eq!(list(&service), [(1, true)]);
    fs::write(folder.join("other.toml"), MINE.replace("0.5", "0.25")).unwrap();
    let put = said(&service.run(folder, &["reward", "put", "other.toml", "mine.toml"]));
    let put: Vec<_> = put.lines().collect();
    assert!(put[0].starts_with("mine@2 ") && !put[0].contains("newest"), "{put:?}");
    assert!(put[1].starts_with("mine@1 ") && put[1].ends_with("not the newest"), "{put:?}");
    drop(service);

    // The start does not turn the name back to its own file.
    let service = Serving::start(folder, &["--reward", "mine.toml"]);
    assert_eq!(list(&service), [(1, false), (2, true)]);
    let diff = |old: &str, new: &str| {
        let output = service.run(folder, &["reward", "diff", old, new]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let weight = "mine -> mine\n  term part.weight  0.5 -> 0.25\n";
    assert_eq!(diff("mine@1", "mine"), (Some(1), weight.to_owned()));
    // One that lies here beside one that lies there.
    let none = "mine -> mine: no difference\n";
    assert_eq!(diff("mine.toml", "mine@1"), (Some(0), none.to_owned()));
    assert_eq!(diff("mine@1", "mine@3").0, Some(2));
    let id = grade(1, 1).id().to_string();
    for (name, worth) in [("mine", 0.125), ("mine@1", 0.25), ("mine@2", 0.125)] {
        let explain = ["reward", "explain", name, "--grade", &id, "--json"];
        let told: Value = serde_json::from_str(&said(&service.run(folder, &explain))).unwrap();
        assert_eq!(told["reward"], json!(worth), "{name}");
    }
}
