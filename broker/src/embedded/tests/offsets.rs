//! Each offset holds what was acked there, and nothing is there twice or lost, however calls, segments, purges, delays and restarts fall.
//!
//! Not here: what records look like (`batches.rs`), which commits there are (`commits.rs`).

use super::{disk::Disk, support::*};
use crate::{
    Durability, Embedded, EmbeddedSettings, Event, Message, MessageBroker, Position, Published, Start,
    Target, Timestamp, Topic,
};
use futures::future::join_all;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use tokio::task::JoinHandle;

const BEGIN: i64 = 1_000_000;
const PARTITIONS: usize = 2;

/// Numbers that are the same whenever their seed is.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }
}

/// What a partition must hold.
#[derive(Default)]
struct Expected {
    acked: BTreeMap<Position, String>,
    /// Delayed messages; nobody is told where they lie.
    delayed: Vec<String>,
    purged: Option<Position>,
}

struct World {
    dice: Dice,
    disk: Arc<Disk>,
    clock: Arc<HandClock>,
    broker: Arc<Embedded>,
    orders: Topic,
    parts: [Expected; PARTITIONS],
    named: usize,
}

fn open(disk: &Arc<Disk>, clock: &Arc<HandClock>) -> Arc<Embedded> {
    let settings = EmbeddedSettings { segment: 40_000, clock: clock.clone(), ..EmbeddedSettings::default() };
    Embedded::on_store(disk.clone(), settings, Durability::PowerLoss, false).unwrap()
}

impl World {
    async fn new(seed: u64) -> Self {
        let (disk, clock) = (Arc::<Disk>::default(), HandClock::starting_at(BEGIN));
        let broker = open(&disk, &clock);
        let orders = make(&broker, "orders", PARTITIONS as u32).await;
        Self { dice: Dice(seed), disk, clock, broker, orders, parts: Default::default(), named: 0 }
    }

    fn messages(&mut self, delayed: bool) -> Vec<(String, Message)> {
        let count = [1, 2, 7, 300][self.dice.below(4)];
        let sizes = [0, 20, 100, 5000, 33_000];
        (0..if delayed { count.min(7) } else { count })
            .map(|_| {
                let size = sizes[self.dice.below(if count > 100 { 3 } else { 5 })];
                self.named += 1;
                let name = format!("{} {}", self.named, "x".repeat(size));
                let mut message = text(&name);
                if delayed {
                    let due = self.clock_now() + 1 + self.dice.below(3000) as i64;
                    message.deliver_at = Some(Timestamp::from_millis(due));
                }
                (name, message)
            })
            .collect()
    }

    fn clock_now(&self) -> i64 {
        crate::Clock::now(&*self.clock).as_millis()
    }

    /// Some calls at once, so that steps have several; now and then the disk fails.
    async fn round(&mut self) {
        let (mut calls, mut purges) = (Vec::new(), Vec::new());
        self.disk.hold();
        for _ in 0..self.dice.below(12) {
            let partition = self.dice.below(PARTITIONS);
            let delayed = self.dice.below(5) == 0;
            let (names, messages): (Vec<_>, Vec<_>) = self.messages(delayed).into_iter().unzip();
            let to = Target { topic: self.orders.clone(), partition: Some(partition as u32), at_least: None };
            let answer = self.broker.publish(&to, messages);
            calls.push(async move { (partition, delayed, names, answer.await) });
            if self.dice.below(9) == 0 {
                purges.extend(self.purge(partition));
                tokio::task::yield_now().await;
            }
        }
        self.clock.pass(Duration::from_millis(self.dice.below(900) as u64));
        let fails = self.dice.below(6) == 0;
        self.disk.commits_fail.store(fails, SeqCst);
        self.disk.release();
        for (partition, delayed, names, outcomes) in join_all(calls).await {
            let part = &mut self.parts[partition];
            for (published, name) in outcomes.0.into_iter().zip(names) {
                match published {
                    Published::Acked { .. } if delayed => part.delayed.push(name),
                    Published::Acked { position, .. } => {
                        let before = part.acked.insert(position.unwrap(), name);
                        assert!(before.is_none(), "{position:?} was acked twice");
                    }
                    Published::NotWritten(_) | Published::Unknown(_) if fails => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        for purged in join_all(purges).await {
            let (partition, at, purged) = purged.unwrap();
            assert!(purged.is_ok() || fails, "{purged:?}");
            let part: &mut Expected = &mut self.parts[partition];
            part.purged = part.purged.max(purged.is_ok().then_some(at));
        }
        if fails {
            self.restart().await;
        }
    }

    fn purge(&mut self, partition: usize) -> Option<JoinHandle<(usize, Position, crate::Result<()>)>> {
        let known = &self.parts[partition].acked;
        let at = *known.keys().nth(self.dice.below(known.len().max(1)))?;
        let (broker, orders) = (self.broker.clone(), self.orders.clone());
        Some(tokio::spawn(async move {
            let before = Start::At(at);
            (partition, at, broker.admin().purge_topic(&orders, Some(partition as u32), before).await)
        }))
    }

    async fn restart(&mut self) {
        self.broker.close(PATIENCE).await;
        self.disk.commits_fail.store(false, SeqCst);
        self.broker = open(&self.disk, &self.clock);
    }

    /// All that lies in a partition from there on.
    async fn read(&self, partition: usize, from: Start) -> Vec<(Position, String)> {
        let mut reader = self.broker.read().await.unwrap();
        reader.follow(&self.orders, Some(partition as u32), from).await.unwrap();
        let mut all = Vec::new();
        loop {
            match next_read(&mut *reader).await {
                Event::Batch(batch) => all.extend(contents(&batch)),
                Event::CaughtUp(_) => return all,
                other => panic!("{other:?}"),
            }
        }
    }

    /// What is read is what was acked or delayed, each once, and all of it that was not purged.
    async fn check(&mut self) {
        for partition in 0..PARTITIONS {
            let all = self.read(partition, Start::Earliest).await;
            assert!(all.windows(2).all(|pair| pair[1].0 == pair[0].0.next()), "offsets are left out");
            let Some((first, _)) = all.first() else { continue };
            let part = &mut self.parts[partition];
            match part.purged {
                Some(purged) => assert_eq!(*first, purged, "as much is gone as was purged"),
                None => assert_eq!(first.1, 0, "nothing was purged"),
            }
            for (at, name) in &all {
                if let Some(acked) = part.acked.get(at) {
                    assert_eq!(acked, name);
                    continue;
                }
                let delayed = part.delayed.iter().position(|one| one == name);
                part.delayed.swap_remove(delayed.unwrap_or_else(|| panic!("{at:?} holds {name:.40}")));
                part.acked.insert(*at, name.clone());
            }
            assert_eq!(part.acked.range(*first..).count(), all.len(), "messages are missing at the end");
            for _ in 0..3 {
                let start = self.dice.below(all.len());
                // What was delayed may have come meanwhile.
                let again = self.read(partition, Start::At(all[start].0)).await;
                assert!(again.starts_with(&all[start..]));
            }
        }
    }

    /// A member of a group, with little room, goes on where the one before it was, and gets each message once.
    async fn consume(&mut self, seen: &mut [Vec<Position>; PARTITIONS]) {
        let room = 1 + self.dice.below(700);
        let change = |s: &mut crate::Subscription| s.in_flight.messages = room;
        let mut consumer = subscribe(&self.broker, change, "g", &[&self.orders]).await;
        let mut left = self.dice.below(900) as i64;
        let mut ends = 0;
        while left > 0 && ends < PARTITIONS {
            match next(&mut *consumer).await {
                Event::Batch(batch) => {
                    let partition = batch.of.partition as usize;
                    let positions: Vec<Position> = batch.deliveries.iter().map(|one| one.position).collect();
                    for one in &batch.deliveries {
                        let name = self.parts[partition].acked.get(&one.position);
                        let found = String::from_utf8(one.message.payload.clone().unwrap().to_vec()).unwrap();
                        assert!(name.is_none_or(|name| *name == found), "{:?}", one.position);
                    }
                    left -= positions.len() as i64;
                    consumer.control().ack(&batch.of, &positions).unwrap();
                    seen[partition].extend(positions);
                }
                Event::CaughtUp(_) => ends += 1,
                Event::Assigned(_) | Event::Gap { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        let unacked = consumer.control().close(PATIENCE).await;
        assert!(unacked.iter().all(|(_, positions)| positions.is_empty()), "all was acked");
        for seen in seen {
            assert!(seen.is_sorted_by(|one, next| one < next), "a message came twice or out of order");
        }
    }
}

#[tokio::test]
async fn each_offset_holds_what_was_acked_there_and_each_message_comes_once() {
    for seed in 0..20 {
        let mut world = World::new(seed).await;
        let mut seen = Default::default();
        for _ in 0..12 {
            world.round().await;
            match world.dice.below(3) {
                0 => world.restart().await,
                1 => world.consume(&mut seen).await,
                _ => {}
            }
            world.check().await;
        }
        world.clock.pass(Duration::from_secs(5));
        world.restart().await;
        let delayed = || async {
            let about = world.broker.admin().describe_topic(&world.orders).await.unwrap();
            about.delayed
        };
        while delayed().await != Some(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.check().await;
    }
}
