use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::{Outcome, RewardError, RewardSpec, explain, score, testing};

/// Plugins by path: one that counts how often it is asked, one that fails, one that can't be run.
#[derive(Debug)]
struct Known(Digest, Result<f64, PluginError>, AtomicU32);

impl Plugin for Known {
    fn digest(&self) -> &Digest {
        &self.0
    }

    fn evaluate(&self, grade: &PluginGrade<'_>) -> Result<f64, PluginError> {
        assert!(grade.facts.iter().any(|(name, _)| name == "check.unit.must_pass.all"));
        assert!(grade.facts.iter().all(|(name, _)| name != "run.instructions"));
        self.2.fetch_add(1, Ordering::Relaxed);
        self.1.clone()
    }
}

struct Shelf(Arc<Known>);

impl PluginLoader for Shelf {
    fn load(&self, path: &Path, limits: PluginLimits) -> Result<Arc<dyn Plugin>, String> {
        assert_eq!(limits, PluginLimits { fuel: 7, memory_bytes: 64 << 20 });
        if path == Path::new("here.wasm") {
            return Ok(Arc::clone(&self.0) as _);
        }
        Err(format!("{} is not here", path.display()))
    }
}

fn shelf(answer: Result<f64, PluginError>) -> Shelf {
    Shelf(Arc::new(Known(Digest::of("code"), answer, AtomicU32::new(0))))
}

const FILE: &str = r#"schema = 1
name = "t"
[[term]]
name = "solved"
value = "must_pass.all"
[[term]]
name = "style"
when = "must_keep.all"
value = "plugin.p"
[[term]]
name = "again"
value = "plugin.p"
weight = 0
[plugin.p]
path = "here.wasm"
fuel = 7
on_error = "mask"
"#;

fn parse(text: &str, shelf: &Shelf) -> Result<RewardSpec, Vec<RewardError>> {
    RewardSpec::parse_with(text, Path::new("t.toml"), shelf)
}

fn record() -> GradeRecord {
    testing::with_tests(testing::record((1, 1), (2, 2)))
}

#[test]
fn a_plugin_is_asked_once_and_only_where_it_matters() {
    let shelf = shelf(Ok(-0.0));
    let spec = parse(FILE, &shelf).unwrap();
    let scored = score(&record(), &spec);
    assert_eq!(scored.reward, Some(1.0));
    assert_eq!(scored.components[1].value.map(f64::to_bits), Some(0));
    let asked = || shelf.0.2.load(Ordering::Relaxed);
    assert_eq!(asked(), 1);
    for outcome in [Outcome::Tampered, Outcome::SubmissionRejected, Outcome::InfraError] {
        assert_eq!(score(&GradeRecord { outcome, ..record() }, &spec).components[1].value, None);
    }
    let incomplete = GradeRecord { complete: false, ..record() };
    assert_eq!(score(&incomplete, &spec).reward, None);
    assert_eq!(asked(), 1, "nothing ran, or not all of it");
    let spec = parse(
        &FILE.replace("value = \"plugin.p\"\nweight = 0", "value = \"1\"\nwhen = \"tests.ran\""),
        &shelf,
    );
    let broken = testing::with_tests(testing::record((1, 1), (1, 2)));
    assert_eq!(score(&broken, &spec.unwrap()).reward, Some(2.0));
    assert_eq!(asked(), 1, "its `when` does not hold");
}

#[test]
fn without_a_number() {
    let failed = || Err(PluginError::Failed("fell over".into()));
    let host = || Err(PluginError::Host("no memory".into()));
    let guarded = FILE.replace("must_keep.all", "known(plugin.p)");
    let absent = |file: &str| file.replace("\"mask\"", "\"absent\"");
    let seen = FILE.replace(
        "[[term]]\nname = \"style\"\nwhen = \"must_keep.all\"\nvalue = \"plugin.p\"\n",
        "",
    );
    let fell = Some("term `style` needs `plugin.p`, which fell over");
    let not_run = Some("term `style` needs `plugin.p`, which could not be run: no memory");
    type Case<'c> = (&'c str, String, Result<f64, PluginError>, Option<f64>, Option<&'c str>);
    let cases: [Case<'_>; 9] = [
        ("mask", FILE.into(), failed(), None, fell),
        ("mask, although asked", guarded.clone(), failed(), None, fell),
        ("absent", absent(FILE), failed(), None, fell),
        ("absent, and asked", absent(&guarded), failed(), Some(1.0), None),
        ("ours", absent(&guarded), host(), None, not_run),
        ("to be seen", seen, failed(), Some(1.0), None),
        ("nan", absent(&guarded), Ok(f64::NAN), Some(1.0), None),
        ("infinity", absent(&guarded), Ok(f64::INFINITY), Some(1.0), None),
        ("a number", absent(&guarded), Ok(0.5), Some(1.5), None),
    ];
    for (name, file, answer, reward, mask) in cases {
        let spec = parse(&file, &shelf(answer)).unwrap();
        let scored = score(&record(), &spec);
        assert_eq!((scored.reward, scored.mask.as_deref()), (reward, mask), "{name}");
        assert_eq!(explain(&record(), &spec).reward, reward, "{name}");
        let told: Vec<_> = scored.flags.iter().map(|flag| flag.code.as_str()).collect();
        let failed: &[&str] = if name == "a number" { &[] } else { &["plugin.failed"] };
        assert_eq!(told, failed, "{name}");
    }
    let skimmed = testing::record((1, 1), (2, 2));
    let spec = parse(&absent(&guarded), &shelf(Ok(0.5))).unwrap();
    let mask = "term `style` needs `plugin.p`, which could not be run: the record was read without \
                its tests";
    assert_eq!(score(&skimmed, &spec).mask.as_deref(), Some(mask));
}

#[test]
fn a_plugin_is_named_in_an_explanation() {
    let spec = parse(FILE, &shelf(Err(PluginError::Failed("says: a\nb".into())))).unwrap();
    let text = explain(&record(), &spec).to_string();
    assert!(text.contains("value plugin.p: lacking: it says: a\\nb\n"), "{text}");
    let spec = parse(FILE, &shelf(Ok(0.25))).unwrap();
    let text = explain(&record(), &spec).to_string();
    assert!(text.contains("value plugin.p: 0.25\n"), "{text}");
}

#[test]
fn mistakes_name_their_place() {
    let shelf = shelf(Ok(1.0));
    let cases = [
        ("plugin.p]", "plugin.pp]", "9:10: the file has no plugin `p`; did you mean `plugin.pp`?"),
        ("plugin.p]", "plugin.\"a-b\"]", "14:9: a plugin's name is 1 to 64 letters"),
        ("plugin.p]", "plugin]", "15:1: a plugin is a table: `[plugin.path]`"),
        (
            "path = \"here.wasm\"\n",
            "",
            "14:9: `path` is missing in [plugin.p]: `path = \"p.wasm\"`",
        ),
        ("here.wasm", "/here.wasm", "15:8: \"/here.wasm\" lies outside the folder"),
        ("here.wasm", "a/../../here.wasm", "15:8: \"a/../../here.wasm\" lies outside the folder"),
        ("here.wasm", "there.wasm", "15:8: plugin `p`: there.wasm is not here"),
        ("fuel = 7", "fuel = 7.5", "16:8: `fuel` is a whole number from 1 to 10000000000"),
        ("fuel = 7", "memory_mb = 0", "16:13: `memory_mb` is a whole number from 1 to 1024"),
        ("fuel = 7", "feul = 7", "16:1: unknown key `feul` in [plugin.p]; did you mean `fuel`?"),
        ("\"mask\"", "\"absnt\"", "17:12: unknown on_error `absnt`; did you mean `absent`?"),
        ("plugin.p\"\nweight", "plugin.p.x\"\nweight", "12:10: `plugin` takes one name"),
    ];
    for (from, to, told) in cases {
        let errors = parse(&FILE.replace(from, to), &shelf).unwrap_err();
        assert!(errors.iter().any(|e| e.to_string().contains(told)), "{to}: {errors:?}");
    }
    let unread = FILE.replace("\"plugin.p\"", "\"must_keep.fraction\"");
    let errors = parse(&unread, &shelf).unwrap_err();
    assert_eq!(errors[0].to_string(), "t.toml:14:9: `plugin.p` is never read");
}

#[test]
fn a_file_with_plugins_is_named_by_its_text_and_theirs() {
    let spec = parse(FILE, &shelf(Ok(1.0))).unwrap();
    let other = Shelf(Arc::new(Known(Digest::of("more"), Ok(1.0), AtomicU32::new(0))));
    let other = parse(FILE, &other).unwrap();
    assert!(spec.has_plugins());
    assert_ne!((spec.digest(), &spec), (other.digest(), &other));
    assert_ne!(spec.digest(), &Digest::of(FILE));
    assert_eq!(parse(FILE, &shelf(Ok(2.0))).unwrap(), spec);
}

#[test]
fn plugins_differ_by_code_limits_and_what_their_failure_means() {
    let spec = |file: &str, code: &str| {
        let known = Shelf(Arc::new(Known(Digest::of(code), Ok(1.0), AtomicU32::new(0))));
        parse(file, &known).unwrap()
    };
    let told = |old: &RewardSpec, new: &RewardSpec| {
        let lines = crate::diff(old, new).into_iter();
        let lines = lines.map(|d| (d.what, d.old.unwrap_or_default(), d.new.unwrap_or_default()));
        lines.collect::<Vec<_>>()
    };
    let (old, digest) = (spec(FILE, "code"), |code: &str| Digest::of(code).to_string());
    let line = |what: &str, old: &str, new: &str| (what.to_owned(), old.to_owned(), new.to_owned());
    let code = line("plugin p.code", &digest("code"), &digest("more"));
    assert_eq!(told(&old, &spec(FILE, "more")), [code]);
    let absent = line("plugin p.on_error", "mask", "absent");
    assert_eq!(told(&old, &spec(&FILE.replace("\"mask\"", "\"absent\""), "code")), [absent]);
    let without = RewardSpec::parse(
        &FILE[..FILE.find("[plugin").unwrap()].replace("plugin.p", "external.p"),
        Path::new("t.toml"),
    );
    let gone = told(&old, &without.unwrap());
    assert_eq!(gone.last(), Some(&line("plugin p", &digest("code"), "")), "{gone:?}");
}

#[test]
fn text_alone_has_no_plugins_and_is_formatted_without() {
    let errors = RewardSpec::parse(FILE, Path::new("t.toml")).unwrap_err();
    assert!(errors[0].to_string().contains("15:8: plugin `p`: plugins lie beside"), "{errors:?}");
    let spaced = FILE.replace("must_keep.all", "must_keep.all  and tests.ran");
    let once = spaced.replace("  ", " ");
    assert_eq!(RewardSpec::format(&spaced, Path::new("t.toml")), Ok(once));
}
