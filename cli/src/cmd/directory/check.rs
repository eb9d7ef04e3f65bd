//! `ropeway data check`: reads everything, and tells all that is damaged.

use super::{Dir, SCRATCH, Scratch, failed};
use crate::{exit::Exit, failure::Failure, output::Progress, session::Session, settings::Format};
use ropeway_broker::salvage::{Loss, LossKind, PartitionReport, Report, Salvaged, TopicReport, check_files};
use serde::Serialize;
use std::{ops::ControlFlow, path::PathBuf};

/// What `data check` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
{SCRATCH}
JSON: {{dir, whole, messages: counts, damage: [{{place, byte, what, lost_commits}}], problems: [text],
    topics: [{{topic, life, named, partitions: [{{partition, counts..., lost: [loss]}}], delayed: counts}}],
    groups: {{count, wrong: [{{group, topic, partition, why}}]}}}}
  counts: {{readable, missing, unreadable, more_lost}}; missing: not there; unreadable: damaged;
  more_lost: and more, nobody knows how many
  loss: {{from, count, kind, why}}; from: the first position, null where unknown; the first 20
  damage: files; problems: records of topics and groups, the first 100; named: false where the
  name is lost, topic is life-N then
Raw prints whole or damaged."))]
pub(crate) struct Args {
    /// The directory, or its URL: embedded:DIR
    dir: Dir,
    /// Make the scratch directory in DIR [default: beside the directory]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// Checks.
///
/// # Errors
/// Damage (3); those of the directory and of stdout.
pub(super) async fn run(args: &Args, session: &mut Session) -> Result<(), Failure> {
    let dir = args.dir.existing()?;
    session.notes.say(&format!("reading the files of {}", dir.display()));
    let path = dir.to_owned();
    let files = tokio::task::spawn_blocking(move || check_files(&path));
    let files = tokio::select! {
        biased;
        () = session.stop.asked() => return Ok(()),
        files = files => files,
    };
    let files = files.map_err(|error| Failure::new("the check was interrupted").caused_by(&error))?;
    let files = files.map_err(failed)?;
    let scratch = Scratch::make(dir, args.scratch.as_deref())?;
    let report = tokio::task::block_in_place(|| {
        let salvaged = Salvaged::open(dir, scratch.path()).map_err(failed)?;
        let progress = Progress::new(&session.notes, "messages read", None);
        let going_on = &mut |read| {
            progress.at(read);
            if session.stop.is_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        salvaged.check(files, going_on).map_err(failed)
    })?;
    drop(scratch);
    let Some(report) = report else { return Ok(()) };
    print(&Checked::new(dir.display().to_string(), &report), session)
}

#[derive(Debug, Serialize)]
struct Checked {
    dir: String,
    whole: bool,
    messages: Counts,
    damage: Vec<Damaged>,
    problems: Vec<String>,
    topics: Vec<Topic>,
    groups: Groups,
    #[serde(skip)]
    problem_count: u64,
    #[serde(skip)]
    wrong_count: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Counts {
    readable: u64,
    missing: u64,
    unreadable: u64,
    more_lost: bool,
}

#[derive(Debug, Serialize)]
struct Damaged {
    place: String,
    byte: Option<u64>,
    what: String,
    lost_commits: Option<u64>,
    #[serde(skip)]
    line: String,
}

#[derive(Debug, Serialize)]
struct Topic {
    topic: String,
    life: u64,
    named: bool,
    partitions: Vec<Partition>,
    delayed: Counts,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: usize,
    #[serde(flatten)]
    counts: Counts,
    lost: Vec<Lost>,
}

#[derive(Debug, Serialize)]
struct Lost {
    from: Option<String>,
    count: Option<u64>,
    kind: &'static str,
    why: String,
}

#[derive(Debug, Serialize)]
struct Groups {
    count: u64,
    wrong: Vec<Cursor>,
}

#[derive(Debug, Serialize)]
struct Cursor {
    group: String,
    topic: String,
    partition: u32,
    why: String,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.readable += other.readable;
        self.missing += other.missing;
        self.unreadable += other.unreadable;
        self.more_lost |= other.more_lost;
    }

    const fn of(part: &PartitionReport) -> Self {
        let PartitionReport { readable, missing, unreadable, is_more_lost: more_lost, .. } = *part;
        Self { readable, missing, unreadable, more_lost }
    }

    /// Such as `3 lost`.
    fn lost(&self) -> String {
        let count = self.missing + self.unreadable;
        match (count, self.more_lost) {
            (0, true) => "an unknown number".to_owned(),
            (count, true) => format!("at least {count}"),
            (count, false) => count.to_string(),
        }
    }
}

impl Checked {
    fn new(dir: String, report: &Report) -> Self {
        let topics: Vec<Topic> = report.topics.iter().map(Topic::new).collect();
        let mut messages = Counts::default();
        for topic in &topics {
            topic.partitions.iter().for_each(|part| messages.add(part.counts));
            messages.add(topic.delayed);
        }
        let damage = report.store.damage.iter().map(|damage| Damaged {
            place: damage.place.display().to_string(),
            byte: damage.byte,
            what: damage.what.clone(),
            lost_commits: damage.lost_commits,
            line: damage.to_string(),
        });
        let wrong = report.cursors.iter().map(|cursor| Cursor {
            group: cursor.group.to_string(),
            topic: cursor.topic.to_string(),
            partition: cursor.partition,
            why: cursor.why.clone(),
        });
        Self {
            dir,
            whole: report.is_whole(),
            messages,
            damage: damage.collect(),
            problems: report.problems.clone(),
            topics,
            groups: Groups { count: report.groups, wrong: wrong.collect() },
            problem_count: report.problem_count,
            wrong_count: report.cursor_count,
        }
    }

    /// The whole in a sentence.
    fn verdict(&self) -> String {
        let topics = match self.topics.len() {
            1 => "1 topic".to_owned(),
            many => format!("{many} topics"),
        };
        let readable = self.messages.readable;
        if self.whole {
            return format!("{} is whole: all {readable} messages of {topics} can be read", self.dir);
        }
        let places = match self.damage.len() as u64 + self.problem_count + self.wrong_count {
            0 => String::new(),
            1 => " in 1 place".to_owned(),
            many => format!(" in {many} places"),
        };
        let lost = self.messages.lost();
        format!("{} is damaged{places}: {readable} messages of {topics} can be read, {lost} cannot", self.dir)
    }
}

impl Topic {
    fn new(report: &TopicReport) -> Self {
        let partitions = report.partitions.iter().enumerate().map(|(partition, part)| Partition {
            partition,
            counts: Counts::of(part),
            lost: part.lost.iter().map(Lost::new).collect(),
        });
        Self {
            topic: report.name.to_string(),
            life: report.life,
            named: report.is_named,
            partitions: partitions.collect(),
            delayed: Counts {
                readable: report.delayed.readable,
                missing: report.delayed.missing,
                unreadable: report.delayed.unreadable,
                more_lost: report.delayed.is_more_lost,
            },
        }
    }
}

impl Lost {
    fn new(loss: &Loss) -> Self {
        Self {
            from: loss.from.map(|position| position.to_string()),
            count: loss.count,
            kind: match loss.kind {
                LossKind::Missing => "missing",
                LossKind::Unreadable => "unreadable",
            },
            why: loss.why.clone(),
        }
    }
}

fn print(checked: &Checked, session: &mut Session) -> Result<(), Failure> {
    let verdict = checked.verdict();
    match session.format() {
        Format::Json => session.out.json(checked)?,
        Format::Ndjson => session.out.ndjson(checked)?,
        Format::Raw => session.out.line(if checked.whole { "whole" } else { "damaged" })?,
        Format::Table => {
            table(checked, session)?;
            if checked.whole {
                session.out.line(&verdict)?;
            }
        }
    }
    session.out.flush()?;
    if checked.whole {
        return Ok(());
    }
    let hint = format!("`ropeway data export {}` prints the messages that can be read", checked.dir);
    Err(Failure::new(verdict).exits(Exit::Assertion).hint(hint))
}

/// How many places of each kind are printed for people.
const PRINTED: usize = 20;

fn table(checked: &Checked, session: &mut Session) -> Result<(), Failure> {
    let files = checked.damage.iter().map(|damage| damage.line.clone());
    let cursors =
        checked.groups.wrong.iter().map(|wrong| {
            format!("group {} on {}/{}: {}", wrong.group, wrong.topic, wrong.partition, wrong.why)
        });
    let losses = checked.topics.iter().flat_map(|topic| {
        topic.partitions.iter().flat_map(move |part| {
            part.lost.iter().map(move |lost| {
                let from = lost.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
                let count = lost.count.map_or_else(|| "an unknown number".to_owned(), |n| n.to_string());
                format!("{}/{}{from}: {count} {}: {}", topic.topic, part.partition, lost.kind, lost.why)
            })
        })
    });
    let problems = checked.problems.iter().cloned();
    lines("files", files, session)?;
    lines("records of topics and groups", problems, session)?;
    lines("groups", cursors, session)?;
    lines("messages", losses, session)?;
    let cell = |counts: &Counts, topic: &str, partition: String| {
        let more = if counts.more_lost { "+" } else { "" };
        let missing = format!("{}{more}", counts.missing);
        vec![topic.to_owned(), partition, counts.readable.to_string(), missing, counts.unreadable.to_string()]
    };
    let mut rows = Vec::new();
    for topic in &checked.topics {
        let parts = topic.partitions.iter();
        rows.extend(parts.map(|part| cell(&part.counts, &topic.topic, part.partition.to_string())));
        rows.push(cell(&topic.delayed, &topic.topic, "delayed".to_owned()));
    }
    session.out.columns(&["TOPIC", "PARTITION", "READABLE", "MISSING", "UNREADABLE"], &rows)
}

fn lines(what: &str, all: impl Iterator<Item = String>, session: &mut Session) -> Result<(), Failure> {
    let mut more = 0_u64;
    for (number, line) in all.enumerate() {
        match number {
            0 => session.out.line(&format!("damaged {what}:"))?,
            number if number >= PRINTED => {
                more += 1;
                continue;
            }
            _ => {}
        }
        session.out.line(&format!("  {}", crate::output::visible(&line)))?;
    }
    if more > 0 {
        session.out.line(&format!("  and {more} more; -o json lists them"))?;
    }
    Ok(())
}
