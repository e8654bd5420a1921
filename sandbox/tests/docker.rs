//! The Docker backend against a real engine and the image that `scripts/docker-image.sh` makes.
#![cfg(feature = "docker")]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use assay_sandbox::{
    Backend as _, BackendError, Channel, ChannelEnd, Command, Execution, FileEntry, ImageRef,
    Layer, LimitKind, Limits, SandboxSpec, Termination, docker::Docker,
};

const IMAGE: &str = "assay-python:1";

struct Engine {
    docker: Docker,
    _state: tempfile::TempDir,
}

/// Returns `None`, having said why, where there is no engine or no image.
async fn engine() -> Option<Engine> {
    let state = tempfile::tempdir().unwrap();
    let found = async {
        let docker = Docker::connect(state.path().to_owned()).await?;
        docker.image_digest(IMAGE).await.map(|_| docker)
    };
    match found.await {
        Ok(docker) => Some(Engine { docker, _state: state }),
        Err(error) => {
            eprintln!("skipped: {error}; `scripts/docker-image.sh` starts one and makes the image");
            None
        }
    }
}

fn spec() -> SandboxSpec {
    let files = BTreeMap::from([(
        PathBuf::from("dir/hello.txt"),
        FileEntry::File { content: b"hello\n"[..].into(), executable: false },
    )]);
    SandboxSpec {
        image: ImageRef::Docker(IMAGE.into()),
        workdir: "/workspace".into(),
        layers: vec![Layer::Files(Arc::new(files))],
        trusted: Arc::new(BTreeMap::from([("/assay/trusted".into(), b"trusted\n"[..].into())])),
        limits: Limits { wall: Duration::from_secs(20), pids: 64, ..Limits::default() },
    }
}

fn shell(script: &str) -> Command {
    Command {
        argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
        env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
        ..Command::default()
    }
}

async fn run(docker: &Docker, spec: SandboxSpec, command: Command) -> Execution {
    docker.create(spec).await.unwrap().run(command).await.unwrap()
}

#[tokio::test]
async fn runs_what_it_is_told_and_reports_what_came_of_it() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let cases = [
        ("exit status", "exit 7", Termination::Exited(7), ""),
        ("work tree", "cat dir/hello.txt", Termination::Exited(0), "hello\n"),
        (
            "the work tree is writable",
            "echo x > dir/y && ls dir",
            Termination::Exited(0),
            "hello.txt\ny\n",
        ),
        ("trusted file", "cat /assay/trusted", Termination::Exited(0), "trusted\n"),
        (
            "trusted stays",
            "rm -f /assay/trusted 2>/dev/null; echo x > /assay/trusted",
            Termination::Exited(2),
            "",
        ),
        ("root stays", "touch /usr/x 2>/dev/null", Termination::Exited(1), ""),
        (
            "environment",
            "env -u PWD -u OLDPWD -u _ env",
            Termination::Exited(0),
            "PATH=/usr/bin:/bin\n",
        ),
        ("signal", "kill -9 $$; sleep 1", Termination::Exited(0), ""),
        ("no network", "ls /sys/class/net | grep -v lo", Termination::Exited(1), ""),
        (
            "no capabilities",
            "grep -c 'Cap[EPB].*:.0000000000000000' /proc/self/status",
            Termination::Exited(0),
            "3\n",
        ),
    ];
    for (name, script, termination, stdout) in cases {
        let execution = run(&docker, spec(), shell(script)).await;
        let got = (execution.termination, execution.stdout.lossy());
        assert_eq!(got, (termination, stdout.to_owned()), "{name}: {}", execution.stderr.lossy());
    }
}

#[tokio::test]
async fn stdin_and_channels_cross() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let command = Command {
        stdin: b"from outside\n"[..].into(),
        channels: vec![Channel { fd: 3, end: ChannelEnd::Collect { max_bytes: 1000 } }],
        ..shell("cat >&3; seq 1000 >&3; echo done")
    };
    let execution = run(&docker, spec(), command).await;
    assert_eq!(execution.stdout.lossy(), "done\n", "{}", execution.stderr.lossy());
    let channel = &execution.channels[0];
    assert!(channel.head.starts_with(b"from outside\n1\n2\n"), "{}", channel.lossy());
    assert_eq!((channel.head.len(), channel.dropped), (1000, 13 + 3893 - 1000));
}

#[tokio::test]
async fn limits_end_what_goes_over_them() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let python = |code: &str| Command {
        argv: vec!["/usr/bin/python3".into(), "-c".into(), code.into()],
        ..Command::default()
    };
    let small = |change: fn(&mut Limits)| {
        let mut spec = spec();
        spec.limits.memory_bytes = 64 << 20;
        spec.limits.disk_bytes = 16 << 20;
        change(&mut spec.limits);
        spec
    };
    let limit = |kind| Termination::Limit(kind);
    let cases = [
        (
            "wall",
            small(|l| l.wall = Duration::from_secs(1)),
            python("import time; time.sleep(60)"),
            limit(LimitKind::Wall),
        ),
        (
            "cpu",
            small(|l| l.cpu = Duration::from_secs(1)),
            python("while True: pass"),
            limit(LimitKind::Cpu),
        ),
        ("memory", small(|_| ()), python("x = bytearray(1 << 30)"), limit(LimitKind::Memory)),
        (
            "disk",
            small(|_| ()),
            shell("head -c 100000000 /dev/zero > big; test $? = 1 && ! : > /tmp/x || echo ENOSPC"),
            Termination::Exited(0),
        ),
        (
            "a fork bomb ends by itself",
            small(|l| l.pids = 16),
            shell("for i in $(seq 50); do sleep 30 & done; exit 3"),
            Termination::Exited(2),
        ),
    ];
    for (name, spec, command, expected) in cases {
        let execution = run(&docker, spec, command).await;
        // Under load the machine itself may be what ran out of time.
        let got = match execution.termination {
            Termination::Limit(LimitKind::WallStarved) => limit(LimitKind::Wall),
            other => other,
        };
        assert_eq!(got, expected, "{name}: {}", execution.stderr.lossy());
    }
}

#[tokio::test]
async fn a_flood_of_output_is_bounded() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let mut spec = spec();
    spec.limits.output_bytes = 1000;
    let execution = run(&docker, spec, shell("head -c 50000000 /dev/zero; echo end")).await;
    assert_eq!(execution.termination, Termination::Exited(0));
    assert_eq!(execution.stdout.head.len(), 500);
    assert!(execution.stdout.tail.ends_with(b"end\n"));
    assert_eq!(execution.stdout.dropped, 50_000_004 - 1000);
}

#[tokio::test]
async fn a_dropped_run_leaves_no_container() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let sandbox = docker.create(spec()).await.unwrap();
    let name = format!("assay-{}", sandbox.id());
    let run = sandbox.run(shell("sleep 60"));
    assert!(tokio::time::timeout(Duration::from_secs(2), run).await.is_err());
    let client = bollard::Docker::connect_with_defaults().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.inspect_container(&name, None).await.is_ok() {
        assert!(Instant::now() < deadline, "{name} is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn refuses_what_it_cannot_do() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let missing = SandboxSpec { image: ImageRef::Docker("assay-no-such:1".into()), ..spec() };
    assert!(matches!(docker.create(missing).await, Err(BackendError::ImageNotFound(_))));
    let rootfs = ImageRef::Rootfs { path: "/".into(), digest: "sha256:0".into() };
    let refused = docker.create(SandboxSpec { image: rootfs, ..spec() }).await;
    assert!(matches!(refused, Err(BackendError::Unsupported { .. })));
    let fd = std::fs::File::open("/dev/null").unwrap().into();
    let command =
        Command { channels: vec![Channel { fd: 4, end: ChannelEnd::Fd(fd) }], ..shell("true") };
    let refused = docker.create(spec()).await.unwrap().run(command).await;
    assert!(matches!(refused, Err(BackendError::Unsupported { .. })));
}
