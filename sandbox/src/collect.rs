//! Keeps head and tail of a stream of any length in bounded memory.

use std::collections::VecDeque;

use crate::Capture;

/// Fills a [`Capture`] as bytes come in.
#[derive(Debug)]
pub(crate) struct Collector {
    head: Vec<u8>,
    head_bytes: usize,
    tail: VecDeque<u8>,
    tail_bytes: usize,
    dropped: u64,
}

impl Collector {
    /// Keeps `bytes`: half of them from the head, half from the tail.
    pub(crate) fn head_and_tail(bytes: usize) -> Self {
        Self::new(bytes.div_ceil(2), bytes / 2)
    }

    /// Keeps the first `bytes` and drops the rest.
    pub(crate) fn head_only(bytes: usize) -> Self {
        Self::new(bytes, 0)
    }

    /// Keeps the last `bytes` and drops the rest.
    pub(crate) fn tail_only(bytes: usize) -> Self {
        Self::new(0, bytes)
    }

    fn new(head_bytes: usize, tail_bytes: usize) -> Self {
        Self { head: Vec::new(), head_bytes, tail: VecDeque::new(), tail_bytes, dropped: 0 }
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = self.head_bytes - self.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        // Bytes that would leave the tail again at once never enter it.
        let skipped = rest.len().saturating_sub(self.tail_bytes);
        let kept = &rest[skipped..];
        let overflow = (self.tail.len() + kept.len()).saturating_sub(self.tail_bytes);
        self.tail.drain(..overflow);
        self.tail.extend(kept);
        self.dropped += (skipped + overflow) as u64;
    }

    /// Whether nothing came in yet.
    #[cfg(feature = "wasm")]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.dropped == 0
    }

    /// Returns what was kept. Head and tail are one piece when nothing was dropped between them.
    pub(crate) fn finish(self) -> Capture {
        let Self { mut head, tail, dropped, .. } = self;
        if dropped == 0 {
            head.extend(tail);
            return Capture { head, tail: Vec::new(), dropped };
        }
        Capture { head, tail: tail.into(), dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_both_ends_and_counts_the_rest() {
        let cases: [(&[&str], &str, &str, u64); 6] = [
            (&[], "", "", 0),
            (&["abc"], "abc", "", 0),
            (&["abc", "def"], "abcdef", "", 0),
            (&["abcdefgh"], "abc", "fgh", 2),
            (&["ab", "cdefg", "h"], "abc", "fgh", 2),
            (&["a", "bcdefghijklmnop", "qr"], "abc", "pqr", 12),
        ];
        for (chunks, head, tail, dropped) in cases {
            let mut collector = Collector::head_and_tail(6);
            chunks.iter().for_each(|chunk| collector.push(chunk.as_bytes()));
            let expected = Capture { head: head.into(), tail: tail.into(), dropped };
            assert_eq!(collector.finish(), expected, "{chunks:?}");
        }
    }

    #[test]
    fn a_channel_keeps_its_head() {
        let mut collector = Collector::head_only(4);
        collector.push(b"abc");
        collector.push(b"def");
        assert_eq!(collector.finish(), Capture { head: b"abcd".into(), tail: vec![], dropped: 2 });
    }
}
