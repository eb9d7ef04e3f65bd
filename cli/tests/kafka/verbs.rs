//! Every verb of the program does on a server of Kafka what it says, or is refused by name.

use crate::{
    Test,
    doctor::settings_of_three,
    on,
    server::{Server, certificates, unique, user},
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

/// `SERVER` stands for the URL, `ORDERS`, `LATER` and `BILLING` for names of this run.
const STEPS: &[Step<'_>] = &[
    (&["config", "show"], "", 0, &["SERVER"]),
    (&["config", "check"], "", 0, &["settings are well"]),
    (&["completions", "bash"], "", 0, &["doctor"]),
    (&["doctor"], "", 6, &["process_crash", "brokers", "fix: "]),
    (
        &["topic", "create", "ORDERS", "-p", "4", "--retention", "7d", "--retention-bytes", "64MiB"],
        "",
        0,
        &["ORDERS"],
    ),
    (&["topic", "create", "ORDERS"], "", 1, &["ORDERS"]),
    (&["topic", "create", "LATER", "-p", "1"], "", 0, &[]),
    (&["topic", "list", "-o", "raw"], "", 0, &["LATER\n", "ORDERS\n"]),
    (
        &["pub", "ORDERS", "{\"total\":9.5}", "--key", "customer-7", "--type", "order.created"],
        "",
        0,
        &["published  1"],
    ),
    (&["pub", "ORDERS", "--format", "jsonl", "--key-expr", ".customer"], MESSAGES, 0, &["published  2"]),
    (&["pub", "LATER", "soon", "--in", "1s"], "", 0, &["published  1"]),
    (&["sub", "LATER", "-O", "start", "-n", "1", "-o", "raw", "--timeout", "50s"], "", 0, &["soon\n"]),
    (&["topic", "describe", "ORDERS"], "", 0, &["messages     3", "7d"]),
    (&["topic", "grow", "ORDERS", "6"], "", 0, &["6"]),
    (&["sub", "ORDERS", "--until", "end", "-o", "ndjson"], "", 0, &["customer-7", "c-8", "c-9"]),
    (&["sub", "ORDERS", "-g", "BILLING", "-n", "2", "-o", "raw"], "", 0, &["total"]),
    (&["group", "list"], "", 0, &["BILLING"]),
    (&["group", "lag", "BILLING", "-o", "json"], "", 0, &["\"unfinished\": 1"]),
    (&["group", "describe", "BILLING"], "", 0, &["POSITION"]),
    (&["sub", "ORDERS", "-g", "BILLING", "--until", "end", "-o", "raw"], "", 0, &["total"]),
    (&["group", "reset", "BILLING", "--to", "start", "--yes"], "", 0, &["ORDERS"]),
    (&["group", "lag", "BILLING", "-o", "json"], "", 0, &["\"lag\": 3"]),
    (&["group", "delete", "BILLING", "--yes"], "", 0, &["BILLING"]),
    (&["group", "describe", "BILLING"], "", 4, &["BILLING"]),
    (&["topic", "purge", "ORDERS", "--yes", "-o", "json"], "", 0, &["\"removed\": 3"]),
    (&["demo", "--reset", "--records", "1500"], "", 0, &["lost                                       0"]),
    (&["demo", "--records", "300"], "", 0, &["1,800"]),
    (&["dlq", "list", "demo.strikes.demo.dlq"], "", 0, &["demo.strikes.demo.dlq", "rejected"]),
    (&["dlq", "show", "demo.strikes.demo.dlq", "LETTER"], "", 0, &["demo.strikes", "rejected"]),
    (&["bench", "pub", "-n", "500", "--out", "base.json"], "", 0, &["throughput"]),
    (&["bench", "sub", "-n", "500", "--assert", "lost==0"], "", 0, &["0 lost"]),
    (&["bench", "e2e", "--rate", "200/s", "--duration", "1s", "--assert", "lost==0"], "", 0, &["0 lost"]),
    (&["bench", "handler", "-n", "500", "--assert", "lost==0"], "", 0, &["0 lost"]),
    (&["bench", "embedded", "--rounds", "1", "--turn", "10ms"], "", 0, &["of the bare disk"]),
    (&["bench", "compare", "base.json", "base.json"], "", 0, &["throughput"]),
    // Its members have names, which Kafka keeps until their session is over: that is so by now.
    (&["demo", "--reset", "--records", "100"], "", 0, &["demo --broker SERVER"]),
    (&["data", "check", "SERVER"], "", 2, &["embedded:DIR", "ropeway doctor"]),
    (&["data", "export", "SERVER"], "", 2, &["embedded:DIR", "ropeway doctor"]),
    (&["topic", "delete", "ORDERS", "LATER", "--yes"], "", 0, &["ORDERS"]),
    (&["topic", "describe", "ORDERS"], "", 4, &["ORDERS"]),
];

fn every_verb_works_or_is_refused_by_name() -> Result<(), String> {
    // The demo kills a member: the others take over what it had when its session is over.
    let url = format!("{}?session=3s", Server::Kafka.url()?);
    let place = on(&url);
    let [orders, later, billing] = ["orders", "later", "billing"].map(unique);
    let names = [("SERVER", &*url), ("ORDERS", &orders), ("LATER", &later), ("BILLING", &billing)];
    run(&place, STEPS, &names);
    let copied = unique("copied");
    exported(&place, &copied);
    place.run(&["topic", "delete", &copied, "--yes"]).ok();
    assert_eq!(untried(&place, STEPS), BTreeSet::new());
    Ok(())
}

/// Three nodes, TLS with a user by each way to tell a password, TLS with a certificate.
fn every_way_to_a_server_works() -> Result<(), String> {
    let (user, password) = user()?;
    let folder = certificates()?;
    let file = |name: &str| folder.join(name).display().to_string();
    let (tls, mtls) = (Server::KafkaTls.url()?, Server::KafkaMtls.url()?);
    let mut urls = vec![Server::Kafka3.url()?];
    let _alone = settings_of_three();
    for mechanism in ["plain", "scram-sha-256", "scram-sha-512"] {
        let as_user = tls.replace("://", &format!("://{user}:{password}@"));
        urls.push(format!("{as_user}?ca={}&mechanism={mechanism}", file("ca.crt")));
    }
    let (certificate, key) = (file("client.crt"), file("client.key"));
    urls.push(format!("{mtls}?ca={}&cert={certificate}&key={key}", file("ca.crt")));
    for url in urls {
        let place = on(&url);
        let (topic, group) = (unique("orders"), unique("g"));
        place.run(&["topic", "create", &topic, "-p", "3"]).ok();
        let lines: String = (0..60).map(|number| format!("{number}\n")).collect();
        place.run_with_input(&["pub", &topic, "--format", "lines"], lines.as_bytes()).ok();
        assert_eq!(place.run(&["sub", &topic, "-g", &group, "-n", "20", "-o", "raw"]).ok().lines().len(), 20);
        let lag = place.run(&["group", "lag", &group, "-o", "json"]).ok().json();
        assert_eq!(lag[0]["unfinished"], 40, "{url}");
        let rest = place.run(&["sub", &topic, "-g", &group, "--until", "end", "-o", "raw"]).ok().lines();
        assert_eq!(rest.len(), 40, "{url}");
        let looked = place.run(&["doctor", "-o", "json"]).code(if url.contains(',') { 0 } else { 6 });
        assert!(!looked.text().contains(&password), "{}", looked.text());
        place.run(&["topic", "delete", &topic, "-y"]).ok();
    }
    Ok(())
}
