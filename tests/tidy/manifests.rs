//! The form of manifests: sorted, under the lints of the workspace, features documented in tables that say the same.
//!
//! Not here: who may import whom (`imports.rs`).

use crate::{
    blocks,
    imports::{dependencies, members},
    repository::{files, read},
};
use toml::Table;

/// Crates that are shipped, as folders. Their features are documented at the top of `src/lib.rs`, those of the program in README.md.
const SHIPPED: &[&str] = &["broker", "cli", "processor", "store"];

/// Entries of a section of dependencies that do not stand in the order of the alphabet. An empty line begins a new group.
fn unsorted(path: &str, manifest: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut previous: Option<&str> = None;
    let mut inside = false;
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.trim_end().ends_with("dependencies]");
            previous = None;
        } else if line.trim().is_empty() {
            previous = None;
        } else if inside && line.starts_with(|c: char| c.is_alphanumeric()) {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if let Some(previous) = previous.filter(|previous| *previous > name) {
                findings.push(format!("{path}:{}: `{name}` belongs before `{previous}`", index + 1));
            }
            previous = Some(name);
        }
    }
    findings
}

/// Whether the workspace's lints and its Rust version hold for a member.
fn apart_from_the_workspace(folder: &str, manifest: &Table) -> Vec<String> {
    let inherits = |section: Option<&toml::Value>| {
        section.and_then(|section| section.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
    };
    let package = manifest.get("package");
    [
        ("[lints] workspace = true", inherits(manifest.get("lints"))),
        ("rust-version.workspace = true", inherits(package.and_then(|package| package.get("rust-version")))),
        ("edition.workspace = true", inherits(package.and_then(|package| package.get("edition")))),
    ]
    .into_iter()
    .filter(|(_, holds)| !holds)
    .map(|(what, _)| format!("{folder}/Cargo.toml lacks {what}"))
    .collect()
}

/// Dependencies of a member that none of its `sources` name.
fn unused(folder: &str, manifest: &Table, sources: &[&str]) -> Vec<String> {
    let names = |source: &str, krate: &str| {
        source.match_indices(krate).any(|(at, _)| {
            let before = source[..at].chars().next_back();
            let after = &source[at + krate.len()..];
            !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':'))
                && ["::", ";", " as "].iter().any(|end| after.starts_with(end))
        })
    };
    dependencies(manifest)
        .into_iter()
        .filter(|name| !sources.iter().any(|source| names(source, &name.replace('-', "_"))))
        .map(|name| format!("{folder}/Cargo.toml: nothing uses `{name}`"))
        .collect()
}

/// Dependencies of the workspace that no member has.
fn unused_by_all<'a>(workspace: &'a Table, members: impl Iterator<Item = &'a Table>) -> Vec<String> {
    let used: Vec<String> = members.flat_map(dependencies).collect();
    let declared = workspace.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    declared
        .and_then(toml::Value::as_table)
        .into_iter()
        .flat_map(Table::keys)
        .filter(|name| !used.contains(name))
        .map(|name| format!("Cargo.toml: no member uses `{name}`"))
        .collect()
}

/// Where the table headed `Feature` of `page` and the features of `manifest` differ. A column headed `Default` comes second.
fn differing_features(page_name: &str, page: &str, manifest: &Table) -> Vec<String> {
    let Some(declared) = manifest.get("features").and_then(toml::Value::as_table) else { return Vec::new() };
    let default: Vec<&str> = declared
        .get("default")
        .and_then(toml::Value::as_array)
        .map_or(Vec::new(), |default| default.iter().filter_map(toml::Value::as_str).collect());
    let Some(rows) = blocks::table(page, "Feature") else {
        return vec![format!("{page_name} has no table headed `Feature`")];
    };
    let rows: Vec<(String, String)> = rows
        .into_iter()
        .map(|row| (row[0].replace('`', ""), row.get(1).cloned().unwrap_or_default()))
        .collect();
    let mut findings = Vec::new();
    for (name, on) in &rows {
        if !declared.contains_key(name) {
            findings.push(format!("{page_name} names the feature `{name}`, which there is not"));
        } else if on.starts_with("yes") != default.contains(&name.as_str()) {
            findings.push(format!(
                "{page_name} says \"{on}\" of feature `{name}`: it is {}on by default",
                if default.contains(&name.as_str()) { "" } else { "not " }
            ));
        }
    }
    for name in declared.keys().filter(|name| *name != "default") {
        if !rows.iter().any(|(row, _)| row == name) {
            findings.push(format!("{page_name} does not name the feature `{name}`"));
        }
    }
    findings
}

/// The documentation at the top of a Rust file, as markdown.
fn top(source: &str) -> String {
    let lines = source.lines().take_while(|line| line.starts_with("//!"));
    lines.map(|line| line.trim_start_matches("//!").trim_start().to_owned() + "\n").collect()
}

#[test]
fn dependencies_are_sorted() {
    let files = files();
    let manifests = files.iter().filter(|file| file.path.ends_with("Cargo.toml"));
    crate::clean(manifests.flat_map(|file| unsorted(&file.path, file.text().unwrap_or_default())).collect());
}

#[test]
fn dependencies_are_used() {
    let files = files();
    let mut findings = Vec::new();
    for (folder, manifest) in members(&files) {
        let sources: Vec<&str> = files
            .iter()
            .filter(|file| file.path.ends_with(".rs"))
            .filter(|file| {
                file.path.starts_with(&format!("{folder}/")) || file.path == "tests/tidy/commands.rs"
            })
            .filter_map(|file| file.text())
            .collect();
        findings.extend(unused(&folder, &manifest, &sources));
    }
    let workspace = read("Cargo.toml").parse().unwrap();
    findings.extend(unused_by_all(&workspace, members(&files).values()));
    crate::clean(findings);
}

#[test]
fn members_are_under_the_rules_of_the_workspace() {
    let members = members(&files());
    crate::clean(
        members.iter().flat_map(|(folder, manifest)| apart_from_the_workspace(folder, manifest)).collect(),
    );
}

#[test]
fn tables_of_features_say_what_the_manifests_say() {
    let members = members(&files());
    let mut findings = Vec::new();
    for folder in SHIPPED {
        let (name, page) = match *folder {
            "cli" => ("README.md".to_owned(), read("README.md")),
            library => {
                let path = format!("{library}/src/lib.rs");
                let page = top(&read(&path));
                (path, page)
            }
        };
        findings.extend(differing_features(&name, &page, &members[*folder]));
    }
    crate::clean(findings);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_out_of_order_is_found_and_groups_stand_alone() {
        let manifest =
            "[dependencies]\nb = \"1\"\na.workspace = true\n\nab = \"1\"\n[features]\nz = []\nc = []\n";
        assert_eq!(unsorted("Cargo.toml", manifest), ["Cargo.toml:3: `a` belongs before `b`"]);
        assert_eq!(
            unsorted("Cargo.toml", "[workspace.dependencies]\nhyper = \"1\"\nhttp = \"1\"\n").len(),
            1
        );
        assert!(unsorted("Cargo.toml", "[dependencies]\nhyper = \"1\"\nhyper-util = \"1\"\n").is_empty());
    }

    #[test]
    fn a_dependency_that_nothing_uses_is_found() {
        let manifest =
            "[dependencies]\nhyper-util = \"1\"\n[dev-dependencies]\nrand = \"1\"\n".parse().unwrap();
        let finds = |source: &str| unused("cli", &manifest, &[source]).len();
        assert_eq!(finds("use hyper_util::rt;\nlet x = rand::random();\n"), 0);
        assert_eq!(finds("// hyper_util and rand\nuse other_rand::x;\nuse crate::rand::y;\n"), 2);
        let workspace = "[workspace.dependencies]\nrand = \"1\"\nregex = \"1\"\n".parse().unwrap();
        let findings = unused_by_all(&workspace, std::iter::once(&manifest));
        assert_eq!(findings, ["Cargo.toml: no member uses `regex`"]);
    }

    #[test]
    fn a_member_without_the_lints_is_found() {
        let manifest = "[package]\nedition.workspace = true\nrust-version = \"1.70\"\n".parse().unwrap();
        let findings = apart_from_the_workspace("x", &manifest);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].contains("lints") && findings[1].contains("rust-version"));
    }

    #[test]
    fn a_table_that_says_something_else_is_found() {
        let manifest = "[features]\ndefault = [\"one\"]\none = []\ntwo = []\n".parse().unwrap();
        let table = |rows: &str| format!("//! | Feature | Default |\n//! |---|---|\n{rows}");
        let findings = |rows: &str| differing_features("lib.rs", &top(&table(rows)), &manifest);
        assert_eq!(findings("//! | `one` | yes |\n//! | `two` | no |\n"), [""; 0]);
        assert_eq!(findings("//! | `one` | yes |\n").len(), 1);
        assert_eq!(findings("//! | `one` | no |\n//! | `two` | no |\n").len(), 1);
        assert_eq!(findings("//! | `one` | yes |\n//! | `two` | no |\n//! | `three` | no |\n").len(), 1);
        assert_eq!(differing_features("lib.rs", "", &manifest), ["lib.rs has no table headed `Feature`"]);
    }
}
