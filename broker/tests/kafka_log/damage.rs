//! Batches of records whose bytes were damaged on the disk of the server: they are told, with from and to, and what lies behind them comes.
//!
//! The files of the server are changed here, so it has to be on this machine. Not here: records that are whole and no messages (`broker/src/conformance`).

use crate::{
    readers::{PATIENCE, create, put, stage},
    server,
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
};
use ropeway_broker::{
    Consumer, Event, GapReason, Group, MessageBroker, Owned, Position, Reader, Start, Subscription, Topic,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    future::poll_fn,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout};

crate::async_tests!(
    a_reader_is_told_a_damaged_batch_at_the_end_of_a_log_and_goes_on,
    a_reader_is_told_a_damaged_batch_between_others,
    a_member_is_told_a_damaged_batch_at_the_end_of_a_log_and_goes_on,
    a_member_is_told_a_damaged_batch_between_others,
    what_no_checksum_covers_is_told_too_and_holds_nobody_up,
    many_damaged_partitions_are_gone_on_with_at_once,
    a_batch_that_lies_about_where_it_is_hides_nothing_without_a_word,
);

/// A batch of records in a file: its place, its first and last offset.
#[derive(Clone, Copy, Debug)]
struct Stored {
    at: u64,
    bytes: u64,
    first: u64,
    last: u64,
}

/// The folder of a server that is on this machine.
async fn folder() -> PathBuf {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", server::host()).create().unwrap();
    let node = admin.inner().fetch_metadata(None, PATIENCE).unwrap().brokers()[0].id();
    let asked = admin.describe_configs(&[ResourceSpecifier::Broker(node)], &AdminOptions::new()).await;
    let config = asked.unwrap().remove(0).unwrap();
    let folders = ["log.dirs", "log.dir"].iter().find_map(|name| config.get(name)?.value.clone());
    let folder = PathBuf::from(folders.unwrap());
    if !folder.is_dir() {
        crate::trials::ignore(
            "the disk of the server is elsewhere: set ROPEWAY_TEST_KAFKA_URL to one on this machine",
        );
    }
    folder
}

/// The file of a partition that was never rolled.
fn file(folder: &Path, topic: &Topic, partition: u32) -> PathBuf {
    folder.join(format!("{topic}-{partition}")).join("00000000000000000000.log")
}

/// The batches of a file (<https://kafka.apache.org/documentation/#recordbatch>).
fn batches(file: &PathBuf) -> Vec<Stored> {
    let bytes = fs::read(file).unwrap();
    let int = |at: usize| u64::from(u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()));
    let (mut at, mut found) = (0, Vec::new());
    while at + 61 <= bytes.len() {
        let first = u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let size = 12 + int(at + 8);
        if size == 12 {
            break;
        }
        found.push(Stored { at: at as u64, bytes: size, first, last: first + int(at + 23) });
        at += size as usize;
    }
    found
}

/// Changes the last byte of a batch.
fn damage(file: &PathBuf, batch: Stored) {
    flip(file, batch.at + batch.bytes - 1, 0xff);
}

/// Changes these bits of a byte.
fn flip(file: &PathBuf, at: u64, bits: u8) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ bits], at).unwrap();
}

/// What came of a partition, in words, as far as it is told in order: numbers of messages, what could not be read, what is missing.
#[derive(Debug, Default)]
struct Told {
    life: u64,
    said: Vec<String>,
    caught_up: usize,
    /// What is to be acked.
    open: Vec<(Owned, Position)>,
}

impl Told {
    fn take(&mut self, event: Event) {
        match event {
            Event::Batch(batch) => {
                for delivery in batch.deliveries {
                    let payload = delivery.message.payload.unwrap();
                    self.said.push(String::from_utf8(payload.to_vec()).unwrap());
                    self.life = delivery.position.0;
                    self.open.push((batch.of.clone(), delivery.position));
                }
            }
            Event::Unreadable { of, position, raw, why } => {
                assert!(raw.is_none() && why.to_string().contains("damaged"), "{why}");
                self.said.push(format!("unreadable {}", position.1));
                self.open.push((of, position));
            }
            Event::Gap { from, to, why, .. } => {
                assert_eq!(why, GapReason::Damaged, "from {from:?} to {to:?}, after {self:?}");
                self.said.push(format!("gap {} to {}", from.unwrap().1, to.unwrap().1));
            }
            Event::CaughtUp(_) => self.caught_up += 1,
            _ => {}
        }
    }
}

/// What is to be told of these batches, of which those are damaged.
fn expected(all: &[Stored], damaged: &[u64]) -> Vec<String> {
    let mut said = Vec::new();
    for batch in all {
        if damaged.contains(&batch.first) {
            said.push(format!("unreadable {}", batch.first));
            if batch.last > batch.first {
                said.push(format!("gap {} to {}", batch.first + 1, batch.last + 1));
            }
        } else {
            said.extend((batch.first..=batch.last).map(|number| number.to_string()));
        }
    }
    said
}

/// Forty numbers in the first partition of a new topic, in four batches at least: their file, and where the batches lie in it.
async fn forty(broker: &Arc<dyn MessageBroker>, topic: &Topic, partitions: u32) -> (PathBuf, Vec<Stored>) {
    create(broker, topic, partitions).await;
    for begin in [0, 10, 20, 30] {
        put(broker, topic, 0, begin..begin + 10).await;
    }
    let file = file(&folder().await, topic, 0);
    let all = batches(&file);
    assert!(all.len() >= 4 && all.last().unwrap().last == 39, "{all:?}");
    (file, all)
}

/// Who has a topic from its beginning.
enum Who {
    Member(Box<dyn Consumer>),
    Reader(Box<dyn Reader>),
}

impl Who {
    async fn of(broker: &Arc<dyn MessageBroker>, topic: &Topic, member: bool) -> Self {
        if member {
            let group = Group::new(format!("of-{topic}")).unwrap();
            return Self::Member(broker.subscribe(Subscription::new(group, [topic.clone()])).await.unwrap());
        }
        let mut reader = broker.read().await.unwrap();
        reader.follow(topic, None, Start::Earliest).await.unwrap();
        Self::Reader(reader)
    }

    async fn next(&mut self) -> Event {
        let event = poll_fn(|cx| match self {
            Self::Member(consumer) => consumer.poll_next(cx),
            Self::Reader(reader) => reader.poll_next(cx),
        });
        event.await.unwrap()
    }
}

/// A topic with batches of which some are damaged; what is to be told of them, and how many messages there were.
async fn damaged(broker: &Arc<dyn MessageBroker>, topic: &Topic, last: bool) -> (PathBuf, Vec<String>) {
    let (file, all) = forty(broker, topic, 1).await;
    let chosen = match last {
        true => vec![*all.last().unwrap()],
        // Two that follow each other, and one alone.
        false => vec![all[0], all[1], all[all.len() - 2]],
    };
    chosen.iter().for_each(|batch| damage(&file, *batch));
    let chosen: Vec<u64> = chosen.iter().map(|batch| batch.first).collect();
    (file, expected(&all, &chosen))
}

async fn reads(url: &str, topic: &Topic, last: bool) {
    let (broker, _) = stage().await;
    let (_, expected) = damaged(&broker, topic, last).await;
    let reading = ropeway_broker::connect(url).await.unwrap();
    let mut reader = reading.read().await.unwrap();
    reader.follow(topic, None, Start::Earliest).await.unwrap();
    let mut told = Told::default();
    while told.caught_up == 0 || told.said.len() < expected.len() {
        let event = timeout(PATIENCE, poll_fn(|cx| reader.poll_next(cx))).await;
        told.take(event.unwrap_or_else(|_| panic!("nothing more came: {told:?}")).unwrap());
    }
    assert_eq!(told.said, expected);
    // It is read on, and nothing is told again.
    put(&broker, topic, 0, 40..43).await;
    while told.said.len() < expected.len() + 3 {
        let event = timeout(PATIENCE, poll_fn(|cx| reader.poll_next(cx))).await;
        told.take(event.unwrap_or_else(|_| panic!("nothing more came: {told:?}")).unwrap());
    }
    assert_eq!(told.said[expected.len()..], ["40", "41", "42"]);
    let more = timeout(Duration::from_millis(500), poll_fn(|cx| reader.poll_next(cx))).await;
    assert!(more.is_err(), "{more:?}");
    assert_eq!(told.caught_up, 1);
}

/// A server hands out no more than one batch at a time.
fn small() -> String {
    format!("{}?rdkafka.fetch.message.max.bytes=100", server::url())
}

async fn a_reader_is_told_a_damaged_batch_at_the_end_of_a_log_and_goes_on() {
    let (_, topic) = stage().await;
    reads(&server::url(), &topic, true).await;
}

async fn a_reader_is_told_a_damaged_batch_between_others() {
    for url in [server::url(), small()] {
        let (_, topic) = stage().await;
        reads(&url, &topic, false).await;
    }
}

async fn consumes(url: &str, topic: &Topic, last: bool) {
    let (broker, _) = stage().await;
    let (_, mut expected) = damaged(&broker, topic, last).await;
    let consuming = ropeway_broker::connect(url).await.unwrap();
    let group = Group::new(format!("of-{topic}")).unwrap();
    let mut consumer = consuming.subscribe(Subscription::new(group.clone(), [topic.clone()])).await.unwrap();
    let control = consumer.control();
    let mut told = Told::default();
    let mut more = true;
    while told.said.len() < expected.len() || more {
        if told.said.len() == expected.len() && told.caught_up > 0 && more {
            put(&broker, topic, 0, 40..43).await;
            expected.extend(["40", "41", "42"].map(str::to_owned));
            more = false;
        }
        let event = timeout(PATIENCE, poll_fn(|cx| consumer.poll_next(cx))).await;
        told.take(event.unwrap_or_else(|_| panic!("nothing more came: {told:?}")).unwrap());
    }
    assert_eq!(told.said, expected);
    let mut done: BTreeMap<u64, (Owned, Vec<Position>)> = BTreeMap::new();
    for (of, position) in told.open {
        done.entry(of.epoch.0).or_insert_with(|| (of, Vec::new())).1.push(position);
    }
    for (of, positions) in done.values() {
        control.ack(of, positions).unwrap();
    }
    assert!(control.flush().await.is_empty());
    let described = broker.admin().describe_group(&group).await.unwrap();
    let lag: Vec<_> = described.partitions.iter().map(|of| of.lag).collect();
    assert_eq!(lag, [Some(0)], "{described:?}");
}

async fn a_member_is_told_a_damaged_batch_at_the_end_of_a_log_and_goes_on() {
    let (_, topic) = stage().await;
    consumes(&server::url(), &topic, true).await;
}

async fn a_member_is_told_a_damaged_batch_between_others() {
    for url in [server::url(), small()] {
        let (_, topic) = stage().await;
        consumes(&url, &topic, false).await;
    }
}

/// A byte of the header of a batch that no checksum covers, the bits of it that change, whether the library reads what lies behind, and whether it is the last batch.
type Flipped = (&'static str, u64, u8, bool, bool);

/// Which of the others a server does not hand out any more depends on what it makes of the header. A length that is only somewhat too small is left out: the library
/// (2.12.1) takes what lies behind for a batch then, and may end the process.
const FLIPPED: &[Flipped] = &[
    ("a format that nobody has", 16, 0xff, false, false),
    ("a format that nobody has, last", 16, 0xff, false, true),
    ("the first format", 16, 2, false, false),
    ("the first format, last", 16, 2, false, true),
    ("a format to come", 16, 1, true, false),
    ("a format to come, last", 16, 1, true, true),
    ("a negative length", 8, 0x80, false, false),
    ("a negative length, last", 8, 0x80, false, true),
    ("a huge length", 8, 0x40, false, false),
    ("a huge length, last", 8, 0x40, false, true),
    ("a checksum", 17, 0xff, true, false),
    ("the epoch of a leader", 12, 0xff, true, false),
    ("the low byte of the epoch of a leader, last", 15, 1, true, true),
];

/// What came of a partition: numbers, and what is missing.
#[derive(Debug, Default)]
struct Came {
    numbers: Vec<u64>,
    missing: Vec<(u64, u64)>,
}

impl Came {
    /// Takes an event of partition 0; the offsets of messages of the other one.
    fn take(&mut self, what: &str, event: Event) -> Vec<u64> {
        match event {
            Event::Batch(batch) if batch.of.partition == 1 => {
                return batch.deliveries.iter().map(|delivery| delivery.position.1).collect();
            }
            Event::Batch(batch) => {
                for delivery in batch.deliveries {
                    let payload = String::from_utf8(delivery.message.payload.unwrap().to_vec()).unwrap();
                    assert_eq!(payload, delivery.position.1.to_string(), "{what}");
                    self.numbers.push(delivery.position.1);
                }
            }
            Event::Unreadable { position, .. } => self.missing.push((position.1, position.1 + 1)),
            Event::Gap { from, to, why, .. } => {
                assert_eq!(why, GapReason::Damaged, "{what}: {from:?} to {to:?}");
                self.missing.push((from.unwrap().1, to.unwrap().1));
            }
            _ => {}
        }
        Vec::new()
    }

    /// How often each offset was told.
    fn told(&self) -> BTreeMap<u64, usize> {
        let mut told = BTreeMap::new();
        let missing = self.missing.iter().flat_map(|(from, to)| *from..*to);
        self.numbers.iter().copied().chain(missing).for_each(|at| *told.entry(at).or_default() += 1);
        told
    }
}

async fn what_no_checksum_covers_is_told_too_and_holds_nobody_up() {
    futures::future::join_all(FLIPPED.iter().copied().map(flipped)).await;
}

/// When the next number is published to the other partition, and how long it may take.
const BESIDE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(25));

async fn flipped((what, byte, bits, behind, last): Flipped) {
    let (broker, topic) = stage().await;
    let (file, all) = forty(&broker, &topic, 2).await;
    let damaged = all[if last { all.len() - 1 } else { 1 }];
    flip(&file, damaged.at + byte, bits);
    let mut end = 40;
    for member in [true, false] {
        let mut who = Who::of(&broker, &topic, member).await;
        let mut came = Came::default();
        // What is there, and what comes later.
        for more in [true, false] {
            comes(what, (&broker, &topic), end, &mut came, &mut who).await;
            let whole = |of: &&Stored| of.first != damaged.first && (behind || of.last < damaged.first);
            for stored in all.iter().filter(whole) {
                let has = (stored.first..=stored.last).all(|at| came.numbers.contains(&at));
                assert!(has, "{what}, of a member: {member}: {stored:?} is whole: {came:?}");
            }
            if more {
                put(&broker, &topic, 0, end..end + 3).await;
                end += 3;
            }
        }
    }
}

/// Takes what comes until each offset before that was told, and that once; meanwhile what is published to the other partition comes soon.
async fn comes(
    what: &str,
    (broker, topic): (&Arc<dyn MessageBroker>, &Topic),
    until: usize,
    came: &mut Came,
    who: &mut Who,
) {
    let sent = std::cell::RefCell::new(BTreeMap::new());
    let publish = async {
        loop {
            let at = Instant::now();
            let position = put(broker, topic, 1, 0..1).await.remove(0);
            sent.borrow_mut().insert(position.1, at);
            tokio::time::sleep(BESIDE.0).await;
        }
    };
    let take = async {
        while came.told().len() < until {
            let event = timeout(Duration::from_secs(60), who.next()).await;
            let event = event.unwrap_or_else(|_| panic!("{what}: nothing more came: {came:?}"));
            for other in came.take(what, event) {
                let took = sent.borrow().get(&other).map_or(Duration::ZERO, Instant::elapsed);
                assert!(took < BESIDE.1, "{what}: another partition waited for {took:?}: {came:?}");
            }
        }
    };
    tokio::select! {
        () = take => {}
        () = publish => unreachable!(),
    }
    assert!(came.told().values().all(|times| *times == 1), "{what}: {came:?}");
}

/// One after the other each takes a client, and up to 5 s.
async fn many_damaged_partitions_are_gone_on_with_at_once() {
    const MANY: u32 = 24;
    const SOON: Duration = Duration::from_secs(40);
    let (broker, topic) = stage().await;
    create(&broker, &topic, MANY).await;
    let folder = folder().await;
    let mut expected = BTreeSet::new();
    for partition in 0..MANY {
        for begin in [0, 10, 20] {
            put(&broker, &topic, partition, begin..begin + 10).await;
        }
        let file = file(&folder, &topic, partition);
        let all = batches(&file);
        damage(&file, all[all.len() / 2]);
        expected.insert((partition, all.last().unwrap().first));
    }
    let group = Group::new(format!("of-{topic}")).unwrap();
    let mut consumer = broker.subscribe(Subscription::new(group, [topic.clone()])).await.unwrap();
    let mut reader = broker.read().await.unwrap();
    reader.follow(&topic, None, Start::Earliest).await.unwrap();
    // What lies behind the damage comes, to both.
    let (mut consumed, mut read) = (expected.clone(), expected);
    let take = |left: &mut BTreeSet<(u32, u64)>, event: Event| {
        let Event::Batch(batch) = event else { return };
        batch.deliveries.iter().for_each(|it| _ = left.remove(&(batch.of.partition, it.position.1)));
    };
    let began = Instant::now();
    while !consumed.is_empty() || !read.is_empty() {
        let next = async {
            tokio::select! {
                event = poll_fn(|cx| consumer.poll_next(cx)) => take(&mut consumed, event.unwrap()),
                event = poll_fn(|cx| reader.poll_next(cx)) => take(&mut read, event.unwrap()),
            }
        };
        let left = SOON.saturating_sub(began.elapsed());
        let more = timeout(left, next).await;
        assert!(more.is_ok(), "not within {SOON:?}: consumed {consumed:?}, read {read:?}");
    }
}

/// A batch whose first offset became larger on the disk: its records come where they are not, and the library goes back behind it.
async fn a_batch_that_lies_about_where_it_is_hides_nothing_without_a_word() {
    // Within the log, behind its end, and far behind that.
    let flips = [("within", 7, 16), ("behind", 7, 0x80), ("far behind", 3, 1)];
    let all = flips
        .iter()
        .flat_map(|flip| [(true, false), (false, false), (true, true), (false, true)].map(|of| (*flip, of)));
    let all = all.filter(|((what, ..), (_, last))| !last || *what == "behind");
    futures::future::join_all(all.map(|(flip, (member, last))| lies(flip, member, last))).await;
}

async fn lies((what, byte, bits): (&'static str, u64, u8), member: bool, last: bool) {
    let (broker, topic) = stage().await;
    let (file, all) = forty(&broker, &topic, 1).await;
    let lies = if last { all.last() } else { all.iter().find(|of| of.first == 10) }.unwrap();
    flip(&file, lies.at + byte, bits);
    let mut who = Who::of(&broker, &topic, member).await;
    // The offsets that came with what was written there, or were told to be missing.
    let (mut whole, mut missing, mut cut) = (BTreeSet::new(), BTreeSet::new(), !last);
    for end in [40, 43] {
        // Of the last batch it is told that the log lost its end, to a member again and again until something lies behind.
        let until = if last { lies.first } else { 40 };
        while !cut || !(0..until).chain(40..end).all(|at| whole.contains(&at) || missing.contains(&at)) {
            let event = timeout(Duration::from_secs(30), who.next()).await;
            let state =
                || format!("{what}, of a member: {member}, last: {last}: {whole:?}, missing {missing:?}");
            match event.unwrap_or_else(|_| panic!("nothing more came: {}", state())) {
                Event::Batch(batch) => whole.extend(batch.deliveries.iter().filter_map(|delivery| {
                    let payload = delivery.message.payload.as_ref()?;
                    (*payload == delivery.position.1.to_string()).then_some(delivery.position.1)
                })),
                Event::Gap { why: GapReason::Truncated, .. } if last => cut = true,
                Event::Gap { from, to, why, .. } => {
                    assert_eq!(why, GapReason::Damaged, "{}", state());
                    missing.extend((from.unwrap().1..to.unwrap().1).take(50));
                }
                _ => {}
            }
        }
        if end == 40 {
            put(&broker, &topic, 0, 40..43).await;
        }
    }
    // Nothing but the batch itself is lost to a reader.
    assert!(member || missing.iter().all(|at| (lies.first..=lies.last).contains(at)), "{what}: {missing:?}");
}
