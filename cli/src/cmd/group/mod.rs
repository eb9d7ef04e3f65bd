//! `ropeway group`: list, describe, lag, reset, delete.
//!
//! Not here: moving a group (`reset.rs`), joining one (`subscribe/`).

mod reset;

use crate::{
    failure::Failure,
    output::{Row, or_dash},
    session::{Session, within},
    settings::Format,
};
use ropeway_broker::{Group, GroupInfo, GroupPartition};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What `group` takes.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List groups
    #[command(after_help = "JSON: [{group, members, topics, lag}]; lag is null where unknown")]
    List,
    /// Show members and partitions
    #[command(after_help = "\
JSON: {group, members: [{member, topics}],
  partitions: [{topic, partition, owner, epoch, position, end, lag, unfinished, lag_seconds}]}
  what is unknown is null")]
    Describe {
        /// The group
        group: Group,
    },
    /// Show how far a group is behind, for each topic
    #[command(after_help = "\
JSON: [{topic, partitions, lag, unfinished, lag_seconds}]; what is unknown is null
  lag: messages from the position to the end; unfinished: lag without those that are done beyond
  the position; lag_seconds: age of the oldest message that is not done")]
    Lag {
        /// The group
        group: Group,
    },
    /// Move a group; shows what would change, and changes it with --yes
    Reset(reset::Args),
    /// Forget a group with its positions
    #[command(after_help = "JSON: {group}\nAsks first; --yes answers.")]
    Delete {
        /// The group
        group: Group,
    },
}

/// Runs a verb.
///
/// # Errors
/// Those of the broker and of stdout.
pub(crate) async fn run(verb: Verb, session: &mut Session) -> Result<(), Failure> {
    match verb {
        Verb::List => list(session).await,
        Verb::Describe { group } => describe(&group, session).await,
        Verb::Lag { group } => lag(&group, session).await,
        Verb::Reset(args) => reset::run(&args, session).await,
        Verb::Delete { group } => delete(&group, session).await,
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    group: String,
    members: usize,
    topics: Vec<String>,
    lag: Option<u64>,
}

impl Row for Listed {
    const COLUMNS: &'static [&'static str] = &["GROUP", "MEMBERS", "LAG", "TOPICS"];

    fn cells(&self) -> Vec<String> {
        vec![self.group.clone(), self.members.to_string(), or_dash(self.lag), self.topics.join(",")]
    }
}

async fn list(session: &mut Session) -> Result<(), Failure> {
    let broker = session.broker().await?;
    let wait = session.request();
    let mut rows = Vec::new();
    for group in within(wait, "list groups", broker.admin().groups()).await? {
        let about = within(wait, "describe groups", broker.admin().describe_group(&group)).await;
        let about = match about {
            Ok(about) => about,
            // Deleted since it was listed.
            Err(failure) if failure.exit() == crate::exit::Exit::NotFound => continue,
            Err(failure) => return Err(failure),
        };
        let topics: BTreeSet<&str> = about.partitions.iter().map(|of| of.topic.as_str()).collect();
        rows.push(Listed {
            group: group.to_string(),
            members: about.members.len(),
            topics: topics.into_iter().map(str::to_owned).collect(),
            lag: about.partitions.iter().map(|of| of.lag).sum(),
        });
    }
    session.out.list(session.settings.output.format, &rows)
}

#[derive(Debug, Serialize)]
struct Described<'a> {
    group: &'a str,
    members: Vec<Member<'a>>,
    partitions: Vec<Partition<'a>>,
}

#[derive(Debug, Serialize)]
struct Member<'a> {
    member: &'a str,
    topics: Vec<&'a str>,
}

impl Row for Member<'_> {
    const COLUMNS: &'static [&'static str] = &["MEMBER", "TOPICS"];

    fn cells(&self) -> Vec<String> {
        vec![self.member.to_owned(), self.topics.join(",")]
    }
}

#[derive(Debug, Serialize)]
struct Partition<'a> {
    topic: &'a str,
    partition: u32,
    owner: Option<&'a str>,
    epoch: Option<u64>,
    position: Option<String>,
    end: String,
    lag: Option<u64>,
    unfinished: Option<u64>,
    lag_seconds: Option<f64>,
}

impl<'a> From<&'a GroupPartition> for Partition<'a> {
    fn from(of: &'a GroupPartition) -> Self {
        Self {
            topic: of.topic.as_str(),
            partition: of.partition,
            owner: of.owner.as_deref(),
            epoch: of.epoch.map(|epoch| epoch.0),
            position: of.position.map(|position| position.to_string()),
            end: of.end.to_string(),
            lag: of.lag,
            unfinished: of.unfinished,
            lag_seconds: of.lag_time.map(|age| age.as_secs_f64()),
        }
    }
}

impl Row for Partition<'_> {
    const COLUMNS: &'static [&'static str] =
        &["TOPIC", "PARTITION", "OWNER", "POSITION", "END", "LAG", "UNFINISHED", "AGE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.to_owned(),
            self.partition.to_string(),
            or_dash(self.owner),
            or_dash(self.position.as_ref()),
            self.end.clone(),
            or_dash(self.lag),
            or_dash(self.unfinished),
            age(self.lag_seconds),
        ]
    }
}

/// A duration for people, in whole seconds where it is long.
fn age(seconds: Option<f64>) -> String {
    or_dash(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).map(|age| {
        let rounded = if age.as_secs() > 0 { Duration::from_secs(age.as_secs()) } else { age };
        humantime::format_duration(rounded).to_string().replace(' ', "")
    }))
}

async fn about(group: &Group, session: &mut Session) -> Result<GroupInfo, Failure> {
    let broker = session.broker().await?;
    within(session.request(), "describe the group", broker.admin().describe_group(group)).await
}

async fn describe(group: &Group, session: &mut Session) -> Result<(), Failure> {
    let about = about(group, session).await?;
    let member = |member: &'_ ropeway_broker::MemberInfo| member.name.clone();
    let names: Vec<String> = about.members.iter().map(member).collect();
    let described = Described {
        group: group.as_str(),
        members: about
            .members
            .iter()
            .map(|member| Member {
                member: &member.name,
                topics: member.topics.iter().map(ropeway_broker::Topic::as_str).collect(),
            })
            .collect(),
        partitions: about.partitions.iter().map(Partition::from).collect(),
    };
    let lines = [
        ("group", group.to_string()),
        ("members", if names.is_empty() { "none".to_owned() } else { names.join(", ") }),
    ];
    let format = session.format();
    session.out.object(format, &described, &lines)?;
    if format == Format::Table {
        session.out.line("")?;
        session.out.list(format, &described.partitions)?;
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct Behind {
    topic: String,
    partitions: usize,
    lag: Option<u64>,
    unfinished: Option<u64>,
    lag_seconds: Option<f64>,
}

impl Row for Behind {
    const COLUMNS: &'static [&'static str] = &["TOPIC", "PARTITIONS", "LAG", "UNFINISHED", "AGE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.clone(),
            self.partitions.to_string(),
            or_dash(self.lag),
            or_dash(self.unfinished),
            age(self.lag_seconds),
        ]
    }
}

async fn lag(group: &Group, session: &mut Session) -> Result<(), Failure> {
    let about = about(group, session).await?;
    let mut topics: BTreeMap<&str, Vec<&GroupPartition>> = BTreeMap::new();
    for of in &about.partitions {
        topics.entry(of.topic.as_str()).or_default().push(of);
    }
    let behind = topics.into_iter().map(|(topic, partitions)| Behind {
        topic: topic.to_owned(),
        partitions: partitions.len(),
        lag: partitions.iter().map(|of| of.lag).sum(),
        unfinished: partitions.iter().map(|of| of.unfinished).sum(),
        lag_seconds: partitions
            .iter()
            .map(|of| of.lag_time)
            .try_fold(Duration::ZERO, |oldest, age| age.map(|age| oldest.max(age)))
            .map(|age| age.as_secs_f64()),
    });
    let behind: Vec<Behind> = behind.collect();
    session.out.list(session.settings.output.format, &behind)
}

#[derive(Debug, Serialize)]
struct Deleted<'a> {
    group: &'a str,
}

async fn delete(group: &Group, session: &mut Session) -> Result<(), Failure> {
    about(group, session).await?;
    session.confirm(&format!("forget group {group} and its positions")).await?;
    let broker = session.broker().await?;
    within(session.request(), "delete the group", broker.admin().delete_group(group)).await?;
    let lines = [("deleted", group.to_string())];
    session.out.object(session.settings.output.format, &Deleted { group: group.as_str() }, &lines)
}
