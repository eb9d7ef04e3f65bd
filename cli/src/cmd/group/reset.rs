//! `ropeway group reset`: moves a group, after showing from where to where and how many messages that is.
//!
//! Not here: where an offset points (`offset.rs`).

use crate::{
    cmd::scan::{Found, scan},
    exit::Exit,
    failure::Failure,
    offset,
    output::{Row, or_dash},
    session::{Session, within},
};
use ropeway_broker::{Group, GroupPartition, MessageBroker, Owned, PartitionInfo, Position, Start, Topic};
use serde::Serialize;
use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

/// What `group reset` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
Without --yes nothing is changed. A group with members cannot be moved.
{}
JSON: [{{topic, partition, from, to, messages, applied}}]; from is null where there is no position
  messages: so many come again (above 0) or are skipped (below 0); null where unknown, or where
  more than {MOST_COUNTED} would have to be counted", offset::HELP))]
pub(crate) struct Args {
    /// The group; one without positions is made
    group: Group,
    /// The topics [default: all the group has positions in]
    topics: Vec<Topic>,
    /// Where to: an offset
    #[arg(long, value_name = "OFFSET", value_parser = offset::from_args, allow_hyphen_values = true)]
    to: Start,
    /// Only this partition
    #[arg(short, long)]
    partition: Option<u32>,
}

/// The most messages of a partition that are counted one by one.
const MOST_COUNTED: u64 = 1_000_000;

#[derive(Debug, Serialize)]
struct Move {
    topic: String,
    partition: u32,
    from: Option<String>,
    to: String,
    messages: Option<i64>,
    applied: bool,
}

impl Row for Move {
    const COLUMNS: &'static [&'static str] = &["TOPIC", "PARTITION", "FROM", "TO", "MESSAGES"];

    fn cells(&self) -> Vec<String> {
        let messages = self.messages.map(|count| match count {
            0 => "0".to_owned(),
            again if again > 0 => format!("{again} again"),
            skipped => format!("{} skipped", skipped.unsigned_abs()),
        });
        vec![
            self.topic.clone(),
            self.partition.to_string(),
            or_dash(self.from.as_ref()),
            self.to.clone(),
            or_dash(messages),
        ]
    }
}

/// Shows the moves; makes them where `--yes` was given.
///
/// # Errors
/// Those of the broker and of stdout.
pub(super) async fn run(args: &Args, session: &mut Session) -> Result<(), Failure> {
    if matches!(args.to, Start::At(_)) && args.partition.is_none() {
        return Err(Failure::usage("a position lies in one partition").hint("say which with --partition"));
    }
    let broker = session.broker().await?;
    let wait = session.request();
    let described = within(wait, "describe the group", broker.admin().describe_group(&args.group)).await;
    let held = match described {
        Ok(about) => about.partitions,
        Err(failure) if failure.exit() == Exit::NotFound && !args.topics.is_empty() => Vec::new(),
        Err(failure) => return Err(failure),
    };
    let mut topics: BTreeSet<Topic> = args.topics.iter().cloned().collect();
    if topics.is_empty() {
        topics.extend(held.iter().map(|of| of.topic.clone()));
    }
    let mut moves = Vec::new();
    for topic in &topics {
        let about = within(wait, "describe the topic", broker.admin().describe_topic(topic)).await?;
        if args.partition.is_some_and(|only| only as usize >= about.partitions.len()) {
            let count = about.partitions.len();
            return Err(Failure::new(format!("topic {topic} has no such partition; it has {count}, from 0"))
                .exits(Exit::NotFound));
        }
        for (partition, about) in (0u32..).zip(&about.partitions) {
            if args.partition.is_none_or(|only| only == partition) {
                let held = held.iter().find(|of| of.topic == *topic && of.partition == partition);
                moves.push(planned(&broker, topic, partition, about, held, args.to, session).await?);
            }
        }
    }
    if session.is_yes() {
        for topic in &topics {
            let sought = broker.admin().seek_group(&args.group, topic, args.partition, args.to);
            within(wait, "move the group", sought).await?;
            let of_topic = |planned: &&mut Move| planned.topic == topic.as_str();
            moves.iter_mut().filter(of_topic).for_each(|planned| planned.applied = true);
        }
    }
    session.out.list(session.settings.output.format, &moves)?;
    session.out.flush()?;
    if !session.is_yes() {
        session.notes.say("nothing was changed; --yes moves the group");
    }
    Ok(())
}

async fn planned(
    broker: &Arc<dyn MessageBroker>,
    topic: &Topic,
    partition: u32,
    about: &PartitionInfo,
    held: Option<&GroupPartition>,
    to: Start,
    session: &Session,
) -> Result<Move, Failure> {
    let (at, behind) = match to {
        Start::Earliest => (about.low, about.messages),
        Start::Latest => (about.end, Some(0)),
        _ => found(&**broker, topic, partition, about.end, to, session).await?,
    };
    let count = |lag: Option<u64>| lag.and_then(|lag| i64::try_from(lag).ok());
    let from = held.and_then(|of| of.position);
    let messages = count(behind).zip(count(held.and_then(|of| of.lag))).map(|(to, from)| to - from);
    Ok(Move {
        topic: topic.to_string(),
        partition,
        from: from.map(|position| position.to_string()),
        to: at.to_string(),
        messages,
        applied: false,
    })
}

/// The first position from there on, and how many messages follow; `None`: too many to count.
async fn found(
    broker: &dyn MessageBroker,
    topic: &Topic,
    partition: u32,
    end: Position,
    from: Start,
    session: &Session,
) -> Result<(Position, Option<u64>), Failure> {
    let (mut first, mut count) = (None, 0u64);
    let visit = |_: &Owned, found: Found<'_>| {
        first.get_or_insert(match found {
            Found::Message(delivery) => delivery.position,
            Found::Unreadable(position) => position,
        });
        count += 1;
        if count > MOST_COUNTED { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    scan(broker, topic, Some(partition), from, session.request(), visit).await?;
    Ok((first.unwrap_or(end), Some(count).filter(|count| *count <= MOST_COUNTED)))
}
