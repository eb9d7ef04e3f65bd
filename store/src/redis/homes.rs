//! Which slots of a cluster have another home: a node that took the place of the one that had them, and need not have all that it had.
//!
//! A slot that moves (`MIGRATE`) takes its keys along: its node is another one, and it has all. A replica that is promoted has all slots of its primary, and
//! what had been copied. The two are told apart by who has slots before and after: who gives a slot away keeps others, or gives it to one that
//! had some; who is replaced keeps none, and who replaces it had none. A node that gives its last slot to one that had none looks like one that
//! was replaced: then nothing is missing, and it is said that something may be. Pure. Not here: where slots are now (`topology.rs`).

use super::slots::{SLOTS, slot_of_key};
use std::{collections::HashSet, sync::Arc};

/// Since when each slot of a cluster has its home, as far as was seen. Numbers begin at 1 and go up each time when a node took the place of another one.
#[derive(Clone, Debug)]
pub struct Homes {
    number: u64,
    slots: Arc<[u64]>,
}

impl Default for Homes {
    fn default() -> Self {
        Self { number: 1, slots: vec![1; usize::from(SLOTS)].into() }
    }
}

impl Homes {
    /// Which they are: it goes up when one of them becomes another.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The number with which this key came to where it is, though its slot may have moved since.
    #[must_use]
    pub fn since(&self, key: &[u8]) -> u64 {
        self.since_slot(slot_of_key(key))
    }

    pub(super) fn since_slot(&self, slot: u16) -> u64 {
        self.slots.get(usize::from(slot)).copied().unwrap_or(self.number)
    }
}

/// Who had each slot when it was looked last.
#[derive(Debug, Default)]
pub(super) struct Owners {
    owners: Vec<Option<Arc<str>>>,
    homes: Homes,
}

impl Owners {
    pub(super) fn homes(&self) -> Homes {
        self.homes.clone()
    }

    /// Takes note of who has the slots now: first and last, and the name that the node has in its cluster. Whether one took the place of another.
    pub(super) fn look<'a>(&mut self, now: impl Iterator<Item = (u16, u16, &'a Arc<str>)> + Clone) -> bool {
        let had: HashSet<Arc<str>> = self.owners.iter().flatten().cloned().collect();
        let have: HashSet<&Arc<str>> = now.clone().map(|(_, _, node)| node).collect();
        self.owners.resize(usize::from(SLOTS), None);
        let mut replaced = Vec::new();
        for (first, last, node) in now {
            for slot in first..=last {
                let Some(owner) = self.owners.get_mut(usize::from(slot)) else { continue };
                let before = owner.replace(Arc::clone(node));
                if before
                    .is_some_and(|before| before != *node && !have.contains(&before) && !had.contains(node))
                {
                    replaced.push(slot);
                }
            }
        }
        if replaced.is_empty() {
            return false;
        }
        self.homes.number += 1;
        let mut slots = self.homes.slots.to_vec();
        replaced.iter().for_each(|slot| slots[usize::from(*slot)] = self.homes.number);
        self.homes.slots = slots.into();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at who has slots 0 to 9, 10 to 19 and 20 to 29 and what else is said; answers the numbers of slots 0, 10 and 20.
    fn look(owners: &mut Owners, nodes: [&str; 3], more: &[(u16, u16, &str)]) -> [u64; 3] {
        let thirds = nodes.iter().zip(0..).map(|(node, third)| (third * 10, third * 10 + 9, *node));
        let all: Vec<_> =
            thirds.chain(more.iter().copied()).filter(|(_, _, node)| !node.is_empty()).collect();
        let all: Vec<(u16, u16, Arc<str>)> =
            all.into_iter().map(|(a, b, node)| (a, b, node.into())).collect();
        owners.look(all.iter().map(|(first, last, node)| (*first, *last, node)));
        [0, 10, 20].map(|slot| owners.homes().since_slot(slot))
    }

    #[test]
    fn a_replica_that_is_promoted_is_another_home_for_the_slots_of_its_primary() {
        let mut owners = Owners::default();
        assert_eq!(look(&mut owners, ["a", "b", "c"], &[]), [1, 1, 1]);
        assert_eq!(look(&mut owners, ["a", "b", "c"], &[]), [1, 1, 1]);
        assert_eq!(look(&mut owners, ["a2", "b", "c"], &[]), [2, 1, 1]);
        assert_eq!(look(&mut owners, ["a2", "b2", "c2"], &[]), [2, 3, 3], "two at once");
        assert_eq!(look(&mut owners, ["a", "b2", "c2"], &[]), [4, 3, 3], "back again");
        assert_eq!(owners.homes().number(), 4);
    }

    #[test]
    fn a_slot_that_moves_keeps_its_home() {
        let mut owners = Owners::default();
        look(&mut owners, ["a", "b", "c"], &[(30, 39, "a")]);
        assert_eq!(look(&mut owners, ["b", "b", "c"], &[(30, 39, "a")]), [1, 1, 1], "to one that has slots");
        assert_eq!(look(&mut owners, ["d", "b", "c"], &[(30, 39, "a")]), [1, 1, 1], "to one that had none");
        assert_eq!(look(&mut owners, ["d", "b", "c"], &[(30, 39, "c")]), [1, 1, 1]);
        assert_eq!(look(&mut owners, ["c", "b", "c"], &[(30, 39, "c")]), [1, 1, 1], "the last that it had");
        assert_eq!(
            look(&mut owners, ["c", "e", "c"], &[(30, 39, "c")]),
            [1, 2, 1],
            "it cannot be told apart"
        );
    }

    #[test]
    fn a_slot_of_which_nothing_is_known_meanwhile_is_compared_with_what_was_known_before() {
        let mut owners = Owners::default();
        look(&mut owners, ["a", "b", "c"], &[]);
        assert_eq!(look(&mut owners, ["", "b", "c"], &[]), [1, 1, 1]);
        assert_eq!(look(&mut owners, ["a2", "b", "c"], &[]), [2, 1, 1]);
    }
}
