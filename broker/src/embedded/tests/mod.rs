//! Tests of the embedded broker through its public face. The promises every backend keeps are checked by `conformance/`; here is what
//! only this backend has: its clock, its commits, its directory.

mod disk;
mod groups;
mod jumps;
#[cfg(feature = "embedded")]
mod restart;
mod support;
mod time;
