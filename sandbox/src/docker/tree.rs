//! Merges the layers of a work tree.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    frame::{Ask, Frames},
    io_error,
};
use crate::{BackendResult, FileEntry, Layer};

enum Node {
    Dir,
    File { content: Arc<[u8]>, executable: bool },
    Symlink(PathBuf),
}

/// A work tree: every path in it, parents first.
#[derive(Default)]
pub(super) struct Tree(BTreeMap<PathBuf, Node>);

impl Tree {
    /// Merges layers, lowest first.
    pub(super) fn of(layers: &[Layer]) -> BackendResult<Self> {
        let mut merged = BTreeMap::new();
        for layer in layers {
            match layer {
                Layer::Dir(root) => walk(root, root, &mut merged)
                    .map_err(|source| io_error(format!("read layer {}", root.display()), source))?,
                Layer::Files(files) => {
                    files.iter().for_each(|(path, entry)| put(path, entry, &mut merged));
                }
            }
        }
        Ok(Self(merged))
    }

    /// Asks for all of it.
    pub(super) fn ask(&self, frames: &mut Frames) {
        for (path, node) in &self.0 {
            let path = path.as_os_str().as_bytes();
            match node {
                Node::Dir => frames.ask(&Ask::Directory(path)),
                Node::File { content, executable } => {
                    frames.ask(&Ask::File { path, content, executable: *executable });
                }
                Node::Symlink(target) => {
                    frames.ask(&Ask::Symlink { path, target: target.as_os_str().as_bytes() });
                }
            }
        }
    }
}

fn walk(root: &Path, dir: &Path, merged: &mut BTreeMap<PathBuf, Node>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let meta = fs::symlink_metadata(&path)?;
        let inside = path.strip_prefix(root).map_err(io::Error::other)?.to_owned();
        if meta.is_dir() {
            merged.insert(inside, Node::Dir);
            walk(root, &path, merged)?;
            continue;
        }
        if matches!(merged.get(&inside), Some(Node::Dir)) {
            merged.retain(|have, _| !have.starts_with(&inside));
        }
        if meta.is_symlink() {
            merged.insert(inside, Node::Symlink(fs::read_link(&path)?));
        } else if meta.is_file() {
            let content = fs::read(&path)?.into();
            let executable = meta.permissions().mode() & 0o100 != 0;
            merged.insert(inside, Node::File { content, executable });
        }
    }
    Ok(())
}

fn put(path: &Path, entry: &FileEntry, merged: &mut BTreeMap<PathBuf, Node>) {
    merged.retain(|have, _| !have.starts_with(path));
    let node = match entry {
        FileEntry::File { content, executable } => {
            Node::File { content: Arc::clone(content), executable: *executable }
        }
        FileEntry::Symlink(target) => Node::Symlink(target.clone()),
        FileEntry::Absent => return,
    };
    for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        // A file or link in the way of a directory gives way, as an upper layer's directory would hide it.
        if !matches!(merged.get(parent), Some(Node::Dir)) {
            merged.insert(parent.to_owned(), Node::Dir);
        }
    }
    merged.insert(path.to_owned(), node);
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
        let Tree(merged) = Tree::of(&layers).unwrap();
        merged.keys().map(|path| path.display().to_string()).collect()
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
}
