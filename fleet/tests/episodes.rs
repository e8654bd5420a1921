//! Episodes in sandboxes that do what each test says.

mod common;

use std::{sync::Arc, time::Duration};

use assay_fleet::{
    Backends, Ended, EpisodeConfig, EpisodeId, Episodes, Evaluation, Fleet, FleetConfig,
    FleetHandle, Follow, Opening, Order, Runs, StepEnd, StepEvent, StepId,
};
use assay_repos::Submission;
use assay_rewards::Outcome;
use assay_sandbox::{Content, Frozen, FrozenEntry, ImageRef, LimitKind, Limits, Over, Termination};
use common::{
    id, soon,
    stage::{Stage, ended, reported},
};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Episodes of a fleet.
struct Harness {
    lease: Duration,
    stage: Stage,
    fleet: FleetHandle,
    episodes: Episodes,
    _stop: DropGuard,
    _dir: TempDir,
}

impl Harness {
    fn start() -> Self {
        Self::start_with(Duration::from_secs(60))
    }

    /// Everything that is submitted passes.
    fn start_with(lease: Duration) -> Self {
        let stage = Stage::new(async |call| {
            Ok(reported(&call.command, &["tests/test_lib.py::test_x"], "passed"))
        });
        *stage.sessions.left.lock().unwrap() = vec![file("lib.py", b"x = 2\n"[..].into())];
        let dir = tempfile::tempdir().unwrap();
        let catalog = common::catalog(&dir.path().join("tasks"));
        let image = ImageRef::Rootfs { path: "/rootfs".into(), digest: "sha256:image".into() };
        let backends =
            Backends::new().with_image("python", Arc::new(stage.clone()), image, "sha256:image");
        let config = FleetConfig::new(dir.path().join("data"), catalog, backends);
        let (fleet, handle) = Fleet::start(config).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(fleet.run(stop.clone()));
        let episodes = Episodes::new(handle.clone(), EpisodeConfig::default());
        tokio::spawn(episodes.clone().run(stop.clone()));
        Self { lease, stage, fleet: handle, episodes, _stop: stop.drop_guard(), _dir: dir }
    }

    async fn open(&self, name: &str) -> EpisodeId {
        let evaluation = Evaluation {
            run_id: "run".into(),
            ..Evaluation::new(
                id(name),
                "t.patch".parse().unwrap(),
                Submission::Patch(String::new()),
            )
        };
        let id = EpisodeId::new(name).unwrap();
        let (limits, max_steps, lease) = (Limits::default(), 9, self.lease);
        let step_wall = Duration::from_secs(9);
        let opening = Opening { id, evaluation, limits, step_wall, max_steps, lease };
        self.episodes.open(opening).await.unwrap().opening().id.clone()
    }

    fn step(&self, episode: &EpisodeId, name: &str, score: bool) -> Follow {
        let runs = Runs::Program(vec!["/bin/true".into()]);
        let order = Order { runs, stdin: Arc::default(), wall: None, score };
        self.episodes.get(episode).unwrap().exec(StepId::new(name).unwrap(), order).unwrap()
    }

    async fn do_step(&self, episode: &EpisodeId, name: &str, score: bool) -> Arc<StepEnd> {
        let mut follow = self.step(episode, name, score);
        loop {
            match soon("a step", follow.next()).await.unwrap().expect("an end") {
                StepEvent::Ended(end) => return end,
                StepEvent::Output(..) => {}
                StepEvent::Lost(why) => panic!("{why}"),
            }
        }
    }
}

fn file(path: &str, content: Arc<[u8]>) -> FrozenEntry {
    let (bytes, path) = (content.len() as u64, path.into());
    let what = Frozen::File { bytes, content: Content::Kept(content), executable: false };
    FrozenEntry { path, what }
}

const STARVED: LimitKind = LimitKind::WallStarved;

#[tokio::test]
async fn a_machine_that_starves_an_agent_gives_it_no_reward() {
    let harness = Harness::start();
    // A step: it doesn't count, and the next one is judged again.
    let episode = harness.open("step").await;
    let events = |events| *harness.stage.sessions.events.lock().unwrap() = events;
    assert_eq!(harness.do_step(&episode, "good", true).await.steps_left, 8);
    events([ended(Termination::Limit(STARVED))].into());
    let starved = harness.do_step(&episode, "starved", true).await;
    assert_eq!((&starved.termination, starved.steps_left), (&Ok(Termination::Limit(STARVED)), 8));
    let submitted = soon("a result", harness.episodes.submit(&episode)).await.unwrap();
    assert_eq!(submitted.ended, Some(Ended::Over(Over::Limit(STARVED))));
    let result = &submitted.result;
    assert_eq!((result.outcome, result.reward), (Outcome::InfraError, None), "{result:?}");
    let failure = result.failure.as_ref().expect("a failure");
    assert!(failure.kind == "machine_starved" && failure.retryable, "{failure:?}");
    let rewards: Vec<_> =
        submitted.step_rewards.iter().map(|(_, reward)| reward.is_some()).collect();
    assert_eq!(rewards, [false, false]);
    // Under the same ids it can be done again.
    harness.episodes.close(&episode).unwrap();
    let episode = harness.open("step").await;
    harness.do_step(&episode, "good", true).await;
    let submitted = soon("a result", harness.episodes.submit(&episode)).await.unwrap();
    assert_eq!(submitted.result.outcome, Outcome::Scored, "{submitted:?}");

    let episode = harness.open("goes on").await;
    events([ended(Termination::Limit(STARVED))].into());
    harness.do_step(&episode, "starved", false).await;
    harness.do_step(&episode, "better", false).await;
    let submitted = soon("a result", harness.episodes.submit(&episode)).await.unwrap();
    assert_eq!(submitted.result.outcome, Outcome::Scored, "{submitted:?}");

    // The whole sandbox, by its wall limit: only that of the agent's own doing is judged.
    for (name, kind, outcome) in
        [("slow", LimitKind::Wall, Outcome::Scored), ("stalled", STARVED, Outcome::InfraError)]
    {
        let episode = harness.open(name).await;
        *harness.stage.sessions.over.lock().unwrap() = Some(Over::Limit(kind));
        let submitted = soon("a result", harness.episodes.submit(&episode)).await.unwrap();
        assert_eq!(submitted.result.outcome, outcome, "{submitted:?}");
        assert_eq!(submitted.result.reward.is_some(), outcome == Outcome::Scored);
    }
}

#[tokio::test]
async fn what_is_submitted_is_judged_though_the_caller_hangs_up() {
    let harness = Harness::start_with(Duration::from_secs(1));
    let sessions = &harness.stage.sessions;
    let all = sessions.may_end.forget_permits(usize::MAX);
    let episode = harness.open("hung up").await;
    let hangs_up =
        tokio::time::timeout(Duration::from_millis(50), harness.episodes.submit(&episode));
    assert!(hangs_up.await.is_err(), "it waits for the sandbox");
    // Nobody calls it for longer than its lease.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(harness.episodes.count(), 1, "it is being submitted");
    sessions.may_end.add_permits(all);
    let request = episode.request();
    let result = soon("a result", async {
        loop {
            if let Some(result) = harness.fleet.wait(&request).await.unwrap() {
                return result;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(result.await.outcome, Outcome::Scored);
    soon("the end of its lease", async {
        while harness.episodes.count() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let again = soon("the result", harness.episodes.submit(&episode)).await.unwrap();
    assert_eq!((again.result.outcome, again.ended), (Outcome::Scored, None));
}

#[tokio::test]
async fn what_a_build_leaves_does_not_crowd_the_patch_out() {
    let harness = Harness::start();
    let binary: Arc<[u8]> = vec![0xff; 15 << 20].into();
    let text: Arc<[u8]> = vec![b'x'; 15 << 20].into();
    let built = (0..5).map(|n| file(&format!("build-{n}.o"), Arc::clone(&binary)));
    let caches = (0..5).map(|n| file(&format!(".cache/{n}"), Arc::clone(&text)));
    {
        let mut left = harness.stage.sessions.left.lock().unwrap();
        *left = built.chain(caches).chain(std::mem::take(&mut *left)).collect();
    }
    let episode = harness.open("built").await;
    let submitted = soon("a result", harness.episodes.submit(&episode)).await.unwrap();
    assert!(submitted.end.patch.ends_with("-x = 1\n+x = 2\n"), "{}", submitted.end.patch);
    assert_eq!(submitted.end.left_out.len(), 5);
    assert_eq!(submitted.result.outcome, Outcome::Scored);
}
