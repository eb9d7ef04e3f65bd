//! Members of groups: who owns which partition, by a table with leases in Redis, and what is read and stored of it.
//!
//! A member is one [`core::Core`] behind a lock, which decides; a task that acts on the server, one thing after the other; and a task that reads. What its
//! user holds polls the core, settles and steers through it: that is the same on other backends (`../../members/`).
//!
//! | File | Holds |
//! |---|---|
//! | `table.rs` | who is there and who owns what: pure |
//! | `core.rs`, `duty.rs`, `away.rs`, `going.rs`, `reading.rs` | what a member knows and decides: pure |
//! | `share.rs` | one owned partition: pure |
//! | `rounds.rs` | forwards that wait, and what is sent of them at once: pure |
//! | `run.rs` | the two tasks |
//! | `taking.rs` | taking partitions over |
//! | `forward.rs` | sending a round of forwards |
//! | `starts.rs` | joining, and where a group starts |
//!
//! Not here: what an owner tells and takes, and what the user holds (`../../members/`), the scripts (`../scripts`), the administration of groups (`../admin.rs`).

mod away;
mod core;
mod duty;
mod forward;
mod going;
mod reading;
mod rounds;
mod run;
mod share;
mod starts;
mod table;
mod taking;
#[cfg(test)]
mod tests;

use super::{
    broker::Shared,
    failure::{BACKEND, closed, late},
    keys::GroupKeys,
    placing::Placing,
    wake::Wake,
};
use crate::{
    Answer, Consumer, Error, Group, Message, Outcomes, Owned, Position, Result, Start, Subscription, Target,
    Topic,
    counted::Counted,
    members::{self, GroupConsumer, Open, Shell, Stirred},
};
use core::{Core, Rules};
use rounds::Forward;
use std::{
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    time::Instant,
};
use uuid::Uuid;

/// The members that are open.
pub(super) type Members = Open<Member>;

/// A member of a group.
#[derive(Debug)]
pub(super) struct Member {
    shared: Arc<Shared>,
    group: Group,
    keys: GroupKeys,
    name: String,
    is_static: bool,
    core: Mutex<Core>,
    keeper: Notify,
    wake: Wake,
    placing: Mutex<Placing>,
    /// Settling comes from any thread.
    runtime: Handle,
    tasks: Mutex<Vec<tokio::task::AbortHandle>>,
}

impl Member {
    /// What a member is known by beside its name: another one under the same name has another.
    fn token(&self) -> String {
        format!("{}-{}", if self.is_static { "s" } else { "m" }, Uuid::new_v4().simple())
    }
}

impl Shell for Member {
    type Core = Core;

    const BACKEND: &'static str = BACKEND;

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stir(&self, stirred: Stirred) {
        if stirred.keeper {
            self.keeper.notify_one();
        }
        if stirred.feed {
            let _entered = self.runtime.enter();
            self.wake.wake(&self.shared.topics().commands);
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
        late(self.shared.topics().commands.server()).on(BACKEND)
    }

    async fn ensure(&self, topics: &[Topic]) -> Result<()> {
        let ensured = starts::ensure(&self.shared, &self.group, topics, Start::Earliest);
        self.shared.call(ensured).await
    }

    fn publish(&self, target: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        self.shared.intake().take_from(Some(&self.group), target, batch)
    }

    /// Not where the keys may lie in different slots of a cluster.
    fn forward_at_once(
        &self,
        of: &Owned,
        done: &[Position],
        out: Vec<(Target, Message)>,
    ) -> Result<Answer<Outcomes>, Vec<(Target, Message)>> {
        let shared = &self.shared;
        if !shared.is_one_place() {
            return Err(out);
        }
        let (held, deadline) = match shared.intake().admit(out.iter().map(|(_, message)| message)) {
            Ok(admitted) => admitted,
            Err(error) => {
                let batch = out.into_iter().map(|(_, message)| message).collect();
                let outcomes = Outcomes::all_not_written(&error.on(BACKEND), batch);
                shared.counted.count(&outcomes);
                return Ok(Box::pin(ready(outcomes)));
            }
        };
        let (answer, answered) = oneshot::channel();
        let copies = out.iter().map(|(_, message)| message.clone()).collect();
        let counted = Arc::clone(&shared.counted);
        let (of, done) = (of.clone(), done.to_vec());
        self.core().rounds.push(Forward { of, done, out, deadline, answer, counted, _held: held });
        self.stir(Stirred { keeper: true, ..Stirred::default() });
        // Who sends answers every one; it is dropped only where that ends with the runtime.
        Ok(Box::pin(async move { answered.await.unwrap_or_else(|_| members::broken_off(BACKEND, copies)) }))
    }

    #[cfg(any(test, feature = "conformance"))]
    fn kill(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(tokio::task::AbortHandle::abort);
        let waker = self.core().kill(closed().on(BACKEND));
        waker.into_iter().for_each(std::task::Waker::wake);
    }
}

/// Joins a group.
///
/// # Errors
/// Those of [`crate::MessageBroker::subscribe`].
pub(super) async fn subscribe(shared: &Arc<Shared>, subscription: Subscription) -> Result<Box<dyn Consumer>> {
    subscription.check()?;
    starts::ensure(shared, &subscription.group, &subscription.topics, subscription.start).await?;
    let made = || format!("member-{}", Uuid::new_v4().simple());
    let rules = Rules {
        name: subscription.member.as_deref().map_or_else(made, str::to_owned),
        server: Arc::clone(shared.topics().commands.server()),
        common: members::Rules {
            bound: subscription.in_flight,
            ack_interval: subscription.ack_interval,
            drain: subscription.drain,
        },
        lease: shared.settings().lease,
    };
    let topics = subscription.topics.iter().cloned().collect();
    let placing = Placing::new(Arc::clone(shared.topics()), shared.settings(), Arc::clone(&shared.tasks));
    let member = Arc::new(Member {
        keys: shared.topics().keys.group(&subscription.group),
        shared: Arc::clone(shared),
        group: subscription.group,
        name: rules.name.clone(),
        is_static: subscription.member.is_some(),
        core: Mutex::new(Core::new(rules, topics, Instant::now())),
        keeper: Notify::new(),
        wake: Wake::default(),
        placing: Mutex::new(placing),
        runtime: Handle::current(),
        tasks: Mutex::default(),
    });
    let token = run::join(&member).await?;
    shared.members.add(&member);
    let consumer = GroupConsumer::new(Arc::clone(&member));
    let keeping = tokio::spawn(run::keep(Arc::clone(&member), token)).abort_handle();
    let reading = tokio::spawn(run::read(Arc::clone(&member))).abort_handle();
    member.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend([keeping, reading]);
    if shared.is_closed() {
        // Who closed it may not have seen this member: it is dropped, which leaves.
        return Err(closed());
    }
    Ok(Box::new(consumer))
}
