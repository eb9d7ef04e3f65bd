//! `ropeway data`: what the directory of an embedded broker holds that may be damaged. No broker is opened.
//!
//! Here: which directory, and the scratch directory beside it. Not here: one verb each (`check.rs`, `export.rs`).

mod check;
mod export;

use crate::{exit::Exit, failure::Failure, session::Session};
use ropeway_broker::{BrokerUrl, ErrorKind};
use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

/// What `data` takes.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Read everything in a directory, and tell all that is damaged; ends with 3 where something is
    Check(check::Args),
    /// Print every message that can be read, as NDJSON; ends with 3 where some cannot
    Export(export::Args),
}

/// Runs a verb.
///
/// # Errors
/// Damage (3); a directory that is not there or holds no store (4), that is open elsewhere (69), or of a format that this build does not know
/// (78); those of stdout.
pub(crate) async fn run(verb: Verb, session: &mut Session) -> Result<(), Failure> {
    match verb {
        Verb::Check(args) => check::run(&args, session).await,
        Verb::Export(args) => export::run(&args, session),
    }
}

/// What help says about the scratch directory.
const SCRATCH: &str = "\
The directory is owned meanwhile, and nothing in it is changed. It is read through a scratch
directory that shares the tables by hard links where it lies on the same file system; it takes as
much room as the journals, elsewhere as much as the directory, and is removed in the end.";

/// The directory of an embedded broker.
#[derive(Clone, Debug)]
pub(crate) struct Dir(PathBuf);

impl FromStr for Dir {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let path = if text.starts_with("embedded:") {
            BrokerUrl::parse(text).map_err(|error| error.to_string())?.path
        } else if text.starts_with("memory:") {
            return Err(
                "`memory:` has no directory; it takes one, such as ./data or embedded:./data".to_owned()
            );
        } else if let Some((scheme, _)) = text.split_once("://") {
            return Err(format!(
                "`data` reads directories of `embedded:DIR`, and {scheme}:// is a server; `ropeway doctor` looks at those"
            ));
        } else {
            text.to_owned()
        };
        if path.is_empty() {
            return Err("it takes a directory, such as ./data or embedded:./data".to_owned());
        }
        Ok(Self(PathBuf::from(path)))
    }
}

impl Dir {
    /// The directory, which is there.
    ///
    /// # Errors
    /// It is not there (4), or is none (2).
    fn existing(&self) -> Result<&Path, Failure> {
        match fs::metadata(&self.0) {
            Ok(about) if about.is_dir() => Ok(&self.0),
            Ok(_) => Err(Failure::usage(format!("{} is no directory", self.0.display()))),
            Err(error) => {
                let exit =
                    if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Error };
                Err(Failure::new(format!("could not find {}", self.0.display()))
                    .caused_by(&error)
                    .exits(exit))
            }
        }
    }
}

/// The failure of reading a directory: what is damaged beyond reading ends with 3.
fn failed(error: ropeway_broker::Error) -> Failure {
    let exit = match error.kind() {
        ErrorKind::Corrupt => Exit::Assertion,
        kind => Exit::of_connecting(kind),
    };
    Failure::from(error).exits(exit)
}

/// An empty directory that is removed when it is dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    /// Makes one in `within`, or beside `dir`.
    ///
    /// # Errors
    /// Those of the file system.
    fn make(dir: &Path, within: Option<&Path>) -> Result<Self, Failure> {
        let failed = |path: &Path| {
            let what = format!("could not make a scratch directory in {}", path.display());
            move |error: std::io::Error| {
                Failure::new(what).caused_by(&error).hint("--scratch DIR names another place for it")
            }
        };
        let whole = fs::canonicalize(dir).map_err(failed(dir))?;
        let within = within.or_else(|| whole.parent()).unwrap_or(&whole);
        let name = whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let path = within.join(format!("{name}.salvage-{}", std::process::id()));
        fs::create_dir(&path).map_err(failed(within))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is named after what it is: who finds it knows that it may go.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_given_by_its_path_or_its_url() {
        for (text, path) in [("./a", "./a"), ("embedded:./a%20b?max_disk=1GiB", "./a b"), ("/x", "/x")] {
            assert_eq!(text.parse::<Dir>().unwrap().0, Path::new(path));
        }
        for bad in ["", "embedded:", "memory:", "embedded:%00", "redis://h"] {
            assert!(bad.parse::<Dir>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scratch_directory_lies_beside_and_goes_away() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("data");
        fs::create_dir(&dir).unwrap();
        let scratch = Scratch::make(&dir, None).unwrap();
        let path = scratch.path().to_owned();
        assert_eq!(path.parent(), Some(fs::canonicalize(place.path()).unwrap().as_path()));
        fs::write(path.join("x"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists() && dir.exists());
        assert!(Scratch::make(&dir, Some(&place.path().join("absent"))).is_err());
    }
}
