//! What the events of the bus change.
//!
//! Not here: the state of partitions (`partitions.rs`), the driver's loop (`driver.rs`).

use super::{
    driver::Driver,
    ending::grace,
    partitions::Turn,
    work::{LaneKey, Step, Work},
};
use crate::{Failure, FailureClass, layer::Reins};
use bytes::Bytes;
use ropeway_broker::{
    Assignment, Batch, Error, ErrorKind, Event as BusEvent, GapReason, GoneReason, Owned, Position,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

impl Driver {
    pub(super) fn event(&mut self, event: BusEvent, now: Instant) {
        match event {
            BusEvent::Assigned(assignments) => self.assigned(assignments),
            BusEvent::Revoking { partitions, left } => self.revoking(&partitions, left, now),
            BusEvent::Gone(owned, reason) => self.gone(&owned, reason, now),
            BusEvent::Batch(batch) => self.batch(batch, now),
            BusEvent::Unreadable { of, position, raw, why } => self.unreadable(&of, position, raw, &why, now),
            BusEvent::Gap { of, from, to, why } => self.gap(&of, from, to, why),
            BusEvent::CaughtUp(of) => {
                debug!(group = %self.group, topic = %of.topic, partition = of.partition, "caught up");
                self.partitions.caught_up(&of);
            }
        }
    }

    fn assigned(&mut self, assignments: Vec<Assignment>) {
        for assignment in assignments {
            let owned = &assignment.of;
            info!(group = %self.group, topic = %owned.topic, partition = owned.partition, epoch = %owned.epoch, "partition assigned");
            let reins = Reins { cancel: self.token(), ..Reins::default() };
            self.partitions.assigned(assignment, Arc::new(reins));
        }
    }

    /// What runs may finish; what waits is for the next owner, and burns no attempt.
    fn revoking(&mut self, partitions: &[Owned], left: Duration, now: Instant) {
        let cancel_at = now + left.saturating_sub(grace(self.settings.cancel_grace, left));
        for owned in partitions {
            let Some(turn) = self.partitions.turn(owned).cloned() else { continue };
            info!(group = %self.group, topic = %owned.topic, partition = owned.partition, ?left, "partition to be given up");
            self.forget(false, |work| Arc::ptr_eq(&work.turn, &turn));
            self.partitions.revoke(&turn);
            self.endings.end(&turn, cancel_at, now + left);
        }
    }

    pub(super) fn gone(&mut self, owned: &Owned, reason: GoneReason, now: Instant) {
        let Some(turn) = self.partitions.turn(owned).cloned() else { return };
        info!(group = %self.group, topic = %owned.topic, partition = owned.partition, ?reason, "partition gone");
        self.forget(true, |work| Arc::ptr_eq(&work.turn, &turn));
        self.partitions.gone(owned);
        self.endings.end(&turn, now, now + self.settings.cancel_grace);
        self.expire(now);
    }

    fn batch(&mut self, batch: Batch, now: Instant) {
        let Some(turn) = self.working(&batch.of) else {
            // Nobody acks it, so it comes again, here or elsewhere.
            debug!(of = ?batch.of, messages = batch.deliveries.len(), "a batch of a partition that is not worked on");
            return;
        };
        self.deliver(&turn, batch.deliveries, now);
    }

    fn unreadable(&mut self, of: &Owned, position: Position, raw: Option<Bytes>, why: &Error, now: Instant) {
        let Some(turn) = self.working(of) else { return };
        warn!(group = %self.group, topic = %of.topic, partition = of.partition, %position, "a record is no message: {why}");
        self.counters.unreadable.inc();
        let mut work = Work::unreadable(turn, position, raw, self.clock.now(), now);
        let failure = Failure::new(FailureClass::Unreadable, why.to_string());
        work.step = Step::Bury(Box::new(self.burial(&work, failure, 0)));
        self.counters.delivered.inc();
        self.take_in(None, work);
    }

    /// The turn of a partition, unless nothing new of it may be started: what was given up must not be overtaken.
    pub(super) fn working(&self, of: &Owned) -> Option<Arc<Turn>> {
        let turn = self.partitions.turn(of)?;
        let over = self.partitions.is_revoked(turn) || turn.reins.cancel.is_cancelled();
        (!over).then(|| turn.clone())
    }

    /// Puts a message into its lane.
    pub(super) fn take_in(&mut self, key: Option<LaneKey>, work: Work) {
        self.partitions.took(&work.turn, work.size);
        self.core.push(key, work);
    }

    fn gap(&self, of: &Owned, from: Option<Position>, to: Option<Position>, why: GapReason) {
        let reason = why.as_str();
        let shown = |position: Option<Position>| position.map_or_else(|| "?".to_owned(), |p| p.to_string());
        warn!(
            group = %self.group, topic = %of.topic, partition = of.partition, from = shown(from), to = shown(to), reason,
            "messages were gone before they were seen"
        );
        self.counters.gaps.inc();
        self.metrics.gap(&of.topic, reason);
    }

    /// The consumer has ended: nothing can be acked any more.
    pub(super) fn consumer_ended(&mut self, error: Error, now: Instant) {
        if error.kind() == ErrorKind::Closed {
            debug!(group = %self.group, "the consumer is closed");
        } else {
            error!(group = %self.group, "the consumer has ended: {error}");
        }
        let left: Vec<Arc<Turn>> = self.partitions.turns().cloned().collect();
        for turn in left {
            self.gone(&turn.owned, GoneReason::Lost, now);
        }
        self.end_by = Some(now + self.settings.cancel_grace + super::drain::LINGER);
        self.ended = Some(error);
    }

    /// Takes away what is not out: its next owner has it. With `late`, also the results of what is out.
    pub(super) fn forget(&mut self, late: bool, which: impl FnMut(&Work) -> bool) {
        for work in self.core.forget(late, which) {
            self.counters.given_up.inc();
            self.over(&work, None);
        }
    }
}
