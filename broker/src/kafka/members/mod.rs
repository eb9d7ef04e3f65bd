//! Members of groups: Kafka says who owns which partition; what is read and stored of it is decided here.
//!
//! A member is one [`core::Core`] behind a lock, which decides, and a thread that polls a client of its own and does what was decided. What its user holds
//! polls the core, settles and steers through it: that is the same on other backends (`../../members/`).
//!
//! | File | Holds |
//! |---|---|
//! | `core.rs`, `duty.rs`, `storing.rs`, `going.rs`, `reading.rs` | what a member knows and decides: pure |
//! | `taking.rs` | what a partition begins with: pure |
//! | `gate.rs` | how much is read ahead: pure |
//! | `share.rs` | one owned partition: pure |
//! | `verdict.rs` | what the answer to a commit means: pure |
//! | `poller.rs`, `records.rs` | the thread, and copying what it reads |
//! | `look.rs`, `starts.rs` | asking servers what a partition begins with, and where a group starts |
//!
//! # How it works
//! * **Joining**: an assignment is answered at once with nothing, so that what is kept goes on being read; what is new is read when it is known from where, and
//!   when the epoch is stored. A commit stores that, which the servers refuse to who is no member: then nothing was assigned.
//! * **Acks** are stored by commits, at most one on its way: the position as the offset, and beside it, in its metadata, the epoch and what is done beyond
//!   (`../metadata.rs`). What rebalances refuse is stored after them.
//! * **A revocation** is answered when the last acks of what goes are stored; polling goes on meanwhile. The client library pauses all that the member owns
//!   until then, also what it keeps, so that a drain is granted for two seconds at the most.
//! * **A static name** that another member comes with is taken over with the classic protocol: the first ends as fenced. With the newer one the servers refuse
//!   the second while the first lives, and so does subscribe (`Unavailable`, which says so).
//! * **Lost**: the group says so (session over), the servers do not know the member (expelled), its name was taken (fenced: the end), its client gave up
//!   (another is opened), or, with the newer protocol, nothing was heard for a session.
//!
//! Not here: what an owner tells and takes, and what the user holds (`../../members/`), the client (`../raw`), the administration of groups (`../group_admin.rs`).

mod core;
mod duty;
mod gate;
mod going;
mod look;
mod poller;
mod reading;
mod records;
mod share;
mod starts;
mod storing;
mod taking;
#[cfg(test)]
mod tests;
mod verdict;

use super::{
    broker::{Moves, Shared},
    failure::{BACKEND, closed, late},
    raw::{self, Consumer as Client},
    settings::{Joins, KafkaGroupProtocol},
};
use crate::{
    Answer, Consumer, Error, ErrorKind, Group, Message, Outcomes, Result, Start, Subscription, Target, Topic,
    counted::Counted,
    members::{self, GroupConsumer, Open, Shell, Stirred},
};
use core::{Core, Rules};
use poller::Poller;
use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, timeout},
};

/// Of how many groups and topics it is remembered which topic of that name it was.
const REMEMBERED: usize = 16 * 1024;

/// A member of a group.
pub(super) struct Member {
    shared: Arc<Shared>,
    group: Group,
    /// Its static name.
    name: Option<Arc<str>>,
    /// As errors name them.
    servers: Arc<str>,
    core: Mutex<Core>,
    /// The thread waits for room.
    room: Condvar,
    /// The group knows it.
    joined: Notify,
    /// What wakes the client.
    client: Mutex<Option<raw::Waker>>,
    /// Settling comes from any thread.
    runtime: Handle,
    _moves: Option<Arc<Moves>>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("group", &self.group).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Member {
    /// Waits for room, or for something to do.
    fn wait(&self, core: MutexGuard<'_, Core>, long: Duration) {
        drop(self.room.wait_timeout(core, long));
    }

    /// From now on this is the client that is woken.
    fn heed(&self, client: &Client) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client.waker().ok();
    }

    fn open_client(&self) -> Result<Client> {
        let failed = |trouble: raw::Trouble| super::failure::failed(&self.servers, &trouble);
        let answer = self.shared.distance.answer();
        let joins = Joins { group: &self.group, name: self.name.as_deref(), answer };
        let mut conf = self.shared.settings.consumer(Some(joins))?;
        // What was added to a topic is noticed that soon.
        conf.set("topic.metadata.refresh.interval.ms", "5000").map_err(failed)?;
        Client::open(conf, Arc::clone(&self.shared.notes)).map_err(failed)
    }
}

impl Shell for Member {
    type Core = Core;

    const BACKEND: &'static str = BACKEND;

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stir(&self, stirred: Stirred) {
        if stirred.keeper || stirred.feed {
            self.room.notify_one();
            if let Some(client) = &*self.client.lock().unwrap_or_else(PoisonError::into_inner) {
                client.wake();
            }
        }
        stirred.waker.into_iter().for_each(std::task::Waker::wake);
    }

    fn counted(&self) -> &Counted {
        &self.shared.counted
    }

    fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn late(&self) -> Error {
        late(&self.servers).on(BACKEND)
    }

    async fn ensure(&self, topics: &[Topic]) -> Result<()> {
        let ensured = starts::ensure(&self.shared, &self.group, topics, Start::Earliest);
        self.shared.call(ensured).await
    }

    fn publish(&self, target: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        self.shared.publish(target, batch)
    }

    #[cfg(any(test, feature = "conformance"))]
    fn kill(&self) {
        let stirred = self.core().kill(closed().on(BACKEND));
        self.stir(stirred);
    }
}

/// How long a subscription waits for its group: shorter than a call may take, of which it has needed some already.
const JOINS: Duration = Duration::from_secs(20);

/// Joins a group. `moves`: what is delayed is moved while it is a member; not where who moves it joins.
///
/// # Errors
/// Those of [`crate::MessageBroker::subscribe`].
pub(super) async fn subscribe(
    shared: &Arc<Shared>,
    subscription: Subscription,
    moves: Option<Arc<Moves>>,
) -> Result<Box<dyn Consumer>> {
    subscription.check()?;
    starts::ensure(shared, &subscription.group, &subscription.topics, subscription.start).await?;
    shared.look_how_far().await;
    let settings = &shared.settings;
    let rules = Rules {
        group: subscription.group.to_string(),
        common: members::Rules {
            bound: subscription.in_flight,
            ack_interval: subscription.ack_interval,
            drain: subscription.drain.min(settings.release),
        },
        session: settings.session,
        watched: settings.group_protocol == KafkaGroupProtocol::Consumer,
    };
    let start = |topic: &Topic| (topic.clone(), subscription.start);
    let topics = subscription.topics.iter().map(start).collect();
    let member = Arc::new(Member {
        shared: Arc::clone(shared),
        group: subscription.group,
        name: subscription.member,
        servers: Arc::from(shared.servers()),
        core: Mutex::new(Core::new(rules, topics, Instant::now())),
        room: Condvar::new(),
        joined: Notify::new(),
        client: Mutex::default(),
        runtime: Handle::current(),
        _moves: moves,
    });
    let client = member.open_client()?;
    member.heed(&client);
    // Dropped where nobody waits for the answer: then it leaves.
    let consumer = GroupConsumer::new(Arc::clone(&member));
    let joined = member.joined.notified();
    let poller = Poller::new(Arc::clone(&member), client);
    let thread = std::thread::Builder::new().name("kafka-member".into()).spawn(move || poller.run());
    thread.map_err(|error| {
        let context = "there is no thread to poll Kafka on; see the limits of the process";
        Error::new(ErrorKind::Unavailable, context).caused_by(error)
    })?;
    shared.members.add(&member);
    if shared.is_closed() {
        // Who closed it may not have seen this member: it is dropped, which leaves.
        return Err(closed());
    }
    // The group may have to find out first that another member crashed, which takes its session. It is joined then, and events tell what it gets.
    _ = timeout(JOINS, joined).await;
    if let Some(error) = member.core().owner.ended.clone() {
        return Err(error);
    }
    Ok(Box::new(consumer))
}

/// The members that are open, and what is remembered of topics.
#[derive(Debug, Default)]
pub(super) struct Members {
    open: Open<Member>,
    /// Which topic of that name a group consumed here: Kafka forgets the positions of a topic that is deleted.
    lives: Mutex<BTreeMap<(Group, Topic), u64>>,
    /// A double: see `Kafka::lose_metadata`.
    #[cfg(any(test, feature = "conformance"))]
    forgetful: std::sync::atomic::AtomicBool,
}

impl Members {
    fn add(&self, member: &Arc<Member>) {
        self.open.add(member);
    }

    /// Which topic of that name a group consumed here.
    fn knows(&self, group: &Group, topic: &Topic) -> Option<u64> {
        let lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        lives.get(&(group.clone(), topic.clone())).copied()
    }

    /// The same, and remembers which it is now.
    fn knew(&self, group: &Group, topic: &Topic, life: u64) -> Option<u64> {
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        if lives.len() >= REMEMBERED {
            lives.pop_first();
        }
        lives.insert((group.clone(), topic.clone()), life)
    }

    /// See [`Open::close`].
    pub(super) fn close(&self, limit: Duration) -> impl Future<Output = ()> + Send + use<> {
        self.open.close(limit)
    }

    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn lose_metadata(&self) {
        self.forgetful.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn kill(&self) {
        self.open.kill();
    }
}
