//! Runs the checks of a task, each as its report needs it.

use std::{
    collections::BTreeMap,
    iter,
    sync::{Arc, LazyLock},
    time::Duration,
};

use assay_repos::{Applied, Check, Mode, ReportKind};
use assay_rewards::{
    CaseRun, CheckEvidence, CheckRun, Control, ControlRun, Evidence, Failure, Fault, Phase,
    harness, outputs_equal,
};
use assay_sandbox::{
    BackendResult, Channel, ChannelEnd, Command, Execution, Layer, Sandbox, SandboxSpec, Start,
    Warm,
};
use tokio::time::Instant;

use super::{
    Ground, Job, backend_failure, defect,
    ground::{entries, inside, runs_node},
    ms, sealed, suite as sealed_suite,
};
use crate::{Resolved, Stop, Timings, ledger::Quarantined};

const PYTHON: &str = "/usr/bin/python3";
/// Most bytes of a report.
const REPORT_BYTES: usize = 16 << 20;
/// What a backend has beyond a command's wall limit, to make the sandbox and to clear it away.
const BACKEND_GRACE: Duration = Duration::from_secs(60);
/// Most files whose names a runner is told; of more, whatever lies in the work tree is suspected.
const MOST_CHANGED: usize = 1000;

/// What an interpreter for `pytest` checks has done before there is one: no code of a repository.
static PYTEST: LazyLock<Warm> = LazyLock::new(|| {
    let runner = ("run_pytest.py", harness::PYTEST_RUNNER);
    let canary = ("assay_canary.py", harness::CANARY);
    let messages = ("assay_messages.py", harness::MESSAGES);
    let preload = ("preload_pytest.py", harness::PYTEST_PRELOAD);
    let modules = ["preload_pytest", "assay_canary", "assay_messages"];
    warm(&modules, [runner, canary, messages, preload])
});
/// The same for `unittest` checks. Django is the work tree's, or the image's and too much.
static UNITTEST: LazyLock<Warm> = LazyLock::new(|| {
    let runner = ("run_unittest.py", harness::UNITTEST_RUNNER);
    let canary = ("assay_canary.py", harness::CANARY);
    let messages = ("assay_messages.py", harness::MESSAGES);
    let modules = ["runpy", "unittest", "assay_canary", "assay_messages"];
    warm(&modules, [runner, canary, messages])
});
/// The same for `function` checks: grader and subject, without a test.
pub(super) static FUNCTION: LazyLock<Warm> = LazyLock::new(|| {
    let programs = [
        ("grader.py", harness::GRADER),
        ("subject.py", harness::SUBJECT),
        ("wire.py", harness::WIRE),
        ("assay_messages.py", harness::MESSAGES),
    ];
    warm(&["wire", "assay_messages"], programs)
});

pub(super) fn warm<const N: usize>(modules: &[&str], programs: [(&str, &str); N]) -> Warm {
    let programs = programs.map(|(name, text)| (inside(name), text.as_bytes().into()));
    let modules = modules.iter().map(|name| (*name).to_owned()).collect();
    Warm { modules, programs: Arc::new(programs.into()) }
}

/// What the checks of a task left behind, in its order.
#[derive(Debug)]
pub(crate) struct Ran(Vec<Left>);

/// Whose files a check runs with.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) applied: &'a Applied,
    /// Whether its processes may be forks of a warm interpreter.
    pub(super) warm: bool,
}

#[derive(Debug)]
pub(super) enum Left {
    NotRun,
    Process(Box<Process>),
    Cases(Vec<Option<Execution>>),
}

#[derive(Debug)]
pub(super) struct Process {
    nonce: String,
    execution: Execution,
    subject: Option<Execution>,
    control: Option<Controlled>,
}

/// A second run of a check, and the tests that must fail in it.
#[derive(Debug)]
struct Controlled {
    tests: Vec<String>,
    nonce: String,
    execution: Execution,
}

impl Process {
    fn evidence(&self) -> Evidence<'_> {
        let Self { nonce, execution, subject, .. } = self;
        Evidence { execution, nonce, subject: subject.as_ref() }
    }
}

/// Runs the checks of a task. With `gold`, each of them runs a second time right after, in other
/// sandboxes, with the gold submission in place of the other.
///
/// # Errors
///
/// A [`Failure`] of the task or of ours: whatever the submission does leaves an execution.
pub(crate) async fn checks(
    job: &Job,
    gold: Option<&Applied>,
    timings: &mut Timings,
) -> Result<(Ran, Option<Ran>), Failure> {
    let Job { ground, applied, quarantined, stop, .. } = job;
    let stop = *stop;
    let mut ran = Vec::with_capacity(ground.task.checks.len());
    let mut beside = Vec::new();
    let mut decided = false;
    for (number, check) in ground.task.checks.iter().enumerate() {
        if decided {
            ran.push(Left::NotRun);
            beside.push(Left::NotRun);
            continue;
        }
        let subject = Subject { applied, warm: true };
        let left = one_check(ground, subject, check, stop, timings).await?;
        let left = controlled(ground, applied, number, left, timings).await?;
        let left = match stop {
            Stop::Decisive => {
                let (ground, quarantined) = (Arc::clone(ground), Arc::clone(quarantined));
                let judged = tokio::task::spawn_blocking(move || {
                    let check = &ground.task.checks[number];
                    let check = left.evidence(&ground, check, &quarantined);
                    let decided = check.is_decisive(ground.task.lock.as_ref());
                    (left, decided)
                });
                let left;
                (left, decided) = judged.await.map_err(|panic| defect(&panic))?;
                left
            }
            _ => left,
        };
        if let Some(gold) = gold {
            // A run that is cut short here is compared with nothing.
            beside.push(match decided {
                false => alike(ground, gold, check, &left, timings).await?,
                true => Left::NotRun,
            });
        }
        ran.push(left);
    }
    Ok((Ran(ran), gold.map(|_| Ran(beside))))
}

/// Runs a check with the gold submission, its processes begun as those of the other run were: what
/// an interpreter does before it is warm would be half of the difference.
async fn alike(
    ground: &Arc<Ground>,
    gold: &Applied,
    check: &Check,
    other: &Left,
    timings: &mut Timings,
) -> Result<Left, Failure> {
    let subject = Subject { applied: gold, warm: other.was_warm() };
    let left = one_check(ground, subject, check, Stop::All, timings).await?;
    if left.was_warm() == other.was_warm() {
        return Ok(left);
    }
    // An interpreter was not up yet. Once more: now it is.
    one_check(ground, subject, check, Stop::All, timings).await
}

async fn one_check(
    ground: &Arc<Ground>,
    subject: Subject<'_>,
    check: &Check,
    stop: Stop,
    timings: &mut Timings,
) -> Result<Left, Failure> {
    let applied = subject.applied;
    match check.report {
        ReportKind::Pytest if ground.task.mode == Mode::Sealed => {
            sealed_suite::run(ground, subject, check, timings).await
        }
        kind if kind.is_ours() => suite(ground, subject, check, timings).await,
        ReportKind::Exit => exit(ground, applied, check, timings).await,
        ReportKind::Stdio => stdio(ground, applied, check, stop, timings).await,
        ReportKind::Function => match ground.task.mode {
            Mode::Sealed => sealed::function(ground, subject, timings).await,
            Mode::Guarded => guarded(ground, subject, timings).await,
        },
        _ => {
            let (nonce, execution) = foreign(ground, ground.spec(applied), check, timings).await?;
            Ok(Left::process(nonce, execution, None))
        }
    }
}

/// Runs a check once more with tests that must fail, where its report is a foreign tool's and says
/// that tests passed which have to.
async fn controlled(
    ground: &Arc<Ground>,
    applied: &Applied,
    number: usize,
    left: Left,
    timings: &mut Timings,
) -> Result<Left, Failure> {
    let check = &ground.task.checks[number];
    let Left::Process(mut process) = left else { return Ok(left) };
    if !check.report.is_foreign() {
        return Ok(Left::Process(process));
    }
    let chosen = Arc::clone(ground);
    let chosen = tokio::task::spawn_blocking(move || {
        let check = &chosen.task.checks[number];
        let (report, must_pass) = (check.report, &check.must_pass);
        let control = chosen.tests.control(report, must_pass, &process.evidence(), &nonce());
        (process, control)
    });
    let control;
    (process, control) = chosen.await.map_err(|panic| defect(&panic))?;
    if let Some(Control { files, tests }) = control {
        let mut spec = ground.spec(applied);
        spec.layers.push(Layer::Files(Arc::new(entries(&files))));
        let (nonce, execution) = foreign(ground, spec, check, timings).await?;
        process.control = Some(Controlled { tests, nonce, execution });
    }
    Ok(Left::Process(process))
}

impl Ran {
    /// Returns what `rewards` reads.
    pub(crate) fn evidence<'a>(
        &'a self,
        ground: &'a Ground,
        quarantined: &'a Quarantined,
    ) -> Vec<CheckRun<'a>> {
        let checks = ground.task.checks.iter().zip(&self.0);
        checks.map(|(check, left)| left.evidence(ground, check, quarantined)).collect()
    }
}

impl Left {
    pub(super) fn process(nonce: String, execution: Execution, subject: Option<Execution>) -> Self {
        Self::Process(Box::new(Process { nonce, execution, subject, control: None }))
    }

    /// Whether every process was forked from a warm interpreter.
    fn was_warm(&self) -> bool {
        match self {
            Self::Process(process) => {
                let mut ran = iter::once(&process.execution).chain(&process.subject);
                ran.all(|execution| execution.isolation.start == Start::Warm)
            }
            Self::NotRun | Self::Cases(_) => false,
        }
    }

    fn evidence<'a>(
        &'a self,
        ground: &'a Ground,
        check: &'a Check,
        quarantined: &'a Quarantined,
    ) -> CheckRun<'a> {
        let evidence = match self {
            Self::NotRun => None,
            Self::Process(process) => Some(CheckEvidence::Process(process.evidence())),
            Self::Cases(executions) => {
                let cases = ground.cases.iter().zip(executions).map(|(case, execution)| CaseRun {
                    name: &case.name,
                    execution: execution.as_ref(),
                    expected: &case.expected,
                });
                Some(CheckEvidence::Cases(cases.collect()))
            }
        };
        let control = match self {
            Self::Process(process) => process.control.as_ref(),
            Self::NotRun | Self::Cases(_) => None,
        };
        let control = control.map(|Controlled { tests, nonce, execution }| ControlRun {
            tests,
            execution,
            nonce,
        });
        CheckRun { check, evidence, control, quarantined: quarantined.get(&check.id) }
    }
}

/// A Python test suite: a runner of ours stands in for the command that the task names.
async fn suite(
    ground: &Ground,
    subject: Subject<'_>,
    check: &Check,
    timings: &mut Timings,
) -> Result<Left, Failure> {
    let mut command = runner(check)?;
    let nonce = nonce();
    command.stdin = format!("{nonce}\n{}\n", changed(subject.applied)).into_bytes().into();
    command.warm = command.warm.filter(|_| subject.warm);
    let execution = one(ground, ground.spec(subject.applied), command, timings).await?;
    Ok(Left::process(nonce, execution, None))
}

/// Returns the command of our runner for a Python test suite, without what it reads.
pub(super) fn runner(check: &Check) -> Result<Command, Failure> {
    let run: Vec<_> = check.run.iter().map(String::as_str).collect();
    let (runner, warm, arguments) = match (check.report, run.as_slice()) {
        (ReportKind::Pytest, [_, "-m", "pytest", arguments @ ..]) => {
            ("/assay/run_pytest.py", &PYTEST, arguments.to_vec())
        }
        (ReportKind::Unittest, [_, "-m", "unittest", arguments @ ..]) => {
            ("/assay/run_unittest.py", &UNITTEST, arguments.to_vec())
        }
        (ReportKind::Django, [_, script @ ..]) if !script.is_empty() => {
            ("/assay/run_unittest.py", &UNITTEST, [&["--script"], script].concat())
        }
        _ => {
            let detail = format!("check `{}`: not how `{}` is run", check.id, check.report);
            return Err(Failure::new("check_command", Phase::Prepare, Fault::Task, detail));
        }
    };
    let python = [PYTHON, "-P", "-s", "-B", runner];
    Ok(Command {
        argv: python.into_iter().chain(arguments).map(String::from).collect(),
        env: environment(),
        channels: vec![report()],
        warm: Some((*warm).clone()),
        ..Command::default()
    })
}

/// The files that a submission changes, for a runner that has to know whose code is whose: JSON.
fn changed(applied: &Applied) -> serde_json::Value {
    let paths: Vec<_> = applied.changes.keys().map(|path| path.to_string_lossy()).collect();
    if paths.len() > MOST_CHANGED { serde_json::Value::Null } else { paths.into() }
}

async fn exit(
    ground: &Ground,
    applied: &Applied,
    check: &Check,
    timings: &mut Timings,
) -> Result<Left, Failure> {
    let command = plain(check, Arc::default())?;
    let execution = one(ground, ground.spec(applied), command, timings).await?;
    Ok(Left::process(nonce(), execution, None))
}

/// The report of a tool that is not ours: `collect.sh` runs the command and hands it over.
async fn foreign(
    ground: &Ground,
    spec: SandboxSpec,
    check: &Check,
    timings: &mut Timings,
) -> Result<(String, Execution), Failure> {
    let nonce = nonce();
    let mut command = plain(check, format!("{nonce}\n").into_bytes().into())?;
    let how = match (&check.report_path, check.report) {
        (Some(_), _) => "files",
        // Which binary tests are of, cargo says on stderr; unittest says all there.
        (None, ReportKind::Cargo | ReportKind::Log(_)) => "both",
        (None, _) => "stdout",
    };
    let pattern = check.report_path.clone().unwrap_or_default();
    let wrapper = ["/bin/sh", "/assay/collect.sh", how, &pattern].map(String::from);
    command.argv.splice(0..0, wrapper);
    if runs_node(&ground.task) {
        command.env.insert("NODE_OPTIONS".into(), "--require=/assay/freeze.js".into());
    }
    command.channels = vec![report()];
    let execution = one(ground, spec, command, timings).await?;
    Ok((nonce, execution))
}

/// Each case has a sandbox of its own: nothing that a program leaves behind reaches the next.
async fn stdio(
    ground: &Ground,
    applied: &Applied,
    check: &Check,
    stop: Stop,
    timings: &mut Timings,
) -> Result<Left, Failure> {
    let mut executions = Vec::with_capacity(ground.cases.len());
    let mut decided = false;
    for case in &ground.cases {
        if decided {
            executions.push(None);
            continue;
        }
        let command = plain(check, case.input.as_slice().into())?;
        let execution = one(ground, ground.spec(applied), command, timings).await?;
        decided = stop == Stop::Decisive
            && !(execution.termination.success()
                && execution.stdout.complete().is_some_and(|o| outputs_equal(&case.expected, o)));
        executions.push(Some(execution));
    }
    Ok(Left::Cases(executions))
}

/// Tests and submission in one process, for values that can't cross.
async fn guarded(
    ground: &Ground,
    Subject { applied, warm }: Subject<'_>,
    timings: &mut Timings,
) -> Result<Left, Failure> {
    let (nonce, entry) = (nonce(), entry(ground)?);
    let source = applied.source.as_deref().unwrap_or_default();
    let command = Command {
        argv: python("/assay/grader.py"),
        env: environment(),
        stdin: format!("{nonce}\n{entry}\nguarded\n{source}").into_bytes().into(),
        channels: vec![report()],
        warm: warm.then(|| FUNCTION.clone()),
        ..Command::default()
    };
    let execution = one(ground, ground.bare(&ground.grader), command, timings).await?;
    Ok(Left::process(nonce, execution, None))
}

pub(super) async fn create(
    place: &Resolved,
    spec: SandboxSpec,
) -> Result<Box<dyn Sandbox>, Failure> {
    within(Duration::ZERO, Phase::Prepare, place.backend.create(spec)).await
}

/// Gives a backend up that doesn't answer: what hangs must not keep a worker for ever. A sandbox
/// ends its command at the wall limit itself, so this is never the submission's doing.
pub(super) async fn within<T>(
    wall: Duration,
    phase: Phase,
    work: impl Future<Output = BackendResult<T>>,
) -> Result<T, Failure> {
    let most = wall + BACKEND_GRACE;
    match tokio::time::timeout(most, work).await {
        Ok(done) => done.map_err(|error| backend_failure(&error, phase)),
        Err(_) => {
            let detail = format!("the backend gave no answer within {} s", most.as_secs());
            Err(Failure::new("backend_hung", phase, Fault::Infra, detail))
        }
    }
}

pub(super) async fn one(
    ground: &Ground,
    spec: SandboxSpec,
    command: Command,
    timings: &mut Timings,
) -> Result<Execution, Failure> {
    let started = Instant::now();
    let wall = spec.limits.wall;
    let sandbox = create(&ground.resolved, spec).await?;
    timings.prepare_ms += ms(started.elapsed());
    let started = Instant::now();
    let execution = within(wall, Phase::Run, sandbox.run(command)).await?;
    count(timings, started.elapsed(), &execution);
    Ok(execution)
}

/// Backends make most of a sandbox ready when they have its command.
pub(super) fn count(timings: &mut Timings, took: Duration, execution: &Execution) {
    let setup = execution.usage.setup.min(took);
    timings.prepare_ms += ms(setup);
    timings.run_ms += ms(took - setup);
}

/// The command of a check, as its task writes it. A program without a folder is in `/usr/bin`.
fn plain(check: &Check, stdin: Arc<[u8]>) -> Result<Command, Failure> {
    let mut argv = check.run.clone();
    let Some(program) = argv.first_mut() else {
        let detail = format!("check `{}` has no command", check.id);
        return Err(Failure::new("check_command", Phase::Prepare, Fault::Task, detail));
    };
    if !program.contains('/') {
        *program = format!("/usr/bin/{program}");
    }
    Ok(Command { argv, env: environment(), stdin, ..Command::default() })
}

/// `-P -s -S -B` and not `-I`, which would ignore the hash seed. The environment is ours alone.
pub(super) fn python(script: &str) -> Vec<String> {
    [PYTHON, "-P", "-s", "-S", "-B", script].map(String::from).into()
}

pub(super) fn entry(ground: &Ground) -> Result<&str, Failure> {
    ground.task.submission.entry.as_deref().ok_or_else(|| {
        let detail = "a function check needs `entry` in [submission]";
        Failure::new("check_command", Phase::Prepare, Fault::Task, detail)
    })
}

pub(super) fn report() -> Channel {
    Channel { fd: 3, end: ChannelEnd::Collect { max_bytes: REPORT_BYTES } }
}

/// Returns the environment of every command: the same, so that a verdict doesn't depend on who
/// started the service. The order of sets is fixed.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("HOME", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("TZ", "UTC"),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// What tells our runner's report from others: 122 random bits.
pub(super) fn nonce() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
