//! A slot that waits for its sandbox: what ends it, and who says so.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Next, Slot};
use crate::native::{
    lending::{Lending, Stage},
    shared::{AtStep, StepError},
    sys,
    watch::{Verdict, Watch},
    wire,
};

/// Waits for pid 1 of a sandbox; kills it at a limit, on cancellation, when it gets no process, or
/// when the service is gone.
pub(super) fn wait(
    slot: &Slot<'_>,
    next: &Next,
    socket: &OwnedFd,
    watch: &mut Watch<'_>,
    lending: &mut Option<Lending<'_>>,
) -> Result<Verdict, StepError> {
    let mut verdict = Verdict::Ended;
    let mut killed = false;
    loop {
        let timeout = watch.next_look();
        let timeout =
            Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&next.pidfd, PollFlags::IN)];
        let stage = lending.as_ref().map_or(Stage::Settled, |lending| lending.stage);
        let interpreter = lending.as_ref().and_then(|lending| lending.interpreter);
        if !killed {
            fds.push(PollFd::new(socket, PollFlags::IN | PollFlags::RDHUP));
            match (stage, interpreter) {
                (Stage::Building, _) => fds.push(PollFd::new(&next.socket, PollFlags::IN)),
                (Stage::Asked, Some(it)) => fds.push(PollFd::new(&it.conversation, PollFlags::IN)),
                _ => {}
            }
        }
        match poll(&mut fds, (!killed).then_some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).at("wait for the sandbox"),
        }
        let ready = |place: usize| fds.get(place).is_some_and(|fd| !fd.revents().is_empty());
        let (is_dead, is_called, is_lending) = (ready(0), ready(1), ready(2));
        if is_dead {
            watch.used = sys::wait_pidfd(next.pidfd.as_fd()).at("reap the sandbox")?;
            return Ok(verdict);
        }
        if killed {
            continue;
        }
        if is_called {
            let mut message = [0; 16];
            let length = wire::receive(socket, &mut message).map_or(0, |(length, _)| length);
            match wire::read_header(&message[..length]) {
                // It came too late for another.
                Some((_, request)) if request < slot.request => {}
                Some((wire::CANCEL, request)) if request == slot.request => {
                    // What it used, where nothing counts it after its death.
                    let _ = watch.look(next.pid);
                    verdict = Verdict::Cancelled;
                }
                // The service is gone, or makes no sense.
                _ => verdict = Verdict::Orphaned,
            }
        } else if is_lending && let Some(lending) = lending {
            match interpreter.filter(|_| stage == Stage::Asked) {
                Some(it) => {
                    let said = it.conversation.listen();
                    let out_of_memory = watch.oom_kills() > 0;
                    killed = lending.hear(said, &next.socket, slot.shared, out_of_memory);
                }
                None => lending.lend(slot, &next.socket),
            }
        } else {
            verdict = watch.look(next.pid);
            killed = lending.as_mut().is_some_and(Lending::is_overdue);
        }
        killed |= verdict != Verdict::Ended;
        if killed {
            // Pid 1 takes its namespace along, and nobody forks out of a dying one. Not by
            // `cgroup.kill`: on Linux 6.18 whatever is cloned from outside into a group that was
            // once killed so dies at birth.
            sys::kill_pidfd(next.pidfd.as_fd());
        }
    }
}
