//! Administration of a [`Fault`](super::Fault): each call may be refused, all else is passed on.

use super::{Operation, Shared};
use crate::{Admin, Group, GroupInfo, MessageBroker, MessageId, Result, Start, Topic, TopicInfo, TopicSpec};
use async_trait::async_trait;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct FaultAdmin {
    inner: Arc<dyn MessageBroker>,
    shared: Arc<Shared>,
}

impl FaultAdmin {
    pub(super) fn new(inner: Arc<dyn MessageBroker>, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }

    fn admin(&self) -> Result<&dyn Admin> {
        self.shared.allow(Operation::Admin)?;
        Ok(self.inner.admin())
    }
}

#[async_trait]
impl Admin for FaultAdmin {
    async fn create_topic(&self, topic: &Topic, spec: TopicSpec) -> Result<()> {
        self.admin()?.create_topic(topic, spec).await
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicInfo> {
        self.admin()?.describe_topic(topic).await
    }

    async fn topics(&self) -> Result<Vec<Topic>> {
        self.admin()?.topics().await
    }

    async fn grow_topic(&self, topic: &Topic, partitions: u32) -> Result<()> {
        self.admin()?.grow_topic(topic, partitions).await
    }

    async fn purge_topic(&self, topic: &Topic, partition: Option<u32>, before: Start) -> Result<()> {
        self.admin()?.purge_topic(topic, partition, before).await
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.admin()?.delete_topic(topic).await
    }

    async fn cancel_delayed(&self, topic: &Topic, id: MessageId) -> Result<bool> {
        self.admin()?.cancel_delayed(topic, id).await
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.admin()?.groups().await
    }

    async fn describe_group(&self, group: &Group) -> Result<GroupInfo> {
        self.admin()?.describe_group(group).await
    }

    async fn seek_group(
        &self,
        group: &Group,
        topic: &Topic,
        partition: Option<u32>,
        to: Start,
    ) -> Result<()> {
        self.admin()?.seek_group(group, topic, partition, to).await
    }

    async fn delete_group(&self, group: &Group) -> Result<()> {
        self.admin()?.delete_group(group).await
    }
}
