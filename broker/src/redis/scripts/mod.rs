//! The scripts that run in Redis: each one role, told in its first lines. They are sent by their hash.
//!
//! What a script answers is a list that begins with a word: what it did, or why it did nothing. An error reply means that Redis refused
//! it. `entries.lua` is no script of its own: what several share stands before each of them. Those by which members of groups join, own and
//! commit run also where the server has no memory left (`allow-oom`): what they write is small and takes the place of what was there, and without
//! them nobody could finish what makes room. Not here: what their keys hold (`../mod.rs`), who
//! runs them (`../commands.rs`).

use super::request::Request;
use std::sync::LazyLock;

/// A script and what it is called in errors.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    hash: LazyLock<String>,
}

impl Script {
    /// What the server knows it by.
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }
}

/// Makes all of them known to a server.
pub(super) fn load() -> Request {
    let mut request = Request::default();
    ALL.iter().for_each(|script| _ = request.command(&["SCRIPT", "LOAD", script.text]));
    request
}

macro_rules! scripts {
    ($($constant:ident $name:literal $(behind $shared:literal)?;)*) => {
        $(pub(super) static $constant: Script = Script {
            name: $name,
            text: concat!($(include_str!(concat!($shared, ".lua")),)? include_str!(concat!($name, ".lua"))),
            hash: LazyLock::new(|| ropeway_store::redis::Script::new($constant.text).hash().to_owned()),
        };)*
        pub(super) static ALL: &[&Script] = &[$(&$constant),*];
    };
}

scripts! {
    TOPIC_CLAIM "topic_claim";
    TOPIC_MOVE "topic_move";
    TOPIC_GROW "topic_grow";
    PARTITION_MAKE "partition_make";
    PARTITION_DROP "partition_drop";
    PARTITION_PURGE "partition_purge" behind "entries";
    PARTITION_MEASURE "partition_measure" behind "entries";
    PARTITION_TRIM "partition_trim" behind "entries";
    ADD_ONCE "add_once";
    TAKE_OVER "take_over";
    COMMIT "commit";
    LEASE "lease";
    CLAIM "claim";
    RELEASE "release";
    KNOW "know";
    SEEK "seek";
    FORGET "forget";
    HOLD "hold";
    RELEASE_DUE "release_due";
    CANCEL "cancel";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_says_what_it_does_and_what_it_takes_and_answers() {
        for script in ALL {
            let own = script.text.strip_prefix(include_str!("entries.lua")).unwrap_or(script.text);
            let flags = |line: &&str| line.starts_with("#!");
            let head: Vec<&str> =
                own.lines().skip_while(flags).take_while(|line| line.starts_with("--")).collect();
            let head = head.join("\n");
            for word in ["KEYS", "ARGV", "Answers"] {
                assert!(head.contains(word), "{}: no {word} in its first lines", script.name);
            }
        }
    }
}
