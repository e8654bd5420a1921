//! A layer of an image: whatever it holds, nothing comes to lie outside its directory, and nothing
//! in it but files, directories, links and the marks of overlayfs, with modes that give no rights.
#![no_main]

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use assay_images::{Limits, fuzz::unpack_layer};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 200 };

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    correct_checksums(&mut bytes);
    // In memory where there is such a place: the target is bound by its files.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
    let outside = tempfile::tempdir_in(place).expect("a folder");
    let (tree, victim) = (outside.path().join("tree"), outside.path().join("victim"));
    fs::create_dir(&tree).expect("a folder");
    fs::write(&victim, b"untouched").expect("a file");
    let _ = unpack_layer(&bytes, &tree, LIMITS);
    assert_eq!(fs::read(&victim).expect("the victim"), b"untouched");
    assert_eq!(fs::metadata(&victim).expect("the victim").nlink(), 1);
    assert_eq!(fs::read_dir(outside.path()).expect("the folder").count(), 2);
    assert!(check(&tree) <= LIMITS.entries + 1, "more files than the limit");
});

/// Returns how many files there are, itself among them.
fn check(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).expect("an entry");
    let kind = metadata.file_type();
    if kind.is_dir() {
        assert_eq!(metadata.mode() & 0o7777, 0o755, "{}", path.display());
        let entries = fs::read_dir(path).expect("a folder");
        return 1 + entries.map(|entry| check(&entry.expect("an entry").path())).sum::<u64>();
    }
    if kind.is_file() {
        let mode = metadata.mode() & 0o7777;
        // One that was cut off has the mode that it was made with.
        assert!([0o644, 0o755, 0o600].contains(&mode), "{} {mode:o}", path.display());
        assert!(metadata.len() <= LIMITS.bytes);
    } else {
        assert!(kind.is_symlink() || (kind.is_char_device() && metadata.rdev() == 0));
    }
    1
}

/// Makes the checksums of all headers right: a fuzzer would not find them.
fn correct_checksums(tar: &mut [u8]) {
    let mut rest = tar;
    while let Some((header, after)) = rest.split_at_mut_checked(512) {
        if header.iter().any(|byte| *byte != 0) {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let digits = std::str::from_utf8(&header[124..135]).unwrap_or_default();
        let size = u64::from_str_radix(digits.trim_matches(['\0', ' ']), 8).unwrap_or(0);
        let skip = size.next_multiple_of(512).min(after.len() as u64);
        rest = &mut after[skip as usize..];
    }
}
