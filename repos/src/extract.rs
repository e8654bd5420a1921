//! Takes a submission out of a raw completion.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{Rejection, RejectionKind, patch::check_path};

/// One fenced block of a Markdown text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block<'t> {
    /// What follows the opening fence.
    pub(crate) info: &'t str,
    /// The last line before it that is not blank.
    pub(crate) before: &'t str,
    /// What is inside, line ends included.
    pub(crate) content: &'t str,
}

/// A text that is to be found once and replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) path: PathBuf,
    pub(crate) search: String,
    pub(crate) replace: String,
}

/// Returns the fenced blocks of `text`. The last one may lack its closing fence.
pub(crate) fn blocks(text: &str) -> impl Iterator<Item = Block<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut before = "";
        loop {
            let line = text.get(at..)?.split_inclusive('\n').next()?;
            at += line.len();
            let Some((fence, info)) = opening(line) else {
                if !line.trim().is_empty() {
                    before = line.trim();
                }
                continue;
            };
            let start = at;
            let mut end = text.len();
            for line in text[start..].split_inclusive('\n') {
                let from = at;
                at += line.len();
                if closes(line, fence) {
                    end = from;
                    break;
                }
            }
            return Some(Block { info, before, content: &text[start..end] });
        }
    })
}

/// Returns the first fenced block's content, else the whole text.
pub(crate) fn fence(text: &str) -> &str {
    blocks(text).next().map_or(text, |block| block.content)
}

/// Returns the first unified diff of `text`: a fenced block that holds one, else everything from
/// its first header on.
pub(crate) fn diff(text: &str) -> Option<&str> {
    let fenced = blocks(text).find(|block| {
        matches!(block.info, "diff" | "patch") || diff_start(block.content).is_some()
    });
    match fenced {
        Some(block) => Some(block.content),
        None => diff_start(text).map(|start| &text[start..]),
    }
}

/// Returns the edits of `text`: a path, then `<<<<<<< SEARCH`, `=======`, `>>>>>>> REPLACE`. A
/// block without a path is about the file of the block before.
pub(crate) fn search_replace(text: &str) -> Result<Vec<Edit>, Rejection> {
    let malformed = |line: usize, what: &str| Rejection {
        kind: RejectionKind::Malformed,
        detail: format!("line {}: {what}", line + 1),
    };
    let mut edits: Vec<Edit> = Vec::new();
    let mut named: Option<&str> = None;
    let mut lines = text.split_inclusive('\n').enumerate();
    while let Some((number, line)) = lines.next() {
        let bare = line.trim();
        if bare.starts_with("<<<<<<<") {
            let path = match (named.take(), edits.last()) {
                (Some(name), _) => check_path(name).map_err(|why| Rejection {
                    kind: RejectionKind::Denied,
                    detail: format!("line {number}: {why}"),
                })?,
                (None, Some(before)) => before.path.clone(),
                (None, None) => return Err(malformed(number, "no path before the block")),
            };
            let (mut search, mut replace) = (String::new(), String::new());
            let (mut divided, mut closed) = (false, false);
            for (_, line) in lines.by_ref() {
                match line.trim_end() {
                    "=======" if !divided => divided = true,
                    end if end.starts_with(">>>>>>>") => {
                        closed = true;
                        break;
                    }
                    _ if divided => replace.push_str(line),
                    _ => search.push_str(line),
                }
            }
            if !divided || !closed {
                return Err(malformed(number, "a block without `=======` or `>>>>>>> REPLACE`"));
            }
            edits.push(Edit { path, search, replace });
        } else if let Some(name) = path_line(bare) {
            named = Some(name);
        }
    }
    Ok(edits)
}

/// Returns the files of `text`: fenced blocks, each with its path in the line before it or after
/// the language. Blocks without a path are talk.
pub(crate) fn files(text: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for block in blocks(text) {
        let word = block.info.split_whitespace().next_back().unwrap_or_default();
        let word = word.strip_prefix("path=").unwrap_or(word);
        let word = word.rsplit(':').next().unwrap_or_default();
        if let Some(name) = path_line(word).or_else(|| path_line(block.before)) {
            files.insert(PathBuf::from(name), block.content.as_bytes().to_vec());
        }
    }
    files
}

/// Returns the path in a line that holds nothing else but marks around it.
fn path_line(line: &str) -> Option<&str> {
    let line =
        line.trim().trim_start_matches(['#', '*', '-', ' ']).trim_end_matches(['*', ':', ' ']);
    let line = ["File:", "file:", "Path:", "path:"]
        .iter()
        .find_map(|start| line.strip_prefix(start))
        .unwrap_or(line);
    let line = line.trim().trim_matches(['`', '*']).trim_end_matches(':');
    let plain = !line.is_empty()
        && !line.contains(char::is_whitespace)
        && line.contains(['.', '/'])
        && !line.starts_with("```")
        && !line.ends_with('.');
    plain.then_some(line)
}

/// Returns the fence that `line` opens, and what follows it.
fn opening(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let ticks = line.len() - line.trim_start_matches(mark).len();
    let (fence, info) = line.split_at(ticks);
    // A line such as ```code``` is no fence.
    (ticks >= 3 && !info.contains('`')).then_some((fence, info.trim()))
}

fn closes(line: &str, fence: &str) -> bool {
    let line = line.trim();
    line.len() >= fence.len()
        && line.starts_with(fence)
        && line.trim_start_matches(&fence[..1]).is_empty()
}

/// Returns where the first header of a diff starts.
fn diff_start(text: &str) -> Option<usize> {
    let mut at = 0;
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let names =
            line.starts_with("--- ") && lines.peek().is_some_and(|next| next.starts_with("+++ "));
        if names || line.starts_with("diff --git ") {
            return Some(at);
        }
        at += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fence_or_everything() {
        let cases = [
            ("plain", "x = 1", "x = 1"),
            ("tagged", "Sure!\n```python\nx = 1\n```\nDone.", "x = 1\n"),
            ("untagged", "```\nx\n```", "x\n"),
            ("unterminated", "```py\nx = 1\ny", "x = 1\ny"),
            ("second is ignored", "```\na\n```\n```\nb\n```", "a\n"),
            ("empty", "```python\n```", ""),
            ("nothing after it", "```", ""),
            ("longer fence", "````\n```\nx\n```\n````", "```\nx\n```\n"),
            ("tilde", "~~~\nx\n~~~", "x\n"),
            ("inline code", "use ```x``` here", "use ```x``` here"),
            ("line of inline code", "```x``` here\ny", "```x``` here\ny"),
            ("windows", "```\r\nx\r\n```\r\n", "x\r\n"),
            ("indented", "  ```python\n  x\n  ```", "  x\n"),
            ("nothing", "", ""),
            ("not ASCII", "é```\n```é\nx\n```", "x\n"),
        ];
        for (name, text, expected) in cases {
            assert_eq!(fence(text), expected, "{name}");
        }
    }

    #[test]
    fn diffs_fenced_or_not() {
        let diff_text = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n";
        let cases = [
            ("fenced", format!("Fix:\n```diff\n{diff_text}```\nbye"), Some(diff_text)),
            ("code first", format!("```py\nx\n```\n```\n{diff_text}```"), Some(diff_text)),
            ("bare", format!("Here:\n\n{diff_text}"), Some(diff_text)),
            ("none", "I can't.\n--- \n".to_owned(), None),
        ];
        for (name, text, expected) in cases {
            assert_eq!(diff(&text), expected, "{name}");
        }
    }

    #[test]
    fn search_and_replace_blocks() {
        let text = "`a/b.py`\n```\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n```\n\
                    <<<<<<< SEARCH\n=======\nz\n>>>>>>> REPLACE\n";
        let edit = |search: &str, replace: &str| Edit {
            path: "a/b.py".into(),
            search: search.into(),
            replace: replace.into(),
        };
        assert_eq!(search_replace(text), Ok(vec![edit("x\n", "y\n"), edit("", "z\n")]));
        for bad in [
            "<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n",
            "a.py\n<<<<<<< SEARCH\nx\n",
            "a.py\n<<<<<<< SEARCH\nx\n=======\n",
            "a.py\n<<<<<<< SEARCH\n>>>>>>> REPLACE\n",
            "../a.py\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n",
        ] {
            assert!(search_replace(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn files_by_path() {
        let text = "### `a/b.py`\n```python\nx\n```\n```python c.py\ny\n```\n```python path=d.py\nz\n```\n\
                    So that\n```\ntalk\n```\n";
        let found = files(text);
        let names: Vec<_> =
            found.iter().map(|(p, c)| (p.to_str().unwrap(), c.as_slice())).collect();
        assert_eq!(names, [("a/b.py", &b"x\n"[..]), ("c.py", b"y\n"), ("d.py", b"z\n")]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "(?s)([`~]{2,4}|[<>=]{7}| SEARCH|\\n|--- |\\+\\+\\+ |diff --git|.){0,60}") {
            let _ = (fence(&text), diff(&text), search_replace(&text), files(&text));
            // What comes out is always a part of what went in.
            proptest::prop_assert!(text.contains(fence(&text)));
        }
    }
}
