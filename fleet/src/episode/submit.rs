//! From an episode's end state to what it is worth.

use std::sync::Arc;

use assay_repos::{
    Digest, EndEntry, EndState, Revision, SourceError, Submission, Task, end_state, is_litter,
};
use assay_rewards::{Failure, Fault, Phase};
use assay_sandbox::{Content, Frozen, FrozenEntry, LimitKind, Over, Pick, Snapshot};
use futures::future::join_all;
use tracing::info;

use super::{Ended, Episode, EpisodeError, StepId, Submitted};
use crate::{Evaluation, FleetHandle, RequestId};

/// Most bytes of a changed file, and of all of them together.
const FILE_BYTES: u64 = 16 << 20;
const ALL_BYTES: u64 = 64 << 20;

/// What an agent left.
#[derive(Debug)]
pub(super) struct HandedIn {
    end: EndState,
    ended: Ended,
    steps: u32,
}

impl Episode {
    /// Hands the end state in, once, and waits for what it is worth.
    pub(super) async fn submit(&self, fleet: &FleetHandle) -> Result<Submitted, EpisodeError> {
        let handed_in = self.handed_in.get_or_try_init(|| self.hand_in()).await?;
        let submitted = self.submitted.get_or_try_init(|| self.judge(fleet, handed_in)).await?;
        Ok(submitted.clone())
    }

    /// Kills every process, reads what is left, and frees the sandbox.
    async fn hand_in(&self) -> Result<HandedIn, EpisodeError> {
        let (session, steps, ended) = self.retire()?;
        session.end().await?;
        let snapshot = session.snapshot().await?;
        let workplace = &self.workplace;
        let end =
            changes(Arc::clone(&workplace.task), workplace.revision.clone(), snapshot).await?;
        info!(episode_id = %self.opening().id, %ended, steps, bytes = end.patch.len(), "handed in");
        drop(session);
        self.free();
        Ok(HandedIn { end, ended, steps })
    }

    async fn judge(
        &self,
        fleet: &FleetHandle,
        handed_in: &HandedIn,
    ) -> Result<Submitted, EpisodeError> {
        let HandedIn { end, ended, steps } = handed_in;
        let mut evaluation = Evaluation {
            request_id: self.opening().id.request(),
            submission: Submission::Patch(end.patch.clone()),
            ..self.opening().evaluation.clone()
        };
        let generation = &mut evaluation.generation;
        if generation.turns == 0 {
            generation.turns = (*steps).into();
        }
        if generation.finish_reason.is_empty() {
            let cut_off = !matches!(ended, Ended::Submitted);
            generation.finish_reason = if cut_off { "length" } else { "stop" }.to_owned();
        }
        let scored = self.scored_steps();
        if ended.is_starved() {
            // Nothing is queued: the same ids may be used for another try.
            let over = Over::Limit(LimitKind::WallStarved).to_string();
            let failure = Failure::new("machine_starved", Phase::Run, Fault::Infra, over);
            let result = Arc::new(fleet.unjudged(&evaluation, failure));
            let step_rewards = scored.into_iter().map(|(step, _)| (step, None)).collect();
            return Ok(Submitted { result, end: end.clone(), ended: Some(*ended), step_rewards });
        }
        // Steps are judged beside it, and are no results of the run.
        let of_steps = scored.iter().filter_map(|(step, patch)| {
            Some(Evaluation {
                request_id: self.step_request(step),
                run_id: String::new(),
                group_id: String::new(),
                submission: Submission::Patch(patch.clone()?),
                ..evaluation.clone()
            })
        });
        let work: Vec<_> = std::iter::once(evaluation.clone()).chain(of_steps).collect();
        let tickets = fleet.submit(work).await?.into_iter();
        let waits = tickets.map(|ticket| async { ticket.keep_on_drop().wait().await });
        let mut results = join_all(waits).await.into_iter();
        let result = results.next().unwrap_or(Err(crate::Stopped))?;
        let mut step_rewards = Vec::with_capacity(scored.len());
        for (step, patch) in scored {
            let reward = match patch {
                Some(_) => results.next().unwrap_or(Err(crate::Stopped))?.reward,
                None => None,
            };
            step_rewards.push((step, reward));
        }
        Ok(Submitted { result, end: end.clone(), ended: Some(*ended), step_rewards })
    }

    fn step_request(&self, step: &StepId) -> RequestId {
        let name = Digest::builder().part(self.opening().id.to_string()).part(step.to_string());
        let name = format!("episode-step:{}", name.finish().hex());
        RequestId::new(name).unwrap_or_else(|_| RequestId::generate())
    }
}

/// Returns what a session left as a diff against its revision.
pub(super) async fn changes(
    task: Arc<Task>,
    revision: Revision,
    snapshot: Snapshot,
) -> Result<EndState, EpisodeError> {
    let work = move || {
        let trouble = |what: String| {
            EpisodeError::Task(Failure::new("end_state", Phase::Apply, Fault::Infra, what))
        };
        // What no patch holds takes no room from what one does.
        let pick = Pick {
            file_bytes: FILE_BYTES,
            all_bytes: ALL_BYTES,
            path: &|path| !is_litter(path),
            content: &|content| std::str::from_utf8(content).is_ok(),
        };
        let entries = snapshot
            .work_tree(&pick)
            .map_err(|error| trouble(format!("read a snapshot: {error}")))?;
        let entries: Vec<_> = entries.into_iter().map(entry).collect();
        end_state(&task, &revision, &entries)
            .map_err(|error: SourceError| trouble(error.to_string()))
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(EpisodeError::Task(crate::evaluator::defect(&panic))))
}

fn entry(FrozenEntry { path, what }: FrozenEntry) -> (std::path::PathBuf, EndEntry) {
    let entry = match what {
        Frozen::Directory { hides } => EndEntry::Directory { hides },
        Frozen::File { content: Content::Kept(content), executable, .. } => {
            EndEntry::File { content, executable }
        }
        Frozen::File { content: Content::Unwanted, .. } => EndEntry::Binary,
        Frozen::File { content: Content::TooLarge, .. } => EndEntry::TooLarge,
        Frozen::Symlink(_) | Frozen::Pipe => EndEntry::Special,
        Frozen::Absent => EndEntry::Absent,
    };
    (path, entry)
}
