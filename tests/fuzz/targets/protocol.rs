//! What the native backend's processes tell each other, and what they freeze.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assay_sandbox::fuzz::decode(bytes);
    assay_sandbox::fuzz::thaw(bytes);
});
