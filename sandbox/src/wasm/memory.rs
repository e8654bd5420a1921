//! The memory that all runs of a service have together, in which each has a share.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::BackendError;

/// What there is for all runs. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<AtomicU64>);

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// Returns a share of nothing yet.
    pub(super) fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }
}

/// What one run has of it; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    bytes: u64,
}

impl Share {
    /// Takes so many bytes more.
    ///
    /// # Errors
    ///
    /// All runs together have what there is: the host's shortage, whoever asks.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), BackendError> {
        let take = |left: u64| left.checked_sub(bytes);
        let taken = self.budget.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map_err(|_| BackendError::Io {
            what: "give a program memory".into(),
            source: io::Error::new(
                io::ErrorKind::OutOfMemory,
                "all programs together have what there is for them",
            ),
        })?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives so many bytes back.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}
