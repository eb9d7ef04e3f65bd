//! Clients that know nothing of Ropeway, confluent-kafka, kcat and Kafka's own tools, read what it writes, show the lag that it shows, and write
//! what it reads.
//!
//! Not here: where they come from (`tools.rs`).

use crate::{
    address,
    running::Place,
    server::{Server, unique},
    tools::{self, Tools, output},
    trials::{Test, on},
};
use serde_json::{Value, json};
use std::process::Command;

pub(crate) fn all() -> Vec<Test> {
    vec![
        (
            "confluent_kafka_reads_what_we_write_and_we_read_what_it_writes",
            confluent_kafka_reads_what_we_write_and_we_read_what_it_writes,
        ),
        (
            "tools_of_kafka_read_what_we_write_and_we_read_what_they_write",
            tools_of_kafka_read_what_we_write_and_we_read_what_they_write,
        ),
        (
            "kcat_reads_what_we_write_and_we_read_what_it_writes",
            kcat_reads_what_we_write_and_we_read_what_it_writes,
        ),
    ]
}

/// A topic of 3 partitions with messages of every shape, of which a group has finished some.
struct Written {
    server: String,
    place: Place,
    topic: String,
    group: String,
}

impl Written {
    fn new() -> Result<Self, String> {
        let url = Server::Kafka.url()?;
        let (place, topic, group) = (on(&url), unique("orders"), unique("billing"));
        place.run(&["topic", "create", &topic, "-p", "3"]).ok();
        let body = "{\"total\":9.5}";
        place
            .run(&["pub", &topic, body, "-k", "customer-7", "--type", "order.created", "-H", "größe=7"])
            .ok();
        place.run(&["pub", &topic, "no key"]).ok();
        let lines: String = (0..20).map(|number| format!("{number}\n")).collect();
        place.run_with_input(&["pub", &topic, "--format", "lines"], lines.as_bytes()).ok();
        // A tombstone, an empty payload, a header without a value: as another topic would have printed them.
        let shape = |id: u32, key: &str, headers: Value, payload: Value| {
            let encoding = if payload.is_null() { "none" } else { "text" };
            json!({
                "topic": topic, "partition": 1, "id": format!("0195e1f0-0000-7000-8000-{id:012}"),
                "timestamp": "2026-11-21T12:00:00.123Z", "encoding": encoding, "key": key, "headers": headers,
                "payload": payload,
            })
        };
        let shapes = [
            shape(1, "gone", json!([{"name": "none", "value": null}]), Value::Null),
            shape(2, "empty", json!([]), json!("")),
        ];
        let shapes: String = shapes.iter().map(|shape| format!("{shape}\n")).collect();
        place.run_with_input(&["pub", "--format", "export"], shapes.as_bytes()).ok();
        place.run(&["sub", &topic, "-g", &group, "-n", "7"]).ok();
        Ok(Self { server: address(&url).to_owned(), place, topic, group })
    }

    /// All messages, as we tell them, in the order of partitions and places.
    fn ours(&self) -> Vec<Value> {
        let args = ["sub", &self.topic, "--until", "end", "-o", "ndjson", "--decode", "text"];
        let mut all = self.place.run(&args).ok().ndjson();
        all.sort_by_key(|one| (one["partition"].as_u64(), offset(one)));
        all
    }

    /// Partition and lag, as we tell it.
    fn lag(&self) -> Vec<(u64, u64)> {
        let about = self.place.run(&["group", "describe", &self.group, "-o", "json"]).ok().json();
        let of = |of: &Value| (of["partition"].as_u64().unwrap(), of["lag"].as_u64().unwrap());
        about["partitions"].as_array().unwrap().iter().map(of).collect()
    }

    /// What came since `before`.
    fn added(&self, before: &[Value]) -> Vec<Value> {
        let mut now = self.ours();
        now.retain(|one| !before.iter().any(|old| old["id"] == one["id"]));
        now
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.place.run(&["topic", "delete", &self.topic, "-y"]);
        self.place.run(&["group", "delete", &self.group, "-y"]);
    }
}

/// The offset in a position.
fn offset(message: &Value) -> u64 {
    let position = message["position"].as_str().unwrap();
    position.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn confluent_kafka_reads_what_we_write_and_we_read_what_it_writes() -> Result<(), String> {
    let python = tools::python()?;
    let written = Written::new()?;
    let script = written.place.file("clients.py", include_str!("clients.py"));
    let py = |words: &[&str]| -> Vec<Value> {
        let mut command = Command::new(&python);
        command.args([&script, &written.server, &written.topic]).args(words);
        let printed = output(command, words[0], "");
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };

    let mut theirs = py(&["read"]);
    theirs.sort_by_key(|one| (one["partition"].as_u64(), one["offset"].as_u64()));
    let ours = written.ours();
    assert_eq!((theirs.len(), ours.len()), (24, 24));
    for (theirs, ours) in theirs.iter().zip(&ours) {
        for field in ["partition", "key", "payload"] {
            assert_eq!(theirs[field], ours[field], "{field}: {theirs} {ours}");
        }
        assert_eq!((theirs["offset"].as_u64(), &theirs["kind"]), (Some(offset(ours)), &json!(1)));
        // The id is the last of the headers, and the only one that is ours alone.
        let mut headers = theirs["headers"].as_array().unwrap().clone();
        assert_eq!(headers.pop().unwrap(), json!({"name": "ropeway-id", "value": ours["id"]}));
        assert_eq!(Value::from(headers), ours["headers"], "{theirs} {ours}");
    }
    let of = |key: &str| theirs.iter().find(|one| one["key"] == key).unwrap();
    assert!(
        of("customer-7")["headers"].as_array().unwrap().contains(&json!({"name": "größe", "value": "7"}))
    );
    assert_eq!((&of("gone")["payload"], &of("empty")["payload"]), (&Value::Null, &json!("")));
    assert_eq!(of("gone")["headers"][0], json!({"name": "none", "value": null}));
    assert_eq!(of("gone")["millis"], 1_795_262_400_123_u64);

    let shown: Vec<(u64, u64)> = py(&["lag", &written.group])
        .iter()
        .map(|one| (one["partition"].as_u64().unwrap(), one["lag"].as_u64().unwrap()))
        .collect();
    assert_eq!(shown, written.lag());

    py(&["write"]);
    let added = written.added(&ours);
    assert_eq!(added.len(), 4, "{added:#?}");
    let of = |key: Value| added.iter().find(|one| one["key"] == key).unwrap();
    let whole = of("c-1".into());
    assert_eq!(whole["id"], "0195e1f0-0000-7000-8000-00000000c0de");
    assert_eq!(
        (&whole["type"], &whole["payload"]),
        (&"order.paid".into(), &"{\"by\":\"confluent-kafka\"}".into())
    );
    let headers: Vec<(&str, Option<&str>)> = whole["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|header| (header["name"].as_str().unwrap(), header["value"].as_str()))
        .collect();
    let sent = [("ce_type", Some("order.paid")), ("trace", Some("7")), ("none", None), ("trace", Some(""))];
    assert_eq!(headers, sent);
    assert!(whole["timestamp"].as_str().unwrap().starts_with("2020-09-13T12:26:40.123"), "{whole}");
    assert_eq!(of("c-2".into())["payload"], Value::Null);
    assert_eq!(of("".into())["payload"], "");
    assert_eq!(of(Value::Null)["payload"], "only a payload");
    Ok(())
}

fn tools_of_kafka_read_what_we_write_and_we_read_what_they_write() -> Result<(), String> {
    let tools = Tools::fetch()?;
    let written = Written::new()?;
    let (server, topic) = (written.server.as_str(), written.topic.as_str());
    let at = ["--bootstrap-server", server];
    let ours = written.ours();

    let shows =
        ["key", "headers", "timestamp", "partition", "offset"].map(|what| format!("print.{what}=true"));
    // It ends with the last of them; where one is missing, when none comes for so long.
    let mut args =
        vec!["--topic", topic, "--from-beginning", "--max-messages", "24", "--timeout-ms", "45000"];
    args.extend(shows.iter().flat_map(|show| ["--property", show]));
    let read = tools.run("kafka-console-consumer.sh", &[&at, &args[..]].concat(), "");
    assert_eq!(read.lines().count(), 24, "{read}");
    let line = read.lines().find(|line| line.contains("customer-7")).unwrap();
    for part in ["CreateTime:", "ce_type:order.created", "größe:7", "ropeway-id:", "{\"total\":9.5}"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let gone = read.lines().find(|line| line.contains("\tgone\t")).unwrap();
    assert!(gone.contains("none:null") && gone.ends_with("\tnull"), "{gone}");

    let shown = tools.run(
        "kafka-consumer-groups.sh",
        &[&at[..], &["--describe", "--group", &written.group]].concat(),
        "",
    );
    // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG ...
    let mut lags: Vec<(u64, u64)> = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.first() == Some(&written.group.as_str()))
        .map(|words| (words[2].parse().unwrap(), words[5].parse().unwrap_or(u64::MAX)))
        .collect();
    lags.sort_unstable();
    assert_eq!(lags, written.lag(), "{shown}");

    let props = [
        "parse.key=true",
        "parse.headers=true",
        "null.marker=NULL",
        "key.separator=|",
        "headers.delimiter=|",
    ];
    let mut args = vec!["--topic", topic];
    args.extend(props.iter().flat_map(|prop| ["--property", prop]));
    let lines = "h:1,none:NULL|by-tool|a payload\nh:2|by-tool-too|NULL\n";
    tools.run("kafka-console-producer.sh", &[&at, &args[..]].concat(), lines);
    let added = written.added(&ours);
    assert_eq!(added.len(), 2, "{added:#?}");
    let of = |key: &str| added.iter().find(|one| one["key"] == key).unwrap();
    assert_eq!(of("by-tool")["payload"], "a payload");
    assert_eq!(
        of("by-tool")["headers"],
        json!([{"name": "h", "value": "1"}, {"name": "none", "value": null}])
    );
    assert_eq!(of("by-tool-too")["payload"], Value::Null);
    let key = of("by-tool");
    written.place.run(&["pub", topic, "ours", "-k", "by-tool"]).ok();
    let ours = written.ours();
    let ours = ours.iter().find(|one| one["payload"] == "ours").unwrap();
    assert_eq!(ours["partition"], key["partition"], "a key lies where Kafka's own producer puts it");
    Ok(())
}

fn kcat_reads_what_we_write_and_we_read_what_it_writes() -> Result<(), String> {
    tools::kcat()?;
    let written = Written::new()?;
    let kcat = |words: &[&str], input: &str| {
        let mut command = Command::new("kcat");
        command.args(["-b", &written.server, "-t", &written.topic]).args(words);
        output(command, "kcat", input)
    };
    let ours = written.ours();
    // Partition, offset, length of the key and of the payload (-1 for null), headers.
    let read = kcat(&["-C", "-e", "-q", "-o", "beginning", "-f", "%p %o %K %S %h\\n"], "");
    assert_eq!(read.lines().count(), 24, "{read}");
    for one in &ours {
        let length = |field: &str| one[field].as_str().map_or(-1, |text| text.len() as i64);
        let line = format!("{} {} {} {} ", one["partition"], offset(one), length("key"), length("payload"));
        let line =
            read.lines().find(|read| read.starts_with(&line)).unwrap_or_else(|| panic!("{line}: {read}"));
        assert!(line.contains(&format!("ropeway-id={}", one["id"].as_str().unwrap())), "{line}");
    }
    kcat(&["-P", "-K", "|", "-H", "by=kcat", "-Z"], "k-1|by hand\nk-2|\n");
    let added = written.added(&ours);
    let of = |key: &str| added.iter().find(|one| one["key"] == key).unwrap();
    assert_eq!((added.len(), &of("k-1")["payload"]), (2, &json!("by hand")));
    assert_eq!(of("k-1")["headers"], json!([{"name": "by", "value": "kcat"}]));
    assert_eq!(of("k-2")["payload"], Value::Null);
    Ok(())
}
