//! Typed reading of a TOML file, with every mistake in it named by line.

use std::{
    cell::RefCell,
    ops::Range,
    path::{Path, PathBuf},
};

use globset::{Glob, GlobBuilder};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{LoadProblem, tree::plain_path};

/// A file being read. Collects what is wrong with it.
pub(crate) struct Document<'t> {
    file: &'t Path,
    text: &'t str,
    problems: RefCell<Vec<LoadProblem>>,
    /// Keys that are not there: start of the table, key, the problem.
    missing: RefCell<Vec<(usize, &'static str, LoadProblem)>>,
    /// Keys that are there under another name: start of the table, key.
    misspelt: RefCell<Vec<(usize, &'static str)>>,
}

/// A value with the place where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// One table of the file. Remembers which keys were asked for; the others are unknown.
pub(crate) struct Fields<'d> {
    document: &'d Document<'d>,
    table: &'d DeTable<'d>,
    span: Range<usize>,
    /// How messages call it: "" for the top, `[limits]`.
    name: String,
    known: Vec<&'static str>,
}

impl<'t> Document<'t> {
    pub(crate) fn new(file: &'t Path, text: &'t str) -> Self {
        Self {
            file,
            text,
            problems: RefCell::default(),
            missing: RefCell::default(),
            misspelt: RefCell::default(),
        }
    }

    /// Remarks something wrong at `span`.
    pub(crate) fn problem(&self, span: &Range<usize>, message: impl Into<String>) {
        self.problems.borrow_mut().push(self.problem_at(span, message.into()));
    }

    fn problem_at(&self, span: &Range<usize>, message: String) -> LoadProblem {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.bytes().filter(|&b| b == b'\n').count() as u32 + 1;
        LoadProblem { file: self.file.to_owned(), line: Some(line), message }
    }

    /// Parses the text. What is no TOML at all becomes a problem.
    pub(crate) fn parse(&self) -> Option<Spanned<DeTable<'t>>> {
        match DeTable::parse(self.text) {
            Ok(table) => Some(table),
            Err(error) => {
                let message = error.message().replace('\n', "; ");
                self.problem(&error.span().unwrap_or(0..0), format!("not valid TOML: {message}"));
                None
            }
        }
    }

    /// Returns what was wrong, in order of lines. A key that is misspelt is not missing as well.
    pub(crate) fn into_problems(self) -> Vec<LoadProblem> {
        let mut problems = self.problems.into_inner();
        let misspelt = self.misspelt.into_inner();
        let missing = self.missing.into_inner().into_iter();
        let missing = missing.filter(|(table, key, _)| !misspelt.contains(&(*table, *key)));
        problems.extend(missing.map(|(_, _, problem)| problem));
        problems.sort();
        problems
    }
}

impl<'d> Fields<'d> {
    /// Starts reading the top of the file.
    pub(crate) fn top(document: &'d Document<'d>, table: &'d Spanned<DeTable<'d>>) -> Self {
        Self::new(document, table.get_ref(), 0..0, String::new())
    }

    fn new(
        document: &'d Document<'d>,
        table: &'d DeTable<'d>,
        span: Range<usize>,
        name: String,
    ) -> Self {
        Self { document, table, span, name, known: Vec::new() }
    }

    /// Where the table starts.
    pub(crate) fn span(&self) -> &Range<usize> {
        &self.span
    }

    /// Remarks something wrong at `span`.
    pub(crate) fn problem(&self, span: &Range<usize>, message: impl Into<String>) {
        self.document.problem(span, message);
    }

    /// Remarks every key that nobody asked for.
    pub(crate) fn finish(&self) {
        for key in self.table.keys() {
            let word: &str = key.get_ref();
            if self.known.contains(&word) {
                continue;
            }
            let place =
                if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) };
            let near = nearest(word, self.known.iter().copied());
            let help = near.map(did_you_mean).unwrap_or_default();
            if let Some(near) = near {
                self.document.misspelt.borrow_mut().push((self.span.start, near));
            }
            self.problem(&key.span(), format!("unknown key `{word}`{place}{help}"));
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.push(key);
        self.table.get(key)
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let found = value.get_ref().type_str();
        self.problem(&value.span(), format!("`{key}` is {}: expected {expected}", article(found)));
    }

    /// A text that has to be there.
    pub(crate) fn required_text(&mut self, key: &'static str) -> Option<At<&'d str>> {
        self.require(key);
        self.text(key)
    }

    /// Remarks when `key` is not there.
    pub(crate) fn require(&self, key: &'static str) {
        if self.table.get(key).is_none() {
            let place = if self.name.is_empty() { "the file" } else { &self.name };
            self.missing(key, format!("{place} has no `{key}`: add `{key} = \"...\"`"));
        }
    }

    /// Remarks that `key` is not there, in other words.
    pub(crate) fn missing(&self, key: &'static str, message: impl Into<String>) {
        let problem = self.document.problem_at(&self.span, message.into());
        self.document.missing.borrow_mut().push((self.span.start, key, problem));
    }

    /// A text.
    pub(crate) fn text(&mut self, key: &'static str) -> Option<At<&'d str>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(At { value: text, span: value.span() }),
            _ => {
                self.wrong_type(key, value, "a string");
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        all: &[T],
        word: impl Fn(T) -> &'static str,
    ) -> Option<At<T>> {
        let text = self.text(key)?;
        let found = all.iter().find(|&&value| word(value) == text.value);
        if found.is_none() {
            let help = suggestion(text.value, all.iter().map(|&value| word(value)));
            let all: Vec<_> = all.iter().map(|&value| word(value)).collect();
            let all = all.join(", ");
            self.problem(&text.span, format!("`{key}` is `{}`{help}: one of {all}", text.value));
        }
        found.map(|&value| At { value, span: text.span })
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, key: &'static str) -> Option<Vec<At<&'d str>>> {
        let value = self.get(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(key, value, "a list of strings");
            return None;
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match item.get_ref() {
                DeValue::String(text) => texts.push(At { value: &**text, span: item.span() }),
                _ => self.wrong_type(key, item, "a list of strings"),
            }
        }
        Some(texts)
    }

    /// Either a text or a list of texts: `must_keep = "lock"`.
    pub(crate) fn text_or_texts(
        &mut self,
        key: &'static str,
    ) -> Option<Result<At<&'d str>, Vec<At<&'d str>>>> {
        match self.get(key)?.get_ref() {
            DeValue::Array(_) => self.texts(key).map(Err),
            _ => self.text(key).map(Ok),
        }
    }

    /// A whole number from 1 to `max`.
    pub(crate) fn count(&mut self, key: &'static str, max: u64) -> Option<At<u64>> {
        let value = self.get(key)?;
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(key, value, "a whole number");
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
        match u64::try_from(number) {
            Ok(number) if (1..=max).contains(&number) => {
                Some(At { value: number, span: value.span() })
            }
            _ => {
                self.problem(&value.span(), format!("`{key}` is out of range: 1 to {max}"));
                None
            }
        }
    }

    /// A number above 0 and up to `max`.
    pub(crate) fn amount(&mut self, key: &'static str, max: f64) -> Option<At<f64>> {
        let value = self.get(key)?;
        let number = match value.get_ref() {
            DeValue::Float(float) => float.as_str().replace('_', "").parse().unwrap_or(f64::NAN),
            DeValue::Integer(integer) => {
                i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX) as f64
            }
            _ => {
                self.wrong_type(key, value, "a number");
                return None;
            }
        };
        if number > 0.0 && number <= max {
            return Some(At { value: number, span: value.span() });
        }
        self.problem(&value.span(), format!("`{key}` is out of range: above 0, at most {max}"));
        None
    }

    /// A path inside some directory: relative, without `..`.
    pub(crate) fn path(&mut self, key: &'static str) -> Option<At<PathBuf>> {
        let text = self.text(key)?;
        self.inside(key, &text)
    }

    /// A list of such paths.
    pub(crate) fn paths(&mut self, key: &'static str) -> Option<Vec<At<PathBuf>>> {
        let texts = self.texts(key)?;
        Some(texts.iter().filter_map(|text| self.inside(key, text)).collect())
    }

    fn inside(&self, key: &str, text: &At<&str>) -> Option<At<PathBuf>> {
        match plain_path(text.value) {
            Ok(path) => Some(At { value: path, span: text.span.clone() }),
            Err(why) => {
                self.problem(&text.span, format!("`{key}` is `{}`: a path {why}", text.value));
                None
            }
        }
    }

    /// A list of patterns: `*` and `?` stay within a directory, `**` crosses them.
    pub(crate) fn globs(&mut self, key: &'static str) -> Option<Vec<Glob>> {
        let texts = self.texts(key)?;
        let mut globs = Vec::with_capacity(texts.len());
        for text in texts {
            match GlobBuilder::new(text.value).literal_separator(true).build() {
                Ok(glob) => globs.push(glob),
                Err(error) => {
                    let why = error.kind();
                    self.problem(&text.span, format!("`{key}` holds a bad pattern: {why}"));
                }
            }
        }
        Some(globs)
    }

    /// A table: `[limits]`.
    pub(crate) fn table(&mut self, key: &'static str) -> Option<Fields<'d>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => {
                Some(Fields::new(self.document, table, value.span(), format!("[{key}]")))
            }
            _ => {
                self.wrong_type(key, value, &format!("a table `[{key}]`"));
                None
            }
        }
    }

    /// A list of tables: `[[check]]`.
    pub(crate) fn tables(&mut self, key: &'static str) -> Vec<Fields<'d>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let expected = format!("a list of tables `[[{key}]]`");
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(key, value, &expected);
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(items.len());
        for item in items {
            match item.get_ref() {
                DeValue::Table(table) => {
                    let name = format!("[[{key}]]");
                    tables.push(Fields::new(self.document, table, item.span(), name));
                }
                _ => self.wrong_type(key, item, &expected),
            }
        }
        tables
    }
}

/// Returns ", did you mean `nearest`?" when one of `known` is near enough to `word`.
pub(crate) fn suggestion<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(word, known).map(did_you_mean).unwrap_or_default()
}

/// Returns the one of `known` that `word` may have been meant to be.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= 1.max(candidate.len().max(word.len()) / 3)
                || (word.len() >= 3 && (candidate.starts_with(word) || word.starts_with(candidate)))
        })
        .min();
    near.map(|(_, candidate)| candidate)
}

fn did_you_mean(candidate: &str) -> String {
    format!(", did you mean `{candidate}`?")
}

fn article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if vowel { "an" } else { "a" })
}
