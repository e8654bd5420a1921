//! The page against hostile text, and charts at their edges.

use super::*;
use crate::environment::Verdict;
use crate::evaluate::{Summary, compare};

const HOSTILE: &str = "</pre><script>alert(1)</script>' onload='x \u{202e}\u{7}\" &amp;";

fn evaluation(passed: usize) -> Evaluation {
    let tasks = (0..12).map(|number| TaskEvaluation {
        task: format!("katas.{number}<b>"),
        question: HOSTILE.into(),
        valid: 4,
        passed: (passed + number) % 5,
        greedy: Some(number % 2 == 0),
        samples: vec![Shown {
            text: HOSTILE.repeat(300),
            truncated: true,
            verdict: Verdict {
                outcome: HOSTILE.into(),
                reward: Some(0.25),
                failure: Some(HOSTILE.into()),
                tests: Some([1, 3]),
                masked: false,
            },
        }],
        greedy_sample: None,
    });
    Evaluation {
        schema: 1,
        policy: HOSTILE.into(),
        policy_version: 0,
        set: "katas".into(),
        split: "held_out".into(),
        seed: 0,
        samples: 4,
        seconds: 1.0,
        summary: Summary { pass_at: [(2, 0.5)].into(), ..Summary::default() },
        tasks: tasks.collect(),
    }
}

#[test]
fn nothing_that_a_model_wrote_is_markup() {
    let (before, after) = (evaluation(0), evaluation(1));
    let comparison = compare(&before, &after);
    let step = |step| StepMetrics {
        step,
        reward_mean: Some(step as f64 / 10.0),
        ..StepMetrics::default()
    };
    let steps: Vec<StepMetrics> = (1..=7).map(step).collect();
    let run = Ended { step: 7, updates: 7, reason: "steps", checkpoint: "c".into(), seconds: 1.0 };
    let page = html(&Report {
        config: &Config::default(),
        before: &before,
        after: &after,
        comparison: &comparison,
        steps: &steps,
        run: &run,
        seconds: 60.0,
    });
    assert!(!page.contains("<script") && !page.contains("' onload") && !page.contains('\u{202e}'));
    assert_eq!(page.matches("<section>").count(), 10);
    assert_eq!(page.matches("<polyline").count(), 8);
    assert!(page.contains("12 tasks of") && page.contains("pass@2"));
    for tag in ["table", "div", "section", "pre", "figure", "svg", "main"] {
        let open =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn charts_at_their_edges() {
    assert_eq!(chart("nothing", &[]), "");
    assert_eq!(chart("nothing finite", &[(1.0, f64::NAN)]), "");
    for points in [
        vec![(1.0, 0.0)],
        vec![(1.0, 3.0), (2.0, 3.0)],
        vec![(1.0, -1e9), (9.0, 1e9)],
        vec![(1.0, 1e-9), (2.0, 2e-9)],
    ] {
        let svg = chart("edge", &points);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.matches("class=grid").count() <= 12, "{svg}");
    }
    assert_eq!(scale(0.0, 1.0), (0.0, 1.0, 0.5));
    assert_eq!([0.0, 0.5, 1.0, 0.002, 12.5].map(number), ["0", "0.5", "1", "2e-3", "12.5"]);
}
