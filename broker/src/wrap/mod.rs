//! Brokers that wrap a broker: each *is* the contract around the contract, so they can be put around any backend and each other.
//!
//! [`Meter`] counts and times; [`Fault`] fails, delays, loses answers, duplicates and revokes, for everybody's tests.
//! Every method is passed on by hand: a wrapper that leaned on default implementations would silently lose a promise.

mod fault;
mod meter;

pub use fault::{Fault, Injection, Operation, Revoke, Times};
pub use meter::Meter;

#[cfg(test)]
mod tests;
