//! How the service, the spawner and its slots talk: datagrams on Unix sockets, descriptors beside.
//!
//! Both ends are the same executable, so the encoding has no versions. The reader still checks
//! every length: a message that doesn't fit is an error, not a panic.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read as _, Seek as _},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};

/// Most bytes of one datagram; whatever is longer travels in a memory file.
pub(crate) const MAX_DATAGRAM: usize = 48 << 10;
/// Most descriptors of one datagram (the kernel's own limit is 253).
pub(crate) const MAX_FDS: usize = 200;

/// The first byte of a job that follows in the same datagram.
pub(crate) const INLINE: u8 = 1;
/// The first byte of a job that lies in the memory file sent as the last descriptor.
pub(crate) const IN_FILE: u8 = 2;
/// The first byte of a message that ends the request, and has nothing else.
pub(crate) const CANCEL: u8 = 3;

/// Bytes of a header.
const HEADER: usize = 9;

/// Returns what a message of the service to a slot begins with: its first byte, and the number of the
/// request that it belongs to. Whatever comes too late for its request is told by that.
pub(crate) fn header(first: u8, request: u64) -> Vec<u8> {
    [&[first][..], &request.to_le_bytes()].concat()
}

/// Reads the header of a message.
pub(crate) fn read_header(message: &[u8]) -> Option<(u8, u64)> {
    let (first, rest) = message.split_first()?;
    Some((*first, u64::from_le_bytes(*rest.first_chunk()?)))
}

/// Makes a connected pair of datagram sockets that tell when the other end is gone.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends one datagram.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(socket, bytes, fds, SendFlags::NOSIGNAL)
}

fn send_with(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// Sends one datagram, with descriptors beside it, if that can be done at once.
pub(crate) fn send_now(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(socket, bytes, fds, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

/// Receives one datagram into `buffer`. An empty one means that the other end is gone.
pub(crate) fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> rustix::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [IoSliceMut::new(buffer)];
    let message = recvmsg(socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    Ok((message.bytes, fds))
}

/// Receives one datagram as [`receive`] does, into no more memory than it needs.
pub(crate) fn receive_exactly(socket: impl AsFd) -> rustix::io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (_, length) = recv(&socket, &mut [0_u8; 0][..], RecvFlags::PEEK | RecvFlags::TRUNC)?;
    let mut buffer = vec![0; length];
    let (length, fds) = receive(socket, &mut buffer)?;
    buffer.truncate(length);
    Ok((buffer, fds))
}

/// Returns the job that a message holds, wherever it lies; takes the memory file off `fds`.
pub(crate) fn job<'m>(message: &'m [u8], fds: &mut Vec<OwnedFd>) -> io::Result<Cow<'m, [u8]>> {
    let broken = || io::Error::from_raw_os_error(libc::EBADMSG);
    let (first, _) = read_header(message).ok_or_else(broken)?;
    match first {
        INLINE => Ok(message[HEADER..].into()),
        IN_FILE => {
            let mut file = File::from(fds.pop().ok_or_else(broken)?);
            let mut job = Vec::new();
            file.rewind()?;
            file.read_to_end(&mut job)?;
            Ok(job.into())
        }
        _ => Err(broken()),
    }
}

/// Builds a message.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

/// Reads a message. `None` means that it ended too early.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*head))
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u64()?).ok()?;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    /// Reads a count and then that many items.
    pub(crate) fn list<T>(&mut self, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u64()?;
        (0..count).map(|_| item(self)).collect()
    }
}
