//! How the report of a foreign tool comes out of its sandbox: what `collect.sh` writes.

use assay_sandbox::{Capture, Termination};

use super::suite::Suite;

/// Most files of one report.
const MAX_FILES: usize = 10_000;
/// What `collect.sh` says where it could not clear the place of the report, and ran nothing.
const OLD_STAYS: &str = "an old one that stays";

/// Returns the documents of a report, or `None` when the command was never started. What is wrong
/// with the delivery goes to `suite`.
pub(super) fn open<'a>(
    channel: &'a Capture,
    termination: Termination,
    nonce: &str,
    suite: &mut Suite,
) -> Option<Vec<&'a [u8]>> {
    let (first, rest) = line(&channel.head)?;
    let documents = match first.strip_prefix(b"start ")?.strip_prefix(nonce.as_bytes())? {
        b" stdout" => vec![whole_lines(rest, channel, termination)],
        b" files" => files(rest, termination, nonce, channel.complete().is_some(), suite),
        _ => return None,
    };
    if channel.complete().is_none() {
        suite.gap("report.truncated", &format!("{} bytes were dropped", channel.dropped));
    }
    Some(documents)
}

fn files<'a>(
    mut rest: &'a [u8],
    termination: Termination,
    nonce: &str,
    complete: bool,
    suite: &mut Suite,
) -> Vec<&'a [u8]> {
    let mut documents = Vec::new();
    let mut refused = false;
    let mut ended = None;
    while let Some((head, body)) = line(rest) {
        let head = String::from_utf8_lossy(&head[..head.len().min(200)]);
        let words: Vec<&str> = head.splitn(3, ' ').collect();
        rest = body;
        match *words.as_slice() {
            _ if ended.is_some() => {
                suite.contradiction("report.after_end", &head);
                return documents;
            }
            ["file", by, bytes] if by == nonce && documents.len() < MAX_FILES => {
                let bytes = bytes.parse::<usize>().unwrap_or(usize::MAX);
                let file = body.get(..bytes);
                match (file, body.get(bytes..).and_then(|after| after.strip_prefix(b"\n"))) {
                    (Some(file), Some(after)) => {
                        documents.push(file);
                        rest = after;
                    }
                    (None, _) => {
                        documents.push(body);
                        rest = &[];
                    }
                    (Some(_), None) => {
                        suite.gap("report.changed", "a file grew while it was read");
                        return documents;
                    }
                }
            }
            ["file", by, _] if by == nonce => {
                suite.gap("report.truncated", &format!("more than {MAX_FILES} files"));
                return documents;
            }
            ["refused", by, why] if by == nonce => {
                refused = true;
                let evidence = format!("the report is {why}");
                match why {
                    OLD_STAYS => suite.gap("report.refused", &evidence),
                    _ => suite.contradiction("report.refused", &evidence),
                }
            }
            ["end", by, status] if by == nonce => ended = Some(status.parse::<i32>()),
            _ => {
                suite.contradiction("report.foreign_line", &head);
                return documents;
            }
        }
    }
    match (ended, termination) {
        (Some(Ok(status)), Termination::Exited(code)) if status != code => {
            let evidence = format!("the command exited with {status}, its shell with {code}");
            suite.contradiction("report.exit", &evidence);
        }
        (None, _) if complete => suite.gap("report.no_end", "the report was not handed over"),
        (Some(_), _) if documents.is_empty() && !refused => {
            suite.gap("report.absent", "the command left no report where the task says");
        }
        _ => {}
    }
    documents
}

/// Half of a last line says something else than the whole: `ok 1` of `ok 12`.
fn whole_lines<'a>(bytes: &'a [u8], channel: &Capture, termination: Termination) -> &'a [u8] {
    if channel.complete().is_some() && matches!(termination, Termination::Exited(_)) {
        return bytes;
    }
    &bytes[..bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)]
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}
