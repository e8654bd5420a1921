//! Tools that write a line a test: what stands before and behind its name, and which line ends
//! the run. All of it is data, read by one function.

use assay_repos::LogParser;

use super::{
    Log,
    lines::{is_time, untimed},
};
use crate::report::TestStatus::{self, Error, Failed, Passed, Skipped, Xfailed, Xpassed};

/// How a tool writes its results.
pub(super) struct Dialect {
    /// The first that fits a line counts.
    results: &'static [Rule],
    /// Lines of the summary. Where there are none, no log says that it is whole.
    ends: &'static [End],
    /// Whether there are several summaries, of programs, projects or files. Else the last counts.
    sums: bool,
    /// Whether what follows the summary tells of results again, in other words.
    stops: bool,
    /// Whether a name may end with a time that no bracket is around.
    bare_times: bool,
}

/// What stands before a name, what stands behind it, and what that means.
type Rule = (&'static str, &'static str, TestStatus);

/// What a summary's line begins with, what it has, and how many passed by it.
type End = (&'static str, &'static str, Room);

/// How many tests passed at most.
#[derive(Clone, Copy)]
enum Room {
    Untold,
    /// The number before a word: `2 passed`.
    Before(&'static str),
    /// The number after a word: `Passed: 2`.
    After(&'static str),
}

use Room::{After, Before, Untold};

const PLAIN: Dialect =
    Dialect { results: &[], ends: &[], sums: false, stops: false, bare_times: false };

/// Returns how a parser's tool writes its results, where that is no more than words around names.
pub(super) fn of(parser: LogParser) -> Option<Dialect> {
    Some(match parser {
        // `[junit] [PASS] test`
        LogParser::Ant => Dialect {
            results: &[
                ("[junit] [PASS] ", "", Passed),
                ("[junit] [FAIL] ", "", Failed),
                ("[junit] [ERR] ", "", Error),
                ("[junit] [SKIP] ", "", Skipped),
            ],
            ends: &[("BUILD FAILED", "", Untold), ("BUILD SUCCESSFUL", "", Untold)],
            ..PLAIN
        },
        // `✓ adds (3 ms)`
        LogParser::Jest => Dialect {
            results: &[
                ("✓ ", "", Passed),
                ("✕ ", "", Failed),
                ("○ skipped ", "", Skipped),
                ("○ ", "", Skipped),
                ("✎ todo ", "", Skipped),
            ],
            ends: &[("Tests: ", " total", Before(" passed"))],
            ..PLAIN
        },
        // `[PASSED] group adds`, which a filter makes of jest's JSON, and jest's own words around it
        LogParser::JestJson => {
            Dialect { results: &[("[PASSED] ", "", Passed), ("[FAILED] ", "", Failed)], ..PLAIN }
        }
        // `PASS src/sum.test.js (5.1 s)`: jest's files
        LogParser::ReactPdf => Dialect {
            results: &[("PASS ", "", Passed), ("FAIL ", "", Failed)],
            ends: &[("Test Suites: ", " total", Before(" passed"))],
            ..PLAIN
        },
        // `✓ sum.test.ts > group > adds 3ms`; files have such lines, too
        LogParser::Vitest => Dialect {
            results: &[
                ("↓ ", " [skipped]", Skipped),
                ("✓ ", "", Passed),
                ("× ", "", Failed),
                ("↓ ", "", Skipped),
            ],
            ends: &[("Tests  ", ")", Untold)],
            bare_times: true,
            ..PLAIN
        },
        // mocha's reporter `spec`: titles, without the groups around them
        LogParser::Js => Dialect {
            results: &[
                ("✔ ", "", Passed),
                ("✓ ", "", Passed),
                ("- ", "", Skipped),
                ("#) ", "", Failed),
                ("[W] #) ", "", Failed),
            ],
            ends: &[("", " passing (", Before(" passing"))],
            stops: true,
            ..PLAIN
        },
        // whatever has such signs
        LogParser::Js4 => Dialect {
            results: &[
                ("✔ ", "", Passed),
                ("✓ ", "", Passed),
                ("✘ ", "", Failed),
                ("✖ ", "", Failed),
                ("× ", "", Failed),
                ("○ ", "", Skipped),
                ("◌ ", "", Skipped),
                ("◦ ", "", Skipped),
            ],
            ..PLAIN
        },
        // Pest: `✓ it adds  0.03s`
        LogParser::PhpV1 => Dialect {
            results: &[
                ("✓ ", "", Passed),
                ("✔ ", "", Passed),
                ("⨯ ", "", Failed),
                ("- ", "", Skipped),
            ],
            ends: &[("Tests: ", " assertion", Before(" passed"))],
            stops: true,
            bare_times: true,
            ..PLAIN
        },
        // `[ok]: SET and GET (3 ms)`, `[err]: SET and GET in tests/unit/basic.tcl`
        LogParser::Redis => Dialect {
            results: &[
                ("[ok]: ", "", Passed),
                ("[err]: ", " in ", Failed),
                ("[err]: ", "", Failed),
                ("[skip]: ", "", Skipped),
                ("[ignore]: ", "", Skipped),
            ],
            ends: &[
                ("\\o/ All tests passed", "", Untold),
                ("!!! WARNING The following tests failed", "", Untold),
            ],
            ..PLAIN
        },
        // automake: `PASS: tests/jqtest`
        LogParser::Jq => Dialect {
            results: &[
                ("PASS: ", "", Passed),
                ("FAIL: ", "", Failed),
                ("XFAIL: ", "", Xfailed),
                ("XPASS: ", "", Xpassed),
                ("SKIP: ", "", Skipped),
            ],
            ends: &[("# PASS: ", "", After("# PASS:"))],
            sums: true,
            ..PLAIN
        },
        // `pass  basics/int.py`
        LogParser::Micropython => Dialect {
            results: &[("pass ", "", Passed), ("FAIL ", "", Failed), ("skip ", "", Skipped)],
            ends: &[("", " tests passed", Before(" tests passed"))],
            stops: true,
            ..PLAIN
        },
        // `[       OK ] Sum.Adds (0 ms)`, of one program or, under ctest, of several
        LogParser::Googletest => Dialect {
            results: &[
                ("[       OK ] ", " (", Passed),
                ("[  FAILED  ] ", " (", Failed),
                ("[  SKIPPED ] ", " (", Skipped),
            ],
            ends: &[("[  PASSED  ] ", " test", Before(" test"))],
            sums: true,
            ..PLAIN
        },
        // `group adds - passed`, which a filter makes of rspec's JSON
        LogParser::RspecJson => Dialect {
            results: &[
                ("", " - passed", Passed),
                ("", " - failed", Failed),
                ("", " - pending", Skipped),
            ],
            ..PLAIN
        },
        // XCTest: `Test Case 'Sum.testAdds' passed (0.001 seconds)`
        LogParser::Swift => Dialect {
            results: &[
                ("Test Case '", "' passed", Passed),
                ("Test Case '", "' failed", Failed),
                ("Test Case '", "' skipped", Skipped),
            ],
            ends: &[("Executed ", " seconds", Before(" test"))],
            ..PLAIN
        },
        // `dotnet test`: `Passed Sum.Adds [12 ms]`
        LogParser::Csharp => Dialect {
            results: &[
                ("Passed ", " [", Passed),
                ("Failed ", " [", Failed),
                ("Skipped ", " [", Skipped),
            ],
            ends: &[
                ("Passed!  - ", "Passed:", After("Passed:")),
                ("Failed!  - ", "Passed:", After("Passed:")),
                ("Passed: ", "", After("Passed:")),
                ("Total tests: ", "", Untold),
            ],
            sums: true,
            ..PLAIN
        },
        // ScalaTest under sbt: `[info] - adds (12 milliseconds)`
        LogParser::Scala => Dialect {
            results: &[
                ("[info] - ", " *** FAILED ***", Failed),
                ("[info] - ", " !!! CANCELED !!!", Skipped),
                ("[info] - ", " !!! IGNORED !!!", Skipped),
                ("[info] - ", " (", Passed),
            ],
            ends: &[("[info] Tests: ", "succeeded ", After("succeeded "))],
            sums: true,
            ..PLAIN
        },
        _ => return None,
    })
}

impl Dialect {
    /// Reads a log.
    pub(super) fn read(&self, document: &str, log: &mut Log<'_>) {
        let mut room = 0;
        for line in document.lines().map(plain) {
            if let Some(told) = self.end(line) {
                let told = told.map(|passed| {
                    room = if self.sums { passed.saturating_add(room) } else { passed };
                    room
                });
                log.ends(told.or(log.room));
                if self.stops {
                    break;
                }
            } else if let Some((name, status)) = self.result(line) {
                let name = match name.rsplit_once(' ') {
                    Some((name, time)) if self.bare_times && is_time(time) => name,
                    _ => untimed(name),
                };
                log.add(name, status, "");
            }
        }
        if self.ends.is_empty() {
            log.ended = log.seen;
        }
    }

    fn result<'a>(&self, line: &'a str) -> Option<(&'a str, TestStatus)> {
        self.results.iter().find_map(|(before, after, status)| {
            // `#` is a number.
            let rest = match before.split_once('#') {
                Some((before, behind)) => {
                    let (number, rest) = line.strip_prefix(before)?.split_once(behind)?;
                    is_number(number).then_some(rest)?
                }
                None => line.strip_prefix(before)?,
            };
            let name = match *after {
                "" => rest,
                after => {
                    let (name, beyond) = rest.rsplit_once(after)?;
                    is_aside(beyond).then_some(name)?
                }
            };
            let name = name.trim();
            (!name.is_empty()).then_some((name, *status))
        })
    }

    fn end(&self, line: &str) -> Option<Option<u64>> {
        let fits = |(before, has, _): &&End| line.starts_with(before) && line.contains(has);
        let (_, _, room) = self.ends.iter().find(fits)?;
        let no_digit = |c: char| !c.is_ascii_digit();
        let number = match room {
            Untold => return Some(None),
            Before(word) => {
                line.split_once(word).and_then(|(text, _)| text.rsplit(no_digit).next())
            }
            After(word) => {
                line.split_once(word).and_then(|(_, text)| text.trim_start().split(no_digit).next())
            }
        };
        // No word of what passed: nothing did.
        Some(Some(number.and_then(|number| number.parse().ok()).unwrap_or_default()))
    }
}

/// Returns a line as its tool wrote it: ctest puts a number before those of a program.
fn plain(line: &str) -> &str {
    let line = line.trim();
    match line.split_once(": ") {
        Some((number, rest)) if is_number(number) => rest.trim(),
        _ => line,
    }
}

/// Whether this may follow a result: a time, a place, nothing.
fn is_aside(text: &str) -> bool {
    let text = text.trim();
    text.ends_with([')', ']']) || !text.contains(char::is_whitespace) || is_time(text)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
