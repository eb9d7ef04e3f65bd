//! The program as people and scripts see it: the built binary, run in directories of its own.
//!
//! Not here: pure parts (beside their code), the demo's own tests.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bad_input;
mod bench;
mod config;

mod directory;
mod dlq;
mod doctor;
mod group;
mod listen;
mod publish;
mod running;
mod stop;
mod subscribe;
mod topic;
