//! The script of forwards, and doubles of it that are seen.
//!
//! Not here: forwards through a broker (`forwards.rs`).

use super::server::{Server, script};
use redis::{RedisResult, Value};

const LIFE: &str = "5000";
const ID: &str = "0123456789abcdef";

/// A source with five messages that is owned, and two targets.
struct Play {
    server: Server,
    keys: Vec<String>,
    epoch: String,
}

impl Play {
    fn begin() -> Self {
        let mut server = Server::get();
        let key = |of: &str, name: &str| format!("{{{}}}:{of}:{name}", server.prefix);
        let mut keys = vec![key("s", "log"), key("s", "part"), key("s", "group:g")];
        for to in ["a", "b"] {
            keys.extend(["log", "part", "delayed", "held"].map(|name| key(to, name)));
        }
        for at in [0, 3, 7] {
            server.run("partition_make", &[&keys[at], &keys[at + 1]], &[LIFE]);
        }
        for seq in 1..=5 {
            server.ask::<String>(&format!("XADD {} 5000-{seq} payload x", keys[0]));
        }
        let mut play = Self { server, keys, epoch: String::new() };
        play.take_over();
        play
    }

    fn take_over(&mut self) {
        let keys: Vec<&str> = self.keys[..3].iter().map(String::as_str).collect();
        self.epoch = self.server.run("take_over", &keys, &[LIFE, "g", "anna", "5000-1", "0"]).remove(1);
    }

    /// Sends a round that acks up to `position`, with a message for each target: due then, or at once.
    fn send(&mut self, text: &str, epoch: &str, round: u32, position: &str, due: &str) -> RedisResult<Value> {
        let entry = [&b"\0\0\0\x07payload\0\0\0\x01"[..], b"y"].concat();
        let round = round.to_string();
        let words = ["g", &round, "1", "2", LIFE, epoch, position, "2", "", "0", "5000-2", LIFE, LIFE];
        let mut call = redis::cmd("EVAL");
        call.arg(text).arg(self.keys.len()).arg(&self.keys).arg(&words);
        for to in ["1", "2"] {
            call.arg(to).arg(ID).arg(due).arg(&entry);
        }
        call.query(&mut self.server.redis)
    }

    /// The words of its answer.
    fn told(&mut self, text: &str, epoch: &str, round: u32, position: &str) -> Vec<String> {
        Server::flat(&self.send(text, epoch, round, position, "").unwrap())
    }

    /// Messages in both targets, and where the group is.
    fn there(&mut self) -> (usize, usize, String) {
        let [a, b] = [3, 7].map(|at| self.server.ask(&format!("XLEN {}", self.keys[at])));
        (a, b, self.server.hash(&self.keys[2], "position").unwrap())
    }
}

/// Whether a round takes effect once, however often and however late it comes.
fn takes_effect_once(text: &str) -> bool {
    let mut play = Play::begin();
    let epoch = play.epoch.clone();
    let first = play.told(text, &epoch, 1, "5000-3");
    let again = play.told(text, &epoch, 1, "5000-3");
    play.told(text, &epoch, 2, "5000-4");
    let late = play.told(text, &epoch, 1, "5000-3");
    first[0] == "forwarded"
        && again == ["there"]
        && late == ["there"]
        && play.there() == (2, 2, "5000-4".into())
}

/// Whether a round of a former owner is refused, and changes nothing.
fn refuses_former_owners(text: &str) -> bool {
    let mut play = Play::begin();
    let former = play.epoch.clone();
    play.take_over();
    let told = play.told(text, &former, 1, "5000-3");
    told == ["fenced", "1", "certain"] && play.there() == (0, 0, "5000-1".into())
}

fn a_round_takes_effect_once_however_often_it_comes() {
    assert!(takes_effect_once(script("forward")));
}

fn a_round_of_a_former_owner_changes_nothing_and_tells_what_became_of_it() {
    assert!(refuses_former_owners(script("forward")));
    let forward = script("forward");
    let mut play = Play::begin();
    let former = play.epoch.clone();
    assert_eq!(play.told(forward, &former, 1, "5000-3")[0], "forwarded");
    play.take_over();
    assert_eq!(play.told(forward, &former, 1, "5000-3"), ["there"], "it is known while nobody wrote over it");
    assert_eq!(play.told(forward, &former, 2, "5000-4"), ["fenced", "1", "certain"]);
    let epoch = play.epoch.clone();
    play.told(forward, &epoch, 1, "5000-4");
    assert_eq!(play.told(forward, &former, 1, "5000-3"), ["fenced", "1", "unknown"]);
    assert_eq!(
        play.told(forward, &epoch, 2, ""),
        ["fenced", "1", "certain"],
        "its owner knows that it is over"
    );
    assert_eq!(play.there(), (2, 2, "5000-4".into()));
}

fn a_round_with_a_target_that_is_gone_or_something_else_changes_nothing() {
    let mut play = Play::begin();
    let epoch = play.epoch.clone();
    let forward = script("forward");
    let (log, held) = (play.keys[7].clone(), play.keys[10].clone());
    play.server.ask::<String>(&format!("RENAME {log} {log}-away"));
    assert_eq!(play.told(forward, &epoch, 1, "5000-3"), ["gone", "2"]);
    play.server.ask::<String>(&format!("RENAME {log}-away {log}"));
    play.server.ask::<String>(&format!("SET {held} x"));
    let error = play.send(forward, &epoch, 1, "5000-3", "").unwrap_err();
    assert!(error.to_string().contains("WRONGTYPE"), "{error}");
    assert_eq!(play.there(), (0, 0, "5000-1".into()));
    play.server.ask::<i64>(&format!("DEL {held}"));
    assert_eq!(play.told(forward, &epoch, 1, "5000-3")[0], "forwarded");
}

fn what_a_round_publishes_for_later_is_held_once_and_what_it_acks_is_stored_and_mirrored() {
    let mut play = Play::begin();
    let epoch = play.epoch.clone();
    for _ in 0..2 {
        play.send(script("forward"), &epoch, 1, "5000-3", "9000000000000").unwrap();
    }
    assert_eq!(play.there(), (0, 0, "5000-3".into()));
    for at in [5, 9] {
        assert_eq!(play.server.ask::<usize>(&format!("ZCARD {}", play.keys[at])), 1);
        assert_eq!(play.server.ask::<usize>(&format!("HLEN {}", play.keys[at + 1])), 1);
    }
    let log = play.keys[0].clone();
    let mirror: Value = play.server.ask(&format!("XINFO GROUPS {log}"));
    let mirror = Server::flat(&mirror);
    let at = mirror.iter().position(|word| word == "lag").unwrap();
    assert_eq!(mirror[at + 1], "3", "{mirror:?}");
}

fn doubles_that_forward_twice_or_for_a_former_owner_are_seen() {
    let broken = |good: &str, bad: &str| {
        assert!(script("forward").contains(good), "{good:?} is not in it");
        script("forward").replace(good, bad)
    };
    assert!(!takes_effect_once(&broken("tonumber(number) >= round", "false")));
    assert!(!takes_effect_once(&broken("tonumber(number) >= round", "tonumber(number) == round")));
    assert!(!refuses_former_owners(&broken("was[1] ~= epoch or", "")));
}

super::tests! {
    a_round_takes_effect_once_however_often_it_comes,
    a_round_of_a_former_owner_changes_nothing_and_tells_what_became_of_it,
    a_round_with_a_target_that_is_gone_or_something_else_changes_nothing,
    what_a_round_publishes_for_later_is_held_once_and_what_it_acks_is_stored_and_mirrored,
    doubles_that_forward_twice_or_for_a_former_owner_are_seen,
}
