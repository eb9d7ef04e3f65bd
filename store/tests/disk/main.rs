//! What only the store on disk has: formats, damage, crashes, bounds.
//!
//! Not here: what every key-value store must do (`../key_value.rs`).
#![cfg(feature = "fjall")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;
mod crashes;
mod damage;
mod formats;
mod recycled;
mod salvage;
mod support;
