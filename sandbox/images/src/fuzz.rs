//! A door for `tests/fuzz` to what is private; only in builds for fuzzing.

use std::path::Path;

use crate::{ImageError, Limits, stream::decompress, unpack};

/// Unpacks a layer, compressed or not, into an empty directory.
///
/// # Errors
///
/// As for a layer of an image.
pub fn unpack_layer(bytes: &[u8], into: &Path, mut limits: Limits) -> Result<(), ImageError> {
    let tar = decompress(bytes).map_err(ImageError::io("read", into))?;
    unpack::unpack(tar, into, &mut limits)
}
