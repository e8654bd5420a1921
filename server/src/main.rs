//! The `assay` binary: see `assay_server::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The process that makes sandboxes is this executable, too.
    assay_sandbox::helper_main_if_asked();
    assay_server::cli::main()
}
