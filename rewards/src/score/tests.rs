use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::{Failure, Fault, Outcome, Phase, testing};

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
    for outcome in
        [Outcome::InvalidTask, Outcome::InfraError, Outcome::DeadlineExceeded, Outcome::Cancelled]
    {
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
fn the_first_term_that_applies_decides() {
    let spec = spec(
        "[combine]\nop = \"first\"\n\
         [[term]]\nname = \"seen\"\nvalue = \"external.seen\"\nweight = 0\n\
         [[term]]\nname = \"oom\"\nwhen = \"run.oom\"\nvalue = \"1\"\nweight = -0.6\n\
         [[term]]\nname = \"judged\"\nwhen = \"external.a > 0\"\nvalue = \"external.b\"\n\
         [[term]]\nname = \"rest\"\nvalue = \"must_pass.fraction\"\n",
    );
    let mut record = record();
    let refused = score(&record, &spec);
    assert_eq!(refused.reward, None, "whether `judged` applies is not known");
    assert_eq!(
        refused.mask.as_deref(),
        Some("term `judged` needs `external.a`, which the record lacks")
    );
    record.external.insert("a".into(), 0.0);
    assert_eq!(score(&record, &spec).reward, Some(0.5));
    record.external.insert("a".into(), 1.0);
    assert_eq!(score(&record, &spec).reward, None, "it applies, and has no value");
    record.external.insert("b".into(), 7.0);
    let judged = score(&record, &spec);
    assert_eq!((judged.reward, judged.components[3].value), (Some(7.0), Some(0.5)));
    // What comes after the one that decides can't matter.
    record.external.clear();
    record.usage.oom = true;
    assert_eq!(score(&record, &spec).reward, Some(-0.6));
}

#[test]
fn what_the_gold_submission_did_exactly() {
    let exact = RewardSpec::preset("exact").unwrap();
    let mut record = testing::record((2, 2), (3, 3));
    assert_eq!(score(&record, exact).reward, None, "nobody validated the task");
    for (held, reward) in [(6, 1.0), (5, 0.0)] {
        record.checks[0].exact = Some(crate::Required { count: 6, held });
        assert_eq!(score(&record, exact).reward, Some(reward));
    }
    record.checks.push(record.checks[0].clone());
    record.checks[0].exact = None;
    assert_eq!(score(&record, exact).reward, None, "one check of two");
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
