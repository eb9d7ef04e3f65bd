//! Servers that cannot be used: the program says which server, what is wrong and the way out, shows no password, and loses nothing.

use crate::{
    address,
    server::{Server, certificates, unique, user},
    trials::{Test, on},
};
use std::{net::TcpListener, time::Duration};
use tokio::time::Instant;

pub(crate) fn all() -> Vec<Test> {
    vec![
        (
            "a_server_that_cannot_be_used_is_told_with_the_way_out",
            a_server_that_cannot_be_used_is_told_with_the_way_out,
        ),
        ("a_topic_that_is_not_there_is_told_at_once", a_topic_that_is_not_there_is_told_at_once),
        (
            "a_message_over_the_limit_is_refused_alone_and_its_neighbours_go_through",
            a_message_over_the_limit_is_refused_alone_and_its_neighbours_go_through,
        ),
        (
            "settings_that_are_not_for_us_are_refused_by_name",
            settings_that_are_not_for_us_are_refused_by_name,
        ),
        ("the_table_of_settings_is_heeded_below_the_url", the_table_of_settings_is_heeded_below_the_url),
    ]
}

/// A port that nobody has.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn a_server_that_cannot_be_used_is_told_with_the_way_out() -> Result<(), String> {
    let (user, password) = user()?;
    let folder = certificates()?;
    let (plain, tls, mtls) = (Server::Kafka.url()?, Server::KafkaTls.url()?, Server::KafkaMtls.url()?);
    let ca = |name: &str| format!("?ca={}", folder.join(name).display());
    let as_user = |user: &str, password: &str| tls.replace("://", &format!("://{user}:{password}@"));
    let cases: &[(&str, String, i32, &[&str])] = &[
        ("nobody there", format!("kafka://127.0.0.1:{}", free_port()), 69, &["see whether the servers run"]),
        ("a wrong password", as_user(&user, "hushhush") + &ca("ca.crt"), 78, &["check user, password"]),
        (
            "a user that is not there",
            as_user("hush", "hushhush") + &ca("ca.crt"),
            78,
            &["check user, password"],
        ),
        (
            "a certificate that is not trusted",
            as_user(&user, &password) + &ca("other-ca.crt"),
            78,
            &["by `ca`"],
        ),
        (
            "a CA that is not there",
            as_user(&user, &password) + "?ca=/nowhere/ca.pem",
            78,
            &["/nowhere/ca.pem"],
        ),
        ("no certificate", mtls + &ca("ca.crt"), 78, &["by `cert` and `key`"]),
        (
            "TLS against a plain port",
            plain.replace("kafka://", "kafka+ssl://") + &ca("ca.crt"),
            69,
            &["seems not to expect TLS: write kafka://"],
        ),
        (
            "plain against a TLS port",
            tls.replace("kafka+ssl://", "kafka://"),
            69,
            &["seems to expect TLS: write kafka+ssl://"],
        ),
    ];
    for (name, url, code, parts) in cases {
        let host = url.rsplit_once('@').map_or_else(|| address(url), |(_, hosts)| address(hosts));
        let place = on(url);
        for args in [&["topic", "list"][..], &["pub", "t", "x"], &["sub", "t", "-g", "g"]] {
            let began = Instant::now();
            let ran = place.run(args);
            assert_eq!(ran.code, *code, "{name}: {args:?}: {}", ran.err);
            assert!(
                began.elapsed() < Duration::from_secs(35),
                "{name}: {args:?} takes {:?}",
                began.elapsed()
            );
            let ran = ran.said(parts).said(&["error: "]);
            if !url.contains("/nowhere") {
                assert!(ran.err.contains(host), "{name}: {host} is not named: {}", ran.err);
            }
            let secret = ran.err.contains("hushhush") || ran.err.contains(&password);
            assert!(!secret && !ran.err.contains("panicked"), "{name}: {}", ran.err);
        }
        let looked = place.run(&["doctor", "-o", "json"]);
        assert_eq!(looked.code, if *code == 69 { 69 } else { 3 }, "{name}: {}", looked.err);
        assert!(!looked.text().contains("hushhush"), "{}", looked.text());
    }
    Ok(())
}

/// Long before the 30 s after which the client library gives up to look for it.
fn a_topic_that_is_not_there_is_told_at_once() -> Result<(), String> {
    let place = on(&Server::Kafka.url()?);
    let topic = unique("absent");
    for args in [
        &["pub", &topic, "x"][..],
        &["topic", "describe", &topic],
        &["topic", "purge", &topic, "-y"],
        &["topic", "grow", &topic, "9"],
        &["topic", "delete", &topic, "-y"],
        &["sub", &topic, "--until", "end"],
        &["sub", &topic, "-g", "g", "--until", "end"],
        &["group", "reset", "g", &topic, "--to", "start", "-y"],
    ] {
        let began = Instant::now();
        let ran = place.run(args);
        assert_eq!(ran.code, 4, "{args:?}: {}", ran.err);
        assert!(began.elapsed() < Duration::from_secs(25), "{args:?} takes {:?}", began.elapsed());
        ran.said(&["error: "]);
    }
    Ok(())
}

fn a_message_over_the_limit_is_refused_alone_and_its_neighbours_go_through() -> Result<(), String> {
    let place = on(&Server::Kafka.url()?);
    let topic = unique("sized");
    place.run(&["topic", "create", &topic, "-p", "1"]).ok();
    let large = "x".repeat(3 << 20);
    let lines = format!("1\n2\n{large}\n3\n");
    let ran = place.run_with_input(&["pub", &topic, "--format", "lines"], lines.as_bytes()).code(5);
    assert!(ran.text().contains("published  3") && ran.text().contains("refused    1"), "{}", ran.text());
    ran.said(&["line 3", "1048"]);
    assert_eq!(place.run(&["sub", &topic, "--until", "end", "-o", "raw"]).ok().lines(), ["1", "2", "3"]);
    place.run(&["topic", "delete", &topic, "-y"]).ok();
    Ok(())
}

/// What runs code, reads files or reaches out, and what decides in our place.
fn settings_that_are_not_for_us_are_refused_by_name() -> Result<(), String> {
    let url = Server::Kafka.url()?;
    for (parameter, part) in [
        ("rdkafka.plugin.library.paths=/tmp/x.so", "plugin.library.paths"),
        ("rdkafka.ssl.keystore.location=/etc/shadow", "ssl.keystore.location"),
        ("rdkafka.sasl.oauthbearer.token.endpoint.url=http://h", "sasl.oauthbearer"),
        ("rdkafka.enable.auto.commit=true", "enable.auto.commit"),
        ("rdkafka.enable.partition.eof=true", "enable.partition.eof"),
        ("rdkafka.check.crcs=false", "check.crcs"),
        ("sesion=30s", "did you mean `session`"),
        ("session=soon", "session"),
        ("replication=0", "replication"),
    ] {
        let place = on(&format!("{url}?{parameter}"));
        place.run(&["topic", "list"]).code(78).said(&["error: ", part]);
        place.run(&["doctor"]).code(78).said(&["error: ", part]);
    }
    Ok(())
}

fn the_table_of_settings_is_heeded_below_the_url() -> Result<(), String> {
    let url = Server::Kafka.url()?;
    let place = on(&url);
    let write = |table: &str| {
        let broker = format!("[broker]\nurl = \"{url}?session=40s\"\n");
        place.file("ropeway.toml", format!("{broker}[kafka]\n{table}\n"));
    };
    write("client_id = \"mine\"\nrdkafka.socket.timeout.ms = 9000\nsession = \"10m\"");
    place.run(&["topic", "list"]).ok();
    let shown = place.run(&["config", "show"]).ok().text();
    for part in ["kafka.client_id", "mine", "ropeway.toml:4", "kafka.rdkafka.socket.timeout.ms"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    // Each may be meant, and both together not.
    write("max_poll_interval = \"20s\"");
    for verb in [&["topic", "list"][..], &["config", "check"], &["doctor"]] {
        place
            .run(verb)
            .code(78)
            .said(&["`max_poll_interval` is 20s; it takes a time from `session` on, which is 40s"]);
    }
    place.run(&["topic", "list"]).code(78).said(&["`max_poll_interval` is set in ropeway.toml:4"]);
    for (line, parts) in [
        ("rdkafka.plugin.library.paths = \"/x.so\"", &["it runs code"][..]),
        ("rdkafka.ssl.keystore.location = \"/x\"", &["it reads a file", "use `cert` and `key`"]),
        ("rdkafka.sasl.oauthbearer.method = \"oidc\"", &["it reaches out", "use a user and a password"]),
        ("sesion = \"3s\"", &["did you mean `session`"]),
        ("key_password = \"hush\"", &["ROPEWAY__KAFKA__KEY_PASSWORD_FILE"]),
    ] {
        write(line);
        let ran = place.run(&["topic", "list"]).code(78).said(&["ropeway.toml:4: `kafka."]).said(parts);
        assert!(!ran.err.contains("hush"), "{}", ran.err);
    }
    Ok(())
}
