//! Ends that were not asked for politely: signals, readers that go away, a directory that is taken, somebody who says no.

use crate::{
    listen::get,
    running::{Place, Running},
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::{
    fs::File,
    io::{Read, Write},
    process::Stdio,
};

fn published(place: &Place, count: usize) {
    let lines: String = (0..count).map(|i| format!("{i}\n")).collect();
    place.run_with_input(&["pub", "t", "--format", "lines"], lines.as_bytes()).ok();
}

/// More than a pipe and the buffers before it hold.
fn published_plenty(place: &Place) {
    let lines = format!("{}\n", "x".repeat(1000)).repeat(5000);
    place.run_with_input(&["pub", "t", "--format", "lines"], lines.as_bytes()).ok();
}

#[test]
fn an_interrupted_member_has_acked_what_it_printed() {
    let place = Place::with_topic("t", 1);
    published(&place, 3);
    let mut sub = place.start(&["sub", "t", "-g", "g", "-o", "raw"]);
    let seen: Vec<String> = (0..3).map(|_| sub.next_line()).collect();
    assert_eq!(seen, ["0", "1", "2"]);
    sub.signal("INT");
    sub.end().code(130).said(&["stopping"]);
    assert!(place.run(&["sub", "t", "-g", "g", "--until", "end", "-o", "raw"]).ok().out.is_empty());
}

#[test]
fn an_interrupted_list_is_still_json() {
    let place = Place::with_topic("t", 1);
    published(&place, 1);
    let mut sub = place.start(&["sub", "t", "-O", "start", "-o", "json"]);
    assert_eq!(sub.next_line(), "[");
    sub.signal("TERM");
    let ran = sub.end().code(143);
    assert_eq!(ran.json().as_array().unwrap().len(), 1);
}

#[test]
fn an_interrupted_publisher_tells_exactly_what_is_there() {
    let place = Place::with_topic("t", 1);
    let args = ["pub", "t", "--format", "lines", "--rate", "100/s", "-o", "json", "--listen", "127.0.0.1:0"];
    let mut command = place.command(&args);
    command.stdin(Stdio::piped());
    let lines: Vec<u8> = b"x\n".repeat(100_000);
    let mut publishing = Running::start(command, &lines);
    let address = publishing.wait_for("serving /metrics").rsplit_once("http://").unwrap().1.to_owned();
    let sent = "messaging_client_sent_messages_total{destination=\"t\"";
    while !get(&address, "/metrics").1.contains(sent) {}
    publishing.signal("INT");
    let report = publishing.end().code(130).json();
    assert_eq!(report["failed"], 0);
    let there = place.run(&["sub", "t", "--until", "end", "-o", "raw"]).ok().lines().len();
    assert_eq!(report["published"], there);
}

#[test]
fn a_second_signal_ends_at_once() {
    let place = Place::with_topic("t", 1);
    let mut command = place.command(&["sub", "t", "-O", "start", "-o", "raw"]);
    published_plenty(&place);
    // Nobody reads: it hangs in a write, which no wish to stop can end.
    command.stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut byte = [0];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut byte).unwrap();
    let kill =
        || std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    kill();
    stderr.read_exact(&mut byte).unwrap();
    kill();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdout);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let place = Place::with_topic("t", 1);
    published_plenty(&place);
    for args in [
        &["sub", "t", "--until", "end", "-o", "ndjson"][..],
        &["sub", "t", "--until", "end"],
        &["sub", "t", "-g", "g", "-o", "raw"],
        &["completions", "bash"],
        &["config", "show"],
        &["--help"],
    ] {
        let mut child = place.command(args).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        drop(stdout);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{args:?}");
    }
    // What the member could not print was not acked.
    let left = place.run(&["sub", "t", "-g", "g", "--until", "end", "-o", "raw"]).ok().lines().len();
    assert!(left > 0 && left <= 5000, "{left}");
}

#[test]
fn a_stderr_that_is_closed_stops_nothing() {
    let place = Place::with_topic("t", 1);
    let mut command = place.command(&["pub", "t", "--format", "jsonl", "-o", "raw"]);
    command.stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"broken\n1\n").unwrap();
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(place.run(&["sub", "t", "--until", "end", "-o", "raw"]).ok().lines(), ["1"]);
}

#[test]
fn a_directory_belongs_to_one_process_and_the_other_is_told_which() {
    let place = Place::with_topic("t", 1);
    published(&place, 1);
    let mut first = place.start(&["sub", "t", "-O", "start", "-o", "raw"]);
    assert_eq!(first.next_line(), "0");
    let second = place.run(&["topic", "list"]).code(69);
    second.said(&["error:", ".ropeway", &first.id().to_string(), "hint:"]);
    first.signal("INT");
    first.end().code(130);
    place.run(&["topic", "list"]).ok();
}

#[test]
fn on_a_terminal_it_asks_before_it_destroys() {
    let place = Place::with_topic("t", 1);
    let topics = || place.run(&["topic", "list", "-o", "raw"]).ok().lines();
    for (answer, code, left) in [("n\n", 2, 1), ("\n", 2, 1), ("\u{3}", 130, 1), ("yes\n", 0, 0)] {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let side = || File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let mut command = place.command(&["topic", "delete", "t"]);
        command.stdin(side()).stderr(side());
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut terminal = File::from(terminal);
        let mut asked = String::new();
        while !asked.contains("[y/N]") {
            let mut byte = [0];
            terminal.read_exact(&mut byte).unwrap();
            asked.push(char::from(byte[0]));
        }
        assert!(asked.contains("delete t with all messages? [y/N]"), "{asked}");
        if answer == "\u{3}" {
            // It is not the terminal's own process: the terminal sends it no signal.
            let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
            assert!(kill.unwrap().success());
        } else {
            terminal.write_all(answer.as_bytes()).unwrap();
        }
        assert_eq!(child.wait().unwrap().code(), Some(code), "{answer:?}");
        assert_eq!(topics().len(), left, "{answer:?}");
    }
}
