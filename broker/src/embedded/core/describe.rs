//! Reports: topics, groups, lag.

use super::{Core, groups::no_group, member::Share};
use crate::{
    AckWindow, Group, GroupInfo, GroupPartition, MemberInfo, PartitionInfo, Position, Result, Timestamp,
    Topic, TopicInfo, TopicSpec,
};
use std::time::Duration;

impl Core {
    pub(in crate::embedded) fn topic_names(&self) -> Result<Vec<Topic>> {
        self.open()?;
        Ok(self.names.keys().cloned().collect())
    }

    pub(in crate::embedded) fn group_names(&self) -> Result<Vec<Group>> {
        self.open()?;
        Ok(self.groups.keys().cloned().collect())
    }

    pub(in crate::embedded) fn describe_topic(&self, topic: &Topic) -> Result<TopicInfo> {
        self.open()?;
        let state = self.topic(topic)?;
        Ok(TopicInfo {
            spec: TopicSpec { partitions: state.count(), retention: state.retention.clone() },
            durability: self.rules.durability,
            max_message: self.rules.max_message,
            delayed: Some(state.delayed),
            partitions: state
                .partitions
                .iter()
                .map(|part| PartitionInfo {
                    low: state.at(part.low),
                    end: state.at(part.end),
                    messages: Some(part.end.saturating_sub(part.low)),
                })
                .collect(),
        })
    }

    pub(in crate::embedded) fn describe_group(&self, group: &Group, now: Timestamp) -> Result<GroupInfo> {
        self.open()?;
        let state = self.groups.get(group).ok_or_else(|| no_group(group))?;
        let members = state
            .members
            .iter()
            .filter_map(|(name, id)| Some((name, self.members.get(id)?)))
            .map(|(name, member)| MemberInfo {
                name: name.clone(),
                topics: member.topics.iter().cloned().collect(),
            })
            .collect();
        let partitions =
            state.shares.values().filter_map(|id| self.describe_share(self.shares.get(id)?, now)).collect();
        Ok(GroupInfo { members, partitions })
    }

    /// `None` where the topic or the partition does not exist any more.
    fn describe_share(&self, share: &Share, now: Timestamp) -> Option<GroupPartition> {
        let topic = self.topic(&share.topic).ok()?;
        let part = topic.partition(share.partition)?;
        // A position in an earlier life stands for the beginning of this one.
        let window = share.window.as_ref().filter(|window| window.position().0 == topic.life);
        let position = share.position();
        let from = window.map_or(part.low, |window| window.position().1.max(part.low));
        let lag = part.end.saturating_sub(from);
        let known = position.is_some();
        let unfinished = window.map_or(lag, |window| unfinished(window, from, part.end).min(lag));
        let lag_time = if lag == 0 {
            Some(Duration::ZERO)
        } else {
            self.taken_at(topic.life, share.partition, from).map(|at| now.since(at))
        };
        Some(GroupPartition {
            topic: share.topic.clone(),
            partition: share.partition,
            owner: share.owner.and_then(|owner| self.members.get(&owner)).map(|member| member.name.clone()),
            epoch: share.epoch,
            position,
            end: Position(topic.life, part.end),
            lag: known.then_some(lag),
            unfinished: known.then_some(unfinished),
            lag_time: lag_time.filter(|_| known),
        })
    }
}

/// How many messages from `from` to `end` are not done.
fn unfinished(window: &AckWindow, from: u64, end: u64) -> u64 {
    let until = window.until().1.max(from);
    window.holes() as u64 + end.saturating_sub(until)
}
