//! What foreign test tools write. Each format is read into a [`Suite`], document by document.

mod junit;

use assay_repos::ReportKind;
use assay_sandbox::{Capture, Termination};

use super::{Progress, Report, delivery, suite::Suite};

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
        return Report { tests: Vec::new(), progress, flags: Vec::new(), defect: None };
    };
    for document in documents {
        match kind {
            ReportKind::Junit => junit::read(document, &mut suite),
            _ => {}
        }
    }
    suite.finish(termination)
}

#[cfg(test)]
mod tests;
