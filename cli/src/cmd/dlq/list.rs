//! `ropeway dlq list`: how many dead letters there are of each reason, and the newest of them.
//!
//! Not here: the shape of a letter (`mod.rs`).

use super::{Letter, SHAPE, record};
use crate::{
    cmd::scan::{Found, scan},
    exit::Exit,
    failure::Failure,
    offset,
    output::{Row, or_dash},
    session::{Session, within},
    settings::Format,
};
use ropeway_broker::{Delivery, Owned, Start, Topic};
use ropeway_processor::FailureClass;
use serde::Serialize;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
};

/// What `dlq list` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
JSON: {{counts: [{{dlq, class, handler, count, last}}], letters: [letter]}}; ndjson: a letter on each line
{SHAPE}
{}", offset::HELP))]
pub(crate) struct Args {
    /// The dead-letter topics [default: all that end in .dlq]
    topics: Vec<Topic>,
    /// Only what was dead-lettered since then: an offset
    #[arg(long, value_name = "OFFSET", default_value = "start", value_parser = offset::from_args, allow_hyphen_values = true)]
    since: Start,
    /// Only failures of that class
    #[arg(long, value_parser = class)]
    class: Option<FailureClass>,
    /// Only failures of that handler
    #[arg(long)]
    handler: Option<String>,
    /// List no more than that many of each topic, the newest; all are counted
    #[arg(short = 'n', long, default_value_t = 20)]
    count: usize,
}

fn class(text: &str) -> Result<FailureClass, String> {
    FailureClass::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = FailureClass::ALL.iter().map(|class| class.as_str()).collect();
        format!("it takes one of {}", names.join(", "))
    })
}

/// The most reasons that are counted apart; further ones are counted together.
const MOST_REASONS: usize = 1000;

#[derive(Debug, Serialize)]
struct Count {
    dlq: String,
    class: Option<&'static str>,
    handler: Option<String>,
    count: u64,
    last: Option<String>,
}

impl Row for Count {
    const COLUMNS: &'static [&'static str] = &["DLQ", "CLASS", "HANDLER", "COUNT", "LAST"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.dlq.clone(),
            or_dash(self.class),
            or_dash(self.handler.as_ref()),
            self.count.to_string(),
            or_dash(self.last.as_ref()),
        ]
    }
}

impl Row for Letter {
    const COLUMNS: &'static [&'static str] =
        &["PLACE", "DLQ", "LAST", "CLASS", "HANDLER", "TRIES", "KEY", "ERROR"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.place.clone(),
            self.dlq.clone(),
            or_dash(self.last.as_ref()),
            or_dash(self.class),
            or_dash(self.handler.as_ref()),
            or_dash(self.attempts),
            or_dash(self.key.as_deref().map(crate::output::message::line)),
            or_dash(self.error.as_ref()),
        ]
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    counts: Vec<Count>,
    letters: Vec<Letter>,
}

/// Counts and lists.
///
/// # Errors
/// Those of the broker and of stdout.
pub(super) async fn run(args: &Args, session: &mut Session) -> Result<(), Failure> {
    if matches!(args.since, Start::At(_)) {
        return Err(Failure::usage(
            "--since takes start, end or a moment such as @-1h; a position lies in one partition",
        ));
    }
    let broker = session.broker().await?;
    let wait = session.request();
    let mut topics = args.topics.clone();
    if topics.is_empty() {
        topics = within(wait, "list topics", broker.admin().topics()).await?;
        topics.retain(|topic| topic.as_str().ends_with(".dlq"));
    }
    let mut listed = Listed { counts: Vec::new(), letters: Vec::new() };
    for topic in &topics {
        let mut choice = Choice { args, counts: BTreeMap::new(), newest: VecDeque::new() };
        let scanned = scan(&*broker, topic, None, args.since, wait, |of, found| {
            if let Found::Message(delivery) = found {
                choice.take(of, delivery);
            }
            if session.stop.is_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        scanned.await.map_err(|failure| match failure.exit() {
            Exit::NotFound => failure.hint("a topic of dead letters is made with the first of them"),
            _ => failure,
        })?;
        listed.counts.extend(choice.counts(topic));
        listed.letters.extend(choice.newest.into_iter().map(|(of, delivery)| Letter::new(&of, &delivery)));
    }
    print(&listed, session)
}

fn print(listed: &Listed, session: &mut Session) -> Result<(), Failure> {
    let format = session.format();
    match format {
        Format::Json => session.out.json(listed),
        Format::Ndjson | Format::Raw => session.out.list(format, &listed.letters),
        Format::Table if listed.counts.is_empty() => {
            session.notes.say("there are no dead letters");
            Ok(())
        }
        Format::Table => {
            session.out.list(format, &listed.counts)?;
            if listed.letters.is_empty() {
                return Ok(());
            }
            session.out.line("")?;
            session.out.list(format, &listed.letters)
        }
    }
}

type Reason = (Option<&'static str>, Option<String>);

/// What of one topic is counted and kept.
struct Choice<'a> {
    args: &'a Args,
    counts: BTreeMap<Reason, (u64, Option<ropeway_broker::Timestamp>)>,
    newest: VecDeque<(Owned, Delivery)>,
}

impl Choice<'_> {
    fn take(&mut self, of: &Owned, delivery: &Delivery) {
        let (record, _) = record(&delivery.message);
        let (class, handler) =
            record.as_ref().map_or((None, None), |record| (Some(record.class), record.handler.as_deref()));
        if self.args.class.is_some() && self.args.class != class
            || self.args.handler.is_some() && self.args.handler.as_deref() != handler
        {
            return;
        }
        let mut reason = (class.map(FailureClass::as_str), handler.map(str::to_owned));
        if self.counts.len() >= MOST_REASONS && !self.counts.contains_key(&reason) {
            reason = (Some("others"), None);
        }
        let (count, last) = self.counts.entry(reason).or_default();
        *count += 1;
        *last = (*last).max(record.map(|record| record.last));
        if self.args.count > 0 {
            if self.newest.len() >= self.args.count {
                self.newest.pop_front();
            }
            self.newest.push_back((of.clone(), delivery.clone()));
        }
    }

    fn counts(&self, topic: &Topic) -> Vec<Count> {
        let count =
            |((class, handler), (count, last)): (&Reason, &(u64, Option<ropeway_broker::Timestamp>))| Count {
                dlq: topic.to_string(),
                class: *class,
                handler: handler.clone(),
                count: *count,
                last: last.map(crate::time::shown),
            };
        self.counts.iter().map(count).collect()
    }
}
