//! Commands of the program in documents: verbs and flags exist, and the session in README.md runs as written.
//!
//! A test of the crate `cli`, because only there Cargo says where the program is. Not here: cargo's commands in documents
//! (`documents.rs`).

#![expect(clippy::unwrap_used, reason = "a rule that cannot run fails its test")]

#[path = "blocks.rs"]
mod blocks;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const DOCUMENTS: [&str; 5] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/kafka.md", "docs/redis.md"];

/// Answers `--help` of a verb; `None` where there is no such verb.
type Help<'a> = &'a dyn Fn(&[&str]) -> Option<String>;

/// What is wrong with a command line of the program, if anything.
fn objection(words: &[&str], help: Help<'_>) -> Option<String> {
    let mut verbs: Vec<&str> = Vec::new();
    let mut text = help(&[])?;
    let mut rest = words;
    while let Some((word, others)) = rest.split_first()
        && !word.starts_with('-')
        && let Some(commands) = subcommands(&text)
    {
        verbs.push(word);
        if !commands.contains(word) {
            return Some(format!("there is no `ropeway {}`", verbs.join(" ")));
        }
        text = help(&verbs)?;
        rest = others;
    }
    let flags =
        rest.iter().take_while(|word| **word != "--").filter(|word| word.starts_with('-') && word.len() > 1);
    for flag in flags {
        let flag = flag.split('=').next().unwrap_or(flag);
        let named = text.split(|c: char| !(c.is_alphanumeric() || c == '-')).any(|word| word == flag);
        if !named && flag != "-h" && flag != "--help" {
            return Some(format!("`ropeway {}` has no {flag}", verbs.join(" ")));
        }
    }
    None
}

/// The names under `Commands:`.
fn subcommands(help: &str) -> Option<Vec<&str>> {
    let (_, list) = help.split_once("\nCommands:\n")?;
    let lines = list.lines().take_while(|line| !line.is_empty());
    Some(
        lines
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .collect(),
    )
}

/// The command lines of the program in a document: `ropeway ...`, and `cargo run ... -- ...`, which runs it.
fn command_lines(text: &str) -> Vec<(usize, Vec<String>)> {
    let fenced = blocks::shell_commands(text).into_iter().map(|command| (command.line, command.words));
    let inline = blocks::inline_code(text)
        .into_iter()
        .flat_map(|(line, code)| blocks::pipeline(code).into_iter().map(move |words| (line, words)));
    fenced
        .chain(inline)
        .filter_map(|(line, mut words)| {
            let is_cargo_run = words.starts_with(&["cargo".to_owned(), "run".to_owned()]);
            let begin = match words.first()?.as_str() {
                "ropeway" => 1,
                "cargo" if is_cargo_run && !words.iter().any(|word| word == "--example" || word == "-p") => {
                    words.iter().position(|word| word == "--")? + 1
                }
                _ => return None,
            };
            Some((line, words.split_off(begin)))
        })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn verbs_and_flags_in_documents_exist() {
    let mut findings = Vec::new();
    let asked = std::cell::RefCell::new(BTreeMap::<String, Option<String>>::new());
    let help = |verbs: &[&str]| {
        let mut asked = asked.borrow_mut();
        let answer = asked.entry(verbs.join(" ")).or_insert_with(|| {
            let output =
                Command::new(env!("CARGO_BIN_EXE_ropeway")).args(verbs).arg("--help").output().unwrap();
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        });
        answer.clone()
    };
    for document in DOCUMENTS {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for (line, words) in command_lines(&text) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            findings.extend(objection(&words, &help).map(|what| format!("{document}:{line}: {what}")));
        }
    }
    assert!(findings.is_empty(), "{findings:#?}");
}

/// Everything in README.md's `sh` blocks that begins with the program or feeds it, in order, in one empty directory.
#[cfg(unix)]
#[test]
fn the_session_in_the_readme_runs_as_written() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let script: String = blocks::blocks(&readme)
        .into_iter()
        .filter(|block| block.language == "sh" && !block.body.contains("cargo "))
        .map(|block| block.body)
        .collect();
    assert!(script.contains("ropeway "), "README.md shows no session of the program");
    let program = Path::new(env!("CARGO_BIN_EXE_ropeway"));
    let mut path = vec![program.parent().unwrap().to_path_buf()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-eu", "-c", &script])
        .current_dir(directory.path())
        .env("PATH", env::join_paths(path).unwrap())
        .output()
        .unwrap();
    let printed =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n---\n{printed}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(verbs: &[&str]) -> Option<String> {
        let text = match verbs {
            [] => {
                "Usage: ropeway <COMMAND>\n\nCommands:\n  topic  Topics\n  pub    Publishes\n\nOptions:\n  -q, --quiet\n"
            }
            ["topic"] => "Topics\n\nCommands:\n  create  Creates\n          one\n\nOptions:\n  -h, --help\n",
            ["topic", "create"] => "Creates\n\nOptions:\n      --partitions <N>\n",
            ["pub"] => "Publishes\n\nOptions:\n  -k, --key <KEY>\n",
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn says(line: &str) -> Option<String> {
        objection(&line.split(' ').collect::<Vec<_>>(), &help)
    }

    #[test]
    fn verbs_and_flags_that_do_not_exist_are_found() {
        assert_eq!(says("topic create orders --partitions=4"), None);
        assert_eq!(says("pub orders -k x -- --anything"), None);
        assert_eq!(says("topics list").unwrap(), "there is no `ropeway topics`");
        assert_eq!(says("topic made orders").unwrap(), "there is no `ropeway topic made`");
        assert_eq!(says("topic one").unwrap(), "there is no `ropeway topic one`");
        assert_eq!(
            says("topic create orders --partition 4").unwrap(),
            "`ropeway topic create` has no --partition"
        );
        assert_eq!(says("pub orders --ke x").unwrap(), "`ropeway pub` has no --ke");
    }

    #[test]
    fn command_lines_are_found_in_blocks_in_line_and_behind_cargo_run() {
        let page = "Use `ropeway pub a` or `ropeway.toml`.\n```sh\ncargo run --release -- demo --reset\necho x | ropeway sub b\n\
                    cargo run --example quickstart -- y\n```\n";
        let lines: Vec<_> =
            command_lines(page).into_iter().map(|(line, words)| (line, words.join(" "))).collect();
        let expected = [(3, "demo --reset"), (4, "sub b"), (1, "pub a")];
        assert_eq!(lines, expected.map(|(line, words)| (line, words.to_owned())));
    }
}
