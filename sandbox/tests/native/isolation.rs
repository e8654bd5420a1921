//! What a sandboxed program can't see and can't do.

use assay_sandbox::{
    Backend as _, Channel, ChannelEnd, Command, FileEntry, SandboxSpec, Start, Termination,
};

use crate::{
    common::{
        command, file, files, is_root, native, native_of_one_slot, python, sh, spec, stdout, told,
    },
    warm,
};

#[tokio::test]
async fn there_is_no_network_but_the_loopback() {
    let Some(native) = native() else { return };
    let code = r"
import errno, os, socket
print(sorted(name for _, name in socket.if_nameindex()))
for address in [('1.1.1.1', 53), ('169.254.169.254', 80), ('10.0.0.1', 22)]:
    s = socket.socket(); s.settimeout(2)
    try: s.connect(address); print('connected', address)
    except OSError as e: print(errno.errorcode.get(e.errno, e))
server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen()
client = socket.create_connection(server.getsockname()); print('loopback')
six = socket.socket(socket.AF_INET6); six.bind(('::1', 0)); print('loopback 6')
try: socket.gethostbyname('example.com'); print('resolved')
except OSError: print('unresolved')
print(socket.gethostbyname('localhost'), socket.gethostname())
";
    let execution = native.run(python(code)).await;
    let expected = "['lo']\nENETUNREACH\nENETUNREACH\nENETUNREACH\nloopback\nloopback 6\nunresolved\n127.0.0.1 assay";
    assert_eq!(stdout(&execution), expected, "{}", told(&execution));
}

/// A network that carried nothing serves again, and no other does.
#[tokio::test]
async fn no_sandbox_sees_what_another_did_on_the_loopback() {
    let Some(native) = native_of_one_slot() else { return };
    let look = "readlink /proc/self/ns/net; cd /proc/net; cat dev snmp netstat snmp6 ip6_flowlabel";
    let quiet = stdout(&native.run(sh(look)).await);
    assert!(quiet.contains("lo: "), "{quiet}");
    let again = stdout(&native.run(sh(look)).await);
    assert_eq!(again, quiet);
    let counts = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    for code in [
        "import socket\ns = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); s.accept()[0].close()",
        "import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "import socket\ntry: socket.socket().connect(('10.0.0.1', 9))\nexcept OSError: pass",
        "import socket\ntry: socket.socket(socket.AF_INET6).connect(('fd00::1', 9))\nexcept OSError: pass",
        "import socket\nsocket.create_server(('127.0.0.1', 8000))\nimport os; os.kill(os.getpid(), 9)",
        // A flow label, which lives on for a while: destination, label, action, share, flags, expires, linger.
        "import socket, struct\nsocket.socket(socket.AF_INET6, socket.SOCK_DGRAM).setsockopt(41, 32, \
         b'\\xfd' + b'hidden tests!!!' + struct.pack('!IBBHHHI', 0x10000, 0, 255, 1, 60, 60, 0))",
    ] {
        native.run(python(code)).await;
        let after = stdout(&native.run(sh(look)).await);
        assert_eq!(counts(&after), counts(&quiet), "{code}");
    }
    // Longer than a slot that rests keeps what it prepared.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let rested = stdout(&native.run(sh(look)).await);
    assert_eq!(counts(&rested), counts(&quiet));
    assert_eq!(native.slots().misses, 1, "one slot made all of them");
}

/// A socket that is on its way to somebody else outlives its sandbox, and belongs to no other.
#[tokio::test]
async fn no_sandbox_meets_a_socket_of_another() {
    let Some(native) = native_of_one_slot() else { return };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let code = r"
import array, socket
peer, named, bound = socket.socket(fileno=4), socket.socket(socket.AF_UNIX), socket.socket()
named.bind('\0meet'); named.listen(); bound.bind(('127.0.0.1', 8000)); bound.listen()
fds = array.array('i', [named.fileno(), bound.fileno()])
peer.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]); print('sent')
";
    let channels = vec![Channel { fd: 4, end: ChannelEnd::Fd(theirs.into()) }];
    let sent = native.run(Command { channels, ..python(code) }).await;
    assert_eq!(stdout(&sent), "sent", "{}", told(&sent));
    let code = r"
import socket
for family, address in [(socket.AF_UNIX, '\0meet'), (socket.AF_INET, ('127.0.0.1', 8000))]:
    try: socket.socket(family).connect(address); print('connected')
    except OSError as e: print(e.errno)
";
    assert_eq!(stdout(&native.run(python(code)).await), "111\n111");
    drop(ours);
}

/// Whatever a command is to start in, its files can't lead whoever starts it to anything else.
#[tokio::test]
async fn the_working_directory_is_no_way_out() {
    let Some(native) = native_of_one_slot() else { return };
    let places = (3..40).map(|fd| format!("/proc/self/fd/{fd}"));
    for place in places.chain(["/proc/self/cwd".to_owned(), "/proc/self/root".to_owned()]) {
        let link = FileEntry::Symlink(place.clone().into());
        let spec = SandboxSpec { layers: vec![files([("sub", link)])], ..spec() };
        let sandbox = native.create(spec).await.unwrap();
        let result = sandbox.run(Command { cwd: "sub".into(), ..sh("pwd -P") }).await;
        assert!(result.is_err(), "{place}: {}", told(&result.unwrap()));
    }
    let link = FileEntry::Symlink("a".into());
    let spec = SandboxSpec { layers: vec![files([("a/b", file("")), ("sub", link)])], ..spec() };
    let execution = native.run_in(spec, Command { cwd: "sub".into(), ..sh("pwd -P; ls") }).await;
    assert_eq!(stdout(&execution), "/work/a\nb", "{}", told(&execution));
}

#[tokio::test]
async fn a_service_of_the_host_is_out_of_reach() {
    let Some(native) = native() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let name = format!("assay-test-{}", std::process::id());
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(
            name.as_bytes(),
        )
        .expect("a name");
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&address).expect("a listener");
    let code = format!(
        "import socket\nfor family, address in [(socket.AF_INET, ('127.0.0.1', {port})), (socket.AF_UNIX, '\\0{name}')]:\n s = socket.socket(family)\n try: s.connect(address); print('connected')\n except OSError as e: print(e.errno)"
    );
    let execution = native.run(python(&code)).await;
    assert_eq!(stdout(&execution), "111\n111", "{}", told(&execution));
}

#[tokio::test]
async fn there_are_no_rights_left() {
    let Some(native) = native() else { return };
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; id -u; id -g; ulimit -c; cat /proc/self/uid_map";
    let execution = native.run(sh(script)).await;
    let text = stdout(&execution);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(text.contains(&format!("{set}:\t0000000000000000")), "{text}");
    }
    assert!(text.contains("NoNewPrivs:\t1") && text.contains("Seccomp:\t2"), "{text}");
    assert!(text.contains("\n1000\n1000\n0\n"), "{text}");
    for line in text.lines().rev().take_while(|line| line.starts_with(' ')) {
        let ids: Vec<u64> = line.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        assert!(ids[1] != 0 || !is_root(), "nothing inside is the host's root: {text}");
    }
}

#[tokio::test]
async fn calls_that_reach_for_the_kernel_are_denied() {
    let Some(native) = native() else { return };
    // By number: the sandbox's Python is x86-64's here.
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: call numbers of x86-64");
        return;
    }
    let calls = [
        ("mount", 165, "0, 0, 0, 0, 0"),
        ("umount2", 166, "0, 0"),
        ("pivot_root", 155, "0, 0"),
        ("chroot", 161, "0"),
        ("unshare", 272, "0x10000000"),
        ("setns", 308, "0, 0"),
        ("clone newuser", 56, "0x10000011, 0, 0, 0, 0"),
        ("clone newns", 56, "0x20011, 0, 0, 0, 0"),
        ("ptrace", 101, "0, 0, 0, 0"),
        ("process_vm_readv", 310, "1, 0, 0, 0, 0, 0"),
        ("bpf", 321, "0, 0, 0"),
        ("perf_event_open", 298, "0, 0, 0, 0, 0"),
        ("io_uring_setup", 425, "1, 0"),
        ("userfaultfd", 323, "0"),
        ("keyctl", 250, "0, 0, 0, 0, 0"),
        ("add_key", 248, "0, 0, 0, 0, 0"),
        ("open_by_handle_at", 304, "0, 0, 0"),
        ("name_to_handle_at", 303, "0, 0, 0, 0, 0"),
        ("init_module", 175, "0, 0, 0"),
        ("kexec_load", 246, "0, 0, 0, 0"),
        ("fsopen", 430, "0, 0"),
        ("open_tree", 428, "-100, 0, 0"),
        ("move_mount", 429, "0, 0, 0, 0, 0"),
        ("mount_setattr", 442, "0, 0, 0, 0, 0"),
        ("personality", 135, "0x0040000"),
        ("socket vsock", 41, "40, 1, 0"),
        ("socket packet", 41, "17, 3, 0"),
        ("socket raw", 41, "2, 3, 1"),
        ("socket alg", 41, "38, 5, 0"),
        ("ioctl TIOCSTI", 16, "0, 0x5412, 0"),
        ("ioctl TIOCLINUX", 16, "0, 0x541c, 0"),
        ("reboot", 169, "0, 0, 0, 0"),
        ("pidfd_getfd", 438, "0, 0, 0"),
    ];
    let rows: String = calls
        .iter()
        .map(|(name, number, arguments)| format!("({name:?}, {number}, {arguments}),"))
        .collect();
    let code = format!(
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nfor name, *call in [{rows}]:\n ctypes.set_errno(0)\n r = libc.syscall(*[ctypes.c_long(x) for x in call])\n e = ctypes.get_errno()\n if (r, e) != (-1, 1): print(name, r, e)\n\
         r = libc.syscall(435, 0, 0); print('clone3', ctypes.get_errno())"
    );
    let execution = native.run(python(&code)).await;
    assert_eq!(stdout(&execution), "clone3 38", "{}", told(&execution));
    let x32 = "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39); print('alive')";
    let execution = native.run(python(x32)).await;
    assert_eq!(execution.termination, Termination::Signaled(libc::SIGSYS), "{}", told(&execution));
    let threads = "import threading, subprocess, multiprocessing\nt = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\nprint(subprocess.run(['echo', 'child'], capture_output=True).stdout)\np = multiprocessing.Process(target=print, args=('forked',)); p.start(); p.join()\nprint(multiprocessing.Semaphore().acquire())";
    let execution = native.run(python(threads)).await;
    assert_eq!(stdout(&execution), "thread\nb'child\\n'\nforked\nTrue", "{}", told(&execution));
}

#[tokio::test]
async fn proc_and_dev_show_the_sandbox_alone() {
    let Some(native) = native() else { return };
    let script = "ls /proc | grep -c '^[0-9]'; for f in /proc/1/environ /proc/1/mem /proc/1/maps /proc/kcore /proc/kmsg /proc/sysrq-trigger; \
        do if cat $f >/dev/null 2>&1 && [ -s $f ]; then echo \"readable: $f\"; fi; done; \
        ls /proc/1/fd 2>/dev/null; ls -l /proc/1/exe 2>/dev/null; cat /proc/keys; \
        for f in /proc/sys/kernel/core_pattern /proc/sys/user/max_user_namespaces /proc/sysrq-trigger /proc/sys/vm/drop_caches /proc/self/oom_score_adj_no; \
        do if (echo 1 >$f) 2>/dev/null; then echo \"writable: $f\"; fi; done; \
        ls /dev | tr '\\n' ' '; ls /sys | wc -l; ls -A /run /root /home | wc -l; echo x >/dev/null; head -c 3 /dev/zero | wc -c; mknod /tmp/n b 8 0 2>/dev/null && echo made";
    let execution = native.run(sh(script)).await;
    let text = stdout(&execution);
    let expected = "fd full null random shm stderr stdin stdout urandom zero 0\n5\n3";
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '\n');
    // Besides the shell there are `ls` and `grep` at that moment, not pid 1.
    assert!(text.starts_with(['2', '3', '4']), "{}", told(&execution));
    assert_eq!(rest, expected, "{}", told(&execution));
}

#[tokio::test]
async fn nothing_of_the_host_leaks_in() {
    let Some(native) = native() else { return };
    let secret = tempfile::NamedTempFile::new().expect("a file");
    // SAFETY: duplicating a descriptor without close-on-exec, to see that it isn't inherited.
    let leaked = unsafe { libc::dup(std::os::fd::AsRawFd::as_raw_fd(&secret)) };
    let script = "ls /proc/self/fd | tr '\\n' ' '; cat /proc/self/cgroup | tr '\\n' ' '; cat /proc/self/mountinfo; cat /proc/self/oom_score_adj";
    let second = common_start(&native);
    let execution = second.run(sh(script)).await;
    // SAFETY: ours.
    unsafe { libc::close(leaked) };
    let text = stdout(&execution);
    assert!(text.starts_with("0 1 2 3 "), "ls itself has one open: {text}");
    for path in [secret.path(), native.state.path(), std::path::Path::new("/root")] {
        assert!(!text.contains(&*path.to_string_lossy()), "{path:?} in {text}");
    }
    assert!(!text.contains("assay-"), "its cgroup is its root: {text}");
}

fn common_start(native: &crate::common::Fixture) -> crate::common::Fixture {
    let _ = native;
    crate::common::native().expect("a second backend")
}

#[tokio::test]
async fn limits_of_the_user_namespace_hold() {
    let Some(native) = native() else { return };
    let script = "cat /proc/sys/user/max_user_namespaces; python3 -c 'import ctypes; l = ctypes.CDLL(None); print(sum(l.inotify_init() >= 0 for _ in range(40)))'";
    let execution = native.run(sh(script)).await;
    if execution.isolation.fallbacks.iter().any(|fallback| fallback.starts_with("max_")) {
        println!("skipped: /proc/sys is read-only");
        return;
    }
    assert_eq!(stdout(&execution), "0\n16", "{}", told(&execution));
}

#[tokio::test]
async fn set_user_id_programs_gain_nothing() {
    let Some(native) = native() else { return };
    let script = "cp /bin/id /tmp/id && chmod 4755 /tmp/id && /tmp/id -u; cp /bin/id /work/id && chmod 6755 /work/id && /work/id -u";
    let execution = native.run(sh(script)).await;
    assert_eq!(stdout(&execution), "1000\n1000", "{}", told(&execution));
}

#[tokio::test]
async fn one_cannot_reach_another() {
    let Some(native) = native() else { return };
    let code = "import socket, time\ns = socket.socket(socket.AF_UNIX); s.bind('\\0meet'); s.listen()\nt = socket.socket(); t.bind(('127.0.0.1', 4242)); t.listen()\nopen('/tmp/here', 'w'); open('/dev/shm/here', 'w')\ntime.sleep(1.5); print('alone')";
    let other = "import os, socket, time\ntime.sleep(0.7)\nfor family, address in [(socket.AF_UNIX, '\\0meet'), (socket.AF_INET, ('127.0.0.1', 4242))]:\n try: socket.socket(family).connect(address); print('met')\n except OSError: pass\nprint(os.listdir('/tmp'), os.listdir('/dev/shm'), len([p for p in os.listdir('/proc') if p.isdigit()]))";
    let (first, second) = tokio::join!(native.run(python(code)), native.run(python(other)));
    assert_eq!(stdout(&first), "alone", "{}", told(&first));
    assert_eq!(stdout(&second), "[] [] 1", "{}", told(&second));
    if is_root() {
        let owner =
            || async { stdout(&native.run(command(&["/bin/cat", "/proc/self/uid_map"])).await) };
        let (a, b) = tokio::join!(owner(), owner());
        assert_ne!(a, b, "each slot has a host user of its own");
    }
}

/// A process may be in sixteen Landlock domains; one is ours. From a warm interpreter, too.
#[tokio::test]
async fn is_in_a_landlock_domain() {
    let Some(native) = native() else { return };
    let code = "import ctypes\n\
                libc = ctypes.CDLL(None)\n\
                writes = libc.syscall(444, (ctypes.c_uint64 * 1)(2), 8, 0)\n\
                print(sum(libc.syscall(446, writes, 0) == 0 for _ in range(20)))";
    let cold = native.run(python(code)).await;
    if cold.isolation.fallbacks.iter().any(|fallback| fallback.starts_with("landlock:")) {
        println!("skipped: {:?}", cold.isolation.fallbacks);
        return;
    }
    assert_eq!(stdout(&cold), "15", "{}", told(&cold));
    let warm = warm::run_in(&native, spec(), code, &["json"]).await;
    assert_eq!((stdout(&warm).as_str(), &warm.isolation.start), ("15", &Start::Warm));
}
