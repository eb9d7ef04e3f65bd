//! A small file system of its own, ext4 in a file: it can be filled, and cut off from its disk as by a power cut.
//!
//! Needs Linux, the right to mount, loop devices, `mkfs.ext4` and a C compiler; [`SmallDisk::absent`] says what a machine lacks. Whatever
//! becomes of the test, it is unmounted when it is dropped, and the loop device goes with it.
//! Not here: what happens to a broker on it (`power_cut.rs`, `disk_full.rs`).

use crate::{
    native,
    run::{PATIENCE, within_patience},
};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    sync::OnceLock,
};
use tempfile::TempDir;

/// The file system.
pub(crate) struct SmallDisk {
    root: TempDir,
    mounted: bool,
}

impl SmallDisk {
    /// Why there can be none on this machine; found out by doing everything once.
    pub(crate) fn absent() -> Option<&'static str> {
        static ABSENT: OnceLock<Option<String>> = OnceLock::new();
        let try_it = || {
            if !cfg!(target_os = "linux") {
                return Some("needs Linux: ext4 on a loop device".into());
            }
            let tried = Self::make(16).and_then(|mut disk| {
                disk.cut()?;
                match File::create(disk.path().join("written-after-the-cut")) {
                    Ok(_) => Err("a file system that was cut off can still be written".to_owned()),
                    Err(_) => disk.unmount(),
                }
            });
            tried.err().map(|why| format!("needs root, loop devices, mkfs.ext4 and cc: {why}"))
        };
        ABSENT.get_or_init(try_it).as_deref()
    }

    /// Makes and mounts one of so many MiB.
    pub(crate) fn make(mebibytes: u64) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("no place for a small file system: {error}");
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(failed)?;
        let mut disk = Self { root, mounted: false };
        File::create(disk.image()).and_then(|file| file.set_len(mebibytes * 1024 * 1024)).map_err(failed)?;
        fs::create_dir(disk.path()).map_err(failed)?;
        native::run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(disk.image()))?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.root.path().join("image")
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.root.path().join("disk")
    }

    /// How many bytes of it are free.
    pub(crate) fn free(&self) -> Result<u64, String> {
        let output = Command::new("df").args(["--output=avail", "-B1"]).arg(self.path()).output();
        let output = output.map_err(|error| format!("df cannot be run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let free = text.split_whitespace().last().and_then(|word| word.parse().ok());
        free.ok_or_else(|| format!("df says {text:?}"))
    }

    pub(crate) fn mount(&mut self) -> Result<(), String> {
        native::run(
            Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(self.image()).arg(self.path()),
        )?;
        self.mounted = true;
        Ok(())
    }

    /// From now on nothing comes on to its disk.
    pub(crate) fn cut(&self) -> Result<(), String> {
        static CUT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let cut = CUT.get_or_init(|| native::compile("cut", &[])).clone()?;
        native::run(Command::new(cut).arg(self.path()))
    }

    /// Takes it away. Whoever used it has ended, or is about to.
    pub(crate) fn unmount(&mut self) -> Result<(), String> {
        let mut last = String::new();
        let done = within_patience(|| match native::run(Command::new("umount").arg(self.path())) {
            Ok(()) => Ok(true),
            Err(why) => {
                last = why;
                Ok(false)
            }
        })?;
        if !done {
            return Err(format!("not unmounted within {PATIENCE:?}: {last}"));
        }
        self.mounted = false;
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.mounted && native::run(Command::new("umount").arg(self.path())).is_err() {
            // Somebody still uses it: it goes when they end.
            if let Err(why) = native::run(Command::new("umount").arg("-l").arg(self.path())) {
                eprintln!("{} stays mounted: {why}", self.path().display());
            }
        }
    }
}
