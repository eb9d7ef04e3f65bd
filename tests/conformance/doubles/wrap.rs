//! The wrapper that passes everything on but what a double hooks.
//!
//! Not here: what can be hooked (`hooks.rs`).

use super::hooks::{Hooks, Scene, Side, Tap};
use async_trait::async_trait;
use ropeway_broker::{
    Admin, Answer, Capabilities, Consumer, Control, Error, Event, Group, GroupInfo, Health, Message,
    MessageBroker, MessageId, Outcomes, Owned, Part, Position, Reader, Result, Start, Statistics,
    Subscription, Target, Topic, TopicInfo, TopicSpec,
};
use std::{
    fmt,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

/// A broker that passes on to the one of its scene, but for its hooks.
pub(crate) struct Wrapped {
    scene: Arc<Scene>,
    hooks: Arc<Hooks>,
}

impl Wrapped {
    pub(crate) fn new(scene: Scene, hooks: Arc<Hooks>) -> Self {
        Self { scene: Arc::new(scene), hooks }
    }
}

impl fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wrapped").field("scene", &self.scene).finish_non_exhaustive()
    }
}

impl MessageBroker for Wrapped {
    fn capabilities(&self) -> Capabilities {
        self.scene.broker.capabilities()
    }

    fn publish(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        match &self.hooks.publish {
            Some(hook) => hook(&self.scene, to, batch),
            None => self.scene.broker.publish(to, batch),
        }
    }

    fn publish_in_parts(&self, to: &Target, batch: &Arc<Vec<Message>>) -> Vec<Part> {
        match &self.hooks.publish_in_parts {
            Some(hook) => hook(&self.scene, to, batch),
            None => self.scene.broker.publish_in_parts(to, batch),
        }
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<Result<Box<dyn Consumer>>> {
        let joined = match &self.hooks.subscribe {
            Some(hook) => hook(&self.scene, subscription.clone()),
            None => self.scene.broker.subscribe(subscription.clone()),
        };
        let (scene, hooks) = (Arc::clone(&self.scene), Arc::clone(&self.hooks));
        Box::pin(async move {
            let inner = joined.await?;
            let nth = {
                let mut joins = scene.joins.lock().unwrap_or_else(PoisonError::into_inner);
                let count = joins.entry(subscription.group.clone()).or_default();
                *count += 1;
                *count
            };
            let side = Arc::new(Side { scene, control: inner.control(), subscription, nth });
            let tap = hooks.consume.as_ref().map(|hook| hook(&side));
            Ok(Box::new(Member { inner, tap, side, hooks }) as Box<dyn Consumer>)
        })
    }

    fn read(&self) -> Answer<Result<Box<dyn Reader>>> {
        let answer = self.scene.broker.read();
        let (scene, hooks) = (Arc::clone(&self.scene), Arc::clone(&self.hooks));
        Box::pin(async move {
            let inner = answer.await?;
            let tap = hooks.read.as_ref().map(|hook| hook(&scene));
            Ok(Box::new(Follower { inner, tap, scene, hooks }) as Box<dyn Reader>)
        })
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    fn health(&self) -> Answer<Health> {
        let (hooks, answer) = (Arc::clone(&self.hooks), self.scene.broker.health());
        Box::pin(async move {
            let health = answer.await;
            match &hooks.health {
                Some(hook) => hook(health),
                None => health,
            }
        })
    }

    fn statistics(&self) -> Statistics {
        let statistics = self.scene.broker.statistics();
        self.hooks.statistics.as_ref().map_or(statistics, |hook| hook(statistics))
    }

    fn close(&self, deadline: Duration) -> Answer<()> {
        match &self.hooks.close {
            Some(hook) => hook(&self.scene, deadline),
            None => self.scene.broker.close(deadline),
        }
    }
}

struct Member {
    inner: Box<dyn Consumer>,
    tap: Option<Tap>,
    side: Arc<Side>,
    hooks: Arc<Hooks>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Consumer for Member {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        let inner = &mut self.inner;
        match &mut self.tap {
            Some(tap) => tap(&mut |cx| inner.poll_next(cx), cx),
            None => inner.poll_next(cx),
        }
    }

    fn control(&self) -> Arc<dyn Control> {
        Arc::new(Steering { side: Arc::clone(&self.side), hooks: Arc::clone(&self.hooks) })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(hook) = &self.hooks.dropped {
            hook(&self.side);
        }
    }
}

struct Steering {
    side: Arc<Side>,
    hooks: Arc<Hooks>,
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.side.fmt(f)
    }
}

impl Control for Steering {
    fn ack(&self, of: &Owned, done: &[Position]) -> Result<()> {
        match &self.hooks.control.ack {
            Some(hook) => hook(&self.side, of, done),
            None => self.side.control.ack(of, done),
        }
    }

    fn forward(&self, of: &Owned, done: &[Position], out: Vec<(Target, Message)>) -> Answer<Outcomes> {
        match &self.hooks.control.forward {
            Some(hook) => hook(&self.side, of, done, out),
            None => self.side.control.forward(of, done, out),
        }
    }

    fn pause(&self, of: &Owned, paused: bool) {
        match &self.hooks.control.pause {
            Some(hook) => hook(&self.side, of, paused),
            None => self.side.control.pause(of, paused),
        }
    }

    fn give_up(&self, of: &Owned) {
        match &self.hooks.control.give_up {
            Some(hook) => hook(&self.side, of),
            None => self.side.control.give_up(of),
        }
    }

    fn confirm(&self, of: &Owned) -> Answer<Result<()>> {
        let answer = self.side.control.confirm(of);
        match &self.hooks.control.confirm {
            Some(hook) => hook(&self.side, answer),
            None => answer,
        }
    }

    fn flush(&self) -> Answer<Vec<(Owned, Error)>> {
        match &self.hooks.control.flush {
            Some(hook) => hook(&self.side),
            None => self.side.control.flush(),
        }
    }

    fn set_topics(&self, topics: Vec<Topic>) -> Answer<Result<()>> {
        match &self.hooks.control.set_topics {
            Some(hook) => hook(&self.side, topics),
            None => self.side.control.set_topics(topics),
        }
    }

    fn close(&self, deadline: Duration) -> Answer<Vec<(Owned, Vec<Position>)>> {
        match &self.hooks.control.close {
            Some(hook) => hook(&self.side, deadline),
            None => self.side.control.close(deadline),
        }
    }
}

struct Follower {
    inner: Box<dyn Reader>,
    tap: Option<Tap>,
    scene: Arc<Scene>,
    hooks: Arc<Hooks>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Reader for Follower {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        let inner = &mut self.inner;
        match &mut self.tap {
            Some(tap) => tap(&mut |cx| inner.poll_next(cx), cx),
            None => inner.poll_next(cx),
        }
    }

    fn follow(&mut self, topic: &Topic, partition: Option<u32>, from: Start) -> Answer<Result<()>> {
        match &self.hooks.reader.follow {
            Some(hook) => hook(&self.scene, &mut *self.inner, topic, partition, from),
            None => self.inner.follow(topic, partition, from),
        }
    }

    fn unfollow(&mut self, topic: &Topic, partition: Option<u32>) {
        match &self.hooks.reader.unfollow {
            Some(hook) => hook(&mut *self.inner, topic, partition),
            None => self.inner.unfollow(topic, partition),
        }
    }
}

#[async_trait]
impl Admin for Wrapped {
    async fn create_topic(&self, topic: &Topic, spec: TopicSpec) -> Result<()> {
        match &self.hooks.admin.create {
            Some(hook) => hook(&self.scene, topic.clone(), spec).await,
            None => self.scene.broker.admin().create_topic(topic, spec).await,
        }
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicInfo> {
        let answer = self.scene.broker.admin().describe_topic(topic).await;
        match &self.hooks.admin.describe {
            Some(hook) => hook(answer),
            None => answer,
        }
    }

    async fn topics(&self) -> Result<Vec<Topic>> {
        let answer = self.scene.broker.admin().topics().await;
        match &self.hooks.admin.topics {
            Some(hook) => hook(answer),
            None => answer,
        }
    }

    async fn grow_topic(&self, topic: &Topic, partitions: u32) -> Result<()> {
        let answer = self.scene.broker.admin().grow_topic(topic, partitions).await;
        match &self.hooks.admin.grow {
            Some(hook) => hook(answer),
            None => answer,
        }
    }

    async fn purge_topic(&self, topic: &Topic, partition: Option<u32>, before: Start) -> Result<()> {
        match &self.hooks.admin.purge {
            Some(hook) => hook(&self.scene, topic.clone(), partition, before).await,
            None => self.scene.broker.admin().purge_topic(topic, partition, before).await,
        }
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        match &self.hooks.admin.delete {
            Some(hook) => hook(&self.scene, topic.clone()).await,
            None => self.scene.broker.admin().delete_topic(topic).await,
        }
    }

    async fn cancel_delayed(&self, topic: &Topic, id: MessageId) -> Result<bool> {
        match &self.hooks.admin.cancel {
            Some(hook) => hook(&self.scene, topic.clone(), id).await,
            None => self.scene.broker.admin().cancel_delayed(topic, id).await,
        }
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        let answer = self.scene.broker.admin().groups().await;
        match &self.hooks.admin.groups {
            Some(hook) => hook(answer),
            None => answer,
        }
    }

    async fn describe_group(&self, group: &Group) -> Result<GroupInfo> {
        let answer = self.scene.broker.admin().describe_group(group).await;
        match &self.hooks.admin.describe_group {
            Some(hook) => hook(answer),
            None => answer,
        }
    }

    async fn seek_group(
        &self,
        group: &Group,
        topic: &Topic,
        partition: Option<u32>,
        to: Start,
    ) -> Result<()> {
        match &self.hooks.admin.seek {
            Some(hook) => hook(&self.scene, group.clone(), topic.clone(), partition, to).await,
            None => self.scene.broker.admin().seek_group(group, topic, partition, to).await,
        }
    }

    async fn delete_group(&self, group: &Group) -> Result<()> {
        match &self.hooks.admin.delete_group {
            Some(hook) => hook(&self.scene, group.clone()).await,
            None => self.scene.broker.admin().delete_group(group).await,
        }
    }
}
