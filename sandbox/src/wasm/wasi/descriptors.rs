//! The descriptors of a program: plain numbers, with what the host keeps behind each.

use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc};

use super::{super::fs::NodeId, Errno};

/// Most descriptors at a time.
const MAX: usize = 1024;
/// Numbers below are stdio.
const FIRST: u32 = 3;

/// What a descriptor leads to.
#[derive(Debug)]
pub(in crate::wasm) enum Object {
    /// Bytes that end.
    Input { bytes: Arc<[u8]>, at: usize },
    /// The collector of this number.
    Output(usize),
    /// A socket or pipe of the host's, in non-blocking mode.
    Stream(OwnedFd),
    /// A file or folder of the tree.
    Node {
        id: NodeId,
        at: u64,
        /// The name by which a program finds a folder that it didn't open itself.
        preopened: Option<Vec<u8>>,
    },
}

#[derive(Debug)]
pub(in crate::wasm) struct Descriptor {
    pub(super) object: Object,
    pub(super) reads: bool,
    pub(super) writes: bool,
    /// `fdflags`: append 1, non-blocking 4.
    pub(super) flags: u16,
}

/// The table of them.
#[derive(Debug, Default)]
pub(in crate::wasm) struct Descriptors {
    open: BTreeMap<u32, Descriptor>,
}

impl Descriptors {
    /// Puts an object at a number, for the host.
    pub(in crate::wasm) fn place(&mut self, number: u32, object: Object) {
        let reads = !matches!(object, Object::Output(_));
        let writes = matches!(object, Object::Output(_) | Object::Stream(_));
        self.open.insert(number, Descriptor { object, reads, writes, flags: 0 });
    }

    /// Puts an object at the first number behind all others, for the host.
    pub(in crate::wasm) fn place_free(&mut self, object: Object) {
        let last = self.open.keys().next_back().copied().unwrap_or(0);
        self.place(FIRST.max(last + 1), object);
    }

    /// Whether a folder is to be found at a higher number. Programs look for them upward from 3
    /// until there is no descriptor.
    pub(super) fn is_before_preopened(&self, number: u32) -> bool {
        let preopened =
            |open: &Descriptor| matches!(open.object, Object::Node { preopened: Some(_), .. });
        number >= FIRST && self.open.range(number..).any(|(_, open)| preopened(open))
    }

    pub(super) fn add(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        if self.open.len() >= MAX {
            return Err(Errno::Mfile);
        }
        let mut free = FIRST;
        for number in self.open.range(FIRST..).map(|(number, _)| *number) {
            if number != free {
                break;
            }
            free += 1;
        }
        self.open.insert(free, descriptor);
        Ok(free)
    }

    pub(super) fn get(&self, number: u32) -> Result<&Descriptor, Errno> {
        self.open.get(&number).ok_or(Errno::Badf)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Result<&mut Descriptor, Errno> {
        self.open.get_mut(&number).ok_or(Errno::Badf)
    }

    pub(super) fn remove(&mut self, number: u32) -> Result<Descriptor, Errno> {
        self.open.remove(&number).ok_or(Errno::Badf)
    }

    /// Moves a descriptor to another number and returns what stood there.
    pub(super) fn renumber(&mut self, from: u32, to: u32) -> Result<Option<Descriptor>, Errno> {
        // As its definition says: only onto a number that is open.
        self.get(to)?;
        let moved = self.remove(from)?;
        Ok(self.open.insert(to, moved))
    }
}
