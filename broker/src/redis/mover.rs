//! The task that moves delayed messages which are due, of the topics that this process publishes for later to, follows, or consumes.
//!
//! Any process does, so that none is needed. Not here: when it looks (`delay.rs`).

use super::{
    delay::{Agenda, LOOK, MOST, left, may_hold},
    lasting::{Seldom, is_refusal},
    scripts,
    topics::{Topics, chosen},
};
use crate::{Result, Timestamp, Topic, clock};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, timeout_at},
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
    let mut seldom = Seldom::default();
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
        if due.is_empty() {
            match next {
                None => watched.changed.notified().await,
                Some(at) => _ = timeout_at(at, watched.changed.notified()).await,
            }
            continue;
        }
        for (topic, sure) in due {
            match release(&topics, &topic, sure).await {
                Ok(Some(left)) => watched.agenda().expect(&topic, left, Instant::now()),
                Ok(None) => {}
                Err(error) if error.kind() == crate::ErrorKind::NotFound => watched.agenda().forget(&topic),
                // It is looked at again in a while, also where its mark is old by then: nobody knows what is left.
                Err(error) => {
                    watched.agenda().expect(&topic, LOOK, Instant::now());
                    let now = Instant::now();
                    match is_refusal(&error).then(|| seldom.tell(now)).flatten() {
                        Some(untold) => {
                            tracing::warn!(%error, %topic, untold, "delayed messages are not moved; it is tried again");
                        }
                        None => tracing::debug!(%error, %topic, "delayed messages are looked for again"),
                    }
                }
            }
        }
    }
}

/// Moves what is due in a topic. In what time the next one is, if one is known of. `sure`: it is looked at even if nothing is marked.
async fn release(topics: &Topics, topic: &Topic, sure: bool) -> Result<Option<Duration>> {
    let description = if sure { topics.get(topic).await? } else { topics.ask(topic).await? };
    if !sure && !may_hold(description.held, clock::wall()) {
        return Ok(None);
    }
    let life = description.life.map(|life| life.to_string()).unwrap_or_default();
    let partitions = chosen(topic, &description, None)?;
    let keys = partitions.into_iter().map(|partition| topics.partition(topic, &description, partition));
    let names: Vec<_> =
        keys.map(|keys| [keys.log().to_owned(), keys.part(), keys.delayed(), keys.held()]).collect();
    let args = [life.as_str(), AT_ONCE];
    let calls: Vec<_> = names.iter().map(|names| (&names[..], &args[..])).collect();
    let mut soonest = None;
    for told in topics.commands.scripts(&scripts::RELEASE_DUE, &calls).await? {
        let told = told?;
        match told.word() {
            "moved" => {
                let time =
                    |at: usize| told.text(at).parse::<f64>().ok().map(|ms| Timestamp::from_millis(ms as i64));
                if let (Some(due), Some(now)) = (time(2), time(3)) {
                    let left = left(due, now);
                    soonest = Some(soonest.map_or(left, |soonest: Duration| soonest.min(left)));
                }
            }
            // Deleted, and perhaps made again, since it was described.
            "life" | "none" => {
                topics.forget(topic);
                soonest = soonest.or(Some(LOOK));
            }
            _ => return Err(told.strange()),
        }
    }
    Ok(soonest)
}
