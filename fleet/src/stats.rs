//! What a fleet did since it started, in numbers that add up.

use assay_rewards::Outcome;

/// What a fleet did since it started, and how much there is to do. `requested` is the sum of the
/// seven outcomes and of `unanswered`, whenever it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests accepted, and found unanswered at the start.
    pub requested: u64,
    /// Run and judged.
    pub scored: u64,
    /// Rejected by their own fault.
    pub rejected: u64,
    /// Run, with a verdict that can't be trusted.
    pub tampered: u64,
    /// Of a task that can't judge.
    pub invalid: u64,
    /// Lost to a failure of ours.
    pub infra: u64,
    /// Called off.
    pub cancelled: u64,
    /// Past their deadline.
    pub deadline_exceeded: u64,
    /// Of the answers: those that another evaluation's run gave.
    pub cached: u64,
    /// Runs repeated after a failure of ours.
    pub retried: u64,
    /// Requests without an answer, the queued ones among them.
    pub unanswered: usize,
    /// Requests that wait for a worker.
    pub queued: usize,
    /// Most requests without an answer.
    pub capacity: usize,
    /// Evaluations that may run at the same time.
    pub workers: usize,
}

impl Stats {
    /// Returns how many requests were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.scored
            + self.rejected
            + self.tampered
            + self.invalid
            + self.infra
            + self.cancelled
            + self.deadline_exceeded
    }

    /// Counts an answer.
    pub(crate) fn count(&mut self, outcome: Outcome, cached: bool) {
        *match outcome {
            Outcome::Scored => &mut self.scored,
            Outcome::SubmissionRejected => &mut self.rejected,
            Outcome::Tampered => &mut self.tampered,
            Outcome::InvalidTask => &mut self.invalid,
            Outcome::InfraError => &mut self.infra,
            Outcome::Cancelled => &mut self.cancelled,
            Outcome::DeadlineExceeded => &mut self.deadline_exceeded,
        } += 1;
        self.cached += u64::from(cached);
    }
}
