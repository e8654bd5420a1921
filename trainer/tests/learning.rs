//! The loop as a user starts it, on the tiny policy: it learns, resumes, stops and refuses.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// `assay-train` with `arguments`; one thread, since the model is too small for more.
fn assay_train(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay-train"));
    command.args(arguments).env("OMP_NUM_THREADS", "1");
    command
}

/// `run --policy tiny` into `out` with some keys set.
fn tiny(out: &Path, sets: &[&str]) -> Command {
    let out = format!("run.out={}", out.display());
    let mut arguments = vec!["run", "--policy", "tiny", "--set", &out];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    assay_train(&arguments)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn run(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

/// The run's metrics without what a clock says.
fn metrics(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let step = |line: &str| {
        let mut step: Value = serde_json::from_str(line).unwrap();
        let fields = step.as_object_mut().unwrap();
        for clock in ["seconds", "sample_tokens_per_s", "train_tokens_per_s"] {
            fields.remove(clock);
        }
        step
    };
    text.lines().map(step).collect()
}

#[test]
fn learns_a_toy_from_random_weights() {
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    run(tiny(folder.path(), &[]));
    let steps = metrics(folder.path());
    let reward = |steps: &[Value]| {
        steps.iter().map(|step| step["reward_mean"].as_f64().unwrap()).sum::<f64>()
            / steps.len() as f64
    };
    let (first, last) = (reward(&steps[..5]), reward(&steps[steps.len() - 5..]));
    println!("reward {first:.3} -> {last:.3} in {} steps, {:?}", steps.len(), started.elapsed());
    assert!(first < 0.2 && last > 0.9, "{first} -> {last}");
    assert!(steps.iter().all(|step| step["clip_share"] == 0.0 && step["skipped_updates"] == 0));
}

#[test]
fn a_resumed_run_gives_the_same_numbers() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Every stage that has a state: KL reference, several updates, shuffled rewards.
    let sets = [
        "loss.kl=0.1",
        "loss.minibatches=2",
        "loss.shuffle_rewards=true",
        "run.checkpoint_every=2",
    ];
    let with = |steps| [&sets[..], &[steps]].concat();
    run(tiny(whole.path(), &with("run.steps=6")));
    run(tiny(parts.path(), &with("run.steps=3")));
    let mut resumed = tiny(parts.path(), &with("run.steps=6"));
    resumed.arg("--resume");
    run(resumed);
    let (whole, parts) = (metrics(whole.path()), metrics(parts.path()));
    assert_eq!(whole.len(), 6);
    assert_eq!(whole, parts);
}

#[test]
fn an_interrupt_saves_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let mut child =
        tiny(folder.path(), &["run.steps=100000"]).stderr(Stdio::null()).spawn().unwrap();
    let metrics_path = folder.path().join("metrics.jsonl");
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&metrics_path).map_or(0, |file| file.len()) == 0 {
        assert!(Instant::now() < deadline, "no step within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    let steps = metrics(folder.path()).len();
    let checkpoint = folder.path().join(format!("checkpoints/step-{steps:06}"));
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "optimizer.safetensors",
        "resume.json",
    ] {
        assert!(checkpoint.join(file).is_file(), "{file}");
    }
    // The checkpoint is a policy like any other.
    let sets = format!("run.out={}", folder.path().display());
    let policy = checkpoint.display().to_string();
    let refused = assay_train(&[
        "eval",
        "--policy",
        &policy,
        "--server",
        "http://127.0.0.1:1",
        "--set",
        "service.retry_s=0.2",
        "--set",
        &sets,
    ]);
    let output = { refused }.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("unavailable") && stderr(&output).contains("Float"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn measures_and_compares() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let out = format!("run.out={}", folder.path().display());
    let evaluate = |file: &str, seed: &str| {
        let arguments =
            ["eval", "--policy", "tiny", "--set", &out, "--out", file, "--seed", seed, "--json"];
        run(assay_train(&arguments))
    };
    let output = evaluate(&file("a.json"), "1");
    let event: Value = serde_json::from_slice(&output.stdout).unwrap();
    let summary = &event["evaluation"]["summary"];
    assert_eq!(
        (&summary["tasks"], &summary["invalid"]),
        (&Value::from(12), &Value::from(0)),
        "{summary}"
    );
    evaluate(&file("b.json"), "2");
    let output = run(assay_train(&["compare", &file("a.json"), &file("b.json"), "--json"]));
    let comparison: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(comparison["pass_at_1"]["tasks"], 12, "{comparison}");
}

#[test]
fn the_demo_reports() {
    let folder = tempfile::tempdir().unwrap();
    let out = format!("run.out={}", folder.path().display());
    let output =
        run(assay_train(&["demo", "--policy", "tiny", "--set", &out, "--set", "run.steps=3"]));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("pass@1 (T=1)") && text.contains("report: "), "{text}");
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("<polyline") && page.matches("<section>").count() == 10);
    let result: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("result.json")).unwrap()).unwrap();
    assert_eq!(result["run"]["step"], 3);
}

#[test]
fn what_is_refused_and_how() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.toml");
    std::fs::write(&file, "[policy]\npath = \"tiny\"\n[optimizer]\nlearning_rate = 1\n").unwrap();
    let file = file.display().to_string();
    let gguf = folder.path().join("broken.gguf");
    std::fs::write(&gguf, b"GGUF\x03\0\0\0").unwrap();
    let gguf = gguf.display().to_string();
    let out = format!("run.out={}", folder.path().display());
    let cases: [(&[&str], i32, &str); 6] = [
        (&["run", "--config", &file], 2, "train.toml:4: unknown key `learning_rate`"),
        (&["run", "--config", "/nonexistent.toml"], 2, "/nonexistent.toml"),
        (&["run", "--policy", "tiny", "--set", "loss.epsilom=1"], 2, "did you mean `epsilon`"),
        (
            &["run", "--policy", &gguf, "--server", "http://127.0.0.1:1", "--set", &out],
            2,
            "broken.gguf",
        ),
        (
            &["run", "--policy", &gguf, "--assay", "/nonexistent", "--set", &out],
            1,
            "cannot start /nonexistent",
        ),
        (&["run", "--no-such-flag"], 2, "--no-such-flag"),
    ];
    for (arguments, status, message) in cases {
        let output = assay_train(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}
