//! Tools that write a line for each test, where words around its name don't say it all.

use std::collections::HashMap;

use super::Log;
use crate::report::TestStatus::{self, Error, Failed, Passed, Skipped, Timeout};

/// What a line says.
pub(super) enum Line<'a> {
    Test(&'a str, TestStatus),
    /// The summary: how many passed at most, where it says so.
    End(Option<u64>),
    /// One of several summaries: how many passed of its part.
    Part(u64),
}

/// Reads a log by its lines.
pub(super) fn each(document: &str, log: &mut Log<'_>, read: fn(&str) -> Option<Line<'_>>) {
    for line in document.lines() {
        match read(line.trim()) {
            Some(Line::Test(name, status)) => log.add(untimed(name), status, ""),
            Some(Line::End(room)) => log.ends(room),
            Some(Line::Part(room)) => {
                log.ends(Some(log.room.unwrap_or_default().saturating_add(room)))
            }
            None => {}
        }
    }
}

/// Gradle: `Class > test PASSED`.
pub(super) fn gradle(line: &str) -> Option<Line<'_>> {
    if line == "BUILD FAILED" || line.starts_with("BUILD SUCCESSFUL") {
        return Some(Line::End(None));
    }
    // A JVM that starts meanwhile writes into the line.
    let line = line.split_once("Picked up JAVA_TOOL_OPTIONS").map_or(line, |(line, _)| line);
    let (name, word) = line.rsplit_once(' ')?;
    let status = match word {
        "PASSED" => Passed,
        "FAILED" => Failed,
        "SKIPPED" => Skipped,
        _ => return None,
    };
    // `> Task :test FAILED` is none.
    (name.contains(" > ") && !name.starts_with('>')).then(|| Line::Test(name.trim(), status))
}

/// minitest: `TestSum#test_adds = 0.01 s = .`
pub(super) fn minitest(line: &str) -> Option<Line<'_>> {
    if line.contains(" assertions, ") && line.contains(" failures, ") {
        let total = told(line, " runs").max(told(line, " tests"));
        return Some(Line::End(Some(total)));
    }
    let (rest, sign) = line.rsplit_once(" = ")?;
    let (name, time) = rest.rsplit_once(" = ")?;
    let status = match sign {
        "." => Passed,
        "F" => Failed,
        "E" => Error,
        "S" => Skipped,
        _ => return None,
    };
    // Names of shoulda end with `. `, which rows leave out.
    let name = name.trim_end().trim_end_matches('.');
    time.ends_with(" s").then_some(Line::Test(name, status))
}

/// test-unit with `--verbose`: `test_adds:   .: (0.001)`, `test: adds:   F`.
pub(super) fn test_unit(line: &str) -> Option<Line<'_>> {
    if line.contains(" assertions, ") && line.contains(" failures, ") {
        return Some(Line::End(Some(told(line, " tests"))));
    }
    let line = line.rsplit_once(": (").map_or(line, |(line, _)| line);
    let (name, sign) = line.rsplit_once(char::is_whitespace)?;
    let name = name.trim_end().strip_suffix(':')?;
    let status = match sign {
        "." => Passed,
        "F" => Failed,
        "E" => Error,
        "O" | "P" => Skipped,
        _ => return None,
    };
    Some(Line::Test(name.strip_prefix("test: ").unwrap_or(name), status))
}

/// ctest: `1/3 Test #1: adds ......   Passed    0.01 sec`.
pub(super) fn ctest(line: &str) -> Option<Line<'_>> {
    if line.contains("% tests passed, ") {
        return Some(Line::End(None));
    }
    let (of, rest) = line.split_once(" Test ")?;
    if !of.contains('/') || !of.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (_, rest) = rest.trim_start().strip_prefix('#')?.split_once(": ")?;
    let (name, rest) = rest.split_once(" ..")?;
    let signs = [
        ("Passed", Passed),
        ("Skipped", Skipped),
        ("Not Run (Disabled)", Skipped),
        ("Timeout", Timeout),
        ("", Failed),
    ];
    let Line::Test(_, status) = signed(rest.trim_start_matches(['.', ' ', '*']), &signs)? else {
        return None;
    };
    Some(Line::Test(name, status))
}

/// ExUnit with `--trace`: `* test adds (0.1ms) [L#4]`, also of what fails; then `1) test adds (SumTest)`.
pub(super) fn elixir(line: &str) -> Option<Line<'_>> {
    if line.starts_with(|c: char| c.is_ascii_digit()) {
        if let Some((_, title)) = line.split_once(") test ") {
            let (name, _) = title.rsplit_once(" (")?;
            return Some(Line::Test(name, Failed));
        }
        let ends = line.contains(" failure") && line.contains(" test");
        return ends.then(|| Line::End(Some(told(line, " tests").max(told(line, " test")))));
    }
    // It writes over the line in which a test began.
    let (_, line) = line.rsplit_once('\r').unwrap_or(("", line));
    let (name, _) = line.trim_start().strip_prefix("* test ")?.rsplit_once(" [L#")?;
    let (name, said) = name.rsplit_once(" (")?;
    match said.strip_suffix(')')? {
        "skipped" | "excluded" => Some(Line::Test(name, Skipped)),
        time if is_time(time) => Some(Line::Test(name, Passed)),
        _ => None,
    }
}

/// plenary.nvim: `Success || sum adds`, and for each file `Success: 3`.
pub(super) fn plenary(line: &str) -> Option<Line<'_>> {
    if let Some(count) = line.strip_prefix("Success:") {
        return Some(Line::Part(count.trim().parse().ok()?));
    }
    let (word, name) = line.split_once("||")?;
    let status = match word.trim() {
        "Success" => Passed,
        "Fail" | "Failed" => Failed,
        "Skip" | "Skipped" | "Pending" => Skipped,
        _ => return None,
    };
    Some(Line::Test(name, status))
}

/// Alcotest: `[OK]   sum   0   adds.`, whose id is `sum 0 adds.`
pub(super) fn alcotest(document: &str, log: &mut Log<'_>) {
    for line in document.lines().map(str::trim) {
        if line.ends_with(" tests run.") || line.ends_with(" test run.") {
            let (before, _) = line.rsplit_once(" test").unwrap_or_default();
            log.ends(before.rsplit(' ').next().and_then(|count| count.parse().ok()));
            continue;
        }
        let Some((word, rest)) = line.strip_prefix('[').and_then(|line| line.split_once(']'))
        else {
            continue;
        };
        let status = match word {
            "OK" => Passed,
            "FAIL" => Failed,
            "ERROR" => Error,
            "SKIP" => Skipped,
            _ => continue,
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let number = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
        if words.iter().skip(1).any(number) {
            log.add(&words.join(" "), status, "");
        }
    }
}

/// PHPUnit's `--testdox`: a class, `Sum (Tests\Sum)`, and below it ` ✔ Adds`.
pub(super) fn phpunit(document: &str, log: &mut Log<'_>) {
    let mut class = "";
    for line in document.lines() {
        let text = line.trim();
        let failed = text.starts_with("Tests: ") && text.contains("Assertions: ");
        if failed || text.starts_with("OK (") || text.starts_with("OK, but ") {
            log.ends(None);
        } else if let Some((name, rest)) = line.split_once(" (")
            && rest.ends_with(')')
            && name.starts_with(char::is_alphanumeric)
        {
            class = name;
        } else {
            let signs = [("✔ ", Passed), ("✘ ", Failed), ("↩ ", Skipped), ("∅ ", Skipped)];
            if let Some(Line::Test(name, status)) = signed(text, &signs) {
                log.add(&format!("{class} > {}", untimed(name)), status, "");
            }
        }
    }
}

/// Go: `--- PASS: TestA/sub (0.00s)`, with `-v` after `=== RUN   TestA/sub`. Ids have no package.
pub(super) fn go(document: &str, log: &mut Log<'_>) {
    let mut open: HashMap<&str, u32> = HashMap::new();
    for line in document.lines() {
        let text = line.trim();
        if let Some(name) = text.strip_prefix("=== RUN ") {
            log.seen = true;
            *open.entry(name.trim()).or_default() += 1;
        } else if let Some(rest) = text.strip_prefix("--- ")
            && let Some(Line::Test(rest, status)) =
                signed(rest, &[("PASS: ", Passed), ("FAIL: ", Failed), ("SKIP: ", Skipped)])
        {
            let name = rest.rsplit_once(" (").map_or(rest, |(name, _)| name);
            log.add(name, status, "");
            match open.get_mut(name) {
                Some(runs) if *runs > 0 => *runs -= 1,
                // Without -v there are no starts; passes there are not told either.
                _ if status == Passed => {
                    let evidence = format!("{name} passed, and was not started");
                    log.suite.gap("report.sequence", &evidence);
                }
                _ => {}
            }
        } else if let Some(package) = line.strip_prefix("FAIL\t") {
            log.ends(None);
            if let Some((package, _)) = package.split_once(" [") {
                log.add(package, Error, line);
            }
        } else if line.starts_with("ok  \t") || matches!(line, "PASS" | "FAIL") {
            log.ends(None);
        }
    }
    let mut lost: Vec<&str> =
        open.into_iter().filter(|(_, runs)| *runs > 0).map(|(name, _)| name).collect();
    lost.sort_unstable();
    for name in lost {
        log.suite.unfinished(super::id([name]), "it started, and has no result");
    }
}

fn signed<'a>(line: &'a str, signs: &[(&str, TestStatus)]) -> Option<Line<'a>> {
    signs.iter().find_map(|(sign, status)| Some(Line::Test(line.strip_prefix(sign)?, *status)))
}

/// Returns the number before a word: 2 for `1 failed, 2 passed, 3 total` and ` passed`.
fn told(counts: &str, word: &str) -> u64 {
    let count = counts.split(", ").find_map(|count| count.trim().strip_suffix(word));
    count.and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// Takes a time off the end of a name: ` (3 ms)`, ` [1.34 ms]`, ` in 0.2 sec`.
pub(super) fn untimed(name: &str) -> &str {
    let name = name.trim();
    let bracketed = |open: &str, close: char| {
        let (name, time) = name.strip_suffix(close)?.rsplit_once(open)?;
        is_time(time.trim()).then(|| name.trim_end())
    };
    let told = || name.rsplit_once(" in ").filter(|(_, time)| is_time(time)).map(|(name, _)| name);
    bracketed(" (", ')').or_else(|| bracketed(" [", ']')).or_else(told).unwrap_or(name)
}

/// Whether this is a number with a unit: `3 ms`, `1.34ms`, `0.2 sec`, `5s`.
pub(super) fn is_time(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    unit.len() < text.len() && matches!(unit.trim(), "ms" | "s" | "sec" | "msec" | "m")
}
