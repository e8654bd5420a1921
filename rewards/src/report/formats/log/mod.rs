//! What test tools print for people, read by the rules of SWE-bench's parsers where ids are
//! concerned, so that imported tasks find the tests that their rows name.
//!
//! Whatever a test prints can look like a result. So a log has to say itself that it ended, a
//! summary has to have room for what passed, and lines are read only where the tool writes them.

mod dialects;
mod lines;
mod maven;
mod pytest;
mod sympy;
mod unittest;

use assay_repos::LogParser;

use crate::report::{
    TestStatus,
    suite::{Suite, id, result, without_escapes},
};

/// Reads one document.
pub(super) fn read(parser: LogParser, document: &[u8], suite: &mut Suite) {
    if parser == LogParser::Cargo {
        return super::cargo::read_log(document, suite);
    }
    let document = super::text(document);
    let document = without_escapes(&document);
    let mut log = Log { suite, passed: 0, seen: false, room: None, ended: false };
    match parser {
        LogParser::Pytest | LogParser::PytestV2 | LogParser::Seaborn => {
            pytest::read(&document, &mut log, str::to_owned);
        }
        LogParser::PytestOptions => pytest::read(&document, &mut log, pytest::short_option),
        LogParser::Cpp => pytest::read(&document, &mut log, pytest::last_part),
        LogParser::Matplotlib => pytest::read(&document, &mut log, pytest::plain_buttons),
        LogParser::Django => unittest::read(&document, &mut log),
        LogParser::Sympy => sympy::read(&document, &mut log),
        LogParser::GoTest => lines::go(&document, &mut log),
        LogParser::GradleCustom => lines::each(&document, &mut log, lines::gradle),
        LogParser::Minitest => lines::each(&document, &mut log, lines::minitest),
        LogParser::RubyUnit => lines::each(&document, &mut log, lines::test_unit),
        LogParser::Ctest => lines::each(&document, &mut log, lines::ctest),
        LogParser::Elixir => lines::each(&document, &mut log, lines::elixir),
        LogParser::LuaNvim => lines::each(&document, &mut log, lines::plenary),
        LogParser::Ocaml => lines::alcotest(&document, &mut log),
        LogParser::Phpunit => lines::phpunit(&document, &mut log),
        LogParser::Maven => maven::commands(&document, &mut log),
        LogParser::JavaMvn => maven::classes(&document, &mut log),
        _ => {
            if let Some(dialect) = dialects::of(parser) {
                dialect.read(&document, &mut log);
            }
        }
    }
    log.finish();
}

/// What is known of a log while it is read.
struct Log<'a> {
    suite: &'a mut Suite,
    /// Lines that say that a test passed.
    passed: u64,
    /// Whether anything shows that the tool ran.
    seen: bool,
    /// How many passed, by the tool's summary.
    room: Option<u64>,
    /// Whether there is a summary.
    ended: bool,
}

impl Log<'_> {
    /// Adds a result. Of several for one id, the worst counts.
    fn add(&mut self, name: &str, status: TestStatus, said: &str) {
        self.seen = true;
        self.passed += u64::from(status.passes());
        self.say(name, status, said);
    }

    /// Adds a result that the tool doesn't count.
    fn say(&mut self, name: &str, status: TestStatus, said: &str) {
        let id = id([name]);
        if !id.is_empty() {
            self.suite.add(result(id, status, None, said));
        }
    }

    /// Reads the end of the tool's own summary.
    fn ends(&mut self, room: Option<u64>) {
        (self.seen, self.ended, self.room) = (true, true, room);
    }

    fn finish(self) {
        if !self.seen {
            return self.suite.gap("report.absent", "nothing in the log shows that a test ran");
        }
        self.suite.started();
        if !self.ended {
            self.suite.gap("report.no_end", "the log has no summary");
        }
        if let Some(room) = self.room
            && self.passed > room
        {
            let evidence = format!("{} tests passed, of {room} by the summary", self.passed);
            self.suite.gap("report.counts", &evidence);
        }
    }
}
