//! The loss against `grpo_oracle.py`, and its gradient against finite differences of itself.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    constants: Grpo,
    log_probs: Vec<f32>,
    old: Vec<f32>,
    sampler: Vec<f32>,
    reference: Vec<f32>,
    advantages: Vec<f32>,
    loss: Vec<f64>,
    gradient: Vec<f64>,
    clipped: f64,
    mismatch_kl: f64,
    truncated_weights: f64,
}

fn close(got: f64, expected: f64, tolerance: f64) -> bool {
    (got - expected).abs() <= tolerance * (1.0 + expected.abs())
}

#[test]
fn golden_numbers() {
    let golden: Golden = serde_json::from_str(include_str!("../fixtures/grpo.json")).unwrap();
    assert!(golden.cases.len() >= 4);
    for case in golden.cases {
        let name = &case.name;
        let tokens = Tokens {
            log_probs: &case.log_probs,
            old: &case.old,
            sampler: &case.sampler,
            reference: Some(&case.reference),
            advantages: &case.advantages,
        };
        let (sums, gradient) = grpo(&case.constants, &tokens);
        for i in 0..case.log_probs.len() {
            let one = |stream: &[f32]| f64::from(stream[i]);
            let reference = (case.constants.kl != 0.0).then(|| one(&case.reference));
            let (term, _) = token(
                &case.constants,
                one(&case.log_probs),
                one(&case.old),
                one(&case.sampler),
                reference,
                one(&case.advantages),
            );
            assert!(
                close(term.loss, case.loss[i], 1e-9),
                "{name}[{i}]: loss {} is not {}",
                term.loss,
                case.loss[i]
            );
            let (got, expected) = (f64::from(gradient[i]), case.gradient[i]);
            assert!(close(got, expected, 2e-5), "{name}[{i}]: gradient {got} is not {expected}");
        }
        assert!(close(sums.loss, case.loss.iter().sum(), 1e-9), "{name}");
        assert_eq!(sums.tokens, case.log_probs.len() as f64, "{name}");
        assert_eq!(sums.clipped, case.clipped, "{name}");
        assert_eq!(sums.truncated_weights, case.truncated_weights, "{name}");
        assert!(close(sums.mismatch_kl, case.mismatch_kl, 1e-9), "{name}");
    }
}

#[test]
fn on_policy_nothing_is_clipped_and_the_gradient_is_the_advantage() {
    let log_probs = [-0.1, -3.0, -20.0, 0.0];
    let advantages = [1.0, -1.0, 0.5, -0.5];
    let tokens = Tokens {
        log_probs: &log_probs,
        old: &log_probs,
        sampler: &log_probs,
        reference: None,
        advantages: &advantages,
    };
    let (sums, gradient) = grpo(&Grpo::default(), &tokens);
    assert_eq!((sums.clipped, sums.mismatch_kl, sums.truncated_weights), (0.0, 0.0, 0.0));
    assert_eq!(gradient, [-1.0, 1.0, -0.5, 0.5]);
}

#[test]
fn hostile_log_probs_give_finite_terms() {
    let extremes = [-1e30_f32, -1e3, -1e-30, 0.0];
    for l in extremes {
        for other in extremes {
            let (l, other) = (f64::from(l), f64::from(other));
            let (term, derivative) =
                token(&Grpo { kl: 0.1, ..Grpo::default() }, l, other, other, Some(other), -1.0);
            assert!(term.loss.is_finite() && derivative.is_finite(), "{l} {other}: {term:?}");
        }
    }
}
