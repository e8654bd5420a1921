//! What the learner knows of the world: tasks to draw from, and verdicts on groups of answers.

use serde::{Deserialize, Serialize};

/// Evaluates groups of answers while the policy samples the next ones.
pub trait Environment {
    /// The ids of all tasks of a set and split (empty: any), in a fixed order.
    fn task_ids(&mut self, set: &str, split: &str) -> Result<Vec<String>, EnvironmentError>;
    /// The public view of one task.
    fn task(&mut self, id: &str) -> Result<Task, EnvironmentError>;
    /// Takes a group over and returns at once.
    fn submit(&mut self, group: Answers) -> Result<(), EnvironmentError>;
    /// Waits for a group that was submitted and not yet collected, in whatever order they end.
    fn collect(&mut self) -> Result<Verdicts, EnvironmentError>;
}

/// Why there is no task or verdict. A submission that earns nothing is a verdict, not an error.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The service does not answer, or answers that it can't. Trying later can succeed.
    #[error("service {endpoint} is unavailable: {detail}")]
    Unavailable {
        /// Its address.
        endpoint: String,
        /// What was seen last.
        detail: String,
    },
    /// The service understood and refused: the request is wrong.
    #[error("service refused {what}: {detail}")]
    Refused {
        /// The call and what it was about.
        what: String,
        /// The service's words.
        detail: String,
    },
    /// An embedded service that did not start, or ended while it was needed.
    #[error("embedded service: {0}")]
    Embedded(String),
}

/// What a policy may see of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// The conversation that asks for an answer.
    pub messages: Vec<Message>,
}

/// A turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// "system", "user" or "assistant".
    pub role: String,
    /// What is said.
    pub content: String,
}

/// The answers to one prompt.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Chosen by the caller; comes back with the verdicts.
    pub index: usize,
    /// Unique in the run.
    pub group_id: String,
    /// The task they answer.
    pub task_id: String,
    /// What the samples are for.
    pub phase: Phase,
    /// The optimizer steps behind the weights that wrote them.
    pub policy_version: u64,
    /// One per sample.
    pub answers: Vec<Answer>,
}

/// One answer of the policy.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its text, the special tokens left out.
    pub text: String,
    /// Tokens sampled.
    pub tokens: u64,
    /// Whether it ended at the token limit.
    pub truncated: bool,
}

/// What samples are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// To learn from.
    Train,
    /// To measure.
    Eval,
}

/// The verdicts on one group, in the order of its answers.
#[derive(Clone, Debug)]
pub struct Verdicts {
    /// As submitted.
    pub index: usize,
    /// One per answer.
    pub verdicts: Vec<Verdict>,
    /// The service advises against learning from this group.
    pub masked: bool,
}

/// What one answer was worth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// "scored", "submission_rejected", "tampered", "invalid_task", "infra_error", ...
    pub outcome: String,
    /// Absent when the task or the infrastructure failed: no statistic may count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<f64>,
    /// What failed, where something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Tests passed and run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<[u32; 2]>,
    /// The service advises against learning from this sample.
    #[serde(default)]
    pub masked: bool,
}

impl Verdict {
    /// Solved: every gate and every term of the reward in full.
    pub fn passed(&self) -> bool {
        self.outcome == "scored" && self.reward.is_some_and(|reward| reward >= 1.0 - 1e-9)
    }
}
