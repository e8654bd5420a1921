//! The functions that move bytes through a descriptor.

use std::os::fd::AsFd as _;

use rustix::event::PollFlags;

use super::{
    APPEND, Errno, MOST, NONBLOCK,
    calls::{Call, Done, Fail},
    descriptors::Object,
};

impl Call<'_> {
    pub(super) fn fd_read(&mut self, fd: u32, buffers: u32, count: u32, out: u32) -> Done {
        let mut read = 0;
        for (address, length) in self.guest.buffers(buffers, count)? {
            self.host.check()?;
            let most = (length as usize).min(MOST - read) as u32;
            if most == 0 {
                continue;
            }
            let got = self.read_some(fd, address, most, read > 0)?;
            read += got;
            if got < length as usize {
                break;
            }
        }
        self.pay(read);
        Ok(self.guest.write_u32(out, read as u32)?)
    }

    /// Reads into one buffer from where the descriptor stands. `or_nothing`: without waiting.
    fn read_some(
        &mut self,
        fd: u32,
        address: u32,
        length: u32,
        or_nothing: bool,
    ) -> Result<usize, Fail> {
        if let Object::Stream(_) = self.host.descriptors.get(fd)?.object {
            return self.receive(fd, address, length, or_nothing);
        }
        let buffer = self.guest.bytes_mut(address, length)?;
        let descriptor = self.host.descriptors.get_mut(fd)?;
        if !descriptor.reads {
            return Err(Errno::Badf.into());
        }
        match &mut descriptor.object {
            Object::Input { bytes, at } => {
                let got = buffer.len().min(bytes.len() - *at);
                buffer[..got].copy_from_slice(&bytes[*at..*at + got]);
                *at += got;
                Ok(got)
            }
            Object::Node { id, at, .. } => {
                let got = self.host.fs.read(*id, *at, buffer)?;
                *at += got as u64;
                Ok(got)
            }
            Object::Output(_) | Object::Stream(_) => Err(Errno::Badf.into()),
        }
    }

    fn receive(
        &mut self,
        fd: u32,
        address: u32,
        length: u32,
        or_nothing: bool,
    ) -> Result<usize, Fail> {
        loop {
            let descriptor = self.host.descriptors.get(fd)?;
            let (reads, blocks) = (descriptor.reads, descriptor.flags & NONBLOCK == 0);
            let Object::Stream(stream) = &descriptor.object else {
                return Err(Errno::Badf.into());
            };
            if !reads {
                return Err(Errno::Badf.into());
            }
            let buffer = self.guest.bytes_mut(address, length)?;
            match rustix::io::read(stream.as_fd(), buffer) {
                Ok(got) => return Ok(got),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if or_nothing => return Ok(0),
                Err(rustix::io::Errno::AGAIN) if blocks => self.wait(fd, PollFlags::IN)?,
                Err(rustix::io::Errno::AGAIN) => return Err(Errno::Again.into()),
                // The other side is gone.
                Err(rustix::io::Errno::CONNRESET) => return Ok(0),
                // A pipe has one direction.
                Err(rustix::io::Errno::BADF) => return Err(Errno::Badf.into()),
                Err(errno) => return Err(self.host.channel_failed(errno).into()),
            }
        }
    }

    pub(super) fn fd_write(&mut self, fd: u32, buffers: u32, count: u32, out: u32) -> Done {
        let mut written = 0;
        for (address, length) in self.guest.buffers(buffers, count)? {
            self.host.check()?;
            let most = (length as usize).min(MOST - written) as u32;
            if most == 0 {
                continue;
            }
            let put = match self.write_some(fd, address, most, written > 0) {
                // What was written is written.
                Err(Fail::Errno(_)) if written > 0 => break,
                put => put?,
            };
            written += put;
            if put < length as usize {
                break;
            }
        }
        self.pay(written);
        Ok(self.guest.write_u32(out, written as u32)?)
    }

    fn write_some(
        &mut self,
        fd: u32,
        address: u32,
        length: u32,
        or_nothing: bool,
    ) -> Result<usize, Fail> {
        if let Object::Stream(_) = self.host.descriptors.get(fd)?.object {
            return self.send(fd, address, length, or_nothing);
        }
        let now = self.host.today_ns();
        let bytes = self.guest.bytes(address, length)?;
        let descriptor = self.host.descriptors.get_mut(fd)?;
        if !descriptor.writes {
            return Err(Errno::Badf.into());
        }
        match &mut descriptor.object {
            Object::Output(number) => {
                if let Some(output) = self.host.outputs.get_mut(*number) {
                    output.push(bytes);
                }
                Ok(bytes.len())
            }
            Object::Node { id, at, .. } => {
                let from = match descriptor.flags & APPEND {
                    0 => *at,
                    _ => self.host.fs.size(*id),
                };
                let put = self.host.fs.write(*id, from, bytes, now)?;
                *at = from + put as u64;
                Ok(put)
            }
            Object::Input { .. } | Object::Stream(_) => Err(Errno::Badf.into()),
        }
    }

    fn send(
        &mut self,
        fd: u32,
        address: u32,
        length: u32,
        or_nothing: bool,
    ) -> Result<usize, Fail> {
        loop {
            let descriptor = self.host.descriptors.get(fd)?;
            let (writes, blocks) = (descriptor.writes, descriptor.flags & NONBLOCK == 0);
            let Object::Stream(stream) = &descriptor.object else {
                return Err(Errno::Badf.into());
            };
            if !writes {
                return Err(Errno::Badf.into());
            }
            let bytes = self.guest.bytes(address, length)?;
            match rustix::net::send(stream, bytes, rustix::net::SendFlags::NOSIGNAL) {
                Ok(put) => return Ok(put),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if or_nothing => return Ok(0),
                Err(rustix::io::Errno::AGAIN) if blocks => self.wait(fd, PollFlags::OUT)?,
                Err(rustix::io::Errno::AGAIN) => return Err(Errno::Again.into()),
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {
                    return Err(Errno::Pipe.into());
                }
                Err(rustix::io::Errno::NOTSOCK) => return Err(Errno::Notsock.into()),
                Err(errno) => return Err(self.host.channel_failed(errno).into()),
            }
        }
    }

    pub(super) fn fd_pread(
        &mut self,
        fd: u32,
        buffers: u32,
        count: u32,
        offset: u64,
        out: u32,
    ) -> Done {
        self.at(fd, offset, |call| call.fd_read(fd, buffers, count, out))
    }

    pub(super) fn fd_pwrite(
        &mut self,
        fd: u32,
        buffers: u32,
        count: u32,
        offset: u64,
        out: u32,
    ) -> Done {
        self.at(fd, offset, |call| call.fd_write(fd, buffers, count, out))
    }

    /// Does something at another place of a file, and stands where it stood before.
    fn at(&mut self, fd: u32, offset: u64, body: impl FnOnce(&mut Self) -> Done) -> Done {
        let Object::Node { at, .. } = &mut self.host.descriptors.get_mut(fd)?.object else {
            return Err(Errno::Spipe.into());
        };
        let stood = std::mem::replace(at, offset);
        let done = body(self);
        if let Object::Node { at, .. } = &mut self.host.descriptors.get_mut(fd)?.object {
            *at = stood;
        }
        done
    }
}
