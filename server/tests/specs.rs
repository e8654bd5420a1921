//! Reward files over the wire: kept in versions, explained, tried on stored grades.

mod support;

use std::time::Duration;

use assay_proto::v1::{
    DryRunRequest, EvaluateGroupRequest, EvaluateRequest, ExplainRequest, GetSpecRequest,
    GradeFilter, LintRequest, ListSpecsRequest, PutSpecRequest, RescoreRequest, RescoreSummary,
    RescoredGrade, RewardSource, SpecVersion, evaluate_group_response, fact_value,
    rescore_response::Event, reward_source::Source,
};
use support::{Service, request};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A reward file that gives `worth` for a pass.
fn file(name: &str, worth: f64) -> String {
    format!(
        "schema = 1\nname = \"{name}\"\n[[term]]\nname = \"solved\"\nvalue = \"must_pass.all\"\n\
         weight = {worth}\n"
    )
}

fn put_request(id: &str, text: impl Into<String>) -> PutSpecRequest {
    PutSpecRequest { request_id: id.into(), text: text.into() }
}

fn name(name: &str) -> Option<RewardSource> {
    Some(RewardSource { source: Some(Source::Name(name.into())) })
}

fn text(text: impl Into<String>) -> Option<RewardSource> {
    Some(RewardSource { source: Some(Source::Text(text.into())) })
}

fn by(id: &str, program: &str, reward: &str) -> EvaluateRequest {
    EvaluateRequest { reward: reward.into(), ..request(id, program) }
}

/// The fields that a refusal names, and its message.
fn refused(status: &Status) -> (Vec<String>, &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let violations = status.get_details_bad_request().unwrap().field_violations;
    (violations.into_iter().map(|violation| violation.field).collect(), status.message())
}

impl Service {
    async fn put(&self, id: &str, text: impl Into<String>) -> SpecVersion {
        self.specs().put_spec(put_request(id, text)).await.unwrap().into_inner()
    }

    async fn rescore(
        &self,
        spec: Option<RewardSource>,
        filter: GradeFilter,
    ) -> Result<(Vec<RescoredGrade>, RescoreSummary), Status> {
        let request = RescoreRequest { spec, filter: Some(filter) };
        let mut stream = self.rewards().rescore(request).await?.into_inner();
        let mut grades = Vec::new();
        loop {
            match stream.message().await?.expect("a summary before the end").event.unwrap() {
                Event::Batch(batch) => {
                    assert!(!batch.grades.is_empty(), "a batch of nothing");
                    grades.extend(batch.grades);
                }
                Event::Summary(summary) => {
                    assert!(stream.message().await?.is_none(), "the summary is last");
                    return Ok((grades, summary));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_become_versions_that_score() {
    let service = Service::start().await;
    let first = service.put("1", file("mine", 0.5)).await;
    assert_eq!((first.name.as_str(), first.version, first.newest), ("mine", 1, true));
    let half = service.evaluate(by("a", "pass", "mine")).await.unwrap();
    assert_eq!(half.reward, Some(0.5));
    assert_eq!(half.digests.clone().unwrap().reward, first.digest);

    let second = service.put("2", file("mine", 0.25)).await;
    assert_eq!((second.version, second.newest), (2, true));
    for (id, reward, worth) in [
        ("b", "mine".to_owned(), 0.25),
        ("c", "mine@1".to_owned(), 0.5),
        ("d", format!("mine@{}", second.digest), 0.25),
        ("e", first.digest.clone(), 0.5),
    ] {
        let result = service.evaluate(by(id, "pass", &reward)).await.unwrap();
        assert_eq!(result.reward, Some(worth), "{reward}");
    }
    // What was accepted under the first version has its result once, whatever came since.
    assert_eq!(service.evaluate(by("a", "pass", "mine")).await.unwrap(), half);

    let mut group = EvaluateGroupRequest {
        requests: vec![by("g", "pass", "mine@1"), by("h", "pass", "mine@2")],
        group_id: "group".into(),
        ..EvaluateGroupRequest::default()
    };
    let mut stream = service.rewards().evaluate_group(group.clone()).await.unwrap().into_inner();
    let mut worth = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        if let Some(evaluate_group_response::Event::Result(result)) = message.event {
            worth.push((result.request_id, result.reward));
        }
    }
    worth.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(worth, [("g".to_owned(), Some(0.5)), ("h".to_owned(), Some(0.25))]);

    group.requests = vec![by("x", "pass", "mine@3")];
    for (reward, hint) in [
        ("mien", "unknown reward `mien`; did you mean `mine`?"),
        ("mine@3", "unknown reward `mine@3`; the newest version is `mine@2`"),
        ("pass@1", "unknown reward `pass@1`; `pass` comes with Assay and has no other version"),
    ] {
        let status = service.evaluate(by("x", "pass", reward)).await.unwrap_err();
        assert_eq!(refused(&status), (vec!["reward".to_owned()], &*format!("reward: {hint}")));
    }
    let status = service.rewards().evaluate_group(group).await.unwrap_err();
    assert_eq!(refused(&status).0, ["reward"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_text_is_the_same_version() {
    let service = Service::start().await;
    let first = service.put("1", file("mine", 0.5)).await;
    assert_eq!(service.put("1", file("mine", 0.5)).await, first, "a retry");
    assert_eq!(service.put("2", file("mine", 0.5)).await, first, "another request");
    service.put("3", file("mine", 0.25)).await;
    // Going back is no new version, and the answer says that the name means another.
    let back = service.put("4", file("mine", 0.5)).await;
    assert_eq!(back, SpecVersion { newest: false, ..first.clone() });

    let conflict = service.specs().put_spec(put_request("1", file("mine", 0.75))).await;
    assert_eq!(refused(&conflict.unwrap_err()).0, ["request_id"]);
    // A file that comes with Assay keeps its name.
    let pass = service.specs().get_spec(GetSpecRequest { name: "pass".into() }).await.unwrap();
    let pass = pass.into_inner();
    assert_eq!(service.put("5", pass.text.clone()).await, pass.version.unwrap());
    let taken = service.specs().put_spec(put_request("6", file("pass", 2.0))).await.unwrap_err();
    assert!(refused(&taken).1.contains("comes with Assay"), "{taken}");

    // Many at once are one.
    let puts =
        (0..16).map(|i| service.put(if i % 2 == 0 { "even" } else { "odd" }, file("x", 1.0)));
    let versions: Vec<_> = futures::future::join_all(puts).await;
    assert!(versions.iter().all(|one| one.version == 1), "{versions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_listed_and_shown() {
    let service = Service::start().await;
    for (id, name, worth) in [("1", "mine", 0.5), ("2", "mine", 0.25), ("3", "zebra", 1.0)] {
        service.put(id, file(name, worth)).await;
    }
    let page = async |request: ListSpecsRequest| {
        service.specs().list_specs(request).await.map(tonic::Response::into_inner)
    };
    let all = page(ListSpecsRequest::default()).await.unwrap();
    assert!(all.next_page_token.is_empty());
    let names: Vec<_> =
        all.specs.iter().map(|one| (one.name.as_str(), one.version, one.newest)).collect();
    let expected = [
        ("exact", 0, true),
        ("fraction", 0, true),
        ("graded", 0, true),
        ("mine", 1, false),
        ("mine", 2, true),
        ("pass", 0, true),
        ("swe-default", 0, true),
        ("zebra", 1, true),
    ];
    assert_eq!(names, expected);
    let mut paged = Vec::new();
    let mut page_token = String::new();
    loop {
        let next = ListSpecsRequest { page_size: 3, page_token, ..ListSpecsRequest::default() };
        let next = page(next).await.unwrap();
        paged.extend(next.specs);
        page_token = next.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all.specs);
    let one = ListSpecsRequest { name: "mine".into(), ..ListSpecsRequest::default() };
    assert_eq!(page(one).await.unwrap().specs, all.specs[3..5]);
    let none = ListSpecsRequest { name: "none".into(), ..ListSpecsRequest::default() };
    assert!(page(none).await.unwrap().specs.is_empty());
    let bad = ListSpecsRequest { page_token: "x".into(), ..ListSpecsRequest::default() };
    assert_eq!(refused(&page(bad).await.unwrap_err()).0, ["page_token"]);

    let get =
        async |name: &str| service.specs().get_spec(GetSpecRequest { name: name.into() }).await;
    let shown = get("mine@1").await.unwrap().into_inner();
    assert_eq!((shown.text, shown.version.unwrap()), (file("mine", 0.5), all.specs[3].clone()));
    assert_eq!(get("").await.unwrap_err().code(), Code::InvalidArgument);
    let missing = get("zebar").await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    assert!(missing.message().ends_with("did you mean `zebra`?"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_files_are_refused_line_by_line() {
    let service = Service::start().await;
    let bad = "schema = 1\nname = \"bad\"\n[[term]]\nname = \"a\"\nvalue = \"must_pas.all\"\n\
        [[term]]\nname = \"b\"\nvalue = \"1 / tests.passed\"\n";
    let status = service.specs().put_spec(put_request("1", bad)).await.unwrap_err();
    let (fields, message) = refused(&status);
    assert_eq!(fields, ["text", "text"]);
    let unknown = "5:10: unknown fact `must_pas.all`; did you mean `must_pass.all`?";
    assert!(
        message.starts_with(&format!("text: {unknown}; text: 8:14: may divide by")),
        "{message}"
    );
    let lint =
        async |text: String| service.specs().lint(LintRequest { text }).await.unwrap().into_inner();
    let findings = lint(bad.into()).await.findings;
    let told: Vec<_> = findings.iter().map(|one| (one.line, one.column)).collect();
    assert_eq!(told, [(5, 10), (8, 14)]);
    assert_eq!(format!("5:10: {}", findings[0].message), unknown);
    let good = lint(file("good", 1.0)).await;
    assert_eq!((good.findings.len(), good.name.as_str()), (0, "good"));
    assert!(good.digest.starts_with("sha256:"));

    let terms = "[[term]]\nname = \"x\"\nvalue = \"must_pass.all\"\n".repeat(1_000_000);
    let keys: String = (0..20_000).map(|i| format!("key{i} = 1\n")).collect();
    let long = format!("{} = 1\n", "k".repeat(200_000));
    let deep = format!("{}value = {}\n", file("deep", 1.0), "[".repeat(100_000));
    for (what, text, told) in [
        ("nothing", String::new(), "`schema` is missing"),
        (
            "a million terms",
            format!("schema = 1\nname = \"x\"\n{terms}"),
            "larger than 262144 bytes",
        ),
        (
            "101 terms",
            format!("schema = 1\nname = \"x\"\n{}", &terms[..101 * 44]),
            "1 to 100 terms",
        ),
        ("20,000 keys", keys, "unknown key `key0`"),
        ("a long key", long, "unknown key `kkkk"),
        ("deep", deep, ""),
        ("no text", "\0\u{1f980}".into(), ""),
    ] {
        let status = service.specs().put_spec(put_request("2", text.clone())).await.unwrap_err();
        assert!(refused(&status).1.contains(told), "{what}: {status}");
        let findings = lint(text).await.findings;
        assert!((1..=100).contains(&findings.len()), "{what}: {}", findings.len());
        assert!(findings.iter().all(|one| one.message.chars().count() < 400), "{what}");
    }
    let nobody = service.specs().put_spec(put_request("", file("x", 1.0))).await.unwrap_err();
    assert_eq!(refused(&nobody).0, ["request_id"]);
    let list = service.specs().list_specs(ListSpecsRequest::default()).await.unwrap().into_inner();
    assert!(list.specs.iter().all(|one| one.version == 0), "nothing bad was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_grade_is_explained() {
    let service = Service::start().await;
    let result = service.evaluate(by("a", "pass", "pass")).await.unwrap();
    let explain = async |grade: &str, spec| {
        let request = ExplainRequest { grade_id: grade.into(), spec };
        service.specs().explain(request).await.map(tonic::Response::into_inner)
    };
    let told = explain(&result.grade_id, text(file("mine", 0.5))).await.unwrap();
    assert_eq!((told.grade_id.as_str(), told.reward), (result.grade_id.as_str(), Some(0.5)));
    assert_eq!((told.name.as_str(), told.decided_by.as_str()), ("mine", "terms"));
    let term = &told.terms[0];
    assert_eq!((term.weight, term.part), (0.5, Some(0.5)));
    let fact = &term.value.as_ref().unwrap().facts[0];
    assert_eq!(fact.name, "must_pass.all");
    assert_eq!(fact.value.as_ref().unwrap().value, Some(fact_value::Value::Truth(true)));
    let short = explain(&result.grade_id[..19], name("swe-default")).await.unwrap();
    assert_eq!((short.grade_id, short.gate.len()), (result.grade_id.clone(), 3));

    for bad in ["", "sha256:", "sha256:12", "sha256:xyzw", "1234", "sha256:ABCD", "' OR 1"] {
        let status = explain(bad, name("pass")).await.unwrap_err();
        assert_eq!(refused(&status).0, ["grade_id"], "{bad}");
    }
    let unknown = format!("sha256:{}", "0".repeat(64));
    assert_eq!(explain(&unknown, name("pass")).await.unwrap_err().code(), Code::NotFound);
    let status = explain(&result.grade_id, name("passs")).await.unwrap_err();
    assert_eq!(refused(&status).0, ["spec.name"]);
    assert!(status.message().ends_with("did you mean `pass`?"), "{status}");
    assert_eq!(refused(&explain(&result.grade_id, None).await.unwrap_err()).0, ["spec"]);
    let status = explain(&result.grade_id, text("schema = 2")).await.unwrap_err();
    assert_eq!(refused(&status).0[0], "spec.text");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_change() {
    let service = Service::start().await;
    for (id, program) in [("a", "pass"), ("b", "pass 2"), ("c", "fail"), ("d", "infra")] {
        service.evaluate(by(id, program, "pass")).await.unwrap();
    }
    let dry_run = async |request: DryRunRequest| {
        service.specs().dry_run(request).await.map(tonic::Response::into_inner)
    };
    let request = DryRunRequest {
        spec: text(file("mine", 0.5)),
        against: name("pass"),
        ..DryRunRequest::default()
    };
    let done = dry_run(request.clone()).await.unwrap();
    assert_eq!((done.grades, done.unreadable, done.complete), (4, 0, true));
    assert_eq!((done.changed, done.most_changed.len()), (Some(2), 2));
    let (new, old) = (done.spec.unwrap(), done.against.unwrap());
    let bars = |spread: &assay_proto::v1::Spread| -> Vec<_> {
        spread.histogram.iter().map(|bar| (bar.from, bar.count)).collect()
    };
    assert_eq!(bars(&new), [(0.0, 1), (0.5, 2), (1.0, 0)]);
    assert_eq!(bars(&old), [(0.0, 1), (0.5, 0), (1.0, 2)]);
    assert_eq!((new.without, old.name.as_str()), (1, "pass"));

    let some = dry_run(DryRunRequest { max_grades: 3, ..request.clone() }).await.unwrap();
    assert_eq!((some.grades, some.complete), (3, false));
    let all = dry_run(DryRunRequest { max_grades: 4, ..request.clone() }).await.unwrap();
    assert_eq!((all.grades, all.complete), (4, true));
    let nothing = GradeFilter { task_id: "programs.other".into(), ..GradeFilter::default() };
    let nothing = DryRunRequest { filter: Some(nothing), ..request.clone() };
    let nothing = dry_run(nothing).await.unwrap();
    assert_eq!((nothing.grades, nothing.complete), (0, true));
    assert_eq!(nothing.spec.unwrap().mean, None);
    let many = DryRunRequest { max_grades: u32::MAX, ..request.clone() };
    assert_eq!(refused(&dry_run(many).await.unwrap_err()).0, ["max_grades"]);
    let other = DryRunRequest { against: name("none"), ..request };
    assert_eq!(refused(&dry_run(other).await.unwrap_err()).0, ["against.name"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_grades_are_rescored_by_filter() {
    let service = Service::start().await;
    let mut ids = Vec::new();
    for (id, run, task, program) in [
        ("a", "one", "programs.echo", "pass"),
        ("b", "one", "programs.echo", "fail"),
        ("c", "two", "programs.echo", "pass 2"),
        ("d", "two", "programs.other", "infra"),
        // The grade of the first once more.
        ("e", "two", "programs.echo", "pass"),
    ] {
        let request =
            EvaluateRequest { run_id: run.into(), task_id: task.into(), ..by(id, program, "pass") };
        ids.push(service.evaluate(request).await.unwrap().grade_id);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert_eq!(ids[0], ids[4]);
    let mine = || text(file("mine", 0.5));
    let none = GradeFilter::default;
    let (all, summary) = service.rescore(mine(), none()).await.unwrap();
    assert_eq!((all.len(), summary.grades, summary.unreadable), (4, 4, 0));
    assert_eq!(summary.name, "mine");
    assert!(all.is_sorted_by_key(|grade| grade.grade_id.clone()));
    let worth = |index: usize| {
        let grade = all.iter().find(|one| one.grade_id == ids[index]).unwrap();
        (grade.outcome().as_str_name(), grade.reward, grade.mask.as_ref().map(|mask| mask.mask))
    };
    assert_eq!(worth(0), ("OUTCOME_SCORED", Some(0.5), None));
    assert_eq!(worth(1), ("OUTCOME_SCORED", Some(0.0), None));
    assert_eq!(worth(3), ("OUTCOME_INFRA_ERROR", None, Some(true)));

    let found = async |filter: GradeFilter| {
        let (grades, summary) = service.rescore(mine(), filter.clone()).await.unwrap();
        assert_eq!(grades.len() as u64, summary.grades);
        let mut found: Vec<_> = grades.iter().map(|one| &one.grade_id).collect();
        let mut found: Vec<_> =
            found.drain(..).map(|id| ids.iter().position(|known| known == id).unwrap()).collect();
        found.sort_unstable();
        found
    };
    let run = |run: &str| GradeFilter { run_id: run.into(), ..none() };
    let task = |task: &str| GradeFilter { task_id: task.into(), ..none() };
    let future = prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 };
    assert_eq!(found(run("one")).await, [0, 1]);
    assert_eq!(found(run("two")).await, [0, 2, 3]);
    assert_eq!(found(run("three")).await, [0; 0]);
    assert_eq!(found(task("programs.other")).await, [3]);
    assert_eq!(found(GradeFilter { run_id: "one".into(), ..task("programs.other") }).await, [0; 0]);
    assert_eq!(found(task("programs.echo")).await, [0, 1, 2]);
    assert_eq!(found(GradeFilter { until: Some(future), ..task("programs.other") }).await, [3]);
    assert_eq!(found(GradeFilter { since: Some(future), ..task("programs.other") }).await, [0; 0]);
    assert_eq!(found(GradeFilter { since: Some(future), ..none() }).await, [0; 0]);
    assert_eq!(found(GradeFilter { until: Some(future), ..none() }).await, [0, 1, 2, 3]);
    assert_eq!(found(GradeFilter { until: Some(future), ..run("one") }).await, [0, 1]);
    let some = vec![ids[2].clone(), ids[0].clone(), ids[2].clone()];
    let some = GradeFilter { grade_ids: some, ..none() };
    assert_eq!(found(some.clone()).await, [0, 2]);
    assert_eq!(found(GradeFilter { run_id: "one".into(), ..some.clone() }).await, [0]);
    assert_eq!(found(GradeFilter { since: Some(future), ..some }).await, [0; 0]);

    let refuse = async |filter: GradeFilter| service.rescore(mine(), filter).await.unwrap_err();
    let unknown = GradeFilter { grade_ids: vec![format!("sha256:{}", "0".repeat(64))], ..none() };
    assert_eq!(refuse(unknown).await.code(), Code::NotFound);
    let past = prost_types::Timestamp { seconds: 1, nanos: 0 };
    let bad = GradeFilter {
        run_id: "a\nb".into(),
        task_id: "no task".into(),
        grade_ids: vec![ids[0].clone(), "sha256:12".into()],
        since: Some(future),
        until: Some(past),
    };
    let fields = refused(&refuse(bad).await).0;
    let expected = ["filter.run_id", "filter.task_id", "filter.until", "filter.grade_ids[1]"];
    assert_eq!(fields, expected);
    let many = GradeFilter { grade_ids: vec![ids[0].clone(); 10_001], ..none() };
    assert_eq!(refused(&refuse(many).await).0, ["filter.grade_ids"]);
    let status = service.rescore(name("nobody"), none()).await.unwrap_err();
    assert_eq!(refused(&status).0, ["spec.name"]);
    let status = service.rescore(None, none()).await.unwrap_err();
    assert_eq!(refused(&status).0, ["spec"]);
}

/// Pages are read as the client reads: what is stored while a slow one has them in its hands is
/// still seen, and nothing is held for it meanwhile. Clients that hang up leave nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_holds_nothing_up() {
    const GRADES: u32 = 6000;
    let service = Service::with(|config| {
        let data = config.data_dir.clone();
        let grades = (0..GRADES).map(|number| support::grade(number, number % 3));
        let filling = support::store(&data, "old", grades.collect::<Vec<_>>());
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(filling));
    })
    .await;
    // Some 25 MB: every grade comes with its advice, a sentence of 4 kB.
    let always = format!("gen.finish_reason != '{}'", "x".repeat(4000));
    let wordy = format!("{}[mask]\nwhen = \"{always}\"\n", file("wordy", 1.0));
    let ask = || RescoreRequest { spec: text(wordy.as_str()), filter: None };
    for _ in 0..8 {
        let mut stream = service.rewards().rescore(ask()).await.unwrap().into_inner();
        assert!(matches!(stream.message().await.unwrap().unwrap().event, Some(Event::Batch(_))));
    }

    let mut stream = service.rewards().rescore(ask()).await.unwrap().into_inner();
    assert!(matches!(stream.message().await.unwrap().unwrap().event, Some(Event::Batch(_))));
    tokio::time::sleep(Duration::from_millis(500)).await;
    // At the end of the list: ids are digests, one in 16 starts so.
    let mut number = 0;
    let late = loop {
        number += 1;
        let result = service.evaluate(request(&number.to_string(), &format!("pass {number}")));
        let id = result.await.unwrap().grade_id;
        if id.starts_with("sha256:f") {
            break id;
        }
    };
    let (mut seen, mut grades) = (false, 0);
    while let Some(message) = stream.message().await.unwrap() {
        match message.event.unwrap() {
            Event::Batch(batch) => {
                assert!(prost_len(&batch.grades) < 512 << 10, "a batch is bounded");
                seen |= batch.grades.iter().any(|grade| grade.grade_id == late);
            }
            Event::Summary(summary) => grades = summary.grades,
        }
    }
    assert!(seen, "it was read ahead of its client");
    assert!(grades > u64::from(GRADES));
}

fn prost_len(grades: &[RescoredGrade]) -> usize {
    grades.iter().map(|grade| grade.mask.as_ref().map_or(0, |mask| mask.reason.len())).sum()
}
