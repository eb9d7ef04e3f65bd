//! A directory that one process owns, and the format of what lies in it.

use super::of_io;
use crate::{Error, Result};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

/// The version of the layout of the directory.
const FORMAT: u32 = 1;
const FORMAT_PREFIX: &str = "ropeway-store ";

/// Holds the lock of a directory until it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    lock: File,
    /// The database is still to be made.
    is_new: bool,
}

impl Directory {
    /// Makes the directory where there is none, and owns it.
    pub(super) fn own(path: &Path) -> Result<Self> {
        let failed = |doing: &'static str| move |error| of_io(error, doing, path);
        fs::create_dir_all(path).map_err(failed("make the directory"))?;
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
        write_owner(&mut lock).map_err(failed("write the lock file"))?;
        let mut directory = Self { path: path.to_owned(), lock, is_new: false };
        directory.is_new = directory.check_format()?;
        Ok(directory)
    }

    /// Has the database made where there is none: aside, and renamed when it is whole, so that a process that is killed meanwhile leaves nothing
    /// that cannot be opened.
    pub(super) fn make(&self, database: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if !self.is_new {
            return Ok(());
        }
        let failed = |doing: &'static str| move |error| of_io(error, doing, &self.path);
        let aside = self.aside();
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(failed("remove an unfinished database"))?;
        }
        database(&aside)?;
        self.write_format().map_err(failed("write the format file"))?;
        fs::rename(&aside, self.database()).map_err(failed("put the database in its place"))?;
        self.sync().map_err(failed("sync the directory"))
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

    /// Checks the format; answers whether the database is still to be made.
    fn check_format(&self) -> Result<bool> {
        let failed = |doing: &'static str| move |error| of_io(error, doing, &self.path);
        let file = self.format();
        let is_there = self.database().exists();
        match fs::read_to_string(&file) {
            Ok(text) => match text.trim().strip_prefix(FORMAT_PREFIX) {
                Some(found) if found == FORMAT.to_string() => {
                    // The format is written just before the database is put in its place.
                    if !is_there && !self.aside().exists() {
                        let what = format!("{} is missing", self.database().display());
                        return Err(Error::Corrupt { what });
                    }
                    Ok(!is_there)
                }
                Some(found) => Err(Error::Version {
                    path: self.path.clone(),
                    found: found.chars().take(20).collect(),
                    known: FORMAT,
                }),
                None => Err(Error::Corrupt { what: format!("{} does not name a format", file.display()) }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if is_there {
                    return Err(Error::Corrupt { what: format!("{} is missing", file.display()) });
                }
                Ok(true)
            }
            Err(error) => Err(failed("read the format file")(error)),
        }
    }

    /// Written aside and renamed, so that it is there whole or not at all.
    fn write_format(&self) -> std::io::Result<()> {
        let aside = self.path.join("format.new");
        let mut out = File::create(&aside)?;
        writeln!(out, "{FORMAT_PREFIX}{FORMAT}")?;
        out.sync_all()?;
        fs::rename(&aside, self.format())?;
        self.sync()
    }

    fn sync(&self) -> std::io::Result<()> {
        if cfg!(unix) {
            File::open(&self.path)?.sync_all()?;
        }
        Ok(())
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
