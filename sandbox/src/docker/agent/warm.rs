//! Warm interpreters of a container: [`warm.py`](crate::native::warm) forks here without namespaces,
//! since all sandboxes of a container have the same ones, and as the sandbox's user.
//!
//! An interpreter has a user of its own, and the two capabilities that make its forks another's.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    Agent, Making,
    command::{self, Program},
    failure, path_of, place, user,
};
use crate::native::{
    job::Report,
    shared::{AtStep as _, StepError},
    sys,
    warm::{self, Conversation},
    wire,
};

/// Most interpreters, here and in [`lineage`](crate::lineage).
const MOST: u64 = crate::lineage::MOST as u64;

/// An interpreter that has imported its modules.
pub(super) struct Interpreter {
    pid: i32,
    pidfd: OwnedFd,
    pub(super) conversation: Conversation,
}

impl Interpreter {
    /// Returns its id while it lives: afterwards that may be anybody's.
    pub(super) fn pid(&self) -> Option<i32> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&now));
        (ended == Ok(0)).then_some(self.pid)
    }
}

/// One that is to be started.
pub(super) struct NewInterpreter<'a> {
    /// Which one it is; another of this number ends.
    pub(super) number: u64,
    pub(super) argv: Vec<&'a [u8]>,
    pub(super) env: Vec<&'a [u8]>,
}

impl Agent {
    /// Starts an interpreter that finds our own programs where sandboxes have trusted files.
    pub(super) fn start_interpreter(&mut self, made: Making, new: &NewInterpreter<'_>) -> Report {
        match made.failed.map_or_else(|| self.try_start(new), Err) {
            Ok(told) => Report::Interpreter(told),
            Err(e) => failure(&e),
        }
    }

    fn try_start(
        &mut self,
        new: &NewInterpreter<'_>,
    ) -> Result<Result<Vec<u8>, String>, StepError> {
        if new.number >= MOST {
            return Err(std::io::ErrorKind::InvalidInput).at("number an interpreter");
        }
        let place = new.number as usize;
        self.interpreters.resize_with(self.interpreters.len().max(place + 1), || None);
        self.end_interpreter(place);
        let name = path_of(warm::PATH.as_bytes()).file_name().unwrap_or_default();
        place::write(self.trusted.root(), name.as_ref(), warm::PROGRAM, 0o444)
            .at("write a trusted file")?;
        let (socket, theirs) = wire::pair().at("make a socket pair")?;
        // Pipes, as a command has them: what Python makes of stdio depends on that.
        let (read, write) = rustix::pipe::pipe().at("make a pipe")?;
        let program = Program {
            argv: &new.argv,
            env: &new.env,
            cwd: b"/",
            stdio: [read.as_fd(), write.as_fd(), write.as_fd()],
            channels: vec![(theirs.as_fd(), 3)],
        };
        let its_user = self.interpreters_user;
        let pid = command::start(&program, || {
            sys::become_user_with_identity_capabilities(its_user)
                .at("become the interpreters' user")
        })?;
        drop(theirs);
        let pidfd = sys::pidfd_open(pid).at("watch the interpreter")?;
        let conversation = Conversation::new(socket);
        let started = conversation.begin(&[]);
        match started {
            Ok(Ok(held)) => {
                self.interpreters[place] = Some(Interpreter { pid, pidfd, conversation });
                Ok(Ok(held))
            }
            failed => {
                user::kill(&[pid], its_user).at("end the interpreter")?;
                Ok(Err(failed?.err().unwrap_or_default()))
            }
        }
    }

    /// Leaves the interpreter ready for the next command, once all of a sandbox is dead. Returns
    /// whether there still is one.
    pub(super) fn settle(&mut self, place: usize) -> bool {
        let interpreter = self.interpreters.get(place).and_then(Option::as_ref);
        let ready = interpreter.is_some_and(|it| it.conversation.settle());
        if !ready {
            self.end_interpreter(place);
        }
        ready
    }

    pub(super) fn end_interpreter(&mut self, place: usize) {
        let old = self.interpreters.get_mut(place).and_then(Option::take);
        if let Some(pid) = old.and_then(|old| old.pid()) {
            // It is buried with whatever ends next. Its socket is closed, should this fail.
            let _ = user::kill(&[pid], self.interpreters_user);
        }
    }
}
