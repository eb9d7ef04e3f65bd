//! `ropeway dlq show`: one dead letter with everything that is known about its failure.
//!
//! Not here: the shape of a letter (`mod.rs`), finding out which there are (`list.rs`).

use super::{Letter, SHAPE, record};
use crate::{
    cmd::scan::{Found, scan},
    exit::Exit,
    failure::Failure,
    output::{
        message::{Decode, Shown, line},
        or_dash,
    },
    session::Session,
    settings::Format,
};
use ropeway_broker::{Delivery, MessageBroker, MessageId, Owned, Position, Start, Topic};
use serde::Serialize;
use std::{ops::ControlFlow, str::FromStr};

/// What `dlq show` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
JSON: {{letter, message}}; message is as `sub` prints it, raw is its payload
{SHAPE}"))]
pub(crate) struct Args {
    /// The dead-letter topic
    topic: Topic,
    /// The letter: its place as `dlq list` prints it (3/1763-42), its id, or the id of the message it was
    letter: Which,
    /// How the payload is shown (json, ndjson)
    #[arg(long, value_enum, default_value_t)]
    decode: Decode,
}

#[derive(Clone, Copy, Debug)]
enum Which {
    Place(u32, Position),
    Id(MessageId),
}

impl FromStr for Which {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let place = text.split_once('/').and_then(|(partition, position)| {
            Some(Self::Place(partition.parse().ok()?, position.parse().ok()?))
        });
        place
            .or_else(|| text.parse().ok().map(Self::Id))
            .ok_or_else(|| "it takes a place such as 3/1763-42, or an id".to_owned())
    }
}

#[derive(Debug, Serialize)]
struct Both<'a> {
    letter: Letter,
    message: Shown<'a>,
}

/// Shows it.
///
/// # Errors
/// There is no such letter (4); those of the broker and of stdout.
pub(super) async fn run(args: &Args, session: &mut Session) -> Result<(), Failure> {
    let broker = session.broker().await?;
    let Some((of, delivery)) = find(&*broker, &args.topic, args.letter, session).await? else {
        return Err(Failure::new(format!(
            "there is no such letter in {}; it may have been removed",
            args.topic
        ))
        .exits(Exit::NotFound)
        .hint(format!("`ropeway dlq list {}` lists the newest", args.topic)));
    };
    let letter = Letter::new(&of, &delivery);
    let message = Shown::new(&of, &delivery, args.decode);
    match session.format() {
        Format::Json => session.out.json(&Both { letter, message }),
        Format::Ndjson => session.out.ndjson(&Both { letter, message }),
        Format::Raw => session.out.bytes(delivery.message.payload.as_deref().unwrap_or_default()),
        Format::Table => table(&letter, &delivery, session),
    }
}

async fn find(
    broker: &dyn MessageBroker,
    topic: &Topic,
    which: Which,
    session: &Session,
) -> Result<Option<(Owned, Delivery)>, Failure> {
    let (partition, from) = match which {
        Which::Place(partition, position) => (Some(partition), Start::At(position)),
        Which::Id(_) => (None, Start::Earliest),
    };
    let mut chosen = None;
    let visit = |of: &Owned, found: Found<'_>| {
        let Found::Message(delivery) = found else {
            return ControlFlow::Continue(());
        };
        let (is_it, go_on) = match which {
            Which::Place(_, position) => (delivery.position == position, false),
            Which::Id(id) => {
                let was = record(&delivery.message).0.map(|record| record.id);
                let is_it = delivery.message.id == id || was == Some(id);
                (is_it, !is_it)
            }
        };
        if is_it {
            chosen = Some((of.clone(), delivery.clone()));
        }
        if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    scan(broker, topic, partition, from, session.request(), visit).await?;
    Ok(chosen)
}

fn table(letter: &Letter, delivery: &Delivery, session: &mut Session) -> Result<(), Failure> {
    let message = &delivery.message;
    let came_from = letter.topic.as_ref().zip(letter.partition).zip(letter.position.as_ref());
    let mut lines = vec![
        ("reason", or_dash(letter.class)),
        ("error", or_dash(letter.error.as_ref())),
        ("handler", or_dash(letter.handler.as_ref())),
        ("attempts", or_dash(letter.attempts)),
        ("first failure", or_dash(letter.first.as_ref())),
        ("last failure", or_dash(letter.last.as_ref())),
        ("group", or_dash(letter.group.as_ref())),
        ("node", or_dash(letter.node.as_ref())),
        (
            "was",
            or_dash(
                came_from.map(|((topic, partition), position)| format!("{topic}/{partition} {position}")),
            ),
        ),
        ("was id", or_dash(letter.message_id.as_ref())),
        (
            "dead-lettered",
            or_dash(
                letter
                    .round
                    .map(|round| if round == 1 { "once".to_owned() } else { format!("{round} times") }),
            ),
        ),
        ("alike", or_dash(letter.fingerprint.as_ref())),
        ("lies", format!("{} {}", letter.dlq, letter.place)),
        ("id", letter.id.clone()),
        ("key", or_dash(message.key.as_deref().map(line))),
        ("type", or_dash(letter.event_type.as_ref())),
    ];
    if let Some(bytes) = letter.left_out_bytes {
        lines.push(("left out", format!("the payload of {bytes} bytes; it is where the message was")));
    }
    if !letter.cut.is_empty() {
        lines.push(("cut", letter.cut.join(", ")));
    }
    for (name, value) in
        message.headers.iter().filter(|(name, _)| !name.starts_with(ropeway_processor::FAILURE_HEADERS))
    {
        let value = value.map_or_else(|| "(null)".to_owned(), line);
        lines.push(("header", format!("{name}: {value}")));
    }
    lines.push(("payload", message.payload.as_deref().map_or_else(|| "(none)".to_owned(), line)));
    session.out.object(Format::Table, letter, &lines)
}
