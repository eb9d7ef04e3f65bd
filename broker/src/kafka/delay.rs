//! What delayed messages stand on here: Kafka has no delay of its own.
//!
//! Not here: delay itself (`../delay`).

use super::{admin, broker::Shared, facts::Described, members, reader, topics::Identity};
use crate::{
    Answer, Consumer, ErrorKind, Message, Outcomes, Position, Reader, Result, Start, Subscription, Target,
    Timestamp, Topic, TopicSpec, clock,
    delay::{Ground, Seen},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// A broker without delay.
#[derive(Debug)]
struct Below(Arc<Shared>);

/// What delay stands on.
pub(super) fn below(shared: &Arc<Shared>) -> Arc<dyn Ground> {
    Arc::new(Below(Arc::clone(shared)))
}

fn seen(described: &Described) -> Seen {
    Seen { life: described.life, partitions: described.count(), max_message: described.max_message() }
}

impl Ground for Below {
    fn put(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        self.0.put(to, batch)
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<Result<Box<dyn Consumer>>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { members::subscribe(&shared, subscription, None).await })
    }

    fn read(&self) -> Answer<Result<Box<dyn Reader>>> {
        Box::pin(std::future::ready(reader::open(&self.0)))
    }

    fn look(&self, topic: &Topic) -> Answer<Result<Seen>> {
        let (shared, topic) = (Arc::clone(&self.0), topic.clone());
        Box::pin(async move { Ok(seen(&*shared.topics.get(&topic).await?)) })
    }

    fn look_now(&self, topic: &Topic) -> Answer<Result<Seen>> {
        let (shared, topic, now) = (Arc::clone(&self.0), topic.clone(), Instant::now());
        Box::pin(async move { Ok(seen(&*shared.topics.since(&topic, now).await?)) })
    }

    fn lives(&self, topics: Vec<Topic>) -> Answer<Result<BTreeMap<Topic, Option<u64>>>> {
        let shared = Arc::clone(&self.0);
        let life = |told: Result<Identity>| match told {
            Ok(identity) => Some(Some(identity.life)),
            Err(error) if error.kind() == ErrorKind::NotFound => Some(None),
            Err(_) => None,
        };
        Box::pin(async move {
            let told = shared.topics.identify(&topics).await?;
            Ok(told.into_iter().filter_map(|(topic, told)| Some((topic, life(told)?))).collect())
        })
    }

    fn make(&self, topic: &Topic, partitions: u32, max_message: usize) -> Answer<Result<()>> {
        let (shared, topic) = (Arc::clone(&self.0), topic.clone());
        Box::pin(async move {
            admin::create(&shared, &topic, &TopicSpec::partitions(partitions), Some(max_message)).await
        })
    }

    fn grow(&self, topic: &Topic, partitions: u32) -> Answer<Result<()>> {
        let (shared, topic) = (Arc::clone(&self.0), topic.clone());
        Box::pin(async move { admin::grow(&shared, &topic, partitions).await })
    }

    fn purge(&self, topic: &Topic, partition: u32, before: Position) -> Answer<Result<()>> {
        let (shared, topic) = (Arc::clone(&self.0), topic.clone());
        Box::pin(async move { admin::purge(&shared, &topic, Some(partition), Start::At(before)).await })
    }

    fn delete(&self, topic: &Topic) -> Answer<Result<()>> {
        let (shared, topic) = (Arc::clone(&self.0), topic.clone());
        Box::pin(async move { admin::delete(&shared, &topic).await })
    }

    fn deadline(&self) -> Duration {
        self.0.settings.publish_deadline
    }

    fn now(&self) -> Timestamp {
        clock::wall()
    }
}
