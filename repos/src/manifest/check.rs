//! The `[[check]]` tables of `task.toml`.

use std::{collections::BTreeSet, ops::Range, path::Path};

use super::{
    fields::{At, Fields},
    task::{Reader, is_identifier},
};
use crate::{Check, Mode, MustKeep, ReportKind, SubmissionKind, tree};

impl Reader<'_> {
    pub(super) fn checks(
        &self,
        tables: Vec<Fields<'_>>,
        top: &Fields<'_>,
        kind: Option<SubmissionKind>,
    ) -> Vec<Check> {
        if tables.is_empty() {
            top.missing("check", "the file has no `[[check]]`: nothing would be run");
        }
        let mut ids = BTreeSet::new();
        let mut checks = Vec::new();
        for fields in tables {
            if let Some(check) = self.check(fields, kind, &mut ids) {
                checks.push(check);
            }
        }
        checks
    }

    fn check<'f>(
        &self,
        mut fields: Fields<'f>,
        kind: Option<SubmissionKind>,
        ids: &mut BTreeSet<&'f str>,
    ) -> Option<Check> {
        let id = fields.required_text("id");
        if let Some(id) = &id {
            if !is_identifier(id.value) {
                let message = format!("`id` is `{}`: letters, digits and `_` alone", id.value);
                self.problem(&id.span, message);
            }
            if !ids.insert(id.value) {
                self.problem(&id.span, format!("two checks are called `{}`", id.value));
            }
        }
        let run = fields.texts("run").unwrap_or_default();
        let report = self.report(&mut fields);
        let report_path = fields.text("report_path");
        let must_pass = fields.texts("must_pass").unwrap_or_default();
        let mut seen = BTreeSet::new();
        for test in &must_pass {
            if !seen.insert(test.value) {
                self.problem(&test.span, format!("`must_pass` names `{}` twice", test.value));
            }
        }
        let must_keep = match fields.text_or_texts("must_keep") {
            None => MustKeep::Nothing,
            Some(Err(tests)) => {
                MustKeep::Tests(tests.iter().map(|test| test.value.to_owned()).collect())
            }
            Some(Ok(word)) if word.value == "lock" => MustKeep::Lock,
            Some(Ok(word)) => {
                let message = "`must_keep` is `lock`, which means the passing tests of \
                               private/expected.lock.json, or a list of tests";
                self.problem(&word.span, message);
                MustKeep::Nothing
            }
        };
        let span = fields.span().clone();
        fields.finish();
        let report = report?;
        self.fits(&report, &run, kind, &span);
        let report_path = self.report_path(&report, report_path);
        Some(Check {
            id: id?.value.to_owned(),
            run: run.iter().map(|word| word.value.to_owned()).collect(),
            report: report.value,
            report_path,
            must_pass: must_pass.iter().map(|test| test.value.to_owned()).collect(),
            must_keep,
        })
    }

    fn report(&self, fields: &mut Fields<'_>) -> Option<At<ReportKind>> {
        fields.require("report");
        let text = fields.text("report")?;
        let advice = match text.value {
            "nextest" | "gtest" | "ctest" | "surefire" | "gradle" => "is `junit` here",
            "node" => "is `tap` here: `node --test --test-reporter=tap`",
            "libtest" => "is `cargo` here",
            "vitest" => "is `jest` here: vitest writes the same JSON",
            "log:parse_log_astroid"
            | "log:parse_log_flask"
            | "log:parse_log_marshmallow"
            | "log:parse_log_pvlib"
            | "log:parse_log_pyvista"
            | "log:parse_log_sqlfluff"
            | "log:parse_log_xarray" => "is `log:parse_log_pytest` here",
            "log:parse_log_pydicom" | "log:parse_log_requests" | "log:parse_log_pylint" => {
                "is `log:parse_log_pytest_options` here"
            }
            "log:parse_log_astropy" | "log:parse_log_scikit" | "log:parse_log_sphinx" => {
                "is `log:parse_log_pytest_v2` here"
            }
            "log:parse_log_maven" => "is not read: surefire leaves `junit` reports",
            "log:parse_log_tap" => "is `tap` here",
            _ => return fields.word("report", ReportKind::ALL, ReportKind::as_str),
        };
        self.problem(&text.span, format!("`report` is `{}`, which {advice}", text.value));
        None
    }

    /// Checks that a report's path is there where it has to be, and leads to files in the work tree.
    fn report_path(&self, report: &At<ReportKind>, path: Option<At<&str>>) -> Option<String> {
        let Some(path) = path else {
            if matches!(report.value, ReportKind::Junit | ReportKind::Ctrf) {
                let message = format!(
                    "a `{}` check needs `report_path`, the file that the command leaves",
                    report.value
                );
                self.problem(&report.span, message);
            }
            return None;
        };
        if !report.value.is_foreign() {
            let message = format!("`report_path` is not for `{}` reports", report.value);
            self.problem(&path.span, message);
        }
        let plain = |part: &str| {
            let known = |c: char| c.is_alphanumeric() || "_-.+@=, ".contains(c);
            !matches!(part, "" | "." | "..") && part.chars().all(known)
        };
        let (folders, name) = path.value.rsplit_once('/').unwrap_or(("", path.value));
        let folders_fit = folders.is_empty() || folders.split('/').all(plain);
        if !folders_fit || !plain(&name.replace(['*', '?'], "_")) {
            let message = "`report_path` is a path in the work tree, without `..`; \
                           its last part may have `*` and `?`";
            self.problem(&path.span, message);
        }
        Some(path.value.to_owned())
    }

    /// Checks that report, command, submission and files of the task fit together.
    fn fits(
        &self,
        report: &At<ReportKind>,
        run: &[At<&str>],
        kind: Option<SubmissionKind>,
        span: &Range<usize>,
    ) {
        let needs = |wanted: SubmissionKind| {
            if let Some(kind) = kind
                && kind != wanted
            {
                let message =
                    format!("`report` is `{}`, which is for `kind = \"{wanted}\"`", report.value);
                self.problem(&report.span, message);
            }
        };
        let has = |name: &str| self.dir.join(name).is_file();
        match report.value {
            ReportKind::Function => {
                needs(SubmissionKind::Function);
                if let Some(word) = run.first() {
                    self.problem(
                        &word.span,
                        "a `function` check has no `run`: our grader calls it",
                    );
                }
                if !has("private/tests.py") {
                    self.problem(&report.span, "a `function` check needs private/tests.py");
                }
            }
            ReportKind::Pytest | ReportKind::Unittest | ReportKind::Django => {
                let words: Vec<_> = run.iter().map(|word| word.value).collect();
                let wanted = match (report.value, words.as_slice()) {
                    (ReportKind::Pytest, ["python" | "python3", "-m", "pytest", _, ..])
                    | (ReportKind::Unittest, ["python" | "python3", "-m", "unittest", ..]) => None,
                    (ReportKind::Django, ["python" | "python3", script, options @ ..])
                        if script.ends_with(".py") =>
                    {
                        let parallel = options.iter().any(|word| word.starts_with("--parallel"));
                        parallel.then_some("runs in one process: without `--parallel`")
                    }
                    (ReportKind::Pytest, _) => {
                        Some("runs `[\"python3\", \"-m\", \"pytest\", FILE...]`")
                    }
                    (ReportKind::Unittest, _) => {
                        Some("runs `[\"python3\", \"-m\", \"unittest\", ...]`")
                    }
                    _ => Some("runs `[\"python3\", \"manage.py\", \"test\", ...]`"),
                };
                if let Some(wanted) = wanted {
                    let span = run.first().map_or(span, |word| &word.span);
                    self.problem(span, format!("a `{}` check {wanted}", report.value));
                }
            }
            _ => {
                if run.is_empty() {
                    self.problem(span, format!("a `{}` check needs a `run`", report.value));
                }
                if report.value == ReportKind::Stdio && !has_cases(&self.dir.join("private/cases"))
                {
                    let message = "a `stdio` check needs private/cases/NAME.in and NAME.out";
                    self.problem(&report.span, message);
                }
            }
        }
    }

    /// Returns the mode that is written, or the one that the checks imply.
    pub(super) fn mode(&self, written: Option<At<Mode>>, checks: &[Check]) -> Mode {
        let open = checks.iter().any(|check| check.report.is_open());
        let bound = checks.iter().find(|check| !check.report.is_sealable());
        match (written, bound) {
            (Some(at), Some(check)) if at.value == Mode::Sealed => {
                let message = format!(
                    "`mode` is `sealed`, but check `{}` brings its tests to the code: `guarded`",
                    check.id
                );
                self.problem(&at.span, message);
                Mode::Guarded
            }
            (Some(at), _) => at.value,
            // What can be sealed, `assay task validate --write-lock` finds out.
            (None, _) if open => Mode::Guarded,
            (None, _) => Mode::Sealed,
        }
    }
}

fn has_cases(dir: &Path) -> bool {
    let Ok(files) = tree::walk(dir) else { return false };
    let names: BTreeSet<_> = files.iter().map(|entry| entry.path.as_path()).collect();
    let inputs = names.iter().filter(|path| path.extension().is_some_and(|ending| ending == "in"));
    let mut inputs = inputs.peekable();
    inputs.peek().is_some()
        && inputs.all(|path| names.contains(path.with_extension("out").as_path()))
}
