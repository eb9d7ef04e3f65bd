//! Checks of order: one message of a key at a time, in order, whatever fails; and keys that never wait for each other.
//!
//! Not here: order across owners of a partition (`handover.rs`).

use super::{
    calls::{Call, Calls, done, fails, steady},
    stage::{Stage, eventually, keyed},
    suite::group,
};
use crate::RetryPolicy;
use ropeway_broker::conformance::promise::{Ought, promised, same};
use ropeway_broker::{Bound, MessageBroker, Target, Topic};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

group! { "order":
    "O2" order_of_a_key_holds_while_handlers_fail;
    "O3" a_key_goes_on_only_when_its_dead_letter_is_written;
    "O6" a_blocked_key_delays_no_other;
    "B2" a_key_that_fills_the_share_of_its_partition_stops_no_other_partition;
}

/// The calls of each key, in the order they began. Fails where two of a key overlap.
pub(super) fn by_key(calls: &Calls) -> BTreeMap<String, Vec<Call>> {
    let mut keys: BTreeMap<String, Vec<Call>> = BTreeMap::new();
    calls.all().into_iter().for_each(|call| keys.entry(call.key.clone()).or_default().push(call));
    for (key, calls) in &keys {
        for pair in calls.windows(2) {
            let apart = pair[0].ended_at().is_some_and(|ended| ended <= pair[1].began);
            promised(apart, "messages of a key are handled one at a time", || {
                format!("{key}: #{} began while #{} ran", pair[1].number, pair[0].number)
            });
        }
    }
    keys
}

/// A number that looks like any other, the same in every run.
fn mixed(number: usize, attempt: u32) -> u64 {
    let mut x = (number as u64) << 8 | u64::from(attempt);
    for _ in 0..3 {
        x = (x ^ (x >> 13)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    x >> 16
}

async fn order_of_a_key_holds_while_handlers_fail(stage: &Stage) {
    const KEYS: usize = 16;
    const EACH: usize = 25;
    let topic = stage.topic(2).await;
    let calls = Calls::default();
    let route = calls.route(|turn| async move {
        tokio::time::sleep(Duration::from_micros(mixed(turn.number, 99) % 4000)).await;
        if mixed(turn.number, turn.attempt).is_multiple_of(10) { fails() } else { done() }
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.concurrency = 32;
    task.settings.retry =
        RetryPolicy { max_attempts: 50, max_delay: Duration::from_millis(20), ..task.settings.retry };
    stage.put(&topic, (0..KEYS * EACH).map(|n| keyed(&format!("k{}", n % KEYS), n)).collect()).await;
    let running = stage.start(&task).await;
    calls.until("all are handled", |calls| calls.done() >= KEYS * EACH).await;
    stage.all_acked(&task).await;
    stage.stop(running).await;
    let keys = by_key(&calls);
    same("every key is there", keys.len(), KEYS);
    let failed = keys.values().flatten().filter(|call| !call.is_done()).count();
    promised(failed > KEYS, "handlers failed in this check", || format!("{failed} failed"));
    for (key, calls) in keys {
        let begun: Vec<usize> = calls.iter().map(|call| call.number).collect();
        let sorted = begun.windows(2).all(|pair| pair[0] <= pair[1]);
        promised(sorted, "a key goes on only when its message is done", || format!("{key}: {begun:?}"));
        let finished: Vec<usize> =
            calls.iter().filter(|call| call.is_done()).map(|call| call.number).collect();
        let expected: Vec<usize> = (0..EACH).map(|n| n * KEYS + begun[0]).collect();
        same(&format!("messages of {key} are done once, in order"), finished, expected);
    }
}

/// How many dead letters there are.
async fn buried(broker: &Arc<dyn MessageBroker>, topic: &Topic) -> u64 {
    let described = broker.admin().describe_topic(topic).await;
    described.map_or(0, |described| described.partitions.iter().filter_map(|of| of.messages).sum())
}

async fn a_key_goes_on_only_when_its_dead_letter_is_written(stage: &Stage) {
    const EACH: usize = 12;
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let seen: Arc<Mutex<BTreeMap<usize, u64>>> = Arc::default();
    let broker: Arc<dyn MessageBroker> = stage.broker().clone();
    let mut task = stage.task(&topic, []);
    let letters = topic.dead_letters_of(&task.subscription.group);
    let (noted, to) = (seen.clone(), letters.clone());
    // One key; every third message fails for good.
    let route = calls.route(move |turn| {
        let (broker, to, noted) = (broker.clone(), to.clone(), noted.clone());
        async move {
            let written = buried(&broker, &to).await;
            noted.lock().unwrap_or_else(PoisonError::into_inner).entry(turn.number).or_insert(written);
            if turn.number % 3 == 1 { fails() } else { done() }
        }
    });
    task.routes.push(route);
    task.settings.retry = steady(2, Duration::from_millis(3));
    stage.put(&topic, (0..EACH).map(|n| keyed("a", n)).collect()).await;
    let running = stage.start(&task).await;
    calls.until("the last is handled", |calls| calls.of(EACH - 1).iter().any(Call::is_done)).await;
    let written = stage.buried(&task, EACH / 3).await;
    stage.stop(running).await;
    by_key(&calls);
    let mut begun: Vec<usize> = calls.all().iter().map(|call| call.number).collect();
    begun.dedup();
    same(
        "a key goes on only when its message is done or dead-lettered",
        begun,
        (0..EACH).collect::<Vec<_>>(),
    );
    for (number, count) in seen.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let due = (0..*number).filter(|n| n % 3 == 1).count() as u64;
        promised(*count >= due, "when a message runs, the letters of those before it are written", || {
            format!("{count} of {due} when message {number} ran")
        });
    }
    let order: Vec<usize> = written.iter().map(super::stage::Letter::number).collect();
    same(
        "dead letters of a key lie in its order",
        order,
        (0..EACH).filter(|n| n % 3 == 1).collect::<Vec<_>>(),
    );
}

async fn a_blocked_key_delays_no_other(stage: &Stage) {
    const OTHERS: usize = 400;
    let (blocked, pause) = if stage.is_exact() {
        (Duration::from_secs(30), Duration::from_millis(100))
    } else {
        (Duration::from_secs(2), Duration::from_millis(10))
    };
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let gate = CancellationToken::new();
    let opens = gate.clone();
    let route = calls.route(move |turn| {
        let opens = opens.clone();
        async move {
            if turn.key == "a" {
                opens.cancelled().await;
            }
            done()
        }
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.concurrency = 4;
    task.settings.attempt_timeout = None;
    stage.put(&topic, (0..3).map(|n| keyed("a", n)).collect()).await;
    let running = stage.start(&task).await;
    calls.until("the first of the blocked key runs", |calls| calls.running() >= 1).await;
    let mut sent = BTreeMap::new();
    let rounds = usize::try_from(blocked.as_millis() / pause.as_millis()).unwrap_or(1);
    for round in 0..rounds {
        let number = 1000 + round;
        sent.insert(number, tokio::time::Instant::now());
        stage.put(&topic, vec![keyed(&format!("b{}", round % OTHERS), number)]).await;
        tokio::time::sleep(pause).await;
    }
    calls.until("other keys go on while one is blocked", |calls| calls.done() >= rounds).await;
    let waited = |(number, sent): (&usize, &tokio::time::Instant)| {
        let ended = calls.of(*number).first().and_then(Call::ended_at).ought("it is handled");
        ended.saturating_duration_since(*sent)
    };
    let mut waits: Vec<Duration> = sent.iter().map(waited).collect();
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    let bound = if stage.is_exact() { Duration::from_millis(100) } else { stage.slack() };
    promised(p99 < bound, "a blocked key delays no other key", || {
        format!("99 % of the others within {p99:?}")
    });
    gate.cancel();
    stage.all_acked(&task).await;
    stage.stop(running).await;
}

async fn a_key_that_fills_the_share_of_its_partition_stops_no_other_partition(stage: &Stage) {
    const SHARE: usize = 128;
    const OTHERS: usize = 200;
    let topic = stage.topic(4).await;
    let calls = Calls::default();
    let gate = CancellationToken::new();
    let opens = gate.clone();
    let route = calls.route(move |turn| {
        let opens = opens.clone();
        async move {
            if turn.key == "a" {
                opens.cancelled().await;
            }
            done()
        }
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.concurrency = SHARE * 3;
    // Four partitions: each may have half of it.
    task.subscription.in_flight = Bound { messages: SHARE * 2, bytes: 1 << 24 };
    let blocked = stage.put(&topic, (0..SHARE * 3).map(|n| keyed("a", n)).collect()).await[0].partition;
    let running = stage.start(&task).await;
    let promise = "a partition waits when its share of what may be in flight is full";
    eventually(promise, async || running.snapshot().partitions_full, |full| *full == 1).await;
    let to = |partition| Target { partition: Some(partition), ..Target::from(&topic) };
    let mut sent = 0;
    for partition in (0..4).filter(|partition| *partition != blocked) {
        let others = (0..OTHERS).map(|n| keyed(&format!("b{n}"), 10_000 + n)).collect();
        sent += stage.put(to(partition), others).await.len();
    }
    calls.until("the other partitions go on while one waits", |calls| calls.done() >= sent).await;
    // What its handlers are through with is not counted at once.
    let counted = async || (running.snapshot().in_flight, running.snapshot().partitions_full);
    eventually(promise, counted, |seen| *seen == (SHARE as u64, 1)).await;
    gate.cancel();
    calls.until("the partition goes on when its key does", |calls| calls.done() >= sent + SHARE * 3).await;
    stage.stop(running).await;
}
