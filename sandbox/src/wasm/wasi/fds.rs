//! The functions that concern a descriptor, without those that move bytes.

use std::io::SeekFrom;

use super::{
    super::fs::{Fs, Kind, NodeId, Stat},
    APPEND, Errno, MOST, NONBLOCK, RIGHT_READ, RIGHT_WRITE,
    calls::{Call, Done},
    descriptors::{Descriptor, Object},
};

/// All thirty of them.
const ALL_RIGHTS: u64 = (1 << 30) - 1;

impl Call<'_> {
    pub(super) fn folder(&self, fd: u32) -> Result<NodeId, Errno> {
        match self.host.descriptors.get(fd)?.object {
            Object::Node { id, .. } if self.host.fs.kind(id) == Kind::Dir => Ok(id),
            _ => Err(Errno::Notdir),
        }
    }

    pub(super) fn node(&self, fd: u32) -> Result<NodeId, Errno> {
        match self.host.descriptors.get(fd)?.object {
            Object::Node { id, .. } => Ok(id),
            _ => Err(Errno::Inval),
        }
    }

    /// The file behind a descriptor that may be written.
    fn written(&self, fd: u32) -> Result<NodeId, Errno> {
        let node = self.node(fd)?;
        match self.host.descriptors.get(fd)?.writes {
            true => Ok(node),
            false => Err(Errno::Badf),
        }
    }

    pub(super) fn fd_advise(&mut self, fd: u32, _: u64, _: u64, advice: u32) -> Done {
        self.node(fd)?;
        if advice > 5 { Err(Errno::Inval.into()) } else { Ok(()) }
    }

    pub(super) fn fd_allocate(&mut self, fd: u32, offset: u64, length: u64) -> Done {
        let node = self.written(fd)?;
        let end = offset.checked_add(length).ok_or(Errno::Fbig)?;
        if end > self.host.fs.size(node) {
            self.resize(node, end)?;
        }
        Ok(())
    }

    fn resize(&mut self, node: NodeId, size: u64) -> Result<(), Errno> {
        let now = self.host.today_ns();
        self.host.fs.resize(node, size, now)?;
        self.pay(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(())
    }

    pub(super) fn fd_close(&mut self, fd: u32) -> Done {
        let closed = self.host.descriptors.remove(fd)?;
        self.close(closed);
        Ok(())
    }

    fn close(&mut self, descriptor: Descriptor) {
        if let Object::Node { id, .. } = descriptor.object {
            self.host.fs.close(id);
        }
    }

    pub(super) fn fd_datasync(&mut self, fd: u32) -> Done {
        self.fd_sync(fd)
    }

    pub(super) fn fd_sync(&mut self, fd: u32) -> Done {
        self.host.descriptors.get(fd)?;
        Ok(())
    }

    pub(super) fn fd_fdstat_get(&mut self, fd: u32, out: u32) -> Done {
        let descriptor = self.host.descriptors.get(fd)?;
        let kind = self.filetype(&descriptor.object);
        let rights = match &descriptor.object {
            Object::Node { .. } => ALL_RIGHTS,
            // Neither seek nor tell: this is how programs know a terminal or a pipe.
            _ => RIGHT_READ | RIGHT_WRITE | 1 << 3 | 1 << 21 | 1 << 27 | 1 << 28,
        };
        let rights = match (descriptor.reads, descriptor.writes) {
            (true, true) => rights,
            (true, false) => rights & !RIGHT_WRITE,
            (false, true) => rights & !RIGHT_READ,
            (false, false) => rights & !(RIGHT_READ | RIGHT_WRITE),
        };
        let mut stat = [0; 24];
        stat[0] = kind;
        stat[2..4].copy_from_slice(&descriptor.flags.to_le_bytes());
        stat[8..16].copy_from_slice(&rights.to_le_bytes());
        stat[16..24].copy_from_slice(&ALL_RIGHTS.to_le_bytes());
        Ok(self.guest.write(out, &stat)?)
    }

    fn filetype(&self, object: &Object) -> u8 {
        match object {
            Object::Stream(_) => 6,
            Object::Node { id, .. } => filetype(self.host.fs.kind(*id)),
            // A pipe has no type of its own here.
            Object::Input { .. } | Object::Output(_) => 0,
        }
    }

    pub(super) fn fd_fdstat_set_flags(&mut self, fd: u32, flags: u32) -> Done {
        let descriptor = self.host.descriptors.get_mut(fd)?;
        descriptor.flags = flags as u16 & (APPEND | NONBLOCK);
        Ok(())
    }

    pub(super) fn fd_fdstat_set_rights(&mut self, fd: u32, base: u64, _inheriting: u64) -> Done {
        let descriptor = self.host.descriptors.get_mut(fd)?;
        // Rights are given up, never gained.
        descriptor.reads &= base & RIGHT_READ != 0;
        descriptor.writes &= base & RIGHT_WRITE != 0;
        Ok(())
    }

    pub(super) fn fd_filestat_get(&mut self, fd: u32, out: u32) -> Done {
        let descriptor = self.host.descriptors.get(fd)?;
        let stat = match &descriptor.object {
            Object::Node { id, .. } => filestat(&self.host.fs.stat(*id)),
            other => {
                let mut stat = [0; 64];
                stat[16] = self.filetype(other);
                stat
            }
        };
        Ok(self.guest.write(out, &stat)?)
    }

    pub(super) fn fd_filestat_set_size(&mut self, fd: u32, size: u64) -> Done {
        let node = self.written(fd)?;
        Ok(self.resize(node, size)?)
    }

    pub(super) fn fd_filestat_set_times(
        &mut self,
        fd: u32,
        accessed: u64,
        modified: u64,
        flags: u32,
    ) -> Done {
        let node = self.node(fd)?;
        self.set_times(node, accessed, modified, flags)
    }

    pub(super) fn set_times(
        &mut self,
        node: NodeId,
        accessed: u64,
        modified: u64,
        flags: u32,
    ) -> Done {
        let now = self.host.today_ns();
        let time = |given: u64, set: u32, to_now: u32| match (flags & set, flags & to_now) {
            (0, 0) => Ok(None),
            (_, 0) => Ok(Some(given)),
            (0, _) => Ok(Some(now)),
            _ => Err(Errno::Inval),
        };
        let (accessed, modified) = (time(accessed, 1, 2)?, time(modified, 4, 8)?);
        Ok(self.host.fs.set_times(node, accessed, modified)?)
    }

    pub(super) fn fd_prestat_get(&mut self, fd: u32, out: u32) -> Done {
        let name = match self.host.descriptors.get(fd) {
            Ok(Descriptor { object: Object::Node { preopened: Some(name), .. }, .. }) => name.len(),
            // No folder, but one comes: `2` is no kind of preopened descriptor that there is.
            _ if self.host.descriptors.is_before_preopened(fd) => {
                return Ok(self.guest.write(out, &[2, 0, 0, 0, 0, 0, 0, 0])?);
            }
            _ => return Err(Errno::Badf.into()),
        };
        self.guest.write_u32(out, 0)?;
        Ok(self.guest.write_u32(out.checked_add(4).ok_or(Errno::Fault)?, name as u32)?)
    }

    pub(super) fn fd_prestat_dir_name(&mut self, fd: u32, out: u32, length: u32) -> Done {
        let Object::Node { preopened: Some(name), .. } = &self.host.descriptors.get(fd)?.object
        else {
            return Err(Errno::Badf.into());
        };
        if name.len() > length as usize {
            return Err(Errno::Nametoolong.into());
        }
        Ok(self.guest.write(out, name)?)
    }

    pub(super) fn fd_readdir(
        &mut self,
        fd: u32,
        buffer: u32,
        length: u32,
        cookie: u64,
        out: u32,
    ) -> Done {
        let dir = self.folder(fd)?;
        let most = (length as usize).min(MOST);
        let mut entries = Vec::new();
        for (number, (name, id)) in
            (cookie.saturating_add(1)..).zip(self.host.fs.list(dir, cookie)?)
        {
            let stat = self.host.fs.stat(id);
            entries.extend(number.to_le_bytes());
            entries.extend(stat.inode.to_le_bytes());
            entries.extend((name.len() as u32).to_le_bytes());
            entries.extend([filetype(stat.kind), 0, 0, 0]);
            entries.extend(name);
            if entries.len() >= most {
                break;
            }
        }
        entries.truncate(most);
        // Going to an entry walks by all before it.
        self.pay(entries.len() + usize::try_from(cookie).unwrap_or(usize::MAX).min(1 << 20) * 8);
        self.guest.write(buffer, &entries)?;
        Ok(self.guest.write_u32(out, entries.len() as u32)?)
    }

    pub(super) fn fd_renumber(&mut self, from: u32, to: u32) -> Done {
        if from == to {
            self.host.descriptors.get(from)?;
            return Ok(());
        }
        if let Some(closed) = self.host.descriptors.renumber(from, to)? {
            self.close(closed);
        }
        Ok(())
    }

    pub(super) fn fd_seek(&mut self, fd: u32, offset: i64, whence: u32, out: u32) -> Done {
        let from = match whence {
            0 => SeekFrom::Start(u64::try_from(offset).map_err(|_| Errno::Inval)?),
            1 => SeekFrom::Current(offset),
            2 => SeekFrom::End(offset),
            _ => return Err(Errno::Inval.into()),
        };
        let Object::Node { id, at, .. } = &mut self.host.descriptors.get_mut(fd)?.object else {
            return Err(Errno::Spipe.into());
        };
        let to = match from {
            SeekFrom::Start(to) => Some(to),
            SeekFrom::Current(by) => at.checked_add_signed(by),
            SeekFrom::End(by) => self.host.fs.size(*id).checked_add_signed(by),
        };
        // As offsets of a kernel do, these stay below 2^63.
        *at = to.filter(|to| i64::try_from(*to).is_ok()).ok_or(Errno::Inval)?;
        let at = *at;
        Ok(self.guest.write_u64(out, at)?)
    }

    pub(super) fn fd_tell(&mut self, fd: u32, out: u32) -> Done {
        self.fd_seek(fd, 0, 1, out)
    }
}

/// Opens a folder for the program, before it starts.
pub(in crate::wasm) fn preopened(fs: &mut Fs, path: &[u8], name: &[u8]) -> Result<Object, Errno> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let id = if path.is_empty() { Fs::ROOT } else { fs.lookup(Fs::ROOT, path, true)? };
    fs.open(id)?;
    Ok(Object::Node { id, at: 0, preopened: Some(name.to_vec()) })
}

fn filetype(kind: Kind) -> u8 {
    match kind {
        Kind::Dir => 3,
        Kind::File => 4,
        Kind::Symlink => 7,
    }
}

pub(super) fn filestat(stat: &Stat) -> [u8; 64] {
    let mut out = [0; 64];
    let mut put = |at: usize, value: u64| out[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, 1);
    put(8, stat.inode);
    put(24, stat.links);
    put(32, stat.size);
    put(40, stat.accessed_ns);
    put(48, stat.modified_ns);
    put(56, stat.modified_ns);
    out[16] = filetype(stat.kind);
    out
}
