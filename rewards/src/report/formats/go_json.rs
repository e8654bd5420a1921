//! The events of `go test -json`: a line each, of test2json and of the build.
//!
//! A test's id is its package and its name, subtests included. test2json makes events of what a
//! test binary prints, so that a test can print results; what is there to tell them by is that a
//! result follows a start, once.

use std::collections::HashMap;

use serde::Deserialize;

use crate::report::{
    MAX_MESSAGE, TestStatus,
    suite::{Suite, id, result},
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    action: String,
    #[serde(default)]
    package: String,
    #[serde(default)]
    test: String,
    #[serde(default)]
    elapsed: Option<f64>,
    #[serde(default)]
    output: String,
    #[serde(default)]
    import_path: String,
    #[serde(default)]
    failed_build: String,
}

#[derive(Default)]
struct Package {
    name: String,
    tests: Vec<Test>,
    places: HashMap<String, usize>,
    /// What it printed outside of tests.
    output: String,
    failed_build: String,
    end: Option<TestStatus>,
}

#[derive(Default)]
struct Test {
    name: String,
    starts: u32,
    ends: u32,
    failed: bool,
    skipped: bool,
    elapsed: Option<f64>,
    output: String,
}

/// Reads one document.
pub(super) fn read(document: &[u8], suite: &mut Suite) {
    let mut go = Go { suite, packages: Vec::new(), places: HashMap::new(), builds: HashMap::new() };
    for line in document.split(|byte| *byte == b'\n') {
        // The build prints plain lines among the events; so does a vet that fails.
        if line.first() == Some(&b'{') {
            match super::json::<Event>(line) {
                Ok(event) => go.event(event),
                Err(_) => {
                    go.suite.gap("report.malformed", &String::from_utf8_lossy(super::head(line)))
                }
            }
        }
    }
    let Go { suite, packages, builds, .. } = go;
    for package in packages {
        package.report(suite, &builds);
    }
}

struct Go<'a> {
    suite: &'a mut Suite,
    packages: Vec<Package>,
    places: HashMap<String, usize>,
    /// What builds printed, by import path.
    builds: HashMap<String, String>,
}

impl Go<'_> {
    fn event(&mut self, event: Event) {
        if event.action == "build-output" {
            say(self.builds.entry(event.import_path).or_default(), &event.output);
            return;
        }
        if event.package.is_empty() {
            return;
        }
        let place = *self.places.entry(event.package.clone()).or_insert_with(|| {
            self.packages.push(Package { name: event.package.clone(), ..Package::default() });
            self.packages.len() - 1
        });
        let package = &mut self.packages[place];
        if package.end.is_some() {
            let evidence = format!("{} of {} after its end", event.action, event.package);
            self.suite.contradiction("report.after_end", &evidence);
            return;
        }
        if event.test.is_empty() {
            package.event(event);
        } else {
            package.test(event);
        }
    }
}

impl Package {
    fn event(&mut self, event: Event) {
        match event.action.as_str() {
            "pass" => self.end = Some(TestStatus::Passed),
            "fail" => {
                self.end = Some(TestStatus::Failed);
                self.failed_build = event.failed_build;
            }
            "skip" => self.end = Some(TestStatus::Skipped),
            "output" => say(&mut self.output, &event.output),
            _ => {}
        }
    }

    fn test(&mut self, event: Event) {
        let place = *self.places.entry(event.test.clone()).or_insert_with(|| {
            self.tests.push(Test { name: event.test, ..Test::default() });
            self.tests.len() - 1
        });
        let test = &mut self.tests[place];
        match event.action.as_str() {
            "run" => test.starts += 1,
            "output" => say(&mut test.output, &event.output),
            "pass" | "fail" | "skip" => {
                test.ends += 1;
                test.failed |= event.action == "fail";
                test.skipped |= event.action == "skip";
                test.elapsed = event.elapsed;
            }
            _ => {}
        }
    }

    fn report(self, suite: &mut Suite, builds: &HashMap<String, String>) {
        let failed = self.tests.iter().any(|test| test.failed);
        // It failed beside its tests: in the build, in `TestMain`, by a race.
        let broken = self.end == Some(TestStatus::Failed) && !failed;
        if broken {
            let said = builds.get(&self.failed_build).unwrap_or(&self.output);
            suite.add(result(id([self.name.as_str()]), TestStatus::Error, None, said));
        }
        if self.end.is_none() {
            suite.gap("report.no_end", &format!("{} has no result", self.name));
        }
        // It stands in the id of every test.
        let name = id([self.name.as_str()]);
        for test in self.tests {
            let id = id([name.as_str(), test.name.as_str()]);
            if test.ends > test.starts {
                let evidence = format!("{id}: {} results of {} runs", test.ends, test.starts);
                suite.contradiction("report.sequence", &evidence);
            }
            let status = match () {
                () if test.failed => TestStatus::Failed,
                () if test.ends < test.starts || test.ends == 0 => {
                    // Its end may be lost in a line that it left open. It has no credit.
                    suite.unfinished(id, "it started, and has no result");
                    continue;
                }
                () if broken => TestStatus::Missing,
                () if test.skipped => TestStatus::Skipped,
                () => TestStatus::Passed,
            };
            let said = match status {
                TestStatus::Passed => "",
                TestStatus::Missing => "its package failed beside its tests",
                _ => &test.output,
            };
            suite.add(result(id, status, test.elapsed, said));
        }
    }
}

fn say(message: &mut String, text: &str) {
    if message.len() < MAX_MESSAGE {
        message.push_str(text);
    }
}
