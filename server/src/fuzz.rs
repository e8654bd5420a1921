//! A door for `tests/fuzz` to what is private; only in builds for fuzzing.

use std::path::Path;

use assay_repos::{Catalog, Submission, write_task};

use crate::cli::grade::bundle::Bundle;

/// Reads a file of `assay grade export` as a replay does, up to where its task runs: whatever it names
/// is written into `folder`, which is not there yet. A record that is not the one of the file's digest
/// goes, too: a fuzzer would not find one that is.
///
/// # Errors
///
/// What is wrong with it.
pub fn read_bundle(bytes: &[u8], folder: &Path) -> anyhow::Result<(Submission, Catalog)> {
    let bundle = Bundle::decode(bytes)?;
    let submission = bundle.submission()?;
    write_task(folder, &bundle.task.files()?)?;
    Ok((submission, Catalog::load(&[folder.to_owned()], Path::new("/nonexistent"))))
}
