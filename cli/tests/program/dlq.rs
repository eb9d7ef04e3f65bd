//! `ropeway dlq`, on dead letters that the processor made.

use crate::running::{Place, fields};
use ropeway_broker::{Group, Message, MessageBroker, MessageBrokerExt, Subscription, Topic, TopicSpec};
use ropeway_processor::{Context, Processor, Router, Verdict, json};
use serde_json::{Value, json as value};
use std::{sync::Arc, time::Duration};

/// One event that is done, one that is rejected, one that cannot be decoded, one of a type nobody takes.
fn with_dead_letters() -> Place {
    let place = Place::new();
    let url = format!("embedded:{}/.ropeway", place.path().display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let broker = ropeway_broker::connect(&url).await.unwrap();
        process(&broker).await;
        broker.close(Duration::from_secs(10)).await;
    });
    place
}

async fn process(broker: &Arc<dyn MessageBroker>) {
    let orders = Topic::new("orders").unwrap();
    let group = Group::new("billing").unwrap();
    broker.admin().create_topic(&orders, TopicSpec::partitions(1)).await.unwrap();
    for (kind, payload) in [("order", "1"), ("order", "-1"), ("order", "x\u{1b}"), ("other", "1")] {
        let message = Message::builder().key("k").event_type(kind).header("h", "v").payload(payload).build();
        broker.publish_one(&orders, message).await.unwrap();
    }
    let router = Router::new().on(
        "order",
        json(|amount: i64, _: Context| async move {
            let why = format!("{amount} is below zero");
            Ok::<_, std::io::Error>(if amount < 0 { Verdict::Reject { why } } else { Verdict::Done })
        }),
    );
    let dead = orders.dead_letters_of(&group);
    let subscription = Subscription::new(group, [orders]);
    let processor = Processor::builder(broker.clone(), subscription).router(router).start().await.unwrap();
    let three = async {
        loop {
            if let Ok(about) = broker.admin().describe_topic(&dead).await
                && about.partitions.iter().filter_map(|partition| partition.messages).sum::<u64>() == 3
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), three).await.unwrap();
    processor.shutdown(Duration::from_secs(10)).await;
}

#[test]
fn dead_letters_are_counted_by_reason_listed_and_shown() {
    let place = with_dead_letters();
    let listed = place.run(&["dlq", "list", "-o", "json"]).ok().json();
    assert_eq!(fields(&listed), ["counts", "letters"]);
    let counts = listed["counts"].as_array().unwrap();
    let mut classes: Vec<&str> = counts.iter().map(|count| count["class"].as_str().unwrap()).collect();
    classes.sort_unstable();
    assert_eq!(classes, ["rejected", "undecodable", "unknown_type"]);
    assert_eq!(fields(&counts[0]), ["class", "count", "dlq", "handler", "last"]);
    let letters = listed["letters"].as_array().unwrap();
    let rejected = letters.iter().find(|letter| letter["class"] == "rejected").unwrap();
    assert_eq!(
        fields(rejected),
        [
            "attempts",
            "class",
            "cut",
            "dlq",
            "error",
            "fingerprint",
            "first",
            "group",
            "handler",
            "id",
            "key",
            "last",
            "left_out_bytes",
            "message_id",
            "node",
            "partition",
            "payload_bytes",
            "place",
            "position",
            "round",
            "topic",
            "type"
        ]
    );
    assert_eq!((&rejected["topic"], &rejected["group"]), (&value!("orders"), &value!("billing")));
    assert!(rejected["error"].as_str().unwrap().contains("-1 is below zero"), "{rejected}");

    let table = place.run(&["dlq", "list"]).ok().text();
    assert!(table.contains("rejected") && table.contains("PLACE"), "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
    let count = |args: &[&str]| {
        let args: Vec<&str> = ["dlq", "list", "-o", "ndjson"].iter().chain(args).copied().collect();
        place.run(&args).ok().ndjson().len()
    };
    assert_eq!(count(&[]), 3);
    assert_eq!(count(&["--class", "rejected"]), 1);
    assert_eq!(count(&["--handler", "nobody"]), 0);
    assert_eq!(count(&["--since", "@-1h"]), 3);
    assert_eq!(count(&["--since", "@+1h"]), 0);
    assert_eq!(count(&["-n", "2"]), 2);
    assert_eq!(count(&["orders.billing.dlq"]), 3);
    place.run(&["dlq", "list", "nothing.dlq"]).code(4).said(&["made with the first"]);
    place.run(&["dlq", "list", "--class", "bad"]).code(2).said(&["unknown_type"]);

    show(&place, rejected);
}

fn show(place: &Place, letter: &Value) {
    let text = |name: &str| letter[name].as_str().unwrap().to_owned();
    let (dlq, at) = (text("dlq"), text("place"));
    for which in [at.clone(), text("id"), text("message_id")] {
        let shown = place.run(&["dlq", "show", &dlq, &which, "-o", "json"]).ok().json();
        assert_eq!(&shown["letter"], letter);
        assert_eq!((&shown["message"]["key"], &shown["message"]["payload"]), (&value!("k"), &value!(-1)));
        assert_eq!(place.run(&["dlq", "show", &dlq, &which, "-o", "raw"]).ok().out, b"-1");
    }
    let people = place.run(&["dlq", "show", &dlq, &at]).ok().text();
    for part in ["rejected", "-1 is below zero", "orders/0", "h: v", "billing"] {
        assert!(people.contains(part), "{part} is not in {people}");
    }
    let beyond = format!("{}-999999", at.rsplit_once('-').unwrap().0);
    for (which, code) in [(beyond.as_str(), 4), ("00000000-0000-0000-0000-000000000000", 4), ("what", 2)] {
        place.run(&["dlq", "show", &dlq, which]).code(code);
    }
}

#[test]
fn a_message_in_a_dead_letter_topic_that_is_no_letter_is_shown_as_such() {
    let place = Place::with_topic("t.g.dlq", 1);
    assert_eq!(place.run(&["dlq", "list"]).ok().said(&["there are no dead letters"]).text(), "");
    place.run(&["pub", "t.g.dlq", "by hand"]).ok();
    let listed = place.run(&["dlq", "list", "-o", "json"]).ok().json();
    assert_eq!((&listed["counts"][0]["class"], &listed["counts"][0]["count"]), (&value!(null), &value!(1)));
    let at = listed["letters"][0]["place"].as_str().unwrap();
    assert!(place.run(&["dlq", "show", "t.g.dlq", at]).ok().text().contains("by hand"));
}
