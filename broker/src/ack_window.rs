//! Which acks make a position.
//!
//! Workers finish out of order; a group's position is one place per partition. [`AckWindow`] turns acks into the position before which
//! everything is done, and a map of the holes behind it, so that what was done beyond a slow message is not delivered again
//! after a restart. Pure: no time, no I/O. Used by `embedded`, and by the Redis and Kafka backends.
//!
//! Invariants: the position never passes a message that is not done, and never goes back. What is not acked is a hole or
//! lies at or behind `until`. When the map outgrows its place the farthest holes are left out: more repeats after a crash, never a stop.
//! Not here: when to store it, and where.

use crate::{Error, ErrorKind, Position, Result, murmur2, ring::Ring, varint};
use std::collections::BTreeSet;

const VERSION: u8 = 1;
/// The most holes a stored map may claim: far above what in-flight bounds make, and 1.5 MiB of memory.
const MAX_HOLES: u64 = 1 << 16;
/// Version, checksum, and the longest `until`.
const HEAD: usize = 1 + 4 + 20;

/// Which messages of one partition are delivered and done.
#[derive(Clone, Debug)]
pub struct AckWindow {
    /// Everything before it is done.
    base: Position,
    /// Delivered and not acked, and how large that is for who delivers.
    open: Ring<usize>,
    /// Not done according to the restored map, and not delivered again yet.
    holes: BTreeSet<Position>,
    /// Behind the restored map: at and after it nothing is known to be done.
    restored: Position,
    /// Everything before it was delivered, or is known to be done.
    seen: Position,
}

impl AckWindow {
    /// A window where everything before `position` is done, and nothing else.
    #[must_use]
    pub const fn new(position: Position) -> Self {
        Self { base: position, open: Ring::new(), holes: BTreeSet::new(), restored: position, seen: position }
    }

    /// The window that was stored as `position` and the bytes of [`Self::encode`].
    ///
    /// # Errors
    /// `Corrupt` where the bytes are not the map that was stored with this position (it has a checksum over both); `position` alone is
    /// then still safe to start from.
    pub fn restore(position: Position, map: &[u8]) -> Result<Self> {
        let mut window = Self::new(position);
        let Some((&version, rest)) = map.split_first() else {
            return Ok(window);
        };
        let corrupt = |why: &str| Error::new(ErrorKind::Corrupt, format!("the map of acks {why}"));
        if version != VERSION {
            return Err(corrupt("is of an unknown version"));
        }
        let (sum, rest) = rest.split_at_checked(4).ok_or_else(|| corrupt("is cut"))?;
        if sum != checksum(position, rest) {
            return Err(corrupt("does not belong to its position, or is damaged"));
        }
        let mut rest = rest;
        let until = take_delta(&mut rest, position).ok_or_else(|| corrupt("is cut"))?;
        let mut at = position;
        let mut count = 0u64;
        while !rest.is_empty() {
            let start = take_delta(&mut rest, at).ok_or_else(|| corrupt("is cut"))?;
            let (run, after) = varint::take(rest).ok_or_else(|| corrupt("is cut"))?;
            rest = after;
            let end = start.1.checked_add(run).map(|end| Position(start.0, end));
            count = count.saturating_add(run);
            let Some(end) = end.filter(|end| run > 0 && *end <= until && count <= MAX_HOLES) else {
                return Err(corrupt("contradicts itself"));
            };
            window.holes.extend((start.1..end.1).map(|b| Position(start.0, b)));
            at = end;
        }
        window.restored = until;
        Ok(window)
    }

    /// Notes that a message is handed out. `false`: it is done already, or still out; do not hand it out.
    ///
    /// Positions come in order, from [`Self::position`] on: a hole that is passed over does not exist any more (compacted, deleted) and
    /// holds nothing up.
    pub fn deliver(&mut self, position: Position) -> bool {
        self.deliver_sized(position, 0)
    }

    /// [`Self::deliver`], which keeps a size for [`Self::ack_sized`].
    #[inline]
    pub(crate) fn deliver_sized(&mut self, position: Position, size: usize) -> bool {
        // Mostly nothing of what comes is known from before: then there are no holes either.
        if self.seen >= self.restored && position >= self.seen {
            self.open.push(position, size);
            self.seen = position.next();
            return true;
        }
        self.deliver_restored(position, size)
    }

    fn deliver_restored(&mut self, position: Position, size: usize) -> bool {
        let new = if position >= self.restored {
            position >= self.seen
        } else {
            position >= self.base && self.holes.contains(&position)
        };
        while self.holes.first().is_some_and(|hole| *hole <= position) {
            self.holes.pop_first();
        }
        if new {
            self.open.push(position, size);
        }
        self.seen = self.seen.max(position.next());
        new
    }

    /// Notes that a message is done; answers its size where it was not done before.
    pub(crate) fn ack_sized(&mut self, position: Position) -> Option<usize> {
        self.open.remove(position)
    }

    /// Notes that these are done; answers how many of them were not done before, and how large they are together.
    pub(crate) fn ack_all(&mut self, positions: &[Position]) -> (usize, usize) {
        let (mut acked, mut bytes, mut rest) = (0, 0, positions);
        while let Some((first, behind)) = rest.split_first() {
            // Mostly what was handed out first is done first.
            let run = self.open.remove_first(rest, |size| bytes += size);
            acked += run;
            if run > 0 {
                rest = &rest[run..];
                continue;
            }
            if let Some(size) = self.ack_sized(*first) {
                (acked, bytes) = (acked + 1, bytes + size);
            }
            rest = behind;
        }
        (acked, bytes)
    }

    /// Notes that a message is done.
    pub fn ack(&mut self, position: Position) -> Acked {
        if self.ack_sized(position).is_some() {
            return Acked::Now;
        }
        if position < self.seen && !self.holes.contains(&position) {
            Acked::Before
        } else {
            Acked::NeverDelivered
        }
    }

    /// What an [`Self::ack`] would answer.
    #[must_use]
    pub fn would_ack(&self, position: Position) -> Acked {
        if self.open.contains(position) {
            Acked::Now
        } else if position < self.seen && !self.holes.contains(&position) {
            Acked::Before
        } else {
            Acked::NeverDelivered
        }
    }

    /// The first of these that was never handed out.
    pub(crate) fn never_delivered(&self, positions: &[Position]) -> Option<Position> {
        // Mostly all of them are out.
        let rest = &positions[self.open.contained(positions)..];
        rest.iter().find(|position| self.would_ack(**position) == Acked::NeverDelivered).copied()
    }

    /// Notes that nothing before `position` will be delivered any more (trimmed). After a truncation, or in a new life of the topic,
    /// positions mean other messages: make a new window.
    /// What is out stays open until it is acked.
    pub fn skip_to(&mut self, position: Position) {
        self.holes = self.holes.split_off(&position);
        self.seen = self.seen.max(position);
    }

    /// The position: everything before it is done.
    #[must_use]
    pub fn position(&self) -> Position {
        let open = self.open.first();
        let hole = self.holes.first().copied();
        let first = match (open, hole) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        first.unwrap_or_else(|| self.seen.max(self.restored)).max(self.base)
    }

    /// How many messages are delivered and not acked.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The messages that are delivered and not acked, in order.
    pub fn open_positions(&self) -> impl Iterator<Item = Position> {
        self.open.positions()
    }

    /// How many known holes lie at or after the position: open ones and restored ones that were not delivered again.
    #[must_use]
    pub fn holes(&self) -> usize {
        self.open.len() + self.holes.len()
    }

    /// Where what is known ends: before it, everything but the holes is done.
    #[must_use]
    pub fn until(&self) -> Position {
        self.seen.max(self.restored).max(self.base)
    }

    /// The map of what is done behind [`Self::position`], in at most `max_bytes`; empty where nothing is. The second value counts
    /// the holes that were left out because the map was full: what lies behind the last one kept counts as not done.
    #[must_use]
    pub fn encode(&self, max_bytes: usize) -> (Vec<u8>, usize) {
        let position = self.position();
        let until = self.until();
        let mut runs: Vec<(Position, u64)> = Vec::new();
        // The last number there is cannot be followed by another: such a hole is not told, and counts as not done.
        let holes = || merge(self.open.positions(), self.holes.iter().copied());
        let until = holes().find(|hole| hole.1 == u64::MAX).map_or(until, |last| until.min(last));
        for hole in holes().take_while(|hole| *hole < until) {
            match runs.last_mut() {
                Some((start, run)) if start.0 == hole.0 && start.1.checked_add(*run) == Some(hole.1) => {
                    *run += 1
                }
                _ => runs.push((hole, 1)),
            }
        }
        if runs.first().is_none_or(|(start, run)| Position(start.0, start.1 + run) == until) {
            return (Vec::new(), 0);
        }
        let mut body = Vec::new();
        let mut at = position;
        let mut end = until;
        let mut left_out = 0;
        let mut told = 0u64;
        for (start, run) in &runs {
            let mut one = Vec::with_capacity(12);
            put_delta(&mut one, at, *start);
            varint::put(&mut one, *run);
            if left_out > 0 || body.len() + one.len() + HEAD > max_bytes || told + run > MAX_HOLES {
                if left_out == 0 {
                    end = *start;
                }
                left_out += usize::try_from(*run).unwrap_or(usize::MAX);
                continue;
            }
            body.extend_from_slice(&one);
            told += run;
            at = Position(start.0, start.1 + run);
        }
        if body.is_empty() {
            return (Vec::new(), left_out);
        }
        let mut rest = Vec::with_capacity(HEAD + body.len());
        put_delta(&mut rest, position, end);
        rest.extend_from_slice(&body);
        let mut out = vec![VERSION];
        out.extend_from_slice(&checksum(position, &rest));
        out.extend_from_slice(&rest);
        (out, left_out)
    }
}

fn checksum(position: Position, rest: &[u8]) -> [u8; 4] {
    let mut all = Vec::with_capacity(16 + rest.len());
    all.extend_from_slice(&position.0.to_be_bytes());
    all.extend_from_slice(&position.1.to_be_bytes());
    all.extend_from_slice(rest);
    murmur2(&all).to_be_bytes()
}

/// What an ack did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acked {
    /// It was open and is done now.
    Now,
    /// It was done before.
    Before,
    /// It was never handed out.
    NeverDelivered,
}

fn merge(
    a: impl Iterator<Item = Position>,
    b: impl Iterator<Item = Position>,
) -> impl Iterator<Item = Position> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(x), Some(y)) if x <= y => a.next(),
        (Some(_), None) => a.next(),
        _ => b.next(),
    })
}

fn take_delta(rest: &mut &[u8], from: Position) -> Option<Position> {
    let (a, after) = varint::take(rest)?;
    let (b, after) = varint::take(after)?;
    *rest = after;
    Some(if a == 0 { Position(from.0, from.1.checked_add(b)?) } else { Position(from.0.checked_add(a)?, b) })
}

fn put_delta(out: &mut Vec<u8>, from: Position, to: Position) {
    let a = to.0.saturating_sub(from.0);
    varint::put(out, a);
    varint::put(out, if a == 0 { to.1.saturating_sub(from.1) } else { to.1 });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn p(b: u64) -> Position {
        Position(7, b)
    }

    #[test]
    fn the_position_waits_for_the_slow_one_and_the_map_remembers_the_rest() {
        let mut window = AckWindow::new(p(10));
        for i in 10..15 {
            assert!(window.deliver(p(i)));
        }
        assert_eq!(window.ack(p(11)), Acked::Now);
        assert_eq!(window.ack(p(11)), Acked::Before);
        assert_eq!(window.ack(p(13)), Acked::Now);
        assert_eq!(window.ack(p(15)), Acked::NeverDelivered);
        assert_eq!(window.position(), p(10));
        let (map, left_out) = window.encode(100);
        assert_eq!(left_out, 0);
        let mut again = AckWindow::restore(p(10), &map).unwrap();
        let delivered: Vec<u64> = (10..18).filter(|i| again.deliver(p(*i))).collect();
        assert_eq!(delivered, [10, 12, 14, 15, 16, 17]);
        assert_eq!(window.ack(p(10)), Acked::Now);
        assert_eq!(window.position(), p(12));
    }

    #[test]
    fn a_skip_moves_the_position_past_what_was_trimmed() {
        let mut window = AckWindow::new(p(0));
        window.deliver(p(0));
        window.skip_to(p(100));
        assert_eq!(window.position(), p(0));
        window.ack(p(0));
        assert_eq!(window.position(), p(100));
        assert!(window.deliver(p(100)));
    }

    /// The bytes with a checksum that fits, as only this code or malice would write them.
    fn forged(position: Position, rest: &[u8]) -> Vec<u8> {
        [&[VERSION][..], &checksum(position, rest), rest].concat()
    }

    #[test]
    fn a_damaged_map_is_refused() {
        let mut window = AckWindow::new(p(0));
        (0..9).for_each(|i| _ = window.deliver(p(i)));
        [2, 3, 7].into_iter().for_each(|i| _ = window.ack(p(i)));
        let (map, _) = window.encode(100);
        AckWindow::restore(p(0), &map).unwrap();
        assert!(AckWindow::restore(p(1), &map).is_err(), "a map of another position");
        for bit in 0..map.len() * 8 {
            let mut flipped = map.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(AckWindow::restore(p(0), &flipped).is_err(), "bit {bit}");
        }
        for cut in 1..map.len() {
            assert!(AckWindow::restore(p(0), &map[..cut]).is_err());
        }
        let mut huge = vec![0];
        varint::put(&mut huge, u64::MAX / 2);
        huge.extend_from_slice(&[0, 0]);
        varint::put(&mut huge, u64::MAX / 4);
        for bad in [&[][..], &[0], &[0, 5, 0, 0, 0], &[0, 5, 0, 0, 0x80], &[0, 5, 0, 6, 1], &huge] {
            assert!(AckWindow::restore(p(0), &forged(p(0), bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_hole_that_no_longer_exists_holds_nothing_up() {
        let mut window = AckWindow::new(p(0));
        (0..5).for_each(|i| _ = window.deliver(p(i)));
        [1, 3, 4].into_iter().for_each(|i| _ = window.ack(p(i)));
        let (map, _) = window.encode(100);
        let mut again = AckWindow::restore(p(0), &map).unwrap();
        // 0 is gone from the log: reading starts with 2.
        assert!(again.deliver(p(2)));
        again.ack(p(2));
        assert_eq!(again.position(), p(5));
    }

    #[test]
    fn the_last_numbers_there_are_do_not_overflow() {
        let mut window = AckWindow::new(p(u64::MAX - 3));
        for i in u64::MAX - 3..=u64::MAX {
            assert!(window.deliver(p(i)));
        }
        window.ack(p(u64::MAX - 2));
        let (map, _) = window.encode(100);
        let mut again = AckWindow::restore(window.position(), &map).unwrap();
        let delivered: Vec<u64> =
            (u64::MAX - 3..=u64::MAX).filter(|i| again.deliver(p(*i))).map(|i| u64::MAX - i).collect();
        assert_eq!(delivered, [3, 1, 0]);
    }

    proptest! {
        /// Against the plainest model there is: a map from position to done.
        #[test]
        fn agrees_with_a_plain_model_through_restarts(
            steps in proptest::collection::vec((0u8..10, any::<prop::sample::Index>()), 1..300),
            limit in 30usize..200,
        ) {
            let mut window = AckWindow::new(p(0));
            let (mut next, mut end) = (0u64, 0u64); // what comes next, and the farthest that ever came
            let mut done: BTreeMap<u64, bool> = BTreeMap::new(); // everything ever delivered
            let mut out: Vec<u64> = Vec::new();
            let mut last = p(0);
            for (step, index) in steps {
                match step {
                    0..=4 => {
                        if window.deliver(p(next)) {
                            prop_assert!(!done.get(&next).copied().unwrap_or(false) , "redelivered after done");
                            done.entry(next).or_insert(false);
                            out.push(next);
                        } else {
                            prop_assert!(done[&next], "skipped {next}, which is not done");
                        }
                        next += 1;
                        end = end.max(next);
                    }
                    5..=8 if !out.is_empty() => {
                        let i = out.swap_remove(index.index(out.len()));
                        prop_assert_eq!(window.ack(p(i)), Acked::Now);
                        done.insert(i, true);
                    }
                    9 => {
                        let position = window.position();
                        let (map, _) = window.encode(limit);
                        prop_assert!(map.len() <= limit);
                        window = AckWindow::restore(position, &map).unwrap();
                        // What the map could not keep may come again; what is not done must. To the farthest: a map that was
                        // restored and is stored again may keep less than before.
                        let mut probe = window.clone();
                        for i in position.1..end + 3 {
                            if probe.deliver(p(i)) { done.insert(i, false); }
                            else { prop_assert!(done[&i]); }
                        }
                        done.retain(|i, done| *i < end || *done);
                        next = position.1;
                        out.clear();
                    }
                    _ => {}
                }
                let position = window.position();
                prop_assert!(position >= last);
                last = position;
                prop_assert!(done.iter().all(|(i, done)| *done || p(*i) >= position));
            }
        }

        #[test]
        fn hostile_maps_never_panic(map in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = AckWindow::restore(p(3), &map);
        }
    }
}
