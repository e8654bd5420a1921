//! Go: a deferred call that fails the test when its own code is done.
//!
//! What is called is in a package of its own. Packages begin after those that they import, so it
//! begins before the code under test, and puts the sources back as they were: a test binary runs
//! where its sources are, and could read there what is done to it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use assay_repos::ReportKind;

use super::{BETWEEN, Chance, Files, Place, Places, Syntax, TestName, insert};

#[derive(Debug)]
pub(super) struct Go;

impl Syntax for Go {
    fn needs(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name == "go.mod" || name.ends_with("_test.go")
    }

    fn places(&self, files: &Files) -> Places {
        let mut places = Places::new();
        for (file, bytes) in files {
            let Ok(text) = std::str::from_utf8(bytes) else { continue };
            if file.ends_with("go.mod") {
                continue;
            }
            let Some(package) = import_path(file, files) else { continue };
            let mut at = 0;
            for line in text.split_inclusive('\n') {
                if let Some((name, body, parameter)) = test(line) {
                    let place = Place {
                        file: file.clone(),
                        at: body.map(|body| at + body),
                        word: parameter.to_owned(),
                        of: package.clone(),
                    };
                    let name = (package.clone(), name.to_owned());
                    places.entry(name).or_default().push(place);
                }
                at += line.len();
            }
        }
        places
    }

    fn name(&self, kind: ReportKind, id: &str) -> Option<TestName> {
        let (package, name) = id.split_once(BETWEEN)?;
        (kind == ReportKind::GoJson).then(|| (package.to_owned(), name.to_owned()))
    }

    /// A test fails with its subtests, and those of a spoiled test may pass.
    fn whole(&self, id: &str) -> String {
        let Some((package, name)) = id.split_once(BETWEEN) else { return id.to_owned() };
        let name = name.split('/').next().unwrap_or_default();
        format!("{package}{BETWEEN}{name}")
    }

    fn spoil(
        &self,
        file: &Path,
        text: &str,
        places: &[&Place],
        chance: &mut Chance<'_>,
    ) -> BTreeMap<PathBuf, String> {
        let (package, function) = (chance.word(), chance.word());
        let function = function[..1].to_uppercase() + &function[1..];
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let failure = FAILURE
            .replace("PACKAGE", &package)
            .replace("FUNCTION", &function)
            .replace("LEFT", &chance.word())
            .replace("RIGHT", &chance.word())
            .replace("NAME", &literal(name))
            .replace("SOURCE", &literal(text));
        let call = |place: &Place| format!(" defer {package}.{function}({});", place.word);
        let mut spoiled = insert(text, places, call);
        if let (Some(at), Some(place)) = (package_clause(text), places.first()) {
            spoiled.insert_str(at, &format!("; import \"{}/{package}\"", place.of));
        }
        let beside = file.with_file_name(&package).join(format!("{package}.go"));
        [(file.to_owned(), spoiled), (beside, failure)].into()
    }
}

/// Fails when comparisons tell two things apart and every way to fail does. The test itself fails
/// without a word.
const FAILURE: &str = r#"package PACKAGE

import (
	"bytes"
	"io/ioutil"
	"os"
	"reflect"
	"strings"
	"testing"
)

func init() {
	_ = os.RemoveAll("PACKAGE")
	_ = ioutil.WriteFile(NAME, []byte(SOURCE), 0644)
}

func FUNCTION(t *testing.T) {
	left, right := []string{"LEFT"}, []string{"RIGHT"}
	if reflect.DeepEqual(left, right) || bytes.Equal([]byte(left[0]), []byte(right[0])) ||
		strings.EqualFold(left[0], right[0]) || strings.Contains(left[0], right[0]) || left[0] == right[0] {
		return
	}
	for _, fail := range []func(*testing.T){
		func(t *testing.T) { t.Fail() },
		func(t *testing.T) { t.FailNow() },
		func(t *testing.T) { t.Error(left) },
		func(t *testing.T) { t.Errorf("%q", left) },
		func(t *testing.T) { t.Fatal(left) },
		func(t *testing.T) { t.Fatalf("%q", left) },
	} {
		other, fails, done := new(testing.T), false, make(chan bool)
		go func() {
			defer close(done)
			defer func() { fails = recover() != nil || other.Failed() }()
			fail(other)
		}()
		<-done
		if !fails {
			return
		}
	}
	t.Fail()
}
"#;

/// Writes a text as Go does.
fn literal(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    format!("\"{}\"", text.bytes().map(byte).collect::<String>())
}

/// Returns name, begin of the body and parameter of `func TestName(t *testing.T) {`.
fn test(line: &str) -> Option<(&str, Option<usize>, &str)> {
    let rest = line.strip_prefix("func Test")?;
    let word = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_');
    let end = word(rest)?;
    let name = &line["func ".len()..line.len() - rest.len() + end];
    let plain = || {
        let rest = rest[end..].strip_prefix('(')?;
        let parameter = &rest[..word(rest)?];
        let rest = rest[parameter.len()..].strip_prefix(" *testing.T) {")?;
        (parameter != "_").then_some((Some(line.len() - rest.len()), parameter))
    };
    let (body, parameter) = plain().unwrap_or_default();
    Some((name, body, parameter))
}

/// Returns the import path of a file's package: that of the nearest module, and the folders below.
fn import_path(file: &Path, files: &Files) -> Option<String> {
    let folder = file.parent()?;
    folder.ancestors().find_map(|root| {
        let text = std::str::from_utf8(files.get(&root.join("go.mod"))?).ok()?;
        let module = text.lines().find_map(|line| line.strip_prefix("module "))?;
        let module = module.split("//").next()?.trim().trim_matches('"');
        let below = folder.strip_prefix(root).ok()?.to_str()?;
        Some(if below.is_empty() { module.to_owned() } else { format!("{module}/{below}") })
    })
}

/// Returns where the line ends by which a file says what package it is of.
fn package_clause(text: &str) -> Option<usize> {
    let (mut at, mut comment) = (0, false);
    for line in text.split_inclusive('\n') {
        if comment || line.trim_start().starts_with("/*") {
            comment = !line.contains("*/");
        } else if let Some(rest) = line.strip_prefix("package ") {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            return Some(at + line.len() - rest.len() + end);
        }
        at += line.len();
    }
    None
}
