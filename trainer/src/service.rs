//! The client of `assay.v1`: tasks in, verdicts out, over a service that may be full or restarting.
//!
//! Calls run on their own threads, so that a group is evaluated while the next one is sampled.
//! A call that fails in passing is repeated with the same request ids: the service gives each
//! submission one result however often it is asked.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use assay_proto::v1::reward_service_client::RewardServiceClient;
use assay_proto::v1::task_service_client::TaskServiceClient;
use assay_proto::v1::{
    EvaluateGroupRequest, EvaluateRequest, EvaluateResult, Generation, GetTaskRequest,
    ListTasksRequest, Outcome, Submission, TaskFilter, evaluate_group_response, submission,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::config::ServiceConfig;
use crate::embedded::Embedded;
use crate::environment::{
    Answers, Environment, EnvironmentError, Message, Phase, Task, Verdict, Verdicts,
};

/// The first and the longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Groups whose verdicts wait to be collected.
const GROUPS: usize = 4096;

type Authorized = InterceptedService<Channel, Authorize>;

/// A connection to the service, embedded or not.
#[derive(Debug)]
pub struct Service {
    runtime: Runtime,
    client: Client,
    run_id: String,
    reward: String,
    deadline: Duration,
    results: (mpsc::Sender<Collected>, mpsc::Receiver<Collected>),
    tasks: HashMap<String, Task>,
    embedded: Option<Embedded>,
}

type Collected = Result<Verdicts, EnvironmentError>;

#[derive(Clone, Debug)]
struct Client {
    endpoint: String,
    retry: Duration,
    tasks: TaskServiceClient<Authorized>,
    rewards: RewardServiceClient<Authorized>,
}

impl Service {
    /// Connects to `config.server`, or to `embedded` when it is given. Nothing is sent yet.
    pub fn connect(
        config: &ServiceConfig,
        embedded: Option<Embedded>,
    ) -> Result<Self, EnvironmentError> {
        let endpoint =
            embedded.as_ref().map_or(config.server.clone(), |service| service.endpoint.clone());
        let refused = |detail: String| EnvironmentError::Refused {
            what: format!("address {endpoint}"),
            detail,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("service")
            .enable_all()
            .build()
            .map_err(|error| {
                EnvironmentError::Embedded(format!("cannot start threads: {error}"))
            })?;
        let authorize = Authorize::from_env(&config.token_env).map_err(refused)?;
        let channel = {
            let _inside = runtime.enter();
            Endpoint::from_shared(endpoint.clone())
                .map_err(|error| refused(error.to_string()))?
                .connect_timeout(Duration::from_secs(5))
                .tcp_nodelay(true)
                .http2_keep_alive_interval(Duration::from_secs(20))
                .connect_lazy()
        };
        let client = Client {
            tasks: TaskServiceClient::with_interceptor(channel.clone(), authorize.clone()),
            rewards: RewardServiceClient::with_interceptor(channel, authorize),
            retry: Duration::from_secs_f64(config.retry_s),
            endpoint,
        };
        Ok(Self {
            runtime,
            client,
            run_id: uuid::Uuid::now_v7().to_string(),
            reward: config.reward.clone(),
            deadline: Duration::from_secs_f64(config.deadline_s),
            results: mpsc::channel(GROUPS),
            tasks: HashMap::new(),
            embedded,
        })
    }

    fn request(&self, group: &Answers) -> EvaluateGroupRequest {
        let requests = group.answers.iter().enumerate().map(|(number, answer)| EvaluateRequest {
            request_id: format!("{}/{}/{number}", self.run_id, group.group_id),
            task_id: group.task_id.clone(),
            submission: Some(Submission {
                kind: Some(submission::Kind::Completion(answer.text.clone())),
            }),
            reward: self.reward.clone(),
            deadline: prost_types::Duration::try_from(self.deadline).ok(),
            generation: Some(Generation {
                finish_reason: if answer.truncated { "length" } else { "stop" }.to_owned(),
                tokens: answer.tokens,
                turns: 1,
                policy_version_min: group.policy_version,
                policy_version_max: group.policy_version,
                phase: match group.phase {
                    Phase::Train => assay_proto::v1::Phase::Train,
                    Phase::Eval => assay_proto::v1::Phase::Eval,
                }
                .into(),
                ..Generation::default()
            }),
            ..EvaluateRequest::default()
        });
        EvaluateGroupRequest {
            requests: requests.collect(),
            group_id: format!("{}/{}", self.run_id, group.group_id),
            run_id: self.run_id.clone(),
            ..EvaluateGroupRequest::default()
        }
    }
}

impl Environment for Service {
    fn task_ids(&mut self, set: &str, split: &str) -> Result<Vec<String>, EnvironmentError> {
        let filter =
            TaskFilter { set: set.to_owned(), split: split.to_owned(), ..TaskFilter::default() };
        self.runtime.block_on(self.client.task_ids(filter))
    }

    fn task(&mut self, id: &str) -> Result<Task, EnvironmentError> {
        if let Some(task) = self.tasks.get(id) {
            return Ok(task.clone());
        }
        let task = self.runtime.block_on(self.client.task(id))?;
        self.tasks.insert(id.to_owned(), task.clone());
        Ok(task)
    }

    fn submit(&mut self, group: Answers) -> Result<(), EnvironmentError> {
        let request = self.request(&group);
        let (client, sender) = (self.client.clone(), self.results.0.clone());
        self.runtime.spawn(async move {
            let verdicts = client.evaluate_group(group.index, request).await;
            let _ = sender.send(verdicts).await;
        });
        Ok(())
    }

    fn collect(&mut self) -> Result<Verdicts, EnvironmentError> {
        loop {
            let received = self.runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(1), self.results.1.recv()).await
            });
            match received {
                Ok(verdicts) => return verdicts.expect("we hold a sender ourselves"),
                Err(_) => self.embedded.as_mut().map_or(Ok(()), Embedded::check)?,
            }
        }
    }
}

impl Client {
    async fn task_ids(&self, filter: TaskFilter) -> Result<Vec<String>, EnvironmentError> {
        let mut ids = Vec::new();
        let mut page_token = String::new();
        loop {
            let request =
                ListTasksRequest { filter: Some(filter.clone()), page_size: 0, page_token };
            let mut patience = Patience::new(self, "ListTasks".to_owned());
            let page = loop {
                match self.tasks.clone().list_tasks(request.clone()).await {
                    Ok(page) => break page.into_inner(),
                    Err(status) => patience.wait(&status).await?,
                }
            };
            ids.extend(page.tasks.into_iter().filter(|task| task.valid).map(|task| task.id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                ids.sort_unstable();
                return Ok(ids);
            }
        }
    }

    async fn task(&self, id: &str) -> Result<Task, EnvironmentError> {
        let mut patience = Patience::new(self, format!("GetTask {id}"));
        loop {
            match self.tasks.clone().get_task(GetTaskRequest { id: id.to_owned() }).await {
                Ok(task) => {
                    let messages = task.into_inner().messages.into_iter();
                    let messages = messages
                        .map(|message| Message { role: message.role, content: message.content });
                    return Ok(Task { id: id.to_owned(), messages: messages.collect() });
                }
                Err(status) => patience.wait(&status).await?,
            }
        }
    }

    async fn evaluate_group(&self, index: usize, request: EvaluateGroupRequest) -> Collected {
        let mut patience = Patience::new(self, format!("EvaluateGroup {}", request.group_id));
        let mut known: HashMap<String, Verdict> = HashMap::new();
        let mut masked = false;
        loop {
            let before = known.len();
            let ended = self.stream_group(&request, &mut known, &mut masked).await;
            let verdicts: Option<Vec<Verdict>> = request
                .requests
                .iter()
                .map(|request| known.get(&request.request_id).cloned())
                .collect();
            if let Some(verdicts) = verdicts {
                return Ok(Verdicts { index, verdicts, masked });
            }
            if known.len() > before {
                patience.start_over();
            }
            let status = ended
                .err()
                .unwrap_or_else(|| Status::unavailable("the stream ended before its results"));
            patience.wait(&status).await?;
        }
    }

    async fn stream_group(
        &self,
        request: &EvaluateGroupRequest,
        known: &mut HashMap<String, Verdict>,
        masked: &mut bool,
    ) -> Result<(), Status> {
        let mut stream = self.rewards.clone().evaluate_group(request.clone()).await?.into_inner();
        while let Some(response) = stream.message().await? {
            match response.event {
                Some(evaluate_group_response::Event::Result(result)) => {
                    known.insert(result.request_id.clone(), verdict(result));
                }
                Some(evaluate_group_response::Event::Summary(summary)) => {
                    *masked = summary.mask.is_some_and(|advice| advice.mask);
                }
                None => {}
            }
        }
        Ok(())
    }
}

fn verdict(result: EvaluateResult) -> Verdict {
    let outcome = Outcome::try_from(result.outcome).unwrap_or_default();
    let name = outcome.as_str_name();
    Verdict {
        outcome: name.strip_prefix("OUTCOME_").unwrap_or(name).to_lowercase(),
        reward: result.reward.filter(|reward| reward.is_finite()),
        failure: result
            .failure
            .map(|failure| format!("{} in {}: {}", failure.kind, failure.phase, failure.detail)),
        tests: result.tests.map(|tests| {
            [
                tests.passed,
                tests.passed + tests.failed + tests.errors + tests.skipped + tests.missing,
            ]
        }),
        masked: result.mask.is_some_and(|advice| advice.mask),
    }
}

/// How long one call goes on trying.
struct Patience<'a> {
    client: &'a Client,
    what: String,
    started: Instant,
    pause: Duration,
}

impl<'a> Patience<'a> {
    fn new(client: &'a Client, what: String) -> Self {
        Self { client, what, started: Instant::now(), pause: PAUSE.0 }
    }

    fn start_over(&mut self) {
        self.started = Instant::now();
        self.pause = PAUSE.0;
    }

    /// Sleeps before the next try, or says why there is none.
    async fn wait(&mut self, status: &Status) -> Result<(), EnvironmentError> {
        let passing = matches!(
            status.code(),
            Code::Unavailable
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::Cancelled
                | Code::Unknown
                | Code::Internal
        );
        let detail = format!("{:?}: {}", status.code(), status.message());
        if !passing {
            return Err(EnvironmentError::Refused { what: self.what.clone(), detail });
        }
        let asked = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
        let pause = asked.unwrap_or(self.pause).min(self.client.retry);
        if self.started.elapsed() + pause > self.client.retry {
            return Err(EnvironmentError::Unavailable {
                endpoint: self.client.endpoint.clone(),
                detail,
            });
        }
        tracing::debug!(what = %self.what, %detail, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        self.pause = (self.pause * 2).min(PAUSE.1);
        Ok(())
    }
}

/// Sends the bearer token with every call.
#[derive(Clone, Debug)]
struct Authorize(Option<MetadataValue<Ascii>>);

impl Authorize {
    fn from_env(variable: &str) -> Result<Self, String> {
        let token = std::env::var(variable).ok().filter(|token| !token.is_empty());
        let value = token
            .map(|token| format!("Bearer {token}").parse::<MetadataValue<Ascii>>())
            .transpose();
        let mut value = value.map_err(|_| format!("the token in {variable} is not ASCII"))?;
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        Ok(Self(value))
    }
}

impl tonic::service::Interceptor for Authorize {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
#[path = "../tests/unit/service.rs"]
mod tests;
