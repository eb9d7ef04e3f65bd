//! The task that moves delayed messages which are due, of the topics that this process publishes for later to, follows, or consumes.
//!
//! Any process does, so that none is needed. Not here: when it looks (`delay.rs`).

use super::{
    commands::Told,
    delay::{Agenda, LOOK, MOST, left, may_hold},
    lasting::{self, Seldom},
    scripts,
    topics::{Topics, chosen},
};
use crate::{Error, ErrorKind, Result, Timestamp, Topic, clock};
use futures::{StreamExt as _, stream::FuturesUnordered};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

/// How many messages of a partition are moved at once.
const AT_ONCE: &str = "128";

/// Looks after delayed messages until it is dropped.
#[derive(Debug)]
pub(super) struct Mover {
    agenda: Arc<Watched>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Watched {
    agenda: Mutex<Agenda>,
    changed: Notify,
}

impl Watched {
    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Mover {
    pub(super) fn start(topics: Arc<Topics>) -> Self {
        let agenda = Arc::<Watched>::default();
        let task = tokio::spawn(run(topics, Arc::clone(&agenda))).abort_handle();
        Self { agenda, task }
    }

    /// Looks after a topic from now on.
    pub(super) fn watch(&self, topic: &Topic) {
        self.agenda.agenda().watch(topic, Instant::now());
        self.agenda.changed.notify_one();
    }

    /// A message of the topic is due in that time.
    pub(super) fn expect(&self, topic: &Topic, left: Duration) {
        self.agenda.agenda().expect(topic, left, Instant::now());
        self.agenda.changed.notify_one();
    }

    /// Looks after nothing any more.
    pub(super) fn stop(&self) {
        self.task.abort();
    }
}

async fn run(topics: Arc<Topics>, watched: Arc<Watched>) {
    let (mut seldom, mut looks) = (Seldom::default(), FuturesUnordered::new());
    loop {
        let (due, next, left_out) = {
            let mut agenda = watched.agenda();
            (agenda.due(Instant::now()), agenda.next(), agenda.left_out())
        };
        if let Some(topic) = left_out {
            tracing::warn!(
                %topic,
                "this process moves delayed messages of {MOST} topics already: those of this topic, and of others beyond, come late unless another process moves them"
            );
        }
        looks.extend(due.into_iter().map(|(topic, sure)| look(&topics, topic, sure)));
        tokio::select! {
            Some((topic, looked)) = looks.next() => note(&mut watched.agenda(), &topic, looked, &mut seldom),
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            () = watched.changed.notified() => {}
        }
    }
}

/// What a look at a topic found: in what time the next message is due, if one is known of, and what kept it from some partitions.
type Looked = (Option<Duration>, Option<Error>);

async fn look(topics: &Topics, topic: Topic, sure: bool) -> (Topic, Result<Looked>) {
    let looked = release(topics, &topic, sure).await;
    (topic, looked)
}

/// Takes note of when a topic is looked at again.
fn note(agenda: &mut Agenda, topic: &Topic, looked: Result<Looked>, seldom: &mut Seldom) {
    let now = Instant::now();
    let (left, failure) = looked.unwrap_or_else(|error| (None, Some(error)));
    agenda.done(topic);
    left.into_iter().for_each(|left| agenda.expect(topic, left, now));
    match failure {
        None => {}
        Some(error) if error.kind() == ErrorKind::NotFound => agenda.forget(topic),
        // It is looked at again in a while, also where its mark is old by then: nobody knows what is left.
        Some(error) => {
            agenda.expect(topic, LOOK, now);
            match seldom.tell_of(&error, now) {
                Some(untold) => {
                    tracing::warn!(%error, %topic, untold, "delayed messages are not moved; it is tried again");
                }
                None => tracing::debug!(%error, %topic, "delayed messages are looked for again"),
            }
        }
    }
}

/// Moves what is due in a topic. `sure`: it is looked at even if nothing is marked.
///
/// # Errors
/// What keeps it from all partitions.
async fn release(topics: &Topics, topic: &Topic, sure: bool) -> Result<Looked> {
    let kept = if sure { topics.kept(topic) } else { None };
    let description = match kept {
        Some(kept) => kept,
        None => topics.ask_or_known(topic).await?,
    };
    if !sure && !may_hold(description.held, clock::wall()) {
        return Ok((None, None));
    }
    let life = description.life.map(|life| life.to_string()).unwrap_or_default();
    let partitions = chosen(topic, &description, None)?;
    let keys = partitions.into_iter().map(|partition| topics.partition(topic, &description, partition));
    let names: Vec<_> =
        keys.map(|keys| [keys.log().to_owned(), keys.part(), keys.delayed(), keys.held()]).collect();
    let args = [life.as_str(), AT_ONCE];
    let calls: Vec<_> = names.iter().map(|names| (&names[..], &args[..])).collect();
    let (mut soonest, mut failure) = (None, None);
    for told in topics.commands.scripts(&scripts::RELEASE_DUE, &calls).await? {
        let known = told.and_then(|told| match told.word() {
            "moved" => Ok(next_due(&told)),
            // Deleted, and perhaps made again, since it was described.
            "life" | "none" => {
                topics.forget(topic);
                Ok(Some(LOOK))
            }
            _ => Err(told.strange()),
        });
        match known {
            Ok(left) => soonest = soonest.into_iter().chain(left).min(),
            Err(error) => failure = lasting::told(failure, error),
        }
    }
    Ok((soonest, failure))
}

/// In what time the next message of a partition is due, as `release_due.lua` tells it.
fn next_due(told: &Told) -> Option<Duration> {
    let time = |at: usize| told.text(at).parse::<f64>().ok().map(|ms| Timestamp::from_millis(ms as i64));
    Some(left(time(2)?, time(3)?))
}
