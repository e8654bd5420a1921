//! Figures of an evaluation, by hand.

use super::*;

fn shown(reward: Option<f64>) -> Shown {
    let outcome = if reward.is_some() { "scored" } else { "infra_error" }.to_owned();
    Shown {
        text: String::new(),
        truncated: false,
        verdict: Verdict { outcome, reward, ..Verdict::default() },
    }
}

fn task(id: &str, rewards: &[Option<f64>], greedy: Option<bool>) -> TaskEvaluation {
    let samples: Vec<Shown> = rewards.iter().copied().map(shown).collect();
    TaskEvaluation {
        task: id.to_owned(),
        question: String::new(),
        valid: rewards.iter().flatten().count(),
        passed: samples.iter().filter(|sample| sample.verdict.passed()).count(),
        greedy,
        samples,
        greedy_sample: None,
    }
}

fn evaluation(tasks: Vec<TaskEvaluation>) -> Evaluation {
    Evaluation {
        schema: 1,
        policy: "p".into(),
        policy_version: 0,
        set: "s".into(),
        split: "h".into(),
        seed: 0,
        samples: 4,
        seconds: 0.0,
        summary: summarise(&tasks, &[2]),
        tasks,
    }
}

#[test]
fn what_has_no_verdict_is_in_no_figure() {
    let one = Some(1.0);
    let zero = Some(0.0);
    let all = evaluation(vec![
        task("a", &[one, zero, None, zero], Some(true)), // 1 of 3
        task("b", &[one, one, one, one], Some(false)),
        task("c", &[None, None, None, None], None),
        task("d", &[Some(0.9), None, None, None], None), // valid, and not a pass
    ]);
    let summary = &all.summary;
    assert_eq!((summary.tasks, summary.invalid), (3, 8));
    assert!((summary.pass_at_1 - (1.0 / 3.0 + 1.0 + 0.0) / 3.0).abs() < 1e-12);
    // Only a and b have two valid samples: 1 - C(2,2)/C(3,2), and 1.
    assert!((summary.pass_at[&2] - (2.0 / 3.0 + 1.0) / 2.0).abs() < 1e-12);
    assert_eq!(summary.greedy, Some(0.5));
    assert!((summary.reward - 5.9 / 8.0).abs() < 1e-12);
}

#[test]
fn tasks_are_paired_by_id() {
    let (one, zero) = (Some(1.0), Some(0.0));
    let before = evaluation(vec![
        task("a", &[one, zero], Some(false)),
        task("b", &[zero, zero], Some(false)),
        task("gone", &[one, one], Some(true)),
    ]);
    let after = evaluation(vec![
        task("b", &[one, zero], Some(true)),
        task("a", &[one, one], None),
        task("silent", &[None, None], None),
    ]);
    let comparison = compare(&before, &after);
    let pass_at_1 = comparison.pass_at_1.clone().unwrap();
    assert_eq!((pass_at_1.tasks, pass_at_1.before, pass_at_1.after), (2, 0.25, 0.75));
    assert_eq!(comparison.greedy, None, "one common task is no sample of differences");
    assert_eq!(comparison.unpaired, 2);
    assert!(table(&comparison).contains("+50.0"), "{}", table(&comparison));
    let text = serde_json::to_string(&before).unwrap();
    assert_eq!(serde_json::from_str::<Evaluation>(&text).unwrap(), before);
}
