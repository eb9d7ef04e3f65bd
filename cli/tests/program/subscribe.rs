//! What `ropeway sub` prints, from where, and what a group has seen then.

use crate::running::{Place, fields};
use serde_json::json;

#[test]
fn every_format_shows_the_same_messages() {
    let place = Place::with_topic("t", 1);
    place.run(&["pub", "t", "{\"a\" : 1}", "-k", "k\u{1b}[2J", "--type", "x.y", "-H", "h=v"]).ok();
    place.run_with_input(&["pub", "t"], b"\xff\n").ok();
    let sub = |args: &[&str]| {
        let args: Vec<&str> = ["sub", "t", "--until", "end"].iter().chain(args).copied().collect();
        place.run(&args).ok()
    };
    let table = sub(&["--headers"]).lines();
    assert!(table[0].ends_with("  k\\u{1b}[2J  x.y  {\"a\" : 1}"), "{table:?}");
    assert_eq!(table[1..3], ["    ce_type: x.y", "    h: v"]);
    assert!(table[3].ends_with("  -  -  \\xff\\n"), "{table:?}");
    let ndjson = sub(&["-o", "ndjson"]).ndjson();
    assert_eq!(
        fields(&ndjson[0]),
        [
            "encoding",
            "headers",
            "id",
            "key",
            "partition",
            "payload",
            "position",
            "timestamp",
            "topic",
            "type"
        ]
    );
    assert_eq!(ndjson[1]["payload"], json!("/wo="));
    assert_eq!(sub(&["-o", "json"]).json(), json!(ndjson));
    assert_eq!(sub(&["-o", "json", "--decode", "text"]).json()[0]["payload"], json!("{\"a\" : 1}"));
    assert_eq!(sub(&["-o", "raw"]).out, b"{\"a\" : 1}\n\xff\n\n");
    assert_eq!(sub(&["-o", "raw", "-n", "1", "--separator", "\\0"]).out, b"{\"a\" : 1}\0");
    let empty = place.run(&["topic", "create", "empty"]).ok();
    drop(empty);
    assert_eq!(place.run(&["sub", "empty", "--until", "end", "-o", "json"]).ok().json(), json!([]));
}

#[test]
fn offsets_choose_where_to_start() {
    let place = Place::with_topic("t", 1);
    place.run_with_input(&["pub", "t", "--format", "lines"], b"0\n1\n2\n").ok();
    let sub = |args: &[&str]| {
        let args: Vec<&str> =
            ["sub", "t", "--until", "end", "-o", "ndjson"].iter().chain(args).copied().collect();
        let payload = |message: &serde_json::Value| message["payload"].to_string();
        place.run(&args).ok().ndjson().iter().map(payload).collect::<Vec<_>>().join("")
    };
    assert_eq!(sub(&[]), "012");
    assert_eq!(sub(&["-O", "start"]), "012");
    assert_eq!(sub(&["-O", "end"]), "");
    assert_eq!(sub(&["--offset", "@-1h"]), "012");
    assert_eq!(sub(&["-O", "@2000-01-01"]), "012");
    assert_eq!(sub(&["-O", "@+1h"]), "");
    let messages = place.run(&["sub", "t", "--until", "end", "-o", "json"]).ok().json();
    let position = messages[1]["position"].as_str().unwrap();
    assert_eq!(sub(&["-O", position, "-p", "0"]), "12");
    place.run(&["sub", "t", "-O", position]).code(2).said(&["--partition"]);
    place.run(&["sub", "t", "-O", "0-0", "-p", "9"]).code(4);
    place.run(&["sub", "t", "-O", "sometime"]).code(2).said(&["it takes start, end, a position"]);
    for args in [&["sub", "nothing"][..], &["sub", "nothing", "-g", "g"]] {
        place.run(args).code(4).said(&["nothing", "make it with `ropeway topic create nothing`"]);
    }
}

#[test]
fn without_a_group_it_follows_what_is_published_later_and_time_can_run_out() {
    let place = Place::with_topic("t", 2);
    let ran = place.run(&["sub", "t", "-n", "1", "--timeout", "300ms", "-o", "json"]).code(5);
    assert_eq!(ran.json(), json!([]));
    ran.said(&["the time of --timeout is over"]);
    place.run(&["pub", "t", "due", "--in", "2s"]).ok();
    let ran = place.run(&["sub", "t", "-n", "1", "--timeout", "50s", "-o", "raw"]).ok();
    assert_eq!(ran.text(), "due\n");
}

#[test]
fn a_group_gets_each_message_once_and_goes_on_where_it_was() {
    let place = Place::with_topic("t", 3);
    let lines: String = (0..100).map(|i| format!("{i}\n")).collect();
    place.run_with_input(&["pub", "t", "--format", "lines"], lines.as_bytes()).ok();
    let sub = |args: &[&str]| {
        let args: Vec<&str> = ["sub", "t", "-g", "g", "-o", "raw"].iter().chain(args).copied().collect();
        place.run(&args).ok().lines()
    };
    let mut seen = sub(&["-n", "10"]);
    assert_eq!(seen.len(), 10);
    seen.extend(sub(&["--until", "end"]));
    seen.sort_by_key(|line| line.parse::<u32>().unwrap());
    assert_eq!(seen, (0..100).map(|i| i.to_string()).collect::<Vec<_>>());
    assert!(sub(&["--until", "end"]).is_empty());
    place.run(&["sub", "t", "-g", "g", "-p", "0"]).code(2);
    let later = place.run(&["sub", "t", "-g", "late", "-O", "end", "--until", "end", "-o", "raw"]).ok();
    assert!(later.out.is_empty());
}
