//! What is measured: one run of a small program, in everything that one would take for it.

use std::{net::Shutdown, os::unix::net::UnixStream, path::Path, process::Stdio, sync::Arc};

use anyhow::{Context as _, ensure};
use assay_rewards::harness;
use assay_sandbox::{
    Backend, Channel, ChannelEnd, Command, Execution, FileEntry, ImageRef, Layer, Limits,
    SandboxSpec, Start, Warm,
};
use bollard::{
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use futures::TryStreamExt as _;
use tokio::process;

use crate::machine::Rootfs;

/// The image of `scripts/docker-image.sh`.
pub(super) const IMAGE: &str = "assay-python:1";

/// A small repository: a module and one test of it.
const REPOSITORY: [(&str, &str); 2] = [
    ("words.py", "def shout(text):\n    return text.upper() + \"!\"\n"),
    (
        "test_words.py",
        "from words import shout\n\n\ndef test_shout():\n    assert shout(\"hi\") == \"HI!\"\n",
    ),
];

/// `/bin/true`, without anything around it.
pub(super) async fn bare() -> anyhow::Result<()> {
    finish(process::Command::new("/bin/true")).await
}

/// In bubblewrap, with all namespaces.
pub(super) async fn bwrap(rootfs: &Rootfs) -> anyhow::Result<()> {
    let mut command = process::Command::new("bwrap");
    command.args(["--unshare-all", "--ro-bind"]).arg(&rootfs.path);
    command.args(["/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "/bin/true"]);
    finish(command).await
}

/// In nsjail, with its default namespaces and limits.
pub(super) async fn nsjail(nsjail: &Path, rootfs: &Rootfs) -> anyhow::Result<()> {
    let mut command = process::Command::new(nsjail);
    command.args(["-Mo", "--really_quiet", "--chroot"]).arg(&rootfs.path);
    command.args(["--user", "65534", "--group", "65534", "--", "/bin/true"]);
    finish(command).await
}

/// In sandlock (Landlock and seccomp, no namespaces), allowed to read the root filesystem.
pub(super) async fn sandlock(sandlock: &Path) -> anyhow::Result<()> {
    let mut command = process::Command::new(sandlock);
    command.args(["run", "-r", "/usr", "-r", "/lib", "-r", "/lib64", "-r", "/bin", "-r", "/etc"]);
    command.args(["--", "/bin/true"]);
    finish(command).await
}

/// `docker run` of the command-line client.
pub(super) async fn docker_run() -> anyhow::Result<()> {
    let mut command = process::Command::new("docker");
    command.args(["run", "--rm", "--network", "none", IMAGE, "/bin/true"]);
    finish(command).await
}

/// `docker exec` of the command-line client, in a container that is up.
pub(super) async fn docker_exec(container: &str) -> anyhow::Result<()> {
    let mut command = process::Command::new("docker");
    command.args(["exec", container, "/bin/true"]);
    finish(command).await
}

/// The same through the engine's API, without a client to be started.
pub(super) async fn docker_exec_api(container: &str) -> anyhow::Result<()> {
    let engine = bollard::Docker::connect_with_defaults()?;
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(vec!["/bin/true".to_owned()]),
        ..ExecConfig::default()
    };
    let exec = engine.create_exec(container, config).await?.id;
    let started = engine.start_exec(&exec, None::<StartExecOptions>).await?;
    if let StartExecResults::Attached { mut output, .. } = started {
        while output.try_next().await?.is_some() {}
    }
    let status = engine.inspect_exec(&exec).await?.exit_code;
    ensure!(status == Some(0), "docker exec: {status:?}");
    Ok(())
}

/// `docker run` of the small repository's test, from a folder that is mounted.
pub(super) async fn docker_run_pytest(folder: &Path) -> anyhow::Result<()> {
    let mut command = process::Command::new("docker");
    command.args(["run", "--rm", "--network", "none", "-w", "/work", "-v"]);
    command.arg(format!("{}:/work:ro", folder.display())).arg(IMAGE);
    command.args(["/usr/bin/python3", "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    finish(command).await
}

/// `docker run` of a few lines of Python.
pub(super) async fn docker_run_python(code: &str) -> anyhow::Result<()> {
    let mut command = process::Command::new("docker");
    command.args(["run", "--rm", "--network", "none", IMAGE, "/usr/bin/python3", "-I", "-c", code]);
    finish(command).await
}

/// The image's own Python runs the small repository's test, without anything around it.
pub(super) async fn bare_pytest(rootfs: &Rootfs, folder: &Path) -> anyhow::Result<()> {
    let usr = rootfs.path.join("usr");
    let mut command = process::Command::new(usr.join("lib64/ld-linux-x86-64.so.2"));
    command.current_dir(folder).env("PYTHONHOME", &usr).arg("--library-path");
    command.arg(usr.join("lib/x86_64-linux-gnu")).arg(usr.join("bin/python3"));
    command.args(["-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    finish(command).await
}

/// Writes the small repository to a folder.
pub(super) fn write_repository(folder: &Path) -> std::io::Result<()> {
    REPOSITORY.iter().try_for_each(|(name, text)| std::fs::write(folder.join(name), text))
}

/// In a native sandbox.
pub(super) async fn in_native(native: &dyn Backend, rootfs: &Rootfs) -> anyhow::Result<()> {
    truth(native, rootfs.image()).await
}

/// In a container of our own.
pub(super) async fn in_docker(docker: &dyn Backend) -> anyhow::Result<()> {
    truth(docker, ImageRef::Docker(IMAGE.to_owned())).await
}

async fn truth(backend: &dyn Backend, image: ImageRef) -> anyhow::Result<()> {
    ended(backend.create(spec(image, Vec::new())).await?.run(bin_true()).await?).map(drop)
}

/// The command that does nothing.
pub(super) fn bin_true() -> Command {
    Command { argv: vec!["/bin/true".into()], ..Command::default() }
}

/// The small repository's test as an evaluation runs it, by a warm interpreter or not.
pub(super) async fn pytest(
    backend: &dyn Backend,
    image: ImageRef,
    warm: bool,
) -> anyhow::Result<()> {
    let content = |text: &str| Arc::from(text.as_bytes());
    let files = REPOSITORY.map(|(name, text)| {
        (name.into(), FileEntry::File { content: content(text), executable: false })
    });
    let runner = ("/assay/run_pytest.py".into(), content(harness::PYTEST_RUNNER));
    let canary = ("/assay/assay_canary.py".into(), content(harness::CANARY));
    let messages = ("/assay/assay_messages.py".into(), content(harness::MESSAGES));
    let preload = ("/assay/preload_pytest.py".into(), content(harness::PYTEST_PRELOAD));
    let trusted = [runner, canary, messages];
    let programs = Arc::new(trusted.clone().into_iter().chain([preload]).collect());
    let layers = vec![Layer::Files(Arc::new(files.into()))];
    let trusted = Arc::new(trusted.into());
    let spec = SandboxSpec { trusted, ..spec(image, layers) };
    let argv = ["/usr/bin/python3", "-P", "-s", "-B", "/assay/run_pytest.py", "test_words.py"];
    let env = [("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("PYTHONHASHSEED", "0")];
    let command = Command {
        argv: argv.map(String::from).into(),
        env: env.map(|(name, value)| (name.into(), value.into())).into(),
        stdin: b"nonce\n".as_slice().into(),
        channels: vec![Channel { fd: 3, end: ChannelEnd::Collect { max_bytes: 1 << 20 } }],
        warm: warm.then(|| Warm { modules: vec!["preload_pytest".to_owned()], programs }),
        ..Command::default()
    };
    let execution = ended(backend.create(spec).await?.run(command).await?)?;
    let start = &execution.isolation.start;
    ensure!((*start == Start::Warm) == warm, "another start than asked for: {start:?}");
    Ok(())
}

/// A submission's process as a sealed check has it, with nobody who calls its function: by a waiting
/// interpreter or by one that is started.
pub(super) async fn wasm_python(
    wasm: &dyn Backend,
    image: ImageRef,
    waiting: bool,
) -> anyhow::Result<()> {
    let content = |text: &str| Arc::from(text.as_bytes());
    let programs = [
        ("/assay/subject.py".into(), content(harness::SUBJECT)),
        ("/assay/wire.py".into(), content(harness::WIRE)),
    ];
    let programs = Arc::new(programs.into());
    let spec = SandboxSpec { trusted: Arc::clone(&programs), ..spec(image, Vec::new()) };
    // An option that no snapshot is taken for.
    let option = if waiting { "-s" } else { "-u" };
    let argv = ["/usr/bin/python3", "-P", option, "-S", "-B", "/assay/subject.py"];
    let (ours, theirs) = UnixStream::pair()?;
    ours.shutdown(Shutdown::Write)?;
    let command = Command {
        argv: argv.map(String::from).into(),
        env: [("PYTHONHASHSEED".into(), "0".into())].into(),
        stdin: b"f\ndef f(x):\n    return x\n".as_slice().into(),
        channels: vec![Channel { fd: 4, end: ChannelEnd::Fd(theirs.into()) }],
        warm: waiting.then(|| Warm { modules: vec!["wire".to_owned()], programs }),
        ..Command::default()
    };
    let execution = ended(wasm.create(spec).await?.run(command).await?)?;
    let start = &execution.isolation.start;
    ensure!((*start == Start::Warm) == waiting, "another start than asked for: {start:?}");
    Ok(())
}

/// Describes a sandbox with default limits.
pub(super) fn spec(image: ImageRef, layers: Vec<Layer>) -> SandboxSpec {
    SandboxSpec {
        image,
        workdir: "/work".into(),
        layers,
        trusted: Arc::default(),
        limits: Limits::default(),
    }
}

fn ended(execution: Execution) -> anyhow::Result<Execution> {
    ensure!(
        execution.termination.success(),
        "in a sandbox: {:?} {}",
        execution.termination,
        execution.stderr.lossy()
    );
    Ok(execution)
}

async fn finish(mut command: process::Command) -> anyhow::Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().await.with_context(|| format!("start {:?}", command.as_std()))?;
    ensure!(status.success(), "{:?}: {status}", command.as_std());
    Ok(())
}
