//! Apache Kafka behind the contract.
//!
//! Not here: what all backends share.
