//! Runs steps: takes commands, lets the core decide, commits once, makes it visible, answers.
//!
//! `memory:` runs them in the thread that calls, one at a time; nothing runs in the background, so that it is deterministic.
//! `embedded:` has one thread for it, so that while one commit waits for the disk the commands of the next gather.

use super::{
    core::{Core, Rules, Step, closed, store_error, stored_as},
    housekeeping::{Chore, Done, Housekeeping},
    publish::Waits,
    queue::{Cost, Lane, Queue, Refused, Run},
    time::{Mark, Pace, Steady},
};
use crate::{Answer, Clock, Error, ErrorKind, Result, Timestamp};
use ropeway_store::KeyValue;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};
use tokio::sync::oneshot;

/// The parts of a broker that outlive its handle.
#[derive(Debug)]
pub(super) struct Engine {
    core: Mutex<Core>,
    store: Arc<dyn KeyValue>,
    pace: Pace,
    queue: Queue,
    house: Housekeeping,
    /// For those who wait for an answer.
    pub(super) waits: Arc<Waits>,
    /// Held by who runs a step.
    turn: Mutex<()>,
    /// Steps are run by who calls.
    pub(super) inline: bool,
    pub(super) rules: Rules,
}

impl Engine {
    pub(super) fn open(
        store: Arc<dyn KeyValue>,
        clock: Arc<dyn Clock>,
        rules: Rules,
        most: Cost,
        inline: bool,
    ) -> Result<Self> {
        let mut pace = None;
        let core = Core::recover(store.clone(), rules.clone(), |stored| {
            pace.insert(Pace::resume(clock.clone(), stored)).now()
        })?;
        let pace = pace.unwrap_or_else(|| Pace::resume(clock, None));
        Ok(Self {
            core: Mutex::new(core),
            store,
            pace,
            queue: Queue::new(most),
            house: Housekeeping::default(),
            waits: Arc::default(),
            turn: Mutex::new(()),
            inline,
            rules,
        })
    }

    /// The state. Never held while anything waits, is read or is woken.
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn store(&self) -> &dyn KeyValue {
        &*self.store
    }

    /// The time, by both clocks.
    pub(super) fn now(&self) -> Mark {
        self.pace.now()
    }

    /// What deadlines go by.
    pub(super) fn steady(&self) -> Steady {
        self.pace.steady()
    }

    pub(super) fn time_of_day(&self) -> Timestamp {
        self.pace.time_of_day()
    }

    /// The error of every call after close.
    pub(super) fn closed(&self) -> Error {
        closed(self.rules.backend)
    }

    /// Takes a command over.
    pub(super) fn submit(
        &self,
        lane: Lane,
        cost: Cost,
        run: impl FnOnce(&mut Core, &mut Step) + Send + 'static,
    ) -> Result<(), Refused> {
        self.queue.push(lane, cost, Box::new(run))?;
        if self.inline {
            self.pump();
        }
        Ok(())
    }

    /// Takes a command over that writes no messages, for the next step. Refused only after close.
    pub(super) fn order(&self, run: impl FnOnce(&mut Core, &mut Step) + Send + 'static) {
        _ = self.submit(Lane::Urgent, Cost::default(), run);
    }

    /// Takes a command over and answers with what it decides, when that is committed.
    pub(super) fn call<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Core, &mut Step) -> Result<T> + Send + 'static,
    ) -> Answer<Result<T>> {
        let (reply, answer) = oneshot::channel();
        let submitted = self.submit(Lane::Urgent, Cost::default(), move |core, step| {
            let decided = decide(core, step);
            step.after(move |failed| {
                _ = reply.send(failed.map_or(decided, |error| Err(error.clone())));
            });
        });
        self.await_answer(submitted, answer)
    }

    pub(super) fn await_answer<T: Send + 'static>(
        &self,
        submitted: Result<(), Refused>,
        mut answer: oneshot::Receiver<Result<T>>,
    ) -> Answer<Result<T>> {
        let closed = self.closed();
        match submitted {
            Err(Refused::Ended) => Box::pin(std::future::ready(Err(closed))),
            Err(Refused::Full(error)) => Box::pin(std::future::ready(Err(error))),
            Ok(()) => match answer.try_recv() {
                Ok(done) => Box::pin(std::future::ready(done)),
                Err(_) => Box::pin(async move { answer.await.unwrap_or(Err(closed)) }),
            },
        }
    }

    /// Ends the broker; answers `false` where it was ended before.
    pub(super) fn end(&self, done: impl FnOnce() + Send + 'static) -> bool {
        let run: Run = Box::new(move |core, step| {
            core.close(step);
            step.after(move |_| done());
        });
        let ended = self.queue.end(run);
        if ended && self.inline {
            self.pump();
        }
        ended
    }

    /// Lets the thread look at the timers again.
    pub(super) fn nudge(&self) {
        self.queue.nudge();
    }

    /// Does what is due where nobody else keeps the time, so that a report is up to date.
    pub(super) fn catch_up(&self) {
        if self.inline {
            self.pump();
        }
    }

    /// Runs steps until nothing is left to do now.
    pub(super) fn pump(&self) {
        while self.step() {}
    }

    /// Runs one step; `false` where nothing is left to do now.
    fn step(&self) -> bool {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let commands = self.queue.take();
        let now = self.now();
        let mut step = Step::new(now, stored_as(self.rules.durability));
        let (poisoned, over) = {
            let mut core = self.core();
            // After close nothing is due any more: what is left to do is done when the store is opened next.
            let is_due = core.open().is_ok() && core.due().is_over(&now);
            if commands.is_empty() && !is_due {
                return false;
            }
            core.tick(&mut step);
            for run in commands {
                run(&mut core, &mut step);
            }
            core.finish(&mut step);
            (core.poisoned().cloned(), core.open().is_err())
        };
        let writes = !step.batch.is_empty();
        let failed = self.commit(&mut step, poisoned.as_ref());
        let more;
        let wake = {
            let mut core = self.core();
            core.statistics_mut().commits += u64::from(writes && failed.is_none());
            let wake = match &failed {
                Some(error) => core.poison(&mut step, error),
                None => core.apply(&mut step),
            };
            more = !over && (core.due().is_over(&now) || !self.queue.is_empty());
            wake
        };
        if over {
            self.house.end();
            if let Err(error) = self.store.close() {
                tracing::warn!(%error, "the store of the embedded broker did not close cleanly");
            }
        }
        drop(turn);
        // Outside of all locks: what is woken or answered here may call again.
        wake.into_iter().for_each(Waker::wake);
        let failed = failed.map(|error| {
            Error::new(error.kind(), "the commit failed, so it is not known whether this was stored")
                .on(self.rules.backend)
                .caused_by(error)
        });
        for after in step.take_after() {
            after(failed.as_ref());
        }
        if failed.is_none() {
            return self.keep_house(step.chores) | more;
        }
        more
    }

    /// Has done what a step wants done; answers whether that leaves something to do now.
    fn keep_house(&self, chores: Vec<Chore>) -> bool {
        if chores.is_empty() {
            return false;
        }
        if self.inline {
            // In memory nothing fails but what is over.
            chores.into_iter().for_each(|chore| _ = self.do_chore(chore));
            return !self.queue.is_empty();
        }
        self.house.add(chores);
        false
    }

    /// Does a chore; answers why it failed, where it is to be tried again.
    fn do_chore(&self, chore: Chore) -> Option<ropeway_store::Error> {
        match chore.run(self.store()) {
            Done::Over => None,
            Done::Failed(error) => Some(error),
            Done::Opened(opened) => {
                // Refused only after close, when nobody waits for it.
                _ = self.queue.push(
                    Lane::Urgent,
                    Cost::default(),
                    Box::new(move |core, step| core.opened(step, opened)),
                );
                None
            }
        }
    }

    /// Measures what the store takes.
    #[cfg(feature = "embedded")]
    fn measure(&self) {
        use ropeway_store::Error as Store;
        let written = self.core().written();
        match self.store.usage() {
            Ok(usage) => self.core().measured(usage, written),
            Err(Store::Closed) => {}
            Err(error @ (Store::Io { .. } | Store::Full { .. })) => {
                tracing::warn!(%error, "what the store takes cannot be measured; it is tried again");
            }
            Err(error) => self.core().lose(&store_error(error)),
        }
    }

    /// Does chores until the broker is closed.
    #[cfg(feature = "embedded")]
    pub(super) fn run_house(&self) {
        let _fall = Fall(self);
        let mut short = 0_u32;
        // What failed, such as on a full disk, is tried again whenever nothing else is to be done.
        let mut failed: Vec<Chore> = Vec::new();
        while let Some((chore, _busy)) = self.house.next(super::housekeeping::PACE) {
            if let Some(chore) = chore {
                if let Some(error) = self.do_chore(chore) {
                    tracing::warn!(%error, ?chore, "housekeeping of the embedded broker failed; it is tried again");
                    failed.push(chore);
                    self.core().house_failed(Some(&error));
                }
            } else if !failed.is_empty() {
                let mut why = None;
                failed.retain(|chore| {
                    let error = self.do_chore(*chore);
                    let again = error.is_some();
                    why = error.or_else(|| why.take());
                    again
                });
                self.core().house_failed(why.as_ref());
            }
            self.measure();
            let held = self.core().in_memory();
            short = if held.is_empty() { 0 } else { short.wrapping_add(1) };
            // What was removed takes room in the journal of the store until all that is in memory beside it is written out.
            if short % super::housekeeping::RELIEF == 1 {
                held.into_iter().for_each(|log| _ = self.do_chore(Chore::Flush(log)));
            }
        }
    }

    /// Commits the step; answers why that failed.
    fn commit(&self, step: &mut Step, poisoned: Option<&Error>) -> Option<Error> {
        let batch = std::mem::take(&mut step.batch);
        if let Some(error) = poisoned {
            // Commands that write were refused. What is left over, such as positions of who leaves, cannot be stored.
            return (!batch.is_empty()).then(|| error.clone());
        }
        if batch.is_empty() {
            return None;
        }
        self.store.commit(batch, step.durability).err().map(store_error)
    }

    /// Runs steps until the broker is closed.
    #[cfg(feature = "embedded")]
    pub(super) fn run(&self) {
        let _fall = Fall(self);
        loop {
            self.pump();
            if self.core().open().is_err() {
                return;
            }
            let left = self.core().due().left(&self.now());
            self.queue.wait(left);
        }
    }
}

/// Tells everybody when the thread of the steps panics.
#[cfg(feature = "embedded")]
struct Fall<'a>(&'a Engine);

#[cfg(feature = "embedded")]
impl Drop for Fall<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue.abandon();
            let wake = self.0.core().fall();
            wake.into_iter().for_each(Waker::wake);
        }
    }
}

/// Keeps a broker open: closes it when the last handle, consumer or reader is gone.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) engine: Arc<Engine>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Lease {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, threads: Mutex::default() }
    }

    /// Gives the steps a thread of their own, and the chores another one.
    #[cfg(feature = "embedded")]
    pub(super) fn with_threads(engine: Arc<Engine>) -> Result<Self> {
        let lease = Self::new(engine.clone());
        let house = engine.clone();
        lease.spawn("ropeway-embedded", move || engine.run())?;
        lease.spawn("ropeway-housekeeping", move || house.run_house())?;
        Ok(lease)
    }

    #[cfg(feature = "embedded")]
    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(run).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "no thread can be started for the embedded broker")
                .caused_by(error)
        })?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.engine.end(|| ());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // Dropped by a callback on that very thread, it ends by itself.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the embedded broker panicked");
            }
            // The steps have ended, if they have not panicked, and chores with them.
            self.engine.house.end();
        }
    }
}

/// The error of a call whose answer cannot come any more.
pub(super) fn gone() -> Error {
    Error::new(ErrorKind::Closed, "the broker ended before it answered")
}
