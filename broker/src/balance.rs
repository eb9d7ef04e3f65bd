//! Who should own which partition.
//!
//! Pure and deterministic, so that every member of a group comes to the same answer. Sticky: who owns keeps, unless the load is uneven;
//! as few moves as make it even. Used by `embedded`, and by the Redis and Pulsar backends.
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
    let index: BTreeMap<&str, usize> =
        members.iter().enumerate().map(|(i, m)| (m.name.as_str(), i)).collect();
    let takes = |i: usize, (topic, _): &TopicPartition| members[i].topics.contains(topic);
    let named = |names: &BTreeMap<TopicPartition, String>, p: &TopicPartition| {
        names.get(p).and_then(|name| index.get(name.as_str()).copied()).filter(|i| takes(*i, p))
    };

    let mut owned: Vec<BTreeSet<&TopicPartition>> = vec![BTreeSet::new(); members.len()];
    let mut free = Vec::new();
    for partition in partitions {
        match named(current, partition) {
            Some(i) => _ = owned[i].insert(partition),
            None => free.push(partition),
        }
    }
    // First those that somebody had before, so that the others even out around them.
    free.sort_by_key(|p| named(preferred, p).is_none());
    for partition in free {
        let least = (0..members.len()).filter(|i| takes(*i, partition)).min_by_key(|i| {
            let prefers = named(preferred, partition) == Some(*i);
            (owned[*i].len().saturating_sub(usize::from(prefers)), !prefers, *i)
        });
        if let Some(i) = least {
            owned[i].insert(partition);
        }
    }
    // Each move makes the sum of squares smaller, so this ends.
    while let Some((from, to, partition)) = best_move(&owned, &members, &named, preferred) {
        owned[from].remove(partition);
        owned[to].insert(partition);
    }
    owned
        .into_iter()
        .zip(&members)
        .flat_map(|(set, member)| set.into_iter().map(|p| (p.clone(), member.name.clone())))
        .collect()
}

/// A move that makes the load more even: from the fullest to the emptiest that differ by two or more.
fn best_move<'a>(
    owned: &[BTreeSet<&'a TopicPartition>],
    members: &[&Candidate],
    named: &impl Fn(&BTreeMap<TopicPartition, String>, &TopicPartition) -> Option<usize>,
    preferred: &BTreeMap<TopicPartition, String>,
) -> Option<(usize, usize, &'a TopicPartition)> {
    let mut by_load: Vec<usize> = (0..owned.len()).collect();
    by_load.sort_by_key(|i| (owned[*i].len(), *i));
    for &from in by_load.iter().rev() {
        for &to in &by_load {
            if owned[from].len() < owned[to].len() + 2 {
                break;
            }
            // Rather what the taker had before, rather not what the giver had before, else the last.
            let movable = owned[from].iter().filter(|p| members[to].topics.contains(&p.0));
            let best = movable.max_by_key(|p| {
                let before = named(preferred, p);
                (before == Some(to), before != Some(from), **p)
            });
            if let Some(partition) = best {
                return Some((from, to, *partition));
            }
        }
    }
    None
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
