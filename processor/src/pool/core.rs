//! Workers over lanes: at most so many at a time, and of a key one at a time.
//!
//! Not here: the tasks that run it (`workers/`), what becomes of a result (the processor's `runtime/`, the pool's `worker_pool.rs`).

use super::workers::{Done, Execute, Ran, Workers};
use crate::{
    lanes::{Finished, Lanes, Ticket},
    metrics::{Level, PoolMetrics},
};
use std::{collections::VecDeque, hash::Hash};
use tokio::time::Instant;

/// The most of one lane that is given to a worker at once.
const CHAIN: usize = 16;

/// Work in lanes, and the tasks that run it. Dropping it drops all of them.
#[derive(Debug)]
pub(crate) struct Core<K, T, X: Execute> {
    lanes: Lanes<K, T>,
    workers: Workers<X>,
    queue: Level,
    busy: Level,
    _workers: Level,
}

impl<K: Hash + Eq + Clone, T, X: Execute> Core<K, T, X> {
    /// Must be called inside of a tokio runtime.
    pub(crate) fn new(execute: X, concurrency: usize, metrics: &PoolMetrics) -> Self {
        let mut workers = Level::new(metrics.workers.clone());
        workers.set(concurrency);
        Self {
            lanes: Lanes::new(),
            workers: Workers::new(execute, concurrency),
            queue: Level::new(metrics.queue.clone()),
            busy: Level::new(metrics.busy.clone()),
            _workers: workers,
        }
    }

    /// Takes work in.
    pub(crate) fn push(&mut self, key: Option<K>, value: T) {
        self.lanes.push(key, value);
    }

    /// Takes in work that was begun already, of a key that is not open. To be given to a worker, to be finished or to be tried again.
    pub(crate) fn push_out(&mut self, key: Option<K>, value: T) -> Ticket {
        self.lanes.push_out(key, value)
    }

    /// The next that may run, where there is room for it.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Ticket> {
        if self.has_room() { self.lanes.next(now) } else { None }
    }

    /// Whether more may be given to the workers, to be run or to wait for the next of them that ends.
    pub(crate) const fn has_room(&self) -> bool {
        self.workers.has_room()
    }

    /// Whether a worker is free: one more may run now.
    pub(crate) const fn is_free(&self) -> bool {
        self.workers.free() > 0
    }

    /// Whether something waits for a worker.
    pub(crate) const fn is_crowded(&self) -> bool {
        self.workers.is_crowded()
    }

    /// How many results there are to be taken, and how much waits for a worker.
    pub(crate) fn over_and_waiting(&self) -> (usize, usize) {
        self.workers.over_and_waiting()
    }

    /// Gives it to a worker, once it is sent. Work behind it in its lane goes with it, as far as `prepare` makes jobs of it and while there
    /// are workers for all other lanes that are ready, so that nobody's turn comes later.
    pub(crate) fn run(
        &mut self,
        ticket: Ticket,
        job: X::Job,
        mut prepare: impl FnMut(&mut T) -> Option<X::Job>,
    ) {
        let mut behind = VecDeque::new();
        while behind.len() + 1 < CHAIN && self.lanes.ready() + 1 < self.workers.free() {
            let Some(follower) = self.lanes.follow(&ticket) else { break };
            let Some(job) = self.lanes.get_mut(&follower).and_then(&mut prepare) else {
                self.lanes.take_back(follower);
                break;
            };
            behind.push_back((follower, job));
        }
        self.workers.give(ticket, job, behind);
    }

    /// Sends what was given to the workers. Where others wait for one, nothing more is run out of turn.
    pub(crate) fn send(&mut self) {
        let others_wait = self.workers.is_crowded() || (!self.is_free() && self.lanes.ready() > 0);
        if others_wait && self.workers.has_followers() {
            let followers = self.workers.recall_followers();
            self.take_back(followers);
        }
        self.workers.send();
    }

    /// Waits for the next result; for ever where nothing runs. An `Err` is a panic. Cancel safe.
    pub(crate) async fn finished(&mut self) -> Ran<X::Output> {
        let done = self.workers.finished().await;
        self.over(done)
    }

    /// The next result, if there is one.
    pub(crate) fn try_finished(&mut self) -> Option<Ran<X::Output>> {
        let done = self.workers.try_finished(None)?;
        Some(self.over(done))
    }

    fn over(&mut self, done: Done<X::Output>) -> Ran<X::Output> {
        self.take_back(done.back);
        (done.ticket, done.result)
    }

    fn take_back(&mut self, tickets: Vec<Ticket>) {
        for ticket in tickets {
            self.lanes.take_back(ticket);
        }
    }

    /// Starts nothing more of what was sent.
    pub(crate) fn hold(&mut self) {
        let back = self.workers.recall();
        self.take_back(back);
    }

    /// Ends what takes too long. To be called after work was given, and when [`Self::next_watch`] says so.
    pub(crate) fn watch(&mut self, now: Instant) {
        self.workers.watch(now);
    }

    /// When something may take too long next.
    pub(crate) const fn next_watch(&self) -> Option<Instant> {
        self.workers.next_watch()
    }

    /// Has all that runs polled: some of it was stopped.
    pub(crate) fn poll_all(&self) {
        self.workers.poll_all();
    }

    /// How many run.
    pub(crate) const fn running(&self) -> usize {
        self.workers.running()
    }

    /// The lanes, to look at.
    pub(crate) const fn lanes(&self) -> &Lanes<K, T> {
        &self.lanes
    }

    /// The work that is out.
    pub(crate) fn get_mut(&mut self, ticket: &Ticket) -> Option<&mut T> {
        self.lanes.get_mut(ticket)
    }

    /// Ends work that was out.
    pub(crate) fn finish(&mut self, ticket: Ticket) -> Option<Finished<T>> {
        self.lanes.finish(ticket)
    }

    /// Lets work that was out run again at `due`; gives it back where it was forgotten.
    pub(crate) fn retry(&mut self, ticket: Ticket, due: Instant) -> Option<T> {
        self.lanes.retry(ticket, due)
    }

    /// Takes away all that `which` names and that was not started; with `late`, results of what was do not count any more.
    pub(crate) fn forget(&mut self, late: bool, which: impl FnMut(&T) -> bool) -> Vec<T> {
        self.hold();
        self.lanes.forget(late, which)
    }

    /// Brings the gauges up to date.
    pub(crate) fn show(&mut self) {
        self.queue.set(self.lanes.len().saturating_sub(self.workers.running()));
        self.busy.set(self.workers.running());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use futures::FutureExt;

    struct Fails;

    impl Execute for Fails {
        type Job = ();
        type Output = ();
        type Kept = ();

        fn limit(&self) -> Option<std::time::Duration> {
            None
        }

        async fn execute(&self, (): (), _: Instant, _: &crate::layer::Watch, (): &mut ()) {}

        fn goes_on((): &()) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn what_is_behind_a_failure_is_forgotten_though_the_failure_was_not_looked_at() {
        let metrics = Metrics::unregistered().unwrap();
        let mut core = Core::new(Fails, 4, &metrics.of_pool("test"));
        let now = Instant::now();
        core.push(Some("key"), 1);
        core.push(Some("key"), 2);
        let first = core.next(now).unwrap();
        core.run(first, (), |_| Some(()));
        core.send();
        // The worker runs the first and gives both back.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(core.forget(false, |_| true), [2]);
        let (first, _) = core.try_finished().unwrap();
        assert_eq!(core.finish(first), Some(Finished::Current(1)));
        assert!(core.next(now).is_none() && core.is_free());
        assert_eq!(core.running(), 0);
    }

    struct Begun;

    impl Execute for Begun {
        /// When it was begun.
        type Job = Option<Instant>;
        type Output = ();
        type Kept = ();

        fn limit(&self) -> Option<std::time::Duration> {
            Some(std::time::Duration::from_secs(1))
        }

        fn begun(job: &Self::Job) -> Option<Instant> {
            *job
        }

        async fn execute(&self, _: Self::Job, _: Instant, _: &crate::layer::Watch, (): &mut ()) {}

        fn goes_on((): &()) -> bool {
            true
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_begun_is_not_taken_back_though_no_worker_has_it_yet() {
        let metrics = Metrics::unregistered().unwrap();
        for sent in [false, true] {
            let mut core = Core::new(Begun, 4, &metrics.of_pool("test"));
            let now = Instant::now();
            let begun = core.push_out(Some("key"), 1);
            core.push(Some("key"), 2);
            core.push(Some("other"), 3);
            // With what is behind it, and beside it one that was not begun.
            core.run(begun, Some(now), |_| Some(None));
            let other = core.next(now).unwrap();
            core.run(other, None, |_| Some(None));
            if sent {
                core.send();
            }
            assert_eq!(core.next_watch(), Some(now + std::time::Duration::from_secs(1)));
            let mut taken = core.forget(false, |_| true);
            taken.sort_unstable();
            assert_eq!((taken, core.running()), (vec![2, 3], 1), "sent: {sent}");
            core.send();
            let (done, result) = core.finished().await;
            assert_eq!((core.finish(done), result), (Some(Finished::Current(1)), Ok(())));
            assert_eq!((core.lanes().len(), core.running()), (0, 0));
        }
    }

    struct Sleeps;

    impl Execute for Sleeps {
        type Job = ();
        type Output = ();
        type Kept = ();

        fn limit(&self) -> Option<std::time::Duration> {
            None
        }

        async fn execute(&self, (): (), _: Instant, _: &crate::layer::Watch, (): &mut ()) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            // Then it keeps its thread for a while.
            assert!(tokio::time::advance(std::time::Duration::from_millis(1)).now_or_never().is_none());
        }

        fn goes_on((): &()) -> bool {
            true
        }
    }

    /// A core of four workers, one of which has a chain of three, gave the first of it back and yields before it begins the second.
    async fn between_two(metrics: &Metrics) -> Core<&'static str, u32, Sleeps> {
        let mut core = Core::new(Sleeps, 4, &metrics.of_pool("test"));
        for number in [1, 2, 3] {
            core.push(Some("key"), number);
        }
        let first = core.next(Instant::now()).unwrap();
        core.run(first, (), |_| Some(()));
        core.send();
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        // The worker has its turn.
        tokio::task::yield_now().await;
        core
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_back_between_two_of_a_chain_leaves_its_worker_free() {
        let metrics = Metrics::unregistered().unwrap();
        for looked_at in [true, false] {
            let mut core = between_two(&metrics).await;
            let mut taken = Vec::new();
            if !looked_at {
                taken = core.forget(false, |_| true);
                // It is busy until its result is looked at.
                assert_eq!(core.running(), 1);
            }
            let (first, _) = core.finished().await;
            assert_eq!(core.finish(first), Some(Finished::Current(1)));
            if looked_at {
                taken = core.forget(false, |_| true);
            }
            assert_eq!(taken, [2, 3], "looked at: {looked_at}");
            assert_eq!((core.lanes().len(), core.running(), core.workers.has_followers()), (0, 0, false));
            // The worker goes on with others.
            core.push(None, 4);
            let next = core.next(Instant::now()).unwrap();
            core.run(next, (), |_| Some(()));
            core.send();
            let (last, _) = core.finished().await;
            assert_eq!((core.finish(last), core.running()), (Some(Finished::Current(4)), 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_worker_is_about_to_begin_is_not_taken_back_for_others_to_have_their_turn() {
        let metrics = Metrics::unregistered().unwrap();
        let mut core = between_two(&metrics).await;
        let (first, _) = core.finished().await;
        assert_eq!(core.finish(first), Some(Finished::Current(1)));
        for number in [10, 11, 12, 13] {
            core.push(None, number);
        }
        while let Some(next) = core.next(Instant::now()) {
            core.run(next, (), |_| None);
        }
        core.send();
        // One runs the second of the chain, three the others; one of the others waits for a worker, and the third for the second.
        assert_eq!((core.running(), core.workers.has_followers(), core.lanes().ready()), (4, false, 0));
        for left in [4, 3, 2, 1, 0] {
            let (done, _) = core.finished().await;
            let _ = core.finish(done);
            assert_eq!(core.running(), left);
        }
        assert_eq!((core.lanes().len(), core.lanes().ready()), (1, 1));
    }

    /// Notes what it begins, and sleeps.
    #[derive(Clone, Default)]
    struct Notes(std::sync::Arc<std::sync::Mutex<Vec<u32>>>);

    impl Notes {
        fn all(&self) -> Vec<u32> {
            self.0.lock().unwrap().clone()
        }
    }

    impl Execute for Notes {
        type Job = u32;
        type Output = ();
        type Kept = ();

        fn limit(&self) -> Option<std::time::Duration> {
            None
        }

        async fn execute(&self, job: u32, _: Instant, _: &crate::layer::Watch, (): &mut ()) {
            self.0.lock().unwrap().push(job);
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }

        fn goes_on((): &()) -> bool {
            true
        }
    }

    /// Gives all for which there is room.
    fn give_all(core: &mut Core<u32, u32, Notes>) {
        while let Some(next) = core.next(Instant::now()) {
            let number = *core.get_mut(&next).unwrap();
            core.run(next, number, |number| Some(*number));
        }
        core.send();
    }

    /// A core of two workers with six pieces of work, of which as many as it takes were given.
    async fn crowded(notes: &Notes, metrics: &Metrics) -> Core<u32, u32, Notes> {
        let mut core = Core::new(notes.clone(), 2, &metrics.of_pool("test"));
        for number in 1..=6 {
            core.push(Some(number), number);
        }
        give_all(&mut core);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        core
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_ends_begins_what_waits_at_once_and_no_more_run_than_may() {
        let (notes, metrics) = (Notes::default(), Metrics::unregistered().unwrap());
        let mut core = crowded(&notes, &metrics).await;
        // Two run, and as many wait.
        assert_eq!((notes.all(), core.running(), core.lanes().ready()), (vec![1, 2], 2, 2));
        assert!(!core.is_free() && !core.has_room());
        // Nobody looks at what ends.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        assert_eq!(notes.all(), [1, 2, 3, 4]);
        for left in [2, 2, 1, 0] {
            let (done, _) = core.finished().await;
            let _ = core.finish(done);
            assert_eq!(core.running(), left);
        }
        assert!(core.is_free());
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_a_worker_is_taken_back_and_begun_in_its_order() {
        let (notes, metrics) = (Notes::default(), Metrics::unregistered().unwrap());
        let mut core = crowded(&notes, &metrics).await;
        assert_eq!(core.forget(false, |number| *number == 3), [3]);
        assert_eq!((core.running(), core.lanes().ready()), (2, 3));
        // Until they are given again, nothing is begun.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        assert_eq!(notes.all(), [1, 2]);
        while core.lanes().len() > 0 {
            give_all(&mut core);
            let (done, _) = core.finished().await;
            let _ = core.finish(done);
        }
        assert_eq!(notes.all(), [1, 2, 4, 5, 6]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_behind_another_of_its_key_is_not_run_before_those_that_wait() {
        let (notes, metrics) = (Notes::default(), Metrics::unregistered().unwrap());
        let mut core = Core::new(notes.clone(), 3, &metrics.of_pool("test"));
        for number in [1, 2, 3] {
            core.push(Some(0), number);
        }
        give_all(&mut core);
        assert!(core.workers.has_followers());
        for number in [10, 11, 12] {
            core.push(Some(number), number);
        }
        give_all(&mut core);
        assert!(!core.workers.has_followers());
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        assert_eq!(notes.all(), [1, 10, 11, 12]);
    }
}
