//! What the policy is asked: the same question for everybody.

use std::fs;

use crate::{Change, ChatMessage, Digest, Task, TaskError};

/// Returns the one user message of `task`: its problem, then the files that it shows.
pub(crate) fn messages(task: &Task) -> Result<Vec<ChatMessage>, TaskError> {
    let path = task.dir.join(&task.prompt.template);
    let problem = fs::read_to_string(&path).map_err(|source| TaskError::Read { path, source })?;
    let mut content = problem.trim_end().to_owned();
    if !task.prompt.context.is_empty() {
        let revision = task.revision()?;
        for path in &task.prompt.context {
            let Some(Change::File { content: bytes, .. }) = revision.read(path)? else {
                let what = format!("`context` names {}, which its revision lacks", path.display());
                return Err(TaskError::Content { path: task.dir.join("task.toml"), what });
            };
            let text = String::from_utf8_lossy(&bytes);
            let fence = fence_for(&text);
            let language = path.extension().map_or("", |ending| match ending.to_str() {
                Some("py") => "python",
                Some(other) => other,
                None => "",
            });
            content.push_str(&format!(
                "\n\n`{}`:\n\n{fence}{language}\n{}\n{fence}",
                path.display(),
                text.trim_end()
            ));
        }
    }
    Ok(vec![ChatMessage { role: "user".into(), content }])
}

/// Returns the digest of a conversation.
pub(crate) fn digest(messages: &[ChatMessage]) -> Digest {
    let builder = messages.iter().fold(Digest::builder(), |builder, message| {
        builder.part(&message.role).part(&message.content)
    });
    builder.finish()
}

/// Returns a fence that no line of `text` can close.
fn fence_for(text: &str) -> String {
    let ticks = |line: &str| line.trim_start().bytes().take_while(|&b| b == b'`').count();
    let longest = text.lines().map(ticks).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_longer_than_any_inside() {
        for (text, fence) in
            [("", "```"), ("a ``` b", "```"), ("```py\n```", "````"), ("  ````", "`````")]
        {
            assert_eq!(fence_for(text), fence, "{text:?}");
        }
    }
}
