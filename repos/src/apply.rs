//! From a submission to the files that lie on top of a revision.

use crate::{Applied, Rejection, RejectionKind, Revision, SourceError, Submission, Task};

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The submission is not worth running: its own fault.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The revision could not be read: ours.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Applies `submission` to `revision` by the rules of `task`. Runs nothing and writes nothing.
///
/// # Errors
///
/// [`ApplyError`] says whose fault it is.
pub fn apply(
    task: &Task,
    revision: &Revision,
    submission: &Submission,
) -> Result<Applied, ApplyError> {
    let _ = (task, revision, submission);
    Err(Rejection { kind: RejectionKind::Malformed, detail: "not written yet".into() })?
}
