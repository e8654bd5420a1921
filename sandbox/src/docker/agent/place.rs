//! A directory that sandboxes write to: filling it, and making it as empty as it was.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, chmodat, fchmod, fstatvfs, openat,
        renameat_with, symlinkat, unlinkat,
    },
    io::Errno,
};

use super::{SCRATCH, TRUSTED};
use crate::native::{
    shared::{AtStep as _, StepError},
    tree,
};

/// A file system of its own, empty when the container starts.
pub(super) struct Place {
    path: String,
    root: OwnedFd,
    /// Blocks and files that were free in it then.
    free: (u64, u64),
    /// Whether it was empty then, and files are counted: as long as as much is free, it is empty.
    tells: bool,
}

impl Place {
    /// Opens the directory at `path`, and gives it this mode.
    pub(super) fn open(path: &Path, mode: u32) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())?;
        fchmod(&root, Mode::from_raw_mode(mode))?;
        let mut place = Self { path: path.display().to_string(), root, free: (0, 0), tells: false };
        // Some engines put there what the image has. If that can't be removed, the first sandbox of
        // this container is the last.
        let is_empty = place.wipe().is_ok();
        place.free = free(&place.root)?;
        place.tells = is_empty && place.free.1 > 0;
        Ok(place)
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(super) fn name(&self) -> &str {
        &self.path
    }

    /// Whether as much is free as there was when it was opened.
    pub(super) fn is_clean(&self) -> bool {
        free(&self.root).is_ok_and(|free| free == self.free)
    }

    /// Removes everything in it, as the user whose it is. No other process may be there.
    ///
    /// Directories within directories are lifted up to the top first, so that neither depth nor the
    /// length of paths matters.
    pub(super) fn wipe(&self) -> io::Result<()> {
        if self.tells && self.is_clean() {
            return Ok(());
        }
        let mut lifted = 0u64;
        loop {
            let names = entries(&self.root)?;
            if names.is_empty() {
                return Ok(());
            }
            for (name, kind) in names {
                if kind != FileType::Directory {
                    unlinkat(&self.root, &name, AtFlags::empty())?;
                    continue;
                }
                let directory = open_own(&self.root, &name)?;
                for (inner, kind) in entries(&directory)? {
                    if kind == FileType::Directory {
                        lift(&directory, &inner, &self.root, &mut lifted)?;
                    } else {
                        unlinkat(&directory, &inner, AtFlags::empty())?;
                    }
                }
                unlinkat(&self.root, &name, AtFlags::REMOVEDIR)?;
            }
        }
    }
}

/// Refuses a container that has another directory to write to, such as a volume of its image: nobody
/// would empty it.
pub(super) fn refuse_others(workdir: &Path) -> Result<(), StepError> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").at("read the mounts")?;
    let known = |at: &Path| {
        at == workdir
            || [TRUSTED, "/dev"].iter().chain(&SCRATCH).any(|own| at == Path::new(own))
            || ["/proc", "/sys"].iter().any(|above| at.starts_with(above))
    };
    // Single files are root's.
    let harmless = ["devpts", "mqueue"];
    let other = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let kind =
            fields.iter().position(|field| *field == "-").and_then(|at| fields.get(at + 1))?;
        let (at, options) = (*fields.get(4)?, *fields.get(5)?);
        let writable = options.split(',').any(|option| option == "rw");
        let path = Path::new(at);
        (writable && !harmless.contains(kind) && !known(path) && !path.is_file()).then_some(at)
    });
    match other {
        None => Ok(()),
        Some(at) => Err(io::Error::other(format!(
            "sandboxes could write to {at}; use an image without volumes, or an engine that keeps it read-only"
        )))
        .at("find nothing else that can be written to"),
    }
}

fn free(root: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = fstatvfs(root)?;
    Ok((stat.f_bfree, stat.f_ffree))
}

fn entries(directory: &OwnedFd) -> io::Result<Vec<(CString, FileType)>> {
    let mut found = Vec::new();
    // Reads from the start, whoever read before.
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            found.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(found)
}

/// Opens a directory that its owner may have closed to itself, with all rights.
fn open_own(parent: &OwnedFd, name: &CString) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            openat(parent, name, flags, Mode::empty())?
        }
        other => other?,
    };
    fchmod(&directory, Mode::RWXU)?;
    Ok(directory)
}

/// Moves a directory to `root`, under a name that is free there.
fn lift(from: &OwnedFd, name: &CString, root: &OwnedFd, lifted: &mut u64) -> io::Result<()> {
    loop {
        let to = format!(".lifted-{lifted}");
        *lifted += 1;
        match renameat_with(from, name, root, &to, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            // To move a directory is to write to it.
            Err(Errno::ACCESS) => chmodat(from, name, Mode::RWXU, AtFlags::empty())?,
            other => return Ok(other?),
        }
    }
}

/// Makes a file below `root`, and the directories above it, and returns it with `content` in it.
pub(super) fn write(
    root: BorrowedFd<'_>,
    path: &Path,
    content: &[u8],
    mode: u32,
) -> io::Result<OwnedFd> {
    let (parent, name) = tree::parent_of(root, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&parent, name, flags, Mode::from_raw_mode(mode))?;
    append(file.as_fd(), content)?;
    Ok(file)
}

/// Writes all of `content` to `to`.
pub(super) fn append(to: BorrowedFd<'_>, mut content: &[u8]) -> io::Result<()> {
    while !content.is_empty() {
        match rustix::io::write(to, content) {
            Ok(written) => content = &content[written..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Makes a directory below `root`, and those above it.
pub(super) fn directory(root: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    tree::make_directories(root, path)?;
    Ok(())
}

/// Makes a symbolic link below `root`, and the directories above it.
pub(super) fn symlink(root: BorrowedFd<'_>, path: &Path, target: &Path) -> io::Result<()> {
    let (parent, name) = tree::parent_of(root, path)?;
    Ok(symlinkat(target, &parent, name)?)
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        os::unix::{ffi::OsStrExt as _, fs::PermissionsExt},
    };

    use super::*;

    #[test]
    fn leaves_nothing_however_deep_or_closed() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path(), 0o755).unwrap();
        let file = write(place.root(), Path::new("a/b/c"), b"one ", 0o644).unwrap();
        append(file.as_fd(), b"two").unwrap();
        symlink(place.root(), Path::new("a/link"), Path::new("/etc")).unwrap();
        directory(place.root(), Path::new(".lifted-0/x/y")).unwrap();
        assert_eq!(fs::read(dir.path().join("a/b/c")).unwrap(), b"one two");
        // Deeper than a path may be long, from the bottom up.
        let top = dir.path().join("deep");
        fs::create_dir(&top).unwrap();
        for _ in 0..2000 {
            let above = dir.path().join("above");
            fs::create_dir(&above).unwrap();
            fs::rename(&top, above.join("a-name-of-some-length")).unwrap();
            fs::rename(&above, &top).unwrap();
        }
        fs::set_permissions(dir.path().join("a/b"), PermissionsExt::from_mode(0o000)).unwrap();
        fs::write(dir.path().join(OsStr::from_bytes(b"new\nline\xff")), "").unwrap();
        place.wipe().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Path::new("/etc").is_dir());
    }

    #[test]
    fn writes_through_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path(), 0o755).unwrap();
        symlink(place.root(), Path::new("out"), outside.path()).unwrap();
        assert!(write(place.root(), Path::new("out/x"), b"", 0o644).is_err());
        assert!(directory(place.root(), Path::new("out/d")).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
