//! Members of groups: who owns which partition, by a table with leases in Redis, and what an owner does with it.
//!
//! A member is one [`core::Core`] behind a lock, which decides; a task that acts on the server, one thing after the other; and a task that reads. The
//! consumer polls the core, the control settles and steers through it.
//!
//! | File | Holds |
//! |---|---|
//! | `table.rs` | who is there and who owns what: pure |
//! | `core.rs`, `duty.rs`, `going.rs`, `reading.rs` | what a member knows and decides: pure |
//! | `share.rs` | one owned partition: pure |
//! | `rounds.rs` | forwards that wait, and what is sent of them at once: pure |
//! | `run.rs` | the two tasks |
//! | `forward.rs` | sending a round of forwards |
//! | `starts.rs` | joining, and where a group starts |
//! | `consumer.rs`, `control.rs` | what the user holds |
//!
//! Not here: the scripts (`../scripts`), the administration of groups (`../admin.rs`).

mod consumer;
mod control;
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
#[cfg(test)]
mod tests;

use super::{broker::Shared, failure::closed, keys::GroupKeys, placing::Placing, wake::Wake};
use crate::{Consumer, Group, Result, Subscription};
use consumer::GroupConsumer;
use core::{Core, Rules, Stirred};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};
use uuid::Uuid;

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
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls who has something to do. Not under the lock.
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

    /// What a member is known by beside its name: another one under the same name has another.
    fn token(&self) -> String {
        format!("{}-{}", if self.is_static { "s" } else { "m" }, Uuid::new_v4().simple())
    }

    fn count(&self, core: &mut Core) {
        let numbers = std::mem::take(&mut core.numbers);
        let counted = &self.shared.counted;
        for (counter, number) in [
            (&counted.delivered, numbers.delivered),
            (&counted.unreadable, numbers.unreadable),
            (&counted.gaps, numbers.gaps),
            (&counted.assigned, numbers.assigned),
            (&counted.gone, numbers.gone),
        ] {
            if number > 0 {
                counter.fetch_add(number, Ordering::Relaxed);
            }
        }
    }

    #[cfg(any(test, feature = "conformance"))]
    fn kill(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(tokio::task::AbortHandle::abort);
        let waker = self.core().kill(closed().on(super::failure::BACKEND));
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
        bound: subscription.in_flight,
        ack_interval: subscription.ack_interval,
        drain: subscription.drain,
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

/// The members that are open.
#[derive(Debug, Default)]
pub(super) struct Members(Mutex<Vec<Weak<Member>>>);

impl Members {
    fn add(&self, member: &Arc<Member>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|member| member.strong_count() > 0);
        all.push(Arc::downgrade(member));
    }

    fn all(&self) -> Vec<Arc<Member>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Ends all of them: what they own is given up now, acks given before take effect. Answers when that is done, or `limit` is over.
    pub(super) fn close(&self, limit: Duration) -> impl Future<Output = ()> + Send + use<> {
        let close = |member: Arc<Member>| {
            let (answer, answered) = oneshot::channel();
            let stirred = member.core().close(Duration::ZERO, Some(answer), Instant::now());
            member.stir(stirred);
            answered
        };
        let answers: Vec<_> = self.all().into_iter().map(close).collect();
        let all = async {
            for answered in answers {
                _ = answered.await;
            }
        };
        async move { _ = timeout(limit, all).await }
    }

    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn kill(&self) {
        self.all().iter().for_each(|member| member.kill());
    }
}
