//! The scripts of topics and messages, one by one, on a real server.

use super::server::{Server, script};

/// Description, log and part of a topic of one partition, by the tag of the server.
fn names(server: &Server) -> [String; 5] {
    let tag = format!("{{{}}}", server.prefix);
    ["topic", "log", "part", "delayed", "held"].map(|name| format!("{tag}:{name}"))
}

fn claim(server: &mut Server, token: &str, hold: &str) -> Vec<String> {
    let [topic, ..] = names(server);
    server.run("topic_claim", &[&topic], &[token, "1", "2", "", "70", hold])
}

fn make(server: &mut Server, life: &str) -> Vec<String> {
    let [_, log, part, ..] = names(server);
    server.run("partition_make", &[&log, &part], &[life])
}

fn a_name_is_claimed_by_one_and_again_when_the_claim_is_over() {
    let mut server = Server::get();
    let [topic, ..] = names(&server);
    let first = claim(&mut server, "a", "60000");
    assert_eq!(first[0], "claimed");
    assert_eq!(claim(&mut server, "b", "60000"), ["claimed-by", "a"]);
    assert_eq!(claim(&mut server, "a", "60000")[0], "claimed", "who claimed may claim again");
    assert_eq!(claim(&mut server, "b", "-1")[0], "claimed", "a claim ends");
    let life = server.hash(&topic, "life").unwrap();
    assert_eq!(server.run("topic_move", &[&topic], &["making", "7", "ready"]), ["is", "making", &life]);
    assert_eq!(server.run("topic_move", &[&topic], &["making", &life, "ready", "token", ""]), ["moved"]);
    assert_eq!(claim(&mut server, "b", "-1"), ["exists"]);
    assert_eq!(server.run("topic_move", &[&topic], &["ready", &life, "deleting"]), ["moved"]);
    assert_eq!(claim(&mut server, "b", "-1"), ["deleting"]);
}

fn a_life_begins_behind_the_last_id_of_the_one_before_whatever_the_clock_shows() {
    let mut server = Server::get();
    let [topic, ..] = names(&server);
    let life = claim(&mut server, "a", "60000").remove(1);
    // A server whose clock was set back since.
    let far = "99999999999999-7";
    server.run("topic_move", &[&topic], &["making", &life, "deleted", "last", far]);
    assert_eq!(claim(&mut server, "b", "60000"), ["claimed", "100000000000000"]);
    server.ask::<i64>(&format!("HSET {topic} version 9"));
    assert_eq!(claim(&mut server, "b", "60000"), ["version", "9"]);
}

fn a_topic_grows_and_never_shrinks() {
    let mut server = Server::get();
    let [topic, ..] = names(&server);
    let life = claim(&mut server, "a", "60000").remove(1);
    assert_eq!(server.run("topic_grow", &[&topic], &[&life, "4"])[0], "is");
    server.run("topic_move", &[&topic], &["making", &life, "ready"]);
    assert_eq!(server.run("topic_grow", &[&topic], &["1", "4"]), ["is", "ready", &life]);
    assert_eq!(server.run("topic_grow", &[&topic], &[&life, "4"]), ["grown", "4"]);
    assert_eq!(server.run("topic_grow", &[&topic], &[&life, "3"]), ["grown", "4"]);
}

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

fn a_dropped_partition_tells_where_its_ids_ended_and_another_life_is_spared() {
    let mut server = Server::get();
    let [_, log, part, delayed, held] = names(&server);
    make(&mut server, "5000");
    let last: String = server.ask(&format!("XADD {log} * payload x"));
    server.ask::<i64>(&format!("ZADD {delayed} 1 x"));
    server.ask::<i64>(&format!("HSET {held} x y"));
    let keys = [&log[..], &part, &delayed, &held];
    assert_eq!(server.run("partition_drop", &keys, &["4000"]), ["life", "5000"]);
    assert_eq!(server.run("partition_drop", &keys, &["5000"]), ["dropped", &last]);
    assert_eq!(server.run("partition_drop", &keys, &["5000"]), ["dropped", ""]);
    assert_eq!(server.ask::<i64>(&format!("EXISTS {log} {part} {delayed} {held}")), 0);
}

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
    assert_eq!(server.run("partition_purge", &keys, &["4000", "5000-4"]), ["life", "5000"]);
    assert_eq!(server.run("partition_purge", &keys, &["5000", "5000-4"]), ["purged", "3"]);
    assert_eq!(server.hash(&part, "removed").as_deref(), Some("5000-3"));
    assert_eq!(server.run("partition_purge", &keys, &["5000", "5000-2"]), ["purged", "0"]);
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
    assert_eq!(server.run("partition_purge", &keys, &["5000", "5000-4"]), ["none"]);
}

/// A partition with entries 5000-1 to 5000-6, of 8 bytes each.
fn six(server: &mut Server) -> [String; 2] {
    let [_, log, part, ..] = names(server);
    make(server, "5000");
    for seq in 1..=6 {
        server.ask::<String>(&format!("XADD {log} 5000-{seq} payload {seq}"));
    }
    [log, part]
}

fn bytes_are_counted_once_and_pieces_begin_where_one_is_full() {
    let mut server = Server::get();
    let [log, part] = six(&mut server);
    let keys = [&log[..], &part];
    let measure = |server: &mut Server, piece: &str, most: &str| {
        let mut told = server.run("partition_measure", &keys, &["5000", piece, most]);
        told.remove(1).parse::<u64>().unwrap();
        told
    };
    assert_eq!(measure(&mut server, "", "100"), ["measured", "5000-1", "0", "", "all"], "nothing is counted");
    assert_eq!(measure(&mut server, "16", "3"), ["measured", "5000-1", "24", "5000-1 0 5000-3 16", "more"]);
    let all = ["measured", "5000-1", "48", "5000-1 0 5000-3 16 5000-5 32", "all"];
    assert_eq!(measure(&mut server, "16", "100"), all);
    assert_eq!(measure(&mut server, "16", "100"), all, "nothing is counted twice");
    // Half of a piece is gone, then all.
    server.run("partition_purge", &keys, &["5000", "5000-4"]);
    assert_eq!(measure(&mut server, "16", "100"), ["measured", "5000-4", "48", "5000-3 16 5000-5 32", "all"]);
    server.run("partition_purge", &keys, &["5000", "5000-7"]);
    assert_eq!(measure(&mut server, "16", "100"), ["measured", "", "48", "", "all"]);
    server.ask::<String>(&format!("XADD {log} 5000-8 payload x"));
    assert_eq!(measure(&mut server, "16", "100"), ["measured", "5000-8", "56", "5000-8 48", "all"]);
    assert_eq!(server.run("partition_measure", &keys, &["4000", "16", "100"]), ["life", "5000"]);
}

fn a_trim_spares_what_a_live_group_of_ours_has_not_finished() {
    let mut server = Server::get();
    let [log, part] = six(&mut server);
    let group = format!("{{{}}}:group:g", server.prefix);
    server.ask::<i64>(&format!("HSET {group} life 5000 position 5000-3"));
    // What tools of Redis show of our groups holds nothing back.
    for name in ["g", "dead"] {
        server.ask::<String>(&format!("XGROUP CREATE {log} {name} 0"));
    }
    let keys = [&log[..], &part, &group];
    let args = |life, upto| [life, upto, "1000", "g", "dead"];
    assert_eq!(server.run("partition_trim", &keys, &args("4000", "5000-5")), ["life", "5000"]);
    assert_eq!(server.run("partition_trim", &keys, &args("5000", "5000-5")), ["trimmed", "2", "5000-3", "g"]);
    assert_eq!(server.hash(&part, "removed").as_deref(), Some("5000-2"));
    let groups = format!("XINFO GROUPS {log}");
    assert_eq!(
        (server.told(&groups, "last-delivered-id"), server.told(&groups, "lag")),
        ("5000-2".into(), "4".into())
    );
    server.ask::<i64>(&format!("HSET {group} position 5000-6"));
    assert_eq!(server.run("partition_trim", &keys, &args("5000", "5000-5")), ["trimmed", "2", "5000-5", ""]);
    // A position of an earlier life says nothing here: who asks knows what that means.
    server.ask::<i64>(&format!("HSET {group} life 4000 position 4000-1"));
    assert_eq!(server.run("partition_trim", &keys, &args("5000", "5000-9")), ["trimmed", "2", "5000-9", ""]);
    assert_eq!(server.ask::<i64>(&format!("XLEN {log}")), 0);
}

fn a_trim_spares_what_a_consumer_group_of_others_has_pending_until_it_is_dead() {
    let mut server = Server::get();
    let [log, part] = six(&mut server);
    let keys = [&log[..], &part];
    let trim =
        |server: &mut Server, expiry: &str| server.run("partition_trim", &keys, &["5000", "5000-6", expiry]);
    server.ask::<String>(&format!("XGROUP CREATE {log} other 0"));
    server.ask::<redis::Value>(&format!("XREADGROUP GROUP other c COUNT 4 STREAMS {log} >"));
    server.ask::<i64>(&format!("XACK {log} other 5000-1 5000-2"));
    assert_eq!(trim(&mut server, "60000"), ["trimmed", "2", "5000-3", "other"], "its oldest pending entry");
    server.ask::<i64>(&format!("XACK {log} other 5000-3 5000-4"));
    assert_eq!(trim(&mut server, "60000"), ["trimmed", "1", "5000-4", "other"], "the last it was given");
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(trim(&mut server, "60000"), ["trimmed", "0", "5000-4", "other"]);
    // A consumer that asks keeps it alive, though nothing moves. In one go, so that no time passes between the two.
    server.ask::<String>("MULTI");
    server.ask::<String>(&format!("XREADGROUP GROUP other d COUNT 1 STREAMS {log} 0"));
    assert_eq!(trim(&mut server, "500"), ["QUEUED"]);
    let told = Server::flat(&server.ask::<redis::Value>("EXEC"));
    assert_eq!(told[told.len() - 4..], ["trimmed", "0", "5000-4", "other"]);
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(trim(&mut server, "500"), ["trimmed", "2", "5000-6", ""], "it is dead");
    assert_eq!(server.ask::<i64>(&format!("XLEN {log}")), 1);
}

fn what_may_go_goes_from_a_server_without_memory() {
    // One of its own, since the limit is that of the whole server.
    let mut server = Server::own();
    let [log, part] = six(&mut server);
    server.ask::<String>(&format!("XGROUP CREATE {log} other 5000-4"));
    server.ask::<String>("CONFIG SET maxmemory 1");
    let keys = [&log[..], &part];
    let told = server.run("partition_measure", &keys, &["5000", "16", "100"]);
    assert_eq!(told[2..], ["5000-1", "48", "5000-1 0 5000-3 16 5000-5 32", "all"]);
    let told = server.run("partition_trim", &keys, &["5000", "5000-6", "60000"]);
    assert_eq!(told, ["trimmed", "3", "5000-4", "other"]);
    assert_eq!(server.hash(&part, "removed").as_deref(), Some("5000-3"));
}

fn messages_are_found_by_their_ids_before_they_are_sent_again() {
    let mut server = Server::get();
    let log = format!("{}:log", server.prefix);
    for (at, id) in [("1-0", "first"), ("2-0", "second"), ("3-0", "third")] {
        let _: String = server.ask(&format!("XADD {log} {at} id {id} payload x"));
    }
    let all = ["0-0", "100", "third", "never", "first"];
    assert_eq!(server.run("find", &[&log], &all), ["found", "3-0", "3-0", "", "1-0"]);
    // Nothing before is looked at, and nobody is found there.
    assert_eq!(server.run("find", &[&log], &["1-0", "100", "first", "second"]), ["found", "3-0", "", "2-0"]);
    assert_eq!(server.run("find", &[&log], &["3-0", "100", "third", "never"]), ["found", "3-0", "", ""]);
    let numbers: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    for number in &numbers {
        let _: String = server.ask(&format!("XADD {log} * id {number} payload x"));
    }
    assert_eq!(server.run("find", &[&log], &["0-0", "100", "third", "199"]), ["far"]);
}

fn a_message_that_is_sent_again_is_added_once() {
    let mut server = Server::get();
    let [_, log, ..] = names(&server);
    let id = "0123456789abcdef";
    let add = |server: &mut Server, id: &str, after: &str, most: &str| {
        server.run("add_once", &[&log], &[id, after, most, "id", id, "ts", "1", "payload", "x"])
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

fn a_search_ends_where_there_is_too_much_to_look_at() {
    let mut server = Server::own();
    let log = format!("{}:log", server.prefix);
    let large = "x".repeat(1 << 20);
    for number in 1..=72 {
        let _: String = server.ask(&format!("XADD {log} {number}-0 id {number} payload {large}"));
    }
    assert_eq!(server.run("find", &[&log], &["0-0", "20000", "3"]), ["far"], "more than 64 MiB");
    assert_eq!(server.run("find", &[&log], &["40-0", "20000", "3", "50"]), ["found", "72-0", "", "50-0"]);
    let add = |server: &mut Server, id: &str| {
        server.run("add_once", &[&log], &[id, "0-0", "20000", "id", id, "payload", "x"])
    };
    assert_eq!(add(&mut server, "60"), ["there", "60-0"]);
    assert_eq!(add(&mut server, "70"), ["far"]);
    assert_eq!(server.ask::<i64>(&format!("XLEN {log}")), 72);
    let text: String = server.ask("INFO memory");
    let lua = text.lines().find_map(|line| line.strip_prefix("used_memory_lua:")).unwrap();
    assert!(lua.trim().parse::<u64>().unwrap() < 24 << 20, "{lua} bytes for what is looked at together");
}

fn packed(words: &[&str]) -> String {
    // Lengths below 128 are text.
    let word = |word: &&str| format!("\0\0\0{}{word}", char::from(word.len() as u8));
    words.iter().map(word).collect()
}

fn what_is_held_is_moved_when_it_is_due_and_not_before_and_once() {
    let mut server = Server::get();
    let [_, log, part, delayed, held] = names(&server);
    let keys = [&log[..], &part, &delayed, &held];
    let id = "0123456789abcdef";
    let hold = |server: &mut Server, due: &str, payload: &str| {
        server.run("hold", &keys, &["5000", id, due, &packed(&["id", id, "payload", payload])])
    };
    assert_eq!(hold(&mut server, "1", "x"), ["life", ""]);
    make(&mut server, "5000");
    let far = "9000000000000";
    // The same again is one; another one of the same id is another.
    for payload in ["early", "early", "other", "late"] {
        assert_eq!(hold(&mut server, if payload == "late" { far } else { "1" }, payload), ["held"]);
    }
    assert_eq!(server.ask::<i64>(&format!("ZCARD {delayed}")), 3);
    assert_eq!(server.run("release_due", &keys, &["4000", "9"]), ["life", "5000"]);
    assert_eq!(server.run("release_due", &keys, &["5000", "1"])[..3], ["moved", "1", "1"]);
    assert_eq!(server.run("release_due", &keys, &["5000", "9"])[..3], ["moved", "1", far]);
    assert_eq!(server.run("release_due", &keys, &["5000", "9"])[..3], ["moved", "0", far]);
    let entries: Vec<(String, Vec<String>)> = server.ask(&format!("XRANGE {log} - +"));
    let fields: Vec<_> = entries.into_iter().map(|(_, fields)| fields.join(" ")).collect();
    assert_eq!(fields, [format!("id {id} payload early"), format!("id {id} payload other")]);
    // Sent again it is kept only as long as it cannot have been moved.
    let again = |server: &mut Server, due: &str| {
        server.run("hold", &keys, &["5000", id, due, &packed(&["id", id, "payload", "early"]), "again"])
    };
    assert_eq!(again(&mut server, "1"), ["far"]);
    assert_eq!(server.run("release_due", &keys, &["5000", "9"])[..2], ["moved", "0"]);
    assert_eq!(again(&mut server, far), ["held"]);
    server.ask::<i64>(&format!("DEL {log}"));
    assert_eq!(server.run("release_due", &keys, &["5000", "9"]), ["none"]);
    assert_eq!(hold(&mut server, "1", "x"), ["none"]);
}

fn all_that_is_held_under_an_id_is_cancelled() {
    let mut server = Server::get();
    let [_, log, part, delayed, held] = names(&server);
    make(&mut server, "5000");
    for payload in ["a", "b"] {
        let args = ["5000", "0123456789abcdef", "9000000000000", &packed(&["payload", payload])];
        server.run("hold", &[&log, &part, &delayed, &held], &args);
    }
    let cancel = |server: &mut Server| server.run("cancel", &[&delayed, &held], &["0123456789abcdef"]);
    assert_eq!(cancel(&mut server), ["cancelled", "2"]);
    assert_eq!(cancel(&mut server), ["cancelled", "0"]);
    assert_eq!(server.ask::<i64>(&format!("EXISTS {delayed} {held}")), 0);
}

fn what_is_due_together_is_moved_about_a_megabyte_at_a_time() {
    let mut server = Server::get();
    let [_, log, part, delayed, held] = names(&server);
    let keys = [&log[..], &part, &delayed, &held];
    make(&mut server, "5000");
    for (number, bytes) in [700_000_usize, 700_000, 2_000_000, 1, 1].into_iter().enumerate() {
        let id = format!("0123456789abcde{number}");
        let mut words = packed(&["payload"]).into_bytes();
        words.extend(u32::try_from(bytes).unwrap().to_be_bytes());
        words.extend(std::iter::repeat_n(b'x', bytes));
        let mut held = redis::cmd("EVAL");
        held.arg(script("hold")).arg(keys.len()).arg(&keys).arg("5000").arg(id).arg("1").arg(words).arg("");
        held.query::<()>(&mut server.redis).unwrap();
    }
    for expected in ["2", "1", "2", "0"] {
        assert_eq!(server.run("release_due", &keys, &["5000", "128"])[1], expected);
    }
    assert_eq!(server.ask::<i64>(&format!("XLEN {log}")), 5);
}

/// Cut short, or written by somebody else: nothing behind it waits, and it is not lost.
fn what_is_held_and_not_in_form_is_moved_as_one_field_that_no_message_has() {
    let mut server = Server::get();
    let [_, log, part, delayed, held] = names(&server);
    let keys = [&log[..], &part, &delayed, &held];
    make(&mut server, "5000");
    let whole = packed(&["payload", "hello"]);
    let bad = [&whole[..whole.len() - 1], &whole[..whole.len() - 8], &whole[..2], "nothing of ours", ""];
    for (number, value) in bad.into_iter().chain([&whole[..]]).enumerate() {
        redis::cmd("HSET").arg(&held).arg(number).arg(value).exec(&mut server.redis).unwrap();
        server.ask::<i64>(&format!("ZADD {delayed} {} {number}", number + 1));
    }
    server.ask::<i64>(&format!("ZADD {delayed} +inf never"));
    let moved = server.run("release_due", &keys, &["5000", "128"]);
    assert_eq!((moved[1].as_str(), moved[2].as_str()), ("6", "inf"));
    let entries: Vec<(String, Vec<String>)> = server.ask(&format!("XRANGE {log} - +"));
    let fields: Vec<_> = entries.iter().map(|(_, fields)| (fields[0].as_str(), fields[1].as_str())).collect();
    let expected: Vec<_> = bad.into_iter().map(|bad| ("held", bad)).chain([("payload", "hello")]).collect();
    assert_eq!(fields, expected);
}

super::tests! {
    a_name_is_claimed_by_one_and_again_when_the_claim_is_over,
    a_life_begins_behind_the_last_id_of_the_one_before_whatever_the_clock_shows,
    a_topic_grows_and_never_shrinks,
    a_partition_is_made_once_and_what_lies_there_already_is_not_touched,
    a_dropped_partition_tells_where_its_ids_ended_and_another_life_is_spared,
    a_purge_keeps_the_last_id_it_removed_and_sets_groups_right,
    bytes_are_counted_once_and_pieces_begin_where_one_is_full,
    a_trim_spares_what_a_live_group_of_ours_has_not_finished,
    a_trim_spares_what_a_consumer_group_of_others_has_pending_until_it_is_dead,
    what_may_go_goes_from_a_server_without_memory,
    a_message_that_is_sent_again_is_added_once,
    a_search_ends_where_there_is_too_much_to_look_at,
    messages_are_found_by_their_ids_before_they_are_sent_again,
    what_is_held_is_moved_when_it_is_due_and_not_before_and_once,
    what_is_due_together_is_moved_about_a_megabyte_at_a_time,
    what_is_held_and_not_in_form_is_moved_as_one_field_that_no_message_has,
    all_that_is_held_under_an_id_is_cancelled,
}
