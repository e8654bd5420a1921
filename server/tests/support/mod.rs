//! A service of its own for every test, with programs whose text says what becomes of them.

#![expect(dead_code, reason = "each test file uses a part")]

use std::{
    collections::BTreeMap,
    fs,
    future::pending,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use assay_fleet::{Backends, Completion, Embedded, Queue as _};
use assay_proto::v1::{
    EvaluateRequest, EvaluateResult, Submission, reward_service_client::RewardServiceClient,
    reward_spec_service_client::RewardSpecServiceClient, submission::Kind,
    task_service_client::TaskServiceClient,
};
use assay_repos::{Digest, Mode, PatchFacts, ReportKind, TaskLimits};
use assay_rewards::{
    CheckRecord, Generation, GradeHeader, GradeRecord, Outcome, Required, TaskFacts, TestCounts,
    Usage as RecordUsage,
};
use assay_sandbox::{
    Backend, BackendError, BackendResult, Command, Execution, FileEntry, ImageRef, Layer, Sandbox,
    SandboxId, SandboxSpec, Start, Termination,
};
use assay_server::{App, AppConfig, Places};
use async_trait::async_trait;
use tempfile::TempDir;
use tokio::{net::TcpListener, time::Instant};
use tonic::transport::Channel;

/// What the backend saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Runs begun.
    pub(crate) started: AtomicUsize,
    /// Runs whose future was dropped before their end.
    pub(crate) killed: AtomicUsize,
}

impl Seen {
    pub(crate) fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    pub(crate) fn killed(&self) -> usize {
        self.killed.load(Ordering::SeqCst)
    }
}

/// Runs nothing: the first word of a program says how it ends. `pass`, `fail`, `hang`, `infra`, or
/// `sleep MS` and then like `pass`.
#[derive(Clone, Debug, Default)]
struct Scripted(Arc<Seen>);

struct ScriptedSandbox {
    seen: Arc<Seen>,
    spec: SandboxSpec,
}

#[async_trait]
impl Backend for Scripted {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn create(&self, spec: SandboxSpec) -> BackendResult<Box<dyn Sandbox>> {
        Ok(Box::new(ScriptedSandbox { seen: Arc::clone(&self.0), spec }))
    }
}

#[async_trait]
impl Sandbox for ScriptedSandbox {
    fn id(&self) -> SandboxId {
        SandboxId::generate()
    }

    async fn run(self: Box<Self>, _: Command) -> BackendResult<Execution> {
        struct Killed<'a>(&'a Seen, bool);
        impl Drop for Killed<'_> {
            fn drop(&mut self) {
                self.0.killed.fetch_add(usize::from(self.1), Ordering::SeqCst);
            }
        }
        self.seen.started.fetch_add(1, Ordering::SeqCst);
        let mut killed = Killed(&self.seen, true);
        let program = program(&self.spec);
        let mut words = program.split_whitespace();
        let status = match words.next() {
            Some("pass") => 0,
            Some("hang") => pending().await,
            Some("sleep") => {
                let ms = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                tokio::time::sleep(Duration::from_millis(ms)).await;
                0
            }
            Some("infra") => {
                killed.1 = false;
                let source = std::io::Error::other("scripted");
                return Err(BackendError::Io { what: "mount overlay".into(), source });
            }
            _ => 1,
        };
        killed.1 = false;
        Ok(Execution {
            termination: Termination::Exited(status),
            stdout: Default::default(),
            stderr: Default::default(),
            channels: Vec::new(),
            usage: Default::default(),
            isolation: Default::default(),
        })
    }
}

fn program(spec: &SandboxSpec) -> String {
    let text = |layer: &Layer| match layer {
        Layer::Files(files) => match files.get(Path::new("main.py")) {
            Some(FileEntry::File { content, .. }) => {
                Some(String::from_utf8_lossy(content).into_owned())
            }
            _ => None,
        },
        Layer::Dir(dir) => fs::read_to_string(dir.join("main.py")).ok(),
    };
    spec.layers.iter().rev().find_map(text).unwrap_or_default()
}

/// A service on a free port, its folders, and what its backend saw.
pub(crate) struct Service {
    pub(crate) app: App,
    pub(crate) channel: Channel,
    pub(crate) seen: Arc<Seen>,
    pub(crate) folder: TempDir,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut AppConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = folder.path().join("catalog");
        for (id, split) in [("programs.echo", "train"), ("programs.other", "held_out")] {
            write_program_task(&catalog, id, split);
        }
        let scripted = Scripted::default();
        let seen = Arc::clone(&scripted.0);
        let rootfs = ImageRef::Rootfs { path: "/nowhere".into(), digest: "sha256:0".into() };
        let places = Places { cache: folder.path().join("cache"), catalog: vec![catalog] };
        let mut config = AppConfig::new(places, folder.path().join("data"));
        config.workers = 4;
        config.backends =
            Some(Backends::new().with_image("python", Arc::new(scripted), rootfs, "sha256:0"));
        config.grace = Duration::from_secs(2);
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = App::start(config, Some(listener)).await.unwrap();
        let channel = connect(&app).await;
        Self { app, channel, seen, folder }
    }

    pub(crate) fn rewards(&self) -> RewardServiceClient<Channel> {
        RewardServiceClient::new(self.channel.clone())
            .max_encoding_message_size(64 << 20)
            .max_decoding_message_size(64 << 20)
    }

    pub(crate) fn specs(&self) -> RewardSpecServiceClient<Channel> {
        RewardSpecServiceClient::new(self.channel.clone()).max_encoding_message_size(64 << 20)
    }

    pub(crate) fn tasks(&self) -> TaskServiceClient<Channel> {
        TaskServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn evaluate(&self, request: EvaluateRequest) -> tonic::Result<EvaluateResult> {
        self.rewards().evaluate(request).await.map(tonic::Response::into_inner)
    }
}

pub(crate) async fn connect(app: &App) -> Channel {
    let url = format!("http://{}", app.addr().unwrap());
    Channel::from_shared(url).unwrap().connect().await.unwrap()
}

/// The command line, with a cache and a catalog of its own: nothing of this machine matters.
pub(crate) fn assay(folder: &Path, args: &[&str]) -> process::Command {
    let mut command = process::Command::new(env!("CARGO_BIN_EXE_assay"));
    command
        .args(args)
        .env_remove("ASSAY_LOG")
        .env("ASSAY_CACHE", folder.join("cache"))
        .env("ASSAY_CATALOG", folder.join("catalog"))
        .current_dir(folder)
        .stdin(process::Stdio::null());
    command
}

/// A folder with a catalog of one task.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_program_task(&folder.path().join("catalog"), "programs.echo", "train");
    folder
}

/// What it printed with `--json`.
pub(crate) fn lines(output: &process::Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Asks for one run of a program.
pub(crate) fn request(id: &str, program: &str) -> EvaluateRequest {
    EvaluateRequest {
        request_id: id.to_owned(),
        task_id: "programs.echo".to_owned(),
        submission: Some(Submission { kind: Some(Kind::Source(program.to_owned())) }),
        ..EvaluateRequest::default()
    }
}

/// Waits until `holds`, at most a second: what the service promises.
pub(crate) async fn within_a_second(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(1), "not within a second: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Writes a task whose program passes by exiting with status 0.
pub(crate) fn write_program_task(catalog: &Path, id: &str, split: &str) -> PathBuf {
    let dir = catalog.join(id.replace('.', "/"));
    let task = format!(
        "schema = 1\nid = \"{id}\"\nsplit = \"{split}\"\n\n[prompt]\ntemplate = \"problem.md\"\n\n\
         [submission]\nkind = \"program\"\nextract = \"fence\"\n\n\
         [[check]]\nid = \"runs\"\nreport = \"exit\"\nrun = [\"/usr/bin/python3\", \"main.py\"]\n"
    );
    let files = BTreeMap::from([
        ("task.toml", task.as_str()),
        ("problem.md", "Write a program that passes.\n"),
        ("private/gold.py", "pass\n"),
    ]);
    fs::create_dir_all(dir.join("private")).unwrap();
    for (name, text) in files {
        fs::write(dir.join(name), text).unwrap();
    }
    dir
}

/// A grade record that no evaluation left: `held` of 2 tests that have to pass do.
pub(crate) fn grade(number: u32, held: u32) -> GradeRecord {
    let mut record = GradeHeader {
        task: "programs.echo".parse().unwrap(),
        task_digest: Digest::of("task"),
        image_digest: "sha256:0".into(),
        submission_digest: Digest::of(number.to_string()),
        backend: "fake".into(),
        mode: Mode::Guarded,
        limits: TaskLimits::default(),
        generation: Generation { finish_reason: "stop".into(), ..Generation::default() },
        external: BTreeMap::new(),
        task_facts: TaskFacts::default(),
        runner: "test".into(),
    }
    .grade(PatchFacts { applied: true, ..PatchFacts::default() }, Vec::new(), &[], None);
    record.outcome = Outcome::Scored;
    record.complete = true;
    record.checks.push(CheckRecord {
        id: "unit".into(),
        report: ReportKind::Pytest,
        ran: true,
        counts: TestCounts { passed: held, failed: 2 - held, ..TestCounts::default() },
        must_pass: Required { count: 2, held },
        must_keep: Required::default(),
        exact: None,
        tests: Vec::new(),
        canaries: Vec::new(),
        usage: RecordUsage::default(),
        start: Start::Cold,
    });
    record
}

/// Stores grades in a data directory, as evaluations of `run` that left them.
pub(crate) async fn store(data: &Path, run: &str, grades: impl IntoIterator<Item = GradeRecord>) {
    let store = Embedded::open(data, 1 << 20).unwrap();
    let all = grades.into_iter().map(|grade| store.complete(Completion::of_grade(run, grade)));
    for stored in futures::future::join_all(all).await {
        stored.unwrap();
    }
}
