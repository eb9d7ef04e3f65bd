//! Servers and keys that cannot be used: the program says which server, what is wrong and the way out, shows no password, and loses nothing.

use crate::{
    running::Running,
    server::{Certificates, Server, fake, free_port, says, until},
    trials::{Test, on},
};
use std::{fs::File, io::Write};

pub(crate) fn all() -> Vec<Test> {
    vec![
        (
            "a_server_that_cannot_be_used_is_told_with_the_way_out",
            a_server_that_cannot_be_used_is_told_with_the_way_out,
        ),
        (
            "a_server_that_takes_no_writes_is_told_and_nothing_is_lost",
            a_server_that_takes_no_writes_is_told_and_nothing_is_lost,
        ),
        ("what_fails_here_is_not_put_down_to_the_server", what_fails_here_is_not_put_down_to_the_server),
        ("keys_that_are_not_as_ours_are_told_and_stay", keys_that_are_not_as_ours_are_told_and_stay),
    ]
}

fn a_server_that_cannot_be_used_is_told_with_the_way_out() -> Result<(), String> {
    let (own, other) = (Certificates::new(), Certificates::new());
    let (plain, tls) = (Server::start(&[]), Server::start_tls(&own));
    let locked = Server::start(&["--requirepass", "right"]);
    let http = fake(|stream, _| drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")));
    let silent = fake(|_, _| ());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let ca = |certificates: &Certificates| format!("?ca={}", certificates.ca.display());
    let way_in = "give the user and password that the server knows";
    let cases = [
        ("a wrong password", format!("redis://:hushhush@{}", at(locked.port)), 78, ["WRONGPASS", way_in]),
        (
            "a user that is not there",
            format!("redis://hush:hushhush@{}", at(locked.port)),
            78,
            ["WRONGPASS", way_in],
        ),
        ("no password", locked.url(), 78, ["NOAUTH", way_in]),
        (
            "TLS against a plain port",
            format!("rediss://{}{}", at(plain.port), ca(&own)),
            78,
            ["the port may not speak it", "redis:// where the port has no TLS"],
        ),
        ("plain against a TLS port", tls.url(), 78, ["speaks TLS on this port", "use rediss://"]),
        (
            "a certificate that is not trusted",
            format!("rediss://{}{}", at(tls.port), ca(&other)),
            78,
            ["nobody who is trusted has signed it", "?ca=FILE"],
        ),
        (
            "a CA that is not there",
            format!("rediss://{}?ca=/nowhere/ca.pem", at(tls.port)),
            78,
            ["/nowhere/ca.pem", "the right CA"],
        ),
        ("something that is no Redis", format!("redis://{}", at(http)), 78, ["check host and port", "0x48"]),
        (
            "something that says nothing",
            format!("redis://{}", at(silent)),
            69,
            ["not ready within", "see that the server runs"],
        ),
        ("nobody there", format!("redis://{}", at(free_port())), 69, ["refused", "see that the server runs"]),
        (
            "a server that is too old",
            format!("redis://{}", at(says("redis_version:6.2.14\r\n"))),
            78,
            ["version 6.2.14", "use Redis 7.0 or newer"],
        ),
        (
            "a server that loads",
            format!("redis://{}", at(says("redis_version:7.0.15\r\nloading:1\r\n"))),
            69,
            ["reading its data", "wait until"],
        ),
        (
            "one server as a cluster",
            format!("redis+cluster://{}", at(plain.port)),
            78,
            ["it is no node of a cluster", "use redis://"],
        ),
        (
            "one server as a sentinel",
            format!("redis+sentinel://{}/main", at(plain.port)),
            78,
            ["it is no sentinel", "use redis://"],
        ),
        (
            "a sentinel as one server",
            format!("redis://{}", at(says("redis_version:7.0.15\r\nredis_mode:sentinel\r\n"))),
            78,
            ["it is a sentinel", "use redis+sentinel://"],
        ),
        (
            "a database that is not there",
            format!("{}/99", plain.url()),
            78,
            ["DB index", "see what the server says"],
        ),
    ];
    for (name, url, code, parts) in cases {
        let address =
            url.split_once("127.0.0.1:").map(|(_, rest)| rest.split(['/', '?']).next().unwrap()).unwrap();
        let place = on(&url);
        let all = [&["topic", "list"][..], &["pub", "t", "x"], &["sub", "t", "-g", "g"]];
        // Where nothing comes back for 5 s, one of them is enough.
        let waits = parts.iter().any(|part| part.contains("not ready") || part.contains("may not speak"));
        for args in if waits { &all[..1] } else { &all[..] } {
            let ran = place.run(args);
            assert_eq!(ran.code, code, "{name}: {args:?}: {}", ran.err);
            let ran = ran.said(&parts).said(&["error: ", &format!("127.0.0.1:{address}")]);
            assert!(!ran.err.contains("hushhush") && !ran.err.contains("panicked"), "{name}: {}", ran.err);
        }
        let looked = place.run(&["doctor", "-o", "json"]);
        assert_eq!(looked.code, if code == 69 { 69 } else { 3 }, "{name}: {}", looked.err);
        let report = looked.json();
        assert_eq!(
            (&report["verdict"], report["findings"].as_array().unwrap().len()),
            (&"error".into(), 1),
            "{report}"
        );
        assert!(
            !looked.text().contains("hushhush") && !report["findings"][0]["fix"][0].is_null(),
            "{report}"
        );
    }
    Ok(())
}

fn a_server_that_takes_no_writes_is_told_and_nothing_is_lost() -> Result<(), String> {
    let server = Server::durable();
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", server.port)]);
    let (place, copy) = (server.place(), replica.place());
    place.run(&["topic", "create", "t", "spare", "-p", "1"]).ok();
    place.run(&["pub", "spare", "0"]).ok();
    place.run(&["pub", "t", "0"]).ok();
    until("the topic is copied", || replica.cli(&["XLEN", "ropeway:{t/0}:log"]) == "1");
    let full = |on: bool| server.cli(&["CONFIG", "SET", "maxmemory", if on { "1mb" } else { "1gb" }]);
    for (place, port, code, parts) in [
        (&copy, replica.port, 69, ["READONLY", "connect to the primary"]),
        (&place, server.port, 1, ["OOM", "raise maxmemory"]),
    ] {
        if port == server.port {
            full(true);
        }
        let address = format!("127.0.0.1:{port}");
        for args in [
            &["pub", "t", "x"][..],
            &["topic", "create", "u"],
            &["topic", "purge", "spare", "-y"],
            &["sub", "t", "-g", "g", "--until", "end"],
        ] {
            if port == server.port && args[0] != "pub" && args[1] != "create" {
                // What makes room goes on, and so does who finishes messages.
                continue;
            }
            let ran = place.run(args);
            assert_eq!(ran.code, code, "{args:?} on {address}: {}", ran.err);
            ran.said(&parts).said(&["error: ", &address]);
        }
        // What is not written is said to be so, line by line, and what is there can be read.
        let ran = place.run_with_input(&["pub", "t", "--format", "lines"], b"1\n2\n3\n").code(code);
        assert!(ran.text().contains("published  0") && ran.text().contains("failed     3"), "{}", ran.text());
        ran.said(&["line 1: not published", "line 3: not published", "3 of 3"]);
        assert_eq!(place.run(&["sub", "t", "--until", "end", "-o", "raw"]).ok().lines(), ["0"]);
    }
    place.run(&["topic", "purge", "spare", "-y"]).ok();
    full(false);
    place.run(&["pub", "t", "1"]).ok();
    assert_eq!(place.run(&["sub", "t", "-g", "g", "--until", "end", "-o", "raw"]).ok().lines(), ["0", "1"]);
    Ok(())
}

fn keys_that_are_not_as_ours_are_told_and_stay() -> Result<(), String> {
    let server = Server::durable();
    let (place, address) = (server.place(), format!("127.0.0.1:{}", server.port));
    place.run(&["topic", "create", "typed", "newer", "torn", "-p", "1"]).ok();
    server.cli(&["DEL", "ropeway:{typed/0}:log"]);
    server.cli(&["SET", "ropeway:{typed/0}:log", "precious"]);
    server.cli(&["SET", "ropeway:{other/0}:log", "precious"]);
    server.cli(&["HSET", "ropeway:topic:{newer}", "version", "2"]);
    server.cli(&["HSET", "ropeway:topic:{torn}", "partitions", "some"]);
    for (args, code, parts) in [
        (&["pub", "typed", "x"][..], 1, ["WRONGTYPE", "use another prefix"]),
        (&["topic", "describe", "typed"], 1, ["WRONGTYPE", "use another prefix"]),
        (&["sub", "typed", "--until", "end"], 1, ["WRONGTYPE", "use another prefix"]),
        (
            &["topic", "create", "other", "-p", "1"],
            1,
            ["ropeway:{other/0}:log", "remove it if nobody needs it"],
        ),
        (&["pub", "newer", "x"], 1, ["format 2", "use the version that made it"]),
        (&["topic", "describe", "newer"], 1, ["format 2", "use the version that made it"]),
        (&["sub", "newer", "-g", "g"], 1, ["format 2", "use the version that made it"]),
        (&["topic", "create", "newer"], 1, ["format 2", "use the version that made it"]),
        (&["topic", "delete", "newer", "-y"], 1, ["format 2", "use the version that made it"]),
        (&["topic", "describe", "torn"], 1, ["no field \"partitions\" in form", "HGETALL"]),
    ] {
        let ran = place.run(args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.err);
        assert!(!ran.err.contains("ropeway data"), "that is for directories: {}", ran.err);
        ran.said(&parts).said(&["error: ", &address]);
    }
    for log in ["ropeway:{typed/0}:log", "ropeway:{other/0}:log"] {
        assert_eq!(server.cli(&["GET", log]), "precious");
    }
    assert_eq!(server.cli(&["HGET", "ropeway:topic:{newer}", "version"]), "2");
    // Doctor names each, and another prefix is another installation.
    let findings = place.run(&["doctor", "-o", "json"]).code(3).json()["findings"].to_string();
    assert!(findings.contains("newer") && findings.contains("typed"), "{findings}");
    let beside = on(&format!("{}?prefix=mine", server.url()));
    beside.run(&["topic", "create", "typed", "newer", "other"]).ok();
    beside.run(&["doctor"]).code(6);
    Ok(())
}

/// A disk that is full where stdout goes, a file that cannot be read.
fn what_fails_here_is_not_put_down_to_the_server() -> Result<(), String> {
    let server = Server::start(&[]);
    let place = server.place();
    place.run(&["topic", "create", "t", "-p", "1"]).ok();
    place.run(&["pub", "t", "x"]).ok();
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        let mut command = place.command(&["sub", "t", "-O", "start", "--timeout", "20s"]);
        command.stdout(full);
        let ran = Running::start(command, b"").end().code(1).said(&["could not write to stdout"]);
        assert!(!ran.err.contains("hint:"), "{}", ran.err);
    }
    let ran = place.run(&["pub", "t", "--file", "."]).code(1).said(&["the input could not be read"]);
    assert!(!ran.err.contains("hint:"), "{}", ran.err);
    Ok(())
}
