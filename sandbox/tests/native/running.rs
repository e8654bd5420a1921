//! Running commands: what they find and what they leave.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use crate::common::{
    self, DAEMON, command, file, files, native, native_of_one_slot, native_with, python, sh, spec,
    stdout, told,
};
use assay_sandbox::{
    Backend, BackendError, Channel, ChannelEnd, Command, FileEntry, ImageRef, Layer, SandboxSpec,
    Start, Termination,
    native::{Native, NativeConfig},
};

#[tokio::test]
async fn reports_how_a_command_ended() {
    let Some(native) = native() else { return };
    let cases = [
        ("true", command(&["/bin/true"]), Termination::Exited(0)),
        ("false", command(&["/bin/false"]), Termination::Exited(1)),
        ("status", sh("exit 42"), Termination::Exited(42)),
        ("high status", sh("exit 255"), Termination::Exited(255)),
        ("signal", sh("kill -SEGV $$"), Termination::Signaled(libc::SIGSEGV)),
        ("killed", sh("kill -KILL $$"), Termination::Signaled(libc::SIGKILL)),
        ("kills everything it can", sh("kill -KILL -1; exit 3"), Termination::Exited(3)),
        ("no such program", command(&["/no/such/program"]), Termination::Exited(127)),
        ("no program", command(&["/etc/passwd"]), Termination::Exited(126)),
        ("sigpipe works", sh("yes | head -n 1"), Termination::Exited(0)),
    ];
    for (name, command, expected) in cases {
        let execution = native.run(command).await;
        assert_eq!(execution.termination, expected, "{name}: {}", told(&execution));
    }
}

#[tokio::test]
async fn the_environment_is_exactly_what_was_asked() {
    let Some(native) = native() else { return };
    let env = [("B", "two words"), ("A", "ü\n=")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let command = Command { env: env.into(), ..command(&["/usr/bin/env", "-0"]) };
    let execution = native.run(command).await;
    assert_eq!(execution.stdout.complete(), Some("A=ü\n=\0B=two words\0".as_bytes()));
    let none = Command { argv: vec!["/usr/bin/env".to_owned()], ..Command::default() };
    assert_eq!(native.run(none).await.stdout.complete(), Some(&b""[..]));
}

#[tokio::test]
async fn feeds_stdin_of_any_length_and_ends_it() {
    let Some(native) = native() else { return };
    for length in [0, 1, 65_536, 3_000_000] {
        let stdin: Arc<[u8]> = vec![b'x'; length].into();
        let execution = native.run(Command { stdin, ..sh("wc -c") }).await;
        assert_eq!(stdout(&execution), length.to_string());
    }
    // One that reads none of it, and one that writes as much as it reads.
    let stdin: Arc<[u8]> = vec![b'x'; 3_000_000].into();
    let execution = native.run(Command { stdin: Arc::clone(&stdin), ..sh("exit 5") }).await;
    assert_eq!(execution.termination, Termination::Exited(5));
    let execution = native.run(Command { stdin, ..sh("cat") }).await;
    assert_eq!(
        execution.stdout.head.len() as u64
            + execution.stdout.dropped
            + execution.stdout.tail.len() as u64,
        3_000_000
    );
}

#[tokio::test]
async fn starts_in_the_directory_asked_for() {
    let Some(native) = native() else { return };
    let spec = SandboxSpec { layers: vec![files([("a/b/c", file(""))])], ..spec() };
    for (cwd, expected) in [("", "/work"), ("a/b", "/work/a/b")] {
        let command = Command { cwd: cwd.into(), ..sh("pwd -P") };
        assert_eq!(stdout(&native.run_in(spec.clone(), command).await), expected);
    }
    let elsewhere = SandboxSpec { workdir: "/somewhere/new".into(), ..spec };
    let execution = native.run_in(elsewhere, sh("pwd -P; cat a/b/c; touch x && ls")).await;
    assert_eq!(stdout(&execution), "/somewhere/new\na\nx", "{}", told(&execution));
    let sandbox = native.create(common::spec()).await.expect("a sandbox");
    let result = sandbox.run(Command { cwd: "missing".into(), ..sh("pwd") }).await;
    assert!(matches!(result, Err(BackendError::Io { .. })), "{result:?}");
}

#[tokio::test]
async fn upper_layers_win_and_absent_means_absent() {
    let Some(native) = native() else { return };
    let tree = tempfile::tempdir().expect("a folder");
    for path in [
        "keep",
        "change",
        "remove",
        "dir/one",
        "dir/two",
        "whole/x",
        "whole/y/z",
        "whole/y/v/w",
        "was_file",
    ] {
        let path = tree.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, "base").expect("a file");
    }
    let layers = vec![
        Layer::Dir(Arc::new(tree.path().to_owned())),
        files([
            ("change", file("first")),
            ("remove", FileEntry::Absent),
            ("dir/two", FileEntry::Absent),
            ("whole", FileEntry::Absent),
            ("was_file", FileEntry::Absent),
            ("was_file/now_dir", file("new")),
            ("link", FileEntry::Symlink("keep".into())),
            (
                "tool",
                FileEntry::File { content: (*b"#!/bin/sh\necho ran\n").into(), executable: true },
            ),
        ]),
        files([
            ("change", file("second")),
            ("whole", FileEntry::Absent),
            ("whole/again", file("fresh")),
            ("whole/y/new", file("fresh")),
        ]),
    ];
    let spec = SandboxSpec { layers, ..spec() };
    let script = "find . -type f -o -type l | LC_ALL=C sort | while read f; do echo $f=$(cat $f | head -n 1); done; ./tool";
    let execution = native.run_in(spec.clone(), sh(script)).await;
    let expected = "./change=second\n./dir/one=base\n./keep=base\n./link=base\n./tool=#!/bin/sh\n\
                    ./was_file/now_dir=new\n./whole/again=fresh\n./whole/y/new=fresh\nran";
    assert_eq!(stdout(&execution), expected, "{}", told(&execution));
    // Everything in the work tree is the sandboxed user's, and nothing it does reaches a layer.
    let script = "set -e; echo new >keep; rm -r dir whole; mkdir dir; mv change moved; chmod 700 .; \
                  touch was_file/more; find . | wc -l; stat -c %u:%g . moved was_file";
    let execution = native.run_in(spec.clone(), sh(script)).await;
    assert_eq!(stdout(&execution), "9\n1000:1000\n1000:1000\n1000:1000", "{}", told(&execution));
    assert_eq!(std::fs::read(tree.path().join("keep")).expect("a file"), b"base");
    let execution = native.run_in(spec, sh("cat keep dir/one")).await;
    assert_eq!(stdout(&execution), "basebase");
}

#[tokio::test]
async fn refuses_paths_that_could_escape() {
    let Some(native) = native() else { return };
    let evil: [(&str, Vec<Layer>); 8] = [
        ("absolute", vec![files([("/etc/passwd", file("x"))])]),
        ("parent", vec![files([("../x", file("x"))])]),
        ("parent inside", vec![files([("a/../../x", file("x"))])]),
        ("empty", vec![files([("", file("x"))])]),
        ("dot", vec![files([("./x", file("x"))])]),
        ("nul", vec![files([("a\0b", file("x"))])]),
        (
            "through a link",
            vec![files([("a", FileEntry::Symlink("/tmp".into())), ("a/b", file("x"))])],
        ),
        ("below a file", vec![files([("a", file("x")), ("a/b", file("x"))])]),
    ];
    for (name, layers) in evil {
        let result = native.create(SandboxSpec { layers, ..spec() }).await;
        assert!(matches!(result, Err(BackendError::Spec(_))), "{name}");
    }
    // A link of a lower layer is replaced by the directory of an upper one, never followed.
    let outside = tempfile::tempdir().expect("a folder");
    let layers = vec![
        files([
            ("out", FileEntry::Symlink(outside.path().to_owned())),
            ("etc", FileEntry::Symlink("/etc".into())),
        ]),
        files([("out/planted", file("x")), ("etc/planted", file("x"))]),
    ];
    let execution = native
        .run_in(SandboxSpec { layers, ..spec() }, sh("ls -d out/* etc/*; ls /etc | grep planted"))
        .await;
    assert_eq!(stdout(&execution), "etc/planted\nout/planted", "{}", told(&execution));
    assert_eq!(std::fs::read_dir(outside.path()).expect("a folder").count(), 0);
}

#[tokio::test]
async fn strange_names_survive() {
    let Some(native) = native() else { return };
    let long = "n".repeat(255);
    let names = ["new\nline", "späße", "-rf", "a b", &long];
    let layer = Layer::Files(Arc::new(names.map(|name| (name.into(), file("x"))).into()));
    let code = "import os; print(sorted(os.listdir('.')))";
    let execution =
        native.run_in(SandboxSpec { layers: vec![layer], ..spec() }, python(code)).await;
    let expected = format!("['-rf', 'a b', 'new\\nline', '{long}', 'späße']");
    assert_eq!(stdout(&execution), expected, "{}", told(&execution));
}

#[tokio::test]
async fn trusted_files_can_be_read_and_not_changed() {
    let Some(native) = native() else { return };
    let trusted = [
        ("/assay/runner.py".into(), Arc::from(*b"print('trusted')")),
        ("/usr/lib/python3/dist-packages/extra.py".into(), Arc::from(*b"x = 1")),
    ];
    let spec = SandboxSpec { trusted: Arc::new(trusted.into()), ..spec() };
    let script = "python3 /assay/runner.py; python3 -c 'import extra, pytest; print(extra.x)'; \
        for c in 'echo x >/assay/runner.py' 'rm /assay/runner.py' 'mv /assay /b' 'touch /assay/new' \
        'chmod 777 /assay/runner.py' 'ln -sf /tmp/x /assay/runner.py' 'touch /usr/x' 'touch /x' \
        'rm /bin/true' 'mkdir /dev/x' 'touch /etc/passwd'; \
        do if (eval $c) 2>/dev/null; then echo \"allowed: $c\"; fi; done";
    let execution = native.run_in(spec.clone(), sh(script)).await;
    assert_eq!(stdout(&execution), "trusted\n1", "{}", told(&execution));
    for path in ["/work/x", "/tmp/x", "/proc/x", "/dev/x", "relative", "/a/../b"] {
        let trusted = Arc::new([(path.into(), Arc::from(*b""))].into());
        let result = native.create(SandboxSpec { trusted, ..spec.clone() }).await;
        assert!(matches!(result, Err(BackendError::Spec(_))), "{path}");
    }
}

/// A slot keeps a root for what wants the same; what wants another finds nothing of it.
#[tokio::test]
async fn sandboxes_of_one_slot_have_their_own_trusted_files_and_work_directories() {
    let Some(native) = native_of_one_slot() else { return };
    let with = |name: &str, workdir: &str| {
        let trusted = Arc::new([(format!("/assay/{name}").into(), name.as_bytes().into())].into());
        SandboxSpec { trusted, workdir: workdir.into(), ..spec() }
    };
    let kinds = [("one", "/work"), ("two", "/work"), ("one", "/a/b")];
    for (name, workdir) in [kinds, kinds].concat().into_iter().flat_map(|kind| [kind; 2]) {
        let script = "pwd; ls -m /assay; cat /assay/*; echo; ls -Am . /tmp /dev/shm; \
            touch x /tmp/x /dev/shm/x";
        let execution = native.run_in(with(name, workdir), sh(script)).await;
        let expected = format!("{workdir}\n{name}\n{name}\n.:\n\n/dev/shm:\n\n/tmp:");
        assert_eq!(stdout(&execution), expected, "{}", told(&execution));
    }
    // A work tree over a root that another had.
    let layers = vec![files([("a/b", file("layer"))])];
    let execution =
        native.run_in(SandboxSpec { layers, ..with("one", "/work") }, sh("cat a/b")).await;
    assert_eq!(stdout(&execution), "layer", "{}", told(&execution));
    assert_eq!(native.slots().misses, 1, "one slot made all of them");
}

#[tokio::test]
async fn a_pinned_sandbox_has_one_processor() {
    let Some(native) = native_with(|config| config.pin = true) else { return };
    let code = "import os; print(len(os.sched_getaffinity(0)), os.sched_getaffinity(0).pop())";
    let run = || async { stdout(&native.run(python(code)).await) };
    let (one, two) = tokio::join!(run(), run());
    assert!(one.starts_with("1 ") && two.starts_with("1 "), "{one} {two}");
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) {
        assert_ne!(one, two);
    }
    let (trusted, command) = crate::warm::script(code, &[]);
    let execution = native.run_in(SandboxSpec { trusted, ..spec() }, command).await;
    assert!(stdout(&execution).starts_with("1 "), "{}", told(&execution));
    assert_eq!(execution.isolation.start, Start::Warm);
}

#[tokio::test]
async fn channels_collect_and_connect() {
    let Some(native) = native() else { return };
    let collect = |fd, max_bytes| Channel { fd, end: ChannelEnd::Collect { max_bytes } };
    let channels = vec![collect(9, 100), collect(3, 4)];
    let command = Command { channels, ..sh("echo nine >&9; echo three >&3; echo out") };
    let execution = native.run(command).await;
    assert_eq!(execution.channels[0].complete(), Some(&b"nine\n"[..]), "{}", told(&execution));
    assert_eq!((&*execution.channels[1].head, execution.channels[1].dropped), (&b"thre"[..], 2));

    // Two sandboxes talk; each sees when the other's end is closed.
    let (left, right) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let with = |end: std::os::unix::net::UnixStream, code: &str| Command {
        channels: vec![Channel { fd: 5, end: ChannelEnd::Fd(OwnedFd::from(end)) }],
        ..python(code)
    };
    let asks = with(
        left,
        "import socket; s = socket.socket(fileno=5); s.sendall(b'question'); print(s.recv(99)); s.close()",
    );
    let answers = with(
        right,
        "import socket; s = socket.socket(fileno=5); print(s.recv(99)); s.sendall(b'answer'); print(s.recv(99))",
    );
    let (asked, answered) = tokio::join!(native.run(asks), native.run(answers));
    assert_eq!(stdout(&asked), "b'answer'", "{}", told(&asked));
    assert_eq!(stdout(&answered), "b'question'\nb''", "{}", told(&answered));

    for channels in [
        vec![collect(2, 1)],
        vec![collect(64, 1)],
        vec![collect(-1, 1)],
        vec![collect(4, 1), collect(4, 1)],
    ] {
        let sandbox = native.create(spec()).await.expect("a sandbox");
        let result = sandbox.run(Command { channels, ..sh("true") }).await;
        assert!(matches!(result, Err(BackendError::Spec(_))));
    }
}

#[tokio::test]
async fn a_command_that_is_stopped_says_what_it_used() {
    let Some(native) = native_of_one_slot() else { return };
    for _ in 0..2 {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let channels = vec![Channel { fd: 5, end: ChannelEnd::Fd(OwnedFd::from(theirs)) }];
        let code = "import os, time\n\
                    while time.process_time() < 0.3: pass\n\
                    print('counted', flush=True); os.write(5, b'.'); time.sleep(1000)";
        let command = Command { channels, ..python(code) };
        let stop = command.stop.clone();
        let stopping = tokio::task::spawn_blocking(move || {
            let mut ours = ours;
            std::io::Read::read_exact(&mut ours, &mut [0]).expect("a byte");
            stop.cancel();
        });
        let execution = native.run(command).await;
        stopping.await.expect("no panic");
        let told = told(&execution);
        assert_eq!(execution.termination, Termination::Signaled(libc::SIGKILL), "{told}");
        assert_eq!(stdout(&execution), "counted", "{told}");
        // Without control groups it is counted in ticks of 10 ms, those of the kernel apart.
        let cpu = execution.usage.cpu;
        assert!(cpu >= Duration::from_millis(250), "{cpu:?}: {told}");
        assert!(execution.usage.wall >= execution.usage.cpu, "{told}");
    }
    // What has ended is not stopped, and the slot is as good as before.
    let command = sh("exit 3");
    let stop = command.stop.clone();
    assert_eq!(native.run(command).await.termination, Termination::Exited(3));
    stop.cancel();
    assert_eq!(native.run(sh("exit 4")).await.termination, Termination::Exited(4));
}

#[tokio::test]
async fn a_daemon_that_holds_stdout_does_not_hold_the_run() {
    let Some(native) = native() else { return };
    // A run that waits for the end of its output ends at its wall limit.
    let execution = native.run(sh(&format!("echo done; {DAEMON} sleep 1000; {DAEMON} yes"))).await;
    assert_eq!(execution.termination, Termination::Exited(0));
    assert!(stdout(&execution).starts_with("done"), "{}", told(&execution));
}

#[tokio::test]
async fn keeps_head_and_tail_of_a_flood() {
    let Some(native) = native() else { return };
    let spec = common::limited(|limits| limits.output_bytes = 1000);
    let total: u64 = 300 << 20;
    let script =
        format!("echo first; head -c {total} /dev/zero; echo last; head -c 5000 /dev/zero >&2");
    let execution = native.run_in(spec, sh(&script)).await;
    let out = &execution.stdout;
    assert_eq!(execution.termination, Termination::Exited(0), "{}", told(&execution));
    assert!(out.head.starts_with(b"first\n") && out.tail.ends_with(b"last\n"));
    assert_eq!((out.head.len(), out.tail.len()), (500, 500));
    assert_eq!(out.dropped, total + 11 - 1000);
    assert_eq!(execution.stderr.dropped, 4000);
}

#[tokio::test]
async fn many_in_parallel_do_not_mix() {
    let Some(native) = native() else { return };
    let native = Arc::new(native);
    let workers = (0..8).map(|worker| {
        let native = Arc::clone(&native);
        tokio::spawn(async move {
            for round in 0..25 {
                let spec = SandboxSpec { layers: vec![files([("id", file(&format!("{worker}.{round}")))])], ..spec() };
                let execution = native.run_in(spec, sh("ls /tmp /work; cat id; touch /tmp/left /work/left /dev/shm/left; ls /proc | grep -c '^[0-9]'")).await;
                let text = stdout(&execution);
                assert!(text.starts_with("/tmp:\n\n/work:\nid\n"), "{}", told(&execution));
                assert!(text.contains(&format!("{worker}.{round}")), "{text}");
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("no panic");
    }
}

#[tokio::test]
async fn tells_how_long_it_stood_in_line() {
    let Some(native) = native() else { return };
    // Three for one CPU: at any time somebody waits.
    let code = "import os, time\nend = time.monotonic() + 1.5\n\
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n\
        for _ in range(2):\n if os.fork() == 0: break\n\
        while time.monotonic() < end: pass";
    let execution = native.run(python(code)).await;
    let usage = execution.usage;
    assert!(usage.stalled > Duration::from_millis(300), "{}: {usage:?}", told(&execution));
    assert!(usage.stalled < usage.wall * 3, "{usage:?}");
}

#[tokio::test]
async fn reports_what_was_used() {
    let Some(native) = native() else { return };
    let code = "import time\nx = bytearray(150 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\n\
                end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\ntime.sleep(0.2)";
    let execution = native.run(python(code)).await;
    let usage = execution.usage;
    assert!(usage.wall >= Duration::from_millis(500), "{usage:?}");
    assert!(
        usage.cpu >= Duration::from_millis(300) && usage.cpu < Duration::from_secs(3),
        "{usage:?}"
    );
    let peak = usage.peak_memory_bytes >> 20;
    assert!(peak == 0 || (150..400).contains(&peak), "{usage:?}");
    assert_eq!(execution.isolation.backend, "native");
    let cheap = native.run(sh("true")).await.usage;
    assert!(
        cheap.peak_memory_bytes < 50 << 20 && cheap.cpu < Duration::from_millis(250),
        "{cheap:?}"
    );
}

#[tokio::test]
async fn says_what_is_wrong_with_a_spec() {
    let Some(native) = native() else { return };
    let missing = ImageRef::Rootfs { path: "/no/such/image".into(), digest: String::new() };
    let result = native.create(SandboxSpec { image: missing, ..spec() }).await;
    assert!(matches!(result, Err(BackendError::ImageNotFound(_))));
    let docker = ImageRef::Docker("x".to_owned());
    let result = native.create(SandboxSpec { image: docker, ..spec() }).await;
    assert!(matches!(result, Err(BackendError::Unsupported { .. })));
    for workdir in ["/", "work", "/a/../b", "/proc/x", "/dev"] {
        let result = native.create(SandboxSpec { workdir: workdir.into(), ..spec() }).await;
        assert!(matches!(result, Err(BackendError::Spec(_))), "{workdir}");
    }
    for argv in [vec![], vec!["true"], vec!["/bin/sh", "a\0b"]] {
        let sandbox = native.create(spec()).await.expect("a sandbox");
        let argv = argv.iter().map(|a: &&str| (*a).to_owned()).collect();
        let result = sandbox.run(Command { argv, ..Command::default() }).await;
        assert!(matches!(result, Err(BackendError::Spec(_))));
    }
}

#[tokio::test]
async fn a_job_of_many_megabytes_arrives() {
    let Some(native) = native() else { return };
    let content: Arc<[u8]> = vec![7; 30 << 20].into();
    let layer = Layer::Files(Arc::new(
        [("big".into(), FileEntry::File { content, executable: false })].into(),
    ));
    let mut spec = SandboxSpec { layers: vec![layer], ..spec() };
    // The submission's files don't count as the command's disk.
    spec.limits.disk_bytes = 1 << 20;
    let execution = native.run_in(spec, sh("wc -c <big; echo more >small; cat small")).await;
    assert_eq!(stdout(&execution), format!("{}\nmore", 30 << 20), "{}", told(&execution));
}

#[tokio::test]
async fn slots_rest_between_the_watermarks() {
    if native().is_none() {
        return;
    }
    let state = tempfile::tempdir().expect("a folder");
    let config = NativeConfig {
        spawner: common::spawner(),
        idle_low: 2,
        idle_high: 3,
        needless: Duration::from_millis(500),
        ..NativeConfig::new(state.path())
    };
    let native = Native::start(config).expect("a backend");
    let create = || native.create(spec());
    let all = futures::future::try_join_all((0..6).map(|_| create())).await.expect("sandboxes");
    let counts = native.slots();
    assert_eq!(counts.hits + counts.misses, 6, "{counts:?}");
    assert!(counts.misses > 0, "the first one finds none: {counts:?}");
    // The spares that are still being made come, too.
    while native.slots().idle < 2 {
        tokio::task::yield_now().await;
    }
    drop(all);
    // For another burst, for a while.
    let counts = native.slots();
    assert!(counts.idle >= 8 && counts.ended == 0, "{counts:?}");
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while native.slots().idle != 3 {
        assert!(std::time::Instant::now() < until, "{:?}", native.slots());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(native.slots().ended >= 5, "{:?}", native.slots());
    let again = create().await.expect("a sandbox");
    assert_eq!(native.slots().misses, counts.misses);
    let run = again.run(sh("echo fine")).await.expect("an execution");
    assert_eq!(stdout(&run), "fine");
}
