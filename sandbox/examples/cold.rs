//! Times a cold run of `/bin/true`: bare, in bubblewrap, and in a native sandbox, turn by turn.
//!
//! Usage: `cargo run --release -p assay-sandbox --example cold -- ROOTFS [ROUNDS]`

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command as Process, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use assay_sandbox::{
    Backend, Command, ImageRef, Limits, SandboxSpec, Termination,
    native::{Native, NativeConfig, spawner_main_if_asked},
};

fn main() {
    spawner_main_if_asked();
    let mut arguments = std::env::args().skip(1);
    let rootfs = PathBuf::from(arguments.next().expect("usage: cold ROOTFS [ROUNDS]"));
    let rounds = arguments.next().map_or(500, |n| n.parse().expect("a number of rounds"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async move {
        let state = std::env::temp_dir().join(format!("assay-cold-{}", std::process::id()));
        let native = Native::start(NativeConfig::new(&state)).expect("a backend");
        let (mut bare, mut bwrap, mut ours, mut setup) = (vec![], vec![], vec![], vec![]);
        for _ in 0..rounds {
            bare.push(process(&mut Process::new("/bin/true")));
            let root = rootfs.to_str().expect("a path in UTF-8");
            let mut command = Process::new("bwrap");
            command
                .args(["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"])
                .args(["--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev"])
                .args(["--tmpfs", "/tmp", "--tmpfs", "/work", "--chdir", "/work", "/bin/true"]);
            bwrap.push(process(&mut command));
            let start = Instant::now();
            let spec = SandboxSpec {
                image: ImageRef::Rootfs { path: rootfs.clone(), digest: String::new() },
                workdir: "/work".into(),
                layers: Vec::new(),
                trusted: Arc::new(BTreeMap::new()),
                limits: Limits::default(),
            };
            let sandbox = native.create(spec).await.expect("a sandbox");
            let command = Command { argv: vec!["/bin/true".into()], ..Command::default() };
            let execution = sandbox.run(command).await.expect("an execution");
            ours.push(start.elapsed());
            setup.push(execution.usage.setup);
            assert_eq!(execution.termination, Termination::Exited(0));
        }
        let reference = quantile(&mut bwrap, 0.5);
        for (name, times) in [
            ("bare", &mut bare),
            ("bubblewrap", &mut bwrap),
            ("native", &mut ours),
            ("  setup", &mut setup),
        ] {
            let (p50, p99) = (quantile(times, 0.5), quantile(times, 0.99));
            let ratio = p50.as_secs_f64() / reference.as_secs_f64();
            println!("{name:12} p50 {p50:>10.2?}  p99 {p99:>10.2?}  {ratio:.2}x bubblewrap");
        }
        drop(native);
        let _ = std::fs::remove_dir_all(state);
    });
}

fn process(command: &mut Process) -> Duration {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).status().expect("a process");
    assert!(status.success());
    start.elapsed()
}

fn quantile(times: &mut [Duration], q: f64) -> Duration {
    times.sort();
    times[((times.len() - 1) as f64 * q) as usize]
}
