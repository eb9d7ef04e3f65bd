//! Connect, publish, handle with retries and dead letters: `cargo run -p ropeway-processor --example quickstart`.
use ropeway_broker::{Group, Message, MessageBrokerExt, Subscription, Topic, TopicSpec, connect};
use ropeway_processor::{BoxError, Context, Processor, Router, Verdict, json};
use std::time::Duration;

async fn bill(total: f64, cx: Context) -> Result<Verdict, BoxError> {
    match cx.attempt() {
        _ if total < 0.0 => Ok(Verdict::reject("the total is negative")), // to the topic orders.billing.dlq
        1 => Err("the till is busy".into()), // tried again while this customer waits and others go on
        _ => Ok(Verdict::Done),
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (broker, orders) = (connect("memory:").await?, Topic::new("orders")?); // or "embedded:./data"
    broker.admin().create_topic(&orders, TopicSpec::partitions(4)).await?;
    for total in ["9.5", "-1", "nonsense"] {
        let order = Message::builder().key("customer-7").event_type("order.created").payload(total).build();
        broker.publish_one(&orders, order).await?;
    }
    let router = Router::new().on("order.created", json(bill));
    let subscription = Subscription::new(Group::new("billing")?, [orders]);
    let billing = Processor::builder(broker, subscription).router(router).start().await?;
    while billing.snapshot().handled + billing.snapshot().dead_lettered < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    eprintln!("{:#?}\n{:?}", billing.snapshot(), billing.shutdown(Duration::from_secs(10)).await);
    Ok(())
}
