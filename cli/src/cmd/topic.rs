//! `ropeway topic`: list, create, describe, grow, purge, delete.
//!
//! Not here: what a topic holds (`subscribe/`), groups and their lag (`group/`).

use crate::{
    exit::Exit,
    failure::Failure,
    offset,
    output::{Row, or_dash},
    session::{Session, within},
    settings::{Size, duration},
};
use ropeway_broker::{Retention, Start, Topic, TopicInfo, TopicSpec};
use serde::Serialize;
use std::time::Duration;

/// What `topic` takes.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List topics
    #[command(after_help = "JSON: [{topic, partitions, messages, internal}]; messages is null where unknown")]
    List {
        /// Ropeway's own topics too
        #[arg(long)]
        internal: bool,
    },
    /// Make topics
    #[command(after_help = "JSON: [{topic, partitions}]")]
    Create(Create),
    /// Show what is known about a topic
    #[command(after_help = "\
JSON: {topic, partitions, retention: {age_seconds, bytes, compact}, durability, max_message, delayed,
  detail: [{partition, low, end, messages}]}; what is unknown is null")]
    Describe {
        /// The topic
        topic: Topic,
    },
    /// Add partitions; keys may move, so the order of a key holds on each side of the growth and not across it
    #[command(after_help = "JSON: {topic, partitions}")]
    Grow {
        /// The topic
        topic: Topic,
        /// How many it is to have
        partitions: u32,
    },
    /// Remove messages from the beginning
    #[command(after_help = concat!("JSON: {topic, partition, removed}; removed is null where unknown\n", "Asks first; --yes answers."))]
    Purge {
        /// The topic
        topic: Topic,
        /// Only in that partition
        #[arg(short, long)]
        partition: Option<u32>,
        /// Up to there: an offset, as for `sub`
        #[arg(long, default_value = "end", value_parser = offset::from_args)]
        before: Start,
    },
    /// Delete topics with their messages
    #[command(after_help = "JSON: [{topic}]\nAsks first; --yes answers.")]
    Delete {
        /// The topics
        #[arg(required = true)]
        topics: Vec<Topic>,
    },
}

/// What `topic create` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The topics
    #[arg(required = true)]
    topics: Vec<Topic>,
    /// How many partitions, 1 to 4096
    #[arg(short, long, default_value_t = TopicSpec::default().partitions)]
    partitions: u32,
    /// Keep messages no longer than that [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    retention: Option<Duration>,
    /// Keep no more than that for each partition, and up to a segment [default: everything]
    #[arg(long, value_name = "SIZE")]
    retention_bytes: Option<Size>,
    /// Keep only the last message of each key for certain
    #[arg(long)]
    compact: bool,
    /// Leave a topic as it is where it exists
    #[arg(long)]
    if_missing: bool,
}

/// Runs a verb.
///
/// # Errors
/// Those of the broker and of stdout.
pub(crate) async fn run(verb: Verb, session: &mut Session) -> Result<(), Failure> {
    match verb {
        Verb::List { internal } => list(internal, session).await,
        Verb::Create(args) => create(args, session).await,
        Verb::Describe { topic } => describe(&topic, session).await,
        Verb::Grow { topic, partitions } => grow(&topic, partitions, session).await,
        Verb::Purge { topic, partition, before } => purge(&topic, partition, before, session).await,
        Verb::Delete { topics } => delete(&topics, session).await,
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    topic: String,
    partitions: usize,
    messages: Option<u64>,
    internal: bool,
}

impl Row for Listed {
    const COLUMNS: &'static [&'static str] = &["TOPIC", "PARTITIONS", "MESSAGES"];

    fn cells(&self) -> Vec<String> {
        vec![self.topic.clone(), self.partitions.to_string(), or_dash(self.messages)]
    }
}

fn messages(topic: &TopicInfo) -> Option<u64> {
    topic.partitions.iter().map(|partition| partition.messages).sum()
}

async fn list(internal: bool, session: &mut Session) -> Result<(), Failure> {
    let broker = session.broker().await?;
    let wait = session.request();
    let mut rows = Vec::new();
    let topics = within(wait, "list topics", broker.admin().topics()).await?;
    for topic in topics.into_iter().filter(|topic| internal || !topic.is_internal()) {
        let about = within(wait, "describe topics", broker.admin().describe_topic(&topic)).await;
        let about = match about {
            Ok(about) => about,
            // Deleted since it was listed.
            Err(failure) if failure.exit() == Exit::NotFound => continue,
            Err(failure) => return Err(failure),
        };
        rows.push(Listed {
            topic: topic.to_string(),
            partitions: about.partitions.len(),
            messages: messages(&about),
            internal: topic.is_internal(),
        });
    }
    session.out.list(session.settings.output.format, &rows)
}

#[derive(Debug, Serialize)]
struct Created {
    topic: String,
    partitions: u32,
}

impl Row for Created {
    const COLUMNS: &'static [&'static str] = &["TOPIC", "PARTITIONS"];

    fn cells(&self) -> Vec<String> {
        vec![self.topic.clone(), self.partitions.to_string()]
    }
}

async fn create(args: Create, session: &mut Session) -> Result<(), Failure> {
    let broker = session.broker().await?;
    let retention = Retention {
        age: args.retention,
        bytes: args.retention_bytes.map(|size| size.0 as u64),
        compact: args.compact,
    };
    let spec = TopicSpec { partitions: args.partitions, retention };
    let mut rows = Vec::new();
    for topic in &args.topics {
        let made = broker.admin().create_topic(topic, spec.clone());
        let made = tokio::time::timeout(session.request(), made).await;
        match made {
            Ok(Err(error)) if args.if_missing && error.kind() == ropeway_broker::ErrorKind::Exists => {
                session.notes.say(&format!("topic {topic} exists already and stays as it is"));
                continue;
            }
            Ok(Ok(())) => {}
            Ok(Err(error)) => return in_part(error.into(), &rows, session),
            Err(_) => {
                let late = crate::session::out_of_time("create the topic", session.request());
                return in_part(late, &rows, session);
            }
        }
        rows.push(Created { topic: topic.to_string(), partitions: args.partitions });
    }
    session.out.list(session.settings.output.format, &rows)
}

/// The failure to make a topic, after others were made: those are printed, and it is said that it was done in part.
fn in_part(failure: Failure, made: &[Created], session: &mut Session) -> Result<(), Failure> {
    if made.is_empty() {
        return Err(failure);
    }
    session.out.list(session.settings.output.format, made)?;
    let names: Vec<&str> = made.iter().map(|made| made.topic.as_str()).collect();
    Err(failure.exits(Exit::Partial).hint(format!("made before that: {}", names.join(", "))))
}

#[derive(Debug, Serialize)]
struct Described<'a> {
    topic: &'a str,
    partitions: u32,
    retention: Kept,
    durability: &'a str,
    max_message: usize,
    delayed: Option<u64>,
    detail: Vec<Partition>,
}

#[derive(Debug, Serialize)]
struct Kept {
    age_seconds: Option<f64>,
    bytes: Option<u64>,
    compact: bool,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: usize,
    low: String,
    end: String,
    messages: Option<u64>,
}

impl Row for Partition {
    const COLUMNS: &'static [&'static str] = &["PARTITION", "LOW", "END", "MESSAGES"];

    fn cells(&self) -> Vec<String> {
        vec![self.partition.to_string(), self.low.clone(), self.end.clone(), or_dash(self.messages)]
    }
}

async fn describe(topic: &Topic, session: &mut Session) -> Result<(), Failure> {
    let broker = session.broker().await?;
    let about = within(session.request(), "describe the topic", broker.admin().describe_topic(topic)).await?;
    let retention = &about.spec.retention;
    let detail = about.partitions.iter().enumerate().map(|(partition, about)| Partition {
        partition,
        low: about.low.to_string(),
        end: about.end.to_string(),
        messages: about.messages,
    });
    let described = Described {
        topic: topic.as_str(),
        partitions: about.spec.partitions,
        retention: Kept {
            age_seconds: retention.age.map(|age| age.as_secs_f64()),
            bytes: retention.bytes,
            compact: retention.compact,
        },
        durability: about.durability.as_str(),
        max_message: about.max_message,
        delayed: about.delayed,
        detail: detail.collect(),
    };
    let kept = match (retention.age, retention.bytes) {
        (None, None) => "everything, for ever".to_owned(),
        (age, bytes) => [
            age.map(|age| humantime::format_duration(age).to_string()),
            bytes.map(|bytes| {
                format!("{} in a partition", Size(usize::try_from(bytes).unwrap_or(usize::MAX)))
            }),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", "),
    };
    let compact = if retention.compact { "; compacted" } else { "" };
    let lines = [
        ("topic", topic.to_string()),
        ("partitions", about.spec.partitions.to_string()),
        ("messages", or_dash(messages(&about))),
        ("delayed", or_dash(about.delayed)),
        ("kept", format!("{kept}{compact}")),
        ("survives", about.durability.as_str().to_owned()),
        ("max message", Size(about.max_message).to_string()),
    ];
    let format = session.format();
    session.out.object(format, &described, &lines)?;
    if format == crate::settings::Format::Table {
        session.out.line("")?;
        session.out.list(format, &described.detail)?;
    }
    Ok(())
}

async fn grow(topic: &Topic, partitions: u32, session: &mut Session) -> Result<(), Failure> {
    let broker = session.broker().await?;
    within(session.request(), "grow the topic", broker.admin().grow_topic(topic, partitions)).await?;
    let grown = Created { topic: topic.to_string(), partitions };
    let lines = [("topic", topic.to_string()), ("partitions", partitions.to_string())];
    session.out.object(session.settings.output.format, &grown, &lines)
}

#[derive(Debug, Serialize)]
struct Purged<'a> {
    topic: &'a str,
    partition: Option<u32>,
    removed: Option<u64>,
}

async fn purge(
    topic: &Topic,
    partition: Option<u32>,
    before: Start,
    session: &mut Session,
) -> Result<(), Failure> {
    let broker = session.broker().await?;
    let wait = session.request();
    let held = within(wait, "describe the topic", broker.admin().describe_topic(topic)).await?;
    let of = partition.map(|number| format!("partition {number} of ")).unwrap_or_default();
    session.confirm(&format!("remove messages from {of}topic {topic}")).await?;
    within(wait, "purge the topic", broker.admin().purge_topic(topic, partition, before)).await?;
    let left = within(wait, "describe the topic", broker.admin().describe_topic(topic)).await?;
    // Where the ends moved meanwhile, what came is not mistaken for what went.
    let came = held.partitions.iter().zip(&left.partitions).any(|(held, left)| held.end != left.end);
    let removed = messages(&held).zip(messages(&left)).filter(|_| !came);
    let removed = removed.map(|(held, left)| held.saturating_sub(left));
    let purged = Purged { topic: topic.as_str(), partition, removed };
    let lines = [("removed", or_dash(removed)), ("topic", topic.to_string())];
    session.out.object(session.settings.output.format, &purged, &lines)
}

#[derive(Debug, Serialize)]
struct Deleted {
    topic: String,
}

impl Row for Deleted {
    const COLUMNS: &'static [&'static str] = &["DELETED"];

    fn cells(&self) -> Vec<String> {
        vec![self.topic.clone()]
    }
}

async fn delete(topics: &[Topic], session: &mut Session) -> Result<(), Failure> {
    let broker = session.broker().await?;
    let wait = session.request();
    for topic in topics {
        within(wait, "describe the topic", broker.admin().describe_topic(topic)).await?;
    }
    let names: Vec<&str> = topics.iter().map(Topic::as_str).collect();
    session.confirm(&format!("delete {} with all messages", names.join(", "))).await?;
    let mut rows = Vec::new();
    for topic in topics {
        within(wait, "delete the topic", broker.admin().delete_topic(topic)).await?;
        rows.push(Deleted { topic: topic.to_string() });
    }
    session.out.list(session.settings.output.format, &rows)
}
