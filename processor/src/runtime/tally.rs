//! What the driver's own looks count, in plain numbers, until its turn ends: adding to shared metrics for each message costs more than a small
//! handler.
//!
//! Not here: looking (`look.rs`), the metrics themselves (`metrics.rs`).

use super::snapshot::Counters;
use crate::{
    durations::{Durations, Tallied},
    layer::Runner,
    metrics::{GroupMetrics, HandlerMetrics},
    router::{Plan, Route},
};
use ropeway_broker::Topic;

/// Counts of looks that are not in the metrics yet.
#[derive(Debug)]
pub(super) struct Tally {
    /// The topic that is looked at, and what is counted of it.
    topic: Option<OfTopic>,
    waited: Tallied,
    handled: usize,
    /// Looks at one plan, one after the other.
    row: Option<Row>,
}

#[derive(Debug)]
struct Row {
    plan: Plan,
    /// How many were quick, and all was over then.
    quick: u32,
    /// How many messages all handlers are done with.
    handled: u32,
}

#[derive(Debug)]
struct OfTopic {
    topic: Topic,
    age: Option<Tallied>,
    /// By the index of a route.
    handlers: Vec<Option<OfHandler>>,
}

#[derive(Debug)]
struct OfHandler {
    metrics: HandlerMetrics,
    ok: u64,
    took: Option<Tallied>,
    /// It was looked at in this turn.
    runs: bool,
}

impl Tally {
    pub(super) fn new(waited: &Durations) -> Self {
        Self { topic: None, waited: waited.tally(), handled: 0, row: None }
    }

    /// What is counted next is of that topic.
    pub(super) fn turn_to(&mut self, topic: &Topic, group: &GroupMetrics, counters: &Counters) {
        if self.topic.as_ref().is_none_or(|of| of.topic != *topic) {
            self.flush(counters);
            let age = group.ages_of(topic).map(Durations::tally);
            self.topic = Some(OfTopic { topic: topic.clone(), age, handlers: Vec::new() });
        }
    }

    /// The first attempt of a message of that age started, after it had waited so long; in nanoseconds.
    // The call costs a quarter of what it does.
    #[inline(always)]
    pub(super) fn started(&mut self, age: u64, waited: u64) {
        self.waited.observe(waited);
        if let Some(histogram) = self.topic.as_mut().and_then(|of| of.age.as_mut()) {
            histogram.observe(age);
        }
    }

    /// A handler is looked at.
    #[inline]
    pub(super) fn begins(&mut self, route: &Route, runner: &Runner) {
        if !self.of(route.index).is_some_and(|handler| handler.runs) {
            self.begins_first(route.index, runner);
        }
    }

    #[cold]
    fn begins_first(&mut self, index: usize, runner: &Runner) {
        let (Some(of), Some(metrics)) = (&mut self.topic, runner.metrics.get(index)) else { return };
        if of.handlers.len() <= index {
            of.handlers.resize_with(index + 1, || None);
        }
        let Some(handler) = of.handlers.get_mut(index) else { return };
        let new = || {
            let took = metrics.durations_of(&of.topic).map(Durations::tally);
            OfHandler { metrics: metrics.clone(), ok: 0, took, runs: false }
        };
        handler.get_or_insert_with(new).runs = true;
        // One of them runs at a time, and one ends as the next begins.
        metrics.in_flight.inc();
    }

    /// An attempt ended well, after so many nanoseconds.
    #[inline]
    pub(super) fn took(&mut self, route: &Route, nanos: u64) {
        if let Some(took) = self.of(route.index).and_then(|handler| handler.took.as_mut()) {
            took.observe(nanos);
        }
    }

    /// A look at a message came to its end: whether it was quick and all was over then, and whether all handlers are done with it.
    #[inline]
    pub(super) fn looked(&mut self, plan: &Plan, quick: bool, done: bool) {
        if let Some(row) = &mut self.row
            && row.plan.is(plan)
        {
            row.quick += u32::from(quick);
            row.handled += u32::from(done);
            return;
        }
        self.end_row();
        self.row = Some(Row { plan: plan.clone(), quick: quick.into(), handled: done.into() });
    }

    /// What looks said of their plan is noted there.
    pub(super) fn end_row(&mut self) {
        let Some(Row { plan, quick, handled }) = self.row.take() else { return };
        if quick > 0 {
            plan.pace().looked_quickly(quick);
        }
        self.handled += handled as usize;
        for route in plan.iter() {
            if let Some(handler) = self.of(route.index) {
                handler.ok += u64::from(handled);
            }
        }
    }

    #[inline]
    fn of(&mut self, index: usize) -> Option<&mut OfHandler> {
        self.topic.as_mut()?.handlers.get_mut(index)?.as_mut()
    }

    /// Gives all of it to the metrics.
    pub(super) fn flush(&mut self, counters: &Counters) {
        self.end_row();
        if self.handled > 0 {
            counters.handled.add(std::mem::take(&mut self.handled));
        }
        self.waited.flush();
        let Some(of) = &mut self.topic else { return };
        of.age.iter_mut().for_each(Tallied::flush);
        for handler in of.handlers.iter_mut().flatten().filter(|handler| handler.runs) {
            handler.runs = false;
            handler.metrics.in_flight.dec();
            handler.metrics.ok.inc_by(std::mem::take(&mut handler.ok));
            handler.took.iter_mut().for_each(Tallied::flush);
        }
    }
}
