//! A shell that outlives its commands.
//!
//! Each command is a bash of its own. Before it, that bash reads what the one before wrote at its
//! end: variables, functions, options of `shopt` and the working directory. So a command that hangs
//! or kills its shell costs no more than itself, its exit status is the kernel's word and not a mark
//! in its output, and a fork of the episode has a shell in the same state. What `set` turned on does
//! not go on: `set -e` would end every later command at its first failure.
//!
//! What a shell wrote is the sandbox's own word: nobody else reads it, and it is bounded.

use std::{io, os::fd::OwnedFd, sync::Arc};

use assay_sandbox::{Capture, Channel, ChannelEnd, Command};

use crate::evaluator::environment;

/// Most bytes of a shell command: the kernel takes an argument of 128 KiB.
pub const MAX_SHELL_BYTES: usize = 100_000;
/// Most bytes of a state.
const MAX_STATE: usize = 1 << 20;

/// Where the state is read from and written to.
const READ: i32 = 3;
const WRITE: i32 = 4;

/// Restores the state, has it saved at the end, however that comes, and runs the command, which has
/// neither descriptor. One line, so that errors tell the lines of the command. The pipe is not ours
/// to open by its path: another user made it.
const SCRIPT: &str = concat!(
    r#"eval "$(/bin/cat <&3)" 2>/dev/null; exec 3<&-; "#,
    r#"trap '{ builtin declare -p; builtin declare -f; builtin shopt -p; "#,
    r#"builtin printf "cd -- %q\n" "$PWD"; } >&4 2>/dev/null' EXIT; "#,
    r#"eval "set --; $1" 4>&-"#,
);

/// What a shell goes on from.
#[derive(Clone, Debug, Default)]
pub(super) struct ShellState(Arc<[u8]>);

/// Returns the bash that runs `script`, and the task that feeds it its state.
pub(super) fn command(
    script: &str,
    state: &ShellState,
) -> io::Result<(Command, impl Future<Output = ()> + use<>)> {
    let (theirs, ours) = pipe()?;
    let state = Arc::clone(&state.0);
    let feed = async move {
        use tokio::io::AsyncWriteExt as _;
        let mut ours = ours;
        // A bash that reads no more of it starts without the rest.
        let _ = ours.write_all(&state).await;
    };
    let argv = ["/bin/bash", "--noprofile", "--norc", "-c", SCRIPT, "bash", script];
    let command = Command {
        argv: argv.map(str::to_owned).into(),
        env: environment(),
        channels: vec![
            Channel { fd: READ, end: ChannelEnd::Fd(theirs) },
            Channel { fd: WRITE, end: ChannelEnd::Collect { max_bytes: MAX_STATE } },
        ],
        ..Command::default()
    };
    Ok((command, feed))
}

/// Returns the state that a bash left; `None` when it wrote none, or not all of it.
pub(super) fn state_of(channels: &[Capture]) -> Option<ShellState> {
    let bytes = channels.first()?.complete()?;
    // The last word: without it some is missing.
    let ends = bytes.ends_with(b"\n") && bytes.windows(7).any(|line| line == b"\ncd -- ");
    ends.then(|| ShellState(bytes.into()))
}

fn pipe() -> io::Result<(OwnedFd, tokio::net::unix::pipe::Sender)> {
    let (ours, theirs) = tokio::net::unix::pipe::pipe()?;
    Ok((theirs.into_blocking_fd()?, ours))
}
