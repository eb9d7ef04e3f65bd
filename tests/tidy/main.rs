//! The rules of this repository, as tests: what no compiler and no lint checks.
//!
//! Each rule is a pure function from text to findings, with a test that shows it can fail, and a test that runs it over the repository.
//! `imports.rs`: who may import whom. `manifests.rs`: the form of Cargo.toml files. `sources.rs`: the form of Rust files.
//! `contents.rs`: what no file may hold. `documents.rs`: links, paths, tables, cargo commands and the quick start in documents.
//! Not here: commands of the program in documents (`commands.rs`, a test of `cli`, which has the program), formatting and lints
//! (`cargo xtask check`).

#![expect(clippy::unwrap_used, reason = "a rule that cannot run fails its test")]

mod blocks;
mod contents;
mod documents;
mod imports;
mod manifests;
mod repository;
mod sources;
#[path = "../../xtask/src/verbs.rs"]
mod verbs;

/// Panics with all findings, one a line.
#[track_caller]
fn clean(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} findings:\n  {}\n", findings.len(), findings.join("\n  "));
}
