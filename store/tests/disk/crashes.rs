//! A crash at every place: what was synced is there, and never is a crash taken for damage.
//!
//! Not here: damage (`damage.rs`).

use crate::support::{Content, content, copy, open, put, scratch};
use ropeway_store::{
    Direction, Durability, Error, FjallSettings, FjallStore, KeyValue, Keyspace, Limit, Purpose, WriteBatch,
};
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// A store whose process was killed: where its journal ends after each commit, and what it held then.
struct Killed {
    dir: tempfile::TempDir,
    /// The first of them is the newest in the mark.
    commits: Vec<(u64, Content)>,
}

fn killed() -> Killed {
    let (running, dir) = (scratch(), scratch());
    drop(open(running.path()).unwrap());
    // Opened again, its journal ends where its last record does.
    let store = open(running.path()).unwrap();
    let state = store.open_keyspace("state", Purpose::State).unwrap();
    for n in 0..20 {
        put(&store, state, &format!("key-{n}"), "synced");
    }
    // This writes the mark.
    store.open_keyspace("marked", Purpose::State).unwrap();
    let journal = running.path().join("db/0.jnl");
    let now = || (fs::metadata(&journal).unwrap().len(), content(&store).unwrap());
    let mut commits = vec![now()];
    for n in 0..2 {
        let mut batch = WriteBatch::new();
        batch.put(state, format!("key-{n}"), format!("later {n}"));
        batch.put(state, format!("more-{n}"), vec![n; 10]);
        store.commit(batch, Durability::ProcessCrash).unwrap();
        commits.push(now());
    }
    copy(running.path(), dir.path());
    Killed { dir, commits }
}

/// Opens a copy whose journal is cut.
fn cut(killed: &Killed, len: u64, zeros: u64) -> (tempfile::TempDir, Result<FjallStore, Error>) {
    let dir = scratch();
    copy(killed.dir.path(), dir.path());
    let journal = OpenOptions::new().write(true).open(dir.path().join("db/0.jnl")).unwrap();
    journal.set_len(len).unwrap();
    journal.set_len(len + zeros).unwrap();
    let store = open(dir.path());
    (dir, store)
}

#[test]
fn cut_at_any_byte_behind_the_last_synced_commit_it_holds_exactly_the_whole_commits() {
    let killed = killed();
    let (first, last) = (killed.commits.first().unwrap().0, killed.commits.last().unwrap().0);
    for len in first..=last {
        let (_, expected) = killed.commits.iter().rfind(|(end, _)| *end <= len).unwrap();
        for zeros in [0, 5_000] {
            let (dir, store) = cut(&killed, len, zeros);
            let store = store.unwrap_or_else(|error| panic!("cut at {len} of {last}: {error}"));
            assert!(content(&store).unwrap() == *expected, "cut at {len} of {last}");
            if len % 16 == 0 {
                store.close().unwrap();
                assert!(content(&open(dir.path()).unwrap()).unwrap() == *expected, "opened twice");
            }
        }
    }
}

#[test]
fn cut_at_any_byte_before_the_last_synced_commit_it_is_told() {
    let killed = killed();
    let first = killed.commits.first().unwrap().0;
    for len in (0..first).filter(|len| *len >= first - 200 || len % 29 == 0) {
        for zeros in [0, 5_000] {
            let (_dir, store) = cut(&killed, len, zeros);
            let Err(Error::Corrupt { what }) = store.map(drop) else { panic!("cut at {len}: not told") };
            assert!(what.contains("0.jnl") && what.contains("missing"), "cut at {len}: {what}");
        }
    }
}

const CHILD: &str = "ROPEWAY_TEST_CHILD";

/// What a process does that is killed: it makes keyspaces, writes to them in order, and drops them, and says each step.
fn live(dir: &Path) {
    let settings = FjallSettings { memtable_bytes: 256 * 1024, ..FjallSettings::default() };
    let store = FjallStore::open(dir, &settings).unwrap();
    let mut out = std::io::stdout().lock();
    let mut say = |text: String| {
        writeln!(out, "{text}").unwrap();
        out.flush().unwrap();
    };
    let next =
        store.keyspaces().unwrap().iter().filter_map(|name| name.strip_prefix("log-")?.parse().ok()).max();
    let mut next: u64 = next.map_or(0, |last: u64| last + 1);
    loop {
        let name = format!("log-{next:06}");
        next += 1;
        let log = store.open_keyspace(&name, Purpose::Log).unwrap();
        assert_eq!(count(&store, log, &name), 0, "made with something in it");
        say(format!("made {name}"));
        for n in 0..u64::from(std::process::id() % 7) * 10 + 1 {
            let mut batch = WriteBatch::new();
            batch.put(log, n.to_be_bytes().to_vec(), name.repeat(2_000));
            store.commit(batch, Durability::PowerLoss).unwrap();
            say(format!("put {name} {n}"));
        }
        let names = store.keyspaces().unwrap();
        if let Some(oldest) = names.first().filter(|_| names.len() > 4) {
            say(format!("dropping {oldest}"));
            let keyspace = store.open_keyspace(oldest, Purpose::Log).unwrap();
            store.drop_keyspace(keyspace).unwrap();
            say(format!("dropped {oldest}"));
        }
    }
}

/// How many records a keyspace has; all of them were written to it and no other.
fn count(store: &FjallStore, keyspace: Keyspace, name: &str) -> u64 {
    let limit = Limit { items: usize::MAX, bytes: usize::MAX };
    let page = store.scan(keyspace, b"", None, Direction::Forward, limit).unwrap();
    for (n, (key, value)) in page.items.iter().enumerate() {
        assert_eq!(key[..], (n as u64).to_be_bytes(), "a hole");
        assert!(value.starts_with(name.as_bytes()), "{name} holds what belonged to another");
    }
    page.items.len() as u64
}

#[test]
fn killed_at_any_moment_it_opens_and_has_all_that_was_acked() {
    if let Some(dir) = std::env::var_os(CHILD) {
        live(Path::new(&dir));
        return;
    }
    let rounds = std::env::var("ROPEWAY_TEST_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(50);
    let dir = scratch();
    let mut held: BTreeMap<String, u64> = BTreeMap::new();
    let mut seed = 7_u64;
    for round in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crashes::killed_at_any_moment_it_opens_and_has_all_that_was_acked",
                "--nocapture",
            ])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::sleep(Duration::from_millis((seed >> 33) & 0x7f));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in output.lines().map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["made", name] => _ = held.insert(name.to_owned(), 0),
                ["put", name, n] => _ = held.insert(name.to_owned(), n.parse::<u64>().unwrap() + 1),
                ["dropping", name] => _ = held.remove(name),
                _ => {}
            }
        }
        let store =
            open(dir.path()).unwrap_or_else(|error| panic!("round {round}: taken for damage: {error}"));
        let names = store.keyspaces().unwrap();
        for (name, acked) in &mut held {
            assert!(names.contains(name), "round {round}: {name} is missing");
            let found = count(&store, store.open_keyspace(name, Purpose::Log).unwrap(), name);
            assert!(found >= *acked, "round {round}: {name} has {found} of {acked}");
            *acked = found;
        }
        for name in names {
            // Made but not told of, or not dropped to the end: it is used by the next.
            let found = count(&store, store.open_keyspace(&name, Purpose::Log).unwrap(), &name);
            held.entry(name).or_insert(found);
        }
        store.close().unwrap();
    }
    println!("{rounds} kills; {} keyspaces at the end", held.len());
}

/// Where every commit of a batch of large records goes: it fills journals, so that they are sealed, written out and given up.
fn fill(dir: &Path) {
    let settings =
        FjallSettings { memtable_bytes: 8 << 20, journal_bytes: 64 << 20, ..FjallSettings::default() };
    let store = FjallStore::open(dir, &settings).unwrap();
    let mut out = std::io::stdout().lock();
    let [log, rare, removed] =
        ["log", "rare", "removed"].map(|name| store.open_keyspace(name, Purpose::State).unwrap());
    let last =
        store.get(rare, b"last").unwrap().map_or(0, |last| u64::from_be_bytes(last[..].try_into().unwrap()));
    for n in last + 1.. {
        let mut batch = WriteBatch::new();
        batch.put(log, (n % 64).to_be_bytes().to_vec(), vec![n as u8; 512 * 1024]);
        batch.put(rare, "last", n.to_be_bytes().to_vec());
        batch.put(removed, n.to_be_bytes().to_vec(), "later");
        if let Some(before) = n.checked_sub(3) {
            batch.delete(removed, before.to_be_bytes().to_vec());
        }
        store.commit(batch, Durability::PowerLoss).unwrap();
        writeln!(out, "{n}").unwrap();
        out.flush().unwrap();
    }
}

fn newest_journal(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir.join("db")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name());
    let numbers = names.filter_map(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
    numbers.max().unwrap_or_default()
}

/// Each round writes a part of a journal, and ends at a journal's end more often than elsewhere.
#[test]
fn killed_while_journals_come_and_go_it_opens_and_has_all_that_was_acked() {
    if let Some(dir) = std::env::var_os(CHILD) {
        fill(Path::new(&dir));
        return;
    }
    let rounds = std::env::var("ROPEWAY_TEST_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(8);
    let dir = scratch();
    let mut seed = 11_u64;
    let mut acked = 0;
    for round in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let name = "crashes::killed_while_journals_come_and_go_it_opens_and_has_all_that_was_acked";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let wanted = acked + 1 + (seed >> 33) % 96;
        let before = newest_journal(dir.path());
        let mut after = (seed >> 50) % 4;
        for n in lines.by_ref().filter_map(|line| line.parse::<u64>().ok()) {
            acked = n;
            // Just after another journal was begun, or anywhere.
            after -= u64::from(newest_journal(dir.path()) > before && after > 0);
            if n >= wanted || newest_journal(dir.path()) > before && after == 0 {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acked = lines.filter_map(|line| line.parse().ok()).max().unwrap_or(acked);
        let store =
            open(dir.path()).unwrap_or_else(|error| panic!("round {round}: taken for damage: {error}"));
        let all = content(&store).unwrap();
        let last =
            all["rare"].first().map_or(0, |(_, last)| u64::from_be_bytes(last[..].try_into().unwrap()));
        assert!(last >= acked, "round {round}: commit {last} is the last; {acked} was acked");
        acked = last;
        assert_eq!(all["log"].len() as u64, last.min(64), "round {round}");
        for (key, value) in &all["log"] {
            let key = u64::from_be_bytes(key[..].try_into().unwrap());
            let newest = last - (last - key) % 64;
            assert!(
                value.len() == 512 * 1024 && value.iter().all(|byte| *byte == newest as u8),
                "{key} is not {newest}"
            );
        }
        let removed: Vec<u64> =
            all["removed"].iter().map(|(key, _)| u64::from_be_bytes(key[..].try_into().unwrap())).collect();
        assert_eq!(removed, (last.saturating_sub(2).max(1)..=last).collect::<Vec<_>>(), "round {round}");
        store.close().unwrap();
    }
    println!("{rounds} kills; {acked} commits; journal {} is the newest", newest_journal(dir.path()));
    assert!(rounds < 8 || newest_journal(dir.path()) > 0, "no journal was ever sealed");
}

#[test]
fn a_journal_whose_first_commit_was_not_synced_may_be_empty_after_a_power_cut() {
    let (running, cut) = (scratch(), scratch());
    let store = open(running.path()).unwrap();
    let state = store.open_keyspace("state", Purpose::State).unwrap();
    let not_synced = |n: u32| {
        let mut batch = WriteBatch::new();
        batch.put(state, format!("key-{n}"), vec![b'x'; 1024 * 1024]);
        store.commit(batch, Durability::ProcessCrash).unwrap();
    };
    let mut n = 0;
    while newest_journal(running.path()) == 0 {
        not_synced(n);
        n += 1;
        assert!(n < 400, "no journal was ever sealed");
    }
    let journal = format!("db/{}.jnl", newest_journal(running.path()));
    not_synced(n);
    // This writes the mark.
    store.open_keyspace("marked", Purpose::State).unwrap();
    copy(running.path(), cut.path());
    OpenOptions::new().write(true).open(cut.path().join(journal)).unwrap().set_len(0).unwrap();
    drop(open(cut.path()).unwrap());
}
