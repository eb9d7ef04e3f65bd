//! A consumer: one thread polls it, and is shown records, problems, changes of the assignment and answers to commits.
//!
//! What never changes: nothing is committed, stored or reset by the library, and the end of a partition is not told: with batches, that loses
//! messages. Not here: answers to the group (`assign.rs`), commits (`commit.rs`), questions to servers (`admin.rs`).

#![expect(unsafe_code, reason = "polls a consumer of the C library, and closes it")]

use super::{
    admin::NO_TOPIC,
    client::{Client, aside},
    code::{Code, Trouble},
    commit::Commits,
    conf::Conf,
    list::{Answered, Names, Place},
    message::{Messages, Read, RecordRef},
    metadata, native,
    notes::Notes,
    queue::{Bell, Queue},
    rebalance::Change,
    unread,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// What this module decides, whatever else is set. See `kafka-facts` in the tests of this module for what happens otherwise.
const FIXED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "false"),
    ("auto.offset.reset", "error"),
    ("allow.auto.create.topics", "false"),
];

/// How long a member that leaves looks for a server, where it knew of none last.
const FOUND: Duration = Duration::from_secs(1);
/// At most so many records are taken from the library at a time.
const MOST: usize = 10_000;
/// And at most so many are read to their end when it closes.
const LEFT: usize = 1_000_000;
/// How soon it is looked for the answer to a commit while nothing else happens; then after twice as long each time.
const SOON: Duration = Duration::from_millis(1);
/// And how seldom.
const SELDOM: Duration = Duration::from_millis(100);

/// Something that a consumer is told.
#[derive(Debug)]
pub(in crate::kafka) enum Told<'a> {
    Record(RecordRef<'a>),
    /// An error of a partition or of the whole consumer (`_FATAL`: it has lost everything, and has to be made anew).
    Problem {
        code: Code,
        text: String,
        place: Option<Place>,
    },
    /// The group gives it partitions (with a cooperative protocol: more of them). Not answered yet: until [`Consumer::incremental_assign`] (or
    /// [`Consumer::assign`]) nothing is read.
    Assigned(Vec<Place>),
    /// The group takes partitions away; `lost`: it has done so already. Not answered yet: until [`Consumer::incremental_unassign`] (or
    /// [`Consumer::assign`] of none) the group waits, and no partition is read.
    Revoked {
        partitions: Vec<Place>,
        lost: bool,
    },
    /// The answer to a commit, with what it says of each partition. Where some fail, the library says the same of the others, though they were written: a code
    /// says that it may not be. While the member waits for others of its group to join, its commits are not answered, for as long as they may take
    /// (`max.poll.interval.ms`).
    Committed {
        result: Result<(), Trouble>,
        partitions: Vec<Answered>,
        token: u64,
    },
}

/// Wakes a consumer that waits in [`Consumer::next`], or lets its next call return at once. From any thread; nothing once the consumer is closed.
#[derive(Clone)]
pub(in crate::kafka) struct Waker(Arc<Bell>);

impl Waker {
    pub(in crate::kafka) fn wake(&self) {
        self.0.ring();
    }
}

/// A consumer. Dropped, it closes without anybody waiting for it; see [`Consumer::close`].
pub(in crate::kafka) struct Consumer {
    /// None once it is closed. The parts that belong to the client come first.
    open: Option<Open>,
    pub(super) names: Names,
    messages: Messages,
    most: usize,
}

/// Fields are dropped in this order.
pub(super) struct Open {
    queue: Queue,
    pub(super) commits: Commits,
    pub(super) client: Client,
}

impl Consumer {
    /// Makes one. It connects by itself, whenever it can: that there is no server is no failure. `group.id` must be set, also of one that is in no group.
    pub(in crate::kafka) fn open(mut conf: Conf, notes: Arc<Notes>) -> Result<Self, Trouble> {
        conf.fix(FIXED)?;
        Self::made(conf, notes, MOST)
    }

    /// One that is told the end of a partition (`PARTITION_EOF`, with its offset), and takes one record at a time. To find out what the first record behind an
    /// offset is, or that there is none; to be thrown away then: at the end the library loses its place, and would skip records.
    pub(in crate::kafka) fn probe(mut conf: Conf, notes: Arc<Notes>) -> Result<Self, Trouble> {
        conf.fix(FIXED)?;
        conf.fix(&[("enable.partition.eof", "true"), unread::DEBUG])?;
        // Answers that have nothing soon show that.
        conf.fix(&[("fetch.wait.max.ms", "100"), ("fetch.error.backoff.ms", "100")])?;
        let probe = Self::made(conf, notes, 1)?;
        probe.parts()?.client.told().unread.heed();
        Ok(probe)
    }

    /// Of a probe: how many times in a row servers answered at that offset with what the library made nothing of.
    pub(in crate::kafka) fn unread(&self, offset: u64) -> u32 {
        self.parts().map_or(0, |open| open.client.told().unread.at(offset))
    }

    /// One of these settings, with nothing fixed, for who knows what that means; at most so many records are taken at a time.
    pub(in crate::kafka) fn made(conf: Conf, notes: Arc<Notes>, most: usize) -> Result<Self, Trouble> {
        let client = Client::consumer(conf, notes)?;
        // SAFETY: the client is alive. Errors and logs come with the records from here on.
        Code(unsafe { native::rd_kafka_poll_set_consumer(client.native()) }).check()?;
        // SAFETY: the client is alive, and a consumer with a group, so there is a queue. Each reference is dropped before the client.
        let (queue, bell) = unsafe {
            let get = || native::rd_kafka_queue_get_consumer(client.native());
            (Queue::own(get()), Queue::own(get()))
        };
        client.told().bell.hang(Some(bell));
        let commits = Commits::new(client.new_queue());
        Ok(Self {
            open: Some(Open { queue, commits, client }),
            names: Names::default(),
            messages: Messages::default(),
            most,
        })
    }

    /// What wakes it.
    pub(in crate::kafka) fn waker(&self) -> Result<Waker, Trouble> {
        Ok(Waker(Arc::clone(&self.parts()?.client.told().bell)))
    }

    /// Shows what there is, or waits for something. Returns how often `take` was called, which is not at all where `wait` is over, the consumer was woken
    /// or is closed. Of one call, answers to commits come first, then changes of the assignment, then records and problems in the order of their
    /// partitions. At most `most` (10,000) records and problems. Has to be called more often than `max.poll.interval.ms`.
    pub(in crate::kafka) fn next(
        &mut self,
        wait: Duration,
        most: usize,
        take: &mut dyn FnMut(Told<'_>),
    ) -> usize {
        let most = most.clamp(1, self.most);
        let Some(open) = &mut self.open else { return 0 };
        open.client.find_servers();
        let mut shown = open.commits.show(&mut self.names, take);
        let messages = &mut self.messages;
        messages.fill(&open.queue, Duration::ZERO, most);
        if messages.is_empty() && shown == 0 {
            shown += open.wait(wait, most, messages, &mut self.names, take);
        }
        for change in open.client.told().changes.take() {
            shown += 1;
            take(match change {
                Change::Assigned(partitions) => Told::Assigned(partitions),
                Change::Revoked { partitions, lost } => Told::Revoked { partitions, lost },
                Change::Failed(Trouble { code, text }) => Told::Problem { code, text, place: None },
            });
        }
        let records = messages.read(&mut self.names, &mut |read| {
            shown += 1;
            take(match read {
                Read::Record(record) => Told::Record(record),
                Read::Problem { code, text, place } => Told::Problem { code, text, place },
            });
        });
        if records {
            open.client.told().heard();
        }
        shown
    }

    /// Shows the answers to commits that are there, and nothing else. Returns how many.
    pub(in crate::kafka) fn answers(&mut self, take: &mut dyn FnMut(Told<'_>)) -> usize {
        self.open.as_mut().map_or(0, |open| open.commits.show(&mut self.names, take))
    }

    /// Why it has given up for good, if it has: it has to be made anew.
    pub(in crate::kafka) fn fatal(&self) -> Option<Trouble> {
        self.parts().ok()?.client.fatal()
    }

    /// Leaves its group and ends. Commits that were not answered are not waited for. `false` where it has not ended after `wait`: that goes on without
    /// anybody waiting for it. What the group takes away meanwhile is given back without being told.
    pub(in crate::kafka) fn close(mut self, wait: Duration) -> bool {
        self.end(wait, false)
    }

    /// Ends as if the process were killed: it does not leave its group, and nobody waits for it.
    #[cfg(any(test, feature = "conformance"))]
    pub(in crate::kafka) fn abandon(mut self) {
        self.end(Duration::ZERO, true);
    }

    fn end(&mut self, wait: Duration, killed: bool) -> bool {
        let Some(Open { queue, commits, client }) = self.open.take() else { return true };
        self.messages = Messages::default();
        client.told().bell.hang(None);
        aside(wait, move || {
            if !killed {
                // SAFETY: the client is alive. The group's questions are answered from here on, on this thread.
                unsafe { client.told().changes.close(client.native()) };
                hear(&queue);
            }
            // A member cannot leave a group whose servers are gone, and the library may crash when it tries. That they came back is told by nothing but an
            // answer, which one that had no records did not get.
            let found =
                || metadata::ask(&client, Some(NO_TOPIC), FOUND).is_ok_and(|told| !told.nodes.is_empty());
            let leaves =
                !killed && client.fatal().is_none() && (!client.told().own.brokers_down() || found());
            if leaves {
                // SAFETY: the client is alive.
                let closed = Code(unsafe { native::rd_kafka_consumer_close(client.native()) });
                if let Err(trouble) = closed.check() {
                    tracing::debug!(%trouble, "a Kafka consumer did not close cleanly");
                }
            }
            drop(commits);
            drop(queue);
            client.destroy(if leaves { 0 } else { rdkafka_sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE });
        })
    }

    /// What there is until it is closed.
    pub(super) fn parts(&self) -> Result<&Open, Trouble> {
        self.open.as_ref().ok_or_else(closed)
    }

    /// The same, to change.
    pub(super) fn parts_mut(&mut self) -> Result<(&mut Open, &mut Names), Trouble> {
        Ok((self.open.as_mut().ok_or_else(closed)?, &mut self.names))
    }
}

/// Reads to the end of what the library has for a member that closes, so that what the group told and nobody has read is answered. Later the library may be
/// through with the group before the answer comes, which a member with a name does not wait for, and who answers waits for ever
/// (<https://github.com/confluentinc/librdkafka/issues/4884>).
fn hear(queue: &Queue) {
    for _ in 0..LEFT.div_ceil(MOST) {
        let mut rest = Messages::default();
        rest.fill(queue, Duration::ZERO, MOST);
        if rest.is_empty() {
            return;
        }
    }
}

fn closed() -> Trouble {
    Trouble::new(Code::DESTROY, "the consumer is closed")
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.end(Duration::ZERO, false);
    }
}

impl Open {
    /// Waits for one message and takes what is there with it, or for something else to tell. Returns how many answers to commits it has shown.
    fn wait(
        &mut self,
        wait: Duration,
        most: usize,
        messages: &mut Messages,
        names: &mut Names,
        take: &mut dyn FnMut(Told<'_>),
    ) -> usize {
        let until = Instant::now() + wait;
        let mut slice = SOON;
        loop {
            let told = self.client.told();
            let rung = told.bell.rung();
            if told.changes.any() || rung {
                return 0;
            }
            let rest = until.saturating_duration_since(Instant::now());
            // Answers to commits have a queue of their own, which nobody can wait for as well.
            let waits = if self.commits.any() { rest.min(slice) } else { rest };
            messages.fill(&self.queue, waits, 1);
            if !messages.is_empty() {
                if most > 1 {
                    messages.fill(&self.queue, Duration::ZERO, most - 1);
                }
                return 0;
            }
            let shown = self.commits.show(names, take);
            if shown > 0 || rest <= waits {
                return shown;
            }
            slice = (slice * 2).min(SELDOM);
        }
    }
}
