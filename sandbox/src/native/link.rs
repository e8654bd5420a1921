//! The line to a session's slot: asks out, answers to whoever asked.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{
    net::unix::pipe,
    sync::{oneshot, watch},
    task::AbortHandle,
};
use tracing::debug;

use super::{
    gone,
    job::{Done, Report},
    pool::{Busy, receive_report},
    run,
    talk::{Ask, Reply},
    wire,
};
use crate::{Over, SandboxId, SessionError};

/// Pipes of ended commands that are still drained, so that what they left running may write on.
const LEFT_OPEN: usize = 32;

/// What a session and its processes share. When the last of them is gone, so is the session.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: OwnedFd,
    /// The number of the request that the session is to its slot.
    request: u64,
    state: Mutex<LinkState>,
    /// Dropped with this.
    _used: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
pub(super) struct LinkState {
    last: u64,
    waiting: HashMap<u64, Waiting>,
    pub(super) over: Option<Over>,
    /// Whether there is no slot behind it any more.
    closed: bool,
    /// Commands that somebody listens to.
    pub(super) running: usize,
    left_open: VecDeque<AbortHandle>,
}

/// Somebody who waits for an answer.
#[derive(Debug)]
struct Waiting {
    tell: oneshot::Sender<Reply>,
    /// Whether it is the end of a command, which never comes when all is over.
    for_end: bool,
}

/// Hands answers to those who asked, until the session is freed.
pub(super) async fn route(
    id: SandboxId,
    mut busy: Busy,
    link: Weak<Link>,
    mut unused: oneshot::Receiver<()>,
    told: watch::Sender<Option<Result<Done, String>>>,
) {
    // A slot that can't be heard is given up with what it does.
    let mut is_heard = true;
    let done = loop {
        let Ok(slot) = busy.slot() else { return };
        let report = tokio::select! {
            report = receive_report(slot) => report,
            // Nobody can ask for anything any more. Dropping it kills the session.
            _ = &mut unused => return drop(busy),
        };
        match report {
            Ok(Report::Reply(number, reply)) => {
                let Some(link) = link.upgrade() else { continue };
                let mut state = link.lock();
                match reply {
                    Reply::Over(over) => {
                        debug!(sandbox_id = %id, ?over, "session over");
                        state.over.get_or_insert(over);
                        state.waiting.retain(|_, waiting| !waiting.for_end);
                        drop(state);
                        if over == Over::Lease {
                            // The slot lets go of it when it knows that nothing more is asked.
                            let _ = link.close();
                        }
                    }
                    reply => {
                        if let Some(waiting) = state.waiting.remove(&number) {
                            let _ = waiting.tell.send(reply);
                        }
                    }
                }
            }
            Ok(Report::Done(done)) => break Ok(done),
            Ok(Report::Failed { step, errno }) => {
                break Err(format!("{step}: {}", io::Error::from_raw_os_error(errno)));
            }
            Ok(Report::Rooted | Report::Interpreter(_)) => {
                break Err("slot gave another answer".to_owned());
            }
            Err(e) => {
                is_heard = false;
                break Err(format!("slot: {e}"));
            }
        }
    };
    busy.running = !is_heard;
    if let Some(link) = link.upgrade() {
        let mut state = link.lock();
        state.closed = true;
        state.waiting.clear();
    }
    drop(busy);
    told.send_replace(Some(done));
}

impl Link {
    /// `used` is dropped with the link.
    pub(super) fn new(socket: OwnedFd, request: u64, used: oneshot::Sender<()>) -> Self {
        Self { socket, request, state: Mutex::default(), _used: used }
    }

    /// Ends the session: nothing is asked of it any more.
    pub(super) fn close(&self) -> io::Result<()> {
        let mut state = self.lock();
        if std::mem::replace(&mut state.closed, true) {
            return Ok(());
        }
        wire::send(&self.socket, &wire::header(wire::CANCEL, self.request), &[])
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why there is no answer.
    fn lost(&self) -> SessionError {
        match self.lock().over {
            Some(over) => SessionError::Over(over),
            None => gone("the slot of a session died").into(),
        }
    }

    /// Sends an ask. The answer comes to the receiver; when it is `for_end`, not after the session is
    /// over.
    pub(super) fn send(
        &self,
        for_end: bool,
        message: impl FnOnce(u64) -> Vec<u8>,
        fds: Vec<BorrowedFd<'_>>,
    ) -> Result<(u64, oneshot::Receiver<Reply>), SessionError> {
        let (tell, answer) = oneshot::channel();
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return Err(self.lost());
        }
        state.last += 1;
        let number = state.last;
        state.waiting.insert(number, Waiting { tell, for_end });
        // In order of their numbers.
        let sent = run::send(&self.socket, self.request, message(number), fds);
        if sent.is_err() {
            state.waiting.remove(&number);
        }
        drop(state);
        sent.map_err(|e| gone(&format!("slot takes no ask: {e}")))?;
        Ok((number, answer))
    }

    /// Sends an ask and waits for the answer.
    pub(super) async fn ask(
        &self,
        ask: &Ask<'_>,
        fds: Vec<BorrowedFd<'_>>,
    ) -> Result<Reply, SessionError> {
        let (_, answer) = self.send(false, |number| ask.encode(number), fds)?;
        self.understand(answer.await)
    }

    /// Takes the answers that mean the same whatever was asked for errors.
    pub(super) fn understand(
        &self,
        answer: Result<Reply, oneshot::error::RecvError>,
    ) -> Result<Reply, SessionError> {
        match answer {
            Ok(Reply::Paused) => Err(SessionError::Paused),
            Ok(Reply::Dead) | Err(_) => Err(self.lost()),
            Ok(reply) => Ok(reply),
        }
    }

    /// Drains what an ended command left open, so that what it left running may go on writing.
    pub(super) fn drain(self: &Arc<Self>, pipe: pipe::Receiver) {
        let drained = tokio::spawn(async move {
            let mut pipe = pipe;
            let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
        });
        let mut state = self.lock();
        state.left_open.push_back(drained.abort_handle());
        state.left_open.retain(|pipe| !pipe.is_finished());
        if state.left_open.len() > LEFT_OPEN
            && let Some(oldest) = state.left_open.pop_front()
        {
            oldest.abort();
        }
    }
}
