//! Apache Kafka behind the contract.
//!
//! Not here: what all backends share.

#[expect(dead_code, unused_imports, reason = "what the layers above do not use yet; its tests do")]
mod raw;
