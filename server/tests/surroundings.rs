//! What stands beside `RewardService`: tasks, health, reflection, the token.

mod support;

use assay_proto::v1::{
    GetTaskRequest, ListTasksRequest, SampleTasksRequest, TaskFilter,
    reward_service_client::RewardServiceClient,
};
use assay_server::Token;
use support::{Service, request};
use tonic::{Code, Request, metadata::MetadataValue};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_listed_shown_and_drawn() {
    let service = Service::start().await;
    let mut tasks = service.tasks();
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListTasksRequest { page_size: 1, page_token, filter: None };
        let page = tasks.list_tasks(request).await.unwrap().into_inner();
        assert!(page.tasks.len() <= 1);
        ids.extend(page.tasks.into_iter().map(|task| task.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(ids, ["programs.echo", "programs.other"]);

    let shown = tasks.get_task(GetTaskRequest { id: "programs.echo".into() }).await.unwrap();
    let shown = shown.into_inner();
    assert_eq!(shown.messages[0].content, "Write a program that passes.");
    assert_eq!((shown.extract.as_str(), shown.prompt_digest.len()), ("fence", 64));
    let summary = shown.summary.unwrap();
    assert_eq!((summary.kind.as_str(), summary.split.as_str()), ("program", "train"));

    let missing = tasks.get_task(GetTaskRequest { id: "no.such".into() }).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let malformed = tasks.get_task(GetTaskRequest { id: "a/b".into() }).await.unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument);

    let held_out = TaskFilter { split: "held_out".into(), ..TaskFilter::default() };
    let draw = SampleTasksRequest { filter: Some(held_out), count: 5, seed: 1 };
    let drawn = tasks.sample_tasks(draw.clone()).await.unwrap().into_inner();
    assert_eq!(drawn.tasks.len(), 1, "without replacement");
    assert_eq!(drawn, tasks.sample_tasks(draw).await.unwrap().into_inner());

    for filter in [
        TaskFilter { split: "test".into(), ..TaskFilter::default() },
        TaskFilter { kind: "functions".into(), ..TaskFilter::default() },
    ] {
        let request = ListTasksRequest { filter: Some(filter), ..ListTasksRequest::default() };
        let status = tasks.list_tasks(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_knows_each_service() {
    let service = Service::start().await;
    let mut health = HealthClient::new(service.channel.clone());
    for name in ["", "assay.v1.RewardService", "assay.v1.TaskService"] {
        let request = HealthCheckRequest { service: name.into() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status, 1, "{name:?} is serving");
    }
    let unknown = health.check(HealthCheckRequest { service: "no.such".into() }).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_describes_the_services() {
    let service = Service::start().await;
    let mut client = ServerReflectionClient::new(service.channel.clone());
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let stream = client.server_reflection_info(futures::stream::iter([request])).await.unwrap();
    let answer = stream.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["assay.v1.RewardService", "assay.v1.TaskService", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|one| one == name), "{name} in {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_guards_all_but_health() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    let service =
        Service::with(|config| config.token = Some(Token::from_file(&file).unwrap())).await;

    let refused = service.evaluate(request("a", "pass")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = service.tasks().list_tasks(ListTasksRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(service.seen.started(), 0);

    let token: MetadataValue<_> = "Bearer 0123456789abcdef".parse().unwrap();
    let mut client =
        RewardServiceClient::with_interceptor(service.channel.clone(), move |mut r: Request<()>| {
            r.metadata_mut().insert("authorization", token.clone());
            Ok(r)
        });
    let result = client.evaluate(request("a", "pass")).await.unwrap().into_inner();
    assert_eq!(result.reward, Some(1.0));

    let mut health = HealthClient::new(service.channel.clone());
    assert!(health.check(HealthCheckRequest::default()).await.is_ok());
}
