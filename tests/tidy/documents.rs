//! What documents say is so: links and paths lead somewhere, commands exist, the quick start is the compiled example, guarantees name
//! checks that exist.
//!
//! Not here: reading markdown (`blocks.rs`), commands of the program itself (`commands.rs`), tables of features (`manifests.rs`).

use crate::{
    blocks::{self, anchors, inline_code, links, pipeline, shell_commands, table},
    imports::members,
    repository::{File, files, read},
    verbs::VERBS,
};
use std::collections::BTreeMap;

const QUICK_START: &str = "processor/examples/quickstart.rs";
const MAX_QUICK_START_LINES: usize = 30;

/// Cargo's own verbs that the documents may use, besides the aliases of `.cargo/config.toml`.
const CARGO: &[&str] = &["bench", "build", "clippy", "deny", "doc", "fmt", "install", "run", "test", "tree"];

/// Programs that the documents may use, since everybody who has the toolchain has them.
const PROGRAMS: &[&str] = &["cargo", "cat", "cd", "echo", "git", "head", "printf", "ropeway"];

/// Links that lead nowhere. `texts` holds every document by path, `paths` every file.
fn dead_links(path: &str, texts: &BTreeMap<&str, &str>, paths: &[&str]) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Vec::new();
    for (line, link) in links(texts[path]) {
        if link.contains("://") {
            continue;
        }
        let (target, anchor) =
            link.split_once('#').map_or((link, None), |(target, anchor)| (target, Some(anchor)));
        let target = match (target, folder) {
            ("", _) => path.to_owned(),
            (target, "") => target.trim_end_matches('/').to_owned(),
            (target, folder) => format!("{folder}/{}", target.trim_end_matches('/')),
        };
        if !exists(&target, paths) {
            findings.push(format!("{path}:{line}: the link leads to {target}, and there is no such file"));
        } else if let Some(anchor) = anchor
            && !texts
                .get(target.as_str())
                .is_some_and(|text| anchors(text).iter().any(|known| known == anchor))
        {
            findings.push(format!("{path}:{line}: {target} has no heading for #{anchor}"));
        }
    }
    findings
}

/// Whether it is a file, or a folder with files.
fn exists(target: &str, paths: &[&str]) -> bool {
    let folder = format!("{}/", target.trim_end_matches('/'));
    paths.iter().any(|path| *path == target || path.starts_with(&folder))
}

/// Inline code that looks like a path of this repository and is none.
fn dead_paths(path: &str, text: &str, paths: &[&str]) -> Vec<String> {
    let is_top =
        |top: &str| paths.iter().any(|path| path.split_once('/').is_some_and(|(folder, _)| folder == top));
    inline_code(text)
        .into_iter()
        .filter(|(_, code)| code.split_once('/').is_some_and(|(top, _)| is_top(top)))
        .filter(|(_, code)| !code.contains([' ', '*', '{', '<']) && !exists(code, paths))
        .map(|(line, code)| format!("{path}:{line}: there is no `{code}`"))
        .collect()
}

/// What commands may name.
struct Known {
    aliases: Vec<String>,
    packages: Vec<String>,
    /// Of the program.
    features: Vec<String>,
    tests: Vec<String>,
    examples: Vec<String>,
}

impl Known {
    fn of(files: &[File], config: &str) -> Self {
        let config: toml::Table = config.parse().unwrap();
        let keys = |table: Option<&toml::Value>| -> Vec<String> {
            table.and_then(toml::Value::as_table).map_or(Vec::new(), |table| table.keys().cloned().collect())
        };
        let members = members(files);
        let names = |kind: &str| -> Vec<String> {
            let declared = members
                .values()
                .filter_map(|manifest| manifest.get(kind)?.as_array())
                .flatten()
                .filter_map(|target| Some(target.get("name")?.as_str()?.to_owned()));
            let folder = format!("/{kind}s/");
            let found = files.iter().filter_map(|file| {
                let (_, name) = file.path.split_once(&folder)?;
                Some(name.strip_suffix(".rs")?.trim_end_matches("/main").to_owned())
            });
            declared.chain(found).collect()
        };
        Self {
            aliases: keys(config.get("alias")),
            packages: members
                .values()
                .filter_map(|manifest| Some(manifest.get("package")?.get("name")?.as_str()?.to_owned()))
                .collect(),
            features: keys(members.get("cli").and_then(|manifest| manifest.get("features"))),
            tests: names("test"),
            examples: names("example"),
        }
    }

    /// What is wrong with a command, if anything.
    fn objection(&self, words: &[String]) -> Option<String> {
        let words: Vec<&str> =
            words.iter().map(String::as_str).skip_while(|word| word.contains('=')).collect();
        match *words.first()? {
            "cargo" => self.cargo(&words[1..]),
            program if PROGRAMS.contains(&program) || program.starts_with("./") || program == ".ci/run" => {
                None
            }
            program => Some(format!("`{program}` is not on every machine that has the toolchain")),
        }
    }

    fn cargo(&self, words: &[&str]) -> Option<String> {
        let (verb, arguments) = words.split_first()?;
        if !CARGO.contains(verb) && !self.aliases.iter().any(|alias| alias == verb) {
            return Some(format!("there is no `cargo {verb}`"));
        }
        if *verb == "xtask"
            && !arguments.first().is_some_and(|first| VERBS.iter().any(|(name, _)| name == first))
        {
            return Some(format!("there is no `cargo {}`", words.join(" ")));
        }
        let own = arguments.iter().take_while(|word| **word != "--").copied();
        let own: Vec<&str> = own.flat_map(|word| word.split('=')).collect();
        own.windows(2).find_map(|pair| {
            let known = match pair[0] {
                "-p" | "--package" => &self.packages,
                "--features" | "-F" => &self.features,
                "--test" => &self.tests,
                "--example" => &self.examples,
                _ => return None,
            };
            let missing = pair[1].split(',').find(|name| !known.iter().any(|known| known == name))?;
            Some(format!("there is nothing named `{missing}` for {}", pair[0]))
        })
    }
}

/// Commands of a document that cannot work.
fn dead_commands(path: &str, text: &str, known: &Known) -> Vec<String> {
    let fenced = shell_commands(text).into_iter().map(|command| (command.line, command.words));
    let inline = inline_code(text)
        .into_iter()
        .filter(|(_, code)| code.starts_with("cargo "))
        .flat_map(|(line, code)| pipeline(code).into_iter().map(move |words| (line, words)));
    fenced
        .chain(inline)
        .filter_map(|(line, words)| Some(format!("{path}:{line}: {}", known.objection(&words)?)))
        .collect()
}

/// How the Rust of the README and the compiled example differ.
fn differing_quick_start(readme: &str, example: &str) -> Vec<String> {
    let shown = blocks::blocks(readme).into_iter().find(|block| block.language == "rust");
    let mut findings = Vec::new();
    match shown {
        None => findings.push("README.md has no block of Rust".to_owned()),
        Some(block) if block.body != example => {
            findings
                .push(format!("README.md:{}: this differs from {QUICK_START}, which compiles", block.line));
        }
        Some(_) => {}
    }
    if example.lines().count() > MAX_QUICK_START_LINES {
        findings.push(format!(
            "{QUICK_START}: {} lines; at most {MAX_QUICK_START_LINES}",
            example.lines().count()
        ));
    }
    findings
}

/// Whether the README names the Rust version that the workspace needs.
fn unnamed_version(readme: &str, workspace: &str) -> Option<String> {
    let version = workspace.lines().find_map(|line| line.strip_prefix("rust-version = "))?.trim_matches('"');
    (!readme.contains(&format!("Rust {version} ")))
        .then(|| format!("README.md does not say that Rust {version} is needed"))
}

/// Guarantees whose last cell names no check, or one that no source has.
fn unproved(readme: &str, sources: &[&str]) -> Vec<String> {
    let Some(rows) = table(readme, "Guarantee") else {
        return vec!["README.md has no table headed `Guarantee`".to_owned()];
    };
    let mut findings = Vec::new();
    for row in rows {
        let checks: Vec<&str> =
            row.last().map_or(Vec::new(), |cell| cell.split('`').skip(1).step_by(2).collect());
        if checks.is_empty() {
            findings.push(format!("README.md: nothing is said to prove \"{}\"", row[0]));
        }
        for check in checks {
            if !sources.iter().any(|source| source.contains(check)) {
                findings.push(format!(
                    "README.md: \"{}\" is said to be proved by `{check}`, which is nowhere",
                    row[0]
                ));
            }
        }
    }
    findings
}

#[test]
fn the_quick_start_is_the_compiled_example() {
    crate::clean(differing_quick_start(&read("README.md"), &read(QUICK_START)));
}

#[test]
fn guarantees_name_checks_that_exist() {
    let files = files();
    let sources: Vec<&str> = files
        .iter()
        .filter(|file| file.path.ends_with(".rs") && !file.path.starts_with("tests/tidy/"))
        .filter_map(File::text)
        .collect();
    crate::clean(unproved(&read("README.md"), &sources));
}

#[test]
fn the_readme_names_the_rust_version_that_is_needed() {
    crate::clean(unnamed_version(&read("README.md"), &read("Cargo.toml")).into_iter().collect());
}

fn documents(files: &[File]) -> BTreeMap<&str, &str> {
    let documents = files.iter().filter(|file| file.path.ends_with(".md"));
    documents.filter_map(|file| Some((file.path.as_str(), file.text()?))).collect()
}

#[test]
fn links_and_paths_in_documents_lead_somewhere() {
    let files = files();
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let texts = documents(&files);
    let findings = texts.iter().flat_map(|(path, text)| {
        dead_links(path, &texts, &paths).into_iter().chain(dead_paths(path, text, &paths))
    });
    crate::clean(findings.collect());
}

#[test]
fn commands_in_documents_exist() {
    let files = files();
    let known = Known::of(&files, &read(".cargo/config.toml"));
    let texts = documents(&files);
    crate::clean(texts.iter().flat_map(|(path, text)| dead_commands(path, text, &known)).collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [&str; 0] = [];

    fn known() -> Known {
        let one = |name: &str| vec![name.to_owned()];
        Known {
            aliases: one("xtask"),
            packages: one("ropeway"),
            features: one("full"),
            tests: one("tidy"),
            examples: one("quickstart"),
        }
    }

    #[test]
    fn links_to_missing_files_and_headings_are_found() {
        let page = "# A b\n[1](#a-b) [2](docs/x.md#up) [3](broker/) [4](https://a.example/x)\n\
                    [5](#c) [6](gone.md) [7](docs/x.md#gone)\n";
        let texts = BTreeMap::from([("README.md", page), ("docs/x.md", "# Up\n[8](../README.md)\n")]);
        let paths = ["README.md", "broker/src/lib.rs", "docs/x.md"];
        let findings = dead_links("README.md", &texts, &paths);
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(findings.iter().all(|finding| finding.starts_with("README.md:3:")), "{findings:?}");
    }

    #[test]
    fn paths_that_are_gone_are_found() {
        let page = "`broker/src/lib.rs` `broker/` `cargo xtask x/y` `other/x` `broker/src/*.rs`\n`broker/src/gone.rs`\n";
        assert_eq!(
            dead_paths("A.md", page, &["broker/src/lib.rs"]),
            ["A.md:2: there is no `broker/src/gone.rs`"]
        );
    }

    #[test]
    fn commands_that_cannot_work_are_found() {
        for command in [
            "cargo frobnicate",
            "cargo xtask frobnicate",
            "cargo xtask",
            "cargo test -p nobody",
            "cargo test --test=nothing",
            "cargo run --example other",
            "cargo build --features full,kafka",
            "cat x | jq .",
        ] {
            let page = format!("```sh\n{command}\n```\n");
            assert_eq!(dead_commands("A.md", &page, &known()).len(), 1, "{command}");
        }
        let inline = "Run `cargo xtask frobnicate`.\n";
        assert_eq!(dead_commands("A.md", inline, &known()), ["A.md:1: there is no `cargo xtask frobnicate`"]);
        let good = "```sh\ncargo run --release -- demo --features x\nX=1 cargo test -p ropeway --test tidy\n\
                    cargo run --example quickstart\ncargo build --features full\ncargo xtask test\n```\n";
        assert_eq!(dead_commands("A.md", good, &known()), NONE);
    }

    #[test]
    fn a_quick_start_that_is_not_the_example_or_too_long_is_found() {
        let readme = |code: &str| format!("# R\n```rust\n{code}```\n");
        assert_eq!(differing_quick_start(&readme("fn main() {}\n"), "fn main() {}\n"), NONE);
        assert_eq!(differing_quick_start(&readme("fn main() {}\n"), "fn main() { }\n").len(), 1);
        assert_eq!(differing_quick_start("# R\n", "fn main() {}\n").len(), 1);
        let long = "//\n".repeat(MAX_QUICK_START_LINES + 1);
        assert_eq!(differing_quick_start(&readme(&long), &long).len(), 1);
    }

    #[test]
    fn another_rust_version_is_found() {
        let workspace = "[workspace.package]\nrust-version = \"1.90\"\n";
        assert_eq!(unnamed_version("Needs Rust 1.90 or newer.", workspace), None);
        assert!(unnamed_version("Needs Rust 1.9 or newer.", workspace).is_some());
    }

    #[test]
    fn a_guarantee_without_a_check_is_found() {
        let page = |row: &str| format!("| Guarantee | Proved by |\n|---|---|\n{row}\n");
        let sources = ["trial(\"P1 acked is there\")"];
        assert_eq!(unproved(&page("| Nothing acked is lost | `P1 acked is there` |"), &sources), NONE);
        assert_eq!(unproved(&page("| Nothing acked is lost | `P9 gone` |"), &sources).len(), 1);
        assert_eq!(unproved(&page("| Nothing acked is lost | |"), &sources).len(), 1);
        assert_eq!(unproved("# R\n", &sources).len(), 1);
    }
}
