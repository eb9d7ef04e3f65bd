//! What the driver's own looks count, in plain numbers, until its turn ends: adding to shared metrics for each message costs more than a small
//! handler.
//!
//! Not here: looking (`look.rs`), the metrics themselves (`metrics.rs`).

use super::snapshot::Counters;
use crate::{
    layer::Runner,
    metrics::{GroupMetrics, HandlerMetrics},
    router::Route,
};
use prometheus::{Histogram, local::LocalHistogram};
use ropeway_broker::Topic;
use std::{sync::Arc, time::Duration};

/// Counts of looks that are not in the metrics yet.
#[derive(Debug)]
pub(super) struct Tally {
    /// The topic that is looked at, and what is counted of it.
    topic: Option<OfTopic>,
    waited: LocalHistogram,
    handled: usize,
}

#[derive(Debug)]
struct OfTopic {
    topic: Topic,
    age: Option<LocalHistogram>,
    /// By the index of a route.
    handlers: Vec<Option<OfHandler>>,
}

#[derive(Debug)]
struct OfHandler {
    metrics: HandlerMetrics,
    ok: u64,
    took: Option<LocalHistogram>,
}

impl Tally {
    pub(super) fn new(waited: &Histogram) -> Self {
        Self { topic: None, waited: waited.local(), handled: 0 }
    }

    /// What is counted next is of that topic.
    pub(super) fn turn_to(&mut self, topic: &Topic, group: &GroupMetrics, counters: &Counters) {
        if self.topic.as_ref().is_none_or(|of| of.topic != *topic) {
            self.flush(counters);
            let age = group.ages_of(topic).map(Histogram::local);
            self.topic = Some(OfTopic { topic: topic.clone(), age, handlers: Vec::new() });
        }
    }

    /// The first attempt of a message of that age started, after it had waited so long.
    pub(super) fn started(&mut self, age: Duration, waited: Duration) {
        self.waited.observe(waited.as_secs_f64());
        if let Some(histogram) = self.topic.as_ref().and_then(|of| of.age.as_ref()) {
            histogram.observe(age.as_secs_f64());
        }
    }

    /// A handler is looked at.
    pub(super) fn begins(&mut self, route: &Route, runner: &Runner) {
        let Some(of) = &mut self.topic else { return };
        if of.handlers.len() <= route.index {
            of.handlers.resize_with(route.index + 1, || None);
        }
        let Some(handler) = of.handlers.get_mut(route.index).filter(|handler| handler.is_none()) else {
            return;
        };
        *handler = runner.metrics.get(route.index).map(|metrics| {
            // One of them runs at a time, and one ends as the next begins.
            metrics.in_flight.inc();
            let took = metrics.durations_of(&of.topic).map(Histogram::local);
            OfHandler { metrics: metrics.clone(), ok: 0, took }
        });
    }

    /// An attempt ended well.
    pub(super) fn took(&mut self, route: &Route, time: Duration) {
        if let Some(took) = self.of(route.index).and_then(|handler| handler.took.as_ref()) {
            took.observe(time.as_secs_f64());
        }
    }

    /// All handlers of a message are done with it.
    pub(super) fn handled(&mut self, plan: &[Arc<Route>]) {
        self.handled += 1;
        for route in plan {
            if let Some(handler) = self.of(route.index) {
                handler.ok += 1;
            }
        }
    }

    fn of(&mut self, index: usize) -> Option<&mut OfHandler> {
        self.topic.as_mut()?.handlers.get_mut(index)?.as_mut()
    }

    /// Gives all of it to the metrics.
    pub(super) fn flush(&mut self, counters: &Counters) {
        if self.handled > 0 {
            counters.handled.add(std::mem::take(&mut self.handled));
        }
        self.waited.flush();
        let Some(of) = &mut self.topic else { return };
        of.age.iter().for_each(LocalHistogram::flush);
        for handler in of.handlers.iter_mut().filter_map(Option::take) {
            handler.metrics.in_flight.dec();
            handler.metrics.ok.inc_by(handler.ok);
            handler.took.iter().for_each(LocalHistogram::flush);
        }
    }
}
