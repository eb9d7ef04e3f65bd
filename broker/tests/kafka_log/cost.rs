//! What reading costs the servers: how many bytes they send for those that are handed out, where who is handed them is slower than the network.
//!
//! The client library reads ahead, and forgets that where it is told to stop: what was dropped is sent again. A program of its own reads, so that its
//! connections can be told from others. Not here: that everything comes (`readers.rs`, `members.rs`).

#![expect(clippy::print_stdout, reason = "what was measured is shown, and a process of it tells its parent")]

use crate::{
    readers::{create, stage},
    server,
    trials::ignore,
};
use ropeway_broker::{
    Batch, Bound, Consumer, ConsumerExt, Event, Group, Message, MessageBroker, MessageId, ReaderExt, Start,
    Subscription, Target, Topic,
};
use std::{io::ErrorKind, process::Command, sync::Arc, time::Duration};
use tokio::time::Instant;

crate::async_tests!(
    a_slow_member_is_sent_what_it_takes,
    a_slow_member_is_sent_large_messages_as_it_takes_them,
    a_slow_member_of_many_partitions_with_large_messages_has_no_more_of_them_than_of_few,
    a_partition_of_which_nothing_is_acked_keeps_no_other_waiting,
    a_slow_reader_is_sent_what_it_takes,
    a_slow_reader_is_sent_large_messages_as_it_takes_them,
    what_is_large_beside_its_payload_does_not_pile_up_at_a_slow_reader,
);

/// What tells this program that it is to read, and how.
const ROLE: &str = "ROPEWAY_TEST_COST";

/// Whether this program is one that reads; it has done so then.
pub(crate) fn reads() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    let words: Vec<&str> = role.split(' ').collect();
    let (how, topic) = (words[0], Topic::new(words[1]).unwrap());
    let (messages, micros) = (words[2].parse().unwrap(), words[3].parse().unwrap());
    crate::run(async move {
        let broker = ropeway_broker::connect(&server::url()).await.unwrap();
        let slow = Slow { messages, each: Duration::from_micros(micros), begun: None, seen: 0, bytes: 0 };
        match how {
            "member" => slow.consume(&broker, topic).await,
            _ => slow.follow(&broker, topic).await,
        }
    });
    true
}

struct Slow {
    messages: usize,
    each: Duration,
    begun: Option<Instant>,
    seen: usize,
    bytes: usize,
}

impl Slow {
    async fn consume(mut self, broker: &Arc<dyn MessageBroker>, topic: Topic) {
        let group = Group::new(format!("cost-{}", MessageId::new())).unwrap();
        let mut member = broker.subscribe(Subscription::new(group, [topic])).await.unwrap();
        while self.seen < self.messages {
            if let Event::Batch(batch) = member.next().await.unwrap() {
                for delivery in &batch.deliveries {
                    self.take(delivery.message.size()).await;
                    member.control().ack(&batch.of, &[delivery.position]).unwrap();
                }
            }
        }
        self.tell();
    }

    async fn follow(mut self, broker: &Arc<dyn MessageBroker>, topic: Topic) {
        let mut reader = broker.read().await.unwrap();
        reader.follow(&topic, None, Start::Earliest).await.unwrap();
        while self.seen < self.messages {
            if let Event::Batch(batch) = reader.next().await.unwrap() {
                for delivery in &batch.deliveries {
                    self.take(delivery.message.size()).await;
                }
            }
        }
        self.tell();
    }

    async fn take(&mut self, bytes: usize) {
        (self.seen, self.bytes) = (self.seen + 1, self.bytes + bytes);
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let due = begun + self.each * u32::try_from(self.seen).unwrap();
        if due > Instant::now() + Duration::from_millis(2) {
            tokio::time::sleep_until(due).await;
        }
    }

    fn tell(&self) {
        let rss = std::fs::read_to_string("/proc/self/status").unwrap();
        let rss = rss.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let rss = rss.split_whitespace().next().unwrap();
        println!("{} {} {rss}", received(), self.bytes);
    }
}

/// What came over the connections of this program, in bytes.
fn received() -> u64 {
    let told = Command::new("ss").args(["-tinpH"]).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let ours = format!("pid={},", std::process::id());
    let mut lines = told.lines();
    let mut sum = 0;
    while let Some(line) = lines.next() {
        let Some(more) = lines.next() else { break };
        if line.contains(&ours)
            && let Some((_, rest)) = more.split_once("bytes_received:")
        {
            sum += rest.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
    }
    sum
}

/// What a slow one costs.
struct Cost {
    /// How many bytes were sent for each that was handed out.
    times: f64,
    /// The most memory that its process had, in KiB.
    memory: usize,
}

/// What lies there: partitions, messages, and how large each is.
struct There {
    partitions: u32,
    messages: usize,
    size: usize,
    /// In a header, and not as the payload.
    in_header: bool,
}

impl There {
    const LARGE: usize = 1_000_000;

    fn message(&self) -> Message {
        let fill = vec![b'a'; self.size];
        let message = Message::builder();
        if self.in_header { message.header("fill", fill) } else { message.payload(fill) }.build()
    }

    async fn publish(&self, broker: &Arc<dyn MessageBroker>, topic: &Topic) {
        let of_each = self.messages / self.partitions as usize;
        for partition in 0..self.partitions {
            let target = Target { partition: Some(partition), ..topic.into() };
            let at_once = ((8 << 20) / self.size).max(1);
            for from in (0..of_each).step_by(at_once) {
                let batch = (from..of_each.min(from + at_once)).map(|_| self.message()).collect();
                assert!(broker.publish(&target, batch).await.all_acked());
            }
        }
    }

    /// What it costs to read so many of them, one in that time.
    async fn cost(self, how: &str, taken: usize, each: Duration) -> Cost {
        let counts = Command::new("ss").arg("-V").output();
        if counts.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            ignore("no ss to count bytes by: install it (apt-get install iproute2)");
        }
        let (broker, topic) = stage().await;
        create(&broker, &topic, self.partitions).await;
        self.publish(&broker, &topic).await;
        let role = format!("{how} {topic} {taken} {}", each.as_micros());
        let program = std::env::current_exe().unwrap();
        let run = move || Command::new(program).env(ROLE, role).output().unwrap();
        let told = tokio::task::spawn_blocking(run).await.unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let told: Vec<usize> = told.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let [sent, handed, memory] = told[..] else { panic!("it broke off: {told:?}") };
        let cost = Cost { times: sent as f64 / handed as f64, memory };
        println!("{how}, {} bytes each: sent {:.1} times, {memory} KiB", self.size, cost.times);
        _ = broker.admin().delete_topic(&topic).await;
        cost
    }
}

async fn a_slow_member_is_sent_what_it_takes() {
    let there = There { partitions: 8, messages: 60_000, size: 1024, in_header: false };
    let cost = there.cost("member", 40_000, Duration::from_micros(300)).await;
    assert!(cost.times < 5.0, "{}", cost.times);
}

async fn a_slow_member_is_sent_large_messages_as_it_takes_them() {
    let there = There { partitions: 8, messages: 600, size: 100_000, in_header: false };
    let cost = there.cost("member", 400, Duration::from_millis(30)).await;
    assert!(cost.times < 5.0, "{}", cost.times);
}

async fn a_slow_member_of_many_partitions_with_large_messages_has_no_more_of_them_than_of_few() {
    let there = There { partitions: 200, messages: 400, size: There::LARGE, in_header: false };
    let cost = there.cost("member", 100, Duration::from_millis(200)).await;
    assert!(cost.times < 2.5, "{}", cost.times);
    assert!(cost.memory < 130 * 1024, "{} KiB", cost.memory);
}

async fn a_partition_of_which_nothing_is_acked_keeps_no_other_waiting() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 2).await;
    // More than what lies ready and what the client has fetched.
    let messages = 60;
    There { partitions: 1, messages, size: There::LARGE, in_header: false }.publish(&broker, &topic).await;
    let group = Group::new(format!("cost-{}", MessageId::new())).unwrap();
    let in_flight = Bound { messages: 8, bytes: 64 << 20 };
    let subscription = Subscription { in_flight, ..Subscription::new(group, [topic.clone()]) };
    let mut member = broker.subscribe(subscription).await.unwrap();
    let mut stuck = Vec::new();
    let mut published = None;
    let begun = Instant::now();
    while published.is_none_or(|at: Instant| at.elapsed() < Duration::from_secs(40)) {
        let event = tokio::time::timeout(Duration::from_millis(100), member.next()).await;
        match event.map(Result::unwrap) {
            Ok(Event::Batch(batch)) if batch.of.partition == 1 => break,
            Ok(Event::Batch(batch)) => stuck.push(batch),
            _ => {}
        }
        if published.is_none() && !stuck.is_empty() && begun.elapsed() > Duration::from_secs(3) {
            let target = Target { partition: Some(1), ..(&topic).into() };
            let message = Message::builder().payload("small").build();
            assert!(broker.publish(&target, vec![message]).await.all_acked());
            published = Some(Instant::now());
        }
    }
    // What is stuck would be so for ever.
    assert!(published.is_some_and(|at| at.elapsed() < Duration::from_secs(40)), "it waits for what is stuck");
    let mut seen: usize = stuck.iter().map(|batch| batch.deliveries.len()).sum();
    assert!((1..8).contains(&seen), "{seen}");
    let ack = |batch: &Batch, member: &dyn Consumer| {
        let done: Vec<_> = batch.deliveries.iter().map(|one| one.position).collect();
        member.control().ack(&batch.of, &done).unwrap();
    };
    stuck.iter().for_each(|batch| ack(batch, &*member));
    while seen < messages {
        if let Event::Batch(batch) = member.next().await.unwrap() {
            assert_eq!(batch.deliveries[0].position.1, seen as u64, "none is left out");
            seen += batch.deliveries.len();
            ack(&batch, &*member);
        }
    }
    _ = broker.admin().delete_topic(&topic).await;
}

async fn a_slow_reader_is_sent_what_it_takes() {
    let there = There { partitions: 8, messages: 60_000, size: 1024, in_header: false };
    let cost = there.cost("reader", 40_000, Duration::from_micros(300)).await;
    assert!(cost.times < 2.0, "{}", cost.times);
}

async fn a_slow_reader_is_sent_large_messages_as_it_takes_them() {
    let there = There { partitions: 8, messages: 128, size: There::LARGE, in_header: false };
    let cost = there.cost("reader", 96, Duration::from_millis(20)).await;
    assert!(cost.times < 2.0, "{}", cost.times);
}

async fn what_is_large_beside_its_payload_does_not_pile_up_at_a_slow_reader() {
    let there = There { partitions: 1, messages: 300, size: There::LARGE, in_header: true };
    let cost = there.cost("reader", 20, Duration::from_millis(200)).await;
    assert!(cost.memory < 150 * 1024, "{} KiB", cost.memory);
}
