//! The samples of one prompt: their results as they are ready, then what they are together.

use std::{collections::HashSet, pin::Pin, sync::Arc, time::Duration};

use assay_fleet::{EvaluationResult, FleetHandle, RequestId, Selector, Stopped, Ticket};
use assay_proto::v1::{self, evaluate_group_response::Event};
use assay_repos::Digest;
use assay_rewards::{GroupSample, summarize};
use futures::{Stream, StreamExt as _, stream, stream::FuturesUnordered};
use tokio::time::Sleep;

use super::{request::Group, response, status::status};

type Waiting = Pin<Box<dyn Future<Output = Result<Arc<EvaluationResult>, Stopped>> + Send>>;

/// A group whose results are on their way.
///
/// Until the straggler deadline every sample is waited for, so that slow ones count like fast
/// ones. After it the group is complete as soon as `want_valid` samples are valid, and what is
/// left is cancelled. Every sample has a result in the stream, cancelled ones too.
pub(super) struct GroupRun {
    fleet: FleetHandle,
    waiting: FuturesUnordered<Waiting>,
    unanswered: HashSet<RequestId>,
    want_valid: usize,
    straggler_deadline: Option<Pin<Box<Sleep>>>,
    /// Whether the straggler deadline has passed.
    late: bool,
    /// Whether the rest was cancelled.
    cut: bool,
    answered: Vec<Arc<EvaluationResult>>,
    valid: usize,
    /// Absent once it was given out.
    group_id: Option<String>,
    min_valid: f64,
}

impl GroupRun {
    pub(super) fn new(
        fleet: FleetHandle,
        tickets: Vec<Ticket>,
        group: &Group,
        min_valid: f64,
    ) -> Self {
        let sleep = |after: Duration| Box::pin(tokio::time::sleep(after));
        Self {
            unanswered: tickets.iter().map(|ticket| ticket.request_id().clone()).collect(),
            answered: Vec::with_capacity(tickets.len()),
            valid: 0,
            group_id: Some(group.group_id.clone()),
            min_valid,
            waiting: tickets
                .into_iter()
                .map(|mut ticket| -> Waiting { Box::pin(async move { ticket.wait().await }) })
                .collect(),
            want_valid: group.want_valid,
            straggler_deadline: group
                .straggler_deadline
                .filter(|_| group.want_valid > 0)
                .map(sleep),
            late: false,
            cut: false,
            fleet,
        }
    }

    pub(super) fn into_stream(
        self,
    ) -> impl Stream<Item = tonic::Result<v1::EvaluateGroupResponse>> + Send {
        stream::unfold(self, async |mut run| {
            let event = run.next().await?;
            let response = event.map(|event| v1::EvaluateGroupResponse { event: Some(event) });
            Some((response, run))
        })
    }

    async fn next(&mut self) -> Option<tonic::Result<Event>> {
        loop {
            self.group_id.as_ref()?;
            if self.late && !self.cut && self.valid >= self.want_valid {
                self.cut = true;
                let rest = self.unanswered.drain().collect();
                let _ = self.fleet.cancel(&Selector::Requests(rest));
            }
            tokio::select! {
                biased;
                answer = self.waiting.next() => match answer {
                    Some(Ok(result)) => {
                        self.unanswered.remove(&result.request_id);
                        self.valid += usize::from(result.is_valid());
                        let event = Event::Result(response::result(&result));
                        self.answered.push(result);
                        return Some(Ok(event));
                    }
                    Some(Err(stopped)) => {
                        self.group_id = None;
                        return Some(Err(status(stopped)));
                    }
                    None => {
                        let group_id = self.group_id.take()?;
                        let summary = summary(group_id, &self.answered, self.min_valid);
                        return Some(Ok(Event::Summary(summary)));
                    }
                },
                () = passes(&mut self.straggler_deadline) => {
                    self.straggler_deadline = None;
                    self.late = true;
                }
            }
        }
    }
}

async fn passes(deadline: &mut Option<Pin<Box<Sleep>>>) {
    match deadline {
        Some(deadline) => deadline.await,
        None => std::future::pending().await,
    }
}

/// Reads from results what they are together.
fn summary(
    group_id: String,
    results: &[Arc<EvaluationResult>],
    min_valid: f64,
) -> v1::GroupSummary {
    let digests: Vec<Option<Digest>> =
        results.iter().map(|result| result.digests.submission.parse().ok()).collect();
    let samples: Vec<GroupSample<'_>> = results
        .iter()
        .zip(&digests)
        .map(|(result, submission)| GroupSample {
            outcome: result.outcome,
            reward: result.reward,
            masked: result.mask.is_some(),
            submission: submission.as_ref(),
        })
        .collect();
    let ids = results.iter().map(|result| result.request_id.to_string());
    response::group(group_id, ids, summarize(&samples, min_valid))
}
