//! What a member reads, and what its client is told about it.
//!
//! Pure. Not here: copying records (`records.rs`), how much lies ready, and what follows of it (`gate.rs`), what is handed out (`share.rs`).

use super::{
    core::Core,
    duty::Job,
    gate::{Part, Step},
    share::Read,
};
use crate::{Bound, InFlight, balance::TopicPartition, members::queue};
use std::{task::Waker, time::Duration};
use tokio::time::Instant;

/// After so long a pause what comes may be of another topic of that name: the client goes on at its offset, and says nothing.
const IDLE: Duration = Duration::from_millis(200);

/// What was read of a partition.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) key: TopicPartition,
    pub(super) reads: Vec<Read>,
}

impl Core {
    /// Takes what was read out of `runs`.
    pub(super) fn take(&mut self, runs: &mut [Run], now: Instant) -> Option<Waker> {
        let was = self.owner.ahead;
        for Run { key, reads } in runs {
            let Some(share) = self.owner.shares.get_mut(key).filter(|share| share.takes()) else { continue };
            if now >= share.log.read_at + IDLE {
                share.log.parked = Some(self.looks);
            }
            share.log.read_at = now;
            let before = share.ahead;
            share.put_all(reads.drain(..));
            self.owner.ahead.messages += share.ahead.messages - before.messages;
            self.owner.ahead.bytes += share.ahead.bytes - before.bytes;
            if share.flows() && share.has_something() {
                queue(&mut self.owner.ready, key, share);
            }
        }
        let Bound { messages, bytes } = self.owner.ahead;
        self.gate.brought(Bound { messages: messages - was.messages, bytes: bytes - was.bytes });
        self.owner.wake_if_told()
    }

    /// Whether the client is asked for more, or is to stop reading, or to read again.
    pub(super) fn flow(&mut self, now: Instant) -> Job {
        let until = self.until(now);
        let Self { owner, held, gate, .. } = self;
        let stops = held.iter().any(|key| owner.shares.contains_key(key));
        if !stops && let Some(most) = gate.calm(owner.ahead) {
            return Job::Wait(until, most);
        }
        let in_flight = InFlight::new(owner.rules.bound, owner.shares.len());
        let part = |key, share: &super::share::Share| Part {
            ahead: share.ahead,
            held: held.contains(key),
            dry: share.flows()
                && !share.has_something()
                && !in_flight.room(owner.in_flight, share.flight).is_empty(),
        };
        let placed = owner.shares.iter().filter(|(_, share)| share.log.placed);
        let parts = placed.map(|(key, share)| (key, part(key, share)));
        let job = match gate.step(parts, owner.ready.is_empty(), now) {
            Step::Ask(most) => Job::Wait(gate.look(now).map_or(until, |look| until.min(look)), most),
            Step::Taste => Job::Wait(now, 1),
            Step::Moment(moment) => Job::Moment(until.min(moment)),
            Step::Hold(keys) => Job::Hold(keys.into_iter().cloned().collect()),
            Step::Resume(keys) => Job::Resume(keys.into_iter().cloned().collect()),
        };
        match &job {
            Job::Hold(keys) => self.hold(keys, true),
            Job::Resume(keys) => self.hold(keys, false),
            _ => {}
        }
        job
    }

    fn hold(&mut self, keys: &[TopicPartition], held: bool) {
        for key in keys {
            if held {
                self.held.insert(key.clone());
            } else {
                self.held.remove(key);
            }
            self.owner.shares.get_mut(key).into_iter().for_each(|share| share.log.held = held);
        }
    }
}
