//! The scripts of topics and messages, one by one, on a real server.

use super::{super::scripts, server::Server};

/// Description, log and part of a topic of one partition, by the tag of the server.
fn names(server: &Server) -> [String; 5] {
    let tag = format!("{{{}}}", server.prefix);
    ["topic", "log", "part", "delayed", "held"].map(|name| format!("{tag}:{name}"))
}

fn claim(server: &mut Server, token: &str, hold: &str) -> Vec<String> {
    let [topic, ..] = names(server);
    server.run(&scripts::TOPIC_CLAIM, &[&topic], &[token, "1", "2", "", "70", hold])
}

fn make(server: &mut Server, life: &str) -> Vec<String> {
    let [_, log, part, ..] = names(server);
    server.run(&scripts::PARTITION_MAKE, &[&log, &part], &[life])
}

#[test]
fn a_name_is_claimed_by_one_and_again_when_the_claim_is_over() {
    let mut server = Server::get();
    let [topic, ..] = names(&server);
    let first = claim(&mut server, "a", "60000");
    assert_eq!(first[0], "claimed");
    assert_eq!(claim(&mut server, "b", "60000"), ["claimed-by", "a"]);
    assert_eq!(claim(&mut server, "a", "60000")[0], "claimed", "who claimed may claim again");
    assert_eq!(claim(&mut server, "b", "-1")[0], "claimed", "a claim ends");
    let life = server.hash(&topic, "life").unwrap();
    assert_eq!(
        server.run(&scripts::TOPIC_MOVE, &[&topic], &["making", "7", "ready"]),
        ["is", "making", &life]
    );
    assert_eq!(
        server.run(&scripts::TOPIC_MOVE, &[&topic], &["making", &life, "ready", "token", ""]),
        ["moved"]
    );
    assert_eq!(claim(&mut server, "b", "-1"), ["exists"]);
    assert_eq!(server.run(&scripts::TOPIC_MOVE, &[&topic], &["ready", &life, "deleting"]), ["moved"]);
    assert_eq!(claim(&mut server, "b", "-1"), ["deleting"]);
}

#[test]
fn a_life_begins_behind_the_last_id_of_the_one_before_whatever_the_clock_shows() {
    let mut server = Server::get();
    let [topic, ..] = names(&server);
    let life = claim(&mut server, "a", "60000").remove(1);
    // A server whose clock was set back since.
    let far = "99999999999999-7";
    server.run(&scripts::TOPIC_MOVE, &[&topic], &["making", &life, "deleted", "last", far]);
    assert_eq!(claim(&mut server, "b", "60000"), ["claimed", "100000000000000"]);
    server.ask::<i64>(&format!("HSET {topic} version 9"));
    assert_eq!(claim(&mut server, "b", "60000"), ["version", "9"]);
}

#[test]
fn a_topic_grows_and_never_shrinks() {
    let mut server = Server::get();
    let [topic, ..] = names(&server);
    let life = claim(&mut server, "a", "60000").remove(1);
    assert_eq!(server.run(&scripts::TOPIC_GROW, &[&topic], &[&life, "4"])[0], "is");
    server.run(&scripts::TOPIC_MOVE, &[&topic], &["making", &life, "ready"]);
    assert_eq!(server.run(&scripts::TOPIC_GROW, &[&topic], &["1", "4"]), ["is", "ready", &life]);
    assert_eq!(server.run(&scripts::TOPIC_GROW, &[&topic], &[&life, "4"]), ["grown", "4"]);
    assert_eq!(server.run(&scripts::TOPIC_GROW, &[&topic], &[&life, "3"]), ["grown", "4"]);
}

#[test]
fn a_partition_is_made_once_and_what_lies_there_already_is_not_touched() {
    let mut server = Server::get();
    let [_, log, part, ..] = names(&server);
    assert_eq!(make(&mut server, "5000"), ["made"]);
    assert_eq!(server.told(&format!("XINFO STREAM {log}"), "last-generated-id"), "5000-0");
    assert_eq!(server.told(&format!("XINFO STREAM {log}"), "groups"), "0");
    server.ask::<String>(&format!("XADD {log} NOMKSTREAM * payload x"));
    assert_eq!(make(&mut server, "5000"), ["made"]);
    assert_eq!(server.ask::<i64>(&format!("XLEN {log}")), 1);
    assert_eq!(make(&mut server, "6000"), ["full", "1"]);
    server.ask::<i64>(&format!("DEL {log} {part}"));
    server.ask::<String>(&format!("SET {log} x"));
    assert_eq!(make(&mut server, "6000"), ["kind", "string"]);
}

#[test]
fn a_dropped_partition_tells_where_its_ids_ended_and_another_life_is_spared() {
    let mut server = Server::get();
    let [_, log, part, delayed, held] = names(&server);
    make(&mut server, "5000");
    let last: String = server.ask(&format!("XADD {log} * payload x"));
    server.ask::<i64>(&format!("ZADD {delayed} 1 x"));
    server.ask::<i64>(&format!("HSET {held} x y"));
    let keys = [&log[..], &part, &delayed, &held];
    assert_eq!(server.run(&scripts::PARTITION_DROP, &keys, &["4000"]), ["life", "5000"]);
    assert_eq!(server.run(&scripts::PARTITION_DROP, &keys, &["5000"]), ["dropped", &last]);
    assert_eq!(server.run(&scripts::PARTITION_DROP, &keys, &["5000"]), ["dropped", ""]);
    assert_eq!(server.ask::<i64>(&format!("EXISTS {log} {part} {delayed} {held}")), 0);
}

#[test]
fn a_purge_keeps_the_last_id_it_removed_and_sets_groups_right() {
    let mut server = Server::get();
    let [_, log, part, ..] = names(&server);
    make(&mut server, "5000");
    for seq in 1..=6 {
        server.ask::<String>(&format!("XADD {log} 5000-{seq} payload x"));
    }
    for (group, at) in [("behind", "5000-1"), ("ahead", "5000-5")] {
        server.ask::<String>(&format!("XGROUP CREATE {log} {group} {at}"));
    }
    let keys = [&log[..], &part];
    assert_eq!(server.run(&scripts::PARTITION_PURGE, &keys, &["4000", "5000-4"]), ["life", "5000"]);
    assert_eq!(server.run(&scripts::PARTITION_PURGE, &keys, &["5000", "5000-4"]), ["purged", "3"]);
    assert_eq!(server.hash(&part, "removed").as_deref(), Some("5000-3"));
    assert_eq!(server.run(&scripts::PARTITION_PURGE, &keys, &["5000", "5000-2"]), ["purged", "0"]);
    assert_eq!(server.hash(&part, "removed").as_deref(), Some("5000-3"));
    let groups = format!("XINFO GROUPS {log}");
    let all = server.ask::<Vec<redis::Value>>(&groups).len();
    assert_eq!(all, 2);
    // Groups are told by name: `ahead` first.
    assert_eq!(server.told(&groups, "last-delivered-id"), "5000-5");
    server.ask::<i64>(&format!("XGROUP DESTROY {log} ahead"));
    assert_eq!(server.told(&groups, "last-delivered-id"), "5000-3");
    assert_eq!((server.told(&groups, "entries-read"), server.told(&groups, "lag")), ("3".into(), "3".into()));
    server.ask::<i64>(&format!("DEL {log}"));
    assert_eq!(server.run(&scripts::PARTITION_PURGE, &keys, &["5000", "5000-4"]), ["none"]);
}

#[test]
fn a_message_that_is_sent_again_is_added_once() {
    let mut server = Server::get();
    let [_, log, ..] = names(&server);
    let id = "0123456789abcdef";
    let add = |server: &mut Server, id: &str, after: &str, most: &str| {
        server.run(&scripts::ADD_ONCE, &[&log], &[id, after, most, "id", id, "ts", "1", "payload", "x"])
    };
    assert_eq!(add(&mut server, id, "0-0", "1000"), ["none"]);
    make(&mut server, "5000");
    let added = add(&mut server, id, "0-0", "1000");
    assert_eq!(added[0], "added");
    for _ in 0..250 {
        server.ask::<String>(&format!("XADD {log} * id 0000000000000000"));
    }
    assert_eq!(add(&mut server, id, "0-0", "1000"), ["there", &added[1]]);
    assert_eq!(add(&mut server, "fedcba9876543210", "0-0", "200"), ["far"]);
    assert_eq!(server.ask::<i64>(&format!("XLEN {log}")), 251);
    let behind = added[1].clone();
    assert_eq!(add(&mut server, id, &behind, "1000")[0], "added", "what lies before is not looked at");
}

fn packed(words: &[&str]) -> String {
    // Lengths below 128 are text.
    let word = |word: &&str| format!("\0\0\0{}{word}", char::from(word.len() as u8));
    words.iter().map(word).collect()
}

#[test]
fn what_is_held_is_moved_when_it_is_due_and_not_before_and_once() {
    let mut server = Server::get();
    let [_, log, part, delayed, held] = names(&server);
    let keys = [&log[..], &part, &delayed, &held];
    let id = "0123456789abcdef";
    let hold = |server: &mut Server, due: &str, payload: &str| {
        server.run(&scripts::HOLD, &keys, &["5000", id, due, &packed(&["id", id, "payload", payload])])
    };
    assert_eq!(hold(&mut server, "1", "x"), ["life", ""]);
    make(&mut server, "5000");
    let far = "9000000000000";
    // The same again is one; another one of the same id is another.
    for payload in ["early", "early", "other", "late"] {
        assert_eq!(hold(&mut server, if payload == "late" { far } else { "1" }, payload), ["held"]);
    }
    assert_eq!(server.ask::<i64>(&format!("ZCARD {delayed}")), 3);
    assert_eq!(server.run(&scripts::RELEASE_DUE, &keys, &["4000", "9"]), ["life", "5000"]);
    assert_eq!(server.run(&scripts::RELEASE_DUE, &keys, &["5000", "1"])[..3], ["moved", "1", "1"]);
    assert_eq!(server.run(&scripts::RELEASE_DUE, &keys, &["5000", "9"])[..3], ["moved", "1", far]);
    assert_eq!(server.run(&scripts::RELEASE_DUE, &keys, &["5000", "9"])[..3], ["moved", "0", far]);
    let entries: Vec<(String, Vec<String>)> = server.ask(&format!("XRANGE {log} - +"));
    let fields: Vec<_> = entries.into_iter().map(|(_, fields)| fields.join(" ")).collect();
    assert_eq!(fields, [format!("id {id} payload early"), format!("id {id} payload other")]);
    server.ask::<i64>(&format!("DEL {log}"));
    assert_eq!(server.run(&scripts::RELEASE_DUE, &keys, &["5000", "9"]), ["none"]);
    assert_eq!(hold(&mut server, "1", "x"), ["none"]);
}

#[test]
fn all_that_is_held_under_an_id_is_cancelled() {
    let mut server = Server::get();
    let [_, log, part, delayed, held] = names(&server);
    make(&mut server, "5000");
    for payload in ["a", "b"] {
        let args = ["5000", "0123456789abcdef", "9000000000000", &packed(&["payload", payload])];
        server.run(&scripts::HOLD, &[&log, &part, &delayed, &held], &args);
    }
    let cancel =
        |server: &mut Server| server.run(&scripts::CANCEL, &[&delayed, &held], &["0123456789abcdef"]);
    assert_eq!(cancel(&mut server), ["cancelled", "2"]);
    assert_eq!(cancel(&mut server), ["cancelled", "0"]);
    assert_eq!(server.ask::<i64>(&format!("EXISTS {delayed} {held}")), 0);
}
