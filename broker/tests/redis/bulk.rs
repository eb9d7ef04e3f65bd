//! Much that is published at once: the server is told to read it in larger pieces, and none of it is lost or doubled by that.
//!
//! Not here: how much that saves (`redis-publish-1024` of benches/rivals).

use super::{
    proxy::{LOSE_ANSWERS, PASS, Proxy},
    server::Server,
};
use futures::future::join_all;
use ropeway_broker::{
    Admin, Message, MessageBroker, Outcomes, Published, RedisStreams, Target, Topic, TopicSpec,
};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// Messages of a batch of 256 KiB.
const BATCH: usize = 256;

struct Stage {
    server: Server,
    proxy: Proxy,
    broker: Arc<RedisStreams>,
    to: Target,
}

impl Stage {
    async fn set() -> Self {
        let mut server = Server::own();
        let _: String = server.ask("ACL SETUSER u on >p ~* &* +@all");
        let proxy = Proxy::before(server.socket()).await;
        let url = format!("redis://u:p@{}?prefix={}&publish_deadline=80s", proxy.address, server.prefix);
        let broker = RedisStreams::of_url(&url).await.unwrap();
        let topic = Topic::new("t").unwrap();
        broker.create_topic(&topic, TopicSpec::partitions(1)).await.unwrap();
        Self { server, proxy, broker, to: topic.into() }
    }

    /// Batches, all on their way at once.
    fn publish(&self, batches: std::ops::Range<usize>) -> impl Future<Output = Vec<Outcomes>> + use<> {
        let message = |number: usize| Message::builder().key("k").payload(format!("{number:01024}")).build();
        let batch = |at: usize| (at * BATCH..(at + 1) * BATCH).map(message).collect();
        join_all(batches.map(|at| self.broker.publish(&self.to, batch(at))).collect::<Vec<_>>())
    }

    /// Whether it was told.
    fn widened(&mut self) -> bool {
        let text: String = self.server.ask("INFO commandstats");
        text.contains("cmdstat_script|exists")
    }

    /// The numbers that lie in the log, in its order.
    fn numbers(&mut self) -> Vec<usize> {
        let log = format!("{}:{{t/0}}:log", self.server.prefix);
        let entries: Vec<(String, Vec<Vec<u8>>)> = self.server.ask(&format!("XRANGE {log} - +"));
        entries
            .iter()
            .map(|(_, fields)| String::from_utf8_lossy(fields.last().unwrap()).parse().unwrap())
            .collect()
    }
}

async fn the_server_is_told_when_much_is_published_and_not_before() {
    let mut stage = Stage::set().await;
    assert!(stage.publish(0..4).await.iter().all(Outcomes::all_acked));
    assert!(!stage.widened(), "less than 4 MiB were sent");
    assert!(stage.publish(4..44).await.iter().all(Outcomes::all_acked));
    assert!(stage.widened());
    assert_eq!(stage.numbers(), (0..44 * BATCH).collect::<Vec<_>>());
}

async fn what_is_open_with_the_long_word_is_settled_by_its_own_answers() {
    let mut stage = Stage::set().await;
    // Once it is refused; once the connection ends with it on its way.
    let _: String = stage.server.ask("ACL SETUSER u -script|exists");
    assert!(stage.publish(0..24).await.iter().all(Outcomes::all_acked));
    let _: String = stage.server.ask("ACL SETUSER u +script|exists");
    for round in 1..4 {
        let connections = stage.proxy.connections();
        let publishing = tokio::spawn(stage.publish(round * 24..(round + 1) * 24));
        sleep(Duration::from_millis(20 * round as u64)).await;
        stage.proxy.set(LOSE_ANSWERS);
        for _ in 0..500 {
            if stage.proxy.connections() > connections {
                break;
            }
            sleep(Duration::from_millis(2)).await;
        }
        stage.proxy.set(PASS);
        for outcomes in publishing.await.unwrap() {
            let failed = outcomes.0.iter().filter_map(Published::failed).next();
            assert!(failed.is_none(), "round {round}: {}", failed.unwrap().error);
        }
    }
    assert_eq!(stage.numbers(), (0..96 * BATCH).collect::<Vec<_>>());
}

super::async_tests! {
    the_server_is_told_when_much_is_published_and_not_before,
    what_is_open_with_the_long_word_is_settled_by_its_own_answers,
}
