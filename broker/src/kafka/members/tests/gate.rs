//! How much lies ready, whatever comes and whoever takes: bounded, and nobody goes without because of others.
//!
//! Not here: that a member does so (`reading.rs`), what it costs servers (`broker/tests/kafka_log/cost.rs`).

use super::super::gate::{Gate, Part, Step};
use crate::Bound;
use proptest::prelude::*;
use std::time::Duration;
use tokio::time::Instant;

const AHEAD: usize = 16 * 1024 * 1024;
const MESSAGES: usize = 16 * 1024;
/// What a client has fetched at the most.
const FETCHED: usize = 18 * 1024 * 1024;

#[derive(Clone, Copy, Debug, Default)]
struct Lying {
    /// Records in the log that were not brought.
    left: usize,
    ahead: usize,
    held: bool,
    /// Nobody may take of it.
    stuck: bool,
}

/// Partitions of records of one size, and a client that brings of one after the other what it is asked for.
struct World {
    gate: Gate,
    parts: Vec<Lying>,
    next: usize,
    size: usize,
    now: Instant,
    holds: usize,
    brought: usize,
}

impl World {
    fn of(count: usize, left: usize, size: usize) -> Self {
        let part = Lying { left, ..Lying::default() };
        let (gate, parts) = (Gate::default(), vec![part; count]);
        Self { gate, parts, next: 0, size, now: Instant::now(), holds: 0, brought: 0 }
    }

    fn ahead(&self) -> usize {
        self.parts.iter().map(|part| part.ahead).sum()
    }

    fn bound(&self, messages: usize) -> Bound {
        Bound { messages, bytes: messages * self.size }
    }

    fn is_idle(&self) -> bool {
        self.parts.iter().all(|part| part.stuck || part.ahead == 0)
    }

    /// Something is there of one of which nothing lies ready, and nothing else can be taken.
    fn starves(&self) -> bool {
        self.is_idle() && self.parts.iter().any(|part| !part.stuck && part.ahead == 0 && part.left > 0)
    }

    /// Does what is to be done until the client is asked, or is not to be for a moment.
    fn turn(&mut self) {
        for _ in 0..4 {
            let size = self.size;
            let part = |part: &Lying| Part {
                ahead: Bound { messages: part.ahead, bytes: part.ahead * size },
                held: part.held,
                dry: !part.stuck && part.ahead == 0,
            };
            let calm = !self.parts.iter().any(|part| part.held);
            if calm && let Some(most) = self.gate.calm(self.bound(self.ahead())) {
                return self.bring(most);
            }
            let idle = self.is_idle();
            let parts = self.parts.iter().enumerate().map(|(at, one)| (at, part(one)));
            match self.gate.step(parts, idle, self.now) {
                Step::Ask(most) => return self.bring(most),
                Step::Taste => return self.bring(1),
                Step::Moment(until) => {
                    assert!(until > self.now && until <= self.now + Duration::from_millis(50));
                    return;
                }
                Step::Hold(keys) => {
                    assert!(!keys.is_empty());
                    self.holds += 1;
                    for key in keys {
                        assert!(!std::mem::replace(&mut self.parts[key].held, true));
                    }
                }
                Step::Resume(keys) => {
                    assert!(!keys.is_empty());
                    for key in keys {
                        assert!(std::mem::replace(&mut self.parts[key].held, false));
                    }
                }
            }
        }
        panic!("it never rests");
    }

    fn bring(&mut self, most: usize) {
        let (mut came, count) = (0, self.parts.len());
        let most = most.min(FETCHED.div_ceil(self.size));
        let mut misses = 0;
        while came < most && misses < count {
            self.next = (self.next + 1) % count;
            let part = &mut self.parts[self.next];
            if part.held || part.left == 0 {
                misses += 1;
                continue;
            }
            (part.left, part.ahead) = (part.left - 1, part.ahead + 1);
            (came, misses) = (came + 1, 0);
        }
        self.brought += came;
        self.gate.brought(self.bound(came));
    }

    fn take(&mut self, most: usize) {
        let mut left = most;
        for part in self.parts.iter_mut().filter(|part| !part.stuck) {
            let taken = part.ahead.min(left);
            (part.ahead, left) = (part.ahead - taken, left - taken);
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }
}

#[test]
fn who_is_slow_stops_nothing_and_has_as_much_of_many_partitions_as_of_few() {
    for count in [1, 2, 100, 200, 1000] {
        let mut world = World::of(count, 2000 / count + 1, 1_000_000);
        for _ in 0..1000 {
            world.turn();
            // At first it is not known how large they are.
            let bound = if world.brought < 20 { FETCHED } else { AHEAD } + 1_000_000;
            assert!(world.ahead() * world.size <= bound, "{}", world.ahead());
            assert!(world.ahead() > 0 || world.brought < 10);
            world.pass(300);
            world.take(1);
        }
        assert_eq!(world.holds, 0);
    }
}

#[test]
fn where_nobody_takes_anything_all_are_stopped_until_little_is_left() {
    let mut world = World::of(100, 1000, 1_000_000);
    for _ in 0..1000 {
        world.turn();
        world.pass(50);
    }
    assert!(world.parts.iter().all(|part| part.held), "the client is asked without harm");
    assert!(world.ahead() * world.size <= FETCHED + AHEAD / 4 + 2_000_000, "{}", world.ahead());
    while world.ahead() * world.size > AHEAD / 4 {
        assert!(!world.gate.wants_more(world.bound(world.ahead())));
        world.turn();
        assert!(world.parts.iter().all(|part| part.held));
        world.take(1);
    }
    assert!(world.gate.wants_more(world.bound(world.ahead())), "its thread is called");
    world.turn();
    assert!(world.parts.iter().all(|part| !part.held || part.ahead > 0));
    assert_eq!(world.holds, 1);
}

#[test]
fn one_that_nobody_can_take_of_is_stopped_and_the_others_go_on() {
    let mut world = World::of(2, 100_000, 100);
    (world.parts[0].stuck, world.parts[1].left) = (true, 0);
    let mut turns = 0;
    while !world.parts[0].held {
        world.turn();
        world.pass(10);
        turns += 1;
        assert!(turns < 50);
    }
    assert!(world.ahead() <= MESSAGES + 1024);
    world.parts[1].left = 100_000;
    for _ in 0..90 {
        world.turn();
        assert!(world.parts[1].ahead > 0, "at once, at each turn");
        world.take(10_000);
    }
    assert_eq!(world.holds, 1);
    world.parts[0].stuck = false;
    while world.parts[0].held {
        world.turn();
        world.take(100);
    }
    assert!((1..=MESSAGES / 4).contains(&world.parts[0].ahead), "read again before all of it is handed out");
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Happens {
    Turn,
    Take(usize),
    Pass(u64),
    Stick(prop::sample::Index, bool),
    Publish(prop::sample::Index, usize),
}

fn happens() -> impl Strategy<Value = Vec<Happens>> {
    let one = any::<prop::sample::Index>;
    let what = prop_oneof![
        6 => Just(Happens::Turn),
        3 => (1usize..3000).prop_map(Happens::Take),
        3 => (1u64..400).prop_map(Happens::Pass),
        3 => (one(), any::<bool>()).prop_map(|(at, stuck)| Happens::Stick(at, stuck)),
        2 => (one(), 1usize..20_000).prop_map(|(at, count)| Happens::Publish(at, count)),
    ];
    prop::collection::vec(what, 0..300)
}

proptest! {
    #[test]
    fn what_lies_ready_is_bounded_and_none_goes_without_while_nothing_can_be_taken(
        all in happens(), count in prop::sample::select(vec![1usize, 2, 3, 20, 300]), size in prop::sample::select(vec![100usize, 10_000, 1_000_000]),
    ) {
        let mut world = World::of(count, 50, size);
        let mark = (AHEAD / count).max(64 * 1024).max((MESSAGES / count).max(64) * size);
        for what in all {
            match what {
                Happens::Turn => world.turn(),
                Happens::Take(most) => world.take(most),
                Happens::Pass(millis) => world.pass(millis),
                Happens::Stick(at, stuck) => world.parts[at.index(count)].stuck = stuck,
                Happens::Publish(at, many) => world.parts[at.index(count)].left += many,
            }
            let bound = AHEAD / 4 * 5 + count * (mark.min(AHEAD) + 2 * size) + 1024 * 1024;
            prop_assert!(world.ahead() * size <= bound, "{} of {bound}", world.ahead() * size);
            // What is thrown away is little beside what came.
            let part = (AHEAD / 5).min(MESSAGES / 5 * size);
            prop_assert!(world.holds <= count + world.brought * size / part, "{} {}", world.holds, world.brought);
        }
        for _ in 0..count * 4 + 20 {
            world.pass(25);
            world.turn();
        }
        prop_assert!(!world.starves());
    }
}
