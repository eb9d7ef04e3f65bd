//! What `ropeway group` tells of groups and how it moves them.

use crate::running::{Place, fields};
use serde_json::json;

fn consumed() -> Place {
    let place = Place::with_topic("t", 1);
    place.run_with_input(&["pub", "t", "--format", "lines"], b"0\n1\n2\n3\n").ok();
    place.run(&["sub", "t", "-g", "g", "-n", "3"]).ok();
    place
}

#[test]
fn a_group_is_listed_described_and_its_lag_told() {
    let place = consumed();
    let listed = place.run(&["group", "list", "-o", "json"]).ok().json();
    assert_eq!(listed, json!([{"group": "g", "members": 0, "topics": ["t"], "lag": 1}]));
    let about = place.run(&["group", "describe", "g", "-o", "json"]).ok().json();
    assert_eq!(fields(&about), ["group", "members", "partitions"]);
    let partition = &about["partitions"][0];
    assert_eq!(
        fields(partition),
        ["end", "epoch", "lag", "lag_seconds", "owner", "partition", "position", "topic", "unfinished"]
    );
    assert_eq!((&partition["lag"], &partition["owner"]), (&json!(1), &json!(null)));
    let lag = place.run(&["group", "lag", "g", "-o", "ndjson"]).ok().ndjson();
    assert_eq!(fields(&lag[0]), ["lag", "lag_seconds", "partitions", "topic", "unfinished"]);
    assert_eq!((&lag[0]["lag"], &lag[0]["unfinished"]), (&json!(1), &json!(1)));
    assert!(place.run(&["group", "describe", "g"]).ok().text().contains("POSITION"));
    for verb in ["describe", "lag", "delete"] {
        place.run(&["group", verb, "nobody", "-y"]).code(4).said(&["nobody"]);
    }
    place.run(&["group", "reset", "nobody", "--to", "start"]).code(4);
}

#[test]
fn a_reset_shows_what_it_would_do_and_does_it_only_when_told() {
    let place = consumed();
    let reset = |args: &[&str]| {
        let args: Vec<&str> = ["group", "reset", "g", "-o", "json"].iter().chain(args).copied().collect();
        place.run(&args).ok()
    };
    let dry = reset(&["--to", "start"]).said(&["nothing was changed"]).json();
    assert_eq!(fields(&dry[0]), ["applied", "from", "messages", "partition", "to", "topic"]);
    assert_eq!((&dry[0]["messages"], &dry[0]["applied"]), (&json!(3), &json!(false)));
    assert_eq!(reset(&["--to", "end"]).json()[0]["messages"], json!(-1));
    assert_eq!(reset(&["--to", "@-1h"]).json()[0]["messages"], json!(3));
    assert_eq!(reset(&["--to", "@+1h"]).json()[0]["to"], reset(&["--to", "end"]).json()[0]["to"]);
    let from = dry[0]["from"].as_str().unwrap().to_owned();
    assert_eq!(reset(&["--to", &from, "-p", "0"]).json()[0]["messages"], json!(0));
    place.run(&["group", "reset", "g", "--to", &from]).code(2).said(&["--partition"]);
    place.run(&["group", "reset", "g", "--to", "start", "-p", "7"]).code(4);
    // Nothing was changed by all that.
    assert_eq!(place.run(&["group", "lag", "g", "-o", "json"]).ok().json()[0]["lag"], json!(1));

    assert_eq!(reset(&["--to", "start", "--yes"]).json()[0]["applied"], json!(true));
    let again = place.run(&["sub", "t", "-g", "g", "--until", "end", "-o", "raw"]).ok();
    assert_eq!(again.lines(), ["0", "1", "2", "3"]);
    // A group that was never there is made where a topic is named.
    place.run(&["group", "reset", "new", "t", "--to", "end", "-y"]).ok();
    assert_eq!(place.run(&["group", "list", "-o", "raw"]).ok().lines(), ["g", "new"]);
    place.run(&["group", "delete", "new"]).code(2).said(&["this needs somebody to agree"]);
    place.run(&["group", "delete", "new", "-y"]).ok();
    assert_eq!(place.run(&["group", "list", "-o", "raw"]).ok().lines(), ["g"]);
}
