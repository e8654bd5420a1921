//! A disk that fills up under a service costs no request and makes no number.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use assay_proto::v1::{EvaluateRequest, GetResultsRequest, submission::Kind};
use assay_tests::{Service, passed, request, skipped};
use tonic::Code;

const PROGRAM: &str = env!("CARGO_BIN_EXE_assay-under-test");
const RUN: &str = "full";

/// A right answer that takes its time.
fn sample(id: &str) -> EvaluateRequest {
    let source =
        format!("import time\ndef add(a, b):\n    time.sleep(0.3)\n    return a + b  # {id}");
    let request = request(id, "katas.add", Kind::Source(source));
    EvaluateRequest { run_id: RUN.into(), ..request }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_stored_is_refused_or_runs_again() {
    if skipped() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount a small disk");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    // The service in a mount namespace of its own, where its data is on a disk of four megabytes.
    let program = folder.path().join("service");
    let script = format!(
        "#!/bin/sh\nexec unshare -m sh -c 'mount -t tmpfs -o size=4m none {} && exec \"$0\" \"$@\"' {PROGRAM} \"$@\"\n",
        data.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let service = Service::start(program.to_str().unwrap(), &data);
    let inside = Path::new("/proc").join(service.pid().to_string()).join("root");
    let litter = inside.join(data.strip_prefix("/").unwrap()).join("litter");
    let fill = || {
        let mut file = fs::File::create(&litter).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    };

    let mut client = service.client().await;
    assert!(passed(client.evaluate(sample("before")).await.unwrap().get_ref()));

    // One that is accepted, and whose result finds no room.
    let caught = tokio::spawn({
        let mut client = client.clone();
        async move { client.evaluate(sample("caught")).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    fill();
    let refused = client.evaluate(sample("refused")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(refused.message().contains("is full"), "{refused:?}");
    let lost = caught.await.unwrap().unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable, "{lost:?}");

    fs::remove_file(&litter).unwrap();
    for id in ["caught", "refused"] {
        assert!(passed(client.evaluate(sample(id)).await.unwrap().get_ref()), "{id}");
    }
    let all = GetResultsRequest { run_id: RUN.into(), max_results: 100, ..Default::default() };
    let listed = client.get_results(all).await.unwrap().into_inner();
    let mut ids: Vec<_> = listed.results.iter().map(|result| &*result.request_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["before", "caught", "refused"]);
}
