//! Sessions: several commands in one sandbox, and everything that agents need around them.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use assay_sandbox::{
    Backend, Channel, ChannelEnd, Command, Content, Ended, Event, Frozen, LimitKind, Limits, Over,
    Pick, Process, SandboxSpec, Session, SessionError, SessionSpec, Snapshot, Stream, Termination,
    native::{Native, NativeConfig},
};

use crate::{
    common::{
        DAEMON, Fixture, command, file, files, limited, native, native_of_one_slot, python, sh,
        spec,
    },
    leftovers::{mark, processes, until},
};

const LONG: Duration = Duration::from_secs(300);

/// Opens a session that nobody forgets.
async fn open(native: &Fixture, sandbox: SandboxSpec) -> Box<dyn Session> {
    open_from(native, sandbox, None).await
}

async fn open_from(
    native: &Fixture,
    sandbox: SandboxSpec,
    from: Option<Snapshot>,
) -> Box<dyn Session> {
    native.open(SessionSpec { sandbox, from, lease: LONG }).await.expect("a session")
}

/// What a command of a session left behind, all of its output put together.
#[derive(Debug)]
struct Left {
    ended: Box<Ended>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    dropped: u64,
}

impl Left {
    fn text(&self) -> String {
        assert_eq!(self.ended.termination, Termination::Exited(0), "{self:?}");
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

async fn finish(mut process: Box<dyn Process>) -> Result<Left, SessionError> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match process.next().await? {
            Event::Output(Stream::Stdout, bytes) => stdout.extend(bytes),
            Event::Output(Stream::Stderr, bytes) => stderr.extend(bytes),
            Event::Ended(ended) => {
                for (all, rest) in [(&mut stdout, &ended.stdout), (&mut stderr, &ended.stderr)] {
                    all.extend(&rest.head);
                    all.extend(&rest.tail);
                }
                let dropped = ended.stdout.dropped + ended.stderr.dropped;
                return Ok(Left { ended, stdout, stderr, dropped });
            }
        }
    }
}

async fn try_run(session: &dyn Session, command: Command) -> Result<Left, SessionError> {
    finish(session.start(command, LONG).await?).await
}

async fn run(session: &dyn Session, command: Command) -> Left {
    try_run(session, command).await.expect("an end")
}

async fn text(session: &dyn Session, script: &str) -> String {
    run(session, sh(script)).await.text()
}

async fn read(session: &dyn Session, path: &str) -> Result<Vec<u8>, SessionError> {
    session.read(Path::new(path), 0, 1 << 20).await.map(|(content, _)| content)
}

#[tokio::test]
async fn commands_share_files_and_processes() {
    let Some(native) = native() else { return };
    let session = open(&native, spec()).await;
    let session = &*session;
    assert_eq!(text(session, "echo one > file; pwd; id -u").await, "/work\n1000");
    assert_eq!(text(session, "cat file; echo >&2 no").await, "one");
    text(session, "sleep 1000 > /dev/null 2>&1 &").await;
    assert_eq!(text(session, "cat /proc/[0-9]*/comm | grep -c sleep").await, "1", "left running");
    let failed = run(session, sh("echo out; echo err >&2; exit 7")).await;
    assert_eq!(failed.ended.termination, Termination::Exited(7));
    assert_eq!((&*failed.stdout, &*failed.stderr), (&b"out\n"[..], &b"err\n"[..]));
    for (argv, status) in [("/not/there", 127), ("/work/file", 126)] {
        let left = run(session, command(&[argv])).await;
        assert_eq!(left.ended.termination, Termination::Exited(status), "{left:?}");
    }
    text(session, "mkdir below").await;
    let below = Command { cwd: "below".into(), ..sh("pwd") };
    assert_eq!(run(session, below).await.text(), "/work/below");
    let nowhere = Command { cwd: "nowhere".into(), ..sh("pwd") };
    assert_eq!(run(session, nowhere).await.ended.termination, Termination::Exited(126));
    let fed = Command { stdin: b"fed"[..].into(), ..sh("cat") };
    assert_eq!(run(session, fed).await.text(), "fed");
    assert_eq!(text(session, "cat").await, "", "stdin ends where there is none");
    // Its own descriptors and collected ones, in any order.
    let (reader, mut writer) = io::pipe().expect("a pipe");
    io::Write::write_all(&mut writer, b"through").expect("a write");
    drop(writer);
    let channels = vec![
        Channel { fd: 6, end: ChannelEnd::Fd(reader.into()) },
        Channel { fd: 5, end: ChannelEnd::Collect { max_bytes: 4 } },
    ];
    let told = run(session, Command { channels, ..sh("cat <&6 >&5") }).await;
    assert_eq!(told.ended.channels[0].head, b"thro");
}

#[tokio::test]
async fn commands_run_side_by_side() {
    let Some(native) = native() else { return };
    let session = open(&native, spec()).await;
    let reader =
        session.start(sh("mkfifo pipe; echo made; cat pipe"), LONG).await.expect("a start");
    let mut reader = reader;
    // Its output comes while it runs.
    let made = reader.next().await.expect("output");
    assert!(
        matches!(&made, Event::Output(Stream::Stdout, bytes) if bytes == b"made\n"),
        "{made:?}"
    );
    text(&*session, "echo through > pipe").await;
    assert_eq!(finish(reader).await.expect("an end").text(), "through");
}

#[tokio::test]
async fn signals_reach_a_command_or_all() {
    let Some(native) = native() else { return };
    let session = open(&native, spec()).await;
    let script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut process = session.start(sh(script), LONG).await.expect("a start");
    process.next().await.expect("it is ready");
    session.signal(process.number(), libc::SIGTERM).await.expect("a signal");
    let left = finish(process).await.expect("an end");
    assert_eq!(left.ended.termination, Termination::Exited(3), "{left:?}");
    assert_eq!(left.stdout, b"caught\n");

    text(&*session, &format!("{DAEMON} sleep 1000 & sleep 1000 > /dev/null 2>&1 &")).await;
    session.signal(0, libc::SIGKILL).await.expect("a signal");
    // What is killed takes a moment to go.
    let gone =
        "for i in $(seq 500); do cat /proc/[0-9]*/comm | grep -q sleep || exit 0; done; exit 1";
    text(&*session, gone).await;
    session.signal(99, libc::SIGKILL).await.expect("nobody is no error");

    // Whoever drops a command ends it.
    drop(session.start(sh("exec sleep 1000"), LONG).await.expect("a start"));
    text(&*session, gone).await;
}

#[tokio::test]
async fn a_command_has_a_time_of_its_own() {
    let Some(native) = native() else { return };
    let session = open(&native, spec()).await;
    let script = "echo before; sleep 1000 & wait";
    let process = session.start(sh(script), Duration::from_millis(300)).await.expect("a start");
    let left = finish(process).await.expect("an end");
    let kinds = [LimitKind::Wall, LimitKind::WallStarved].map(Termination::Limit);
    assert!(kinds.contains(&left.ended.termination), "{left:?}");
    assert_eq!(left.stdout, b"before\n");
    assert_eq!(text(&*session, "echo on").await, "on", "the session goes on");
}

#[tokio::test]
async fn a_command_whose_cpu_others_take_is_starved() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Some(native) = native() else { return };
    let session = open(&native, spec()).await;
    let mine = sched_getaffinity(None).expect("CPUs");
    let cpu = (0..CpuSet::MAX_CPU).find(|cpu| mine.is_set(*cpu)).expect("a CPU");
    let over = Arc::new(AtomicBool::new(false));
    let taker = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let mut one = CpuSet::new();
            one.set(cpu);
            sched_setaffinity(None, &one).expect("a CPU");
            while !over.load(Relaxed) {
                std::hint::spin_loop();
            }
        }
    });
    let spin = format!(
        "import os\nos.sched_setaffinity(0, {{{cpu}}})\nos.nice(19)\nprint('spins', flush=True)\nwhile True: pass"
    );
    let process = session.start(python(&spin), Duration::from_secs(2)).await.expect("a start");
    let left = finish(process).await.expect("an end");
    over.store(true, Relaxed);
    taker.join().expect("no panic");
    assert_eq!(left.stdout, b"spins\n", "{left:?}");
    assert_eq!(left.ended.termination, Termination::Limit(LimitKind::WallStarved), "{left:?}");
}

#[tokio::test]
async fn floods_are_cut_byte_by_byte() {
    let Some(native) = native() else { return };
    let session = open(&native, limited(|limits| limits.output_bytes = 1001)).await;
    let script =
        "import sys; sys.stdout.write('<' + 'x' * 9_999_998 + '>'); sys.stderr.write('e' * 1001)";
    let left = run(&*session, python(script)).await;
    assert_eq!(left.dropped, 10_000_000 - 1001);
    assert_eq!((left.stdout.len(), left.stderr.len()), (1001, 1001));
    assert_eq!((left.stdout[0], left.stdout[1000]), (b'<', b'>'));
    // One that goes on when its command is over harms nobody, and is not ended by it.
    text(&*session, "yes & echo $! > pid").await;
    assert_eq!(text(&*session, "kill -0 $(cat pid) && echo alive").await, "alive");
}

#[tokio::test]
async fn files_are_read_and_written_as_the_user_would() {
    let Some(native) = native() else { return };
    let session =
        open(&native, SandboxSpec { layers: vec![files([("old", file("old"))])], ..spec() }).await;
    let session = &*session;
    let write = async |path: &str, content: &'static [u8], executable| {
        session.write(Path::new(path), content.into(), executable).await
    };
    write("a/b/new", b"new", false).await.expect("a file in new folders");
    write("/tmp/run", b"#!/bin/sh\necho ran", true).await.expect("a program");
    write("old", b"n", false).await.expect("a shorter file");
    assert_eq!(
        text(session, "cat a/b/new old; /tmp/run; stat -c %u:%a a/b/new").await,
        "newnran\n1000:644"
    );
    let big: Arc<[u8]> = (0..3_000_000_u32).map(|n| n as u8).collect();
    session.write(Path::new("big"), Arc::clone(&big), false).await.expect("a large file");
    let part = session.read(Path::new("big"), 1_000_000, 70_000).await.expect("a part");
    assert_eq!((&part.0[..], part.1), (&big[1_000_000..1_070_000], 3_000_000));
    assert_eq!(session.read(Path::new("big"), 4_000_000, 9).await.expect("nothing").0, b"");
    assert_eq!(
        read(session, "/etc/hostname").await.ok(),
        std::fs::read(crate::common::rootfs().unwrap().join("etc/hostname")).ok()
    );

    text(session, "ln -s /etc/passwd leak; ln -s ../../../../../../etc/passwd far; ln -s /proc/1/root/etc/passwd magic; \
        ln -s loop loop; mkfifo pipe; mkdir folder; touch closed; chmod 0 closed; ln -s old good; ln -s /dev/zero endless").await;
    assert_eq!(read(session, "good").await.expect("a link inside"), b"n");
    // Links lead to the image's file, and never to the host's.
    let inside =
        std::fs::read(crate::common::rootfs().unwrap().join("etc/passwd")).expect("the image's");
    for link in ["leak", "far"] {
        assert_eq!(read(session, link).await.expect("the image's"), inside);
    }
    for (path, expected) in [
        ("pipe", "is a pipe"),
        ("folder", "is a directory"),
        ("endless", "is a device"),
        ("closed", "Permission denied"),
        ("loop", "Too many levels"),
        ("missing", "No such file"),
        ("old/below", "Not a directory"),
        ("/proc/1/environ", ""),
        ("/proc/1/mem", ""),
        ("magic", ""),
        ("/proc/self/fd/0", ""),
    ] {
        let error = read(session, path).await.expect_err(path);
        assert!(
            matches!(error, SessionError::File { .. }) && error.to_string().contains(expected),
            "{path}: {error}"
        );
    }
    text(session, "sleep 1000 > /dev/null 2>&1 & echo $! > pid").await;
    let pid = String::from_utf8(read(session, "pid").await.expect("a number")).expect("text");
    let score = format!("/proc/{}/oom_score_adj", pid.trim());
    for path in [
        "/etc/passwd",
        "/usr/bin/python3",
        "leak",
        "folder",
        "/proc/1/oom_score_adj",
        &score,
        "/new",
    ] {
        let error = write(path, b"1000", false).await.expect_err(path);
        assert!(matches!(error, SessionError::File { .. }), "{path}: {error}");
    }
    let error = write("a\0b", b"x", false).await.expect_err("a NUL");
    assert!(
        matches!(error, SessionError::File { kind: io::ErrorKind::InvalidInput, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_pipe_with_a_reader_is_not_written_to() {
    let Some(native) = native() else { return };
    let session = open(&native, spec()).await;
    let mut reader =
        session.start(sh("mkfifo pipe; echo made; cat < pipe"), LONG).await.expect("a start");
    reader.next().await.expect("it is made");
    let wrote = session.write(Path::new("pipe"), b"x"[..].into(), false).await;
    assert!(matches!(wrote, Err(SessionError::File { .. })), "{wrote:?}");
}

#[tokio::test]
async fn a_snapshot_is_the_tree_as_it_was() {
    let Some(native) = native() else { return };
    let layers = vec![files([
        ("kept", file("kept")),
        ("gone", file("gone")),
        ("new/old", file("old")),
        ("part/a", file("a")),
        ("part/b", file("b")),
    ])];
    let sandbox = SandboxSpec { layers, ..spec() };
    let session = open(&native, sandbox.clone()).await;
    text(
        &*session,
        "rm gone; rm -r new; mkdir new; echo n > new/new; echo A > part/a; rm part/b; mkdir empty; ln -s /etc/passwd link; \
         mkfifo pipe; touch -d @1000 dated; echo x > run; chmod 755 run; mkdir -m 0 shut; mkdir -p deep/er; chmod 500 deep; \
         truncate -s 200M sparse; echo tail >> sparse; echo t > /tmp/t; printf '' > nothing",
    )
    .await;
    let snapshot = session.snapshot().await.expect("a snapshot");
    assert!(snapshot.bytes() < 1 << 20, "holes take no room: {}", snapshot.bytes());
    let entries = snapshot.work_tree(&Pick::all(1000, 10_000)).expect("its entries");
    let what = |path: &str| {
        entries.iter().find(|entry| entry.path == Path::new(path)).map(|entry| &entry.what)
    };
    let file = |content: &str, executable| Frozen::File {
        bytes: content.len() as u64,
        content: Content::Kept(content.as_bytes().into()),
        executable,
    };
    for (path, expected) in [
        ("gone", Some(Frozen::Absent)),
        ("new", Some(Frozen::Directory { hides: true })),
        ("new/new", Some(file("n\n", false))),
        ("part", Some(Frozen::Directory { hides: false })),
        ("part/a", Some(file("A\n", false))),
        ("part/b", Some(Frozen::Absent)),
        ("run", Some(file("x\n", true))),
        ("link", Some(Frozen::Symlink("/etc/passwd".into()))),
        ("pipe", Some(Frozen::Pipe)),
        (
            "sparse",
            Some(Frozen::File {
                bytes: (200 << 20) + 5,
                content: Content::TooLarge,
                executable: false,
            }),
        ),
        ("kept", None),
        ("t", None),
    ] {
        assert_eq!(what(path), expected.as_ref(), "{path}");
    }
    // Changed afterwards, in one; the others are what it was.
    text(&*session, "echo later > kept; rm -rf new").await;
    let look = "find . | sort; stat -c '%n %a %Y' dated run shut deep; cat kept new/new part/a /tmp/t; readlink link; \
        stat -c %s sparse; tail -c 5 sparse; test -p pipe && cat nothing";
    let mut seen = Vec::new();
    for _ in 0..3 {
        let fork = open_from(&native, sandbox.clone(), Some(snapshot.clone())).await;
        seen.push(text(&*fork, look).await);
        text(&*fork, "rm -rf new /tmp/t; echo own > kept").await;
        drop(fork);
    }
    assert!(
        seen[0].contains("./deep/er\n./empty\n./kept\n./link\n./new\n./new/new\n"),
        "{}",
        seen[0]
    );
    assert!(
        seen[0].contains("dated 644 1000\nrun 755 ") && seen[0].contains("shut 0 "),
        "{}",
        seen[0]
    );
    assert!(seen[0].ends_with("keptn\nA\nt\n/etc/passwd\n209715205\ntail"), "{}", seen[0]);
    assert!(seen.iter().all(|other| other == &seen[0]), "{seen:?}");
}

#[tokio::test]
async fn names_of_one_file_stay_names_of_one_file() {
    let Some(native) = native() else { return };
    let sandbox = limited(|limits| limits.disk_bytes = 32 << 20);
    let session = open(&native, sandbox.clone()).await;
    let script = "head -c 8000000 /dev/urandom > big; mkdir d; for n in $(seq 20); do ln big d/$n; done; \
        echo t > /tmp/t; ln /tmp/t /tmp/u; ln -s big soft; ln soft harder; mkfifo pipe; ln pipe pipe2; md5sum < big";
    let sum = text(&*session, script).await;
    let snapshot = session.snapshot().await.expect("a snapshot");
    assert!(snapshot.bytes() < 10 << 20, "the file is there once: {}", snapshot.bytes());
    let entries = snapshot.work_tree(&Pick::all(9 << 20, 9 << 20)).expect("its entries");
    let whole = |entry: &&assay_sandbox::FrozenEntry| matches!(&entry.what, Frozen::File { bytes: 8_000_000, content: Content::Kept(content), .. } if content.len() == 8_000_000);
    assert_eq!(entries.iter().filter(whole).count(), 21, "under every name");
    let fork = open_from(&native, sandbox, Some(snapshot)).await;
    let look = "md5sum < d/20; stat -c %h big /tmp/u; readlink harder; test -p pipe2 && echo y >> d/7 && tail -c 2 big";
    assert_eq!(text(&*fork, look).await, format!("{sum}\n21\n2\nbig\ny"));
}

#[tokio::test]
async fn all_snapshots_together_have_so_much_room() {
    if native().is_none() {
        return;
    }
    let state = tempfile::tempdir().expect("a folder");
    let native = Native::start(NativeConfig {
        spawner: crate::common::spawner(),
        snapshot_bytes: 6 << 20,
        ..NativeConfig::new(state.path())
    });
    let native = native.expect("a backend");
    let spec = || SessionSpec { sandbox: spec(), from: None, lease: LONG };
    let sessions = [native.open(spec()).await, native.open(spec()).await].map(Result::unwrap);
    for session in &sessions {
        text(&**session, "head -c 4000000 /dev/urandom > file").await;
    }
    let kept = sessions[0].snapshot().await.expect("room for one");
    for session in &sessions {
        let refused = session.snapshot().await;
        assert!(matches!(refused, Err(SessionError::NoRoom { bytes: 6_291_456 })), "{refused:?}");
    }
    text(&*sessions[0], "rm file").await;
    let small = sessions[0].snapshot().await.expect("room for a small one");
    drop(kept);
    sessions[1].snapshot().await.expect("room again");
    drop(small);
}

#[tokio::test]
async fn what_is_paused_stands_still() {
    let Some(native) = native() else { return };
    let session = open(&native, spec()).await;
    text(&*session, "while :; do echo x >> log; sleep 0.01; done > /dev/null 2>&1 &").await;
    text(&*session, "while [ ! -s log ]; do sleep 0.01; done").await;
    match session.pause().await {
        Err(SessionError::Backend(assay_sandbox::BackendError::Unsupported { .. })) => {
            println!("skipped: no v2 control group of ours here");
            return;
        }
        paused => paused.expect("a pause"),
    }
    let before = read(&*session, "log").await.expect("its log");
    let refused = try_run(&*session, sh("true")).await;
    assert!(matches!(refused, Err(SessionError::Paused)), "{refused:?}");
    session.snapshot().await.expect("a snapshot of what stands still");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(read(&*session, "log").await.expect("its log"), before);
    session.resume().await.expect("a resume");
    text(&*session, "a=$(stat -c %s log); while [ $(stat -c %s log) = $a ]; do sleep 0.01; done")
        .await;
    // One that is paused dies like any other.
    session.pause().await.expect("a pause");
    session.close().await.expect("an end");
    assert_eq!(native.run(sh("echo fine")).await.stdout.head, b"fine\n", "its slot serves again");
}

#[tokio::test]
async fn an_ended_session_keeps_its_files() {
    let Some(native) = native() else { return };
    let session = open(&native, spec()).await;
    let process = session
        .start(sh("echo x > file; echo made; exec sleep 1000"), LONG)
        .await
        .expect("a start");
    let mut process = process;
    process.next().await.expect("it is made");
    session.end().await.expect("an end");
    let ended = finish(process).await;
    assert!(matches!(ended, Err(SessionError::Over(Over::Ended))), "{ended:?}");
    let refused = try_run(&*session, sh("true")).await;
    assert!(matches!(refused, Err(SessionError::Over(Over::Ended))), "{refused:?}");
    assert_eq!(read(&*session, "file").await.expect("the file"), b"x\n");
    assert_eq!(
        session
            .snapshot()
            .await
            .expect("a snapshot")
            .work_tree(&Pick::all(9, 9))
            .expect("entries")
            .len(),
        1
    );
    let usage = session.close().await.expect("usage");
    assert!(usage.wall > Duration::ZERO, "{usage:?}");
}

#[tokio::test]
async fn limits_hold_over_all_commands() {
    let Some(native) = native() else { return };
    let spin = "import time\nwhile time.process_time() < 0.6: pass\nopen('spun', 'a').write('x')";
    let session = open(&native, limited(|limits| limits.cpu = Duration::from_secs(2))).await;
    let mut runs = 0;
    let over = loop {
        runs += 1;
        if let Err(error) = try_run(&*session, python(spin)).await {
            break error;
        }
        assert!(runs < 10, "no limit");
    };
    assert!(matches!(over, SessionError::Over(Over::Limit(LimitKind::Cpu))), "{over:?}");
    assert!(runs > 1, "the first alone did not use it up");
    assert_eq!(read(&*session, "spun").await.expect("graded as it stands").len(), runs - 1);

    let session = open(&native, limited(|limits| limits.wall = Duration::from_millis(700))).await;
    let over = try_run(&*session, sh("sleep 1000")).await;
    assert!(
        matches!(
            over,
            Err(SessionError::Over(Over::Limit(LimitKind::Wall | LimitKind::WallStarved)))
        ),
        "{over:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_however_much_is_asked_for() {
    let Some(native) = native() else { return };
    let session = open(&native, limited(|limits| limits.wall = Duration::from_secs(1))).await;
    let session: Arc<dyn Session> = session.into();
    let mut process = session.start(sh("exec sleep 1000"), LONG).await.expect("a start");
    for _ in 0..32 {
        let session = Arc::clone(&session);
        tokio::spawn(async move {
            while session.over().is_none() {
                let _ = read(&*session, "/etc/hostname").await;
            }
        });
    }
    let over = tokio::time::timeout(Duration::from_secs(20), process.next()).await;
    let over = over.expect("an end in time");
    assert!(matches!(over, Err(SessionError::Over(Over::Limit(_)))), "{over:?}");
    assert!(session.end().await.is_ok(), "it is over, and still there");
}

#[tokio::test]
async fn a_first_process_that_answers_nothing_is_given_up() {
    let Some(native) = native() else { return };
    let (mark, session) = (mark(), open(&native, spec()).await);
    let sleeper = session.start(sh(&format!("exec sleep {mark}")), LONG).await.expect("a start");
    until("starting", Duration::from_secs(20), || processes(&mark) == 1).await;
    let first = rustix::process::Pid::from_raw(parent(&mark)).expect("a process");
    let mut over = None;
    // The kernel lets it go on when others of its group end.
    for _ in 0..9 {
        rustix::process::kill_process(first, rustix::process::Signal::STOP).expect("a signal");
        let waits = tokio::time::timeout(Duration::from_secs(60), try_run(&*session, sh("true")));
        over = waits.await.expect("an end in time").err();
        if over.is_some() {
            break;
        }
    }
    assert!(matches!(over, Some(SessionError::Over(Over::Broken))), "{over:?}");
    drop(sleeper);
    drop(session);
    assert_eq!(native.run(sh("echo fine")).await.stdout.head, b"fine\n", "its slot serves again");
}

/// Returns the parent of the process with this mark.
fn parent(mark: &str) -> i32 {
    let holds = |path: &Path, mark: &str| {
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).contains(mark)
    };
    let mut all = std::fs::read_dir("/proc").expect("proc").flatten().map(|entry| entry.path());
    let found = all.find(|path| holds(&path.join("cmdline"), mark)).expect("the process");
    let stat = std::fs::read_to_string(found.join("stat")).expect("its state");
    let fields = stat.rsplit(')').next().expect("fields");
    fields.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_full_process_table_is_cleared_for_the_next_command() {
    let Some(native) = native() else { return };
    let session = open(&native, limited(|limits| limits.pids = 16)).await;
    text(&*session, "echo kept > file").await;
    let bomb = "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True:\n try:\n  \
        if os.fork() == 0: os.setsid()\n except OSError: time.sleep(0.001)";
    let process = session.start(python(bomb), Duration::from_secs(1)).await.expect("a start");
    finish(process).await.expect("an end");
    // A command may find the place of the one that just ended.
    for tries in 1.. {
        let left = run(&*session, sh("cat file")).await;
        assert_eq!(left.text(), "kept");
        if left.ended.cleared {
            break;
        }
        assert!(tries < 50, "never cleared");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(text(&*session, "cat /proc/[0-9]*/comm | grep -c python; true").await, "0");
}

#[tokio::test]
async fn a_full_disk_and_a_full_memory_are_survived() {
    let Some(native) = native() else { return };
    let small = |limits: &mut Limits| {
        limits.disk_bytes = 8 << 20;
        limits.memory_bytes = 96 << 20;
    };
    let session = open(&native, limited(small)).await;
    let left =
        run(&*session, sh("for n in 1 2 3; do head -c 4000000 /dev/zero > full$n || exit 1; done"))
            .await;
    assert_eq!(left.ended.termination, Termination::Exited(1), "{left:?}");
    let error =
        session.write(Path::new("more"), b"x"[..].into(), false).await.expect_err("no room");
    assert!(
        matches!(error, SessionError::File { kind: io::ErrorKind::StorageFull, .. }),
        "{error:?}"
    );
    session.snapshot().await.expect("a snapshot of a full disk");
    text(&*session, "rm full*").await;
    let left = run(&*session, python("b = bytearray()\nwhile True: b += b'x' * (1 << 20)")).await;
    assert_eq!(left.ended.termination, Termination::Limit(LimitKind::Memory), "{left:?}");
    assert_eq!(text(&*session, "echo on").await, "on");
}

#[tokio::test]
async fn nobody_inside_reaches_pid_1() {
    let Some(native) = native() else { return };
    let session = open(&native, spec()).await;
    let attacks = r#"
import ctypes, os, resource, signal
libc = ctypes.CDLL(None, use_errno=True)
for number in range(1, 65):
    try: os.kill(1, number)
    except OSError: pass
print("signalled")
for name in ("environ", "mem", "maps", "fd/1000", "root", "cwd"):
    try: print(name, open(f"/proc/1/{name}", "rb").read(1))
    except OSError as e: pass
try: print(os.listdir("/proc/1/fd"))
except OSError: pass
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NPROC):
    try: print("limited", resource.prlimit(1, kind, (0, 0)))
    except OSError: pass
print("ptrace", libc.ptrace(16, 1, 0, 0), libc.process_vm_readv(1, 0, 0, 0, 0, 0))
fd = os.pidfd_open(1)
print("getfd", libc.syscall(438, fd, 1000, 0))
"#;
    assert_eq!(run(&*session, python(attacks)).await.text(), "signalled\nptrace -1 -1\ngetfd -1");
    assert_eq!(text(&*session, "echo on").await, "on");
    // Commands hold nothing of pid 1 nor of each other: stdio, and the folder that is listed.
    assert_eq!(text(&*session, "cd /proc/self/fd; echo *").await, "0 1 2 3");
}

#[tokio::test]
async fn a_lease_runs_out_and_a_heartbeat_renews_it() {
    let Some(native) = native() else { return };
    let lease = Duration::from_millis(600);
    let session =
        native.open(SessionSpec { sandbox: spec(), from: None, lease }).await.expect("a session");
    for _ in 0..4 {
        tokio::time::sleep(lease / 3).await;
        session.heartbeat().await.expect("a heartbeat");
    }
    let mut process = session.start(sh("exec sleep 1000"), LONG).await.expect("a start");
    let over = process.next().await;
    assert!(matches!(over, Err(SessionError::Over(Over::Lease))), "{over:?}");
    let over = session.heartbeat().await;
    assert!(matches!(over, Err(SessionError::Over(Over::Lease))), "{over:?}");
    assert!(read(&*session, "file").await.is_err(), "it is freed");
    assert_eq!(native.run(sh("echo fine")).await.stdout.head, b"fine\n");
}

/// Whoever still has a process of a closed session asks nothing of the sandbox after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asks_that_come_too_late_are_nobodys() {
    for round in 0..20 {
        let Some(native) = native_of_one_slot() else { return };
        let session = open(&native, spec()).await;
        let process = session.start(sh("sleep 1000"), LONG).await.expect("a start");
        let late = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_micros(100 * round)).await;
            drop(process);
        });
        session.close().await.expect("an end");
        for n in [0, 1, 1] {
            let text = format!("tests {n}");
            let trusted = Arc::new([("/assay/t".into(), text.as_bytes().into())].into());
            let spec = SandboxSpec { trusted, ..spec() };
            let execution = native.run_in(spec, sh("cat /assay/t")).await;
            assert_eq!(execution.stdout.complete(), Some(text.as_bytes()), "round {round}");
        }
        late.await.expect("a drop");
    }
}

#[tokio::test]
async fn errors_say_what_is_wrong() {
    let Some(native) = native() else { return };
    let session = open(&native, spec()).await;
    let error = session.start(command(&["relative"]), LONG).await.expect_err("a bad command");
    assert!(error.to_string().contains("not an absolute path"), "{error}");
    let fake =
        assay_sandbox::Fake::new(|_, _| Err(assay_sandbox::BackendError::Spec(String::new())));
    let error = fake.open(SessionSpec { sandbox: spec(), from: None, lease: LONG }).await;
    assert!(matches!(error, Err(assay_sandbox::BackendError::Unsupported { .. })));
    let broken = SandboxSpec { workdir: "work".into(), ..spec() };
    assert!(native.open(SessionSpec { sandbox: broken, from: None, lease: LONG }).await.is_err());
}

#[tokio::test]
async fn a_dropped_session_is_gone() {
    let Some(native) = native() else { return };
    let mark = mark();
    let session = open(&native, spec()).await;
    let script = format!("{DAEMON} sleep {mark} & exec sleep {mark}");
    let process = session.start(sh(&script), LONG).await.expect("a start");
    until("starting", Duration::from_secs(20), || processes(&mark) == 2).await;
    // A process that somebody still listens to keeps the session.
    drop(session);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(processes(&mark), 2);
    drop(process);
    until("killing", Duration::from_secs(5), || processes(&mark) == 0).await;
    assert_eq!(native.run(sh("echo fine")).await.stdout.head, b"fine\n", "its slot serves again");
}
