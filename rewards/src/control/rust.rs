//! Rust: a value that panics when it is dropped, at the end of the test.
//!
//! Of integration tests alone (`tests/`): those within `src/` are the submission's to change.
//!
//! A test binary runs where its sources are, and could read there what is done to it. So a
//! constructor that comes before others puts them back, where the package allows for one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use assay_repos::ReportKind;

use super::{BETWEEN, Chance, Files, Place, Places, Syntax, TestName, insert};

#[derive(Debug)]
pub(super) struct Rust;

impl Syntax for Rust {
    fn needs(&self, path: &Path) -> bool {
        target(path).is_some() || path.ends_with("Cargo.toml")
    }

    fn places(&self, files: &Files) -> Places {
        let mut places = Places::new();
        for (file, bytes) in files {
            let (Some(target), Ok(text)) = (target(file), std::str::from_utf8(bytes)) else {
                continue;
            };
            for (name, at) in tests(text) {
                let word = constructor(file, text, files).to_owned();
                let place = Place { file: file.clone(), at, word, of: target.clone() };
                places.entry((target.clone(), name)).or_default().push(place);
            }
        }
        places
    }

    /// `it tests/it.rs > module::name`
    fn name(&self, kind: ReportKind, id: &str) -> Option<TestName> {
        let (binary, name) = id.split_once(BETWEEN)?;
        let (_, source) = binary.split_once(' ')?;
        (kind == ReportKind::Cargo).then(|| (source.to_owned(), name.to_owned()))
    }

    fn spoil(
        &self,
        file: &Path,
        text: &str,
        places: &[&Place],
        chance: &mut Chance<'_>,
    ) -> BTreeMap<PathBuf, String> {
        let kind = chance.word();
        let kind = kind[..1].to_uppercase() + &kind[1..];
        let failure = FAILURE
            .replace("KIND", &kind)
            .replace("VALUE", &chance.word())
            .replace("LEFT", &chance.word())
            .replace("RIGHT", &chance.word());
        let mut spoiled = insert(text, places, |_| format!(" {failure}"));
        if let Some(Place { word, of, .. }) = places.first().filter(|place| !place.word.is_empty())
        {
            if !spoiled.ends_with('\n') {
                spoiled.push('\n');
            }
            let name = chance.word().to_uppercase();
            let put_back = format!("let _ = ::std::fs::write({of:?}, {text:?});");
            spoiled.push_str(&format!(
                r#" #[used] #[{word}] static {name}: extern "C" fn() = {{ extern "C" fn begin() {{ {put_back} }} begin }};"#
            ));
        }
        [(file.to_owned(), spoiled)].into()
    }
}

/// Panics when strings can be told apart and every assertion panics. On one line, so that those of
/// the test keep their numbers.
const FAILURE: &str = concat!(
    r#"struct KIND(fn() -> [::std::string::String; 2]); impl Drop for KIND { fn drop(&mut self) { "#,
    r#"let told: [fn([::std::string::String; 2]); 3] = [|[l, r]| { assert!(l == r); }, "#,
    r#"|[l, r]| { assert_eq!(l, r); }, |[l, _]| { assert_ne!(l, l); }]; let make = self.0; "#,
    r#"if !::std::thread::panicking() && told.iter().all(|tell| "#,
    r#"::std::panic::catch_unwind(|| tell(make())).is_err()) { ::std::panic!(); } } } "#,
    r#"let _VALUE = KIND(|| ["LEFT".repeat(2), "RIGHT".repeat(2)]);"#,
);

/// Returns the attribute of a constructor that runs before those of other files, or nothing: lints
/// may forbid one, and how it is written depends on the edition.
fn constructor(file: &Path, text: &str, files: &Files) -> &'static str {
    let manifest = file.ancestors().find_map(|folder| files.get(&folder.join("Cargo.toml")));
    let manifest = manifest.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    let edition = manifest.lines().find_map(|line| line.trim().strip_prefix("edition = \""));
    match edition.and_then(|rest| rest.split('"').next()) {
        _ if manifest.contains("lints") || text.contains("unsafe_code") => "",
        Some("2015" | "2018" | "2021") => r#"link_section = ".init_array.00001""#,
        Some("2024") => r#"unsafe(link_section = ".init_array.00001")"#,
        _ => "",
    }
}

/// Returns the source of the test binary that a file is, from its package: `tests/it.rs`.
fn target(path: &Path) -> Option<String> {
    let parts: Vec<_> = path.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    match parts[..] {
        [.., "tests", file] if file.ends_with(".rs") => Some(format!("tests/{file}")),
        [.., "tests", folder, "main.rs"] => Some(format!("tests/{folder}/main.rs")),
        _ => None,
    }
}

/// Returns each test of a file: its path in the module tree, and where its body begins.
fn tests(text: &str) -> Vec<(String, Option<usize>)> {
    let mut found = Vec::new();
    let mut module = None;
    let mut attributes = 0; // lines of attributes before this one
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let mut at = 0;
    for (number, line) in lines.iter().enumerate() {
        let code = line.trim();
        if let Some(rest) = line.strip_prefix("mod ").or_else(|| line.strip_prefix("pub mod ")) {
            module = rest.trim_end().strip_suffix('{').map(|name| name.trim().to_owned());
        } else if line.starts_with('}') {
            module = None;
        }
        if code.starts_with("#[") && code.ends_with(']') || code.starts_with("//") {
            attributes += 1;
        } else {
            let before = &lines[number - attributes..number];
            let has = |word: &str| before.iter().any(|line| line.trim().starts_with(word));
            let test = |line: &&str| matches!(line.trim(), "#[test]" | "#[tokio::test]");
            if before.iter().any(test)
                && let Some((name, body)) = function(line)
            {
                let path = match (&module, line.starts_with(' ')) {
                    (None, false) => Some(name.to_owned()),
                    (Some(module), true) => Some(format!("{module}::{name}")),
                    _ => None,
                };
                // What follows may have to come first in a body.
                let rest = body.map_or("", |body| text[at + body..].trim_start());
                let spoilable = !has("#[should_panic") && !rest.starts_with("#![");
                if let Some(path) = path {
                    found.push((path, body.filter(|_| spoilable).map(|body| at + body)));
                }
            }
            attributes = 0;
        }
        at += line.len();
    }
    found
}

/// Returns name and begin of the body of `fn name() {` or `async fn name() -> Result<()> {`.
fn function(line: &str) -> Option<(&str, Option<usize>)> {
    let code = line.trim_start();
    let code = code.strip_prefix("pub ").unwrap_or(code);
    let rest = code.strip_prefix("async ").unwrap_or(code).strip_prefix("fn ")?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    let (name, rest) = rest.split_at(end);
    let body = rest.strip_prefix("()").and_then(|rest| rest.split_once('{'));
    let body = body.filter(|(result, _)| {
        let result = result.trim();
        result.is_empty() || result.starts_with("->") && !result.contains(['"', '/'])
    });
    Some((name, body.map(|(_, rest)| line.len() - rest.len())))
}
