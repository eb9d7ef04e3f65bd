//! The one task that drives a processor: it polls the consumer, starts what may run, collects what is over and gives the acks.
//!
//! Everything it decides with is owned by it alone, so there are no locks. Handlers run in the tasks of its pool; those that are quick it
//! runs itself, as far as they go at once (`look.rs`).
//! Not here: what an event of the bus changes (`events.rs`), what follows from a result (`outcome.rs`), shutting down (`drain.rs`).

use super::{
    drain::{Drain, Shutdown},
    ending::Endings,
    letters::Letters,
    look::Looks,
    partitions::Partitions,
    snapshot::Counters,
    work::{LaneKey, Running, Work},
};
use crate::{
    ProcessorSettings,
    lanes::Ticket,
    layer::{Ran, Runner},
    metrics::{GroupMetrics, Level},
    pool::core::Core,
    retry::Backoff,
    router::Plans,
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use ropeway_broker::{
    Clock, Consumer, ConsumerExt, Control, Error, Event as BusEvent, Group, MessageBroker, Outcomes, Result,
};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A dead letter that is being written: the ticket of its source, its size, the answer.
pub(crate) type Written = (Ticket, usize, Outcomes);

/// Results are gathered while there are so many more of them each time that others ran, and for so long at most.
const GATHER: (usize, Duration) = (16, Duration::from_millis(1));

/// What a processor is made of. `Debug` is left out: it would show payloads.
pub(crate) struct Driver {
    pub(super) broker: Arc<dyn MessageBroker>,
    pub(super) consumer: Box<dyn Consumer>,
    pub(super) control: Arc<dyn Control>,
    pub(super) group: Group,
    pub(super) settings: ProcessorSettings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) plans: Plans,
    pub(super) letters: Letters,
    pub(super) runner: Arc<Runner>,
    pub(super) looks: Looks,
    pub(super) core: Core<LaneKey, Work, Running>,
    pub(super) partitions: Partitions,
    pub(super) endings: Endings,
    pub(super) burials: FuturesUnordered<BoxFuture<'static, Written>>,
    pub(super) backoff: Backoff,
    pub(super) counters: Arc<Counters>,
    pub(super) metrics: GroupMetrics,
    pub(super) full: Level,
    pub(super) held: Level,
    pub(super) commands: mpsc::Receiver<Shutdown>,
    pub(super) drain: Option<Drain>,
    /// How the consumer ended.
    pub(super) ended: Option<Error>,
    /// When the driver ends at the latest, once its consumer has.
    pub(super) end_by: Option<Instant>,
    /// Above the tokens of all turns.
    pub(super) all: CancellationToken,
    /// Cancels it where the driver is dropped.
    pub(super) _all: DropGuard,
}

/// What woke the driver.
enum Woken {
    Event(Result<BusEvent>),
    Ran(Ticket, Result<Ran, String>),
    Written(Written),
    Shutdown(Shutdown),
    Due,
}

impl Driver {
    /// Runs to the end of the consumer or of a shutdown.
    ///
    /// # Errors
    /// What ended the consumer, unless that was an orderly close.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut timer = Box::pin(tokio::time::sleep_until(Instant::now()));
        loop {
            let now = Instant::now();
            self.expire(now);
            self.advance_drain(now);
            self.start(now);
            self.core.watch(now);
            self.settle();
            self.show();
            if self.is_over(now) {
                return self.finish().await;
            }
            // With all of it sent, acked and counted.
            if self.looks.stint.is_long(now) {
                tokio::task::yield_now().await;
                self.looks.stint.begin(Instant::now());
            }
            let woken = self.wait(&mut timer).await;
            if matches!(woken, Woken::Ran(..)) && self.core.is_crowded() {
                self.gather().await;
            }
            let now = Instant::now();
            self.wake(woken, now);
            self.collect(now);
        }
    }

    /// Cancels and stops handlers whose time has come.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.endings.expire(now) {
            self.core.poll_all();
        }
    }

    /// Starts what may run now.
    fn start(&mut self, now: Instant) {
        let mut wall = None;
        self.looks.stint.read(now);
        while !self.looks.stint.is_over()
            && let Some(ticket) = self.core.next(now)
        {
            // Asked for once, and only where there is something to start.
            let wall = *wall.get_or_insert_with(|| self.clock.now());
            self.begin(ticket, (now, wall));
        }
        self.core.send();
    }

    /// Gives the acks that are owed.
    pub(super) fn settle(&mut self) {
        for turn in self.partitions.settle(&*self.control) {
            // What was done and cannot be acked would stay in flight for ever; the next owner, perhaps this one, has it again.
            self.forget(false, |work| Arc::ptr_eq(&work.turn, &turn));
            self.partitions.revoke(&turn);
            self.control.give_up(&turn.owned);
        }
    }

    /// Waits for the next thing to do. Cancel safe, as all it waits for is.
    async fn wait(&mut self, timer: &mut Pin<Box<Sleep>>) -> Woken {
        let mut slept = false;
        let woken = {
            let mut next = pin!(self.next(timer));
            poll_fn(|cx| {
                let woken = next.as_mut().poll(cx);
                slept |= woken.is_pending();
                woken
            })
            .await
        };
        if slept {
            self.looks.stint.begin(Instant::now());
        }
        woken
    }

    async fn next(&mut self, timer: &mut Pin<Box<Sleep>>) -> Woken {
        let due = self.due();
        if let Some(due) = due
            && timer.deadline() != due
        {
            timer.as_mut().reset(due);
        }
        // What may run and was left, so that others could run first.
        let more = self.core.has_room() && self.core.lanes().ready() > 0;
        let listening = self.ended.is_none() && self.looks.hears(more);
        tokio::select! {
            // The bus first: what it says is bounded by what may be in flight, and a partition that goes should not wait.
            biased;
            Some(command) = self.commands.recv() => Woken::Shutdown(command),
            event = self.consumer.next(), if listening => Woken::Event(event),
            (ticket, result) = self.core.finished() => Woken::Ran(ticket, result),
            Some(written) = self.burials.next() => Woken::Written(written),
            () = timer.as_mut(), if due.is_some() => Woken::Due,
            () = std::future::ready(()), if more => Woken::Due,
        }
    }

    /// When time alone makes something to do.
    fn due(&self) -> Option<Instant> {
        // Without room nothing starts, however long it is due.
        let retry = self.core.has_room().then(|| self.core.lanes().next_due()).flatten();
        let drain = self.drain.as_ref().map(Drain::due);
        [retry, self.core.next_watch(), self.endings.next(), drain, self.end_by].into_iter().flatten().min()
    }

    fn wake(&mut self, woken: Woken, now: Instant) {
        match woken {
            Woken::Event(Ok(event)) => self.event(event, now),
            Woken::Event(Err(error)) => self.consumer_ended(error, now),
            Woken::Ran(ticket, result) => self.ran(ticket, result, now),
            Woken::Written(written) => self.written(written, now),
            Woken::Shutdown(shutdown) => self.begin_drain(shutdown, now),
            Woken::Due => {}
        }
    }

    /// While workers have more to go on with and end much, they are let run: what ends meanwhile is taken in one turn, and what a tick of the timer
    /// woke together waits again soon.
    async fn gather(&mut self) {
        let (began, mut before) = (Instant::now(), 0);
        loop {
            tokio::task::yield_now().await;
            let (over, waiting) = self.core.over_and_waiting();
            if waiting == 0 || over < before + GATHER.0 || began.elapsed() >= GATHER.1 {
                break;
            }
            before = over;
        }
    }

    /// Takes what is over already, so that acks are given in batches.
    fn collect(&mut self, now: Instant) {
        while let Some((ticket, result)) = self.core.try_finished() {
            self.ran(ticket, result, now);
        }
        while let Some(Some(written)) = self.burials.next().now_or_never() {
            self.written(written, now);
        }
    }

    /// Brings gauges and counters up to date.
    fn show(&mut self) {
        self.looks.let_go();
        self.looks.tally.flush(&self.counters);
        self.core.show();
        let lanes = self.core.lanes();
        let counters = &self.counters;
        counters.partitions.set(self.partitions.len());
        counters.partitions_full.set(self.partitions.full());
        counters.in_flight.set(lanes.len());
        counters.running.set(self.core.running());
        counters.waiting.set(lanes.waiting());
        counters.keys.set(lanes.live());
        counters.caught_up.store(self.partitions.all_caught_up(), std::sync::atomic::Ordering::Relaxed);
        self.full.set(self.partitions.full());
        self.held.set(usize::try_from(counters.held.get()).unwrap_or(usize::MAX));
    }

    /// A token that is cancelled with all the others.
    pub(super) fn token(&self) -> CancellationToken {
        self.all.child_token()
    }
}
