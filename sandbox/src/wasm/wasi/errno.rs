//! The error numbers of WASI preview 1 that this host returns, as its `witx` file numbers them.

/// Why a host call failed, as the program sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(in crate::wasm) enum Errno {
    Again = 6,
    Badf = 8,
    Exist = 20,
    Fault = 21,
    Fbig = 22,
    Inval = 28,
    Io = 29,
    Isdir = 31,
    Loop = 32,
    Mfile = 33,
    Nametoolong = 37,
    Noent = 44,
    Nospc = 51,
    Nosys = 52,
    Notdir = 54,
    Notempty = 55,
    Notsock = 57,
    Perm = 63,
    Pipe = 64,
    Rofs = 69,
    Spipe = 70,
    Notcapable = 76,
}
