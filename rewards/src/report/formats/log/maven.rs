//! Maven's console. It says nothing of a test that passes, so rows name what it does tell.

use std::collections::VecDeque;

use super::Log;
use crate::report::TestStatus::{Failed, Passed, Skipped};

/// Reads a trace of a shell that runs Maven once for each test: `+ mvn test -Dtest=SumTest#adds`, and
/// `BUILD SUCCESS`. A build in which no test ran passes nothing.
pub(super) fn commands(document: &str, log: &mut Log<'_>) {
    let mut begun = VecDeque::new();
    let mut ran = false;
    for line in document.lines().map(str::trim) {
        if line.starts_with('+') {
            let test = line.split_once("-Dtest=").and_then(|(_, rest)| rest.split(' ').next());
            begun.extend(test);
        } else if let Some((run, _, _)) = counts(line) {
            ran |= run > 0;
        } else if let Some(success) = build(line)
            && let Some(test) = begun.pop_front()
        {
            log.add(test, if success && ran { Passed } else { Failed }, "");
            log.ends(None);
            ran = false;
        }
    }
    for test in begun {
        log.suite.unfinished(super::id([test]), "its build has no end");
    }
}

/// Reads surefire's account of classes, which are the tests here, and of methods that failed.
pub(super) fn classes(document: &str, log: &mut Log<'_>) {
    let mut running = None;
    for line in document.lines().map(str::trim) {
        let told = line.split_once("] ").filter(|_| line.starts_with('['));
        let told = told.map_or(line, |(_, rest)| rest).trim();
        if let Some(class) = told.strip_prefix("Running ") {
            lose(log, running.replace(class));
        } else if let Some((_, bad, skipped)) = counts(told) {
            let class = told.rsplit_once(" in ").map(|(_, class)| class).or(running);
            running = None;
            // The sum of all has no class.
            let Some(class) = class else { continue };
            let status = match (bad, skipped) {
                (0, 0) => Passed,
                (0, _) => Skipped,
                _ => Failed,
            };
            log.add(class, status, "");
        } else if let Some(_success) = build(line) {
            log.ends(None);
        } else if let Some((method, rest)) = told.split_once(':')
            && line.starts_with("[ERROR]")
            && rest.starts_with(|c: char| c.is_ascii_digit())
            && method.contains('.')
            && !method.contains(char::is_whitespace)
        {
            log.add(method, Failed, rest);
        }
    }
    lose(log, running);
}

fn lose(log: &mut Log<'_>, class: Option<&str>) {
    if let Some(class) = class {
        log.seen = true;
        log.suite.unfinished(super::id([class]), "it started, and has no result");
    }
}

/// Reads `Tests run: 3, Failures: 0, Errors: 0, Skipped: 1`: how many ran, broke and were skipped.
fn counts(line: &str) -> Option<(u64, u64, u64)> {
    let (_, line) = line.split_once("Tests run: ")?;
    let mut numbers = line.splitn(4, ", ").map(|count| {
        let digits = count.trim_start_matches(|c: char| !c.is_ascii_digit());
        digits.split(|c: char| !c.is_ascii_digit()).next().and_then(|number| number.parse().ok())
    });
    let mut next = || numbers.next().flatten();
    let (run, failures, errors, skipped): (u64, u64, u64, u64) =
        (next()?, next()?, next()?, next()?);
    Some((run, failures.saturating_add(errors), skipped))
}

fn build(line: &str) -> Option<bool> {
    let success = line.ends_with("BUILD SUCCESS");
    (success || line.ends_with("BUILD FAILURE")).then_some(success)
}
