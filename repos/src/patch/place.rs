//! Puts hunks where they fit.

use std::collections::HashMap;

use super::{Hunk, Side};

/// What all hunks of a submission may cost: bytes of files split plus lines compared. Some tenths
/// of a second; real patches need a thousandth of it.
pub(crate) const BUDGET: u64 = 1 << 28;

/// Returns `content` with `hunks` applied. The error says which line of the patch, and why.
pub(crate) fn place(
    hunks: &[Hunk<'_>],
    content: &[u8],
    budget: &mut u64,
) -> Result<Vec<u8>, (usize, String)> {
    let Some(first) = hunks.first() else { return Ok(content.to_vec()) };
    spend(budget, content.len() as u64, first)?;
    let lines: Vec<&[u8]> = content.split_inclusive(|&b| b == b'\n').collect();

    // Lines are compared as numbers: each text that some hunk looks for has its own.
    let mut numbers: HashMap<&[u8], u32> = HashMap::new();
    let wanted: Vec<Vec<u32>> = hunks
        .iter()
        .map(|hunk| {
            let old = hunk.lines.iter().filter(|(side, _)| *side != Side::New);
            old.map(|(_, text)| {
                let next = numbers.len() as u32;
                *numbers.entry(text.as_bytes()).or_insert(next)
            })
            .collect()
        })
        .collect();
    let have: Vec<u32> =
        lines.iter().map(|line| numbers.get(line).copied().unwrap_or(u32::MAX)).collect();

    let mut out = Vec::with_capacity(content.len());
    let mut cursor = 0;
    let mut drift = 0_isize;
    for (hunk, wanted) in hunks.iter().zip(&wanted) {
        let stated = hunk.old_start - usize::from(!wanted.is_empty() && hunk.old_start > 0);
        let expected = stated.saturating_add_signed(drift);
        let at = find(&have, wanted, cursor, expected, hunk, budget)?
            .ok_or_else(|| (hunk.line, mismatch(hunk, &lines, expected)))?;
        drift = at as isize - stated as isize;
        for line in &lines[cursor..at] {
            push(&mut out, line, hunk)?;
        }
        for (_, text) in hunk.lines.iter().filter(|(side, _)| *side != Side::Old) {
            push(&mut out, text.as_bytes(), hunk)?;
        }
        cursor = at + wanted.len();
    }
    if let Some(last) = hunks.last() {
        for line in &lines[cursor..] {
            push(&mut out, line, last)?;
        }
    }
    Ok(out)
}

/// Returns the place from `cursor` on that is nearest to `expected`, later ones first.
fn find(
    have: &[u32],
    wanted: &[u32],
    cursor: usize,
    expected: usize,
    hunk: &Hunk<'_>,
    budget: &mut u64,
) -> Result<Option<usize>, (usize, String)> {
    let Some(last) = have.len().checked_sub(wanted.len()).filter(|last| *last >= cursor) else {
        return Ok(None);
    };
    if wanted.is_empty() {
        // With nothing to look for, only the place that is stated will do.
        return Ok((cursor..=last).contains(&expected).then_some(expected));
    }
    let start = expected.clamp(cursor, last);
    let farthest = (last - start).max(start - cursor);
    for distance in 0..=farthest {
        let later = Some(start + distance).filter(|at| *at <= last);
        let sooner = start.checked_sub(distance).filter(|at| distance > 0 && *at >= cursor);
        for at in [later, sooner].into_iter().flatten() {
            let same = have[at..].iter().zip(wanted).take_while(|(a, b)| a == b).count();
            if same == wanted.len() {
                return Ok(Some(at));
            }
            spend(budget, same as u64 + 1, hunk)?;
        }
    }
    Ok(None)
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
fn mismatch(hunk: &Hunk<'_>, lines: &[&[u8]], expected: usize) -> String {
    let old: Vec<&[u8]> = hunk
        .lines
        .iter()
        .filter(|(side, _)| *side != Side::New)
        .map(|(_, t)| t.as_bytes())
        .collect();
    let there = lines.get(expected..).unwrap_or_default();
    let bare = |line: &[u8]| line.trim_ascii_end().to_vec();
    if there.len() >= old.len() && old.iter().zip(there).all(|(a, b)| bare(a) == bare(b)) {
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
