//! Administration, as its users see it.

use super::{
    Embedded,
    queue::{Cost, Lane},
};
use crate::{Admin, Error, Group, GroupInfo, MessageId, Result, Start, Topic, TopicInfo, TopicSpec};
use async_trait::async_trait;
use tokio::sync::oneshot;

impl Embedded {
    fn during(&self, doing: String) -> impl FnOnce(Error) -> Error {
        let backend = self.engine().rules.backend;
        move |error| error.during(doing).on(backend)
    }
}

#[async_trait]
impl Admin for Embedded {
    async fn create_topic(&self, topic: &Topic, spec: TopicSpec) -> Result<()> {
        let name = topic.clone();
        let (reply, answer) = oneshot::channel();
        let asked = self.engine().submit(Lane::Urgent, Cost::default(), move |core, step| {
            core.create_topic(step, &name, spec, reply);
        });
        let answer = self.engine().await_answer(asked, answer);
        answer.await.map_err(self.during(format!("create topic {topic:?}")))
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicInfo> {
        self.engine().catch_up();
        let described = self.engine().core().describe_topic(topic);
        described.map_err(self.during(format!("describe topic {topic:?}")))
    }

    async fn topics(&self) -> Result<Vec<Topic>> {
        self.engine().core().topic_names()
    }

    async fn grow_topic(&self, topic: &Topic, partitions: u32) -> Result<()> {
        let name = topic.clone();
        let answer = self.engine().call(move |core, step| core.grow_topic(step, &name, partitions));
        answer.await.map_err(self.during(format!("grow topic {topic:?}")))
    }

    async fn purge_topic(&self, topic: &Topic, partition: Option<u32>, before: Start) -> Result<()> {
        let name = topic.clone();
        let answer = self.engine().call(move |core, step| core.purge_topic(step, &name, partition, before));
        answer.await.map_err(self.during(format!("purge topic {topic:?}")))
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        let name = topic.clone();
        let answer = self.engine().call(move |core, step| core.delete_topic(step, &name));
        answer.await.map_err(self.during(format!("delete topic {topic:?}")))
    }

    async fn cancel_delayed(&self, topic: &Topic, id: MessageId) -> Result<bool> {
        let name = topic.clone();
        let answer = self.engine().call(move |core, step| core.cancel_delayed(step, &name, id));
        answer.await.map_err(self.during(format!("cancel a delayed message of topic {topic:?}")))
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.engine().core().group_names()
    }

    async fn describe_group(&self, group: &Group) -> Result<GroupInfo> {
        self.engine().catch_up();
        let now = self.engine().time_of_day();
        let described = self.engine().core().describe_group(group, now);
        described.map_err(self.during(format!("describe group {group:?}")))
    }

    async fn seek_group(
        &self,
        group: &Group,
        topic: &Topic,
        partition: Option<u32>,
        to: Start,
    ) -> Result<()> {
        let names = (group.clone(), topic.clone());
        let answer =
            self.engine().call(move |core, step| core.seek_group(step, &names.0, &names.1, partition, to));
        answer.await.map_err(self.during(format!("seek group {group:?} on topic {topic:?}")))
    }

    async fn delete_group(&self, group: &Group) -> Result<()> {
        let name = group.clone();
        let answer = self.engine().call(move |core, step| core.delete_group(step, &name));
        answer.await.map_err(self.during(format!("delete group {group:?}")))
    }
}
