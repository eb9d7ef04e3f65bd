//! What is due when. Pure: whoever runs the core asks for the next due time and comes back then.

use super::{Life, MemberId, ShareId};
use crate::Timestamp;
use std::collections::{BTreeSet, HashMap};

/// Something that happens at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::embedded) enum Timer {
    /// A delayed message of this topic is due.
    Delay(Life),
    /// This partition was to be given up by now.
    Drain(ShareId),
    /// Acks of this member are to take effect.
    Acks(MemberId),
    /// This member was to be drained by now.
    Close(MemberId),
    /// Something in this topic is too old or too much.
    Retention(Life),
    /// What was purged in this topic is to be removed from the disk.
    Free(Life),
    /// What a deleted topic left behind is to be removed.
    Sweep(Life),
    /// Ids are to be forgotten.
    Forget,
}

/// The times of all timers; each is set at most once.
#[derive(Debug, Default)]
pub(in crate::embedded) struct Timers {
    by_due: BTreeSet<(Timestamp, Timer)>,
    due: HashMap<Timer, Timestamp>,
}

impl Timers {
    /// Sets a timer, instead of what it was set to before.
    pub(super) fn set(&mut self, timer: Timer, at: Timestamp) {
        self.clear(timer);
        self.by_due.insert((at, timer));
        self.due.insert(timer, at);
    }

    /// Sets a timer unless it is set to an earlier time.
    pub(super) fn set_by(&mut self, timer: Timer, at: Timestamp) {
        if self.due.get(&timer).is_none_or(|due| at < *due) {
            self.set(timer, at);
        }
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.due.remove(&timer) {
            self.by_due.remove(&(at, timer));
        }
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.due.contains_key(&timer)
    }

    /// When the next one is due.
    pub(in crate::embedded) fn next(&self) -> Option<Timestamp> {
        self.by_due.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<Timer> {
        let (at, timer) = *self.by_due.first()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_once_and_never_early() {
        let at = Timestamp::from_millis;
        let mut timers = Timers::default();
        timers.set(Timer::Delay(1), at(20));
        timers.set(Timer::Sweep(2), at(10));
        timers.set_by(Timer::Delay(1), at(30));
        timers.set(Timer::Forget, at(15));
        timers.clear(Timer::Forget);
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop(at(9)), None);
        assert_eq!(timers.pop(at(20)), Some(Timer::Sweep(2)));
        assert_eq!(timers.pop(at(20)), Some(Timer::Delay(1)));
        assert_eq!(timers.pop(at(99)), None);
    }
}
