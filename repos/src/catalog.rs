//! All tasks that a service knows.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Language, Package, Split, SubmissionKind, Task, TaskId,
    manifest::{Context, read_package, read_task},
};

/// The catalog of the clone that this was built from.
pub const SOURCE_CATALOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/catalog");

/// How deep below a root task directories are looked for.
const MAX_DEPTH: usize = 6;

/// The tasks below some roots.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    tasks: BTreeMap<TaskId, Arc<Task>>,
    packages: BTreeMap<String, Arc<Package>>,
    problems: Vec<LoadProblem>,
}

/// Something wrong with a file of a catalog. Its task is left out, the others load.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoadProblem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; absent when the problem is the file itself.
    pub line: Option<u32>,
    /// What is wrong and what to do, as a fragment.
    pub message: String,
}

impl fmt::Display for LoadProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Which tasks are meant. An empty filter means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Of this set.
    pub set: Option<String>,
    /// Of this split.
    pub split: Option<Split>,
    /// Of this kind.
    pub kind: Option<SubmissionKind>,
    /// Of this language.
    pub language: Option<Language>,
}

impl Catalog {
    /// Reads every task directory below `roots`. A bad task becomes a problem and never stops the
    /// others. `cache` is where fetched releases lie and are unpacked.
    #[must_use]
    pub fn load(roots: &[PathBuf], cache: &Path) -> Self {
        let mut catalog = Self::default();
        let mut tasks = Vec::new();
        for root in roots {
            catalog.find(root, &mut tasks, cache);
        }
        let mut taken = BTreeMap::new();
        for dir in tasks {
            let context = Context { packages: &catalog.packages, taken: &taken };
            match read_task(&dir, &context) {
                Ok(task) => {
                    taken.insert(task.id.clone(), dir.join("task.toml"));
                    catalog.tasks.insert(task.id.clone(), Arc::new(task));
                }
                Err(problems) => catalog.problems.extend(problems),
            }
        }
        catalog.problems.sort();
        catalog
    }

    /// Makes a catalog of one task.
    #[must_use]
    pub fn of(task: Task) -> Self {
        let tasks = BTreeMap::from([(task.id.clone(), Arc::new(task))]);
        Self { tasks, ..Self::default() }
    }

    /// Finds the task directories below `root`, in order, and reads its packages.
    fn find(&mut self, root: &Path, tasks: &mut Vec<PathBuf>, cache: &Path) {
        let mut open = vec![(root.to_owned(), 0)];
        while let Some((dir, depth)) = open.pop() {
            if dir.join("task.toml").is_file() {
                tasks.push(dir);
                continue;
            }
            if depth > 0 && dir.join("repository.toml").is_file() {
                self.add_package(&dir.join("repository.toml"), cache);
                continue;
            }
            let below = match fs::read_dir(&dir) {
                Ok(below) => below.filter_map(Result::ok),
                Err(error) => {
                    let message = format!("cannot be listed: {error}");
                    self.problems.push(LoadProblem { file: dir, line: None, message });
                    continue;
                }
            };
            // A link is no directory here, so nothing leads out of the root or round in circles.
            let mut folders: Vec<_> = below
                .filter(|item| item.file_type().is_ok_and(|kind| kind.is_dir()))
                .filter(|item| !item.file_name().as_encoded_bytes().starts_with(b"."))
                .map(|item| (item.path(), depth + 1))
                .collect();
            if depth >= MAX_DEPTH {
                continue;
            }
            // The stack gives the last one first.
            folders.sort_by(|a, b| b.cmp(a));
            open.extend(folders);
        }
    }

    fn add_package(&mut self, file: &Path, cache: &Path) {
        match read_package(file, cache) {
            Ok(package) => {
                let name = format!("{}@{}", package.name, package.version);
                self.packages.entry(name).or_insert_with(|| Arc::new(package));
            }
            Err(problems) => self.problems.extend(problems),
        }
    }

    /// Returns the released packages, by `name@version`.
    #[must_use]
    pub fn packages(&self) -> &BTreeMap<String, Arc<Package>> {
        &self.packages
    }

    /// Returns the tasks in order of their ids.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// Returns the task of this name.
    #[must_use]
    pub fn get(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(id)
    }

    /// Returns what is wrong with the files below the roots, in order of file and line.
    #[must_use]
    pub fn problems(&self) -> &[LoadProblem] {
        &self.problems
    }

    /// Returns the tasks that `filter` means, in order of their ids.
    pub fn filter(&self, filter: &TaskFilter) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values().filter(move |task| {
            filter.set.as_ref().is_none_or(|set| *set == task.set)
                && filter.split.is_none_or(|split| split == task.split)
                && filter.kind.is_none_or(|kind| kind == task.submission.kind)
                && filter.language.is_none_or(|language| language == task.language)
        })
    }

    /// Draws `count` of the tasks that `filter` means, without replacement; fewer when there are
    /// fewer. The same seed draws the same tasks in the same order.
    #[must_use]
    pub fn sample(&self, filter: &TaskFilter, count: usize, seed: u64) -> Vec<Arc<Task>> {
        let mut drawn: Vec<_> = self.filter(filter).cloned().collect();
        let mut state = seed;
        let count = count.min(drawn.len());
        for position in 0..count {
            let rest = (drawn.len() - position) as u64;
            // The bias of the remainder is below 2^-40 for any catalog that fits in memory.
            let offset = splitmix64(&mut state) % rest;
            drawn.swap(position, position + offset as usize);
        }
        drawn.truncate(count);
        drawn
    }
}

/// The next number of Steele, Lea and Flood's SplitMix64 (OOPSLA 2014).
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
