//! Tests of the core alone: what is decided against what is shown, room, and time, all with a clock that stands still.
//!
//! Not here: what a user sees of the broker (`embedded/tests`), what every backend promises (`conformance/`).

use super::{Core, MemberId, Next, Quota, Rules, Step, Verdict};
use crate::{
    Bound, Durability, ErrorKind, Event, GoneReason, Group, Message, Owned, Position, Subscription, Target,
    Timestamp, Topic, TopicSpec,
    embedded::{
        housekeeping::{Chore, Done},
        time::{Mark, Steady},
    },
};
use ropeway_store::{KeyValue, MemoryStore};
use std::{sync::Arc, task::Waker, time::Duration};

#[cfg(feature = "embedded")]
mod room;
mod segments;

struct Bench {
    core: Core,
    store: Arc<dyn KeyValue>,
    now: Mark,
    rules: Rules,
    /// Housekeeping does nothing until it is told to.
    idle: bool,
    chores: Vec<Chore>,
}

fn topic() -> Topic {
    Topic::new("t").unwrap()
}

fn sized(bytes: usize) -> Message {
    Message::builder().payload(vec![0; bytes]).build()
}

fn rules() -> Rules {
    Rules {
        backend: "test",
        durability: Durability::PowerLoss,
        possible: Durability::PowerLoss,
        max_message: 1000,
        dedup: None,
        group_expiry: Duration::from_secs(3600),
        segment: 1 << 20,
        quota: Quota { setting: "max_disk", most: u64::MAX, min_free: 0, at_once: false },
    }
}

impl Bench {
    fn new(partitions: u32) -> Self {
        Self::with(partitions, |_| ())
    }

    fn with(partitions: u32, change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = rules();
        change(&mut rules);
        let mut bench = Self::over(Arc::new(MemoryStore::new()), rules);
        bench.create(TopicSpec::partitions(partitions)).unwrap();
        bench
    }

    /// A store without a topic.
    fn over(store: Arc<dyn KeyValue>, rules: Rules) -> Self {
        let now = Mark {
            steady: Steady::from_millis(1_000_000),
            time_of_day: Timestamp::from_millis(1_000_000),
            ..Mark::default()
        };
        let core = Core::recover(store.clone(), rules.clone(), |_| now).unwrap();
        Self { core, store, now, rules, idle: false, chores: Vec::new() }
    }

    fn create(&mut self, spec: TopicSpec) -> crate::Result<()> {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        self.step(|core, step| core.create_topic(step, &topic(), spec, reply));
        answer.try_recv().unwrap()
    }

    /// The same state as a process finds it that opens the store now.
    fn reopened(self) -> Self {
        let core = Core::recover(self.store.clone(), self.rules.clone(), |_| self.now).unwrap();
        Self { core, ..self }
    }

    fn pass(&mut self, time: Duration) {
        self.now.steady = self.now.steady + time;
        self.now.time_of_day = self.now.time_of_day + time;
    }

    fn step<T>(&mut self, decide: impl FnOnce(&mut Core, &mut Step) -> T) -> T {
        let (mut step, decided) = self.decide(decide);
        self.store.commit(std::mem::take(&mut step.batch), step.durability).unwrap();
        self.core.apply(&mut step);
        step.take_after().into_iter().for_each(|after| after(None));
        self.chores.append(&mut step.chores);
        if !self.idle {
            self.keep_house();
        }
        decided
    }

    /// Does what is to be done on the disk.
    fn keep_house(&mut self) {
        while !self.chores.is_empty() {
            for chore in std::mem::take(&mut self.chores) {
                if let Done::Opened(opened) = chore.run(&*self.store) {
                    self.step(|core, step| core.opened(step, opened));
                }
            }
        }
    }

    fn decide<T>(&mut self, decide: impl FnOnce(&mut Core, &mut Step) -> T) -> (Step, T) {
        let mut step = Step::new(self.now, ropeway_store::Durability::PowerLoss);
        self.core.tick(&mut step);
        let decided = decide(&mut self.core, &mut step);
        self.core.finish(&mut step);
        (step, decided)
    }

    fn publish(&mut self, partition: u32, sizes: &[usize]) {
        let to = Target { topic: topic(), partition: Some(partition), at_least: None };
        let batch: Vec<Message> = sizes.iter().map(|bytes| sized(*bytes)).collect();
        let verdicts = self.step(|core, step| core.publish(step, &to, &batch));
        assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Placed { .. })));
    }

    fn join(&mut self, change: impl FnOnce(&mut Subscription)) -> MemberId {
        let mut subscription = Subscription::new(Group::new("g").unwrap(), [topic()]);
        change(&mut subscription);
        self.step(|core, step| core.subscribe(step, &subscription)).unwrap()
    }

    fn poll(&mut self, member: MemberId) -> Option<Event> {
        loop {
            match self.core.poll_member(member, Waker::noop(), self.now.steady) {
                Next::Event(event) => return Some(event),
                Next::End(error) => panic!("{error}"),
                Next::Wait => return None,
                Next::Read(plan) => {
                    let found = plan.read(&*self.store).unwrap();
                    if let Some(event) = self.core.deliver(member, &plan, found) {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// All that comes now: what is owned, and the messages.
    fn drain(&mut self, member: MemberId) -> (Vec<Owned>, Vec<(Owned, Position)>) {
        let (mut owned, mut messages) = (Vec::new(), Vec::new());
        while let Some(event) = self.poll(member) {
            match event {
                Event::Assigned(list) => owned.extend(list.into_iter().map(|assignment| assignment.of)),
                Event::Batch(batch) => {
                    messages.extend(batch.deliveries.iter().map(|d| (batch.of.clone(), d.position)));
                }
                _ => {}
            }
        }
        (owned, messages)
    }
}

#[test]
fn what_is_decided_is_not_shown_before_its_commit() {
    let mut bench = Bench::new(1);
    let member = bench.join(|_| ());
    bench.drain(member);
    let (mut step, _) = bench.decide(|core, step| core.publish(step, &topic().into(), &[sized(1)]));
    assert!(bench.poll(member).is_none());
    assert_eq!(bench.core.describe_topic(&topic()).unwrap().partitions[0].messages, Some(0));
    bench.store.commit(std::mem::take(&mut step.batch), step.durability).unwrap();
    bench.core.apply(&mut step);
    assert_eq!(bench.drain(member).1.len(), 1);
}

#[test]
fn what_could_not_be_committed_is_never_shown_and_leaves_no_owner() {
    let mut bench = Bench::new(1);
    let (mut step, member) = bench.decide(|core, step| {
        core.publish(step, &topic().into(), &[sized(1)]);
        core.subscribe(step, &Subscription::new(Group::new("g").unwrap(), [topic()])).unwrap()
    });
    bench.core.poison(&mut step, &crate::Error::new(ErrorKind::Unavailable, "no disk"));
    assert!(bench.poll(member).is_none(), "neither an assignment nor a message");
    let refused = bench.decide(|core, step| core.publish(step, &topic().into(), &[sized(1)])).1;
    assert!(matches!(&refused[0], Verdict::Refused(error) if error.kind() == ErrorKind::Unavailable));
}

#[test]
fn a_partition_without_room_waits_once_however_much_is_published() {
    let mut bench = Bench::new(2);
    let member = bench.join(|s| s.in_flight = Bound { messages: 8, bytes: 1 << 20 });
    bench.drain(member);
    bench.publish(0, &[1; 20]);
    let (_, first) = bench.drain(member);
    for _ in 0..50 {
        bench.publish(0, &[1]);
        assert!(bench.poll(member).is_none());
    }
    let state = &bench.core.members[&member];
    assert_eq!((state.waiting.len(), state.ready.len()), (1, 0));
    let (of, position) = first[0].clone();
    bench.core.ack(member, &of, &[position], bench.now.steady).unwrap();
    assert_eq!(bench.drain(member).1.len(), 1);
}

#[test]
fn what_goes_with_its_partition_makes_room_for_the_others() {
    let mut bench = Bench::new(2);
    let member = bench.join(|s| s.in_flight = Bound { messages: 100, bytes: 100 });
    bench.drain(member);
    bench.publish(1, &[60]);
    bench.publish(0, &[1, 90]);
    let (_, first) = bench.drain(member);
    assert_eq!(first.len(), 2, "the large one has no room beside the others");
    let of = first.iter().find(|(of, _)| of.partition == 1).unwrap().0.clone();
    bench.join(|_| ());
    bench.step(|core, step| core.give_up(step, member, &of));
    let (_, got) = bench.drain(member);
    assert_eq!(got.iter().map(|(of, _)| of.partition).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_forward_of_which_one_message_is_refused_writes_nothing() {
    let mut bench = Bench::new(1);
    let member = bench.join(|_| ());
    bench.publish(0, &[1]);
    let (_, got) = bench.drain(member);
    let (of, position) = got[0].clone();
    let out = [(topic().into(), sized(1)), (topic().into(), sized(1001)), (topic().into(), sized(1))];
    let verdicts = bench.step(|core, step| core.forward(step, member, &of, &[position], &out));
    for verdict in &verdicts {
        assert!(matches!(verdict, Verdict::Refused(error) if error.kind() == ErrorKind::TooLarge));
    }
    let info = bench.core.describe_group(&Group::new("g").unwrap(), bench.now.time_of_day).unwrap();
    assert_eq!((info.partitions[0].end.1, info.partitions[0].unfinished), (1, Some(1)));
    let old = Owned { epoch: crate::Epoch(of.epoch.0 - 1), ..of };
    let verdicts = bench.step(|core, step| core.forward(step, member, &old, &[position], &out[..1]));
    assert!(matches!(&verdicts[0], Verdict::Refused(error) if error.kind() == ErrorKind::Fenced));
}

#[test]
fn the_time_to_drain_runs_from_when_it_was_told() {
    let mut bench = Bench::new(2);
    let first = bench.join(|s| s.drain = Duration::from_secs(10));
    bench.drain(first);
    bench.join(|_| ());
    bench.pass(Duration::from_secs(9));
    assert!(matches!(bench.poll(first), Some(Event::Revoking { .. })));
    bench.pass(Duration::from_millis(9_999));
    bench.step(|_, _| ());
    assert!(bench.poll(first).is_none());
    bench.pass(Duration::from_millis(1));
    bench.step(|_, _| ());
    assert!(matches!(bench.poll(first), Some(Event::Gone(_, GoneReason::DrainOver))));
}

#[test]
fn epochs_lives_and_append_times_grow_though_the_clock_is_set_back() {
    let mut bench = Bench::new(1);
    bench.publish(0, &[1]);
    let member = bench.join(|_| ());
    let (owned, got) = bench.drain(member);
    bench.now.time_of_day = bench.now.time_of_day - Duration::from_secs(3600);
    let mut bench = bench.reopened();
    bench.publish(0, &[1]);
    let member = bench.join(|_| ());
    let (again, all) = bench.drain(member);
    assert!(again[0].epoch > owned[0].epoch);
    assert_eq!(all.len(), 2);
    let group = Group::new("g").unwrap();
    bench.step(|core, step| {
        core.leave(step, member);
        core.delete_group(step, &group).unwrap();
        core.delete_topic(step, &topic()).unwrap();
    });
    let mut bench = bench.reopened();
    bench.create(TopicSpec::partitions(1)).unwrap();
    bench.publish(0, &[1]);
    let member = bench.join(|_| ());
    let (last, new) = bench.drain(member);
    assert!(last[0].epoch > again[0].epoch, "also when the group was deleted in between");
    assert!(new[0].1 > got[0].1);
}

#[test]
fn partitions_that_are_added_start_at_their_beginning_in_the_hands_of_somebody() {
    let mut bench = Bench::new(1);
    let member = bench.join(|s| s.start = crate::Start::Latest);
    bench.drain(member);
    let (mut step, ()) = bench.decide(|core, step| {
        core.grow_topic(step, &topic(), 2).unwrap();
        let to = Target { topic: topic(), partition: Some(1), at_least: None };
        core.publish(step, &to, &[sized(1)]);
    });
    bench.store.commit(std::mem::take(&mut step.batch), step.durability).unwrap();
    bench.core.apply(&mut step);
    let (owned, got) = bench.drain(member);
    assert_eq!((owned.len(), owned[0].partition, got.len()), (1, 1, 1));
}
