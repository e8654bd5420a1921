//! Which Python modules a work tree could put in the place of those that an interpreter holds.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{FileEntry, Layer};

/// Names of the modules that a work tree has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Provided {
    /// In folders that Python may search: those that are no packages.
    reachable: BTreeSet<OsString>,
    /// Inside packages.
    nested: BTreeSet<OsString>,
}

/// Names of the modules that an interpreter has imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Those of the standard library.
    standard: BTreeSet<OsString>,
    others: BTreeSet<OsString>,
}

impl Held {
    /// Reads names as an interpreter tells them: a line each, a blank before those of the standard
    /// library.
    pub(crate) fn read(lines: &[u8]) -> Self {
        let mut held = Self::default();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match line {
                [b' ', name @ ..] => held.standard.insert(OsStr::from_bytes(name).to_owned()),
                name => held.others.insert(OsStr::from_bytes(name).to_owned()),
            };
        }
        held
    }
}

/// What one layer holds of modules and packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Folder and name of each module, packages among them.
    modules: BTreeSet<(PathBuf, OsString)>,
    packages: BTreeSet<PathBuf>,
    /// What is no file any more: below it nothing is a package for sure.
    gone: BTreeSet<PathBuf>,
}

impl Provided {
    /// Puts layers together. Where they contradict each other, every reading counts.
    pub(crate) fn by<'s>(scans: impl Iterator<Item = &'s Scan> + Clone) -> Self {
        let gone: BTreeSet<&PathBuf> = scans.clone().flat_map(|scan| &scan.gone).collect();
        let is_gone = |path: &PathBuf| gone.iter().any(|gone| path.starts_with(gone));
        let packages = scans.clone().flat_map(|scan| &scan.packages);
        let packages: BTreeSet<&PathBuf> = packages.filter(|path| !is_gone(path)).collect();
        let mut provided = Self::default();
        for (folder, name) in scans.flat_map(|scan| &scan.modules) {
            let inside = packages.contains(folder);
            let names = if inside { &mut provided.nested } else { &mut provided.reachable };
            names.insert(name.clone());
        }
        provided
    }

    /// Returns a module that an interpreter holds and code could mean another by. A package's own
    /// `types` is nobody's `types`; its own copy of a dependency may become one.
    pub(crate) fn clash(&self, held: &Held) -> Option<&OsStr> {
        let reachable = self.reachable.iter();
        let reachable =
            reachable.filter(|name| held.standard.contains(*name) || held.others.contains(*name));
        let nested = self.nested.iter().filter(|name| held.others.contains(*name));
        reachable.chain(nested).next().map(OsString::as_os_str)
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
        if !is_there {
            let is_init = name.as_bytes().starts_with(b"__init__.");
            self.gone.insert(if is_init { folder } else { path }.to_owned());
            return;
        }
        let Some(stem) = module(name, is_link) else { return };
        if stem != "__init__" {
            self.modules.insert((folder.to_owned(), stem.to_owned()));
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
        let all = provided(&[base.clone(), unpacked]);
        assert!(all.0.contains(&"types".to_owned()), "{all:?}");
        // Another folder of that name, which may be none.
        let another = layer(&[("pkg", FileEntry::Absent), ("pkg/json.py", file())]);
        let all = provided(&[base, another]);
        assert!(all.0.contains(&"json".to_owned()), "{all:?}");
    }

    #[test]
    fn tells_what_code_could_mean_by_a_name() {
        let held = Held::read(b" json\n types\npackaging\npytest\n");
        let file = || FileEntry::File { content: Arc::default(), executable: false };
        let cases = [
            (vec!["words.py", "pkg/__init__.py", "pkg/types.py"], None),
            (vec!["types.py"], Some("types")),
            (vec!["tests/pytest/__init__.py"], Some("pytest")),
            (
                vec!["pkg/__init__.py", "pkg/_vendor/__init__.py", "pkg/_vendor/packaging.py"],
                Some("packaging"),
            ),
        ];
        for (paths, expected) in cases {
            let entries: Vec<_> = paths.iter().map(|path| (*path, file())).collect();
            let scan = layer(&entries);
            let provided = Provided::by([&scan].into_iter());
            assert_eq!(provided.clash(&held), expected.map(OsStr::new), "{paths:?}");
        }
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
