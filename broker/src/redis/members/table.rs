//! Who is in a group and who owns what, as the server told it last; and what follows from that for one member.
//!
//! Pure. Not here: who should own what (`../../balance.rs`), the scripts that keep the table (`../scripts/lease.lua`), what is owned and
//! how it goes (`core.rs`).

use super::super::{commands::Told, topics::pairs};
use crate::{
    Topic,
    balance::{Candidate, TopicPartition, balance},
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// How many partitions each topic has; a topic that is not in it is not there.
pub(super) type Counts = BTreeMap<Topic, u32>;

/// The table of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// The token of each member's membership.
    tokens: BTreeMap<String, String>,
    /// The topics of each member.
    topics: BTreeMap<String, BTreeSet<Topic>>,
    owners: BTreeMap<TopicPartition, String>,
    had: BTreeMap<TopicPartition, String>,
}

/// What it depends on who should own what: who is there, for what, and how many partitions there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    tokens: BTreeMap<String, String>,
    topics: BTreeMap<String, BTreeSet<Topic>>,
    counts: Counts,
}

/// How a partition is called in the table.
pub(super) fn name((topic, partition): &TopicPartition) -> String {
    format!("{topic}/{partition}")
}

/// The partition of that name.
pub(super) fn partition(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('/')?;
    Some((Topic::new(topic).ok()?, partition.parse().ok()?))
}

impl Table {
    /// What `lease.lua` answered. What is not in form was written by nobody of us and is left out.
    pub(super) fn of(told: &Told) -> Self {
        let list = |at: usize| told.items.get(at).map(pairs).unwrap_or_default();
        Self::parse(&list(2), &list(3), &list(4))
    }

    fn parse(
        asked: &BTreeMap<String, Bytes>,
        owners: &BTreeMap<String, Bytes>,
        had: &BTreeMap<String, Bytes>,
    ) -> Self {
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        let named = |all: &BTreeMap<String, Bytes>| {
            all.iter().filter_map(|(name, who)| Some((partition(name)?, text(who)))).collect()
        };
        let mut table =
            Self { owners: named(owners), had: named(had), tokens: BTreeMap::new(), topics: BTreeMap::new() };
        for (member, asked) in asked {
            let asked = text(asked);
            let (token, topics) = asked.split_once(' ').unwrap_or((&asked, ""));
            let topics = topics.split(',').filter_map(|name| Topic::new(name).ok()).collect();
            table.tokens.insert(member.clone(), token.to_owned());
            table.topics.insert(member.clone(), topics);
        }
        table
    }

    /// All topics that somebody consumes.
    pub(super) fn topics(&self) -> BTreeSet<Topic> {
        self.topics.values().flatten().cloned().collect()
    }

    pub(super) fn owner(&self, of: &TopicPartition) -> Option<&str> {
        self.owners.get(of).map(String::as_str)
    }

    /// What that member owns.
    pub(super) fn owned_by<'a>(&'a self, member: &'a str) -> impl Iterator<Item = &'a TopicPartition> {
        self.owners.iter().filter(move |(_, owner)| *owner == member).map(|(of, _)| of)
    }

    /// How many partitions a topic has at least, since they are owned.
    pub(super) fn owned_of(&self, topic: &Topic) -> Option<u32> {
        self.owners.keys().filter(|key| key.0 == *topic).map(|key| key.1.saturating_add(1)).max()
    }

    pub(super) fn set_owner(&mut self, of: &TopicPartition, owner: Option<&str>) {
        match owner {
            Some(owner) => _ = self.owners.insert(of.clone(), owner.to_owned()),
            None => _ = self.owners.remove(of),
        }
    }

    /// What it depends on who should own what.
    pub(super) fn membership(&self, counts: &Counts) -> Membership {
        Membership { tokens: self.tokens.clone(), topics: self.topics.clone(), counts: counts.clone() }
    }

    /// Who should own what. Every member that sees this table comes to the same.
    pub(super) fn wanted(&self, counts: &Counts) -> BTreeMap<TopicPartition, String> {
        let candidates: Vec<Candidate> = self
            .topics
            .iter()
            .map(|(name, topics)| Candidate { name: name.clone(), topics: topics.clone() })
            .collect();
        let partitions: BTreeSet<TopicPartition> = counts
            .iter()
            .flat_map(|(topic, count)| (0..*count).map(move |partition| (topic.clone(), partition)))
            .collect();
        balance(&partitions, &candidates, &self.owners, &self.had)
    }

    /// Who else takes a partition that `giver` does not want: the one that owns least.
    pub(super) fn taker(&self, of: &TopicPartition, giver: &str) -> Option<&str> {
        let load = |name: &str| self.owned_by(name).count();
        let takes = |(name, topics): &(&String, &BTreeSet<Topic>)| *name != giver && topics.contains(&of.0);
        let others = self.topics.iter().filter(takes).map(|(name, _)| name.as_str());
        others.min_by_key(|name| load(name))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn table(
        asked: &[(&str, &str)],
        owners: &[(&str, &str)],
        had: &[(&str, &str)],
    ) -> Table {
        let all = |pairs: &[(&str, &str)]| {
            let pair =
                |(name, value): &(&str, &str)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes()));
            pairs.iter().map(pair).collect()
        };
        Table::parse(&all(asked), &all(owners), &all(had))
    }

    fn counts(topic: &str, count: u32) -> Counts {
        [(Topic::new(topic).unwrap(), count)].into()
    }

    fn say(wanted: &BTreeMap<TopicPartition, String>) -> String {
        wanted.iter().map(|(of, who)| format!("{} {who}", name(of))).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn names_of_partitions_are_read_as_they_were_written() {
        let of = (Topic::new("a.b").unwrap(), 12);
        assert_eq!(partition(&name(&of)), Some(of));
        for bad in ["a", "a/", "a/x", "/1", "@a/1"] {
            assert_eq!(partition(bad), None, "{bad}");
        }
    }

    #[test]
    fn free_partitions_go_to_who_has_least_and_had_them() {
        let table = table(
            &[("a", "m-1 t"), ("b", "m-2 t"), ("c", "m-3 u"), ("leaving", "m-4 ")],
            &[("t/0", "a"), ("t/9", "b")],
            &[("t/3", "a"), ("@t/3", "5")],
        );
        assert_eq!(say(&table.wanted(&counts("t", 4))), "t/0 a, t/1 b, t/2 b, t/3 a");
        assert_eq!(table.topics().len(), 2);
        assert!(table.wanted(&Counts::new()).is_empty(), "a topic that is not there is nobody's");
    }

    #[test]
    fn what_is_given_up_goes_to_another_that_takes_it() {
        let table = table(
            &[("a", "m-1 t"), ("b", "m-2 t"), ("c", "m-3 u"), ("d", "m-4 t")],
            &[("t/0", "a"), ("t/1", "b")],
            &[],
        );
        let of = (Topic::new("t").unwrap(), 0);
        assert_eq!(table.taker(&of, "a"), Some("d"));
        assert_eq!(table.taker(&(Topic::new("u").unwrap(), 0), "c"), None);
    }

    #[test]
    fn a_new_membership_under_a_name_is_another_membership() {
        let (one, two) = (table(&[("a", "s-1 t")], &[], &[]), table(&[("a", "s-2 t")], &[], &[]));
        assert_ne!(one.membership(&Counts::new()), two.membership(&Counts::new()));
    }
}
