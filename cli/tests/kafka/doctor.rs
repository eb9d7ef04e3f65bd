//! What `ropeway doctor` says of real servers: each thing that is set up wrongly, with a fix that mends it; and nothing is changed by looking.

use crate::{
    address,
    running::{Place, fields},
    server::{Server, unique},
    tools::Tools,
    trials::{Test, on},
};
use serde_json::Value;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

pub(crate) fn all() -> Vec<Test> {
    vec![
        ("each_fix_of_doctor_mends_what_it_is_for", each_fix_of_doctor_mends_what_it_is_for),
        ("doctor_judges_a_cluster_by_its_copies", doctor_judges_a_cluster_by_its_copies),
    ]
}

/// Held by who changes what is set of the three brokers, or judges it.
pub(crate) fn settings_of_three() -> MutexGuard<'static, ()> {
    static SETTINGS: Mutex<()> = Mutex::new(());
    SETTINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report(place: &Place) -> (i32, Value) {
    let ran = place.run(&["doctor", "-o", "json"]);
    (ran.code, ran.json())
}

/// What is said as soon as it is so, or after 30 s: a broker takes over a little later what was set.
fn report_when(place: &Place, is_so: impl Fn(&Value) -> bool) -> (i32, Value) {
    let start = Instant::now();
    loop {
        let told = report(place);
        if is_so(&told.1) || start.elapsed() > Duration::from_secs(30) {
            return told;
        }
    }
}

/// The findings of that name.
fn findings<'a>(report: &'a Value, check: &str) -> Vec<&'a Value> {
    report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check).collect()
}

/// The finding of that name, which is the only one.
#[track_caller]
fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let found = findings(report, check);
    let [finding] = found.as_slice() else { panic!("{check}: {report:#}") };
    assert_eq!(fields(finding), ["check", "fix", "level", "says", "server"]);
    finding
}

/// What is set wrongly here can be set while the server runs; what cannot is judged in the tests of `judge.rs`.
fn each_fix_of_doctor_mends_what_it_is_for() -> Result<(), String> {
    const WRONG: &str = "min.insync.replicas=1,unclean.leader.election.enable=true,message.max.bytes=100000";
    let url = Server::Kafka3.url()?;
    let _alone = settings_of_three();
    let (tools, place, server) = (Tools::fetch()?, on(&url), address(&url).to_owned());
    let (code, before) = report(&place);
    assert_eq!(
        (code, &before["verdict"], &before["backend"]),
        (0, &"fine".into(), &"kafka".into()),
        "{before:#}"
    );
    assert!(before["guarantees"].to_string().contains("replicated"), "{before:#}");
    let brokers = ["--bootstrap-server", &server, "--alter", "--entity-type", "brokers", "--entity-default"];
    tools.run("kafka-configs.sh", &[&brokers[..], &["--add-config", WRONG]].concat(), "");
    let is_wrong = |report: &Value, check| findings(report, check).iter().any(|it| it["level"] != "fine");
    let (code, wrong) = report_when(&place, |report| {
        ["in_sync", "unclean", "message_size"].iter().all(|check| is_wrong(report, check))
    });
    // Each command is run as it stands.
    for finding in wrong["findings"].as_array().unwrap() {
        let fixes = finding["fix"].as_array().unwrap().iter().filter_map(Value::as_str);
        for fix in fixes.filter(|fix| fix.contains(" --entity-default ")) {
            let words: Vec<&str> = fix.split_whitespace().collect();
            tools.run(words[0], &words[1..], "");
        }
    }
    let mended = report_when(&place, |report| report["verdict"] == "fine");
    // The least in sync may be changed, and no longer be unset.
    let others = "unclean.leader.election.enable,message.max.bytes";
    tools.run("kafka-configs.sh", &[&brokers[..], &["--delete-config", others]].concat(), "");
    assert_eq!((code, &wrong["verdict"]), (3, &"error".into()), "{wrong:#}");
    for (check, level) in [("in_sync", "warning"), ("unclean", "error"), ("message_size", "warning")] {
        assert_eq!(finding(&wrong, check)["level"], level, "{wrong:#}");
    }
    assert_eq!((mended.0, &mended.1["verdict"]), (0, &"fine".into()), "{:#}", mended.1);
    Ok(())
}

fn doctor_judges_a_cluster_by_its_copies() -> Result<(), String> {
    let (one, three) = (Server::Kafka.url()?, Server::Kafka3.url()?);
    let _alone = settings_of_three();
    let (code, of_one) = report(&on(&one));
    assert_eq!((code, finding(&of_one, "brokers")["level"].as_str()), (6, Some("warning")), "{of_one:#}");
    assert!(of_one["guarantees"].to_string().contains("process_crash"), "{of_one:#}");
    for check in ["unclean", "auto_creation", "metadata_size", "session", "message_size"] {
        assert_eq!(finding(&of_one, check)["level"], "fine", "{of_one:#}");
    }
    assert_eq!(finding(&of_one, "retention")["level"], "note");
    let (code, of_three) = report(&on(&three));
    assert_eq!((code, finding(&of_three, "brokers")["level"].as_str()), (0, Some("fine")), "{of_three:#}");
    assert_eq!(finding(&of_three, "in_sync")["level"], "fine");

    let place = on(&format!("{three}?replication=1"));
    let topic = unique("alone");
    place.run(&["topic", "create", &topic, "-p", "1"]).ok();
    let (code, told) = report(&place);
    place.run(&["topic", "delete", &topic, "-y"]).ok();
    assert_eq!(code, 6, "{told:#}");
    assert!(findings(&told, "copies")[0]["says"].as_str().unwrap().contains(&topic), "{told:#}");
    let long = on(&format!("{one}?session=1h&max_poll_interval=1h"));
    let (code, told) = report(&long);
    assert_eq!((code, finding(&told, "session")["level"].as_str()), (3, Some("error")), "{told:#}");
    Ok(())
}
