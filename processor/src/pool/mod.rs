//! Running work: bounded, in the order of each key.
//!
//! [`core`] is what the processor and the stand-alone [`WorkerPool`] share: lanes, workers, their gauges.
//! Not here: which work may run (`lanes/`), how long to wait before a retry (`retry.rs`).

pub(crate) mod core;
mod driver;
mod settings;
mod worker_pool;
pub(crate) mod workers;

pub use driver::{Attempt, DrainReport, JobFailed};
pub use settings::PoolSettings;
pub use worker_pool::{PoolSnapshot, SubmitError, WorkerPool, WorkerPoolBuilder};
