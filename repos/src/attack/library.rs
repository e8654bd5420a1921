//! The library: what attacks there are, and of which class each is.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, de::DeserializeOwned};

use crate::{Language, ReportKind, SubmissionKind};

/// A class of attacks on record, with what stands against it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackClass {
    /// Its number in the integrity checklist.
    pub row: u32,
    /// Its name.
    pub name: String,
    /// What is attacked, and how.
    pub what: String,
    /// What stands against it.
    pub defence: String,
}

/// A recipe for submissions that want a reward without solving anything.
///
/// In its texts `{ENTRY}` is the task's function, `{MODULE}` and `{FOLDER}` are the module and the folder of the first
/// source file (`src/` or nothing), `{PACKAGE}` is that file's Go package. Of the tests that have to pass, `{TESTS}`
/// are the ids as a JSON array, `{TEST_LIST}` the same with `|` between them, and `{FIRST_TEST}` is the first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attack {
    /// The language of the tasks that it is for: the file that it stands in.
    #[serde(skip, default = "no_language")]
    pub language: Language,
    /// Its name, unique in the language.
    pub name: String,
    /// The [`AttackClass`] that it is of.
    pub class: String,
    /// What it tries, as a sentence.
    pub tries: String,
    /// The kinds of submission that it can be.
    pub kinds: Vec<SubmissionKind>,
    /// Only for tasks that have a check with one of these reports; empty: for all.
    #[serde(default)]
    pub reports: Vec<ReportKind>,
    /// Whether it ends by a limit of time, so that one run takes as long as the task allows.
    #[serde(default)]
    pub slow: bool,
    /// Codes of flags of which one has to be in its record; those of `code.*` all have to. Empty: it harms itself alone,
    /// or leaves nothing to see.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Why it earns where code under test shares a process with what judges it, if it does: known, and told wherever
    /// it happens. Any other that earns makes its task invalid.
    #[serde(default)]
    pub known: Option<String>,
    /// Why it earns where none of the tests can be made a canary: known there, and there alone.
    #[serde(default)]
    pub without_canaries: Option<String>,

    /// Code before the source.
    pub(super) prepend: Option<String>,
    /// Code after the source.
    pub(super) append: Option<String>,
    /// Code instead of the source of a function or program. The default does nothing.
    pub(super) source: Option<String>,
    /// Files, by path: added, or overwritten.
    #[serde(default)]
    pub(super) write: BTreeMap<String, String>,
    /// Text after what files hold, by path; where there is no such file, it is added.
    #[serde(default)]
    pub(super) extend: BTreeMap<String, String>,
    /// What is done to the files that judge.
    pub(super) tests: Option<OnTests>,
    /// A patch as it stands, for what no well-meaning tool would write.
    pub(super) patch: Option<String>,
}

/// What an attack does to every test file of the task.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum OnTests {
    /// Deletes them.
    Delete,
    /// Replaces a text in them.
    Replace { find: String, with: String },
    /// Writes this over those there are, and where hidden ones will be.
    Write(String),
}

impl Attack {
    /// Returns what it is called in all of the library: `python/exit-at-import`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.language, self.name)
    }
}

/// Returns the classes, in order of their rows.
#[must_use]
pub fn attack_classes() -> &'static [AttackClass] {
    static CLASSES: LazyLock<Vec<AttackClass>> = LazyLock::new(|| {
        // A test reads it.
        read::<Classes>(include_str!("../../attacks/classes.toml")).unwrap_or_default().class
    });
    &CLASSES
}

/// Returns all attacks, language by language.
#[must_use]
pub fn attacks() -> &'static [Attack] {
    static ATTACKS: LazyLock<Vec<Attack>> = LazyLock::new(|| {
        let of = |&(language, text): &(Language, &str)| {
            // A test reads each of them.
            let file = read::<Recipes>(text).unwrap_or_default();
            file.attack.into_iter().map(move |attack| Attack { language, ..attack })
        };
        RECIPES.iter().flat_map(of).collect()
    });
    &ATTACKS
}

const RECIPES: [(Language, &str); 5] = [
    (Language::Python, include_str!("../../attacks/python.toml")),
    (Language::Javascript, include_str!("../../attacks/javascript.toml")),
    (Language::Rust, include_str!("../../attacks/rust.toml")),
    (Language::C, include_str!("../../attacks/c.toml")),
    (Language::Go, include_str!("../../attacks/go.toml")),
];

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Classes {
    class: Vec<AttackClass>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipes {
    attack: Vec<Attack>,
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, toml::de::Error> {
    toml::from_str(text)
}

fn no_language() -> Language {
    Language::Shell
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_is_read() {
        read::<Classes>(include_str!("../../attacks/classes.toml")).expect("classes.toml");
        for (language, text) in RECIPES {
            let file = read::<Recipes>(text).unwrap_or_else(|error| panic!("{language}: {error}"));
            assert!(!file.attack.is_empty(), "{language}");
        }
    }

    #[test]
    fn every_attack_is_of_a_class_and_does_something() {
        let classes: BTreeSet<_> = attack_classes().iter().map(|class| &class.name).collect();
        assert_eq!(classes.len(), attack_classes().len(), "two classes have one name");
        let mut seen = BTreeSet::new();
        for attack in attacks() {
            let id = attack.id();
            assert!(classes.contains(&attack.class), "{id}: no class `{}`", attack.class);
            assert!(!attack.kinds.is_empty() && attack.tries.ends_with('.'), "{id}");
            let whole = [&attack.prepend, &attack.append, &attack.source, &attack.patch];
            let files = attack.write.len() + attack.extend.len();
            let works = whole.iter().any(|text| text.is_some()) || attack.tests.is_some();
            assert!(works || files > 0, "{id} does nothing");
            assert!(seen.insert(id.clone()), "two attacks are called {id}");
        }
    }

    #[test]
    fn classes_are_numbered_from_1() {
        let rows: Vec<_> = attack_classes().iter().map(|class| class.row).collect();
        assert_eq!(rows, (1..=35).collect::<Vec<_>>());
    }
}
