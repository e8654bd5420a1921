//! What two reward files say otherwise, however they are written.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;

use crate::{
    RewardSpec,
    expr::{self, Expr},
    plugin::NamedPlugin,
    spec::{Combine, Formula, Gate, Term},
};

/// One thing that two reward files say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What it is about, as in `gate.on_fail` or `term solved.value`.
    pub what: String,
    /// What the old file says; absent where it says nothing of it.
    pub old: Option<String>,
    /// What the new one says.
    pub new: Option<String>,
}

/// Compares two reward files by what they make of records. Formatting, comments, names of files,
/// defaults that are written out, and orders that say nothing are no difference; terms are known by
/// their names. Where there is none, both score every record alike, but for the rounding of sums
/// whose terms stand in another order.
#[must_use]
pub fn diff(old: &RewardSpec, new: &RewardSpec) -> Vec<Difference> {
    let mut found = Differences(Vec::new());
    found.gate(old, new);
    found.terms(old, new);
    found.setting("combine.op", old.combine.as_str(), new.combine.as_str());
    let clamp = |spec: &RewardSpec| spec.clamp.map(|(lo, hi)| format!("[{lo}, {hi}]"));
    found.option("combine.clamp", clamp(old), clamp(new));
    found.formula("mask.when", old.mask.as_ref(), new.mask.as_ref());
    found.setting("mask.group_min_valid", old.group_min_valid, new.group_min_valid);
    found.plugins(old, new);
    found.0
}

struct Differences(Vec<Difference>);

impl Differences {
    fn option(&mut self, what: impl Into<String>, old: Option<String>, new: Option<String>) {
        if old != new {
            self.0.push(Difference { what: what.into(), old, new });
        }
    }

    fn setting<T: PartialEq + fmt::Display>(&mut self, what: impl Into<String>, old: T, new: T) {
        if old != new {
            self.option(what, Some(old.to_string()), Some(new.to_string()));
        }
    }

    fn formula(&mut self, what: impl Into<String>, old: Option<&Formula>, new: Option<&Formula>) {
        let meaning = |formula: Option<&Formula>| formula.map(|formula| formula.expr.canonical());
        if meaning(old) != meaning(new) {
            let shown = |formula: Option<&Formula>| formula.map(written);
            self.0.push(Difference { what: what.into(), old: shown(old), new: shown(new) });
        }
    }

    fn gate(&mut self, old: &RewardSpec, new: &RewardSpec) {
        let (old, new) = (&old.gate, &new.gate);
        let forms =
            |gate: &Gate| gate.require.iter().map(|one| one.expr.canonical()).collect::<Vec<_>>();
        let (before, after) = (forms(old), forms(new));
        let lacking = |all: &'_ [Expr], of: &[Expr]| {
            let lacks = |at: &usize| !of.contains(&all[*at]);
            (0..all.len()).filter(lacks).collect::<Vec<_>>()
        };
        for gone in lacking(&before, &after) {
            self.formula("gate.require", Some(&old.require[gone]), None);
        }
        for added in lacking(&after, &before) {
            self.formula("gate.require", None, Some(&new.require[added]));
        }
        self.setting("gate.on_fail", old.on_fail, new.on_fail);
        self.setting("gate.tampered", old.tampered, new.tampered);
    }

    fn terms(&mut self, old: &RewardSpec, new: &RewardSpec) {
        let find = |spec: &'_ RewardSpec, name: &str| {
            spec.terms.iter().position(|term| &*term.name == name)
        };
        for before in &old.terms {
            let what = format!("term {}", before.name);
            let Some(after) = find(new, &before.name).map(|at| &new.terms[at]) else {
                self.option(what, Some(Whole(before).to_string()), None);
                continue;
            };
            self.formula(format!("{what}.when"), before.when.as_ref(), after.when.as_ref());
            self.formula(format!("{what}.value"), Some(&before.value), Some(&after.value));
            self.setting(format!("{what}.weight"), before.weight, after.weight);
        }
        for added in new.terms.iter().filter(|term| find(old, &term.name).is_none()) {
            self.option(format!("term {}", added.name), None, Some(Whole(added).to_string()));
        }
        // Elsewhere every one counts, whichever comes first.
        if (old.combine, new.combine) == (Combine::First, Combine::First) {
            self.setting("term order", order(old), order(new));
        }
    }

    fn plugins(&mut self, old: &RewardSpec, new: &RewardSpec) {
        let find = |spec: &'_ RewardSpec, name: &str| {
            spec.plugins.iter().position(|plugin| *plugin.name == *name)
        };
        let names: BTreeSet<_> =
            old.plugins.iter().chain(&new.plugins).map(|plugin| &plugin.name).collect();
        for name in names {
            let what = format!("plugin {name}");
            let of = |spec: &RewardSpec| find(spec, name).map(|at| spec.plugins[at].clone());
            let (Some(before), Some(after)) = (of(old), of(new)) else {
                let shown = |plugin: &NamedPlugin| plugin.plugin.digest().to_string();
                self.option(what, of(old).as_ref().map(shown), of(new).as_ref().map(shown));
                continue;
            };
            let code = |plugin: &NamedPlugin| plugin.plugin.digest().to_string();
            self.setting(format!("{what}.code"), code(&before), code(&after));
            self.setting(format!("{what}.fuel"), before.limits.fuel, after.limits.fuel);
            let mib = |plugin: &NamedPlugin| plugin.limits.memory_bytes >> 20;
            self.setting(format!("{what}.memory_mb"), mib(&before), mib(&after));
            let on_error = |plugin: &NamedPlugin| plugin.on_error.as_str();
            self.setting(format!("{what}.on_error"), on_error(&before), on_error(&after));
        }
    }
}

/// The terms of which the first that applies decides.
fn order(spec: &RewardSpec) -> String {
    let weighty = spec.terms.iter().filter(|term| term.weight != 0.0);
    weighty.map(|term| &*term.name).collect::<Vec<_>>().join(", ")
}

/// As its author wrote it, on one line with the usual spaces.
fn written(formula: &Formula) -> String {
    expr::format(&formula.text).unwrap_or_else(|_| formula.expr.to_string())
}

/// A term on one line.
struct Whole<'t>(&'t Term);

impl fmt::Display for Whole<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Term { when, value, weight, .. } = self.0;
        write!(f, "{}, weight {weight}", written(value))?;
        when.iter().try_for_each(|when| write!(f, ", when {}", written(when)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const OLD: &str = r#"schema = 1
name = "old"
[gate]
require = ["patch.applied", "tests.ran"]
[[term]]
name = "solved"
value = "must_pass.all and must_keep.all"
[[term]]
name = "part"
when = "must_keep.all and not must_pass.all"
value = "0.2 * must_pass.fraction"
[combine]
clamp = [-1, 1]
[mask]
when = "gen.truncated"
"#;

    fn spec(text: &str) -> RewardSpec {
        RewardSpec::parse(text, Path::new("t.toml")).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn told(old: &str, new: &str) -> Vec<String> {
        let side = |side: Option<String>| side.unwrap_or_else(|| "-".into());
        let lines = diff(&spec(old), &spec(new)).into_iter();
        lines.map(|d| format!("{}: {} | {}", d.what, side(d.old), side(d.new))).collect()
    }

    #[test]
    fn files_that_say_the_same_do_not_differ() {
        let written_otherwise = r#"# A comment.
name = 'new'
schema = 1
mask = { when = "(gen.truncated)", group_min_valid = 0.0 }
combine = { clamp = [-1.0, 1.0], op = "sum" }
[[term]]
name = "part"
when = "not must_pass.all and must_keep.all"
value = "must_pass.fraction*0.20"
weight = 1
[[term]]
name = "solved"
value = """
  must_keep.all
  and must_pass.all"""
[gate]
on_fail = 0
tampered = -0.0
require = ["tests.ran", "patch.applied", "tests.ran"]
"#;
        assert_eq!(told(OLD, written_otherwise), [""; 0]);
        for preset in RewardSpec::presets() {
            assert!(diff(preset, preset).is_empty(), "{}", preset.name());
        }
    }

    #[test]
    fn each_thing_that_differs_is_told_once() {
        let cases = [
            (
                r#""tests.ran"]"#,
                "\"integrity.ok\"]\ntampered = -1",
                vec![
                    "gate.require: tests.ran | -",
                    "gate.require: - | integrity.ok",
                    "gate.tampered: 0 | -1",
                ],
            ),
            // What is not said is what `on_fail` says.
            (
                "[gate]",
                "[gate]\non_fail = -0.5",
                vec!["gate.on_fail: 0 | -0.5", "gate.tampered: 0 | -0.5"],
            ),
            (
                "0.2 * must_pass",
                "0.3*must_pass",
                vec!["term part.value: 0.2 * must_pass.fraction | 0.3 * must_pass.fraction"],
            ),
            (
                r#"when = "must_keep.all and not must_pass.all""#,
                "weight = 0.1234567",
                vec![
                    "term part.when: must_keep.all and not must_pass.all | -",
                    "term part.weight: 1 | 0.1234567",
                ],
            ),
            (
                r#"name = "part""#,
                r#"name = "some""#,
                vec![
                    "term part: 0.2 * must_pass.fraction, weight 1, when must_keep.all and not \
                     must_pass.all | -",
                    "term some: - | 0.2 * must_pass.fraction, weight 1, when must_keep.all and not \
                     must_pass.all",
                ],
            ),
            (
                "clamp = [-1, 1]",
                "op = 'mean'",
                vec!["combine.op: sum | mean", "combine.clamp: [-1, 1] | -"],
            ),
            (
                r#"when = "gen.truncated""#,
                "group_min_valid = 0.5",
                vec!["mask.when: gen.truncated | -", "mask.group_min_valid: 0 | 0.5"],
            ),
        ];
        for (from, to, expected) in cases {
            assert!(OLD.contains(from), "{from}");
            assert_eq!(told(OLD, &OLD.replace(from, to)), expected);
        }
    }

    #[test]
    fn the_order_of_terms_counts_where_the_first_decides() {
        let graded = RewardSpec::preset("graded").unwrap().text();
        let terms: Vec<_> = graded.split("[[term]]").collect();
        let [head, full, part, rest] = terms[..] else { panic!("{graded}") };
        let swapped = [head, part, full, rest].join("[[term]]");
        assert_eq!(told(graded, &swapped), ["term order: full, part, none | part, full, none"]);
        let sum = |text: &str| text.replace("\"first\"", "'sum'").replace("\"0\"", "'run.oom'");
        assert_eq!(told(&sum(graded), &sum(&swapped)), [""; 0]);
        // One that is logged alone decides nothing.
        let logged = "\nname = 'cpu'\nvalue = 'run.cpu_s'\nweight = 0\n\n";
        let logged = [head, logged, full, part, rest].join("[[term]]");
        assert_eq!(told(graded, &logged), ["term cpu: - | run.cpu_s, weight 0"]);
    }
}
