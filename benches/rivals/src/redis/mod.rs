//! Cells on Redis: the broker on a real server, beside clients that use the same server bare.
//!
//! `server.rs` is the server, `publish.rs` and `awaited.rs` publish, `consume.rs` consumes (`sea.rs` is one of its rivals), `resting.rs` has no
//! rival. Not here: the interleaving (`../rounds.rs`), the embedded broker (`../arms/`).

mod awaited;
mod consume;
mod publish;
pub(crate) mod resting;
mod sea;
mod server;

pub(crate) use awaited::Awaited;
pub(crate) use consume::{Consume, Measure, Rival};
pub(crate) use publish::Publish;
pub(crate) use server::missing;

/// The topic of every cell here.
const TOPIC: &str = "orders";
