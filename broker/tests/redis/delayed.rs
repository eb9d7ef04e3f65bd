//! Delayed messages of a process that is gone: another one moves them, and a topic that holds nothing costs it nothing.

use super::server::Server;
use ropeway_broker::{
    Admin, Event, Message, MessageBroker, ReaderExt, RedisStreams, Start, Timestamp, Topic, TopicSpec,
};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often a script was run.
fn scripts(server: &mut Server) -> u64 {
    let told: String = server.ask("INFO commandstats");
    let calls = told.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

async fn what_a_process_held_just_before_it_was_killed_is_moved_in_time_by_another() {
    let mut server = Server::own();
    let url = format!("unix://{}?prefix={}", server.socket().display(), server.prefix);
    let (holds, moves) =
        (RedisStreams::of_url(&url).await.unwrap(), RedisStreams::of_url(&url).await.unwrap());
    let topic = Topic::new("t").unwrap();
    holds.create_topic(&topic, TopicSpec::partitions(8)).await.unwrap();
    let mut reader = moves.read().await.unwrap();
    reader.follow(&topic, None, Start::Earliest).await.unwrap();
    // It looked once, and looks at the mark alone from then on.
    sleep(Duration::from_millis(1500)).await;
    let before = scripts(&mut server);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(scripts(&mut server), before, "a topic that holds nothing costs no look at its partitions");

    for round in 0..3 {
        let due = Timestamp::now() + Duration::from_millis(2500);
        let holds = RedisStreams::of_url(&url).await.unwrap();
        let message = Message::builder().payload(round.to_string()).deliver_at(due).build();
        assert!(holds.publish(&topic.clone().into(), vec![message]).await.all_acked());
        holds.kill();
        let late = loop {
            if let Event::Batch(batch) =
                timeout(Duration::from_secs(20), reader.next()).await.unwrap().unwrap()
            {
                assert_eq!(batch.deliveries.len(), 1);
                let now = Timestamp::now();
                assert!(now >= due, "early by {:?}", due.since(now));
                break now.since(due);
            }
        };
        // It learns of the mark within a second, long before it is due; the rest is a machine that has much else to do.
        assert!(late < Duration::from_secs(2), "{late:?} late");
    }
}

super::async_tests! {
    what_a_process_held_just_before_it_was_killed_is_moved_in_time_by_another,
}
