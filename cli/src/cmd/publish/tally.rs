//! What came of the messages: counted as the broker answers, told line by line while few, and summed up at the end.
//!
//! Not here: publishing (`mod.rs`), what is wrong with a line (`records.rs`).

use super::records::Bad;
use crate::{exit::Exit, failure::Failure, output::Notes, session::Session};
use ropeway_broker::{Durability, Error, ErrorKind, MessageId, PublishFailed, Receipt, Topic};
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most lines that are told one by one.
const MOST_TOLD: u64 = 20;

/// What came of the messages. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// `None`: each message names its own.
    topic: Option<Topic>,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    published: u64,
    refused: u64,
    failed: u64,
    last: Option<(MessageId, Receipt)>,
    first_error: Option<Error>,
    failures: Vec<String>,
    hopeless: bool,
    input: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    topic: Option<&'a str>,
    published: u64,
    refused: u64,
    failed: u64,
    durability: Option<&'static str>,
    last: Option<Last>,
}

#[derive(Debug, Serialize)]
struct Last {
    partition: u32,
    position: Option<String>,
    id: String,
}

impl Tally {
    /// Nothing yet.
    pub(super) fn new(topic: Option<Topic>) -> Self {
        Self { topic, counts: Arc::default() }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome of the message of a line; 0 where there are no lines.
    pub(super) fn told(&self, line: u64, id: MessageId, outcome: Result<Receipt, PublishFailed>) {
        let mut counts = self.counts();
        match outcome {
            Ok(receipt) => {
                counts.published += 1;
                counts.last = Some((id, receipt));
            }
            Err(failed) => {
                counts.failed += 1;
                let error = &failed.failed.error;
                if counts.failed <= MOST_TOLD {
                    let sure = if failed.may_be_written { " (it may be written)" } else { "" };
                    let line = if line > 0 { format!("line {line}: ") } else { String::new() };
                    counts.failures.push(format!("{line}not published{sure}: {error}"));
                }
                // These will be the same for every other message.
                counts.hopeless |= matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::Unauthorized | ErrorKind::Closed | ErrorKind::Corrupt
                );
                counts.first_error.get_or_insert_with(|| error.clone());
            }
        }
    }

    /// A line that became no message.
    pub(super) fn refused(&self, bad: &Bad, notes: &Notes) {
        let mut counts = self.counts();
        match bad {
            Bad::Record { line, why } => {
                counts.refused += 1;
                match counts.refused {
                    told if told <= MOST_TOLD => notes.warn(&format!("line {line}: refused: {why}")),
                    told if told == MOST_TOLD + 1 => notes.warn("more lines are refused and only counted"),
                    _ => {}
                }
            }
            Bad::Input { why } => counts.input = Some(why.clone()),
        }
    }

    /// So many messages have no outcome, and the time to wait for it is over.
    pub(super) fn open(&self, open: usize, error: &Error) {
        let mut counts = self.counts();
        counts.failed += open as u64;
        counts.failures.push(format!("{open} messages may be written or not: {error}"));
        counts.first_error.get_or_insert_with(|| error.clone());
    }

    /// How many were acked.
    pub(super) fn published(&self) -> u64 {
        self.counts().published
    }

    /// Whether no other message will do better.
    pub(super) fn is_hopeless(&self) -> bool {
        self.counts().hopeless
    }

    /// Prints what came of it.
    ///
    /// # Errors
    /// Nothing was published (the code of the first error, else 1), or not all of it (5).
    pub(super) fn report(&self, session: &mut Session) -> Result<(), Failure> {
        let counts = self.counts();
        for failure in &counts.failures {
            session.notes.warn(failure);
        }
        if counts.failed > MOST_TOLD {
            session.notes.warn(&format!("{} more were not published", counts.failed - MOST_TOLD));
        }
        let report = Report {
            topic: self.topic.as_ref().map(Topic::as_str),
            published: counts.published,
            refused: counts.refused,
            failed: counts.failed,
            durability: counts.last.as_ref().map(|(_, receipt)| receipt.durability.as_str()),
            last: counts.last.as_ref().map(|(id, receipt)| Last {
                partition: receipt.partition,
                position: receipt.position.map(|position| position.to_string()),
                id: id.to_string(),
            }),
        };
        let mut lines = vec![("published", counts.published.to_string())];
        lines.extend(self.topic.as_ref().map(|topic| ("topic", topic.to_string())));
        if let Some((_, Receipt { partition, position, durability })) = counts.last {
            let at = position.map_or_else(|| "delayed".to_owned(), |position| position.to_string());
            lines.push(("last", format!("partition {partition}, {at}")));
            lines.push(("survives", survives(durability).to_owned()));
        }
        for (name, count) in [("refused", counts.refused), ("failed", counts.failed)] {
            if count > 0 {
                lines.push((name, count.to_string()));
            }
        }
        session.out.object(session.settings.output.format, &report, &lines)?;
        verdict(&counts, self.topic.as_ref())
    }
}

const fn survives(durability: Durability) -> &'static str {
    match durability {
        Durability::Volatile => "nothing that is certain (`ropeway doctor URL` says why)",
        Durability::ProcessCrash => "the process being killed",
        Durability::PowerLoss => "the machine losing power",
        Durability::Replicated => "the loss of the machine",
    }
}

fn verdict(counts: &Counts, topic: Option<&Topic>) -> Result<(), Failure> {
    let left = counts.refused + counts.failed;
    if let Some(why) = &counts.input {
        let read = format!("the input could not be read to its end: {why}");
        return Err(Failure::new(read).exits(if counts.published > 0 { Exit::Partial } else { Exit::Error }));
    }
    if left == 0 {
        return Ok(());
    }
    let to = topic.map(|topic| format!(" to {topic}")).unwrap_or_default();
    let what = format!("{left} of {} messages were not published{to}", left + counts.published);
    let exit = if counts.published > 0 { Exit::Partial } else { Exit::Error };
    let failure = Failure::new(what).exits(exit);
    match &counts.first_error {
        Some(error) if counts.published == 0 && counts.refused == 0 => {
            Err(failure.caused_by(error).by_broker(error.kind()).exits(Exit::of(error.kind())))
        }
        Some(error) => Err(failure.caused_by(error).by_broker(error.kind())),
        None => Err(failure.hint("the warnings above say which and why")),
    }
}
