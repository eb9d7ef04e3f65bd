//! Commands for those who work on Ropeway: `cargo xtask VERB`.
//!
//! What lives here: picking the verb. Not here: what a verb does (`check.rs`, `test.rs`, `instructions.rs`, `servers/mod.rs`), the list of verbs (`verbs.rs`), reading
//! what test programs print (`tally.rs`), ending those that hang (`watch.rs`). Users of Ropeway need none of it.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

mod check;
mod compose;
mod instructions;
mod servers;
mod tally;
mod test;
mod verbs;
mod watch;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let verb = words.next();
    let rest: Vec<String> = words.collect();
    match (verb.as_deref(), rest.as_slice()) {
        (Some("test"), arguments) => test::run(arguments),
        (Some("instructions"), cells) => instructions::run(cells),
        (Some("servers"), words) => servers::run(words),
        (Some("check"), []) => check::run(),
        (Some("check"), [first, ..]) => usage(&format!("check takes no arguments, and got \"{first}\"")),
        (None | Some("help" | "-h" | "--help"), _) => {
            print!("{}", help());
            ExitCode::SUCCESS
        }
        (Some(other), _) => usage(&format!("there is no verb \"{other}\"; cargo xtask help lists them")),
    }
}

fn usage(what: &str) -> ExitCode {
    eprintln!("error: {what}");
    ExitCode::from(2)
}

fn help() -> String {
    let mut text = String::from("cargo xtask VERB\n\n");
    for (name, meaning) in verbs::VERBS {
        text += &format!("  {name:<12} {meaning}\n");
    }
    text += "\nWhat follows `test` is handed to `cargo test`: cargo xtask test -p ropeway-broker\n";
    text += "What follows `servers up`, `down`, `status` or `logs` are names of servers; `--with packages` or `--with containers` says how `up` runs\n";
    text += "them; without, containers where an engine answers.\n";
    text += "What follows `instructions` are the cells to measure; without, all are.\n";
    text
}

/// The root of the workspace, wherever the command was given.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where Cargo puts what it builds.
fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |to| root().join(to))
}

/// Cargo, as it was started, at the root of the workspace.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_verb() {
        let help = help();
        for (name, meaning) in verbs::VERBS {
            assert!(help.contains(name) && help.contains(meaning), "{help}");
        }
    }

    #[test]
    fn the_root_is_the_workspace() {
        assert!(root().join("Cargo.lock").is_file());
    }
}
