//! Support for the tests of Ropeway: the backends of this build as the suites want them, a disk that fails by script, and real
//! servers.
//!
//! Not here: what is checked (`broker/src/conformance`), who runs it (`tests/conformance/main.rs`).

pub mod backends;
pub mod disk;
pub mod redis;
pub mod server;
