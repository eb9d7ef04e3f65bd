//! `ropeway pub`: publishes one message, or the records of a file or stdin.
//!
//! Here: what it takes, and the way of a record to the bus. Not here: cutting an input into records (`records.rs`, `exported.rs`), expressions
//! (`pick.rs`), the pace (`rate.rs`), what came of it (`tally.rs`).

mod exported;
mod lines;
mod message;
mod pick;
mod rate;
mod records;
mod tally;

use crate::{
    exit::Exit,
    failure::Failure,
    output::{Notes, Progress},
    session::{Session, within},
};
use message::Recipe;
use pick::Pick;
use rate::Rate;
use records::{Bad, Picks, Record, Shape};
use ropeway_broker::{Bound, Message, MessageBroker, Publisher, PublisherSettings, Target, Timestamp, Topic};
use std::{
    fs::File,
    io::{IsTerminal, Read},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tally::Tally;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

/// What `pub` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without BODY and --file, stdin is read. Malformed lines and rows are told by number, the rest
goes on, and the exit code is 5 (1 where nothing was published).
Expressions: .user.id, .items[0], .\"odd name\"; with ? at the end the value may be missing.
--format export reads what `sub -o ndjson` and `data export` print: each message goes to the topic
it was in (or TOPIC) and to the same partition, with its own id, key, headers and time.
JSON: {topic, published, refused, failed, durability, last: {partition, position, id}}
  refused: malformed, never sent; failed: given back by the broker; last: of the last that was
  acked; topic: null where each line names its own; raw prints the number published")]
pub(crate) struct Args {
    /// The topic; it must exist. With --format export the lines name theirs [default: theirs]
    topic: Option<Topic>,
    /// The content of one message
    #[arg(conflicts_with_all = ["file", "tombstone", "format"])]
    body: Option<String>,
    /// Read FILE instead of stdin; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How the input is cut into messages
    #[arg(long, value_enum, default_value_t = Shape::Raw)]
    format: Shape,
    /// The key: messages of equal key keep their order
    #[arg(short, long)]
    key: Option<String>,
    /// Pick the key out of each JSON line or CSV row
    #[arg(long, value_name = "EXPR", conflicts_with = "key")]
    key_expr: Option<Pick>,
    /// Add a header; again for more
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = message::header)]
    headers: Vec<(String, String)>,
    /// Pick a header out of each JSON line or CSV row; again for more
    #[arg(long = "header-expr", value_name = "NAME=EXPR", value_parser = message::picked_header)]
    header_exprs: Vec<(String, Pick)>,
    /// The type of the event: header ce_type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Publish a single body that many times; of lines and rows no more than that
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// No faster than that, such as 50/s or 100/m
    #[arg(long)]
    rate: Option<Rate>,
    /// Deliver that much later
    #[arg(long = "in", value_name = "DURATION", value_parser = later, allow_hyphen_values = true, conflicts_with = "at")]
    after: Option<Duration>,
    /// Deliver then: 2026-11-01T08:30:00Z, +5m, ...
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    at: Option<Timestamp>,
    /// Publish a tombstone: a key without content
    #[arg(long, requires = "key", conflicts_with_all = ["file", "format"])]
    tombstone: bool,
}

fn later(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        return Err(
            "a message cannot be delivered before it is published; it takes how much later".to_owned()
        );
    }
    crate::settings::duration(text)
}

fn moment(text: &str) -> Result<Timestamp, String> {
    crate::time::parse(text, Timestamp::now())
}

/// The most records that wait between reading and publishing.
const READ_AHEAD: usize = 256;
/// The most bytes of theirs, but for one record that is larger.
const READ_AHEAD_BYTES: u32 = 4 * 1024 * 1024;

/// Publishes.
///
/// # Errors
/// Nothing could be published (the broker's code), or not all of it (5).
pub(crate) async fn run(mut args: Args, session: &mut Session) -> Result<(), Failure> {
    if args.body.as_deref() == Some("-") {
        return Err(
            Failure::usage("a BODY of - is not stdin").hint("leave it out, or say --file -, to read stdin")
        );
    }
    let picks = Picks { key: args.key_expr.take(), headers: std::mem::take(&mut args.header_exprs) };
    if (picks.key.is_some() || !picks.headers.is_empty()) && !matches!(args.format, Shape::Jsonl | Shape::Csv)
    {
        return Err(Failure::usage("--key-expr and --header-expr need --format jsonl or csv"));
    }
    if args.format == Shape::Export {
        whole_only(&args)?;
    } else if args.topic.is_none() {
        return Err(Failure::usage("which topic? `ropeway pub TOPIC`; only --format export needs none"));
    }
    let broker = session.broker().await?;
    let most = most(&*broker, &args, session.request()).await?;
    let in_flight =
        Bound { messages: session.settings.publish.messages.0, bytes: session.settings.publish.bytes.0 };
    let publisher = Publisher::new(broker, PublisherSettings { in_flight, ..PublisherSettings::default() })?;
    let source = Source::of(&mut args, picks, most, &session.notes)?;
    let recipe = Recipe::of(&mut args);
    let tally = Tally::new(args.topic.clone());
    let pump = Pump {
        topic: args.topic,
        rate: args.rate,
        recipe,
        publisher: publisher.clone(),
        tally: tally.clone(),
    };
    pump.run(source, args.count, session).await;
    if let Err(error) = publisher.close(session.settings.time.stop).await {
        tally.open(publisher.in_flight(), &error);
    }
    tally.report(session)
}

/// What is exported is whole: nothing is added to it.
fn whole_only(args: &Args) -> Result<(), Failure> {
    let adds = args.key.is_some()
        || args.event_type.is_some()
        || !args.headers.is_empty()
        || args.after.is_some()
        || args.at.is_some();
    if adds {
        let what = "with --format export messages are published as they are: without --key, --header, --type, --in and --at";
        return Err(Failure::usage(what));
    }
    Ok(())
}

/// The most bytes of a record that the topic, or the largest where lines name theirs, takes.
async fn most(broker: &dyn MessageBroker, args: &Args, wait: Duration) -> Result<usize, Failure> {
    let topics = match &args.topic {
        Some(topic) => vec![topic.clone()],
        None => within(wait, "list topics", broker.admin().topics()).await?,
    };
    let mut most = 0;
    for topic in topics {
        let about = within(wait, "describe the topic", broker.admin().describe_topic(&topic)).await;
        let about = about.map_err(|failure| failure.of_topic(topic.as_str()))?;
        most = most.max(about.max_message);
    }
    if args.format == Shape::Export {
        // A byte is written as six at the most, and names go with it.
        most = most.saturating_mul(6).saturating_add(64 * 1024);
    }
    Ok(most)
}

/// Where messages come from.
enum Source {
    /// One body, again and again.
    Body(Record, bool),
    /// Lines and rows.
    Records(mpsc::Receiver<Ahead>),
}

/// A record, or why it is none, and the room that it takes while it waits.
type Ahead = (Result<Record, Bad>, OwnedSemaphorePermit);

impl Source {
    fn of(args: &mut Args, picks: Picks, most: usize, notes: &Notes) -> Result<Self, Failure> {
        if args.tombstone || args.body.is_some() {
            let payload = args.body.take().unwrap_or_default().into();
            let body = Record::of(0, payload);
            return Ok(Self::Body(body, args.tombstone));
        }
        let from: Box<dyn Read + Send> = match args.file.as_deref().filter(|file| file.as_os_str() != "-") {
            None => {
                if std::io::stdin().is_terminal() {
                    notes.say("reading from the terminal; Ctrl-D ends the input");
                }
                Box::new(std::io::stdin())
            }
            Some(path) => Box::new(File::open(path).map_err(|error| {
                let exit =
                    if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Error };
                Failure::new(format!("could not open {}", path.display())).caused_by(&error).exits(exit)
            })?),
        };
        let records = read_ahead(from, args.format, picks, most)
            .map_err(|error| Failure::new("could not start to read").caused_by(&error))?;
        Ok(Self::Records(records))
    }
}

/// Reads in a thread of its own, a bounded piece ahead: reading blocks, and a read of stdin cannot be taken back.
fn read_ahead(
    from: Box<dyn Read + Send>,
    shape: Shape,
    picks: Picks,
    most: usize,
) -> std::io::Result<mpsc::Receiver<Ahead>> {
    let (found, records) = mpsc::channel(READ_AHEAD);
    let (room, runtime) = (Arc::new(Semaphore::new(READ_AHEAD_BYTES as usize)), Handle::current());
    std::thread::Builder::new().name("input".to_owned()).spawn(move || {
        records::read(from, shape, &picks, most, |record| {
            let bytes = record.as_ref().map_or(0, Record::size);
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(READ_AHEAD_BYTES);
            let Ok(taken) = runtime.block_on(room.clone().acquire_many_owned(bytes)) else { return false };
            found.blocking_send((record, taken)).is_ok()
        })
    })?;
    Ok(records)
}

/// Moves records to the bus.
struct Pump {
    topic: Option<Topic>,
    rate: Option<Rate>,
    recipe: Recipe,
    publisher: Publisher,
    tally: Tally,
}

impl Pump {
    /// Until the source ends, the count is reached, the program is asked to stop, or a failure will not pass.
    async fn run(&self, source: Source, count: Option<u64>, session: &Session) {
        let stop = session.stop.clone();
        let total = match &source {
            Source::Body(..) => Some(count.unwrap_or(1)),
            Source::Records(_) => count,
        };
        let progress = Progress::new(&session.notes, "published", total);
        let moving = async {
            match source {
                Source::Body(body, tombstone) => {
                    self.repeat(body, tombstone, total.unwrap_or(1), &progress).await
                }
                Source::Records(records) => self.forward(records, count, &progress, session).await,
            }
        };
        tokio::select! {
            biased;
            () = stop.asked() => {}
            () = moving => {}
        }
    }

    async fn repeat(&self, body: Record, tombstone: bool, count: u64, progress: &Progress) {
        let start = Instant::now();
        for number in 0..count {
            self.turn(number, start).await;
            let mut message = self.recipe.message(&body);
            if tombstone {
                message.payload = None;
            }
            let to = self.topic.clone().map(Target::from);
            if !self.publish(to, message, body.line, progress).await {
                return;
            }
        }
    }

    async fn forward(
        &self,
        mut records: mpsc::Receiver<Ahead>,
        count: Option<u64>,
        progress: &Progress,
        session: &Session,
    ) {
        let start = Instant::now();
        let mut number = 0;
        while count.is_none_or(|count| number < count) {
            match records.recv().await {
                None => return,
                Some((Err(bad), _)) => self.tally.refused(&bad, &session.notes),
                Some((Ok(record), _room)) => {
                    self.turn(number, start).await;
                    let line = record.line;
                    let (to, message) = match record.exported {
                        Some(whole) => {
                            let topic = self.topic.clone().unwrap_or(whole.topic);
                            let to = Target { partition: Some(whole.partition), ..topic.into() };
                            (Some(to), whole.message)
                        }
                        None => (self.topic.clone().map(Target::from), self.recipe.message(&record)),
                    };
                    if !self.publish(to, message, line, progress).await {
                        return;
                    }
                    number += 1;
                }
            }
        }
    }

    /// Waits until message `number` may go.
    async fn turn(&self, number: u64, start: Instant) {
        if let Some(rate) = self.rate {
            tokio::time::sleep_until(start + rate.due(number)).await;
        }
    }

    /// Publishes; `false`: there is no sense in going on.
    async fn publish(&self, to: Option<Target>, message: Message, line: u64, progress: &Progress) -> bool {
        // Who names no topic was refused.
        let Some(to) = to else { return false };
        let (tally, id) = (self.tally.clone(), message.id);
        let told = move |outcome| tally.told(line, id, outcome);
        if let Err(failed) = self.publisher.publish_with(to, message, told).await {
            self.tally.told(line, id, Err(failed));
        }
        progress.at(self.tally.published());
        !self.tally.is_hopeless()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    /// Lines without end of 1 MiB each, counted.
    struct Lines(Arc<AtomicU64>);

    impl Read for Lines {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let part = into.len().min(1024);
            let before = self.0.fetch_add(part as u64, SeqCst);
            into[..part].fill(b'x');
            if (before + part as u64) % (1024 * 1024) < part as u64 {
                into[part - 1] = b'\n';
            }
            Ok(part)
        }
    }

    #[tokio::test]
    async fn what_is_read_ahead_is_bounded_in_bytes() {
        const MIB: u64 = 1024 * 1024;
        let read = Arc::new(AtomicU64::new(0));
        let picks = Picks { key: None, headers: Vec::new() };
        let from = Box::new(Lines(read.clone()));
        let mut records = read_ahead(from, Shape::Lines, picks, 5 * MIB as usize).unwrap();
        let ahead = u64::from(READ_AHEAD_BYTES);
        for taken in 0..8 {
            while read.load(SeqCst) < ahead + taken * MIB {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Longer than reading all that the channel would hold takes.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let most = ahead + (taken + 2) * MIB;
            let all = read.load(SeqCst);
            assert!(all <= most, "{all} bytes were read, and {taken} records taken");
            assert!(records.recv().await.unwrap().0.is_ok());
        }
    }
}
