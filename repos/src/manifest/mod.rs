//! Reads `task.toml` and `repository.toml`.

mod check;
mod fields;
mod log_parsers;
mod package;
mod task;

pub(crate) use package::read_package;
pub(crate) use task::{Context, read_task};
