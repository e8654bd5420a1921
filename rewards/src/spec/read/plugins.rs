//! `[plugin.<name>]`: what a file says of its plugins, and what uses them.

use std::path::{Component, Path, PathBuf};

use assay_repos::Digest;
use toml::de::DeValue;

use super::{Reader, Table, values::get};
use crate::{
    PluginLimits,
    facts::nearest,
    plugin::{NamedPlugin, OnError},
};

/// Most plugins.
const MAX_PLUGINS: usize = 16;
/// Instructions for one grade: the usual, and the most. Far below a second, and a few.
const FUEL: u64 = 100_000_000;
const MAX_FUEL: u64 = 10_000_000_000;
/// Memory in MiB: the usual, and the most.
const MEMORY_MB: u64 = 64;
const MAX_MEMORY_MB: u64 = 1024;

/// A plugin that a file names.
pub(super) struct Declared {
    name: Box<str>,
    /// Where its table starts.
    at: usize,
    /// Absent when something in the table is wrong, which has been told.
    source: Option<Source>,
    /// Whether an expression speaks of it.
    read: bool,
}

struct Source {
    path: PathBuf,
    /// Where the path starts.
    path_at: usize,
    limits: PluginLimits,
    on_error: OnError,
}

impl Reader<'_> {
    pub(super) fn declare_plugins(&mut self, root: Table<'_>) {
        let Some(tables) = self.table(root, "plugin", "[plugin]") else { return };
        if tables.table.len() > MAX_PLUGINS {
            self.error(tables.at, format!("more than {MAX_PLUGINS} plugins"));
            return;
        }
        for (key, value) in tables.table.iter() {
            let (name, at) = (key.get_ref(), key.span().start);
            let DeValue::Table(table) = value.get_ref() else {
                let message = format!("a plugin is a table: `[plugin.{name}]` with a `path`");
                self.error(at, message);
                continue;
            };
            let mut bytes = name.bytes();
            let start = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            if !start || name.len() > 64 || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                let what = "a plugin's name is 1 to 64 letters, digits or `_`, and no digit first";
                self.error(at, what);
                continue;
            }
            let shown = format!("[plugin.{name}]");
            let source = self.source(Table { table, name: &shown, at }, name);
            self.plugins.push(Declared { name: (&**name).into(), at, source, read: false });
        }
    }

    fn source(&mut self, table: Table<'_>, name: &str) -> Option<Source> {
        self.keys(table, &["path", "fuel", "memory_mb", "on_error"]);
        let fuel = self.whole(table, "fuel", FUEL, MAX_FUEL);
        let memory_mb = self.whole(table, "memory_mb", MEMORY_MB, MAX_MEMORY_MB);
        let on_error = self.string(table, "on_error").map_or(Some(OnError::Mask), |(word, at)| {
            let known = OnError::ALL.iter().find(|(name, _)| *name == word);
            if known.is_none() {
                let near = nearest(&word, OnError::ALL.iter().map(|(name, _)| *name));
                let near = near.map(|near| format!("; did you mean `{near}`?"));
                let or = near.unwrap_or_else(|| "; it is `mask` or `absent`".into());
                self.error(at, format!("unknown on_error `{word}`{or}"));
            }
            known.map(|(_, on_error)| *on_error)
        });
        let Some((path, path_at)) = self.string(table, "path") else {
            if get(table, "path").is_none() {
                self.missing(table, "path", &format!("path = \"{name}.wasm\""));
            }
            return None;
        };
        let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if path.is_empty() || path.contains('\0') || !Path::new(&path).components().all(plain) {
            let what = "lies outside the folder of the reward file; put the plugin beside it";
            self.error(path_at, format!("{path:?} {what}"));
            return None;
        }
        Some(Source {
            path: path.into(),
            path_at,
            limits: PluginLimits { fuel: fuel?, memory_bytes: memory_mb? << 20 },
            on_error: on_error?,
        })
    }

    /// Reads a whole number from 1 to `most`.
    fn whole(&mut self, table: Table<'_>, key: &str, usual: u64, most: u64) -> Option<u64> {
        let Some(value) = get(table, key) else { return Some(usual) };
        let (number, at) = self.number(table, key)?;
        if matches!(value.get_ref(), DeValue::Integer(_)) && (1.0..=most as f64).contains(&number) {
            return Some(number as u64);
        }
        self.error(at, format!("`{key}` is a whole number from 1 to {most}"));
        None
    }

    /// Takes down that an expression speaks of a plugin.
    pub(super) fn read_plugin(&mut self, name: &str, at: usize) {
        if let Some(declared) = self.plugins.iter_mut().find(|declared| *declared.name == *name) {
            declared.read = true;
            return;
        }
        let near = nearest(name, self.plugins.iter().map(|declared| &*declared.name));
        let hint = near.map_or_else(
            || format!("name its file under `[plugin.{name}]`"),
            |near| format!("did you mean `plugin.{near}`?"),
        );
        self.error(at, format!("the file has no plugin `{name}`; {hint}"));
    }

    /// Loads the plugins, where there is something to load them.
    pub(super) fn load_plugins(&mut self) -> Vec<NamedPlugin> {
        let mut loaded = Vec::new();
        for Declared { name, at, source, read } in std::mem::take(&mut self.plugins) {
            if !read {
                self.error(at, format!("`plugin.{name}` is never read"));
            }
            let Some(Source { path, path_at, limits, on_error }) = source else { continue };
            match self.loader.map(|loader| loader.load(&path, limits)) {
                Some(Ok(plugin)) => loaded.push(NamedPlugin { name, on_error, limits, plugin }),
                Some(Err(why)) => self.error(path_at, format!("plugin `{name}`: {why}")),
                None => {}
            }
        }
        loaded
    }

    /// Names the file: what scores alike. Without plugins, it is its text.
    pub(super) fn digest(&self, plugins: &[NamedPlugin]) -> Digest {
        if plugins.is_empty() {
            return Digest::of(self.text);
        }
        let all = Digest::builder().part(self.text);
        let parts = plugins.iter().map(|it| it.plugin.digest().as_str());
        parts.fold(all, |all, digest| all.part(digest)).finish()
    }
}
