//! pytest's own lines: `PASSED id` below `short test summary info`, with `-rA`, and
//! `id PASSED [ 12%]` before the first of its sections, with `-v`.
//!
//! Rows cut an id at its first blank, which stands in brackets: `test_a[b c]` is there as
//! `test_a[b`. Both are reported, and the piece is as good as the worst test that begins with it.

use super::Log;
use crate::report::TestStatus;

const WORDS: [(&str, TestStatus); 6] = [
    ("PASSED", TestStatus::Passed),
    ("FAILED", TestStatus::Failed),
    ("ERROR", TestStatus::Error),
    ("SKIPPED", TestStatus::Skipped),
    ("XFAIL", TestStatus::Xfailed),
    ("XPASS", TestStatus::Xpassed),
];

/// Reads a log; `name` turns an id into the one that rows have.
pub(super) fn read(document: &str, log: &mut Log<'_>, name: fn(&str) -> String) {
    let lines: Vec<&str> = document.lines().collect();
    // The tests of a test tool print the summaries of others. Ours are the last.
    let end = lines.iter().rposition(|line| summary(line).is_some());
    let listed = lines.iter().rposition(|line| title(line) == Some("short test summary info"));
    let sections =
        lines.iter().position(|line| title(line).is_some_and(is_section)).unwrap_or(lines.len());
    if let Some(end) = end {
        log.ends(summary(lines[end]));
    }
    log.seen |= lines.iter().any(|line| title(line) == Some("test session starts"));

    for line in &lines[..sections] {
        if let Some((status, id, said)) = progress(line) {
            report(log, status, &name(id), said);
        }
    }
    // Either list may have all of them. The summary has room for one.
    let before = std::mem::take(&mut log.passed);
    if let Some(listed) = listed {
        let end = end.filter(|end| *end > listed).unwrap_or(lines.len());
        for line in &lines[listed + 1..end] {
            let Some((status, rest)) = begins(line) else { continue };
            // `SKIPPED [3] path:line: reason` counts tests and names none.
            if status == TestStatus::Skipped && rest.starts_with('[') {
                continue;
            }
            let (id, said) = split(rest);
            report(log, status, &name(id), said);
        }
    }
    log.passed = log.passed.max(before);
}

fn report(log: &mut Log<'_>, status: TestStatus, id: &str, said: &str) {
    log.add(id, status, said);
    if let Some((piece, _)) = id.split_once(char::is_whitespace) {
        log.say(piece, status, said);
    }
}

/// Reads `id PASSED [ 12%]`, and xdist's `[gw0] [ 12%] PASSED id`.
fn progress(line: &str) -> Option<(TestStatus, &str, &str)> {
    let line = line.trim_end();
    if let Some(rest) = line.strip_prefix("[gw") {
        let (_, rest) = rest.split_once("] ")?;
        let rest = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once("] ")?.1,
            None => rest,
        };
        let (status, id) = begins(rest)?;
        return Some((status, id, ""));
    }
    let line = match line.rsplit_once(" [") {
        Some((before, rest)) if rest.ends_with("%]") => before.trim_end(),
        _ => line,
    };
    let known = |(at, word): (usize, &str)| {
        let status = WORDS.iter().find(|(known, _)| *known == word)?.1;
        let (id, said) = (&line[..at], line[at + word.len()..].trim());
        let reason = said.is_empty() || said.starts_with('(') && said.ends_with(')');
        (id.contains("::") && reason).then(|| (status, id.trim_end(), said))
    };
    words(line).find_map(known)
}

/// Returns the words of a line after blanks, and where they begin.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    line.match_indices(' ').filter_map(|(at, _)| {
        let word = line[at + 1..].split(' ').next()?;
        Some((at + 1, word))
    })
}

/// Reads `PASSED rest`.
fn begins(line: &str) -> Option<(TestStatus, &str)> {
    if line.starts_with("SUBFAIL") {
        // `SUBFAILED(i=0) id`: the test itself may be told to pass.
        let id = line.split(' ').find(|word| word.contains("::"))?;
        return Some((TestStatus::Failed, id));
    }
    let (word, rest) = line.split_once(' ')?;
    let (_, status) = WORDS.iter().find(|(known, _)| *known == word)?;
    let rest = rest.trim();
    (!rest.is_empty()).then_some((*status, rest))
}

/// Takes the message off an id: `test_a[x - y] - assert 0`.
fn split(rest: &str) -> (&str, &str) {
    let dash = rest.find(" - ");
    let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let end = match (rest[..word].find('['), dash) {
        (None, Some(dash)) => dash,
        (None, None) => word,
        (Some(_), _) => match rest.find("] - ") {
            Some(close) => close + 1,
            None if rest.ends_with(']') => rest.len(),
            None => rest.rfind("] ").map_or(rest.len(), |close| close + 1),
        },
    };
    let (id, said) = rest.split_at(end);
    (id, said.strip_prefix(" - ").unwrap_or(said))
}

/// Returns what stands between `=====` and `=====`.
fn title(line: &str) -> Option<&str> {
    let rest = line.trim().strip_prefix("==")?;
    Some(rest.strip_suffix("==")?.trim_matches('=').trim())
}

fn is_section(title: &str) -> bool {
    let sections = [
        "FAILURES",
        "ERRORS",
        "PASSES",
        "XFAILURES",
        "XPASSES",
        "warnings summary",
        "short test summary info",
    ];
    sections.contains(&title)
}

/// Reads `3 passed, 1 failed in 0.12s`, with `=====` around it or without. Returns how many passed,
/// or failed as expected.
fn summary(line: &str) -> Option<u64> {
    let (counts, time) = line.trim().trim_matches('=').trim().rsplit_once(" in ")?;
    if !time.starts_with(|c: char| c.is_ascii_digit()) || !time.contains('s') {
        return None;
    }
    if counts == "no tests ran" {
        return Some(0);
    }
    let mut passed = 0;
    for count in counts.split(", ") {
        let (number, word) = count.split_once(' ')?;
        let number: u64 = number.parse().ok()?;
        if matches!(word, "passed" | "xfailed") {
            passed = number.saturating_add(passed);
        }
    }
    Some(passed)
}

/// Returns an id whose parameter, where it is a path, is its last part: `test_a[/tmp/x/b]` is
/// `test_a[/b]`.
pub(super) fn short_option(id: &str) -> String {
    let short = || {
        let (test, rest) = id.split_once('[')?;
        let (option, _) = rest.rsplit_once(']')?;
        if !option.starts_with('/') || option.starts_with("//") || option.contains('*') {
            return None;
        }
        let (_, last) = option.rsplit_once('/')?;
        Some(format!("{test}[/{last}]"))
    };
    short().unwrap_or_else(|| id.to_owned())
}

/// Returns an id in which mouse buttons are numbers, as matplotlib's rows have them.
pub(super) fn plain_buttons(id: &str) -> String {
    id.replace("MouseButton.LEFT", "1").replace("MouseButton.RIGHT", "3")
}

/// Returns the test's own name: `test_a[1]` of `t.py::Sum::test_a[1]`.
pub(super) fn last_part(id: &str) -> String {
    let (before, parameters) = id.split_at(id.find('[').unwrap_or(id.len()));
    let name = before.rsplit("::").next().unwrap_or(before);
    format!("{name}{parameters}")
}
