//! What `ropeway config` shows and refuses, and completions.

use crate::running::{Place, fields};
use serde_json::json;

#[test]
fn every_setting_is_shown_with_whence_it_came() {
    let place = Place::new();
    place.file("ropeway.toml", "[consume]\ndrain = \"3s\"\nmessages = 5\n");
    let more = place.file("more.toml", "[consume]\nmessages = 6\n");
    let env = [("ROPEWAY__BROKER__URL", "redis://user:pass@host/0"), ("ROPEWAY__OUTPUT__LOG", "info")];
    let args = ["config", "show", "-o", "json", "-c", &more, "-v", "-v"];
    let ran = place.run_with_env(&args, &env).ok();
    assert!(!ran.text().contains("pass"));
    let shown = ran.json();
    let of = |key: &str| {
        let found = shown.as_array().unwrap().iter().find(|row| row["key"] == key).unwrap();
        assert_eq!(fields(found), ["about", "key", "origin", "value"]);
        (found["value"].clone(), found["origin"].clone())
    };
    assert_eq!(of("consume.drain"), (json!("3s"), json!("ropeway.toml:2")));
    assert_eq!(of("consume.messages"), (json!("6"), json!(format!("{more}:2"))));
    assert_eq!(of("broker.url"), (json!("redis://***@host/0"), json!("env:ROPEWAY__BROKER__URL")));
    assert_eq!(of("output.log"), (json!("debug"), json!("flag --verbose")));
    assert_eq!(of("time.stop"), (json!("10s"), json!("default")));
    let secret = place.file("url", "pulsar://token@host\n");
    let by_file = place.run_with_env(&["config", "show"], &[("ROPEWAY__BROKER__URL_FILE", &secret)]).ok();
    assert!(by_file.text().contains("pulsar://***@host"), "{}", by_file.text());
}

#[test]
fn what_is_shown_raw_can_be_read_again() {
    let place = Place::new();
    let raw = place.run(&["config", "show", "-o", "raw", "--timeout", "7s"]).ok().text();
    let file = place.file("again.toml", &raw);
    let again = place.run(&["config", "show", "-o", "raw", "-c", &file]).ok().text();
    // The format is a flag of the first run.
    assert_eq!(raw, again);
    assert!(raw.contains("request = \"7s\""));
}

#[test]
fn a_wrong_setting_ends_with_78_names_its_place_and_the_nearest() {
    let place = Place::new();
    let bad = place.file("bad.toml", "[consume]\ndrian = \"3s\"\ndrain = 3\n");
    let ran = place.run(&["config", "check", "-c", &bad, "-o", "json"]).code(78);
    let ran = ran.said(&["bad.toml:2: there is no setting `consume.drian`; did you mean `consume.drain`?"]);
    let ran = ran.said(&["bad.toml:3: \"3\" is not acceptable for `consume.drain`", "30s"]);
    let checked = ran.json();
    assert_eq!(fields(&checked), ["files", "ok", "problems"]);
    assert_eq!((&checked["ok"], checked["problems"].as_array().unwrap().len()), (&json!(false), 2));
    for verb in [&["topic", "list"][..], &["config", "show"], &["pub", "t", "x"]] {
        let args: Vec<&str> = verb.iter().copied().chain(["-c", &bad]).collect();
        place.run(&args).code(78).said(&["did you mean `consume.drain`?"]);
    }
    place.run(&["config", "check", "-c", "absent.toml"]).code(78).said(&["absent.toml"]);
    place
        .run_with_env(&["config", "check"], &[("ROPEWAY__NOTHING", "1")])
        .code(78)
        .said(&["ROPEWAY__NOTHING"]);
    place.run(&["config", "check"]).ok();
    for (url, why) in [
        ("pulsar://u:secret@h:9", "pulsar"),
        ("memry:", "did you mean `memory:`?"),
        ("embedded:./x?max_dsk=1GiB", "max_disk"),
    ] {
        let ran = place
            .run(&["config", "check", "--broker", url, "-o", "json"])
            .code(78)
            .said(&["flag --broker", why]);
        assert!(!ran.err.contains("secret") && ran.json()["ok"] == false, "{}", ran.err);
    }
}

#[test]
fn completions_are_printed_for_every_shell_even_with_wrong_settings() {
    let place = Place::new();
    place.file("ropeway.toml", "nonsense");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = place.run(&["completions", shell]).ok().text();
        assert!(script.contains("ropeway") && script.contains("describe"), "{shell}");
    }
}
