//! What `ropeway pub` makes of arguments, files and stdin.

use crate::running::{Place, Ran, fields};
use ropeway_broker::Timestamp;
use serde_json::json;

/// In milliseconds.
const HOUR: f64 = 3_600_000.0;

fn all(place: &Place, topic: &str) -> Vec<serde_json::Value> {
    place.run(&["sub", topic, "--until", "end", "-o", "ndjson"]).ok().ndjson()
}

#[test]
fn one_message_arrives_with_all_that_was_said() {
    let place = Place::with_topic("orders", 3);
    let said = place.run(&[
        "pub",
        "orders",
        "{\"n\": 1}",
        "-k",
        "c-7",
        "-H",
        "a=1",
        "-H",
        "a=b=c",
        "--type",
        "order.created",
        "-o",
        "json",
    ]);
    let report = said.ok().json();
    assert_eq!(fields(&report), ["durability", "failed", "last", "published", "refused", "topic"]);
    assert_eq!((&report["published"], &report["durability"]), (&json!(1), &json!("power_loss")));
    let messages = all(&place, "orders");
    let message = &messages[0];
    assert_eq!(message["position"], report["last"]["position"]);
    assert_eq!(message["partition"], report["last"]["partition"]);
    assert_eq!(message["id"], report["last"]["id"]);
    assert_eq!((&message["key"], &message["type"]), (&json!("c-7"), &json!("order.created")));
    assert_eq!((&message["encoding"], &message["payload"]), (&json!("json"), &json!({"n": 1})));
    assert_eq!(
        message["headers"],
        json!([{"name": "ce_type", "value": "order.created"}, {"name": "a", "value": "1"}, {"name": "a", "value": "b=c"}])
    );
}

/// It would be published as it is, and what comes by stdin would not.
#[test]
fn a_body_of_a_dash_is_not_taken_for_stdin_without_a_word() {
    let place = Place::with_topic("t", 1);
    place.run_with_input(&["pub", "t", "-"], b"what was meant").code(2).said(&["--file -"]);
    place.run_with_input(&["pub", "t", "--file", "-"], b"what was meant").ok();
    let all = all(&place, "t");
    assert_eq!((all.len(), &all[0]["payload"]), (1, &json!("what was meant")));
}

#[test]
fn bytes_of_a_file_or_stdin_are_one_message_unless_said_otherwise() {
    let place = Place::with_topic("t", 1);
    let bytes: Vec<u8> = (0..=255).collect();
    place.run_with_input(&["pub", "t"], &bytes).ok();
    place.run(&["pub", "t", "--file", &place.file("x.bin", &bytes)]).ok();
    let raw = place.run(&["sub", "t", "--until", "end", "-o", "raw", "--separator", ""]).ok();
    assert_eq!(raw.out, [&bytes[..], &bytes[..]].concat());
    assert_eq!(all(&place, "t")[0]["encoding"], "base64");
    place.run(&["pub", "t", "--file", "absent"]).code(4).said(&["could not open absent", "cause:"]);
}

#[test]
fn lines_json_lines_and_rows_become_messages_in_their_order() {
    let place = Place::with_topic("t", 4);
    place.run_with_input(&["pub", "t", "--format", "lines", "-k", "k"], b"a\n\nb\n").ok();
    let payloads: Vec<_> = all(&place, "t").iter().map(|message| message["payload"].clone()).collect();
    assert_eq!(payloads, ["a", "", "b"]);

    let place = Place::with_topic("t", 4);
    let input = b"{\"id\":12345678901234567890123,\"kind\":\"x\"}\n{\"id\":\"b\"}\n";
    let args = ["pub", "t", "--format", "jsonl", "--key-expr", ".id", "--header-expr", "ce_type=.kind?"];
    place.run_with_input(&args, input).ok();
    let mut keys: Vec<_> = all(&place, "t").iter().map(|m| (m["key"].clone(), m["type"].clone())).collect();
    keys.sort_by_key(|(key, _)| key.to_string());
    assert_eq!(keys, [(json!("12345678901234567890123"), json!("x")), (json!("b"), json!(null))]);

    let place = Place::with_topic("t", 1);
    let csv = place.file("rows.csv", "id,name\n1,\"a,b\"\n2,c\n");
    place.run(&["pub", "t", "--format", "csv", "--file", &csv, "--key-expr", ".id", "-n", "1"]).ok();
    let rows = all(&place, "t");
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["key"], &rows[0]["payload"]), (&json!("1"), &json!({"id": "1", "name": "a,b"})));
}

#[test]
fn malformed_lines_are_told_by_number_and_the_rest_goes_on() {
    let place = Place::with_topic("t", 1);
    let good: String = (0..50).map(|i| format!("{{\"i\":{i}}}\n{{broken\n")).collect();
    let ran = place.run_with_input(&["pub", "t", "--format", "jsonl", "-o", "json"], good.as_bytes());
    let ran =
        ran.code(5).said(&["line 2: refused: not JSON", "line 40: refused", "only counted", "50 of 100"]);
    assert!(!ran.err.contains("line 50:"), "{}", ran.err);
    let report = ran.json();
    assert_eq!((&report["published"], &report["refused"]), (&json!(50), &json!(50)));
    assert_eq!(all(&place, "t").len(), 50);
}

#[test]
fn a_rate_is_kept_and_a_count_repeats() {
    let place = Place::with_topic("t", 1);
    let began = Timestamp::now().as_millis() as f64;
    place.run(&["pub", "t", "x", "-n", "11", "--rate", "10/s", "-o", "raw"]).ok();
    let messages = all(&place, "t");
    assert_eq!(messages.len(), 11);
    let (minutes, seconds) =
        messages[10]["timestamp"].as_str().unwrap().trim_end_matches('Z').rsplit_once(':').unwrap();
    let minute: f64 = minutes.rsplit_once(':').unwrap().1.parse().unwrap();
    let last = minute * 60_000.0 + seconds.parse::<f64>().unwrap() * 1000.0;
    // The last goes a second after the program began with the first, which may be late itself.
    let took = (last - began).rem_euclid(HOUR);
    assert!(took >= 1000.0, "{took} ms");
}

#[test]
fn a_tombstone_has_a_key_and_no_content() {
    let place = Place::with_topic("t", 1);
    place.run(&["pub", "t", "--tombstone"]).code(2).said(&["--key"]);
    place.run(&["pub", "t", "--tombstone", "-k", "k"]).ok();
    let message = &all(&place, "t")[0];
    assert_eq!(
        (&message["encoding"], &message["payload"], &message["key"]),
        (&json!("none"), &json!(null), &json!("k"))
    );
    assert!(place.run(&["sub", "t", "--until", "end"]).ok().text().contains("(tombstone)"));
}

#[test]
fn a_delayed_message_waits_for_its_time() {
    let place = Place::with_topic("t", 1);
    let report = place.run(&["pub", "t", "later", "--in", "1h", "-o", "json"]).ok().json();
    assert_eq!(report["last"]["position"], json!(null));
    assert_eq!(place.run(&["topic", "describe", "t", "-o", "json"]).ok().json()["delayed"], 1);
    place.run(&["pub", "t", "soon", "--at", "+50ms"]).ok();
    let got = place.run(&["sub", "t", "-O", "start", "-n", "1", "-o", "raw", "--timeout", "30s"]).ok();
    assert_eq!(got.text(), "soon\n");
}

#[test]
fn what_the_topic_does_not_take_is_given_back_with_the_reason() {
    let place = Place::with_topic("t", 1);
    let large = place.file("large", vec![b'x'; 20 << 20]);
    let said: Ran = place.run(&["pub", "t", "--file", &large]);
    said.code(1).said(&["it has more than", "1 of 1 messages were not published to t"]);
    let key = "k".repeat(40_000);
    place.run(&["pub", "t", "x", "-k", &key]).code(1).said(&["the key has 40000 bytes and may have 32768"]);
    let headers: Vec<String> = (0..10_000).map(|i| format!("-Hh{i}=v")).collect();
    let args: Vec<&str> = ["pub", "t", "x"].into_iter().chain(headers.iter().map(String::as_str)).collect();
    place.run(&args).code(1).said(&["10000 headers and a message may have 4096"]);
    assert!(all(&place, "t").is_empty());
}
