//! Cells on Kafka: the broker on a real server, beside clients that use the same server bare.
//!
//! `ground.rs` is the server and a topic on it, `bare.rs` the client library without anything around it, `publish.rs` and `awaited.rs` publish
//! (`instructions.rs` counts what that takes, `paced.rs` how long messages wait), `consume.rs` consumes, `watermill.rs` runs a program in Go, `resting.rs` has no rival. Not here: the
//! interleaving (`../rounds.rs`).

mod awaited;
mod bare;
mod consume;
mod ground;
pub(crate) mod instructions;
pub(crate) mod paced;
mod publish;
pub(crate) mod resting;
mod watermill;

pub(crate) use awaited::{Awaited, Beside};
pub(crate) use consume::{Consume, Rival};
pub(crate) use ground::missing;
pub(crate) use publish::{Publish, Side};
pub(crate) use watermill::{Watermill, Way, missing as missing_go};
