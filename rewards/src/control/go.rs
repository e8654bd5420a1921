//! Go: a deferred call that fails the test when its own code is done.

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
    ) -> BTreeMap<PathBuf, Vec<u8>> {
        let (function, name) = (chance.word(), chance.word());
        let spoiled = insert(text, places, |place| format!(" defer {function}({});", place.word));
        let failure = FAILURE
            .replace("PACKAGE", package_clause(text).unwrap_or_default())
            .replace("FUNCTION", &function)
            .replace("LEFT", &chance.word())
            .replace("RIGHT", &chance.word())
            .replace("ALIAS", &chance.word());
        let beside = file.with_file_name(format!("{name}_test.go"));
        [(file.to_owned(), spoiled.into_bytes()), (beside, failure.into_bytes())].into()
    }
}

/// Fails when comparisons tell two things apart and every way to fail does. The test itself fails
/// without a word. Imports have names of their own: a package may have functions called `bytes`.
const FAILURE: &str = r#"package PACKAGE

import (
	ALIASb "bytes"
	ALIASr "reflect"
	ALIASs "strings"
	ALIASt "testing"
)

func FUNCTION(t *ALIASt.T) {
	left, right := []string{"LEFT"}, []string{"RIGHT"}
	if ALIASr.DeepEqual(left, right) || ALIASb.Equal([]byte(left[0]), []byte(right[0])) ||
		ALIASs.EqualFold(left[0], right[0]) || ALIASs.Contains(left[0], right[0]) || left[0] == right[0] {
		return
	}
	for _, fail := range []func(*ALIASt.T){
		func(t *ALIASt.T) { t.Fail() },
		func(t *ALIASt.T) { t.FailNow() },
		func(t *ALIASt.T) { t.Error(left) },
		func(t *ALIASt.T) { t.Errorf("%q", left) },
		func(t *ALIASt.T) { t.Fatal(left) },
		func(t *ALIASt.T) { t.Fatalf("%q", left) },
	} {
		other, fails, done := new(ALIASt.T), false, make(chan bool)
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

/// Returns the package that a file says it is of.
fn package_clause(text: &str) -> Option<&str> {
    let mut comment = false;
    for line in text.lines() {
        if comment || line.trim_start().starts_with("/*") {
            comment = !line.contains("*/");
        } else if let Some(rest) = line.strip_prefix("package ") {
            return rest.split(|c: char| !c.is_alphanumeric() && c != '_').next();
        }
    }
    None
}
