//! The names of the keys in Redis: the one place that puts them together.
//!
//! A name in braces is the hash tag: keys with the same one lie in the same slot of a cluster, so that one script may touch them. What is in
//! the keys, and who writes them, is told in `mod.rs`.

use crate::{Error, ErrorKind, Group, Result, Topic};
use std::sync::Arc;

/// What our keys begin with, unless the URL says otherwise.
pub(super) const DEFAULT_PREFIX: &str = "ropeway";
/// The longest prefix, in bytes.
const MAX_PREFIX: usize = 64;

/// The keys of one installation: those with its prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    /// The keys with that prefix.
    ///
    /// # Errors
    /// `Invalid` for a prefix that is empty, too long, or could change which slot a key lies in.
    pub(super) fn new(prefix: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.chars().all(fits) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("a prefix of keys is 1 to {MAX_PREFIX} of letters, digits, '.', '_', '-' and ':'"),
            ));
        }
        Ok(Self { prefix: Arc::from(prefix) })
    }

    /// Set: the names of the topics.
    pub(super) fn topics(&self) -> String {
        format!("{}:topics", self.prefix)
    }

    /// Set: the names of the groups.
    pub(super) fn groups(&self) -> String {
        format!("{}:groups", self.prefix)
    }

    /// Hash: what a topic is.
    pub(super) fn topic(&self, topic: &Topic) -> String {
        format!("{}:topic:{{{topic}}}", self.prefix)
    }

    /// Set: the groups that have, or had, a member on the topic or a position in it.
    pub(super) fn groups_of(&self, topic: &Topic) -> String {
        format!("{}:topic:{{{topic}}}:groups", self.prefix)
    }

    /// The keys of a partition of a topic of ours.
    pub(super) fn partition(&self, topic: &Topic, partition: u32) -> PartitionKeys {
        let stem = format!("{}:{{{topic}/{partition}}}", self.prefix);
        PartitionKeys { log: format!("{stem}:log"), stem }
    }

    /// The keys of a stream that somebody else writes: its log has the name of the topic, and ours lie in its slot.
    pub(super) fn foreign(&self, topic: &Topic) -> PartitionKeys {
        PartitionKeys { log: topic.to_string(), stem: format!("{}:{{{topic}}}", self.prefix) }
    }

    /// The keys of a group.
    pub(super) fn group(&self, group: &Group) -> GroupKeys {
        GroupKeys { stem: format!("{}:{{group/{group}}}", self.prefix) }
    }
}

/// The keys of one partition: all in one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartitionKeys {
    log: String,
    stem: String,
}

impl PartitionKeys {
    /// Stream: the messages.
    pub(super) fn log(&self) -> &str {
        &self.log
    }

    /// Hash: which life this is, and what was removed.
    pub(super) fn part(&self) -> String {
        format!("{}:part", self.stem)
    }

    /// Sorted set: ids of delayed messages, by the milliseconds at which they are due.
    pub(super) fn delayed(&self) -> String {
        format!("{}:delayed", self.stem)
    }

    /// Hash: the entries of delayed messages, by id.
    pub(super) fn held(&self) -> String {
        format!("{}:held", self.stem)
    }

    /// Hash: what a group has of the partition.
    pub(super) fn group(&self, group: &Group) -> String {
        format!("{}:group:{group}", self.stem)
    }
}

/// The keys of one group: all in one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupKeys {
    stem: String,
}

impl GroupKeys {
    /// Sorted set: members, by the milliseconds at which their lease ends, by the server's clock.
    pub(super) fn members(&self) -> String {
        format!("{}:members", self.stem)
    }

    /// Hash: what each member asked for, by name.
    pub(super) fn asked(&self) -> String {
        format!("{}:asked", self.stem)
    }

    /// Hash: who owns a partition (`<topic>/<partition>`).
    pub(super) fn owners(&self) -> String {
        format!("{}:owners", self.stem)
    }

    /// Hash: which static name had a partition last.
    pub(super) fn had(&self) -> String {
        format!("{}:had", self.stem)
    }

    /// Stream of one entry: added to whenever somebody joins, leaves, takes or gives back, so that the others look.
    pub(super) fn news(&self) -> String {
        format!("{}:news", self.stem)
    }

    /// Hash: where the group starts in a topic, by the name of the topic.
    pub(super) fn starts(&self) -> String {
        format!("{}:starts", self.stem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Redis hashes to find the slot of a key.
    fn tag(key: &str) -> &str {
        let inner = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
        inner.filter(|tag| !tag.is_empty()).unwrap_or(key)
    }

    #[test]
    fn all_keys_of_a_partition_and_of_a_group_lie_in_one_slot() {
        let keys = Keys::new("a:b").unwrap();
        let (topic, group) = (Topic::new("orders.v1").unwrap(), Group::new("billing").unwrap());
        for (partition, expected) in
            [(keys.partition(&topic, 7), "orders.v1/7"), (keys.foreign(&topic), "orders.v1")]
        {
            let all = [
                partition.log().to_owned(),
                partition.part(),
                partition.delayed(),
                partition.held(),
                partition.group(&group),
            ];
            assert!(all.iter().all(|key| tag(key) == expected), "{all:?}");
        }
        let group = keys.group(&group);
        let all = [group.members(), group.asked(), group.owners(), group.had(), group.news(), group.starts()];
        assert!(all.iter().all(|key| tag(key) == "group/billing"), "{all:?}");
    }

    #[test]
    fn names_never_meet() {
        let keys = Keys::new(DEFAULT_PREFIX).unwrap();
        // A topic whose name looks like what we put behind names.
        let names = ["a", "a.0", "group", "topics", "a-groups"].map(|name| Topic::new(name).unwrap());
        let mut all = vec![keys.topics(), keys.groups()];
        for topic in &names {
            all.extend([keys.topic(topic), keys.groups_of(topic)]);
            for partition in [0, 1, 10] {
                let of = keys.partition(topic, partition);
                all.extend([of.log().to_owned(), of.part(), of.delayed(), of.held()]);
                all.push(of.group(&Group::new(topic.as_str()).unwrap()));
            }
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_prefix_that_would_move_keys_to_other_slots_is_refused() {
        for bad in ["", "a{b", "a}b", "a b", &"x".repeat(65)] {
            assert_eq!(Keys::new(bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
        }
    }
}
