//! What becomes of publishes whose connection ends: each is acked once and lies once, in order, or is told truthfully.

use super::{
    nodes::Node,
    proxy::{DELAY, LATE, LOSE_ANSWERS, PASS, Proxy, REFUSE, SWALLOW},
    server::Server,
};
use futures::future::join_all;
use ropeway_broker::{
    Admin, Durability, ErrorKind, Message, MessageBroker, Outcomes, Published, RedisStreams,
    RedisStreamsSettings, Target, Timestamp, Topic, TopicSpec,
};
use ropeway_store::redis::RedisSettings;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

struct Stage {
    server: Server,
    proxy: Proxy,
    broker: Arc<RedisStreams>,
    to: Target,
    log: String,
    _cluster: Option<(Node, tempfile::TempDir)>,
}

impl Stage {
    async fn set(publish_deadline: Duration) -> Self {
        let server = Server::own();
        let proxy = Proxy::before(server.socket()).await;
        Self::before("redis", server, proxy, publish_deadline).await
    }

    /// The same with a cluster of one node.
    async fn set_cluster(publish_deadline: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let proxy = Proxy::before(socket.clone()).await;
        let node = Node::alone(&socket, &proxy.address);
        let stage = Self::before("redis+cluster", Server::at(&socket), proxy, publish_deadline).await;
        Self { _cluster: Some((node, dir)), ..stage }
    }

    async fn before(scheme: &str, server: Server, proxy: Proxy, publish_deadline: Duration) -> Self {
        let settings = RedisStreamsSettings {
            prefix: server.prefix.clone(),
            publish_deadline,
            ..RedisStreamsSettings::default()
        };
        let url = RedisSettings::from_url(&format!("{scheme}://{}", proxy.address)).unwrap();
        let broker = Box::pin(RedisStreams::connect(url, settings)).await.unwrap();
        let topic = Topic::new("t").unwrap();
        broker.create_topic(&topic, TopicSpec::partitions(1)).await.unwrap();
        let log = format!("{}:{{t/0}}:log", server.prefix);
        Self { server, proxy, broker, to: topic.into(), log, _cluster: None }
    }

    fn publish(&self, numbers: std::ops::Range<usize>) -> impl Future<Output = Vec<Outcomes>> + use<> {
        let message = |number: usize| Message::builder().key("k").payload(number.to_string()).build();
        join_all(
            numbers.map(|number| self.broker.publish(&self.to, vec![message(number)])).collect::<Vec<_>>(),
        )
    }

    /// The numbers that lie in the log, in its order.
    fn numbers(&mut self) -> Vec<usize> {
        let entries: Vec<(String, Vec<Vec<u8>>)> = self.server.ask(&format!("XRANGE {} - +", self.log));
        let payload = |fields: &Vec<Vec<u8>>| {
            fields.last().map(|payload| String::from_utf8_lossy(payload).into_owned())
        };
        entries.iter().filter_map(|(_, fields)| payload(fields)?.parse().ok()).collect()
    }
}

async fn what_is_sent_again_after_a_cut_lies_there_once_and_in_order() {
    for (mode, pause) in [(LOSE_ANSWERS, 100), (REFUSE, 100), (LOSE_ANSWERS, 0)] {
        let mut stage = Stage::set(Duration::from_secs(20)).await;
        let first = stage.publish(0..50).await;
        assert!(first.iter().all(Outcomes::all_acked));
        stage.proxy.set(mode);
        let cut = tokio::spawn(stage.publish(50..100));
        sleep(Duration::from_millis(pause)).await;
        let later = tokio::spawn(stage.publish(100..150));
        stage.proxy.set(PASS);
        for outcomes in cut.await.unwrap().into_iter().chain(later.await.unwrap()) {
            assert!(outcomes.all_acked(), "{outcomes:?}");
        }
        assert_eq!(stage.numbers(), (0..150).collect::<Vec<_>>(), "mode {mode}");
    }
}

async fn what_is_open_in_several_writes_keeps_its_order_through_many_cuts() {
    let mut stage = Stage::set(Duration::from_secs(60)).await;
    let mut publishing = Vec::new();
    for round in (0..40).filter(|round| round % 4 != 3) {
        // Several writes' worth, so that the cut meets more than one on its way, in the middle of a command.
        publishing.push(tokio::spawn(stage.publish(round * 600..(round + 1) * 600)));
        tokio::task::yield_now().await;
        if round % 4 == 2 {
            let before = stage.proxy.connections();
            stage.proxy.set(if round / 4 % 2 == 0 { LOSE_ANSWERS } else { DELAY });
            publishing.push(tokio::spawn(stage.publish((round + 1) * 600..(round + 1) * 600 + 300)));
            while stage.proxy.connections() == before {
                sleep(Duration::from_millis(1)).await;
            }
            stage.proxy.set(PASS);
            publishing.push(tokio::spawn(stage.publish((round + 1) * 600 + 300..(round + 2) * 600)));
        }
        sleep(Duration::from_millis(round as u64 % 4)).await;
    }
    for outcomes in join_all(publishing).await {
        assert!(outcomes.unwrap().iter().all(Outcomes::all_acked));
    }
    sleep(2 * LATE).await;
    assert_eq!(stage.numbers(), (0..24_000).collect::<Vec<_>>());
}

async fn what_reaches_the_server_after_it_was_sent_again_does_nothing() {
    reached_late(Stage::set(Duration::from_secs(20)).await).await;
}

async fn what_reaches_a_node_of_a_cluster_after_it_was_sent_again_does_nothing() {
    reached_late(Stage::set_cluster(Duration::from_secs(20)).await).await;
}

async fn reached_late(mut stage: Stage) {
    assert!(stage.publish(0..5).await.iter().all(Outcomes::all_acked));
    stage.proxy.set(DELAY);
    let cut = tokio::spawn(stage.publish(5..10));
    sleep(LATE / 10).await;
    stage.proxy.set(PASS);
    assert!(cut.await.unwrap().iter().all(Outcomes::all_acked));
    assert!(stage.publish(10..12).await.iter().all(Outcomes::all_acked));
    sleep(2 * LATE).await;
    assert_eq!(stage.numbers(), (0..12).collect::<Vec<_>>());
}

async fn what_is_due_while_the_server_is_away_is_moved_when_it_is_back_however_old_its_mark_is() {
    let mut stage = Stage::set(Duration::from_secs(20)).await;
    let due = Timestamp::now() + Duration::from_millis(3000);
    let message = Message::builder().payload("7").deliver_at(due).build();
    assert!(stage.broker.publish(&stage.to, vec![message]).await.all_acked());
    // As if the server had been away for longer than marks are heeded.
    let _: i64 = stage.server.ask(&format!("HSET {}:topic:{{t}} held 1", stage.server.prefix.clone()));
    stage.proxy.set(REFUSE);
    sleep(Duration::from_millis(4500)).await;
    assert_eq!(stage.numbers(), [0; 0]);
    stage.proxy.set(PASS);
    for _ in 0..100 {
        if stage.numbers() == [7] {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("it is still held");
}

async fn a_server_that_says_nothing_does_not_keep_a_publish_beyond_its_deadline() {
    let stage = Stage::set(Duration::from_secs(2)).await;
    assert!(stage.publish(0..3).await.iter().all(Outcomes::all_acked));
    stage.proxy.set(SWALLOW);
    let begun = tokio::time::Instant::now();
    for outcomes in stage.publish(3..6).await {
        assert!(matches!(&outcomes.0[..], [Published::Unknown(_)]), "{outcomes:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    stage.proxy.set(PASS);
    assert!(stage.publish(6..9).await.iter().all(Outcomes::all_acked));
}

async fn what_nobody_knows_of_at_its_deadline_is_unknown_and_what_was_never_sent_is_not_written() {
    let mut stage = Stage::set(Duration::from_secs(2)).await;
    assert!(stage.publish(0..3).await.iter().all(Outcomes::all_acked));
    stage.proxy.set(LOSE_ANSWERS);
    let sent = tokio::spawn(stage.publish(3..6));
    sleep(Duration::from_secs(1)).await;
    // There is no connection by now over which these could be sent.
    let waiting = tokio::spawn(stage.publish(6..9));
    for outcomes in sent.await.unwrap() {
        let [Published::Unknown(failed)] = &outcomes.0[..] else { panic!("{outcomes:?}") };
        assert_eq!(failed.error.kind(), ErrorKind::Unavailable);
        assert!(failed.message.payload.is_some());
    }
    for outcomes in waiting.await.unwrap() {
        assert!(matches!(&outcomes.0[..], [Published::NotWritten(_)]), "{outcomes:?}");
    }
    stage.proxy.set(PASS);
    assert!(stage.publish(9..10).await.iter().all(Outcomes::all_acked));
    let numbers = stage.numbers();
    assert_eq!((&numbers[..3], numbers.last()), (&[0, 1, 2][..], Some(&9)));
    assert!(numbers.iter().all(|number| !(6..9).contains(number)), "{numbers:?}");
    let statistics = stage.broker.statistics();
    assert_eq!((statistics.published, statistics.unknown, statistics.not_written), (4, 3, 3));
}

async fn what_an_ack_is_worth_is_asked_again_with_each_connection() {
    let mut stage = Stage::set(Duration::from_secs(20)).await;
    for (configuration, expected) in [
        ("appendonly no", Durability::Volatile),
        // Synced each second, which is the default.
        ("appendonly yes", Durability::Volatile),
        ("appendfsync no", Durability::ProcessCrash),
        ("appendfsync always", Durability::PowerLoss),
    ] {
        let _: String = stage.server.ask(&format!("CONFIG SET {configuration}"));
        let _: i64 = stage.server.ask("CLIENT KILL TYPE normal");
        let outcomes = stage.publish(0..1).await.remove(0);
        let [Published::Acked { durability, .. }] = &outcomes.0[..] else { panic!("{outcomes:?}") };
        assert_eq!(*durability, expected);
        assert_eq!(stage.broker.describe_topic(&stage.to.topic).await.unwrap().durability, expected);
    }
}

async fn scripts_that_the_server_forgot_are_made_known_again() {
    let mut stage = Stage::set(Duration::from_secs(20)).await;
    let _: String = stage.server.ask("SCRIPT FLUSH");
    let other = Topic::new("u").unwrap();
    stage.broker.create_topic(&other, TopicSpec::partitions(3)).await.unwrap();
    let _: String = stage.server.ask("SCRIPT FLUSH");
    stage.proxy.set(LOSE_ANSWERS);
    let cut = tokio::spawn(stage.publish(0..5));
    sleep(Duration::from_millis(50)).await;
    stage.proxy.set(PASS);
    assert!(cut.await.unwrap().iter().all(Outcomes::all_acked));
    assert_eq!(stage.numbers(), [0, 1, 2, 3, 4]);
}

async fn a_key_of_another_kind_under_our_name_and_a_newer_description_are_told_by_name() {
    let mut stage = Stage::set(Duration::from_secs(20)).await;
    let prefix = stage.server.prefix.clone();
    let _: i64 = stage.server.ask(&format!("DEL {}", stage.log));
    let _: String = stage.server.ask(&format!("SET {} x", stage.log));
    let outcomes = stage.publish(0..1).await.remove(0);
    let [Published::NotWritten(failed)] = &outcomes.0[..] else { panic!("{outcomes:?}") };
    assert_eq!(failed.error.kind(), ErrorKind::Conflict);
    let _: String = stage.server.ask(&format!("SET {prefix}:{{w/0}}:log x"));
    let made =
        stage.broker.create_topic(&Topic::new("w").unwrap(), TopicSpec::partitions(1)).await.unwrap_err();
    assert!(made.kind() == ErrorKind::Conflict && made.to_string().contains("{w/0}:log"), "{made}");
    let _: i64 = stage.server.ask(&format!("HSET {prefix}:topic:{{v}} version 2"));
    let topic = Topic::new("v").unwrap();
    for error in [
        stage.broker.describe_topic(&topic).await.unwrap_err(),
        stage.broker.create_topic(&topic, TopicSpec::partitions(1)).await.unwrap_err(),
    ] {
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("format 2"), "{error}");
    }
}

async fn what_a_server_refuses_is_told_with_its_name() {
    let mut stage = Stage::set(Duration::from_secs(20)).await;
    let prefix = stage.server.prefix.clone();
    let _: i64 = stage.server.ask(&format!("DEL {}", stage.log));
    let _: String = stage.server.ask(&format!("SET {} x", stage.log));
    let outcomes = stage.publish(0..1).await.remove(0);
    let [Published::NotWritten(published)] = &outcomes.0[..] else { panic!("{outcomes:?}") };
    let _: String = stage.server.ask(&format!("SET {prefix}:topic:{{v}} x"));
    let asked = stage.broker.describe_topic(&Topic::new("v").unwrap()).await.unwrap_err();
    let _: String = stage.server.ask("CONFIG SET maxmemory 1");
    let made = stage.broker.create_topic(&Topic::new("w").unwrap(), TopicSpec::partitions(1)).await;
    let made = made.unwrap_err();
    let name = format!("redis {} answers", stage.proxy.address);
    for (error, code) in [(&published.error, "WRONGTYPE"), (&asked, "WRONGTYPE"), (&made, "OOM")] {
        let text = error.to_string();
        assert!(text.contains(&name) && text.contains(code), "{text}");
    }
}

super::async_tests! {
    what_a_server_refuses_is_told_with_its_name,
    what_is_sent_again_after_a_cut_lies_there_once_and_in_order,
    what_is_open_in_several_writes_keeps_its_order_through_many_cuts,
    what_reaches_the_server_after_it_was_sent_again_does_nothing,
    what_reaches_a_node_of_a_cluster_after_it_was_sent_again_does_nothing,
    what_is_due_while_the_server_is_away_is_moved_when_it_is_back_however_old_its_mark_is,
    a_server_that_says_nothing_does_not_keep_a_publish_beyond_its_deadline,
    what_nobody_knows_of_at_its_deadline_is_unknown_and_what_was_never_sent_is_not_written,
    what_an_ack_is_worth_is_asked_again_with_each_connection,
    scripts_that_the_server_forgot_are_made_known_again,
    a_key_of_another_kind_under_our_name_and_a_newer_description_are_told_by_name,
}
