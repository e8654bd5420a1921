//! Makes sandboxes for the tests of this crate. Other binaries are their own spawners.

fn main() {
    assay_sandbox::helper_main_if_asked();
    eprintln!("assay-spawner: does nothing unless a service starts it");
    std::process::exit(2);
}
