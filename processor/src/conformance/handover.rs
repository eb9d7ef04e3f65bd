//! Checks of partitions that go while work is in flight: taken away with time to drain, lost at once, shared with new members.
//!
//! Not here: shutting down (`shutdown.rs`).

use super::{
    calls::{Calls, End, done, fails, steady},
    stage::{Stage, eventually, keyed},
    suite::group,
};
use crate::{Snapshot, Verdict};
use ropeway_broker::conformance::promise::{Ought, promised, same};
use ropeway_broker::{
    Epoch,
    wrap::{Injection, Operation, Revoke, Times},
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

group! { "handover":
    "" a_revoked_partition_finishes_what_runs_and_starts_nothing_more;
    "" handlers_of_a_revoked_partition_are_cancelled_before_its_time_is_over;
    "" a_lost_partition_cancels_its_handlers_and_its_next_owner_has_their_work;
    "D3" what_is_given_up_burns_no_attempt;
    "" every_event_is_accounted_for_whatever_is_lost;
    "O4" order_of_a_key_holds_while_members_come_and_go;
}

fn epoch(call: &super::calls::Call) -> Epoch {
    call.event.place().ought("an event of the bus has a place").epoch
}

async fn a_revoked_partition_finishes_what_runs_and_starts_nothing_more(stage: &Stage) {
    // Far longer than a busy machine takes to hand a partition over.
    let drain = Duration::from_secs(30);
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let gate = CancellationToken::new();
    let opens = gate.clone();
    let route = calls.route(move |_| {
        let opens = opens.clone();
        async move {
            opens.cancelled().await;
            done()
        }
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.concurrency = 4;
    stage.put(&topic, (0..20).map(|n| keyed(&format!("k{n}"), n)).collect()).await;
    let running = stage.start(&task).await;
    calls.until("four run at a time", |calls| calls.running() == 4).await;
    stage.broker().revoke(&topic, 0, Revoke::Drain(drain));
    stage.quiet().await;
    let opened = tokio::time::Instant::now();
    gate.cancel();
    calls.until("the next owner handles the rest", |calls| calls.done() >= 20).await;
    stage.all_acked(&task).await;
    stage.stop(running).await;
    let all = calls.all();
    let first = all.first().map(epoch).ought("there were calls");
    let of_first = all.iter().filter(|call| epoch(call) == first).count();
    same("what waits when a partition is revoked is for its next owner", of_first, 4);
    let next = all.iter().find(|call| epoch(call) > first).ought("there was a next owner").began;
    let soon = if stage.is_exact() { stage.slack() } else { drain / 2 };
    promised(next <= opened + soon, "a partition is given up when its last handler is through", || {
        format!("after {:?} of {drain:?}", next - opened)
    });
    let twice: Vec<usize> = (0..20).filter(|n| calls.of(*n).len() != 1).collect();
    same(
        "what runs when a partition is revoked is finished and acked, and not repeated",
        twice,
        Vec::<usize>::new(),
    );
}

async fn handlers_of_a_revoked_partition_are_cancelled_before_its_time_is_over(stage: &Stage) {
    // The grace is what a busy machine has to end the handlers in, and to store their acks.
    let (drain, grace) = (Duration::from_secs(8), Duration::from_secs(2));
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let route = calls.route(|turn| async move {
        if turn.before == 0 {
            turn.cancelled().await;
        }
        done()
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.cancel_grace = grace;
    stage.put(&topic, vec![keyed("a", 0), keyed("b", 1)]).await;
    let running = stage.start(&task).await;
    calls.until("both keys run", |calls| calls.running() == 2).await;
    let revoked = tokio::time::Instant::now();
    stage.broker().revoke(&topic, 0, Revoke::Drain(drain));
    calls.until("handlers that listen end", |calls| calls.done() >= 2).await;
    stage.all_acked(&task).await;
    stage.stop(running).await;
    same("what ends well while its partition is held counts, and is not repeated", calls.count(), 2);
    for call in calls.all() {
        let promise = "handlers of a revoked partition are cancelled a grace before its time is over";
        let after = call.cancelled.ought(promise) - revoked;
        let due = drain - grace;
        promised(after >= due && after <= due + stage.slack(), promise, || {
            format!("after {after:?}, not {due:?}")
        });
    }
}

async fn a_lost_partition_cancels_its_handlers_and_its_next_owner_has_their_work(stage: &Stage) {
    let grace = Duration::from_millis(400);
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let route = calls.route(move |turn| async move {
        // With the first owner one listens and one does not.
        match turn.number {
            0 if !turn.is_again() => {
                turn.cancelled().await;
                done()
            }
            1 if !turn.is_again() => std::future::pending().await,
            _ => done(),
        }
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.cancel_grace = grace;
    stage.put(&topic, vec![keyed("a", 0), keyed("b", 1)]).await;
    let running = stage.start(&task).await;
    calls.until("both keys run", |calls| calls.running() == 2).await;
    let lost = tokio::time::Instant::now();
    stage.broker().revoke(&topic, 0, Revoke::Lost);
    calls.until("the next owner handles all of it", |calls| calls.done() >= 3).await;
    stage.all_acked(&task).await;
    stage.stop(running).await;
    let (listens, hangs) = (calls.of(0).remove(0), calls.of(1).remove(0));
    let cancelled = listens.cancelled.ought("the handlers of a lost partition are cancelled");
    promised(
        cancelled <= lost + stage.slack(),
        "the handlers of a lost partition are cancelled at once",
        || format!("after {:?}", cancelled - lost),
    );
    same("a handler that does not listen is dropped", hangs.ended.map(|(_, end)| end), Some(End::Dropped));
    let dropped = hangs.ended_at().ought("it ended");
    let in_time = dropped >= lost + grace && dropped <= lost + grace + stage.slack();
    promised(in_time, "a handler that does not listen is dropped when the grace is over", || {
        format!("after {:?} of {grace:?}", dropped - lost)
    });
    let first = epoch(&listens);
    for number in 0..2 {
        let finished = calls.of(number).into_iter().any(|call| call.is_done() && epoch(&call) > first);
        promised(finished, "the next owner handles what was not acked", || calls.told());
    }
}

async fn what_is_given_up_burns_no_attempt(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let route = calls.route(|turn| async move {
        // The first owner is lost in the middle of the second attempt.
        if turn.attempt == 2 && !turn.is_again() {
            turn.cancelled().await;
            return done();
        }
        fails()
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.retry = steady(3, Duration::from_millis(5));
    stage.put(&topic, vec![keyed("a", 0)]).await;
    let running = stage.start(&task).await;
    calls.until("the second attempt runs", |calls| calls.count() == 2 && calls.running() == 1).await;
    stage.broker().revoke(&topic, 0, Revoke::Lost);
    let letters = stage.buried(&task, 1).await;
    stage.stop(running).await;
    let attempts: Vec<u32> = calls.all().iter().skip(2).map(|call| call.attempt).collect();
    let counted = letters[0].record.attempts;
    same("the next owner begins with the first attempt", attempts, (1..=counted).collect::<Vec<_>>());
    promised(counted >= 3, "the next owner has all attempts of the policy", || format!("{counted} of 3"));
}

async fn every_event_is_accounted_for_whatever_is_lost(stage: &Stage) {
    const ALL: usize = 120;
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let gate = CancellationToken::new();
    let opens = gate.clone();
    let route = calls.route(move |turn| {
        let opens = opens.clone();
        async move {
            match turn.number % 4 {
                // One listens, one does not, one is dead-lettered. What comes first after the last loss is not cancelled.
                0 if turn.before == 0 => drop(opens.run_until_cancelled(turn.cancelled()).await),
                1 if turn.before == 0 => tokio::time::sleep(Duration::from_millis(350)).await,
                2 => return Ok(Verdict::reject("no")),
                _ => {}
            }
            done()
        }
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.cancel_grace = Duration::from_millis(250);
    // Letters are on their way when the partition goes.
    let slow = Injection::Delay(Duration::from_millis(30));
    stage.broker().inject(Operation::Forward, slow, Times::Always).ought("a forward can be delayed");
    stage.put(&topic, (0..ALL).map(|n| keyed(&format!("k{n}"), n)).collect()).await;
    let running = stage.start(&task).await;
    for round in 1..=3 {
        calls.until("work is under way", |calls| calls.count() >= round * 20).await;
        stage.broker().revoke(&topic, 0, Revoke::Lost);
        stage.quiet().await;
    }
    gate.cancel();
    stage.broker().heal();
    let promise = "each delivery is handled, dead-lettered, given up or late";
    let told = |seen: &Snapshot| seen.handled + seen.dead_lettered + seen.skipped + seen.given_up + seen.late;
    let handled = (ALL / 4 * 3) as u64;
    let settled =
        |seen: &Snapshot| seen.in_flight == 0 && seen.handled >= handled && told(seen) == seen.delivered;
    eventually(promise, async || running.snapshot(), settled).await;
    stage.stop(running).await;
}

async fn order_of_a_key_holds_while_members_come_and_go(stage: &Stage) {
    const KEYS: usize = 12;
    const EACH: usize = 25;
    let topic = stage.topic(4).await;
    let calls = Calls::default();
    let route = calls.route(|turn| async move {
        tokio::time::sleep(Duration::from_millis(2 + turn.number as u64 % 7)).await;
        done()
    });
    let mut task = stage.task(&topic, [route]);
    // What is in flight when a drain runs out is handled again: that is not what is looked at here.
    task.subscription.drain = Duration::from_secs(60);
    stage.put(&topic, (0..KEYS * EACH).map(|n| keyed(&format!("k{}", n % KEYS), n)).collect()).await;
    let mut members = vec![stage.start(&task).await];
    for round in 1..=3 {
        calls.until("members make progress", |calls| calls.done() >= round * 40).await;
        members.push(stage.start(&task).await);
        calls.until("members make progress", |calls| calls.done() >= round * 40 + 20).await;
        if round == 2 {
            stage.stop(members.remove(0)).await;
        }
    }
    calls.until("all is handled while members come and go", |calls| calls.done() >= KEYS * EACH).await;
    stage.all_acked(&task).await;
    for member in members {
        stage.stop(member).await;
    }
    for (key, calls) in super::order::by_key(&calls) {
        let numbers: Vec<usize> = calls.iter().map(|call| call.number / KEYS).collect();
        same(
            &format!("messages of {key} are handled once, in order"),
            numbers,
            (0..EACH).collect::<Vec<_>>(),
        );
    }
}
