//! Opens the directory of a store: looks at it, brings it up to date, and hands it to fjall.
//!
//! Not here: what is looked at (`inspect.rs`).

use super::{
    COMMITS, Failure, Inner, Open, Trees,
    damage::{Damage, refuse},
    directory::{Content, Directory, Format},
    failure::{of_fjall, of_io},
    inspect::{Inspection, inspect},
    journal,
    mark::{self, Mark},
    room::write_out,
    settings::FjallSettings,
    spaces::{SPACE, Spaces},
    tree::Depth,
};
use crate::{Purpose, Result};
use ::fjall::{Database, Keyspace as Tree, PersistMode};
use std::{
    fs::OpenOptions,
    path::Path,
    sync::{Mutex, RwLock, atomic::AtomicU64},
};

/// How many tables are open at once. fjall opens one anew that it closed.
const MAX_FILES: usize = 256;

/// What is done with damage.
#[derive(Debug)]
pub(super) enum Damaged {
    Refuse,
    /// Opened without it: it is known, and so is what the mark says, where it can be read.
    Accept(Option<Mark>),
}

/// Opens a directory, and makes it where there is none.
pub(super) fn open(path: &Path, settings: &FjallSettings, damaged: &Damaged) -> Result<Inner> {
    let directory = Directory::make(path)?;
    let format = match directory.content()? {
        Content::Database(format) => format,
        Content::Nothing => {
            directory.fill(|aside| make(aside, settings))?;
            Format::Current
        }
    };
    let database = directory.database();
    let found = inspect(path, &database, format, Depth::Frame)?;
    if matches!(damaged, Damaged::Refuse) {
        refuse(&found.damage())?;
    }
    if let Some(mark) = found.mark.as_ref().filter(|mark| mark.versions.is_some()) {
        // From here on journals may go.
        let mark = Mark { versions: None, ..mark.clone() };
        mark.write(path).map_err(|error| of_io(error, "write the high-water mark", path))?;
    }
    cut_torn(&found)?;
    let opened = take_over(&database, settings, Some(&found))?;
    if format == Format::WithoutMark {
        // What its journals hold has no numbers, so it is put where it does not need them.
        for name in opened.database.list_keyspace_names() {
            let tree = opened.database.keyspace(&name, || settings.options(Purpose::State));
            write_out(
                &tree.map_err(|error| of_fjall(error, "open a keyspace", path))?,
                &opened.database,
                path,
            )?;
        }
    }
    let number = match opened.number {
        0 => opened.first_commit(path)?,
        number => number,
    };
    let known = match damaged {
        Damaged::Refuse => None,
        Damaged::Accept(mark) => Some(mark.as_ref()),
    };
    let spaces = Spaces::read(&opened.database, &opened.commits, known, path)?;
    let mark = opened.mark(&spaces, &database, number, path)?;
    if let Some(before) = &found.mark {
        refuse(&behind(before, &mark, &database))?;
    }
    mark.write(path).map_err(|error| of_io(error, "write the high-water mark", path))?;
    if format != Format::Current {
        directory.write_format()?;
    }
    let open = Open {
        trees: RwLock::new(Trees::default()),
        spaces: Mutex::new(spaces),
        commits: opened.commits,
        number: Mutex::new(number),
        database: opened.database,
        forgotten: AtomicU64::new(0),
        directory,
    };
    Ok(Inner {
        path: path.to_owned(),
        settings: settings.clone(),
        database,
        open: RwLock::new(Some(open)),
        failure: Failure::default(),
        synced: AtomicU64::new(number),
        mark: Mutex::new(mark),
        bell: super::keeper::Bell::default(),
        journals: super::room::Journals::default(),
    })
}

/// Cuts off the commit that a crash left unfinished: fjall would do so too, but trusts the lengths in it first.
fn cut_torn(found: &Inspection) -> Result<()> {
    for journal in &found.scan.journals {
        let Some(torn) = &journal.torn else { continue };
        let cut = || {
            let file = OpenOptions::new().write(true).open(&journal.path)?;
            file.set_len(torn.start)?;
            file.sync_all()
        };
        cut().map_err(|error| of_io(error, "cut an unfinished commit off", &journal.path))?;
    }
    Ok(())
}

/// Makes a database that holds one commit.
fn make(database: &Path, settings: &FjallSettings) -> Result<Mark> {
    let opened = take_over(database, settings, None)?;
    let number = opened.first_commit(database)?;
    opened.mark(&Spaces::default(), database, number, database)
}

/// What fjall has, opened.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) commits: Tree,
    /// The number of the last commit; 0 where there is none.
    pub(super) number: u64,
}

/// Hands a directory to fjall.
pub(super) fn take_over(
    database: &Path,
    settings: &FjallSettings,
    found: Option<&Inspection>,
) -> Result<Opened> {
    let opened = Database::builder(database)
        .cache_size(settings.cache_bytes)
        .max_cached_files(Some(MAX_FILES))
        .max_journaling_size(settings.journal_bytes.max(64 * 1024 * 1024))
        .worker_threads(settings.workers.max(1))
        .open()
        .map_err(|error| of_fjall(error, "open the store", database))?;
    if let Some(found) = found {
        // fjall goes on counting behind the newest record of all keyspaces, but not behind the newest change to the list of keyspaces.
        // Where that was the last to happen, a keyspace that is made anew under the number of one that was dropped would be hidden by the
        // note that it was dropped, and removed when it is opened again.
        opened.supervisor.seqno.fetch_max(found.sequence() + 1);
    }
    let failed = |doing: &'static str| move |error| of_fjall(error, doing, database);
    let small = FjallSettings { memtable_bytes: 1024 * 1024, ..settings.clone() };
    let commits = opened.keyspace(COMMITS, || small.options(Purpose::State));
    let commits = commits.map_err(failed("open a keyspace"))?;
    let number = commits.get(journal::COMMIT_KEY).map_err(failed("read the number of the last commit"))?;
    let number = number.and_then(|number| journal::decode_number(&number)).unwrap_or_default();
    Ok(Opened { database: opened, commits, number })
}

impl Opened {
    /// Commits number 1, and answers it.
    fn first_commit(&self, path: &Path) -> Result<u64> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.commits, journal::COMMIT_KEY, journal::encode_number(1).as_slice());
        batch.commit().map_err(|error| of_fjall(error, "commit", path))?;
        Ok(1)
    }

    /// What must be there when it is opened again.
    fn mark(&self, spaces: &Spaces, database: &Path, number: u64, path: &Path) -> Result<Mark> {
        let commits = self.commits.id();
        let mut mark = Mark { commit: number, commits, ..Mark::default() };
        mark.keyspaces.insert(commits, COMMITS.to_owned());
        spaces.mark(&mut mark);
        mark.journals = mark::journals(database, commits, &mark.journals)
            .map_err(|error| of_io(error, "list the journals", path))?;
        Ok(mark)
    }
}

/// What fjall did not find again, although nothing looked damaged.
fn behind(before: &Mark, now: &Mark, database: &Path) -> Vec<Damage> {
    let mut damage = Vec::new();
    if now.commit < before.commit {
        let what = format!("ends at commit {}; commit {} was synced", now.commit, before.commit);
        damage.push(Damage::at(database, what).lost(before.commit - now.commit));
    }
    for (id, name) in &before.keyspaces {
        // A space without a keyspace may have been given one since.
        let found = now.keyspaces.get(id);
        let is_there = match name.starts_with(SPACE) {
            true => found.is_some(),
            false => found == Some(name) && now.generations.get(id) == before.generations.get(id),
        };
        if !is_there {
            let place = database.join("keyspaces").join(id.to_string());
            damage.push(Damage::at(place, format!("the keyspace `{name}` is missing")));
        }
    }
    damage
}
