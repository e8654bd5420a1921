//! Stored grades rescored over a socket, for `assay bench grading`.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use assay_fleet::{Backends, Completion, Embedded, Queue as _};
use assay_proto::v1::{
    RescoreRequest, RewardSource, rescore_response::Event,
    reward_service_client::RewardServiceClient, reward_source::Source,
};
use assay_repos::Digest;
use assay_rewards::GradeRecord;
use futures::future::join_all;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::Endpoint;

use super::super::{
    Common,
    output::{Blame as _, CliResult},
};
use crate::{App, AppConfig};

/// Grades that are stored at a time.
const CHUNK: u32 = 1000;

/// `Rescore` on the grades of a data directory; client and service are one process here.
#[derive(Serialize)]
pub(super) struct Wire {
    /// Stored grades.
    n: u32,
    /// By the clock, neighbours included.
    wall_s: f64,
    /// Of CPU time.
    cpu_s: f64,
    /// Grades in a second of CPU time.
    per_s: f64,
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n, wall_s, cpu_s, per_s } = self;
        write!(
            f,
            "Rescore over a socket, client included: {n} stored grades in {cpu_s:.2} s of CPU, "
        )?;
        write!(f, "{per_s:.0} per s ({wall_s:.2} s by the clock)")
    }
}

/// Stores `n` grades that are like `records` and different from each other, and rescores them.
pub(super) async fn rescore(
    common: &Common,
    records: &[GradeRecord],
    reward: &str,
    n: u32,
) -> CliResult<Wire> {
    let data = TempDir::with_prefix("assay-").context("make a temporary folder").not_done()?;
    store(&data, records, n).await?;
    let mut config = AppConfig::new(common.places(), data.path().to_owned());
    config.backends = Some(Backends::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listen").not_done()?;
    let app = App::start(config, Some(listener)).await.not_done()?;
    let addr = app.addr().context("an address").not_done()?;
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).not_done()?;
    let mut client = RewardServiceClient::new(endpoint.connect().await.not_done()?);

    let spec = RewardSource { source: Some(Source::Name(reward.to_owned())) };
    let (started, cpu_then) = (Instant::now(), cpu());
    let request = RescoreRequest { spec: Some(spec), filter: None };
    let mut stream = client.rescore(request).await?.into_inner();
    let mut grades = 0;
    while let Some(message) = stream.message().await? {
        if let Some(Event::Batch(batch)) = message.event {
            grades += batch.grades.len();
        }
    }
    let (wall, cpu) = (started.elapsed(), cpu().saturating_sub(cpu_then));
    (grades == n as usize).then_some(()).context("grades are missing in the stream").not_done()?;
    app.stop().await;
    let (wall_s, cpu_s) = (wall.as_secs_f64(), cpu.as_secs_f64());
    Ok(Wire { n, wall_s, cpu_s, per_s: f64::from(n) / cpu_s })
}

/// What this process used of the CPUs so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

async fn store(data: &TempDir, records: &[GradeRecord], n: u32) -> CliResult<()> {
    let store = Embedded::open(data.path(), n as usize).not_done()?;
    for from in (0..n).step_by(CHUNK as usize) {
        let grades = (from..n.min(from + CHUNK)).map(|number| {
            let mut grade = records[number as usize % records.len()].clone();
            grade.submission_digest = Digest::of(number.to_string());
            store.complete(Completion::of_grade("", grade))
        });
        for stored in join_all(grades).await {
            stored.not_done()?;
        }
    }
    Ok(())
}
