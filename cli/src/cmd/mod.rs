//! The verbs: one file or folder for each noun.
//!
//! Not here: the main job on real records (`../demo/`), what all verbs take (`../args.rs`).

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod config;
#[cfg(feature = "embedded")]
pub(crate) mod directory;
pub(crate) mod dlq;
pub(crate) mod doctor;
pub(crate) mod group;
pub(crate) mod publish;
pub(crate) mod scan;
pub(crate) mod subscribe;
pub(crate) mod topic;
