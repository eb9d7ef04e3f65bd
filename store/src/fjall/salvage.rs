//! What can be read of a store that is damaged, and a full check of one that may be.
//!
//! Not here: how damage is found (`inspect.rs`), and what is refused when a store is opened (`opening.rs`).

use super::{
    FjallSettings, FjallStore,
    damage::Damage,
    directory::{Content, Directory, Format},
    failure::{of_fjall, of_io},
    inspect::{Inspection, inspect},
    journal::Journal,
    mark::Mark,
    opening::{self, Damaged},
    spaces::SPACE,
    tree::Depth,
};
use crate::{
    Direction, Durability, Error, KeyValue, Keyspace, Limit, Page, Purpose, Result, Usage, WriteBatch,
};
use ::fjall::Database;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// What a check of a store found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The number of the newest commit that must be there; `None` where the store has no high-water mark, or it is damaged.
    pub marked_commit: Option<u64>,
    /// The number of the newest commit in the journals; `None` where there is none in them.
    pub last_commit: Option<u64>,
    /// The keyspaces that must be there, in order of their names; those whose names are unknown are called after their directories.
    pub keyspaces: Vec<KeyspaceReport>,
    /// All that is damaged. Empty: the store is as it was written.
    pub damage: Vec<Damage>,
}

/// What a check found of a keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyspaceReport {
    /// Its name.
    pub name: String,
    /// Bytes of its tables; what is in journals only comes on top.
    pub table_bytes: u64,
    /// Whether it can be opened. A keyspace that cannot is left out by [`salvage`].
    pub is_readable: bool,
}

/// Reads every byte of the store in `path` and tells all that is not as it was written. Takes as long as the disk needs to read it all.
///
/// Owns the directory meanwhile (its file `lock`), and changes nothing else.
///
/// # Errors
/// `Locked` names the process that has it open; `Absent` where there is no store; `Version` where the format is unknown; `Corrupt` where none can be
/// told from what is there; those of the file system that are not damage.
pub fn check(path: &Path) -> Result<Report> {
    let (_directory, found) = look(path, Depth::All)?;
    Ok(report(&found))
}

/// Makes what can be read of the store in `path` readable, and tells all that is damaged but the records in tables: a damaged one answers
/// [`Error::Corrupt`] when it is read, and [`check`] finds it before.
///
/// The original is owned as long as the store lives and nothing in it is changed: `scratch`, an empty directory or one that does not exist,
/// takes links to its tables (copies, where it lies on another file system) and copies of the rest, at most the size of the journals. The
/// caller removes it in the end. Of journals all whole commits are taken, also those behind a damaged part, so that the newest state may
/// lack commits in the middle: the report says which. Keyspaces whose frame is damaged are left out: the report names them.
///
/// # Errors
/// As [`check`]; `Io` where `scratch` is not empty.
pub fn salvage(path: &Path, scratch: &Path) -> Result<(SalvagedStore, Report)> {
    let (directory, found) = look(path, Depth::Frame)?;
    let report = report(&found);
    let failed = |doing: &'static str| move |error| of_io(error, doing, scratch);
    fs::create_dir_all(scratch).map_err(failed("make the directory"))?;
    if fs::read_dir(scratch).map_err(failed("list"))?.next().is_some() {
        let error = io::Error::from(io::ErrorKind::DirectoryNotEmpty);
        return Err(failed("salvage into it, which must be empty,")(error));
    }
    let settings = FjallSettings { workers: 1, ..FjallSettings::default() };
    let database = scratch.join("db");
    fill(&directory.database(), &database, &found, &settings)?;
    // Without numbers and mark it is as old as the first format, and becomes a store of its own.
    fs::write(scratch.join("format"), Format::WithoutMark.line()).map_err(failed("write the format file"))?;
    let store = FjallStore::run(opening::open(scratch, &settings, &Damaged::Accept(found.mark))?);
    Ok((SalvagedStore { store, _original: directory }, report))
}

fn look(path: &Path, depth: Depth) -> Result<(Directory, Inspection)> {
    if !path.is_dir() {
        let error = io::Error::from(io::ErrorKind::NotFound);
        return Err(of_io(error, "find a store", path));
    }
    let absent = || Error::Absent { path: path.to_owned() };
    if !Directory::may_be(path) {
        return Err(absent());
    }
    let directory = Directory::own(path)?;
    let format = match directory.content() {
        Ok(Content::Database(format)) => format,
        Ok(Content::Nothing) => {
            return Err(absent());
        }
        // Which format it has is damaged, and there is something: the mark tells one from the other.
        Err(Error::Corrupt { .. }) if directory.database().is_dir() => match Mark::read(path)? {
            Ok(_) => Format::Current,
            Err(_) => Format::WithoutMark,
        },
        Err(error) => return Err(error),
    };
    let mut found = inspect(path, &directory.database(), format, depth)?;
    if let Err(Error::Corrupt { what }) = directory.content() {
        found.other.insert(0, Damage::at(path.join("format"), what));
    }
    Ok((directory, found))
}

fn report(found: &Inspection) -> Report {
    let mut keyspaces = Vec::new();
    let names = found.mark.iter().flat_map(|mark| &mark.keyspaces);
    let mut names: BTreeMap<u64, String> = names.map(|(id, name)| (*id, name.clone())).collect();
    for id in found.trees.keys() {
        names.entry(*id).or_insert_with(|| format!("keyspaces/{id}"));
    }
    for (id, name) in names.into_iter().filter(|(id, name)| *id != 0 && !name.starts_with('\0')) {
        let tree = found.trees.get(&id);
        keyspaces.push(KeyspaceReport {
            name,
            table_bytes: tree.map_or(0, |(tree, _)| tree.files.iter().map(|(_, bytes)| bytes).sum()),
            is_readable: tree.is_some_and(|(_, damage)| damage.is_empty()),
        });
    }
    keyspaces.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Report {
        marked_commit: found.mark.as_ref().map(|mark| mark.commit),
        last_commit: found.scan.last_commit(),
        keyspaces,
        damage: found.damage(),
    }
}

/// Makes a database of what is whole.
fn fill(from: &Path, to: &Path, found: &Inspection, settings: &FjallSettings) -> Result<()> {
    let failed = |doing: &'static str| move |error| of_io(error, doing, to);
    let is_whole = |id: u64| found.trees.get(&id).is_some_and(|(_, damage)| damage.is_empty());
    if is_whole(0) {
        fs::create_dir_all(to.join("keyspaces")).map_err(failed("make"))?;
        File::create(to.join("lock")).map_err(failed("make the lock file"))?;
        fs::write(to.join("version"), b"FJL\x03").map_err(failed("write the version"))?;
    } else {
        // The list of keyspaces is lost; the mark has another.
        let names = found.mark.iter().flat_map(|mark| {
            let is_space = |id| mark.generations.contains_key(id);
            mark.keyspaces.iter().map(move |(id, name)| {
                (*id, if is_space(id) { format!("{SPACE}{id}") } else { name.clone() })
            })
        });
        list_anew(to, names.filter(|(id, _)| is_whole(*id)), settings)?;
    }
    for (id, (tree, _)) in found.trees.iter().filter(|(id, _)| is_whole(**id)) {
        let (from, to) =
            (from.join("keyspaces").join(id.to_string()), to.join("keyspaces").join(id.to_string()));
        if *id == 0 && !is_whole(0) {
            continue;
        }
        if to.exists() {
            fs::remove_dir_all(&to).map_err(failed("make room"))?;
        }
        fs::create_dir_all(to.join("tables")).map_err(failed("make"))?;
        for entry in
            fs::read_dir(&from).map_err(failed("list"))?.flatten().filter(|entry| entry.path().is_file())
        {
            fs::copy(entry.path(), to.join(entry.file_name())).map_err(failed("copy into"))?;
        }
        for (path, _) in &tree.files {
            let target = to.join("tables").join(path.file_name().unwrap_or_default());
            if fs::hard_link(path, &target).is_err() {
                fs::copy(path, &target).map_err(failed("copy into"))?;
            }
        }
    }
    for journal in &found.scan.journals {
        whole_commits(journal, &to.join(format!("{}.jnl", journal.id)))
            .map_err(failed("copy a journal into"))?;
    }
    Ok(())
}

/// Makes a database with these keyspaces, empty, each under its number.
fn list_anew(to: &Path, names: impl Iterator<Item = (u64, String)>, settings: &FjallSettings) -> Result<()> {
    let failed = |error| of_fjall(error, "make a list of keyspaces", to);
    let io = |error| of_io(error, "make a list of keyspaces", to);
    let database = Database::builder(to).worker_threads(1).open().map_err(failed)?;
    let folder = to.join("keyspaces");
    let mut next = 1;
    for (id, name) in names {
        // fjall gives the next number that no directory has.
        for taken in next..id {
            fs::create_dir_all(folder.join(taken.to_string())).map_err(io)?;
        }
        let made = database.keyspace(&name, || settings.options(Purpose::State)).map_err(failed)?;
        debug_assert_eq!(made.id(), id);
        next = id + 1;
    }
    drop(database);
    for entry in fs::read_dir(&folder).map_err(io)?.flatten() {
        if !entry.path().join("current").exists() {
            fs::remove_dir_all(entry.path()).map_err(io)?;
        }
    }
    fs::remove_file(to.join("0.jnl")).map_err(io)
}

/// Copies all commits of a journal that are whole.
fn whole_commits(journal: &Journal, to: &Path) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).open(to)?;
    for range in &journal.valid {
        let mut file = File::open(&journal.path)?;
        file.seek(SeekFrom::Start(range.start))?;
        io::copy(&mut file.take(range.end - range.start), &mut out)?;
    }
    Ok(())
}

/// What could be read of a damaged store: a [`KeyValue`] that takes no writes.
#[derive(Debug)]
pub struct SalvagedStore {
    store: FjallStore,
    _original: Directory,
}

impl SalvagedStore {
    fn refuse<T>(&self) -> Result<T> {
        Err(Error::Poisoned { why: "what was salvaged is only read".to_owned() })
    }
}

impl KeyValue for SalvagedStore {
    /// Opens one that is there; `Dropped` where it is not.
    fn open_keyspace(&self, name: &str, purpose: Purpose) -> Result<Keyspace> {
        if !self.keyspaces()?.iter().any(|known| known == name) {
            return Err(Error::Dropped);
        }
        self.store.open_keyspace(name, purpose)
    }

    fn drop_keyspace(&self, _: Keyspace) -> Result<()> {
        self.refuse()
    }

    fn keyspaces(&self) -> Result<Vec<String>> {
        self.store.keyspaces()
    }

    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.store.get(keyspace, key)
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        direction: Direction,
        limit: Limit,
    ) -> Result<Page> {
        self.store.scan(keyspace, from, to, direction, limit)
    }

    fn commit(&self, _: WriteBatch, _: Durability) -> Result<()> {
        self.refuse()
    }

    fn flush(&self, _: Keyspace) -> Result<()> {
        self.refuse()
    }

    fn usage(&self) -> Result<Usage> {
        self.store.usage()
    }

    fn close(&self) -> Result<()> {
        self.store.close()
    }
}
