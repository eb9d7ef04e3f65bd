//! Whether the handlers of a plan are quick, as far as that was seen: then the driver runs them itself, without a worker.
//!
//! To hand a message to a worker and back costs some microseconds, more than most handlers that wait for nothing. So once workers have
//! seen that a plan's handlers return at once, the driver looks at each message first: what is ready at that look is over. One that is
//! not is handed to a worker, which goes on with it. A look that is long goes against the plan: it belongs to the workers again until
//! twice as many runs as before were quick in a row, so that a handler that blocks now and then hardly ever holds the driver up.
//!
//! Not here: looking (`runtime/look.rs`), running as workers do (`runtime/work.rs`).

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// What is quick, and what is too long for a look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// What takes less is quick.
    pub(crate) quick: Duration,
    /// A look that takes as long holds the driver up: its plan is not looked at for a while.
    pub(crate) long: Duration,
}

impl Bounds {
    /// For a runtime of so many threads.
    pub(crate) const fn of(threads: usize) -> Self {
        if threads > 1 {
            // What handing it over costs, about; what takes longer is better run beside others.
            Self { quick: Duration::from_micros(5), long: Duration::from_micros(50) }
        } else {
            // Nothing runs beside anything: what a handler takes it takes from all others, wherever it runs.
            Self { quick: Duration::from_micros(200), long: Duration::MAX }
        }
    }
}

/// How many runs in a row have to be quick at first, and at most.
const NEEDED: u16 = 16;
const MOST_NEEDED: u16 = 1 << 14;
/// How many quick looks count beyond what is needed.
const CREDIT: u16 = 64;
/// What a look costs that was neither quick nor long, or that was not ready: more than one of nine, and the plan is the workers' again.
const COST: u16 = 8;
/// So many good looks in a row halve what is needed.
const KEPT: u16 = 1024;

/// How quick the handlers of a plan were. Shared by the driver and the workers; of two that write at the same time, one is not counted.
#[derive(Debug)]
pub(crate) struct Pace(AtomicU64);

/// What a look saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// How long it took.
    pub(crate) took: Duration,
    /// Whether all was over then.
    pub(crate) ready: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// Quick ones in a row.
    streak: u16,
    needed: u16,
    /// Good looks since the last that was not.
    kept: u16,
}

impl Pace {
    /// Of handlers that were not seen yet.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(State { streak: 0, needed: NEEDED, kept: 0 }.pack()))
    }

    /// Whether the driver should look.
    pub(crate) fn is_quick(&self) -> bool {
        State::unpack(self.0.load(Relaxed)).is_quick()
    }

    /// The driver looked.
    pub(crate) fn looked(&self, look: Look, bounds: Bounds) {
        self.change(|state| state.looked(look, bounds));
    }

    /// The driver looked so many times, all was over each time, and each time it was quick.
    pub(crate) fn looked_quickly(&self, looks: u32) {
        self.change(|state| state.looked_quickly(looks));
    }

    /// A worker ran all of it, from the start to a good end, in that time.
    pub(crate) fn worked(&self, took: Duration, bounds: Bounds) {
        self.change(|state| state.worked(took, bounds));
    }

    fn change(&self, change: impl Fn(State) -> State) {
        let before = State::unpack(self.0.load(Relaxed));
        let after = change(before);
        if after != before {
            self.0.store(after.pack(), Relaxed);
        }
    }
}

impl State {
    const fn is_quick(self) -> bool {
        self.streak >= self.needed
    }

    fn worked(self, took: Duration, bounds: Bounds) -> Self {
        let streak = if took < bounds.quick { (self.streak + 1).min(self.needed + CREDIT) } else { 0 };
        Self { streak, ..self }
    }

    fn looked(self, look: Look, bounds: Bounds) -> Self {
        if look.took >= bounds.long {
            return Self { streak: 0, needed: (self.needed * 2).min(MOST_NEEDED), kept: 0 };
        }
        if !look.ready || look.took >= bounds.quick {
            return Self { streak: self.streak.saturating_sub(COST), kept: 0, ..self };
        }
        self.looked_quickly(1)
    }

    fn looked_quickly(self, looks: u32) -> Self {
        let looks = u16::try_from(looks).unwrap_or(u16::MAX);
        let (mut needed, mut kept) = (self.needed, self.kept.saturating_add(looks));
        while kept >= KEPT && needed > NEEDED {
            (needed, kept) = ((needed / 2).max(NEEDED), kept - KEPT);
        }
        let streak = self.streak.saturating_add(looks).min(needed + CREDIT);
        Self { streak, needed, kept: kept.min(KEPT) }
    }

    const fn pack(self) -> u64 {
        self.streak as u64 | (self.needed as u64) << 16 | (self.kept as u64) << 32
    }

    const fn unpack(packed: u64) -> Self {
        Self { streak: packed as u16, needed: (packed >> 16) as u16, kept: (packed >> 32) as u16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds::of(8);
    const SOON: Duration = Duration::from_micros(1);
    const MEDIUM: Duration = Duration::from_micros(20);

    fn looked(pace: &Pace, took: Duration, ready: bool) {
        pace.looked(Look { took, ready }, BOUNDS);
    }

    /// How many quick runs in a row it takes until it is quick.
    fn needed(pace: &Pace) -> u32 {
        let mut runs = 0;
        while !pace.is_quick() {
            pace.worked(SOON, BOUNDS);
            runs += 1;
        }
        runs
    }

    #[test]
    fn it_is_quick_once_enough_runs_in_a_row_were() {
        let pace = Pace::new();
        for _ in 0..100 {
            (0..15).for_each(|_| pace.worked(SOON, BOUNDS));
            assert!(!pace.is_quick());
            pace.worked(MEDIUM, BOUNDS);
        }
        assert_eq!(needed(&pace), 16);
        // One that a worker had at the same time and that was slow counts more than those.
        pace.worked(Duration::from_secs(1), BOUNDS);
        assert!(!pace.is_quick());
    }

    #[test]
    fn each_long_look_makes_it_wait_longer_and_good_ones_make_up_for_it() {
        let pace = Pace::new();
        for expected in [16, 32, 64, 128] {
            assert_eq!(needed(&pace), expected);
            looked(&pace, BOUNDS.long, true);
            assert!(!pace.is_quick());
        }
        (0..20).for_each(|_| looked(&pace, Duration::from_secs(9), false));
        assert_eq!(needed(&pace), u32::from(MOST_NEEDED));
        (0..20 * u32::from(KEPT)).for_each(|_| looked(&pace, SOON, true));
        looked(&pace, BOUNDS.long, true);
        assert_eq!(needed(&pace), 32);
    }

    #[test]
    fn many_quick_looks_are_as_good_as_each_of_them() {
        for long in 0..4 {
            let (one, other) = (Pace::new(), Pace::new());
            (0..long).for_each(|_| [&one, &other].iter().for_each(|pace| looked(pace, BOUNDS.long, true)));
            for looks in [1, 15, 1, KEPT, 2 * KEPT, 3] {
                (0..looks).for_each(|_| looked(&one, SOON, true));
                other.looked_quickly(u32::from(looks));
                assert_eq!(
                    State::unpack(one.0.load(Relaxed)).needed,
                    State::unpack(other.0.load(Relaxed)).needed
                );
                assert_eq!(one.is_quick(), other.is_quick());
            }
        }
    }

    #[test]
    fn looks_that_are_often_not_quick_or_not_ready_end_it_and_few_do_not() {
        for (took, ready) in [(MEDIUM, true), (SOON, false)] {
            for (good, stays) in [(10, true), (6, false)] {
                let pace = Pace::new();
                assert_eq!(needed(&pace), 16);
                (0..70).for_each(|_| looked(&pace, SOON, true));
                for _ in 0..1000 {
                    looked(&pace, took, ready);
                    (0..good).for_each(|_| looked(&pace, SOON, true));
                    if !pace.is_quick() {
                        break;
                    }
                }
                assert_eq!(pace.is_quick(), stays, "{took:?}, ready {ready}, one of {good}");
            }
        }
    }
}
