//! Where the Kafka of these tests is.
//!
//! Not here: servers themselves (`cargo xtask servers`).

use crate::trials::ignore;

const NONE: &str = "no Kafka: run `cargo xtask test`, or set ROPEWAY_TEST_KAFKA_URL (`cargo xtask servers up kafka` prints it)";

/// The URL of the server.
pub(crate) fn url() -> String {
    let url = std::env::var("ROPEWAY_TEST_KAFKA_URL").ok().filter(|url| !url.is_empty());
    url.unwrap_or_else(|| ignore(NONE))
}

/// The same for clients of others.
pub(crate) fn host() -> String {
    url().trim_start_matches("kafka://").split(['/', '?']).next().unwrap().to_owned()
}
