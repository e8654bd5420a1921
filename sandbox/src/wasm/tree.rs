//! Puts the layers of a work tree and the trusted files together in a [`Fs`].

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{
    fs::{Content, Fs},
    memory::Share,
};
use crate::{BackendError, BackendResult, FileEntry, Layer, SandboxSpec};

/// Returns everything that a sandbox holds. The work tree and `/tmp` can be written to, the rest can't.
pub(super) fn build(spec: &SandboxSpec, memory: Share) -> BackendResult<Fs> {
    let mut tree = Fs::new(spec.limits.disk_bytes, spec.limits.inodes, memory);
    tree.place_dir(b"/tmp", true);
    for (path, content) in spec.trusted.iter() {
        let (folder, name) = split(path);
        let folder = tree.place_dir(folder.as_os_str().as_bytes(), false);
        tree.place_file(folder, name.as_bytes(), Content::Shared(content.clone()), false);
    }
    tree.place_dir(spec.workdir.as_os_str().as_bytes(), true);
    for layer in &spec.layers {
        match layer {
            Layer::Dir(root) => {
                walk(&mut tree, root, &spec.workdir).map_err(|source| BackendError::Io {
                    what: format!("read layer {}", root.display()),
                    source,
                })?;
            }
            Layer::Files(files) => {
                // Shorter paths come first, so what is absent goes before what takes its place.
                for (path, entry) in files.iter() {
                    put(&mut tree, &spec.workdir.join(path), entry);
                }
            }
        }
    }
    Ok(tree)
}

fn walk(tree: &mut Fs, dir: &Path, inside: &Path) -> io::Result<()> {
    let folder = tree.place_dir(inside.as_os_str().as_bytes(), true);
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name() else { continue };
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_dir() {
            walk(tree, &path, &inside.join(name))?;
        } else if meta.is_symlink() {
            let target = fs::read_link(&path)?.into_os_string();
            tree.place_symlink(folder, name.as_bytes(), target.as_bytes().to_vec());
        } else if meta.is_file() {
            let content = Content::Host { path: path.clone(), file: None, size: meta.len() };
            tree.place_file(folder, name.as_bytes(), content, true);
        }
    }
    Ok(())
}

fn put(tree: &mut Fs, path: &Path, entry: &FileEntry) {
    let (folder, name) = split(path);
    let folder = tree.place_dir(folder.as_os_str().as_bytes(), true);
    tree.remove(folder, name.as_bytes());
    match entry {
        FileEntry::File { content, .. } => {
            tree.place_file(folder, name.as_bytes(), Content::Shared(content.clone()), true);
        }
        FileEntry::Symlink(target) => {
            let target = target.as_os_str().as_bytes().to_vec();
            tree.place_symlink(folder, name.as_bytes(), target);
        }
        FileEntry::Absent => {}
    }
}

/// Takes the last name off a path, which the spec's check found to have one.
fn split(path: &Path) -> (PathBuf, &OsStr) {
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    (folder, path.file_name().unwrap_or_default())
}
