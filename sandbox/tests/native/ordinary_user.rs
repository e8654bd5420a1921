//! The same tests once more, as a user without rights, where this one is root.

use std::{os::unix::fs::PermissionsExt, process::Command as Process};

use crate::common::{is_root, rootfs, spawner};

/// The tests that make no sense twice.
const SKIPPED: [&str; 2] = ["ordinary_user", "a_service_to_kill"];

#[test]
fn all_of_it_works_for_an_ordinary_user() {
    if !is_root() {
        println!("skipped: this already is an ordinary user");
        return;
    }
    let Some(rootfs) = rootfs() else {
        println!("skipped: no root filesystem; run `make rootfs`");
        return;
    };
    // Where that user can reach image and executables, in a mount namespace that ends with it.
    let place = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    let at = |name: &str| place.path().join(name);
    for name in ["rootfs", "tmp"] {
        std::fs::create_dir(at(name)).expect("a folder");
    }
    std::fs::set_permissions(at("tmp"), PermissionsExt::from_mode(0o1777)).expect("a mode");
    std::fs::copy(std::env::current_exe().expect("this test"), at("test")).expect("a copy");
    std::fs::copy(spawner(), at("spawner")).expect("a copy");
    let script = "mount --bind \"$ROOTFS\" \"$PLACE/rootfs\" && cd / && \
        exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$PLACE/test\" --test-threads=2 \"$@\"";
    let output = Process::new("unshare")
        .args(["--mount", "/bin/sh", "-c", script, "sh"])
        .args(SKIPPED.iter().flat_map(|name| ["--skip", name]))
        .env("ROOTFS", rootfs)
        .env("PLACE", place.path())
        .env("TMPDIR", at("tmp"))
        .env("ASSAY_TEST_ROOTFS", at("rootfs"))
        .env("ASSAY_TEST_SPAWNER", at("spawner"))
        .output();
    let output = match output {
        Ok(output) => output,
        Err(e) => {
            println!("skipped: cannot start unshare: {e}");
            return;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if text.contains("make a user namespace") || errors.contains("unshare failed") {
        println!("skipped: this machine gives ordinary users no user namespaces");
        return;
    }
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("test result: ok"), "{text}\n{errors}");
}
