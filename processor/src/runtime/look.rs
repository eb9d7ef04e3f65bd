//! First looks: where the handlers of a message are quick, the driver runs them itself, as far as they go at once.
//!
//! What is ready then is over in the same turn, without a worker, a lane, a wake-up. What is not is handed to a worker, which goes on with the
//! same future; its time is counted from the look. Which handlers are looked at is decided by how quick they were (`router/pace.rs`).
//! A look is a run like any other: of a key one at a time and in order, never more at a time than may run, and not in a turn of a
//! partition that is over.
//!
//! The driver lets others run after a stint of looks. Not here: what follows from a result (`outcome.rs`), the counts (`tally.rs`).

use super::{
    driver::Driver,
    outcome::run_of,
    partitions::Turn,
    tally::Tally,
    work::{LaneKey, Run, Step, Work},
};
use crate::{
    Event, Failure, Place, Started, Verdict,
    durations::{Durations, nanos},
    handler::Handled,
    lanes::Ticket,
    layer::{Begun, Ended, Progress, Ran, Runner, Spare, catch_panic_of, judge, span_of},
    router::{Bounds, Look, Plan, Route},
};
use ropeway_broker::{Delivery, Message, Position, Timestamp};
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;
use tracing::Span;

/// How long the driver goes on before it lets others run, its workers above all, as seen between batches; and how many messages that are at most.
const STINT: (Duration, u32) = (Duration::from_micros(200), 256);
/// Within a batch it goes on for so many messages, and so many looks that were slow; what is left of it waits in its lanes. It is counted, and
/// not measured, so that a thread that was interrupted does not count for much.
const LONGEST_STINT: (u32, u32) = (1024, 8);
const SLOW: Duration = Duration::from_micros(50);
/// A look that takes longer ends its stint.
const VERY_SLOW: Duration = Duration::from_millis(10);
/// While something is left that may run, the consumer is asked once in so many stints.
const UNHEARD: u32 = 8;

/// What is needed to look.
#[derive(Debug)]
pub(super) struct Looks {
    runner: Arc<Runner>,
    pub(super) bounds: Bounds,
    /// What takes less is no reason to count a look alone, in nanoseconds.
    soon: u64,
    /// For the next look. The event in it is used again likewise.
    spare: Spare,
    pub(super) tally: Tally,
    pub(super) stint: Stint,
    /// Stints since the consumer was asked last.
    unheard: u32,
    /// What a batch's looks were done with.
    done: Vec<Position>,
}

/// What the driver did since others could run last.
#[derive(Debug)]
pub(super) struct Stint {
    began: Instant,
    /// When the clock was read last.
    now: Instant,
    messages: u32,
    /// How many of them were slow.
    slow: u32,
    /// What passed since the clock was read by others, in nanoseconds.
    waited: u64,
    /// Something else than looks was done since the clock was read.
    others: bool,
}

impl Stint {
    fn new(now: Instant) -> Self {
        Self { began: now, now, messages: 0, slow: 0, waited: 0, others: false }
    }

    /// Others run, or ran.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// The clock was read.
    pub(super) fn read(&mut self, now: Instant) {
        self.now = now;
        self.waited = 0;
        self.others = false;
    }

    /// Something is done that is no part of what is looked at next.
    pub(super) fn others(&mut self) {
        self.others = true;
    }

    /// Reads the clock where others had time since.
    fn refresh(&mut self) {
        if std::mem::take(&mut self.others) {
            let now = Instant::now();
            self.waited += nanos(now.duration_since(self.now));
            self.now = now;
        }
    }

    /// Whether others should run before anything else is done.
    pub(super) fn is_long(&self, now: Instant) -> bool {
        self.messages >= STINT.1 || (self.messages > 0 && now.duration_since(self.began) >= STINT.0)
    }

    /// Whether nothing more is looked at.
    pub(super) fn is_over(&self) -> bool {
        self.messages >= LONGEST_STINT.0
            || self.slow >= LONGEST_STINT.1
            // What handlers wait for would say that it is not ready, though it is.
            || !tokio::task::coop::has_budget_remaining()
    }
}

/// What a look came to.
enum Seen {
    Done,
    /// At which handler, and how.
    Failed(usize, Box<Failure>),
    Pending(usize, Box<Begun>),
}

impl Looks {
    /// Must be called inside of a tokio runtime.
    pub(super) fn new(runner: Arc<Runner>, waited: &Durations) -> Self {
        let bounds = Bounds::of(tokio::runtime::Handle::current().metrics().num_workers());
        Self {
            runner,
            bounds,
            soon: nanos(bounds.quick.min(SLOW)),
            spare: Spare::default(),
            tally: Tally::new(waited),
            stint: Stint::new(Instant::now()),
            unheard: 0,
            done: Vec::new(),
        }
    }

    /// Whether to ask the consumer. What it would bring has to wait where there is `more` to be run already, but a partition that goes has
    /// to be heard of.
    pub(super) fn hears(&mut self, more: bool) -> bool {
        self.unheard = if more && self.unheard < UNHEARD { self.unheard + 1 } else { 0 };
        self.unheard == 0
    }

    /// Drops what is kept for the next look: it holds a message.
    pub(super) fn let_go(&mut self) {
        self.spare.cx = None;
    }

    /// What goes with the first attempt of what was delivered.
    #[inline]
    fn context(&mut self, turn: &Turn, position: Position, message: Message) -> crate::Context {
        if let Some(mut cx) = self.spare.cx.take()
            && let Some(event) = cx.renew(1, &turn.reins)
        {
            event.become_placed(message, &turn.owned, position);
            return cx;
        }
        let event = Event::placed(message, Place::of(&turn.owned, position));
        crate::Context::new(event, 1, turn.reins.clone(), self.runner.broker.clone())
    }

    /// Runs the handlers of a message from the first on, as far as they go at once; `cx` goes with the first of them.
    fn look(&mut self, plan: &Plan, event: &Event, cx: crate::Context, turn: &Turn) -> Seen {
        let (mut seen, mut took, mut first) = (Seen::Done, 0, Some(cx));
        for (at, route) in plan.iter().enumerate() {
            let next = || self.runner.context(event, 1, &turn.reins, self.spare.cx.take());
            let cx = first.take().unwrap_or_else(next);
            let attempt;
            (seen, attempt) = self.attempt((at, route), event, cx);
            took += attempt;
            if !matches!(seen, Seen::Done) {
                break;
            }
        }
        self.stint.messages += 1;
        self.stint.waited += took;
        let (ready, done) = (!matches!(seen, Seen::Pending(..)), matches!(seen, Seen::Done));
        if ready && took < self.soon {
            self.tally.looked(plan, true, done);
            return seen;
        }
        let took = Duration::from_nanos(took);
        if took >= SLOW {
            self.stint.slow += if took < VERY_SLOW { 1 } else { LONGEST_STINT.1 };
        }
        self.tally.end_row();
        plan.pace().looked(Look { took, ready }, self.bounds);
        self.tally.looked(plan, false, done);
        seen
    }

    /// Begins the first attempt of a handler: the layers are those of an attempt that a worker runs. Answers how long it took, too, in nanoseconds.
    fn attempt(
        &mut self,
        (at, route): (usize, &Arc<Route>),
        event: &Event,
        cx: crate::Context,
    ) -> (Seen, u64) {
        let begun = self.stint.now;
        self.tally.begins(route, &self.runner);
        let span = span_of(&self.runner, route, 1, event);
        let slot = std::mem::take(&mut self.spare.slot);
        let mut started = None;
        let begin = || {
            let started = started.insert(route.handler.clone().start(event.clone(), cx.clone(), slot));
            // Who goes on with it polls it with a waker of its own.
            started.poll_handled(&mut Context::from_waker(Waker::noop()))
        };
        let polled = catch_panic_of(|| if span.is_disabled() { begin() } else { span.in_scope(begin) });
        self.stint.now = Instant::now();
        let took = nanos(self.stint.now.duration_since(begun));
        if let Ok(Poll::Ready(Ok(Verdict::Done))) = polled {
            self.spare.slot = started.map(Started::into_slot).unwrap_or_default();
            self.tally.took(route, took);
            self.spare.cx = Some(cx);
            return (Seen::Done, took);
        }
        let begun = started.map(|future| Begun { future, cx, span: span.clone(), started: begun });
        (self.not_done((at, route), event, polled, begun, (span, took)), took)
    }

    /// What an attempt came to that did not end well, or not yet.
    #[cold]
    fn not_done(
        &self,
        (at, route): (usize, &Arc<Route>),
        event: &Event,
        polled: Result<Poll<Handled>, String>,
        begun: Option<Begun>,
        (span, took): (Span, u64),
    ) -> Seen {
        let handled = match (polled, begun) {
            (Ok(Poll::Pending), Some(begun)) => return Seen::Pending(at, Box::new(begun)),
            // It is there: it was polled.
            (Ok(Poll::Pending), None) => Err("an attempt was lost".to_owned()),
            (Ok(Poll::Ready(handled)), _) => Ok(Ok(handled)),
            (Err(panic), begun) => {
                // Nothing of what it left half done ends the driver.
                _ = catch_panic_of(|| drop(begun));
                Err(panic)
            }
        };
        // An error says what it is in code of its own.
        let ended = catch_panic_of(|| judge(handled)).unwrap_or_else(|panic| judge(Err(panic)));
        let Ended::Failed(mut failure) = ended else { return Seen::Done };
        span.record("failure", failure.class.as_str());
        failure.handler = Some(route.name.to_string());
        if let Some(metrics) = self.runner.metrics.get(route.index) {
            metrics.took(event.topic(), Some(failure.class), Duration::from_nanos(took));
        }
        Seen::Failed(at, Box::new(failure))
    }
}

/// How old what was made at `made` is.
#[inline]
fn nanos_since(made: Timestamp, now: Timestamp) -> u64 {
    let millis = now.as_millis().saturating_sub(made.as_millis());
    u64::try_from(millis).unwrap_or(0).saturating_mul(1_000_000)
}

impl Driver {
    /// Looks at what was delivered, and takes in what is not to be looked at or is not over then.
    pub(super) fn deliver(&mut self, turn: &Arc<Turn>, deliveries: Vec<Delivery>, now: Instant) {
        self.looks.stint.read(now);
        self.looks.tally.turn_to(&turn.owned.topic, &self.metrics, &self.counters);
        // Where others wait already, they are first.
        let first = self.core.lanes().ready() == 0;
        let at = (now, self.clock.now());
        let mut taken = 0;
        let mut plan = None;
        let mut deliveries = deliveries.into_iter();
        // A message is moved once: from where it was delivered to where a handler sees it.
        while let Some(next) = deliveries.as_slice().first() {
            taken += 1;
            if first && let Some(plan) = self.plan_to_look(turn, next, &mut plan) {
                let Some(delivery) = deliveries.next() else { break };
                if !self.look_at_delivery(turn, plan, delivery, at) {
                    // It is not worked on any more: the rest comes again, as such a batch does.
                    break;
                }
            } else {
                let Some(delivery) = deliveries.next() else { break };
                let (key, work) = Work::delivered(turn.clone(), delivery, now);
                self.looks.stint.messages += 1;
                self.looks.stint.others();
                self.take_in(key, work);
            }
        }
        self.counters.delivered.add(taken);
        self.partitions.done(turn, &mut self.looks.done);
    }

    /// The handlers of a message, if it is to be looked at: they are quick, it may run, and nothing of its key is here. `last`: those of the
    /// message before, which mostly are the same.
    fn plan_to_look<'a>(
        &mut self,
        turn: &Turn,
        delivery: &Delivery,
        last: &'a mut Option<Plan>,
    ) -> Option<&'a Plan> {
        if !self.core.is_free() || self.looks.stint.is_over() {
            return None;
        }
        let message = &delivery.message;
        if let Some(key) = &message.key
            && self
                .core
                .lanes()
                .is_open(&(turn.place, key), |(place, other)| *place == turn.place && other == key)
        {
            return None;
        }
        let topic = &turn.owned.topic;
        match (self.plans.again(topic, message), &*last) {
            (Some(plan), Some(last)) if plan.is(last) => {}
            (Some(plan), _) => *last = Some(plan.clone()),
            (None, _) => *last = Some(self.plans.of(topic, message.event_type())),
        }
        last.as_ref().filter(|plan| plan.pace().is_quick() && !plan.is_empty())
    }

    /// Answers whether its partition is worked on after that.
    #[inline]
    fn look_at_delivery(
        &mut self,
        turn: &Arc<Turn>,
        plan: &Plan,
        delivery: Delivery,
        at: (Instant, Timestamp),
    ) -> bool {
        let (since, wall) = at;
        let Delivery { position, message } = delivery;
        let cx = self.looks.context(turn, position, message);
        let event = cx.event().clone();
        self.looks.stint.refresh();
        let waited = self.looks.stint.waited;
        self.looks.tally.started(nanos_since(event.timestamp(), wall).saturating_add(waited), waited);
        let seen = self.looks.look(plan, &event, cx, turn);
        if let Seen::Done = seen {
            self.looks.done.push(position);
            return true;
        }
        let size = event.message().size();
        let key = event.key().map(|key| -> LaneKey { (turn.place, key.clone()) });
        let step = Step::Handle(plan.clone(), Progress::start());
        self.partitions.took(turn, size);
        let work = Work { turn: turn.clone(), event, position, size, since, step, first_failure: None };
        let ticket = self.core.push_out(key, work);
        self.looked(ticket, plan.clone(), seen, at);
        self.working(&turn.owned).is_some()
    }

    /// Looks at a message that waited in its lane and may run now.
    pub(super) fn look_at(&mut self, ticket: Ticket, run: Run, at: (Instant, Timestamp)) {
        self.looks.tally.turn_to(&run.turn.owned.topic, &self.metrics, &self.counters);
        self.looks.stint.refresh();
        if let Some(first) = run.first {
            let now = self.looks.stint.now;
            let age = first.age.saturating_add(now.duration_since(first.at));
            self.looks.tally.started(nanos(age), nanos(now.duration_since(first.since)));
        }
        let cx = self.looks.runner.context(&run.event, 1, &run.turn.reins, self.looks.spare.cx.take());
        let seen = self.looks.look(&run.plan, &run.event, cx, &run.turn);
        self.looked(ticket, run.plan, seen, at);
    }

    /// What follows from a look at a message that has a lane.
    fn looked(&mut self, ticket: Ticket, plan: Plan, seen: Seen, at: (Instant, Timestamp)) {
        let Some(work) = self.core.get_mut(&ticket) else { return };
        let turn = work.turn.clone();
        let now = self.looks.stint.now;
        match seen {
            // It is counted.
            Seen::Done => self.done(ticket),
            Seen::Failed(at, failure) => {
                self.looks.stint.others();
                // Where it is dead-lettered, they are given first.
                self.partitions.done(&turn, &mut self.looks.done);
                let progress = Progress { at, attempt: 1 };
                self.ran(ticket, Ok(Ran { progress, ended: Ended::Failed(*failure), at: now }), now);
            }
            Seen::Pending(handler, begun) => {
                self.looks.stint.others();
                let progress = Progress { at: handler, attempt: 1 };
                work.step = Step::Handle(plan.clone(), progress);
                let event = work.event.clone();
                let run = Run { turn, event, plan, progress, first: None, begun: Some(begun) };
                let plans = &mut self.plans;
                self.core.run(ticket, run, |work| run_of(plans, work, at));
            }
        }
    }
}
