//! Real components: the example, and every way to be none or to go wrong.

#[path = "../examples/component/encode.rs"]
mod encode;

use std::{env, fs, os::unix::fs::symlink, path::Path, process::Command};

use assay_plugin::Folder;
use assay_repos::{Digest, Flag, Mode, PatchFacts, ReportKind, Severity, TaskLimits};
use assay_rewards::{
    CheckRecord, Generation, GradeHeader, GradeRecord, GradedTest, RewardError, RewardSpec, Role,
    Score, TaskFacts, TestCounts, TestStatus, explain, score,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use encode::component;

const STREAK: &str = include_str!("../examples/streak.wat");

/// A record with these tests: their status, and whether they have to pass.
fn record(tests: &[(TestStatus, bool)]) -> GradeRecord {
    let header = GradeHeader {
        task: "demo.0001".parse().unwrap(),
        task_digest: Digest::of("task"),
        image_digest: "image".into(),
        submission_digest: Digest::of("submission"),
        backend: "fake".into(),
        mode: Mode::Guarded,
        limits: TaskLimits::default(),
        generation: Generation::default(),
        external: [("judge".to_owned(), 0.25)].into(),
        task_facts: TaskFacts::default(),
        runner: "test".into(),
    };
    let mut record = header.grade(PatchFacts::default(), Vec::new(), &[], None);
    let mut counts = TestCounts::default();
    tests.iter().for_each(|(status, _)| counts.add(*status));
    let test = |(i, (status, must)): (usize, &(TestStatus, bool))| GradedTest {
        id: format!("tests/a.py::t{i}"),
        status: *status,
        role: if *must { Role::MustPass } else { Role::Other },
        duration_s: Some(0.5),
        message: Some("assert 1 == 2".into()),
    };
    record.checks.push(CheckRecord {
        id: "unit".into(),
        report: ReportKind::Pytest,
        ran: true,
        counts,
        must_pass: Default::default(),
        must_keep: Default::default(),
        exact: None,
        tests: tests.iter().enumerate().map(test).collect(),
        usage: Default::default(),
        start: Default::default(),
        canaries: Default::default(),
    });
    record
}

fn solved() -> GradeRecord {
    record(&[(TestStatus::Passed, true)])
}

/// A folder with one plugin and a reward file that reads it.
struct Lab {
    folder: TempDir,
    table: String,
    value: &'static str,
}

impl Lab {
    fn new(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("p.wasm"), bytes).unwrap();
        Self { folder, table: "path = \"p.wasm\"".into(), value: "plugin.p" }
    }

    /// One whose `evaluate` is this code.
    fn code(evaluate: &str) -> Self {
        Self::new(&component(&module(evaluate)).unwrap())
    }

    fn load(&self) -> Result<RewardSpec, Vec<RewardError>> {
        let Self { table, value, .. } = self;
        let text = format!(
            "schema = 1\nname = \"t\"\n[[term]]\nname = \"one\"\nvalue = \"tests.ran\"\n\
             [[term]]\nname = \"p\"\nvalue = \"{value}\"\n[plugin.p]\n{table}\n"
        );
        let file = self.folder.path().join("t.toml");
        RewardSpec::parse_with(&text, &file, &Folder::of(&file))
    }

    fn refused(&self) -> String {
        let errors = self.load().unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors[0].to_string()
    }

    fn score(&self) -> Score {
        score(&solved(), &self.load().unwrap())
    }
}

/// The frame of the example around other code.
fn module(evaluate: &str) -> String {
    let (head, rest) = STREAK.split_once("(local $end i32)").unwrap();
    let (_, realloc) = rest.split_once("  ;; Where the host puts").unwrap();
    format!("{head} (local $end i32) {evaluate})\n  ;; Where the host puts{realloc}")
}

/// Code that returns a number.
fn number(number: &str) -> String {
    format!("(f64.store (i32.const 8) {number}) (i32.const 0)")
}

#[test]
fn the_example_counts_the_row() {
    use TestStatus::{Failed, Passed, Skipped, Xfailed};

    let mut lab = Lab::new(&component(STREAK).unwrap());
    lab.value = "plugin.p * 2";
    let spec = lab.load().unwrap();
    assert!(spec.has_plugins());
    let cases: &[(&[(TestStatus, bool)], f64)] = &[
        (&[(Passed, true)], 1.0),
        (&[(Passed, true), (Failed, true), (Passed, true), (Passed, true)], 0.25),
        (&[(Failed, true), (Passed, true)], 0.0),
        (&[(Passed, true), (Failed, false), (Passed, true), (Skipped, true)], 2.0 / 3.0),
        (&[(Xfailed, true), (Passed, true)], 0.0),
    ];
    for (tests, part) in cases {
        let scored = score(&record(tests), &spec);
        assert_eq!(scored.components[1].value, Some(part * 2.0), "{tests:?}: {scored:?}");
    }
    let scored = score(&record(&[(Passed, false)]), &spec);
    assert_eq!(scored.reward, None);
    let mask = "term `p` needs `plugin.p`, which says: no test has to pass";
    assert_eq!(scored.mask.as_deref(), Some(mask));
    let told = explain(&record(&[(Passed, false)]), &spec).to_string();
    assert!(told.contains("plugin.p lacking: it says: no test has to pass"), "{told}");
}

#[test]
fn a_plugin_sees_the_whole_grade() {
    // The number of facts, of tests and of flags, and the first bytes of what is text.
    let code = "(f64.store (i32.const 8) (f64.add (f64.convert_i32_u (local.get $facts-count))
        (f64.add (f64.mul (f64.const 1000) (f64.convert_i32_u (local.get $tests-count)))
        (f64.add (f64.mul (f64.const 1000000) (f64.convert_i32_u (local.get $flags-count)))
        (f64.add (f64.mul (f64.const 1e8) (f64.convert_i32_u (i32.load8_u (local.get $task))))
        (f64.mul (f64.const 1e11)
            (f64.convert_i32_u (i32.and (i32.const 1) (i32.load8_u (local.get $backend)))))))))) (i32.const 0)";
    let lab = Lab::code(code);
    let mut record = record(&[(TestStatus::Passed, true), (TestStatus::Failed, false)]);
    let severity = Severity::Info;
    record.flags.push(Flag { code: "a".into(), severity, evidence: "b".into() });
    let spec = lab.load().unwrap();
    let seen = |record: &GradeRecord| score(record, &spec).components[1].value.unwrap();
    let number = seen(&record);
    assert_eq!((number / 1e6).floor(), f64::from(b'd') * 100.0 + 1.0);
    assert_eq!((number / 1e3).floor() % 1e3, 2.0);
    // Facts that are lacking are not among them, and a new one is.
    record.external.insert("more".into(), 1.0);
    assert_eq!(seen(&record), number + 1.0);
}

#[test]
fn the_same_number_a_thousand_times() {
    // What is left of the call before would show: memory and a global are counted up.
    let code = "(global.set $free (i32.add (global.get $free) (i32.const 1)))
        (i32.store (i32.const 32) (i32.add (i32.load (i32.const 32)) (i32.const 1)))
        (f64.store (i32.const 8) (f64.convert_i32_u
            (i32.add (global.get $free) (i32.load (i32.const 32))))) (i32.const 0)";
    let lab = Lab::code(code);
    let (spec, record) = (lab.load().unwrap(), solved());
    let first = score(&record, &spec);
    assert!(first.components[1].value.is_some_and(|number| number > 64.0), "{first:?}");
    for _ in 0..1000 {
        assert_eq!(score(&record, &spec), first);
    }
    // Another engine's compilation of the same bytes is the same, too.
    assert_eq!(score(&record, &lab.load().unwrap()), first);
}

#[test]
fn a_plugin_that_goes_wrong_has_no_number() {
    let nan = "(f64.div (f64.const 0) (f64.const 0))";
    let grow = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        (unreachable)";
    let recurse = "(call $again)) (func $again (result i32) (call $again) (drop) (i32.const 0)";
    let cases = [
        ("trap", "(unreachable)".to_owned(), "trapped: wasm `unreachable` instruction executed"),
        (
            "divide",
            "(i32.div_s (i32.const 1) (i32.const 0))".into(),
            "trapped: integer divide by zero",
        ),
        ("outside", "(i32.load (i32.const -4))".into(), "trapped: out of bounds memory"),
        ("recursion", recurse.into(), "trapped: call stack exhausted"),
        (
            "loop",
            "(loop $on (br $on)) (i32.const 0)".into(),
            "used up its fuel of 1000000 instructions",
        ),
        ("bomb", grow.into(), "trapped after asking for more than 8 MiB of memory"),
        ("nan", number(nan), "returned NaN, not a number from -1e12 to 1e12"),
        ("infinity", number("(f64.const -inf)"), "returned -inf"),
        ("huge", number("(f64.const 1e13)"), "returned 10000000000000, not a number from"),
        ("a pointer", "(i32.const -8)".into(), "gave no valid answer"),
        (
            "a case",
            "(i32.store8 (i32.const 0) (i32.const 7)) (i32.const 0)".into(),
            "gave no valid answer",
        ),
    ];
    for (name, code, why) in cases {
        let mut lab = Lab::code(&code);
        lab.table.push_str("\nfuel = 1_000_000\nmemory_mb = 8");
        let scored = lab.score();
        assert_eq!((scored.reward, scored.components[1].value), (None, None), "{name}");
        let mask = scored.mask.unwrap();
        assert!(mask.contains(why), "{name}: {mask}");
        assert!(mask.starts_with("term `p` needs `plugin.p`, which "), "{name}: {mask}");

        // The rest stands where the file asks first, and says that a failure may be asked for.
        lab.value = "if(known(plugin.p), 1, 0)";
        assert_eq!(lab.score().reward, None, "{name}");
        lab.table.push_str("\non_error = \"absent\"");
        let scored = lab.score();
        assert_eq!(scored.reward, Some(1.0), "{name}");
        assert!(scored.flags[0].evidence.contains(why), "{name}: {:?}", scored.flags);
        lab.value = "plugin.p";
        assert_eq!(lab.score().reward, None, "{name}");
    }
}

/// A refusal that every machine gives alike is the plugin's to deal with.
#[test]
fn a_plugin_that_is_refused_memory_may_go_on() {
    // (what it asks for, in pages of 64 KiB; what it is told)
    let asked = |pages: &str| format!("(memory.grow (i32.const {pages}))");
    let cases = [
        ("more than its limit", asked("200"), -1.0),
        ("more than a memory can be", asked("-1"), -1.0),
        ("less, after it was refused more", format!("(drop {}) {}", asked("200"), asked("2")), 1.0),
    ];
    for (name, ask, told) in cases {
        let mut lab =
            Lab::code(&number(&format!("(f64.convert_i32_s (block (result i32) {ask}))")));
        lab.table.push_str("\nmemory_mb = 8");
        assert_eq!(lab.score().components[1].value, Some(told), "{name}: {:?}", lab.score());
        // One that breaks off then did so itself.
        let mut lab = Lab::code(&format!("(drop (block (result i32) {ask})) (unreachable)"));
        lab.table.push_str("\nmemory_mb = 8");
        let mask = lab.score().mask.unwrap();
        assert!(mask.contains("trapped") && !mask.contains("could not be run"), "{name}: {mask}");
    }
}

/// What a plugin makes of memory that this machine lacks would be another number elsewhere.
#[test]
fn memory_that_the_host_lacks_gives_no_number() {
    const NAME: &str = "memory_that_the_host_lacks_gives_no_number";
    // The limit holds for a whole process.
    if env::var_os("ASSAY_TEST_ALONE").is_none() {
        let mut alone = Command::new(env::current_exe().unwrap());
        alone.args(["--exact", NAME, "--nocapture"]).env("ASSAY_TEST_ALONE", "1");
        assert!(alone.status().unwrap().success());
        return;
    }
    let memory = "(memory.grow (i32.const 8192))";
    // Its entries count for 16 bytes, and take 8.
    let table = "(table.grow $t (ref.null func) (i32.const 60000000))";
    let with_table = |code: String| format!("{code}) (table $t 1 funcref) (func $other");
    let goes_on = |ask: &str| number(&format!("(f64.convert_i32_s {ask})"));
    let breaks = |ask: &str| format!("(drop {ask}) (unreachable)");
    let codes =
        [goes_on(memory), breaks(memory), with_table(goes_on(table)), with_table(breaks(table))];
    let specs = codes.map(|code| {
        let mut lab = Lab::code(&code);
        lab.table.push_str("\nmemory_mb = 1024\non_error = \"absent\"");
        lab.value = "if(known(plugin.p), 1, 0)";
        lab.load().unwrap()
    });
    let record = solved();
    let rewards = || specs.iter().map(|spec| score(&record, spec)).collect::<Vec<_>>();
    let there: Vec<_> = rewards().into_iter().map(|score| score.reward).collect();
    assert_eq!(there, [Some(2.0), Some(1.0), Some(2.0), Some(1.0)]);

    let used = fs::read_to_string("/proc/self/status").unwrap();
    let used = used.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    let used: u64 = used.trim().trim_end_matches(" kB").parse().unwrap();
    let limits = getrlimit(Resource::Data);
    let current = Some((used << 10) + (128 << 20));
    setrlimit(Resource::Data, Rlimit { current, ..limits }).unwrap();
    let lacking = rewards();
    setrlimit(Resource::Data, limits).unwrap();
    for scored in lacking {
        let mask = scored.mask.unwrap();
        assert!(mask.contains("which could not be run: "), "{mask}");
        assert_eq!(scored.reward, None, "{mask}");
    }
    assert_eq!(rewards().into_iter().map(|score| score.reward).collect::<Vec<_>>(), there);
}

#[test]
fn words_of_a_plugin_are_bounded_and_utf8() {
    let says = |at: usize, bytes: usize| {
        format!(
            "(i32.store8 (i32.const 0) (i32.const 1)) (i32.store (i32.const 8) (i32.const {at}))
             (i32.store (i32.const 12) (i32.const {bytes})) (i32.const 0)"
        )
    };
    let mask = |code: &str| Lab::code(code).score().mask.unwrap();
    assert!(mask(&says(4096, 10_000)).len() < 400);
    let odd = format!("(i32.store8 (i32.const 40) (i32.const 255)) {}", says(40, 1));
    let told = mask(&odd);
    assert!(told.contains("gave no valid answer"), "{told}");
}

#[test]
fn files_that_are_no_plugin_are_refused_when_they_are_loaded() {
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let start =
        module("(i32.const 0)").replace("(memory ", "(func $s (unreachable)) (start $s) (memory ");
    let cases = [
        ("text", b"(component)".to_vec(), "no WebAssembly component"),
        ("nothing", Vec::new(), "no WebAssembly component"),
        ("module", wat("(module)"), "make one of it with `wasm-tools component new`"),
        ("cut", component(STREAK).unwrap()[..200].to_vec(), "no valid WebAssembly component"),
        ("empty", wat("(component)"), "not `assay:reward/scoring@1.0.0` with `evaluate`"),
        (
            "imports",
            wat("(component (import \"wasi:clocks/wall-clock@0.2.0\" (instance))
                (import \"judge\" (func)))"),
            "it imports `wasi:clocks/wall-clock@0.2.0`, `judge`, and a plugin imports nothing",
        ),
        (
            "another world",
            wat("(component (instance $i) (export \"assay:style/scoring@1.0.0\" (instance $i)))"),
            "it exports `assay:style/scoring@1.0.0` and not",
        ),
        (
            "another type",
            wat("(component (core module $m (func (export \"f\") (result f64) f64.const 1))
                (core instance $c (instantiate $m))
                (func $f (result f64) (canon lift (core func $c \"f\")))
                (instance $i (export \"evaluate\" (func $f)))
                (export \"assay:reward/scoring@1.0.0\" (instance $i)))"),
            "`evaluate` has another type than in assay:reward@1.0.0: ",
        ),
        (
            "threads",
            wat("(component (core module (memory 1 1 shared)))"),
            "no valid WebAssembly component",
        ),
        (
            "relaxed vectors",
            wat("(component (core module (func (param v128) (result v128) local.get 0
                i32x4.relaxed_trunc_f32x4_s)))"),
            "no valid WebAssembly component",
        ),
        ("start", component(&start).unwrap(), "it can't be started: trapped"),
        ("size", vec![0; (4 << 20) + 1], "larger than 4 MiB"),
    ];
    for (name, bytes, why) in cases {
        let told = Lab::new(&bytes).refused();
        assert!(told.contains(why), "{name}: {told}");
        assert!(told.contains("t.toml:10:8: plugin `p`: "), "{name}: {told}");
    }
    let big = STREAK.replace("\"memory\") 1)", "\"memory\") 2000)");
    let told = Lab::new(&component(&big).unwrap()).refused();
    assert!(told.ends_with("it can't be started: needs more than 64 MiB of memory"), "{told}");
}

#[test]
fn a_plugin_lies_in_the_folder_of_its_file() {
    let mut lab = Lab::new(&component(STREAK).unwrap());
    let outside = tempfile::tempdir().unwrap();
    fs::copy(lab.folder.path().join("p.wasm"), outside.path().join("p.wasm")).unwrap();
    fs::create_dir(lab.folder.path().join("sub")).unwrap();
    fs::copy(lab.folder.path().join("p.wasm"), lab.folder.path().join("sub/p.wasm")).unwrap();
    symlink(outside.path().join("p.wasm"), lab.folder.path().join("link.wasm")).unwrap();
    symlink(lab.folder.path().join("p.wasm"), lab.folder.path().join("sub/near.wasm")).unwrap();
    for good in ["sub/p.wasm", "./p.wasm", "sub/near.wasm"] {
        lab.table = format!("path = \"{good}\"");
        assert!(lab.load().is_ok(), "{good}: {:?}", lab.load());
    }
    let away = outside.path().join("p.wasm").display().to_string();
    let cases = [
        (away.as_str(), "lies outside the folder of the reward file"),
        ("../p.wasm", "lies outside the folder of the reward file"),
        ("sub/../../p.wasm", "lies outside the folder of the reward file"),
        ("link.wasm", "is a link out of the folder of the reward file"),
        ("none.wasm", "none.wasm: No such file or directory"),
        ("sub", "is no file"),
        ("", "lies outside the folder of the reward file"),
    ];
    for (path, why) in cases {
        lab.table = format!("path = \"{path}\"");
        let told = lab.refused();
        assert!(told.contains(why), "{path}: {told}");
    }
}

#[test]
fn the_bytes_of_a_plugin_are_part_of_the_file() {
    let one = Lab::code(&number("(f64.const 1)")).load().unwrap();
    let same = Lab::code(&number("(f64.const 1)")).load().unwrap();
    let two = Lab::code(&number("(f64.const 2)")).load().unwrap();
    assert_eq!((one.digest(), &one), (same.digest(), &same));
    assert_ne!(one.digest(), two.digest());
    assert_ne!(one, two);
}

#[test]
fn a_record_without_its_tests_is_not_judged() {
    let mut lab = Lab::new(&component(STREAK).unwrap());
    lab.table.push_str("\non_error = \"absent\"");
    let skimmed = GradeRecord::skim_json(solved().to_json().as_bytes()).unwrap();
    let scored = score(&skimmed, &lab.load().unwrap());
    let mask = "term `p` needs `plugin.p`, which could not be run: the record was read without its \
                tests";
    assert_eq!((scored.reward, scored.mask.as_deref()), (None, Some(mask)));
    // It is no failure of the plugin's that a file may ask for.
    lab.value = "if(known(plugin.p), 1, 0)";
    assert_eq!(score(&skimmed, &lab.load().unwrap()).reward, None);
    assert_eq!(score(&solved(), &lab.load().unwrap()).reward, Some(2.0));
}

#[test]
fn the_folder_of_a_bare_name_is_this_one() {
    assert_eq!(format!("{:?}", Folder::of(Path::new("my.toml"))), "Folder(\".\")");
}
