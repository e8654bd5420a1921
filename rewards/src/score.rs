//! From a record and a reward file to a number.

use std::sync::Arc;

use crate::{
    GradeRecord, Outcome, RewardSpec,
    expr::Stuck,
    facts::Facts,
    spec::{Combine, Term},
};

/// What a record is worth by one reward file.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The number: finite. Absent when the task or the infrastructure failed, the work was
    /// cancelled, or the record lacks a fact that the file needs; `mask` says which.
    pub reward: Option<f64>,
    /// Every term of the file, in its order.
    pub components: Vec<Component>,
    /// The first condition of the gate that did not hold: then the reward is the gate's.
    pub gate: Option<Arc<str>>,
    /// Advice to leave the sample out, with its reason. Always there when `reward` is not.
    pub mask: Option<String>,
}

/// One term of a reward file.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// Its name.
    pub name: Arc<str>,
    /// Its value before the weight: finite. Absent when its `when` did not hold, when nothing ran,
    /// or when the record lacks a fact.
    pub value: Option<f64>,
    /// Its weight.
    pub weight: f64,
}

/// Computes the reward. Total: it never panics and never gives NaN or an infinity.
///
/// - `SCORED`: the gate's `on_fail` when a condition of the gate does not hold, else the combined
///   terms. A record that lacks a fact which matters is refused: no number, and a mask that names
///   the fact. A term of weight 0 never matters.
/// - `SUBMISSION_REJECTED`: `on_fail`. `TAMPERED`: `tampered`. Components have no value then.
/// - Everything else has no reward.
#[must_use]
pub fn score(record: &GradeRecord, spec: &RewardSpec) -> Score {
    let facts = Facts::of(record);
    let mut score = Score { reward: None, components: Vec::new(), gate: None, mask: None };
    let verdict = match record.outcome {
        Outcome::Scored => {
            let (components, refusal) = components(spec, &facts);
            score.components = components;
            match gate(spec, &facts) {
                Ok(None) => match refusal {
                    None => combine(spec, &score.components),
                    Some(reason) => Err(reason),
                },
                Ok(Some(condition)) => {
                    score.gate = Some(condition);
                    Ok(spec.gate.on_fail)
                }
                Err(reason) => Err(reason),
            }
        }
        outcome => {
            score.components = spec.terms.iter().map(|term| component(term, None)).collect();
            match outcome {
                Outcome::SubmissionRejected => Ok(spec.gate.on_fail),
                Outcome::Tampered => Ok(spec.gate.tampered),
                _ => Err(no_verdict(record)),
            }
        }
    };
    match verdict {
        Ok(reward) => {
            score.reward = Some(reward);
            if let Some(mask) = &spec.mask
                && mask.expr.holds(&facts) == Ok(true)
            {
                score.mask = Some(mask.text.to_string());
            }
        }
        Err(reason) => score.mask = Some(reason),
    }
    score
}

/// Returns every component, and why the record is refused, if a term that counts can't be had.
fn components(spec: &RewardSpec, facts: &Facts<'_>) -> (Vec<Component>, Option<String>) {
    let mut refusal = None;
    let components = spec.terms.iter().map(|term| {
        let value = term.value_on(facts);
        if let Err(stuck) = value
            && term.weight != 0.0
            && refusal.is_none()
        {
            refusal = Some(format!("term `{}` {}", term.name, explain(stuck)));
        }
        component(term, value.ok().flatten())
    });
    let components = components.collect();
    (components, refusal)
}

fn component(term: &Term, value: Option<f64>) -> Component {
    Component { name: Arc::clone(&term.name), value, weight: term.weight }
}

impl Term {
    /// Returns the value, or `None` when the term does not apply.
    fn value_on<'s>(&'s self, facts: &Facts<'s>) -> Result<Option<f64>, Stuck<'s>> {
        if let Some(when) = &self.when
            && !when.holds(facts)?
        {
            return Ok(None);
        }
        // Loading has ruled out every other number.
        self.value.worth(facts).map(|value| Some(value + 0.0).filter(|value| value.is_finite()))
    }
}

/// Returns the first condition that does not hold. One that fails is enough, whatever is absent.
fn gate(spec: &RewardSpec, facts: &Facts<'_>) -> Result<Option<Arc<str>>, String> {
    let mut refusal = None;
    for condition in &spec.gate.require {
        match condition.expr.holds(facts) {
            Ok(true) => {}
            Ok(false) => return Ok(Some(Arc::clone(&condition.text))),
            Err(stuck) => {
                refusal
                    .get_or_insert_with(|| format!("gate `{}` {}", condition.text, explain(stuck)));
            }
        }
    }
    refusal.map_or(Ok(None), Err)
}

/// Combines the terms that apply and have a weight; of none of them, 0.
fn combine(spec: &RewardSpec, components: &[Component]) -> Result<f64, String> {
    let parts = || {
        components
            .iter()
            .filter(|component| component.weight != 0.0)
            .filter_map(|component| Some((component.weight, component.value?)))
    };
    let weighted = || parts().map(|(weight, value)| weight * value);
    let combined = if parts().next().is_none() {
        0.0
    } else {
        match spec.combine {
            Combine::Sum => weighted().sum::<f64>(),
            Combine::Mean => {
                weighted().sum::<f64>() / parts().map(|(weight, _)| weight).sum::<f64>()
            }
            Combine::Product => weighted().product::<f64>(),
            Combine::Min => weighted().fold(f64::INFINITY, f64::min),
        }
    };
    // Without a clamp, rounding alone can leave the range. Adding 0 turns -0 into 0.
    let (lo, hi) = spec.clamp.unwrap_or(spec.range);
    let reward = combined.max(lo).min(hi) + 0.0;
    // Loading has ruled this out, and a wrong number is worse than none.
    if combined.is_finite() { Ok(reward) } else { Err("the terms have no finite reward".into()) }
}

fn explain(stuck: Stuck<'_>) -> String {
    match stuck {
        Stuck::Absent(fact) => format!("needs `{fact}`, which the record lacks"),
        Stuck::Unchecked => "has no value".into(),
    }
}

fn no_verdict(record: &GradeRecord) -> String {
    match &record.failure {
        Some(failure) => format!("{}: {}", record.outcome.as_str(), failure.kind),
        None => record.outcome.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::{Failure, Fault, GradeRecord, Phase, testing};

    fn spec(body: &str) -> RewardSpec {
        let text = format!("schema = 1\nname = \"t\"\n{body}");
        RewardSpec::parse(&text, Path::new("t.toml")).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn record() -> GradeRecord {
        testing::record((1, 2), (3, 3))
    }

    fn default(record: &GradeRecord) -> Score {
        score(record, RewardSpec::preset("swe-default").unwrap())
    }

    #[test]
    fn the_default_for_patches() {
        let solved = default(&testing::record((2, 2), (3, 3)));
        assert_eq!((solved.reward, solved.mask, solved.gate), (Some(1.0), None, None));
        let names: Vec<_> = solved.components.iter().map(|c| (&*c.name, c.value)).collect();
        assert_eq!(names, [("solved", Some(1.0)), ("near", None), ("size", Some(0.0))]);
        assert!(solved.components[2].value.unwrap().is_sign_positive(), "no -0");
        assert_eq!(default(&record()).reward, Some(0.1)); // near
        assert_eq!(default(&testing::record((1, 2), (2, 3))).reward, Some(0.0));
        let mut large = testing::record((2, 2), (3, 3));
        large.patch.added = 50;
        assert_eq!(default(&large).reward, Some(1.0 - 0.02));
        large.patch.added = u32::MAX;
        large.patch.removed = u32::MAX;
        assert_eq!(default(&large).reward, Some(0.9));
    }

    #[test]
    fn outcomes() {
        let with = |outcome| GradeRecord { outcome, ..testing::record((2, 2), (3, 3)) };
        assert_eq!(default(&with(Outcome::SubmissionRejected)).reward, Some(0.0));
        assert_eq!(default(&with(Outcome::Tampered)).reward, Some(-1.0));
        for outcome in [
            Outcome::InvalidTask,
            Outcome::InfraError,
            Outcome::DeadlineExceeded,
            Outcome::Cancelled,
        ] {
            let mut record = with(outcome);
            assert_eq!(default(&record).mask.as_deref(), Some(outcome.as_str()));
            record.failure = Some(Failure::new("wires", Phase::Run, Fault::Infra, ""));
            let scored = default(&record);
            assert_eq!(scored.reward, None, "{outcome:?}");
            assert_eq!(scored.mask, Some(format!("{}: wires", outcome.as_str())));
            assert_eq!(scored.components.len(), 3);
            assert!(scored.components.iter().all(|component| component.value.is_none()));
        }
    }

    #[test]
    fn gates() {
        let spec = spec(
            "[gate]\nrequire = [\"tests.ran\", \"external.a > 0\"]\non_fail = 0.25\n\
             [[term]]\nname = \"x\"\nvalue = \"must_pass.fraction\"\n",
        );
        let mut record = record();
        let refused = score(&record, &spec);
        assert_eq!(refused.reward, None);
        assert_eq!(
            refused.mask.as_deref(),
            Some("gate `external.a > 0` needs `external.a`, which the record lacks")
        );
        record.external.insert("a".into(), 1.0);
        assert_eq!(score(&record, &spec).reward, Some(0.5));
        record.external.insert("a".into(), 0.0);
        let failed = score(&record, &spec);
        assert_eq!((failed.reward, failed.gate.as_deref()), (Some(0.25), Some("external.a > 0")));
        assert_eq!(failed.components[0].value, Some(0.5), "components come back");
        // One that fails is enough, whatever else is not known.
        record.external.clear();
        record.checks.clear();
        assert_eq!(score(&record, &spec).gate.as_deref(), Some("tests.ran"));
    }

    #[test]
    fn combinations() {
        let terms = |tail: &str| {
            spec(&format!(
                "[[term]]\nname = \"a\"\nvalue = \"external.a\"\nweight = 2\n\
                 [[term]]\nname = \"b\"\nvalue = \"external.b\"\nwhen = \"external.b > 0\"\n\
                 [[term]]\nname = \"log\"\nvalue = \"external.c\"\nweight = 0\n{tail}"
            ))
        };
        let reward = |spec: &RewardSpec, a: f64, b: f64| {
            let mut record = record();
            record.external.insert("a".into(), a);
            record.external.insert("b".into(), b);
            let scored = score(&record, spec);
            assert_eq!(scored.components[2].value, None, "absent, and of no weight");
            scored.reward.unwrap()
        };
        for (op, both, first) in
            [("sum", 7.0, 4.0), ("mean", 7.0 / 3.0, 2.0), ("product", 12.0, 4.0), ("min", 3.0, 4.0)]
        {
            let spec = terms(&format!("[combine]\nop = \"{op}\"\n"));
            assert_eq!(reward(&spec, 2.0, 3.0), both, "{op}");
            assert_eq!(reward(&spec, 2.0, -3.0), first, "{op}, where b does not apply");
            let clamped = terms(&format!("[combine]\nop = \"{op}\"\nclamp = [0, 1.5]\n"));
            assert_eq!(reward(&clamped, 2.0, 3.0), 1.5, "{op}");
            assert_eq!(reward(&clamped, -2.0, -3.0), 0.0, "{op}");
        }
        // Nothing applies: 0, whatever the operation.
        let none = spec(
            "[[term]]\nname = \"b\"\nvalue = \"1\"\nwhen = \"run.oom\"\n[combine]\nop = \"min\"\n",
        );
        assert_eq!(score(&record(), &none).reward, Some(0.0));
    }

    #[test]
    fn an_incomplete_record_is_refused_where_it_matters() {
        let mut record = testing::record((1, 2), (3, 3));
        record.complete = false;
        // A failed test decides, whatever did not run.
        let pass = RewardSpec::preset("pass").unwrap();
        assert_eq!(score(&record, pass).reward, Some(0.0));
        let refused = default(&record);
        assert_eq!(refused.reward, None);
        assert_eq!(
            refused.mask.as_deref(),
            Some("term `near` needs `must_keep.all`, which the record lacks")
        );
        // All that ran has passed: nothing is decided.
        let mut record = testing::record((2, 2), (3, 3));
        record.complete = false;
        assert_eq!(score(&record, pass).reward, None);
        // A check that ran to its end has its own facts.
        let unit = spec("[[term]]\nname = \"u\"\nvalue = \"check.unit.must_pass.fraction\"\n");
        assert_eq!(score(&record, &unit).reward, Some(1.0));
        record.checks[0].ran = false;
        assert_eq!(score(&record, &unit).reward, None);
    }

    #[test]
    fn masks() {
        let mut solved = testing::record((2, 2), (3, 3));
        solved.generation.finish_reason = "length".into();
        let masked = default(&solved);
        assert_eq!(masked.reward, Some(1.0));
        assert_eq!(masked.mask.as_deref(), Some("gen.truncated and must_pass.all"));
        solved.generation.finish_reason = "stop".into();
        assert_eq!(default(&solved).mask, None);
        solved.generation.finish_reason.clear(); // nobody told: no advice
        assert_eq!(default(&solved).mask, None);
    }

    #[test]
    fn nobody_expecting_anything_is_no_pass() {
        let record = testing::record((0, 0), (0, 0));
        let any = spec("[[term]]\nname = \"x\"\nvalue = \"must_pass.all and must_keep.all\"\n");
        assert_eq!(score(&record, &any).reward, Some(0.0));
    }

    fn any_float() -> impl Strategy<Value = f64> {
        prop_oneof![any::<f64>(), 0.0..1.0, Just(f64::NAN), Just(f64::INFINITY), Just(f64::MAX)]
    }

    proptest! {
        /// Whatever a record holds, also what no run of ours can leave.
        #[test]
        fn scores_are_finite_and_in_range(
            counts in any::<[u32; 6]>(),
            floats in [any_float(), any_float(), any_float()],
            complete in any::<bool>(),
            outcome in 0..7_usize,
        ) {
            let mut record = record();
            let check = &mut record.checks[0];
            check.must_pass.count = counts[0];
            check.must_pass.held = counts[1];
            check.must_keep.count = counts[2];
            check.must_keep.held = counts[3];
            record.patch.added = counts[4];
            record.patch.removed = counts[5];
            record.usage.wall_s = floats[0];
            record.external.insert("judge".into(), floats[1]);
            record.task_facts.difficulty = Some(floats[2]);
            record.complete = complete;
            record.outcome = [
                Outcome::Scored,
                Outcome::SubmissionRejected,
                Outcome::Tampered,
                Outcome::InvalidTask,
                Outcome::InfraError,
                Outcome::DeadlineExceeded,
                Outcome::Cancelled,
            ][outcome];
            let specs = [
                spec("[[term]]\nname = \"a\"\nvalue = \"external.judge / max(0.1, task.difficulty)\"\n\
                      [[term]]\nname = \"b\"\nvalue = \"log2(1 + run.wall_s) * must_pass.fraction\"\nweight = -3\n"),
                spec("[[term]]\nname = \"a\"\nvalue = \"must_pass.fraction\"\nweight = 0.1\n\
                      [[term]]\nname = \"b\"\nvalue = \"must_keep.fraction\"\nweight = 0.2\n[combine]\nop = \"mean\"\n"),
            ];
            for spec in specs.iter().chain(RewardSpec::presets()) {
                let scored = score(&record, spec);
                match scored.reward {
                    Some(reward) => {
                        let (lo, hi) = spec.range();
                        prop_assert!(lo <= reward && reward <= hi, "{lo} {reward} {hi}");
                        prop_assert!(outcome < 3);
                    }
                    None => prop_assert!(scored.mask.is_some()),
                }
                for component in scored.components {
                    prop_assert!(component.value.is_none_or(f64::is_finite));
                }
            }
        }
    }
}
