//! The native backend, with real namespaces.

mod common;

use assay_sandbox::{Backend, Command, Termination};

#[tokio::test]
async fn runs_true() {
    let Some(native) = common::native() else { return };
    let sandbox = native.create(common::spec()).await.expect("a sandbox");
    let command = Command { argv: vec!["/bin/true".to_owned()], ..Command::default() };
    let execution = sandbox.run(command).await.expect("an execution");
    assert_eq!(execution.termination, Termination::Exited(0), "{execution:?}");
}
