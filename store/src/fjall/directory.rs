//! A directory that one process owns, and the format of what lies in it.

use super::{failure::of_io, mark::Mark, mark::sync_directory, reserve};
use crate::{Error, Result};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

/// The version of the layout of the directory: 1 had no numbers of commits and no high-water mark, 2 had
/// every keyspace under its own name in fjall.
const FORMAT: u32 = 3;
const FORMAT_PREFIX: &str = "ropeway-store ";

/// The layout of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Commits have no numbers, and there is no high-water mark.
    WithoutMark,
    /// All keyspaces lie under their own names.
    WithoutSpaces,
    /// Today's.
    Current,
}

impl Format {
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::WithoutMark => 1,
            Self::WithoutSpaces => 2,
            Self::Current => FORMAT,
        }
    }

    /// What the format file says.
    pub(super) fn line(self) -> String {
        format!("{FORMAT_PREFIX}{}\n", self.number())
    }
}

/// What is in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing yet, or a database that was not made to the end.
    Nothing,
    /// A database.
    Database(Format),
}

/// Holds the lock of a directory until it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    lock: File,
}

impl Directory {
    /// Makes the directory where there is none, and owns it.
    ///
    /// # Errors
    /// `Locked`; those of the file system.
    pub(super) fn make(path: &Path) -> Result<Self> {
        let made = fs::create_dir_all(path).map_err(|error| of_io(error, "make the directory", path));
        made.and_then(|()| Self::take(path, || _ = reserve::give_up(path)))
    }

    /// Whether there is anything of a store in it, damaged or not.
    pub(super) fn may_be(path: &Path) -> bool {
        ["lock", "format", "mark", "db"].iter().any(|name| path.join(name).exists())
    }

    /// Owns a directory.
    ///
    /// # Errors
    /// `Locked`; those of the file system.
    pub(super) fn own(path: &Path) -> Result<Self> {
        Self::take(path, || ())
    }

    /// `taken` is called before anything is written.
    fn take(path: &Path, taken: impl FnOnce()) -> Result<Self> {
        let failed = |doing: &'static str| move |error| of_io(error, doing, path);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"))
            .map_err(failed("open the lock file"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed("lock the directory")(error)),
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // The owner writes its name right after it has the lock; a name that is not there yet is not worth waiting for.
                _ = lock.read_to_string(&mut owner);
                let owner = owner.trim();
                let owner = if owner.is_empty() { "another process" } else { owner };
                return Err(Error::Locked { path: path.to_owned(), owner: owner.to_owned() });
            }
        }
        taken();
        write_owner(&mut lock).map_err(failed("write the lock file"))?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Has a database made aside, which is put in its place when it is whole, so that a process that is killed meanwhile leaves nothing
    /// that cannot be opened.
    ///
    /// # Errors
    /// Those of `database`; those of the file system.
    pub(super) fn fill(&self, database: impl FnOnce(&Path) -> Result<Mark>) -> Result<()> {
        let failed = |doing: &'static str| move |error| of_io(error, doing, &self.path);
        let aside = self.aside();
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(failed("remove an unfinished database"))?;
        }
        let mark = database(&aside)?;
        mark.write(&self.path).map_err(failed("write the high-water mark"))?;
        self.write_format()?;
        fs::rename(&aside, self.database()).map_err(failed("put the database in its place"))?;
        sync_directory(&self.path).map_err(failed("sync the directory"))
    }

    /// Whether it is still where it was, and nobody put another in its place.
    pub(super) fn is_in_place(&self) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let identity = |about: fs::Metadata| (about.dev(), about.ino());
            let there = fs::metadata(self.path.join("lock")).map(identity);
            let database = self.database().is_dir();
            database
                && there.is_ok_and(|there| self.lock.metadata().map(identity).is_ok_and(|own| own == there))
        }
        #[cfg(not(unix))]
        {
            self.database().is_dir()
        }
    }

    /// Where the database lies.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("db")
    }

    /// Where the database is made.
    fn aside(&self) -> PathBuf {
        self.path.join("db.new")
    }

    fn format(&self) -> PathBuf {
        self.path.join("format")
    }

    /// What is in it, by the format that it names.
    ///
    /// # Errors
    /// `Version` where this build does not know the format; `Corrupt` where it names none, or the database is missing.
    pub(super) fn content(&self) -> Result<Content> {
        Self::content_of(&self.path)
    }

    /// What is in a directory, owned or not. Nothing is changed.
    ///
    /// # Errors
    /// As [`Self::content`].
    pub(super) fn content_of(path: &Path) -> Result<Content> {
        let (file, database) = (path.join("format"), path.join("db"));
        let is_there = database.exists();
        let missing = |what: &Path| Error::Corrupt { what: format!("{}: missing", what.display()) };
        let format = match fs::read_to_string(&file) {
            Ok(text) => match text.trim().strip_prefix(FORMAT_PREFIX) {
                Some("1") => Format::WithoutMark,
                Some("2") => Format::WithoutSpaces,
                Some(found) if found == FORMAT.to_string() => Format::Current,
                Some(found) => {
                    return Err(Error::Version {
                        path: path.to_owned(),
                        found: found.chars().take(20).collect(),
                        known: FORMAT,
                    });
                }
                None => {
                    return Err(Error::Corrupt {
                        what: format!("{}: does not name a format", file.display()),
                    });
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // The mark is written just before the format, about a store with one commit.
                let was_there = matches!(Mark::read(path)?, Ok(mark) if mark.commit > 1);
                return if is_there || was_there { Err(missing(&file)) } else { Ok(Content::Nothing) };
            }
            Err(error) => return Err(of_io(error, "read the format file", path)),
        };
        match (is_there, path.join("db.new").exists()) {
            (true, _) => Ok(Content::Database(format)),
            // The format is written just before the database is put in its place.
            (false, true) => Ok(Content::Nothing),
            (false, false) => Err(missing(&database)),
        }
    }

    /// Written aside and renamed, so that it is there whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write_format(&self) -> Result<()> {
        let write = || {
            let aside = self.path.join("format.new");
            let mut out = File::create(&aside)?;
            out.write_all(Format::Current.line().as_bytes())?;
            out.sync_all()?;
            fs::rename(&aside, self.format())?;
            sync_directory(&self.path)
        };
        write().map_err(|error| of_io(error, "write the format file", &self.path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nobody owns it now; should that not be written, the next owner writes its own name.
        _ = self.lock.set_len(0);
        _ = self.lock.unlock();
    }
}

/// Says who owns the directory: program and process id.
fn write_owner(lock: &mut File) -> std::io::Result<()> {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy());
    let program = program.as_deref().unwrap_or("a program").to_owned();
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{program} (process {})", std::process::id())?;
    lock.flush()
}
