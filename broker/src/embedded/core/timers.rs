//! What is due when. Pure: whoever runs the core asks for the next due time and comes back then.

use super::{Life, MemberId, ShareId};
use crate::{
    Timestamp,
    embedded::time::{Mark, Steady},
};
use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    time::Duration,
};

/// Something that happens at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::embedded) enum Timer {
    /// This partition was to be given up by now.
    Drain(ShareId),
    /// Acks of this member are to take effect.
    Acks(MemberId),
    /// This member was to be drained by now.
    Close(MemberId),
    /// A segment of this topic may be at its end, too old or too much.
    Retention(Life),
    /// What a deleted topic left behind is to be removed.
    Sweep(Life),
    /// Ids are to be forgotten.
    Forget,
}

/// When the next thing is due, by each of the two times; the time of day is for delayed messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::embedded) struct Due {
    pub(in crate::embedded) steady: Option<Steady>,
    pub(in crate::embedded) time_of_day: Option<Timestamp>,
}

/// How long one may sleep that waits for a time of day: a clock that is set is noticed within it.
const NOTICE: Duration = Duration::from_secs(1);

impl Due {
    /// For how long nothing has to be done; `None`: until something changes.
    pub(in crate::embedded) fn left(&self, now: &Mark) -> Option<Duration> {
        let steady = self.steady.map(|due| due.since(now.steady));
        let of_day = self.time_of_day.map(|due| due.since(now.time_of_day).min(NOTICE));
        steady.into_iter().chain(of_day).min()
    }

    /// Whether something is to be done now.
    pub(in crate::embedded) fn is_over(&self, now: &Mark) -> bool {
        self.left(now).is_some_and(|left| left.is_zero())
    }

    /// Whether who waits for `other` would come too late.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        let before = self.steady.is_some_and(|due| other.steady.is_none_or(|other| due < other));
        before || self.time_of_day.is_some_and(|due| other.time_of_day.is_none_or(|other| due < other))
    }
}

/// The times of all timers; each is set at most once.
#[derive(Debug)]
pub(in crate::embedded) struct Timers<At, What> {
    by_due: BTreeSet<(At, What)>,
    due: HashMap<What, At>,
}

impl<At, What> Default for Timers<At, What> {
    fn default() -> Self {
        Self { by_due: BTreeSet::new(), due: HashMap::new() }
    }
}

impl<At: Copy + Ord, What: Copy + Ord + Hash> Timers<At, What> {
    /// Sets a timer, instead of what it was set to before.
    pub(super) fn set(&mut self, timer: What, at: At) {
        self.clear(timer);
        self.by_due.insert((at, timer));
        self.due.insert(timer, at);
    }

    /// Sets a timer unless it is set to an earlier time.
    pub(super) fn set_by(&mut self, timer: What, at: At) {
        if self.due.get(&timer).is_none_or(|due| at < *due) {
            self.set(timer, at);
        }
    }

    pub(super) fn clear(&mut self, timer: What) {
        if let Some(at) = self.due.remove(&timer) {
            self.by_due.remove(&(at, timer));
        }
    }

    /// When the next one is due.
    pub(in crate::embedded) fn next(&self) -> Option<At> {
        self.by_due.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(super) fn pop(&mut self, now: At) -> Option<What> {
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
        let at = Steady::from_millis;
        let mut timers = Timers::default();
        timers.set(Timer::Retention(1), at(20));
        timers.set(Timer::Sweep(2), at(10));
        timers.set_by(Timer::Retention(1), at(30));
        timers.set(Timer::Forget, at(15));
        timers.clear(Timer::Forget);
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop(at(9)), None);
        assert_eq!(timers.pop(at(20)), Some(Timer::Sweep(2)));
        assert_eq!(timers.pop(at(20)), Some(Timer::Retention(1)));
        assert_eq!(timers.pop(at(99)), None);
    }
}
