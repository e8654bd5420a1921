//! `assay bench evaluations`: many evaluations through the whole service, beside what runs the same
//! tests without one.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    time::{Duration, Instant},
};

use assay_proto::v1::{EvaluateRequest, Submission, submission::Kind};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::{
    Machine,
    peers::{bare_pytest, docker_run_pytest, docker_run_python, write_repository},
};
use crate::{
    cli::{
        Common,
        output::{Blame as _, CliResult, Exit},
        score::judged,
        session::Session,
    },
    machine::Rootfs,
};

/// What takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    DockerRunPytest,
    BarePytest,
    Patches,
    DockerRunPython,
    Functions,
}

/// Name, and what it says to people.
const SUBJECTS: [(Subject, &str, &str); 5] = [
    (Subject::DockerRunPytest, "docker_run_pytest", "docker run python -m pytest"),
    (Subject::BarePytest, "bare_pytest", "python -m pytest, one after the other"),
    (Subject::Patches, "patches", "assay: a patch, tested by one pytest file"),
    (Subject::DockerRunPython, "docker_run_python", "docker run python"),
    (Subject::Functions, "functions", "assay: a function, sealed"),
];

/// Which rows are compared.
const RATIOS: [(Subject, Subject); 3] = [
    (Subject::Patches, Subject::DockerRunPytest),
    (Subject::Patches, Subject::BarePytest),
    (Subject::Functions, Subject::DockerRunPython),
];

/// Turns that each subject takes, after one that warms up.
const ROUNDS: u32 = 5;
/// One run of a slow peer for so many evaluations.
const SLOW: u32 = 20;

/// The tasks, their set `bench`: the small repository, and one function.
const TASKS: [(&str, &str); 2] = [
    (
        "words",
        r#"schema = 1
id = "bench.words"
language = "python"

[source]
repository = "./tree"
tests = ["test_words.py"]

[prompt]
template = "problem.md"

[submission]
kind = "patch"
extract = "diff"

[[check]]
id = "unit"
run = ["python3", "-m", "pytest", "test_words.py"]
report = "pytest"
must_pass = ["test_words.py::test_shout"]
"#,
    ),
    (
        "shout",
        r#"schema = 1
id = "bench.shout"
language = "python"

[prompt]
template = "problem.md"

[submission]
kind = "function"
extract = "fence"
entry = "shout"

[[check]]
id = "unit"
report = "function"
"#,
    ),
];
const SHOUT: &str = "def shout(text):\n    return text.upper() + \"!\"\n";

/// What the subjects need.
struct Stage {
    rootfs: Rootfs,
    folder: tempfile::TempDir,
    session: Session,
}

impl Stage {
    async fn set(common: &Common) -> CliResult<Self> {
        let rootfs = super::rootfs(common)?;
        let folder = tempfile::tempdir().not_done()?;
        write_tasks(folder.path()).not_done()?;
        let catalog = vec![folder.path().to_owned()];
        let session = Session::open_fresh(&Common { catalog, ..common.clone() }).await?;
        Ok(Self { rootfs, folder, session })
    }

    async fn run(&self, subject: Subject, number: u64) -> anyhow::Result<()> {
        let tree = self.folder.path().join("bench/words/tree");
        match subject {
            Subject::DockerRunPytest => docker_run_pytest(&tree).await,
            Subject::BarePytest => bare_pytest(&self.rootfs, &tree).await,
            Subject::DockerRunPython => {
                docker_run_python(&format!("{SHOUT}assert shout('hi') == 'HI!'")).await
            }
            // Another text each time: nothing is answered from the cache.
            Subject::Patches => {
                let patch = format!(
                    "--- a/words.py\n+++ b/words.py\n@@ -1,2 +1,3 @@\n+# {number}\n def shout(text):\n     \
                     return text.upper() + \"!\"\n"
                );
                self.evaluate("bench.words", Kind::Patch(patch)).await
            }
            Subject::Functions => {
                self.evaluate("bench.shout", Kind::Source(format!("{SHOUT}# {number}\n"))).await
            }
        }
    }

    async fn evaluate(&self, task: &str, kind: Kind) -> anyhow::Result<()> {
        let request = EvaluateRequest {
            request_id: uuid::Uuid::now_v7().to_string(),
            task_id: task.to_owned(),
            submission: Some(Submission { kind: Some(kind) }),
            ..EvaluateRequest::default()
        };
        let result = self.session.rewards().evaluate(request).await?.into_inner();
        let failure = result.failure.as_ref().map_or("", |failure| &failure.detail);
        // A little is taken off for the patch's length.
        let passed = result.reward.is_some_and(|reward| reward > 0.9);
        let done = judged(result.outcome()) && !result.cached && passed;
        anyhow::ensure!(
            done,
            "evaluate {task}: {:?} {:?} {failure}",
            result.outcome(),
            result.reward
        );
        Ok(())
    }
}

fn write_tasks(folder: &Path) -> std::io::Result<()> {
    for (name, text) in TASKS {
        let task = folder.join("bench").join(name);
        fs::create_dir_all(task.join("private"))?;
        fs::write(task.join("task.toml"), text)?;
        fs::write(task.join("problem.md"), "Write shout(text).\n")?;
        if name == "words" {
            fs::create_dir(task.join("tree"))?;
            write_repository(&task.join("tree"))?;
        } else {
            fs::write(
                task.join("private/tests.py"),
                "def test_shout(f):\n    assert f('hi') == 'HI!'\n",
            )?;
        }
    }
    Ok(())
}

pub(super) async fn run(common: &Common, n: u32) -> CliResult {
    let stage = Stage::set(common).await?;
    let machine = Machine::read();
    let mut measured: BTreeMap<Subject, (u32, Duration)> = BTreeMap::new();
    let mut skipped = BTreeMap::new();
    let mut number = 0;
    let progress = common.output().progress(u64::from(ROUNDS), "evaluations");
    // In turns, so that whatever else the machine does hits all alike.
    for round in 0..=ROUNDS {
        for (subject, name, _) in SUBJECTS {
            if skipped.contains_key(name) {
                continue;
            }
            let ours = matches!(subject, Subject::Patches | Subject::Functions);
            let share = n.div_ceil(if ours { ROUNDS } else { SLOW * ROUNDS });
            let in_flight = match subject {
                Subject::BarePytest => 1,
                // Somebody always waits; as many as there are cores are worked on.
                _ if ours => 8 * machine.cores,
                _ => machine.cores,
            };
            let runs = (0..share).map(|_| {
                number += 1;
                stage.run(subject, number)
            });
            let runs: Vec<_> = runs.collect();
            let started = Instant::now();
            let ran: anyhow::Result<Vec<()>> =
                futures::stream::iter(runs).buffer_unordered(in_flight).try_collect().await;
            let took = started.elapsed();
            match ran {
                Ok(_) if round == 0 => {}
                Ok(_) => {
                    let (count, time) = measured.entry(subject).or_default();
                    *count += share;
                    *time += took;
                }
                Err(error) if round == 0 && !ours => {
                    skipped.insert(name, format!("{error:#}"));
                }
                Err(error) => return Err(error).not_done(),
            }
        }
        progress.inc(u64::from(round > 0));
    }
    progress.finish_and_clear();
    stage.session.close().await;
    let per_s = |subject| {
        measured.get(&subject).map(|(count, time)| f64::from(*count) / time.as_secs_f64())
    };
    let rows = SUBJECTS.iter().filter_map(|(subject, name, what)| {
        let (n, _) = *measured.get(subject)?;
        Some(Row { name, what, n, per_s: per_s(*subject)? })
    });
    let ratios = RATIOS.iter().filter_map(|(ours, peer)| {
        let name =
            |subject: &Subject| SUBJECTS.iter().find(|row| row.0 == *subject).map(|row| row.1);
        Some((format!("{}/{}", name(ours)?, name(peer)?), per_s(*ours)? / per_s(*peer)?))
    });
    let report = Report { rows: rows.collect(), ratios: ratios.collect(), skipped, machine };
    common.output().line(&report)?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Report {
    rows: Vec<Row>,
    /// How many times as many a second as the peer.
    ratios: BTreeMap<String, f64>,
    /// What could not be measured, and why.
    skipped: BTreeMap<&'static str, String>,
    machine: Machine,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    #[serde(skip)]
    what: &'static str,
    n: u32,
    per_s: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, kernel } = &self.machine;
        writeln!(
            f,
            "{cores} cores of {cpu}, Linux {kernel}; all cores busy where nothing is said"
        )?;
        write!(f, "{:<45} {:>6} {:>8}", "", "n", "per s")?;
        for Row { what, n, per_s, .. } in &self.rows {
            write!(f, "\n{what:<45} {n:>6} {per_s:>8.1}")?;
        }
        for (name, ratio) in &self.ratios {
            write!(f, "\n{name} {ratio:.1}")?;
        }
        for (name, why) in &self.skipped {
            write!(f, "\nskipped {name}: {why}")?;
        }
        Ok(())
    }
}
