//! What `ropeway topic` makes, shows, grows, empties and deletes.

use crate::running::{Place, fields};

#[test]
fn a_topic_is_made_listed_described_grown_purged_and_deleted() {
    let place = Place::new();
    assert_eq!(place.run(&["topic", "list", "-o", "json"]).ok().json(), serde_json::json!([]));
    place.run(&["topic", "create", "orders", "users", "-p", "2", "--retention", "7d"]).ok();
    assert_eq!(place.run(&["topic", "list", "-o", "raw"]).ok().lines(), ["orders", "users"]);
    let listed = place.run(&["topic", "list"]).ok().lines();
    assert_eq!(listed[0].split_whitespace().collect::<Vec<_>>(), ["TOPIC", "PARTITIONS", "MESSAGES"]);
    assert_eq!(listed[1].split_whitespace().collect::<Vec<_>>(), ["orders", "2", "0"]);

    place.run(&["topic", "create", "orders"]).code(1).said(&["error: ", "orders"]);
    let part = place.run(&["topic", "create", "new", "orders", "later", "-o", "raw"]).code(5);
    assert_eq!(part.said(&["error: ", "orders", "made before that: new"]).lines(), ["new"]);
    place.run(&["topic", "delete", "new", "-y"]).ok();
    place.run(&["topic", "create", "orders", "--if-missing"]).ok().said(&["stays as it is"]);
    let grown = place.run(&["topic", "grow", "orders", "4", "-o", "json"]).ok().json();
    assert_eq!(grown, serde_json::json!({"topic": "orders", "partitions": 4}));
    place.run(&["topic", "grow", "orders", "3"]).code(2);

    place.run(&["pub", "orders", "a", "-k", "k", "-n", "3"]).ok();
    let about = place.run(&["topic", "describe", "orders", "-o", "json"]).ok().json();
    assert_eq!(
        fields(&about),
        ["delayed", "detail", "durability", "max_message", "partitions", "retention", "topic"]
    );
    assert_eq!(about["retention"]["age_seconds"], 604_800.0);
    assert_eq!(about["detail"].as_array().unwrap().len(), 4);
    assert_eq!(about["durability"], "power_loss");
    assert!(place.run(&["topic", "describe", "orders"]).ok().text().contains("messages     3"));

    let refused = place.run(&["topic", "purge", "orders"]).code(2);
    refused.said(&["this needs somebody to agree", "--yes"]);
    let purged = place.run(&["topic", "purge", "orders", "--yes", "-o", "json"]).ok().json();
    assert_eq!(purged, serde_json::json!({"topic": "orders", "partition": null, "removed": 3}));

    place.run(&["topic", "delete", "orders"]).code(2).said(&["this needs somebody to agree"]);
    place.run(&["topic", "delete", "orders", "nothing", "-y"]).code(4).said(&["nothing"]);
    assert_eq!(place.run(&["topic", "delete", "orders", "-y", "-o", "raw"]).ok().lines(), ["orders"]);
    assert_eq!(place.run(&["topic", "list", "-o", "raw"]).ok().lines(), ["users"]);
    place.run(&["topic", "describe", "orders"]).code(4).said(&["orders"]);
}
