//! `EpisodeService`: agents at work.

use std::{pin::Pin, sync::Arc};

use assay_fleet::{Episode, Episodes, Follow, StepEnd, StepEvent, Submitted};
use assay_proto::v1::{self, episode_service_server::EpisodeService};
use assay_repos::Catalog;
use assay_sandbox::{Capture, LimitKind, Stream as Output, Termination};
use futures::{Stream, stream};
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, info_span};

use super::{
    episode_request::{self as request, MAX_FILE_BYTES},
    request::Violations,
    response,
    status::{ApiError, status},
};

/// Bytes of output in one message: what was captured at the end may be long.
const MESSAGE_BYTES: usize = 1 << 20;

/// Hands requests to the episodes.
#[derive(Clone, Debug)]
pub(crate) struct EpisodeApi {
    episodes: Episodes,
    catalog: Arc<Catalog>,
}

impl EpisodeApi {
    pub(crate) fn new(episodes: Episodes, catalog: Arc<Catalog>) -> Self {
        Self { episodes, catalog }
    }

    fn find(&self, id: String) -> tonic::Result<Arc<Episode>> {
        let id = request::episode_id(id).map_err(status)?;
        self.episodes.get(&id).map_err(status)
    }
}

#[tonic::async_trait]
impl EpisodeService for EpisodeApi {
    async fn open(
        &self,
        request: Request<v1::OpenRequest>,
    ) -> tonic::Result<Response<v1::Episode>> {
        let request = request.into_inner();
        let id = request::task_id(&request.task_id).map_err(status)?;
        let task = self.catalog.get(&id).ok_or_else(|| status(ApiError::UnknownTask(id)))?;
        let opening = request::opening(request, task).map_err(status)?;
        let span = info_span!("open", episode_id = %opening.id, task = %opening.evaluation.task);
        let opened = self.episodes.open(opening).instrument(span).await.map_err(status)?;
        Ok(Response::new(episode(&opened)))
    }

    type ExecStream = Pin<Box<dyn Stream<Item = tonic::Result<v1::ExecResponse>> + Send>>;

    async fn exec(
        &self,
        request: Request<v1::ExecRequest>,
    ) -> tonic::Result<Response<Self::ExecStream>> {
        let (id, step, order) = request::step(request.into_inner()).map_err(status)?;
        let episode = self.episodes.get(&id).map_err(status)?;
        let follow = episode.exec(step, order).map_err(status)?;
        Ok(Response::new(Box::pin(events(follow))))
    }

    async fn signal(
        &self,
        request: Request<v1::SignalRequest>,
    ) -> tonic::Result<Response<v1::SignalResponse>> {
        let request = request.into_inner();
        let signal = request::signal(request.signal).map_err(status)?;
        let step = match request.step_id.as_str() {
            "" => None,
            _ => Some(request::step_id(request.step_id).map_err(status)?),
        };
        let episode = self.find(request.episode_id)?;
        episode.signal(step.as_ref(), signal).await.map_err(status)?;
        Ok(Response::new(v1::SignalResponse {}))
    }

    async fn read_file(
        &self,
        request: Request<v1::ReadFileRequest>,
    ) -> tonic::Result<Response<v1::ReadFileResponse>> {
        let request = request.into_inner();
        let path = request::path(&request.path).map_err(status)?;
        let most = request::file_bytes(request.max_bytes).map_err(status)?;
        let episode = self.find(request.episode_id)?;
        let read = episode.read(&path, request.offset, most).await;
        let (content, size) = read.map_err(status)?;
        Ok(Response::new(v1::ReadFileResponse { content, size }))
    }

    async fn write_file(
        &self,
        request: Request<v1::WriteFileRequest>,
    ) -> tonic::Result<Response<v1::WriteFileResponse>> {
        let request = request.into_inner();
        let path = request::path(&request.path).map_err(status)?;
        if request.content.len() as u64 > MAX_FILE_BYTES {
            let most = format!("at most {MAX_FILE_BYTES} bytes");
            return Err(status(Violations::one("content", most)));
        }
        let episode = self.find(request.episode_id)?;
        let written = episode.write(&path, request.content.into(), request.executable).await;
        written.map_err(status)?;
        Ok(Response::new(v1::WriteFileResponse {}))
    }

    async fn pause(
        &self,
        request: Request<v1::PauseRequest>,
    ) -> tonic::Result<Response<v1::Episode>> {
        let found = self.find(request.into_inner().episode_id)?;
        found.pause(true).await.map_err(status)?;
        Ok(Response::new(episode(&found)))
    }

    async fn resume(
        &self,
        request: Request<v1::ResumeRequest>,
    ) -> tonic::Result<Response<v1::Episode>> {
        let found = self.find(request.into_inner().episode_id)?;
        found.pause(false).await.map_err(status)?;
        Ok(Response::new(episode(&found)))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> tonic::Result<Response<v1::Episode>> {
        Ok(Response::new(episode(&*self.find(request.into_inner().episode_id)?)))
    }

    async fn snapshot(
        &self,
        request: Request<v1::SnapshotRequest>,
    ) -> tonic::Result<Response<v1::SnapshotResponse>> {
        let request = request.into_inner();
        let name = request::snapshot_name(request.name).map_err(status)?;
        let bytes = self.find(request.episode_id)?.snapshot(&name).await.map_err(status)?;
        Ok(Response::new(v1::SnapshotResponse { bytes }))
    }

    async fn fork(
        &self,
        request: Request<v1::ForkRequest>,
    ) -> tonic::Result<Response<v1::ForkResponse>> {
        let request = request.into_inner();
        let parent = request::episode_id(request.episode_id).map_err(status)?;
        let ids = request::fork_ids(request.episode_ids).map_err(status)?;
        let snapshot = Some(request.snapshot.as_str()).filter(|name| !name.is_empty());
        let forks = self.episodes.fork(&parent, snapshot, ids).await.map_err(status)?;
        let episodes = forks.iter().map(|fork| episode(fork)).collect();
        Ok(Response::new(v1::ForkResponse { episodes }))
    }

    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> tonic::Result<Response<v1::SubmitResponse>> {
        let id = request::episode_id(request.into_inner().episode_id).map_err(status)?;
        let span = info_span!("submit", episode_id = %id);
        let submitted = self.episodes.submit(&id).instrument(span).await.map_err(status)?;
        Ok(Response::new(submission(&submitted)))
    }

    async fn close(
        &self,
        request: Request<v1::CloseRequest>,
    ) -> tonic::Result<Response<v1::CloseResponse>> {
        let id = request::episode_id(request.into_inner().episode_id).map_err(status)?;
        self.episodes.close(&id).map_err(status)?;
        Ok(Response::new(v1::CloseResponse {}))
    }
}

fn episode(episode: &Episode) -> v1::Episode {
    let opening = episode.opening();
    v1::Episode {
        episode_id: opening.id.to_string(),
        task_id: opening.evaluation.task.to_string(),
        workdir: episode.workdir().display().to_string(),
        steps_left: episode.steps_left(),
        lease: opening.lease.try_into().ok(),
        parent_id: episode.parent().map(ToString::to_string).unwrap_or_default(),
    }
}

/// What a step does, as messages.
fn events(follow: Follow) -> impl Stream<Item = tonic::Result<v1::ExecResponse>> + Send {
    let next = |mut follow: Follow| async move {
        let messages = match follow.next().await {
            Ok(None) => return None,
            Ok(Some(StepEvent::Output(stream, bytes))) => vec![Ok(output(stream, &bytes))],
            Ok(Some(StepEvent::Ended(end))) => ended(&end).into_iter().map(Ok).collect(),
            Ok(Some(StepEvent::Lost(why))) => vec![Err(Status::unavailable(&*why))],
            Err(error) => vec![Err(status(error))],
        };
        Some((stream::iter(messages), follow))
    };
    futures::StreamExt::flatten(stream::unfold(follow, next))
}

fn output(stream: Output, bytes: &[u8]) -> v1::ExecResponse {
    use v1::exec_response::Event;
    let event = match stream {
        Output::Stdout => Event::Stdout(bytes.to_vec()),
        Output::Stderr => Event::Stderr(bytes.to_vec()),
    };
    v1::ExecResponse { event: Some(event) }
}

/// The rest of the output, with what is missing in it, and the end.
fn ended(end: &StepEnd) -> Vec<v1::ExecResponse> {
    use v1::exec_response::Event;
    let message = |event| v1::ExecResponse { event: Some(event) };
    let mut messages = Vec::new();
    for (stream, Capture { head, tail, dropped }) in
        [(Output::Stdout, &end.stdout), (Output::Stderr, &end.stderr)]
    {
        messages.extend(head.chunks(MESSAGE_BYTES).map(|bytes| output(stream, bytes)));
        if *dropped > 0 {
            let stream = match stream {
                Output::Stdout => v1::OutputStream::Stdout,
                Output::Stderr => v1::OutputStream::Stderr,
            };
            let dropped = v1::Dropped { stream: stream.into(), bytes: *dropped };
            messages.push(message(Event::Dropped(dropped)));
        }
        messages.extend(tail.chunks(MESSAGE_BYTES).map(|bytes| output(stream, bytes)));
    }
    messages.push(message(Event::End(step_end(end))));
    messages
}

fn step_end(end: &StepEnd) -> v1::StepEnd {
    use v1::step_end::Termination as Wire;
    let termination = match end.termination {
        Ok(Termination::Exited(code)) => Wire::ExitCode(code),
        Ok(Termination::Signaled(signal)) => Wire::Signal(signal),
        Ok(Termination::Limit(LimitKind::Memory)) => Wire::Limit("memory".into()),
        Ok(Termination::Limit(LimitKind::Cpu)) => Wire::Limit("cpu".into()),
        Ok(Termination::Limit(LimitKind::Wall)) => Wire::Limit("wall".into()),
        Ok(Termination::Limit(LimitKind::WallStarved)) => Wire::Limit("wall_starved".into()),
        Err(over) => Wire::Over(assay_fleet::Ended::Over(over).as_str().into()),
    };
    v1::StepEnd {
        termination: Some(termination),
        wall_ms: end.wall.as_secs_f64() * 1e3,
        cpu_ms: end.cpu.as_secs_f64() * 1e3,
        cleared: end.cleared,
        shell_kept: end.shell_kept,
        steps_left: end.steps_left,
    }
}

fn submission(submitted: &Submitted) -> v1::SubmitResponse {
    let left_out = |(path, reason): &(String, &str)| v1::LeftOut {
        path: path.clone(),
        reason: (*reason).to_owned(),
    };
    v1::SubmitResponse {
        result: Some(response::result(&submitted.result)),
        patch: submitted.end.patch.clone(),
        left_out: submitted.end.left_out.iter().map(left_out).collect(),
        left_out_more: submitted.end.left_out_more,
        ended: submitted.ended.map(|ended| ended.as_str().to_owned()).unwrap_or_default(),
        step_rewards: submitted
            .step_rewards
            .iter()
            .map(|(step, value)| v1::StepReward { step_id: step.to_string(), value: *value })
            .collect(),
    }
}
