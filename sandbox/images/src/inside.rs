//! Opens what lies inside a directory that somebody else filled.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// How often the kernel may ask to try again.
const MOST_TRIES: usize = 1000;

/// Opens the file at `path` as if `root` were the root directory: links lead nowhere else.
pub(crate) fn open_inside(
    root: impl AsFd,
    path: &OsStr,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = || rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
    for _ in 1..MOST_TRIES {
        match open() {
            // Something was renamed or mounted, anywhere, while a `..` was resolved.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    open()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicBool, Ordering},
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn renames_elsewhere_are_no_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("root/a")).unwrap();
        let root = fs::File::open(folder.path().join("root")).unwrap();
        let path = "a/../".repeat(5) + "a";
        let path = OsStr::new(&path);
        let done = AtomicBool::new(false);
        let rename = || {
            let (one, other) = (folder.path().join("one"), folder.path().join("other"));
            fs::write(&one, "").unwrap();
            while !done.load(Ordering::Relaxed) {
                fs::rename(&one, &other).unwrap();
                fs::rename(&other, &one).unwrap();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(rename);
            let flags = OFlags::PATH;
            let once = || {
                let resolve = ResolveFlags::IN_ROOT;
                rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)
            };
            let started = Instant::now();
            let mut asked_again = 0;
            while asked_again < 100 && started.elapsed() < Duration::from_secs(5) {
                asked_again += usize::from(matches!(once(), Err(Errno::AGAIN)));
                let opened = open_inside(&root, path, flags);
                if let Err(errno) = opened {
                    done.store(true, Ordering::Relaxed);
                    panic!("{errno}");
                }
            }
            done.store(true, Ordering::Relaxed);
            if asked_again == 0 {
                println!("skipped: nothing came in between");
            }
        });
    }
}
