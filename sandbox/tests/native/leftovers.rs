//! Nothing is left: not after a run, not after a cancelled one, not after a killed service.

use std::{
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
    time::{Duration, Instant},
};

use assay_sandbox::{Backend, SessionSpec};

use crate::common::{DAEMON, native, sh, spec, start, stdout};

/// Processes that carry `mark` in their command line.
pub(crate) fn processes(mark: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    entries
        .filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(mark)
                && entry.file_name() != std::process::id().to_string().as_str()
        })
        .count()
}

/// The cgroup directories that the lock files in `state` name.
fn cgroups(state: &Path) -> Vec<PathBuf> {
    let locks = std::fs::read_dir(state).expect("a folder").flatten();
    locks
        .flat_map(|lock| {
            let text = std::fs::read_to_string(lock.path()).unwrap_or_default();
            text.lines().map(PathBuf::from).collect::<Vec<_>>()
        })
        .collect()
}

/// A number for `sleep` that no other test uses.
pub(crate) fn mark() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}{:03}", 100_000 + std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst))
}

pub(crate) async fn until(what: &str, limit: Duration, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "{what} took longer than {limit:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn everything_is_gone_when_the_backend_is() {
    let Some(native) = native() else { return };
    let mark = mark();
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let execution = native.run(sh(&format!("{DAEMON} sleep {mark}; echo started"))).await;
    assert_eq!(stdout(&execution), "started");
    assert_eq!(processes(&mark), 0, "dead when the run returns");
    let groups = cgroups(native.state.path());
    let state = native.into_state();
    assert_eq!(std::fs::read_to_string("/proc/self/mounts").expect("mounts"), mounts);
    assert!(groups.iter().all(|path| !path.exists()), "{groups:?}");
    assert_eq!(std::fs::read_dir(state.path()).expect("a folder").count(), 0);
}

#[tokio::test]
async fn dropping_the_future_kills() {
    let Some(native) = native() else { return };
    for _ in 0..5 {
        let mark = mark();
        let sandbox = native.create(spec()).await.expect("a sandbox");
        let script = format!("{DAEMON} sleep {mark}; exec sleep {mark}");
        let started = until("starting", Duration::from_secs(20), || processes(&mark) == 2);
        tokio::select! {
            execution = sandbox.run(sh(&script)) => panic!("{execution:?}"),
            () = started => {}
        }
        until("killing", Duration::from_secs(5), || processes(&mark) == 0).await;
    }
    // A sandbox that never ran is no trouble, and its slot serves again.
    drop(native.create(spec()).await.expect("a sandbox"));
    assert_eq!(stdout(&native.run(sh("echo fine")).await), "fine");
}

#[tokio::test]
async fn a_killed_service_takes_everything_along_and_the_next_clears_up() {
    let Some(native) = native() else { return };
    let mark = mark();
    // This test binary, started once more, is the service.
    let mut service = Process::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "leftovers::a_service_to_kill", "--ignored", "--nocapture"])
        .env("ASSAY_TEST_STATE", native.state.path())
        .env("ASSAY_TEST_MARK", &mark)
        .stdout(Stdio::null())
        .spawn()
        .expect("a service");
    until("starting", Duration::from_secs(20), || processes(&format!("sleep\0{mark}")) >= 6).await;
    let groups = cgroups(native.state.path());
    service.kill().expect("a kill");
    service.wait().expect("an end");
    until("dying", Duration::from_secs(10), || processes(&format!("sleep\0{mark}")) == 0).await;
    let state = native.state.path().to_owned();
    let next = start(&state);
    let left: Vec<_> = groups
        .iter()
        .filter(|path| path.exists() && !cgroups_of(&next, &state).contains(path))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(std::fs::read_dir(&state).expect("a folder").count(), 2, "two live services");
}

/// The groups of the services that live on `state`.
fn cgroups_of(_: &assay_sandbox::native::Native, state: &Path) -> Vec<PathBuf> {
    cgroups(state)
}

#[tokio::test]
async fn groups_of_dead_services_go_and_those_of_live_ones_stay() {
    let Some(native) = native() else { return };
    let Some(group) = cgroups(native.state.path()).pop() else {
        println!("skipped: no cgroup can be made here");
        return;
    };
    // What a service leaves whose state folder is lost.
    let dead = group.with_file_name(format!("assay-sandboxes-{}", mark()));
    std::fs::create_dir(&dead).expect("a group");
    std::fs::create_dir(dead.join("s0")).expect("a group");
    drop(crate::common::native());
    assert!(dead.exists(), "it could be a service that starts at this moment");
    tokio::time::sleep(Duration::from_secs(11)).await;
    drop(crate::common::native());
    // Another test's backend may be at it already.
    until("removing", Duration::from_secs(10), || !dead.exists()).await;
    assert!(group.exists(), "the live one");
    assert_eq!(stdout(&native.run(sh("echo fine")).await), "fine");
}

#[tokio::test]
#[ignore = "the service that another test kills"]
async fn a_service_to_kill() {
    let (Some(state), Ok(mark)) =
        (std::env::var_os("ASSAY_TEST_STATE"), std::env::var("ASSAY_TEST_MARK"))
    else {
        println!("skipped: another test starts this one");
        return;
    };
    let native = start(Path::new(&state));
    let script = format!("{DAEMON} sleep {mark}; exec sleep {mark}");
    let run = || async {
        let sandbox = native.create(spec()).await.expect("a sandbox");
        let _ = sandbox.run(sh(&script)).await;
    };
    let session = async {
        let spec = SessionSpec { sandbox: spec(), from: None, lease: Duration::from_secs(600) };
        let session = native.open(spec).await.expect("a session");
        let mut process = session.start(sh(&script), Duration::MAX).await.expect("a start");
        let _ = process.next().await;
    };
    tokio::join!(run(), run(), session);
}

#[tokio::test]
async fn a_killed_spawner_is_an_error_and_then_another() {
    let Some(native) = native() else { return };
    let mark = mark();
    let sandbox = native.create(spec()).await.expect("a sandbox");
    // Its slot dies idle, and must not be handed out again.
    drop(native.create(spec()).await.expect("a sandbox"));
    let run = tokio::spawn(sandbox.run(sh(&format!("sleep {mark}"))));
    until("starting", Duration::from_secs(5), || processes(&mark) >= 1).await;
    for child in children(std::process::id()) {
        let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        // Other tests have spawners as well: ours is the one above the sleeping command.
        if String::from_utf8_lossy(&line).contains("__spawner") && has_below(child, &mark) {
            // SAFETY: a process that this test started.
            unsafe { libc::kill(child as i32, libc::SIGKILL) };
        }
    }
    let result = run.await.expect("no panic");
    assert!(matches!(result, Err(assay_sandbox::BackendError::Gone { .. })), "{result:?}");
    until("dying", Duration::from_secs(1), || processes(&mark) == 0).await;
    // Idle slots die at that moment, too: until the last of them has, a retry is due.
    for retries in 0.. {
        let sandbox = native.create(spec()).await.expect("a sandbox");
        match sandbox.run(sh("echo again")).await {
            Ok(execution) => {
                assert_eq!(stdout(&execution), "again");
                break;
            }
            Err(e) => assert!(retries < 3, "{e}"),
        }
    }
}

/// The children of all threads of a process.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .flat_map(|task| {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

fn has_below(pid: u32, mark: &str) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains(mark)
        || children(pid).into_iter().any(|child| has_below(child, mark))
}
