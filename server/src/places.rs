//! Where things lie on this machine: cache, state, catalog.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The folders that the service and the command line use.
#[derive(Clone, Debug)]
pub struct Places {
    /// Root file systems, unpacked releases, fetched data. Can be made again, shared by all.
    pub cache: PathBuf,
    /// Folders of task sets.
    pub catalog: Vec<PathBuf>,
}

impl Places {
    /// Finds the folders of this machine. A `catalog` that is given replaces the one that is
    /// found upward from the current directory or from the executable, or that of the
    /// source tree that built this; fetched task sets below
    /// the cache belong to either.
    #[must_use]
    pub fn find(catalog: &[PathBuf]) -> Self {
        let cache = cache_dir();
        let mut roots = if catalog.is_empty() {
            find_catalog().into_iter().collect()
        } else {
            catalog.to_vec()
        };
        let fetched = cache.join("data");
        if fetched.is_dir() && !roots.contains(&fetched) {
            roots.push(fetched);
        }
        Self { cache, catalog: roots }
    }

    /// The state of the user's own service: `$XDG_DATA_HOME/assay`, or `~/.local/share/assay`.
    #[must_use]
    pub fn default_data() -> PathBuf {
        xdg("XDG_DATA_HOME", ".local/share").join("assay")
    }
}

/// `$ASSAY_CACHE`, else `assay` below the user's cache folder.
fn cache_dir() -> PathBuf {
    match env::var_os("ASSAY_CACHE") {
        Some(dir) if !dir.is_empty() => dir.into(),
        _ => xdg("XDG_CACHE_HOME", ".cache").join("assay"),
    }
}

fn xdg(variable: &str, below_home: &str) -> PathBuf {
    match env::var_os(variable).map(PathBuf::from) {
        Some(dir) if dir.is_absolute() => dir,
        _ => env::home_dir().unwrap_or_else(|| "/".into()).join(below_home),
    }
}

fn find_catalog() -> Option<PathBuf> {
    let upward = |start: &Path| {
        start.ancestors().map(|dir| dir.join("repos/catalog")).find(|dir| dir.is_dir())
    };
    let here = env::current_dir().ok().and_then(|dir| upward(&dir));
    here.or_else(|| env::current_exe().ok().and_then(|exe| upward(&exe)))
        .or_else(|| Some(assay_repos::SOURCE_CATALOG.into()).filter(|dir: &PathBuf| dir.is_dir()))
}
