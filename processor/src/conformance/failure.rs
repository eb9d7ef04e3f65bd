//! Checks of what counts as a failure beside errors: panics, and attempts that take too long.
//!
//! Not here: what a handler says itself (`letters.rs`, `retry.rs`).

use super::{
    calls::{Acted, Calls, End, done, steady},
    stage::{Stage, keyed},
    suite::group,
};
use crate::FailureClass;
use ropeway_broker::conformance::promise::{Ought, promised, same};
use std::time::Duration;
use tokio::time::Instant;

group! { "failure":
    "S8" a_panic_is_a_failure_and_its_worker_lives_on;
    "S8" an_attempt_that_takes_too_long_is_dropped_and_tried_again;
    "" what_runs_out_of_time_sees_its_token_cancelled;
}

/// A panic that nobody need hear of.
fn panics() -> Acted {
    std::panic::resume_unwind(Box::new("on purpose".to_owned()))
}

async fn a_panic_is_a_failure_and_its_worker_lives_on(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let route = calls.route(|turn| async move {
        let panicking = turn.number == 0 || (turn.number == 1 && turn.attempt == 1);
        if panicking { panics() } else { done() }
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.concurrency = 1;
    task.settings.retry = steady(3, Duration::from_millis(5));
    stage.put(&topic, (0..6).map(|n| keyed(&format!("k{n}"), n)).collect()).await;
    let running = stage.start(&task).await;
    calls.until("one worker handles the rest after panics", |calls| calls.done() >= 5).await;
    let letters = stage.buried(&task, 1).await;
    stage.stop(running).await;
    let record = &letters[0].record;
    let tried = calls.of(0).len();
    promised(tried >= 3, "a panic is tried again by policy like any error", || {
        format!("tried {tried} times")
    });
    same("a panic is an attempt", record.attempts as usize, tried);
    same(
        "a dead letter tells of the panic",
        (record.class, record.error.as_str()),
        (FailureClass::Panic, "on purpose"),
    );
}

async fn an_attempt_that_takes_too_long_is_dropped_and_tried_again(stage: &Stage) {
    let limit = Duration::from_millis(300);
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let route = calls.route(|turn| async move {
        if turn.number == 0 || (turn.number == 1 && turn.attempt == 1) {
            std::future::pending::<()>().await;
        }
        done()
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.attempt_timeout = Some(limit);
    task.settings.retry = steady(2, Duration::from_millis(5));
    stage.put(&topic, (0..4).map(|n| keyed(&format!("k{n}"), n)).collect()).await;
    let started = Instant::now();
    let running = stage.start(&task).await;
    calls.until("what does not hang is handled, at another attempt", |calls| calls.done() >= 3).await;
    let letters = stage.buried(&task, 1).await;
    let record = &letters[0].record;
    let expected = (FailureClass::Timeout, calls.of(0).len());
    same("a dead letter tells of the time", (record.class, record.attempts as usize), expected);
    stage.stop(running).await;
    let promise = "an attempt is dropped when its time is over";
    for number in [0, 1] {
        let mut before = started;
        for call in calls.of(number) {
            let ended = call.ended_at().ought(promise);
            if !call.is_done() {
                same(promise, call.ended.map(|(_, end)| end), Some(End::Dropped));
                // Its time begins after the attempt before it has ended, and before its handler is called: a thread may be interrupted between.
                let (longest, shortest) = (ended - before, ended - call.began);
                promised(longest >= limit && shortest <= limit + stage.slack(), promise, || {
                    format!("after {shortest:?} to {longest:?} of {limit:?}")
                });
            }
            before = ended;
        }
    }
}

async fn what_runs_out_of_time_sees_its_token_cancelled(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let route = calls.route(move |turn| {
        let tell = tell.clone();
        async move {
            if turn.attempt > 1 {
                return done();
            }
            // What an attempt starts elsewhere goes on when it is dropped.
            let token = turn.cx.cancellation().clone();
            tokio::spawn(async move {
                token.cancelled().await;
                let _ = tell.send(());
            });
            std::future::pending().await
        }
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.attempt_timeout = Some(Duration::from_millis(100));
    stage.put(&topic, vec![keyed("a", 0)]).await;
    let running = stage.start(&task).await;
    calls.until("it is tried again", |calls| calls.done() == 1).await;
    let cancelled =
        super::stage::within("the token of an attempt is cancelled when its time is over", told.recv());
    cancelled.await;
    stage.stop(running).await;
}
