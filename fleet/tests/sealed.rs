//! Sealed functions and suites in real sandboxes: what submissions in each language come to, and that no process
//! of a submission holds an expected value. Skips, and says so, what this machine lacks.
//!
//! This test has its own `main`, because the native backend starts its spawner from the running
//! executable.

mod common;
#[path = "sealed/fair.rs"]
mod fair;
#[path = "sealed/suite.rs"]
mod suite;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use assay_fleet::{Backends, Evaluation, Evaluator};
use assay_repos::{Catalog, Mode, SOURCE_CATALOG, Submission, Task, TaskId};
use assay_rewards::{Fault, GradeRecord, Outcome, TestStatus};
use assay_sandbox::{
    Backend, ImageRef, helper_main_if_asked,
    native::{Native, NativeConfig},
};
use common::{id, soon};
use futures::{StreamExt as _, stream};

fn main() -> ExitCode {
    helper_main_if_asked();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let native: Arc<dyn Backend> =
            match Native::start(NativeConfig::new(dir.path().join("sandboxes"))) {
                Ok(native) => Arc::new(native),
                Err(error) => {
                    println!("skipped: no native sandboxes here: {error}");
                    return;
                }
            };
        let Some(backends) = with_rootfs(Backends::new(), &native, "python") else {
            println!("skipped: no Python root filesystem; run `make rootfs`");
            return;
        };
        suite::tests_see_of_a_submission_what_they_see_beside_it(&backends, dir.path()).await;
        suite::no_submission_forges_or_sees_a_test(&backends, dir.path()).await;
        no_process_of_a_submission_holds_an_expected_value(&backends, dir.path()).await;
        match with_rootfs(backends, &native, "toolchains") {
            Some(backends) => {
                nor_does_one_in_another_language(&backends, dir.path()).await;
                let tasks = dir.path().join("fair");
                fair::submissions_pay_for_what_they_do_alone(backends.clone(), &tasks).await;
                submissions_in_every_language_get_their_due(backends, dir.path()).await
            }
            None => println!("skipped: no other languages; run `make toolchains`"),
        }
    });
    ExitCode::SUCCESS
}

fn cache() -> PathBuf {
    let home = |name: &str| std::env::var_os(name).map(PathBuf::from);
    home("ASSAY_CACHE")
        .or_else(|| home("XDG_CACHE_HOME").map(|dir| dir.join("assay")))
        .or_else(|| home("HOME").map(|dir| dir.join(".cache/assay")))
        .unwrap_or_default()
}

fn with_rootfs(backends: Backends, native: &Arc<dyn Backend>, name: &str) -> Option<Backends> {
    let text = fs::read_to_string(cache().join("rootfs").join(name).join("rootfs.toml")).ok()?;
    let facts: BTreeMap<String, String> = toml::from_str(&text).unwrap();
    let (path, digest) = (facts["path"].clone().into(), facts["digest"].clone());
    let image = ImageRef::Rootfs { path, digest: digest.clone() };
    Some(backends.with_image(name, Arc::clone(native), image, digest))
}

/// Copies the tasks of a set, each changed, and loads them. A busy machine needs no less CPU time than
/// an idle one, but more of the clock.
fn copied(from: &Path, to: &Path, change: impl Fn(String) -> String) -> Catalog {
    for task in fs::read_dir(from).unwrap() {
        let (from, to) = (task.as_ref().unwrap().path(), to.join(task.unwrap().file_name()));
        fs::create_dir_all(to.join("private")).unwrap();
        fs::copy(from.join("problem.md"), to.join("problem.md")).unwrap();
        for file in fs::read_dir(from.join("private")).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join("private").join(file.file_name())).unwrap();
        }
        let text = fs::read_to_string(from.join("task.toml")).unwrap();
        fs::write(to.join("task.toml"), change(text)).unwrap();
    }
    let catalog = Catalog::load(&[to.to_owned()], Path::new("/nonexistent"));
    assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
    catalog
}

/// Gives a task time for a scan.
fn patient(text: String) -> String {
    format!("{text}\n[limits]\ncpu_s = 60\nwall_s = 100\n")
}

/// Judges `source` and returns what is known of it.
async fn grade(evaluator: &Arc<Evaluator>, task: &TaskId, source: String) -> GradeRecord {
    let evaluation = Evaluation::new(id("sealed"), task.clone(), Submission::Source(source));
    let verdict = soon(task.as_str(), evaluator.evaluate(evaluation)).await;
    verdict.unwrap_or_else(|failure| panic!("{task}: {failure:?}")).record
}

/// Scanners in the other languages: they say by their end whether they found anything.
async fn nor_does_one_in_another_language(backends: &Backends, dir: &Path) {
    let from = Path::new(SOURCE_CATALOG).join("functions");
    let catalog = Arc::new(copied(&from, &dir.join("scanned"), patient));
    let evaluator = Arc::new(Evaluator::new(Arc::clone(&catalog), backends.clone()));
    let hex = |text: &str| -> String {
        text.bytes().map(|byte| format!("{:02x}", byte.wrapping_add(90))).collect()
    };
    // The task, the scanner, how it takes its needles, and a text that is in its process.
    let rows = [
        (
            "c_gcd",
            include_str!("sealed/scanner.c"),
            ["static const char *NEEDLES[] = {", "};"],
            "the call is cut short",
        ),
        (
            "rust_adler32",
            include_str!("sealed/scanner.rs"),
            ["const NEEDLES: &[&str] = &[", "];"],
            "the call is cut short",
        ),
        (
            "js_factorial",
            include_str!("sealed/scanner.js"),
            ["const NEEDLES = [", "];"],
            "does not define",
        ),
    ];
    for (name, scanner, [before, after], ours) in rows {
        let id: TaskId = format!("functions.{name}").parse().unwrap();
        let task = catalog.get(&id).unwrap();
        let tests = String::from_utf8(task.private_file("tests.py").unwrap()).unwrap();
        let lines = tests.lines().map(str::trim).filter(|line| line.len() > 20);
        let lines: Vec<_> = lines.map(hex).collect();
        assert!(lines.len() > 2, "{id}");
        for (needles, ended) in [(lines, false), (vec![hex(ours)], true)] {
            let source = format!("{before}\"{}\"{after}\n{scanner}", needles.join("\", \""));
            let record = grade(&evaluator, &id, source).await;
            let mut said = record
                .checks
                .iter()
                .flat_map(|check| &check.tests)
                .filter_map(|t| t.message.as_deref());
            let first = said.next().unwrap_or_default();
            let due = if ended { "the submission's process ended" } else { "line " };
            assert!(first.starts_with(due), "{id}, {ended}: {record:#?}");
        }
    }
    println!("ok: nor do scanners in C, Rust and JavaScript, which find what is there");
}

async fn submissions_in_every_language_get_their_due(backends: Backends, dir: &Path) {
    let from = Path::new(SOURCE_CATALOG).join("functions");
    let catalog = copied(&from, &dir.join("functions"), |text| {
        format!("{text}\n[limits]\ncpu_s = 1\nwall_s = 100\n")
    });
    let evaluator = Arc::new(Evaluator::new(Arc::new(catalog), backends));
    // What it does, its task, its source, the tests that pass, the failure, what a message says.
    let rows = [
        ("wrong", "c_gcd", "int64_t gcd(int64_t a, int64_t b) { return 1; }", 0, "", "line 6"),
        ("no C", "c_gcd", "int64_t gcd(int64_t a, { }", 0, "", "submission.c:1:24: error"),
        (
            "another type",
            "c_gcd",
            "int gcd(int a, int b) { return a; }",
            0,
            "",
            "conflicting types",
        ),
        ("no function", "c_gcd", "int x;", 0, "", "undefined reference to `gcd'"),
        (
            "crashes",
            "c_gcd",
            "int64_t gcd(int64_t a, int64_t b) { __builtin_trap(); }",
            0,
            "",
            "ended",
        ),
        (
            "loops",
            "c_gcd",
            "int64_t gcd(int64_t a, int64_t b) { for (;;); }",
            0,
            "cpu_limit",
            "ended",
        ),
        (
            "eats the compiler",
            "c_gcd",
            "#include \"/dev/zero\"",
            0,
            "memory_limit",
            "took too much memory",
        ),
        (
            "the length of nothing",
            "c_prefix_sums",
            "int64_t *prefix_sums(const int64_t *n, size_t l, size_t *r) { *r = -1; return (int64_t *)n; }",
            0,
            "",
            "can't cross",
        ),
        (
            "frames of its own",
            "c_gcd",
            "#include <unistd.h>\nint64_t gcd(int64_t a, int64_t b) { write(4, \"\\0\\0\\0\\1Txxxx\", 9); return 0; }",
            0,
            "",
            "broke the protocol",
        ),
        ("no Rust", "rust_adler32", "fn adler32(data: &[u8]) -> u64 { 1", 0, "", "submission.rs:1"),
        (
            "attributes first, and a wrong result",
            "rust_adler32",
            "//! Sums.\n#![allow(unused)]\nfn adler32(data: &[u8]) -> u64 { 1 }",
            1,
            "",
            "",
        ),
        (
            "another type",
            "rust_adler32",
            "fn adler32(_: &[u8]) -> u32 { 1 }",
            0,
            "",
            "mismatched types",
        ),
        (
            "panics, but for nothing",
            "rust_adler32",
            "fn adler32(d: &[u8]) -> u64 { if d.is_empty() { 1 } else { d[9999999].into() } }",
            1,
            "",
            "index out of bounds",
        ),
        (
            "overflows",
            "rust_adler32",
            "fn adler32(d: &[u8]) -> u64 { d.iter().fold(1, |a: u64, _| a * 1_000_000_007) }",
            1,
            "",
            "overflow",
        ),
        (
            "nothing, where an exception is due",
            "js_factorial",
            "const factorial = () => Symbol()",
            0,
            "",
            "a symbol can't cross",
        ),
        ("no JavaScript", "js_factorial", "function factorial(n) {", 0, "", "SyntaxError"),
        (
            "another name",
            "js_factorial",
            "function fact(n) {}",
            0,
            "",
            "does not define `factorial`",
        ),
        ("exits", "js_factorial", "function factorial(n) { process.exit(0) }", 0, "", "ended"),
        ("loops", "js_factorial", "function factorial(n) { for (;;); }", 0, "cpu_limit", "ended"),
        (
            "an object",
            "js_factorial",
            "const factorial = () => ({ valueOf() { return 1 } })",
            0,
            "",
            "can't cross",
        ),
        (
            "a proxy",
            "js_group_by_length",
            "const groupByLength = () => new Proxy({}, { ownKeys() { throw 1 } })",
            0,
            "",
            "a Proxy can't cross",
        ),
        (
            "a circle",
            "js_group_by_length",
            "const groupByLength = () => { const a = []; a.push(a, a); return a }",
            0,
            "",
            "nested deeper",
        ),
        (
            "a huge list of nothing",
            "js_group_by_length",
            "const groupByLength = () => new Array(4e9)",
            0,
            "",
            "can't cross",
        ),
        (
            "an int that Python does not print",
            "js_factorial",
            "const factorial = () => 10n ** 9000n",
            0,
            "",
            "line ",
        ),
        (
            "a getter is asked once",
            "js_group_by_length",
            "let n = 0;\nconst groupByLength = () => ({ get a() { throw new Error(`asked ${++n}`) } })",
            0,
            "",
            "asked 1",
        ),
        (
            "only the last word counts",
            "js_group_by_length",
            "const groupByLength = () => ({ toJSON() { return {} } })",
            0,
            "",
            "a function can't cross",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, task, source, passed, failure, message) in rows {
        let task: TaskId = format!("functions.{task}").parse().unwrap();
        let record = grade(&evaluator, &task, source.to_owned()).await;
        let tests: Vec<_> = record.checks.iter().flat_map(|check| &check.tests).collect();
        let count = tests.iter().filter(|test| test.status == TestStatus::Passed).count();
        let said: Vec<_> = tests.iter().filter_map(|test| test.message.as_deref()).collect();
        let fault = record.failure.as_ref().map(|failure| (failure.kind.as_str(), failure.fault));
        let due = record.outcome == Outcome::Scored
            && count == passed
            && fault == (!failure.is_empty()).then_some((failure, Fault::Submission))
            && said.iter().any(|said| said.contains(message));
        if !due {
            let outcome = record.outcome;
            wrong
                .push(format!("{task}: {name}: {outcome:?}, {count} passed, {fault:?}, {said:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("ok: {} submissions in other languages get their due", rows.len());
}

/// A submission that looks for what it is told to look for, wherever it can.
const SCANNER: &str = include_str!("sealed/scanner.py");
/// Least bytes of a value to look for. Shorter ones are in any process by chance.
const DISTINCTIVE: usize = 8;
/// Most things that one scan looks for.
const MOST: usize = 12;

async fn no_process_of_a_submission_holds_an_expected_value(backends: &Backends, dir: &Path) {
    let root = cache().join("data/humaneval");
    if !root.is_dir() {
        println!("skipped: HumanEval was not fetched; run `make data`");
        return;
    }
    let catalog = Arc::new(copied(&root, &dir.join("humaneval"), patient));
    let evaluator = Arc::new(Evaluator::new(Arc::clone(&catalog), backends.clone()));
    let tasks: Vec<_> = catalog.tasks().cloned().collect();
    assert_eq!(tasks.len(), 164);

    let mut work: Vec<_> = tasks.iter().map(|task| (Arc::clone(task), needles(task))).collect();
    let (lines, values) = work.iter().fold((0, 0), |(lines, values), (_, needles)| {
        (
            lines + usize::from(!needles.is_empty()),
            values + usize::from(needles.len() > needles.lines),
        )
    });
    assert_eq!(lines, 164, "every task has lines to look for");
    let scans = stream::iter(work.drain(..)).map(|(task, needles)| {
        let evaluator = Arc::clone(&evaluator);
        async move { scan(&evaluator, &task, &needles.all).await }
    });
    let scans: Vec<Scan> = scans.buffered(2).collect().await;
    let bytes: u64 = scans.iter().map(|scan| scan.bytes).sum();
    let places: u64 = scans.iter().flat_map(|scan| scan.places.values()).sum();
    for (scan, task) in scans.iter().zip(&tasks) {
        assert!(scan.hits.is_empty(), "{}: {scan:?}", task.id);
        for place in ["memory", "objects", "files", "links", "proc", "descriptors"] {
            assert!(
                scan.places.contains_key(place),
                "{}: did not look at {place}: {scan:?}",
                task.id
            );
        }
    }
    println!(
        "ok: 164 submissions looked at {} MB in {places} places for lines of their tests, {values} of them also \
         for expected values: 0 hits",
        bytes >> 20
    );

    // The same scanner finds what is there: a text of ours, and an argument of the call.
    let task = tasks.iter().find(|task| task.id.as_str() == "humaneval.000").unwrap();
    let ours = scan(&evaluator, task, &["Nothing that a verdict depends on".into()]).await;
    for place in ["memory", "objects", "files"] {
        assert!(ours.hits.contains_key(place), "{place}: {ours:?}");
    }
    // And expected values, where the tests share the process.
    let catalog = Arc::new(copied(&root, &dir.join("guarded"), |text| {
        patient(text.replace("schema = 1\n", "schema = 1\nmode = \"guarded\"\n"))
    }));
    let evaluator = Arc::new(Evaluator::new(Arc::clone(&catalog), backends.clone()));
    for task in catalog.tasks().step_by(40) {
        assert_eq!(task.mode, Mode::Guarded);
        let scan = scan(&evaluator, task, &needles(task).all).await;
        assert!(!scan.hits.is_empty(), "{}: {scan:?}", task.id);
    }
    println!(
        "ok: the same scanner finds what is in its process, and expected values where tests are guarded"
    );
}

/// What a scan for the expected values of one task looks for.
struct Needles {
    all: Vec<String>,
    lines: usize,
}

impl Needles {
    fn len(&self) -> usize {
        self.all.len()
    }

    fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// Lines of the tests, and the texts and long values that they expect and that no call is given.
fn needles(task: &Task) -> Needles {
    let tests = String::from_utf8(task.private_file("tests.py").unwrap()).unwrap();
    let gold = String::from_utf8(task.private_file("gold.py").unwrap()).unwrap();
    let asserts = || tests.lines().map(str::trim).filter(|line| line.starts_with("assert "));
    let lines: BTreeSet<&str> = match asserts().next() {
        Some(_) => asserts().filter(|line| line.contains("candidate")).take(MOST / 2).collect(),
        None => BTreeSet::new(),
    };
    // A check that is a loop or calls a helper has lines all the same.
    let lines = match lines.is_empty() {
        false => lines,
        true => tests.lines().map(str::trim).filter(|line| line.len() > 20).take(2).collect(),
    };
    let split = |line: &'_ str| {
        line.rsplit_once("==").map(|(call, value)| (call.to_owned(), value.to_owned()))
    };
    let pairs: Vec<_> = asserts().filter_map(split).collect();
    let given: String = pairs.iter().map(|(call, _)| call.as_str()).collect();
    let mut values = BTreeSet::new();
    for (_, value) in &pairs {
        let quotes = ['"', '\''];
        values.extend(value.split(quotes).skip(1).step_by(2));
        values.insert(value.trim());
    }
    values.retain(|value| {
        value.len() >= DISTINCTIVE && !given.contains(value) && !gold.contains(value)
    });
    let count = lines.len();
    let values = values.into_iter().take(MOST - count.min(MOST));
    let all = lines.into_iter().chain(values).map(str::to_owned).collect();
    Needles { all, lines: count }
}

/// What one scan says.
#[derive(Debug)]
struct Scan {
    bytes: u64,
    places: BTreeMap<String, u64>,
    hits: BTreeMap<String, u64>,
}

async fn scan(evaluator: &Arc<Evaluator>, task: &Task, needles: &[String]) -> Scan {
    let entry = task.submission.entry.as_ref().unwrap();
    let record =
        grade(evaluator, &task.id, format!("{}\n{entry} = scan\n", scanner(needles))).await;
    said_by_scanner(&record).unwrap_or_else(|| panic!("{}: {record:#?}", task.id))
}

/// The source of a function `scan` that looks for `needles`, and raises what it found.
fn scanner(needles: &[String]) -> String {
    let moved = |needle: &String| {
        let hex = needle.bytes().map(|byte| format!("{:02x}", byte.wrapping_add(90)));
        format!("bytes.fromhex(\"{}\")", hex.collect::<String>())
    };
    let list = needles.iter().map(moved).collect::<Vec<_>>().join(", ");
    format!("NEEDLES = [{list}]\n{SCANNER}\n")
}

/// What the last test that tells of a scan says of it.
fn said_by_scanner(record: &GradeRecord) -> Option<Scan> {
    let tests = record.checks.iter().flat_map(|check| &check.tests);
    let said = tests.filter_map(|test| test.message.as_deref());
    let (_, report) =
        said.filter_map(|said| said.split_once("LookupError: looked at ")).next_back()?;
    let (report, _) = report.split_once("; end")?;
    let mut parts = report.split("; ");
    let bytes = parts.next().unwrap().trim_end_matches(" bytes").parse().unwrap();
    let mut counts = |before: &str| -> BTreeMap<String, u64> {
        let words = parts.next().unwrap().trim_start_matches(before).split(' ');
        let counts = words.filter_map(|word| word.split_once('='));
        counts.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect()
    };
    let (places, hits) = (counts(""), counts("hits: "));
    Some(Scan { bytes, places, hits })
}
