//! Network namespaces that the kernel need not make anew.
//!
//! To make and undo one costs as much as all else around a short command. One whose counters stand
//! where they stood when it was new has carried no packet and refused none; its sockets died with
//! their owners. So nothing is in it, and the slot's next sandbox may have it.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
};

use super::{
    shared::{AtStep, StepError},
    sys,
};

/// All that a network namespace counts, and what can be left in one without packets: labels of IPv6
/// flows, and sockets on their way to somebody else. The kernel may lack the last two.
const COUNTERS: [&str; 6] = ["dev", "snmp", "netstat", "sockstat", "snmp6", "ip6_flowlabel"];
/// The first of those that the kernel may lack.
const OPTIONAL: usize = 4;
/// Has the sockets of the namespace on its first line, and of all the machine on others.
const SOCKETS: usize = 3;

/// A network namespace, and what it counted when it was new.
pub(super) struct Network {
    namespace: OwnedFd,
    counters: Vec<File>,
    fresh: Box<[u8]>,
}

/// Moves this process to a new network namespace with the loopback interface and nothing else, or to
/// one that serves again.
pub(super) fn enter(network: Option<BorrowedFd<'_>>) -> Result<(), StepError> {
    if let Some(namespace) = network {
        return sys::setns(namespace, libc::CLONE_NEWNET).at("enter the network");
    }
    sys::unshare(libc::CLONE_NEWNET).at("unshare the network")?;
    sys::loopback_up().at("switch the loopback on")
}

/// Opens the counters of this process's network namespace; `proc` is where `/proc` is.
pub(super) fn counters(proc: &str) -> Vec<OwnedFd> {
    let open = |name: &&str| File::open(format!("{proc}/self/net/{name}")).map(OwnedFd::from);
    let (needed, optional) = COUNTERS.split_at(OPTIONAL);
    let needed: io::Result<Vec<_>> = needed.iter().map(open).collect();
    let mut counters = needed.unwrap_or_default();
    counters.extend(optional.iter().filter_map(|name| open(name).ok()));
    counters
}

impl Network {
    /// Takes a new namespace and its counters, before a command is in it.
    pub(super) fn new(namespace: OwnedFd, counters: Vec<OwnedFd>) -> Self {
        let counters = counters.into_iter().map(File::from).collect();
        let mut network = Self { namespace, counters, fresh: Box::default() };
        let mut fresh = Vec::new();
        let read = network.read(|text| fresh.extend(text));
        network.fresh = read.map_or_else(|_| Box::default(), |()| fresh.into());
        network
    }

    /// Whether nothing has happened in it, once all processes in it are dead.
    pub(super) fn is_fresh(&self) -> bool {
        let mut left = &*self.fresh;
        let mut same = !left.is_empty();
        let read = self.read(|text| match left.strip_prefix(text) {
            Some(rest) => left = rest,
            None => same = false,
        });
        read.is_ok() && same && left.is_empty()
    }

    /// Reads all counters, a piece at a time.
    fn read(&self, mut piece: impl FnMut(&[u8])) -> io::Result<()> {
        if self.counters.len() < OPTIONAL {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut buffer = [0; 4096];
        for (place, file) in self.counters.iter().enumerate() {
            let mut at = 0;
            loop {
                let length = file.read_at(&mut buffer, at)?;
                if place == SOCKETS {
                    piece(buffer[..length].split(|byte| *byte == b'\n').next().unwrap_or_default());
                    break;
                }
                if length == 0 {
                    break;
                }
                piece(&buffer[..length]);
                at += length as u64;
            }
        }
        Ok(())
    }
}

impl AsFd for Network {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}
