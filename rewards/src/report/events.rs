//! The report channel of our runners: JSON lines on a descriptor of their own.
//!
//! In order, each with `"seq"` from 0 without gaps:
//!
//! ```text
//! {"event":"alive","nonce":N}                       optional; before anything of the submission runs
//! {"event":"start","nonce":N,"collected":[ID...]}
//! {"event":"test","id":ID,"status":"passed","duration_s":0.1,"message":"..."}     once per test
//! {"event":"canary","kind":"assert","id":ID,"status":"failed"}    see `canary.rs`
//! {"event":"conflict","id":ID,"evidence":"..."}     a result that contradicts what really happened
//! {"event":"end","nonce":N,"exit":0,"counts":{"passed":1}}
//! ```
//!
//! Where the code under test shares the runner's process it can write here, too. It has to guess
//! the nonce, keep the sequence, agree with the end's counts and with the exit status, and silence
//! the runner. Each disagreement is a flag, and a report with one has no passed test.

use std::collections::{BTreeMap, HashMap};

use assay_repos::{Flag, Severity};
use assay_sandbox::{Capture, LimitKind, Termination};
use serde::Deserialize;

use super::{
    MAX_EVIDENCE, MAX_FLAGS, MAX_MESSAGE, NO_END, Progress, Report, TestResult, TestStatus,
    badness, bounded, bounded_id,
    canary::{self, Canary, CanaryKind},
    discredited, replace_lone_surrogates,
};

const SIGKILL: i32 = 9;
/// Most lines that are read.
const MAX_LINES: usize = 200_000;

#[derive(Deserialize)]
struct Line {
    seq: u64,
    #[serde(flatten)]
    event: Event,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Alive {
        nonce: String,
    },
    Start {
        nonce: String,
        collected: Vec<String>,
    },
    Test {
        id: String,
        status: TestStatus,
        #[serde(default)]
        duration_s: Option<f64>,
        #[serde(default)]
        message: Option<String>,
    },
    Canary {
        kind: CanaryKind,
        id: String,
        status: TestStatus,
    },
    Conflict {
        id: String,
        #[serde(default)]
        evidence: String,
    },
    End {
        nonce: String,
        exit: i32,
        counts: BTreeMap<String, u64>,
    },
}

/// Reads a report. `sealed`: no code under test could write to the channel, so a contradiction in
/// it is our own defect. `canaries`: the kinds without which no test has passed.
pub(super) fn parse(
    channel: &Capture,
    termination: Termination,
    nonce: &str,
    sealed: bool,
    canaries: &[CanaryKind],
) -> Report {
    let mut reader = Reader::new(nonce);
    reader.read(&channel.head);
    if channel.complete().is_none() {
        reader.truncated = Some(channel.dropped);
    }
    reader.finish(termination, sealed, canaries)
}

struct Reader<'a> {
    nonce: &'a str,
    next_seq: u64,
    /// Whether any line had the right nonce.
    heard: bool,
    progress: Progress,
    order: Vec<String>,
    slots: HashMap<String, Slot>,
    counts: BTreeMap<&'static str, u64>,
    canaries: Vec<Canary>,
    end: Option<(i32, BTreeMap<String, u64>)>,
    oddities: Vec<(&'static str, String)>,
    truncated: Option<u64>,
}

/// What is known of one id. Two tests may share one: then the worst result counts.
#[derive(Default)]
struct Slot {
    collected: u32,
    reported: u32,
    result: Option<TestResult>,
}

impl<'a> Reader<'a> {
    fn new(nonce: &'a str) -> Self {
        Self {
            nonce,
            next_seq: 0,
            heard: false,
            progress: Progress::Silent,
            order: Vec::new(),
            slots: HashMap::new(),
            counts: BTreeMap::new(),
            canaries: Vec::new(),
            end: None,
            oddities: Vec::new(),
            truncated: None,
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        // What follows the last newline was cut off in the middle of a write, or is nothing.
        let rest = lines.next_back().unwrap_or_default();
        for (number, line) in lines.enumerate() {
            if number == MAX_LINES {
                self.truncated = Some(0);
                return;
            }
            match parse_line(line) {
                Some(line) => self.line(line),
                None => self.odd("report.foreign_line", &String::from_utf8_lossy(head(line))),
            }
        }
        if !rest.is_empty() && self.end.is_some() {
            self.odd("report.after_end", &String::from_utf8_lossy(head(rest)));
        }
    }

    fn line(&mut self, line: Line) {
        if line.seq != self.next_seq {
            let evidence = format!("line {} follows line {}", line.seq, self.next_seq as i128 - 1);
            self.odd("report.sequence", &evidence);
        }
        self.next_seq = line.seq.saturating_add(1);
        if self.end.is_some() {
            self.odd("report.after_end", "an event after the end");
            return;
        }
        match line.event {
            Event::Alive { nonce } => {
                if self.trusts(&nonce, "alive") {
                    if self.progress != Progress::Silent {
                        self.odd("report.order", "alive is not the first event");
                    }
                    self.progress = self.progress.max(Progress::Alive);
                }
            }
            Event::Start { nonce, collected } => {
                if self.trusts(&nonce, "start") {
                    if self.progress >= Progress::Started {
                        self.odd("report.order", "a second start");
                        return;
                    }
                    self.progress = Progress::Started;
                    self.collect(collected);
                }
            }
            Event::Test { id, status, duration_s, message } => {
                self.test(TestResult {
                    id: bounded_id(&id),
                    status,
                    duration_s: duration_s.filter(|s| s.is_finite() && *s >= 0.0),
                    message: message
                        .filter(|text| !text.is_empty())
                        .map(|text| bounded(&text, MAX_MESSAGE)),
                });
            }
            Event::Canary { kind, id, status } => {
                if self.progress < Progress::Started {
                    self.odd("report.order", "a canary before the start");
                } else if self.canaries.iter().any(|canary| canary.kind == kind) {
                    self.odd("report.duplicate_test", &format!("a second canary `{kind}`"));
                } else {
                    self.canaries.push(Canary { kind, id: bounded_id(&id), status });
                }
            }
            Event::Conflict { id, evidence } => {
                self.odd("report.conflict", &format!("{}: {evidence}", bounded(&id, 100)));
            }
            Event::End { nonce, exit, counts } => {
                if self.trusts(&nonce, "end") {
                    if self.progress < Progress::Started && !counts.is_empty() {
                        self.odd("report.order", "an end without a start");
                    }
                    self.end = Some((exit, counts));
                }
            }
        }
    }

    fn trusts(&mut self, nonce: &str, event: &str) -> bool {
        let right = nonce == self.nonce;
        self.heard |= right;
        if !right {
            self.odd("report.nonce", &format!("{event} with another nonce"));
        }
        right
    }

    fn collect(&mut self, collected: Vec<String>) {
        if collected.len() > MAX_LINES {
            self.truncated = Some(0);
        }
        for id in collected.into_iter().take(MAX_LINES) {
            let id = bounded_id(&id);
            let slot = self.slots.entry(id.clone()).or_default();
            if slot.collected == 0 {
                self.order.push(id);
            }
            slot.collected += 1;
        }
    }

    fn test(&mut self, result: TestResult) {
        *self.counts.entry(result.status.as_str()).or_default() += 1;
        if matches!(result.status, TestStatus::Missing | TestStatus::Timeout) {
            self.odd("report.foreign_line", "a status that no runner reports");
        }
        if self.progress < Progress::Started {
            return self.odd("report.order", "a test before the start");
        }
        let Some(slot) = self.slots.get_mut(&result.id) else {
            let evidence = format!("{} was not collected", result.id);
            return self.odd("report.unknown_test", &evidence);
        };
        slot.reported += 1;
        let repeated = slot.reported > slot.collected;
        let id = repeated.then(|| result.id.clone());
        match &slot.result {
            Some(known) if badness(known.status) >= badness(result.status) => {}
            _ => slot.result = Some(result),
        }
        if let Some(id) = id {
            self.odd("report.duplicate_test", &format!("{id} was reported more than once"));
        }
    }

    fn odd(&mut self, code: &'static str, evidence: &str) {
        if self.oddities.len() < MAX_FLAGS {
            self.oddities.push((code, bounded(evidence, MAX_EVIDENCE)));
        }
    }

    fn finish(mut self, termination: Termination, sealed: bool, canaries: &[CanaryKind]) -> Report {
        let mut remarks = Vec::new();
        let mut ended = false;
        let said_no_end = self.truncated.is_none() && self.end.is_none();
        let broke_off = said_no_end && self.progress > Progress::Silent && left(termination);
        let verdict = canary::judge(&self.canaries);
        for evidence in verdict.green {
            self.odd("canary.green", &evidence);
        }
        remarks.extend(verdict.remarks);
        if let Some(dropped) = self.truncated {
            remarks.push(("report.truncated", format!("{dropped} bytes were dropped")));
        } else if let Some((exit, counts)) = self.end.take() {
            ended = self.check_end(exit, &counts, termination);
            let heard =
                |kind: &&CanaryKind| self.canaries.iter().any(|canary| canary.kind == **kind);
            if let Some(lost) = canaries.iter().find(|kind| !heard(kind)).filter(|_| ended)
                && ["passed", "xfailed"].iter().any(|status| self.counts.contains_key(status))
            {
                // Such as where tests run in processes that the runner doesn't know.
                let evidence = format!("tests passed, and no canary `{lost}` ran");
                remarks.push(("canary.missing", evidence));
                ended = false;
            }
        } else if self.progress > Progress::Silent && termination.success() {
            remarks.push(("report.no_end", "status 0 without the end of the report".to_owned()));
        }
        let contradicted = !self.oddities.is_empty();
        // A stranger's bytes alone say nothing: without our runner's nonce, nothing was forged.
        let severity = if self.heard && !sealed { Severity::Tampering } else { Severity::Warning };
        let defect = (sealed && self.heard)
            .then(|| self.oddities.first().map(|(code, evidence)| format!("{code}: {evidence}")))
            .flatten();
        if ended && !contradicted {
            self.progress = Progress::Ended;
        }
        // In a sealed check no passed test can be forged, so that an early end takes nothing back.
        let credible = !contradicted && (ended || sealed);
        let tests = self.tests(credible, termination);
        let flag = |severity| {
            move |(code, evidence): (&str, String)| Flag { code: code.into(), severity, evidence }
        };
        let flags = (self.oddities.into_iter().map(flag(severity)))
            .chain(remarks.into_iter().map(flag(Severity::Warning)))
            .collect();
        let Self { progress, canaries, .. } = self;
        Report { tests, progress, broke_off, flags, defect, canaries }
    }

    /// Compares the end with what came before it and with how the process really ended. Returns
    /// whether it is an end that results can be counted by.
    fn check_end(
        &mut self,
        exit: i32,
        counts: &BTreeMap<String, u64>,
        termination: Termination,
    ) -> bool {
        let told = counts.iter().filter(|(_, n)| **n > 0).map(|(status, n)| (status.as_str(), *n));
        if !told.eq(self.counts.iter().map(|(status, n)| (*status, *n))) {
            self.odd("report.counts", "the end counts other results than were reported");
        }
        let failing = self.counts.get("failed").or(self.counts.get("error")).is_some();
        match exit {
            0 if failing => self.odd("report.exit", "exit 0, but tests failed"),
            1 if !failing => self.odd("report.exit", "exit 1, but no test failed"),
            5 if !self.counts.is_empty() => self.odd("report.exit", "exit 5, but tests ran"),
            _ => {}
        }
        match termination {
            // The limit came between the end of the report and the end of the process.
            Termination::Limit(_) => return false,
            Termination::Exited(code) if code == exit => {}
            Termination::Exited(_) | Termination::Signaled(_) => {
                let evidence = format!(
                    "the end says exit {exit}, the process {}",
                    super::describe(termination)
                );
                self.odd("report.exit", &evidence);
            }
        }
        matches!(exit, 0 | 1 | 5)
    }

    fn tests(&mut self, credible: bool, termination: Termination) -> Vec<TestResult> {
        let out_of_time = matches!(
            termination,
            Termination::Limit(LimitKind::Wall | LimitKind::WallStarved | LimitKind::Cpu)
        );
        let mut running = out_of_time;
        let order = std::mem::take(&mut self.order);
        let tests = order.into_iter().map(|id| {
            let slot = self.slots.remove(&id).unwrap_or_default();
            match slot.result {
                Some(result) if slot.reported >= slot.collected || !result.status.passes() => {
                    let mut result = result;
                    if !credible {
                        discredited(&mut result, NO_END);
                    }
                    result
                }
                _ => {
                    // The first without a result is the one that was running.
                    let status = if std::mem::take(&mut running) {
                        TestStatus::Timeout
                    } else {
                        TestStatus::Missing
                    };
                    TestResult { id, status, duration_s: None, message: None }
                }
            }
        });
        tests.collect()
    }
}

/// Whether a process came to its end by itself. SIGKILL may come from a machine in need.
fn left(termination: Termination) -> bool {
    match termination {
        Termination::Exited(_) => true,
        Termination::Signaled(signal) => signal != SIGKILL,
        Termination::Limit(_) => false,
    }
}

fn parse_line(line: &[u8]) -> Option<Line> {
    if let Ok(parsed) = serde_json::from_slice(line) {
        return Some(parsed);
    }
    let repaired = replace_lone_surrogates(line)?;
    serde_json::from_slice(&repaired).ok()
}

fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(MAX_EVIDENCE)]
}
