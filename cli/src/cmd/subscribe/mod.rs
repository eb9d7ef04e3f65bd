//! `ropeway sub`: prints messages, as a reader that leaves nothing behind or as a member of a group.
//!
//! Here: what it takes. Not here: reading (`reading.rs`), joining a group (`joining.rs`), what is printed (`printer.rs`).

mod joining;
mod printer;
mod reading;

use crate::{
    exit::Exit,
    failure::Failure,
    offset,
    output::message::{Decode, SHAPE},
    session::Session,
};
use printer::Printer;
use ropeway_broker::{Event, GapReason, Group, Owned, Result, Start, Topic};
use std::{pin::pin, task::Poll};
use tokio::time::Instant;

/// What `sub` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
Without --group it reads, and leaves nothing behind. With --group it joins, shares the partitions
with the other members, and acks what was printed. It follows until -n, --until or Ctrl-C (which
ends with 130); --timeout bounds the whole run (5).
{}
  -o is --output everywhere, so the short form of --offset is -O.
{SHAPE}
  json prints one list, ndjson an object on each line, raw payloads each followed by --separator", offset::HELP))]
pub(crate) struct Args {
    /// The topics
    #[arg(required = true)]
    topics: Vec<Topic>,
    /// Join this group and ack what was printed
    #[arg(short, long)]
    group: Option<Group>,
    /// Where to start; in a group only where it has no position [default: end; with --until or --group: start]
    #[arg(short = 'O', long, value_name = "OFFSET", value_parser = offset::from_args, allow_hyphen_values = true)]
    offset: Option<Start>,
    /// Read only this partition
    #[arg(short, long, conflicts_with = "group")]
    partition: Option<u32>,
    /// End after that many messages
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End when everything that was there at the start has been printed
    #[arg(long, value_name = "WHAT")]
    until: Option<Until>,
    /// Show headers too (table)
    #[arg(long)]
    headers: bool,
    /// How payloads are shown (json, ndjson)
    #[arg(long, value_enum, default_value_t)]
    decode: Decode,
    /// What follows each payload (raw); \n, \t and \0 are understood
    #[arg(long, default_value = "\\n", value_parser = separator)]
    separator: Separator,
}

/// When to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Until {
    /// What was there at the start
    End,
}

/// What follows each payload.
#[derive(Clone, Debug)]
struct Separator(Vec<u8>);

fn separator(text: &str) -> std::result::Result<Separator, String> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('0') => '\0',
                Some('\\') => '\\',
                _ => return Err("after a backslash it takes n, t, 0 or another backslash".to_owned()),
            },
            c => c,
        };
        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(Separator(bytes))
}

/// Prints messages.
///
/// # Errors
/// Those of the broker; out of time, or records that could not be read (5).
pub(crate) async fn run(args: Args, session: &mut Session) -> std::result::Result<(), Failure> {
    if matches!(args.offset, Some(Start::At(_))) && args.partition.is_none() {
        return Err(Failure::usage("a position lies in one partition")
            .hint("say which with --partition, or start with start, end or a moment such as @-1h"));
    }
    let broker = session.broker().await?;
    let mut printer = Printer::new(&args, session.format());
    let done = match &args.group {
        None => reading::run(&args, broker, session, &mut printer).await,
        Some(group) => joining::run(&args, group, broker, session, &mut printer).await,
    };
    let closed = printer.end(&mut session.out);
    done.and(closed)?;
    match printer.unreadable() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} records could not be read; they are told above"))
            .exits(Exit::Partial)),
    }
}

/// The next thing to do.
enum Next {
    Event(Event),
    Stop,
}

/// Waits for the next event, the wish to stop, or the end of the time. What is printed is out before it waits.
async fn next(
    event: impl Future<Output = Result<Event>>,
    deadline: Option<Instant>,
    session: &mut Session,
) -> std::result::Result<Next, Failure> {
    let mut event = pin!(event);
    if session.stop.is_asked() {
        return Ok(Next::Stop);
    }
    if let Poll::Ready(event) = futures::poll!(&mut event) {
        return Ok(Next::Event(event?));
    }
    session.out.flush()?;
    let over = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = session.stop.asked() => Ok(Next::Stop),
        event = event => Ok(Next::Event(event?)),
        () = over => Err(Failure::new("the time of --timeout is over before what was asked for came").exits(Exit::Partial)),
    }
}

/// The end of the run, where `--timeout` was given.
fn deadline(session: &Session) -> Option<Instant> {
    session.by_flag("time.request").then(|| Instant::now() + session.request())
}

/// Tells a gap.
fn tell_gap(session: &Session, of: &Owned, event: (Option<impl ToString>, Option<impl ToString>, GapReason)) {
    let (from, to, why) = event;
    let from = from.map(|from| format!(" from {}", from.to_string())).unwrap_or_default();
    let to = to.map(|to| format!(" to {}", to.to_string())).unwrap_or_default();
    let why = match why {
        GapReason::Trimmed => "they were removed by retention or purge",
        GapReason::Recreated => "the topic was deleted and made again",
        GapReason::Truncated => "the log lost its end",
        GapReason::Damaged => "they lie in a damaged block",
        other => other.as_str(),
    };
    session.notes.warn(&format!("{}/{}: messages{from}{to} are missing: {why}", of.topic, of.partition));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_may_be_what_a_shell_cannot_write() {
        assert_eq!(separator("").unwrap().0, b"");
        assert_eq!(separator("\\0-\\\\\\n").unwrap().0, b"\0-\\\n");
        assert!(separator("\\x").is_err() && separator("\\").is_err());
    }
}
