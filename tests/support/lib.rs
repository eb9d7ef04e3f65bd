//! Support for the tests of Ropeway: the backends of this build as the suites want them, a disk that fails by script, real
//! servers, and the page of what came of the suites.
//!
//! Not here: what is checked (`broker/src/conformance`), who runs it (`tests/conformance/main.rs`).

pub mod backends;
pub mod disk;
pub mod kafka;
pub mod matrix;
mod place;
pub mod redis;
pub mod server;
