//! Tests of the embedded broker through its public face. The promises every backend keeps are checked by `conformance/`; here is what
//! only this backend has: its clock, its commits, its directory.

mod batches;
#[cfg(feature = "embedded")]
mod commits;
mod disk;
#[cfg(feature = "embedded")]
mod formats;
mod groups;
mod jumps;
#[cfg(feature = "embedded")]
mod offsets;
#[cfg(feature = "embedded")]
mod restart;
#[cfg(feature = "embedded")]
mod retention;
#[cfg(feature = "embedded")]
mod salvage;
mod support;
mod time;
