//! Tests of the Redis backend that need a real server: `server.rs` has one, `proxy.rs` stands before it. `scripts.rs` and `group_scripts.rs` are
//! the scripts, one by one; `cuts.rs` are publishes whose connection ends; `foreign.rs` is what other clients do to streams; `kept.rs` is retention.

mod cuts;
mod foreign;
mod group_scripts;
mod kept;
mod proxy;
mod scripts;
mod server;

use super::scripts::Script;
