//! The tasks that run work: each takes what is next, runs it, gives the result back and goes on.
//!
//! A task of its own for each piece of work cost more than small work itself. Here tasks live on and share one queue, and what wakes them is
//! paced: a worker that finds more than it takes wakes the next one, so that a hundred pieces that end at once cost a few wakes, and
//! a hundred that wait are soon out on a hundred workers. Work of one lane may come as a chain, which one worker runs in order.
//!
//! What takes too long is found by looking at all workers when the earliest of their times is over, so that no attempt needs a timer of its own:
//! what begins later cannot be over before the limit has passed once more.
//!
//! Bounds: at most as many workers as were allowed, which are kept: about 2 kB each.
//! Not here: which work may run (`lanes/`), what becomes of a result (the drivers).

#[cfg(test)]
mod tests;

use crate::{
    lanes::Ticket,
    layer::{Seen, Watch, catch_panic},
};
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

/// A worker whose work took longer lets others of its thread run before it goes on, the driver above all.
const LONG: Duration = Duration::from_micros(50);
/// Workers are not looked at more often, however their times lie.
const LOOK: Duration = Duration::from_millis(1);

/// How work is run.
pub(crate) trait Execute: Send + Sync + 'static {
    /// What is run.
    type Job: Send + 'static;
    /// What comes of it.
    type Output: Send + 'static;

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
    ) -> impl Future<Output = Self::Output> + Send;

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
    /// What was given to them and did not come back, chains as one.
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
        self.out
    }

    /// How many more may run.
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

    /// Tells what takes too long, where that may be.
    pub(super) fn watch(&mut self, now: Instant) {
        let Some(limit) = self.shared.execute.limit() else { return };
        if self.out == 0 {
            self.look = None;
            return;
        }
        // What began at or after `now` is over then at the earliest.
        let later = now.checked_add(limit);
        if let Some(look) = self.look
            && now >= look
        {
            let (first, over) = self.shared.look(now);
            let next = later.into_iter().chain(first).min();
            self.look = next.map(|next| next.max(now + LOOK));
            over.into_iter().for_each(Waker::wake);
        } else if self.look.is_none() {
            self.look = later;
        }
    }

    /// When [`Self::watch`] has something to do next.
    pub(super) const fn next_watch(&self) -> Option<Instant> {
        self.look
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

    /// Takes back everything that was not started, the last of each chain first. What was begun elsewhere was started.
    pub(super) fn recall(&mut self) -> Vec<Ticket> {
        let mut back = self.recall_followers();
        let mut queued = Vec::new();
        self.given = keep_begun::<X, _>(std::mem::take(&mut self.given), &mut queued);
        // The jobs are dropped outside of the lock.
        let mut next = Chain::new();
        {
            let mut state = self.shared.state();
            let State { queue, workers, done, .. } = &mut *state;
            *queue = keep_begun::<X, _>(std::mem::take(queue), &mut queued);
            for (me, worker) in workers.iter_mut().filter(|(_, worker)| worker.stance == Stance::Between) {
                let Some(first) = worker.chain.pop_front() else { continue };
                next.push_back(first);
                // What it gave back is the last of its chain now: where nobody has looked at that, it frees the worker once somebody does.
                let mut unread = done.iter_mut().rev().chain(self.fetched.iter_mut().rev());
                if let Some(before) = unread.find(|done| done.worker == me) {
                    before.last = true;
                    self.followers = self.followers.saturating_sub(1);
                } else {
                    self.out = self.out.saturating_sub(1);
                }
            }
        }
        back.extend(next.into_iter().map(|(ticket, _)| ticket));
        self.out = self.out.saturating_sub(queued.len());
        back.extend(queued.into_iter().map(|queued| queued.ticket));
        back
    }

    /// Takes back what was not started and is behind the first of its chain, the last of each chain first. What a worker is just about to begin
    /// is a first.
    pub(super) fn recall_followers(&mut self) -> Vec<Ticket> {
        let mut chains: Vec<Chain<X::Job>> = Vec::new();
        // Also what came back behind a failure that nobody has looked at yet.
        let mut back: Vec<Ticket> = self.fetched.iter_mut().flat_map(|done| done.back.drain(..)).collect();
        chains.extend(self.given.iter_mut().map(|queued| std::mem::take(&mut queued.behind)));
        {
            let mut state = self.shared.state();
            back.extend(state.done.iter_mut().flat_map(|done| done.back.drain(..)));
            chains.extend(state.queue.iter_mut().map(|queued| std::mem::take(&mut queued.behind)));
            chains.extend(state.workers.iter_mut().map(|(_, worker)| match worker.stance {
                Stance::Between if !worker.chain.is_empty() => worker.chain.split_off(1),
                _ => std::mem::take(&mut worker.chain),
            }));
        }
        // The jobs are dropped outside of the lock.
        back.extend(chains.into_iter().flat_map(|chain| chain.into_iter().rev()).map(|(ticket, _)| ticket));
        self.followers = self.followers.saturating_sub(back.len());
        back
    }
}

/// Moves what was not begun to `taken`, and answers with the rest.
fn keep_begun<X: Execute, Q>(all: Q, taken: &mut Vec<Queued<X::Job>>) -> Q
where
    Q: IntoIterator<Item = Queued<X::Job>> + FromIterator<Queued<X::Job>>,
{
    let (begun, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|queued| X::begun(&queued.job).is_some());
    taken.extend(rest);
    begun.into_iter().collect()
}

impl<X: Execute> Shared<X> {
    // No call panics between two changes that belong together.
    fn state(&self) -> MutexGuard<'_, State<X::Job, X::Output>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When work that was begun elsewhere has to be over, where it has to.
    fn end_of(&self, job: &X::Job) -> Option<Instant> {
        X::begun(job)?.checked_add(self.execute.limit()?)
    }

    /// Tells workers that what they run takes too long; answers the earliest time of the others, and who is to be polled.
    fn look(&self, now: Instant) -> (Option<Instant>, Vec<Waker>) {
        let mut over = Vec::new();
        let state = self.state();
        // What was begun and waits for its worker has to be over sooner than what begins now.
        let mut first = state.queue.iter().filter_map(|queued| self.end_of(&queued.job)).min();
        for (_, worker) in &state.workers {
            match worker.watch.look(now) {
                Seen::Nothing => {}
                Seen::Until(end) => first = first.into_iter().chain([end]).min(),
                Seen::Over => over.extend(worker.waker.clone()),
            }
        }
        (first, over)
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
    let mut since = None;
    loop {
        let next = poll_fn(|cx| {
            let next = shared.poll_next(me, &mut over, cx);
            if next.is_pending() {
                since = None;
            }
            next
        });
        let (ticket, job) = next.await;
        let started = since.unwrap_or_else(Instant::now);
        // Nothing should get past the layers of the job; if it does, its key must not be blocked for ever.
        let result = catch_panic(pin!(shared.execute.execute(job, started, &watch))).await;
        let now = Instant::now();
        since = Some(now);
        if now.duration_since(started) < LONG {
            over = Some((ticket, result));
            tokio::task::consume_budget().await;
        } else {
            shared.give_back(me, (ticket, result));
            tokio::task::yield_now().await;
            since = None;
        }
    }
}
