//! Connect, publish, handle with retries and dead letters: `cargo run -p ropeway-processor --example quickstart`.
#![expect(clippy::print_stdout, reason = "it is a program")]

use ropeway_broker::{Group, Message, MessageBrokerExt, Subscription, Topic, TopicSpec, connect};
use ropeway_processor::{BoxError, Context, Processor, Router, Verdict, json};
use std::time::Duration;

async fn bill(total: f64, cx: Context) -> Result<Verdict, BoxError> {
    if total < 0.0 {
        return Ok(Verdict::reject("the total is negative")); // to the topic orders.billing.dlq, with the reason
    } else if cx.attempt() == 1 {
        return Err("the till is busy".into()); // tried again while this customer waits and others go on
    }
    println!("billed {total} at attempt {}", cx.attempt());
    Ok(Verdict::Done)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (broker, orders) = (connect("memory:").await?, Topic::new("orders")?); // or "embedded:./data"
    broker.admin().create_topic(&orders, TopicSpec::partitions(4)).await?;
    for total in ["9.5", "-1", "nonsense"] {
        let order = Message::builder().key("customer-7").event_type("order.created").payload(total);
        broker.publish_one(&orders, order.build()).await?;
    }
    let subscription = Subscription::new(Group::new("billing")?, [orders]);
    let router = Router::new().on("order.created", json(bill));
    let billing = Processor::builder(broker, subscription).router(router).start().await?;
    while billing.snapshot().handled + billing.snapshot().dead_lettered < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{:?}", billing.shutdown(Duration::from_secs(10)).await);
    Ok(())
}
