//! Every verb of the program does on a server of Redis what it says, or is refused by name.

use crate::{
    Test,
    server::{Server, on},
    steps::{Step, exported, run, untried},
};
use std::collections::BTreeSet;

pub(crate) fn all() -> Vec<Test> {
    vec![
        ("every_verb_works_or_is_refused_by_name", every_verb_works_or_is_refused_by_name),
        ("every_way_to_a_server_works", every_way_to_a_server_works),
    ]
}

const MESSAGES: &str = "{\"customer\":\"c-8\",\"total\":12}\n{\"customer\":\"c-9\",\"total\":3}\n";

/// `LETTER` stands for the place of a dead letter, `SERVER` for the URL.
const STEPS: &[Step<'_>] = &[
    (&["config", "show"], "", 0, &["SERVER"]),
    (&["config", "check"], "", 0, &["settings are well"]),
    (&["completions", "bash"], "", 0, &["doctor"]),
    (&["doctor"], "", 6, &["power_loss", "1 warning", "replicas"]),
    (
        &["topic", "create", "orders", "-p", "4", "--retention", "7d", "--retention-bytes", "64MiB"],
        "",
        0,
        &["orders"],
    ),
    (&["topic", "create", "orders"], "", 1, &["orders"]),
    (&["topic", "create", "later", "-p", "1"], "", 0, &[]),
    (&["topic", "list", "-o", "raw"], "", 0, &["later\norders\n"]),
    (
        &["pub", "orders", "{\"total\":9.5}", "--key", "customer-7", "--type", "order.created"],
        "",
        0,
        &["the machine losing power"],
    ),
    (&["pub", "orders", "--format", "jsonl", "--key-expr", ".customer"], MESSAGES, 0, &["published  2"]),
    (&["pub", "later", "soon", "--in", "1s"], "", 0, &["published  1"]),
    (&["sub", "later", "-O", "start", "-n", "1", "-o", "raw", "--timeout", "50s"], "", 0, &["soon\n"]),
    (&["topic", "describe", "orders"], "", 0, &["messages     3", "7d"]),
    (&["topic", "grow", "orders", "6"], "", 0, &["6"]),
    (&["sub", "orders", "--until", "end", "-o", "ndjson"], "", 0, &["customer-7", "c-8", "c-9"]),
    (&["sub", "orders", "-g", "billing", "-n", "2", "-o", "raw"], "", 0, &["total"]),
    (&["group", "list"], "", 0, &["billing"]),
    (&["group", "lag", "billing", "-o", "json"], "", 0, &["\"lag\": 1"]),
    (&["group", "describe", "billing"], "", 0, &["POSITION"]),
    (&["sub", "orders", "-g", "billing", "--until", "end", "-o", "raw"], "", 0, &["total"]),
    (&["group", "reset", "billing", "--to", "start", "--yes"], "", 0, &["orders"]),
    (&["group", "lag", "billing", "-o", "json"], "", 0, &["\"lag\": 3"]),
    (&["group", "delete", "billing", "--yes"], "", 0, &["billing"]),
    (&["group", "describe", "billing"], "", 4, &["billing"]),
    (&["topic", "purge", "orders", "--yes", "-o", "json"], "", 0, &["\"removed\": 3"]),
    (&["demo", "--records", "1500"], "", 0, &["lost                                       0"]),
    (&["demo", "--records", "300"], "", 0, &["1,800"]),
    (&["dlq", "list"], "", 0, &["demo.strikes.demo.dlq", "rejected"]),
    (&["dlq", "show", "demo.strikes.demo.dlq", "LETTER"], "", 0, &["demo.strikes", "rejected"]),
    (&["demo", "--reset", "--records", "100"], "", 0, &["demo --broker SERVER"]),
    (&["bench", "pub", "-n", "500", "--out", "base.json"], "", 0, &["throughput"]),
    (&["bench", "sub", "-n", "500", "--assert", "lost==0"], "", 0, &["0 lost"]),
    (&["bench", "e2e", "--rate", "200/s", "--duration", "1s", "--assert", "lost==0"], "", 0, &["0 lost"]),
    (&["bench", "handler", "-n", "500", "--assert", "lost==0"], "", 0, &["0 lost"]),
    (&["bench", "embedded", "--rounds", "1", "--turn", "10ms"], "", 0, &["of the bare disk"]),
    (&["bench", "compare", "base.json", "base.json"], "", 0, &["throughput"]),
    (&["data", "check", "SERVER"], "", 2, &["embedded:DIR", "ropeway doctor"]),
    (&["data", "export", "SERVER"], "", 2, &["embedded:DIR", "ropeway doctor"]),
    (&["topic", "delete", "orders", "later", "--yes"], "", 0, &["orders"]),
    (&["topic", "describe", "orders"], "", 4, &["orders"]),
];

fn every_verb_works_or_is_refused_by_name() -> Result<(), String> {
    let server = Server::durable();
    let place = server.place();
    let url = server.url();
    run(&place, STEPS, &[("SERVER", &url)]);
    exported(&place, "copied");
    let (port, url) = (server.port.to_string(), format!("{}/0", server.url()));
    for variables in [&[("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &port)][..], &[("REDIS_URI", &url)]] {
        for args in [&["topic", "describe", "copied"][..], &["config", "check"]] {
            place.run_with_env(&[args, &["--broker", "redis:"]].concat(), variables).ok();
        }
        place.run_with_env(&["doctor", "redis:"], variables).code(6);
    }
    assert_eq!(untried(&place, STEPS), BTreeSet::new());
    Ok(())
}

/// A socket, the primary that a sentinel names, a cluster.
fn every_way_to_a_server_works() -> Result<(), String> {
    let alone = Server::start(&["--unixsocket", "socket", "--appendonly", "yes", "--appendfsync", "always"]);
    let sentinel = Server::sentinel(&alone);
    let cluster = Server::cluster();
    let nodes = cluster.each_ref().map(|node| format!("127.0.0.1:{}", node.port)).join(",");
    for (url, servers) in [
        (format!("unix://{}/socket?prefix=a", alone.dir().display()), 1),
        (format!("redis+sentinel://127.0.0.1:{}/main?prefix=b", sentinel.port), 1),
        (format!("redis+cluster://{nodes}"), 3),
    ] {
        let place = on(&url);
        place.run(&["topic", "create", "orders", "-p", "6"]).ok();
        let lines: String = (0..60).map(|number| format!("{number}\n")).collect();
        place.run_with_input(&["pub", "orders", "--format", "lines"], lines.as_bytes()).ok();
        assert_eq!(place.run(&["sub", "orders", "-g", "g", "-n", "20", "-o", "raw"]).ok().lines().len(), 20);
        assert_eq!(place.run(&["group", "lag", "g", "-o", "json"]).ok().json()[0]["unfinished"], 40, "{url}");
        let rest = place.run(&["sub", "orders", "-g", "g", "--until", "end", "-o", "raw"]).ok().lines();
        assert_eq!(rest.len(), 40, "{url}");
        place.run(&["bench", "e2e", "-n", "300", "--assert", "lost==0"]).ok();
        place.run(&["demo", "--records", "300"]).ok();
        let report = place.run(&["doctor", "-o", "json"]).code(6).json();
        let findings = report["findings"].as_array().unwrap();
        let of = |check: &str| findings.iter().filter(|finding| finding["check"] == check).count();
        assert_eq!((of("append_only"), of("memory"), of("topics")), (servers, servers, 1), "{report:#}");
        place.run(&["topic", "delete", "orders", "-y"]).ok();
    }
    Ok(())
}
