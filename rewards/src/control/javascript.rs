//! JavaScript: the function that registers a test wraps the test's own, and throws after it.
//!
//! A test file that is no module puts its source back before it loads the code under test, which
//! could read there what is done to it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use assay_repos::ReportKind;

use super::{BETWEEN, Chance, Files, Place, Places, Syntax, TestName};

/// The ends of files that can be spoiled, and of those whose types the failure would have to have.
const PLAIN: [&str; 3] = ["js", "mjs", "cjs"];
const TYPED: [&str; 5] = ["ts", "mts", "cts", "tsx", "jsx"];

#[derive(Debug)]
pub(super) struct Javascript;

impl Syntax for Javascript {
    fn needs(&self, path: &Path) -> bool {
        let script =
            path.extension().is_some_and(|end| PLAIN.iter().chain(&TYPED).any(|e| end == *e));
        let parts = || path.iter().filter_map(|part| part.to_str());
        script
            && parts().all(|part| part != "node_modules")
            && parts().any(|part| part.contains("test") || part.contains("spec"))
    }

    fn places(&self, files: &Files) -> Places {
        let mut places = Places::new();
        for (file, bytes) in files {
            let Ok(text) = std::str::from_utf8(bytes) else { continue };
            let plain = file.extension().is_some_and(|end| PLAIN.iter().any(|plain| end == *plain));
            let mut at = 0;
            for line in text.split_inclusive('\n') {
                if let Some((title, word)) = test(line) {
                    let place = Place {
                        file: file.clone(),
                        at: plain.then_some(at + line.len() - line.trim_start().len()),
                        word: word.to_owned(),
                        of: String::new(),
                    };
                    let name = (String::new(), title.to_owned());
                    places.entry(name).or_default().push(place);
                }
                at += line.len();
            }
        }
        places
    }

    /// Reports have titles, and not always files.
    fn name(&self, _: ReportKind, id: &str) -> Option<TestName> {
        let title = id.rsplit_once(BETWEEN).map_or(id, |(_, title)| title);
        Some((String::new(), title.to_owned()))
    }

    fn spoil(
        &self,
        file: &Path,
        text: &str,
        places: &[&Place],
        chance: &mut Chance<'_>,
    ) -> BTreeMap<PathBuf, String> {
        let function = chance.word();
        let failure = FAILURE.replace("FUNCTION", &function);
        let failure = failure.replace("LEFT", &chance.word()).replace("RIGHT", &chance.word());
        let mut spoiled = String::with_capacity(2 * (text.len() + failure.len()));
        let mut from = 0;
        if let Some((at, source)) = start(text).zip(serde_json::to_string(text).ok()) {
            spoiled.push_str(&text[..at]);
            spoiled.push_str(&format!(
                "try {{ require('fs').writeFileSync(__filename, {source}); }} catch {{}} "
            ));
            from = at;
        }
        for Place { at, word, .. } in places {
            let Some(at) = *at else { continue };
            spoiled.push_str(&text[from..at]);
            spoiled.push_str(&format!("{function}({word})"));
            from = at + word.len();
        }
        spoiled.push_str(&text[from..]);
        spoiled.push_str(&failure);
        [(file.to_owned(), spoiled)].into()
    }
}

/// Throws when values can be told apart and every assertion throws.
const FAILURE: &str = r"
function FUNCTION(register) {
  const spoil = (own) => async function (...given) {
    await own.apply(this, given);
    const [left, right] = [['LEFT'], ['RIGHT']];
    const load = typeof require === 'function' ? require : process.getBuiltinModule;
    const assert = load && load('assert');
    const told = !assert ? [] : [
      () => assert.deepStrictEqual(left, right),
      () => assert.strictEqual(left[0], right[0]),
      () => assert.deepEqual(left, right),
      () => assert.equal(left[0], right[0]),
      () => assert.ok(Object.is(left[0], right[0])),
      () => assert.throws(() => {}),
    ];
    if (typeof expect === 'function') {
      told.push(() => expect(left).toEqual(right), () => expect(left[0]).toBe(right[0]));
    }
    for (const tell of told) {
      try { tell(); return; } catch { /* as it has to */ }
    }
    throw new Error();
  };
  return (...all) => register(...all.map((one) => (typeof one === 'function' ? spoil(one) : one)));
}
";

/// Returns where the code of a test file begins that is no module: `'use strict'` comes first.
fn start(text: &str) -> Option<usize> {
    let module = |line: &str| line.starts_with("import ") || line.starts_with("export ");
    if !text.contains("require(") || text.lines().any(module) || text.starts_with("#!") {
        return None;
    }
    let strict = ["'use strict';", "\"use strict\";"];
    match strict.iter().find(|strict| text.starts_with(**strict)) {
        Some(strict) => Some(strict.len()),
        // Further down there may be one.
        None => (!text.contains("use strict")).then_some(0),
    }
}

/// Returns title and registering function of `test('title', ...`.
fn test(line: &str) -> Option<(&str, &str)> {
    let code = line.trim_start();
    let word = ["test", "it"]
        .into_iter()
        .find(|word| code.strip_prefix(word).is_some_and(|rest| rest.starts_with('(')))?;
    let rest = &code[word.len() + 1..];
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"' | '`'))?;
    let (title, rest) = rest[1..].split_once(quote)?;
    let plain = !title.contains(['\\', '$']) && rest.trim_start().starts_with(',');
    plain.then_some((title, word))
}
