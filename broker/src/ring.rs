//! What is out of one partition, in order.
//!
//! Messages are handed out in order and come back in any. [`Ring`] keeps them in one row: adding costs a push, finding mostly a subtraction,
//! as positions mostly follow each other. Not here: which acks make a position (`ack_window.rs`).
//!
//! Bound: twice what is out and [`SLACK`] places, however long the first one stays out.

use crate::Position;
use std::collections::VecDeque;

/// How many places of what came back are kept at the least before they are cleared away.
const SLACK: usize = 64;

/// Values by position, added in order and taken out in any.
#[derive(Clone, Debug)]
pub(crate) struct Ring<V> {
    /// `None` where it was taken out; never at the front.
    places: VecDeque<(Position, Option<V>)>,
    len: usize,
}

impl<V> Ring<V> {
    pub(crate) const fn new() -> Self {
        Self { places: VecDeque::new(), len: 0 }
    }

    /// How many are in it.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Adds a value. Its position is greater than all that were added before.
    pub(crate) fn push(&mut self, position: Position, value: V) {
        debug_assert!(self.places.back().is_none_or(|(last, _)| *last < position), "in order");
        self.places.push_back((position, Some(value)));
        self.len += 1;
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, position: Position) -> Option<V> {
        // Mostly the first one comes back first.
        let first = self.places.front().is_some_and(|(first, _)| *first == position);
        let at = if first { 0 } else { self.find(position)? };
        let value = self.places.get_mut(at)?.1.take()?;
        self.len -= 1;
        self.clear_away();
        Some(value)
    }

    fn clear_away(&mut self) {
        while self.places.front().is_some_and(|(_, value)| value.is_none()) {
            self.places.pop_front();
        }
        // Behind one that stays out, what came back would pile up.
        if self.places.len() > 2 * self.len + SLACK {
            self.places.retain(|(_, value)| value.is_some());
        }
    }

    pub(crate) fn contains(&self, position: Position) -> bool {
        self.contained(&[position]) == 1
    }

    /// Takes out those of `positions`, from the first on, that stand first in it, with nothing between them that was taken out before; answers how
    /// many. `each` gets their values.
    pub(crate) fn remove_first(&mut self, positions: &[Position], each: impl FnMut(V)) -> usize {
        let run = self.run(0, positions);
        self.places.drain(..run).filter_map(|(_, value)| value).for_each(each);
        self.len -= run;
        self.clear_away();
        run
    }

    /// How many of `positions`, from the first on, are in it. Those that follow each other in it cost one search together.
    pub(crate) fn contained(&self, positions: &[Position]) -> usize {
        let (mut known, mut at) = (0, 0);
        while let Some(position) = positions.get(known) {
            if self.places.get(at).is_none_or(|(found, _)| found != position) {
                let Some(found) = self.find(*position) else { break };
                at = found;
            }
            let run = self.run(at, &positions[known..]);
            if run == 0 {
                break;
            }
            (known, at) = (known + run, at + run);
        }
        known
    }

    /// How many of `positions`, from the first on, stand one behind the other from the place `at` on.
    fn run(&self, at: usize, positions: &[Position]) -> usize {
        let places = self.places.range(at.min(self.places.len())..);
        let same = |((found, value), position): &(&(Position, Option<V>), &Position)| {
            found == *position && value.is_some()
        };
        places.zip(positions).take_while(same).count()
    }

    /// The first position that is in it.
    pub(crate) fn first(&self) -> Option<Position> {
        self.places.front().map(|(position, _)| *position)
    }

    /// The positions that are in it, in order.
    pub(crate) fn positions(&self) -> impl Iterator<Item = Position> {
        self.places.iter().filter(|(_, value)| value.is_some()).map(|(position, _)| *position)
    }

    /// Where a position stands. It is looked for where it stands if all between it and the first follow each other, or all between it
    /// and the last.
    fn find(&self, position: Position) -> Option<usize> {
        let is_at = |at: &usize| self.places.get(*at).is_some_and(|(found, _)| *found == position);
        let from_first = || usize::try_from(position.1.checked_sub(self.places.front()?.0.1)?).ok();
        let from_last = || {
            let back = usize::try_from(self.places.back()?.0.1.checked_sub(position.1)?).ok()?;
            (self.places.len() - 1).checked_sub(back)
        };
        from_first()
            .filter(is_at)
            .or_else(|| from_last().filter(is_at))
            .or_else(|| self.places.binary_search_by_key(&position, |(found, _)| *found).ok())
    }
}

impl<V> Default for Ring<V> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_came_back_behind_one_that_stays_out_takes_no_room() {
        let mut ring = Ring::new();
        for offset in 0..100_000 {
            ring.push(Position(1, offset), offset);
            if offset > 0 {
                assert_eq!(ring.remove(Position(1, offset)), Some(offset));
            }
            assert!(ring.places.len() <= 2 * ring.len() + SLACK, "{} places", ring.places.len());
        }
        assert_eq!((ring.len(), ring.first()), (1, Some(Position(1, 0))));
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec((0u8..4, 1u64..4, any::<prop::sample::Index>()), 1..600)) {
            let (mut ring, mut map, mut last) = (Ring::new(), BTreeMap::new(), Position(0, 0));
            for (step, by, index) in steps {
                match step {
                    // Now and then with a gap, or in another ledger.
                    0 | 1 => {
                        last = if by == 3 { Position(last.0 + 1, index.index(9) as u64) } else { Position(last.0, last.1 + by) };
                        ring.push(last, by);
                        map.insert(last, by);
                    }
                    2 if !map.is_empty() => {
                        let position = *map.keys().nth(index.index(map.len())).unwrap();
                        prop_assert_eq!(ring.remove(position), map.remove(&position));
                        prop_assert_eq!(ring.remove(position), None);
                    }
                    _ => {
                        let position = Position(index.index(5) as u64, by * 7);
                        prop_assert_eq!(ring.contains(position), map.contains_key(&position));
                    }
                }
                prop_assert_eq!(ring.len(), map.len());
                prop_assert_eq!(ring.first(), map.keys().next().copied());
                let mut some: Vec<Position> = map.keys().copied().step_by(1 + index.index(3)).collect();
                prop_assert_eq!(ring.contained(&some), some.len());
                some.insert(index.index(some.len() + 1), Position(last.0, last.1 + 1));
                prop_assert_eq!(ring.contained(&some), index.index(some.len()));
                prop_assert!(ring.positions().eq(map.keys().copied()));
                let (mut first, mut values) = (ring.clone(), Vec::new());
                let mut wanted: Vec<Position> = map.keys().copied().take(index.index(5)).collect();
                wanted.extend(map.keys().copied().skip(wanted.len() + 1).take(2));
                let taken = first.remove_first(&wanted, |value| values.push(value));
                let same = wanted.iter().zip(map.keys()).take_while(|(one, other)| one == other).count();
                prop_assert!(taken <= same && (taken > 0 || same == 0));
                prop_assert_eq!(&values, &map.values().copied().take(taken).collect::<Vec<_>>());
                prop_assert!(first.positions().eq(map.keys().copied().skip(taken)));
                prop_assert_eq!((first.len(), first.first()), (map.len() - taken, map.keys().nth(taken).copied()));
                prop_assert!(first.places.len() <= 2 * first.len() + SLACK + 1);
                prop_assert!(ring.places.len() <= 2 * ring.len() + SLACK + 1);
            }
        }
    }
}
