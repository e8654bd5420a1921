//! How a slot comes to be: it enters namespaces of its own, and gives up what it doesn't need.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::fs::Mode;

use super::{HostIds, RESOURCES, Slot};
use crate::native::{
    cgroup::{Role, SlotFiles},
    landlock, root,
    seccomp::Filters,
    shared::{AtStep, Shared, StepError},
    sys::{self, Cloned},
};

/// The user that commands run as, inside.
const INSIDE_ID: u32 = 1000;

impl<'a> Slot<'a> {
    /// Enters namespaces of its own and lays out the root that sandboxes start from. Returns, for a
    /// service that is root, the id mappings of layers and of images.
    pub(super) fn prepare(
        ids: Option<HostIds>,
        ahead: bool,
        cgroups: SlotFiles,
        seccomp: &'a Filters,
    ) -> Result<(Self, Vec<OwnedFd>), StepError> {
        sys::die_with_parent().at("tie the slot to its spawner")?;
        cgroups.write(Role::Monitor, "0").at("join the slot's cgroup")?;
        let (euid, egid) =
            (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let mut mappings = Vec::new();
        let own = match ids {
            Some(HostIds { root, user }) => {
                mappings.push(user_namespace(
                    &format!("{euid} {user} 1"),
                    &format!("{egid} {user} 1"),
                    true,
                )?);
                // What an image says is the inside user's is so. Others are nobody to a sandbox.
                mappings.push(user_namespace(
                    &format!("{euid} {root} 1\n{INSIDE_ID} {user} 1\n"),
                    &format!("{egid} {root} 1\n{INSIDE_ID} {user} 1\n"),
                    true,
                )?);
                let map = format!("0 {root} 1\n{INSIDE_ID} {user} 1\n");
                user_namespace(&map, &map, true)?
            }
            None => user_namespace(
                &format!("{INSIDE_ID} {euid} 1"),
                &format!("{INSIDE_ID} {egid} 1"),
                false,
            )?,
        };
        sys::setns(own.as_fd(), libc::CLONE_NEWUSER).at("enter the user namespace")?;
        sys::become_user(INSIDE_ID, INSIDE_ID).at("become the sandbox's user")?;
        // Changing ids cleared it.
        sys::die_with_parent().at("tie the slot to its spawner")?;

        let mut fallbacks: Vec<_> = landlock::fallback().into_iter().collect();
        for (name, value) in [("max_user_namespaces", "0"), ("max_inotify_instances", "16")] {
            if fs::write(format!("/proc/sys/user/{name}"), value).is_err() {
                fallbacks.push(format!("{name}: seccomp alone (/proc/sys is read-only)"));
            }
        }
        sys::unshare(libc::CLONE_NEWNS).at("unshare the mount namespace")?;
        let host_mounts = match ids {
            Some(_) => None,
            None => {
                let host = open_namespace().at("open the mount namespace")?;
                sys::unshare(libc::CLONE_NEWNS).at("unshare the mount namespace")?;
                Some((host, open_namespace().at("open the mount namespace")?))
            }
        };
        // Pid 1 sets its own before it starts anything.
        rustix::process::umask(Mode::empty());
        root::leave_host()?;
        fresh_namespaces()?;
        for (resource, soft, hard) in RESOURCES {
            sys::limit_resource(resource, soft, hard).at("set a resource limit")?;
        }
        sys::allow_namespace_capabilities().at("keep the right to enter namespaces")?;
        sys::drop_bounding_capabilities().at("drop bounding capabilities")?;
        sys::set_no_new_privs().at("set no_new_privs")?;
        sys::set_dumpable(false).at("hide the slot's memory")?;
        let slot = Self {
            host_mounts,
            cgroups,
            seccomp,
            shared: Shared::map().at("map the shared page")?,
            own_pidfd: sys::pidfd_open(rustix::process::getpid().as_raw_pid())
                .at("open a pidfd")?,
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            memory_limit: 0,
            pids_limit: 0,
            fallbacks,
            ahead,
            request: 0,
            root: None,
            network: None,
            next: None,
            namespaces: Vec::new(),
            interpreters: BTreeMap::new(),
        };
        Ok((slot, mappings))
    }
}

/// Makes a user namespace with these maps, which nobody is in, and returns a descriptor of it.
fn user_namespace(uids: &str, gids: &str, setgroups: bool) -> Result<OwnedFd, StepError> {
    let write = |pid: i32, name: &str, value: &str| fs::write(format!("/proc/{pid}/{name}"), value);
    // SAFETY: spawner and slots have one thread.
    let cloned = unsafe { sys::clone3(libc::CLONE_NEWUSER, None) };
    let Cloned::Parent { pidfd, pid } = cloned.at("make a user namespace")? else {
        let _ = sys::die_with_parent();
        loop {
            rustix::event::pause();
        }
    };
    let made = (|| {
        if !setgroups {
            write(pid, "setgroups", "deny").at("deny setgroups")?;
        }
        write(pid, "uid_map", uids).at("map user ids")?;
        write(pid, "gid_map", gids).at("map group ids")?;
        fs::File::open(format!("/proc/{pid}/ns/user")).at("open the user namespace")
    })();
    sys::kill_pidfd(pidfd.as_fd());
    sys::wait_pidfd(pidfd.as_fd()).at("reap a helper")?;
    Ok(made?.into())
}

fn open_namespace() -> io::Result<OwnedFd> {
    Ok(fs::File::open("/proc/self/ns/mnt")?.into())
}

/// Moves the slot to fresh ipc and uts namespaces, which its next sandbox inherits unused.
pub(super) fn fresh_namespaces() -> Result<(), StepError> {
    sys::unshare(libc::CLONE_NEWIPC | libc::CLONE_NEWUTS).at("unshare the ipc namespace")?;
    rustix::system::sethostname(b"assay").at("name the host")
}
