//! Work in flight: the evaluator, the queue, the journal, the workers.
//!
//! A [`Fleet`] accepts [`Evaluation`]s by its [`FleetHandle`]: each is journaled by a [`Queue`]
//! before it is accepted, judged by an [`Evaluator`] in sandboxes, and its [`EvaluationResult`]
//! stored before anybody sees it. The fleet has never heard of gRPC.
#![forbid(unsafe_code)]

mod model;

mod queue;

mod schedule;

mod stats;

mod store;

mod backends;

mod evaluator;

mod flights;

mod worker;

mod fleet;

pub use backends::{Backends, ResolveError, Resolved};
pub use evaluator::{Evaluator, Job, Prepared, Verdict};
pub use fleet::{Fleet, FleetConfig, FleetHandle, Rewards, WaitError};
pub use model::{
    Digests, Evaluation, EvaluationResult, InvalidRequestId, OnDisconnect, Priority, RequestId,
    RunUsage, Stop, Timings,
};
pub use queue::{
    Completion, EndedInQueue, Lease, Queue, ResultPage, ResultStore, Selector, Stopped, StoreError,
    SubmitError, Ticket,
};
pub use stats::Stats;
pub use store::{Embedded, OpenError};
