//! What this machine can do for sandboxes, found out by trying, and the fix for what it can't.

use std::{fs, sync::Arc};

use super::{Native, NativeConfig};
use crate::{
    Backend, BackendError, BackendResult, Command, Execution, FileEntry, ImageRef, Layer, Limits,
    SandboxSpec, Termination,
};

/// One fact about this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was tried: `kernel`, `sandbox`, `memory`, `pids`, `cpu`, `user limits`.
    pub name: &'static str,
    /// Whether it works in full. A sandbox that doesn't is none; anything else has a fallback.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do where `ok` is false.
    pub fix: Option<String>,
}

/// Tries what native sandboxes need: makes a real one, with an empty image and every kind of layer.
/// It needs no root filesystem.
///
/// The running executable becomes the spawner, as in [`NativeConfig::new`].
pub async fn probe() -> Vec<Finding> {
    let mut findings = vec![kernel()];
    let fallbacks = match try_sandbox().await {
        Ok(execution) => {
            let fallbacks = execution.isolation.fallbacks.clone();
            findings.push(ran(&execution));
            fallbacks
        }
        Err(e) => {
            findings.push(refused(&e));
            return findings;
        }
    };
    let delegation = "start it by `systemd-run --scope --property=Delegate=yes` (with `--user` for \
                      an ordinary user)";
    for (name, fix) in [
        ("memory", delegation),
        ("pids", delegation),
        ("cpu", delegation),
        (
            "landlock",
            "use Linux 6.12 or newer, with `landlock` among the `lsm=` of its command line",
        ),
        ("max_user_namespaces", "mount /proc/sys writable"),
        ("max_inotify_instances", "mount /proc/sys writable"),
    ] {
        let fallback = fallbacks.iter().find(|fallback| fallback.split(':').next() == Some(name));
        findings.push(Finding {
            name,
            ok: fallback.is_none(),
            detail: fallback.map_or("limited by the kernel", String::as_str).to_owned(),
            fix: fallback.map(|_| fix.to_owned()),
        });
    }
    findings
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (ok, fix) = match version {
        (0..5, _) | (5, 0..14) => (false, "use Linux 5.14 or newer"),
        (5, 0..19) if rustix::process::geteuid().is_root() => {
            (false, "as root, use Linux 5.19 or newer: no overlays on mapped mounts before")
        }
        (5, _) | (6, 0..6) => {
            (false, "use Linux 6.6 or newer: overlays on tmpfs can't hide directories before")
        }
        _ => (true, ""),
    };
    let fix = (!ok).then(|| fix.to_owned());
    Finding { name: "kernel", ok, detail: format!("Linux {release}"), fix }
}

/// Runs a program that isn't there: everything before it is the sandbox's work.
async fn try_sandbox() -> BackendResult<Execution> {
    let at = |what: &str| {
        let what = what.to_owned();
        move |source| BackendError::Io { what, source }
    };
    let folder = std::env::temp_dir().join(format!("assay-probe-{}", uuid::Uuid::now_v7()));
    let layer = folder.join("layer/replaced");
    fs::create_dir_all(&layer).map_err(at("make a temporary folder"))?;
    fs::create_dir(folder.join("image")).map_err(at("make a temporary folder"))?;
    let result = async {
        let native = Native::start(NativeConfig::new(folder.join("state")))?;
        let content = FileEntry::File { content: (*b"x").into(), executable: true };
        let files = [
            ("gone".into(), FileEntry::Absent),
            ("link".into(), FileEntry::Symlink("replaced".into())),
            ("replaced".into(), FileEntry::Absent),
            ("replaced/file".into(), content),
        ];
        let spec = SandboxSpec {
            image: ImageRef::Rootfs { path: folder.join("image"), digest: String::new() },
            workdir: "/work".into(),
            layers: vec![
                Layer::Dir(Arc::new(folder.join("layer"))),
                Layer::Files(Arc::new(files.into())),
            ],
            trusted: Arc::default(),
            limits: Limits::default(),
        };
        let sandbox = native.create(spec).await?;
        let argv = vec!["/not/there".to_owned()];
        sandbox.run(Command { argv, ..Command::default() }).await
    }
    .await;
    let _ = fs::remove_dir_all(&folder);
    result
}

fn ran(execution: &Execution) -> Finding {
    let ok = execution.termination == Termination::Exited(127);
    let detail = if ok {
        format!("namespaces, overlays and seccomp work; made in {:.1?}", execution.usage.setup)
    } else {
        format!("a program that isn't there ended as {:?}", execution.termination)
    };
    let fix = (!ok).then(|| "report this: it is a bug".to_owned());
    Finding { name: "sandbox", ok, detail, fix }
}

fn refused(error: &BackendError) -> Finding {
    let cause = std::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
    Finding {
        name: "sandbox",
        ok: false,
        detail: format!("{error}{cause}"),
        fix: Some(why_refused().to_owned()),
    }
}

/// Returns the most likely cause, from the switches by which distributions forbid it.
fn why_refused() -> &'static str {
    let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|v| v.trim() == value);
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "run as root, or `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "run as root, or `sysctl kernel.unprivileged_userns_clone=1`"
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "`sysctl user.max_user_namespaces=15000`"
    } else if fs::read_to_string("/proc/self/mountinfo").is_ok_and(|m| m.contains(" /proc/kcore "))
    {
        "this looks like a container with a masked /proc: run it privileged, or on the host"
    } else {
        "run as root on a host whose kernel has user namespaces and overlayfs"
    }
}
