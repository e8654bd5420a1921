//! What foreign test tools write. Each format is read into a [`Suite`], document by document.

mod cargo;
mod ctrf;
mod go_json;
mod jest;
mod junit;
mod log;
mod mocha;
mod tap;
mod xml;

use std::borrow::Cow;

use assay_repos::ReportKind;
use assay_sandbox::{Capture, Termination};
use serde::de::DeserializeOwned;

use super::{MAX_EVIDENCE, Progress, Report, delivery, replace_lone_surrogates, suite::Suite};

/// Reads the report of a foreign tool.
pub(super) fn parse(
    kind: ReportKind,
    channel: &Capture,
    termination: Termination,
    nonce: &str,
) -> Report {
    let mut suite = Suite::default();
    let Some(documents) = delivery::open(channel, termination, nonce, &mut suite) else {
        let progress = Progress::Silent;
        let (tests, flags, canaries) = (Vec::new(), Vec::new(), Vec::new());
        return Report { tests, progress, broke_off: false, flags, defect: None, canaries };
    };
    for document in documents {
        match kind {
            ReportKind::Tap => tap::read(document, &mut suite),
            ReportKind::GoJson => go_json::read(document, &mut suite),
            ReportKind::Cargo => cargo::read(document, &mut suite),
            ReportKind::Ctrf => ctrf::read(document, &mut suite),
            ReportKind::Jest => jest::read(document, &mut suite),
            ReportKind::Mocha => mocha::read(document, &mut suite),
            ReportKind::Log(parser) => log::read(parser, document, &mut suite),
            _ => junit::read(document, &mut suite),
        }
    }
    suite.finish(kind, termination)
}

/// Reads JSON, with halves of surrogate pairs replaced: JavaScript writes those, too.
fn json<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes).or_else(|error| match replace_lone_surrogates(bytes) {
        Some(repaired) => serde_json::from_slice(&repaired),
        None => Err(error),
    })
}

/// Returns a document as text. The library's own look for bad bytes is the slower one, and finds none.
fn text(document: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(document) {
        Ok(text) => text.into(),
        Err(_) => String::from_utf8_lossy(document),
    }
}

/// Compares a number that a report declares with what is there.
fn same(suite: &mut Suite, what: &str, told: u64, seen: usize) {
    if told != seen as u64 {
        suite.gap("report.counts", &format!("{told} {what} are declared, and {seen} are there"));
    }
}

fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(MAX_EVIDENCE)]
}

/// Returns at most the first `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
