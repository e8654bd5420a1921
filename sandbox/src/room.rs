//! The disk that all snapshots of a backend have together.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// So many bytes for all snapshots.
#[derive(Debug)]
pub(crate) struct Rooms {
    bytes: u64,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    taken: u64,
    /// Rooms whose snapshots are being made, so that they will be smaller.
    unsettled: usize,
}

impl Rooms {
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { bytes, state: Mutex::default(), changed: Notify::new() })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes room for a snapshot of `most` bytes. Waits for those that are being made; when that
    /// doesn't do, takes what is left. `None` when that is nothing.
    pub(crate) async fn take(self: &Arc<Self>, most: u64) -> Option<Room> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.lock();
                let left = self.bytes - state.taken;
                if most <= left || state.unsettled == 0 {
                    let bytes = most.min(left);
                    if bytes == 0 {
                        return None;
                    }
                    state.taken += bytes;
                    state.unsettled += 1;
                    return Some(Room { rooms: Arc::clone(self), bytes, is_settled: false });
                }
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The room of one snapshot, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    rooms: Arc<Rooms>,
    bytes: u64,
    is_settled: bool,
}

impl Room {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what is more than `bytes`: the snapshot has no more.
    pub(crate) fn settle(&mut self, bytes: u64) {
        self.change(self.bytes.min(bytes));
    }

    fn change(&mut self, bytes: u64) {
        let mut state = self.rooms.lock();
        state.taken -= self.bytes - bytes;
        state.unsettled -= usize::from(!self.is_settled);
        (self.bytes, self.is_settled) = (bytes, true);
        drop(state);
        self.rooms.changed.notify_waiters();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.change(0);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn rooms_are_taken_settled_and_given_back() {
        let rooms = Rooms::new(10);
        let mut first = rooms.take(8).await.expect("room");
        let mut second = pin!(rooms.take(5));
        assert!(second.as_mut().now_or_never().is_none(), "the first may turn out smaller");
        first.settle(4);
        let mut second = second.await.expect("room");
        assert_eq!((first.bytes(), second.bytes()), (4, 5));
        second.settle(5);
        assert_eq!(rooms.take(5).await.expect("what is left").bytes(), 1);
        let mut rest = rooms.take(5).await.expect("what is left");
        rest.settle(9);
        assert!(rooms.take(5).await.is_none());
        drop((first, second, rest));
        assert_eq!(rooms.take(11).await.expect("all of it").bytes(), 10);
    }
}
