//! The scripts that run in Redis: each one role, told in its first lines. They are sent by their hash.
//!
//! What a script answers is a list that begins with a word: what it did, or why it did nothing. An error reply means that Redis refused
//! it. `entries.lua`, `epoch.lua`, `held.lua`, `progress.lua`, `remember.lua` and `search.lua` are no scripts of their own: what several share stands before each of them. Those by which members of groups join, own and
//! commit run also where the server has no memory left (`allow_oom.lua`): what they write is small and takes the place of what was there, and without
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
    ($($constant:ident $name:literal $(behind $($shared:literal)+)?;)*) => {
        $(pub(super) static $constant: Script = Script {
            name: $name,
            text: concat!($($(include_str!(concat!($shared, ".lua")),)+)? include_str!(concat!($name, ".lua"))),
            hash: LazyLock::new(|| ropeway_store::redis::Script::new($constant.text).hash().to_owned()),
        };)*
        pub(super) static ALL: &[&Script] = &[$(&$constant),*];
    };
}

scripts! {
    TOPIC_CLAIM "topic_claim";
    TOPIC_MOVE "topic_move";
    TOPIC_GROW "topic_grow";
    TOPIC_HOLD "topic_hold";
    EXTENT "extent";
    PARTITION_MAKE "partition_make";
    PARTITION_DROP "partition_drop";
    PARTITION_MEND "partition_mend" behind "allow_oom";
    PARTITION_PURGE "partition_purge" behind "entries";
    PARTITION_MEASURE "partition_measure" behind "entries";
    PARTITION_TRIM "partition_trim" behind "entries";
    ADD_ONCE "add_once" behind "search";
    FIND "find" behind "search";
    TAKE_OVER "take_over" behind "allow_oom" "epoch";
    COMMIT "commit" behind "allow_oom" "progress";
    FORWARD "forward" behind "progress" "held";
    LEASE "lease" behind "allow_oom" "remember";
    CLAIM "claim" behind "allow_oom";
    RELEASE "release" behind "allow_oom" "remember";
    KNOW "know" behind "allow_oom";
    SEEK "seek" behind "epoch";
    FORGET "forget";
    HOLD "hold" behind "held";
    RELEASE_DUE "release_due" behind "held";
    CANCEL "cancel";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_says_what_it_does_and_what_it_takes_and_answers() {
        for script in ALL {
            let shared = [
                include_str!("allow_oom.lua"),
                include_str!("entries.lua"),
                include_str!("epoch.lua"),
                include_str!("progress.lua"),
                include_str!("held.lua"),
                include_str!("remember.lua"),
                include_str!("search.lua"),
            ];
            let own = shared.iter().fold(script.text, |own, shared| own.strip_prefix(shared).unwrap_or(own));
            let head: Vec<&str> = own.lines().take_while(|line| line.starts_with("--")).collect();
            let head = head.join("\n");
            for word in ["KEYS", "ARGV", "Answers"] {
                assert!(head.contains(word), "{}: no {word} in its first lines", script.name);
            }
        }
    }
}
