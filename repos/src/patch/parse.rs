//! From text to file patches.

use std::path::PathBuf;

use super::{FilePatch, Hunk, Side, malformed};
use crate::{Rejection, RejectionKind, tree::plain_path};

/// Reads a patch. Lines before its first file (a commit message) are skipped; between files only
/// blank lines may stand. Takes time and memory linear in `text`.
pub(crate) fn parse(text: &str) -> Result<Vec<FilePatch<'_>>, Rejection> {
    let mut parser = Parser { lines: text.split_inclusive('\n').collect(), at: 0 };
    let mut files = Vec::new();
    while let Some(line) = parser.peek() {
        if line.starts_with("diff --git ") {
            files.push(parser.git_file()?);
        } else if parser.at_names() {
            files.push(parser.plain_file()?);
        } else if line.starts_with("diff --cc ") || line.starts_with("diff --combined ") {
            return Err(parser.malformed("a merge's combined diff can't be applied"));
        } else if is_binary(line) {
            return Err(parser.reject(RejectionKind::Binary, "binary patches are refused"));
        } else if line.starts_with("@@ ") {
            return Err(parser.malformed("a hunk without `--- ` and `+++ ` lines before it"));
        } else if files.is_empty() || is_between(line) {
            parser.at += 1;
        } else if line.starts_with("-- ") || line == "--" {
            // The signature that `git format-patch` ends with.
            break;
        } else {
            let what = "neither part of the hunk before, which is complete, nor a file header";
            return Err(parser.malformed(what));
        }
    }
    if files.is_empty() {
        let detail = "no `diff --git` or `---` and `+++` lines".into();
        return Err(Rejection { kind: RejectionKind::Malformed, detail });
    }
    Ok(files)
}

/// Checks that a patch may touch `text` at all.
pub(crate) fn check_path(text: &str) -> Result<PathBuf, String> {
    let path =
        plain_path(text).map_err(|why| format!("`{}`: a path {why}", text.escape_debug()))?;
    if text.split('/').any(|part| part.eq_ignore_ascii_case(".git")) {
        return Err(format!("`{text}`: .git can't be touched"));
    }
    Ok(path)
}

fn is_binary(line: &str) -> bool {
    line == "GIT binary patch" || (line.starts_with("Binary files ") && line.ends_with(" differ"))
}

/// Lines that other tools put between files.
fn is_between(line: &str) -> bool {
    line.trim().is_empty()
        || ["Index: ", "=====", "diff -", "Only in "].iter().any(|start| line.starts_with(start))
}

/// A file's name; absent for `/dev/null`.
type Name = Option<String>;

struct Parser<'t> {
    lines: Vec<&'t str>,
    at: usize,
}

/// What the extended headers of one file say.
#[derive(Default)]
struct Headers {
    new_file: bool,
    deleted: bool,
    copy: bool,
    from: Name,
    to: Name,
    old_executable: Option<bool>,
    new_executable: Option<bool>,
}

impl<'t> Parser<'t> {
    /// The current line without its end.
    fn peek(&self) -> Option<&'t str> {
        self.lines.get(self.at).map(|line| line.trim_end_matches(['\n', '\r']))
    }

    /// Whether a `--- ` line stands here and a `+++ ` line after it.
    fn at_names(&self) -> bool {
        let starts =
            |at: usize, start| self.lines.get(at).is_some_and(|line| line.starts_with(start));
        starts(self.at, "--- ") && starts(self.at + 1, "+++ ")
    }

    fn malformed(&self, what: impl std::fmt::Display) -> Rejection {
        malformed(self.at + 1, what)
    }

    fn reject(&self, kind: RejectionKind, what: impl std::fmt::Display) -> Rejection {
        Rejection { kind, detail: format!("line {}: {what}", self.at + 1) }
    }

    /// A file that starts with `diff --git`.
    fn git_file(&mut self) -> Result<FilePatch<'t>, Rejection> {
        let line = self.at + 1;
        let named = self.peek().unwrap_or_default();
        let named = named.strip_prefix("diff --git ").unwrap_or_default();
        self.at += 1;
        let headers = self.headers()?;
        let same = same_name(named);
        let from = headers.from.clone().or_else(|| same.clone());
        let to = headers.to.clone().or_else(|| same.clone());
        let (old, new) = match self.own_names(&from, &to)? {
            Some(names) => names,
            None if from.is_some() && to.is_some() => (from, to),
            None => return Err(malformed(line, "can't tell the file's name from this line")),
        };
        let old = old.filter(|_| !headers.new_file);
        let new = new.filter(|_| !headers.deleted);
        if old.is_some() && new.is_some() && old != new && headers.from.is_none() {
            return Err(malformed(line, "the names before and after differ without a rename"));
        }
        self.file(line, old, new, &headers)
    }

    /// A file that starts with `--- ` and `+++ `.
    fn plain_file(&mut self) -> Result<FilePatch<'t>, Rejection> {
        let line = self.at + 1;
        let (old, new) = self.names()?;
        if old.is_some() && new.is_some() && old != new {
            return Err(malformed(line, "the names before and after differ without a rename"));
        }
        self.file(line, old, new, &Headers::default())
    }

    fn file(
        &mut self,
        line: usize,
        old: Name,
        new: Name,
        headers: &Headers,
    ) -> Result<FilePatch<'t>, Rejection> {
        let path = |name: Name| {
            name.map(|name| check_path(&name)).transpose().map_err(|why| Rejection {
                kind: RejectionKind::Denied,
                detail: format!("line {line}: {why}"),
            })
        };
        let (old, new) = (path(old)?, path(new)?);
        if old.is_none() && new.is_none() {
            return Err(malformed(line, "a file that is neither before nor after"));
        }
        let mut hunks = Vec::new();
        while self.peek().is_some_and(|line| line.starts_with("@@ ")) {
            hunks.push(self.hunk()?);
        }
        if self.peek().is_some_and(is_binary) {
            return Err(self.reject(RejectionKind::Binary, "binary patches are refused"));
        }
        let bare = !(headers.new_file || headers.deleted || headers.from.is_some());
        if hunks.is_empty() && bare && headers.new_executable.is_none() {
            return Err(malformed(line, "a file without a hunk"));
        }
        Ok(FilePatch {
            line,
            old,
            new,
            old_executable: headers.old_executable,
            new_executable: headers.new_executable,
            copy: headers.copy,
            hunks,
        })
    }

    /// The lines between `diff --git` and `--- `.
    fn headers(&mut self) -> Result<Headers, Rejection> {
        let mut headers = Headers::default();
        while let Some(line) = self.peek() {
            let (key, value) = header(line);
            match key {
                "old mode" => headers.old_executable = Some(self.mode(value)?),
                "new mode" => headers.new_executable = Some(self.mode(value)?),
                "deleted file mode" => {
                    headers.deleted = true;
                    headers.old_executable = Some(self.mode(value)?);
                }
                "new file mode" => {
                    headers.new_file = true;
                    headers.new_executable = Some(self.mode(value)?);
                }
                "rename from" | "copy from" => {
                    headers.copy = key == "copy from";
                    headers.from = Some(self.whole_name(value)?);
                }
                "rename to" | "copy to" => headers.to = Some(self.whole_name(value)?),
                "similarity index" | "dissimilarity index" => {}
                "index" => {
                    if let Some((_, mode)) = value.rsplit_once(' ') {
                        self.mode(mode)?;
                    }
                }
                _ if is_binary(line) => {
                    return Err(self.reject(RejectionKind::Binary, "binary patches are refused"));
                }
                _ => break,
            }
            self.at += 1;
        }
        if headers.from.is_some() != headers.to.is_some() {
            return Err(self.malformed("half of a rename"));
        }
        if headers.new_file && headers.deleted {
            return Err(self.malformed("a file that is both new and deleted"));
        }
        Ok(headers)
    }

    /// Returns whether a file of this mode is executable.
    fn mode(&self, text: &str) -> Result<bool, Rejection> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode & 0o170_000 == 0o100_000 => Ok(mode & 0o100 != 0),
            Ok(mode) if mode & 0o170_000 == 0o120_000 => {
                Err(self.reject(RejectionKind::Denied, "symbolic links are refused"))
            }
            Ok(0o160_000) => Err(self.reject(RejectionKind::Denied, "submodules are refused")),
            _ => Err(self.malformed(format_args!("`{}` is no file mode", text.escape_debug()))),
        }
    }

    /// A name with no prefix to take off.
    fn whole_name(&self, text: &str) -> Result<String, Rejection> {
        let name = match text.strip_prefix('"') {
            Some(quoted) => {
                unquote(quoted).filter(|(_, rest)| rest.is_empty()).map(|(name, _)| name)
            }
            None => Some(text.to_owned()),
        };
        name.ok_or_else(|| self.malformed("a badly quoted name"))
    }

    /// The `--- ` and `+++ ` lines of a file that other lines have named already. Where they name
    /// another, they belong to the next.
    fn own_names(&mut self, from: &Name, to: &Name) -> Result<Option<(Name, Name)>, Rejection> {
        if !self.at_names() {
            return Ok(None);
        }
        let start = self.at;
        let (old, new) = self.names()?;
        let agree = |a: &Name, b: &Name| a.is_none() || b.is_none() || a == b;
        if agree(from, &old) && agree(to, &new) {
            return Ok(Some((old, new)));
        }
        self.at = start;
        Ok(None)
    }

    /// The `--- ` and `+++ ` lines. A name of `/dev/null` is none.
    fn names(&mut self) -> Result<(Name, Name), Rejection> {
        let old = self.name("--- ")?;
        self.at += 1;
        let new = self.name("+++ ")?;
        self.at += 1;
        let prefixed =
            |name: &Name, prefix| name.as_ref().is_none_or(|name| name.starts_with(prefix));
        if !prefixed(&old, "a/") || !prefixed(&new, "b/") {
            return Ok((old, new));
        }
        let strip = |name: Name| name.map(|name| name[2..].to_owned());
        Ok((strip(old), strip(new)))
    }

    fn name(&self, start: &str) -> Result<Name, Rejection> {
        let line = self.peek().unwrap_or_default();
        let text = line.strip_prefix(start).unwrap_or_default();
        let name = match text.strip_prefix('"') {
            Some(quoted) => unquote(quoted)
                .map(|(name, _)| name)
                .ok_or_else(|| self.malformed("a badly quoted name"))?,
            // A time stamp may follow a tab.
            None => text.split('\t').next().unwrap_or_default().trim_end().to_owned(),
        };
        Ok(if name == "/dev/null" { None } else { Some(name) })
    }

    fn hunk(&mut self) -> Result<Hunk<'t>, Rejection> {
        let line = self.at + 1;
        let ranges = self.peek().and_then(ranges);
        let Some([(old_start, mut old_left), (new_start, mut new_left)]) = ranges else {
            return Err(self.malformed("not a hunk header: `@@ -LINE,COUNT +LINE,COUNT @@`"));
        };
        if old_left == 0 && new_left == 0 {
            return Err(self.malformed("a hunk without lines"));
        }
        self.at += 1;
        let mut lines: Vec<(Side, &'t str)> = Vec::new();
        while old_left > 0 || new_left > 0 || self.at_no_newline() {
            let Some(&text) = self.lines.get(self.at) else {
                let what = format!(
                    "the hunk ends early: its header promises {old_left} more old and {new_left} \
                     more new lines"
                );
                return Err(malformed(line, what));
            };
            let (side, rest) = match text.as_bytes().first() {
                Some(b' ') => (Side::Both, &text[1..]),
                Some(b'-') => (Side::Old, &text[1..]),
                Some(b'+') => (Side::New, &text[1..]),
                // Editors and mailers take the blank off an empty line.
                Some(b'\n' | b'\r') => (Side::Both, text),
                Some(b'\\') => {
                    let Some((_, last)) = lines.last_mut() else {
                        return Err(self.malformed("`\\ No newline` with no line before it"));
                    };
                    *last = last.strip_suffix('\n').unwrap_or(last);
                    self.at += 1;
                    continue;
                }
                _ => {
                    let what = format!(
                        "not a line of the hunk, whose header promises {old_left} more old and \
                         {new_left} more new lines"
                    );
                    return Err(self.malformed(what));
                }
            };
            let fits = match side {
                Side::Both => old_left > 0 && new_left > 0,
                Side::Old => old_left > 0,
                Side::New => new_left > 0,
            };
            if !fits {
                return Err(self.malformed("the hunk has more lines than its header promises"));
            }
            old_left -= usize::from(side != Side::New);
            new_left -= usize::from(side != Side::Old);
            lines.push((side, rest));
            self.at += 1;
        }
        Ok(Hunk { line, old_start, new_start, lines })
    }

    fn at_no_newline(&self) -> bool {
        self.lines.get(self.at).is_some_and(|line| line.starts_with("\\ "))
    }
}

/// Splits an extended header into its key and its value.
fn header(line: &str) -> (&str, &str) {
    const KEYS: [&str; 11] = [
        "old mode",
        "new mode",
        "deleted file mode",
        "new file mode",
        "rename from",
        "rename to",
        "copy from",
        "copy to",
        "similarity index",
        "dissimilarity index",
        "index",
    ];
    let split = |key: &&'static str| {
        line.strip_prefix(*key).and_then(|rest| rest.strip_prefix(' ')).map(|value| (*key, value))
    };
    KEYS.iter().find_map(split).unwrap_or(("", line))
}

/// Reads `@@ -1,2 +3,4 @@ anything` as `[(1, 2), (3, 4)]`. A count that is left out is 1.
fn ranges(line: &str) -> Option<[(usize, usize); 2]> {
    let rest = line.strip_prefix("@@ -")?;
    let (ranges, _) = rest.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let number = |text: &str| {
        let plain = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
        if plain { text.parse::<usize>().ok() } else { None }
    };
    let range = |text: &str| match text.split_once(',') {
        Some((start, count)) => Some((number(start)?, number(count)?)),
        None => Some((number(text)?, 1)),
    };
    Some([range(old)?, range(new)?])
}

/// Returns the name in `a/NAME b/NAME`, which is all that a change of mode alone has.
fn same_name(names: &str) -> Option<String> {
    if let Some(quoted) = names.strip_prefix('"') {
        let (old, rest) = unquote(quoted)?;
        let (new, rest) = unquote(rest.strip_prefix(" \"")?)?;
        let same = rest.is_empty() && old.strip_prefix("a/")? == new.strip_prefix("b/")?;
        return same.then(|| new["b/".len()..].to_owned());
    }
    let middle = names.len() / 2;
    let (old, new) = (names.get(..middle)?, names.get(middle + 1..)?);
    let both = names.as_bytes().get(middle) == Some(&b' ');
    let (old, new) = match (old.strip_prefix("a/"), new.strip_prefix("b/")) {
        (Some(old), Some(new)) => (old, new),
        _ => (old, new),
    };
    (both && old == new).then(|| new.to_owned())
}

/// Reads a name that git quoted like a C string, from after its opening quote. Returns it with what
/// follows the closing quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut name = Vec::new();
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((String::from_utf8(name).ok()?, &text[at + 1..])),
            b'\\' => name.push(match bytes.next()?.1 {
                b'a' => 7,
                b'b' => 8,
                b't' => b'\t',
                b'n' => b'\n',
                b'v' => 11,
                b'f' => 12,
                b'r' => b'\r',
                escaped @ (b'"' | b'\\') => escaped,
                first @ b'0'..=b'3' => {
                    let mut digit =
                        || bytes.next().map(|(_, b)| b).filter(|b| (b'0'..=b'7').contains(b));
                    let (second, third) = (digit()?, digit()?);
                    (first - b'0') * 64 + (second - b'0') * 8 + (third - b'0')
                }
                _ => return None,
            }),
            _ => name.push(byte),
        }
    }
    None
}
