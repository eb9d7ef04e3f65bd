//! Runs the program step by step on a real server, and tells which of its verbs no step has.
//!
//! Not here: the steps (`same.rs`, `../redis/verbs.rs`, `../kafka/verbs.rs`).

use crate::running::{Place, Ran};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

/// Arguments, what is typed, how it ends, and what it prints or says.
pub(crate) type Step<'a> = (&'a [&'a str], &'a str, i32, &'a [&'a str]);

/// Takes the steps one after the other. Each of `names` is replaced by what it stands for; `LETTER` stands for the place of a dead letter of the
/// demo.
#[track_caller]
pub(crate) fn run(place: &Place, steps: &[Step<'_>], names: &[(&str, &str)]) {
    /// Long enough for a busy machine, and shorter than what waits for a time limit.
    const LONGEST: Duration = Duration::from_secs(25);
    for (args, input, code, parts) in steps {
        let letter = if args.contains(&"LETTER") { letter(place) } else { String::new() };
        let filled = |text: &str| {
            let text = text.replace("LETTER", &letter);
            names.iter().fold(text, |text, (name, value)| text.replace(name, value))
        };
        let args: Vec<String> = args.iter().map(|arg| filled(arg)).collect();
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let began = Instant::now();
        let ran: Ran = place.run_with_input(&words, input.as_bytes()).code(*code);
        assert!(began.elapsed() < LONGEST, "{args:?} takes {:?}", began.elapsed());
        let all = ran.text() + &ran.err;
        let absent: Vec<String> =
            parts.iter().map(|part| filled(part)).filter(|part| !all.contains(part)).collect();
        assert!(absent.is_empty(), "{args:?}: {absent:?} is not in {all}");
    }
}

/// What a topic, which is made here, prints goes into it again as it was.
pub(crate) fn exported(place: &Place, topic: &str) {
    place.run(&["topic", "create", topic, "-p", "1"]).ok();
    place.run(&["pub", topic, "a\u{1}b", "-k", "k", "-H", "h=v"]).ok();
    let line = place.run(&["sub", topic, "--until", "end", "-o", "ndjson"]).ok();
    place.run_with_input(&["pub", "--format", "export"], &line.out).ok();
    let both = place.run(&["sub", topic, "--until", "end", "-o", "ndjson"]).ok().ndjson();
    let [first, second] = both.as_slice() else { panic!("{both:?}") };
    for field in ["id", "key", "headers", "payload", "timestamp"] {
        assert_eq!(first[field], second[field], "{field}");
    }
}

fn letter(place: &Place) -> String {
    let listed = place.run(&["dlq", "list", "demo.strikes.demo.dlq", "-o", "json"]).ok().json();
    listed["letters"][0]["place"].as_str().unwrap().to_owned()
}

/// The verbs that `--help` lists and no step has.
pub(crate) fn untried(place: &Place, steps: &[Step<'_>]) -> BTreeSet<String> {
    let commands = |args: &[&str]| -> Vec<String> {
        let help = place.run(&[args, &["--help"]].concat()).ok().text();
        let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
        let named = list.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
        named
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help")
            .map(str::to_owned)
            .collect()
    };
    let mut untried = BTreeSet::new();
    for noun in commands(&[]) {
        let verbs = commands(&[&noun]);
        let tried = |words: &[&str]| steps.iter().any(|(args, ..)| args.starts_with(words));
        if verbs.is_empty() && !tried(&[&noun]) {
            untried.insert(noun.clone());
        }
        untried
            .extend(verbs.iter().filter(|verb| !tried(&[&noun, verb])).map(|verb| format!("{noun} {verb}")));
    }
    untried
}
