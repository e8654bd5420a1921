//! A second line behind the mounts: Landlock lets nothing be written but what a sandbox may write.
//!
//! Image, trusted files and everything else are read-only mounts already; a hole in that would have
//! to be one in Landlock, too. What has a domain also reaches no abstract socket and no process
//! outside of it, whatever namespaces say. Reading and loopback sockets are left alone.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

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
    let rules = [
        (Path::new("/tmp"), writable),
        (Path::new("/dev/shm"), writable),
        (Path::new("/dev"), devices),
        (Path::new("/proc"), process),
    ];
    let open = |(path, access)| Ok((PathFd::new(path).map_err(io::Error::other)?, access));
    allowing(&rules.into_iter().map(open).collect::<io::Result<Vec<_>>>()?)
}

/// Returns what lets nothing be written but below `folders`; `None` where the kernel has no Landlock.
pub(super) fn below(folders: &[OwnedFd]) -> io::Result<Option<Confinement>> {
    let writable = AccessFs::from_write(VERSION);
    let rules: Vec<_> = folders.iter().map(|folder| (folder, writable)).collect();
    allowing(&rules)
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
        let workdir = PathFd::new(workdir).map_err(io::Error::other)?;
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

    /// Confines this thread likewise, and can do so with others.
    pub(super) fn enter_alike(&self) -> io::Result<()> {
        Self(self.0.try_clone()?).enter()
    }
}

fn allowing(rules: &[(impl AsFd, BitFlags<AccessFs>)]) -> io::Result<Option<Confinement>> {
    // Before version 2 it lets nothing be moved from one directory to another.
    let can_move = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer);
    if can_move.is_err() {
        return Ok(None);
    }
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
    path: impl AsFd,
    access: BitFlags<AccessFs>,
) -> io::Result<RulesetCreated> {
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
        let inside = OwnedFd::from(fs::File::open(at("inside")).unwrap());
        let confinement = below(&[inside]).unwrap().unwrap();
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
