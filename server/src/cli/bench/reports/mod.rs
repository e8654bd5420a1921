//! Reports of many tests, read as a grade needs them, beside what a library takes for the same bytes.

mod samples;

use std::{fmt, hint::black_box, time::Duration};

use anyhow::{Context as _, ensure};
use assay_repos::{LogParser, ReportKind};
use assay_rewards::{Evidence, Progress, TestStatus, parse};
use assay_sandbox::{Capture, Execution, Isolation, Termination, Usage};
use quick_xml::{Reader, escape::unescape, events::Event};
use serde::Serialize;
use serde_json::Value;

use super::grading::cpu;
use samples::NONCE;

/// How often each is read, in turns; the quickest counts.
const ROUNDS: u32 = 5;

/// What a format is compared with. None of them looks for a test in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Peer {
    /// quick-xml, all events with their attributes, unescaped: XML of which nothing is kept.
    QuickXml,
    /// serde_json, the document as a `Value`.
    SerdeJson,
    /// The same, each line.
    SerdeJsonLines,
    /// No library reads it: UTF-8 is checked, and lines are counted.
    Lines,
}

/// One format.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// As tasks write it.
    format: &'static str,
    bytes: usize,
    /// Of the grade's reading.
    mb_per_s: f64,
    peer: Peer,
    /// Times the peer's.
    ratio: f64,
    /// Times what serde_json takes for a byte of `jest`: for formats without a library.
    #[serde(skip_serializing_if = "Option::is_none")]
    json_ratio: Option<f64>,
}

/// Measures every format, with reports of so many tests.
///
/// # Errors
///
/// Where a report is not read whole, which nothing but a defect can cause.
pub(super) fn measure(tests: usize, mut done: impl FnMut()) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut json_byte = 0.0;
    for (kind, peer) in formats() {
        let sample = samples::of(kind, tests).context("a format without a sample")?;
        let execution = Execution {
            termination: Termination::Exited(1),
            stdout: Capture::default(),
            stderr: Capture::default(),
            channels: vec![Capture { head: sample.channel, ..Capture::default() }],
            usage: Usage::default(),
            isolation: Isolation::default(),
        };
        let document = &execution.channels[0].head[sample.document];
        let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            let started = cpu();
            let evidence = Evidence { execution: &execution, nonce: NONCE, subject: None };
            let report = parse(kind, &evidence)?;
            ours = ours.min(cpu() - started);
            let failed = |status| matches!(status, TestStatus::Failed | TestStatus::Error);
            let found = report.tests.iter().filter(|test| failed(test.status)).count();
            ensure!(
                (report.progress, report.tests.len(), found)
                    == (Progress::Ended, tests, tests / samples::FAILS),
                "a `{kind}` report is read as {} tests with {found} failures: {:?}",
                report.tests.len(),
                report.flags,
            );
            let started = cpu();
            peer.read(document)?;
            theirs = theirs.min(cpu() - started);
        }
        let bytes = document.len();
        let (ours, theirs) = (ours.as_secs_f64(), theirs.as_secs_f64());
        if kind == ReportKind::Jest {
            json_byte = theirs / bytes as f64;
        }
        rows.push(Row {
            format: kind.as_str(),
            bytes,
            mb_per_s: bytes as f64 / 1e6 / ours,
            peer,
            ratio: ours / theirs,
            json_ratio: (peer == Peer::Lines).then(|| ours / bytes as f64 / json_byte),
        });
        done();
    }
    Ok(rows)
}

/// How many formats there are.
pub(super) fn count() -> usize {
    formats().count()
}

fn formats() -> impl Iterator<Item = (ReportKind, Peer)> {
    use ReportKind::{Cargo, Ctrf, GoJson, Jest, Junit, Log, Mocha, Tap, Unittest};
    let known = [
        (Junit, Peer::QuickXml),
        (Jest, Peer::SerdeJson),
        (Mocha, Peer::SerdeJson),
        (Ctrf, Peer::SerdeJson),
        (GoJson, Peer::SerdeJsonLines),
        (Unittest, Peer::SerdeJsonLines),
        (Tap, Peer::Lines),
        (Cargo, Peer::Lines),
    ];
    // One for each reader of logs.
    let logs = [
        LogParser::Pytest,
        LogParser::Django,
        LogParser::Sympy,
        LogParser::GoTest,
        LogParser::Cargo,
        LogParser::Jest,
        LogParser::Minitest,
        LogParser::Phpunit,
    ];
    known.into_iter().chain(logs.map(|parser| (Log(parser), Peer::Lines)))
}

impl Peer {
    fn read(self, document: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::QuickXml => {
                let mut reader = Reader::from_str(std::str::from_utf8(document)?);
                loop {
                    match black_box(reader.read_event()?) {
                        Event::Eof => break,
                        Event::Start(start) | Event::Empty(start) => {
                            for attribute in start.attributes().with_checks(false) {
                                black_box(unescape(&attribute?.value)?);
                            }
                        }
                        _ => {}
                    }
                }
            }
            Self::SerdeJson => _ = black_box(serde_json::from_slice::<Value>(document)?),
            Self::SerdeJsonLines => {
                for line in document.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    black_box(serde_json::from_slice::<Value>(line)?);
                }
            }
            Self::Lines => _ = black_box(std::str::from_utf8(document)?.lines().count()),
        }
        Ok(())
    }

    fn name(self) -> &'static str {
        match self {
            Self::QuickXml => "quick-xml, events and attributes",
            Self::SerdeJson => "serde_json, a Value",
            Self::SerdeJsonLines => "serde_json, each line",
            Self::Lines => "splitting lines",
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, bytes, mb_per_s, peer, ratio, json_ratio } = self;
        write!(f, "{format:<28} {bytes:>9} {mb_per_s:>8.0} {ratio:>7.2}  {}", peer.name())?;
        match json_ratio {
            Some(ratio) => write!(f, "; {ratio:.2} of serde_json's per byte"),
            None => Ok(()),
        }
    }
}
