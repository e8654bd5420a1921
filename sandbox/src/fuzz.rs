//! Doors for `tests/fuzz` to what is private; only in builds for fuzzing.

use crate::{Capture, Pick, Snapshot, collect::Collector, docker, native};

/// Collects pieces of a stream, head and tail.
#[must_use]
pub fn collect(most: usize, pieces: &[&[u8]]) -> Capture {
    let mut collector = Collector::head_and_tail(most);
    pieces.iter().for_each(|piece| collector.push(piece));
    collector.finish()
}

/// Reads bytes as the frozen files of a session.
pub fn thaw(bytes: &[u8]) {
    use std::io::Write as _;
    let Ok(mut file) = tempfile::tempfile() else { return };
    if file.write_all(bytes).is_ok()
        && let Ok(snapshot) = Snapshot::new(file, None)
        && let Ok(entries) = snapshot.work_tree(&Pick::all(1 << 16, 1 << 20))
    {
        assert!(entries.len() <= bytes.len());
    }
}

/// Decodes bytes as every message that the native backend and the agent of a container know.
pub fn decode(bytes: &[u8]) {
    native::decode_anything(bytes);
    docker::decode_anything(bytes);
}
