//! The `assay` binary once more, for tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    assay_sandbox::helper_main_if_asked();
    assay_server::cli::main()
}
