//! A grade that somebody else exported: whatever the file holds, it is read or refused, and what it
//! writes lies in the folder that is made for it.
#![no_main]

use std::{fs, path::Path};

use assay_server::fuzz::read_bundle;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // In memory where there is such a place: the target is bound by its files.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
    let outside = tempfile::tempdir_in(place).expect("a folder");
    let (folder, victim) = (outside.path().join("task"), outside.path().join("victim"));
    fs::write(&victim, b"untouched").expect("a file");
    let _ = read_bundle(bytes, &folder);
    assert_eq!(fs::read(&victim).expect("the victim"), b"untouched");
    let made = 1 + usize::from(folder.exists());
    assert_eq!(fs::read_dir(outside.path()).expect("the folder").count(), made);
});
