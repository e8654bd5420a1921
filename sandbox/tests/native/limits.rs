//! What takes too much ends in its limit, and a neighbour doesn't notice.

use std::time::{Duration, Instant};

use assay_sandbox::{Execution, LimitKind, SandboxSpec, Termination};

use crate::common::{Fixture, file, files, limited, native, python, sh, spec, stdout, told};

/// A neighbour that runs all the time beside `attack` and must come out right.
async fn beside_a_neighbour(
    native: &Fixture,
    attack: impl Future<Output = Execution>,
) -> Execution {
    let neighbour = async {
        let mut runs = 0;
        loop {
            let spec = SandboxSpec { layers: vec![files([("in", file("41"))])], ..spec() };
            let execution =
                native.run_in(spec, sh("echo $(($(cat in) + 1)) | tee out; cat out")).await;
            assert_eq!(stdout(&execution), "42\n42", "the neighbour: {}", told(&execution));
            runs += 1;
            if runs > 10_000 {
                return;
            }
        }
    };
    tokio::select! {
        execution = attack => execution,
        () = neighbour => unreachable!("it runs for longer"),
    }
}

/// Whether the wall limit ended it. Which of the two kinds that is depends on what else this machine
/// does at the moment.
fn hit_the_wall(execution: &Execution) -> bool {
    let kinds = [LimitKind::Wall, LimitKind::WallStarved].map(Termination::Limit);
    kinds.contains(&execution.termination)
}

#[tokio::test]
async fn an_endless_sleep_ends_at_the_wall_limit() {
    let Some(native) = native() else { return };
    let spec = limited(|limits| limits.wall = Duration::from_millis(400));
    let started = Instant::now();
    let execution = native.run_in(spec, sh("echo before; sleep 1000")).await;
    assert!(hit_the_wall(&execution), "{}", told(&execution));
    assert_eq!(stdout(&execution), "before");
    assert!(execution.usage.wall >= Duration::from_millis(400));
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn an_endless_loop_ends_at_the_cpu_limit() {
    let Some(native) = native() else { return };
    let spec = limited(|limits| limits.cpu = Duration::from_millis(300));
    for script in ["while :; do :; done", "(while :; do :; done) & (while :; do :; done) & wait"] {
        let attack = native.run_in(spec.clone(), sh(script));
        let execution = beside_a_neighbour(&native, attack).await;
        assert_eq!(execution.termination, Termination::Limit(LimitKind::Cpu), "{script}");
        assert!(execution.usage.cpu < Duration::from_secs(2), "{:?}", execution.usage);
    }
}

#[tokio::test]
async fn a_memory_bomb_ends_at_the_memory_limit() {
    let Some(native) = native() else { return };
    let spec = limited(|limits| {
        limits.memory_bytes = 64 << 20;
        limits.disk_bytes = 16 << 20;
    });
    let cases = [
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
        // In a child, whose parent goes on.
        "import os, time\nif os.fork() == 0:\n x = []\n while True: x.append(bytearray(1 << 20))\nos.wait(); time.sleep(0.1); print('survived')",
        "import mmap\nx = []\nwhile True:\n m = mmap.mmap(-1, 1 << 20); m.write(b'x' * (1 << 20)); x.append(m)",
    ];
    for code in cases {
        let attack = native.run_in(spec.clone(), python(code));
        let execution = beside_a_neighbour(&native, attack).await;
        if execution.isolation.fallbacks.iter().any(|fallback| fallback.starts_with("memory")) {
            // Without a cgroup an allocation may fail first, and the program with it.
            assert!(
                !execution.termination.success() || stdout(&execution) == "survived",
                "{}",
                told(&execution)
            );
            continue;
        }
        assert_eq!(
            execution.termination,
            Termination::Limit(LimitKind::Memory),
            "{}",
            told(&execution)
        );
    }
    let execution = native.run_in(spec, python("x = bytearray(30 << 20); print(len(x))")).await;
    assert_eq!(execution.termination, Termination::Exited(0), "the next one has all of it again");
}

#[tokio::test]
async fn a_fork_bomb_is_refused_more_processes() {
    let Some(native) = native() else { return };
    let mut spec = limited(|limits| limits.pids = 20);
    let bomb = "import os\nrefused = 0\nwhile refused < 50:\n try:\n  if os.fork() == 0:\n   import time; time.sleep(1000)\n except OSError as e:\n  refused += 1; n = e.errno\nprint('errno', n)";
    let execution = beside_a_neighbour(&native, native.run_in(spec.clone(), python(bomb))).await;
    assert_eq!(stdout(&execution), "errno 11", "{}", told(&execution));
    if execution.isolation.fallbacks.iter().all(|fallback| !fallback.starts_with("pids")) {
        assert!(execution.usage.pids_refused >= 50, "{:?}", execution.usage);
    }
    spec.limits.wall = Duration::from_secs(2);
    let execution = beside_a_neighbour(
        &native,
        native.run_in(spec.clone(), sh("f() { f | f & }; f 2>/dev/null & exec sleep 1000")),
    )
    .await;
    assert!(hit_the_wall(&execution), "{}", told(&execution));
    spec.limits.wall = Duration::from_secs(600);
    let count = "import os, time\nn = 0\nfor i in range(50):\n try:\n  if os.fork() == 0: time.sleep(1000)\n  n += 1\n except OSError: break\nprint(n)";
    let execution = native.run_in(spec, python(count)).await;
    assert_eq!(stdout(&execution), "19", "the command itself and 19 more");
}

#[tokio::test]
async fn a_full_disk_is_enospc_and_no_kill() {
    let Some(native) = native() else { return };
    let spec = limited(|limits| {
        limits.disk_bytes = 8 << 20;
        limits.inodes = 100;
        limits.memory_bytes = 48 << 20;
    });
    let fill = "import errno, os\ndef fill(folder, n=0):\n try:\n  with open(folder + '/big', 'wb') as f:\n   while True: f.write(b'x' * 65536); f.flush(); n += 1\n except OSError as e: return e.errno in (errno.ENOSPC, errno.EFBIG), n > 32\n";
    for folder in ["/work", "/tmp", "/dev/shm"] {
        let attack = native.run_in(spec.clone(), python(&format!("{fill}print(fill({folder:?}))")));
        let execution = beside_a_neighbour(&native, attack).await;
        assert_eq!(stdout(&execution), "(True, True)", "{folder}: {}", told(&execution));
        assert_eq!(execution.termination, Termination::Exited(0));
    }
    // All of them are one disk.
    let both = format!("{fill}fill('/tmp'); print(fill('/work'))");
    let execution = native.run_in(spec.clone(), python(&both)).await;
    assert_eq!(stdout(&execution), "(True, False)", "{}", told(&execution));
    let sparse = "f = open('/tmp/x', 'wb'); import os\ntry: os.posix_fallocate(f.fileno(), 0, 1 << 40)\nexcept OSError as e: print(e.errno)";
    let execution = native.run_in(spec.clone(), python(sparse)).await;
    assert!(["28", "27"].contains(&&*stdout(&execution)), "{}", told(&execution));
    let inodes = "n = 0\ntry:\n while True: open(f'/tmp/{n}', 'w').close(); n += 1\nexcept OSError as e: print(e.errno, 50 < n <= 105)";
    let execution = native.run_in(spec, python(inodes)).await;
    assert_eq!(stdout(&execution), "28 True", "{}", told(&execution));
}

#[tokio::test]
async fn a_flood_of_output_is_drained_and_bounded() {
    let Some(native) = native() else { return };
    let spec = limited(|limits| limits.output_bytes = 1000);
    let total: u64 = 500 << 20;
    let script =
        format!("echo first; head -c {total} /dev/zero; echo last; head -c 5000 /dev/zero >&2");
    let execution = beside_a_neighbour(&native, native.run_in(spec, sh(&script))).await;
    let out = &execution.stdout;
    assert_eq!(execution.termination, Termination::Exited(0), "{}", told(&execution));
    assert!(out.head.starts_with(b"first\n") && out.tail.ends_with(b"last\n"));
    assert_eq!((out.head.len(), out.tail.len()), (500, 500));
    assert_eq!(out.dropped, total + 11 - 1000);
    assert_eq!(execution.stderr.dropped, 4000);
}

#[tokio::test]
async fn stopping_itself_or_crashing_deeply_is_no_way_out() {
    let Some(native) = native() else { return };
    let spec = limited(|limits| limits.wall = Duration::from_millis(500));
    let execution = native.run_in(spec.clone(), sh("kill -STOP $$")).await;
    assert!(hit_the_wall(&execution), "{}", told(&execution));
    let execution =
        native.run_in(spec, sh("trap '' TERM INT HUP; kill -STOP -1; sleep 1000")).await;
    assert!(hit_the_wall(&execution), "{}", told(&execution));
    let deep =
        "import sys; sys.setrecursionlimit(1 << 30)\nf = lambda x: [f(x) for _ in '1']\nf(0)";
    let spec = limited(|limits| limits.memory_bytes = 128 << 20);
    let execution = native.run_in(spec, python(deep)).await;
    assert!(
        matches!(
            execution.termination,
            Termination::Signaled(_) | Termination::Limit(_) | Termination::Exited(1)
        ),
        "{}",
        told(&execution)
    );
}

#[tokio::test]
async fn waits_for_a_free_sandbox() {
    let Some(native) = native() else { return };
    let runs = (0..40).map(|_| native.run(sh("sleep 0.05; echo x")));
    let started = Instant::now();
    for execution in futures_join(runs).await {
        assert_eq!(stdout(&execution), "x");
    }
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// Waits for all of `runs`, which go on at the same time.
async fn futures_join(
    runs: impl Iterator<Item = impl Future<Output = Execution>>,
) -> Vec<Execution> {
    let mut runs: Vec<_> = runs.map(|run| (Box::pin(run), None)).collect();
    std::future::poll_fn(|context| {
        for (run, done) in &mut runs {
            if done.is_none()
                && let std::task::Poll::Ready(execution) = run.as_mut().poll(context)
            {
                *done = Some(execution);
            }
        }
        if runs.iter().all(|(_, done)| done.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    runs.into_iter().filter_map(|(_, done)| done).collect()
}
