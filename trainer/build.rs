//! Lets the binary and the tests find libtorch with nothing set in the environment.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Given by torch-sys, whichever way it found libtorch.
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        // RUNPATH rather than RPATH: LD_LIBRARY_PATH can name a libtorch with CUDA instead.
        println!("cargo::rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{lib}");
    }
}
