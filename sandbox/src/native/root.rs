//! The root of sandboxes: an image, trusted files and mount points as one read-only overlay.
//!
//! A slot keeps one for all its sandboxes that want the same, so what they look up is looked up once.
//! Nobody can write to it and no two sandboxes have it at the same time, so nothing gets from one to
//! the other by it: locks, leases and watches die with who has them. Slots share none.

use std::{
    fmt::Write as _,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, mkdirat, openat},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount, mount_bind,
        mount_bind_recursive, mount_change, mount_move, mount_remount, move_mount, unmount,
    },
};

use super::{
    job::NewRoot,
    shared::{AtStep, StepError},
    sys,
    tree::{self, c_str, make_directories, make_directory, open_directory, relative, write_file},
};

/// Where a slot has the root of its sandboxes.
pub(super) const ROOT: &str = "/root";
/// Where the finished `/dev` is as long as no root has it.
const DEV: &str = "/dev";
/// Where a root's own files are made.
const MADE: &str = "/made";

pub(super) const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// What a slot's root is for.
pub(super) struct Root {
    /// The directory that the work tree is mounted on, relative to the root.
    pub(super) workdir: PathBuf,
}

/// The devices that sandboxed programs find.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Leaves the host's tree for a small one: places to mount on, a finished `/dev`, and the host's
/// `/proc`, without which the kernel mounts no other.
pub(super) fn leave_host() -> Result<(), StepError> {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).at("make mounts private")?;
    let at = "/tmp";
    mount("tmpfs", at, "tmpfs", quiet, c"mode=755,size=256k,nr_inodes=64").at("mount a tmpfs")?;
    rustix::process::chdir(at).at("enter the tmpfs")?;
    let directory = |name: &str| mkdirat(CWD, name, Mode::from_raw_mode(0o755));
    for name in [ROOT, MADE, DEV, "/proc"] {
        directory(name.trim_start_matches('/')).at("make a directory")?;
    }
    mount_bind_recursive("/proc", "proc").at("bind the host's /proc")?;
    mount("tmpfs", "dev", "tmpfs", quiet, c"mode=755,size=64k,nr_inodes=32").at("mount /dev")?;
    directory("dev/shm").at("make a directory")?;
    for device in DEVICES {
        let path = format!("dev/{device}");
        let flags = OFlags::CREATE | OFlags::CLOEXEC | OFlags::WRONLY;
        drop(openat(CWD, &path, flags, Mode::from_raw_mode(0o644)).at("make a device")?);
        mount_bind(format!("/dev/{device}"), &path).at("bind a device")?;
    }
    for (target, link) in [
        ("/proc/self/fd", "dev/fd"),
        ("/proc/self/fd/0", "dev/stdin"),
        ("/proc/self/fd/1", "dev/stdout"),
        ("/proc/self/fd/2", "dev/stderr"),
    ] {
        rustix::fs::symlinkat(target, CWD, link).at("link in /dev")?;
    }
    let read_only = MountFlags::BIND | MountFlags::RDONLY | quiet;
    mount_remount("dev", read_only, c"").at("make /dev read-only")?;
    enter(".")?;
    rustix::process::chdir("/").at("enter the root")
}

impl Root {
    /// Mounts a root at [`ROOT`], whose image lies behind `image`.
    pub(super) fn mount(new: &NewRoot<'_>, image: &[OwnedFd]) -> Result<Self, StepError> {
        let workdir = relative(new.workdir);
        lay(image, &new.trusted, &[Path::new("proc"), workdir], ROOT)?;
        if let Err(e) = mount_move(DEV, in_root(ROOT, DEV)) {
            unmount(ROOT, UnmountFlags::DETACH).at("unmount the root")?;
            return Err(e).at("move /dev");
        }
        Ok(Self { workdir: workdir.to_owned() })
    }

    /// Unmounts it, so that there can be another.
    pub(super) fn unmount(self) -> Result<(), StepError> {
        mount_move(in_root(ROOT, DEV), DEV).at("move /dev back")?;
        unmount(ROOT, UnmountFlags::DETACH).at("unmount the root")
    }
}

/// Makes the image behind these mounts, with `programs` in it, the root of a mount namespace of its own, without work
/// tree and `/proc`. `rooted` is whether the slot, whose mounts it has, has a root.
pub(super) fn enter_image(
    image: &[OwnedFd],
    programs: &[(&[u8], &[u8])],
    rooted: bool,
) -> Result<(), StepError> {
    if rooted {
        mount_move(in_root(ROOT, DEV), DEV).at("move /dev")?;
    }
    // On the slot's, if there is one.
    lay(image, programs, &[], ROOT)?;
    mount_move(DEV, in_root(ROOT, DEV)).at("move /dev")?;
    let options = c"mode=1777,size=8m,nr_inodes=512";
    for place in ["/tmp", "/dev/shm"] {
        mount("tmpfs", in_root(ROOT, place), "tmpfs", QUIET, options).at("mount a tmpfs")?;
    }
    enter(ROOT)
}

/// Makes `path` the root, which it must be the mount of.
pub(super) fn enter(path: &str) -> Result<(), StepError> {
    rustix::process::chdir(path).at("enter the new root")?;
    rustix::process::pivot_root(".", ".").at("pivot the root")?;
    unmount(".", UnmountFlags::DETACH).at("detach the old root")
}

/// Returns where an absolute path of the root that is mounted at `root` lies.
pub(super) fn in_root(root: &str, path: &str) -> String {
    format!("{root}{path}")
}

/// Mounts `image`, with these folders and trusted files and those for `/dev` and `/tmp`, at `at`.
fn lay(
    image: &[OwnedFd],
    trusted: &[(&[u8], &[u8])],
    folders: &[&Path],
    at: &str,
) -> Result<(), StepError> {
    let (bytes, inodes) = tree::room(trusted.iter().map(|(path, content)| (*path, *content)));
    let inodes = inodes + 16 * (folders.len() + image.len() + 4) as u64;
    let options = format!("mode=755,size={},nr_inodes={inodes}\0", bytes + 4096);
    mount("tmpfs", MADE, "tmpfs", QUIET, c_str(&options)).at("mount a tmpfs")?;
    let laid = overlay(image, trusted, folders, at);
    rustix::process::chdir("/").at("leave the tmpfs")?;
    // The overlay has its own hold on it.
    unmount(MADE, UnmountFlags::DETACH).at("detach the layers")?;
    laid
}

fn overlay(
    image: &[OwnedFd],
    trusted: &[(&[u8], &[u8])],
    folders: &[&Path],
    at: &str,
) -> Result<(), StepError> {
    rustix::process::chdir(MADE).at("enter the tmpfs")?;
    make_directory("own", 0o755).at("make a directory")?;
    let own = open_directory(CWD, Path::new("own")).at("open a directory")?;
    for path in [Path::new("dev"), Path::new("tmp")].iter().chain(folders) {
        make_directories(own.as_fd(), path).at("make a mount point")?;
    }
    for (path, content) in trusted {
        write_file(own.as_fd(), relative(path), content, 0o444).at("write a trusted file")?;
    }
    let mut options = String::from("lowerdir=own");
    for (number, mount) in image.iter().enumerate().rev() {
        let name = format!("i{number}");
        make_directory(&name, 0o755).at("make a directory")?;
        attach(Some(mount), &name).at("attach the image")?;
        let _ = write!(options, ":{name}");
    }
    options.push_str(",userxattr\0");
    // No upper layer: nothing can make this one writable.
    let read_only = QUIET | MountFlags::RDONLY;
    mount("overlay", at, "overlay", read_only, c_str(&options)).at("mount the root overlay")
}

pub(super) fn attach(mount: Option<&OwnedFd>, at: &str) -> rustix::io::Result<()> {
    let mount = mount.ok_or(Errno::BADF)?;
    move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Opens the tree at `path` of the caller's mount namespace as a detached, read-only mount.
///
/// With `ids`, what the service's user owns there belongs to the user that this namespace maps.
pub(super) fn detached_mount(path: &Path, ids: Option<BorrowedFd<'_>>) -> std::io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags)?;
    sys::seal_mount(tree.as_fd(), ids)?;
    Ok(tree)
}
