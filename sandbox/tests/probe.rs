//! `probe` starts the running executable as its spawner, so this test has a `main` of its own.

use assay_sandbox::{helper_main_if_asked, native::probe};

fn main() {
    helper_main_if_asked();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let findings = runtime.block_on(probe());
    for finding in &findings {
        println!("{finding:?}");
        assert_eq!(finding.ok, finding.fix.is_none(), "a fix for what fails, and no other");
    }
    let names: Vec<_> = findings.iter().map(|finding| finding.name).collect();
    assert!(names.starts_with(&["kernel", "sandbox"]), "{names:?}");
}
