//! Which Python modules a work tree could put in the place of others.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{FileEntry, Layer};

/// Names of modules, as far as a warm interpreter has to know them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Provided {
    /// In folders that Python may search: those that are no packages.
    pub(crate) reachable: BTreeSet<OsString>,
    /// Inside packages.
    pub(crate) nested: BTreeSet<OsString>,
}

/// What one layer holds of modules and packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Folder and name of each module, packages among them.
    modules: BTreeSet<(PathBuf, OsString)>,
    packages: BTreeSet<PathBuf>,
    /// Folders that are no packages any more.
    unpacked: BTreeSet<PathBuf>,
}

impl Provided {
    /// Puts layers together. Where they contradict each other, every reading counts.
    pub(crate) fn by<'s>(scans: impl Iterator<Item = &'s Scan> + Clone) -> Self {
        let gone: BTreeSet<&PathBuf> = scans.clone().flat_map(|scan| &scan.unpacked).collect();
        let packages = scans.clone().flat_map(|scan| &scan.packages);
        let packages: BTreeSet<&PathBuf> = packages.filter(|path| !gone.contains(path)).collect();
        let mut provided = Self::default();
        for (folder, name) in scans.flat_map(|scan| &scan.modules) {
            let inside = packages.contains(folder);
            let names = if inside { &mut provided.nested } else { &mut provided.reachable };
            names.insert(name.clone());
        }
        provided
    }
}

impl Scan {
    /// Looks through a layer.
    ///
    /// # Errors
    ///
    /// A folder of it can't be read.
    pub(crate) fn of(layer: &Layer) -> io::Result<Self> {
        let mut scan = Self::default();
        match layer {
            Layer::Dir(root) => scan.walk(root, Path::new(""))?,
            Layer::Files(files) => {
                for (path, entry) in files.iter() {
                    let is_link = matches!(entry, FileEntry::Symlink(_));
                    scan.see(path, is_link, !matches!(entry, FileEntry::Absent));
                }
            }
        }
        Ok(scan)
    }

    fn walk(&mut self, root: &Path, below: &Path) -> io::Result<()> {
        for entry in fs::read_dir(root.join(below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.walk(root, &path)?;
            } else {
                self.see(&path, kind.is_symlink(), true);
            }
        }
        Ok(())
    }

    /// Notes a file or a link, or that there is none.
    fn see(&mut self, path: &Path, is_link: bool, is_there: bool) {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
        let Some(stem) = module(name, is_link) else { return };
        if stem != "__init__" {
            if is_there {
                self.modules.insert((folder.to_owned(), stem.to_owned()));
            }
        } else if !is_there {
            self.unpacked.insert(folder.to_owned());
        } else if let (Some(above), Some(name)) = (folder.parent(), folder.file_name()) {
            self.packages.insert(folder.to_owned());
            self.modules.insert((above.to_owned(), name.to_owned()));
        }
    }
}

/// Returns the name of the module that a file may be. A link may lead to anything.
fn module(name: &OsStr, is_link: bool) -> Option<&OsStr> {
    let bytes = name.as_bytes();
    let stem = bytes.split(|byte| *byte == b'.').next().filter(|stem| !stem.is_empty())?;
    let is_module = [&b".py"[..], b".pyc", b".so"].iter().any(|end| bytes.ends_with(end));
    (is_module || is_link).then(|| OsStr::from_bytes(stem))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;

    fn layer(entries: &[(&str, FileEntry)]) -> Scan {
        let files: BTreeMap<_, _> =
            entries.iter().map(|(path, entry)| (PathBuf::from(path), entry.clone())).collect();
        Scan::of(&Layer::Files(Arc::new(files))).unwrap()
    }

    fn provided(layers: &[Scan]) -> (Vec<String>, Vec<String>) {
        let names = |set: BTreeSet<OsString>| {
            set.iter().map(|name| name.to_string_lossy().into_owned()).collect()
        };
        let Provided { reachable, nested } = Provided::by(layers.iter());
        (names(reachable), names(nested))
    }

    #[test]
    fn tells_what_is_reachable_from_what_is_nested() {
        let file = || FileEntry::File { content: Arc::default(), executable: false };
        let base = layer(&[
            ("setup.py", file()),
            ("README.md", file()),
            ("pkg/__init__.py", file()),
            ("pkg/types.py", file()),
            ("pkg/_vendor/__init__.py", file()),
            ("pkg/_vendor/packaging/__init__.py", file()),
            ("pkg/fast.cpython-311-x86_64-linux-gnu.so", file()),
            ("tests/test_pkg.py", file()),
            ("data/notes.txt", file()),
        ]);
        let all = provided(std::slice::from_ref(&base));
        assert_eq!(all.0, ["pkg", "setup", "test_pkg"]);
        assert_eq!(all.1, ["_vendor", "fast", "packaging", "types"]);

        let shadow = layer(&[
            ("packaging.py", file()),
            ("json", FileEntry::Symlink("/tmp".into())),
            ("tests/__init__.py", FileEntry::Absent),
            ("pkg/extra.py", file()),
            ("setup.py", FileEntry::Absent),
        ]);
        let all = provided(&[base.clone(), shadow]);
        assert_eq!(all.0, ["json", "packaging", "pkg", "setup", "test_pkg"]);
        assert_eq!(all.1, ["_vendor", "extra", "fast", "packaging", "types"]);

        // No package any more: what lies in it may be found by its own name.
        let unpacked = layer(&[("pkg/__init__.py", FileEntry::Absent)]);
        let all = provided(&[base, unpacked]);
        assert!(all.0.contains(&"types".to_owned()), "{all:?}");
    }

    #[test]
    fn walks_folders_as_it_reads_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("pkg/sub")).unwrap();
        for path in ["pkg/__init__.py", "pkg/sub/mod.py", "top.py"] {
            fs::write(dir.path().join(path), "").unwrap();
        }
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        let scan = Scan::of(&Layer::Dir(Arc::new(dir.path().to_owned()))).unwrap();
        // A folder in a package without `__init__.py` is none itself.
        assert_eq!(provided(&[scan]).0, ["link", "mod", "pkg", "top"]);
        assert!(Scan::of(&Layer::Dir(Arc::new(dir.path().join("gone")))).is_err());
    }
}
