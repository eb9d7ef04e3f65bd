//! `cargo xtask check`: everything that is checked without running the tests of the product.
//!
//! Not here: the repository rules themselves (`tests/tidy`), the licences that are allowed (`deny.toml`), the
//! compose file (`compose.rs`).

use crate::{cargo, compose, root};
use std::{
    fs,
    process::{Command, ExitCode, Stdio},
};

/// The crates that are shipped, by folder and name. What the tests need must not turn features on in them, so the feature checks build
/// them alone.
const SHIPPED: &[(&str, &str)] = &[
    ("store", "ropeway-store"),
    ("broker", "ropeway-broker"),
    ("processor", "ropeway-processor"),
    ("cli", "ropeway"),
];

const DENY_WARNINGS: [&str; 3] = ["--", "-D", "warnings"];

/// Runs all steps, also after one failed, and says at the end which failed.
pub(crate) fn run() -> ExitCode {
    let mut failed = Vec::new();
    for (name, mut command) in steps() {
        println!("== {name}");
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(_) => failed.push(name),
            Err(error) => {
                eprintln!("error: could not start {:?}: {error}", command.get_program());
                failed.push(name);
            }
        }
    }
    if !deny_is_installed() {
        println!(
            "== licences: skipped, since cargo-deny is not installed (cargo install cargo-deny --locked)"
        );
    }
    if let Err(why) = compose::check() {
        println!("== compose file: ignored, since {why}");
    }
    if failed.is_empty() {
        println!("== all checks passed");
        return ExitCode::SUCCESS;
    }
    eprintln!("error: failed: {}", failed.join("; "));
    ExitCode::FAILURE
}

fn steps() -> Vec<(String, Command)> {
    let mut steps = vec![
        ("format".to_owned(), with(&["fmt", "--all", "--check"])),
        ("lints, default features".to_owned(), clippy(&["--workspace", "--all-targets"])),
        ("lints, all features".to_owned(), clippy(&["--workspace", "--all-targets", "--all-features"])),
    ];
    for (folder, name) in SHIPPED {
        let bare = ["--package", name, "--no-default-features"];
        steps.push((format!("lints, {name} without features"), clippy(&bare)));
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap_or_default();
        for feature in features(&manifest) {
            let one = [&bare[..], &["--features", feature]].concat();
            steps.push((format!("lints, {name} with {feature} alone"), clippy(&one)));
        }
    }
    let mut doc = with(&["doc", "--workspace", "--no-deps", "--all-features", "--quiet"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    steps.push(("docs".to_owned(), doc));
    steps.push((
        "repository rules".to_owned(),
        with(&["test", "--quiet", "--package", "ropeway-tests", "--test", "tidy"]),
    ));
    if deny_is_installed() {
        let deny = ["deny", "--log-level", "error", "check", "--hide-inclusion-graph"];
        steps.push(("licences".to_owned(), with(&[&deny[..], &["licenses", "bans", "sources"]].concat())));
    }
    steps.extend(compose::check().ok().map(|check| ("compose file".to_owned(), check)));
    steps
}

fn with(arguments: &[&str]) -> Command {
    let mut command = cargo();
    command.args(arguments);
    command
}

fn clippy(arguments: &[&str]) -> Command {
    with(&[&["clippy", "--quiet"], arguments, &DENY_WARNINGS].concat())
}

fn deny_is_installed() -> bool {
    with(&["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The features that a manifest declares, without `default`.
fn features(manifest: &str) -> Vec<&str> {
    manifest
        .lines()
        .skip_while(|line| line.trim() != "[features]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.trim()))
        .filter(|name| *name != "default")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_read_from_a_manifest() {
        let manifest = "[package]\nname = \"x\"\n\n[features]\ndefault = [\"one\"]\n## What `one = 1` brings.\none = []\n\
                        two = [\"one\"]\n\n[dependencies]\nthree = \"3\"\n";
        assert_eq!(features(manifest), ["one", "two"]);
        assert!(features("[package]\n").is_empty());
    }

    #[test]
    fn the_shipped_crates_are_where_they_are_said_to_be() {
        for (folder, name) in SHIPPED {
            let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{folder} is not {name}");
        }
    }
}
