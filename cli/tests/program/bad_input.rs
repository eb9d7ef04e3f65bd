//! What is wrong is refused with what was wrong, where, and what to do; nothing panics, and nothing is made.

use crate::running::Place;

#[test]
fn names_that_could_escape_are_refused() {
    let place = Place::new();
    let long = "x".repeat(10_000);
    for (name, why) in
        [("../x", "contains '/'"), ("..", "cannot be the name"), ("", "needs a name"), (&long, "10000 bytes")]
    {
        for args in [&["topic", "create", name][..], &["pub", name, "x"], &["sub", "t", "-g", name]] {
            let ran = place.run(args).code(2).said(&[why]);
            assert!(ran.err.len() < 2000, "{} bytes", ran.err.len());
        }
    }
    assert!(!place.path().join(".ropeway").exists());
}

#[test]
fn brokers_that_cannot_be_are_refused_with_what_can() {
    let place = Place::new();
    for (url, code, parts) in [
        ("pulsar://user:secret@host:9092", 78, &["pulsar", "embedded", "flag --broker"][..]),
        ("redis:", 78, &["REDIS_URL", "redis://HOST:PORT"]),
        ("redis://", 78, &["host is missing"]),
        ("memry:", 78, &["did you mean `memory:`?"]),
        ("nonsense", 78, &["embedded:./data"]),
        ("memory:?max_mesage=1", 78, &["max_mesage", "did you mean `max_message`?"]),
        ("embedded:./x?durability=sometimes", 78, &["durability=sometimes"]),
        ("embedded:%00", 78, &["NUL"]),
        ("", 78, &["it takes a URL"]),
    ] {
        let ran = place.run(&["topic", "list", "--broker", url]).code(code).said(parts);
        assert!(!ran.err.contains("secret"), "{}", ran.err);
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let place = Place::new();
    let file = place.file("file", "not a directory");
    let ran = place.run(&["topic", "list", "--broker", &format!("embedded:{file}")]);
    assert!(![0, 2, 101].contains(&ran.code), "{ran:?}");
    ran.said(&["error:", &file]);
}

#[test]
fn arguments_that_make_no_sense_are_refused_with_2() {
    let place = Place::with_topic("t", 1);
    for (args, part) in [
        (&["pubb", "t"][..], "pub"),
        (&["pub", "t", "x", "--rate", "50"], "50/s"),
        (&["pub", "t", "x", "-H", "ropeway-attempt=1"], "Ropeway's own"),
        (&["pub", "t", "x", "-H", "novalue"], "NAME=VALUE"),
        (&["pub", "t", "x", "--in", "5"], "unit"),
        (&["pub", "t", "x", "--in", "-5s"], "before it is published"),
        (&["pub", "t", "x", "--at", "tomorrow"], "it takes"),
        (&["pub", "t", "--key-expr", ".a"], "--format jsonl"),
        (&["pub", "t", "--format", "jsonl", "--key-expr", "a..b"], "cannot be read"),
        (&["pub", "t", "--format", "xml"], "jsonl"),
        (&["sub", "t", "-n", "0"], "1.."),
        (&["topic", "create", "u", "--retention-bytes", "5"], "unit"),
        (&["topic", "create", "u", "-p", "0"], "partitions"),
        (&["topic", "create", "u", "-p", "5000"], "4096"),
        (&["topic", "list", "-o", "xml"], "ndjson"),
        (&["topic", "list", "--timeout", "5"], "unit"),
        (&["topic", "list", "-q", "-v"], "cannot be used with"),
    ] {
        place.run(args).code(2).said(&["error:", part]);
    }
    assert_eq!(place.run(&["topic", "list", "-o", "raw"]).ok().lines(), ["t"]);
}

#[test]
fn help_names_every_exit_code_and_costs_nothing() {
    let place = Place::new();
    let help = place.run(&["--help"]).ok().text();
    for code in [
        "2 usage",
        "4 not found",
        "6 warnings",
        "69 broker unreachable",
        "78 a setting is wrong",
        "130 interrupted",
    ] {
        assert!(help.contains(code), "{code}");
    }
    for verb in
        ["demo", "topic", "pub", "sub", "group", "data", "dlq", "doctor", "bench", "config", "completions"]
    {
        place.run(&[verb, "--help"]).ok();
    }
    assert!(place.run(&["--version"]).ok().text().starts_with("ropeway "));
    assert!(!place.path().join(".ropeway").exists());
}
