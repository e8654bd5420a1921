//! What a path is in the sum of layers, found as overlayfs and the kernel's path walk would.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _},
    path::{Path, PathBuf},
};

use crate::{ImageResult, error::refuse, unpack::OPAQUE};

/// How many links the kernel follows.
const MOST_LINKS: usize = 40;
/// The shell that every image must have: checks and agents use it.
const SHELL: &str = "/bin/sh";

/// Checks that an image made of these layers' directories, lowest first, can run programs here: that
/// it has a `/bin/sh` for this machine.
///
/// # Errors
///
/// [`ImageError::Refused`](crate::ImageError) says what of it is wrong.
pub fn check_shell(layers: &[PathBuf]) -> ImageResult<()> {
    let file = match find(layers, Path::new(SHELL)) {
        Ok(Some(path)) => path,
        Ok(None) => return refuse(format!("there is no {SHELL} in it")),
        Err(e) => return refuse(format!("{SHELL} in it can't be looked at: {e}")),
    };
    let mut head = [0; 20];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut head));
    // e_ident's magic, and e_machine at its fixed place, in the byte order of both machines we know.
    if read.is_err() || !head.starts_with(b"\x7fELF") {
        return refuse(format!("{SHELL} in it is no program"));
    }
    let (machine, name) = MACHINE;
    if u16::from_le_bytes([head[18], head[19]]) != machine {
        return refuse(format!("{SHELL} in it is no program for {name}, which this machine is"));
    }
    Ok(())
}

/// This machine to ELF, and to images.
pub(crate) const MACHINE: (u16, &str) =
    if cfg!(target_arch = "aarch64") { (183, "arm64") } else { (62, "amd64") };

/// Returns where the regular file at `path` lies; `None` where there is none.
fn find(layers: &[PathBuf], path: &Path) -> io::Result<Option<PathBuf>> {
    let root: Vec<PathBuf> = layers.iter().rev().cloned().collect();
    let mut folders = vec![root];
    let mut parts: VecDeque<OsString> = path.iter().map(OsStr::to_owned).collect();
    let mut links = 0;
    while let Some(part) = parts.pop_front() {
        match part.as_bytes() {
            b"/" => folders.truncate(1),
            b"." => {}
            b".." if folders.len() > 1 => drop(folders.pop()),
            b".." => {}
            _ => match step(folders.last().map_or(&[][..], Vec::as_slice), &part)? {
                Found::Folder(folder) => folders.push(folder),
                Found::File(file) if parts.is_empty() => return Ok(Some(file)),
                Found::Link(target) if links < MOST_LINKS => {
                    links += 1;
                    for part in target.iter().rev() {
                        parts.push_front(part.to_owned());
                    }
                }
                _ => return Ok(None),
            },
        }
    }
    Ok(None)
}

/// What a name is in a directory.
enum Found {
    /// Directories that are shown as one, uppermost first.
    Folder(Vec<PathBuf>),
    File(PathBuf),
    Link(PathBuf),
    Nothing,
}

fn step(folders: &[PathBuf], name: &OsStr) -> io::Result<Found> {
    let mut merged = Vec::new();
    for folder in folders {
        let path = folder.join(name);
        let kind = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.file_type(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        if kind.is_dir() {
            let opaque = rustix::fs::getxattr(&path, OPAQUE, &mut [0u8; 1][..]).is_ok();
            merged.push(path);
            if opaque {
                break;
            }
        } else if kind.is_char_device() || !merged.is_empty() {
            // Nothing on purpose, or hidden by a directory.
            break;
        } else if kind.is_symlink() {
            return Ok(Found::Link(fs::read_link(&path)?));
        } else {
            return Ok(Found::File(path));
        }
    }
    Ok(if merged.is_empty() { Found::Nothing } else { Found::Folder(merged) })
}
