//! Where servers have their files: `target/servers/NAME/`, and what is written there about them.
//!
//! Not here: pid files (`process.rs`), what a server keeps in its folder (`redis/mod.rs`).

use super::{kind::Kind, trouble::Trouble, trouble::broken};
use crate::target;
use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// The folder of all servers.
#[derive(Clone, Debug)]
pub(crate) struct Place(PathBuf);

/// Held while servers are started or stopped. The system gives it up when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "open for as long as it is locked")] File);

/// Held while a command uses servers. The system gives it up when the process ends.
#[derive(Debug)]
pub(crate) struct Using(File);

impl Using {
    /// The same for this process alone; `None` while others use servers too.
    pub(crate) fn last(self) -> Result<Option<Self>, Trouble> {
        self.0.unlock().map_err(broken)?;
        match self.0.try_lock() {
            Ok(()) => Ok(Some(self)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(broken(error)),
        }
    }
}

impl Place {
    /// `servers` in the target folder of this workspace.
    pub(crate) fn of_workspace() -> Self {
        Self(target().join("servers"))
    }

    #[cfg(test)]
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where all of them have their files.
    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// Where a server has its files.
    pub(crate) fn folder(&self, kind: Kind) -> PathBuf {
        self.0.join(kind.name())
    }

    /// Waits until no other command starts or stops servers here.
    pub(crate) fn lock(&self) -> Result<Lock, Trouble> {
        let lock = || -> io::Result<File> {
            fs::create_dir_all(&self.0)?;
            let file = File::create(self.0.join("lock"))?;
            if file.try_lock().is_err() {
                eprintln!("waiting for another command that starts or stops servers");
                file.lock()?;
            }
            Ok(file)
        };
        lock().map(Lock).map_err(|error| broken(format!("cannot lock {}: {error}", self.0.display())))
    }

    /// Says that servers are used here. Waits while another command, the last one, takes them down.
    pub(crate) fn using(&self) -> Result<Using, Trouble> {
        let lock = || -> io::Result<File> {
            fs::create_dir_all(&self.0)?;
            let file = File::create(self.0.join("users"))?;
            file.lock_shared()?;
            Ok(file)
        };
        lock().map(Using).map_err(|error| broken(format!("cannot lock {}: {error}", self.0.display())))
    }

    /// Whether a server was brought up by hand, and stays when those who use it are done.
    pub(crate) fn is_kept(&self, kind: Kind) -> bool {
        self.folder(kind).join("kept").exists()
    }

    /// Says that it stays.
    pub(crate) fn keep(&self, kind: Kind) -> io::Result<()> {
        fs::write(self.folder(kind).join("kept"), "")
    }

    /// Makes the folder of a server, and empties it.
    pub(crate) fn fresh(&self, kind: Kind) -> Result<PathBuf, Trouble> {
        let folder = self.folder(kind);
        let made = match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => fs::create_dir_all(&folder),
        };
        made.map_err(|error| broken(format!("cannot empty {}: {error}", folder.display())))?;
        Ok(folder)
    }

    /// What was written about a server when it was ready.
    pub(crate) fn record(&self, kind: Kind) -> Option<Record> {
        Record::read(&fs::read_to_string(self.folder(kind).join("up")).ok()?)
    }

    /// Writes down that a server is ready, or with `None` that it no longer is.
    pub(crate) fn set_record(&self, kind: Kind, record: Option<&Record>) -> io::Result<()> {
        let file = self.folder(kind).join("up");
        match record {
            Some(record) => write(&file, &record.text()),
            None => match fs::remove_file(file) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }?;
        let all: String = Kind::ALL
            .iter()
            .filter_map(|kind| self.record(*kind))
            .flat_map(|record| record.exports)
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        write(&self.0.join("env"), &all)
    }
}

/// Writes a file so that a reader sees all of it or what was there before.
pub(crate) fn write(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, file)
}

/// What is known of a server that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// As the server says.
    pub(crate) version: String,
    /// When it was ready, in seconds since 1970.
    pub(crate) since: u64,
    /// Variables for the tests, the URL first.
    pub(crate) exports: Vec<(String, String)>,
}

impl Record {
    /// Its URL.
    pub(crate) fn url(&self) -> &str {
        self.exports.first().map_or("", |(_, url)| url)
    }

    fn text(&self) -> String {
        let exports: String = self.exports.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        format!("version {}\nsince {}\n{exports}", self.version, self.since)
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let version = lines.next()?.strip_prefix("version ")?.to_owned();
        let since = lines.next()?.strip_prefix("since ")?.parse().ok()?;
        let exports = lines.filter_map(|line| line.split_once('='));
        let exports = exports.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(Self { version, since, exports })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::kind::REDIS, *};

    fn record() -> Record {
        let exports = vec![("ROPEWAY_TEST_REDIS_URL".into(), "redis://127.0.0.1:1/?a=b".into())];
        Record { version: "7.0.15".into(), since: 1_700_000_000, exports }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        assert_eq!(Record::read(&record().text()), Some(record()));
        assert_eq!(Record::read("version 7"), None);
    }

    #[test]
    fn the_file_for_the_tests_names_what_is_up() {
        let place =
            Place::at(std::env::temp_dir().join(format!("ropeway-xtask-place-{}", std::process::id())));
        let lock = place.lock().unwrap();
        place.fresh(REDIS).unwrap();
        place.set_record(REDIS, Some(&record())).unwrap();
        let names = || fs::read_to_string(place.0.join("env")).unwrap();
        assert_eq!(names(), "ROPEWAY_TEST_REDIS_URL=redis://127.0.0.1:1/?a=b\n");
        place.set_record(REDIS, None).unwrap();
        assert_eq!(names(), "");
        drop(lock);
        fs::remove_dir_all(&place.0).unwrap();
    }
}
