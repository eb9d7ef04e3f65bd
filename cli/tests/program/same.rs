//! The steps through the verbs of the program that are the same on every server, in the order in which they are taken.
//!
//! `SERVER` stands for the URL, `ORDERS`, `LATER` and `BILLING` for topics and a group, `LETTER` for the place of a dead letter. Not here: what servers say
//! in words of their own, between these (`../redis/verbs.rs`, `../kafka/verbs.rs`), taking the steps (`steps.rs`).

use crate::{running::Place, steps::Step};

const MESSAGES: &str = "{\"customer\":\"c-8\",\"total\":12}\n{\"customer\":\"c-9\",\"total\":3}\n";

/// Before anything is there.
pub(crate) const SETTINGS: &[Step<'_>] = &[
    (&["config", "show"], "", 0, &["SERVER"]),
    (&["config", "check"], "", 0, &["settings are well"]),
    (&["completions", "bash"], "", 0, &["doctor"]),
];

/// Makes topics.
pub(crate) const TOPICS: &[Step<'_>] = &[
    (
        &["topic", "create", "ORDERS", "-p", "4", "--retention", "7d", "--retention-bytes", "64MiB"],
        "",
        0,
        &["ORDERS"],
    ),
    (&["topic", "create", "ORDERS"], "", 1, &["ORDERS"]),
    (&["topic", "create", "LATER", "-p", "1"], "", 0, &[]),
];

/// Where one message of a customer is published: two more, one for later, and all of them are read.
pub(crate) const MORE: &[Step<'_>] = &[
    (&["pub", "ORDERS", "--format", "jsonl", "--key-expr", ".customer"], MESSAGES, 0, &["published  2"]),
    (&["pub", "LATER", "soon", "--in", "1s"], "", 0, &["published  1"]),
    (&["sub", "LATER", "-O", "start", "-n", "1", "-o", "raw", "--timeout", "50s"], "", 0, &["soon\n"]),
    (&["topic", "describe", "ORDERS"], "", 0, &["messages     3", "7d"]),
    (&["topic", "grow", "ORDERS", "6"], "", 0, &["6"]),
    (&["sub", "ORDERS", "--until", "end", "-o", "ndjson"], "", 0, &["customer-7", "c-8", "c-9"]),
    (&["sub", "ORDERS", "-g", "BILLING", "-n", "2", "-o", "raw"], "", 0, &["total"]),
    (&["group", "list"], "", 0, &["BILLING"]),
];

/// A group that did two of three is looked at, moved and deleted.
pub(crate) const GROUP: &[Step<'_>] = &[
    (&["group", "describe", "BILLING"], "", 0, &["POSITION"]),
    (&["sub", "ORDERS", "-g", "BILLING", "--until", "end", "-o", "raw"], "", 0, &["total"]),
    (&["group", "reset", "BILLING", "--to", "start", "--yes"], "", 0, &["ORDERS"]),
    (&["group", "lag", "BILLING", "-o", "json"], "", 0, &["\"lag\": 3"]),
    (&["group", "delete", "BILLING", "--yes"], "", 0, &["BILLING"]),
    (&["group", "describe", "BILLING"], "", 4, &["BILLING"]),
    (&["topic", "purge", "ORDERS", "--yes", "-o", "json"], "", 0, &["\"removed\": 3"]),
];

/// Measures.
pub(crate) const BENCH: &[Step<'_>] = &[
    (&["bench", "pub", "-n", "500", "--out", "base.json"], "", 0, &["throughput"]),
    (&["bench", "sub", "-n", "500", "--assert", "lost==0"], "", 0, &["0 lost"]),
    (&["bench", "e2e", "--rate", "200/s", "--duration", "1s", "--assert", "lost==0"], "", 0, &["0 lost"]),
    (&["bench", "handler", "-n", "500", "--assert", "lost==0"], "", 0, &["0 lost"]),
    (&["bench", "embedded", "--rounds", "1", "--turn", "10ms"], "", 0, &["of the bare disk"]),
    (&["bench", "compare", "base.json", "base.json"], "", 0, &["throughput"]),
];

/// Starts the demo over.
pub(crate) const RESET: &[Step<'_>] =
    &[(&["demo", "--reset", "--records", "100"], "", 0, &["demo --broker SERVER"])];

/// What only an embedded broker has, and the end.
pub(crate) const END: &[Step<'_>] = &[
    (&["data", "check", "SERVER"], "", 2, &["embedded:DIR", "ropeway doctor"]),
    (&["data", "export", "SERVER"], "", 2, &["embedded:DIR", "ropeway doctor"]),
    (&["topic", "delete", "ORDERS", "LATER", "--yes"], "", 0, &["ORDERS"]),
    (&["topic", "describe", "ORDERS"], "", 4, &["ORDERS"]),
];

/// Publishes sixty messages to a new topic, of which a group takes first twenty and then the rest.
#[track_caller]
pub(crate) fn sixty(place: &Place, url: &str, topic: &str, partitions: &str, group: &str) {
    place.run(&["topic", "create", topic, "-p", partitions]).ok();
    let lines: String = (0..60).map(|number| format!("{number}\n")).collect();
    place.run_with_input(&["pub", topic, "--format", "lines"], lines.as_bytes()).ok();
    assert_eq!(place.run(&["sub", topic, "-g", group, "-n", "20", "-o", "raw"]).ok().lines().len(), 20);
    let lag = place.run(&["group", "lag", group, "-o", "json"]).ok().json();
    assert_eq!(lag[0]["unfinished"], 40, "{url}");
    let rest = place.run(&["sub", topic, "-g", group, "--until", "end", "-o", "raw"]).ok().lines();
    assert_eq!(rest.len(), 40, "{url}");
}
