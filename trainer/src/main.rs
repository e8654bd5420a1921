//! `assay-train`: see [`assay_trainer::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    assay_trainer::cli::main()
}
