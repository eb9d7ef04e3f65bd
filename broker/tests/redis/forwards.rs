//! What becomes of forwards whose connection ends: each takes effect once, whole, or is told truthfully.
//!
//! Not here: the script (`forward_script.rs`), what all backends promise of forwards (the conformance suite).

use super::{
    proxy::{DELAY, LATE, LOSE_ANSWERS, PASS, Proxy, REFUSE, SWALLOW},
    server::Server,
};
use futures::{FutureExt as _, future::join_all};
use ropeway_broker::{
    Admin, Consumer, ConsumerExt, Delivery, Event, Group, Message, MessageBroker, Owned, Published,
    RedisStreams, RedisStreamsSettings, Subscription, Target, Topic, TopicSpec,
};
use ropeway_store::redis::RedisSettings;
use std::{sync::Arc, time::Duration};
use tokio::{
    runtime::Runtime,
    time::{Instant, sleep, timeout},
};

/// A member with 20 messages in flight, behind a proxy.
struct Stage {
    server: Server,
    proxy: Proxy,
    broker: Arc<RedisStreams>,
    consumer: Box<dyn Consumer>,
    of: Owned,
    deliveries: Vec<Delivery>,
}

impl Stage {
    async fn set(publish_deadline: Duration) -> Self {
        let server = Server::own();
        let proxy = Proxy::before(server.socket()).await;
        let settings = RedisStreamsSettings {
            prefix: server.prefix.clone(),
            publish_deadline,
            ..RedisStreamsSettings::default()
        };
        let url = RedisSettings::from_url(&format!("redis://{}", proxy.address)).unwrap();
        let broker = RedisStreams::connect(url, settings).await.unwrap();
        let [from, to] = ["s", "t"].map(|name| Topic::new(name).unwrap());
        for topic in [&from, &to] {
            broker.create_topic(topic, TopicSpec::partitions(1)).await.unwrap();
        }
        let mut consumer =
            broker.subscribe(Subscription::new(Group::new("g").unwrap(), [from.clone()])).await.unwrap();
        let batch = (0..20).map(|number| Message::builder().payload(number.to_string()).build()).collect();
        assert!(broker.publish(&Target::from(&from), batch).await.all_acked());
        let (mut deliveries, mut owned) = (Vec::new(), None);
        while deliveries.len() < 20 {
            match timeout(Duration::from_secs(20), consumer.next()).await.unwrap().unwrap() {
                Event::Batch(batch) => {
                    owned = Some(batch.of);
                    deliveries.extend(batch.deliveries);
                }
                Event::Assigned(_) | Event::CaughtUp(_) => {}
                other => panic!("{other:?}"),
            }
        }
        Self { server, proxy, broker, consumer, of: owned.unwrap(), deliveries }
    }

    /// Forwards each message by itself; what each came to.
    fn forward(&self) -> impl Future<Output = Vec<Published>> + use<> {
        let control = self.consumer.control();
        let to = Target::from(Topic::new("t").unwrap());
        let forward = |delivery: &Delivery| {
            let copy = Message::builder().payload(delivery.message.payload.clone().unwrap()).build();
            control.forward(&self.of, &[delivery.position], vec![(to.clone(), copy)])
        };
        let answers: Vec<_> = self.deliveries.iter().map(forward).collect();
        async { join_all(answers).await.into_iter().map(|mut outcomes| outcomes.0.remove(0)).collect() }
    }

    /// The numbers in the target, in order.
    fn numbers(&mut self) -> Vec<usize> {
        let prefix = &self.server.prefix;
        let read = format!("XRANGE {prefix}:{{t/0}}:log - +");
        let entries: Vec<(String, Vec<Vec<u8>>)> = self.server.ask(&read);
        let payload =
            |fields: &Vec<Vec<u8>>| String::from_utf8_lossy(fields.last().unwrap()).parse().unwrap();
        entries.iter().map(|(_, fields)| payload(fields)).collect()
    }

    async fn unfinished(&self) -> Option<u64> {
        let described = self.broker.describe_group(&Group::new("g").unwrap()).await.unwrap();
        described.partitions[0].unfinished
    }
}

async fn a_forward_whose_answer_is_lost_takes_effect_once_and_acks() {
    for mode in [LOSE_ANSWERS, REFUSE, DELAY] {
        let mut stage = Stage::set(Duration::from_secs(20)).await;
        stage.proxy.set(mode);
        let forwarded = tokio::spawn(stage.forward());
        sleep(Duration::from_millis(150)).await;
        stage.proxy.set(PASS);
        let outcomes = timeout(Duration::from_secs(20), forwarded).await.unwrap().unwrap();
        assert!(outcomes.iter().all(Published::is_acked), "{mode}: {outcomes:?}");
        // What reaches the server late.
        sleep(2 * LATE).await;
        assert_eq!(stage.numbers(), (0..20).collect::<Vec<_>>(), "{mode}");
        assert_eq!(stage.unfinished().await, Some(0), "{mode}");
    }
}

async fn a_server_that_says_nothing_does_not_keep_a_forward_beyond_its_deadline() {
    let stage = Stage::set(Duration::from_secs(2)).await;
    stage.proxy.set(SWALLOW);
    let begin = Instant::now();
    let outcomes = timeout(Duration::from_secs(20), stage.forward()).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert!(!outcomes.iter().any(Published::is_acked), "{outcomes:?}");
}

async fn what_is_acked_behind_a_forward_that_nobody_knows_of_is_stored_or_told_as_lost() {
    let mut stage = Stage::set(Duration::from_secs(2)).await;
    let places: Vec<_> = [1, 3, 5].into_iter().map(|at: usize| stage.deliveries[at].position).collect();
    let [first, second, third] = [1, 3, 7].map(|at: usize| stage.deliveries[at].clone());
    stage.deliveries = vec![third];
    assert!(stage.forward().await[0].is_acked());
    stage.deliveries = vec![first, second];
    stage.proxy.set(LOSE_ANSWERS);
    let outcomes = stage.forward().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Published::Unknown(_))), "{outcomes:?}");
    stage.proxy.set(PASS);
    let control = stage.consumer.control();
    // The forwards took effect, which their owner does not know.
    assert_eq!(stage.numbers(), [7, 1, 3]);
    if control.ack(&stage.of, &places[2..]).is_ok() && control.flush().await.is_empty() {
        assert_eq!(stage.unfinished().await, Some(16), "a confirmed ack");
        return;
    }
    let mut again = 0;
    while again < 17 {
        match timeout(Duration::from_secs(20), stage.consumer.next()).await.unwrap().unwrap() {
            Event::Batch(batch) => {
                assert!(batch.of.epoch > stage.of.epoch);
                assert!(batch.deliveries.iter().all(|delivery| !places[..2].contains(&delivery.position)));
                again += batch.deliveries.len();
            }
            Event::Gone(..) | Event::Assigned(_) | Event::CaughtUp(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// On the way, waiting, or begun behind the end.
async fn forwards_of_a_member_whose_runtime_ends_ack_nothing_and_are_told_truthfully() {
    let runtime = Runtime::new().unwrap();
    let mut stage = runtime.spawn(Stage::set(Duration::from_secs(20))).await.unwrap();
    // What is to be known of the target is known already, unless it takes so long that it is asked for again.
    let broker = Arc::clone(&stage.broker);
    let known = async move { broker.describe_topic(&Topic::new("t").unwrap()).await };
    runtime.spawn(known).await.unwrap().unwrap();
    stage.proxy.set(SWALLOW);
    let before = stage.forward();
    // Until the first of them is on its way, so that nobody knows what becomes of it.
    let end = Instant::now() + Duration::from_secs(20);
    while !["{t/0}:log", "topic:{t}"].iter().any(|word| stage.proxy.swallowed(word)) {
        assert!(Instant::now() < end, "nothing is on its way");
        sleep(Duration::from_millis(10)).await;
    }
    runtime.shutdown_background();
    for (forwarded, is_sent) in [(before.boxed(), true), (stage.forward().boxed(), false)] {
        let outcomes = timeout(Duration::from_secs(10), forwarded).await.unwrap();
        assert!(!is_sent || matches!(outcomes[0], Published::Unknown(_)), "{:?}", outcomes[0]);
        let stored = stage.numbers();
        for (number, outcome) in outcomes.iter().enumerate() {
            let is_true = match outcome {
                Published::Acked { .. } => false,
                // It waited for its round when the runtime ended.
                Published::NotWritten(_) => !stored.contains(&number),
                Published::Unknown(_) => true,
            };
            assert!(is_true, "{number}: {outcome:?}, {stored:?}");
        }
    }
}

super::async_tests! {
    a_forward_whose_answer_is_lost_takes_effect_once_and_acks,
    a_server_that_says_nothing_does_not_keep_a_forward_beyond_its_deadline,
    what_is_acked_behind_a_forward_that_nobody_knows_of_is_stored_or_told_as_lost,
    forwards_of_a_member_whose_runtime_ends_ack_nothing_and_are_told_truthfully,
}
