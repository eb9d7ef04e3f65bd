//! Who should own which partition.
//!
//! Pure and deterministic, so that every member of a group comes to the same answer. Sticky: who owns keeps, unless the load is uneven;
//! as few moves as make it even. With mixed subscriptions a
//! load that only a chain of moves could even out stays as it is. Used by `embedded`, and by the Redis and Pulsar backends.
//! Not here: how a partition changes hands (drain, give up, epoch: each backend).

use crate::Topic;
use std::collections::{BTreeMap, BTreeSet};

/// A partition of a topic.
pub type TopicPartition = (Topic, u32);

/// A member that wants work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name, which is unique in the group.
    pub name: String,
    /// The topics it consumes.
    pub topics: BTreeSet<Topic>,
}

/// Says who should own each of `partitions`; a partition of a topic that nobody consumes is left out.
///
/// `current` is who owns it now; `preferred` who had it under that (static) name before: it wins where a partition has to be placed or
/// moved anyway.
#[must_use]
pub fn balance(
    partitions: &BTreeSet<TopicPartition>,
    candidates: &[Candidate],
    current: &BTreeMap<TopicPartition, String>,
    preferred: &BTreeMap<TopicPartition, String>,
) -> BTreeMap<TopicPartition, String> {
    let mut members: Vec<&Candidate> = candidates.iter().collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let plan = Plan::new(partitions, &members, current, preferred);
    let owned = plan.even_out();
    let mut out = BTreeMap::new();
    for (set, member) in owned.into_iter().zip(&members) {
        out.extend(set.into_iter().map(|p| (plan.partitions[p].clone(), member.name.clone())));
    }
    out
}

/// Everything by index, so that evening out compares numbers.
struct Plan<'a> {
    partitions: Vec<&'a TopicPartition>,
    /// Per member, whether it takes a partition of that topic.
    takes: Vec<BTreeSet<&'a Topic>>,
    /// Per partition.
    current: Vec<Option<usize>>,
    preferred: Vec<Option<usize>>,
}

impl<'a> Plan<'a> {
    fn new(
        partitions: &'a BTreeSet<TopicPartition>,
        members: &[&'a Candidate],
        current: &BTreeMap<TopicPartition, String>,
        preferred: &BTreeMap<TopicPartition, String>,
    ) -> Self {
        let index: BTreeMap<&str, usize> =
            members.iter().enumerate().map(|(i, member)| (member.name.as_str(), i)).collect();
        let named = |names: &BTreeMap<TopicPartition, String>| {
            let member = |p: &TopicPartition| {
                let i = *index.get(names.get(p)?.as_str())?;
                members[i].topics.contains(&p.0).then_some(i)
            };
            partitions.iter().map(member).collect()
        };
        Self {
            takes: members.iter().map(|member| member.topics.iter().collect()).collect(),
            current: named(current),
            preferred: named(preferred),
            partitions: partitions.iter().collect(),
        }
    }

    fn takes(&self, member: usize, partition: usize) -> bool {
        self.takes[member].contains(&self.partitions[partition].0)
    }

    /// Who owns what.
    fn even_out(&self) -> Vec<BTreeSet<usize>> {
        let mut owned: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.takes.len()];
        let mut free = Vec::new();
        for (p, current) in self.current.iter().enumerate() {
            match current {
                Some(i) => _ = owned[*i].insert(p),
                None => free.push(p),
            }
        }
        // First those that somebody had before, so that the others even out around them.
        free.sort_by_key(|p| self.preferred[*p].is_none());
        for p in free {
            let least = (0..owned.len()).filter(|i| self.takes(*i, p)).min_by_key(|i| {
                let prefers = self.preferred[p] == Some(*i);
                (owned[*i].len().saturating_sub(usize::from(prefers)), !prefers, *i)
            });
            if let Some(i) = least {
                owned[i].insert(p);
            }
        }
        // Each move makes the sum of squares smaller, so this ends.
        while let Some((from, to, partition)) = self.best_move(&owned) {
            owned[from].remove(&partition);
            owned[to].insert(partition);
        }
        owned
    }

    /// A move that makes the load more even: from the fullest to the emptiest that differ by two or more.
    fn best_move(&self, owned: &[BTreeSet<usize>]) -> Option<(usize, usize, usize)> {
        let mut by_load: Vec<usize> = (0..owned.len()).collect();
        by_load.sort_by_key(|i| (owned[*i].len(), *i));
        for &from in by_load.iter().rev() {
            for &to in &by_load {
                if owned[from].len() < owned[to].len() + 2 {
                    break;
                }
                if self.takes[from].is_disjoint(&self.takes[to]) {
                    continue;
                }
                // Rather what the taker had before, rather not what the giver had before, else the last.
                let best = owned[from].iter().filter(|p| self.takes(to, **p)).max_by_key(|p| {
                    let before = self.preferred[**p];
                    (before == Some(to), before != Some(from), **p)
                });
                if let Some(partition) = best {
                    return Some((from, to, *partition));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn candidate(name: &str, topics: &[&str]) -> Candidate {
        Candidate { name: name.into(), topics: topics.iter().map(|t| topic(t)).collect() }
    }

    fn all(name: &str, n: u32) -> BTreeSet<TopicPartition> {
        (0..n).map(|i| (topic(name), i)).collect()
    }

    #[test]
    fn a_newcomer_takes_just_its_part_and_a_static_name_gets_back_what_it_had() {
        let partitions = all("t", 8);
        let none = BTreeMap::new();
        let two = [candidate("a", &["t"]), candidate("b", &["t"])];
        let first = balance(&partitions, &two, &none, &none);
        let alone = balance(&partitions, &two[1..], &first, &first);
        assert!(alone.values().all(|name| name == "b"));
        let back = balance(&partitions, &two, &alone, &first);
        assert_eq!(back, first);
        let three =
            balance(&partitions, &[two[0].clone(), two[1].clone(), candidate("c", &["t"])], &first, &none);
        let moved = first.iter().filter(|(p, name)| three[p] != **name).count();
        assert_eq!(moved, 2);
    }

    #[test]
    fn nobody_gets_a_topic_it_does_not_consume() {
        let partitions: BTreeSet<_> = all("t", 4).union(&all("u", 4)).cloned().collect();
        let plan = balance(
            &partitions,
            &[candidate("a", &["t"]), candidate("b", &["t", "u"])],
            &BTreeMap::new(),
            &BTreeMap::new(),
        );
        assert!(plan.iter().all(|((t, _), name)| t.as_str() == "t" || name == "b"));
        assert_eq!(plan.len(), 8);
        assert_eq!(plan.values().filter(|name| *name == "a").count(), 4);
    }

    proptest! {
        #[test]
        fn everything_is_owned_evenly_with_few_moves(
            n in 0u32..40, before in proptest::collection::btree_set(0u8..12, 1..8), after in proptest::collection::btree_set(0u8..12, 1..8),
        ) {
            let partitions = all("t", n);
            let make = |set: &BTreeSet<u8>| -> Vec<Candidate> { set.iter().map(|i| candidate(&format!("m{i}"), &["t"])).collect() };
            let none = BTreeMap::new();
            let first = balance(&partitions, &make(&before), &none, &none);
            let second = balance(&partitions, &make(&after), &first, &none);
            for (plan, members) in [(&first, &before), (&second, &after)] {
                prop_assert_eq!(plan.len(), n as usize);
                let mut load: BTreeMap<&String, usize> = BTreeMap::new();
                for name in plan.values() { *load.entry(name).or_default() += 1; }
                let least = if load.len() < members.len() { 0 } else { *load.values().min().unwrap_or(&0) };
                prop_assert!(load.values().max().copied().unwrap_or(0) <= least + 1);
            }
            // A stable group does not move at all, and order of candidates does not matter.
            let mut reversed = make(&after);
            reversed.reverse();
            prop_assert_eq!(&balance(&partitions, &reversed, &second, &none), &second);
            // Moves: only what lost its owner, or what a newcomer needs.
            let kept: BTreeSet<_> = before.intersection(&after).collect();
            let fresh = after.difference(&before).count();
            let orphaned = first.values().filter(|name| !kept.iter().any(|k| format!("m{k}") == **name)).count();
            let moved = first.iter().filter(|(p, name)| second[*p] != **name).count();
            let per_member = (n as usize).div_ceil(after.len());
            prop_assert!(moved <= orphaned + fresh * per_member, "moved {moved}");
        }
    }
}
