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
    Layer, LimitKind, Limits, SandboxSpec, Start, Termination, Warm,
    docker::{Docker, DockerConfig},
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
        let agent = env!("CARGO_BIN_EXE_assay-spawner").into();
        let config = DockerConfig { agent, ..DockerConfig::new(state.path()) };
        let docker = Docker::connect(config).await?;
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
        ("signal", "kill -9 $$; sleep 1", Termination::Signaled(9), ""),
        ("no network", "ls /sys/class/net | grep -v lo", Termination::Exited(1), ""),
        (
            "no capabilities",
            "grep -c 'Cap[IEPA][a-z]*:.0000000000000000' /proc/self/status",
            Termination::Exited(0),
            "4\n",
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

/// Runs something for ever, gives it up, and returns whether the backend goes on as if nothing was.
#[tokio::test]
async fn a_dropped_run_ends() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let sandbox = docker.create(spec()).await.unwrap();
    let run_it = sandbox.run(shell("touch /tmp/x dir/x; sleep 60 & sleep 60"));
    assert!(tokio::time::timeout(Duration::from_secs(1), run_it).await.is_err());
    let look = shell("ls -A /tmp; ls -A dir; set -- /proc/[0-9]*; echo $#");
    let after = run(&docker, spec(), look).await;
    // The agent and the shell.
    assert_eq!(after.stdout.lossy(), "hello.txt\n2\n");
}

/// What one sandbox leaves, the next in the same container doesn't find.
#[tokio::test]
async fn nothing_passes_from_one_sandbox_to_the_next() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let leave = "
import ctypes, os, pathlib, posix, sys
libc = ctypes.CDLL(None)
for place in ('/tmp', '/dev/shm', '.', 'dir'):
    pathlib.Path(place, 'left').write_text('x')
os.makedirs('/tmp/closed/inner'); os.chmod('/tmp/closed', 0)
os.mkfifo('/tmp/fifo'); os.symlink('/etc/passwd', '/tmp/link')
deep = os.getcwd()
for _ in range(600):
    os.mkdir('d' * 200); os.chdir('d' * 200)
os.chdir(deep)
assert libc.shmget(4711, 4096, 0o1666) >= 0
assert libc.semget(4711, 1, 0o1666) >= 0
assert libc.msgget(4711, 0o1666) >= 0
libc.mq_open(b'/left', os.O_CREAT | os.O_RDWR, 0o666, None)
for place in ('/tmp', '/dev/shm', '.'):
    try: os.setxattr(place, 'user.left', b'x')
    except OSError: pass
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: os.fork() or os.write(1, b'')
    os._exit(0)
print('left', os.getuid())
";
    let look = "
import os
tables = [len(open('/proc/sysvipc/' + kind).readlines()) - 1 for kind in ('shm', 'sem', 'msg')]
print(sorted(os.listdir('/tmp') + os.listdir('/dev/shm') + os.listdir('/dev/mqueue')
             + os.listxattr('/tmp') + os.listxattr('/dev/shm') + os.listxattr('.')),
      sorted(os.listdir('.') + os.listdir('dir')), tables,
      len([name for name in os.listdir('/proc') if name.isdigit()]))
print(os.getuid())
";
    let python = |code: &str| Command {
        argv: vec!["/usr/bin/python3".into(), "-c".into(), code.into()],
        ..Command::default()
    };
    let mut users = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let left = run(&docker, spec(), python(leave)).await;
        assert!(left.stdout.lossy().starts_with("left "), "{}", left.stderr.lossy());
        users.insert(left.stdout.lossy());
        let found = run(&docker, spec(), python(look)).await;
        let (lines, errors) = (found.stdout.lossy(), found.stderr.lossy());
        let clean = "[] ['dir', 'hello.txt'] [0, 0, 0] 2";
        assert_eq!(lines.lines().next(), Some(clean), "{errors}");
        users.insert(lines.lines().nth(1).unwrap_or_default().to_owned());
    }
    assert_eq!(users.len(), 6, "every sandbox has a user of its own: {users:?}");
}

/// A command that may come from a warm interpreter does, with the same surroundings as a cold one.
#[tokio::test]
async fn warm_interpreters_fork_into_sandboxes() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let script = "
import os, sys
print(os.getuid() > 1000, os.getgroups(), os.getcwd(), sys.argv, sorted(os.listdir('.')))
print(sorted(os.environ.items()), sys.flags.hash_randomization, os.umask(0), os.getsid(0) == os.getpid())
print([line for line in open('/proc/self/status') if line.startswith(('Cap', 'Seccomp:', 'NoNew'))][0:6])
print(sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[:4], os.read(0, 9))
os.write(3, b'told')
";
    let trusted = BTreeMap::from([(PathBuf::from("/assay/script.py"), script.as_bytes().into())]);
    let spec = SandboxSpec { trusted: Arc::new(trusted), ..spec() };
    let argv = ["/usr/bin/python3", "-P", "-s", "-B", "/assay/script.py", "one"];
    let command = |warm| Command {
        argv: argv.map(str::to_owned).into(),
        env: BTreeMap::from([("A".into(), "b".into())]),
        cwd: "dir".into(),
        stdin: b"in"[..].into(),
        channels: vec![Channel { fd: 3, end: ChannelEnd::Collect { max_bytes: 100 } }],
        warm,
        ..Command::default()
    };
    let warm = Warm { modules: vec!["json".into()], programs: Arc::default() };
    let cold = run(&docker, spec.clone(), command(None)).await;
    assert_eq!(cold.channels[0].head, b"told", "{}", cold.stderr.lossy());
    for _ in 0..3 {
        let forked = run(&docker, spec.clone(), command(Some(warm.clone()))).await;
        assert_eq!(forked.isolation.start, Start::Warm, "{}", forked.stderr.lossy());
        assert_eq!(forked.stdout.lossy(), cold.stdout.lossy());
        assert_eq!(forked.channels, cold.channels);
    }
    // A module that the interpreter holds, in the work tree.
    let file = FileEntry::File { content: Arc::default(), executable: false };
    let shadow = BTreeMap::from([(PathBuf::from("dir/json.py"), file)]);
    let shadowed = SandboxSpec { layers: vec![Layer::Files(Arc::new(shadow))], ..spec };
    let start = run(&docker, shadowed, command(Some(warm))).await.isolation.start;
    assert!(matches!(&start, Start::ColdInstead(why) if why.contains("json")), "{start:?}");
}

/// Two sandboxes talk over a socket pair of ours, and see each other's end.
#[tokio::test]
async fn a_socket_pair_joins_two_sandboxes() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let python = |code: &str, end: std::os::unix::net::UnixStream| Command {
        argv: vec!["/usr/bin/python3".into(), "-c".into(), code.into()],
        channels: vec![Channel { fd: 4, end: ChannelEnd::Fd(end.into()) }],
        ..Command::default()
    };
    let ask = "
import socket
it = socket.socket(fileno=4)
it.sendall(b'x' * 300000); it.shutdown(socket.SHUT_WR)
data = b''
while part := it.recv(65536): data += part
print(len(data), data[:3])
";
    let answer = "
import socket
it = socket.socket(fileno=4)
data = b''
while part := it.recv(65536): data += part
it.sendall(data.replace(b'x', b'yz'))
";
    let (asked, answered) = tokio::join!(
        run(&docker, spec(), python(ask, one)),
        run(&docker, spec(), python(answer, other)),
    );
    assert_eq!(asked.stdout.lossy(), "600000 b'yzy'\n", "{}", asked.stderr.lossy());
    assert!(answered.termination.success(), "{}", answered.stderr.lossy());
}

#[tokio::test]
async fn a_command_that_is_stopped_says_what_it_used() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let code = "import os, time\n\
                while time.process_time() < 0.3: pass\n\
                os.write(4, b'.'); time.sleep(1000)";
    let command = Command {
        argv: vec!["/usr/bin/python3".into(), "-c".into(), code.into()],
        channels: vec![Channel { fd: 4, end: ChannelEnd::Fd(theirs.into()) }],
        ..Command::default()
    };
    let stop = command.stop.clone();
    let stopping = tokio::task::spawn_blocking(move || {
        let mut ours = ours;
        std::io::Read::read_exact(&mut ours, &mut [0]).unwrap();
        stop.cancel();
    });
    let execution = run(&docker, spec(), command).await;
    stopping.await.unwrap();
    assert_eq!(execution.termination, Termination::Signaled(9), "{}", execution.stderr.lossy());
    assert!(execution.usage.cpu >= Duration::from_millis(300), "{:?}", execution.usage);
}

/// What a slow reader doesn't take waits, however much it is.
#[tokio::test]
async fn a_slow_reader_gets_all_of_its_input() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let code = "import sys, time; time.sleep(0.5); print(len(sys.stdin.buffer.read()))";
    let command = Command {
        argv: vec!["/usr/bin/python3".into(), "-c".into(), code.into()],
        stdin: vec![b'x'; 40 << 20].into(),
        ..Command::default()
    };
    let execution = run(&docker, spec(), command).await;
    assert_eq!(execution.stdout.lossy(), "41943040\n", "{}", execution.stderr.lossy());
}

/// Two sandboxes that write to each other and don't read end at their own limits.
#[tokio::test]
async fn two_that_only_talk_end_at_their_limits() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let talk = |end: std::os::unix::net::UnixStream| Command {
        argv: ["/usr/bin/python3", "-c", "import os\nwhile True: os.write(4, bytes(65536))"]
            .map(str::to_owned)
            .into(),
        channels: vec![Channel { fd: 4, end: ChannelEnd::Fd(end.into()) }],
        ..Command::default()
    };
    let mut short = spec();
    short.limits.wall = Duration::from_secs(1);
    let both = async {
        tokio::join!(run(&docker, short.clone(), talk(one)), run(&docker, short, talk(other)))
    };
    let (one, other) = tokio::time::timeout(Duration::from_secs(30), both).await.expect("an end");
    for execution in [one, other] {
        // The second may see that the first is gone.
        assert!(!execution.termination.success(), "{:?}", execution.termination);
    }
}

/// Writers that are faster than any reader don't keep a limit from being seen.
#[tokio::test]
async fn a_flood_that_never_ends_meets_the_limit() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let code = "
import fcntl, os
fcntl.fcntl(1, 1031, 1 << 20)
for _ in range(5): os.fork()
while True: os.write(1, bytes(1 << 20))
";
    let command = Command {
        argv: vec!["/usr/bin/python3".into(), "-c".into(), code.into()],
        ..Command::default()
    };
    let mut short = spec();
    short.limits.wall = Duration::from_secs(1);
    let ran = tokio::time::timeout(Duration::from_secs(30), run(&docker, short, command)).await;
    let ended = ran.expect("an end").termination;
    assert!(matches!(ended, Termination::Limit(_)), "{ended:?}");
}

/// An interpreter that dies with a command is made up for, and another comes.
#[tokio::test]
async fn a_lost_interpreter_is_replaced() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let trusted = [("/assay/script.py".into(), b"print('ran')"[..].into())];
    let mut spec = SandboxSpec { trusted: Arc::new(trusted.into()), ..spec() };
    spec.limits.pids = 61; // one container, this test's alone
    let argv = ["/usr/bin/python3", "-P", "/assay/script.py"];
    let module = "colorsys"; // no other test's
    let warm = Warm { modules: vec![module.into()], programs: Arc::default() };
    let command = || Command {
        argv: argv.map(str::to_owned).into(),
        warm: Some(warm.clone()),
        ..Command::default()
    };
    assert_eq!(run(&docker, spec.clone(), command()).await.isolation.start, Start::Warm);
    let interpreters = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let found = String::from_utf8_lossy(&line).contains(module);
        found.then(|| entry.file_name().to_str()?.parse::<i32>().ok()).flatten()
    });
    let interpreters: Vec<_> = interpreters.collect();
    assert_eq!(interpreters.len(), 1, "the test sees the machine's processes");
    let signal = |signal| {
        for pid in &interpreters {
            let pid = rustix::process::Pid::from_raw(*pid).unwrap();
            let _ = rustix::process::kill_process(pid, signal);
        }
    };
    // It has the command when it dies.
    signal(rustix::process::Signal::STOP);
    let dies = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        signal(rustix::process::Signal::KILL);
    };
    let (ran, ()) = tokio::join!(run(&docker, spec.clone(), command()), dies);
    let start = ran.isolation.start;
    assert_eq!(ran.stdout.lossy(), "ran\n");
    assert!(matches!(start, Start::ColdInstead(_)), "{start:?}");
    assert_eq!(run(&docker, spec, command()).await.isolation.start, Start::Warm);
}

/// Connections of one sandbox don't take the ports of the next.
#[tokio::test]
async fn ports_are_free_again() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let code = "
import socket
server = socket.socket(); server.bind(('127.0.0.1', 8000)); server.listen()
client = socket.create_connection(('127.0.0.1', 8000)); one, _ = server.accept()
one.close(); client.close(); server.close(); print('served')
";
    for _ in 0..3 {
        let command = Command {
            argv: vec!["/usr/bin/python3".into(), "-c".into(), code.into()],
            ..Command::default()
        };
        let execution = run(&docker, spec(), command).await;
        assert_eq!(execution.stdout.lossy(), "served\n", "{}", execution.stderr.lossy());
    }
}

/// With the backend go its containers, also that of a run that nobody waits for.
#[tokio::test]
async fn a_dropped_backend_leaves_no_container() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let mut spec = spec();
    spec.limits.pids = 63; // containers of this test alone
    run(&docker, spec.clone(), shell("true")).await;
    let sandbox = docker.create(spec).await.unwrap();
    let run = sandbox.run(shell("sleep 60"));
    assert!(tokio::time::timeout(Duration::from_millis(300), run).await.is_err());
    drop(docker);
    let client = bollard::Docker::connect_with_defaults().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let all = client.list_containers(None).await.unwrap();
        let mut left = 0;
        for one in all {
            let found = client.inspect_container(&one.id.unwrap_or_default(), None).await;
            let limit = found.ok().and_then(|it| it.host_config?.pids_limit);
            left += usize::from(limit == Some(63 + 4));
        }
        if left == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{left} still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn refuses_what_it_cannot_do() {
    let Some(Engine { docker, _state }) = engine().await else { return };
    let missing = SandboxSpec { image: ImageRef::Docker("assay-no-such:1".into()), ..spec() };
    assert!(matches!(docker.create(missing).await, Err(BackendError::ImageNotFound(_))));
    let rootfs = ImageRef::Rootfs { path: "/".into(), digest: "sha256:0".into() };
    let trusted = BTreeMap::from([(PathBuf::from("/etc/passwd"), b""[..].into())]);
    for unsupported in [
        SandboxSpec { image: rootfs, ..spec() },
        SandboxSpec { workdir: "/assay/work".into(), ..spec() },
        SandboxSpec { trusted: Arc::new(trusted), ..spec() },
    ] {
        let refused = docker.create(unsupported).await;
        assert!(matches!(refused, Err(BackendError::Unsupported { .. })));
    }
}
