//! One running service: the cgroups it made, and the lock file by which the next one finds them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use super::cgroup::{self, Cgroups, PREFIX};

/// What a service holds on this machine.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) cgroups: Cgroups,
    /// What this service adds to the first host id: no other one on this host has the same.
    pub(super) first_id: u32,
    /// Holds on to those ids.
    _ids: Option<File>,
    lock_path: PathBuf,
    /// Locked as long as the service lives.
    _lock: File,
}

impl Instance {
    /// Clears away what dead services left, then makes this one's cgroups; reserves host ids where
    /// the service is root.
    pub(super) fn open(state_dir: &Path, as_root: bool) -> io::Result<Self> {
        fs::create_dir_all(state_dir)?;
        reap(state_dir)?;
        let name = format!("{PREFIX}{}", Uuid::now_v7().simple());
        let lock_path = state_dir.join(format!("{name}.lock"));
        // Locked before it has the name that others look for.
        let unlocked = state_dir.join(format!("{name}.new"));
        let mut lock = OpenOptions::new().write(true).create_new(true).open(&unlocked)?;
        flock(&lock, FlockOperation::LockExclusive)?;
        fs::rename(&unlocked, &lock_path)?;
        let cgroups = Cgroups::create(&name);
        for path in cgroups.paths() {
            writeln!(lock, "{}", path.display())?;
        }
        let (first_id, ids) = if as_root { reserve_ids()? } else { (0, None) };
        Ok(Self { cgroups, first_id, _ids: ids, lock_path, _lock: lock })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // The spawner has removed the cgroups, unless it was killed.
        if self.cgroups.paths().all(|path| !path.exists() || cgroup::remove_tree(path)) {
            let _ = fs::remove_file(&self.lock_path);
        }
    }
}

/// Ids that one service may use, one for each slot.
pub(super) const IDS: u32 = 1000;

/// Reserves a block of host ids, for as long as the returned file is open. Neighbours that share
/// an id would share its quotas: of pipe buffers, message queues and more.
fn reserve_ids() -> io::Result<(u32, Option<File>)> {
    let folder = Path::new("/run/assay");
    if fs::create_dir_all(folder).is_err() {
        return Ok((0, None));
    }
    for block in 0..64 {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(format!("ids-{block}.lock")))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok((block * IDS, Some(file)));
        }
    }
    Err(io::Error::other("64 services hold sandbox ids on this host already"))
}

/// Removes the cgroups of services whose lock nobody holds any more, with the processes in them.
fn reap(state_dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(state_dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let groups = fs::read_to_string(&path)?;
        // Ours by name, whatever the file says.
        let ours = |group: &&Path| {
            group.file_name().is_some_and(|name| name.to_string_lossy().starts_with("assay-"))
        };
        let mut gone = true;
        for group in groups.lines().map(Path::new).filter(ours) {
            gone &= cgroup::remove_tree(group);
        }
        if gone {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
