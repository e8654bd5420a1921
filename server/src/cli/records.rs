//! Where grade records lie: in a data directory, or in files of them as JSON, one per line.

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use assay_fleet::{Grades, HandedIn, Picked, StoreError};
use assay_repos::Digest;
use assay_rewards::GradeRecord;
use clap::Args;

use super::{
    Common,
    output::{Blame as _, CliError, CliResult, wrong},
};
use crate::Places;

/// Longest record, in bytes: far more than the reports that records come from may have.
const MAX_RECORD: usize = 256 << 20;

/// Says where grade records are.
#[derive(Args, Debug)]
pub(super) struct RecordsAt {
    /// Grade records: a data directory, a file with one as JSON per line, a folder of those, or -
    /// [default: --data, or the state of `assay serve`]
    #[arg(long, value_name = "PATH")]
    records: Option<PathBuf>,
}

impl RecordsAt {
    /// Refuses to be named beside a service.
    pub(super) fn none(&self) -> CliResult<()> {
        match &self.records {
            Some(_) => {
                Err(wrong("--records names grades that lie here, --server those of a service"))
            }
            None => Ok(()),
        }
    }

    pub(super) fn open(&self, common: &Common) -> CliResult<Records> {
        if common.server.is_some() {
            return Err(wrong(
                "grade records are read from a data directory, so this takes no --server",
            ));
        }
        match self.records.as_ref().or(common.data.as_ref()) {
            Some(path) => Records::open(path),
            None => Records::open(&Places::default_data()),
        }
    }
}

/// How a grade id starts that a person abbreviated: `sha256:` may be left out.
pub(super) fn id_start(grade: &str) -> String {
    format!("sha256:{}", grade.trim_start_matches("sha256:"))
}

/// One record, read for scoring.
pub(super) struct Stored<'r> {
    /// Without its tests one by one, unless they were asked for.
    pub(super) record: GradeRecord,
    /// As it is stored.
    pub(super) json: &'r [u8],
}

impl Stored<'_> {
    /// Returns the id of a record that is stored so.
    pub(super) fn id(json: &[u8]) -> Digest {
        Digest::of(json.trim_ascii())
    }
}

/// Grade records that are there already.
pub(super) struct Records {
    path: PathBuf,
    source: Source,
}

enum Source {
    Data(Grades),
    Files(Vec<PathBuf>),
    Stdin,
}

impl Records {
    /// Finds out what `path` is. `-` is stdin.
    pub(super) fn open(path: &Path) -> CliResult<Self> {
        let source = if path == Path::new("-") {
            Source::Stdin
        } else if path.join("assay.db").exists() {
            Source::Data(Grades::open(path).wrong()?)
        } else if path.is_dir() {
            Source::Files(files(path)?)
        } else {
            Source::Files(vec![path.to_owned()])
        };
        Ok(Self { path: path.to_owned(), source })
    }

    /// Returns the record whose id starts so, or the only one there is.
    pub(super) fn pick(&self, grade: Option<&str>) -> CliResult<(Digest, GradeRecord)> {
        let start = id_start(grade.unwrap_or_default());
        let picked = match &self.source {
            Source::Data(grades) => grades.pick(&start)?,
            _ => self.pick_line(&start)?,
        };
        match (picked, grade) {
            (Picked::One(one), _) => Ok(*one),
            (Picked::None, None) => Err(wrong(format!("there is no grade in {self}"))),
            (Picked::None, Some(id)) => Err(wrong(format!("there is no grade {id} in {self}"))),
            (Picked::Several, None) => {
                Err(wrong(format!("there are several grades in {self}; name one by its id")))
            }
            (Picked::Several, Some(id)) => {
                Err(wrong(format!("several grades in {self} start with {id}; give more of the id")))
            }
        }
    }

    /// As [`Grades::pick`], of records that lie in files, where one may be there twice.
    fn pick_line(&self, start: &str) -> CliResult<Picked> {
        let mut picked = Picked::None;
        self.each(false, |Stored { json, .. }| {
            let id = Stored::id(json);
            if !id.as_str().starts_with(start) {
                return Ok(());
            }
            picked = match &picked {
                Picked::None => {
                    let place = || format!("grade {id} of {self}");
                    let record = GradeRecord::from_json(json).with_context(place).wrong()?;
                    Picked::One(Box::new((id, record)))
                }
                Picked::One(one) if one.0 == id => return Ok(()),
                _ => Picked::Several,
            };
            Ok(())
        })?;
        Ok(picked)
    }

    /// Returns the submission that a grade came from, where it is kept: in data directories alone.
    pub(super) fn handed_in(&self, grade: &Digest) -> CliResult<Option<HandedIn>> {
        match &self.source {
            Source::Data(grades) => Ok(grades.handed_in(grade)?),
            _ => Ok(None),
        }
    }

    /// Calls `visit` with each, in order. `whole`: with its tests one by one, which takes longer.
    pub(super) fn each(
        &self,
        whole: bool,
        mut visit: impl FnMut(Stored<'_>) -> CliResult<()>,
    ) -> CliResult<()> {
        let read = if whole { GradeRecord::from_json } else { GradeRecord::skim_json };
        let mut visit = |json: &[u8], place: &dyn Fn() -> String| {
            let record = read(json).with_context(place).wrong()?;
            visit(Stored { record, json })
        };
        match &self.source {
            Source::Stdin => lines(io::stdin().lock(), Path::new("stdin"), &mut visit),
            Source::Files(files) => files.iter().try_for_each(|path| {
                let file = File::open(path).with_context(|| format!("open {}", path.display()));
                lines(BufReader::with_capacity(1 << 20, file.wrong()?), path, &mut visit)
            }),
            Source::Data(grades) => {
                grades.each(|id, json| visit(json, &|| format!("grade {id} of {self}")))
            }
        }
    }
}

impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        Err::<(), _>(error).not_done().unwrap_err()
    }
}

/// Returns the files of a folder that look like records, in order.
fn files(folder: &Path) -> CliResult<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()));
    let mut files = Vec::new();
    for entry in entries.wrong()? {
        let path = entry.with_context(|| format!("list {}", folder.display())).wrong()?.path();
        if path.extension().is_some_and(|extension| extension == "json" || extension == "jsonl") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        let folder = folder.display();
        return Err(wrong(format!("{folder} has no assay.db, and no .json or .jsonl file")));
    }
    Ok(files)
}

fn lines(
    mut reader: impl BufRead,
    path: &Path,
    visit: &mut impl FnMut(&[u8], &dyn Fn() -> String) -> CliResult<()>,
) -> CliResult<()> {
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let place = || format!("{}:{number}", path.display());
        let mut bounded = io::Read::take(&mut reader, MAX_RECORD as u64 + 1);
        if bounded.read_until(b'\n', &mut line).with_context(place).wrong()? == 0 {
            break;
        }
        if line.len() > MAX_RECORD {
            return Err(anyhow!("longer than {MAX_RECORD} bytes")).with_context(place).wrong();
        }
        if !line.trim_ascii().is_empty() {
            visit(&line, &place)?;
        }
    }
    Ok(())
}
