//! What `ropeway doctor` tells of brokers that need no server. Those of Redis are in `../redis/`.

use crate::running::{Place, fields};

#[test]
fn a_directory_is_looked_at_and_not_made_or_changed() {
    let place = Place::new();
    let absent = place.run(&["doctor", "-o", "json"]).ok().json();
    assert_eq!(fields(&absent), ["backend", "broker", "can", "findings", "guarantees", "lacks", "verdict"]);
    assert_eq!((&absent["verdict"], &absent["backend"]), (&"fine".into(), &"embedded".into()));
    assert!(!place.path().join(".ropeway").exists());

    place.run(&["topic", "create", "t"]).ok();
    let format = place.path().join(".ropeway/format");
    let before = std::fs::metadata(place.path().join(".ropeway/lock")).unwrap().modified().unwrap();
    let people = place.run(&["doctor", "embedded:./.ropeway"]).ok().text();
    for part in ["power_loss", "free on its disk", "max_disk", "the newest", "is well"] {
        assert!(people.contains(part) && !people.contains('\x1b'), "{part} is not in {people}");
    }
    let after = std::fs::metadata(place.path().join(".ropeway/lock")).unwrap().modified().unwrap();
    assert_eq!(before, after);

    let coloured = place.run(&["doctor", "--color", "always"]).ok().text();
    assert!(coloured.contains("\x1b[1;32mfine"), "{coloured}");
    let small = place.run(&["doctor", "embedded:./.ropeway?max_disk=1kB", "-o", "raw"]).code(3);
    assert_eq!(small.said(&["1 error"]).lines(), ["error"]);
    std::fs::write(format, "ropeway-store 99\n").unwrap();
    std::fs::write(place.path().join("a-file"), "").unwrap();
    let file = place.run(&["doctor", "embedded:./a-file"]).code(3).text();
    assert!(file.contains("./a-file is a file"), "{file}");
    let newer = place.run(&["doctor", "-o", "json"]).code(3).json();
    let finding = &newer["findings"][0];
    assert_eq!(fields(finding), ["check", "fix", "level", "says", "server"]);
    assert!(finding["says"].as_str().unwrap().contains("format 99"), "{finding}");
}

#[test]
fn memory_is_told_to_keep_nothing_and_a_url_that_is_none_is_refused() {
    let place = Place::new();
    let people = place.run(&["doctor", "memory:?max_memory=5MiB"]).ok().text();
    assert!(people.contains("volatile") && people.contains("5.0 MiB"), "{people}");
    let refused = place.run(&["doctor", "pulsar://u:secret@h:1"]).code(78).said(&["pulsar"]);
    assert!(!refused.err.contains("secret"), "{}", refused.err);
    place.run(&["doctor", "memory:?max_memry=1"]).code(78).said(&["did you mean `max_memory`?"]);
    place.run(&["doctor", "-v", "nonsense"]).code(78);
    place.run(&["doctor", ""]).code(78).said(&["\"\" is no URL: it takes a URL such as"]);
}
