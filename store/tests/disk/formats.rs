//! Directories that earlier versions wrote: a copy of each is opened, and all of it is there.
//!
//! Not here: what the broker makes of the records.
use crate::support::{content, copy, names_and_counts, open, scratch};
use ropeway_store::{Durability, FjallSettings, FjallStore, KeyValue, Purpose, WriteBatch};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/embedded").join(name)
}

/// `expected`: the name of each keyspace, and how many records it holds.
fn opens_whole(name: &str, expected: &[(&str, usize)]) {
    let dir = scratch();
    copy(&fixture(name), dir.path());
    let expected: Vec<_> = expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    for _ in 0..2 {
        let store = FjallStore::open(dir.path(), &FjallSettings::default()).unwrap();
        assert_eq!(names_and_counts(&store), expected);
        store.close().unwrap();
    }
    // It can be written as any other.
    let store = FjallStore::open(dir.path(), &FjallSettings::default()).unwrap();
    let keyspace = store.open_keyspace("more", Purpose::State).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(keyspace, "key", "value");
    store.commit(batch, Durability::PowerLoss).unwrap();
}

#[test]
fn format_1_opens_whole() {
    let content = [("log-1795266347024", 40), ("log-1795266347050", 2), ("schedule", 2), ("state", 14)];
    opens_whole("format-1", &content);
}

#[test]
fn format_1_of_a_process_that_was_killed_opens_whole() {
    opens_whole("format-1-killed", &[("log-1795266376218", 98), ("schedule", 0), ("state", 5)]);
}

#[test]
fn format_2_opens_whole() {
    let content = [("log-1795269806938", 40), ("log-1795269807182", 2), ("schedule", 2), ("state", 17)];
    opens_whole("format-2", &content);
}

#[test]
fn format_2_of_a_process_that_was_killed_opens_whole() {
    opens_whole("format-2-killed", &[("log-1795269808962", 139), ("schedule", 0), ("state", 7)]);
}

#[test]
fn format_3_opens_whole() {
    let content = [("log-1795274767809", 40), ("log-1795274767855", 2), ("schedule", 2), ("state", 17)];
    opens_whole("format-3", &content);
}

#[test]
fn format_3_of_a_process_that_was_killed_opens_whole() {
    opens_whole("format-3-killed", &[("log-1795274791284", 140), ("schedule", 0), ("state", 7)]);
}

#[test]
fn format_3_with_batches_opens_whole() {
    let content = [("log-1795288920985", 4), ("log-1795288921130", 2), ("schedule", 2), ("state", 17)];
    opens_whole("format-3-batches", &content);
}

#[test]
fn format_3_with_batches_of_a_process_that_was_killed_opens_whole() {
    opens_whole("format-3-batches-killed", &[("log-1795288713875", 20), ("schedule", 0), ("state", 7)]);
}

const OLD: [&str; 2] = ["format-1", "format-1-killed"];
const CHILD: &str = "ROPEWAY_TEST_CHILD";

/// A process that brings a directory up to date; it has said that it begins.
fn migrating(dir: &Path) -> std::process::Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "formats::killed_while_format_1_is_brought_up_to_date_it_has_everything",
            "--nocapture",
        ])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("begins")));
    child
}

#[test]
fn killed_while_format_1_is_brought_up_to_date_it_has_everything() {
    const ROUNDS: u32 = 12;
    if let Some(dir) = std::env::var_os(CHILD) {
        println!("begins");
        open(Path::new(&dir)).unwrap().close().unwrap();
        return;
    }
    for name in OLD {
        let whole = scratch();
        copy(&fixture(name), whole.path());
        let begun = now();
        assert!(migrating(whole.path()).wait().unwrap().success());
        let takes = begun.elapsed();
        let expected = content(&open(whole.path()).unwrap()).unwrap();
        for round in 0..ROUNDS {
            let dir = scratch();
            copy(&fixture(name), dir.path());
            // Twice, each time at another moment.
            for part in [round, (round * 5 + 3) % ROUNDS] {
                let mut child = migrating(dir.path());
                std::thread::sleep(takes * part / ROUNDS);
                child.kill().unwrap();
                child.wait().unwrap();
            }
            let store = open(dir.path()).unwrap_or_else(|error| panic!("{name}, round {round}: {error}"));
            assert!(content(&store).unwrap() == expected, "{name}, round {round}");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "what is killed is another process, which lives in real time")]
fn now() -> Instant {
    Instant::now()
}

/// What a crash leaves between the files that the migration writes last: the mark, and then the format.
#[test]
fn stopped_between_the_files_of_the_migration_it_has_everything() {
    for name in OLD {
        let new = scratch();
        copy(&fixture(name), new.path());
        let expected = content(&open(new.path()).unwrap()).unwrap();
        let (mark, format) =
            (fs::read(new.path().join("mark")).unwrap(), fs::read(new.path().join("format")).unwrap());
        let aside =
            ["mark.new", "format.new"].map(|name| (name, if name == "mark.new" { &mark } else { &format }));
        let lens = |bytes: &[u8]| [0, 1, bytes.len() / 2, bytes.len()];
        for has_mark in [false, true] {
            for (file, bytes) in aside {
                for len in lens(bytes) {
                    let dir = scratch();
                    copy(new.path(), dir.path());
                    fs::copy(fixture(name).join("format"), dir.path().join("format")).unwrap();
                    if !has_mark {
                        fs::remove_file(dir.path().join("mark")).unwrap();
                    }
                    fs::write(dir.path().join(file), &bytes[..len]).unwrap();
                    for _ in 0..2 {
                        let store = open(dir.path())
                            .unwrap_or_else(|error| panic!("{name}, mark {has_mark}, {file} {len}: {error}"));
                        assert!(
                            content(&store).unwrap() == expected,
                            "{name}, mark {has_mark}, {file} {len}"
                        );
                    }
                    assert_eq!(fs::read(dir.path().join("format")).unwrap(), format);
                }
            }
        }
    }
}
