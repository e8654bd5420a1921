//! What the tests of the native backend share.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::BTreeMap,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use assay_sandbox::{
    Backend, Command, Execution, FileEntry, ImageRef, Layer, Limits, SandboxSpec,
    native::{Native, NativeConfig},
};

/// A backend with a state folder of its own.
pub(crate) struct Fixture {
    native: Native,
    pub(crate) state: tempfile::TempDir,
}

impl Deref for Fixture {
    type Target = Native;

    fn deref(&self) -> &Native {
        &self.native
    }
}

impl Fixture {
    /// Runs `command` in a sandbox with an empty work tree.
    pub(crate) async fn run(&self, command: Command) -> Execution {
        self.run_in(spec(), command).await
    }

    /// Ends the backend and returns its state folder.
    pub(crate) fn into_state(self) -> tempfile::TempDir {
        self.state
    }

    /// Runs `command` in the sandbox that `spec` describes.
    pub(crate) async fn run_in(&self, spec: SandboxSpec, command: Command) -> Execution {
        let sandbox = self.native.create(spec).await.expect("a sandbox");
        sandbox.run(command).await.expect("an execution")
    }
}

/// Where the Python root filesystem lies, if it was made.
pub(crate) fn rootfs() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ASSAY_TEST_ROOTFS") {
        return Some(path.into());
    }
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("ASSAY_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("assay")))
        .or_else(|| Some(variable("HOME")?.join(".cache/assay")))?;
    Some(cache.join("rootfs/python/tree")).filter(|path| path.is_dir())
}

/// The executable that becomes the spawner.
pub(crate) fn spawner() -> PathBuf {
    std::env::var_os("ASSAY_TEST_SPAWNER")
        .map_or_else(|| env!("CARGO_BIN_EXE_assay-spawner").into(), PathBuf::from)
}

/// Starts a backend, or says why the test is skipped.
pub(crate) fn native() -> Option<Fixture> {
    if rootfs().is_none() {
        println!("skipped: no root filesystem; run `make rootfs`");
        return None;
    }
    let state = tempfile::tempdir().expect("a folder");
    Some(Fixture { native: start(state.path()), state })
}

/// Starts a backend whose sandboxes come from one slot as long as they come one after the other.
pub(crate) fn native_of_one_slot() -> Option<Fixture> {
    native_with(|config| config.idle_low = 0)
}

/// Starts a backend that is set up otherwise.
pub(crate) fn native_with(change: impl FnOnce(&mut NativeConfig)) -> Option<Fixture> {
    let Fixture { state, .. } = native()?;
    let native = start_with(state.path(), change);
    Some(Fixture { native, state })
}

/// Starts a backend on `state`.
pub(crate) fn start(state: &Path) -> Native {
    start_with(state, |_| {})
}

fn start_with(state: &Path, change: impl FnOnce(&mut NativeConfig)) -> Native {
    let mut config = NativeConfig { spawner: spawner(), ..NativeConfig::new(state) };
    change(&mut config);
    Native::start(config).expect("a backend")
}

/// Describes a sandbox with an empty work tree.
pub(crate) fn spec() -> SandboxSpec {
    SandboxSpec {
        image: ImageRef::Rootfs {
            path: rootfs().expect("a root filesystem"),
            digest: "sha256:test".to_owned(),
        },
        workdir: "/work".into(),
        layers: Vec::new(),
        trusted: Arc::new(BTreeMap::new()),
        // Far away: the machine may be busy with other things.
        limits: Limits {
            wall: Duration::from_secs(600),
            cpu: Duration::from_secs(300),
            ..Limits::default()
        },
    }
}

/// Returns the spec with limits changed.
pub(crate) fn limited(change: impl FnOnce(&mut Limits)) -> SandboxSpec {
    let mut spec = spec();
    change(&mut spec.limits);
    spec
}

/// A command that runs `script` in the shell.
pub(crate) fn sh(script: &str) -> Command {
    command(&["/bin/sh", "-c", script])
}

/// A command that runs `code` in Python.
pub(crate) fn python(code: &str) -> Command {
    command(&["/usr/bin/python3", "-I", "-c", code])
}

/// A command with the usual search path.
pub(crate) fn command(argv: &[&str]) -> Command {
    Command {
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
        ..Command::default()
    }
}

/// Shell words that run what follows as a daemon: in a session of its own, its parent gone.
pub(crate) const DAEMON: &str = "python3 -Ic 'import os, sys; os.fork() and os._exit(0); \
    os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])'";

/// A plain file.
pub(crate) fn file(content: &str) -> FileEntry {
    FileEntry::File { content: content.as_bytes().into(), executable: false }
}

/// A files layer.
pub(crate) fn files<const N: usize>(entries: [(&str, FileEntry); N]) -> Layer {
    Layer::Files(Arc::new(entries.map(|(path, entry)| (PathBuf::from(path), entry)).into()))
}

/// What a run wrote to stdout, as text without white space around it.
pub(crate) fn stdout(execution: &Execution) -> String {
    execution.stdout.lossy().trim().to_owned()
}

/// What a run left, for messages.
pub(crate) fn told(execution: &Execution) -> String {
    format!(
        "{:?}\nstdout: {}\nstderr: {}",
        execution.termination,
        execution.stdout.lossy(),
        execution.stderr.lossy()
    )
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
