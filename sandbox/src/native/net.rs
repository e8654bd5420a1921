//! Network namespaces that the kernel need not make anew.
//!
//! To make and undo one costs as much as all else around a short command. One whose counters stand
//! where they stood when it was new has carried no packet and refused none; its sockets died with
//! their owners. So nothing is in it, and the next sandbox may have it.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use super::{
    shared::{AtStep, StepError},
    sys,
};

/// All that a network namespace counts; the kernel may lack the last.
const COUNTERS: [&str; 4] = ["dev", "snmp", "netstat", "snmp6"];
/// Most bytes of all of them.
const MOST: usize = 32 << 10;

/// The network namespace that this process is in, and what it counted when it was new.
pub(super) struct Network {
    counters: Vec<File>,
    fresh: Vec<u8>,
}

impl Network {
    /// Moves this process to a new one, with the loopback interface and nothing else.
    pub(super) fn enter_new() -> Result<Self, StepError> {
        sys::unshare(libc::CLONE_NEWNET).at("unshare the network")?;
        sys::loopback_up().at("switch the loopback on")?;
        let open = |name: &&str| File::open(format!("/proc/self/net/{name}")).ok();
        let counters: Vec<_> = COUNTERS.iter().filter_map(open).collect();
        let mut network = Self { counters, fresh: Vec::new() };
        network.fresh = network.read().unwrap_or_default();
        Ok(network)
    }

    /// Whether nothing has happened in it, once all processes in it but this one are dead.
    pub(super) fn is_fresh(&self) -> bool {
        self.counters.len() >= COUNTERS.len() - 1 && self.read().is_ok_and(|now| now == self.fresh)
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut text = vec![0; MOST];
        let mut at = 0;
        for file in &self.counters {
            let mut offset = 0;
            loop {
                if at == MOST {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                let length = file.read_at(&mut text[at..], offset)?;
                if length == 0 {
                    break;
                }
                at += length;
                offset += length as u64;
            }
        }
        text.truncate(at);
        Ok(text)
    }
}
