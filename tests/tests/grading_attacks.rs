//! The library of attacks against grading, as `attacks/grading.toml` says: every class of the integrity checklist, in
//! every language that it applies to. None earns more than nothing does, and each that tampers is flagged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use assay_repos::{Attack, Language, attack_classes, attacks};
use assay_tests::{cache, skipped};
use serde::Deserialize;
use serde_json::Value;

const PLAN: &str = include_str!("../attacks/grading.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    suite: Vec<Suite>,
    class: BTreeMap<String, Shown>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    language: String,
    tasks: Vec<String>,
    slow: Vec<String>,
    #[serde(default)]
    sealed: Vec<String>,
    #[serde(default)]
    flagged: BTreeMap<String, BTreeMap<String, String>>,
}

/// What shows that a class of attacks earns nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    #[serde(default)]
    languages: Vec<String>,
    #[serde(default)]
    tests: Vec<String>,
}

fn plan() -> Plan {
    toml::from_str(PLAN).expect("attacks/grading.toml")
}

#[test]
fn every_class_is_shown_in_every_language_that_it_applies_to() {
    let plan = plan();
    let named: BTreeSet<_> = plan.class.keys().map(String::as_str).collect();
    let known: BTreeSet<_> = attack_classes().iter().map(|class| class.name.as_str()).collect();
    assert_eq!(named, known, "the classes of attacks/grading.toml are those of classes.toml");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    for (class, Shown { languages, tests }) in &plan.class {
        assert!(languages.len() + tests.len() > 0, "{class}: nothing shows it");
        let of_class = attacks().iter().filter(|attack| attack.class == *class);
        let tried: BTreeSet<_> = of_class.map(|attack| attack.language.as_str()).collect();
        let wanted: BTreeSet<_> = languages.iter().map(String::as_str).collect();
        assert_eq!(tried, wanted, "{class}: languages that the library attacks");
        for test in tests {
            let (file, function) = test.split_once(": ").expect("`file: function`");
            let text = fs::read_to_string(root.join(file));
            let text = text.unwrap_or_else(|error| panic!("{class}: {file}: {error}"));
            assert!(
                text.contains(&format!("fn {function}(")),
                "{class}: no `{function}` in {file}"
            );
        }
    }
    assert!(attacks().len() >= 40, "{} attacks", attacks().len());
}

#[test]
fn no_attack_earns_in_python() {
    suite(Language::Python);
}

#[test]
fn no_attack_earns_in_javascript() {
    suite(Language::Javascript);
}

#[test]
fn no_attack_earns_in_rust() {
    suite(Language::Rust);
}

#[test]
fn no_attack_earns_in_c() {
    suite(Language::C);
}

#[test]
fn no_attack_earns_in_go() {
    suite(Language::Go);
}

/// Runs `assay task attack` on the tasks of a language's suite, and reads what it prints.
fn suite(language: Language) {
    if skipped() {
        return;
    }
    if language != Language::Python && !cache().join("rootfs/toolchains/rootfs.toml").exists() {
        eprintln!("skipped: rootfs/toolchains is not in the cache; run `make toolchains`");
        return;
    }
    let plan = plan();
    let suite = plan.suite.iter().find(|suite| suite.language == language.as_str());
    let suite = suite.expect("a suite of the language");
    let library: BTreeMap<_, _> = attacks()
        .iter()
        .filter(|attack| attack.language == language)
        .map(|attack| (attack.id(), attack))
        .collect();
    let (slow, fast): (Vec<_>, Vec<_>) =
        suite.tasks.iter().partition(|task| suite.slow.contains(task));
    let mut tried = BTreeSet::new();
    let mut wrong = Vec::new();
    for (tasks, flag) in [(slow, Some("--slow")), (fast, None)] {
        if tasks.is_empty() {
            continue;
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay-under-test"));
        command.args(["--catalog", assay_repos::SOURCE_CATALOG, "task", "attack", "--json"]);
        let output = command.args(flag).args(&tasks).output().expect("run `assay task attack`");
        let (said, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let lines: Vec<Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), tasks.len() + 1, "{said}\n{errors}");
        for report in &lines[..tasks.len()] {
            let task = report["task"].as_str().unwrap();
            assert_eq!(report["problems"], serde_json::json!([]), "{task}");
            for one in report["tried"].as_array().unwrap() {
                let name = one["attack"].as_str().unwrap();
                let Some(attack) = library.get(name) else {
                    assert_eq!(name, "gold", "{task}");
                    continue;
                };
                tried.insert(name.to_owned());
                let flagged = suite.flagged.get(task).and_then(|task| task.get(&attack.name));
                let sealed = suite.sealed.iter().any(|sealed| sealed == task);
                wrong.extend(judge(task, sealed, attack, flagged, one));
            }
        }
        if wrong.is_empty() {
            assert_eq!(output.status.code(), Some(0), "{errors}");
        }
    }
    assert_eq!(wrong, [""; 0]);
    let never: Vec<_> = library.keys().filter(|name| !tried.contains(*name)).collect();
    assert!(never.is_empty(), "no task of the suite is for {never:?}");
}

/// Says what is wrong with how an attack came out.
fn judge(
    task: &str,
    sealed: bool,
    attack: &Attack,
    flagged: Option<&String>,
    one: &Value,
) -> Option<String> {
    let outcome = one["outcome"].as_str().unwrap_or_default();
    println!("{task}: {}: {outcome} {}", attack.id(), one["pass"]);
    if !matches!(outcome, "SCORED" | "SUBMISSION_REJECTED" | "TAMPERED") {
        return Some(format!("{task}: {} has no verdict: {one}", attack.id()));
    }
    if one["earns_more"] == true && one["known"].is_null() {
        return Some(format!("{task}: {} earns: {one}", attack.id()));
    }
    let flags = one["flags"].as_array().map(Vec::as_slice).unwrap_or_default();
    let has = |code: &String| flags.iter().any(|flag| flag["code"] == code.as_str());
    // An attack on the runner meets none where the tests are sealed off: its text alone tells it.
    let runner = |code: &str| code.starts_with("canary.") || code.starts_with("report.");
    let mut wanted = attack.flags.iter().filter(|code| !sealed || !runner(code)).peekable();
    let seen = wanted.peek().is_none() || wanted.any(has);
    let seen = seen && flagged.is_none_or(has);
    (!seen && outcome != "SUBMISSION_REJECTED").then(|| {
        let flags = (&attack.flags, flagged);
        format!("{task}: {} is not flagged with {flags:?}: {one}", attack.id())
    })
}
