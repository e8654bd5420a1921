//! Reward files, as a client may send them: those that are accepted give a number in their range.
#![no_main]

use std::path::Path;

use assay_rewards::RewardSpec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match RewardSpec::parse(text, Path::new("reward.toml")) {
        Ok(spec) => {
            let (low, high) = spec.range();
            assert!(low <= high, "{low} {high}");
        }
        Err(errors) => assert!(!errors.is_empty()),
    }
});
