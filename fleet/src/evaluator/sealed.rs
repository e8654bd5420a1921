//! Sealed checks: the grader holds the tests, the subject holds the submission; a socket pair joins
//! them. The submission's process never descends from one that read a private file. [`function`]
//! calls one function, [`suite`](super::suite) runs tests of a repository.

use std::{
    borrow::Cow, collections::BTreeMap, io::Write as _, os::unix::net::UnixStream, path::PathBuf,
    sync::Arc, time::Duration,
};

use assay_repos::Language;
use assay_rewards::{Failure, Fault, Phase, harness};
use assay_sandbox::{
    Capture, Channel, ChannelEnd, Command, Execution, FileEntry, Layer, LimitKind, Limits,
    SandboxSpec, Termination,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Ground, ms,
    run::{
        FUNCTION, Left, Subject, count, create, entry, environment, nonce, python, report, within,
    },
};
use crate::Timings;

/// What the grader has beyond the subject, so that it sees the subject's end and reports it, also
/// where the machine was slow to start the subject.
const GRADER_EXTRA: Duration = Duration::from_secs(30);
/// How long a subject may live on when its grader is done. An honest one reads end of file; whichever
/// doesn't is stopped, and has used what it used.
const SUBJECT_GRACE: Duration = Duration::from_millis(500);
/// What a compiler may use. The limits of the task are for the program that it makes.
const COMPILER: Limits = Limits {
    wall: Duration::from_secs(60),
    cpu: Duration::from_secs(30),
    memory_bytes: 1 << 30,
    pids: 64,
    disk_bytes: 256 << 20,
    inodes: 10_000,
    output_bytes: 64 << 10,
};
/// Most bytes of a compiled submission.
const PROGRAM_BYTES: usize = 32 << 20;
/// Where a compiled submission lies in the work tree.
const PROGRAM: &str = "subject";

/// Runs the tests of a function task.
pub(super) async fn function(
    ground: &Ground,
    whose: Subject<'_>,
    timings: &mut Timings,
) -> Result<Left, Failure> {
    let (ours, theirs) = pair()?;
    let (nonce, entry) = (nonce(), entry(ground)?);
    let grader_spec = grader_spec(ground, ground.bare(&ground.grader));
    let grader_command = Command {
        argv: python("/assay/grader.py"),
        env: environment(),
        stdin: format!("{nonce}\n{entry}\nsealed\n").into_bytes().into(),
        channels: vec![report(), Channel { fd: 4, end: ChannelEnd::Fd(ours.into()) }],
        warm: whose.warm.then(|| FUNCTION.clone()),
        ..Command::default()
    };
    let (subject_spec, mut subject_command) = match subject(ground, whose, entry, timings).await? {
        Place::Ready(spec, command) => (spec, command),
        Place::Broken(execution, why) => {
            let wall = grader_spec.limits.wall;
            say(theirs, &harness::broken(&why))?;
            let started = Instant::now();
            let grader = create(&ground.judge, grader_spec).await?;
            timings.prepare_ms += ms(started.elapsed());
            let started = Instant::now();
            let ran = within(wall, Phase::Run, grader.run(grader_command)).await?;
            count(timings, started.elapsed(), &ran);
            return Ok(Left::process(nonce, ran, Some(execution)));
        }
    };
    subject_command.channels = vec![Channel { fd: 4, end: ChannelEnd::Fd(theirs.into()) }];
    let (grader, subject) = ((grader_spec, grader_command), (subject_spec, subject_command));
    both(ground, nonce, grader, subject, timings).await
}

/// Returns the two ends of what a grader and its subject talk over.
pub(super) fn pair() -> Result<(UnixStream, UnixStream), Failure> {
    UnixStream::pair().map_err(|error| {
        Failure::new("socket_pair", Phase::Prepare, Fault::Infra, error.to_string())
    })
}

/// Returns the sandbox of a grader, in the image that graders have.
pub(super) fn grader_spec(ground: &Ground, mut spec: SandboxSpec) -> SandboxSpec {
    spec.image = ground.judge.image.clone();
    spec.limits.wall += GRADER_EXTRA;
    spec
}

/// Runs a grader and its subject to their ends.
pub(super) async fn both(
    ground: &Ground,
    nonce: String,
    (grader_spec, grader_command): (SandboxSpec, Command),
    (subject_spec, mut subject_command): (SandboxSpec, Command),
    timings: &mut Timings,
) -> Result<Left, Failure> {
    let wall = grader_spec.limits.wall;
    let stop = CancellationToken::new();
    subject_command.stop = stop.clone();
    let started = Instant::now();
    let (grader, subject) = tokio::try_join!(
        create(&ground.judge, grader_spec),
        create(&ground.resolved, subject_spec),
    )?;
    timings.prepare_ms += ms(started.elapsed());

    let started = Instant::now();
    let ran = together(grader.run(grader_command), subject.run(subject_command), &stop);
    let (execution, subject) = within(wall, Phase::Run, ran).await?;
    count(timings, started.elapsed(), &execution);
    Ok(Left::process(nonce, execution, Some(subject)))
}

/// What answers the grader's calls.
enum Place {
    /// It is to run; its socket is missing.
    Ready(SandboxSpec, Command),
    /// It did not compile, for this reason.
    Broken(Execution, String),
}

/// Makes ready what holds the submission, by its language.
async fn subject(
    ground: &Ground,
    Subject { applied, warm }: Subject<'_>,
    entry: &str,
    timings: &mut Timings,
) -> Result<Place, Failure> {
    let source = applied.source.as_deref().unwrap_or_default();
    let interpreted = |argv: Vec<String>, warm| {
        let stdin = format!("{entry}\n{source}").into_bytes().into();
        let command = Command { argv, env: environment(), stdin, warm, ..Command::default() };
        Place::Ready(ground.bare(&ground.subject), command)
    };
    let ending = match ground.task.language {
        Language::Python => {
            return Ok(interpreted(python("/assay/subject.py"), warm.then(|| FUNCTION.clone())));
        }
        Language::Javascript => {
            let argv = ["/usr/bin/node", "/assay/subject.js"].map(String::from);
            return Ok(interpreted(argv.into(), None));
        }
        language => language.extension(),
    };
    let language = ground.task.language.as_str();
    let compiled =
        compile(ground, language, &format!("submission.{ending}"), source, timings).await?;
    let program = match compiled.termination {
        Termination::Exited(0) => compiled.channels.first().and_then(Capture::complete),
        // The shell is ours: whatever the submission makes of its compiler, it says by a status.
        Termination::Signaled(signal) => {
            let detail = format!("signal {signal} ended what runs the compiler");
            return Err(Failure::new("compiler_died", Phase::Prepare, Fault::Infra, detail));
        }
        Termination::Exited(126 | 127) => {
            let detail = format!("image `{}` has no compiler for {language}", ground.task.image);
            return Err(Failure::new("no_compiler", Phase::Prepare, Fault::Task, detail));
        }
        _ => None,
    };
    let Some(program) = program.filter(|program| !program.is_empty()) else {
        let why = why_not(&compiled);
        return Ok(Place::Broken(compiled, why));
    };
    let spec =
        SandboxSpec { layers: vec![file(PROGRAM, program, true)], ..ground.bare(&Arc::default()) };
    let argv = vec![ground.task.workdir.join(PROGRAM).to_string_lossy().into_owned()];
    Ok(Place::Ready(spec, Command { argv, env: environment(), ..Command::default() }))
}

/// Runs the compiler in a sandbox of its own, with limits of its own. It leaves the program.
async fn compile(
    ground: &Ground,
    language: &str,
    name: &str,
    source: &str,
    timings: &mut Timings,
) -> Result<Execution, Failure> {
    let started = Instant::now();
    let spec = SandboxSpec {
        layers: vec![file(name, source.as_bytes(), false)],
        limits: COMPILER,
        ..ground.bare(&ground.subject)
    };
    let end = ChannelEnd::Collect { max_bytes: PROGRAM_BYTES };
    let command = Command {
        argv: ["/bin/sh", "/assay/compile.sh", language].map(String::from).into(),
        env: environment(),
        channels: vec![Channel { fd: 3, end }],
        ..Command::default()
    };
    let sandbox = create(&ground.resolved, spec).await?;
    let execution = within(COMPILER.wall, Phase::Prepare, sandbox.run(command)).await?;
    timings.prepare_ms += ms(started.elapsed());
    Ok(execution)
}

/// Says why there is no program, in the compiler's words where it had some.
fn why_not(compiled: &Execution) -> String {
    let limit = |what| Cow::Borrowed(what);
    let how = match compiled.termination {
        Termination::Limit(LimitKind::Memory) => limit("the compiler took too much memory"),
        Termination::Limit(LimitKind::Cpu | LimitKind::Wall | LimitKind::WallStarved) => {
            limit("the compiler took too long")
        }
        Termination::Exited(0) => limit("the compiled program is too large"),
        Termination::Exited(_) | Termination::Signaled(_) => {
            limit("the submission does not compile")
        }
    };
    format!("{how}\n{}", compiled.stderr.lossy().trim_end())
}

/// Writes one frame where a subject would.
fn say(mut socket: UnixStream, frame: &[u8]) -> Result<(), Failure> {
    // Less than any socket's buffer, so it doesn't wait for a reader.
    socket.write_all(frame).map_err(|error| {
        Failure::new("socket_pair", Phase::Prepare, Fault::Infra, error.to_string())
    })
}

fn file(name: &str, content: &[u8], executable: bool) -> Layer {
    let entry = FileEntry::File { content: content.into(), executable };
    Layer::Files(Arc::new(BTreeMap::from([(PathBuf::from(name), entry)])))
}

/// Runs both to the end of the grader, and the subject a little longer if it needs that.
async fn together<E>(
    grader: impl Future<Output = Result<Execution, E>>,
    subject: impl Future<Output = Result<Execution, E>>,
    stop: &CancellationToken,
) -> Result<(Execution, Execution), E> {
    tokio::pin!(grader, subject);
    tokio::select! {
        subject = &mut subject => {
            let subject = subject?;
            Ok((grader.await?, subject))
        }
        grader = &mut grader => {
            let grader = grader?;
            if let Ok(subject) = tokio::time::timeout(SUBJECT_GRACE, &mut subject).await {
                return Ok((grader, subject?));
            }
            stop.cancel();
            Ok((grader, subject.await?))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use assay_sandbox::Usage;

    use super::*;

    /// Ends after so many seconds, or when it is stopped.
    async fn after(seconds: f64, stop: CancellationToken) -> Result<Execution, &'static str> {
        let ends = tokio::time::sleep(Duration::from_secs_f64(seconds));
        let termination = tokio::select! {
            () = ends => Termination::Exited(0),
            () = stop.cancelled() => Termination::Signaled(9),
        };
        Ok(Execution {
            termination,
            stdout: Capture::default(),
            stderr: Capture::default(),
            channels: Vec::new(),
            usage: Usage::default(),
            isolation: Default::default(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_subject_outlives_its_grader_by_its_grace_alone() {
        // (name, grader, subject, seconds that it takes, whether the subject came to its end)
        let cases = [
            ("subject first", 3.0, 1.0, 3.0, true),
            ("grader first", 1.0, 1.4, 1.4, true),
            ("subject hangs", 1.0, 1e9, 1.5, false),
        ];
        let never = CancellationToken::new;
        for (name, grader, subject, seconds, ended) in cases {
            let (started, stop) = (Instant::now(), CancellationToken::new());
            let ran = together(after(grader, never()), after(subject, stop.clone()), &stop);
            let (grader, subject) = ran.await.unwrap();
            let took = started.elapsed().as_secs_f64();
            assert!((took - seconds).abs() < 0.01, "{name} took {took} s");
            assert_eq!(grader.termination, Termination::Exited(0), "{name}");
            assert_eq!(subject.termination.success(), ended, "{name}");
        }
        let broken = async { Err("broken") };
        assert!(
            together(pending(), broken, &never()).await.is_err(),
            "the grader waits for nobody"
        );
        let broken = async { Err("broken") };
        assert!(together(broken, after(0.0, never()), &never()).await.is_err());
    }
}
