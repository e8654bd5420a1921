//! The functions that a program imports, and those of them that concern no file.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wasmtime::{Caller, Extern, Linker};

use super::{
    Errno, Host, Stop,
    descriptors::Object,
    guest::{Guest, u32_in, u64_in},
};

/// Fuel that every call costs, as a round number of instructions that stand for it.
const CALL: u64 = 200;
/// Bytes that the host moves for one unit of fuel.
const BYTES_PER_FUEL: u64 = 8;
/// How much is moved between two looks at the limits.
const PIECE: usize = 1 << 20;
/// How long a program may wait in the kernel before the limits are looked at again.
const WAIT: Duration = Duration::from_millis(20);
/// Most subscriptions of one `poll_oneoff`.
const MAX_SUBSCRIPTIONS: u32 = 1024;

/// Why a call doesn't return 0.
#[derive(Debug)]
pub(super) enum Fail {
    Errno(Errno),
    Stop(Stop),
}

impl From<Errno> for Fail {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Stop> for Fail {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

pub(super) type Done = Result<(), Fail>;

/// One call that is under way.
#[derive(Debug)]
pub(super) struct Call<'c> {
    pub(super) guest: Guest<'c>,
    pub(super) host: &'c mut Host,
}

/// Gives programs their imports.
pub(in crate::wasm) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    macro_rules! functions {
        ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
            linker.func_wrap(
                "wasi_snapshot_preview1",
                stringify!($name),
                |caller: Caller<'_, Host>, $($argument: $type),*| {
                    enter(caller, |call| call.$name($($argument),*))
                },
            )?;
        )*};
    }
    functions! {
        args_get(list: u32, bytes: u32);
        args_sizes_get(count: u32, size: u32);
        environ_get(list: u32, bytes: u32);
        environ_sizes_get(count: u32, size: u32);
        clock_res_get(clock: u32, out: u32);
        clock_time_get(clock: u32, precision: u64, out: u32);
        fd_advise(fd: u32, offset: u64, length: u64, advice: u32);
        fd_allocate(fd: u32, offset: u64, length: u64);
        fd_close(fd: u32);
        fd_datasync(fd: u32);
        fd_fdstat_get(fd: u32, out: u32);
        fd_fdstat_set_flags(fd: u32, flags: u32);
        fd_fdstat_set_rights(fd: u32, base: u64, inheriting: u64);
        fd_filestat_get(fd: u32, out: u32);
        fd_filestat_set_size(fd: u32, size: u64);
        fd_filestat_set_times(fd: u32, accessed: u64, modified: u64, flags: u32);
        fd_pread(fd: u32, buffers: u32, count: u32, offset: u64, out: u32);
        fd_prestat_get(fd: u32, out: u32);
        fd_prestat_dir_name(fd: u32, name: u32, length: u32);
        fd_pwrite(fd: u32, buffers: u32, count: u32, offset: u64, out: u32);
        fd_read(fd: u32, buffers: u32, count: u32, out: u32);
        fd_readdir(fd: u32, buffer: u32, length: u32, cookie: u64, out: u32);
        fd_renumber(from: u32, to: u32);
        fd_seek(fd: u32, offset: i64, whence: u32, out: u32);
        fd_sync(fd: u32);
        fd_tell(fd: u32, out: u32);
        fd_write(fd: u32, buffers: u32, count: u32, out: u32);
        path_create_directory(fd: u32, path: u32, length: u32);
        path_filestat_get(fd: u32, lookup: u32, path: u32, length: u32, out: u32);
        path_filestat_set_times(
            fd: u32, lookup: u32, path: u32, length: u32, accessed: u64, modified: u64, flags: u32
        );
        path_link(
            old: u32, lookup: u32, path: u32, length: u32, new: u32, to: u32, to_length: u32
        );
        path_open(
            fd: u32, lookup: u32, path: u32, length: u32, open: u32, base: u64, inheriting: u64,
            flags: u32, out: u32
        );
        path_readlink(fd: u32, path: u32, length: u32, buffer: u32, size: u32, out: u32);
        path_remove_directory(fd: u32, path: u32, length: u32);
        path_rename(old: u32, path: u32, length: u32, new: u32, to: u32, to_length: u32);
        path_symlink(target: u32, target_length: u32, fd: u32, path: u32, length: u32);
        path_unlink_file(fd: u32, path: u32, length: u32);
        poll_oneoff(subscriptions: u32, events: u32, count: u32, out: u32);
        proc_raise(signal: u32);
        sched_yield();
        random_get(buffer: u32, length: u32);
        sock_accept(fd: u32, flags: u32, out: u32);
        sock_recv(fd: u32, buffers: u32, count: u32, flags: u32, out: u32, out_flags: u32);
        sock_send(fd: u32, buffers: u32, count: u32, flags: u32, out: u32);
        sock_shutdown(fd: u32, how: u32);
    }
    // The one call without a result.
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |_: Caller<'_, Host>, status: u32| {
            Err::<(), wasmtime::Error>(Stop::Exit((status & 0xff) as i32).into())
        },
    )?;
    Ok(())
}

fn enter(
    mut caller: Caller<'_, Host>,
    body: impl FnOnce(&mut Call<'_>) -> Done,
) -> wasmtime::Result<u32> {
    let memory = match caller.data().memory {
        Some(memory) => memory,
        // Within a module's own start function.
        None => match caller.get_export("memory") {
            Some(Extern::Memory(memory)) => memory,
            _ => return Ok(Errno::Fault as u32),
        },
    };
    let fuel = caller.get_fuel()?;
    let (bytes, host) = memory.data_and_store_mut(&mut caller);
    host.fuel = fuel.saturating_sub(CALL);
    let done = body(&mut Call { guest: Guest(bytes), host });
    let fuel = host.fuel;
    caller.set_fuel(fuel)?;
    match done {
        Ok(()) => Ok(0),
        Err(Fail::Errno(errno)) => Ok(errno as u32),
        Err(Fail::Stop(stop)) => Err(stop.into()),
    }
}

impl Call<'_> {
    /// Takes the fuel for so many bytes that the host moves.
    pub(super) fn pay(&mut self, bytes: usize) {
        self.host.fuel = self.host.fuel.saturating_sub(bytes as u64 / BYTES_PER_FUEL);
    }

    fn args_get(&mut self, list: u32, bytes: u32) -> Done {
        let strings = std::mem::take(&mut self.host.arguments);
        let done = self.strings(&strings, list, bytes);
        self.host.arguments = strings;
        done
    }

    fn args_sizes_get(&mut self, count: u32, size: u32) -> Done {
        let (strings, bytes) = sizes(&self.host.arguments);
        self.guest.write_u32(count, strings)?;
        Ok(self.guest.write_u32(size, bytes)?)
    }

    fn environ_get(&mut self, list: u32, bytes: u32) -> Done {
        let strings = std::mem::take(&mut self.host.environment);
        let done = self.strings(&strings, list, bytes);
        self.host.environment = strings;
        done
    }

    fn environ_sizes_get(&mut self, count: u32, size: u32) -> Done {
        let (strings, bytes) = sizes(&self.host.environment);
        self.guest.write_u32(count, strings)?;
        Ok(self.guest.write_u32(size, bytes)?)
    }

    fn strings(&mut self, strings: &[Vec<u8>], mut list: u32, mut at: u32) -> Done {
        for string in strings {
            self.guest.write_u32(list, at)?;
            self.guest.write(at, string)?;
            let end = at.checked_add(string.len() as u32).ok_or(Errno::Fault)?;
            self.guest.write(end, &[0])?;
            at = end.checked_add(1).ok_or(Errno::Fault)?;
            list = list.checked_add(4).ok_or(Errno::Fault)?;
        }
        Ok(())
    }

    fn clock_res_get(&mut self, clock: u32, out: u32) -> Done {
        match clock {
            0..=3 => Ok(self.guest.write_u64(out, 1)?),
            _ => Err(Errno::Inval.into()),
        }
    }

    fn clock_time_get(&mut self, clock: u32, _precision: u64, out: u32) -> Done {
        if self.host.to_snapshot && self.host.outputs.first().is_some_and(|out| !out.is_empty()) {
            return Err(Stop::Snapshot.into());
        }
        let now = match clock {
            0 => self.host.today_ns(),
            1..=3 => self.host.now_ns(),
            _ => return Err(Errno::Inval.into()),
        };
        Ok(self.guest.write_u64(out, now)?)
    }

    fn proc_raise(&mut self, _signal: u32) -> Done {
        Err(Errno::Nosys.into())
    }

    fn sched_yield(&mut self) -> Done {
        Ok(self.host.check()?)
    }

    fn random_get(&mut self, buffer: u32, length: u32) -> Done {
        self.pay(length as usize);
        let bytes = self.guest.bytes_mut(buffer, length)?;
        for piece in bytes.chunks_mut(PIECE) {
            self.host.check()?;
            for word in piece.chunks_mut(8) {
                word.copy_from_slice(&self.host.random().to_le_bytes()[..word.len()]);
            }
        }
        Ok(())
    }

    fn sock_accept(&mut self, _fd: u32, _flags: u32, _out: u32) -> Done {
        Err(Errno::Notsock.into())
    }

    fn sock_recv(
        &mut self,
        fd: u32,
        buffers: u32,
        count: u32,
        flags: u32,
        out: u32,
        out_flags: u32,
    ) -> Done {
        if flags != 0 {
            return Err(Errno::Inval.into());
        }
        self.stream(fd)?;
        self.guest.write(out_flags, &[0; 2])?;
        self.fd_read(fd, buffers, count, out)
    }

    fn sock_send(&mut self, fd: u32, buffers: u32, count: u32, _flags: u32, out: u32) -> Done {
        self.stream(fd)?;
        self.fd_write(fd, buffers, count, out)
    }

    fn sock_shutdown(&mut self, fd: u32, how: u32) -> Done {
        use rustix::net::{Shutdown, shutdown};
        let Object::Stream(stream) = &self.host.descriptors.get(fd)?.object else {
            return Err(Errno::Notsock.into());
        };
        let how = match how {
            1 => Shutdown::Read,
            2 => Shutdown::Write,
            3 => Shutdown::Both,
            _ => return Err(Errno::Inval.into()),
        };
        shutdown(stream, how).map_err(|_| Errno::Notsock.into())
    }

    fn stream(&self, fd: u32) -> Result<(), Errno> {
        match self.host.descriptors.get(fd)?.object {
            Object::Stream(_) => Ok(()),
            _ => Err(Errno::Notsock),
        }
    }

    /// Waits until a stream can be read or written, or a limit is reached.
    pub(super) fn wait(&mut self, fd: u32, flags: PollFlags) -> Done {
        loop {
            self.host.check()?;
            if self.is_ready(fd, flags, WAIT)? {
                return Ok(());
            }
        }
    }

    fn is_ready(&self, fd: u32, flags: PollFlags, most: Duration) -> Result<bool, Fail> {
        let descriptor = self.host.descriptors.get(fd)?;
        let Object::Stream(stream) = &descriptor.object else { return Ok(true) };
        let timeout = Timespec::try_from(most).ok();
        match poll(&mut [PollFd::new(stream, flags)], timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(self.host.channel_failed(errno).into()),
        }
    }

    /// Sleeping passes the program's own time and nobody else's: it counts against the wall limit and
    /// is over at once. Only who waits for a stream really waits.
    fn poll_oneoff(&mut self, subscriptions: u32, events: u32, count: u32, out: u32) -> Done {
        if count == 0 || count > MAX_SUBSCRIPTIONS {
            return Err(Errno::Inval.into());
        }
        let asked = self.guest.bytes(subscriptions, count * 48)?.to_vec();
        let asked: Vec<Subscription> = asked.chunks(48).map(Subscription::read).collect();
        let mut waited = Duration::ZERO;
        let sleep = asked.iter().filter_map(|one| one.sleep_ns(self.host)).min();
        let events_of = |call: &Self, slept_ns: Option<u64>, most: Duration| {
            let mut ready = Vec::new();
            let mut most = Some(most);
            for one in &asked {
                let errno = match one.kind {
                    Waits::Clock { .. } => {
                        let due = one.sleep_ns(call.host);
                        match due.zip(slept_ns) {
                            Some((due, slept)) if due <= slept => 0,
                            _ => continue,
                        }
                    }
                    Waits::Stream { fd, flags } => {
                        match call.is_ready(fd, flags, most.take().unwrap_or_default()) {
                            Ok(true) => 0,
                            Ok(false) => continue,
                            Err(Fail::Errno(errno)) => errno as u16,
                            Err(Fail::Stop(stop)) => return Err(stop),
                        }
                    }
                    Waits::Unknown => Errno::Inval as u16,
                };
                ready.push(one.event(errno));
            }
            Ok(ready)
        };
        let waits = asked.iter().any(|one| matches!(one.kind, Waits::Stream { .. }));
        let mut ready = if waits { events_of(self, None, Duration::ZERO)? } else { Vec::new() };
        while ready.is_empty() {
            self.host.check()?;
            let left = sleep.map(|ns| Duration::from_nanos(ns).saturating_sub(waited));
            if !waits || left.is_some_and(|left| left.is_zero()) {
                let slept = sleep.unwrap_or(0);
                ready = events_of(self, Some(slept), Duration::ZERO)?;
                if let Some(watch) = &mut self.host.watch {
                    watch.sleep(Duration::from_nanos(slept).saturating_sub(waited))?;
                }
                break;
            }
            let piece = left.unwrap_or(WAIT).min(WAIT);
            let started = std::time::Instant::now();
            ready = events_of(self, None, piece)?;
            waited += started.elapsed();
        }
        self.guest.write(events, &ready.concat())?;
        Ok(self.guest.write_u32(out, ready.len() as u32)?)
    }
}

fn sizes(strings: &[Vec<u8>]) -> (u32, u32) {
    (strings.len() as u32, strings.iter().map(|string| string.len() as u32 + 1).sum())
}

struct Subscription {
    userdata: u64,
    tag: u8,
    kind: Waits,
}

enum Waits {
    Clock { clock: u32, timeout_ns: u64, absolute: bool },
    Stream { fd: u32, flags: PollFlags },
    Unknown,
}

impl Subscription {
    fn read(bytes: &[u8]) -> Self {
        let tag = bytes[8];
        let kind = match tag {
            0 => Waits::Clock {
                clock: u32_in(bytes, 16),
                timeout_ns: u64_in(bytes, 24),
                absolute: bytes[40] & 1 != 0,
            },
            1 => Waits::Stream { fd: u32_in(bytes, 16), flags: PollFlags::IN },
            2 => Waits::Stream { fd: u32_in(bytes, 16), flags: PollFlags::OUT },
            _ => Waits::Unknown,
        };
        Self { userdata: u64_in(bytes, 0), tag, kind }
    }

    /// How long from now this one sleeps.
    fn sleep_ns(&self, host: &Host) -> Option<u64> {
        match self.kind {
            Waits::Clock { timeout_ns, absolute: false, .. } => Some(timeout_ns),
            Waits::Clock { clock: 0, timeout_ns, .. } => {
                Some(timeout_ns.saturating_sub(host.today_ns()))
            }
            Waits::Clock { timeout_ns, .. } => Some(timeout_ns.saturating_sub(host.now_ns())),
            _ => None,
        }
    }

    fn event(&self, errno: u16) -> [u8; 32] {
        let mut event = [0; 32];
        event[..8].copy_from_slice(&self.userdata.to_le_bytes());
        event[8..10].copy_from_slice(&errno.to_le_bytes());
        event[10] = self.tag;
        event[16] = 1; // bytes that can be moved at least
        event
    }
}
