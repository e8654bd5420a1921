//! The functions that concern a path.

use super::{
    super::fs::{Found, Kind, NodeId},
    APPEND, Errno, NONBLOCK, RIGHT_READ, RIGHT_WRITE,
    calls::{Call, Done},
    descriptors::{Descriptor, Object},
    fds::filestat,
};

const FOLLOW: u32 = 1;
/// Of `oflags`.
const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const EXCLUSIVE: u32 = 4;
const TRUNCATE: u32 = 8;

impl Call<'_> {
    fn path(&mut self, at: u32, length: u32) -> Result<Vec<u8>, Errno> {
        let path = self.guest.bytes(at, length)?;
        match path.len() {
            0..=4096 => Ok(path.to_vec()),
            _ => Err(Errno::Nametoolong),
        }
    }

    fn found(&mut self, fd: u32, at: u32, length: u32, follow: bool) -> Result<Found, Errno> {
        let dir = self.folder(fd)?;
        let path = self.path(at, length)?;
        self.pay(path.len() * 64);
        self.host.fs.find(dir, &path, follow)
    }

    fn looked_up(&mut self, fd: u32, lookup: u32, at: u32, length: u32) -> Result<NodeId, Errno> {
        let dir = self.folder(fd)?;
        let path = self.path(at, length)?;
        self.pay(path.len() * 64);
        self.host.fs.lookup(dir, &path, lookup & FOLLOW != 0)
    }

    pub(super) fn path_create_directory(&mut self, fd: u32, path: u32, length: u32) -> Done {
        let found = self.found(fd, path, length, false)?;
        let now = self.host.today_ns();
        self.host.fs.create_dir(&found, now)?;
        Ok(())
    }

    pub(super) fn path_filestat_get(
        &mut self,
        fd: u32,
        lookup: u32,
        path: u32,
        length: u32,
        out: u32,
    ) -> Done {
        let node = self.looked_up(fd, lookup, path, length)?;
        let stat = filestat(&self.host.fs.stat(node));
        Ok(self.guest.write(out, &stat)?)
    }

    #[expect(clippy::too_many_arguments, reason = "as WASI defines it")]
    pub(super) fn path_filestat_set_times(
        &mut self,
        fd: u32,
        lookup: u32,
        path: u32,
        length: u32,
        accessed: u64,
        modified: u64,
        flags: u32,
    ) -> Done {
        let node = self.looked_up(fd, lookup, path, length)?;
        self.set_times(node, accessed, modified, flags)
    }

    #[expect(clippy::too_many_arguments, reason = "as WASI defines it")]
    pub(super) fn path_link(
        &mut self,
        old: u32,
        lookup: u32,
        path: u32,
        length: u32,
        new: u32,
        to: u32,
        to_length: u32,
    ) -> Done {
        let node = self.looked_up(old, lookup, path, length)?;
        let to = self.found(new, to, to_length, false)?;
        Ok(self.host.fs.link(node, &to)?)
    }

    #[expect(clippy::too_many_arguments, reason = "as WASI defines it")]
    pub(super) fn path_open(
        &mut self,
        fd: u32,
        lookup: u32,
        path: u32,
        length: u32,
        open: u32,
        base: u64,
        _inheriting: u64,
        flags: u32,
        out: u32,
    ) -> Done {
        // Whoever creates a name means the name, not what a link of that name leads to.
        let follow = lookup & FOLLOW != 0 && open & EXCLUSIVE == 0;
        let folder_asked = open & DIRECTORY != 0 || self.path(path, length)?.ends_with(b"/");
        let found = self.found(fd, path, length, follow)?;
        let (reads, writes) = (base & RIGHT_READ != 0, base & RIGHT_WRITE != 0);
        let now = self.host.today_ns();
        let fs = &mut self.host.fs;
        let id = match found.node {
            Some(_) if open & CREATE != 0 && open & EXCLUSIVE != 0 => {
                return Err(Errno::Exist.into());
            }
            Some(id) => id,
            None if open & CREATE == 0 => return Err(Errno::Noent.into()),
            None if folder_asked => return Err(Errno::Inval.into()),
            None => fs.create_file(&found, now)?,
        };
        match fs.kind(id) {
            Kind::Symlink => return Err(Errno::Loop.into()),
            Kind::File if folder_asked => return Err(Errno::Notdir.into()),
            // Rights of a folder are asked for in bulk; only these need a file.
            Kind::Dir if open & (TRUNCATE | CREATE) != 0 => return Err(Errno::Isdir.into()),
            Kind::Dir if writes && open & DIRECTORY == 0 && !reads => {
                return Err(Errno::Isdir.into());
            }
            Kind::File if writes && !fs.is_writable(id) => return Err(Errno::Rofs.into()),
            _ => {}
        }
        let is_file = fs.kind(id) == Kind::File;
        fs.open(id)?;
        if open & TRUNCATE != 0
            && let Err(errno) = fs.resize(id, 0, now)
        {
            fs.close(id);
            return Err(errno.into());
        }
        let descriptor = Descriptor {
            object: Object::Node { id, at: 0, preopened: None },
            reads,
            writes: writes && is_file,
            flags: flags as u16 & (APPEND | NONBLOCK),
        };
        match self.host.descriptors.add(descriptor) {
            Ok(number) => Ok(self.guest.write_u32(out, number)?),
            Err(errno) => {
                self.host.fs.close(id);
                Err(errno.into())
            }
        }
    }

    pub(super) fn path_readlink(
        &mut self,
        fd: u32,
        path: u32,
        length: u32,
        buffer: u32,
        size: u32,
        out: u32,
    ) -> Done {
        let node = self.looked_up(fd, 0, path, length)?;
        let target = self.host.fs.read_link(node)?;
        let part = &target[..target.len().min(size as usize)];
        self.guest.write(buffer, part)?;
        let length = part.len() as u32;
        Ok(self.guest.write_u32(out, length)?)
    }

    pub(super) fn path_remove_directory(&mut self, fd: u32, path: u32, length: u32) -> Done {
        let found = self.found(fd, path, length, false)?;
        let now = self.host.today_ns();
        Ok(self.host.fs.unlink(&found, true, now)?)
    }

    pub(super) fn path_rename(
        &mut self,
        old: u32,
        path: u32,
        length: u32,
        new: u32,
        to: u32,
        to_length: u32,
    ) -> Done {
        let from = self.found(old, path, length, false)?;
        let to = self.found(new, to, to_length, false)?;
        let now = self.host.today_ns();
        Ok(self.host.fs.rename(&from, &to, now)?)
    }

    pub(super) fn path_symlink(
        &mut self,
        target: u32,
        target_length: u32,
        fd: u32,
        path: u32,
        length: u32,
    ) -> Done {
        let target = self.path(target, target_length)?;
        let found = self.found(fd, path, length, false)?;
        let now = self.host.today_ns();
        self.host.fs.create_symlink(&found, &target, now)?;
        Ok(())
    }

    pub(super) fn path_unlink_file(&mut self, fd: u32, path: u32, length: u32) -> Done {
        let found = self.found(fd, path, length, false)?;
        let now = self.host.today_ns();
        Ok(self.host.fs.unlink(&found, false, now)?)
    }
}
