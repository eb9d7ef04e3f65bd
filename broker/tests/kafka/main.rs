//! The unsafe module of the Kafka backend (`broker/src/kafka/raw`), on a real server, on mock clusters of the library, and on nothing.
//!
//! The module is private to its backend. So it is compiled here once more, by its path, and these tests see of it what the backend sees. What no test
//! here uses would be told by the compiler as dead. Where there is no server, what needs one is shown as ignored.
//!
//! | Rule of the library, which loses messages or hangs when it is not kept | Test |
//! |---|---|
//! | 1. The crate hides too much: produce and consume by this module, and the records are the same | `records::*` |
//! | 2. The status of a report says whether a record was written, its code does not; offsets of failed reports are garbage | `outcomes::*` |
//! | 4. One record that is too large fails those beside it | `outcomes::one_oversize_record_fails_its_neighbours` |
//! | 5. No partition EOF with batch reads: it skips messages | `reading::the_end_of_a_partition_is_not_told_and_nothing_is_skipped`, and its double `reading::with_ends_told_batches_skip_messages` |
//! | 6. A batch read waits until it is full: block for one, then drain | `reading::one_message_does_not_wait_for_others` |
//! | 7. A revocation is answered later, while polling goes on; all partitions are paused until then | `groups::a_revocation_is_answered_later` |
//! | 8. On the new protocol a member that drains too long is expelled, and only its commits tell it | `groups::who_drains_too_long_is_told_by_its_commit` |
//! | 10. Commits are answered by an own queue, for each partition; what fails as a whole may be written in part | `commits::*` |
//! | 11. Metadata is UTF-8 of at most 4096 bytes, and each commit replaces it | `commits::metadata_*` |
//! | 12. `ILLEGAL_GENERATION` is no loss: a later commit is taken | `groups::a_commit_that_is_refused_in_a_rebalance_is_taken_after_it` |
//! | 13. The generation is no epoch: it grows for partitions that stay, too | `groups::the_generation_grows_for_partitions_that_stay` |
//! | 14. A gap is told by `_AUTO_OFFSET_RESET`; only a new assignment revives the partition | `reading::a_gap_is_told_and_a_new_assignment_goes_on` |
//! | 15. A client of a dead address does not fail: bound what is asked, and keep the reason | `failing::*` |
//! | 16. Destruction can hang for ever: everything is given back, and closing has a deadline | `lifetimes::*` |
//! | 17. A code that the bindings do not know is no enum | `codes::*` |
//!
//! Rules 3 (idempotence) and 9 (default protocol) are settings, and proved where those are. That readers and members of the backend keep to rules is
//! tested by their numbers in `broker/tests/kafka_log`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// The tests, beside the module that they test, as it expects to be.
#[path = "."]
mod kafka {
    mod administration;
    mod codes;
    mod commits;
    mod failing;
    #[path = "../kafka_broker/fake.rs"]
    mod fake;
    mod groups;
    mod lifetimes;
    mod outcomes;
    #[expect(dead_code, unused_imports, reason = "types that tests need not name")]
    #[path = "../../src/kafka/raw/mod.rs"]
    mod raw;
    mod reading;
    mod records;
    pub(crate) mod server;

    use crate::trials::Test;

    /// Lists the tests of a module.
    macro_rules! tests {
        ($($name:ident),* $(,)?) => {
            pub(super) fn all() -> Vec<super::Test> {
                vec![$((stringify!($name), $name)),*]
            }
        };
    }
    use tests;

    /// All tests, by module.
    pub(crate) fn all() -> [(&'static str, Vec<Test>); 9] {
        [
            ("codes", codes::all()),
            ("records", records::all()),
            ("outcomes", outcomes::all()),
            ("reading", reading::all()),
            ("commits", commits::all()),
            ("groups", groups::all()),
            ("failing", failing::all()),
            ("lifetimes", lifetimes::all()),
            ("administration", administration::all()),
        ]
    }
}

#[path = "../trials/mod.rs"]
mod trials;

fn main() -> std::process::ExitCode {
    trials::run_all(kafka::all())
}
