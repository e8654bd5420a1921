//! The same against a running service: its versions of reward files, the grades that it stores.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use assay_proto::v1::{
    self, DryRunRequest, ExplainRequest, GetSpecRequest, GradeFilter, LintRequest,
    ListSpecsRequest, PutSpecRequest, RewardSource, fact_value, reward_source,
};
use assay_rewards::{
    Bar, Change, Explained, ExplainedFact, ExplainedTerm, Explanation, FactValue, Rescored,
    RewardSpec, Spread,
};
use serde::Serialize;

use super::{Problem, dry_run, told};
use crate::cli::{
    Common,
    output::{Blame as _, CliResult, wrong},
    records::id_start,
    session::{Session, is_file},
};

/// Checks a text there.
pub(super) async fn lint(
    session: &Session,
    text: String,
) -> CliResult<Result<(String, String), Vec<Problem>>> {
    let v1::LintResponse { findings, name, digest } =
        session.specs().lint(LintRequest { text }).await?.into_inner();
    let problem = |v1::Finding { line, column, message }| Problem { line, column, message };
    Ok(if findings.is_empty() {
        Ok((name, digest))
    } else {
        Err(findings.into_iter().map(problem).collect())
    })
}

/// Reads a version of a reward file that is there. Plugins are not given away.
pub(super) async fn spec(session: &Session, name: &str) -> CliResult<RewardSpec> {
    let request = GetSpecRequest { name: name.to_owned() };
    let text = session.specs().get_spec(request).await?.into_inner().text;
    RewardSpec::parse(&text, Path::new(name)).map_err(|errors| {
        let how = "name its file instead, where it lies with its plugins";
        wrong(format!("the service's `{name}` can't be read here; {how}: {}", told(&errors)))
    })
}

pub(super) async fn explain(
    session: &Session,
    file: &str,
    grade: Option<String>,
) -> CliResult<super::Explained> {
    let Some(grade) = grade else {
        return Err(wrong("name the grade with --grade; results say it as `grade`"));
    };
    let request = ExplainRequest { grade_id: id_start(&grade), spec: Some(source(file)?) };
    let told = session.specs().explain(request).await?.into_inner();
    let grade = told.grade_id.clone();
    Ok(super::Explained { grade, explanation: explanation(told)? })
}

pub(super) async fn dry_run(
    session: &Session,
    file: &str,
    against: Option<&str>,
    filter: GradeFilter,
) -> CliResult<dry_run::Report> {
    let request = DryRunRequest {
        spec: Some(source(file)?),
        against: against.map(source).transpose()?,
        filter: Some(filter),
        max_grades: 0,
    };
    let done = session.specs().dry_run(request).await?.into_inner();
    if done.grades == 0 && done.unreadable == 0 {
        return Err(wrong("the service stores no such grade"));
    }
    let changes = done.most_changed.into_iter().map(change);
    Ok(dry_run::Report {
        unreadable: done.unreadable,
        complete: done.complete,
        rescored: Rescored {
            records: done.grades,
            new: spread(done.spec.unwrap_or_default()),
            old: done.against.map(spread),
            changed: done.changed,
            most_changed: changes.collect::<CliResult<_>>()?,
        },
    })
}

/// Puts files there, each as the newest version of its name.
pub(super) async fn put(common: &Common, files: Vec<PathBuf>) -> CliResult<()> {
    let session = session(common).await?;
    for file in files {
        let shown = file.display().to_string();
        let text = fs::read_to_string(&file).with_context(|| format!("read {shown}")).wrong()?;
        // The text says all that there is to say, so a retry needs no id of its own.
        let request_id = uuid::Uuid::now_v7().to_string();
        let put = session.specs().put_spec(PutSpecRequest { request_id, text }).await;
        let put = put.map_err(|status| {
            let mut error = crate::cli::output::CliError::from(status);
            error.error = error.error.context(shown);
            error
        })?;
        common.output().line(&Version::from(put.into_inner()))?;
    }
    Ok(())
}

/// Lists the versions there.
pub(super) async fn list(common: &Common, name: Option<String>) -> CliResult<()> {
    let session = session(common).await?;
    let name = name.unwrap_or_default();
    let mut page_token = String::new();
    loop {
        let request = ListSpecsRequest { name: name.clone(), page_size: 0, page_token };
        let page = session.specs().list_specs(request).await?.into_inner();
        for version in page.specs {
            common.output().line(&Version::from(version))?;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(());
        }
    }
}

async fn session(common: &Common) -> CliResult<Session> {
    if common.server.is_none() {
        return Err(wrong("reward files are put and listed at a service: name it with --server"));
    }
    Session::open(common, None).await
}

/// What a command calls a reward file: one that lies here, or the name of one that lies there.
fn source(file: &str) -> CliResult<RewardSource> {
    let source = if is_file(file) {
        let text = fs::read_to_string(file).with_context(|| format!("read {file}")).wrong()?;
        reward_source::Source::Text(text)
    } else {
        reward_source::Source::Name(file.to_owned())
    };
    Ok(RewardSource { source: Some(source) })
}

#[derive(Serialize)]
struct Version {
    name: String,
    version: u32,
    digest: String,
    newest: bool,
}

impl From<v1::SpecVersion> for Version {
    fn from(version: v1::SpecVersion) -> Self {
        let v1::SpecVersion { name, version, digest, newest, .. } = version;
        Self { name, version, digest, newest }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, version, digest, newest } = self;
        let name = if *version == 0 { name.clone() } else { format!("{name}@{version}") };
        let remark = if *newest { "" } else { "  not the newest" };
        write!(f, "{name:<24} {digest}{remark}")
    }
}

fn explanation(told: v1::Explanation) -> CliResult<Explanation> {
    let outcome = told.outcome().as_str_name().trim_start_matches("OUTCOME_");
    Ok(Explanation {
        outcome: outcome.into(),
        name: told.name,
        digest: told.digest,
        task: told.task_id,
        reward: told.reward,
        decided_by: told.decided_by.into(),
        gate: told.gate.into_iter().map(expression).collect(),
        terms: told.terms.into_iter().map(term).collect::<CliResult<_>>()?,
        combine: told.combine.into(),
        combined: told.combined,
        clamp: told.clamp.map(|clamp| (clamp.least, clamp.greatest)),
        mask_when: told.mask_when.map(expression),
        mask: told.mask.map(|mask| mask.reason),
    })
}

fn term(term: v1::ExplainedTerm) -> CliResult<ExplainedTerm> {
    Ok(ExplainedTerm {
        value: expression(term.value.with_context(|| unlike("a term without a value")).not_done()?),
        name: term.name,
        when: term.when.map(expression),
        weight: term.weight,
        part: term.part,
    })
}

fn expression(expression: v1::ExplainedExpression) -> Explained {
    let fact = |fact: v1::ExplainedFact| ExplainedFact {
        name: fact.name,
        value: fact.value.and_then(value),
        lack: fact.lack,
    };
    Explained {
        text: expression.text,
        value: expression.value.and_then(value),
        facts: expression.facts.into_iter().map(fact).collect(),
    }
}

fn value(value: v1::FactValue) -> Option<FactValue> {
    Some(match value.value? {
        fact_value::Value::Truth(truth) => FactValue::Bool(truth),
        fact_value::Value::Number(number) => FactValue::Number(number),
        fact_value::Value::Text(text) => FactValue::Text(text),
    })
}

fn spread(spread: v1::Spread) -> Spread {
    let bar = |v1::Bar { from, to, count }| Bar { from, to, count };
    Spread {
        name: spread.name,
        digest: spread.digest,
        without: spread.without,
        masked: spread.masked,
        mean: spread.mean,
        std: spread.std,
        histogram: spread.histogram.into_iter().map(bar).collect(),
    }
}

fn change(change: v1::Change) -> CliResult<Change> {
    Ok(Change {
        grade: change.grade_id.parse().map_err(|_| anyhow!(unlike("a grade id"))).not_done()?,
        task: change.task_id.parse().map_err(|_| anyhow!(unlike("a task id"))).not_done()?,
        old: change.old,
        new: change.new,
    })
}

fn unlike(what: &str) -> String {
    format!("the service answers with {what} that this version can't read; use the same version")
}
