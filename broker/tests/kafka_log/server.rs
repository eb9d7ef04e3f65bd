//! Where the Kafka of these tests is.
//!
//! Not here: servers themselves (`cargo xtask servers`).

use std::panic::resume_unwind;

/// What a test ends with where there is no server: it is ignored then.
pub(crate) struct Absent;

impl Absent {
    pub(crate) const WHY: &str = "no Kafka: run `cargo xtask test`, or set ROPEWAY_TEST_KAFKA_URL (`cargo xtask servers up kafka` prints it)";
}

/// The URL of the server.
pub(crate) fn url() -> String {
    let url = std::env::var("ROPEWAY_TEST_KAFKA_URL").ok().filter(|url| !url.is_empty());
    url.unwrap_or_else(|| resume_unwind(Box::new(Absent)))
}

/// The same for clients of others.
pub(crate) fn host() -> String {
    url().trim_start_matches("kafka://").split(['/', '?']).next().unwrap().to_owned()
}
