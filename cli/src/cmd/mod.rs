//! The verbs: one file each.
//!
//! Not here: the main job on real records (`../demo/`), what all verbs take (`../args.rs`).

pub(crate) mod completions;
