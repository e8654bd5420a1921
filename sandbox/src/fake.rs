//! A scripted backend for the tests of other crates. Runs nothing.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{Backend, BackendResult, Command, Execution, Sandbox, SandboxId, SandboxSpec};

type Script = dyn Fn(&SandboxSpec, &Command) -> BackendResult<Execution> + Send + Sync;

/// Answers each command with what its script says.
#[derive(Clone)]
pub struct Fake {
    script: Arc<Script>,
}

impl Fake {
    /// Makes a backend that asks `script` what became of each command.
    pub fn new(
        script: impl Fn(&SandboxSpec, &Command) -> BackendResult<Execution> + Send + Sync + 'static,
    ) -> Self {
        Self { script: Arc::new(script) }
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake").finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn create(&self, spec: SandboxSpec) -> BackendResult<Box<dyn Sandbox>> {
        Ok(Box::new(FakeSandbox {
            id: SandboxId::generate(),
            spec,
            script: Arc::clone(&self.script),
        }))
    }
}

struct FakeSandbox {
    id: SandboxId,
    spec: SandboxSpec,
    script: Arc<Script>,
}

#[async_trait]
impl Sandbox for FakeSandbox {
    fn id(&self) -> SandboxId {
        self.id
    }

    async fn run(self: Box<Self>, command: Command) -> BackendResult<Execution> {
        (self.script)(&self.spec, &command)
    }
}
