//! Checks of retries: when, how often, and what they cost.
//!
//! Not here: what ends as a failure (`failure.rs`), order (`order.rs`).

use super::{
    calls::{Call, Calls, done, fails, steady},
    stage::{Stage, eventually, keyed},
    suite::group,
};
use crate::{FailureClass, RetryPolicy, Verdict};
use ropeway_broker::Bound;
use ropeway_broker::conformance::promise::{promised, same};
use std::time::Duration;

group! { "retry":
    "S3" retry_after_brings_that_message_back_in_time;
    "S3" waits_grow_by_the_factor_up_to_the_longest;
    "S3" jitter_draws_waits_from_zero_to_the_bound;
    "" attempts_are_counted_and_end_after_exactly_the_most;
    "" a_retry_that_a_handler_asks_for_is_an_attempt;
    "" a_handler_keeps_to_its_own_policy;
    "B4" retries_without_end_stay_within_the_bound_of_what_is_in_flight;
}

async fn retry_after_brings_that_message_back_in_time(stage: &Stage) {
    let wait = if stage.is_exact() { Duration::from_secs(12) } else { Duration::from_millis(400) };
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let route = calls.route(move |turn| async move {
        if turn.number == 1 && turn.before == 0 { Ok(Verdict::retry_after(wait)) } else { done() }
    });
    let task = stage.task(&topic, [route]);
    stage.put(&topic, vec![keyed("a", 0), keyed("b", 1), keyed("c", 2)]).await;
    let running = stage.start(&task).await;
    eventually("all are handled", async || calls.done(), |done| *done >= 3 || calls.count() > 4).await;
    stage.all_acked(&task).await;
    stage.stop(running).await;
    let numbers: Vec<usize> = calls.all().iter().map(|call| call.number).collect();
    same("exactly the message of which a retry was asked for comes back", numbers.len(), 4);
    let tried = calls.of(1);
    same("exactly the message of which a retry was asked for comes back", tried.len(), 2);
    let after = tried[1].after(&tried[0]);
    promised(
        after >= wait && after <= wait + stage.slack(),
        &format!("a message comes back when {wait:?} have passed"),
        || format!("it came after {after:?}"),
    );
}

/// The waits between the calls of one number.
fn waits(calls: &[Call]) -> Vec<Duration> {
    calls.windows(2).map(|pair| pair[1].after(&pair[0])).collect()
}

async fn waits_grow_by_the_factor_up_to_the_longest(stage: &Stage) {
    let unit = if stage.is_exact() { Duration::from_millis(500) } else { Duration::from_millis(20) };
    let policy =
        RetryPolicy { max_attempts: 6, first_delay: unit, factor: 3.0, max_delay: unit * 20, jitter: false };
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let mut task = stage.task(&topic, [calls.route(|_| async { fails() })]);
    task.settings.retry = policy;
    stage.put(&topic, vec![keyed("a", 0)]).await;
    let running = stage.start(&task).await;
    let promise = "a failing message is tried six times";
    eventually(promise, async || calls.count(), |count| *count >= 2).await;
    for _ in 0..3 {
        // Longer in all than one wait may take.
        if calls.count() < 6 {
            tokio::time::sleep(unit * 20).await;
        }
    }
    calls.until(promise, |calls| calls.count() >= 6).await;
    stage.stop(running).await;
    let waits = waits(&calls.of(0));
    let expected = [1, 3, 9, 20, 20].map(|n| unit * n);
    let promise = format!("waits are {expected:?}");
    promised(waits.len() >= expected.len(), &promise, || format!("{waits:?}"));
    for (wait, expected) in waits.iter().zip(expected) {
        let holds = *wait >= expected && *wait <= expected + stage.slack();
        promised(holds, &promise, || format!("{waits:?}"));
    }
}

async fn jitter_draws_waits_from_zero_to_the_bound(stage: &Stage) {
    const KEYS: usize = 60;
    // A quarter of it is more than a busy machine makes a wait longer.
    let bound = Duration::from_secs(if stage.is_exact() { 10 } else { 4 });
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let route = calls.route(|turn| async move { if turn.attempt == 1 { fails() } else { done() } });
    let mut task = stage.task(&topic, [route]);
    task.settings.retry =
        RetryPolicy { max_attempts: 3, first_delay: bound, factor: 2.0, max_delay: bound, jitter: true };
    stage.put(&topic, (0..KEYS).map(|n| keyed(&format!("k{n}"), n)).collect()).await;
    let running = stage.start(&task).await;
    calls.until("all are tried again", |calls| calls.done() >= KEYS).await;
    stage.stop(running).await;
    let mut drawn: Vec<Duration> = (0..KEYS).flat_map(|n| waits(&calls.of(n))).collect();
    drawn.sort_unstable();
    let longest = drawn.last().copied().unwrap_or_default();
    promised(longest <= bound + stage.slack(), "no wait is longer than the bound", || format!("{longest:?}"));
    // 60 even draws: fewer than 5 in a quarter has a chance below 1 in 1,000, and the seed is fixed.
    let below = drawn.iter().filter(|wait| **wait < bound / 4).count();
    let above = drawn.iter().filter(|wait| **wait > bound / 4 * 3).count();
    promised(below >= 5 && above >= 5, "waits are drawn evenly from zero to the bound", || {
        format!("{below} in the first quarter, {above} in the last: {drawn:?}")
    });
}

async fn attempts_are_counted_and_end_after_exactly_the_most(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let mut task = stage.task(&topic, [calls.route(|_| async { fails() })]);
    task.settings.retry = steady(4, Duration::from_millis(5));
    stage.put(&topic, vec![keyed("a", 0)]).await;
    let running = stage.start(&task).await;
    let letters = stage.buried(&task, 1).await;
    stage.stop(running).await;
    let attempts: Vec<u32> = calls.all().iter().map(|call| call.attempt).collect();
    same("attempts are counted from 1, and the last is the one the policy names", attempts, [1, 2, 3, 4]);
    same("the record tells how often it was tried", letters[0].record.attempts, 4);
}

async fn a_retry_that_a_handler_asks_for_is_an_attempt(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let route = calls.route(|_| async { Ok(Verdict::retry_after(Duration::from_millis(3))) });
    let mut task = stage.task(&topic, [route]);
    task.settings.retry = RetryPolicy::attempts(3);
    stage.put(&topic, vec![keyed("a", 0)]).await;
    let running = stage.start(&task).await;
    let letters = stage.buried(&task, 1).await;
    stage.stop(running).await;
    let record = &letters[0].record;
    same("a handler that asks for a retry again and again is given up", record.class, FailureClass::Retry);
    let attempts: Vec<u32> = calls.all().iter().map(|call| call.attempt).collect();
    same("a retry that is asked for is an attempt", attempts, (1..=record.attempts).collect::<Vec<_>>());
}

async fn a_handler_keeps_to_its_own_policy(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let mut patient = calls.named("patient", "patient", |_| async { fails() });
    patient.options.retry = Some(steady(5, Duration::from_millis(2)));
    let plain = calls.named("plain", "plain", |_| async { fails() });
    let mut task = stage.task(&topic, [patient, plain]);
    task.settings.retry = steady(2, Duration::from_millis(2));
    let of_type = |number: usize, name| {
        let message = ropeway_broker::Message::builder().event_type(name).key(name.to_owned());
        message.payload(number.to_string()).build()
    };
    stage.put(&topic, vec![of_type(1, "patient"), of_type(2, "plain")]).await;
    let running = stage.start(&task).await;
    stage.buried(&task, 2).await;
    stage.stop(running).await;
    let more = calls.of(1).len().saturating_sub(calls.of(2).len());
    same("a handler is tried as often as its own policy says, others as the processor's", more, 3);
}

async fn retries_without_end_stay_within_the_bound_of_what_is_in_flight(stage: &Stage) {
    const BOUND: usize = 100;
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let mut task = stage.task(&topic, [calls.route(|_| async { fails() })]);
    task.subscription.in_flight = Bound { messages: BOUND, bytes: 1 << 20 };
    task.settings.retry = steady(999_999, Duration::from_millis(1));
    let messages = (0..600).map(|n| keyed(&format!("k{}", n % 7), n));
    stage.put(&topic, messages.collect()).await;
    let before = stage.broker_statistics().delivered;
    let running = stage.start(&task).await;
    for round in 1..=10 {
        calls.until("what fails is tried again and again", |calls| calls.count() >= round * 70).await;
        let seen = running.snapshot();
        promised(seen.in_flight <= BOUND as u64, "no more is in flight than the subscription allows", || {
            format!("{seen:?}")
        });
        promised(seen.waiting + seen.running <= seen.in_flight, "a retry takes no room of its own", || {
            format!("{seen:?}")
        });
    }
    let delivered = stage.broker_statistics().delivered - before;
    promised(delivered <= BOUND as u64, "nothing is fetched beyond what may be in flight", || {
        format!("{delivered} messages were delivered while {BOUND} may be in flight")
    });
    running.abort();
}
