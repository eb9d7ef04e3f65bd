//! Administration of topics and groups.

use super::broker::Kafka;
use crate::{
    Admin, Error, ErrorKind, Group, GroupInfo, MessageId, Result, Start, Topic, TopicInfo, TopicSpec,
};
use async_trait::async_trait;

fn being_built<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unavailable, "administration of Kafka is being built"))
}

#[async_trait]
impl Admin for Kafka {
    async fn create_topic(&self, _: &Topic, _: TopicSpec) -> Result<()> {
        being_built()
    }
    async fn describe_topic(&self, _: &Topic) -> Result<TopicInfo> {
        being_built()
    }
    async fn topics(&self) -> Result<Vec<Topic>> {
        being_built()
    }
    async fn grow_topic(&self, _: &Topic, _: u32) -> Result<()> {
        being_built()
    }
    async fn purge_topic(&self, _: &Topic, _: Option<u32>, _: Start) -> Result<()> {
        being_built()
    }
    async fn delete_topic(&self, _: &Topic) -> Result<()> {
        being_built()
    }
    async fn cancel_delayed(&self, _: &Topic, _: MessageId) -> Result<bool> {
        being_built()
    }
    async fn groups(&self) -> Result<Vec<Group>> {
        being_built()
    }
    async fn describe_group(&self, _: &Group) -> Result<GroupInfo> {
        being_built()
    }
    async fn seek_group(&self, _: &Group, _: &Topic, _: Option<u32>, _: Start) -> Result<()> {
        being_built()
    }
    async fn delete_group(&self, _: &Group) -> Result<()> {
        being_built()
    }
}
