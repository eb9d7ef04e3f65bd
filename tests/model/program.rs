//! Random programs: what somebody might do with a broker, step by step.
//!
//! Numbers in a step are taken modulo what there is when it runs, so that a program stays one when steps are left out: that is
//! what lets a failure shrink. Not here: what a step does (`run.rs`), what must come of it (`reference.rs`).

use proptest::{collection::vec, prelude::*};

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Publish { partition: u8, count: u8 },
    Delay { partition: u8, millis: u16 },
    Cancel { which: u8 },
    Join { slot: u8 },
    Leave { slot: u8, drop: bool },
    Ack { slot: u8, mask: u32, flush: bool },
    Forward { slot: u8, mask: u32, out: u8, too_large: bool },
    GiveUp { slot: u8, which: u8 },
    Pause { slot: u8, which: u8, paused: bool },
    Purge { partition: u8, which: u8 },
    Wait { millis: u16 },
    Reopen,
    Crash,
}

/// Programs of at most that many steps, with or without restarts, whose waits are no longer than that.
pub(crate) fn programs(steps: usize, restarts: bool, longest: u16) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (any::<u8>(), 1..6u8).prop_map(|(partition, count)| Step::Publish { partition, count }),
        2 => (any::<u8>(), 0..longest).prop_map(|(partition, millis)| Step::Delay { partition, millis }),
        1 => any::<u8>().prop_map(|which| Step::Cancel { which }),
        4 => any::<u8>().prop_map(|slot| Step::Join { slot }),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(slot, drop)| Step::Leave { slot, drop }),
        8 => (any::<u8>(), any::<u32>(), any::<bool>())
            .prop_map(|(slot, mask, flush)| Step::Ack { slot, mask, flush }),
        2 => (any::<u8>(), any::<u32>(), 1..4u8, any::<bool>())
            .prop_map(|(slot, mask, out, too_large)| Step::Forward { slot, mask, out, too_large }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(slot, which)| Step::GiveUp { slot, which }),
        2 => (any::<u8>(), any::<u8>(), any::<bool>())
            .prop_map(|(slot, which, paused)| Step::Pause { slot, which, paused }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(partition, which)| Step::Purge { partition, which }),
        2 => (0..longest).prop_map(|millis| Step::Wait { millis }),
    ];
    let restart = prop_oneof![Just(Step::Reopen), Just(Step::Crash)];
    let step = if restarts { prop_oneof![16 => step, 1 => restart].boxed() } else { step.boxed() };
    vec(step, 0..steps)
}
