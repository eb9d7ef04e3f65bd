//! Members of groups on a real server: that they keep to the rules of the client library, where that shows from outside.
//!
//! The numbers of rules are those of the tests of the unsafe module (`broker/tests/kafka`). Not here: what all backends promise
//! (`broker/src/conformance`), rules that only the library shows, such as what the answer to a commit means (`broker/src/kafka/members`).

use crate::{
    readers::{create, publish, put, stage},
    server,
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};
use ropeway_broker::{
    Bound, Consumer, Control, Delivery, Event, GapReason, GoneReason, Group, Message, MessageBroker, Owned,
    Position, Start, Subscription, Target, Topic,
};
use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

crate::async_tests!(
    rule_7_a_revoked_partition_is_settled_while_the_group_waits,
    rule_8_who_keeps_too_long_loses_that_partition_alone,
    rule_9_groups_are_classic_unless_another_protocol_is_asked_for,
    rule_12_acks_given_while_the_group_rebalances_are_kept,
    rule_13_the_epoch_of_what_stays_is_the_same,
    rule_14_a_member_goes_on_behind_what_was_purged_while_it_reads,
    who_joins_beside_one_that_crashed_is_not_refused_until_its_session_is_over,
);

const PATIENCE: Duration = Duration::from_secs(60);
/// The longest drain that Kafka's members grant.
const RELEASE: Duration = Duration::from_secs(2);

/// What a member was told.
#[derive(Debug)]
enum Told {
    Assigned(Owned),
    Revoking(Owned, Duration),
    Gone(Owned, GoneReason),
    Got(Owned, Position, usize),
    Gap(Option<Position>, Option<Position>, GapReason),
}

/// A member, and what it was told.
#[derive(Debug)]
struct Member {
    consumer: Box<dyn Consumer>,
    log: Vec<Told>,
    /// Acks all at once, and gives up what is revoked.
    settles: bool,
}

impl Member {
    async fn join(broker: &Arc<dyn MessageBroker>, subscription: &Subscription, settles: bool) -> Self {
        let consumer = broker.subscribe(subscription.clone()).await.unwrap();
        Self { consumer, log: Vec::new(), settles }
    }

    fn control(&self) -> Arc<dyn Control> {
        self.consumer.control()
    }

    /// Takes what is told next, if something is soon.
    async fn step(&mut self) {
        let event = timeout(Duration::from_millis(10), poll_fn(|cx| self.consumer.poll_next(cx))).await;
        let Ok(event) = event else { return };
        match event.unwrap() {
            Event::Assigned(list) => self.log.extend(list.into_iter().map(|one| Told::Assigned(one.of))),
            Event::Revoking { partitions, left } => {
                for of in partitions {
                    if self.settles {
                        self.control().give_up(&of);
                    }
                    self.log.push(Told::Revoking(of, left));
                }
            }
            Event::Gone(of, why) => self.log.push(Told::Gone(of, why)),
            Event::Batch(batch) => {
                for Delivery { position, message } in batch.deliveries {
                    let text = std::str::from_utf8(message.payload.as_deref().unwrap()).unwrap();
                    if self.settles {
                        self.control().ack(&batch.of, &[position]).unwrap();
                    }
                    self.log.push(Told::Got(batch.of.clone(), position, text.parse().unwrap()));
                }
            }
            Event::Gap { from, to, why, .. } => self.log.push(Told::Gap(from, to, why)),
            Event::CaughtUp(_) => {}
            other => panic!("{other:?}"),
        }
    }

    /// What it owns now.
    fn owned(&self) -> Vec<Owned> {
        let mut owned = Vec::new();
        for told in &self.log {
            match told {
                Told::Assigned(of) => owned.push(of.clone()),
                Told::Gone(of, _) => owned.retain(|own| own != of),
                _ => {}
            }
        }
        owned.sort_by_key(|of| of.partition);
        owned
    }

    fn revoking(&self) -> Vec<(Owned, Duration)> {
        let revoking = self.log.iter().filter_map(|told| match told {
            Told::Revoking(of, left) => Some((of.clone(), *left)),
            _ => None,
        });
        revoking.collect()
    }

    fn gone(&self) -> Vec<(Owned, GoneReason)> {
        let gone = self.log.iter().filter_map(|told| match told {
            Told::Gone(of, why) => Some((of.clone(), *why)),
            _ => None,
        });
        gone.collect()
    }

    fn got(&self) -> impl Iterator<Item = (&Owned, Position, usize)> {
        self.log.iter().filter_map(|told| match told {
            Told::Got(of, position, number) => Some((of, *position, *number)),
            _ => None,
        })
    }

    fn numbers(&self, of: &Owned) -> Vec<usize> {
        self.got().filter(|(own, ..)| own.partition == of.partition).map(|(.., number)| number).collect()
    }

    async fn acked(&self, of: &Owned, count: usize) {
        let mine = self.got().filter(|(own, ..)| *own == of).map(|(_, position, _)| position);
        let done: Vec<Position> = mine.take(count).collect();
        self.control().ack(of, &done).unwrap();
        let refused = timeout(PATIENCE, self.control().flush()).await.unwrap();
        assert!(refused.is_empty(), "{refused:?}");
    }
}

/// Lets all of them go on until something holds.
async fn until(members: &mut [Member], what: &str, holds: impl Fn(&[Member]) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds(members) {
        assert!(Instant::now() < end, "{what}: {members:?}");
        for member in members.iter_mut() {
            member.step().await;
        }
    }
}

async fn go_on(members: &mut [Member], time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        for member in members.iter_mut() {
            member.step().await;
        }
    }
}

fn group(topic: &Topic) -> Group {
    Group::new(format!("group-of-{topic}")).unwrap()
}

/// Two partitions of three messages each, whose only member does not settle; then another comes. What is revoked, and what stays.
async fn revoked(
    broker: &Arc<dyn MessageBroker>,
    topic: &Topic,
    drain: Duration,
) -> (Vec<Member>, (Owned, Duration), Owned) {
    create(broker, topic, 2).await;
    for partition in 0..2 {
        put(broker, topic, partition, 0..3).await;
    }
    let subscription = Subscription { drain, ..Subscription::new(group(topic), [topic.clone()]) };
    let mut members = vec![Member::join(broker, &subscription, false).await];
    until(&mut members, "all comes", |m| m[0].got().count() == 6).await;
    members.push(Member::join(broker, &subscription, false).await);
    until(&mut members, "something is revoked", |m| !m[0].revoking().is_empty()).await;
    let revoked = members[0].revoking().remove(0);
    let kept = members[0].owned().into_iter().find(|of| *of != revoked.0).unwrap();
    (members, revoked, kept)
}

async fn rule_7_a_revoked_partition_is_settled_while_the_group_waits() {
    let (broker, topic) = stage().await;
    let (mut members, (going, left), kept) = revoked(&broker, &topic, Duration::from_secs(60)).await;
    assert!(left <= RELEASE, "{left:?}: meanwhile nothing of what stays is read");
    // A commit is answered although the revocation is not.
    members[0].acked(&going, 2).await;
    put(&broker, &topic, kept.partition, 3..6).await;
    members[0].control().give_up(&going);
    until(&mut members, "all goes on", |m| m[0].numbers(&kept).len() == 6 && m[1].got().count() == 1).await;
    assert_eq!(members[0].gone(), [(going.clone(), GoneReason::GivenUp)]);
    assert_eq!((members[0].numbers(&kept), members[1].numbers(&going)), ((0..6).collect(), vec![2]));
    // What stays was paused until then: that is why a drain is short.
    let at = |wanted: &dyn Fn(&Told) -> bool| members[0].log.iter().position(wanted).unwrap();
    let gone = at(&|told| matches!(told, Told::Gone(..)));
    assert!(gone < at(&|told| matches!(told, Told::Got(_, _, 3))), "{:?}", members[0].log);
}

async fn rule_8_who_keeps_too_long_loses_that_partition_alone() {
    let (_, topic) = stage().await;
    let url = format!("{}?group_protocol=consumer", server::url().split('?').next().unwrap());
    let broker = ropeway_broker::connect(&url).await.unwrap();
    let (mut members, (going, left), kept) = revoked(&broker, &topic, Duration::from_secs(3600)).await;
    assert!(left <= RELEASE, "{left:?}: a group of the newer protocol expels who keeps longer");
    until(&mut members, "it is taken", |m| m[1].got().count() == 3).await;
    assert_eq!(members[0].gone(), [(going.clone(), GoneReason::DrainOver)]);
    assert_eq!(members[1].numbers(&going), [0, 1, 2]);
    // It is a member still: what stays is settled, and read on.
    members[0].acked(&kept, 3).await;
    put(&broker, &topic, kept.partition, 3..5).await;
    until(&mut members, "what stays goes on", |m| m[0].numbers(&kept).len() == 5).await;
    assert_eq!((members[0].gone().len(), members[0].owned()), (1, vec![kept]));
}

async fn rule_9_groups_are_classic_unless_another_protocol_is_asked_for() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 1).await;
    let url = format!("{}?group_protocol=consumer", server::url().split('?').next().unwrap());
    let newer = ropeway_broker::connect(&url).await.unwrap();
    let other = Group::new(format!("newer-{topic}")).unwrap();
    let mut members = vec![
        Member::join(&broker, &Subscription::new(group(&topic), [topic.clone()]), true).await,
        Member::join(&newer, &Subscription::new(other.clone(), [topic.clone()]), true).await,
    ];
    until(&mut members, "both own it", |m| m.iter().all(|m| m.owned().len() == 1)).await;
    // As a client of others asks, which knows the classic protocol only.
    let asks: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", server::host()).set("group.id", "x").create().unwrap();
    let protocol = |group: &Group| {
        let list = asks.fetch_group_list(Some(group.as_str()), PATIENCE).unwrap();
        list.groups()[0].protocol().to_owned()
    };
    assert_eq!(protocol(&group(&topic)), "cooperative-sticky");
    assert_ne!(protocol(&other), "cooperative-sticky");
}

/// Publishes numbers to four partitions in turn until it is told to stop; how many it were.
async fn publishing(broker: Arc<dyn MessageBroker>, topic: Topic, stop: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        put(&broker, &topic, (count % 4) as u32, count..count + 1).await;
        count += 1;
        sleep(Duration::from_millis(2)).await;
    }
    count
}

async fn rule_12_acks_given_while_the_group_rebalances_are_kept() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 4).await;
    let ack_interval = Duration::from_millis(1);
    let subscription = Subscription { ack_interval, ..Subscription::new(group(&topic), [topic.clone()]) };
    let mut members = vec![Member::join(&broker, &subscription, true).await];
    until(&mut members, "the only member owns all", |m| m[0].owned().len() == 4).await;
    let stop = Arc::new(AtomicBool::new(false));
    let published = tokio::spawn(publishing(Arc::clone(&broker), topic.clone(), Arc::clone(&stop)));
    let mut numbers = Vec::new();
    for _ in 0..3 {
        members.push(Member::join(&broker, &subscription, true).await);
        until(&mut members, "both own a half", |m| m.iter().all(|m| m.owned().len() == 2)).await;
        go_on(&mut members, Duration::from_millis(300)).await;
        let other = members.pop().unwrap();
        timeout(PATIENCE, other.control().close(Duration::ZERO)).await.unwrap();
        assert!(other.gone().iter().all(|(_, why)| *why != GoneReason::Lost), "{:?}", other.gone());
        numbers.extend(other.got().map(|(.., number)| number));
        drop(other.consumer);
        until(&mut members, "the only member owns all", |m| m[0].owned().len() == 4).await;
    }
    stop.store(true, Ordering::Relaxed);
    let count = published.await.unwrap();
    until(&mut members, "all comes", |m| m[0].got().count() + numbers.len() >= count).await;
    go_on(&mut members, Duration::from_millis(500)).await;
    assert!(members[0].gone().iter().all(|(_, why)| *why == GoneReason::GivenUp), "{:?}", members[0].gone());
    numbers.extend(members[0].got().map(|(.., number)| number));
    numbers.sort_unstable();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "each once");
    let refused = timeout(PATIENCE, members[0].control().flush()).await.unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    let told = broker.admin().describe_group(&group(&topic)).await.unwrap();
    assert!(told.partitions.iter().all(|part| part.lag == Some(0)), "{told:?}");
}

async fn rule_13_the_epoch_of_what_stays_is_the_same() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 4).await;
    let subscription = Subscription::new(group(&topic), [topic.clone()]);
    let mut members = vec![Member::join(&broker, &subscription, true).await];
    until(&mut members, "the only member owns all", |m| m[0].owned().len() == 4).await;
    let first = members[0].owned();
    members.push(Member::join(&broker, &subscription, true).await);
    until(&mut members, "both own a half", |m| m.iter().all(|m| m.owned().len() == 2)).await;
    go_on(&mut members, Duration::from_millis(300)).await;
    let kept = members[0].owned();
    assert!(kept.iter().all(|of| first.contains(of)), "{kept:?} of {first:?}");
    for of in &kept {
        timeout(PATIENCE, members[0].control().confirm(of)).await.unwrap().unwrap();
    }
    for of in members[1].owned() {
        let before = first.iter().find(|before| before.partition == of.partition).unwrap();
        assert!(of.epoch > before.epoch, "{of:?} after {before:?}");
    }
    let other = members.pop().unwrap();
    timeout(PATIENCE, other.control().close(Duration::ZERO)).await.unwrap();
    until(&mut members, "the only member owns all", |m| m[0].owned().len() == 4).await;
    let assigned = members[0].log.iter().filter(|told| matches!(told, Told::Assigned(_))).count();
    assert_eq!(assigned, 6, "what stayed was not given anew: {:?}", members[0].log);
    for of in members[0].owned() {
        let before =
            other.owned().into_iter().chain(first.clone()).filter(|old| old.partition == of.partition);
        assert!(kept.contains(&of) || before.clone().all(|old| old.epoch < of.epoch), "{of:?}");
    }
}

async fn rule_14_a_member_goes_on_behind_what_was_purged_while_it_reads() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 1).await;
    // More than a member reads ahead.
    let zeros = "0".repeat(800_000);
    let message = |number: usize| Message::builder().payload(format!("{zeros}{number}")).build();
    let target = Target { partition: Some(0), ..(&topic).into() };
    let mut positions = Vec::new();
    for batch in 0..6 {
        let batch = (batch * 10..batch * 10 + 10).map(message).collect();
        positions.extend(publish(&broker, &target, batch).await);
    }
    let in_flight = Bound { messages: 1, bytes: 1024 * 1024 };
    let subscription = Subscription { in_flight, ..Subscription::new(group(&topic), [topic.clone()]) };
    let mut members = vec![Member::join(&broker, &subscription, false).await];
    until(&mut members, "the first comes", |m| m[0].got().count() == 1).await;
    go_on(&mut members, Duration::from_secs(1)).await;
    broker.admin().purge_topic(&topic, None, Start::At(positions[55])).await.unwrap();
    let end = Instant::now() + PATIENCE;
    let mut settled = 0;
    while members[0].got().last().is_none_or(|(.., number)| number != 59) {
        assert!(Instant::now() < end, "{:?}", members[0].log);
        members[0].step().await;
        let got: Vec<_> = members[0].got().map(|(of, position, _)| (of.clone(), position)).collect();
        for (of, position) in &got[settled..] {
            members[0].control().ack(of, &[*position]).unwrap();
        }
        settled = got.len();
    }
    // What it held comes; then one gap that begins there, and ends where messages begin. It is the same epoch.
    let got: Vec<usize> = members[0].got().map(|(.., number)| number).collect();
    let held = got.iter().zip(0..).take_while(|(got, number)| *got == number).count();
    assert!(held < 55, "it read all before it was purged");
    assert_eq!(got, (0..held).chain(55..60).collect::<Vec<_>>());
    let gap = members[0].log.iter().filter_map(|told| match told {
        Told::Gap(from, to, why) => Some((*from, *to, *why)),
        _ => None,
    });
    assert_eq!(gap.collect::<Vec<_>>(), [(Some(positions[held]), Some(positions[55]), GapReason::Trimmed)]);
    assert_eq!(members[0].gone(), []);
}

/// A name keeps a member in its group until its session is over, as a crash does; others wait for it until then, longer than a call may take.
async fn who_joins_beside_one_that_crashed_is_not_refused_until_its_session_is_over() {
    let (_, topic) = stage().await;
    let url = format!("{}?session=40s", server::url().split('?').next().unwrap());
    let broker = ropeway_broker::connect(&url).await.unwrap();
    create(&broker, &topic, 2).await;
    let subscription = |name: &str| Subscription {
        member: Some(Arc::from(name)),
        ..Subscription::new(group(&topic), [topic.clone()])
    };
    let mut members = vec![Member::join(&broker, &subscription("a"), true).await];
    until(&mut members, "the only member owns all", |m| m[0].owned().len() == 2).await;
    members.clear();
    let joined = timeout(Duration::from_secs(35), broker.subscribe(subscription("b"))).await;
    let consumer = joined.unwrap().unwrap();
    members.push(Member { consumer, log: Vec::new(), settles: true });
    until(&mut members, "it owns all when the other's session is over", |m| m[0].owned().len() == 2).await;
}
