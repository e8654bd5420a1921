//! An `assay serve` that lives and dies with this process.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::environment::EnvironmentError;

/// What the service may take to print its address.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What it may take to end its work after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A running child; dropping it stops it.
#[derive(Debug)]
pub struct Embedded {
    child: Child,
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    log: PathBuf,
}

impl Embedded {
    /// Starts `assay serve` on a free loopback port with its state and log under `out`.
    ///
    /// Call it on a thread that lives as long as the service should: the kernel stops the child
    /// when the thread that started it ends.
    pub fn start(
        assay: Option<&Path>,
        args: &[String],
        out: &Path,
    ) -> Result<Self, EnvironmentError> {
        let failed = |what: String| EnvironmentError::Embedded(what);
        let program = assay.map_or_else(find, Path::to_owned);
        let data = out.join("service");
        let log = out.join("service.log");
        std::fs::create_dir_all(&data)
            .map_err(|error| failed(format!("cannot make {}: {error}", data.display())))?;
        let stderr = File::create(&log)
            .map_err(|error| failed(format!("cannot write {}: {error}", log.display())))?;
        let mut command = Command::new(&program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--json", "--data"])
            .arg(&data)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // A Ctrl-C in the terminal is ours to handle: the last step still needs its verdicts.
            .process_group(0);
        let parent = std::process::id();
        // JUSTIFICATION: a trainer that is killed must not leave a service behind.
        // SAFETY: between fork and exec the closure makes two system calls and touches no memory
        // that another thread could hold a lock on.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // We may have died before the call above.
                if libc::getppid() != parent as libc::pid_t {
                    libc::_exit(1);
                }
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(|error| {
            failed(format!(
                "cannot start {}: {error}; name the binary with --assay",
                program.display()
            ))
        })?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut embedded = Self { child, endpoint: String::new(), log };
        embedded.endpoint = embedded.await_address(stdout)?;
        Ok(embedded)
    }

    /// The address in the JSON line that the service prints once it listens.
    fn await_address(
        &mut self,
        stdout: impl Read + Send + 'static,
    ) -> Result<String, EnvironmentError> {
        let (sender, receiver) = mpsc::channel();
        // Ends with the child; reads on after the address so that the pipe never fills.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let address = serde_json::from_str::<serde_json::Value>(&line)
                    .ok()
                    .and_then(|value| value.get("listening")?.as_str().map(str::to_owned));
                if let Some(address) = address {
                    let _ = sender.send(address);
                }
            }
        });
        let started = Instant::now();
        loop {
            if let Ok(address) = receiver.recv_timeout(Duration::from_millis(100)) {
                return Ok(format!("http://{address}"));
            }
            self.check()?;
            if started.elapsed() > START_LIMIT {
                let limit = START_LIMIT.as_secs();
                return Err(EnvironmentError::Embedded(format!(
                    "no address within {limit} s{}",
                    self.log_tail()
                )));
            }
        }
    }

    /// An error when the service has ended.
    pub fn check(&mut self) -> Result<(), EnvironmentError> {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                Err(EnvironmentError::Embedded(format!("ended with {status}{}", self.log_tail())))
            }
            Ok(None) => Ok(()),
            Err(error) => Err(EnvironmentError::Embedded(format!("cannot watch it: {error}"))),
        }
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        format!("; {} ends with:\n{}", self.log.display(), tail.join("\n"))
    }

    fn stop(&mut self) -> std::io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        // SAFETY: the child has not been waited for, so its pid is still its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let asked = Instant::now();
        while asked.elapsed() < STOP_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "the embedded service did not stop");
        }
    }
}

/// Beside our own executable (also for test binaries, a folder deeper), else wherever PATH says.
fn find() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("assay"))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| "assay".into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn script(folder: &Path, body: &str) -> PathBuf {
        let path = folder.join("assay");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn starts_and_stops() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(
            folder.path(),
            "echo noise; echo '{\"listening\":\"127.0.0.1:7\"}'; exec sleep 60",
        );
        let service = Embedded::start(Some(&program), &[], folder.path()).unwrap();
        assert_eq!(service.endpoint, "http://127.0.0.1:7");
        let pid = service.child.id();
        drop(service);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn says_why_it_did_not_start() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), "echo 'no catalog here' >&2; exit 2");
        let error = Embedded::start(Some(&program), &[], folder.path()).unwrap_err().to_string();
        assert!(error.contains("exit status: 2") && error.contains("no catalog here"), "{error}");
        let error = Embedded::start(Some(&folder.path().join("absent")), &[], folder.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains("--assay"), "{error}");
    }
}
