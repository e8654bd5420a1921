//! A page that a slot shares with pid 1 of its sandbox: what became of it, in a few words.
//!
//! It saves a pipe and its wake-ups. Only our own code maps it: executing a program drops it.

use std::{
    io,
    sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst},
};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// The page. Zeros mean "not yet".
#[repr(C)]
#[derive(Default)]
pub(crate) struct Shared {
    /// When the command started, by [`now_ns`](super::sys::now_ns).
    started_ns: AtomicU64,
    /// Processes of the slot that the command's user has outside the sandbox.
    outside: AtomicU64,
    /// Whether `wait_status` holds.
    ended: AtomicI32,
    wait_status: AtomicI32,
    /// The errno of the step that failed.
    errno: AtomicI32,
    /// Address and length of the step's name: a literal, at the same place in both processes.
    step: AtomicUsize,
    step_length: AtomicUsize,
}

/// A step of making a sandbox that failed.
#[derive(Debug)]
pub(crate) struct StepError {
    pub(crate) step: &'static str,
    pub(crate) source: io::Error,
}

/// Names the step in which an error occurred.
pub(crate) trait AtStep<T> {
    /// Adds the step's name.
    fn at(self, step: &'static str) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> AtStep<T> for Result<T, E> {
    fn at(self, step: &'static str) -> Result<T, StepError> {
        self.map_err(|source| StepError { step, source: source.into() })
    }
}

impl Shared {
    /// Maps a page that processes forked from this one share with it.
    pub(crate) fn map() -> io::Result<&'static Self> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choosing disturbs nothing.
        let page = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                size_of::<Self>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )?
        };
        // SAFETY: the mapping is page-aligned, large enough, zeroed (valid for atomics) and never
        // unmapped; every access goes through atomics.
        Ok(unsafe { &*page.cast::<Self>() })
    }

    /// Forgets the last sandbox.
    pub(crate) fn reset(&self) {
        self.started_ns.store(0, SeqCst);
        self.ended.store(0, SeqCst);
        self.errno.store(0, SeqCst);
    }

    pub(crate) fn set_outside(&self, processes: u64) {
        self.outside.store(processes, SeqCst);
    }

    /// Returns how many processes of the command's user there are outside the sandbox.
    pub(crate) fn outside(&self) -> u64 {
        self.outside.load(SeqCst)
    }

    pub(crate) fn set_started(&self, now_ns: u64) {
        self.started_ns.store(now_ns, SeqCst);
    }

    /// Returns when the command started.
    pub(crate) fn started_ns(&self) -> Option<u64> {
        Some(self.started_ns.load(SeqCst)).filter(|ns| *ns != 0)
    }

    pub(crate) fn set_ended(&self, wait_status: i32) {
        self.wait_status.store(wait_status, SeqCst);
        self.ended.store(1, SeqCst);
    }

    /// Returns the wait status of the command.
    pub(crate) fn wait_status(&self) -> Option<i32> {
        (self.ended.load(SeqCst) != 0).then(|| self.wait_status.load(SeqCst))
    }

    pub(crate) fn set_failed(&self, error: &StepError) {
        self.step.store(error.step.as_ptr() as usize, SeqCst);
        self.step_length.store(error.step.len(), SeqCst);
        self.errno.store(error.source.raw_os_error().unwrap_or(libc::EINVAL), SeqCst);
    }

    /// Returns the step that failed, with its errno.
    pub(crate) fn failed(&self) -> Option<(&'static str, i32)> {
        let errno = Some(self.errno.load(SeqCst)).filter(|errno| *errno != 0)?;
        let (address, length) = (self.step.load(SeqCst), self.step_length.load(SeqCst));
        // SAFETY: our pid 1, a fork of this process that executed nothing, stored the parts of a
        // `&'static str` of this executable, which lies at the same address here. Nobody else maps
        // the page writable.
        let bytes = unsafe {
            std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(address), length)
        };
        Some((std::str::from_utf8(bytes).unwrap_or("set up the sandbox"), errno))
    }
}
