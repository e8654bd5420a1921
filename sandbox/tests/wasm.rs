//! The wasm backend: programs in text form, and the interpreter that `scripts/make-wasm-python.sh` makes.
#![cfg(feature = "wasm")]

use std::{
    collections::BTreeMap,
    env,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use assay_images::Digest;
use assay_sandbox::{
    Backend as _, BackendError, Channel, ChannelEnd, Command, Execution, FileEntry, ImageRef,
    Layer, LimitKind, Limits, SandboxSpec, Start, Termination, Warm,
    wasm::{Wasm, WasmConfig},
};

fn config(state_dir: impl Into<PathBuf>) -> WasmConfig {
    let compiler = env!("CARGO_BIN_EXE_assay-spawner").into();
    WasmConfig { compiler, ..WasmConfig::new(state_dir) }
}

/// One for all tests: compiling the interpreter takes half a minute, and memories are many.
fn backend() -> &'static Wasm {
    static BACKEND: OnceLock<Wasm> = OnceLock::new();
    BACKEND.get_or_init(|| {
        let config = WasmConfig { ahead: 2, ..config(cache().join("wasm/compiled")) };
        Wasm::start(config).unwrap()
    })
}

fn cache() -> PathBuf {
    let below = |name: &str| env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let user = || {
        let home = || below("HOME").expect("a home folder").join(".cache");
        below("XDG_CACHE_HOME").unwrap_or_else(home).join("assay")
    };
    below("ASSAY_CACHE").unwrap_or_else(user)
}

fn image() -> ImageRef {
    static DIGEST: OnceLock<String> = OnceLock::new();
    let module = cache().join("wasm/python/python.wasm");
    let digest = || Digest::of(std::fs::read(&module).unwrap_or_default()).into();
    ImageRef::Wasm { digest: DIGEST.get_or_init(digest).clone(), module }
}

/// Whether there is a Python; says so where there is none.
fn has_python() -> bool {
    let ImageRef::Wasm { module, .. } = image() else { return false };
    if !module.is_file() {
        eprintln!("skipped: no Python for WASI; run `make wasm`");
    }
    module.is_file()
}

fn file(content: &[u8]) -> FileEntry {
    FileEntry::File { content: content.into(), executable: false }
}

fn spec(files: &[(&str, &[u8])]) -> SandboxSpec {
    let files = files.iter().map(|(path, content)| (PathBuf::from(path), file(content)));
    SandboxSpec {
        // A module alone needs no interpreter, but an image is asked for: this file stands for one.
        image: ImageRef::Wasm { module: env::current_exe().unwrap(), digest: "sha256:none".into() },
        workdir: "/workspace".into(),
        layers: vec![Layer::Files(Arc::new(files.collect()))],
        trusted: Arc::new(BTreeMap::from([("/assay/trusted".into(), b"trusted\n"[..].into())])),
        limits: Limits {
            wall: Duration::from_secs(20),
            memory_bytes: 64 << 20,
            disk_bytes: 1 << 20,
            inodes: 50,
            ..Limits::default()
        },
    }
}

fn python_spec() -> SandboxSpec {
    SandboxSpec { image: image(), ..spec(&[("dir/hello.txt", b"hello\n")]) }
}

fn python(code: &str) -> Command {
    Command {
        argv: ["/usr/bin/python3", "-B", "-c", code].map(str::to_owned).into(),
        env: BTreeMap::from([("PYTHONHASHSEED".into(), "0".into())]),
        ..Command::default()
    }
}

async fn run(spec: SandboxSpec, command: Command) -> Execution {
    backend().create(spec).await.unwrap().run(command).await.unwrap()
}

/// Runs a program in text form.
async fn wat(body: &str, limits: impl FnOnce(&mut Limits)) -> Execution {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "wasi_snapshot_preview1" "fd_write"
                (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "random_get"
                (func $random (param i32 i32) (result i32)))
            {body})"#
    );
    let wasm = wat::parse_str(&text).unwrap();
    let mut spec = spec(&[("main.wasm", &wasm)]);
    limits(&mut spec.limits);
    let command = Command { argv: vec!["/workspace/main.wasm".into()], ..Command::default() };
    run(spec, command).await
}

fn limit(kind: LimitKind) -> Termination {
    Termination::Limit(kind)
}

/// Under load the machine itself may be what ran out of time.
fn ended(execution: &Execution) -> Termination {
    match execution.termination {
        Termination::Limit(LimitKind::WallStarved) => limit(LimitKind::Wall),
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_does_as_it_is_told() {
    if !has_python() {
        return;
    }
    let exited = Termination::Exited;
    let cases = [
        ("exit status", "import sys; sys.exit(7)", exited(7), ""),
        ("words at the end", "import sys; sys.exit('no')", exited(1), ""),
        ("an error", "1 / 0", exited(1), ""),
        ("work tree", "print(open('dir/hello.txt').read(), end='')", exited(0), "hello\n"),
        ("place", "import os; print(os.getcwd(), os.listdir())", exited(0), "/workspace ['dir']\n"),
        (
            "the work tree is writable",
            "import os\nopen('dir/y', 'w').write('x')\nprint(sorted(os.listdir('dir')))",
            exited(0),
            "['hello.txt', 'y']\n",
        ),
        (
            "what is left open is written",
            "import atexit\natexit.register(lambda: print('later'))\n\
             f = open('/tmp/f', 'w'); f.write('x'); print(open('/tmp/f').read())",
            exited(0),
            "\nlater\n",
        ),
        (
            "trusted stays",
            "import os\nfor what in (os.unlink, lambda path: open(path, 'w')):\n    try: what('/assay/trusted')\n    \
             except OSError as e: print(e.strerror)\nprint(open('/assay/trusted').read())",
            exited(0),
            "Read-only file system\nRead-only file system\ntrusted\n\n",
        ),
        (
            "root stays",
            "import os\ntry: os.mkdir('/x')\nexcept OSError as e: print(e.errno)",
            exited(0),
            "69\n",
        ),
        (
            "many files",
            "files = [open(f'/tmp/{n % 40}', 'w+') for n in range(300)]\n\
             for n, f in enumerate(files): f.write(str(n)); f.flush()\n\
             import calendar\nprint(sorted(open(f'/tmp/{n}').read() for n in range(3)), max(f.fileno() for f in files) > 200)",
            exited(0),
            "['280', '281', '282'] True\n",
        ),
        (
            "main",
            "print(__name__, __import__('sys').modules['__main__'].__dict__ is globals())",
            exited(0),
            "__main__ True\n",
        ),
        (
            "arguments",
            "import sys; print(sys.argv, sys.orig_argv[1:3])",
            exited(0),
            "['-c'] ['-B', '-c']\n",
        ),
        (
            "standard library",
            "import json, re, math, random, decimal, itertools, collections, dataclasses, typing\n\
             print(json.dumps({'a': [1, 2.5]}), math.pi)",
            exited(0),
            "{\"a\": [1, 2.5]} 3.141592653589793\n",
        ),
    ];
    for (name, code, termination, stdout) in cases {
        let execution = run(python_spec(), python(code)).await;
        let got = (execution.termination, execution.stdout.lossy());
        assert_eq!(got, (termination, stdout.to_owned()), "{name}: {}", execution.stderr.lossy());
        assert_eq!(execution.isolation.start, Start::Warm, "{name}");
    }
    let execution = run(python_spec(), python("def f(): 1 / 0\nf()")).await;
    let expected = "Traceback (most recent call last):\n  File \"<string>\", line 2, in <module>\n  \
                    File \"<string>\", line 1, in f\nZeroDivisionError: division by zero\n";
    assert_eq!(execution.stderr.lossy(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_find_what_lies_beside_them() {
    if !has_python() {
        return;
    }
    let files: [(&str, &[u8]); 2] = [
        ("app/main.py", b"import beside, sys\nprint(beside.X, sys.argv[1:])"),
        ("app/beside.py", b"X = 5"),
    ];
    let spec = || SandboxSpec { image: image(), ..spec(&files) };
    let argv = |parts: &[&str]| Command {
        argv: parts.iter().map(|part| (*part).to_owned()).collect(),
        ..Command::default()
    };
    let execution = run(spec(), argv(&["/usr/bin/python3", "app/main.py", "a", "b"])).await;
    assert_eq!(execution.stdout.lossy(), "5 ['a', 'b']\n", "{}", execution.stderr.lossy());
    let execution = run(spec(), argv(&["/usr/bin/python3", "-P", "app/main.py"])).await;
    assert!(execution.stderr.lossy().ends_with("No module named 'beside'\n"));
    let execution = run(spec(), argv(&["/usr/bin/python3", "nowhere.py"])).await;
    assert_eq!(execution.termination, Termination::Exited(2));
    // Of no kind that a snapshot can go on with: from the start, in the same place.
    let execution = run(spec(), argv(&["/usr/bin/python3", "-m", "app.main"])).await;
    let text = execution.stderr.lossy();
    assert_eq!(execution.isolation.start, Start::Cold);
    assert!(text.ends_with("No module named 'beside'\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_of_the_work_tree_is_not_hidden() {
    if !has_python() {
        return;
    }
    let warm = Warm { modules: vec!["json".into()], programs: Arc::default() };
    let command = || Command {
        argv: ["/usr/bin/python3", "-P", "main.py"].map(str::to_owned).into(),
        warm: Some(warm.clone()),
        ..Command::default()
    };
    let main: (&str, &[u8]) = ("main.py", b"import sys; print('json' in sys.modules)");
    let execution = run(SandboxSpec { image: image(), ..spec(&[main]) }, command()).await;
    assert_eq!(execution.stdout.lossy(), "True\n", "{}", execution.stderr.lossy());
    assert_eq!(execution.isolation.start, Start::Warm);
    let files = [main, ("json.py", b"")];
    let execution = run(SandboxSpec { image: image(), ..spec(&files) }, command()).await;
    assert_eq!(execution.stdout.lossy(), "False\n", "{}", execution.stderr.lossy());
    let why = Start::ColdInstead("the work tree has a module `json`".into());
    assert_eq!(execution.isolation.start, why);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_agree_to_the_instruction() {
    if !has_python() {
        return;
    }
    let code = "import random, time, os\n\
        words = {str(n) for n in range(1000)}\n\
        print(list(words)[:3], random.random(), time.time(), time.perf_counter(), os.urandom(4))\n\
        time.sleep(0.25)\n\
        print(time.time(), hash('x'), id(words), os.stat('dir').st_mtime, os.listdir())";
    let first = run(python_spec(), python(code)).await;
    assert_eq!(first.termination, Termination::Exited(0), "{}", first.stderr.lossy());
    assert!(first.usage.instructions.is_some_and(|n| n > 100_000), "{:?}", first.usage);
    for _ in 0..1000 {
        let next = run(python_spec(), python(code)).await;
        assert_eq!(next.stdout, first.stdout);
        assert_eq!(next.usage.instructions, first.usage.instructions);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stdin_and_channels_cross() {
    if !has_python() {
        return;
    }
    let command = Command {
        stdin: b"from outside\n"[..].into(),
        channels: vec![Channel { fd: 3, end: ChannelEnd::Collect { max_bytes: 1000 } }],
        ..python(
            "import os, sys\nos.write(3, sys.stdin.buffer.read())\n\
             for n in range(1000): os.write(3, b'%d\\n' % n)\nprint('done')",
        )
    };
    let execution = run(python_spec(), command).await;
    assert_eq!(execution.stdout.lossy(), "done\n", "{}", execution.stderr.lossy());
    let channel = &execution.channels[0];
    assert!(channel.head.starts_with(b"from outside\n0\n1\n"), "{}", channel.lossy());
    assert_eq!((channel.head.len(), channel.dropped), (1000, 13 + 3890 - 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sandboxes_talk_over_a_socket() {
    if !has_python() {
        return;
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let command = |code: &str, end: UnixStream| Command {
        channels: vec![Channel { fd: 4, end: ChannelEnd::Fd(end.into()) }],
        ..python(code)
    };
    let asks = "import os\n\
        reader, writer = os.fdopen(4, 'rb'), os.fdopen(4, 'wb', closefd=False)\n\
        writer.write(b'x' * 1000000 + b'\\n'); writer.flush()\n\
        print(reader.read())";
    let answers = "import os\n\
        reader, writer = os.fdopen(4, 'rb'), os.fdopen(4, 'wb', closefd=False)\n\
        line = reader.readline()\n\
        writer.write(b'%d' % len(line)); writer.flush()";
    let (asking, answering) = tokio::join!(
        run(python_spec(), command(asks, ours)),
        run(python_spec(), command(answers, theirs)),
    );
    assert_eq!(asking.stdout.lossy(), "b'1000001'\n", "{}", asking.stderr.lossy());
    assert_eq!(answering.termination, Termination::Exited(0), "{}", answering.stderr.lossy());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_stopped_says_what_it_used() {
    if !has_python() {
        return;
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let code = "import os\nfor n in range(100000): pass\nos.write(4, b'.')\nwhile True: pass";
    let channels = vec![Channel { fd: 4, end: ChannelEnd::Fd(theirs.into()) }];
    let command = Command { channels, ..python(code) };
    let stop = command.stop.clone();
    let stopping = tokio::task::spawn_blocking(move || {
        let mut ours = ours;
        std::io::Read::read_exact(&mut ours, &mut [0]).unwrap();
        stop.cancel();
    });
    let execution = run(python_spec(), command).await;
    stopping.await.unwrap();
    assert_eq!(execution.termination, Termination::Signaled(9), "{}", execution.stderr.lossy());
    assert!(execution.usage.instructions.is_some_and(|count| count > 100_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_end_python() {
    if !has_python() {
        return;
    }
    let small = |change: fn(&mut Limits)| {
        let mut spec = python_spec();
        change(&mut spec.limits);
        spec
    };
    let cases = [
        (
            "sleep",
            small(|l| l.wall = Duration::from_secs(1)),
            "import time; time.sleep(60)",
            limit(LimitKind::Wall),
        ),
        (
            "endless",
            small(|l| l.wall = Duration::from_millis(300)),
            "while True: pass",
            limit(LimitKind::Wall),
        ),
        (
            "cpu",
            small(|l| l.cpu = Duration::from_millis(300)),
            "while True: pass",
            limit(LimitKind::Cpu),
        ),
        ("memory", small(|_| ()), "x = bytearray(1 << 28)", limit(LimitKind::Memory)),
        (
            "memory that an interpreter lacks",
            small(|l| l.memory_bytes = 1 << 20),
            "pass",
            limit(LimitKind::Memory),
        ),
        ("more than there can be", small(|_| ()), "x = bytearray(1 << 31)", Termination::Exited(1)),
        (
            "stdin that never comes",
            small(|l| l.wall = Duration::from_millis(300)),
            "import os; os.read(4, 1)",
            limit(LimitKind::Wall),
        ),
        (
            "disk",
            small(|_| ()),
            "try: open('big', 'wb').write(bytes(2 << 20))\nexcept OSError as e: assert e.errno == 51\nelse: raise 1",
            Termination::Exited(0),
        ),
        (
            "inodes",
            small(|_| ()),
            "n = 0\ntry:\n    while True: open(f'/tmp/{n}', 'x').close(); n += 1\nexcept OSError: assert n == 50",
            Termination::Exited(0),
        ),
        (
            "recursion",
            small(|_| ()),
            "def f(): f()\ntry: f()\nexcept RecursionError: pass",
            Termination::Exited(0),
        ),
    ];
    for (name, spec, code, expected) in cases {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let command = Command {
            channels: vec![Channel { fd: 4, end: ChannelEnd::Fd(ours.into()) }],
            ..python(code)
        };
        let execution = run(spec, command).await;
        assert_eq!(ended(&execution), expected, "{name}: {}", execution.stderr.lossy());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_modules_end() {
    let memory = "(memory (export \"memory\") 1)";
    let start = |body: &str| format!("{memory} (func (export \"_start\") {body})");
    let deep = format!("{memory} (func $f (export \"_start\") (call $f) (call $f))");
    // Buffers that overlap all of memory, over and over.
    let buffers: String = (0..1024).map(|_| "\\00\\00\\00\\00\\00\\00\\00\\02").collect();
    let flood = format!(
        "(memory (export \"memory\") 600) (data (i32.const 0) \"{buffers}\")
         (func (export \"_start\")
            (loop (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1024) (i32.const 8)))
                  (br 0)))"
    );
    let fast = |limits: &mut Limits| limits.wall = Duration::from_millis(300);
    let cases: [(&str, String, Termination); 11] = [
        ("an endless loop", start("(loop (br 0))"), limit(LimitKind::Wall)),
        (
            "endless host calls",
            start("(loop (drop (call $random (i32.const 0) (i32.const 65536))) (br 0))"),
            limit(LimitKind::Wall),
        ),
        ("long host calls", flood, limit(LimitKind::Wall)),
        ("recursion", deep, Termination::Signaled(libc::SIGSEGV)),
        (
            "grows past its limit",
            start("(loop (drop (memory.grow (i32.const 16))) (br 0))"),
            limit(LimitKind::Memory),
        ),
        (
            "reads past its memory",
            start("(drop (i32.load (i32.const -4)))"),
            Termination::Signaled(libc::SIGSEGV),
        ),
        (
            "points past its memory",
            start("(call $exit (call $random (i32.const -1) (i32.const -1)))"),
            Termination::Exited(21),
        ),
        ("gives up", start("unreachable"), Termination::Signaled(libc::SIGABRT)),
        (
            "divides by zero",
            start("(drop (i32.div_s (i32.const 1) (i32.const 0)))"),
            Termination::Signaled(libc::SIGFPE),
        ),
        ("has no start", memory.into(), Termination::Exited(126)),
        (
            "wants a socket",
            format!("(import \"env\" \"socket\" (func)) {}", start("")),
            Termination::Exited(126),
        ),
    ];
    for (name, body, expected) in cases {
        let execution = wat(&body, fast).await;
        assert_eq!(ended(&execution), expected, "{name}: {}", execution.stderr.lossy());
    }
    let execution = run(
        spec(&[("main.wasm", &vec![0; 5 << 20])]),
        Command { argv: vec!["/workspace/main.wasm".into()], ..Command::default() },
    )
    .await;
    assert_eq!(execution.termination, Termination::Exited(126));
    assert!(execution.stderr.lossy().contains("larger than"), "{}", execution.stderr.lossy());
}

/// A program of so many blocks, which take the compiler its time.
fn laborious(blocks: usize) -> Vec<u8> {
    let block = "(block (br_if 0 (local.get 0))
        (local.set 0 (i32.add (local.get 0) (i32.load (local.get 0))))
        (local.set 1 (i64.add (local.get 1) (i64.extend_i32_u (local.get 0)))))";
    let body = block.repeat(blocks);
    let text = format!(
        r#"(module (memory (export "memory") 1) (func (export "_start") (local i32 i64) {body}))"#
    );
    wat::parse_str(text).unwrap()
}

/// Compiling has limits of its own, and a host that can't compile blames no program.
#[tokio::test(flavor = "multi_thread")]
async fn compiling_is_limited() {
    let state = tempfile::tempdir().unwrap();
    let command = || Command { argv: vec!["/workspace/main.wasm".into()], ..Command::default() };
    let set = |cpu_s: u64, memory_mib: u64| WasmConfig {
        max_sandboxes: 4,
        ahead: 0,
        compile_cpu: Duration::from_secs(cpu_s),
        compile_memory_bytes: memory_mib << 20,
        ..config(state.path())
    };
    let (long, short) = (laborious(100_000), laborious(1));
    assert!(long.len() < 4 << 20, "{} bytes", long.len());
    let cases = [
        ("time", set(1, 1024), &long, 126, "more than 1 s to compile"),
        ("memory", set(60, 48), &long, 126, "more than 48 MiB to compile"),
        ("neither", set(1, 48), &short, 0, ""),
    ];
    for (name, config, module, status, expected) in cases {
        let wasm = Wasm::start(config).unwrap();
        let sandbox = wasm.create(spec(&[("main.wasm", module)])).await.unwrap();
        let execution = sandbox.run(command()).await.unwrap();
        let words = execution.stderr.lossy();
        assert_eq!(execution.termination, Termination::Exited(status), "{name}: {words}");
        assert!(words.contains(expected), "{name}: {words}");
    }
    for compiler in ["/nowhere", "/bin/false", "/bin/true"] {
        let wasm = Wasm::start(WasmConfig { compiler: compiler.into(), ..set(1, 48) }).unwrap();
        let sandbox = wasm.create(spec(&[("main.wasm", &short)])).await.unwrap();
        let failed = sandbox.run(command()).await;
        assert!(matches!(failed, Err(BackendError::Io { .. })), "{compiler}: {failed:?}");
    }
}

/// A program that asks for what the host can't give is told nothing of it: its run is void.
#[tokio::test(flavor = "multi_thread")]
async fn a_shortage_of_the_hosts_is_no_result() {
    let state = tempfile::tempdir().unwrap();
    let config = WasmConfig { ahead: 0, max_sandboxes: 4, ..config(state.path()) };
    let wasm = Wasm::start(WasmConfig { memory_bytes: 8 << 20, ..config }).unwrap();
    let command = || Command { argv: vec!["/workspace/main.wasm".into()], ..Command::default() };
    let grow = |pages: u32| {
        let text = format!(
            r#"(module (memory (export "memory") 1)
                (func (export "_start") (drop (memory.grow (i32.const {pages})))))"#
        );
        spec(&[("main.wasm", &wat::parse_str(text).unwrap())])
    };
    for (pages, given) in [(500, false), (100, true), (100, true), (128, false)] {
        let ran = wasm.create(grow(pages)).await.unwrap().run(command()).await;
        match ran {
            Ok(execution) if given => assert_eq!(execution.termination, Termination::Exited(0)),
            Err(BackendError::Io { .. }) if !given => {}
            other => panic!("{pages} pages: {other:?}"),
        }
    }
}

/// Nor is a channel that the kernel can't serve: here, a folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_fails_is_no_result() {
    let body = r#"(module
        (import "wasi_snapshot_preview1" "fd_read"
            (func $read (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 4) "\08")
        (func (export "_start")
            (drop (call $read (i32.const 4) (i32.const 0) (i32.const 1) (i32.const 16)))))"#;
    let spec = spec(&[("main.wasm", &wat::parse_str(body).unwrap())]);
    let folder = std::fs::File::open("/").unwrap();
    let command = Command {
        argv: vec!["/workspace/main.wasm".into()],
        channels: vec![Channel { fd: 4, end: ChannelEnd::Fd(folder.into()) }],
        ..Command::default()
    };
    let ran = backend().create(spec).await.unwrap().run(command).await;
    assert!(matches!(ran, Err(BackendError::Io { .. })), "{ran:?}");
}

/// What one program leaves in its memory, the next one in that place of the pool must not find.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_new_every_time() {
    let body = r#"(memory (export "memory") 64) (data (i32.const 4096) "fresh")
        (func (export "_start") (local $at i32)
            (if (i32.ne (i32.load (i32.const 4096)) (i32.const 0x73657266)) (then (call $exit (i32.const 3))))
            (loop
                (if (i32.and
                        (i32.ne (i32.shr_u (local.get $at) (i32.const 12)) (i32.const 1))
                        (i32.ne (i32.load (local.get $at)) (i32.const 0)))
                    (then (call $exit (i32.const 4))))
                (i32.store (local.get $at) (i32.const 0x41414141))
                (local.set $at (i32.add (local.get $at) (i32.const 4)))
                (br_if 0 (i32.lt_u (local.get $at) (i32.const 0x400000)))))"#;
    for _ in 0..100 {
        let execution = wat(body, |_| ()).await;
        assert_eq!(execution.termination, Termination::Exited(0), "{}", execution.stderr.lossy());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_is_bounded() {
    let body = r#"(memory (export "memory") 2) (data (i32.const 0) "\08\00\00\00\00\00\01\00")
        (func (export "_start") (local $n i32)
            (loop
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 131064)))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if 0 (i32.lt_u (local.get $n) (i32.const 800)))))"#;
    let execution = wat(body, |limits| limits.output_bytes = 1000).await;
    assert_eq!(execution.termination, Termination::Exited(0), "{}", execution.stderr.lossy());
    assert_eq!(execution.stdout.head.len(), 500);
    assert_eq!(execution.stdout.dropped, (800 << 16) - 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_run_makes_room() {
    let state = tempfile::tempdir().unwrap();
    let config = WasmConfig { max_sandboxes: 1, ahead: 0, ..config(state.path()) };
    let wasm = Wasm::start(config).unwrap();
    let endless = wat::parse_str(
        "(module (memory (export \"memory\") 1) (func (export \"_start\") (loop (br 0))))",
    );
    let endless = endless.unwrap();
    let sandbox = wasm.create(spec(&[("main.wasm", &endless)])).await.unwrap();
    let command = || Command { argv: vec!["/workspace/main.wasm".into()], ..Command::default() };
    let started = Instant::now();
    let run = sandbox.run(command());
    assert!(tokio::time::timeout(Duration::from_millis(200), run).await.is_err());
    // The one place there is comes back long before the wall limit.
    let mut quick = spec(&[("main.wasm", &endless)]);
    quick.limits.wall = Duration::from_millis(100);
    let execution = wasm.create(quick).await.unwrap().run(command()).await.unwrap();
    assert_eq!(ended(&execution), limit(LimitKind::Wall));
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_what_it_cannot_do() {
    let wasm = backend();
    let missing = ImageRef::Wasm { module: "/nowhere.wasm".into(), digest: String::new() };
    let refused = wasm.create(SandboxSpec { image: missing, ..spec(&[]) }).await;
    assert!(matches!(refused, Err(BackendError::ImageNotFound(_))));
    let rootfs = ImageRef::Rootfs { path: "/".into(), digest: "sha256:0".into() };
    let refused = wasm.create(SandboxSpec { image: rootfs, ..spec(&[]) }).await;
    assert!(matches!(refused, Err(BackendError::Unsupported { .. })));
    let cases = [("/bin/sh", 127), ("/workspace/no.wasm", 127), ("/workspace/text.wasm", 126)];
    for (program, status) in cases {
        let command = Command { argv: vec![program.into()], ..Command::default() };
        let execution = run(spec(&[("text.wasm", b"text")]), command).await;
        assert_eq!(execution.termination, Termination::Exited(status), "{program}");
        assert!(execution.stderr.lossy().starts_with(program), "{}", execution.stderr.lossy());
    }
}

/// An image is what its digest says or none. One that is mended is taken without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_what_its_digest_says() {
    if !has_python() {
        return;
    }
    let ImageRef::Wasm { module, digest } = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("python.wasm");
    let whole = std::fs::read(module).unwrap();
    std::fs::write(&copy, &whole[..whole.len() / 2]).unwrap();
    let image = ImageRef::Wasm { module: copy.clone(), digest };
    let run = async || {
        let spec = SandboxSpec { image: image.clone(), ..python_spec() };
        backend().create(spec).await.unwrap().run(python("print(1)")).await
    };
    let refused = run().await.unwrap_err();
    assert!(matches!(refused, BackendError::Spec(_)), "{refused:?}");
    assert!(refused.to_string().contains("its digest is sha256:"), "{refused}");
    std::fs::write(&copy, &whole).unwrap();
    assert_eq!(run().await.unwrap().termination, Termination::Exited(0));
}

/// A host's file that can't be read any more is no fault of the program's, whatever that makes of it.
#[tokio::test]
async fn a_failure_of_the_hosts_disk_is_no_result() {
    if !has_python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    std::fs::write(&path, "text").unwrap();
    let layers = vec![Layer::Dir(Arc::new(folder.path().to_owned()))];
    let code = "
while True:
    try: open('a.txt').read()
    except OSError: break
print('gone')
";
    let sandbox = backend().create(SandboxSpec { layers, ..python_spec() }).await.unwrap();
    let run = tokio::spawn(sandbox.run(python(code)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    std::fs::remove_file(path).unwrap();
    let ran = run.await.unwrap();
    assert!(matches!(ran, Err(BackendError::Io { .. })), "{ran:?}");
}
