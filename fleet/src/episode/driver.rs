//! The task that does one step: starts its command, passes on what it does, notes what it leaves.

use std::{sync::Arc, time::Duration};

use assay_sandbox::{
    BackendError, Capture, Command, Event, Over, Process, Session, SessionError, Termination,
};
use tokio::time::Instant;

use super::{
    Episode, EpisodeError, Order, Runs, StepEnd,
    shell::{self, ShellState},
    step::Step,
    submit::changes,
};
use crate::evaluator::{Workplace, environment};

/// Does one step.
pub(super) struct Driver {
    pub(super) episode: Arc<Episode>,
    pub(super) step: Arc<Step>,
    pub(super) order: Order,
}

impl Driver {
    pub(super) async fn run(self, session: Arc<dyn Session>, shell: ShellState) {
        let started = Instant::now();
        let mut done = self.drive(&*session, &shell, started).await;
        let is_starved = done.as_ref().is_ok_and(|(end, _)| end.is_starved());
        if self.order.score
            && !is_starved
            && let Ok(patch) = self.patch(&*session).await
        {
            self.episode.keep_patch(&self.step, patch);
        }
        // Before anybody hears of the end, who may ask for the next step at once.
        let left = done.as_ref().ok().and_then(|(_, shell)| shell.clone());
        self.episode.step_ended(left, is_starved);
        if let Ok((end, _)) = &mut done {
            end.steps_left = self.episode.steps_left();
        }
        self.step.end(done.map(|(end, _)| end).map_err(|error| error.to_string().into()));
        self.episode.forget();
    }

    /// Runs its command. Returns its end, and the shell that it left.
    async fn drive(
        &self,
        session: &dyn Session,
        shell: &ShellState,
        started: Instant,
    ) -> Result<(StepEnd, Option<ShellState>), SessionError> {
        let order = &self.order;
        let (mut command, feed) = match &order.runs {
            Runs::Program(argv) => {
                let (argv, env) = (argv.clone(), environment());
                (Command { argv, env, ..Command::default() }, None)
            }
            Runs::Shell(script) => {
                let made = shell::command(script, shell);
                let (command, feed) = made.map_err(|source| {
                    let what = "make a pipe for a shell".to_owned();
                    BackendError::Io { what, source }
                })?;
                (command, Some(feed))
            }
        };
        command.stdin = Arc::clone(&order.stdin);
        let wall = order.wall.unwrap_or(self.episode.opening().step_wall);
        let over = |error: SessionError| match error {
            // What the agent did to its sandbox is how its step ended.
            SessionError::Over(over) => Ok((self.end(Err(over), started), None)),
            error => Err(error),
        };
        let process = match session.start(command, wall).await {
            Ok(process) => process,
            Err(error) => return over(error),
        };
        self.step.set_process(process.number());
        let feed = async {
            if let Some(feed) = feed {
                feed.await;
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = self.follow(process) => ended,
            () = feed => unreachable!("it never ends"),
        };
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => return over(error),
        };
        let left = match order.runs {
            Runs::Shell(_) => shell::state_of(&ended.channels),
            Runs::Program(_) => None,
        };
        let end = StepEnd {
            stdout: ended.stdout,
            stderr: ended.stderr,
            wall: ended.wall,
            cpu: ended.cpu,
            cleared: ended.cleared,
            shell_kept: left.is_some(),
            ..self.end(Ok(ended.termination), started)
        };
        Ok((end, left))
    }

    async fn follow(
        &self,
        mut process: Box<dyn Process>,
    ) -> Result<assay_sandbox::Ended, SessionError> {
        loop {
            match process.next().await? {
                Event::Output(stream, bytes) => self.step.write(stream, &bytes),
                Event::Ended(ended) => return Ok(*ended),
            }
        }
    }

    fn end(&self, termination: Result<Termination, Over>, started: Instant) -> StepEnd {
        StepEnd {
            termination,
            stdout: Capture::default(),
            stderr: Capture::default(),
            wall: started.elapsed(),
            cpu: Duration::ZERO,
            cleared: false,
            shell_kept: false,
            steps_left: 0,
        }
    }

    /// Returns the state that the step left, as a diff.
    async fn patch(&self, session: &dyn Session) -> Result<String, EpisodeError> {
        let snapshot = session.snapshot().await?;
        let Workplace { task, revision, .. } = &self.episode.workplace;
        Ok(changes(Arc::clone(task), revision.clone(), snapshot).await?.patch)
    }
}

/// However it ends, whoever follows the step is told.
impl Drop for Driver {
    fn drop(&mut self) {
        self.step.end(Err("the step was broken off".into()));
    }
}
