//! A second line behind the mounts: Landlock lets nothing be written but what a sandbox may write.
//!
//! Image, trusted files and everything else are read-only mounts already; a hole in that would have
//! to be one in Landlock, too. What has a domain also reaches no abstract socket and no process
//! outside of it, whatever namespaces say. Reading and loopback sockets are left alone.

use std::{io, os::fd::OwnedFd, path::Path};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};

/// What the kernel is asked for. Later versions have nothing that is tested here.
const VERSION: ABI = ABI::V6;

/// Returns what confines a sandbox whose root is this process's, but for its work tree; `None` where
/// the kernel has no Landlock.
pub(super) fn ruleset() -> io::Result<Option<Confinement>> {
    let devices = make_bitflags!(AccessFs::{WriteFile | Truncate | IoctlDev});
    let process = make_bitflags!(AccessFs::{WriteFile | Truncate});
    let writable = AccessFs::from_write(VERSION);
    allowing(&[
        (Path::new("/tmp"), writable),
        (Path::new("/dev/shm"), writable),
        (Path::new("/dev"), devices),
        (Path::new("/proc"), process),
    ])
}

/// Returns what stands in for Landlock, or for parts of it, on this machine.
pub(super) fn fallback() -> Option<String> {
    if empty(CompatLevel::HardRequirement).is_ok() {
        return None;
    }
    let some = empty(CompatLevel::BestEffort).map(Option::<OwnedFd>::from);
    let some = matches!(some, Ok(Some(_)));
    let what = if some { "a part of it, and mounts" } else { "mounts alone" };
    Some(format!("landlock: {what} (the kernel has less than version 6)"))
}

/// Rules for a process and what comes of it.
pub(super) struct Confinement(RulesetCreated);

impl Confinement {
    /// Lets `workdir` be written, too.
    pub(super) fn with_workdir(self, workdir: &Path) -> io::Result<Self> {
        add(self.0, workdir, AccessFs::from_write(VERSION)).map(Self)
    }

    /// Returns a descriptor with which another process may confine itself alike.
    pub(super) fn share(&self) -> io::Result<Option<OwnedFd>> {
        Ok(self.0.try_clone()?.into())
    }

    /// Confines this thread and all that it starts, for good.
    pub(super) fn enter(self) -> io::Result<()> {
        self.0.restrict_self().map(drop).map_err(io::Error::other)
    }
}

fn allowing(rules: &[(&Path, BitFlags<AccessFs>)]) -> io::Result<Option<Confinement>> {
    let mut ruleset = empty(CompatLevel::BestEffort).map_err(io::Error::other)?;
    if Option::<OwnedFd>::from(ruleset.try_clone()?).is_none() {
        return Ok(None);
    }
    for (path, access) in rules {
        ruleset = add(ruleset, path, *access)?;
    }
    Ok(Some(Confinement(ruleset)))
}

fn add(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> io::Result<RulesetCreated> {
    let path = PathFd::new(path).map_err(io::Error::other)?;
    ruleset.add_rule(PathBeneath::new(path, access)).map_err(io::Error::other)
}

/// A ruleset by which nothing may be written.
fn empty(level: CompatLevel) -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(level)
        .handle_access(AccessFs::from_write(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn writes_where_it_is_allowed_and_reads_everywhere() {
        if let Some(why) = fallback() {
            println!("skipped: {why}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["inside", "outside"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("old"), b"old").unwrap();
        }
        let inside = at("inside");
        let rules = [(inside.as_path(), AccessFs::from_write(VERSION))];
        let confinement = allowing(&rules).unwrap().unwrap();
        // One thread is confined, not the tests.
        let confined = std::thread::scope(|scope| {
            let confined = || {
                confinement.enter().unwrap();
                ["inside", "outside"].map(|name| {
                    let (old, new) = (at(name).join("old"), at(name).join("new"));
                    [
                        fs::read(&old).is_ok(),
                        fs::write(&old, b"new").is_ok(),
                        fs::write(&new, b"new").is_ok(),
                        fs::rename(&new, at(name).join("newer")).is_ok(),
                        fs::remove_file(&old).is_ok(),
                        fs::create_dir(&new).is_ok(),
                        std::os::unix::fs::symlink("x", at(name).join("link")).is_ok(),
                    ]
                })
            };
            scope.spawn(confined).join().unwrap()
        });
        assert_eq!(confined[0], [true; 7]);
        assert_eq!(confined[1], [true, false, false, false, false, false, false]);
        assert_eq!(fs::read(at("outside/old")).unwrap(), b"old");
    }
}
