//! What is known of tasks over time, and tests that somebody takes out of what must be kept: over a
//! real socket.

mod support;

use std::{fs, path::Path};

use assay_proto::v1::{
    QuarantineAction, QuarantineTaskRequest, TaskStat, TaskStatsRequest, TestName,
};
use support::{Service, request};
use tonic::Code;

/// A task with a test that must be made pass and one that must be kept, in the first of two checks.
fn write_task(catalog: &Path) {
    let check = |id: &str, more: &str| {
        format!(
            "[[check]]\nid = \"{id}\"\nreport = \"pytest\"\nrun = [\"python3\", \"-m\", \"pytest\", \"t.py\"]\n{more}"
        )
    };
    let files = [
        (
            "task.toml",
            format!(
                "schema = 1\nid = \"demo.kept\"\n[source]\nrepository = \"./tree\"\n\
                 [prompt]\ntemplate = \"problem.md\"\n\
                 [submission]\nkind = \"patch\"\nextract = \"raw\"\n{}{}",
                check("unit", "must_pass = [\"t.py::new\"]\nmust_keep = [\"t.py::old\"]\n"),
                check("slow", "must_pass = [\"s.py::new\"]\nmust_keep = [\"s.py::old\"]\n"),
            ),
        ),
        ("problem.md", "Solve it.\n".into()),
        ("tree/lib.py", "x = 1\n".into()),
        ("private/gold.patch", "--- a/lib.py\n+++ b/lib.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n".into()),
    ];
    for (name, text) in files {
        let path = catalog.join("kept").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

async fn service() -> Service {
    Service::with(|config| write_task(&config.places.catalog[0])).await
}

fn wish(check: &str, test: &str, action: QuarantineAction) -> QuarantineTaskRequest {
    QuarantineTaskRequest {
        task_id: "demo.kept".into(),
        test: Some(TestName { check_id: check.into(), test: test.into() }),
        action: action.into(),
        reason: "seen to hang".into(),
    }
}

async fn stats(service: &Service, ids: &[&str]) -> tonic::Result<Vec<TaskStat>> {
    let task_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    let request = TaskStatsRequest { task_ids, all_tests: true };
    service.tasks().task_stats(request).await.map(|stats| stats.into_inner().tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_taken_out_and_put_back() {
    let service = service().await;
    let old = TestName { check_id: "unit".into(), test: "t.py::old".into() };
    let change = async |action| {
        let wish = wish("unit", "t.py::old", action);
        service.tasks().quarantine_task(wish).await.unwrap().into_inner()
    };
    // Asked twice, done once.
    change(QuarantineAction::Add).await;
    let taken = change(QuarantineAction::Add).await;
    assert_eq!((&taken.quarantined, taken.trail.len()), (&vec![old.clone()], 1));
    let event = &taken.trail[0];
    assert_eq!((event.action(), event.reason()), (QuarantineAction::Add, "seen to hang"));
    assert_eq!((&event.test, event.pairs), (&Some(old), None));
    assert!(event.at.is_some_and(|at| at.seconds > 0) && event.grade_ids.is_empty());
    let known = stats(&service, &["demo.kept"]).await.unwrap().remove(0);
    assert_eq!((known.quarantined, known.trail), (taken.quarantined, taken.trail));

    let back = change(QuarantineAction::Release).await;
    let actions: Vec<_> = back.trail.iter().map(|event| event.action()).collect();
    assert_eq!(
        (back.quarantined, actions),
        (vec![], [QuarantineAction::Add, QuarantineAction::Release].into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_that_make_no_sense_change_nothing() {
    use QuarantineAction::{Add, Unspecified};

    let service = service().await;
    let elsewhere =
        QuarantineTaskRequest { task_id: "no.such".into(), ..wish("unit", "t.py::old", Add) };
    let long = QuarantineTaskRequest { reason: "x".repeat(1001), ..wish("unit", "t.py::old", Add) };
    let cases = [
        (wish("unit", "t.py::old", Unspecified), "action: is not said"),
        (wish("lint", "t.py::old", Add), "test.check_id: `lint` is no check of demo.kept"),
        (wish("", "t.py::old", Add), "test.check_id: is needed: demo.kept has unit, slow"),
        (wish("unit", "t.py::new", Add), "test.test: has to be made pass"),
        (
            wish("unit", "s.py::old", Add),
            "test.test: `s.py::old` is none that check unit must keep",
        ),
        (long, "reason: longer than 1000 characters"),
    ];
    for (wish, told) in cases {
        let refused = service.tasks().quarantine_task(wish).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{told}");
        assert!(refused.message().starts_with(told), "{}", refused.message());
    }
    let refused = service.tasks().quarantine_task(elsewhere).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{}", refused.message());
    assert!(stats(&service, &["demo.kept"]).await.unwrap().is_empty(), "nobody knows of it yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_counted_by_task() {
    let service = service().await;
    for (id, program) in [("a", "pass"), ("b", "pass"), ("c", "fail")] {
        service.evaluate(request(id, program)).await.unwrap();
    }
    let known = stats(&service, &["programs.echo"]).await.unwrap().remove(0);
    let all = known.all.unwrap();
    assert_eq!((all.answers, all.runs, all.solved), (3, 2, 2), "one was answered from the cache");
    assert_eq!(known.outcomes["SCORED"], all);
    assert_eq!(known.policy_versions[&0], all);
    assert_eq!(known.runs.unwrap().count, 2);

    // Without ids, all that were ever answered; a task that was not has nothing to tell.
    let every = stats(&service, &[]).await.unwrap();
    assert_eq!(every.iter().map(|one| one.task_id.as_str()).collect::<Vec<_>>(), ["programs.echo"]);
    assert!(stats(&service, &["programs.other"]).await.unwrap().is_empty());
    for (id, code) in [("no.such", Code::NotFound), ("../x", Code::InvalidArgument)] {
        assert_eq!(stats(&service, &[id]).await.unwrap_err().code(), code, "{id}");
    }
    let many = vec!["programs.echo"; 10_001];
    assert_eq!(stats(&service, &many).await.unwrap_err().code(), Code::InvalidArgument);
}
