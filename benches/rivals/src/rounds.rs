//! Turns in rounds: A B, B A, A B, ... with a canary before each round.
//!
//! Not here: what a turn does (`arms/`), what is made of the figures (`report.rs`).

use crate::{
    Result,
    cell::Pair,
    machine::{Canary, settle},
};
use ropeway_bench::ratio::first_goes_first;
use std::{fs, path::Path, time::Duration};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Rounds that count.
    pub(crate) rounds: u32,
    /// Only whether it works is of interest.
    pub(crate) quick: bool,
    /// Messages of the cell `steady`.
    pub(crate) steady_messages: u64,
    /// Bytes that it keeps.
    pub(crate) retention: u64,
    /// Bytes that the cell `reopen` finds.
    pub(crate) retained: u64,
}

impl Plan {
    /// Few messages of all cells, once.
    pub(crate) const fn quick() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self { rounds: 1, quick: true, steady_messages: 3_000, retention: 2 * MIB, retained: 2 * MIB }
    }

    /// How many messages a turn has, where it has `full` when it is meant.
    pub(crate) fn messages(&self, full: u64) -> u64 {
        if self.quick { full.min(400) } else { full }
    }
}

/// What one turn came to.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    /// Messages that were timed.
    pub(crate) messages: u64,
    /// How long they took.
    pub(crate) wall: Duration,
    /// Processor time of all threads meanwhile.
    pub(crate) cpu: Duration,
    /// What else is worth knowing, such as messages a commit.
    pub(crate) facts: Vec<(&'static str, f64)>,
}

impl Turn {
    /// Messages a second.
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.wall.as_secs_f64()
    }

    /// Microseconds of processor time a message.
    pub(crate) fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages as f64
    }
}

/// What all rounds of a cell came to; turns of one index are of one round.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) ours: Vec<Turn>,
    pub(crate) rival: Vec<Turn>,
    pub(crate) canaries: Vec<Canary>,
}

/// Runs all rounds of a pair; the first is discarded.
pub(crate) fn run(mut pair: Box<dyn Pair>, plan: &Plan, place: &Path) -> Result<Rounds> {
    let mut rounds = Rounds::default();
    if !plan.quick {
        for ours in [true, false] {
            turn(&mut *pair, ours, place)?;
        }
    }
    for round in 0..plan.rounds {
        rounds.canaries.push(Canary::sing(place)?);
        let first = first_goes_first(round as usize);
        for ours in [first, !first] {
            let turn = turn(&mut *pair, ours, place)?;
            if ours { rounds.ours.push(turn) } else { rounds.rival.push(turn) }
        }
    }
    Ok(rounds)
}

/// One turn, in a directory of its own that is gone afterwards.
fn turn(pair: &mut dyn Pair, ours: bool, place: &Path) -> Result<Turn> {
    let dir = place.join(if ours { "ours" } else { "rival" });
    fs::create_dir(&dir)?;
    settle(place)?;
    let turn = if ours { pair.ours(&dir)? } else { pair.rival(&dir)? };
    fs::remove_dir_all(&dir)?;
    settle(place)?;
    Ok(turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Order(Vec<char>);

    impl Order {
        fn turn(&mut self, who: char, dir: &Path) -> Turn {
            assert!(fs::read_dir(dir).unwrap().next().is_none(), "a turn begins in an empty directory");
            fs::write(dir.join("left"), "behind").unwrap();
            self.0.push(who);
            Turn {
                messages: self.0.len() as u64,
                wall: Duration::from_secs(1),
                cpu: Duration::ZERO,
                facts: Vec::new(),
            }
        }
    }

    impl Pair for Order {
        fn ours(&mut self, dir: &Path) -> Result<Turn> {
            Ok(self.turn('A', dir))
        }
        fn rival(&mut self, dir: &Path) -> Result<Turn> {
            Ok(self.turn('B', dir))
        }
    }

    #[test]
    fn turns_alternate_and_the_first_round_does_not_count() {
        let place = tempfile::tempdir().unwrap();
        let plan = Plan { rounds: 3, quick: false, ..Plan::quick() };
        let rounds = run(Box::new(Order(Vec::new())), &plan, place.path()).unwrap();
        let numbers = |turns: &[Turn]| turns.iter().map(|turn| turn.messages).collect::<Vec<_>>();
        // A B (discarded), then A B B A A B.
        assert_eq!(numbers(&rounds.ours), [3, 6, 7]);
        assert_eq!(numbers(&rounds.rival), [4, 5, 8]);
        assert_eq!(rounds.canaries.len(), 3);
    }
}
