//! The attacks of `attacks/sandbox.toml` against every backend that this machine has: native as root
//! and as an ordinary user, Docker, and wasm where it is built in. Each runs beside a victim that must not notice, and leaves
//! nothing.

use std::{
    collections::BTreeSet,
    fs,
    os::{linux::net::SocketAddrExt as _, unix::fs::PermissionsExt, unix::net},
    path::{Path, PathBuf},
    process::{Child, Command as Process},
    sync::Arc,
    time::{Duration, Instant},
};

use assay_sandbox::{
    Backend, Command, Execution, ImageRef, LimitKind, Limits, SandboxSpec, Start, Termination,
    Warm,
    docker::{Docker, DockerConfig},
    native::{Native, NativeConfig},
};
use assay_tests::cache;
use serde::Deserialize;

const ATTACKS: &str = include_str!("../attacks/sandbox.toml");
const SPAWNER: &str = env!("CARGO_BIN_EXE_assay-under-test");
const IMAGE: &str = "assay-python:1";

/// One suite at a time, or each would be a load on the other's machine.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Names every process of an attack, on the host, too: in its environment or as its name.
const MARK: &str = "ASSAY_ATTACK";

/// Gives a fork of a warm interpreter, and all that descends from it, that name.
const MARKING: &str = "import ctypes, os\n\
    ctypes.CDLL(None).prctl(15, b'ASSAY_ATTACK', 0, 0, 0)\n\
    os.environ['ASSAY_ATTACK'] = '1'\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    attack: Vec<Attack>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attack {
    name: String,
    expect: Vec<String>,
    #[serde(default)]
    limits: Own,
    #[serde(default = "one")]
    runs: usize,
    #[serde(default = "one")]
    at_once: usize,
    only: Option<String>,
    why: Option<String>,
    payload: String,
}

/// Limits that differ from the suite's.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    wall_s: Option<f64>,
    cpu_s: Option<f64>,
}

fn one() -> usize {
    1
}

/// What attacks reach for on the host.
struct Host {
    name: String,
    port: u16,
    keeper: Child,
    _listeners: (std::net::TcpListener, net::UnixListener),
}

impl Host {
    fn new() -> Self {
        let name = format!("assay-host-{}", uuid::Uuid::new_v4().simple());
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = net::SocketAddr::from_abstract_name(&name).expect("a name");
        let unix = net::UnixListener::bind_addr(&address).expect("a listener");
        // A process of the service's user with a secret in its environment.
        let mut keeper = Process::new("/bin/sleep");
        let keeper = keeper.arg("100000").env("SECRET", format!("{name}-secret")).spawn();
        Self {
            port: tcp.local_addr().expect("an address").port(),
            keeper: keeper.expect("a process with a secret"),
            _listeners: (tcp, unix),
            name,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// What this machine holds that attacks could add to.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    mounts: usize,
    ipc: BTreeSet<String>,
    marked: BTreeSet<PathBuf>,
}

impl Traces {
    fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let tables = ["shm", "sem", "msg"].map(|kind| read(&format!("/proc/sysvipc/{kind}")));
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let marked = processes.map(|process| process.path()).filter(|path| {
            let mut environment = fs::read(path.join("environ")).unwrap_or_default();
            environment.extend(fs::read(path.join("comm")).unwrap_or_default());
            environment.windows(MARK.len()).any(|part| part == MARK.as_bytes())
        });
        Self {
            mounts: read("/proc/self/mountinfo")
                .lines()
                // Containers outlive an attack; they are counted when the suite is over.
                .filter(|line| !line.contains("docker"))
                .count(),
            // Key and id: other columns count time.
            ipc: tables
                .iter()
                .flat_map(|table| table.lines().skip(1))
                .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
                .collect(),
            marked: marked.collect(),
        }
    }
}

struct Suite {
    place: &'static str,
    backend: Arc<dyn Backend>,
    image: ImageRef,
    /// Whether the attacks are forks of a warm interpreter.
    warm: bool,
}

impl Suite {
    fn spec(&self, own: &Own) -> SandboxSpec {
        let seconds = |own: Option<f64>, other| Duration::from_secs_f64(own.unwrap_or(other));
        SandboxSpec {
            image: self.image.clone(),
            workdir: "/work".into(),
            layers: Vec::new(),
            trusted: Arc::default(),
            limits: Limits {
                wall: seconds(own.wall_s, 20.0),
                cpu: seconds(own.cpu_s, 10.0),
                memory_bytes: 128 << 20,
                disk_bytes: 32 << 20,
                pids: 64,
                inodes: 2000,
                ..Limits::default()
            },
        }
    }

    async fn python(&self, own: &Own, code: &str, mark: bool) -> Execution {
        if self.warm {
            return self.warm_python(own, code, mark).await;
        }
        let mut env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        env.extend(mark.then(|| (MARK.to_owned(), "1".to_owned())));
        let command = Command {
            argv: ["/usr/bin/python3", "-I", "-c", code].map(str::to_owned).into(),
            env: env.into_iter().collect(),
            ..Command::default()
        };
        let sandbox = self.backend.create(self.spec(own)).await.expect("a sandbox");
        sandbox.run(command).await.expect("an execution")
    }

    async fn warm_python(&self, own: &Own, code: &str, mark: bool) -> Execution {
        let script = if mark { format!("{MARKING}{code}") } else { code.to_owned() };
        let trusted = [("/assay/script.py".into(), script.as_bytes().into())];
        let command = Command {
            argv: ["/usr/bin/python3", "-I", "-P", "/assay/script.py"].map(str::to_owned).into(),
            env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
            warm: Some(Warm { modules: vec!["ctypes".into()], programs: Arc::default() }),
            ..Command::default()
        };
        let spec = SandboxSpec { trusted: Arc::new(trusted.into()), ..self.spec(own) };
        let sandbox = self.backend.create(spec).await.expect("a sandbox");
        let execution = sandbox.run(command).await.expect("an execution");
        assert_eq!(execution.isolation.start, Start::Warm);
        execution
    }

    /// Runs every attack and returns what went wrong.
    async fn run(&self) -> Vec<String> {
        let attacks: File = toml::from_str(ATTACKS).expect("attacks/sandbox.toml");
        let host = Host::new();
        let mut wrong = Vec::new();
        for attack in &attacks.attack {
            if let Some(only) = attack.only.as_deref().filter(|only| *only != self.place) {
                let why = attack.why.as_deref().unwrap_or_default();
                println!("{}: {}: for {only} alone: {why}", self.place, attack.name);
                continue;
            }
            let code = attack.payload.replace("{PORT}", &host.port.to_string());
            let code = code.replace("{NAME}", &host.name);
            let before = Traces::look();
            for _ in 0..attack.runs {
                let attackers =
                    (0..attack.at_once).map(|_| self.python(&attack.limits, &code, true));
                let (executions, victims) =
                    self.beside_victims(futures::future::join_all(attackers)).await;
                wrong.extend(
                    executions.iter().filter_map(|execution| self.judge(attack, execution)),
                );
                wrong.extend(
                    victims.into_iter().map(|told| format!("beside {}: {told}", attack.name)),
                );
            }
            let after = Traces::look();
            if after != before {
                wrong.push(format!("{}: {before:?} became {after:?}", attack.name));
            }
        }
        wrong
    }

    /// Runs victims, one after the other, until `attack` is over. Returns what became of those that
    /// noticed it.
    async fn beside_victims<T>(&self, attack: impl Future<Output = T>) -> (T, Vec<String>) {
        const CODE: &str = "import hashlib, os\n\
            assert sorted(os.listdir('.')) == [] and os.listdir('/tmp') == []\n\
            open('mine', 'w').write('x' * 1000)\n\
            print(hashlib.sha256(bytes(10 ** 6)).hexdigest()[:8], len(open('mine').read()))";
        tokio::pin!(attack);
        let (usual, mut over, mut noticed) = (Own::default(), None, Vec::new());
        loop {
            let victim = self.python(&usual, CODE, false);
            tokio::pin!(victim);
            let execution = loop {
                tokio::select! {
                    result = &mut attack, if over.is_none() => over = Some(result),
                    execution = &mut victim => break execution,
                }
            };
            if execution.stdout.lossy().trim() != "d29751f2 1000" {
                noticed.push(told(&execution));
            }
            if let Some(result) = over {
                return (result, noticed);
            }
        }
    }

    fn judge(&self, attack: &Attack, execution: &Execution) -> Option<String> {
        let ended = ended(execution.termination);
        let output = execution.stdout.lossy();
        let harmless = !output.lines().any(|line| line.starts_with("HARM"));
        let ran = ended != "exit 0" || output.lines().any(|line| line == "tried");
        let missing = self.place == "wasm" && is_missing(execution);
        let fine = harmless && (missing || ran && attack.expect.contains(&ended));
        let how = if missing { " (no such thing there)" } else { "" };
        println!("{}: {}: {ended}{how}", self.place, attack.name);
        (!fine).then(|| format!("{}: {}", attack.name, told(execution)))
    }
}

fn ended(termination: Termination) -> String {
    match termination {
        Termination::Exited(status) => format!("exit {status}"),
        Termination::Signaled(signal) => format!("signal {signal}"),
        Termination::Limit(LimitKind::Wall) => "wall".into(),
        Termination::Limit(LimitKind::WallStarved) => "starved".into(),
        Termination::Limit(LimitKind::Cpu) => "cpu".into(),
        Termination::Limit(LimitKind::Memory) => "memory".into(),
    }
}

/// Whether an attack ended because a program for WASI can't even ask for what it needs.
fn is_missing(execution: &Execution) -> bool {
    let errors = execution.stderr.lossy();
    let last = errors.lines().next_back().unwrap_or_default();
    let kinds = [
        "AttributeError: module '",
        "ModuleNotFoundError: ",
        "ImportError: ",
        "OSError: [Errno 52] Function not implemented",
        "FileNotFoundError: [Errno 44] No such file or directory: '/proc/",
    ];
    execution.termination == Termination::Exited(1)
        && kinds.iter().any(|kind| last.starts_with(kind))
}

fn told(execution: &Execution) -> String {
    let part = |text: String| text.chars().take(800).collect::<String>();
    let (out, err) = (part(execution.stdout.lossy()), part(execution.stderr.lossy()));
    format!("{}, {:?}\n{out}\n{err}", ended(execution.termination), execution.usage)
}

fn rootfs() -> Option<PathBuf> {
    let given = std::env::var_os("ASSAY_TEST_ROOTFS").map(PathBuf::from);
    let found = given.unwrap_or_else(|| cache().join("rootfs/python/tree"));
    found.is_dir().then_some(found)
}

fn cgroups() -> BTreeSet<PathBuf> {
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut found = BTreeSet::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with("assay-sandboxes-") {
                    found.insert(entry.path());
                } else {
                    open.push(entry.path());
                }
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn native_withstands_every_attack() {
    native(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native_withstands_every_attack_from_a_warm_interpreter() {
    native(true).await;
}

async fn native(warm: bool) {
    let Some(rootfs) = rootfs() else {
        eprintln!("skipped: no root filesystem; run `make rootfs`");
        return;
    };
    let _alone = ALONE.lock().await;
    let state = tempfile::tempdir().unwrap();
    let before = cgroups();
    let spawner = std::env::var_os("ASSAY_TEST_SPAWNER").map_or(SPAWNER.into(), PathBuf::from);
    let native = Native::start(NativeConfig { spawner, ..NativeConfig::new(state.path()) });
    let suite = Suite {
        place: "native",
        backend: Arc::new(native.expect("a backend")),
        image: ImageRef::Rootfs { path: rootfs, digest: "sha256:test".into() },
        warm,
    };
    let wrong = suite.run().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    drop(suite);
    let left: Vec<_> = cgroups().difference(&before).cloned().collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

/// The same once more, as a user without rights.
#[test]
fn native_withstands_every_attack_for_an_ordinary_user() {
    let Some(rootfs) = rootfs().filter(|_| rustix::process::geteuid().is_root()) else {
        eprintln!("skipped: this already is an ordinary user, or there is no root filesystem");
        return;
    };
    let _alone = ALONE.blocking_lock();
    // Where that user can reach image and executables, in a mount namespace that ends with it.
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let mode = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode));
    mode(place.path(), 0o755).unwrap();
    fs::create_dir(at("rootfs")).unwrap();
    fs::create_dir(at("tmp")).unwrap();
    mode(&at("tmp"), 0o1777).unwrap();
    fs::copy(std::env::current_exe().unwrap(), at("test")).unwrap();
    fs::copy(SPAWNER, at("spawner")).unwrap();
    let script = "mount --bind \"$ROOTFS\" \"$PLACE/rootfs\" && cd / && exec setpriv --reuid=65534 \
        --regid=65534 --clear-groups \"$PLACE/test\" native_withstands --skip ordinary_user --nocapture";
    let output = Process::new("unshare")
        .args(["--mount", "/bin/sh", "-c", script])
        .env("ROOTFS", rootfs)
        .env("PLACE", place.path())
        .env("TMPDIR", at("tmp"))
        .env("ASSAY_TEST_ROOTFS", at("rootfs"))
        .env("ASSAY_TEST_SPAWNER", at("spawner"))
        .output()
        .expect("unshare of util-linux");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("make a user namespace") || errors.contains("unshare failed") {
        eprintln!("skipped: this machine gives ordinary users no user namespaces");
        return;
    }
    assert!(output.status.success() && text.contains("2 passed"), "{text}\n{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_withstands_every_attack() {
    docker(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_withstands_every_attack_from_a_warm_interpreter() {
    docker(true).await;
}

async fn docker(warm: bool) {
    let _alone = ALONE.lock().await;
    let state = tempfile::tempdir().unwrap();
    let connected = async {
        let config = DockerConfig { agent: SPAWNER.into(), ..DockerConfig::new(state.path()) };
        let docker = Docker::connect(config).await?;
        docker.image_digest(IMAGE).await.map(|_| docker)
    };
    let docker = match connected.await {
        Ok(docker) => docker,
        Err(error) => {
            eprintln!("skipped: {error}; `make docker` starts an engine and makes the image");
            return;
        }
    };
    let mounts = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        mounts.lines().filter(|line| line.contains("docker")).count()
    };
    let before = mounts();
    let image = ImageRef::Docker(IMAGE.into());
    let suite = Suite { place: "docker", backend: Arc::new(docker), image, warm };
    let wrong = suite.run().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    drop(suite);
    let deadline = Instant::now() + Duration::from_secs(60);
    while mounts() != before {
        assert!(Instant::now() < deadline, "{} mounts of {before}", mounts());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(feature = "wasm")]
#[tokio::test(flavor = "multi_thread")]
async fn wasm_withstands_every_attack() {
    use assay_repos::Digest;
    use assay_sandbox::wasm::{Wasm, WasmConfig};
    let module = cache().join("wasm/python/python.wasm");
    if !module.is_file() {
        eprintln!("skipped: no Python for WASI; run `make wasm`");
        return;
    }
    let _alone = ALONE.lock().await;
    let wasm = Wasm::start(WasmConfig::new(cache().join("wasm/compiled"))).expect("a backend");
    let digest = Digest::of(fs::read(&module).expect("a readable module")).into();
    let image = ImageRef::Wasm { module, digest };
    let suite = Suite { place: "wasm", backend: Arc::new(wasm), image, warm: false };
    let wrong = suite.run().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
