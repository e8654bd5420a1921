//! Reward files, as a client may send them: those that are accepted give a number in their range, and
//! say the same with other spaces.
#![no_main]

use std::path::Path;

use assay_rewards::{RewardSpec, diff};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match RewardSpec::parse(text, Path::new("reward.toml")) {
        Ok(spec) => {
            let (low, high) = spec.range();
            assert!(low <= high, "{low} {high}");
            let again = RewardSpec::format(text, Path::new("reward.toml")).expect("it was read");
            let again = RewardSpec::parse(&again, Path::new("reward.toml")).expect("it was right");
            assert!(diff(&spec, &again).is_empty());
        }
        Err(errors) => assert!(!errors.is_empty()),
    }
});
