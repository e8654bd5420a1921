//! Agents at work, over gRPC: scripted ones that solve a task of the catalog, and hostile ones.

use std::time::Duration;

use assay_proto::v1::{
    AgentLimits, CloseRequest, Dropped, ExecRequest, ForkRequest, Generation, GetResultsRequest,
    HeartbeatRequest, OpenRequest, Outcome, PauseRequest, Program, ReadFileRequest, ResumeRequest,
    SignalRequest, SnapshotRequest, StepEnd, SubmitRequest, SubmitResponse, WriteFileRequest,
    episode_service_client::EpisodeServiceClient, exec_request::Runs, exec_response::Event,
    step_end::Termination,
};
use assay_tests::{Footprint, PATIENCE, Service, Tree, passed, request, skipped};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status, transport::Channel};

const PROGRAM: &str = env!("CARGO_BIN_EXE_assay-under-test");
const TASK: &str = "toolz.0001";
const FILE: &str = "toolz/itertoolz.py";
/// Mends the task's bug.
const FIX: &str = "sed -i 's/islice(seq, 1, None, n)/islice(seq, 0, None, n)/' toolz/itertoolz.py";

/// A service and a client of it.
struct Bench {
    service: Service,
    client: EpisodeServiceClient<Channel>,
    _data: tempfile::TempDir,
}

/// What a step left behind.
#[derive(Debug, Default)]
struct Step {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    dropped: u64,
    end: StepEnd,
}

impl Step {
    fn text(&self) -> &str {
        assert_eq!(self.end.termination, Some(Termination::ExitCode(0)), "{}", self.told());
        std::str::from_utf8(&self.stdout).expect("text").trim()
    }

    /// Whether its time was up, on a busy machine, too.
    fn is_late(&self) -> bool {
        matches!(&self.end.termination, Some(Termination::Limit(limit)) if limit.starts_with("wall"))
    }

    fn told(&self) -> String {
        let [out, err] = [&self.stdout, &self.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        format!("{:?}\n{out}\n{err}", self.end)
    }
}

impl Bench {
    async fn new() -> Option<Self> {
        if skipped() {
            return None;
        }
        let data = tempfile::tempdir().expect("a folder");
        let service = Service::start(PROGRAM, data.path());
        let client = service.episodes().await;
        Some(Self { service, client, _data: data })
    }

    async fn open(&mut self, episode_id: &str) -> String {
        self.open_with(OpenRequest { episode_id: episode_id.into(), ..opening() }).await
    }

    async fn open_with(&mut self, opening: OpenRequest) -> String {
        self.client.open(opening).await.expect("an episode").into_inner().episode_id
    }

    async fn exec(&mut self, request: ExecRequest) -> Result<Step, Status> {
        let mut stream = self.client.exec(request).await?.into_inner();
        let mut step = Step::default();
        while let Some(message) = stream.next().await {
            match message?.event.expect("an event") {
                Event::Stdout(bytes) => step.stdout.extend(bytes),
                Event::Stderr(bytes) => step.stderr.extend(bytes),
                Event::Dropped(Dropped { bytes, .. }) => step.dropped += bytes,
                Event::End(end) => step.end = end,
            }
        }
        assert!(step.end.termination.is_some(), "the end comes last");
        Ok(step)
    }

    async fn sh(&mut self, episode: &str, step: &str, script: &str) -> Step {
        self.exec(shell(episode, step, script)).await.expect("a step")
    }

    async fn read(&mut self, episode: &str, path: &str) -> Result<Vec<u8>, Status> {
        let (episode_id, path) = (episode.into(), path.into());
        let request = ReadFileRequest { episode_id, path, ..ReadFileRequest::default() };
        self.client.read_file(request).await.map(|answer| answer.into_inner().content)
    }

    async fn submit(&mut self, episode: &str) -> Result<SubmitResponse, Status> {
        let request = SubmitRequest { episode_id: episode.into() };
        let answer = tokio::time::timeout(PATIENCE, self.client.submit(request)).await;
        answer.expect("an answer in time").map(tonic::Response::into_inner)
    }
}

fn opening() -> OpenRequest {
    OpenRequest { task_id: TASK.into(), reward: "pass".into(), ..OpenRequest::default() }
}

fn shell(episode: &str, step: &str, script: &str) -> ExecRequest {
    ExecRequest {
        episode_id: episode.into(),
        step_id: step.into(),
        runs: Some(Runs::Shell(script.into())),
        ..ExecRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_solves_a_task_and_its_forks_are_scored() {
    let Some(mut bench) = Bench::new().await else { return };
    let opening = OpenRequest {
        episode_id: "parent".into(),
        run_id: "forks".into(),
        generation: Some(Generation { tokens: 77, ..Generation::default() }),
        ..opening()
    };
    bench.open_with(opening).await;
    // The tests that judge it are not there, nor is anything private.
    let look = bench.sh("parent", "look", "pwd; ls toolz/tests; find / -name 'gold*' -o -name private 2>/dev/null | grep -v ^/proc").await;
    assert!(look.stdout.starts_with(b"/"), "{}", look.told());
    assert_eq!(String::from_utf8_lossy(&look.stdout).lines().count(), 1, "{}", look.told());
    let found =
        bench.sh("parent", "find", "cd toolz && grep -n 'islice(seq, 1' itertoolz.py").await;
    assert!(found.text().ends_with("return itertools.islice(seq, 1, None, n)"), "{}", found.told());
    let before = bench.read("parent", FILE).await.expect("the file");
    assert_eq!(String::from_utf8(before).expect("text"), Tree::of(TASK).read(FILE));

    let ids: Vec<String> = (0..8).map(|fork| format!("fork-{fork}")).collect();
    let fork = ForkRequest {
        episode_id: "parent".into(),
        episode_ids: ids.clone(),
        ..ForkRequest::default()
    };
    let forks = bench.client.fork(fork.clone()).await.expect("forks").into_inner().episodes;
    assert!(forks.iter().all(|fork| fork.parent_id == "parent" && fork.steps_left == 98));
    let again = bench.client.fork(fork).await.expect("the same forks").into_inner().episodes;
    assert_eq!(again, forks);

    for (number, id) in ids.iter().enumerate() {
        // The shell goes on where the parent's was.
        let step = if number.is_multiple_of(2) {
            format!("pwd; cd ..; {FIX}; echo '# {number}' >> {FILE}")
        } else {
            format!("pwd; cd ..; echo '# {number}' >> {FILE}")
        };
        let step = bench.sh(id, "edit", &step).await;
        assert!(step.text().ends_with("/toolz"), "{}", step.told());
        let uses = "python3 -c 'import toolz; print(list(toolz.take_nth(2, [1, 2, 3])))'";
        let used = bench.sh(id, "try", uses).await;
        let expected = if number.is_multiple_of(2) { "[1, 3]" } else { "[2]" };
        assert_eq!(used.text(), expected, "{}", used.told());
    }
    // All at once, as a trainer would.
    let answers = ids.iter().map(|id| {
        let mut client = bench.client.clone();
        let request = SubmitRequest { episode_id: id.clone() };
        async move { client.submit(request).await.expect("an answer").into_inner() }
    });
    let answers = tokio::time::timeout(PATIENCE, futures::future::join_all(answers)).await;
    for (number, answer) in answers.expect("in time").iter().enumerate() {
        let result = answer.result.as_ref().expect("a result");
        assert_eq!(passed(result), number.is_multiple_of(2), "{number}: {answer:?}");
        assert_eq!(result.outcome(), Outcome::Scored, "{answer:?}");
        assert_eq!(result.request_id, format!("episode:fork-{number}"));
        let generation = result.generation.as_ref().expect("its generation");
        assert_eq!((generation.turns, generation.tokens), (4, 77));
        assert_eq!((&*answer.ended, &*generation.finish_reason), ("submitted", "stop"));
        assert!(answer.patch.contains(&format!("+# {number}\n")), "{}", answer.patch);
        assert!(answer.left_out.is_empty(), "{answer:?}");
        // It is an evaluation like any other: the same patch by itself gets the same.
        let kind = assay_proto::v1::submission::Kind::Patch(answer.patch.clone());
        let alone = request(&format!("alone-{number}"), TASK, kind);
        let alone = bench.service.client().await.evaluate(alone).await.expect("a result");
        let alone = alone.into_inner();
        assert_eq!((alone.reward, &alone.grade_id.is_empty()), (result.reward, &false));
        assert_eq!(alone.digests, result.digests);
    }
    let listed = GetResultsRequest { run_id: "forks".into(), ..GetResultsRequest::default() };
    let listed = bench.service.client().await.get_results(listed).await.expect("results");
    assert_eq!(listed.into_inner().results.len(), 8);
    // The parent is as it was.
    let still = bench.sh("parent", "still", "grep -c 'islice(seq, 1' itertoolz.py").await;
    assert_eq!(still.text(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_done_once() {
    let Some(mut bench) = Bench::new().await else { return };
    let episode = bench.open("once").await;
    let first = bench.sh(&episode, "a", "echo line >> log; echo said; exit 3").await;
    let second = bench.sh(&episode, "a", "echo line >> log; echo said; exit 3").await;
    assert_eq!(first.end, second.end);
    assert_eq!((&*first.stdout, &*second.stdout), (&b"said\n"[..], &b"said\n"[..]));
    assert_eq!(bench.sh(&episode, "count", "wc -l < log").await.text(), "1");
    let other = bench.exec(shell(&episode, "a", "echo other")).await.expect_err("another body");
    assert_eq!(other.code(), Code::InvalidArgument, "{other:?}");
    // The same episode, opened again, is the same; another under its id is refused.
    let again = OpenRequest { episode_id: episode.clone(), ..opening() };
    let again = bench.client.open(again).await.expect("the same").into_inner();
    assert_eq!(again.steps_left, 98);
    let other = OpenRequest { episode_id: episode.clone(), max_steps: 7, ..opening() };
    let other = bench.client.open(other).await.expect_err("another episode");
    assert_eq!(other.code(), Code::InvalidArgument, "{other:?}");

    // A client that hangs up finds its step where it is.
    let slow =
        shell(&episode, "slow", "echo begun; while [ ! -e go ]; do sleep 0.02; done; echo done");
    let mut stream = bench.client.exec(slow.clone()).await.expect("a step").into_inner();
    let begun = stream.next().await.expect("an event").expect("output").event;
    assert_eq!(begun, Some(Event::Stdout(b"begun\n".to_vec())));
    drop(stream);
    let busy = bench.exec(shell(&episode, "b", "true")).await.expect_err("one at a time");
    assert_eq!(busy.code(), Code::FailedPrecondition, "{busy:?}");
    let go =
        WriteFileRequest { episode_id: episode.clone(), path: "go".into(), ..Default::default() };
    bench.client.write_file(go).await.expect("a file");
    assert_eq!(bench.exec(slow).await.expect("the end").text(), "begun\ndone");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_outlives_its_commands() {
    let Some(mut bench) = Bench::new().await else { return };
    let episode = bench.open("shell").await;
    let script = "cd toolz; export A='a  b' && B=(1 '2 3'); f() { echo \"f $1\"; }; umask; set -e; false; echo not here";
    let step = bench.sh(&episode, "1", script).await;
    assert_eq!(step.end.termination, Some(Termination::ExitCode(1)), "{}", step.told());
    assert!(step.end.shell_kept);
    let step =
        bench.sh(&episode, "2", "pwd; echo \"$A\" \"${B[1]}\"; f x; false; echo on $#").await;
    assert!(step.text().ends_with("/toolz\na  b 2 3\nf x\non 0"), "{}", step.told());
    // One that is killed, or that takes the shell's place, leaves it as it was.
    let late = ExecRequest {
        wall: Some(Duration::from_millis(400).try_into().expect("a duration")),
        ..shell(&episode, "3", "cd /; sleep 1000 & wait")
    };
    let late = bench.exec(late).await.expect("a step");
    assert!(late.is_late(), "{}", late.told());
    assert!(!late.end.shell_kept);
    let step = bench.sh(&episode, "4", "cd /; exec true").await;
    assert!(!step.end.shell_kept, "{}", step.told());
    assert!(bench.sh(&episode, "5", "pwd").await.text().ends_with("/toolz"));
    // A program has nothing of the shell.
    let argv = ["/bin/sh", "-c", "pwd; echo [$A]; cat"].map(str::to_owned).into();
    let program = ExecRequest {
        runs: Some(Runs::Program(Program { argv })),
        stdin: b"fed".to_vec(),
        ..shell(&episode, "6", "")
    };
    let program = bench.exec(program).await.expect("a step");
    assert!(program.text().ends_with("\n[]\nfed") && !program.text().contains("toolz\n"));
    // What runs can be signalled, by its step.
    let script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.02; done";
    let trapped = shell(&episode, "7", script);
    let mut stream = bench.client.exec(trapped).await.expect("a step").into_inner();
    stream.next().await.expect("an event").expect("it is ready");
    let signal = SignalRequest { episode_id: episode.clone(), step_id: "7".into(), signal: 2 };
    bench.client.signal(signal).await.expect("a signal");
    let mut last = None;
    while let Some(message) = stream.next().await {
        last = message.expect("an event").event;
    }
    assert!(
        matches!(
            last,
            Some(Event::End(StepEnd { termination: Some(Termination::ExitCode(5)), .. }))
        ),
        "{last:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_run_out_and_closed_is_closed() {
    let Some(mut bench) = Bench::new().await else { return };
    let lease = Some(Duration::from_secs(1).try_into().expect("a duration"));
    let episode =
        bench.open_with(OpenRequest { episode_id: "short".into(), lease, ..opening() }).await;
    // A step that runs is a call, however long it takes.
    assert_eq!(bench.sh(&episode, "1", "sleep 2.5; echo on").await.text(), "on");
    let beat = || HeartbeatRequest { episode_id: "short".into() };
    let alive = bench.client.heartbeat(beat()).await.expect("it lives").into_inner();
    assert_eq!(alive.steps_left, 99);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let gone = bench.client.heartbeat(beat()).await.expect_err("its lease ran out");
    assert_eq!(gone.code(), Code::NotFound, "{gone:?}");
    assert!(gone.message().contains("its lease ran out"), "{gone:?}");
    let never = bench.submit("never").await.expect_err("never opened");
    assert!(
        never.code() == Code::NotFound && never.message().contains("never opened"),
        "{never:?}"
    );

    let episode = bench.open("closed").await;
    for _ in 0..2 {
        let close = CloseRequest { episode_id: episode.clone() };
        bench.client.close(close).await.expect("closed");
    }
    let closed = bench.exec(shell(&episode, "1", "true")).await.expect_err("it is closed");
    assert!(closed.code() == Code::NotFound && closed.message().contains("closed"), "{closed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_out_is_graded_as_it_stands() {
    let Some(mut bench) = Bench::new().await else { return };
    let turns = OpenRequest { episode_id: "turns".into(), max_steps: 2, ..opening() };
    bench.open_with(turns).await;
    bench.sh("turns", "1", FIX).await;
    assert_eq!(bench.sh("turns", "2", "true").await.end.steps_left, 0);
    let refused = bench.exec(shell("turns", "3", "true")).await.expect_err("no step is left");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    let answer = bench.submit("turns").await.expect("a result");
    assert_eq!(answer.ended, "out_of_steps");
    let result = answer.result.expect("a result");
    assert!(passed(&result), "{result:?}");
    assert_eq!(result.generation.expect("its generation").finish_reason, "length");
    // Whoever asks again gets the same.
    let again = bench.submit("turns").await.expect("the same");
    assert_eq!((again.patch, again.ended), (answer.patch, answer.ended));
    let late = bench.exec(shell("turns", "1", FIX)).await.expect("a step of before").end;
    assert_eq!(late.steps_left, 1);
    let late = bench.exec(shell("turns", "4", "true")).await.expect_err("it is submitted");
    assert_eq!(late.code(), Code::FailedPrecondition, "{late:?}");

    let limits = Some(AgentLimits { cpu_s: 1.0, ..AgentLimits::default() });
    bench.open_with(OpenRequest { episode_id: "cpu".into(), limits, ..opening() }).await;
    let spun = bench.sh("cpu", "1", &format!("{FIX}; while :; do :; done")).await;
    assert_eq!(
        spun.end.termination,
        Some(Termination::Over("cpu_limit".into())),
        "{}",
        spun.told()
    );
    let answer = bench.submit("cpu").await.expect("a result");
    assert_eq!(answer.ended, "cpu_limit");
    assert!(passed(answer.result.as_ref().expect("a result")), "{answer:?}");

    // Nothing done is nothing solved.
    bench.open("idle").await;
    let result = bench.submit("idle").await.expect("a result").result.expect("a result");
    assert_eq!(result.outcome(), Outcome::SubmissionRejected, "{result:?}");
    assert_eq!(result.reward, Some(0.0), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_scored_by_the_states_that_they_leave() {
    let Some(mut bench) = Bench::new().await else { return };
    let episode = bench.open("scored").await;
    for (id, script) in [
        ("wrong", "echo '# x' >> toolz/itertoolz.py"),
        ("right", FIX),
        ("worse", "echo 'syntax error' >> toolz/itertoolz.py"),
    ] {
        let step = bench.exec(ExecRequest { score: true, ..shell(&episode, id, script) }).await;
        step.expect("a step").text();
    }
    bench.sh(&episode, "unscored", "true").await;
    let answer = bench.submit(&episode).await.expect("a result");
    let rewards: Vec<_> =
        answer.step_rewards.iter().map(|step| (&*step.step_id, step.value)).collect();
    assert_eq!(rewards, [("wrong", Some(0.0)), ("right", Some(1.0)), ("worse", Some(0.0))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_pipes_and_litter_lead_nowhere() {
    let Some(mut bench) = Bench::new().await else { return };
    let episode = bench.open("hostile").await;
    let script = format!(
        "{FIX}; ln -sf /etc/passwd README.rst; rm toolz/functoolz.py; mkfifo toolz/functoolz.py; \
         ln -s /proc/1/environ env; ln -s / root; head -c 100 /dev/urandom > binary; mkdir -p .pytest_cache/v && echo x > .pytest_cache/v/x; \
         mkdir -p toolz/tests; echo 'def test(): pass' > toolz/tests/test_itertoolz.py; printf 'x' > \"$(printf 'new\\nline')\"; \
         rm -rf toolz/curried; ln -s /etc toolz/curried; mkdir .git; echo x > .git/config"
    );
    bench.sh(&episode, "1", &script).await.text();
    for (path, code) in [
        ("toolz/functoolz.py", Code::FailedPrecondition),
        ("env", Code::NotFound),
        ("root", Code::FailedPrecondition),
        ("toolz/nothing", Code::NotFound),
        ("/proc/1/mem", Code::NotFound),
        ("../../../../../../proc/self/environ", Code::NotFound),
    ] {
        let error = bench.read(&episode, path).await.expect_err(path);
        let codes = [code, Code::PermissionDenied, Code::FailedPrecondition];
        assert!(codes.contains(&error.code()), "{path}: {error:?}");
    }
    // A link to the image's own file leads to that, never to the host's.
    let image = assay_tests::cache().join("rootfs/python/tree/etc/passwd");
    let read = bench.read(&episode, "README.rst").await.expect("the image's");
    assert_eq!(read, std::fs::read(image).expect("the image's"));

    let answer = bench.submit(&episode).await.expect("a result");
    assert!(!answer.patch.contains("root:"), "{}", answer.patch);
    assert!(answer.patch.contains("deleted file mode 100644"), "{}", answer.patch);
    let left_out: Vec<_> = answer.left_out.iter().map(|left| &*left.path).collect();
    for path in ["README.rst", "binary", "env", "new\nline", "root", "toolz/functoolz.py"] {
        let is_there = left_out.contains(&path)
            || path == "new\nline" && answer.patch.contains("new\\012line");
        assert!(is_there, "{path}: {left_out:?}\n{}", answer.patch);
    }
    assert!(!answer.patch.contains("pytest_cache"), "{}", answer.patch);
    let result = answer.result.expect("a result");
    assert_eq!(result.outcome(), Outcome::Scored, "{result:?}");
    assert_eq!(result.reward, Some(0.0), "a module is gone: {result:?}");
    let flags: Vec<_> = result.integrity.iter().flat_map(|i| &i.flags).map(|f| &*f.code).collect();
    assert!(flags.contains(&"patch.touches_tests"), "{flags:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_and_floods_cost_the_agent_alone() {
    let Some(mut bench) = Bench::new().await else { return };
    let limits = AgentLimits { pids: 32, disk_mb: 16, output_kb: 4, ..AgentLimits::default() };
    let opening = OpenRequest { episode_id: "bomb".into(), limits: Some(limits), ..opening() };
    let episode = bench.open_with(opening).await;
    bench.sh(&episode, "fix", FIX).await.text();
    let bomb = "python3 -c \"import os, time\nwhile True:\n try:\n  if os.fork() == 0: os.setsid()\n except OSError: time.sleep(0.001)\"";
    let wall = Some(Duration::from_secs(2).try_into().expect("a duration"));
    let bomb = ExecRequest { wall, ..shell(&episode, "bomb", bomb) };
    let step = bench.exec(bomb).await.expect("a step");
    assert!(step.is_late(), "{}", step.told());
    // Where the bomb left room for one process, the shell itself lacks others, and the step is lost.
    let mut step = bench.sh(&episode, "after", "echo on").await;
    for again in 0..4 {
        if !step.end.cleared {
            step = bench.sh(&episode, &format!("again-{again}"), "echo on").await;
        }
    }
    assert!(step.text() == "on" && step.end.cleared, "{}", step.told());
    let fill = "i=0; while head -c 1000000 /dev/zero > junk$i 2>/dev/null; do i=$((i+1)); done; rm junk*; echo $i";
    let filled: u32 = bench.sh(&episode, "fill", fill).await.text().parse().expect("a number");
    assert!((8..=17).contains(&filled), "{filled}");
    let step =
        bench.sh(&episode, "flood", "head -c 50000000 /dev/zero | tr '\\0' x; echo end").await;
    assert_eq!((step.stdout.len() as u64 + step.dropped, step.stdout.len()), (50_000_004, 4096));
    assert!(step.stdout.ends_with(b"xend\n"));
    let answer = bench.submit(&episode).await.expect("a result");
    assert!(passed(answer.result.as_ref().expect("a result")), "{answer:?}");

    // One that breaks its own session: graded as it stands, or going on.
    let episode = bench.open("breaker").await;
    bench.sh(&episode, "fix", FIX).await.text();
    bench.sh(&episode, "kill", "kill -9 -1; kill -9 1; true").await;
    let answer = bench.submit(&episode).await.expect("a result");
    assert!(passed(answer.result.as_ref().expect("a result")), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_episode_stands_still_and_a_snapshot_keeps() {
    let Some(mut bench) = Bench::new().await else { return };
    let episode = bench.open("paused").await;
    bench.sh(&episode, "1", "X=kept; cd toolz; echo one > file").await.text();
    let keep = || SnapshotRequest { episode_id: "paused".into(), name: "one".into() };
    bench.client.snapshot(keep()).await.expect("a snapshot");
    bench
        .sh(
            &episode,
            "2",
            "X=changed; cd /; echo two > /work/toolz/file; echo two > toolz/file; true",
        )
        .await;
    bench.client.snapshot(keep()).await.expect("the same, once");
    let pause = PauseRequest { episode_id: episode.clone() };
    match bench.client.pause(pause).await {
        Err(status) if status.code() == Code::Unimplemented => {
            eprintln!("skipped: {}", status.message());
        }
        paused => {
            paused.expect("a pause");
            let step = bench.exec(shell(&episode, "3", "true")).await;
            assert!(step.is_err(), "{step:?}");
            let resume = ResumeRequest { episode_id: episode.clone() };
            bench.client.resume(resume).await.expect("a resume");
        }
    }
    assert_eq!(bench.sh(&episode, "4", "echo $X").await.text(), "changed");
    let fork = |snapshot: &str, id: &str| ForkRequest {
        episode_id: "paused".into(),
        snapshot: snapshot.into(),
        episode_ids: vec![id.into()],
    };
    bench.client.fork(fork("one", "then")).await.expect("a fork");
    assert_eq!(bench.sh("then", "1", "echo $X $(cat file)").await.text(), "kept one");
    let none = bench.client.fork(fork("two", "none")).await.expect_err("no such snapshot");
    assert_eq!(none.code(), Code::NotFound, "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_leaves_nothing_but_what_was_submitted() {
    if skipped() {
        return;
    }
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::start(PROGRAM, data.path());
    let client = service.episodes().await;
    let mut bench = Bench { service, client, _data: data };
    for id in ["submitted", "lost", "busy"] {
        bench.open(id).await;
    }
    bench.sh("submitted", "1", FIX).await.text();
    let before = bench.submit("submitted").await.expect("a result");
    bench.sh("lost", "1", "(sleep 1000; true) > /dev/null 2>&1 &").await;
    let busy = shell("busy", "1", "echo begun; sleep 1000");
    let mut stream = bench.client.exec(busy).await.expect("a step").into_inner();
    stream.next().await.expect("an event").expect("it runs");
    let mut footprint = Footprint::default();
    footprint.look(bench.service.pid());
    assert!(footprint.seen().0 > 6, "{footprint:?}");
    let Bench { service, _data: data, .. } = bench;
    service.kill();

    let service = Service::start(PROGRAM, data.path());
    let client = service.episodes().await;
    let mut bench = Bench { service, client, _data: data };
    for _ in 0..100 {
        if footprint.left().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(footprint.left(), Vec::<String>::new(), "left by the service that was killed");
    for id in ["lost", "busy"] {
        let gone = bench.submit(id).await.expect_err("it was lost");
        assert_eq!(gone.code(), Code::NotFound, "{gone:?}");
        assert!(gone.message().contains("the service started anew"), "{gone:?}");
    }
    let after = bench.submit("submitted").await.expect("from the journal");
    let [a, b] = [before.result, after.result].map(|result| result.expect("a result"));
    assert_eq!((a.reward, a.grade_id, a.outcome), (b.reward, b.grade_id, b.outcome));
    // Its id is spent, that of a lost one is not.
    let spent = OpenRequest { episode_id: "submitted".into(), ..opening() };
    let spent = bench.client.open(spent).await.expect_err("a spent id");
    assert_eq!(spent.code(), Code::InvalidArgument, "{spent:?}");
    bench.open("lost").await;
    assert_eq!(bench.sh("lost", "1", "echo anew").await.text(), "anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_say_what_is_wrong() {
    let Some(mut bench) = Bench::new().await else { return };
    let id = || "good".to_owned();
    let limits = |limits| OpenRequest { episode_id: id(), limits: Some(limits), ..opening() };
    for (opening, code, what) in [
        (opening(), Code::InvalidArgument, "episode_id"),
        (OpenRequest { episode_id: "x".repeat(181), ..opening() }, Code::InvalidArgument, "180"),
        (
            OpenRequest { task_id: "no.such".into(), episode_id: id(), ..opening() },
            Code::NotFound,
            "no.such",
        ),
        (
            OpenRequest { task_id: "katas.add".into(), episode_id: id(), ..opening() },
            Code::InvalidArgument,
            "function",
        ),
        (
            OpenRequest { reward: "nope".into(), episode_id: id(), ..opening() },
            Code::InvalidArgument,
            "nope",
        ),
        (
            OpenRequest { max_steps: 1 << 30, episode_id: id(), ..opening() },
            Code::InvalidArgument,
            "max_steps",
        ),
        (
            OpenRequest { lease: Some(Default::default()), episode_id: id(), ..opening() },
            Code::InvalidArgument,
            "lease",
        ),
        (
            limits(AgentLimits { wall_s: -1.0, ..Default::default() }),
            Code::InvalidArgument,
            "limits.wall_s",
        ),
        (
            limits(AgentLimits { cpu_s: f64::NAN, ..Default::default() }),
            Code::InvalidArgument,
            "limits.cpu_s",
        ),
        (
            limits(AgentLimits { memory_mb: u64::MAX, ..Default::default() }),
            Code::InvalidArgument,
            "limits.memory_mb",
        ),
    ] {
        let error = bench.client.open(opening).await.expect_err(what);
        assert!(error.code() == code && error.message().contains(what), "{what}: {error:?}");
    }
    let episode = bench.open("good").await;
    for (request, what) in [
        (ExecRequest { runs: None, ..shell(&episode, "1", "") }, "runs"),
        (shell(&episode, "", "true"), "step_id"),
        (shell(&episode, "1", &"x".repeat(100_001)), "shell"),
        (shell(&episode, "1", "a\0b"), "NUL"),
        (
            ExecRequest {
                runs: Some(Runs::Program(Program { argv: vec!["ls".into()] })),
                ..shell(&episode, "1", "")
            },
            "argv",
        ),
    ] {
        let error = bench.exec(request).await.expect_err(what);
        assert!(
            error.code() == Code::InvalidArgument && error.message().contains(what),
            "{what}: {error:?}"
        );
    }
    let signal = SignalRequest { episode_id: episode.clone(), step_id: String::new(), signal: 99 };
    assert_eq!(
        bench.client.signal(signal).await.expect_err("no signal").code(),
        Code::InvalidArgument
    );
    let error = bench.read(&episode, "").await.expect_err("no path");
    assert_eq!(error.code(), Code::InvalidArgument);
    for ids in [vec![], vec!["a".to_owned(), "a".to_owned()], vec![String::new()]] {
        let fork =
            ForkRequest { episode_id: episode.clone(), episode_ids: ids, ..Default::default() };
        assert_eq!(
            bench.client.fork(fork).await.expect_err("bad ids").code(),
            Code::InvalidArgument
        );
    }
}
