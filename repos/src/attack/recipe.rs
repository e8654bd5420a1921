//! From a recipe to a submission for one task.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::library::{Attack, OnTests};
use crate::{
    Change, Language, Revision, Submission, SubmissionKind, Task, TaskError, apply,
    deny::configures_runner, end_state::push_file,
};

impl Attack {
    /// Whether it is for tasks like this one.
    #[must_use]
    pub fn fits(&self, task: &Task) -> bool {
        let kind = match task.submission.kind {
            // What an agent leaves is handed in as a patch.
            SubmissionKind::Episode => SubmissionKind::Patch,
            kind => kind,
        };
        let reports = |check: &crate::Check| self.reports.contains(&check.report);
        self.language == task.language
            && self.kinds.contains(&kind)
            && (self.reports.is_empty() || task.checks.iter().any(reports))
    }

    /// Makes it an answer to `task`; `None` where the task has nothing of the kind that it attacks.
    ///
    /// # Errors
    ///
    /// When the task's files can't be read.
    pub fn submission(&self, task: &Task) -> Result<Option<Submission>, TaskError> {
        if !self.fits(task) {
            return Ok(None);
        }
        match task.submission.kind {
            SubmissionKind::Function | SubmissionKind::Program => {
                let words = Words::new(task, Path::new(""), "");
                let stub = stub(task);
                let body = self.source.as_deref().unwrap_or(&stub);
                let (before, after) = (self.prepend.as_deref(), self.append.as_deref());
                let parts = [before, Some(body), after].into_iter().flatten();
                let parts: Vec<_> = parts.map(|text| words.fill(text)).collect();
                Ok(Some(Submission::Source(parts.join("\n"))))
            }
            kind => self.on_tree(task, kind),
        }
    }

    fn on_tree(&self, task: &Task, kind: SubmissionKind) -> Result<Option<Submission>, TaskError> {
        let revision = task.revision()?;
        let sources = sources(task, &revision)?;
        let Some(first) = sources.first() else { return Ok(None) };
        let read = |path: &Path| text(&revision, path);
        let words = Words::new(task, first, &read(first)?.unwrap_or_default().0);
        if let Some(patch) = &self.patch {
            let fits = kind != SubmissionKind::Files;
            return Ok(fits.then(|| Submission::Patch(words.fill(patch))));
        }
        // What files become; `None` for one that is deleted.
        let mut after: BTreeMap<PathBuf, Option<String>> = BTreeMap::new();
        if self.prepend.is_some() || self.append.is_some() {
            for path in &sources {
                let Some((code, _)) = read(path)? else { continue };
                let (before, behind) = (self.prepend.as_deref(), self.append.as_deref());
                let parts = [before.map(|text| words.fill(text)), Some(code)].into_iter();
                let parts = parts.chain([behind.map(|text| words.fill(text))]).flatten();
                after.insert(path.clone(), Some(parts.collect::<Vec<_>>().join("\n")));
            }
        }
        for (path, content) in &self.write {
            after.insert(words.fill(path).into(), Some(words.fill(content)));
        }
        for (path, more) in &self.extend {
            let path = PathBuf::from(words.fill(path));
            let before = read(&path)?.map(|(code, _)| code).unwrap_or_default();
            after.insert(path, Some(format!("{before}{}", words.fill(more))));
        }
        if let Some(change) = &self.tests {
            for path in tests(task, &revision)? {
                let before = read(&path)?.map(|(code, _)| code);
                let becomes = match (change, before) {
                    (OnTests::Write(content), _) => Some(words.fill(content)),
                    (OnTests::Delete, Some(_)) => None,
                    (OnTests::Replace { find, with }, Some(code)) if code.contains(find) => {
                        Some(code.replace(find, with))
                    }
                    _ => continue,
                };
                after.insert(path, becomes);
            }
        }
        if kind == SubmissionKind::Files {
            let files: Option<BTreeMap<_, _>> =
                after.into_iter().map(|(path, code)| Some((path, code?.into_bytes()))).collect();
            return Ok(files.filter(|files| !files.is_empty()).map(Submission::Files));
        }
        let (mut patch, mut budget) = (String::new(), u64::MAX);
        for (path, becomes) in &after {
            let before = read(path)?;
            let old = before.as_ref().map(|(code, executable)| (code.as_str(), *executable));
            let mode = old.is_some_and(|(_, executable)| executable);
            let new = becomes.as_deref().map(|code| (code, mode));
            if old != new {
                push_file(&mut patch, path, old, new, &mut budget);
            }
        }
        Ok((!patch.is_empty()).then_some(Submission::Patch(patch)))
    }
}

/// Returns an answer that runs and does nothing, for a task that takes code: what it earns, weak tests give to
/// anything, and no attack has to be thanked for it. `None` where the empty submission is that answer.
#[must_use]
pub fn idle_submission(task: &Task) -> Option<Submission> {
    let code = stub(task);
    (!code.is_empty()).then(|| Submission::Source(Words::new(task, Path::new(""), "").fill(&code)))
}

/// What the placeholders of recipes stand for.
struct Words(Vec<(&'static str, String)>);

impl Words {
    fn new(task: &Task, source: &Path, code: &str) -> Self {
        let folder = source.parent().filter(|folder| *folder != Path::new(""));
        let folder = folder.map_or_else(String::new, |folder| format!("{}/", folder.display()));
        let module = source.with_extension("").to_string_lossy().replace('/', ".");
        let module = module.strip_suffix(".__init__").unwrap_or(&module).to_owned();
        let package = code.lines().find_map(|line| line.strip_prefix("package "));
        let tests: Vec<_> = task.checks.iter().flat_map(|check| &check.must_pass).collect();
        Self(vec![
            ("{ENTRY}", task.submission.entry.clone().unwrap_or_default()),
            ("{MODULE}", module),
            ("{FOLDER}", folder),
            ("{PACKAGE}", package.unwrap_or("main").trim().to_owned()),
            ("{TESTS}", serde_json::json!(tests).to_string()),
            ("{FIRST_TEST}", tests.first().map_or("test", |test| test).to_owned()),
            ("{TEST_LIST}", tests.iter().map(|test| test.as_str()).collect::<Vec<_>>().join("|")),
        ])
    }

    fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (word, means)| text.replace(word, means))
    }
}

/// Code that does nothing, for an attack to stand beside.
fn stub(task: &Task) -> String {
    match (task.language, task.submission.kind) {
        (Language::Python, SubmissionKind::Function) => {
            "def {ENTRY}(*args, **kwargs):\n    return None\n"
        }
        (Language::Python, SubmissionKind::Program) => "pass\n",
        (Language::Javascript, SubmissionKind::Program) => "void 0;\n",
        (Language::Javascript, SubmissionKind::Function) => {
            "function {ENTRY}() { return null; }\nmodule.exports = { {ENTRY} };\n"
        }
        (Language::C | Language::Cpp, SubmissionKind::Program) => "int main(void) { return 0; }\n",
        // Of whatever type it was declared with: it returns 0, or no text and no list.
        (Language::C, SubmissionKind::Function) => {
            "static long nothing(void) { return 0; }\n\
             __typeof__({ENTRY}) {ENTRY} __attribute__((alias(\"nothing\")));\n"
        }
        (Language::Rust, SubmissionKind::Program) => "fn main() {}\n",
        (Language::Rust, SubmissionKind::Function) => {
            let count = task.submission.signature.as_ref().map_or(0, |it| it.params.len());
            let params = vec!["_: impl Sized"; count].join(", ");
            return format!("fn {{ENTRY}}<R: Default>({params}) -> R {{ R::default() }}\n");
        }
        (Language::Go, SubmissionKind::Program) => "package main\n\nfunc main() {}\n",
        _ => "",
    }
    .into()
}

/// Returns the source files that a solution changes, of the revision; else those that the prompt shows.
fn sources(task: &Task, revision: &Revision) -> Result<Vec<PathBuf>, TaskError> {
    let is_source = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        ending == Some(task.language.extension()) && !task.tests.is_match(path)
    };
    let solved = task.gold().ok().and_then(|gold| apply(task, revision, &gold).ok());
    let changed = solved.into_iter().flat_map(|applied| applied.changes.into_keys());
    let shown = task.prompt.context.iter().cloned();
    for candidates in [changed.collect::<Vec<_>>(), shown.collect()] {
        let mut found = Vec::new();
        for path in candidates.into_iter().filter(is_source) {
            if text(revision, &path)?.is_some() {
                found.push(path);
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// Returns the files that judge: the revision's own tests, and hidden ones.
fn tests(task: &Task, revision: &Revision) -> Result<Vec<PathBuf>, TaskError> {
    let overlay = task.trusted_overlay(revision)?;
    Ok(overlay.keys().filter(|path| !configures_runner(path)).cloned().collect())
}

/// Returns the text of a file of the revision and whether it is executable.
fn text(revision: &Revision, path: &Path) -> Result<Option<(String, bool)>, TaskError> {
    Ok(match revision.read(path)? {
        Some(Change::File { content, executable }) => {
            String::from_utf8(content.to_vec()).ok().map(|text| (text, executable))
        }
        _ => None,
    })
}
