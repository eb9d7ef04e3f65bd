//! Tests of delay: the decisions one by one and under a model with crashes at every step, the whole of it over a broker in memory.
//!
//! Not here: the parts that have tests of their own beside them (`record.rs`, `tier.rs`).

#[cfg(feature = "conformance")]
mod conforms;
mod decisions;
mod memory;
mod model;
mod moves;
