//! `ropeway data export`: prints every message that can be read.

use super::{Dir, SCRATCH, Scratch, failed};
use crate::{
    exit::Exit,
    failure::Failure,
    output::{
        Progress,
        message::{Decode, SHAPE, Shown},
    },
    session::Session,
    settings::Format,
};
use ropeway_broker::{
    Topic,
    salvage::{Found, Loss, Salvaged, SalvagedTopic},
};
use std::{collections::BTreeSet, ops::ControlFlow, path::PathBuf};

/// What `data export` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
{SCRATCH}
Prints NDJSON, topic by topic and partition by partition, in their order: byte for byte what was
published. `ropeway pub --format export` reads it: each message goes to the topic and partition
it was in, which must exist. What groups have finished is not exported.
{SHAPE}
  no payload is shown as json; position is null for delayed messages
What is lost is told on stderr. A topic whose name is lost is called life-N."))]
pub(crate) struct Args {
    /// The directory, or its URL: embedded:DIR
    dir: Dir,
    /// Export only that topic; again for more [default: all]
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<Topic>,
    /// Export delayed messages too, after the others of their topic; they have deliver_at
    #[arg(long)]
    delayed: bool,
    /// Make the scratch directory in DIR [default: beside the directory]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// Exports.
///
/// # Errors
/// Something could not be read (3); those of the directory and of stdout.
pub(super) fn run(args: &Args, session: &mut Session) -> Result<(), Failure> {
    if session.by_flag("output.format") && session.format() != Format::Ndjson {
        return Err(Failure::usage("`data export` prints ndjson and nothing else"));
    }
    let dir = args.dir.existing()?;
    let scratch = Scratch::make(dir, args.scratch.as_deref())?;
    tokio::task::block_in_place(|| {
        let salvaged = Salvaged::open(dir, scratch.path()).map_err(failed)?;
        export(&salvaged, args, session)
    })
}

fn export(salvaged: &Salvaged, args: &Args, session: &mut Session) -> Result<(), Failure> {
    let known: BTreeSet<&str> = salvaged.topics().iter().map(|topic| topic.name.as_str()).collect();
    if let Some(absent) = args.topics.iter().find(|topic| !known.contains(topic.as_str())) {
        let known: Vec<&str> = known.into_iter().collect();
        let hint = format!("there are: {}", if known.is_empty() { "none".into() } else { known.join(", ") });
        return Err(Failure::new(format!("there is no topic {absent} in it"))
            .exits(Exit::NotFound)
            .hint(hint));
    }
    let (problems, problem_count) = salvaged.problems();
    let damage = &salvaged.damage().damage;
    let mut run = Run {
        progress: Progress::new(&session.notes, "exported", None),
        session,
        exported: 0,
        topics: 0,
        lost: 0,
        more_lost: false,
        losses: 0,
        delayed: 0,
        failure: None,
    };
    let mut tell = damage.iter().map(ToString::to_string).chain(problems.iter().cloned());
    tell.by_ref().take(TOLD).for_each(|line| run.session.notes.warn(&line));
    let untold = tell.count() as u64 + problem_count - problems.len() as u64;
    if untold > 0 {
        run.session.notes.warn(&format!("{untold} places more are damaged; `data check` tells them"));
    }
    let wanted = |topic: &&SalvagedTopic| args.topics.is_empty() || args.topics.contains(&topic.name);
    for topic in salvaged.topics().iter().filter(wanted) {
        run.topic(salvaged, topic, args.delayed)?;
        if run.session.stop.is_asked() {
            return run.session.out.flush();
        }
    }
    let is_damaged = !damage.is_empty() || problem_count > 0;
    run.end(is_damaged, args)
}

/// How many of a kind are told one by one.
const TOLD: usize = 20;

struct Run<'a> {
    session: &'a mut Session,
    progress: Progress,
    exported: u64,
    topics: u64,
    lost: u64,
    more_lost: bool,
    losses: u64,
    /// Left out.
    delayed: u64,
    failure: Option<Failure>,
}

impl Run<'_> {
    fn topic(&mut self, salvaged: &Salvaged, topic: &SalvagedTopic, delayed: bool) -> Result<(), Failure> {
        self.topics += 1;
        salvaged.messages(topic, &mut |found| self.take(topic, found)).map_err(failed)?;
        if delayed && self.failure.is_none() && !self.session.stop.is_asked() {
            salvaged.delayed(topic, &mut |found| self.take(topic, found)).map_err(failed)?;
        } else {
            self.delayed += topic.delayed.unwrap_or(0);
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn take(&mut self, topic: &SalvagedTopic, found: Found) -> ControlFlow<()> {
        match found {
            Found::Message { partition, position, message } => {
                let name = topic.name.as_str();
                let shown = Shown::at(name, partition, position, &message, Decode::Text);
                if let Err(failure) = self.session.out.ndjson(&shown) {
                    self.failure = Some(failure);
                    return ControlFlow::Break(());
                }
                self.exported += 1;
                self.progress.at(self.exported);
            }
            Found::Lost(loss) => self.lose(topic, &loss),
        }
        if self.session.stop.is_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn lose(&mut self, topic: &SalvagedTopic, loss: &Loss) {
        self.losses += 1;
        match loss.count {
            Some(count) => self.lost += count,
            None => self.more_lost = true,
        }
        if self.losses == TOLD as u64 + 1 {
            self.session.notes.warn("more is lost, and only counted; `data check` tells where");
        }
        if self.losses > TOLD as u64 {
            return;
        }
        let partition = loss.partition.map(|number| format!("/{number}")).unwrap_or_default();
        let from = match loss.from {
            Some(from) => format!(" from {from}"),
            None => String::new(),
        };
        let count = loss.count.map_or_else(|| "an unknown number of".to_owned(), |count| count.to_string());
        let why = &loss.why;
        self.session
            .notes
            .warn(&format!("{}{partition}{from}: {count} messages are lost: {why}", topic.name));
    }

    fn end(self, is_damaged: bool, args: &Args) -> Result<(), Failure> {
        self.session.out.flush()?;
        let notes = &self.session.notes;
        if self.delayed > 0 {
            notes.say(&format!("{} delayed messages are left out; --delayed exports them too", self.delayed));
        }
        let sum = format!("exported {} messages of {} topics", self.exported, self.topics);
        if !is_damaged && self.losses == 0 {
            notes.say(&sum);
            return Ok(());
        }
        let lost = match (self.lost, self.more_lost) {
            (0, false) => "what else was there is not known".to_owned(),
            (0, true) => "an unknown number is lost".to_owned(),
            (lost, true) => format!("at least {lost} are lost"),
            (lost, false) => format!("{lost} are lost"),
        };
        let hint = format!("`ropeway data check {}` tells all that is damaged", args.dir.0.display());
        Err(Failure::new(format!("{sum}; {lost}")).exits(Exit::Assertion).hint(hint))
    }
}
