//! Checks of the `Publisher` above the contract, over the backend under test: bounds, age of a batch, flush, order.
//!
//! Not here: publishing batches by the contract itself (`publish.rs`).

use super::{
    Publishing,
    promise::{Ought, broken, promised, same},
    stage::{PATIENCE, QUIET, Stage, at, keyed, text, within},
    suite::group,
    watch::Got,
};
use crate::{Bound, ErrorKind, Message, PublisherSettings, Topic};
use futures::{FutureExt, future::BoxFuture};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};

group! { "publisher":
    "P5" a_publisher_takes_over_no_more_than_its_bound;
    "P7" linger_is_the_age_of_the_first_not_a_pause_after_the_last;
    "D4" flush_waits_for_all_that_was_taken_over;
    "D4" close_publishes_what_was_taken_over_and_takes_no_more;
    "P3" a_message_whose_outcome_nobody_awaits_is_published;
    "" a_publisher_keeps_the_order_of_a_key;
}

/// What a batch waits for others where nobody flushes: longer than any check.
const LONG: Duration = Duration::from_secs(3600);

fn publisher(stage: &Stage, settings: PublisherSettings) -> Arc<dyn Publishing> {
    stage.publisher(settings).ought("settings within their bounds are taken")
}

type Pending = BoxFuture<'static, Result<crate::Receipt, crate::PublishFailed>>;

async fn enqueue(publisher: &Arc<dyn Publishing>, topic: &Topic, message: Message) -> Pending {
    let promise = "a publisher takes over what it has room for";
    within(promise, publisher.enqueue(at(topic, 0), message)).await.ought(promise)
}

async fn a_publisher_takes_over_no_more_than_its_bound(stage: &Stage) {
    let topic = stage.topic(1).await;
    let in_flight = Bound { messages: 10, bytes: 1 << 20 };
    let publisher = publisher(stage, PublisherSettings { in_flight, linger: LONG, ..Default::default() });
    let mut open = Vec::new();
    for i in 0..10 {
        open.push(enqueue(&publisher, &topic, text(i)).await);
    }
    let eleventh = publisher.enqueue(at(&topic, 0), text(10));
    let mut eleventh = Box::pin(eleventh);
    let waits = timeout(QUIET, &mut eleventh).await.is_err();
    promised(waits, "who publishes more than the bound waits", || "it was taken over".into());
    within("flush answers", publisher.flush(PATIENCE)).await.ought("what was taken over can be published");
    let promise = "who waits for room goes on when there is room";
    open.push(within(promise, eleventh).await.ought(promise));
    within("flush answers", publisher.flush(PATIENCE)).await.ought("what was taken over can be published");
    for outcome in open {
        within("an outcome comes", outcome).await.ought("what was taken over is acked");
    }
    same("all is in the log once", stage.content(&topic).await.len(), 11);
}

async fn linger_is_the_age_of_the_first_not_a_pause_after_the_last(stage: &Stage) {
    let topic = stage.topic(1).await;
    let linger = Duration::from_millis(200);
    let publisher = publisher(stage, PublisherSettings { linger, ..Default::default() });
    let mut open = Vec::new();
    for i in 0..40 {
        let (start, outcome) = (Instant::now(), enqueue(&publisher, &topic, text(i)).await);
        open.push(tokio::spawn(async move {
            outcome.await.ought("what was taken over is acked");
            start.elapsed()
        }));
        sleep(Duration::from_millis(50)).await;
    }
    for took in open {
        let took = within("an outcome comes", took).await.ought("an outcome comes");
        promised(took <= linger + stage.slack(), "no message waits longer for others than `linger`", || {
            format!("{took:?} where messages come all the time")
        });
    }
}

async fn flush_waits_for_all_that_was_taken_over(stage: &Stage) {
    let topic = stage.topic(1).await;
    let publisher = publisher(stage, PublisherSettings { linger: LONG, ..Default::default() });
    let mut open = Vec::new();
    for i in 0..100 {
        open.push(enqueue(&publisher, &topic, text(i)).await);
    }
    within("flush answers", publisher.flush(PATIENCE)).await.ought("what was taken over can be published");
    for outcome in open {
        match outcome.now_or_never() {
            Some(outcome) => _ = outcome.ought("what was taken over is acked"),
            None => broken("after flush all that was taken over has its outcome", "one has none"),
        }
    }
    let numbers: Vec<_> = stage.content(&topic).await.iter().map(Got::number).collect();
    same("all that was flushed is in the log", numbers, (0..100).collect::<Vec<_>>());
}

async fn close_publishes_what_was_taken_over_and_takes_no_more(stage: &Stage) {
    let topic = stage.topic(1).await;
    let publisher = publisher(stage, PublisherSettings { linger: LONG, ..Default::default() });
    let outcome = enqueue(&publisher, &topic, text(0)).await;
    within("close answers", publisher.close(PATIENCE)).await.ought("what was taken over can be published");
    within("an outcome comes", outcome).await.ought("what was taken over before close is acked");
    let message = text(1);
    match within("enqueue answers", publisher.enqueue(at(&topic, 0), message.clone())).await {
        Ok(_) => broken("after close a publisher takes nothing over", "it did"),
        Err(refused) => {
            same("after close a publisher is closed", refused.failed.error.kind(), ErrorKind::Closed);
            same("what is not taken over is given back", &refused.failed.message, &message);
            same("it is certainly not written", refused.may_be_written, false);
        }
    }
    same("only what was taken over is in the log", stage.content(&topic).await.len(), 1);
}

async fn a_message_whose_outcome_nobody_awaits_is_published(stage: &Stage) {
    let topic = stage.topic(1).await;
    let publisher = publisher(stage, PublisherSettings::default());
    for i in 0..20 {
        drop(enqueue(&publisher, &topic, text(i)).await);
    }
    drop(publisher);
    let mut reader = stage.follow(&topic).await;
    reader.until("what was taken over is published although nobody waits", |r| r.got().count() >= 20).await;
    reader.idle(QUIET).await;
    let mut numbers = reader.numbers();
    numbers.sort_unstable();
    same("it is published once", numbers, (0..20).collect::<Vec<_>>());
}

async fn a_publisher_keeps_the_order_of_a_key(stage: &Stage) {
    let topic = stage.topic(1).await;
    let batch = Bound { messages: 7, bytes: 1 << 20 };
    let publisher = publisher(stage, PublisherSettings { batch, ..Default::default() });
    let mut open = Vec::new();
    for i in 0..200 {
        open.push(enqueue(&publisher, &topic, keyed(&format!("k{}", i % 3), i / 3)).await);
        if i % 20 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for outcome in open {
        within("an outcome comes", outcome).await.ought("what was taken over is acked");
    }
    let content = stage.content(&topic).await;
    for key in ["k0", "k1", "k2"] {
        let numbers: Vec<_> = content.iter().filter(|got| got.key() == key).map(Got::number).collect();
        let expected: Vec<_> = (0..numbers.len()).collect();
        same("messages of a key lie in the order they were published", numbers, expected);
    }
    same("all is in the log once", content.len(), 200);
}
