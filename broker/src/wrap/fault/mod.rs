//! A broker that fails on request, for everybody's tests.
//!
//! What fails and how often is decided in `script.rs`, the consumer's side is in `consumer.rs`, administration in `admin.rs`.

mod admin;
mod consumer;
mod script;

pub use consumer::Revoke;
pub use script::{Injection, Operation, Times};

use crate::{
    Admin, Answer, Capabilities, Consumer, Error, ErrorKind, Health, Message, MessageBroker, Outcomes,
    Published, Reader, Result, Statistics, Subscription, Target, Topic,
};
use consumer::{FaultConsumer, Inbox};
use futures::FutureExt;
use script::Script;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

/// A broker that fails, delays, loses answers, duplicates and revokes on request; correct otherwise.
///
/// # Examples
/// ```
/// # use ropeway_broker::{*, wrap::*};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let fault = Fault::around(connect("memory:").await?);
/// let topic = Topic::new("orders")?;
/// fault.admin().create_topic(&topic, TopicSpec::partitions(1)).await?;
/// fault.inject(Operation::Publish, Injection::LoseAnswer(ErrorKind::Unavailable), Times::Next(1))?;
/// let lost = fault.publish_one(&topic, Message::builder().payload("1").build()).await.unwrap_err();
/// assert!(lost.may_be_written);
/// assert_eq!(fault.admin().describe_topic(&topic).await?.partitions[0].messages, Some(1));
/// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Fault {
    inner: Arc<dyn MessageBroker>,
    admin: admin::FaultAdmin,
    shared: Arc<Shared>,
}

/// What the broker and its consumers share.
#[derive(Debug, Default)]
struct Shared {
    script: Mutex<Script>,
    consumers: Mutex<Vec<Weak<Inbox>>>,
}

impl Shared {
    fn next(&self, operation: Operation) -> Option<Injection> {
        lock(&self.script).next(operation)
    }

    /// `Err` where the call is to be refused.
    fn allow(&self, operation: Operation) -> Result<()> {
        match self.next(operation) {
            Some(Injection::Refuse(kind)) => Err(injected(kind)),
            _ => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn injected(kind: ErrorKind) -> Error {
    Error::new(kind, "a fault was injected here").on("fault")
}

impl Fault {
    /// Wraps `inner`. Nothing fails until asked for.
    #[must_use]
    pub fn around(inner: Arc<dyn MessageBroker>) -> Arc<Self> {
        let shared = Arc::<Shared>::default();
        let admin = admin::FaultAdmin::new(Arc::clone(&inner), Arc::clone(&shared));
        Arc::new(Self { inner, admin, shared })
    }

    /// Makes calls fail. Rules are asked in the order they were made; the first that fires holds.
    ///
    /// # Errors
    /// `Invalid` for what cannot happen to that operation.
    pub fn inject(&self, operation: Operation, injection: Injection, times: Times) -> Result<()> {
        lock(&self.shared.script).add(operation, injection, times)?;
        // A consumer that waits for events looks again.
        lock(&self.shared.consumers).retain(|inbox| inbox.upgrade().map(|inbox| inbox.wake()).is_some());
        Ok(())
    }

    /// Nothing fails from now on.
    pub fn heal(&self) {
        lock(&self.shared.script).clear();
    }

    /// Takes a partition away from whatever consumer of this broker owns it, of every group; it is assigned anew, with a new epoch, to
    /// another member or to the same. Takes effect when the consumer is polled next.
    pub fn revoke(&self, topic: &Topic, partition: u32, how: Revoke) {
        lock(&self.shared.consumers)
            .retain(|inbox| inbox.upgrade().map(|inbox| inbox.put(topic.clone(), partition, how)).is_some());
    }
}

impl MessageBroker for Fault {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn publish(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        let injections: Vec<_> = batch.iter().map(|_| self.shared.next(Operation::Publish)).collect();
        if injections.iter().all(Option::is_none) {
            return self.inner.publish(to, batch);
        }
        let mut sent = Vec::with_capacity(batch.len());
        let mut kept = Vec::with_capacity(batch.len());
        let mut later = Duration::ZERO;
        for (message, injection) in batch.into_iter().zip(injections) {
            match injection {
                Some(Injection::Refuse(kind)) => {
                    kept.push(Kept::Answer(Published::not_written(injected(kind), message)));
                    continue;
                }
                Some(Injection::LoseRequest(kind)) => {
                    kept.push(Kept::Answer(Published::unknown(injected(kind), message)));
                    continue;
                }
                Some(Injection::LoseAnswer(kind)) => kept.push(Kept::Lose(kind, message.clone())),
                Some(Injection::Duplicate) => {
                    sent.push(message.clone());
                    kept.push(Kept::Second);
                }
                Some(Injection::Delay(delay)) => {
                    later = later.max(delay);
                    kept.push(Kept::Pass);
                }
                None => kept.push(Kept::Pass),
            }
            sent.push(message);
        }
        let answer = self.inner.publish(to, sent);
        async move {
            let outcomes = answer.await;
            if !later.is_zero() {
                tokio::time::sleep(later).await;
            }
            let mut outcomes = outcomes.0.into_iter();
            Outcomes(kept.into_iter().filter_map(|kept| kept.outcome(&mut outcomes)).collect())
        }
        .boxed()
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<Result<Box<dyn Consumer>>> {
        if let Err(error) = self.shared.allow(Operation::Subscribe) {
            return futures::future::ready(Err(error)).boxed();
        }
        let shared = Arc::clone(&self.shared);
        self.inner
            .subscribe(subscription)
            .map(|inner| {
                inner.map(|inner| -> Box<dyn Consumer> { Box::new(FaultConsumer::new(inner, shared)) })
            })
            .boxed()
    }

    fn read(&self) -> Answer<Result<Box<dyn Reader>>> {
        match self.shared.allow(Operation::Read) {
            Ok(()) => self.inner.read(),
            Err(error) => futures::future::ready(Err(error)).boxed(),
        }
    }

    fn admin(&self) -> &dyn Admin {
        &self.admin
    }

    fn health(&self) -> Answer<Health> {
        self.inner.health()
    }

    fn statistics(&self) -> Statistics {
        self.inner.statistics()
    }

    fn close(&self, deadline: Duration) -> Answer<()> {
        self.inner.close(deadline)
    }
}

/// How one message of a batch is answered.
enum Kept {
    Pass,
    /// The outcome of the second of two.
    Second,
    Lose(ErrorKind, Message),
    Answer(Published),
}

impl Kept {
    fn outcome(self, sent: &mut impl Iterator<Item = Published>) -> Option<Published> {
        match self {
            Self::Pass => sent.next(),
            Self::Second => {
                // What may be in the log must not be told as not written.
                let (first, second) = (sent.next()?, sent.next()?);
                Some(match (&first, &second) {
                    (Published::NotWritten(_), _) | (Published::Unknown(_), Published::Acked { .. }) => {
                        second
                    }
                    _ => first,
                })
            }
            Self::Lose(kind, message) => {
                // What was refused for certain stays so: losing that answer would be a lie about the log.
                let outcome = sent.next()?;
                Some(if outcome.is_acked() { Published::unknown(injected(kind), message) } else { outcome })
            }
            Self::Answer(published) => Some(published),
        }
    }
}
