//! What no file of the repository may hold: places of one machine, package hosts, very large files.
//!
//! Not here: words that only Rust files must not hold (`sources.rs`).

use crate::repository::files;

/// A larger file belongs somewhere else.
const MAX_BYTES: usize = 5_000_000;

/// Put together here, so that this file passes its own rule.
fn forbidden() -> Vec<(String, &'static str)> {
    let paths = [["/ro", "ot/"], ["/wo", "rk/"], ["/tmp/bash", "_jobs"], ["/home", "/runner"]];
    let hosts = [
        ["static.crates", ".io"],
        ["index.crates", ".io"],
        ["registry.npmjs", ".org"],
        ["proxy.golang", ".org"],
        ["files.pythonhosted", ".org"],
        ["pypi", ".org"],
        ["repo1.maven", ".org"],
        ["deb.debian", ".org"],
    ];
    let path = paths.iter().map(|parts| (parts.concat(), "a path of one machine"));
    path.chain(hosts.iter().map(|parts| (parts.concat(), "a package host"))).collect()
}

/// Lines that have one of the forbidden strings. A path counts only where a path can begin.
fn forbidden_strings(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (string, what) in forbidden() {
            let found = line.match_indices(&string).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !string.starts_with('/')
                    || !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '}'))
            });
            if found {
                findings.push(format!("{path}:{}: `{string}` is {what}", index + 1));
            }
        }
    }
    findings
}

fn too_large(path: &str, bytes: usize) -> Option<String> {
    (bytes >= MAX_BYTES)
        .then(|| format!("{path}: {bytes} bytes; at most {MAX_BYTES} belong into the repository"))
}

#[test]
fn no_file_names_a_place_of_one_machine_or_a_package_host() {
    let files = files();
    let texts = files.iter().filter_map(|file| Some((file.path.as_str(), file.text()?)));
    crate::clean(texts.flat_map(|(path, text)| forbidden_strings(path, text)).collect());
}

#[test]
fn files_are_of_a_bearable_size() {
    crate::clean(files().iter().filter_map(|file| too_large(&file.path, file.bytes.len())).collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_forbidden_string_is_found() {
        for (string, what) in forbidden() {
            let findings = forbidden_strings("a.md", &format!("fine\nsee {string}x\n"));
            assert_eq!(findings, [format!("a.md:2: `{string}` is {what}")]);
        }
    }

    #[test]
    fn a_part_of_a_longer_path_is_no_place_of_one_machine() {
        let (string, _) = &forbidden()[1];
        for text in [format!("frame{string}x"), format!(".{string}x"), format!("${{HOME}}{string}x")] {
            assert_eq!(forbidden_strings("a.rs", &text), [""; 0]);
        }
    }

    #[test]
    fn a_large_file_is_found() {
        assert!(too_large("a.bin", MAX_BYTES).is_some());
        assert!(too_large("a.bin", MAX_BYTES - 1).is_none());
    }
}
