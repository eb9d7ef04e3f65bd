//! Checks of which handlers get an event, in which order, and how often.
//!
//! Not here: events that no handler takes (`letters.rs`).

use super::{
    calls::{Calls, done, fails, steady},
    stage::Stage,
    suite::group,
};
use ropeway_broker::Message;
use ropeway_broker::conformance::promise::{promised, same};
use std::time::Duration;

group! { "routing":
    "" handlers_of_one_event_run_in_the_order_of_registration;
    "" what_one_handler_finished_is_not_repeated_when_the_next_one_fails;
    "" a_handler_gets_the_topics_and_types_it_named;
    "S1" without_faults_each_message_is_delivered_and_handled_exactly_once;
}

fn of_type(event_type: &str, number: usize) -> Message {
    Message::builder().event_type(event_type).key(event_type.to_owned()).payload(number.to_string()).build()
}

async fn handlers_of_one_event_run_in_the_order_of_registration(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let mut routes = Vec::new();
    for name in ["first", "second", "third"] {
        routes.push(calls.named(name, "order.created", |_| async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            done()
        }));
    }
    let task = stage.task(&topic, routes);
    stage.put(&topic, (0..5).map(|n| of_type("order.created", n)).collect()).await;
    let running = stage.start(&task).await;
    calls.until("all handlers of all events run", |calls| calls.done() >= 15).await;
    stage.all_acked(&task).await;
    stage.stop(running).await;
    for number in 0..5 {
        let of_one = calls.of(number);
        let seen: Vec<_> = of_one.iter().map(|call| call.handler).collect();
        let promise = "an event goes through its handlers one after the other, as they were registered";
        same(promise, seen, ["first", "second", "third"]);
        let apart =
            |pair: &[super::calls::Call]| pair[0].ended_at().is_some_and(|ended| ended <= pair[1].began);
        promised(of_one.windows(2).all(apart), promise, || format!("handlers of message {number} overlap"));
    }
}

async fn what_one_handler_finished_is_not_repeated_when_the_next_one_fails(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let first =
        calls.named("first", "t", |turn| async move { if turn.attempt < 3 { fails() } else { done() } });
    let second =
        calls.named("second", "t", |turn| async move { if turn.attempt < 3 { fails() } else { done() } });
    let mut task = stage.task(&topic, [first, second]);
    task.settings.retry = steady(3, Duration::from_millis(3));
    stage.put(&topic, vec![of_type("t", 1)]).await;
    let running = stage.start(&task).await;
    calls.until("both handlers finish", |calls| calls.done() >= 2).await;
    stage.all_acked(&task).await;
    stage.stop(running).await;
    let seen: Vec<_> = calls.all().iter().map(|call| (call.handler, call.attempt)).collect();
    let expected = [("first", 1), ("first", 2), ("first", 3), ("second", 1), ("second", 2), ("second", 3)];
    same("attempts are counted for each handler, and what is finished is not repeated", seen, expected);
    same("nothing is dead-lettered", stage.letters(&task).await.len(), 0);
}

async fn a_handler_gets_the_topics_and_types_it_named(stage: &Stage) {
    let (orders, payments) = (stage.topic(1).await, stage.topic(1).await);
    let calls = Calls::default();
    let mut of_orders = calls.named("orders", "*", |_| async { done() });
    orders.as_str().clone_into(&mut of_orders.topics);
    let created = calls.named("created", "*.created", |_| async { done() });
    let paid = calls.named("paid", "payment.paid", |_| async { done() });
    let mut task = stage.task(&orders, [of_orders, created, paid]);
    task.subscription.topics.push(payments.clone());
    stage.put(&orders, vec![of_type("order.created", 1), of_type("order.paid", 2)]).await;
    stage.put(&payments, vec![of_type("payment.created", 3), of_type("payment.paid", 4)]).await;
    let running = stage.start(&task).await;
    calls.until("each handler gets its events", |calls| calls.done() >= 5).await;
    stage.all_acked(&task).await;
    stage.stop(running).await;
    let of = |number: usize| calls.of(number).iter().map(|call| call.handler).collect::<Vec<_>>();
    let seen = [of(1), of(2), of(3), of(4)];
    let expected = [vec!["orders", "created"], vec!["orders"], vec!["created"], vec!["paid"]];
    same("a handler gets what matches its topics and its types", seen, expected);
}

async fn without_faults_each_message_is_delivered_and_handled_exactly_once(stage: &Stage) {
    const EACH: usize = 400;
    let topic = stage.topic(4).await;
    let calls = Calls::default();
    let route = calls.route(|turn| async move {
        tokio::time::sleep(Duration::from_micros((turn.number as u64 * 7919) % 3000)).await;
        done()
    });
    let task = stage.task(&topic, [route]);
    let before = stage.broker_statistics();
    let message = |n: usize| {
        let message = Message::builder().event_type("t").payload(n.to_string());
        if n.is_multiple_of(5) { message.build() } else { message.key(format!("k{}", n % 37)).build() }
    };
    stage.put(&topic, (0..EACH).map(message).collect()).await;
    let running = stage.start(&task).await;
    calls.until("what was there is handled", |calls| calls.done() >= EACH / 2).await;
    stage.put(&topic, (EACH..EACH * 2).map(message).collect()).await;
    calls.until("what comes is handled", |calls| calls.done() >= EACH * 2).await;
    stage.all_acked(&task).await;
    let snapshot = running.snapshot();
    stage.stop(running).await;
    let running = stage.start(&task).await;
    stage.quiet().await;
    stage.stop(running).await;
    let twice: Vec<usize> = (0..EACH * 2).filter(|n| calls.of(*n).len() != 1).collect();
    same("each is handled exactly once", twice, Vec::<usize>::new());
    let after = stage.broker_statistics();
    let all = (EACH * 2) as u64;
    let seen = (snapshot.delivered, snapshot.handled, after.delivered - before.delivered);
    same("each is delivered exactly once, and counted so", seen, (all, all, all));
    let rest =
        (snapshot.retried, snapshot.dead_lettered, snapshot.given_up, snapshot.late, snapshot.in_flight);
    same("nothing else happened", rest, (0, 0, 0, 0, 0));
}
