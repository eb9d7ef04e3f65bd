//! What `ropeway doctor` says of real servers: each thing that is set up wrongly, with a fix that mends it; and nothing is changed by looking.

use crate::{
    running::{Place, fields},
    server::{Certificates, Server, until},
    trials::{Test, on},
};
use serde_json::Value;

pub(crate) fn all() -> Vec<Test> {
    vec![
        ("each_fix_of_doctor_mends_what_it_is_for", each_fix_of_doctor_mends_what_it_is_for),
        ("doctor_changes_nothing", doctor_changes_nothing),
        ("doctor_sees_who_may_do_what", doctor_sees_who_may_do_what),
    ]
}

fn report(place: &Place) -> (i32, Value) {
    let ran = place.run(&["doctor", "-o", "json"]);
    (ran.code, ran.json())
}

/// The finding of that name, which is the only one.
#[track_caller]
fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let of = |finding: &&Value| finding["check"] == check;
    let found: Vec<&Value> = report["findings"].as_array().unwrap().iter().filter(of).collect();
    let [finding] = found.as_slice() else { panic!("{check}: {report:#}") };
    assert_eq!(fields(finding), ["check", "fix", "level", "says", "server"]);
    finding
}

fn each_fix_of_doctor_mends_what_it_is_for() -> Result<(), String> {
    let server = Server::start(&[
        "--maxmemory",
        "64mb",
        "--maxmemory-policy",
        "allkeys-lru",
        "--no-appendfsync-on-rewrite",
        "yes",
        "--appendfsync",
        "no",
    ]);
    let place = server.place();
    let (code, before) = report(&place);
    assert_eq!((code, &before["verdict"], &before["backend"]), (3, &"error".into(), &"redis".into()));
    assert!(before["guarantees"].to_string().contains("volatile"), "{before:#}");
    for (check, level) in
        [("append_only", "error"), ("eviction", "error"), ("memory", "warning"), ("replicas", "warning")]
    {
        assert_eq!(finding(&before, check)["level"], level, "{before:#}");
    }
    assert_eq!(finding(&before, "password")["level"], "note");
    // Each command is run as it stands, until none is left but for the replica.
    for _ in 0..4 {
        let (_, now) = report(&place);
        for finding in now["findings"].as_array().unwrap() {
            let fixes = finding["fix"].as_array().unwrap().iter().filter_map(Value::as_str);
            for fix in fixes.filter(|fix| fix.starts_with("redis-cli ") && fix.contains(" CONFIG SET ")) {
                let done = std::process::Command::new("sh").args(["-c", fix]).output().unwrap();
                assert!(String::from_utf8_lossy(&done.stdout).starts_with("OK"), "{fix}: {done:?}");
            }
        }
        until("the file is rewritten", || {
            server.cli(&["INFO", "persistence"]).contains("aof_rewrite_in_progress:0")
        });
    }
    let (code, mended) = report(&place);
    let left: Vec<&Value> = mended["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["level"] != "fine" && f["level"] != "note")
        .collect();
    assert!(code == 6 && left.len() == 1 && left[0]["check"] == "replicas", "{left:#?}");
    assert!(mended["guarantees"].to_string().contains("power_loss"), "{mended:#}");

    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", server.port)]);
    until("the replica is there", || server.cli(&["INFO", "replication"]).contains("state=online"));
    let (code, whole) = report(&place);
    assert_eq!((code, &whole["verdict"]), (0, &"fine".into()), "{whole:#}");
    assert!(finding(&whole, "replicas")["says"].as_str().unwrap().contains("failover"), "{whole:#}");
    let (code, copy) = report(&replica.place());
    assert_eq!((code, &finding(&copy, "role")["level"]), (3, &"error".into()));
    assert!(
        finding(&copy, "role")["fix"][0].as_str().unwrap().contains(&server.port.to_string()),
        "{copy:#}"
    );
    Ok(())
}

fn doctor_changes_nothing() -> Result<(), String> {
    let server = Server::durable();
    let place = server.place();
    place.run(&["topic", "create", "t", "-p", "2"]).ok();
    place.run(&["pub", "t", "x"]).ok();
    let state = || {
        let offset = server
            .cli(&["INFO", "persistence"])
            .lines()
            .filter(|line| line.starts_with("aof_current_size"))
            .collect::<String>();
        (
            offset,
            server.cli(&["CONFIG", "GET", "*"]),
            server.cli(&["ACL", "LIST"]),
            server.cli(&["KEYS", "*"]),
            server.cli(&["INFO", "keyspace"]),
        )
    };
    let before = state();
    place.run(&["doctor"]).code(6);
    assert_eq!(state(), before);
    Ok(())
}

fn doctor_sees_who_may_do_what() -> Result<(), String> {
    let certificates = Certificates::new();
    let server = Server::durable();
    for rules in [
        &[
            "ACL",
            "SETUSER",
            "reader",
            "on",
            ">pw",
            "~*",
            "+@read",
            "+info",
            "+ping",
            "+acl|whoami",
            "+acl|dryrun",
            "+config|get",
        ][..],
        &["ACL", "SETUSER", "strict", "on", ">pw", "~ropeway:*", "+@all", "-@admin", "-info"],
    ] {
        server.cli(rules);
    }
    let of = |user: &str| report(&on(&format!("redis://{user}:pw@127.0.0.1:{}", server.port)));
    let (code, reader) = of("reader");
    let rights = finding(&reader, "rights");
    assert_eq!((code, &rights["level"]), (3, &"error".into()), "{reader:#}");
    assert!(rights["says"].as_str().unwrap().contains("XADD"), "{rights}");
    assert!(rights["fix"][0].as_str().unwrap().contains("ACL SETUSER reader ~ropeway:*"), "{rights}");
    // The default user needs no password, whatever this one has.
    assert!(finding(&reader, "password")["says"].as_str().unwrap().contains("gives none"), "{reader:#}");
    let (code, strict) = of("strict");
    assert_eq!((code, &finding(&strict, "settings")["level"]), (6, &"warning".into()), "{strict:#}");
    assert!(finding(&strict, "settings")["says"].as_str().unwrap().contains("CONFIG GET"), "{strict:#}");
    assert!(strict["guarantees"].to_string().contains("volatile"), "{strict:#}");

    let tls = Server::start_tls(&certificates);
    let url = format!("rediss://127.0.0.1:{}?ca={}", tls.port, certificates.ca.display());
    let (_, secured) = report(&on(&url));
    assert_eq!(finding(&secured, "tls")["level"], "fine", "{secured:#}");
    Ok(())
}
