//! Tests of the Redis backend that need a real server: `server.rs` has one; `scripts.rs` are the scripts, one by one.

mod group_scripts;
mod scripts;
mod server;

use super::scripts::Script;
