//! One running service: the cgroups it made, and the lock file by which the next one finds them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use super::cgroup::{self, Cgroups};

/// What a service holds on this machine.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) cgroups: Cgroups,
    lock_path: PathBuf,
    /// Locked as long as the service lives.
    _lock: File,
}

impl Instance {
    /// Clears away what dead services left, then makes this one's cgroups.
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(state_dir)?;
        reap(state_dir)?;
        let name = format!("assay-{}", Uuid::now_v7().simple());
        let lock_path = state_dir.join(format!("{name}.lock"));
        let mut lock = OpenOptions::new().write(true).create_new(true).open(&lock_path)?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let cgroups = Cgroups::create(&name);
        for path in cgroups.paths() {
            writeln!(lock, "{}", path.display())?;
        }
        Ok(Self { cgroups, lock_path, _lock: lock })
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
        let gone = groups
            .lines()
            .map(Path::new)
            .filter(ours)
            .map(cgroup::remove_tree)
            .fold(true, |all, gone| all && gone);
        if gone {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
