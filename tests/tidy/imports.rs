//! Who may import whom, and which names a crate never uses.
//!
//! Every crate looks down. Draw the arrow in [`MAY_IMPORT`] before adding the dependency. Not here: the form of manifests
//! (`manifests.rs`).

use crate::repository::{File, files};
use std::collections::BTreeMap;
use toml::Table;

/// Folder, and the folders that its crate may import, in any kind of dependency.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("benches", &["broker", "processor"]),
    ("benches/instructions", &["broker", "processor"]),
    ("store", &[]),
    ("benches/rivals", &["benches", "broker", "processor", "store"]),
    ("broker", &["store"]),
    ("processor", &["broker", "store"]),
    ("cli", &["benches", "broker", "processor", "store"]),
    ("tests", &["broker", "processor", "store"]),
    ("tests/containers", &[]),
    ("xtask", &[]),
];

/// Folder of sources, words that its code outside of tests never has, and why.
const NEVER_NAMES: &[(&str, &[&str], &str)] = &[
    ("processor/src/", &["Embedded", "fjall", "rdkafka", "pulsar::", "redis::"], "names no backend"),
    ("broker/src/", &["serde_json"], "decodes no payload"),
    ("store/src/", &["Topic", "Message", "Event"], "knows nothing of messages"),
];

/// What `manifests` (by folder) do against `table`.
fn forbidden_imports(table: &[(&str, &[&str])], manifests: &BTreeMap<String, Table>) -> Vec<String> {
    let folders: BTreeMap<&str, &str> = manifests
        .iter()
        .filter_map(|(folder, manifest)| {
            Some((manifest.get("package")?.get("name")?.as_str()?, folder.as_str()))
        })
        .collect();
    let mut findings = Vec::new();
    for (folder, manifest) in manifests {
        let Some((_, allowed)) = table.iter().find(|(known, _)| known == folder) else {
            findings.push(format!(
                "{folder} is not in MAY_IMPORT (tests/tidy/imports.rs): say there what it may import"
            ));
            continue;
        };
        for name in dependencies(manifest) {
            if let Some(imported) = folders.get(name.as_str()).filter(|imported| !allowed.contains(imported))
            {
                findings.push(format!("{folder} must not import {imported}"));
            }
        }
    }
    findings
}

/// The packages that a manifest depends on in any way.
pub(crate) fn dependencies(manifest: &Table) -> Vec<String> {
    let mut names = Vec::new();
    let mut collect = |table: &Table| {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in
                table.get(section).and_then(|section| section.as_table()).into_iter().flatten()
            {
                let package = value.get("package").and_then(|package| package.as_str());
                names.push(package.unwrap_or(name).to_owned());
            }
        }
    };
    collect(manifest);
    for target in
        manifest.get("target").and_then(|target| target.as_table()).into_iter().flat_map(Table::values)
    {
        target.as_table().into_iter().for_each(&mut collect);
    }
    names
}

/// Code outside of tests that has one of `words`. Comments and strings of documentation may.
fn forbidden_names(path: &str, text: &str, words: &[&str], why: &str) -> Vec<String> {
    if path.contains("/tests/") || path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let folder = path.split('/').next().unwrap_or_default();
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .flat_map(|(index, line)| {
            words.iter().filter(|word| line.contains(**word)).map(move |word| (index + 1, *word))
        })
        .map(|(line, word)| format!("{path}:{line}: {folder} {why}, and this says `{word}`"))
        .collect()
}

/// The manifests of the members, by folder.
pub(crate) fn members(files: &[File]) -> BTreeMap<String, Table> {
    files
        .iter()
        .filter_map(|file| {
            let folder = file.path.strip_suffix("/Cargo.toml")?;
            Some((
                folder.to_owned(),
                file.text()?.parse().unwrap_or_else(|error| panic!("{}: {error}", file.path)),
            ))
        })
        .collect()
}

#[test]
fn crates_import_only_what_lies_below_them() {
    crate::clean(forbidden_imports(MAY_IMPORT, &members(&files())));
}

#[test]
fn crates_do_not_name_what_is_not_theirs() {
    let mut findings = Vec::new();
    for file in files() {
        for (folder, words, why) in NEVER_NAMES {
            if file.path.starts_with(folder) && file.path.ends_with(".rs") {
                findings.extend(forbidden_names(&file.path, file.text().unwrap_or_default(), words, why));
            }
        }
    }
    crate::clean(findings);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifests(jobs: &str) -> BTreeMap<String, Table> {
        let package = |name: &str| format!("[package]\nname = \"ropeway-{name}\"\n").parse().unwrap();
        let jobs = format!("[package]\nname = \"ropeway-jobs\"\n{jobs}").parse().unwrap();
        BTreeMap::from([("cache".to_owned(), package("cache")), ("jobs".to_owned(), jobs)])
    }

    const TABLE: &[(&str, &[&str])] = &[("cache", &[]), ("jobs", &[])];

    #[test]
    fn an_import_that_is_not_drawn_is_found_in_every_kind_of_dependency() {
        for section in
            ["dependencies", "dev-dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"]
        {
            let manifests = manifests(&format!("[{section}]\nropeway-cache.workspace = true\n"));
            assert_eq!(forbidden_imports(TABLE, &manifests), ["jobs must not import cache"], "{section}");
        }
        let renamed =
            manifests("[dependencies]\nother = { package = \"ropeway-cache\", path = \"../cache\" }\n");
        assert_eq!(forbidden_imports(TABLE, &renamed), ["jobs must not import cache"]);
        assert!(forbidden_imports(&[("cache", &[]), ("jobs", &["cache"])], &renamed).is_empty());
    }

    #[test]
    fn a_crate_that_is_not_in_the_table_is_found() {
        let findings = forbidden_imports(&TABLE[..1], &manifests(""));
        assert!(findings[0].starts_with("jobs is not in MAY_IMPORT"), "{findings:?}");
    }

    #[test]
    fn a_forbidden_name_is_found_in_code_and_not_in_comments_or_tests() {
        let text =
            "//! On fjall.\nuse fjall::Keyspace;\n\n#[cfg(test)]\nmod tests {\n    use fjall::Config;\n}\n";
        let findings = forbidden_names("processor/src/pool.rs", text, &["fjall"], "names no backend");
        assert_eq!(findings, ["processor/src/pool.rs:2: processor names no backend, and this says `fjall`"]);
        assert!(forbidden_names("processor/src/pool/tests.rs", text, &["fjall"], "").is_empty());
    }
}
