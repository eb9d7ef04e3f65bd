//! Checks of shutting down: deadlines are kept, nothing is lost, and what is cancelled is no failure.
//!
//! Not here: partitions that go one by one (`handover.rs`), pools (`pool.rs`).

use super::{
    calls::{Calls, End, done, fails, steady},
    stage::{Stage, eventually, keyed},
    suite::group,
};
use crate::Verdict;
use ropeway_broker::conformance::promise::{Ought, promised, same};
use ropeway_broker::{Bound, wrap::Revoke};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

group! { "shutdown":
    "D1" shutdown_ends_at_its_deadline_whatever_hangs;
    "" shutdown_finishes_what_was_delivered_and_ends_early;
    "D2" handlers_are_cancelled_only_when_the_grace_begins;
    "D3" a_cancelled_handler_is_never_dead_lettered;
    "D5" shutdown_under_load_loses_nothing;
    "" an_abort_loses_nothing_and_repeats_only_what_was_in_flight;
}

async fn shutdown_ends_at_its_deadline_whatever_hangs(stage: &Stage) {
    let deadline = Duration::from_secs(2);
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let route = calls.route(|_| std::future::pending());
    let mut task = stage.task(&topic, [route]);
    task.settings.concurrency = 2;
    stage.put(&topic, vec![keyed("a", 0), keyed("b", 1), keyed("c", 2)]).await;
    let running = stage.start(&task).await;
    calls.until("as many run as may", |calls| calls.running() == 2).await;
    let began = Instant::now();
    let report = running.shutdown(deadline).await;
    let took = began.elapsed();
    promised(took >= deadline && took <= deadline + stage.slack(), "shutdown ends at its deadline", || {
        format!("after {took:?} of {deadline:?}")
    });
    let seen = (report.finished, report.given_up, report.dropped_handlers, report.is_clean());
    same("the report tells what was given up, and what had to be dropped", seen, (0, 3, 2, false));
    let unacked: usize = report.unacked.iter().map(|(_, positions)| positions.len()).sum();
    same("the report tells what was not acked", unacked, 3);
    for call in calls.all() {
        same("handlers are dropped at the deadline", call.ended.map(|(_, end)| end), Some(End::Dropped));
    }
}

async fn shutdown_finishes_what_was_delivered_and_ends_early(stage: &Stage) {
    let deadline = Duration::from_secs(30);
    let long = Duration::from_millis(if stage.is_exact() { 500 } else { 10 });
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let route = calls.route(move |turn| async move {
        tokio::time::sleep(long).await;
        if turn.attempt == 1 && turn.number % 5 == 0 { fails() } else { done() }
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.concurrency = 2;
    task.settings.retry = steady(3, Duration::from_millis(30));
    stage.put(&topic, (0..20).map(|n| keyed(&format!("k{n}"), n)).collect()).await;
    let running = stage.start(&task).await;
    let promise = "what is there is delivered";
    eventually(promise, async || running.snapshot().delivered, |delivered| *delivered == 20).await;
    let before = running.snapshot().handled;
    let began = Instant::now();
    let report = running.shutdown(deadline).await;
    let took = began.elapsed();
    let over = running.snapshot().handled;
    same(
        "what was delivered is finished, retries included",
        (over, report.given_up, calls.done()),
        (20, 0, 20),
    );
    // What was over when it heard that it is to end is none of it.
    let (told, most) = (report.finished, over - before);
    let tells = if stage.is_exact() { told == most } else { told <= most };
    promised(tells, "the report tells what was finished since", || format!("{told} of {most}"));
    promised(report.is_clean(), "what is finished is acked", || format!("{report:?}"));
    promised(took < deadline / 2, "shutdown ends when nothing is left to do", || format!("after {took:?}"));
    same("all of it is acked", stage.unfinished(&task).await, 0);
}

async fn handlers_are_cancelled_only_when_the_grace_begins(stage: &Stage) {
    // The grace is what a busy machine has to end the handlers in.
    let grace = Duration::from_millis(if stage.is_exact() { 500 } else { 2000 });
    let deadline = grace * 4;
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let route = calls.route(|turn| async move {
        turn.cancelled().await;
        done()
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.cancel_grace = grace;
    stage.put(&topic, vec![keyed("a", 0), keyed("b", 1)]).await;
    let running = stage.start(&task).await;
    calls.until("both keys run", |calls| calls.running() == 2).await;
    let began = Instant::now();
    let report = running.shutdown(deadline).await;
    for call in calls.all() {
        let after = call.cancelled.ought("handlers are cancelled before they are dropped") - began;
        let due = deadline - grace;
        promised(
            after >= due && after <= due + stage.slack(),
            "handlers are cancelled when the grace begins",
            || format!("after {after:?}, the grace begins after {due:?}"),
        );
    }
    same("what ends well within the grace counts", (report.finished, report.given_up), (2, 0));
    same("what ends well within the grace is acked", stage.unfinished(&task).await, 0);
}

async fn a_cancelled_handler_is_never_dead_lettered(stage: &Stage) {
    const ALL: usize = 4;
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let route = calls.route(|turn| async move {
        turn.cancelled().await;
        match turn.number {
            0 => fails(),
            1 => Ok(Verdict::reject("cancelled")),
            2 => Ok(Verdict::retry()),
            _ => std::panic::resume_unwind(Box::new("cancelled")),
        }
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.retry = steady(1, Duration::from_millis(1));
    task.settings.cancel_grace = Duration::from_millis(200);
    stage.put(&topic, (0..ALL).map(|n| keyed(&format!("k{n}"), n)).collect()).await;
    let running = stage.start(&task).await;
    calls.until("all run", |calls| calls.running() == ALL).await;
    stage.broker().revoke(&topic, 0, Revoke::Lost);
    calls.until("the next owner runs all", |calls| calls.count() == ALL * 2 && calls.running() == ALL).await;
    let report = running.shutdown(Duration::from_millis(600)).await;
    drop(running);
    same(
        "what a cancelled handler answers is no failure: it is given up",
        (report.finished, report.given_up),
        (0, 4),
    );
    stage.quiet().await;
    same("a cancelled handler is never dead-lettered", stage.letters(&task).await.len(), 0);
}

/// Publishes while members come and go, orderly or not; fails where something is lost, or repeated without need.
async fn under_load(stage: &Stage, aborted: bool) {
    const ALL: usize = 600;
    const BOUND: usize = 64;
    let topic = stage.topic(2).await;
    let calls = Calls::default();
    let route = calls.route(|turn| async move {
        tokio::time::sleep(Duration::from_millis(3 + turn.number as u64 % 9)).await;
        done()
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.concurrency = 8;
    task.subscription.in_flight = Bound { messages: BOUND, bytes: 1 << 20 };
    let publishing = async {
        for batch in 0..ALL / 10 {
            stage
                .put(
                    &topic,
                    (0..10).map(|n| batch * 10 + n).map(|n| keyed(&format!("k{}", n % 23), n)).collect(),
                )
                .await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let processing = async {
        let mut given_up = 0;
        for round in 1..=4 {
            let running = stage.start(&task).await;
            calls.until("members make progress", |calls| calls.done() >= round * 60).await;
            if aborted {
                running.abort();
                given_up += BOUND as u64;
            } else {
                // No time for all that is in flight.
                let report = running.shutdown(Duration::from_millis(12)).await;
                given_up += report.given_up;
            }
        }
        given_up
    };
    let ((), given_up) = futures::future::join(publishing, processing).await;
    let running = stage.start(&task).await;
    stage.all_acked(&task).await;
    stage.stop(running).await;
    let done: BTreeSet<usize> =
        calls.all().iter().filter(|call| call.is_done()).map(|call| call.number).collect();
    same("every message is handled, whoever ends in the middle", done.len(), ALL);
    let repeated = (calls.count() - ALL) as u64;
    promised(repeated <= given_up, "only what was in flight is repeated", || {
        format!("{repeated} calls were repeated, {given_up} may have been in flight")
    });
    same("nothing is dead-lettered", stage.letters(&task).await.len(), 0);
}

async fn shutdown_under_load_loses_nothing(stage: &Stage) {
    under_load(stage, false).await;
}

async fn an_abort_loses_nothing_and_repeats_only_what_was_in_flight(stage: &Stage) {
    under_load(stage, true).await;
}
