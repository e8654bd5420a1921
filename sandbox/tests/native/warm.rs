//! Commands that are forks of a warm interpreter.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use assay_sandbox::{
    Backend, Channel, ChannelEnd, Command, Execution, FileEntry, ImageRef, Layer, LimitKind,
    SandboxSpec, Start, Termination, Warm,
};

use crate::common::{
    Fixture, file, files, limited, native, native_of_one_slot, rootfs, spec, stdout, told,
};

pub(crate) type Programs = Arc<BTreeMap<PathBuf, Arc<[u8]>>>;

fn programs<const N: usize>(texts: [(&str, &str); N]) -> Programs {
    let texts = texts.map(|(name, text)| (format!("/assay/{name}").into(), text.as_bytes().into()));
    Arc::new(texts.into())
}

/// Runs `/assay/script.py`, which is `code`, from an interpreter that holds `modules`.
pub(crate) fn script(code: &str, modules: &[&str]) -> (Programs, Command) {
    let programs = programs([("script.py", code)]);
    let modules = modules.iter().map(|name| (*name).to_owned()).collect();
    let warm = Warm { modules, programs: Arc::default() };
    let argv = ["/usr/bin/python3", "-P", "-s", "-B", "/assay/script.py", "one", "two"];
    let env = [("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("PYTHONHASHSEED", "0")];
    let command = Command {
        argv: argv.map(String::from).into(),
        env: env.map(|(name, value)| (name.into(), value.into())).into(),
        stdin: b"input".as_slice().into(),
        warm: Some(warm),
        ..Command::default()
    };
    (programs, command)
}

pub(crate) async fn run_in(
    native: &Fixture,
    spec: SandboxSpec,
    code: &str,
    modules: &[&str],
) -> Execution {
    let (trusted, command) = script(code, modules);
    native.run_in(SandboxSpec { trusted, ..spec }, command).await
}

async fn run(native: &Fixture, code: &str) -> Execution {
    run_in(native, spec(), code, &["json"]).await
}

/// Everything about a process that a cold start fixes, and what confines it.
const PORTRAIT: &str = r#"
import gc, os, resource, signal, sys
def show(*what): print(*what)
show(sys.argv, sys.orig_argv, sys.flags, sys.path, __name__, __file__, __builtins__)
show(sys.stdin.read(), sys.stdin.encoding, sys.stdout.line_buffering, sys.stderr.errors)
show(sorted(os.environ.items()), os.getcwd(), hash("text"), gc.isenabled())
show(os.getppid(), os.getsid(0) == os.getpgrp() == os.getpid(), os.getuid(), os.getgid())
show([signal.getsignal(n) for n in range(1, 65)], signal.pthread_sigmask(signal.SIG_BLOCK, []))
show(sorted(os.listdir("/proc/self/fd"))[:-1], os.readlink("/proc/self/exe"))
for name in "RLIMIT_FSIZE", "RLIMIT_CPU", "RLIMIT_NPROC", "RLIMIT_NOFILE", "RLIMIT_STACK", "RLIMIT_DATA":
    show(name, resource.getrlimit(getattr(resource, name)))
mask = os.umask(0); os.umask(mask); show(mask)
for line in open("/proc/self/status"):
    if line.split(":")[0] in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Threads"):
        show(line.strip())
show([n == str(os.getpid()) for n in os.listdir("/proc") if n.isdigit()], os.path.exists("/proc/1/root"))
show({k: v for k, v in vars(sys.modules["__main__"]).items() if k in ("__name__", "__doc__", "__package__", "__spec__", "__annotations__", "__cached__")})
import collections; show(hasattr(collections, "abc"), open("/proc/self/oom_score_adj").read())
show(open("/proc/self/mountinfo").read().count("\n"), open("/proc/self/cgroup").read())
show([open("/proc/net/dev").read().count(":"), sorted(os.listdir("/")), sorted(os.listdir("/assay"))])
"#;

#[tokio::test]
async fn is_what_a_cold_start_is() {
    let Some(native) = native() else { return };
    let (trusted, command) = script(PORTRAIT, &["json"]);
    let cold = Command { warm: None, ..script(PORTRAIT, &[]).1 };
    let spec = SandboxSpec { trusted, layers: vec![files([("sub/x.txt", file("x"))])], ..spec() };
    let at = |command| Command { cwd: "sub".into(), ..command };
    let warm = native.run_in(spec.clone(), at(command)).await;
    let cold = native.run_in(spec, at(cold)).await;
    assert_eq!((&warm.isolation.start, &cold.isolation.start), (&Start::Warm, &Start::Cold));
    assert_eq!(cold.termination, Termination::Exited(0), "{}", told(&cold));
    // Where rlimits alone limit the processes, the interpreter is one that counts.
    let lines = |execution: &Execution| -> Vec<String> {
        let all = stdout(execution);
        all.lines().filter(|line| !line.starts_with("RLIMIT_NPROC")).map(str::to_owned).collect()
    };
    for (warm, cold) in lines(&warm).iter().zip(lines(&cold)) {
        assert_eq!(*warm, cold);
    }
    assert_eq!(lines(&warm).len(), lines(&cold).len(), "{}", told(&warm));
}

#[tokio::test]
async fn holds_no_more_modules_than_it_needs() {
    let Some(native) = native() else { return };
    let code = "import sys; print(*sorted(name for name in sys.modules if name[0] != '_' or name == '__main__'))";
    let (trusted, command) = script(code, &[]);
    let argv = ["/usr/bin/python3", "-P", "-s", "-S", "-B", "/assay/script.py"].map(String::from);
    let cold = Command { warm: None, argv: argv.into(), ..script(code, &[]).1 };
    let spec = SandboxSpec { trusted, ..spec() };
    let command = Command { argv: cold.argv.clone(), ..command };
    let warm = stdout(&native.run_in(spec.clone(), command).await);
    let cold = stdout(&native.run_in(spec, cold).await);
    let more: Vec<_> = warm
        .split_whitespace()
        .filter(|name| !cold.split_whitespace().any(|c| c == *name))
        .collect();
    // What it enters sandboxes with. A package among them must not bring a submodule that code could
    // have forgotten to import.
    let ours = [
        "ctypes",
        "ctypes._endian",
        "errno",
        "fcntl",
        "gc",
        "genericpath",
        "os",
        "os.path",
        "posixpath",
        "resource",
        "stat",
        "struct",
        "types",
    ];
    assert!(more.iter().all(|name| ours.contains(name)), "{more:?}");
}

#[tokio::test]
async fn leaves_nothing_for_the_next_run() {
    let Some(native) = native() else { return };
    // In the namespaces that an interpreter is started beside, and in later ones.
    for _ in 0..3 {
        let code = "import ctypes\nlibc = ctypes.CDLL(None)\nprint(open('/proc/sysvipc/shm').read().count('\\n'))\n\
            assert libc.shmget(4711, 1 << 20, 0o1666) >= 0";
        let execution = run(&native, code).await;
        assert_eq!(stdout(&execution), "1", "the heading alone: {}", told(&execution));
        assert_eq!(execution.termination, Termination::Exited(0), "{}", told(&execution));
    }
    let ours = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    assert!(!ours.contains(" 4711 "), "{ours}");
}

#[tokio::test]
async fn makes_no_children_of_others() {
    let Some(native) = native() else { return };
    // CLONE_PARENT with SIGCHLD, by the system call: a sibling, which pid 1 would have to reap.
    let code = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
        pid = libc.syscall(56, 0x8000 | 17, 0, 0, 0, 0)\n\
        if pid == 0: os._exit(0)\nprint(pid, ctypes.get_errno())";
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: system call 56 is `clone` on x86-64");
        return;
    }
    for warm in [true, false] {
        let (trusted, command) = script(code, &["json"]);
        let command = Command { warm: command.warm.clone().filter(|_| warm), ..command };
        let execution = native.run_in(SandboxSpec { trusted, ..spec() }, command).await;
        assert_eq!(stdout(&execution), "-1 1", "EPERM: {}", told(&execution));
    }
}

#[tokio::test]
async fn runs_do_not_see_each_other() {
    let Some(native) = native() else { return };
    let code = "import json, os, sys\nprint(getattr(json, 'mark', None), os.environ.get('MARK'), 'colorsys' in sys.modules)\n\
        json.mark = os.environ['MARK'] = 'left'; import colorsys; json.loads = None\nopen('/tmp/mark', 'x'); open('mark', 'x')";
    for _ in 0..3 {
        let execution = run(&native, code).await;
        assert_eq!(stdout(&execution), "None None False", "{}", told(&execution));
        assert_eq!(execution.isolation.start, Start::Warm);
        assert_eq!(execution.termination, Termination::Exited(0));
    }
}

#[tokio::test]
async fn reports_how_a_script_ended() {
    let Some(native) = native() else { return };
    let cases = [
        ("print('x')", Termination::Exited(0)),
        ("import sys; sys.exit(3)", Termination::Exited(3)),
        ("import sys; sys.exit('why')", Termination::Exited(1)),
        ("1 / 0", Termination::Exited(1)),
        ("not python", Termination::Exited(1)),
        ("import os; os._exit(7)", Termination::Exited(7)),
        ("import os; os.kill(os.getpid(), 9)", Termination::Signaled(9)),
        ("import os; os.abort()", Termination::Signaled(6)),
        (
            "import threading, time; threading.Thread(target=time.sleep, args=[.1]).start()",
            Termination::Exited(0),
        ),
        (
            "import os; os.fork() and os._exit(5); import time; time.sleep(1000)",
            Termination::Exited(5),
        ),
    ];
    for (code, expected) in cases {
        let execution = run(&native, code).await;
        assert_eq!(execution.termination, expected, "{code}: {}", told(&execution));
        assert_eq!(execution.isolation.start, Start::Warm, "{code}");
    }
    let execution = run(&native, "1 / 0").await;
    assert!(execution.stderr.lossy().contains("ZeroDivisionError"), "{}", told(&execution));
}

#[tokio::test]
async fn limits_hold() {
    let Some(native) = native() else { return };
    let wall = limited(|limits| limits.wall = Duration::from_millis(500));
    let cpu = limited(|limits| limits.cpu = Duration::from_millis(300));
    let memory = limited(|limits| {
        limits.memory_bytes = 64 << 20;
        limits.disk_bytes = 16 << 20;
    });
    let cases = [
        ("import time; time.sleep(1000)", wall.clone(), LimitKind::Wall),
        (
            "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(1000)",
            wall,
            LimitKind::Wall,
        ),
        ("while True: pass", cpu.clone(), LimitKind::Cpu),
        ("import os\nos.fork(); os.fork()\nwhile True: pass", cpu, LimitKind::Cpu),
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", memory.clone(), LimitKind::Memory),
    ];
    for (code, spec, expected) in cases {
        let execution = run_in(&native, spec, code, &["json"]).await;
        assert_eq!(execution.isolation.start, Start::Warm);
        let fallbacks = &execution.isolation.fallbacks;
        if expected == LimitKind::Memory && fallbacks.iter().any(|f| f.starts_with("memory")) {
            // Without a cgroup an allocation may fail first, and the program with it.
            assert!(!execution.termination.success(), "{code}: {}", told(&execution));
            continue;
        }
        let limits = [Termination::Limit(expected), Termination::Limit(LimitKind::WallStarved)];
        assert!(limits.contains(&execution.termination), "{code}: {}", told(&execution));
    }
    let spec = limited(|limits| limits.pids = 1);
    let execution = run_in(&native, spec, "print('alone')", &["json"]).await;
    assert_eq!(stdout(&execution), "alone", "{}", told(&execution));
    assert!(matches!(execution.isolation.start, Start::ColdInstead(_)));
    let count = "import os, time\nn = 0\nfor i in range(50):\n try:\n  if os.fork() == 0: time.sleep(1000)\n  n += 1\n except OSError: break\nprint(n)";
    let spec = limited(|limits| limits.pids = 20);
    let execution = run_in(&native, spec, count, &["json"]).await;
    assert_eq!(stdout(&execution), "19", "the command itself and 19 more: {}", told(&execution));
    let execution =
        run(&native, "x = bytearray(100 << 20); import time; time.sleep(.3); print(len(x))").await;
    assert!(execution.usage.peak_memory_bytes > 100 << 20, "{:?}", execution.usage);
    assert!(execution.usage.cpu > Duration::ZERO, "{:?}", execution.usage);
}

#[tokio::test]
async fn refuses_what_a_cold_start_might_see_otherwise() {
    let Some(native) = native() else { return };
    let print = "import sys; sys.path.insert(0, '.'); import json; print(json.__file__)";
    let cases = [
        ("json.py", true),
        ("json/__init__.py", true),
        ("tests/json.py", true),
        ("other.py", false),
        // Nobody's `json` but the package's own.
        ("pkg/json.py", false),
    ];
    for (path, refused) in cases {
        let layer = files([(path, file("")), ("pkg/__init__.py", file(""))]);
        let spec = SandboxSpec { layers: vec![layer], ..spec() };
        let execution = run_in(&native, spec, print, &["json"]).await;
        let start = &execution.isolation.start;
        match start {
            Start::Warm => assert!(!refused, "{path}"),
            Start::ColdInstead(why) => assert!(refused && why.contains("`json`"), "{path}: {why}"),
            Start::Cold => panic!("{path}: {}", told(&execution)),
        }
        assert_eq!(execution.termination, Termination::Exited(0), "{path}: {}", told(&execution));
        let own = matches!(path, "json.py" | "json/__init__.py");
        assert_eq!(stdout(&execution).starts_with("/work"), own, "{path}: {}", told(&execution));
    }
    // A copy of a dependency counts wherever it lies.
    let layer = files([
        ("pkg/__init__.py", FileEntry::File { content: Arc::default(), executable: false }),
        ("pkg/_vendor/__init__.py", file("")),
        ("pkg/_vendor/packaging/__init__.py", file("")),
    ]);
    let spec = SandboxSpec { layers: vec![layer], ..spec() };
    let execution = run_in(&native, spec, "print('ran')", &["packaging"]).await;
    let Start::ColdInstead(why) = &execution.isolation.start else { panic!("{execution:?}") };
    assert!(why.contains("`packaging`"), "{why}");
    assert_eq!(stdout(&execution), "ran");
}

#[tokio::test]
async fn an_interpreter_that_can_not_be_is_said_and_made_up_for() {
    let Some(native) = native() else { return };
    for _ in 0..2 {
        let execution = run_in(&native, spec(), "print('ran')", &["no_such_module"]).await;
        let Start::ColdInstead(why) = &execution.isolation.start else { panic!("{execution:?}") };
        assert!(why.contains("no_such_module"), "{why}");
        assert_eq!(stdout(&execution), "ran");
    }
    let argv = ["/usr/bin/python3", "-c", "print('ran')"].map(String::from).into();
    let warm = Some(Warm { modules: Vec::new(), programs: Arc::default() });
    let sandbox = native.create(spec()).await.expect("a sandbox");
    let error = sandbox.run(Command { argv, warm, ..Command::default() }).await;
    assert!(error.unwrap_err().to_string().contains("option -P"));
}

#[tokio::test]
async fn programs_are_ready_and_only_used_where_they_are_the_same() {
    let Some(native) = native() else { return };
    let ours = programs([
        ("script.py", "import helper; print(helper.WHO)"),
        ("helper.py", "WHO = 'ours'"),
    ]);
    let (_, command) = script("", &["helper"]);
    let warm = |programs: &Programs| {
        Some(Warm { modules: vec!["helper".into()], programs: Arc::clone(programs) })
    };
    let spec = SandboxSpec { trusted: Arc::clone(&ours), ..spec() };
    let with = |warm| Command {
        warm,
        stdin: Arc::default(),
        argv: command.argv.clone(),
        env: command.env.clone(),
        ..Command::default()
    };
    let execution = native.run_in(spec.clone(), with(warm(&ours))).await;
    assert_eq!((stdout(&execution), &execution.isolation.start), ("ours".into(), &Start::Warm));
    let theirs = programs([("script.py", "print('theirs')")]);
    let spec = SandboxSpec { trusted: theirs, ..spec };
    let execution = native.run_in(spec, with(warm(&ours))).await;
    assert_eq!(stdout(&execution), "theirs", "{}", told(&execution));
}

#[tokio::test]
async fn channels_and_long_requests_arrive() {
    let Some(native) = native() else { return };
    let code = "import os, sys\nos.write(3, b'three'); os.write(9, b'nine')\nprint(len(sys.argv), len(sys.stdin.read()))";
    let (trusted, mut command) = script(code, &["json"]);
    command.argv.extend((0..3000).map(|n| format!("{n:0>40}")));
    command.stdin = vec![b'x'; 1 << 20].into();
    command.channels =
        [9, 3].map(|fd| Channel { fd, end: ChannelEnd::Collect { max_bytes: 100 } }).into();
    let many: BTreeMap<_, _> =
        (0..4000).map(|n| (PathBuf::from(format!("m{n:0>20}.py")), file(""))).collect();
    let spec = SandboxSpec { trusted, layers: vec![Layer::Files(Arc::new(many))], ..spec() };
    let execution = native.run_in(spec, command).await;
    assert_eq!(stdout(&execution), "3003 1048576", "{}", told(&execution));
    assert_eq!(execution.isolation.start, Start::Warm);
    let heads: Vec<_> = execution.channels.iter().map(|capture| capture.head.clone()).collect();
    assert_eq!(heads, [b"nine".to_vec(), b"three".to_vec()]);
}

#[tokio::test]
async fn many_in_parallel_and_cancelled_ones_leave_it_well() {
    let Some(native) = native() else { return };
    let runs = (0..20).map(|n| {
        let native = &native;
        async move {
            if n % 4 == 0 {
                let (trusted, command) = script("import time; time.sleep(1000)", &["json"]);
                let sandbox = native.create(SandboxSpec { trusted, ..spec() }).await.unwrap();
                let run = tokio::time::timeout(Duration::from_millis(50 * n), sandbox.run(command));
                assert!(run.await.is_err(), "it sleeps");
                return;
            }
            let execution = run(native, &format!("print({n})")).await;
            assert_eq!(stdout(&execution), n.to_string(), "{}", told(&execution));
            assert_eq!(execution.isolation.start, Start::Warm);
        }
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn a_killed_interpreter_harms_no_run_and_is_replaced() {
    let Some(native) = native() else { return };
    // A module of its own, which no other test's interpreter has.
    let mark = format!("mark_{}", std::process::id());
    let code = "import time\ntime.sleep(5)\nprint('ran')";
    let programs = programs([("script.py", code), (&format!("{mark}.py"), "")]);
    let warm = || Some(Warm { modules: vec![mark.clone()], programs: Arc::clone(&programs) });
    let command = || Command { warm: warm(), ..script(code, &[]).1 };
    let spec = SandboxSpec { trusted: Arc::clone(&programs), ..spec() };
    for _ in 0..2 {
        let sandbox = native.create(spec.clone()).await.expect("a sandbox");
        let killing = async {
            let started = std::time::Instant::now();
            // The interpreter and the command's process, which shows as what it was forked from.
            while interpreters(&mark).len() != 2 {
                assert!(started.elapsed() < Duration::from_secs(60), "it never started");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            let first = interpreters(&mark).into_iter().find(|pid| is_outside(*pid)).expect("one");
            rustix::process::kill_process(
                rustix::process::Pid::from_raw(first).expect("an id"),
                rustix::process::Signal::KILL,
            )
            .expect("a kill");
        };
        let (execution, ()) = tokio::join!(sandbox.run(command()), killing);
        let execution = execution.expect("an execution");
        assert_eq!((stdout(&execution), &execution.isolation.start), ("ran".into(), &Start::Warm));
        assert_eq!(interpreters(&mark).len(), 0);
    }
}

#[tokio::test]
async fn an_interpreter_that_dies_with_a_command_is_made_up_for() {
    let Some(native) = native() else { return };
    // A module that no other process's tests have.
    let mark = format!("dies_{}", std::process::id());
    let programs = programs([("script.py", "print('ran')"), (&format!("{mark}.py"), "")]);
    let warm = Warm { modules: vec![mark.clone()], programs: Arc::clone(&programs) };
    let command = || Command { warm: Some(warm.clone()), ..script("", &[]).1 };
    let spec = SandboxSpec { trusted: Arc::clone(&programs), ..spec() };
    let execution = native.run_in(spec.clone(), command()).await;
    assert_eq!(execution.isolation.start, Start::Warm);
    let found = interpreters(&mark);
    assert_eq!(found.len(), 1);
    let signal = |signal| {
        for pid in found.iter().filter_map(|pid| rustix::process::Pid::from_raw(*pid)) {
            rustix::process::kill_process(pid, signal).expect("a signal");
        }
    };
    signal(rustix::process::Signal::STOP);
    let dies = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        signal(rustix::process::Signal::KILL);
    };
    let (execution, ()) = tokio::join!(native.run_in(spec.clone(), command()), dies);
    assert_eq!(stdout(&execution), "ran", "{}", told(&execution));
    let Start::ColdInstead(why) = &execution.isolation.start else { panic!("{execution:?}") };
    assert!(why.contains("it ended"), "{why}");
    let execution = native.run_in(spec, command()).await;
    assert_eq!(execution.isolation.start, Start::Warm);
}

#[tokio::test]
async fn a_fork_that_dies_before_it_begins_is_made_up_for() {
    let Some(native) = native() else { return };
    // The second fork is the command's process; it leaves without a word.
    let dies = "
import os
depth = []
def leave():
    depth.append(1)
    if len(depth) == 2: os._exit(0)
os.register_at_fork(after_in_child=leave)
";
    let programs = programs([("script.py", "print('ran')"), ("fork_dies.py", dies)]);
    let warm = Warm { modules: vec!["fork_dies".into()], programs: Arc::clone(&programs) };
    let spec = SandboxSpec { trusted: Arc::clone(&programs), ..spec() };
    for _ in 0..2 {
        let command = Command { warm: Some(warm.clone()), ..script("", &[]).1 };
        let execution = native.run_in(spec.clone(), command).await;
        assert_eq!(stdout(&execution), "ran", "{}", told(&execution));
        let Start::ColdInstead(why) = &execution.isolation.start else { panic!("{execution:?}") };
        assert!(why.contains("its fork died"), "{why}");
    }
}

/// Its kill is not the command's.
#[tokio::test]
async fn an_interpreter_that_runs_out_of_memory_is_nobodys_limit() {
    let Some(native) = native() else { return };
    let greedy = "
import os
held, own, forks = [], os.getpid(), []
def more():
    if os.getpid() == own:
        forks.append(1)
        if len(forks) == 2: held.append(b'x' * (600 << 20))
os.register_at_fork(before=more)
";
    let programs = programs([("script.py", "print('ran')"), ("greedy.py", greedy)]);
    let modules = vec!["greedy".into()];
    let warm = Warm { modules, programs: Arc::clone(&programs) };
    let spec = limited(|limits| limits.memory_bytes = 100 << 20);
    let spec = SandboxSpec { trusted: Arc::clone(&programs), ..spec };
    let (mut lost, mut limited) = (0, true);
    for _ in 0..3 {
        let command = Command { warm: Some(warm.clone()), ..script("", &[]).1 };
        match native.create(spec.clone()).await.expect("a sandbox").run(command).await {
            Ok(execution) => {
                assert_eq!(execution.termination, Termination::Exited(0), "{execution:?}");
                limited &= !execution.isolation.fallbacks.iter().any(|it| it.starts_with("memory"));
            }
            Err(_) => lost += 1,
        }
    }
    assert!(lost > 0 || !limited, "none ran out of memory");
}

/// The directories may be others whatever ran between.
#[tokio::test]
async fn an_interpreter_of_an_image_that_was_made_again_is_not_lent() {
    let (Some(native), Some(rootfs)) = (native_of_one_slot(), rootfs()) else { return };
    let place = tempfile::tempdir().expect("a folder");
    let top = place.path().join("top");
    for value in ["first", "second"] {
        let library = top.join("usr/lib/python3.11");
        std::fs::create_dir_all(&library).expect("a folder");
        std::fs::write(library.join("which.py"), format!("VALUE = '{value}'")).expect("a file");
        let image = ImageRef::Layers {
            paths: [rootfs.clone(), top.clone()].into(),
            digest: "sha256:same".into(),
        };
        let spec = SandboxSpec { image, ..spec() };
        let execution = run_in(&native, spec, "import which; print(which.VALUE)", &["which"]).await;
        assert_eq!(stdout(&execution), value, "{}", told(&execution));
        assert_eq!(execution.isolation.start, Start::Warm);
        std::fs::rename(&top, place.path().join(value)).expect("a move");
        run(&native, "print('between')").await;
    }
}

/// Whether a process is in no sandbox: it has one id.
fn is_outside(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    ids.is_some_and(|ids| ids.split_whitespace().count() == 1)
}

/// The processes that imported the module `mark`.
fn interpreters(mark: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    entries
        .filter_map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            (line.contains("warm.py") && line.contains(mark))
                .then(|| entry.file_name().to_str()?.parse().ok())?
        })
        .collect()
}
