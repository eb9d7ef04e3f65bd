//! What a member decides, without a client: each test plays the client and the server, and looks at what is to be done and told.
//!
//! Not here: the tests (beside this file), what a partition begins with (`taking.rs`), the contract on a real server (the conformance suite).

mod forwarding;
mod gate;
mod going;
mod history;
mod joining;
mod losing;
mod reading;
mod storing;

use super::{
    core::{Core, Rules},
    duty::Job,
    reading::Run,
    share::Read,
    storing::{Batch, Large, Verdict},
    taking::{Looked, Seen, Stored},
};
use crate::{
    Bound, Epoch, Error, ErrorKind, Event, Message, Owned, Position, Result, Start, Timestamp, Topic,
    balance::TopicPartition,
    kafka::metadata::{Known, Metadata, parse},
    members::{self, Core as _, Stirred},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    slice,
    task::Waker,
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

const LIFE: u64 = 5;
const DRAIN: Duration = Duration::from_secs(2);
const SESSION: Duration = Duration::from_secs(9);

fn topic() -> Topic {
    Topic::new("t").unwrap()
}

fn key(partition: u32) -> TopicPartition {
    (topic(), partition)
}

fn p(offset: u64) -> Position {
    Position(LIFE, offset)
}

/// What the server keeps of a partition.
#[derive(Clone, Debug)]
struct Log {
    low: u64,
    high: u64,
    stored: Option<Stored>,
}

/// A member, and a client and a server that do what they are told.
struct Play {
    core: Core,
    now: Instant,
    clock: i64,
    life: u64,
    logs: BTreeMap<u32, Log>,
    /// What the client reads, and from where.
    reads: BTreeMap<u32, u64>,
    /// What is answered to commits.
    answer: fn() -> Verdict,
    /// A commit that is not answered.
    open: Option<Batch>,
    hold_commits: bool,
    hold_looks: bool,
    look: Option<(Vec<TopicPartition>, BTreeSet<Topic>)>,
    known: BTreeMap<Topic, u64>,
    /// Where damaged batches end, as far as a look finds it out.
    behind: BTreeMap<u32, u64>,
}

impl Play {
    fn of(count: u32) -> Self {
        Self::with(count, |_| {})
    }

    fn with(count: u32, change: fn(&mut Rules)) -> Self {
        let now = Instant::now();
        let mut rules = Rules {
            group: "g".into(),
            common: members::Rules {
                bound: Bound { messages: 8, bytes: 1 << 20 },
                ack_interval: Duration::from_millis(100),
                drain: DRAIN,
            },
            session: SESSION,
            watched: false,
        };
        change(&mut rules);
        let log = Log { low: 0, high: 0, stored: None };
        Self {
            core: Core::new(rules, [(topic(), Start::Earliest)].into(), now),
            now,
            clock: 1000,
            life: LIFE,
            logs: (0..count).map(|partition| (partition, log.clone())).collect(),
            reads: BTreeMap::new(),
            answer: || Verdict::Stored,
            open: None,
            hold_commits: false,
            hold_looks: false,
            look: None,
            known: BTreeMap::new(),
            behind: BTreeMap::new(),
        }
    }

    /// The same where it owns all, and was told.
    fn owning(count: u32) -> Self {
        let mut play = Self::of(count);
        play.give(0..count);
        assert_eq!(play.act(), "subscribe, look, commit, assign");
        assert!(play.told().starts_with("assigned"));
        play
    }

    fn give(&mut self, partitions: impl IntoIterator<Item = u32>) {
        _ = self.core.assigned(partitions.into_iter().map(key), self.now);
    }

    fn take_back(&mut self, partitions: impl IntoIterator<Item = u32>, lost: bool) {
        _ = self.core.revoke(partitions.into_iter().map(key).collect(), lost, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.clock += i64::try_from(time.as_millis()).unwrap();
    }

    fn publish(&mut self, partition: u32, count: u64) {
        self.logs.get_mut(&partition).unwrap().high += count;
    }

    /// Does what is to be done until there is nothing; answers that as words.
    fn act(&mut self) -> String {
        let mut done = Vec::new();
        for _ in 0..50 {
            self.core.polled = self.now;
            _ = self.core.tick(self.now);
            let word = match self.core.next_job(self.now) {
                Job::Wait(..) | Job::Moment(_) => return done.join(", "),
                Job::End => {
                    done.push("end");
                    return done.join(", ");
                }
                Job::Subscribe(_) => "subscribe",
                Job::Answer(keys) => {
                    keys.iter().for_each(|key| assert!(self.reads.remove(&key.1).is_some()));
                    "answer"
                }
                Job::Unassign(keys) => {
                    keys.iter().for_each(|key| assert!(self.reads.remove(&key.1).is_some()));
                    "unassign"
                }
                Job::Assign(keys) => {
                    for place in &keys {
                        let before = self.reads.insert(place.key.1, place.offset);
                        assert_eq!(before, None, "it is read already");
                    }
                    "assign"
                }
                Job::Hold(_) => "hold",
                Job::Resume(_) => "resume",
                Job::Commit(batch) => {
                    assert!(self.open.is_none(), "one commit at a time");
                    if self.hold_commits {
                        self.open = Some(batch);
                    } else {
                        self.commit(batch);
                    }
                    "commit"
                }
                Job::Look { keys, check } => {
                    if self.hold_looks {
                        self.look = Some((keys, check));
                    } else {
                        self.looked(&keys, &check);
                    }
                    "look"
                }
                Job::Reopen => {
                    self.reads.clear();
                    self.core.reopened(self.now);
                    "reopen"
                }
                Job::Leave => {
                    _ = self.core.left();
                    "leave"
                }
            };
            done.push(word);
        }
        panic!("it never rests: {done:?}");
    }

    fn commit(&mut self, batch: Batch) {
        let verdicts: Vec<Verdict> = batch
            .commits
            .iter()
            .map(|_| ())
            .chain(batch.starts.iter().map(|_| ()))
            .map(|()| (self.answer)())
            .collect();
        let shares =
            batch.commits.iter().map(|commit| (commit.of.partition, commit.position.1, &commit.metadata));
        let starts = batch.starts.iter().map(|start| (start.of.1, start.offset, &start.metadata));
        for ((partition, offset, metadata), verdict) in shares.chain(starts).zip(&verdicts) {
            assert!(metadata.len() <= 4096 && matches!(parse(Some(metadata.as_bytes())), Known::Ours(_)));
            if matches!(verdict, Verdict::Stored) {
                let stored = Stored { offset, metadata: Some(metadata.clone().into_bytes()) };
                self.logs.get_mut(&partition).unwrap().stored = Some(stored);
            }
        }
        _ = self.core.committed(batch, verdicts, self.now);
    }

    fn looked(&mut self, keys: &[TopicPartition], check: &BTreeSet<Topic>) {
        let looked = self.found();
        _ = self.core.looked(keys, check, Ok(looked), self.now);
    }

    /// What a look finds now.
    fn found(&self) -> Looked {
        let mut seen = Seen { life: self.life, ..Seen::default() };
        for (partition, log) in &self.logs {
            seen.stored.extend(log.stored.clone().map(|stored| (*partition, stored)));
            seen.ends.insert(*partition, (log.low, log.high));
            seen.starts.insert(*partition, log.low);
        }
        seen.behind.clone_from(&self.behind);
        let clock = Timestamp::from_millis(self.clock);
        Looked {
            topics: [(topic(), seen)].into(),
            known: self.known.clone(),
            clock,
            asked: Some(self.now),
            unknown: BTreeSet::new(),
        }
    }

    /// The client brings what there is of a partition, `most` records of it.
    fn read(&mut self, partition: u32, most: u64) {
        let high = self.logs[&partition].high;
        let Some(from) = self.reads.get_mut(&partition) else { return };
        let to = high.min(*from + most);
        let reads = (*from..to).map(|offset| Read {
            offset,
            at: i64::try_from(offset).unwrap(),
            what: Ok(Message::builder().payload(offset.to_string()).build()),
        });
        let mut run = Run { key: key(partition), reads: reads.collect() };
        *from = to;
        _ = self.core.take(slice::from_mut(&mut run), self.now);
        // What came after a pause waits for a look.
        if !self.hold_looks && self.core.owner.shares.values().any(|share| share.log.parked.is_some()) {
            let open = std::mem::replace(&mut self.core.next_look, self.now);
            if let Some(Job::Look { keys, check }) = self.core.look(self.now) {
                self.looked(&keys, &check);
            }
            self.core.next_look = self.core.next_look.max(open);
        }
    }

    /// The client finds a damaged batch, and those records behind it.
    fn damage(&mut self, partition: u32, begin: u64, behind: Range<u64>) {
        let why = Error::new(ErrorKind::Corrupt, "its checksum is wrong");
        let mut reads = vec![Read { offset: begin, at: 0, what: Err((None, why)) }];
        reads.extend(behind.map(|offset| Read { offset, at: 0, what: Ok(Message::builder().build()) }));
        _ = self.core.take(&mut [Run { key: key(partition), reads }], self.now);
    }

    /// The client brings records of these offsets.
    fn bring(&mut self, partition: u32, offsets: &[u64]) {
        let read = |offset: &u64| Read { offset: *offset, at: 0, what: Ok(Message::builder().build()) };
        let reads = offsets.iter().map(read).collect();
        _ = self.core.take(&mut [Run { key: key(partition), reads }], self.now);
    }

    fn poll(&mut self) -> Option<Result<Event>> {
        self.core.poll(Waker::noop(), self.now).0
    }

    /// All that is told, in words.
    fn told(&mut self) -> String {
        let mut told = Vec::new();
        while let Some(event) = self.poll() {
            match event {
                Ok(event) => told.push(say(&event)),
                Err(error) => {
                    told.push(format!("end {}", error.kind()));
                    break;
                }
            }
        }
        told.join(", ")
    }

    fn owned(&self, partition: u32) -> Owned {
        self.core.owner.shares[&key(partition)].of.clone()
    }

    fn ack(&mut self, of: &Owned, offsets: &[u64]) -> Result<()> {
        let done: Vec<_> = offsets.iter().map(|offset| p(*offset)).collect();
        self.core.owner.ack(of, &done, self.now).map(|_| ())
    }

    fn stored(&self, partition: u32) -> (u64, Metadata) {
        let stored = self.logs[&partition].stored.clone().unwrap();
        match parse(stored.metadata.as_deref()) {
            Known::Ours(metadata) => (stored.offset, metadata),
            other => panic!("{other:?}"),
        }
    }
}

fn say(event: &Event) -> String {
    match event {
        Event::Assigned(list) => {
            let list: Vec<_> =
                list.iter().map(|one| format!("{}@{}", one.of.partition, one.from.1)).collect();
            format!("assigned {}", list.join(" "))
        }
        Event::Revoking { partitions, left } => {
            let list: Vec<_> = partitions.iter().map(|of| of.partition.to_string()).collect();
            format!("revoking {} {}s", list.join(" "), left.as_secs())
        }
        Event::Gone(of, why) => format!("gone {} {why:?}", of.partition),
        Event::Batch(batch) => {
            let list: Vec<_> = batch.deliveries.iter().map(|one| one.position.1.to_string()).collect();
            format!("batch {}: {}", batch.of.partition, list.join(" "))
        }
        Event::Unreadable { of, position, .. } => format!("unreadable {}: {}", of.partition, position.1),
        Event::Gap { of, from, to, why } => {
            format!("gap {}: {:?} to {:?} {}", of.partition, from.map(|p| p.1), to.map(|p| p.1), why.as_str())
        }
        Event::CaughtUp(of) => format!("caught up {}", of.partition),
    }
}
