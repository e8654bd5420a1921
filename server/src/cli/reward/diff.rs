//! `assay reward diff`: what two reward files say otherwise.

use std::fmt;

use assay_rewards::{Difference, RewardSpec, diff};
use serde::Serialize;

use super::{find_spec, remote};
use crate::cli::{
    Common,
    output::{CliResult, Exit},
    plain::Plain,
    session::{Session, is_file},
};

pub(super) async fn run(common: &Common, old: &str, new: &str) -> CliResult {
    let session = match common.server {
        Some(_) => Some(Session::open(common, None).await?),
        None => None,
    };
    let read = async |file: &str| match &session {
        Some(session) if !is_file(file) => remote::spec(session, file).await,
        _ => find_spec(file),
    };
    let (old, new) = (read(old).await?, read(new).await?);
    let differences = diff(&old, &new);
    let same = differences.is_empty();
    common.output().line(&Report {
        old: Side::of(&old),
        new: Side::of(&new),
        same,
        differences,
    })?;
    Ok(if same { Exit::Done } else { Exit::NotDone })
}

#[derive(Serialize)]
struct Report {
    old: Side,
    new: Side,
    same: bool,
    differences: Vec<Difference>,
}

#[derive(Serialize)]
struct Side {
    name: String,
    digest: String,
}

impl Side {
    fn of(spec: &RewardSpec) -> Self {
        Self { name: spec.name().to_owned(), digest: spec.digest().to_string() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { old, new, same, differences } = self;
        write!(f, "{} -> {}", old.name, new.name)?;
        if *same {
            return f.write_str(": no difference");
        }
        let wide = differences.iter().map(|one| one.what.len()).max().unwrap_or(0);
        for Difference { what, old, new } in differences {
            write!(f, "\n  {what:<wide$}  ")?;
            match (old, new) {
                (Some(old), Some(new)) => write!(f, "{} -> {}", Plain(old), Plain(new))?,
                (Some(old), None) => write!(f, "- {}", Plain(old))?,
                (None, new) => write!(f, "+ {}", Plain(new.as_deref().unwrap_or_default()))?,
            }
        }
        Ok(())
    }
}
