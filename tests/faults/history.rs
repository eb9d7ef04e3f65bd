//! What a worker did, written where its death cannot reach it: one append-only file a life for what is published and one for what each
//! group handles, one line an event, one write a line.
//!
//! The order of lines is the order of events: what begins is written before it begins, what ended after it ended. So a killed
//! worker may have done more than its history says, never less.
//! Not here: what a history must look like (`check.rs`).

use crate::traffic;
use ropeway_broker::Timestamp;
use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A message of the test: the key, and its number among all of that key. Numbers of one key only grow, over all lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) key: String,
    pub(crate) number: u64,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The members are running.
    Ready,
    /// About to be published.
    Invoke(Id),
    /// In the log, at that place.
    Acked(Id, Place),
    /// To be in the log when its time has come.
    Delayed(Id),
    /// Certainly not in the log.
    Refused(Id),
    /// Perhaps in the log.
    Unknown(Id),
    /// A handler begins.
    Start(Id),
    /// A handler ended.
    End(Id, Outcome),
    /// A member says that these are done.
    Ack(u32, Vec<Id>),
    /// The acks of these are durable.
    Confirmed(Vec<Id>),
    /// Dead-lettered and acked, in one commit.
    Forwarded(Id),
    /// Nothing is left to do, and the worker ends of its own will.
    Drained,
    /// The power is about to go; written by who cuts it.
    Cut,
}

/// Partition and position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) partition: u32,
    pub(crate) position: String,
}

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Rejected,
    /// To be tried again.
    Failed,
}

/// Writes a history. Cloning shares the file.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    file: Arc<fs::File>,
    /// Who writes into a history that several processes share, and when it began.
    shared: Option<(u32, Timestamp)>,
}

impl Writer {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = fs::OpenOptions::new().append(true).create_new(true).open(path)?;
        Ok(Self { file: Arc::new(file), shared: None })
    }

    /// Writes into a history to which other processes write as well: each line begins with the number of the worker and the milliseconds
    /// since `began`. Lines lie in the order in which they were written.
    pub(crate) fn share(path: &Path, worker: u32, began: Timestamp) -> io::Result<Self> {
        let file = fs::OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self { file: Arc::new(file), shared: Some((worker, began)) })
    }

    pub(crate) const fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Adds an event.
    pub(crate) fn write(&self, event: &Event) {
        self.line(format_args!("{event}"));
    }

    /// Adds what only a shared history holds.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        if self.is_shared() {
            self.line(what);
        }
    }

    /// One line, one write. A history that cannot be written proves nothing: the worker stops.
    fn line(&self, what: fmt::Arguments<'_>) {
        let line = match self.shared {
            None => format!("{what}\n"),
            Some((worker, began)) => {
                format!("{worker} {} {what}\n", Timestamp::now().since(began).as_millis())
            }
        };
        if let Err(error) = (&*self.file).write_all(line.as_bytes()) {
            eprintln!("could not write the history: {error}");
            std::process::exit(3);
        }
    }
}

/// The history of what one of the groups did, beside that of what was published.
pub(crate) fn of_group(path: &Path, group: usize) -> PathBuf {
    path.with_extension(format!("group-{group}"))
}

/// Writes down that the power is about to go.
pub(crate) fn cut_begins(path: &Path) -> io::Result<()> {
    let groups = (0..traffic::GROUPS).map(|group| of_group(path, group));
    for path in groups.chain([path.to_owned()]).filter(|path| path.exists()) {
        fs::OpenOptions::new().append(true).open(path)?.write_all(format!("{}\n", Event::Cut).as_bytes())?;
    }
    Ok(())
}

/// Without what was promised after the power had begun to go: nobody could have heard it. (A sync that is under way when ext4 is shut down
/// may even end well though nothing of it was written.) That something was begun or refused stays, for some of it may be on the disk.
pub(crate) fn heard(events: Vec<Event>) -> Vec<Event> {
    let mut is_cut = false;
    let is_heard = |event: &Event| {
        is_cut |= *event == Event::Cut;
        let promises = matches!(
            event,
            Event::Acked(..) | Event::Delayed(_) | Event::Confirmed(..) | Event::Forwarded(_)
        );
        !(is_cut && promises)
    };
    events.into_iter().filter(is_heard).collect()
}

/// A life as each group saw it: what was published, then what the group did, then whether it ended drained.
pub(crate) fn read_life(path: &Path) -> Result<Vec<Vec<Event>>, String> {
    let read = |path: &Path| if path.exists() { read(path).map(heard) } else { Ok(Vec::new()) };
    let published = read(path)?;
    let of_group = |group| {
        let (mut events, end): (Vec<Event>, Vec<Event>) =
            published.iter().cloned().partition(|event| *event != Event::Drained);
        events.extend(read(&of_group(path, group))?);
        events.extend(end);
        Ok(events)
    };
    (0..traffic::GROUPS).map(of_group).collect()
}

/// Reads a history; a last line that was cut by the kill is left out.
pub(crate) fn read(path: &Path) -> Result<Vec<Event>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let parse = |line: &str| parse(line).ok_or_else(|| format!("not an event: {line:?}"));
    text[..whole].lines().map(parse).collect()
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key, self.number)
    }
}

impl std::str::FromStr for Id {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (key, number) = text.split_once(':').ok_or(())?;
        Ok(Self { key: key.to_owned(), number: number.parse().map_err(|_| ())? })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => write!(f, "ready"),
            Self::Invoke(id) => write!(f, "invoke {id}"),
            Self::Acked(id, place) => write!(f, "acked {id} {} {}", place.partition, place.position),
            Self::Delayed(id) => write!(f, "delayed {id}"),
            Self::Refused(id) => write!(f, "refused {id}"),
            Self::Unknown(id) => write!(f, "unknown {id}"),
            Self::Start(id) => write!(f, "start {id}"),
            Self::End(id, Outcome::Done) => write!(f, "end {id} done"),
            Self::End(id, Outcome::Rejected) => write!(f, "end {id} rejected"),
            Self::End(id, Outcome::Failed) => write!(f, "end {id} failed"),
            Self::Ack(member, ids) => {
                write!(f, "ack {member}")?;
                ids.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Self::Confirmed(ids) => {
                write!(f, "confirmed")?;
                ids.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Self::Forwarded(id) => write!(f, "forwarded {id}"),
            Self::Drained => write!(f, "drained"),
            Self::Cut => write!(f, "cut"),
        }
    }
}

fn parse(line: &str) -> Option<Event> {
    let mut words = line.split(' ');
    let what = words.next()?;
    let words: Vec<&str> = words.collect();
    let id = |i: usize| words.get(i)?.parse::<Id>().ok();
    let ids = |words: &[&str]| words.iter().map(|word| word.parse::<Id>().ok()).collect::<Option<Vec<_>>>();
    Some(match (what, words.len()) {
        ("ready", 0) => Event::Ready,
        ("drained", 0) => Event::Drained,
        ("cut", 0) => Event::Cut,
        ("invoke", 1) => Event::Invoke(id(0)?),
        ("delayed", 1) => Event::Delayed(id(0)?),
        ("refused", 1) => Event::Refused(id(0)?),
        ("unknown", 1) => Event::Unknown(id(0)?),
        ("start", 1) => Event::Start(id(0)?),
        ("forwarded", 1) => Event::Forwarded(id(0)?),
        ("acked", 3) => {
            Event::Acked(id(0)?, Place { partition: words[1].parse().ok()?, position: words[2].to_owned() })
        }
        ("end", 2) => {
            let outcome = match words[1] {
                "done" => Outcome::Done,
                "rejected" => Outcome::Rejected,
                "failed" => Outcome::Failed,
                _ => return None,
            };
            Event::End(id(0)?, outcome)
        }
        ("confirmed", 1..) => Event::Confirmed(ids(&words)?),
        ("ack", 2..) => Event::Ack(words[0].parse().ok()?, ids(&words[1..])?),
        _ => return None,
    })
}

/// What was open when a life ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) publishes: usize,
    pub(crate) handlers: usize,
    pub(crate) acks: usize,
}

impl Open {
    /// What was begun and not ended in one life.
    pub(crate) fn at_the_end_of(life: &[Event]) -> Self {
        let mut publishes = std::collections::BTreeSet::new();
        let mut handlers = std::collections::BTreeSet::new();
        let mut acks = std::collections::BTreeSet::new();
        for event in life {
            match event {
                Event::Invoke(id) => {
                    publishes.insert(id);
                }
                Event::Acked(id, _) | Event::Delayed(id) | Event::Refused(id) | Event::Unknown(id) => {
                    publishes.remove(id);
                }
                Event::Start(id) => {
                    handlers.insert(id);
                }
                Event::End(id, _) => {
                    handlers.remove(id);
                }
                Event::Ack(_, ids) => acks.extend(ids),
                Event::Confirmed(ids) => ids.iter().for_each(|id| _ = acks.remove(id)),
                Event::Ready | Event::Forwarded(_) | Event::Drained | Event::Cut => {}
            }
        }
        Self { publishes: publishes.len(), handlers: handlers.len(), acks: acks.len() }
    }

    /// Whether a kill at that moment proves something.
    pub(crate) const fn counts(self) -> bool {
        self.publishes > 0 && self.handlers > 0 && self.acks > 0
    }
}
