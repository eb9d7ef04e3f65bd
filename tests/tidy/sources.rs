//! The form of Rust files: a header that says what lives here and what elsewhere, bounded length, nothing left open, exceptions with a
//! reason.
//!
//! Functions are found by their indentation, which formatting guarantees. Not here: imports (`imports.rs`), formatting and lints
//! (`cargo xtask check`).

use crate::repository::{File, files};

const MAX_FILE_LINES: usize = 550;
const MAX_FUNCTION_LINES: usize = 120;
/// A product file longer than this also says what lives elsewhere.
const ELSEWHERE_FROM_LINES: usize = 150;
const PRODUCT: &[&str] = &["broker/src/", "cli/src/", "processor/src/", "store/src/", "xtask/src/"];

/// The lines of the `//!` header, without the marker.
fn header(text: &str) -> Vec<&str> {
    text.lines().take_while(|line| line.starts_with("//!")).map(|line| line[3..].trim()).collect()
}

/// The files that a header names.
fn named<'a>(header: &[&'a str]) -> Vec<&'a str> {
    let code = header.iter().flat_map(|line| line.split('`').skip(1).step_by(2));
    code.filter(|code| code.ends_with(".rs")).map(|name| name.trim_start_matches("../")).collect()
}

/// What is missing in the header. `paths` are all paths of the repository: files that a header names exist. `map` is the text of the
/// `mod.rs` or `lib.rs` beside it: where that names the file, it says what lives elsewhere.
fn header_findings(path: &str, text: &str, map: &str, paths: &[&str]) -> Vec<String> {
    let says = header(text);
    if says.first().is_none_or(|line| line.split(' ').count() < 3) {
        return vec![format!("{path}:1: the first line is no `//!` sentence that says what lives here")];
    }
    let mut findings = Vec::new();
    let names = named(&says);
    for name in &names {
        if !paths.iter().any(|path| path == name || path.ends_with(&format!("/{name}"))) {
            findings.push(format!("{path}: the header names `{name}`, and there is no such file"));
        }
    }
    let product = PRODUCT.iter().any(|folder| path.starts_with(folder)) && !path.contains("/tests");
    let own = path.rsplit('/').next().unwrap_or_default();
    let elsewhere = !names.is_empty()
        || says.iter().any(|line| line.contains("Not here:") || *line == "# Where things are")
        || named(&header(map)).contains(&own);
    if product && text.lines().count() > ELSEWHERE_FROM_LINES && !elsewhere {
        findings.push(format!(
            "{path}: over {ELSEWHERE_FROM_LINES} lines, and neither its header (\"Not here: ... (`file.rs`)\") nor that of its folder says \
             what lives elsewhere"
        ));
    }
    findings
}

fn too_long(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > MAX_FILE_LINES).then(|| format!("{path}: {lines} lines; at most {MAX_FILE_LINES}"))
}

/// The name of the function that begins in this line.
fn function(line: &str) -> Option<&str> {
    let mut words = line.trim_start().split(' ');
    let name = loop {
        match words.next()? {
            "fn" => break words.next()?,
            "async" | "const" | "unsafe" | "extern" | "default" => {}
            word if word.starts_with("pub") || word.starts_with('"') || word.ends_with(')') => {}
            _ => return None,
        }
    };
    name.split(['(', '<']).next()
}

/// Functions that are too long, from their first line to the brace that closes them.
fn long_functions(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function(line).filter(|_| !line.ends_with([';', '}'])) else { continue };
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", &line[..indent]);
        let length = lines[start..].iter().position(|line| *line == end).map_or(0, |end| end + 1);
        if length > MAX_FUNCTION_LINES {
            findings.push(format!(
                "{path}:{}: `{name}` has {length} lines; at most {MAX_FUNCTION_LINES}",
                start + 1
            ));
        }
    }
    findings
}

/// Modules whose name says nothing about what lives in them, and tests that are called after being tests.
fn empty_names(path: &str, text: &str) -> Vec<String> {
    const EMPTY: [&str; 8] = ["common", "data", "helper", "info", "manager", "misc", "util", "utility"];
    let modules = path.trim_end_matches(".rs").split('/');
    let plural = |name: &str| name.trim_end_matches('s').to_owned();
    let mut findings: Vec<String> = modules
        .filter(|name| EMPTY.iter().any(|empty| plural(empty) == plural(name)))
        .map(|name| format!("{path}: `{name}` says nothing; name it after what lives there"))
        .collect();
    for (index, line) in text.lines().enumerate() {
        if let Some(name) = function(line).filter(|name| name.starts_with("test_")) {
            findings.push(format!("{path}:{}: `{name}`: the name of a test is a sentence", index + 1));
        }
    }
    findings
}

/// What is left open: words put together here, so that this file passes its own rule.
fn left_open(path: &str, text: &str) -> Vec<String> {
    let words =
        [["to", "do!"], ["unimplement", "ed!"], ["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["#[ign", "ore"]];
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for word in words.iter().map(|parts| parts.concat()) {
            let found = line.match_indices(&word).any(|(at, _)| {
                !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word)
            });
            if found {
                findings.push(format!("{path}:{}: `{word}`: finish it, or leave it out", index + 1));
            }
        }
    }
    findings
}

/// Lints that are switched off without a reason, and `unsafe` that was not expected.
fn silent_exceptions(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let code: Vec<(usize, &str)> =
        text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")).collect();
    for (index, line) in &code {
        let line = line.trim_start();
        if line.starts_with("#[allow(") || line.starts_with("#![allow(") {
            findings
                .push(format!("{path}:{}: use #[expect(.., reason = \"..\")] instead of allow", index + 1));
        }
        if line.starts_with("#[expect(") || line.starts_with("#![expect(") {
            let whole: Vec<&str> = text.lines().skip(*index).take(8).collect();
            let whole = whole.join(" ");
            let attribute = whole.split(")]").next().unwrap_or_default();
            if !attribute.contains("reason =") {
                findings.push(format!("{path}:{}: an expectation without a reason", index + 1));
            }
        }
        let opens = ["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe trait ", "unsafe extern "];
        if opens.iter().any(|open| line.starts_with(open) || line.contains(&format!(" {open}")))
            && !text.contains(&["expect(unsafe", "_code"].concat())
        {
            findings.push(format!("{path}:{}: unsafe code without an expectation that says why", index + 1));
        }
    }
    findings
}

/// Runs `rule` over every Rust file.
fn for_every_source(rule: impl Fn(&str, &str) -> Vec<String>) {
    let files = files();
    let sources = files.iter().filter(|file| file.path.ends_with(".rs"));
    crate::clean(sources.flat_map(|file| rule(&file.path, file.text().unwrap_or_default())).collect());
}

#[test]
fn every_source_says_what_lives_in_it_and_what_elsewhere() {
    let files = files();
    let paths: Vec<&str> = files.iter().map(|file: &File| file.path.as_str()).collect();
    let map = |path: &str| {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let maps = ["mod.rs", "lib.rs", "main.rs"].map(|map| format!("{folder}/{map}"));
        files.iter().find(|file| maps.contains(&file.path)).and_then(File::text).unwrap_or_default()
    };
    for_every_source(|path, text| header_findings(path, text, map(path), &paths));
}

#[test]
fn files_and_functions_are_of_a_readable_length() {
    for_every_source(|path, text| {
        too_long(path, text).into_iter().chain(long_functions(path, text)).collect()
    });
}

#[test]
fn names_say_something() {
    for_every_source(empty_names);
}

#[test]
fn nothing_is_left_open() {
    for_every_source(left_open);
}

#[test]
fn exceptions_from_lints_say_why() {
    for_every_source(silent_exceptions);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAYS: &str = "//! Which acks make a position.\n";

    #[test]
    fn a_missing_or_empty_header_is_found() {
        for text in ["use std::fmt;\n", "// A comment of some words.\n", "//! Acks.\n", ""] {
            assert_eq!(header_findings("broker/src/a.rs", text, "", &[]).len(), 1, "{text}");
        }
        assert!(header_findings("broker/src/a.rs", SAYS, "", &[]).is_empty());
    }

    #[test]
    fn a_long_module_that_does_not_say_what_lives_elsewhere_is_found() {
        let body = "fn a() {}\n".repeat(ELSEWHERE_FROM_LINES);
        let findings = |head: &str, path: &str, map: &str| {
            header_findings(path, &format!("{head}\n{body}"), map, &["broker/src/b.rs"]).len()
        };
        assert_eq!(findings(SAYS, "broker/src/a.rs", ""), 1);
        assert_eq!(findings(SAYS, "broker/src/a.rs", "//! Not here: `b.rs`.\n"), 1);
        assert_eq!(findings(SAYS, "broker/src/a.rs", "//! `a.rs` decides, `b.rs` acts.\n"), 0);
        assert_eq!(findings(SAYS, "tests/a.rs", ""), 0);
        assert_eq!(findings(&format!("{SAYS}//! Not here: when."), "broker/src/a.rs", ""), 0);
        assert_eq!(findings(&format!("{SAYS}//! When is in `b.rs`."), "broker/src/a.rs", ""), 0);
    }

    #[test]
    fn a_header_that_names_a_file_which_is_gone_is_found() {
        let text = format!("{SAYS}//! Not here: when (`gone.rs`).\n");
        assert_eq!(header_findings("broker/src/a.rs", &text, "", &["broker/src/b.rs"]).len(), 1);
        assert!(header_findings("broker/src/a.rs", &text, "", &["broker/src/gone.rs"]).is_empty());
    }

    #[test]
    fn a_long_file_is_found() {
        assert!(too_long("a.rs", &"\n".repeat(MAX_FILE_LINES + 1)).is_some());
        assert!(too_long("a.rs", &"\n".repeat(MAX_FILE_LINES)).is_none());
    }

    #[test]
    fn a_long_function_is_found_whatever_stands_before_fn() {
        let body = |lines: usize| "        if x {\n        }\n".repeat(lines / 2);
        for head in ["fn", "pub fn", "pub(crate) async fn", "pub const unsafe fn", "unsafe extern \"C\" fn"] {
            let text = |lines| format!("impl X {{\n    {head} long<T>(x: T) {{\n{}    }}\n}}\n", body(lines));
            let findings = long_functions("a.rs", &text(MAX_FUNCTION_LINES));
            assert_eq!(
                findings,
                [format!("a.rs:2: `long` has 122 lines; at most {MAX_FUNCTION_LINES}")],
                "{head}"
            );
            assert!(long_functions("a.rs", &text(MAX_FUNCTION_LINES - 2)).is_empty());
        }
        assert_eq!(function("// a fn that"), None);
        assert_eq!(function("let f: fn() = x;"), None);
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        for path in ["broker/src/utils.rs", "broker/src/common/mod.rs", "cli/src/key_value/helper.rs"] {
            assert_eq!(empty_names(path, "").len(), 1, "{path}");
        }
        assert_eq!(empty_names("broker/src/clock.rs", "    async fn test_it() {\n    }\n").len(), 1);
        assert!(empty_names("broker/src/information.rs", "fn tested() {}\n").is_empty());
    }

    #[test]
    fn what_is_left_open_is_found_as_a_word() {
        let open =
            [["// TO", "DO: later"], ["    to", "do!()"], ["#[ign", "ore = \"slow\"]"], ["/* FIX", "ME */"]];
        for line in open.map(|parts| parts.concat()) {
            assert_eq!(left_open("a.rs", &line).len(), 1, "{line}");
        }
        assert!(left_open("a.rs", "fn method_to_do() { MASTODON }").is_empty());
    }

    #[test]
    fn silent_exceptions_are_found() {
        let found = |text: &str| silent_exceptions("a.rs", text).len();
        assert_eq!(found("#[allow(dead_code)]\n"), 1);
        assert_eq!(found("#![expect(dead_code)]\n"), 1);
        assert_eq!(found("#[expect(dead_code, reason = \"read by people\")]\n"), 0);
        assert_eq!(found("#[expect(\n    dead_code,\n    reason = \"read by people\"\n)]\n"), 0);
        let block = ["let x = uns", "afe { y() };\n"].concat();
        assert_eq!(found(&block), 1);
        assert_eq!(found(&(["#[expect(uns", "afe_code, reason = \"audited\")]\n"].concat() + &block)), 0);
    }
}
