//! Doors for `tests/fuzz` to what is private; only in builds for fuzzing.

use crate::{Capture, collect::Collector, native};

/// Collects pieces of a stream, head and tail.
#[must_use]
pub fn collect(most: usize, pieces: &[&[u8]]) -> Capture {
    let mut collector = Collector::head_and_tail(most);
    pieces.iter().for_each(|piece| collector.push(piece));
    collector.finish()
}

/// Decodes bytes as every message that the native backend knows.
pub fn decode(bytes: &[u8]) {
    native::decode_anything(bytes);
}
