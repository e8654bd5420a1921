//! From a submission to the files that lie on top of a revision.

use crate::{Applied, Rejection, RejectionKind, Revision, Submission, Task};

/// Applies `submission` to `revision` by the rules of `task`. Runs nothing and writes nothing.
///
/// # Errors
///
/// [`Rejection`] says why the submission is not worth running: always the submission's fault.
pub fn apply(
    task: &Task,
    revision: &Revision,
    submission: &Submission,
) -> Result<Applied, Rejection> {
    let _ = (task, revision, submission);
    Err(Rejection { kind: RejectionKind::Malformed, detail: "not written yet".into() })
}
