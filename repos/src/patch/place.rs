//! Puts hunks where they fit.

use std::collections::HashMap;

use super::{Hunk, Side};

/// What all hunks of a submission may cost: bytes of files split, places tried and blocks of 16
/// lines compared. Some tenths of a second; real patches need a thousandth of it.
pub(crate) const BUDGET: u64 = 1 << 26;

/// Returns `content` with `hunks` applied. The error says which line of the patch, and why.
pub(crate) fn place(
    hunks: &[Hunk<'_>],
    content: &[u8],
    budget: &mut u64,
) -> Result<Vec<u8>, (usize, String)> {
    let Some(first) = hunks.first() else { return Ok(content.to_vec()) };
    spend(budget, content.len() as u64, first)?;
    let lines: Vec<&[u8]> = content.split_inclusive(|&b| b == b'\n').collect();
    let mut search = Search { lines: &lines, numbers: None, budget };
    let mut out = Vec::with_capacity(content.len());
    let mut cursor = 0;
    let mut drift = 0_isize;
    for hunk in hunks {
        let old = hunk.lines.iter().filter(|(side, _)| *side != Side::New);
        let old: Vec<&[u8]> = old.map(|(_, text)| text.as_bytes()).collect();
        let stated = hunk.old_start - usize::from(!old.is_empty() && hunk.old_start > 0);
        let expected = stated.saturating_add_signed(drift);
        let at = search
            .find(hunk, &old, cursor, expected)?
            .ok_or_else(|| (hunk.line, mismatch(&old, &lines, cursor, expected)))?;
        drift = at as isize - stated as isize;
        for line in &lines[cursor..at] {
            push(&mut out, line, hunk)?;
        }
        for (_, text) in hunk.lines.iter().filter(|(side, _)| *side != Side::Old) {
            push(&mut out, text.as_bytes(), hunk)?;
        }
        cursor = at + old.len();
    }
    if let Some(last) = hunks.last() {
        for line in &lines[cursor..] {
            push(&mut out, line, last)?;
        }
    }
    Ok(out)
}

/// Looks for hunks in the lines of a file.
struct Search<'c, 'b> {
    lines: &'c [&'c [u8]],
    /// Made when a hunk isn't where it says, so that looking elsewhere compares numbers.
    numbers: Option<Numbered<'c>>,
    budget: &'b mut u64,
}

impl Search<'_, '_> {
    /// Returns the place from `cursor` on that is nearest to `expected`, later ones first.
    fn find(
        &mut self,
        hunk: &Hunk<'_>,
        old: &[&[u8]],
        cursor: usize,
        expected: usize,
    ) -> Result<Option<usize>, (usize, String)> {
        let last = self.lines.len().checked_sub(old.len()).filter(|last| *last >= cursor);
        let Some(last) = last else { return Ok(None) };
        if (cursor..=last).contains(&expected) && self.lines[expected..expected + old.len()] == *old
        {
            return Ok(Some(expected));
        }
        if old.is_empty() {
            // With nothing to look for, only the place that is stated will do.
            return Ok(None);
        }
        if self.numbers.is_none() {
            spend(self.budget, 16 * self.lines.len() as u64, hunk)?;
        }
        let Numbered { numbers, have } =
            self.numbers.get_or_insert_with(|| Numbered::of(self.lines));
        let wanted: Option<Vec<u32>> = old.iter().map(|line| numbers.get(line).copied()).collect();
        // A line that the file doesn't have at all fits nowhere.
        let Some(wanted) = wanted else { return Ok(None) };
        let start = expected.clamp(cursor, last);
        let farthest = (last - start).max(start - cursor);
        for distance in 0..=farthest {
            let later = Some(start + distance).filter(|at| *at <= last);
            let sooner = start.checked_sub(distance).filter(|at| distance > 0 && *at >= cursor);
            for at in [later, sooner].into_iter().flatten() {
                if have[at..at + wanted.len()] == *wanted {
                    return Ok(Some(at));
                }
                spend(self.budget, 1 + wanted.len() as u64 / 16, hunk)?;
            }
        }
        Ok(None)
    }
}

/// A file whose lines are numbers: equal lines have the same.
struct Numbered<'c> {
    numbers: HashMap<&'c [u8], u32>,
    have: Vec<u32>,
}

impl<'c> Numbered<'c> {
    fn of(lines: &[&'c [u8]]) -> Self {
        let mut numbers = HashMap::new();
        let mut number = |line: &&'c [u8]| {
            let next = numbers.len() as u32;
            *numbers.entry(*line).or_insert(next)
        };
        let have = lines.iter().map(&mut number).collect();
        Self { numbers, have }
    }
}

fn spend(budget: &mut u64, cost: u64, hunk: &Hunk<'_>) -> Result<(), (usize, String)> {
    match budget.checked_sub(cost) {
        Some(left) => {
            *budget = left;
            Ok(())
        }
        None => Err((hunk.line, "the patch takes too long to place".into())),
    }
}

fn push(out: &mut Vec<u8>, line: &[u8], hunk: &Hunk<'_>) -> Result<(), (usize, String)> {
    if out.last().is_some_and(|&last| last != b'\n') {
        return Err((hunk.line, "a line without a newline that is not the file's last".into()));
    }
    out.extend_from_slice(line);
    Ok(())
}

/// Says what stands where the hunk should fit.
fn mismatch(old: &[&[u8]], lines: &[&[u8]], cursor: usize, expected: usize) -> String {
    let there = lines.get(expected..).unwrap_or_default();
    if expected < cursor {
        return format!(
            "the hunk does not fit after the one before it, which ends at line {cursor}"
        );
    }
    let bare = |line: &[u8]| line.trim_ascii_end().to_vec();
    let close = !old.is_empty() && there.len() >= old.len();
    if close && old.iter().zip(there).all(|(a, b)| bare(a) == bare(b)) {
        return "the hunk fits but for line ends or blanks at line ends".into();
    }
    let differs = old.iter().zip(there).position(|(a, b)| a != b);
    let show = |line: &[u8]| {
        let text = String::from_utf8_lossy(line);
        let text: String = text.trim_end().chars().take(80).collect();
        format!("`{}`", text.escape_debug())
    };
    match differs {
        Some(at) => format!(
            "the hunk does not fit: line {} is {}, expected {}",
            expected + at + 1,
            show(there[at]),
            show(old[at])
        ),
        None => format!("the hunk does not fit: the file has {} lines", lines.len()),
    }
}
