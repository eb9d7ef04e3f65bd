//! Runs handlers over subscriptions of the bus.
//!
//! ```
//! use ropeway_broker::{Group, Message, MessageBrokerExt, Subscription, Topic, TopicSpec, connect};
//! use ropeway_processor::{Context, Processor, Router, Verdict, json};
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # #[derive(serde::Deserialize)] struct Order { total: f64 }
//! let router = Router::new().on("order.created", json(|order: Order, cx: Context| async move {
//!     println!("{} at attempt {}", order.total, cx.attempt());
//!     Ok::<_, std::io::Error>(Verdict::Done)
//! }));
//! # if false {
//! let broker = connect("embedded:./data").await?;
//! let orders = Topic::new("orders")?;
//! let subscription = Subscription::new(Group::new("billing")?, [orders]);
//! let processor = Processor::builder(broker, subscription).router(router).start().await?;
//! processor.finished().await?;
//! # }
//! # Ok::<_, ropeway_broker::Error>(()) }).unwrap();
//! ```
//!
//! # Where things are
//! What users write: [`Handler`] ([`json`], [`raw`]), [`Verdict`], [`Router`]. What runs them: [`Processor`]; without a bus
//! [`Router::process`]; for work of any kind [`WorkerPool`]. What could not be handled: [`FailureRecord`].
//!
//! Inside: `lanes/` decides what may run (pure), `retry.rs` how soon again (pure), `pool/` runs it, `layer/` is what lies around each attempt,
//! `runtime/` ties that to the bus, `dead_letter/` is the wire form of what failed.
//!
//! `conformance` (feature) is the suite that decides whether the promises of processing are kept over a backend.
//!
//! This crate names no backend, and never reads the environment.
//!
//! # Features
//! | Feature | Default | Brings |
//! |---|---|---|
//! | `conformance` | no | the conformance suite |

#[cfg(feature = "conformance")]
pub mod conformance;
mod context;
mod counter;
mod dead_letter;
mod durations;
mod event;
mod handler;
mod lanes;
mod layer;
mod metrics;
mod pool;
mod retry;
mod router;
mod runtime;
mod settings;
mod verdict;

pub use context::Context;
pub use dead_letter::{FailureRecord, PREFIX as FAILURE_HEADERS};
pub use event::{Event, Place};
pub use handler::{Handler, HandlerOptions, Json, Raw, Slot, Started, json, raw};
pub use metrics::Metrics;
pub use pool::{
    Attempt, DrainReport, JobFailed, PoolSettings, PoolSnapshot, SubmitError, WorkerPool, WorkerPoolBuilder,
};
pub use retry::RetryPolicy;
pub use router::{Processed, Router, Unknown};
pub use runtime::{Processor, ProcessorBuilder, ShutdownReport, Snapshot};
pub use settings::ProcessorSettings;
pub use verdict::{BoxError, Failure, FailureClass, Undecodable, Verdict};
