//! Who does the work: the embedded broker, and others.
//!
//! `publish.rs` has the pair of every cell that publishes; `embedded.rs` is ours; `fjall.rs`, `file.rs`, `redb.rs` and `sqlite.rs` are the
//! rivals, and `gathered.rs` what stands before redb and SQLite. `hop.rs` and `engine.rs` have ours and the rival in one. `steady.rs` and `reopen.rs` have no rival.

mod embedded;
mod engine;
mod file;
mod fjall;
mod gathered;
mod hop;
mod publish;
mod redb;
pub(crate) mod reopen;
mod sqlite;
pub(crate) mod steady;

pub(crate) use engine::Engine;
pub(crate) use hop::Hop;
pub(crate) use publish::{Against, Publish};
