//! The stand-alone pool, under a paused clock.
//!
//! Not here: its lanes against a model (`src/lanes/tests.rs`).
#![expect(clippy::unwrap_used, reason = "a test")]

use ropeway_processor::{
    BoxError, DrainReport, FailureClass, JobFailed, Metrics, PoolSettings, RetryPolicy, SubmitError,
    WorkerPool,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

const SECOND: Duration = Duration::from_secs(1);

type Log<T> = Arc<Mutex<Vec<T>>>;

fn settings() -> PoolSettings {
    let retry = RetryPolicy { max_attempts: 3, jitter: false, ..RetryPolicy::default() };
    PoolSettings { concurrency: 4, buffer: 8, retry, seed: Some(1), ..PoolSettings::default() }
}

fn pool(settings: PoolSettings) -> WorkerPool<u32> {
    WorkerPool::builder("test").settings(settings).start().unwrap()
}

#[tokio::test(start_paused = true)]
async fn jobs_of_a_key_run_in_order_and_keys_beside_each_other() {
    let pool = pool(PoolSettings { buffer: 1000, ..settings() });
    let log: Log<(u32, u32)> = Log::default();
    for n in 0..200u32 {
        let log = log.clone();
        let job = move |_| {
            let log = log.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(u64::from(200 - n))).await;
                log.lock().unwrap().push((n % 5, n));
                Ok::<_, BoxError>(())
            }
        };
        pool.submit(n % 5, job).await.unwrap();
    }
    let report = pool.drain(SECOND * 60).await;
    assert_eq!(report, DrainReport { finished: 200, failed: 0, dropped: 0 });
    let log = log.lock().unwrap();
    for key in 0..5 {
        assert!(log.iter().filter(|(k, _)| *k == key).is_sorted());
    }
    assert!(!log.is_sorted_by_key(|(_, n)| *n), "keys overtake each other");
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_makes_submit_wait_and_try_submit_refuse() {
    let pool = Arc::new(pool(settings()));
    let slow = |_| async {
        tokio::time::sleep(SECOND).await;
        Ok::<_, BoxError>(())
    };
    for n in 0..8 {
        pool.try_submit(n, slow).unwrap();
    }
    assert_eq!(pool.try_submit(9, slow), Err(SubmitError::Full));
    let started = tokio::time::Instant::now();
    pool.submit(9, slow).await.unwrap();
    assert!(started.elapsed() >= SECOND);
    let dropped = tokio::time::timeout(Duration::from_millis(1), async {
        for n in 0..20 {
            pool.submit(n, slow).await.unwrap();
        }
    });
    assert!(dropped.await.is_err(), "the bound holds: running and waiting ones together");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!((pool.snapshot().in_pool, pool.snapshot().running), (8, 4));
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_by_policy_told_to_the_hook_and_their_key_waits() {
    let told: Log<JobFailed<u32>> = Log::default();
    let hook = told.clone();
    let pool = WorkerPool::<u32>::builder("test")
        .settings(settings())
        .on_error(move |failed| {
            hook.lock().unwrap().push(failed.clone());
            assert!(failed.attempt != 2, "a hook that panics harms nobody");
        })
        .start()
        .unwrap();
    let log: Log<String> = Log::default();
    let note = |what: &'static str, fails: u32| {
        let log = log.clone();
        move |attempt: ropeway_processor::Attempt| {
            log.lock().unwrap().push(format!("{what}/{}", attempt.number));
            async move { if attempt.number <= fails { Err(BoxError::from("no")) } else { Ok(()) } }
        }
    };
    pool.submit(1, note("flaky", 1)).await.unwrap();
    pool.submit(1, note("behind", 0)).await.unwrap();
    pool.submit(2, note("hopeless", 99)).await.unwrap();
    pool.submit(None, |_| async { panic!("boom") as Result<(), BoxError> }).await.unwrap();
    let report = pool.drain(SECOND * 60).await;
    assert_eq!(report, DrainReport { finished: 2, failed: 2, dropped: 0 });
    let log = log.lock().unwrap();
    let of_one: Vec<&String> = log.iter().filter(|entry| !entry.starts_with("hopeless")).collect();
    assert_eq!(of_one, ["flaky/1", "flaky/2", "behind/1"]);
    let told = told.lock().unwrap();
    let hopeless: Vec<_> =
        told.iter().filter(|failed| failed.key == Some(2)).map(|failed| failed.retry_in).collect();
    assert_eq!(hopeless, [Some(Duration::from_millis(100)), Some(Duration::from_millis(200)), None]);
    let panicked = told.iter().find(|failed| failed.key.is_none()).unwrap();
    assert_eq!((panicked.class, panicked.why.as_str()), (FailureClass::Panic, "boom"));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_a_timeout() {
    let told: Log<FailureClass> = Log::default();
    let hook = told.clone();
    let settings = PoolSettings { attempt_timeout: Some(SECOND), retry: RetryPolicy::never(), ..settings() };
    let pool = WorkerPool::<u32>::builder("test")
        .settings(settings)
        .on_error(move |failed| hook.lock().unwrap().push(failed.class))
        .start()
        .unwrap();
    pool.submit(1, |_| std::future::pending::<Result<(), BoxError>>()).await.unwrap();
    assert_eq!(pool.drain(SECOND * 10).await.failed, 1);
    assert_eq!(*told.lock().unwrap(), [FailureClass::Timeout]);
}

#[tokio::test(start_paused = true)]
async fn drain_ends_at_its_deadline_cancels_before_and_takes_nothing_more_in() {
    let pool = Arc::new(pool(settings()));
    let log: Log<Duration> = Log::default();
    let started = tokio::time::Instant::now();
    let noted = log.clone();
    let listens = move |attempt: ropeway_processor::Attempt| {
        let noted = noted.clone();
        async move {
            attempt.cancellation.cancelled().await;
            noted.lock().unwrap().push(started.elapsed());
            Ok::<_, BoxError>(())
        }
    };
    pool.submit(1, listens.clone()).await.unwrap();
    pool.submit(2, |_| std::future::pending::<Result<(), BoxError>>()).await.unwrap();
    pool.submit(2, listens.clone()).await.unwrap();
    let draining = pool.clone();
    let report = tokio::spawn(async move { draining.drain(SECOND * 10).await });
    tokio::time::sleep(SECOND).await;
    assert_eq!(pool.submit(3, listens).await, Err(SubmitError::Closed));
    let report = report.await.unwrap();
    assert_eq!(report, DrainReport { finished: 1, failed: 0, dropped: 2 });
    assert_eq!(*log.lock().unwrap(), [SECOND * 8]);
    assert!(started.elapsed() < SECOND * 11);
    assert_eq!(pool.drain(SECOND).await, DrainReport::default(), "twice is once");
}

#[tokio::test(start_paused = true)]
async fn what_a_cancelled_job_returns_is_no_failure() {
    let pool = pool(settings());
    pool.submit(1, |attempt: ropeway_processor::Attempt| async move {
        attempt.cancellation.cancelled().await;
        Err(BoxError::from("cancelled"))
    })
    .await
    .unwrap();
    let started = tokio::time::Instant::now();
    let report = pool.drain(SECOND * 10).await;
    assert_eq!(report, DrainReport { finished: 0, failed: 0, dropped: 1 });
    assert_eq!(started.elapsed(), SECOND * 8, "with nothing left to run it does not wait for the deadline");
}

#[tokio::test(start_paused = true)]
async fn stop_drops_all_at_once() {
    let pool = pool(settings());
    let token = tokio_util::sync::CancellationToken::new();
    let guard = Arc::new(token.clone().drop_guard());
    pool.submit(1, move |_| {
        let guard = guard.clone();
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            Ok::<_, BoxError>(())
        }
    })
    .await
    .unwrap();
    tokio::time::sleep(SECOND).await;
    pool.stop();
    tokio::time::timeout(SECOND, token.cancelled()).await.unwrap();
    assert_eq!(pool.try_submit(1, |_| async { Ok::<_, BoxError>(()) }), Err(SubmitError::Closed));
}

#[tokio::test(start_paused = true)]
async fn it_counts_and_refuses_nonsense() {
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let pool = WorkerPool::<u32>::builder("test").settings(settings()).metrics(&metrics).start().unwrap();
    for n in 0..10 {
        pool.submit(n, |_| async { Ok::<_, BoxError>(()) }).await.unwrap();
    }
    pool.drain(SECOND).await;
    assert_eq!(pool.snapshot().finished, 10);
    let families = registry.gather();
    let jobs = families.iter().find(|family| family.name() == "ropeway_worker_pool_jobs_total").unwrap();
    assert_eq!(jobs.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum::<f64>(), 10.0);
    let error = WorkerPool::<u32>::builder("x")
        .settings(PoolSettings { buffer: 0, ..settings() })
        .start()
        .unwrap_err();
    assert!(error.to_string().contains("buffer"));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_comes_due_after_the_cancel_does_not_spin() {
    let retry = RetryPolicy {
        max_attempts: 9,
        first_delay: SECOND * 3,
        factor: 1.0,
        jitter: false,
        ..RetryPolicy::default()
    };
    let pool = pool(PoolSettings { retry, cancel_grace: SECOND * 2, ..settings() });
    pool.submit(1, |_| async { Err(BoxError::from("always")) }).await.unwrap();
    // It keeps a worker busy beyond the cancel, so that the pool has to wait for its end.
    pool.submit(2, |_| async {
        tokio::time::sleep(SECOND * 20).await;
        Ok::<_, BoxError>(())
    })
    .await
    .unwrap();
    let drained = tokio::time::timeout(SECOND * 30, pool.drain(SECOND * 10)).await.unwrap();
    assert_eq!(drained, DrainReport { finished: 0, failed: 0, dropped: 2 });
}

#[tokio::test(start_paused = true)]
async fn once_jobs_are_cancelled_nothing_behind_them_is_started() {
    let pool = pool(PoolSettings { buffer: 100, ..settings() });
    let began = Arc::new(Mutex::new(0));
    for _ in 0..40 {
        let began = began.clone();
        let job = move |attempt: ropeway_processor::Attempt| {
            *began.lock().unwrap() += 1;
            async move {
                attempt.cancellation.cancelled().await;
                Ok::<_, BoxError>(())
            }
        };
        pool.submit(1, job).await.unwrap();
    }
    let report = pool.drain(SECOND * 10).await;
    assert_eq!(report, DrainReport { finished: 1, failed: 0, dropped: 39 });
    assert_eq!(*began.lock().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_several_threads_no_job_is_lost_and_keys_keep_their_order() {
    const JOBS: usize = 20_000;
    const KEYS: usize = 40;
    let pool = pool(PoolSettings { buffer: 512, concurrency: 16, ..settings() });
    let last: Arc<Vec<Mutex<usize>>> = Arc::new((0..KEYS).map(|_| Mutex::new(0)).collect());
    for n in 1..=JOBS {
        let last = last.clone();
        let job = move |_| {
            let last = last.clone();
            async move {
                // Held across nothing that waits: two jobs of a key at once would be told by the order below.
                assert!(*last[n % KEYS].lock().unwrap() < n, "out of order");
                match n % 7 {
                    0 => tokio::task::yield_now().await,
                    1 if n % 1000 == 1 => tokio::time::sleep(Duration::from_millis(1)).await,
                    _ => {}
                }
                let before = std::mem::replace(&mut *last[n % KEYS].lock().unwrap(), n);
                assert!(before == 0 || before == n - KEYS, "{n} came after {before}");
                Ok::<_, BoxError>(())
            }
        };
        pool.submit(u32::try_from(n % KEYS).unwrap(), job).await.unwrap();
    }
    let report = pool.drain(SECOND * 60).await;
    assert_eq!((report.failed, report.dropped), (0, 0));
    assert_eq!(pool.snapshot().finished, JOBS as u64);
    assert_eq!(pool.snapshot().retried, 0, "no job failed on the way");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_no_clock_can_show_is_a_late_one() {
    let pool = pool(settings());
    pool.submit(1, |_| async {
        tokio::time::sleep(SECOND * 60).await;
        Ok::<_, BoxError>(())
    })
    .await
    .unwrap();
    assert_eq!(pool.drain(Duration::MAX).await, DrainReport { finished: 1, ..DrainReport::default() });
}
