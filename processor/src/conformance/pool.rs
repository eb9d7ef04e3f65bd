//! Checks of the stand-alone worker pool: back-pressure, order, retries, draining.
//!
//! Not here: the processor, which shares its lanes and workers (the other groups).

use super::{
    calls::steady,
    stage::{Stage, eventually, within},
    subject::{Job, Jobs, Pool},
    suite::group,
};
use crate::{Attempt, BoxError, FailureClass, JobFailed, PoolSettings, RetryPolicy, SubmitError};
use ropeway_broker::conformance::promise::{Ought, promised, same};
use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

group! { "pool":
    "" submit_waits_and_try_submit_says_full_while_the_buffer_is_full;
    "" no_more_jobs_run_than_there_are_workers;
    "" jobs_of_a_key_run_in_order_also_when_they_fail;
    "" a_failed_job_is_tried_again_by_policy_and_each_failure_is_told;
    "" a_panic_of_a_job_is_a_failure_and_its_worker_lives_on;
    "" drain_finishes_what_is_there_and_takes_nothing_more;
    "" drain_ends_at_its_deadline;
    "" stop_drops_all_jobs_at_once;
}

type Failures = Arc<Mutex<Vec<(Option<String>, u32, FailureClass, Option<Duration>)>>>;

fn start(stage: &Stage, settings: PoolSettings) -> (Box<dyn Pool>, Failures) {
    let failures = Failures::default();
    let told = failures.clone();
    let on_error = Arc::new(move |failed: &JobFailed<String>| {
        let failed = (failed.key.clone(), failed.attempt, failed.class, failed.retry_in);
        told.lock().unwrap_or_else(PoisonError::into_inner).push(failed);
    });
    let settings = PoolSettings { seed: Some(1), ..settings };
    let pool = stage.subject.pool(Jobs { settings, on_error }).ought("a pool starts where all is in order");
    (pool, failures)
}

fn job<F, U>(run: F) -> Job
where
    F: Fn(Attempt) -> U + Send + Sync + 'static,
    U: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    Arc::new(move |attempt| Box::pin(run(attempt)))
}

/// A job that ends when the gate opens.
fn gated(gate: &CancellationToken) -> Job {
    let gate = gate.clone();
    job(move |_| {
        let gate = gate.clone();
        async move {
            gate.cancelled().await;
            Ok(())
        }
    })
}

async fn submit(pool: &dyn Pool, key: Option<&str>, job: Job) {
    let promise = "a pool with room takes a job in";
    within(promise, pool.submit(key.map(str::to_owned), job)).await.ought(promise);
}

async fn submit_waits_and_try_submit_says_full_while_the_buffer_is_full(stage: &Stage) {
    let (pool, _) = start(stage, PoolSettings { buffer: 3, concurrency: 2, ..PoolSettings::default() });
    let gate = CancellationToken::new();
    for _ in 0..3 {
        submit(&*pool, None, gated(&gate)).await;
    }
    same("a full pool says so", pool.try_submit(None, gated(&gate)), Err(SubmitError::Full));
    let mut waiting = pool.submit(None, gated(&gate));
    let waits = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err();
    promised(waits, "submit waits while the buffer is full", || "it took a job in".to_owned());
    same("what waits for room is not in the pool", pool.snapshot().in_pool, 3);
    gate.cancel();
    let promise = "submit goes on when there is room";
    within(promise, waiting).await.ought(promise);
    eventually("all finish", async || pool.snapshot().finished, |finished| *finished == 4).await;
}

async fn no_more_jobs_run_than_there_are_workers(stage: &Stage) {
    let (pool, _) = start(stage, PoolSettings { concurrency: 3, ..PoolSettings::default() });
    let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    for _ in 0..40 {
        let (now, most) = (now.clone(), most.clone());
        let counted = job(move |_| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(Duration::from_millis(3)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        });
        submit(&*pool, None, counted).await;
    }
    eventually("all finish", async || pool.snapshot().finished, |finished| *finished == 40).await;
    same("as many run at a time as there are workers", most.load(Ordering::SeqCst), 3);
}

async fn jobs_of_a_key_run_in_order_also_when_they_fail(stage: &Stage) {
    const KEYS: usize = 5;
    const EACH: usize = 20;
    let retry = steady(3, Duration::from_millis(4));
    let (pool, _) = start(stage, PoolSettings { concurrency: 16, retry, ..PoolSettings::default() });
    let log: Arc<Mutex<Vec<(usize, usize, bool)>>> = Arc::default();
    for n in 0..KEYS * EACH {
        let log = log.clone();
        let noted = job(move |attempt| {
            let log = log.clone();
            let note = move |begins| {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.push((n % KEYS, n, begins));
            };
            async move {
                note(true);
                sleep(Duration::from_millis((n as u64 * 7) % 5)).await;
                note(false);
                if n.is_multiple_of(3) && attempt.number == 1 { Err("on purpose".into()) } else { Ok(()) }
            }
        });
        submit(&*pool, Some(&format!("k{}", n % KEYS)), noted).await;
    }
    let all = (KEYS * EACH) as u64;
    eventually("all finish", async || pool.snapshot().finished, |finished| *finished == all).await;
    let log = log.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for key in 0..KEYS {
        let seen: Vec<_> =
            log.iter().filter(|(of, ..)| *of == key).map(|(_, n, begins)| (*n, *begins)).collect();
        let tries = |n: usize| if n.is_multiple_of(3) { 2 } else { 1 };
        let expected: Vec<_> = (0..EACH)
            .map(|i| i * KEYS + key)
            .flat_map(|n| [(n, true), (n, false)].repeat(tries(n)))
            .collect();
        same("jobs of a key run one at a time, in order, retries included", seen, expected);
    }
}

async fn a_failed_job_is_tried_again_by_policy_and_each_failure_is_told(stage: &Stage) {
    let unit = Duration::from_millis(40);
    let retry =
        RetryPolicy { max_attempts: 4, first_delay: unit, factor: 2.0, max_delay: unit * 3, jitter: false };
    let (pool, failures) = start(stage, PoolSettings { retry, ..PoolSettings::default() });
    let tried: Arc<Mutex<Vec<(u32, Instant)>>> = Arc::default();
    let noted = tried.clone();
    let failing = job(move |attempt| {
        let mut tried = noted.lock().unwrap_or_else(PoisonError::into_inner);
        tried.push((attempt.number, Instant::now()));
        async { Err("on purpose".into()) }
    });
    submit(&*pool, Some("a"), failing).await;
    eventually("a job ends with its last attempt", async || pool.snapshot().failed, |failed| *failed == 1)
        .await;
    let tried = tried.lock().unwrap_or_else(PoisonError::into_inner).clone();
    same("attempts are counted", tried.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let waits = [unit, unit * 2, unit * 3];
    for (pair, expected) in tried.windows(2).zip(waits) {
        let wait = pair[1].1 - pair[0].1;
        promised(wait >= expected && wait <= expected + stage.slack(), "waits grow by policy", || {
            format!("{wait:?} instead of {expected:?}")
        });
    }
    let told = failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let waits = [Some(waits[0]), Some(waits[1]), Some(waits[2]), None];
    let of = |(attempt, wait)| (Some("a".to_owned()), attempt, FailureClass::Error, wait);
    let expected: Vec<_> = (1..).zip(waits).map(of).collect();
    same("each failed attempt is told, with what follows", told, expected);
}

async fn a_panic_of_a_job_is_a_failure_and_its_worker_lives_on(stage: &Stage) {
    let retry = steady(2, Duration::from_millis(2));
    let (pool, failures) = start(stage, PoolSettings { concurrency: 1, retry, ..PoolSettings::default() });
    let panicking = job(|_| async { std::panic::resume_unwind(Box::new("on purpose")) });
    submit(&*pool, None, panicking).await;
    submit(&*pool, None, job(|_| async { Ok(()) })).await;
    let over = |seen: &(u64, u64)| *seen == (1, 1);
    let ask = async || (pool.snapshot().finished, pool.snapshot().failed);
    eventually("a panic is a failure, and the other job runs", ask, over).await;
    let told = failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let classes: Vec<FailureClass> = told.iter().map(|(_, _, class, _)| *class).collect();
    same("a panic is tried again like any failure", classes, [FailureClass::Panic; 2]);
}

async fn drain_finishes_what_is_there_and_takes_nothing_more(stage: &Stage) {
    let retry = steady(3, Duration::from_millis(30));
    let (pool, _) = start(stage, PoolSettings { concurrency: 2, retry, ..PoolSettings::default() });
    let long = Duration::from_millis(if stage.is_exact() { 600 } else { 10 });
    for n in 0..12 {
        let slow = job(move |attempt| async move {
            sleep(long).await;
            if n == 1 && attempt.number == 1 { Err("on purpose".into()) } else { Ok(()) }
        });
        submit(&*pool, None, slow).await;
    }
    let began = Instant::now();
    let report = within("drain answers", pool.drain(Duration::from_secs(20))).await;
    let seen = (pool.snapshot().finished, report.failed, report.dropped);
    same("what is there is finished, retries included", seen, (12, 0, 0));
    promised(began.elapsed() < Duration::from_secs(10), "drain ends when nothing is left", || {
        format!("after {:?}", began.elapsed())
    });
    same(
        "a drained pool takes nothing in",
        pool.try_submit(None, job(|_| async { Ok(()) })),
        Err(SubmitError::Closed),
    );
    let submitted = within("submit answers", pool.submit(None, job(|_| async { Ok(()) }))).await;
    same("a drained pool takes nothing in", submitted, Err(SubmitError::Closed));
}

async fn drain_ends_at_its_deadline(stage: &Stage) {
    // The grace is what a busy machine has to tell the jobs in.
    let deadline = Duration::from_secs(2);
    let grace = Duration::from_secs(1);
    let retry = steady(100, Duration::from_millis(1));
    let settings = PoolSettings { concurrency: 2, cancel_grace: grace, retry, ..PoolSettings::default() };
    let (pool, _) = start(stage, settings);
    let cancelled: Arc<Mutex<Option<Instant>>> = Arc::default();
    let noted = cancelled.clone();
    let hangs = job(move |attempt| {
        let noted = noted.clone();
        async move {
            attempt.cancellation.cancelled().await;
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            std::future::pending().await
        }
    });
    // A retry that is due after the jobs were cancelled is none.
    let fails = job(|attempt| async move {
        attempt.cancellation.cancelled().await;
        Err("on purpose".into())
    });
    submit(&*pool, None, hangs.clone()).await;
    submit(&*pool, None, fails).await;
    submit(&*pool, None, hangs).await;
    let began = Instant::now();
    let report = within("drain answers", pool.drain(deadline)).await;
    let took = began.elapsed();
    promised(took >= deadline && took <= deadline + stage.slack(), "drain ends at its deadline", || {
        format!("after {took:?} of {deadline:?}")
    });
    same("what is not over is dropped and told", (report.finished, report.failed, report.dropped), (0, 0, 3));
    let cancelled = *cancelled.lock().unwrap_or_else(PoisonError::into_inner);
    let after = cancelled.ought("jobs are cancelled before they are dropped") - began;
    promised(after >= deadline - grace, "jobs are cancelled when the grace begins", || {
        format!("after {after:?}")
    });
}

async fn stop_drops_all_jobs_at_once(stage: &Stage) {
    struct Dropped(CancellationToken);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.cancel();
        }
    }
    let (pool, _) = start(stage, PoolSettings::default());
    let dropped = CancellationToken::new();
    let (tell, began) = (dropped.clone(), CancellationToken::new());
    let begins = began.clone();
    let hangs = job(move |_| {
        let note = Dropped(tell.clone());
        begins.cancel();
        async move {
            std::future::pending::<()>().await;
            drop(note);
            Ok(())
        }
    });
    submit(&*pool, None, hangs).await;
    within("a job runs", began.cancelled()).await;
    pool.stop();
    within("a job is dropped when its pool is stopped", dropped.cancelled()).await;
    same(
        "a stopped pool takes nothing in",
        pool.try_submit(None, job(|_| async { Ok(()) })),
        Err(SubmitError::Closed),
    );
}
