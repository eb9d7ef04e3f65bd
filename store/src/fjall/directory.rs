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
        let directory = Self { path: path.to_owned(), lock };
        directory.check_format()?;
        Ok(directory)
    }

    /// Where the database lies.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("db")
    }

    fn check_format(&self) -> Result<()> {
        let failed = |doing: &'static str| move |error| of_io(error, doing, &self.path);
        let file = self.path.join("format");
        match fs::read_to_string(&file) {
            Ok(text) => match text.trim().strip_prefix(FORMAT_PREFIX) {
                Some(found) if found == FORMAT.to_string() => Ok(()),
                Some(found) => Err(Error::Version {
                    path: self.path.clone(),
                    found: found.chars().take(20).collect(),
                    known: FORMAT,
                }),
                None => Err(Error::Corrupt { what: format!("{} does not name a format", file.display()) }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if self.database().exists() {
                    return Err(Error::Corrupt { what: format!("{} is missing", file.display()) });
                }
                self.write_format(&file).map_err(failed("write the format file"))
            }
            Err(error) => Err(failed("read the format file")(error)),
        }
    }

    /// Written aside and renamed, so that it is there whole or not at all.
    fn write_format(&self, file: &Path) -> std::io::Result<()> {
        let aside = self.path.join("format.new");
        let mut out = File::create(&aside)?;
        writeln!(out, "{FORMAT_PREFIX}{FORMAT}")?;
        out.sync_all()?;
        fs::rename(&aside, file)?;
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
