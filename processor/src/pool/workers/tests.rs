//! Attempts that take too long or are stopped, and how many workers there are. Not here: order and chains (`worker_pool.rs`, the contract's suites).

use super::*;
use crate::{
    lanes::Lanes,
    layer::{Cut, Limits, Stop},
};

const LIMIT: Duration = Duration::from_secs(10);

/// Sleeps for so long, and answers how that ended and when.
struct Sleeps {
    stop: Stop,
    start: Instant,
}

impl Execute for Sleeps {
    type Job = Duration;
    type Output = (Result<(), Cut>, Duration);
    type Kept = ();

    fn limit(&self) -> Option<Duration> {
        Some(LIMIT)
    }

    async fn execute(&self, job: Duration, now: Instant, watch: &Watch, (): &mut ()) -> Self::Output {
        let limits = Limits { stop: &self.stop, watch, timeout: Some(LIMIT), started: now, now };
        let ended = limits.run(|| Box::pin(tokio::time::sleep(job)), || ()).await;
        (ended, self.start.elapsed())
    }

    fn goes_on(_: &Self::Output) -> bool {
        true
    }
}

struct Pool {
    workers: Workers<Sleeps>,
    lanes: Lanes<(), ()>,
    start: Instant,
}

impl Pool {
    fn new(stop: &Stop) -> Self {
        let start = Instant::now();
        let workers = Workers::new(Sleeps { stop: stop.clone(), start }, 8);
        Self { workers, lanes: Lanes::new(), start }
    }

    fn give(&mut self, job: Duration) {
        self.lanes.push(None, ());
        let ticket = self.lanes.next(Instant::now()).unwrap();
        self.workers.give(ticket, job, Chain::new());
        self.workers.send();
    }

    /// What is over next, driven as drivers do.
    async fn next(&mut self) -> (Result<(), Cut>, Duration) {
        loop {
            self.workers.watch(Instant::now());
            let look = self.workers.next_watch().unwrap();
            tokio::select! {
                biased;
                done = self.workers.finished() => return done.result.unwrap(),
                () = tokio::time::sleep_until(look) => {}
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_over_exactly_at_its_time_whenever_it_began() {
    let mut pool = Pool::new(&Stop::default());
    let second = Duration::from_secs;
    pool.give(second(3));
    pool.give(second(60));
    assert_eq!(pool.next().await, (Ok(()), second(3)));
    // One begins where another ended, and one that ends in time keeps nobody.
    pool.give(second(60));
    pool.give(second(9));
    assert_eq!(pool.next().await, (Err(Cut::Elapsed(LIMIT)), second(10)));
    assert_eq!(pool.next().await, (Ok(()), second(12)));
    assert_eq!(pool.next().await, (Err(Cut::Elapsed(LIMIT)), second(13)));
    // Where nothing runs, nothing is looked at; what comes later has its whole time.
    pool.workers.watch(Instant::now());
    assert_eq!(pool.workers.next_watch(), None);
    tokio::time::sleep(second(100)).await;
    pool.give(second(60));
    assert_eq!(pool.next().await, (Err(Cut::Elapsed(LIMIT)), second(123)));
}

#[tokio::test(start_paused = true)]
async fn what_is_stopped_ends_once_all_is_polled_and_nothing_is_begun_after_it() {
    let stop = Stop::default();
    let mut pool = Pool::new(&stop);
    for _ in 0..3 {
        pool.give(LIMIT / 2);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.stop();
    pool.workers.poll_all();
    pool.give(Duration::ZERO);
    for _ in 0..4 {
        assert_eq!(pool.next().await, (Err(Cut::Stopped), Duration::from_secs(1)));
    }
    assert!(pool.start.elapsed() < Duration::from_secs(2) && pool.workers.running() == 0);
}

#[tokio::test]
async fn as_many_workers_are_kept_as_were_needed_at_once() {
    let mut pool = Pool::new(&Stop::default());
    for _ in 0..3 {
        for _ in 0..8 {
            pool.give(Duration::from_millis(1));
        }
        for _ in 0..8 {
            assert_eq!(pool.next().await.0, Ok(()));
        }
        assert_eq!((pool.workers.tasks.len(), pool.workers.running()), (8, 0));
    }
}
