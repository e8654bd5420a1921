//! The service's side of a slot's root: which sandboxes can have the same one, and having it made.

use std::{
    collections::BTreeMap,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt as _},
    path::PathBuf,
    sync::Arc,
};

use super::{
    failed, gone,
    job::{self, Report},
    pool::{Busy, receive_report},
    run,
};
use crate::{BackendError, BackendResult, ImageRef, SandboxSpec};

/// What sandboxes must have in common to have one root, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RootKey {
    image: ImageRef,
    /// Devices and inodes of the image's directories: one that was made again is another.
    directories: Arc<[(u64, u64)]>,
    workdir: PathBuf,
    trusted: Arc<BTreeMap<PathBuf, Arc<[u8]>>>,
}

impl RootKey {
    /// # Errors
    ///
    /// [`BackendError::ImageNotFound`] when a directory of the image is not there.
    pub(super) fn of(image: &[PathBuf], spec: &SandboxSpec) -> BackendResult<Self> {
        let identity = |path: &PathBuf| {
            let found = path.metadata().ok().filter(std::fs::Metadata::is_dir);
            let found = found.map(|metadata| (metadata.dev(), metadata.ino()));
            found.ok_or_else(|| BackendError::ImageNotFound(path.display().to_string()))
        };
        Ok(Self {
            image: spec.image.clone(),
            directories: image.iter().map(identity).collect::<BackendResult<_>>()?,
            workdir: spec.workdir.clone(),
            trusted: Arc::clone(&spec.trusted),
        })
    }

    /// Returns devices and inodes of the image's directories.
    pub(super) fn directories(&self) -> Arc<[(u64, u64)]> {
        Arc::clone(&self.directories)
    }
}

/// Has the slot of `busy` make this root, unless it has it.
///
/// # Errors
///
/// The image can't be mounted, or the slot is gone.
pub(super) async fn ensure(busy: &mut Busy, key: RootKey, image: &[PathBuf]) -> BackendResult<()> {
    let slot = busy.slot_mut()?;
    if slot.root.as_ref() == Some(&key) {
        return Ok(());
    }
    // Until the slot says that it has made the new one it has none.
    slot.root = None;
    let mounts = slot.mappings.as_ref().map(|(_, for_images)| {
        image.iter().map(|path| super::mount(path, for_images.as_fd())).collect()
    });
    let mounts: Option<Vec<_>> = mounts.transpose()?;
    let message = job::encode_root(&key.workdir, image, &key.trusted, mounts.is_some());
    let fds = mounts.iter().flatten().map(AsFd::as_fd).collect();
    let slot = busy.request()?;
    run::send(slot.socket.get_ref(), slot.request, message, fds)
        .map_err(|e| gone(&format!("slot takes no request: {e}")))?;
    let report = receive_report(slot).await;
    match report.map_err(|e| gone(&format!("slot {}: {e}", slot.number)))? {
        Report::Rooted => slot.root = Some(key),
        Report::Failed { step, errno } => {
            busy.running = false;
            return Err(failed(&step, io::Error::from_raw_os_error(errno)));
        }
        _ => return Err(gone("slot gave another answer")),
    }
    busy.running = false;
    Ok(())
}
