//! The name of a task.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Names a task: 1 to 200 of `A-Z a-z 0-9 . _ -`, such as `toolz.0007`. Not `.`-led, so that it is
/// also a safe file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(String);

impl TaskId {
    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what stands before the first `.`: the set, where the task doesn't name another.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> Self {
        id.0
    }
}

impl TryFrom<String> for TaskId {
    type Error = InvalidTaskId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=200).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('.') {
            Ok(Self(text))
        } else {
            Err(InvalidTaskId)
        }
    }
}

impl FromStr for TaskId {
    type Err = InvalidTaskId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

/// The text is no [`TaskId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a task id: expected 1 to 200 letters, digits, `.`, `_` or `-`, not starting with `.`")]
pub struct InvalidTaskId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_file_names() {
        for good in ["toolz.0007", "a", "A-b_c.9", &"x".repeat(200)] {
            assert!(good.parse::<TaskId>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".a", "a/b", "a b", "ä", "a\n", "a\0", &"x".repeat(201)] {
            assert_eq!(bad.parse::<TaskId>(), Err(InvalidTaskId), "{bad:?}");
        }
    }
}
