//! The verbs of `cargo xtask`: their names and what each does, as `cargo xtask help` prints them.
//!
//! Data only, so that `tests/tidy` can read the same table. Not here: the verbs themselves (`check.rs`, `test.rs`, `instructions.rs`, `servers/mod.rs`).

/// Name and meaning of each verb, in the order in which they are shown.
pub(crate) const VERBS: &[(&str, &str)] = &[
    ("test", "run every test, stream them, then say how many passed and what was ignored, and why"),
    ("check", "format, lints without, with each and with all features, docs, repository rules, licences"),
    ("instructions", "count what a message costs in instructions, against bounds; needs valgrind"),
    (
        "servers",
        "up, down, status or logs: real servers on loopback for the tests, all or those that are named",
    ),
    ("help", "print this"),
];
