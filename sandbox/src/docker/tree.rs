//! Merges the layers of a work tree into one tar archive.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use super::io_error;
use crate::{BackendError, BackendResult, FileEntry, Layer};

/// The uid and gid of the command inside.
pub(super) const USER: u32 = 1000;

enum Node {
    Dir,
    File { content: Arc<[u8]>, executable: bool },
    Symlink(PathBuf),
}

/// Returns a tar archive of the merged layers, lowest first, all owned by [`USER`].
pub(super) fn archive(layers: &[Layer]) -> BackendResult<Vec<u8>> {
    let mut merged = BTreeMap::new();
    for layer in layers {
        match layer {
            Layer::Dir(root) => walk(root, root, &mut merged)
                .map_err(|source| io_error(format!("read layer {}", root.display()), source))?,
            Layer::Files(files) => {
                for (path, entry) in files.iter() {
                    put(path, entry, &mut merged)?;
                }
            }
        }
    }
    pack(&merged).map_err(|source| io_error("pack the work tree".into(), source))
}

fn walk(root: &Path, dir: &Path, merged: &mut BTreeMap<PathBuf, Node>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let meta = fs::symlink_metadata(&path)?;
        let inside = path.strip_prefix(root).map_err(io::Error::other)?.to_owned();
        if meta.is_dir() {
            merged.insert(inside, Node::Dir);
            walk(root, &path, merged)?;
        } else if meta.is_symlink() {
            merged.insert(inside, Node::Symlink(fs::read_link(&path)?));
        } else if meta.is_file() {
            let content = fs::read(&path)?.into();
            let executable = meta.permissions().mode() & 0o100 != 0;
            merged.insert(inside, Node::File { content, executable });
        }
    }
    Ok(())
}

fn put(path: &Path, entry: &FileEntry, merged: &mut BTreeMap<PathBuf, Node>) -> BackendResult<()> {
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || path.as_os_str().is_empty() {
        return Err(BackendError::Spec(format!("layer path `{}` is not plain", path.display())));
    }
    merged.retain(|have, _| !have.starts_with(path));
    let node = match entry {
        FileEntry::File { content, executable } => {
            Node::File { content: Arc::clone(content), executable: *executable }
        }
        FileEntry::Symlink(target) => Node::Symlink(target.clone()),
        FileEntry::Absent => return Ok(()),
    };
    for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        // A file or link in the way of a directory gives way, as an upper layer's directory would hide it.
        if !matches!(merged.get(parent), Some(Node::Dir)) {
            merged.insert(parent.to_owned(), Node::Dir);
        }
    }
    merged.insert(path.to_owned(), node);
    Ok(())
}

fn pack(merged: &BTreeMap<PathBuf, Node>) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, node) in merged {
        let mut header = tar::Header::new_gnu();
        header.set_uid(USER.into());
        header.set_gid(USER.into());
        header.set_mtime(0);
        header.set_size(0);
        match node {
            Node::Dir => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                tar.append_data(&mut header, path, io::empty())?;
            }
            Node::File { content, executable } => {
                header.set_mode(if *executable { 0o755 } else { 0o644 });
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, path, &content[..])?;
            }
            Node::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                tar.append_link(&mut header, path, target)?;
            }
        }
    }
    tar.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> FileEntry {
        FileEntry::File { content: text.as_bytes().into(), executable: false }
    }

    fn names(layers: &[Vec<(&str, FileEntry)>]) -> Vec<String> {
        let layers: Vec<_> = layers
            .iter()
            .map(|files| files.iter().map(|(path, entry)| (path.into(), entry.clone())).collect())
            .map(|files| Layer::Files(Arc::new(files)))
            .collect();
        let bytes = archive(&layers).unwrap();
        let mut tar = tar::Archive::new(&bytes[..]);
        let name = |entry: io::Result<tar::Entry<'_, _>>| {
            entry.unwrap().path().unwrap().to_string_lossy().into_owned()
        };
        tar.entries().unwrap().map(name).collect()
    }

    #[test]
    fn upper_layers_win() {
        let base = vec![("a/b", file("1")), ("a/c", file("2")), ("d", file("3"))];
        let absent = vec![("a", FileEntry::Absent)];
        assert_eq!(names(std::slice::from_ref(&base)), ["a", "a/b", "a/c", "d"]);
        assert_eq!(names(&[base.clone(), absent]), ["d"]);
        assert_eq!(names(&[base.clone(), vec![("a", file("x"))]]), ["a", "d"]);
        assert_eq!(names(&[base, vec![("d/e", file("x"))]]), ["a", "a/b", "a/c", "d", "d/e"]);
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["", "/etc/passwd", "../x", "a/../../x"] {
            let files = BTreeMap::from([(PathBuf::from(path), file("x"))]);
            let got = archive(&[Layer::Files(Arc::new(files))]);
            assert!(matches!(got, Err(BackendError::Spec(_))), "{path:?}");
        }
    }
}
