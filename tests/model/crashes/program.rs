//! Random programs for a broker that is stopped at any moment.
//!
//! Numbers in a step are taken modulo what there is when it runs, so that a program stays one when steps are left out. Not here: what a step
//! does (`run.rs`), what must come of it (`reference.rs`).

use proptest::{collection::vec, prelude::*};
use ropeway_tests::disk::{Fault, Stop};

/// What the work topic keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    All,
    /// Milliseconds.
    Age(u64),
    /// Bytes in a partition.
    Bytes(u64),
}

/// How a broker is set up, and what is done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub dedup: bool,
    pub keep: Keep,
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Publish {
        partition: u8,
        count: u8,
    },
    /// The id of a message again.
    Again {
        which: u8,
    },
    Delay {
        partition: u8,
        millis: u16,
    },
    Cancel {
        which: u8,
    },
    Join {
        slot: u8,
    },
    Leave {
        slot: u8,
        drop: bool,
    },
    Ack {
        slot: u8,
        mask: u16,
        flush: bool,
    },
    Forward {
        slot: u8,
        mask: u16,
        out: u8,
    },
    Purge {
        partition: u8,
        which: u8,
    },
    Grow,
    /// All members leave, and the topic is deleted; `again`: and made again.
    Delete {
        again: bool,
    },
    Create,
    /// All members leave, and the group is deleted.
    DeleteGroup,
    /// All members leave, and the group starts elsewhere.
    Seek {
        partition: u8,
        which: u8,
    },
    Wait {
        millis: u16,
    },
    /// Somebody sets the clock by an hour.
    Jump {
        forward: bool,
    },
    Reopen,
    Crash,
}

/// Programs of at most that many steps.
pub(crate) fn programs(steps: usize) -> impl Strategy<Value = Program> {
    let keep = prop_oneof![
        3 => Just(Keep::All),
        1 => (500..4000u64).prop_map(Keep::Age),
        1 => (300..2000u64).prop_map(Keep::Bytes),
    ];
    (prop::bool::weighted(0.3), keep, vec(step(), 1..=steps)).prop_map(|(dedup, keep, steps)| Program {
        dedup,
        keep,
        steps,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let of = any::<u8>;
    prop_oneof![
        10 => (of(), 1..4u8).prop_map(|(partition, count)| Step::Publish { partition, count }),
        2 => of().prop_map(|which| Step::Again { which }),
        4 => (of(), 1..2000u16).prop_map(|(partition, millis)| Step::Delay { partition, millis }),
        1 => of().prop_map(|which| Step::Cancel { which }),
        6 => of().prop_map(|slot| Step::Join { slot }),
        2 => (of(), any::<bool>()).prop_map(|(slot, drop)| Step::Leave { slot, drop }),
        8 => (of(), any::<u16>(), any::<bool>()).prop_map(|(slot, mask, flush)| Step::Ack { slot, mask, flush }),
        4 => (of(), any::<u16>(), 1..3u8).prop_map(|(slot, mask, out)| Step::Forward { slot, mask, out }),
        2 => (of(), of()).prop_map(|(partition, which)| Step::Purge { partition, which }),
        1 => Just(Step::Grow),
        1 => any::<bool>().prop_map(|again| Step::Delete { again }),
        1 => Just(Step::Create),
        1 => Just(Step::DeleteGroup),
        2 => (of(), of()).prop_map(|(partition, which)| Step::Seek { partition, which }),
        4 => (1..3000u16).prop_map(|millis| Step::Wait { millis }),
        1 => any::<bool>().prop_map(|forward| Step::Jump { forward }),
        1 => Just(Step::Reopen),
        2 => Just(Step::Crash),
    ]
}

/// A few things that go wrong in a longer program.
pub(crate) fn faults(most: u64) -> impl Strategy<Value = Vec<Fault>> {
    let stop =
        prop_oneof![Just(Stop::Before), Just(Stop::After), Just(Stop::FailsApplied), Just(Stop::Fails)];
    let fault = prop_oneof![
        3 => (0..most, stop).prop_map(|(at, stop)| Fault::Change(at, stop)),
        1 => (0..2 * most).prop_map(Fault::Read),
    ];
    vec(fault, 0..6)
}

/// Everything that can go wrong once among so many changes and reads.
pub(crate) fn every(changes: u64, reads: u64) -> impl Iterator<Item = Fault> {
    let stops = [Stop::Before, Stop::After, Stop::FailsApplied, Stop::Fails];
    let at_changes = (0..changes).flat_map(move |at| stops.map(|stop| Fault::Change(at, stop)));
    at_changes.chain((0..reads).map(Fault::Read))
}
