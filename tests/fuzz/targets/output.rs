//! A stream that is kept by head and tail, whatever pieces it comes in.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, Vec<&[u8]>)| {
    let (most, pieces) = input;
    let all = pieces.concat();
    let capture = assay_sandbox::fuzz::collect(usize::from(most), &pieces);
    assert!(capture.head.len() + capture.tail.len() <= usize::from(most));
    assert_eq!((capture.head.len() + capture.tail.len()) as u64 + capture.dropped, all.len() as u64);
    assert!(all.starts_with(&capture.head) && all.ends_with(&capture.tail));
});
