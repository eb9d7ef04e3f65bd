//! Support for the tests of Ropeway: the backends of this build as the suites want them, and a disk that fails by script.
//!
//! Not here: what is checked (`broker/src/conformance`), who runs it (`tests/conformance/main.rs`).

pub mod backends;
pub mod disk;
