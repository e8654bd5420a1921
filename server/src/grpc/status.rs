//! The one place where our errors become gRPC codes.

use assay_fleet::{Stopped, StoreError, SubmitError};
use assay_repos::{TaskError, TaskId};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};
use tracing::{error, warn};

use super::request::Violations;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("the request is malformed")]
    Request(Violations),
    #[error("unknown task `{0}`")]
    UnknownTask(TaskId),
    #[error("no answer in the time that the caller waits")]
    Deadline,
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl From<Violations> for ApiError {
    fn from(violations: Violations) -> Self {
        Self::Request(violations)
    }
}

/// Returns the status of an error: the code says what a caller can do about it.
pub(super) fn status(error: impl Into<ApiError>) -> Status {
    let error = error.into();
    let message = error.to_string();
    match error {
        ApiError::Request(violations) => invalid(violations.0),
        ApiError::UnknownTask(_) | ApiError::Submit(SubmitError::UnknownTask { .. }) => {
            Status::not_found(message)
        }
        ApiError::Deadline => Status::deadline_exceeded(message),
        ApiError::Submit(SubmitError::Busy { retry_after, .. }) => Status::with_error_details(
            Code::ResourceExhausted,
            message,
            ErrorDetails::with_retry_info(Some(retry_after)),
        ),
        ApiError::Submit(SubmitError::TooMany { .. }) => field("requests", message),
        ApiError::Submit(SubmitError::Conflict { .. }) => field("request_id", message),
        ApiError::Submit(SubmitError::UnknownReward { .. }) => field("reward", message),
        ApiError::Submit(SubmitError::Invalid { field: name, what, .. }) => field(name, what),
        ApiError::Stopped(_)
        | ApiError::Store(StoreError::Stopped)
        | ApiError::Submit(SubmitError::Store(StoreError::Stopped)) => Status::unavailable(message),
        ApiError::Submit(SubmitError::Store(cause)) | ApiError::Store(cause) => {
            error!(error = &cause as &dyn std::error::Error, "the store failed");
            Status::internal(message)
        }
        ApiError::Task(cause) => {
            warn!(error = &cause as &dyn std::error::Error, "a task can't be shown");
            Status::failed_precondition(message)
        }
    }
}

fn field(name: &str, what: String) -> Status {
    invalid(vec![FieldViolation::new(name, what)])
}

/// The message repeats the violations, for clients that don't read details.
fn invalid(violations: Vec<FieldViolation>) -> Status {
    let shown: Vec<_> =
        violations.iter().take(5).map(|v| format!("{}: {}", v.field, v.description)).collect();
    let more = violations.len() - shown.len();
    let mut message = shown.join("; ");
    if more > 0 {
        message.push_str(&format!("; and {more} more"));
    }
    Status::with_error_details(
        Code::InvalidArgument,
        message,
        ErrorDetails::with_bad_request(violations),
    )
}
