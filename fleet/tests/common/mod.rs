//! What the tests of this crate share.
#![allow(dead_code, reason = "each test uses a part")]

use std::{path::Path, time::Duration};

use assay_fleet::{
    Completion, Digests, Evaluation, EvaluationResult, RequestId, RunUsage, Timings,
};
use assay_repos::Submission;
use assay_rewards::Outcome;

pub fn id(text: &str) -> RequestId {
    text.parse().unwrap()
}

/// A request of run `run` for task `t.1`.
pub fn request(name: &str) -> Evaluation {
    let submission = Submission::Source(format!("def f(): return {name:?}\n"));
    Evaluation {
        run_id: "run".into(),
        group_id: "group".into(),
        ..Evaluation::new(id(name), "t.1".parse().unwrap(), submission)
    }
}

/// An answer that no evaluator gave.
pub fn answer(evaluation: &Evaluation, reward: f64) -> Completion {
    let result = EvaluationResult {
        request_id: evaluation.request_id.clone(),
        run_id: evaluation.run_id.clone(),
        group_id: evaluation.group_id.clone(),
        task: evaluation.task.clone(),
        outcome: Outcome::Scored,
        reward: Some(reward),
        components: Vec::new(),
        mask: None,
        tests: Default::default(),
        flags: Vec::new(),
        failure: None,
        timings: Timings::default(),
        usage: RunUsage::default(),
        digests: Digests::default(),
        cached: false,
        grade_id: None,
        generation: evaluation.generation.clone(),
        sequence: 0,
    };
    Completion { result, grade: None, cache: None }
}

/// Waits for what should come at once.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come"),
    }
}

pub fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}
