//! Submissions that take all they can get: each ends in its limit, beside a neighbour that must not
//! notice, and nothing of them is left.

use std::time::Duration;

use assay_proto::v1::{EvaluateResult, Fault, submission::Kind};
use assay_tests::{Footprint, PATIENCE, Service, passed, request, skipped};

const PROGRAM: &str = env!("CARGO_BIN_EXE_assay-under-test");
const TASK: &str = "katas.add";
const SOLUTION: &str = "def add(a, b):\n    return a + b";

/// Name, source, and the kinds of failure that it may end in; none for one that fails as a test does.
const BOMBS: [(&str, &str, &[&str]); 7] = [
    (
        "fork bomb",
        "import os\ndef add(a, b):\n    while True:\n        try:\n            os.fork()\n        except OSError:\n            pass",
        // Where there is no fork, it fails as a test does.
        &["", "cpu_limit", "wall_limit", "memory_limit"],
    ),
    (
        "memory bomb",
        "def add(a, b):\n    hog = []\n    while True:\n        hog.append(bytearray(1 << 24))",
        &["memory_limit"],
    ),
    (
        "10 GB to stdout",
        "import os\ndef add(a, b):\n    block = b'x' * (1 << 20)\n    for _ in range(10_000):\n        os.write(1, block)\n    return 0",
        &["", "cpu_limit", "wall_limit"],
    ),
    (
        "disk fill",
        "def add(a, b):\n    with open('/tmp/full', 'wb') as file:\n        while True:\n            file.write(bytes(1 << 20))",
        &[""],
    ),
    (
        "inode fill",
        "def add(a, b):\n    n = 0\n    while True:\n        open('/tmp/%d' % n, 'w').close()\n        n += 1",
        &[""],
    ),
    ("endless sleep", "import time\ndef add(a, b):\n    time.sleep(100_000)", &["wall_limit"]),
    ("endless loop", "def add(a, b):\n    while True:\n        pass", &["cpu_limit"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn bombs_end_in_their_limits() {
    if skipped() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let service = Service::start(PROGRAM, data.path());
    let mut footprint = Footprint::default();
    explode(&service, &mut footprint).await;
    assert_ne!(footprint.seen().0, 0);
    service.kill();
    // Processes die with the service; control groups go when the next one starts.
    let next = Service::start(PROGRAM, data.path());
    for _ in 0..50 {
        if footprint.left().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(footprint.left(), Vec::<String>::new());
    drop(next);
}

/// The same in the service's own process: it has to outlive them.
#[cfg(feature = "wasm")]
#[tokio::test(flavor = "multi_thread")]
async fn bombs_end_in_their_limits_on_wasm() {
    if skipped() || !assay_tests::cache().join("wasm/python/image.toml").exists() {
        eprintln!("skipped: no Python for WASI; run `make wasm`");
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let service = Service::start_with(PROGRAM, data.path(), &["--image", "wasm:python"]);
    explode(&service, &mut Footprint::default()).await;
}

/// Runs every bomb beside neighbours.
async fn explode(service: &Service, footprint: &mut Footprint) {
    let client = service.client().await;
    let evaluate = |id: String, source: &str| {
        let mut client = client.clone();
        let request = request(&id, TASK, Kind::Source(source.into()));
        async move {
            let answer = tokio::time::timeout(PATIENCE, client.evaluate(request)).await;
            answer.expect("an answer in time").expect("an answer").into_inner()
        }
    };
    for (name, source, kinds) in BOMBS {
        let bomb = tokio::spawn(evaluate(name.into(), source));
        let mut neighbours = 0;
        while !bomb.is_finished() {
            // Never the same text, so that none is answered from the cache.
            let source = format!("{SOLUTION}\n# beside {name}, {neighbours}");
            let beside = evaluate(format!("{name} {neighbours}"), &source).await;
            assert!(passed(&beside), "beside the {name}: {beside:?}");
            footprint.look(service.pid());
            neighbours += 1;
        }
        let result: EvaluateResult = bomb.await.unwrap();
        let kind = result.failure.as_ref().map_or("", |failure| &failure.kind);
        assert!(kinds.contains(&kind), "{name}: {result:?}");
        assert_eq!(result.reward, Some(0.0), "{name}: {result:?}");
        if let Some(failure) = &result.failure {
            assert_eq!(failure.fault(), Fault::Submission, "{name}: {result:?}");
        }
        println!("{name}: {kind:?} after {neighbours} neighbours");
    }
}
