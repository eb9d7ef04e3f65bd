//! `ropeway dlq`: list, show.
//!
//! Here: what it takes, and the shape of a dead letter. Not here: counting and choosing (`list.rs`), one letter (`show.rs`), the wire form of
//! a failure record (`ropeway-processor`).

mod list;
mod show;

use crate::{failure::Failure, output::message::Text, session::Session, time};
use ropeway_broker::{Delivery, Message, Owned};
use ropeway_processor::FailureRecord;
use serde::Serialize;

/// What `dlq` takes.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Count dead letters by reason, and list the newest
    List(list::Args),
    /// Show one dead letter with everything that is known about its failure
    Show(show::Args),
}

/// Runs a verb.
///
/// # Errors
/// Those of the broker and of stdout.
pub(crate) async fn run(verb: Verb, session: &mut Session) -> Result<(), Failure> {
    match verb {
        Verb::List(args) => list::run(&args, session).await,
        Verb::Show(args) => show::run(&args, session).await,
    }
}

/// What help says about the JSON shape of a letter.
const SHAPE: &str = "\
  letter: {dlq, place, id, class, error, fingerprint, handler, attempts, first, last, node, group,
    topic, partition, position, message_id, round, key, type, payload_bytes, left_out_bytes, cut}
  what a letter without a failure record lacks is null";

/// A dead letter as JSON: where it lies, why it is there, and what it was.
#[derive(Debug, Serialize)]
struct Letter {
    dlq: String,
    place: String,
    id: String,
    class: Option<&'static str>,
    error: Option<String>,
    fingerprint: Option<String>,
    handler: Option<String>,
    attempts: Option<u32>,
    first: Option<String>,
    last: Option<String>,
    node: Option<String>,
    group: Option<String>,
    topic: Option<String>,
    partition: Option<u32>,
    position: Option<String>,
    message_id: Option<String>,
    round: Option<u32>,
    #[serde(serialize_with = "key")]
    key: Option<bytes::Bytes>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    payload_bytes: Option<usize>,
    left_out_bytes: Option<u64>,
    cut: Vec<String>,
}

fn key<S: serde::Serializer>(key: &Option<bytes::Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    key.as_deref().map(Text).serialize(serializer)
}

/// The failure record of a message; what is wrong with it, where it has one that cannot be read.
fn record(message: &Message) -> (Option<FailureRecord>, Option<String>) {
    match FailureRecord::parse(message) {
        Ok(record) => (record, None),
        Err(error) => (None, Some(error.to_string())),
    }
}

/// Where a letter lies, as `dlq show` takes it.
fn place(of: &Owned, delivery: &Delivery) -> String {
    format!("{}/{}", of.partition, delivery.position)
}

impl Letter {
    fn new(of: &Owned, delivery: &Delivery) -> Self {
        let message = &delivery.message;
        let (record, damage) = record(message);
        let record = record.as_ref();
        Self {
            dlq: of.topic.to_string(),
            place: place(of, delivery),
            id: message.id.to_string(),
            class: record.map(|record| record.class.as_str()),
            error: record.map(|record| record.error.clone()).or(damage),
            fingerprint: record.map(|record| record.fingerprint.clone()),
            handler: record.and_then(|record| record.handler.clone()),
            attempts: record.map(|record| record.attempts),
            first: record.map(|record| time::shown(record.first)),
            last: record.map(|record| time::shown(record.last)),
            node: record.map(|record| record.node.clone()),
            group: record.map(|record| record.group.to_string()),
            topic: record.map(|record| record.topic.to_string()),
            partition: record.map(|record| record.partition),
            position: record.map(|record| record.position.to_string()),
            message_id: record.map(|record| record.id.to_string()),
            round: record.map(|record| record.round),
            key: message.key.clone(),
            event_type: message.event_type().map(str::to_owned),
            payload_bytes: message.payload.as_ref().map(bytes::Bytes::len),
            left_out_bytes: record.and_then(|record| record.payload_left_out),
            cut: record.map(|record| record.cut.clone()).unwrap_or_default(),
        }
    }
}
