//! The tasks that run work: each takes what is next, runs it, gives the result back and goes on.
//!
//! A task of its own for each piece of work cost more than small work itself. Here tasks live on and share one queue, and what wakes them is
//! paced: a worker that finds more than it takes wakes the next one, so that a hundred pieces that end at once cost a few wakes, and
//! a hundred that wait are soon out on a hundred workers. Work of one lane may come as a chain, which one worker runs in order.
//!
//! Bounds: at most as many workers as were allowed, which are kept: about 2 kB each, and what their last work left while there is more for
//! them; and as many pieces of work that wait for one.
//! Not here: what takes too long (`look.rs`), taking back what was not started (`recall.rs`), which work may run (`lanes/`), what becomes of
//! a result (the drivers).

mod look;
mod recall;
#[cfg(test)]
mod tests;

use crate::{
    lanes::Ticket,
    layer::{Watch, catch_panic},
};
use futures::FutureExt;
use slab::Slab;
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{runtime::Handle, task::JoinSet, time::Instant};

/// A worker whose work kept its thread longer lets others of it run before it goes on, the driver above all.
const LONG: Duration = Duration::from_micros(50);

/// How work is run.
pub(crate) trait Execute: Send + Sync + 'static {
    /// What is run.
    type Job: Send + 'static;
    /// What comes of it.
    type Output: Send + 'static;
    /// What a worker keeps from one piece of work to the next, until it has to wait for work.
    type Kept: Default + Send + 'static;

    /// How long an attempt may take.
    fn limit(&self) -> Option<Duration>;

    /// When it was begun, where that was done elsewhere: its time is counted from then.
    fn begun(_: &Self::Job) -> Option<Instant> {
        None
    }

    /// Runs it, as of now. Dropping the future drops the work. What is limited by `watch` may take [`Self::limit`].
    fn execute(
        &self,
        job: Self::Job,
        now: Instant,
        watch: &Watch,
        kept: &mut Self::Kept,
    ) -> impl Future<Output = Self::Output> + Send;

    /// When it ended, where the clock was read then.
    fn ended(_: &Self::Output) -> Option<Instant> {
        None
    }

    /// Whether what is behind it in its lane may be run now.
    fn goes_on(output: &Self::Output) -> bool;
}

/// Work that is over; an `Err` is a panic.
pub(crate) type Ran<R> = (Ticket, Result<R, String>);

/// The workers. Dropping them drops what they run.
pub(crate) struct Workers<X: Execute> {
    tasks: JoinSet<()>,
    shared: Arc<Shared<X>>,
    /// How many may run.
    most: usize,
    /// What was given to them and did not come back, chains as one: at most twice [`Self::most`].
    out: usize,
    /// Of that, what is behind the first of its chain.
    followers: usize,
    /// What was given and is not sent.
    given: Vec<Queued<X::Job>>,
    /// Results that were fetched and not looked at.
    fetched: VecDeque<Done<X::Output>>,
    /// When workers are to be looked at; `None` where none of them can take too long.
    look: Option<Instant>,
}

impl<X: Execute> std::fmt::Debug for Workers<X> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("most", &self.most).field("out", &self.out).finish_non_exhaustive()
    }
}

/// Pieces of work of one lane, in order.
type Chain<J> = VecDeque<(Ticket, J)>;

/// A chain that no worker has begun.
struct Queued<J> {
    ticket: Ticket,
    job: J,
    behind: Chain<J>,
}

/// Work that is over, with what is to be known of its chain.
pub(super) struct Done<R> {
    /// Who ran it.
    worker: usize,
    pub(super) ticket: Ticket,
    pub(super) result: Result<R, String>,
    /// What was behind it and was not started, since this failed; the last of it first.
    pub(super) back: Vec<Ticket>,
    /// Nothing of its chain is left.
    pub(super) last: bool,
}

struct Shared<X: Execute> {
    execute: X,
    /// Threads that can run workers: more are never woken at once.
    threads: usize,
    /// What the times of watches are counted from.
    base: Instant,
    state: Mutex<State<X::Job, X::Output>>,
}

struct State<J, R> {
    queue: VecDeque<Queued<J>>,
    workers: Slab<Worker<J>>,
    /// Workers that wait for work, the last one first.
    idle: Vec<usize>,
    /// How many were woken and did not look yet.
    woken: usize,
    done: VecDeque<Done<R>>,
    /// Who waits for what is done.
    driver: Option<Waker>,
}

struct Worker<J> {
    stance: Stance,
    /// What it runs after what it runs now.
    chain: Chain<J>,
    waker: Option<Waker>,
    watch: Arc<Watch>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stance {
    Idle,
    Woken,
    Busy,
    /// It gave back what it ran, and has not begun what is next.
    Between,
}

impl<X: Execute> Workers<X> {
    /// None yet; at most `most`. Must be called inside of a tokio runtime.
    pub(super) fn new(execute: X, most: usize) -> Self {
        let state = State {
            queue: VecDeque::new(),
            workers: Slab::new(),
            idle: Vec::new(),
            woken: 0,
            done: VecDeque::new(),
            driver: None,
        };
        let threads = Handle::current().metrics().num_workers();
        Self {
            tasks: JoinSet::new(),
            shared: Arc::new(Shared { execute, threads, base: Instant::now(), state: Mutex::new(state) }),
            most,
            out: 0,
            followers: 0,
            given: Vec::new(),
            fetched: VecDeque::new(),
            look: None,
        }
    }

    /// How many run or are about to.
    pub(super) const fn running(&self) -> usize {
        if self.out < self.most { self.out } else { self.most }
    }

    /// Whether more of it is out than workers may run.
    pub(super) const fn is_crowded(&self) -> bool {
        self.out > self.most
    }

    /// Whether more may be given: as much as runs may wait, so that a worker that ends begins the next at once.
    pub(super) const fn has_room(&self) -> bool {
        self.out < self.most.saturating_mul(2)
    }

    /// How many more would run at once.
    pub(super) const fn free(&self) -> usize {
        self.most.saturating_sub(self.out)
    }

    /// Whether something is out that waits for others of its chain.
    pub(super) const fn has_followers(&self) -> bool {
        self.followers > 0
    }

    /// Gives work to a worker, as of the next [`Self::send`].
    pub(super) fn give(&mut self, ticket: Ticket, job: X::Job, behind: Chain<X::Job>) {
        self.out += 1;
        self.followers += behind.len();
        if let Some(end) = self.shared.end_of(&job) {
            self.look = self.look.into_iter().chain([end]).min();
        }
        self.given.push(Queued { ticket, job, behind });
    }

    /// Sends what was given.
    pub(super) fn send(&mut self) {
        if self.given.is_empty() {
            return;
        }
        let mut wake = Vec::new();
        let mut born = Vec::new();
        {
            let mut state = self.shared.state();
            state.queue.extend(self.given.drain(..));
            while state.idle.len() + state.woken < state.queue.len() && state.workers.len() < self.most {
                state.woken += 1;
                let watch = Arc::new(Watch::new(self.shared.base));
                born.push((state.workers.insert(Worker::new(watch.clone())), watch));
            }
            while let Some(waker) = state.call(self.shared.threads) {
                wake.push(waker);
            }
        }
        for (worker, watch) in born {
            self.tasks.spawn(work(self.shared.clone(), worker, watch));
        }
        wake.into_iter().for_each(Waker::wake);
    }

    /// Has all workers polled that run something.
    pub(super) fn poll_all(&self) {
        let wake: Vec<Waker> = {
            let state = self.shared.state();
            let busy = state.workers.iter().filter(|(_, worker)| worker.stance == Stance::Busy);
            busy.filter_map(|(_, worker)| worker.waker.clone()).collect()
        };
        wake.into_iter().for_each(Waker::wake);
    }

    /// How many results there are to be taken, and how much waits for a worker.
    pub(super) fn over_and_waiting(&self) -> (usize, usize) {
        let state = self.shared.state();
        (state.done.len() + self.fetched.len(), state.queue.len())
    }

    /// Waits for a result; for ever where nothing runs. Cancel safe.
    pub(super) async fn finished(&mut self) -> Done<X::Output> {
        poll_fn(|cx| match self.try_finished(Some(cx)) {
            Some(done) => Poll::Ready(done),
            None => Poll::Pending,
        })
        .await
    }

    /// The next result, if there is one; where there is none, `cx` is woken by the next.
    pub(super) fn try_finished(&mut self, cx: Option<&Context<'_>>) -> Option<Done<X::Output>> {
        if self.fetched.is_empty() {
            let mut state = self.shared.state();
            std::mem::swap(&mut self.fetched, &mut state.done);
            if self.fetched.is_empty()
                && let Some(cx) = cx
                && state.driver.as_ref().is_none_or(|known| !known.will_wake(cx.waker()))
            {
                state.driver = Some(cx.waker().clone());
            }
        }
        let done = self.fetched.pop_front()?;
        if done.last {
            self.out = self.out.saturating_sub(1);
        } else {
            self.followers = self.followers.saturating_sub(1);
        }
        self.followers = self.followers.saturating_sub(done.back.len());
        Some(done)
    }
}

impl<X: Execute> Shared<X> {
    // No call panics between two changes that belong together.
    fn state(&self) -> MutexGuard<'_, State<X::Job, X::Output>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what is over.
    fn give_back(&self, me: usize, over: Ran<X::Output>) {
        let (driver, dropped) = {
            let mut state = self.state();
            let dropped = state.give_back(me, over, X::goes_on);
            if let Some(worker) = state.workers.get_mut(me) {
                worker.stance = Stance::Between;
            }
            (state.driver.take(), dropped)
        };
        // Outside of the lock: what is dropped or woken here may be anything.
        drop(dropped);
        driver.into_iter().for_each(Waker::wake);
    }

    /// What a worker does next, once it gave back what is over.
    fn poll_next(
        &self,
        me: usize,
        over: &mut Option<Ran<X::Output>>,
        cx: &Context<'_>,
    ) -> Poll<(Ticket, X::Job)> {
        let (next, driver, dropped, other);
        {
            let mut state = self.state();
            state.looks(me, cx);
            dropped = over.take().map(|over| state.give_back(me, over, X::goes_on));
            driver = dropped.as_ref().and_then(|_| state.driver.take());
            next = state.take(me).map_or(Poll::Pending, Poll::Ready);
            match &next {
                Poll::Ready((_, job)) => {
                    // Known to who looks from now on, not only once it is polled.
                    if let (Some(end), Some(worker)) = (self.end_of(job), state.workers.get(me)) {
                        worker.watch.set(end);
                    }
                }
                Poll::Pending => state.rest(me),
            }
            other = if next.is_ready() { state.call(self.threads) } else { None };
        }
        drop(dropped);
        driver.into_iter().chain(other).for_each(Waker::wake);
        next
    }
}

impl<J, R> State<J, R> {
    /// A worker that was woken, or was not, looks for work.
    fn looks(&mut self, me: usize, cx: &Context<'_>) {
        let Some(worker) = self.workers.get_mut(me) else { return };
        if worker.waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            worker.waker = Some(cx.waker().clone());
        }
        match std::mem::replace(&mut worker.stance, Stance::Busy) {
            Stance::Woken => self.woken = self.woken.saturating_sub(1),
            Stance::Idle => self.idle.retain(|idle| *idle != me),
            Stance::Busy | Stance::Between => {}
        }
    }

    /// Takes a result, and the chain behind it back where it must not go on; answers with the work to be dropped.
    fn give_back(&mut self, me: usize, (ticket, result): Ran<R>, goes_on: fn(&R) -> bool) -> Vec<J> {
        let Some(worker) = self.workers.get_mut(me) else { return Vec::new() };
        let (mut back, mut dropped) = (Vec::new(), Vec::new());
        if !worker.chain.is_empty() && !result.as_ref().is_ok_and(goes_on) {
            (back, dropped) = worker.chain.drain(..).rev().unzip();
        }
        self.done.push_back(Done { worker: me, ticket, result, back, last: worker.chain.is_empty() });
        dropped
    }

    /// What a worker does next: the rest of its chain, or the first of the queue.
    fn take(&mut self, me: usize) -> Option<(Ticket, J)> {
        let worker = self.workers.get_mut(me)?;
        worker.chain.pop_front().or_else(|| {
            let Queued { ticket, job, behind } = self.queue.pop_front()?;
            worker.chain = behind;
            Some((ticket, job))
        })
    }

    /// A worker without work waits.
    fn rest(&mut self, me: usize) {
        if let Some(worker) = self.workers.get_mut(me) {
            worker.stance = Stance::Idle;
            self.idle.push(me);
        }
    }

    /// Another worker to be woken, where there is work for it and not enough of them are on their way.
    fn call(&mut self, threads: usize) -> Option<Waker> {
        if self.woken >= threads.min(self.queue.len()) {
            return None;
        }
        let worker = self.workers.get_mut(self.idle.pop()?)?;
        worker.stance = Stance::Woken;
        self.woken += 1;
        worker.waker.clone()
    }
}

impl<J> Worker<J> {
    /// One that is about to look for work.
    const fn new(watch: Arc<Watch>) -> Self {
        Self { stance: Stance::Woken, chain: Chain::new(), waker: None, watch }
    }
}

/// The life of a worker.
async fn work<X: Execute>(shared: Arc<Shared<X>>, me: usize, watch: Arc<Watch>) {
    let mut over = None;
    let mut kept = X::Kept::default();
    loop {
        let next = poll_fn(|cx| {
            let next = shared.poll_next(me, &mut over, cx);
            if next.is_pending() {
                kept = X::Kept::default();
            }
            next
        });
        let (ticket, job) = next.await;
        let started = Instant::now();
        let mut resumed = None;
        let result = {
            // Nothing should get past the layers of the job; if it does, its key must not be blocked for ever.
            let run = pin!(shared.execute.execute(job, started, &watch, &mut kept));
            let mut run = catch_panic(run);
            poll_fn(|cx| {
                resumed = Some(if resumed.is_none() { started } else { Instant::now() });
                run.poll_unpin(cx)
            })
            .await
        };
        let ended = result.as_ref().ok().and_then(X::ended);
        let now = ended.unwrap_or_else(Instant::now);
        // What it waited for is no time of the thread.
        if now.duration_since(resumed.unwrap_or(started)) < LONG {
            over = Some((ticket, result));
            tokio::task::consume_budget().await;
        } else {
            shared.give_back(me, (ticket, result));
            tokio::task::yield_now().await;
        }
    }
}
