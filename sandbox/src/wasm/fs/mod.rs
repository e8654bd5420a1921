//! The files of a sandbox, in memory: what the program writes never reaches the host's disk.
//!
//! One tree holds everything that a program can name. Files of layers are read where they lie on the
//! host, through descriptors that the program never has, until it changes them. Inode numbers, times
//! and the order of folders are the same in every run.

mod bytes;
mod names;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::File,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use super::{memory::Share, wasi::Errno};
use crate::BackendError;

/// Most links that one path may go through.
const MAX_LINKS: u32 = 40;
const MAX_NAME: usize = 255;
const MAX_PATH: usize = 4096;

/// Names a file, folder or link; its number plus one is the inode's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wasm) struct NodeId(usize);

pub(in crate::wasm) type FsResult<T> = Result<T, Errno>;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wasm) enum Kind {
    Dir,
    File,
    Symlink,
}

/// What a program may ask about a node. Times are nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(in crate::wasm) struct Stat {
    pub(in crate::wasm) inode: u64,
    pub(in crate::wasm) kind: Kind,
    pub(in crate::wasm) links: u64,
    pub(in crate::wasm) size: u64,
    pub(in crate::wasm) accessed_ns: u64,
    pub(in crate::wasm) modified_ns: u64,
}

/// Where the bytes of a file are.
#[derive(Debug)]
pub(in crate::wasm) enum Content {
    /// In a layer's map; shared with every sandbox of the task.
    Shared(Arc<[u8]>),
    /// In a layer's folder on the host, opened when it is first read.
    Host { path: PathBuf, file: Option<File>, size: u64 },
    /// The sandbox's own; counted.
    Own(Vec<u8>),
}

#[derive(Debug)]
enum Body {
    Dir { entries: BTreeMap<Vec<u8>, NodeId>, parent: NodeId },
    File(Content),
    Symlink(Vec<u8>),
}

#[derive(Debug)]
struct Node {
    body: Body,
    links: u32,
    /// Descriptors that hold it; its bytes live as long as there are any.
    opened: u32,
    writable: bool,
    /// Whether it counts as an inode of the program's.
    counted: bool,
    accessed_ns: u64,
    modified_ns: u64,
}

/// A path taken apart: its folder, its last name, and the node of that name.
#[derive(Debug)]
pub(in crate::wasm) struct Found {
    pub(in crate::wasm) parent: NodeId,
    pub(in crate::wasm) name: Vec<u8>,
    pub(in crate::wasm) node: Option<NodeId>,
}

/// The tree, and what may still be written to it.
#[derive(Debug)]
pub(in crate::wasm) struct Fs {
    nodes: Vec<Node>,
    /// Nodes that are gone, to be used again.
    vacant: Vec<NodeId>,
    bytes_left: u64,
    inodes_left: u64,
    /// The memory that the sandbox's own files take.
    memory: Share,
    /// What of ours failed while a program used a file: no result of it counts.
    pub(in crate::wasm) host_failed: OnceLock<BackendError>,
}

impl Fs {
    /// The root folder, which nobody can write to.
    pub(in crate::wasm) const ROOT: NodeId = NodeId(0);

    /// Makes an empty tree into which so many bytes and files may be written.
    pub(in crate::wasm) fn new(bytes: u64, inodes: u64, memory: Share) -> Self {
        let mut fs = Self {
            nodes: Vec::new(),
            vacant: Vec::new(),
            bytes_left: bytes,
            inodes_left: inodes,
            memory,
            host_failed: OnceLock::new(),
        };
        fs.push(Body::Dir { entries: BTreeMap::new(), parent: Self::ROOT }, false);
        fs.nodes[0].links = 1;
        fs
    }

    fn push(&mut self, body: Body, writable: bool) -> NodeId {
        let (accessed_ns, modified_ns) = (0, 0);
        let node =
            Node { body, links: 0, opened: 0, writable, counted: false, accessed_ns, modified_ns };
        match self.vacant.pop() {
            Some(id) => {
                self.nodes[id.0] = node;
                id
            }
            None => {
                self.nodes.push(node);
                NodeId(self.nodes.len() - 1)
            }
        }
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0]
    }

    fn entries(&self, dir: NodeId) -> FsResult<&BTreeMap<Vec<u8>, NodeId>> {
        match &self.node(dir).body {
            Body::Dir { entries, .. } => Ok(entries),
            _ => Err(Errno::Notdir),
        }
    }

    fn entries_mut(&mut self, dir: NodeId) -> FsResult<&mut BTreeMap<Vec<u8>, NodeId>> {
        match &mut self.node_mut(dir).body {
            Body::Dir { entries, .. } => Ok(entries),
            _ => Err(Errno::Notdir),
        }
    }

    /// Puts a folder at `path`, with those above it; what is in the way gives way. For the host
    /// alone: nothing is counted.
    pub(in crate::wasm) fn place_dir(&mut self, path: &[u8], writable: bool) -> NodeId {
        let mut at = Self::ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let known = self.entries(at).ok().and_then(|entries| entries.get(name)).copied();
            at = match known.filter(|id| self.kind(*id) == Kind::Dir) {
                Some(known) => known,
                None => {
                    let dir = Body::Dir { entries: BTreeMap::new(), parent: at };
                    let id = self.push(dir, writable);
                    self.attach(at, name, id);
                    id
                }
            };
        }
        if writable {
            self.node_mut(at).writable = true;
        }
        at
    }

    /// Puts a file in a folder. For the host alone: nothing is counted.
    pub(in crate::wasm) fn place_file(
        &mut self,
        dir: NodeId,
        name: &[u8],
        content: Content,
        writable: bool,
    ) {
        let id = self.push(Body::File(content), writable);
        self.attach(dir, name, id);
    }

    /// Puts a link in a folder. For the host alone: nothing is counted.
    pub(in crate::wasm) fn place_symlink(&mut self, dir: NodeId, name: &[u8], target: Vec<u8>) {
        let id = self.push(Body::Symlink(target), false);
        self.attach(dir, name, id);
    }

    /// Takes a name out of a folder, with everything below it. For the host alone.
    pub(in crate::wasm) fn remove(&mut self, dir: NodeId, name: &[u8]) {
        if let Ok(entries) = self.entries_mut(dir) {
            entries.remove(name);
        }
    }

    fn attach(&mut self, dir: NodeId, name: &[u8], id: NodeId) {
        if let Ok(entries) = self.entries_mut(dir) {
            entries.insert(name.to_vec(), id);
        }
        if let Body::Dir { parent, .. } = &mut self.node_mut(id).body {
            *parent = dir;
        }
        self.node_mut(id).links += 1;
    }

    pub(in crate::wasm) fn kind(&self, id: NodeId) -> Kind {
        match self.node(id).body {
            Body::Dir { .. } => Kind::Dir,
            Body::File(_) => Kind::File,
            Body::Symlink(_) => Kind::Symlink,
        }
    }

    pub(in crate::wasm) fn stat(&self, id: NodeId) -> Stat {
        let node = self.node(id);
        Stat {
            inode: id.0 as u64 + 1,
            kind: self.kind(id),
            links: node.links.into(),
            size: self.size(id),
            accessed_ns: node.accessed_ns,
            modified_ns: node.modified_ns,
        }
    }

    pub(in crate::wasm) fn size(&self, id: NodeId) -> u64 {
        match &self.node(id).body {
            Body::Dir { .. } => 0,
            Body::File(Content::Shared(bytes)) => bytes.len() as u64,
            Body::File(Content::Host { size, .. }) => *size,
            Body::File(Content::Own(bytes)) => bytes.len() as u64,
            Body::Symlink(target) => target.len() as u64,
        }
    }

    /// Walks `path` from `dir`. `..` at the root stays there.
    pub(in crate::wasm) fn find(&self, dir: NodeId, path: &[u8], follow: bool) -> FsResult<Found> {
        if path.is_empty() {
            return Err(Errno::Noent);
        }
        if path.len() > MAX_PATH {
            return Err(Errno::Nametoolong);
        }
        if path.contains(&0) {
            return Err(Errno::Inval);
        }
        if path[0] == b'/' {
            return Err(Errno::Notcapable);
        }
        // A slash at the end asks for a folder, so a link there is followed.
        let follow = follow || path.ends_with(b"/");
        let mut left: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
        let (mut at, mut links) = (dir, 0);
        while let Some(name) = left.pop() {
            if name.len() > MAX_NAME {
                return Err(Errno::Nametoolong);
            }
            let Body::Dir { entries, parent } = &self.node(at).body else {
                return Err(Errno::Notdir);
            };
            if name == b".." {
                at = *parent;
                continue;
            }
            let node = entries.get(&name).copied();
            if let Some(Body::Symlink(target)) = node.map(|id| &self.node(id).body)
                && (follow || !left.is_empty())
            {
                links += 1;
                if links > MAX_LINKS || left.len() > MAX_PATH {
                    return Err(Errno::Loop);
                }
                if target.starts_with(b"/") {
                    at = Self::ROOT;
                }
                left.extend(parts(target).rev().map(<[u8]>::to_vec));
                continue;
            }
            if left.is_empty() {
                return Ok(Found { parent: at, name, node });
            }
            at = node.ok_or(Errno::Noent)?;
        }
        // The path ends in `.` or `..`, or names a folder it came from.
        match self.kind(at) {
            Kind::Dir => Ok(Found { parent: at, name: b".".to_vec(), node: Some(at) }),
            _ => Err(Errno::Notdir),
        }
    }

    /// Returns the node at `path`.
    pub(in crate::wasm) fn lookup(
        &self,
        dir: NodeId,
        path: &[u8],
        follow: bool,
    ) -> FsResult<NodeId> {
        let found = self.find(dir, path, follow)?;
        let node = found.node.ok_or(Errno::Noent)?;
        match path.ends_with(b"/") && self.kind(node) != Kind::Dir {
            true => Err(Errno::Notdir),
            false => Ok(node),
        }
    }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}
