//! `packages/<name>-<version>/repository.toml`.

use std::{fs, path::Path};

use super::fields::{Document, Fields};
use crate::{Digest, LoadProblem, Package, source::Cache};

/// Reads the entry of a released package.
pub(crate) fn read_package(file: &Path, cache: &Path) -> Result<Package, Vec<LoadProblem>> {
    let text = fs::read_to_string(file).map_err(|error| {
        let message = format!("cannot be read: {error}");
        vec![LoadProblem { file: file.to_owned(), line: None, message }]
    })?;
    let document = Document::new(file, &text);
    let package = document.parse().and_then(|top| read(Fields::top(&document, &top), cache));
    let problems = document.into_problems();
    package.filter(|_| problems.is_empty()).ok_or(problems)
}

fn read(mut top: Fields<'_>, cache: &Path) -> Option<Package> {
    super::task::schema(&mut top);
    let name = top.required_text("name");
    let version = top.required_text("version");
    let sdist = top.required_text("sdist");
    let sha256 = top.required_text("sha256");
    let license = top.required_text("license");
    let image = top.text("image").map_or("python", |image| image.value);
    let test = top.texts("test").unwrap_or_default();
    let test = test.iter().map(|word| word.value.to_owned()).collect();

    let digest = sha256.and_then(|hex| {
        let digest = format!("sha256:{}", hex.value).parse::<Digest>();
        if digest.is_err() {
            top.problem(&hex.span, "`sha256` is not 64 lower-case hexadecimal digits");
        }
        digest.ok()
    });
    let sdist = sdist.and_then(|sdist| {
        let plain = !sdist.value.contains('/') && sdist.value.ends_with(".tar.gz");
        if !plain {
            top.problem(&sdist.span, "`sdist` is not the name of a `.tar.gz` file");
        }
        plain.then_some(sdist.value)
    });
    let cache = Cache::new(cache);
    top.finish();
    let (digest, sdist) = (digest?, sdist?);
    Some(Package {
        name: name?.value.to_owned(),
        version: version?.value.to_owned(),
        archive: cache.sdist(sdist),
        tree: cache.tree(&digest),
        sdist: sdist.to_owned(),
        digest,
        license: license?.value.to_owned(),
        image: image.to_owned(),
        test,
    })
}
