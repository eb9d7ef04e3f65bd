//! Who does the work: the embedded broker, and others.
//!
//! `publish.rs` has the pair of every cell that publishes; `embedded.rs` is ours; `fjall.rs`, `file.rs`, `redb.rs` and `sqlite.rs` are the rivals.

mod embedded;
mod file;
mod fjall;
mod publish;
mod redb;
mod sqlite;

pub(crate) use publish::{Against, Publish};
