//! Tests of segments and retention: when a segment ends, what goes and what stays, and a crash after each change of the store.

use super::*;
use crate::{Delivery, GapReason, Retention, Start, embedded::housekeeping::Opened};
use ropeway_store::{Direction, Durability as Stored, Keyspace, Limit, Page, Purpose, Usage, WriteBatch};
use std::sync::Mutex;

/// Bytes of a message of these tests, as it is stored.
pub(super) const STORED: u64 = 100;
const SECOND: Duration = Duration::from_secs(1);

pub(super) fn message(number: u64) -> Message {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(STORED as usize - 34, 0);
    Message::builder().payload(payload).build()
}

fn number(message: &Message) -> u64 {
    u64::from_be_bytes(message.payload.as_ref().unwrap()[..8].try_into().unwrap())
}

pub(super) fn spec(partitions: u32, age: Option<u64>, bytes: Option<u64>) -> TopicSpec {
    TopicSpec {
        partitions,
        retention: Retention { age: age.map(Duration::from_secs), bytes, compact: false },
    }
}

/// A topic whose segments have 10 messages.
pub(super) fn bench(spec: TopicSpec) -> Bench {
    bench_over(Arc::new(MemoryStore::new()), spec)
}

fn bench_over(store: Arc<dyn KeyValue>, spec: TopicSpec) -> Bench {
    let mut bench = Bench::over(store, Rules { segment: 10 * STORED, ..rules() });
    bench.create(spec).unwrap();
    bench
}

impl Bench {
    /// Publishes one message after the other; each is its number.
    pub(super) fn publish_each(&mut self, partition: u32, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.publish_all(partition, &[message(number)]);
        }
    }

    fn publish_all(&mut self, partition: u32, batch: &[Message]) {
        let to = Target { topic: topic(), partition: Some(partition), at_least: None };
        let verdicts = self.step(|core, step| core.publish(step, &to, batch));
        assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Placed { .. })), "{verdicts:?}");
    }

    pub(super) fn range(&self, partition: usize) -> (u64, u64) {
        let info = self.core.describe_topic(&topic()).unwrap();
        (info.partitions[partition].low.1, info.partitions[partition].end.1)
    }

    /// The keyspaces of messages.
    fn logs(&self) -> Vec<String> {
        let names = self.store.keyspaces().unwrap();
        names.into_iter().filter(|name| name.starts_with("log-")).collect()
    }

    fn known(&self) -> usize {
        self.core.topics.values().next().unwrap().segments.keyspaces().len()
    }

    pub(super) fn tick(&mut self, time: Duration) {
        self.pass(time);
        self.step(|_, _| ());
    }

    /// All messages of a partition, as a reader gets them, and how many gaps.
    fn read(&mut self, partition: u32, from: Start) -> (Vec<(u64, u64)>, usize) {
        let id = self.core.open_reader().unwrap();
        self.core.follow(id, &topic(), Some(partition), from).unwrap();
        let (mut all, mut gaps) = (Vec::new(), 0);
        let mut note = |event: Event| match event {
            Event::Batch(batch) => {
                let one = |d: &Delivery| (d.position.1, number(&d.message));
                all.extend(batch.deliveries.iter().map(one));
            }
            Event::Gap { .. } => gaps += 1,
            Event::CaughtUp(_) => {}
            other => panic!("{other:?}"),
        };
        loop {
            match self.core.poll_reader(id, Waker::noop()) {
                (Next::Event(event), _) => note(event),
                (Next::Read(plan), Some(key)) => {
                    let found = plan.read(&*self.store).unwrap();
                    self.core.bring(id, &key, &plan, found).into_iter().for_each(&mut note);
                }
                _ => break,
            }
        }
        self.core.close_reader(id);
        (all, gaps)
    }

    /// All that the group gets now, acked; and the gaps it was told.
    pub(super) fn consume(&mut self, member: MemberId) -> (usize, usize) {
        let (mut messages, mut gaps) = (0, 0);
        while let Some(event) = self.poll(member) {
            match event {
                Event::Batch(batch) => {
                    messages += batch.deliveries.len();
                    let done: Vec<Position> = batch.deliveries.iter().map(|d| d.position).collect();
                    self.core.ack(member, &batch.of, &done, self.now.steady).unwrap();
                }
                Event::Gap { why, .. } => {
                    assert_eq!(why, GapReason::Trimmed);
                    gaps += 1;
                }
                _ => {}
            }
        }
        (messages, gaps)
    }
}

#[test]
fn what_is_published_is_read_across_segments_and_found_by_position_and_time() {
    let mut bench = bench(spec(2, None, None));
    for n in 0..95 {
        bench.pass(SECOND);
        bench.publish_each((n % 3 == 0).into(), n..n + 1);
    }
    assert!(bench.known() >= 9, "{}", bench.known());
    let all = bench.read(0, Start::Earliest).0;
    assert!(all.iter().map(|(_, number)| *number).eq((0..95).filter(|n| n % 3 != 0)));
    let life = bench.core.life(&topic()).unwrap();
    for skip in [1, 17, 50] {
        let found = bench.read(0, Start::At(Position(life, skip))).0;
        assert_eq!(found, all[skip as usize..]);
        let at = Timestamp::from_millis(1_000_000) + SECOND * (all[skip as usize].1 as u32 + 1);
        assert_eq!(bench.read(0, Start::Time(at)).0, all[skip as usize..]);
    }
    let member = bench.join(|_| ());
    assert_eq!(bench.consume(member), (95, 0));
    let mut bench = bench.reopened();
    assert_eq!(bench.read(0, Start::Earliest).0, all);
    bench.publish_each(0, 95..130);
    assert_eq!(bench.read(0, Start::Earliest).0.len(), all.len() + 35);
}

#[test]
fn a_segment_that_is_not_there_in_time_is_not_waited_for() {
    let mut bench = bench(spec(1, None, None));
    bench.idle = true;
    bench.publish_each(0, 0..35);
    assert_eq!((bench.known(), bench.logs().len()), (1, 1));
    bench.keep_house();
    bench.publish_each(0, 35..36);
    assert_eq!(bench.known(), 2, "begun as soon as it is there");
    assert_eq!(bench.read(0, Start::Earliest).0.len(), 36);
}

#[test]
fn a_segment_that_cannot_be_made_is_tried_again_after_a_while_and_nothing_is_lost() {
    let mut bench = bench(spec(1, None, None));
    bench.idle = true;
    let fail = |bench: &mut Bench| {
        let chores = std::mem::take(&mut bench.chores);
        for chore in &chores {
            let Chore::Open { life, number } = *chore else { panic!("{chore:?}") };
            let log = Err(crate::Error::new(ErrorKind::Unavailable, "no disk"));
            bench.step(|core, step| core.opened(step, Opened { life, number, log }));
        }
        chores.len()
    };
    bench.publish_each(0, 0..15);
    assert_eq!(fail(&mut bench), 1);
    bench.publish_each(0, 15..30);
    assert_eq!(fail(&mut bench), 0, "not with each step");
    for _ in 0..3 {
        bench.tick(SECOND);
        assert_eq!(fail(&mut bench), 1, "tried again");
    }
    bench.tick(SECOND);
    bench.keep_house();
    assert_eq!(bench.known(), 2);
    bench.publish_each(0, 30..35);
    assert_eq!(bench.read(0, Start::Earliest).0.len(), 35);
}

#[test]
fn retention_by_bytes_keeps_the_bound_and_at_most_a_segment_more() {
    let mut bench = bench(spec(2, None, Some(20 * STORED)));
    for n in 0..400 {
        bench.publish_each((n % 4 == 0).into(), n..n + 1);
        let kept: u64 = (0..2).map(|partition| bench.range(partition)).map(|(low, end)| end - low).sum();
        assert!(kept >= 40.min(n + 1), "{kept} of {n}");
        assert!(kept <= 51, "{kept} of {n}");
    }
    assert!(bench.logs().len() <= 7, "{:?}", bench.logs());
    let (low, end) = bench.range(0);
    assert!(bench.read(0, Start::Earliest).0.iter().map(|(offset, _)| *offset).eq(low..end));
}

#[test]
fn the_newest_messages_stay_whatever_the_bound() {
    let mut bench = bench(spec(1, None, Some(1)));
    bench.publish_each(0, 0..200);
    let (low, end) = bench.range(0);
    assert!(low > 150 && end == 200 && low < end, "{low}..{end}");
}

#[test]
fn retention_by_age_removes_a_segment_when_its_newest_message_is_too_old() {
    let mut bench = bench(spec(1, Some(80), None));
    bench.publish_each(0, 0..3);
    bench.tick(SECOND * 11);
    bench.publish_each(0, 3..6);
    bench.tick(SECOND * 68);
    assert_eq!(bench.range(0), (0, 6), "the newest of the first is 79 s old");
    bench.tick(SECOND * 2);
    assert_eq!(bench.range(0).0, 3);
    for _ in 0..100 {
        bench.tick(SECOND);
    }
    assert_eq!(bench.range(0), (6, 6), "all of it is too old");
    assert_eq!(bench.known(), 1);
    bench.publish_each(0, 6..7);
    assert_eq!(bench.read(0, Start::Earliest).0, [(6, 6)]);
}

#[test]
fn what_was_too_old_when_the_broker_was_closed_goes_soon_after_it_is_opened() {
    let mut bench = bench(spec(1, Some(80), None));
    bench.publish_each(0, 0..5);
    bench.pass(SECOND * 1000);
    let mut bench = bench.reopened();
    for _ in 0..4 {
        bench.tick(SECOND);
    }
    assert_eq!(bench.range(0), (5, 5));
}

#[test]
fn a_clock_that_is_set_forward_or_back_removes_nothing_early() {
    for hours in [1, -1] {
        let mut bench = bench(spec(1, Some(600), None));
        bench.publish_each(0, 0..5);
        let shift = hours * 3_600_000;
        bench.now.time_of_day = Timestamp::from_millis(bench.now.time_of_day.as_millis() + shift);
        bench.tick(SECOND * 500);
        bench.publish_each(0, 5..6);
        bench.tick(SECOND * 80);
        assert_eq!(bench.range(0), (0, 6));
        bench.tick(SECOND * 30);
        assert_eq!(bench.range(0), (5, 6));
    }
}

#[test]
fn what_a_live_group_has_not_finished_stays_until_it_has_or_is_gone() {
    for expires in [false, true] {
        let mut bench = bench(spec(2, Some(10), Some(STORED)));
        let member = bench.join(|_| ());
        bench.publish_all(0, &(0..35).map(message).collect::<Vec<_>>());
        bench.tick(SECOND * 100);
        bench.tick(SECOND * 100);
        assert_eq!(bench.range(0).0, 0);
        if expires {
            bench.step(|core, step| core.leave(step, member));
            bench.tick(SECOND * 3590);
            bench.tick(SECOND * 5);
            assert_eq!(bench.range(0).0, 0);
            bench.tick(SECOND * 6);
        } else {
            assert_eq!(bench.consume(member), (35, 0));
            bench.tick(SECOND);
        }
        bench.tick(SECOND * 2);
        assert!(bench.range(0).0 >= 30, "{expires}: {:?}", bench.range(0));
        assert_eq!(bench.logs().len(), bench.known());
    }
}

#[test]
fn a_purge_gives_the_room_back_when_all_of_a_segment_is_purged() {
    let mut bench = bench(spec(2, None, None));
    bench.publish_each(0, 0..25);
    bench.publish_each(1, 25..30);
    let life = bench.core.life(&topic()).unwrap();
    let purge = |bench: &mut Bench, partition, before| {
        bench.step(|core, step| core.purge_topic(step, &topic(), Some(partition), before)).unwrap();
    };
    purge(&mut bench, 0, Start::At(Position(life, 15)));
    assert_eq!((bench.range(0), bench.logs().len()), ((15, 25), bench.known()));
    assert_eq!(bench.read(0, Start::Earliest).0.len(), 10);
    purge(&mut bench, 0, Start::Latest);
    assert_eq!(bench.read(1, Start::Earliest).0.len(), 5, "the other partition keeps what it has");
    purge(&mut bench, 1, Start::Latest);
    bench.keep_house();
    bench.step(|_, _| ());
    assert_eq!((bench.range(0), bench.range(1)), ((25, 25), (5, 5)));
    let only = bench.logs();
    assert_eq!(only.len(), 1, "{only:?}");
    let left = bench.store.open_keyspace(&only[0], Purpose::Log).unwrap();
    let page = bench.store.scan(left, &[], None, Direction::Forward, Limit::items(9)).unwrap();
    assert!(page.items.is_empty(), "nothing is left in the store");
    bench.publish_each(0, 30..31);
    assert_eq!(bench.read(0, Start::Earliest).0, [(25, 30)]);
}

#[test]
fn the_number_of_segments_is_bounded_and_nothing_is_lost_by_that() {
    let mut bench = bench(spec(1, Some(8), None));
    let member = bench.join(|_| ());
    for n in 0..300 {
        bench.publish_each(0, n..n + 1);
        bench.tick(SECOND * 2);
    }
    assert_eq!(bench.core.topics.values().next().unwrap().segments.records().count(), 256);
    assert_eq!(bench.consume(member), (300, 0));
    for _ in 0..5 {
        bench.tick(SECOND * 2);
    }
    assert_eq!((bench.range(0).0, bench.known()), (300, 1));
}

#[test]
fn a_partition_that_is_added_begins_in_the_segment_of_that_time() {
    let mut bench = bench(spec(1, None, Some(20 * STORED)));
    bench.publish_each(0, 0..15);
    bench.step(|core, step| core.grow_topic(step, &topic(), 2)).unwrap();
    bench.publish_each(1, 0..15);
    bench.publish_each(0, 15..30);
    let mut bench = bench.reopened();
    assert!(bench.read(1, Start::Earliest).0.iter().copied().eq((0..15).map(|n| (n, n))));
    bench.publish_each(1, 15..100);
    let (low, end) = bench.range(1);
    assert!(low > 40 && end == 100, "{low}");
    assert_eq!(bench.range(0).0, 30);
}

/// A store in memory that keeps how it was after each change.
#[derive(Debug, Default)]
struct Filmed {
    inner: MemoryStore,
    frames: Mutex<Vec<Arc<MemoryStore>>>,
}

impl Filmed {
    fn shoot<T>(&self, changed: T) -> T {
        let copy = MemoryStore::new();
        let everything = Limit { items: usize::MAX, bytes: usize::MAX };
        for name in self.inner.keyspaces().unwrap() {
            let from = self.inner.open_keyspace(&name, Purpose::State).unwrap();
            let to = copy.open_keyspace(&name, Purpose::State).unwrap();
            let mut batch = WriteBatch::new();
            for (key, value) in
                self.inner.scan(from, &[], None, Direction::Forward, everything).unwrap().items
            {
                batch.put(to, key, value);
            }
            copy.commit(batch, Stored::None).unwrap();
        }
        self.frames.lock().unwrap().push(Arc::new(copy));
        changed
    }
}

type StoreResult<T> = ropeway_store::Result<T>;

impl KeyValue for Filmed {
    fn open_keyspace(&self, name: &str, purpose: Purpose) -> StoreResult<Keyspace> {
        self.shoot(self.inner.open_keyspace(name, purpose))
    }
    fn drop_keyspace(&self, keyspace: Keyspace) -> StoreResult<()> {
        self.shoot(self.inner.drop_keyspace(keyspace))
    }
    fn keyspaces(&self) -> StoreResult<Vec<String>> {
        self.inner.keyspaces()
    }
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> StoreResult<Option<bytes::Bytes>> {
        self.inner.get(keyspace, key)
    }
    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        direction: Direction,
        limit: Limit,
    ) -> StoreResult<Page> {
        self.inner.scan(keyspace, from, to, direction, limit)
    }
    fn commit(&self, batch: WriteBatch, durability: Stored) -> StoreResult<()> {
        self.shoot(self.inner.commit(batch, durability))
    }
    fn flush(&self, keyspace: Keyspace) -> StoreResult<()> {
        self.inner.flush(keyspace)
    }
    fn usage(&self) -> StoreResult<Usage> {
        self.inner.usage()
    }
    fn close(&self) -> StoreResult<()> {
        Ok(())
    }
}

#[test]
fn a_crash_after_any_change_of_the_store_loses_nothing_and_leaves_no_orphan() {
    let film = Arc::new(Filmed::default());
    let mut bench = bench_over(film.clone(), spec(2, Some(60), Some(10 * STORED)));
    let member = bench.join(|s| s.ack_interval = SECOND * 60);
    // How many frames there were, and how far the partitions reached then.
    let mut known = Vec::new();
    for n in 0..120 {
        bench.publish_each((n % 2) as u32, n..n + 1);
        if n % 9 == 8 {
            bench.consume(member);
        }
        if n == 70 {
            bench.consume(member);
            bench.step(|core, step| core.purge_topic(step, &topic(), None, Start::Latest)).unwrap();
        }
        bench.tick(SECOND);
        known.push((film.frames.lock().unwrap().len(), bench.range(0).1, bench.range(1).1));
    }
    assert!(bench.range(0).0 > 20, "segments went meanwhile: {:?}", bench.range(0));
    let frames = std::mem::take(&mut *film.frames.lock().unwrap());
    assert!(frames.len() > 200);
    for (at, frame) in frames.into_iter().enumerate() {
        let mut again = Bench {
            core: Core::recover(frame.clone(), bench.rules.clone(), |_| bench.now).unwrap(),
            store: frame,
            ..Bench::over(Arc::new(MemoryStore::new()), rules())
        };
        if again.core.topic_names().unwrap().is_empty() {
            assert!(again.logs().is_empty(), "{at}: {:?}", again.logs());
            continue;
        }
        assert_eq!(again.logs().len(), again.known(), "{at}: orphans are removed: {:?}", again.logs());
        let durable = known.iter().rev().find(|(frames, ..)| *frames <= at + 1);
        for partition in 0..2 {
            let (low, end) = again.range(partition as usize);
            let least = durable.map_or(0, |known| if partition == 0 { known.1 } else { known.2 });
            assert!(end >= least, "{at}: {end} of {least}");
            let (all, gaps) = again.read(partition, Start::Earliest);
            assert_eq!(gaps, 0);
            let expected = (low..end).map(|offset| (offset, offset * 2 + u64::from(partition)));
            assert!(all.iter().copied().eq(expected), "{at}: {all:?}");
        }
        let member = again.join(|_| ());
        assert_eq!(again.consume(member).1, 0, "{at}: a group that finished what went was told of a gap");
        let twice = again.reopened();
        assert_eq!(twice.logs().len(), twice.known());
    }
}

#[test]
fn who_waits_for_a_topic_is_answered_when_the_commit_fails_that_would_have_it_made() {
    let mut bench = Bench::new(1);
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    let other = Topic::new("other").unwrap();
    let spec = TopicSpec::partitions(1);
    let (mut step, ()) = bench.decide(|core, step| core.create_topic(step, &other, spec, reply));
    let error = crate::Error::new(ErrorKind::Unavailable, "the disk is on fire");
    bench.core.poison(&mut step, &error);
    answer.try_recv().unwrap_err();
    step.take_after().into_iter().for_each(|after| after(Some(&error)));
    assert_eq!(answer.try_recv().unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}

/// A group without members that has a position in partition 0 at most, and what makes that so.
#[test]
fn a_live_group_holds_all_of_a_topic_that_it_has_a_position_in() {
    let group = Group::new("g").unwrap();
    let mut sought = bench(spec(2, Some(10), Some(STORED)));
    sought.publish_each(0, 0..5);
    sought.step(|core, step| core.seek_group(step, &group, &topic(), Some(0), Start::Latest)).unwrap();

    let mut grown = bench(spec(1, Some(10), Some(STORED)));
    let member = grown.join(|_| ());
    grown.step(|core, step| core.leave(step, member));
    grown.step(|core, step| core.grow_topic(step, &topic(), 2)).unwrap();

    let mut again = bench(spec(2, None, None));
    let member = again.join(|_| ());
    again.publish_each(1, 0..5);
    assert_eq!(again.consume(member), (5, 0));
    again.step(|core, step| core.leave(step, member));
    again.step(|core, step| core.delete_topic(step, &topic())).unwrap();
    again.create(spec(2, Some(10), Some(STORED))).unwrap();

    for (mut bench, gaps) in [(sought, 0), (grown, 0), (again, 1)] {
        bench.publish_all(1, &(0..35).map(message).collect::<Vec<_>>());
        let mut bench = bench.reopened();
        bench.tick(SECOND * 100);
        bench.tick(SECOND * 100);
        assert_eq!(bench.range(1), (0, 35));
        let lags = bench.core.shortage().unwrap();
        assert!(lags.contains("\"g\" has not finished 35 messages"), "{lags}");
        let member = bench.join(|_| ());
        let mut told = 0;
        let mut got = 0;
        while let Some(event) = bench.poll(member) {
            match event {
                Event::Batch(batch) => got += batch.deliveries.len(),
                Event::Gap { why, .. } => {
                    assert_eq!(why, GapReason::Recreated);
                    told += usize::from(gaps > 0);
                }
                _ => {}
            }
        }
        assert_eq!((got, told), (35, gaps * 2));
        // Also while its position of this life is not stored.
        let mut bench = bench.reopened();
        bench.step(|_, _| ());
        bench.tick(SECOND * 3590);
        assert_eq!(bench.range(1), (0, 35));
        bench.step(|core, step| core.delete_group(step, &group)).unwrap();
        bench.tick(SECOND * 2);
        bench.tick(SECOND * 2);
        assert_eq!((bench.range(1), bench.core.shortage()), ((35, 35), None));
    }
}
