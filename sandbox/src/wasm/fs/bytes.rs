//! What nodes hold: opening and closing them, reading and writing.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use super::{Body, Content, Fs, FsResult, NodeId};
use crate::{BackendError, wasm::wasi::Errno};

impl Fs {
    /// Notes that a descriptor holds a node.
    pub(in crate::wasm) fn open(&mut self, id: NodeId) -> FsResult<()> {
        if let Body::File(Content::Host { path, file: file @ None, .. }) =
            &mut self.node_mut(id).body
        {
            match File::open(path) {
                Ok(opened) => *file = Some(opened),
                Err(e) => return Err(self.host_error(e)),
            }
        }
        self.node_mut(id).opened += 1;
        Ok(())
    }

    fn host_error(&self, source: io::Error) -> Errno {
        self.void(unreadable(source))
    }

    fn void(&self, error: BackendError) -> Errno {
        // The first is the reason; the run is void in any case.
        let _ = self.host_failed.set(error);
        Errno::Io
    }

    /// Notes that it does so no more.
    pub(in crate::wasm) fn close(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        node.opened -= 1;
        // The host's descriptors are everybody's.
        if node.opened == 0
            && let Body::File(Content::Host { file, .. }) = &mut node.body
        {
            *file = None;
        }
        self.free(id);
    }

    /// Gives back what has neither name nor descriptor.
    pub(super) fn free(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        if node.links > 0 || node.opened > 0 {
            return;
        }
        let gone = std::mem::replace(&mut node.body, Body::Symlink(Vec::new()));
        if let Body::File(Content::Own(bytes)) = gone {
            self.bytes_left += bytes.len() as u64;
            self.memory.shrink(bytes.len() as u64);
        }
        self.vacant.push(id);
    }

    pub(in crate::wasm) fn is_writable(&self, id: NodeId) -> bool {
        self.node(id).writable
    }

    /// Reads from `at` on, as much as there is; 0 at the end.
    pub(in crate::wasm) fn read(&self, id: NodeId, at: u64, buffer: &mut [u8]) -> FsResult<usize> {
        let Body::File(content) = &self.node(id).body else { return Err(Errno::Isdir) };
        let bytes: &[u8] = match content {
            Content::Shared(bytes) => bytes,
            Content::Own(bytes) => bytes,
            // Offsets that no file has are no failure of the host's.
            Content::Host { size, .. } if at >= *size => return Ok(0),
            Content::Host { file, .. } => {
                let file = file.as_ref().ok_or(Errno::Io)?;
                return read_full(file, at, buffer).map_err(|e| self.host_error(e));
            }
        };
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        let length = buffer.len().min(bytes.len() - from);
        buffer[..length].copy_from_slice(&bytes[from..from + length]);
        Ok(length)
    }

    /// Makes a file the sandbox's own and this long, if there is room.
    pub(in crate::wasm) fn resize(&mut self, id: NodeId, size: u64, now_ns: u64) -> FsResult<()> {
        if !self.node(id).writable {
            return Err(Errno::Rofs);
        }
        let length = usize::try_from(size).map_err(|_| Errno::Fbig)?;
        let Body::File(content) = &self.node(id).body else { return Err(Errno::Isdir) };
        let had = match content {
            Content::Own(bytes) => bytes.len() as u64,
            _ => 0,
        };
        let bytes_left = (self.bytes_left + had).checked_sub(size).ok_or(Errno::Nospc)?;
        match size.checked_sub(had) {
            Some(more) => self.memory.grow(more).map_err(|error| self.void(error))?,
            None => self.memory.shrink(had - size),
        }
        self.bytes_left = bytes_left;
        let node = &mut self.nodes[id.0];
        node.modified_ns = now_ns;
        let Body::File(content) = &mut node.body else { return Err(Errno::Isdir) };
        let own = match content {
            Content::Own(bytes) => bytes,
            Content::Shared(bytes) => {
                *content = Content::Own(bytes[..bytes.len().min(length)].to_vec());
                let Content::Own(bytes) = content else { return Err(Errno::Io) };
                bytes
            }
            Content::Host { file, size: had, .. } => {
                let keep = usize::try_from(*had).unwrap_or(usize::MAX).min(length);
                let mut bytes = vec![0; keep];
                let file = file.as_ref().ok_or(Errno::Io)?;
                if let Err(source) = read_full(file, 0, &mut bytes) {
                    let _ = self.host_failed.set(unreadable(source));
                    return Err(Errno::Io);
                }
                *content = Content::Own(bytes);
                let Content::Own(bytes) = content else { return Err(Errno::Io) };
                bytes
            }
        };
        own.resize(length, 0);
        // What a file no longer has counts for nobody, so nobody may keep it.
        if own.capacity() > 2 * length + 4096 {
            own.shrink_to(length);
        }
        Ok(())
    }

    /// Writes at `at`, which may lie behind the end. All of it, or what there is room for.
    pub(in crate::wasm) fn write(
        &mut self,
        id: NodeId,
        at: u64,
        bytes: &[u8],
        now_ns: u64,
    ) -> FsResult<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let size = self.size(id);
        let had = match &self.node(id).body {
            Body::File(Content::Own(bytes)) => bytes.len() as u64,
            Body::File(_) => 0,
            _ => return Err(Errno::Isdir),
        };
        let most = self.bytes_left.saturating_add(had);
        let end = at.checked_add(bytes.len() as u64).ok_or(Errno::Fbig)?.min(most);
        if end <= at {
            return Err(Errno::Nospc);
        }
        self.resize(id, end.max(size), now_ns)?;
        let Body::File(Content::Own(own)) = &mut self.node_mut(id).body else {
            return Err(Errno::Io);
        };
        let written = (end - at) as usize;
        let from = at as usize;
        own[from..from + written].copy_from_slice(&bytes[..written]);
        Ok(written)
    }

    pub(in crate::wasm) fn read_link(&self, id: NodeId) -> FsResult<&[u8]> {
        match &self.node(id).body {
            Body::Symlink(target) => Ok(target),
            _ => Err(Errno::Inval),
        }
    }

    /// Returns the entries of a folder from the `from`th on, `.` and `..` first, then by name.
    pub(in crate::wasm) fn list(
        &self,
        dir: NodeId,
        from: u64,
    ) -> FsResult<impl Iterator<Item = (&[u8], NodeId)>> {
        let Body::Dir { entries, parent } = &self.node(dir).body else {
            return Err(Errno::Notdir);
        };
        let dots = [(&b"."[..], dir), (&b".."[..], *parent)].into_iter();
        let names = entries.iter().map(|(name, id)| (&name[..], *id));
        Ok(dots.chain(names).skip(usize::try_from(from).unwrap_or(usize::MAX)))
    }

    pub(in crate::wasm) fn set_times(
        &mut self,
        id: NodeId,
        accessed_ns: Option<u64>,
        modified_ns: Option<u64>,
    ) -> FsResult<()> {
        let node = self.node_mut(id);
        if !node.writable {
            return Err(Errno::Rofs);
        }
        node.accessed_ns = accessed_ns.unwrap_or(node.accessed_ns);
        node.modified_ns = modified_ns.unwrap_or(node.modified_ns);
        Ok(())
    }

    /// Returns the content of a file of the tree, at most `max` bytes of it, by absolute path.
    pub(in crate::wasm) fn load(&mut self, path: &[u8], max: u64) -> FsResult<Vec<u8>> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let id = self.lookup(Self::ROOT, path, true)?;
        let size = self.size(id);
        if size > max {
            return Err(Errno::Fbig);
        }
        self.open(id)?;
        let mut bytes = vec![0; size as usize];
        let read = self.read(id, 0, &mut bytes);
        self.close(id);
        bytes.truncate(read?);
        Ok(bytes)
    }
}

fn unreadable(source: io::Error) -> BackendError {
    BackendError::Io { what: "read a file of the work tree".into(), source }
}

fn read_full(file: &File, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
