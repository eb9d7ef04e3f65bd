//! Every verb of the program does on a server of Redis what it says, or is refused by name.

use crate::{
    same::{BENCH, END, GROUP, MORE, RESET, SETTINGS, TOPICS, sixty},
    server::Server,
    steps::{Step, exported, run, untried},
    trials::{Test, on},
};
use std::collections::BTreeSet;

pub(crate) fn all() -> Vec<Test> {
    vec![
        ("every_verb_works_or_is_refused_by_name", every_verb_works_or_is_refused_by_name),
        ("every_way_to_a_server_works", every_way_to_a_server_works),
    ]
}

/// What this server says in words of its own.
const LOOKED: &[Step<'_>] = &[(&["doctor"], "", 6, &["power_loss", "1 warning", "replicas"])];
const FIRST: &[Step<'_>] = &[
    (&["topic", "list", "-o", "raw"], "", 0, &["LATER\nORDERS\n"]),
    (
        &["pub", "ORDERS", "{\"total\":9.5}", "--key", "customer-7", "--type", "order.created"],
        "",
        0,
        &["the machine losing power"],
    ),
];
const LAG: &[Step<'_>] = &[(&["group", "lag", "BILLING", "-o", "json"], "", 0, &["\"lag\": 1"])];
const DEMO: &[Step<'_>] = &[
    (&["demo", "--records", "1500"], "", 0, &["lost                                       0"]),
    (&["demo", "--records", "300"], "", 0, &["1,800"]),
    (&["dlq", "list"], "", 0, &["demo.strikes.demo.dlq", "rejected"]),
    (&["dlq", "show", "demo.strikes.demo.dlq", "LETTER"], "", 0, &["demo.strikes", "rejected"]),
];

fn every_verb_works_or_is_refused_by_name() -> Result<(), String> {
    let server = Server::durable();
    let place = server.place();
    let url = server.url();
    let steps = [SETTINGS, LOOKED, TOPICS, FIRST, MORE, LAG, GROUP, DEMO, RESET, BENCH, END].concat();
    let names = [("SERVER", &*url), ("ORDERS", "orders"), ("LATER", "later"), ("BILLING", "billing")];
    run(&place, &steps, &names);
    exported(&place, "copied");
    let (port, url) = (server.port.to_string(), format!("{}/0", server.url()));
    for variables in [&[("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &port)][..], &[("REDIS_URI", &url)]] {
        for args in [&["topic", "describe", "copied"][..], &["config", "check"]] {
            place.run_with_env(&[args, &["--broker", "redis:"]].concat(), variables).ok();
        }
        place.run_with_env(&["doctor", "redis:"], variables).code(6);
    }
    assert_eq!(untried(&place, &steps), BTreeSet::new());
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
        sixty(&place, &url, "orders", "6", "g");
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
