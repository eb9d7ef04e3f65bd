//! The repository as the rules see it: the tracked files and the new ones that are not ignored.
//!
//! Not here: the rules.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A file of the repository.
#[derive(Debug)]
pub(crate) struct File {
    /// From the root, with `/`.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) bytes: Vec<u8>,
}

impl File {
    /// Its text, where it is text.
    pub(crate) fn text(&self) -> Option<&str> {
        str::from_utf8(&self.bytes).ok().filter(|text| !text.contains('\0'))
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap().to_path_buf()
}

/// All files, sorted by path. Asks git, so it runs in a clone.
pub(crate) fn files() -> Vec<File> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| panic!("the repository rules need git: {error}"));
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let paths = String::from_utf8(listed.stdout).unwrap();
    let mut files: Vec<File> = paths
        .split_terminator('\0')
        .filter_map(|path| {
            fs::read(root().join(path)).ok().map(|bytes| File { path: path.to_owned(), bytes })
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    files
}

/// The text of one file.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_rules_see_the_repository() {
    let files = files();
    for path in ["Cargo.toml", "README.md", "broker/src/lib.rs", "tests/tidy/repository.rs", ".ci/run"] {
        assert!(files.iter().any(|file| file.path == path && file.text().is_some()), "{path} is not seen");
    }
}
