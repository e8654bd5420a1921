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
                refusal.get_or_insert_with(|| {
                    format!("gate `{}` {}", condition.text, explain(stuck))
                });
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
