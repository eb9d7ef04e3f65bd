//! What `ropeway data` finds and saves of a directory that is damaged.

use crate::{
    listen::get,
    running::{Place, Ran, Running, fields},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

/// Bytes that no text holds, keys and headers of every kind, tombstones.
fn any_lines() -> String {
    let line = |topic: &str, partition: u32, number: u32, rest: &str| {
        format!(
            r#"{{"topic":"{topic}","partition":{partition},"id":"00000000-0000-0000-0000-0000{number:08x}","timestamp":"2026-01-02T03:04:05.{:03}Z",{rest}}}"#,
            number % 1000
        ) + "\n"
    };
    let mut lines = String::new();
    for number in 0..300 {
        let rest = match number % 6 {
            0 => {
                r#""key":{"base64":"/wD+"},"headers":[{"name":"n","value":null},{"name":"n","value":{"base64":"gA=="}}],"encoding":"base64","payload":"/////w==""#
            }
            1 => r#""key":"c-7","headers":[],"encoding":"none","payload":null"#,
            2 => {
                r#""key":null,"headers":[{"name":"ce_type","value":"x"}],"encoding":"text","payload":"{ \"a\" : 1 }\n""#
            }
            3 => r#""key":"","headers":[{"name":"e","value":""}],"encoding":"text","payload":"""#,
            4 => r#""key":"k","headers":[],"encoding":"text","payload":"null""#,
            _ => {
                r#""key":"é","headers":[{"name":"ropeway-attempt","value":"1"}],"encoding":"text","payload":"5 \u0000""#
            }
        };
        lines += &line("orders", number % 3, number, rest);
    }
    for number in 300..310 {
        lines += &line("bills", 0, number, r#""key":"b","headers":[],"encoding":"text","payload":"b""#);
    }
    lines
}

const LATER: &str = r#"{"topic":"bills","partition":0,"id":"00000000-0000-0000-0000-000000ffffff","timestamp":"2026-01-02T03:04:05Z","key":"d","headers":[],"encoding":"text","payload":"later","deliver_at":"2099-01-01T00:00:00.000Z"}
"#;

fn with_topics() -> Place {
    let place = Place::with_topic("orders", 3);
    place.run(&["topic", "create", "bills", "-p", "1"]).ok();
    place
}

/// A directory with all kinds of messages, and a group that has acked some.
fn filled() -> Place {
    let place = with_topics();
    let lines = any_lines() + LATER;
    let report =
        place.run_with_input(&["pub", "--format", "export", "-o", "json"], lines.as_bytes()).ok().json();
    assert_eq!((&report["published"], &report["topic"]), (&json!(311), &json!(null)));
    place.run(&["sub", "orders", "-g", "g", "-n", "20", "-o", "raw"]).ok();
    place
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            _ = fs::copy(entry.path(), target).unwrap()
        }
    }
}

/// All files but the lock, with their content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.parent().and_then(Path::file_name) != Some("d".as_ref()) || !path.ends_with("lock") {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

/// A copy of a bus, damaged, as `d` in a place of its own.
fn damaged(original: &Place, damage: impl FnOnce(&Path)) -> Place {
    let place = Place::new();
    let dir = place.path().join("d");
    copy(&original.path().join(".ropeway"), &dir);
    damage(&dir);
    place
}

fn flip(path: &Path, byte: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[byte] ^= 4;
    fs::write(path, bytes).unwrap();
}

/// Where the keyspace of that name lies.
fn keyspace(dir: &Path, name: &str) -> PathBuf {
    let place = Place::new();
    let probe = place.path().join("d");
    for entry in fs::read_dir(dir.join("db/keyspaces")).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("0") {
            continue;
        }
        copy(dir, &probe);
        fs::remove_dir_all(probe.join("db/keyspaces").join(path.file_name().unwrap())).unwrap();
        let said = place.run(&["data", "check", "d", "-o", "json"]).code(3).json().to_string();
        fs::remove_dir_all(&probe).unwrap();
        if said.contains(&format!("it held keyspace `{name}`")) {
            return path;
        }
    }
    panic!("there is no keyspace {name}");
}

/// Checks and exports, and holds that nothing was changed or left behind.
fn looked_at(place: &Place) -> (Value, Ran, Ran) {
    let before = files(place.path());
    let checked = place.run(&["data", "check", "d", "-o", "json"]);
    let exported = place.run(&["data", "export", "embedded:./d", "--delayed"]);
    assert_eq!(checked.code, exported.code, "{} / {}", checked.err, exported.err);
    assert!(!checked.err.contains("panicked") && !exported.err.contains("panicked"), "{}", exported.err);
    assert!(files(place.path()) == before, "something was changed or left behind");
    (checked.json(), checked, exported)
}

fn sum(report: &Value, what: &str) -> u64 {
    report["messages"][what].as_u64().unwrap()
}

#[test]
fn a_whole_directory_is_exported_and_published_again_byte_for_byte() {
    let place = filled();
    let moved = damaged(&place, |_| ());
    let (report, checked, exported) = looked_at(&moved);
    assert_eq!(checked.code, 0);
    assert_eq!(fields(&report), ["damage", "dir", "groups", "messages", "problems", "topics", "whole"]);
    assert_eq!((&report["whole"], sum(&report, "readable")), (&json!(true), 311));
    assert_eq!(report["groups"]["count"], 1);
    let table = moved.run(&["data", "check", "d"]).ok();
    assert_eq!(table.lines().last().unwrap(), "d is whole: all 311 messages of 2 topics can be read");
    assert_eq!(moved.run(&["data", "check", "d", "-o", "raw"]).ok().text(), "whole\n");
    // Into a bus of its own, and out of it again.
    let again = with_topics();
    again.run_with_input(&["pub", "--format", "export"], &exported.out).ok();
    let second = again.run(&["data", "export", ".ropeway", "--delayed"]).ok();
    let strip = |ran: &Ran| -> Vec<Value> {
        let mut all = ran.ndjson();
        all.iter_mut().for_each(|message| _ = message.as_object_mut().unwrap().remove("position"));
        all
    };
    assert_eq!(strip(&exported), strip(&second));
    let published: Vec<Value> =
        (any_lines() + LATER).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for message in &published {
        let same = |other: &&Value| {
            ["id", "key", "headers", "encoding", "payload", "partition", "topic"]
                .iter()
                .all(|field| other[field] == message[field])
        };
        assert!(strip(&second).iter().any(|other| same(&other)), "{message}");
    }
    // One topic, under another name.
    let one = moved
        .run(&["data", "export", "d", "--topic", "bills"])
        .ok()
        .said(&["1 delayed messages are left out"]);
    assert_eq!(one.lines().len(), 10);
    again.run(&["topic", "create", "other", "-p", "1"]).ok();
    again.run_with_input(&["pub", "other", "--format", "export"], &one.out).ok();
    assert_eq!(again.run(&["sub", "other", "--until", "end", "-o", "raw"]).ok().lines().len(), 10);
    moved.run(&["data", "export", "d", "--topic", "nothing"]).code(4).said(&["bills, orders"]);
}

#[test]
fn a_flipped_byte_in_a_journal_is_told_and_the_rest_is_saved() {
    let place = filled();
    let moved = damaged(&place, |dir| {
        let journal = dir.join("db/0.jnl");
        let bytes = fs::read(&journal).unwrap();
        let text = b"{ \"a\" : 1 }";
        let at = bytes.windows(text.len()).position(|part| part == text).unwrap();
        flip(&journal, at + 3);
    });
    let (report, checked, exported) = looked_at(&moved);
    checked.code(3).said(&["d is damaged", "ropeway data export d"]);
    assert!(report["damage"].to_string().contains("0.jnl"), "{report}");
    exported.code(3).said(&["0.jnl", "ropeway data check ./d"]);
    // Who opens it is told what to do, and fjall's own lines are not shown.
    let opened = moved.run(&["topic", "list", "--broker", "embedded:./d"]).code(1);
    opened.said(&["0.jnl", "ropeway data check ./d", "ropeway data export ./d"]);
}

#[test]
fn a_lost_keyspace_costs_what_was_in_it_alone() {
    let place = filled();
    let find = damaged(&place, |_| ());
    let whole = find.run(&["data", "check", "d", "-o", "json"]).ok().json();
    assert_eq!(whole["topics"][1]["topic"], "orders");
    let life = format!("life-{}", whole["topics"][1]["life"]);
    let name = life.replace("life", "log");
    let (state, log) = (keyspace(&find.path().join("d"), "state"), keyspace(&find.path().join("d"), &name));
    let remove = |path: &Path| {
        let name = Path::new("db/keyspaces").join(path.file_name().unwrap());
        damaged(&place, |dir| fs::remove_dir_all(dir.join(name)).unwrap())
    };
    let moved = remove(&log);
    let (report, checked, exported) = looked_at(&moved);
    checked.code(3).said(&["300 cannot"]);
    assert_eq!((sum(&report, "readable"), sum(&report, "missing")), (11, 300));
    let exported = exported.code(3).said(&[&format!("segment `{name}` is lost"), "exported 11 messages"]);
    assert!(exported.ndjson().iter().all(|message| message["topic"] == "bills"));

    let moved = remove(&state);
    let (report, _, exported) = looked_at(&moved);
    assert!(report["problems"].to_string().contains("keyspace `state` is lost"), "{report}");
    assert_eq!(
        (&report["topics"][0]["topic"], &report["topics"][0]["named"]),
        (&json!(&life), &json!(false))
    );
    assert_eq!(sum(&report, "readable"), 311);
    let exported = exported.code(3);
    assert_eq!(exported.ndjson().len(), 311);
    let again = with_topics();
    let only = moved.run(&["data", "export", "d", "--topic", &life]).code(3);
    again.run_with_input(&["pub", "orders", "--format", "export"], &only.out).ok();
    assert_eq!(again.run(&["sub", "orders", "--until", "end", "-o", "ndjson"]).ok().lines().len(), 300);
}

#[test]
fn directories_that_cannot_be_read_are_refused_by_name() {
    let place = Place::with_topic("t", 1);
    place.run(&["pub", "t", "x"]).ok();
    let mut owner = place.start(&["sub", "t", "-O", "start", "-o", "raw"]);
    assert_eq!(owner.next_line(), "x");
    let id = owner.id().to_string();
    for verb in ["check", "export"] {
        place.run(&["data", verb, ".ropeway"]).code(69).said(&[".ropeway is open already", &id]);
        place.run(&["data", verb, "absent"]).code(4).said(&["absent"]);
        place.run(&["data", verb, "memory:"]).code(2).said(&["has no directory"]);
    }
    owner.signal("INT");
    owner.end().code(130);
    let empty = place.path().join("empty");
    fs::create_dir(&empty).unwrap();
    place.run(&["data", "check", "empty"]).code(4).said(&["there is no store in it"]);
    place.run(&["data", "export", "empty"]).code(4).said(&["there is no store in it"]);
    assert!(fs::read_dir(&empty).unwrap().next().is_none(), "it was written to");
    place.run(&["data", "export", ".ropeway", "-o", "table"]).code(2).said(&["ndjson"]);
    place.run(&["data", "export", ".ropeway", "--scratch", "absent"]).code(1).said(&["--scratch"]);
    let names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn directories_of_every_format_are_read_as_they_are() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/embedded");
    for (name, topics, messages) in [
        ("format-1", 2, 43),
        ("format-1-killed", 1, 98),
        ("format-2", 2, 43),
        ("format-2-killed", 1, 139),
        ("format-3", 2, 43),
        ("format-3-killed", 1, 140),
        ("format-3-batches", 2, 43),
        ("format-3-batches-killed", 1, 180),
    ] {
        let place = Place::new();
        copy(&fixtures.join(name), &place.path().join("d"));
        let (report, checked, exported) = looked_at(&place);
        checked.code(0);
        assert_eq!(report["topics"].as_array().unwrap().len(), topics, "{report}");
        assert_eq!(sum(&report, "readable"), messages);
        assert_eq!(exported.ok().ndjson().len() as u64, messages);
    }
}

#[test]
fn an_export_that_is_interrupted_leaves_nothing_behind() {
    let place = Place::with_topic("t", 1);
    let lines = format!("{}\n", "x".repeat(1000)).repeat(5000);
    place.run_with_input(&["pub", "t", "--format", "lines"], lines.as_bytes()).ok();
    let count = || fs::read_dir(place.path()).unwrap().count();
    let before = count();
    let mut command = place.command(&["data", "export", ".ropeway"]);
    let mut child = command.spawn().unwrap();
    // It hangs in a write until somebody reads.
    let mut stdout = child.stdout.take().unwrap();
    let mut byte = [0];
    std::io::Read::read_exact(&mut stdout, &mut byte).unwrap();
    assert_eq!(count(), before + 1, "the scratch directory lies beside");
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stdout, &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(count(), before);
    // A reader that goes away.
    let mut child = place.command(&["data", "export", ".ropeway"]).spawn().unwrap();
    std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut byte).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(count(), before);
}

#[test]
fn a_directory_whose_process_was_killed_is_whole() {
    let place = Place::with_topic("t", 2);
    let args = ["pub", "t", "--format", "lines", "--rate", "500/s", "--listen", "127.0.0.1:0"];
    let mut command = place.command(&args);
    command.stdin(Stdio::piped());
    let mut publishing = Running::start(command, &b"x\n".repeat(100_000));
    let address = publishing.wait_for("serving /metrics").rsplit_once("http://").unwrap().1.to_owned();
    while !get(&address, "/metrics").1.contains("messaging_client_sent_messages_total{destination=\"t\"") {}
    publishing.signal("KILL");
    assert_eq!(publishing.end().code, -1);
    let report = place.run(&["data", "check", ".ropeway", "-o", "json"]).ok().json();
    let exported = place.run(&["data", "export", ".ropeway"]).ok().lines().len() as u64;
    assert!(exported > 0);
    assert_eq!(sum(&report, "readable"), exported);
    assert_eq!(place.run(&["sub", "t", "--until", "end", "-o", "raw"]).ok().lines().len() as u64, exported);
}
