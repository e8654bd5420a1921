//! Stored grades under a reward file: read a page at a time, in turns.

use std::{collections::VecDeque, mem, sync::Arc};

use assay_fleet::{FleetHandle, GradeFilter, GradeScan, Grades};
use assay_proto::v1::{self, rescore_response::Event};
use assay_repos::Digest;
use assay_rewards::{GradeRecord, Rescored, Rescoring, RewardSpec, score};
use futures::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    request::Violations,
    response,
    spec_request::{self, Source},
    status::{ApiError, status},
};

/// Pages that are read at the same time, by whom it may be: evaluations want the processors, too.
const PAGES: usize = 2;
/// Dry runs at the same time: each holds a number for every grade and file.
const DRY_RUNS: usize = 4;
/// About how many bytes a batch has at most.
const BATCH_BYTES: usize = 256 << 10;
/// Of a rescored grade beside its texts.
const GRADE_BYTES: usize = 32;

/// Scores what is stored.
#[derive(Clone, Debug)]
pub(crate) struct Rescorer {
    fleet: FleetHandle,
    /// Whoever has one reads a page and gives it back: the next in the queue takes it.
    pages: Arc<Semaphore>,
    dry_runs: Arc<Semaphore>,
}

/// What a dry run found.
pub(super) struct DryRun {
    pub(super) rescored: Rescored,
    pub(super) unreadable: u64,
    pub(super) complete: bool,
}

impl Rescorer {
    pub(crate) fn new(fleet: FleetHandle) -> Self {
        let [pages, dry_runs] = [PAGES, DRY_RUNS].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { fleet, pages, dry_runs }
    }

    /// Finds the reward file that a request means; `field` is where it says so.
    pub(super) async fn spec(
        &self,
        source: Option<v1::RewardSource>,
        field: &'static str,
    ) -> Result<Arc<RewardSpec>, ApiError> {
        match spec_request::source(source, field)? {
            Source::Name(name) => {
                let known = self.fleet.rewards().find(&name);
                Ok(known.map_err(|unknown| Violations::one(format!("{field}.name"), unknown))?.spec)
            }
            Source::Text(text) => {
                let field = format!("{field}.text");
                let lint = move || spec_request::parse(&text, &field);
                Ok(Arc::new(blocking(lint).await??))
            }
        }
    }

    /// Looks at the stored grades.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(Grades) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let fleet = self.fleet.clone();
        blocking(move || look(fleet.grades()?)).await?
    }

    /// `whole`: plugins see the tests of a record one by one.
    async fn scan(&self, filter: GradeFilter, whole: bool) -> Result<GradeScan, ApiError> {
        self.look(move |grades| {
            if let Some(missing) = grades.missing(&filter.ids)?.first() {
                return Err(ApiError::NoGrade(missing.to_string()));
            }
            Ok(grades.scan(filter, whole))
        })
        .await
    }

    /// Scores the grades of `filter`, as fast as the stream is read and no faster.
    pub(super) async fn stream(
        &self,
        spec: Arc<RewardSpec>,
        filter: GradeFilter,
    ) -> Result<impl Stream<Item = tonic::Result<v1::RescoreResponse>> + Send + use<>, ApiError>
    {
        let scan = self.scan(filter, spec.has_plugins()).await?;
        let page = Page { scan, batches: VecDeque::new(), grades: 0, unreadable: 0 };
        let run = Run { spec, pages: Arc::clone(&self.pages), page: Some(page) };
        Ok(stream::unfold(run, async |mut run| {
            let event = run.next().await?;
            let response = event.map(|event| v1::RescoreResponse { event: Some(event) });
            Some((response.map_err(status), run))
        }))
    }

    /// Scores at most `max` grades of `filter` by one file, or by two. Dropping the future ends it
    /// with the page that is read.
    pub(super) async fn dry_run(
        &self,
        new: Arc<RewardSpec>,
        old: Option<Arc<RewardSpec>>,
        filter: GradeFilter,
        max: u64,
    ) -> Result<DryRun, ApiError> {
        let whole = new.has_plugins() || old.as_ref().is_some_and(|old| old.has_plugins());
        let _dry_run = permit(&self.dry_runs).await;
        let mut scan = self.scan(filter, whole).await?;
        let old = old.map(|old| (*old).clone());
        let mut rescoring = Rescoring::new((*new).clone(), old);
        let (mut grades, mut unreadable, mut more) = (0, 0, false);
        while !scan.is_over() && !more {
            let permit = permit(&self.pages).await;
            let page = move || {
                let _permit = permit;
                scan.next_page(|id, record| match record {
                    _ if grades + unreadable == max => more = true,
                    None => unreadable += 1,
                    Some(record) => {
                        grades += 1;
                        rescoring.add(&record, || id.parse().unwrap_or_else(|_| Digest::of(id)));
                    }
                })?;
                Ok::<_, ApiError>((scan, rescoring, grades, unreadable, more))
            };
            (scan, rescoring, grades, unreadable, more) = blocking(page).await??;
        }
        let rescored = blocking(move || rescoring.finish()).await?;
        Ok(DryRun { rescored, unreadable, complete: !more })
    }
}

async fn permit(permits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    // The semaphore is never closed.
    Arc::clone(permits).acquire_owned().await.ok()
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::Defect)
}

/// A stream of rescored grades. It holds a page at most, and asks for the next one when that is
/// gone.
struct Run {
    spec: Arc<RewardSpec>,
    pages: Arc<Semaphore>,
    /// Absent once it is over.
    page: Option<Page>,
}

struct Page {
    scan: GradeScan,
    batches: VecDeque<v1::RescoredBatch>,
    grades: u64,
    unreadable: u64,
}

impl Run {
    async fn next(&mut self) -> Option<Result<Event, ApiError>> {
        loop {
            let page = self.page.as_mut()?;
            if let Some(batch) = page.batches.pop_front() {
                return Some(Ok(Event::Batch(batch)));
            }
            let mut page = self.page.take()?;
            if page.scan.is_over() {
                return Some(Ok(Event::Summary(v1::RescoreSummary {
                    name: self.spec.name().to_owned(),
                    digest: self.spec.digest().to_string(),
                    grades: page.grades,
                    unreadable: page.unreadable,
                })));
            }
            let (spec, permit) = (Arc::clone(&self.spec), permit(&self.pages).await);
            let read = blocking(move || {
                let _permit = permit;
                page.read(&spec).map(|()| page)
            });
            match read.await.and_then(|read| read) {
                Ok(page) => self.page = Some(page),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Page {
    fn read(&mut self, spec: &RewardSpec) -> Result<(), ApiError> {
        let Self { scan, batches, grades, unreadable } = self;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        scan.next_page(|id, record| {
            let Some(record) = record else {
                *unreadable += 1;
                return;
            };
            let grade = rescored(id, &record, spec);
            *grades += 1;
            bytes += GRADE_BYTES + id.len() + grade.task_id.len();
            bytes += grade.mask.as_ref().map_or(0, |mask| mask.reason.len());
            batch.push(grade);
            if bytes > BATCH_BYTES {
                bytes = 0;
                batches.push_back(v1::RescoredBatch { grades: mem::take(&mut batch) });
            }
        })?;
        if !batch.is_empty() {
            batches.push_back(v1::RescoredBatch { grades: batch });
        }
        Ok(())
    }
}

fn rescored(id: &str, record: &GradeRecord, spec: &RewardSpec) -> v1::RescoredGrade {
    let scored = score(record, spec);
    v1::RescoredGrade {
        grade_id: id.to_owned(),
        task_id: record.task.to_string(),
        outcome: response::outcome(record.outcome).into(),
        reward: scored.reward,
        mask: scored.mask.map(|reason| v1::MaskAdvice { mask: true, reason }),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::{Condvar, Mutex},
        time::Duration,
    };

    use assay_fleet::{Backends, Completion, Embedded, Fleet, FleetConfig, Queue as _};
    use assay_repos::{Catalog, Mode, PatchFacts, TaskLimits};
    use assay_rewards::{
        Generation, GradeHeader, Outcome, Plugin, PluginError, PluginGrade, PluginLimits,
        PluginLoader, TaskFacts,
    };
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    /// Answers so many times, and then waits until it may again.
    #[derive(Debug)]
    struct Gate {
        digest: Digest,
        /// How many ask, and how many may yet be answered.
        state: Mutex<(usize, usize)>,
        changed: Condvar,
    }

    impl Gate {
        fn open_for(&self, more: usize) {
            self.state.lock().unwrap().1 += more;
            self.changed.notify_all();
        }

        fn asking(&self) -> usize {
            self.state.lock().unwrap().0
        }
    }

    impl Plugin for Gate {
        fn digest(&self) -> &Digest {
            &self.digest
        }

        fn evaluate(&self, _: &PluginGrade<'_>) -> Result<f64, PluginError> {
            let mut state = self.state.lock().unwrap();
            state.0 += 1;
            let mut state = self.changed.wait_while(state, |(_, left)| *left == 0).unwrap();
            *state = (state.0 - 1, state.1 - 1);
            Ok(1.0)
        }
    }

    struct Shelf(Arc<Gate>);

    impl PluginLoader for Shelf {
        fn load(&self, _: &Path, _: PluginLimits) -> Result<Arc<dyn Plugin>, String> {
            Ok(Arc::clone(&self.0) as _)
        }
    }

    async fn store(data: &Path, grades: u32) {
        let store = Embedded::open(data, 1).unwrap();
        for number in 0..grades {
            let header = GradeHeader {
                task: "demo.0001".parse().unwrap(),
                task_digest: Digest::of("task"),
                image_digest: "image".into(),
                submission_digest: Digest::of(number.to_string()),
                backend: "fake".into(),
                mode: Mode::Guarded,
                limits: TaskLimits::default(),
                generation: Generation::default(),
                external: Default::default(),
                task_facts: TaskFacts::default(),
                runner: "test".into(),
            };
            let grade = header.grade(PatchFacts::default(), Vec::new(), &[], None);
            let grade = GradeRecord { outcome: Outcome::Scored, complete: true, ..grade };
            store.complete(Completion::of_grade("run", grade)).await.unwrap();
        }
    }

    /// Two dry runs that take for ever, as those over a million grades seem to: a page of another
    /// call comes between theirs.
    #[tokio::test(flavor = "multi_thread")]
    async fn long_dry_runs_let_others_through() {
        const GRADES: u32 = 50;
        /// Of grades that plugins see.
        const PAGE: usize = 20;

        let dir = tempfile::tempdir().unwrap();
        store(dir.path(), GRADES).await;
        let catalog = Arc::new(Catalog::load(&[], dir.path()));
        let config = FleetConfig::new(dir.path().to_owned(), catalog, Backends::new());
        let (_fleet, handle) = Fleet::start(config).unwrap();
        let rescorer = Rescorer::new(handle);

        let gate = Arc::new(Gate {
            digest: Digest::of("gate"),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let file = "schema = 1\nname = 't'\n[plugin.p]\npath = 'p.wasm'\n[[term]]\nname = 'p'\n\
            value = 'plugin.p'\n";
        let slow = RewardSpec::parse_with(file, Path::new("t.toml"), &Shelf(Arc::clone(&gate)));
        let slow = Arc::new(slow.unwrap());
        let dry_runs: Vec<_> = (0..PAGES)
            .map(|_| {
                let (rescorer, slow) = (rescorer.clone(), Arc::clone(&slow));
                tokio::spawn(async move {
                    rescorer.dry_run(slow, None, GradeFilter::default(), u64::MAX).await
                })
            })
            .collect();
        let soon = |what| tokio::time::timeout(Duration::from_secs(60), what);
        let both = async {
            while gate.asking() < PAGES {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), both).await.expect("both dry runs ask");

        let spec = Arc::new(RewardSpec::preset("pass").unwrap().clone());
        let stream = rescorer.stream(spec, GradeFilter::default()).await.unwrap();
        let mut stream = std::pin::pin!(stream);
        assert!(stream.next().now_or_never().is_none(), "every page is taken, so it waits");
        // One of the two comes to the end of its page, whichever it is.
        gate.open_for(PAGES * (PAGE - 1) + 1);
        let batch = soon(stream.next()).await.expect("its turn comes").unwrap().unwrap();
        let Some(Event::Batch(batch)) = batch.event else { panic!("{batch:?}") };
        assert_eq!(batch.grades.len(), GRADES as usize);

        gate.open_for(usize::MAX >> 1);
        for dry_run in dry_runs {
            let done = dry_run.await.unwrap().unwrap();
            assert_eq!((done.rescored.records, done.complete), (GRADES.into(), true));
        }
    }
}
