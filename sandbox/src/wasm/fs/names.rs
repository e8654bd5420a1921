//! Making, moving and removing names.

use std::collections::BTreeMap;

use super::{Body, Content, Found, Fs, FsResult, Kind, MAX_PATH, NodeId};
use crate::wasm::wasi::Errno;

impl Fs {
    fn create(&mut self, at: &Found, body: Body, now_ns: u64) -> FsResult<NodeId> {
        if at.node.is_some() {
            return Err(Errno::Exist);
        }
        self.check_writable(at.parent)?;
        self.inodes_left = self.inodes_left.checked_sub(1).ok_or(Errno::Nospc)?;
        let id = self.push(body, true);
        let node = self.node_mut(id);
        (node.counted, node.accessed_ns, node.modified_ns) = (true, now_ns, now_ns);
        self.attach(at.parent, &at.name, id);
        self.node_mut(at.parent).modified_ns = now_ns;
        Ok(id)
    }

    pub(super) fn check_writable(&self, dir: NodeId) -> FsResult<()> {
        let node = self.node(dir);
        match node.links {
            0 => Err(Errno::Noent), // removed, but still open somewhere
            _ if !node.writable => Err(Errno::Rofs),
            _ => Ok(()),
        }
    }

    pub(in crate::wasm) fn create_file(&mut self, at: &Found, now_ns: u64) -> FsResult<NodeId> {
        self.create(at, Body::File(Content::Own(Vec::new())), now_ns)
    }

    pub(in crate::wasm) fn create_dir(&mut self, at: &Found, now_ns: u64) -> FsResult<NodeId> {
        let body = Body::Dir { entries: BTreeMap::new(), parent: at.parent };
        self.create(at, body, now_ns)
    }

    pub(in crate::wasm) fn create_symlink(
        &mut self,
        at: &Found,
        target: &[u8],
        now_ns: u64,
    ) -> FsResult<NodeId> {
        if target.is_empty() || target.contains(&0) {
            return Err(Errno::Inval);
        }
        if target.len() > MAX_PATH {
            return Err(Errno::Nametoolong);
        }
        self.create(at, Body::Symlink(target.to_vec()), now_ns)
    }

    /// Gives a file a second name.
    pub(in crate::wasm) fn link(&mut self, node: NodeId, at: &Found) -> FsResult<()> {
        match (self.kind(node), at.node) {
            (Kind::Dir, _) => return Err(Errno::Perm),
            (_, Some(_)) => return Err(Errno::Exist),
            _ => self.check_writable(at.parent)?,
        }
        self.inodes_left = self.inodes_left.checked_sub(1).ok_or(Errno::Nospc)?;
        self.attach(at.parent, &at.name, node);
        Ok(())
    }

    /// Removes a file or link (`dir` false) or an empty folder (`dir` true).
    pub(in crate::wasm) fn unlink(&mut self, at: &Found, dir: bool, now_ns: u64) -> FsResult<()> {
        let node = at.node.ok_or(Errno::Noent)?;
        match (self.kind(node), dir) {
            (Kind::Dir, false) => return Err(Errno::Isdir),
            (Kind::File | Kind::Symlink, true) => return Err(Errno::Notdir),
            (Kind::Dir, true) if at.name == b"." => return Err(Errno::Inval),
            (Kind::Dir, true) if !self.entries(node)?.is_empty() => return Err(Errno::Notempty),
            _ => {}
        }
        self.detach(at.parent, &at.name, node, now_ns)
    }

    fn detach(&mut self, dir: NodeId, name: &[u8], node: NodeId, now_ns: u64) -> FsResult<()> {
        self.check_writable(dir)?;
        self.entries_mut(dir)?.remove(name);
        self.node_mut(dir).modified_ns = now_ns;
        self.node_mut(node).links -= 1;
        self.inodes_left += u64::from(self.node(node).counted);
        self.free(node);
        Ok(())
    }

    /// Moves a name; a file or an empty folder of the same kind that stands there is replaced.
    pub(in crate::wasm) fn rename(
        &mut self,
        from: &Found,
        to: &Found,
        now_ns: u64,
    ) -> FsResult<()> {
        let node = from.node.ok_or(Errno::Noent)?;
        self.check_writable(from.parent)?;
        self.check_writable(to.parent)?;
        if from.name == b"." || to.name == b"." {
            return Err(Errno::Inval);
        }
        if to.node == Some(node) {
            return Ok(());
        }
        if self.kind(node) == Kind::Dir {
            let mut above = to.parent;
            loop {
                if above == node {
                    return Err(Errno::Inval); // a folder can't move into itself
                }
                match &self.node(above).body {
                    Body::Dir { parent, .. } if above != Self::ROOT => above = *parent,
                    _ => break,
                }
            }
        }
        if let Some(there) = to.node {
            match (self.kind(node), self.kind(there)) {
                (Kind::Dir, Kind::Dir) => self.unlink(to, true, now_ns)?,
                (Kind::Dir, _) => return Err(Errno::Notdir),
                (_, Kind::Dir) => return Err(Errno::Isdir),
                _ => self.unlink(to, false, now_ns)?,
            }
        }
        self.entries_mut(from.parent)?.remove(&from.name);
        self.node_mut(node).links -= 1;
        self.attach(to.parent, &to.name, node);
        self.node_mut(from.parent).modified_ns = now_ns;
        self.node_mut(to.parent).modified_ns = now_ns;
        Ok(())
    }
}
