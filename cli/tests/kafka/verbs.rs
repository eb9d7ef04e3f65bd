//! Every verb of the program does on a server of Kafka what it says, or is refused by name.

use crate::{
    doctor::settings_of_three,
    same::{BENCH, END, GROUP, MORE, RESET, SETTINGS, TOPICS, sixty},
    server::{Server, certificates, unique, user},
    steps::{Step, exported, run, untried},
    trials::{Test, on},
};
use std::collections::BTreeSet;

pub(crate) fn all() -> Vec<Test> {
    vec![
        ("every_verb_works_or_is_refused_by_name", every_verb_works_or_is_refused_by_name),
        ("every_way_to_a_server_works", every_way_to_a_server_works),
        (
            "the_demo_waits_for_the_session_of_who_it_aborted",
            the_demo_waits_for_the_session_of_who_it_aborted,
        ),
    ]
}

/// What this server says in words of its own.
const LOOKED: &[Step<'_>] = &[(&["doctor"], "", 6, &["process_crash", "brokers", "fix: "])];
const FIRST: &[Step<'_>] = &[
    (&["topic", "list", "-o", "raw"], "", 0, &["LATER\n", "ORDERS\n"]),
    (
        &["pub", "ORDERS", "{\"total\":9.5}", "--key", "customer-7", "--type", "order.created"],
        "",
        0,
        &["published  1"],
    ),
];
const LAG: &[Step<'_>] = &[(&["group", "lag", "BILLING", "-o", "json"], "", 0, &["\"unfinished\": 1"])];
const DEMO: &[Step<'_>] = &[
    (&["demo", "--reset", "--records", "1500"], "", 0, &["lost                                       0"]),
    (&["demo", "--records", "300"], "", 0, &["1,800"]),
    (&["dlq", "list", "demo.strikes.demo.dlq"], "", 0, &["demo.strikes.demo.dlq", "rejected"]),
    (&["dlq", "show", "demo.strikes.demo.dlq", "LETTER"], "", 0, &["demo.strikes", "rejected"]),
];

fn every_verb_works_or_is_refused_by_name() -> Result<(), String> {
    // The demo kills a member: the others take over what it had when its session is over.
    let url = format!("{}?session=3s", Server::Kafka.url()?);
    let place = on(&url);
    let [orders, later, billing] = ["orders", "later", "billing"].map(unique);
    let names = [("SERVER", &*url), ("ORDERS", &orders), ("LATER", &later), ("BILLING", &billing)];
    // Members of the demo have names, which Kafka keeps until their session is over: that is so after the measures.
    let steps = [SETTINGS, LOOKED, TOPICS, FIRST, MORE, LAG, GROUP, DEMO, BENCH, RESET, END].concat();
    run(&place, &steps, &names);
    let copied = unique("copied");
    exported(&place, &copied);
    place.run(&["topic", "delete", &copied, "--yes"]).ok();
    assert_eq!(untried(&place, &steps), BTreeSet::new());
    Ok(())
}

/// As one who gives no `session` sees it, which is 30 s then: longer than a request may take.
fn the_demo_waits_for_the_session_of_who_it_aborted() -> Result<(), String> {
    let place = on(&format!("{}?session=35s", Server::Kafka3.url()?));
    let ran = place.run(&["demo", "--reset", "--records", "1500"]).ok();
    assert!(ran.text().contains("lost                                       0"), "{}{}", ran.text(), ran.err);
    ran.said(&["when its session is over"]);
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
        sixty(&place, &url, &topic, "3", &group);
        let looked = place.run(&["doctor", "-o", "json"]).code(if url.contains(',') { 0 } else { 6 });
        assert!(!looked.text().contains(&password), "{}", looked.text());
        place.run(&["topic", "delete", &topic, "-y"]).ok();
    }
    Ok(())
}
