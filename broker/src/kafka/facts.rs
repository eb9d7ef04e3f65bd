//! What the servers say of a topic, and what follows from it: what an ack is worth, how large a message may be, which ones are refused.
//!
//! Pure. Not here: asking (`topics.rs`), how large a record is (`layout.rs`).

use super::layout::{self, OVERHEAD};
use crate::{Durability, Error, ErrorKind, Message, Position, Result, Timestamp, Topic, partition_for_key};
use std::time::Duration;

/// The largest message whatever a topic takes, in bytes of [`Message::size`].
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// How a topic is configured. What a server does not tell is what its documentation says is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicConfig {
    /// The most bytes of a record batch (`max.message.bytes`).
    pub(super) max_message_bytes: usize,
    /// How many replicas must have a message before it is acked (`min.insync.replicas`).
    pub(super) min_insync: u32,
    /// Each message is written to the disk before it is acked (`flush.messages` 1).
    pub(super) flushes: bool,
    /// Only the last message of a key is kept (`cleanup.policy`).
    pub(super) compact: bool,
    /// What is older is deleted (`cleanup.policy` and `retention.ms`).
    pub(super) age: Option<Duration>,
    /// What is more than that in a partition is deleted (`retention.bytes`).
    pub(super) bytes: Option<u64>,
    /// How far in the past and in the future the time of a message may lie (`message.timestamp.before.max.ms`, `.after.max.ms`).
    pub(super) past: Option<Duration>,
    /// See above.
    pub(super) future: Option<Duration>,
}

impl TopicConfig {
    /// From what the servers answer: the value of a name, where there is one.
    pub(super) fn parse<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Self {
        let number = |name: &str| value(name)?.trim().parse::<u64>().ok();
        // What they call no limit is -1, or the largest number.
        let millis =
            |name: &str| number(name).filter(|millis| *millis < i64::MAX as u64).map(Duration::from_millis);
        let policy = value("cleanup.policy").unwrap_or("delete");
        let deletes = policy.split(',').any(|policy| policy.trim() == "delete");
        let own_times = value("message.timestamp.type") == Some("LogAppendTime");
        Self {
            max_message_bytes: number("max.message.bytes")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(1_048_588),
            min_insync: number("min.insync.replicas").and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            flushes: number("flush.messages") == Some(1),
            compact: policy.split(',').any(|policy| policy.trim() == "compact"),
            age: millis("retention.ms").filter(|_| deletes),
            bytes: number("retention.bytes").filter(|_| deletes),
            past: millis("message.timestamp.before.max.ms").filter(|_| !own_times),
            future: millis("message.timestamp.after.max.ms").filter(|_| !own_times),
        }
    }
}

/// A partition as the servers describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionFacts {
    /// Whether it has a leader now.
    pub(super) led: bool,
    /// How many replicas it has.
    pub(super) replicas: u32,
    /// How many of them have all that was acked.
    pub(super) in_sync: u32,
}

/// A topic as the servers described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// The id of this life of the topic.
    pub(super) id: [u8; 16],
    /// The id, folded to the first number of its positions.
    pub(super) life: u64,
    /// Its partitions, by number.
    pub(super) partitions: Vec<PartitionFacts>,
    /// How it is configured.
    pub(super) config: TopicConfig,
    /// The partitions that have a leader: all where none has.
    led: Vec<u32>,
}

/// The first number of the positions of a topic: the halves of its id, one upon the other; never 0.
pub(super) const fn fold(id: [u8; 16]) -> u64 {
    let id = u128::from_be_bytes(id);
    let folded = (id >> 64) as u64 ^ id as u64;
    if folded == 0 { 1 } else { folded }
}

impl Described {
    pub(super) fn new(id: [u8; 16], partitions: Vec<PartitionFacts>, config: TopicConfig) -> Self {
        let led = |(partition, facts): (u32, &PartitionFacts)| facts.led.then_some(partition);
        let mut all: Vec<u32> = (0..).zip(&partitions).filter_map(led).collect();
        if all.is_empty() {
            all = (0..).zip(&partitions).map(|(partition, _)| partition).collect();
        }
        Self { id, life: fold(id), partitions, config, led: all }
    }

    /// How many partitions it has.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// The position of an offset.
    pub(super) fn at(&self, offset: i64) -> Option<Position> {
        Some(Position(self.life, u64::try_from(offset).ok()?))
    }

    /// The largest message, in bytes of [`Message::size`]. One with hundreds of headers may be refused a bit below it: in a record they take more.
    pub(super) fn max_message(&self) -> usize {
        self.config.max_message_bytes.saturating_sub(OVERHEAD).min(MAX_MESSAGE)
    }

    /// What an acked message survives.
    ///
    /// An ack comes when all replicas in sync have the message, and they are at least `min.insync.replicas`. None of them writes to the disk
    /// before that unless `flush.messages` is 1. So two of them survive the loss of one machine; one of them alone survives that its
    /// process is killed, as the system has the pages, and a power cut only where it flushes.
    pub(super) fn durability(&self) -> Durability {
        let replicas = self.partitions.iter().map(|partition| partition.replicas).min().unwrap_or(1);
        // The servers take a minimum that is more than the replicas for that many.
        if replicas >= 2 && self.config.min_insync >= 2 {
            return Durability::Replicated;
        }
        if self.config.flushes { Durability::PowerLoss } else { Durability::ProcessCrash }
    }

    /// Whether it gives what is asked for.
    ///
    /// # Errors
    /// `Unsupported` with what it gives and the way out.
    pub(super) fn gives(&self, topic: &Topic, at_least: Option<Durability>) -> Result<()> {
        let Some(at_least) = at_least.filter(|at_least| *at_least > self.durability()) else { return Ok(()) };
        let replicas = self.partitions.iter().map(|partition| partition.replicas).min().unwrap_or(1);
        let way_out = match at_least {
            Durability::Replicated => "give it 2 replicas or more and min.insync.replicas of 2 or more",
            _ => "set its flush.messages to 1, or give it replicas and min.insync.replicas of 2 or more",
        };
        let context = format!(
            "topic {topic:?} gives {} ({replicas} replicas, min.insync.replicas {}) and {} is asked for; {way_out}",
            self.durability().as_str(),
            self.config.min_insync,
            at_least.as_str()
        );
        Err(Error::new(ErrorKind::Unsupported, context))
    }

    /// The partition that is to take a message; `spread` says which of those that have a leader takes one without key.
    ///
    /// # Errors
    /// `TooLarge`, `Invalid`, `NotFound` for a partition that is not there.
    pub(super) fn place(
        &self,
        topic: &Topic,
        chosen: Option<u32>,
        message: &Message,
        now: Timestamp,
        spread: impl FnOnce() -> usize,
    ) -> Result<u32> {
        message.check(self.max_message())?;
        layout::fits(message, self.config.max_message_bytes)?;
        self.check_time(message.timestamp, now)?;
        if self.config.compact && message.key.is_none() {
            let context = format!("topic {topic:?} is compacted, where each message has a key: give it one");
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        match (chosen, &message.key) {
            (Some(chosen), _) if chosen < self.count() => Ok(chosen),
            (Some(chosen), _) => Err(no_partition(topic, chosen, self.count())),
            (None, Some(key)) => Ok(partition_for_key(key, self.count())),
            (None, None) => Ok(self.led.get(spread() % self.led.len().max(1)).copied().unwrap_or(0)),
        }
    }

    /// A record whose time the server does not take would take its whole batch with it.
    fn check_time(&self, timestamp: Timestamp, now: Timestamp) -> Result<()> {
        let TopicConfig { past, future, .. } = self.config;
        let wrong = |what: &str, name: &str, most: Duration| {
            let context = format!(
                "the timestamp lies more than {most:?} in the {what}, which the topic does not take ({name}): correct it, or raise that"
            );
            Err(Error::new(ErrorKind::Invalid, context))
        };
        match (past, future) {
            (Some(most), _) if now.since(timestamp) > most => {
                wrong("past", "message.timestamp.before.max.ms", most)
            }
            (_, Some(most)) if timestamp.since(now) > most => {
                wrong("future", "message.timestamp.after.max.ms", most)
            }
            _ => Ok(()),
        }
    }

    /// Why messages may wait at the servers, where it shows: partitions without leader, or with too few replicas in sync.
    pub(super) fn hindered(&self) -> Option<String> {
        (0u32..).zip(&self.partitions).find_map(|(number, partition)| {
            let needed = self.config.min_insync.min(partition.replicas);
            if !partition.led {
                return Some(format!("partition {number} has no leader now"));
            }
            (partition.in_sync < needed).then(|| {
                let in_sync = partition.in_sync;
                format!("partition {number} has {in_sync} replicas in sync and needs {needed} (min.insync.replicas)")
            })
        })
    }
}

pub(super) fn no_partition(topic: &Topic, partition: u32, partitions: u32) -> Error {
    let context = format!("topic {topic:?} has no partition {partition}; it has {partitions}, from 0 on");
    Error::new(ErrorKind::NotFound, context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn orders() -> Topic {
        Topic::new("orders").unwrap()
    }

    fn config(values: &[(&'static str, &'static str)]) -> TopicConfig {
        let values: BTreeMap<_, _> = values.iter().copied().collect();
        TopicConfig::parse(|name| values.get(name).copied())
    }

    fn described(replicas: u32, partitions: u32, values: &[(&'static str, &'static str)]) -> Described {
        let facts = PartitionFacts { led: true, replicas, in_sync: replicas };
        Described::new([7; 16], vec![facts; partitions as usize], config(values))
    }

    fn place(topic: &Described, chosen: Option<u32>, message: &Message) -> Result<u32> {
        topic.place(&orders(), chosen, message, Timestamp::from_millis(10_000_000), || 1)
    }

    #[test]
    fn lives_differ_and_none_is_zero() {
        assert_eq!(fold([0; 16]), 1);
        let mut id = [0; 16];
        (id[7], id[15]) = (1, 1);
        assert_eq!(fold(id), 1);
        id[0] = 0x80;
        assert_eq!(fold(id), 1 << 63);
    }

    #[test]
    fn durability_follows_from_replicas_in_sync_and_flushes() {
        let of =
            |replicas, values: &[(&'static str, &'static str)]| described(replicas, 2, values).durability();
        assert_eq!(of(1, &[]), Durability::ProcessCrash);
        assert_eq!(of(1, &[("flush.messages", "1")]), Durability::PowerLoss);
        assert_eq!(of(1, &[("min.insync.replicas", "2")]), Durability::ProcessCrash);
        assert_eq!(of(3, &[("min.insync.replicas", "1")]), Durability::ProcessCrash);
        assert_eq!(of(3, &[("min.insync.replicas", "2")]), Durability::Replicated);
        let one_replica_more = PartitionFacts { led: true, replicas: 1, in_sync: 1 };
        let mut topic = described(3, 2, &[("min.insync.replicas", "2")]);
        topic.partitions.push(one_replica_more);
        assert_eq!(topic.durability(), Durability::ProcessCrash, "the least of its partitions");
    }

    #[test]
    fn a_durability_that_cannot_be_given_is_refused_with_the_way_out() {
        let topic = described(1, 1, &[]);
        topic.gives(&orders(), Some(Durability::ProcessCrash)).unwrap();
        topic.gives(&orders(), None).unwrap();
        for (asked, way_out) in
            [(Durability::Replicated, "2 replicas"), (Durability::PowerLoss, "flush.messages")]
        {
            let error = topic.gives(&orders(), Some(asked)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.context().contains(way_out) && error.context().contains("orders"), "{error}");
        }
        described(2, 1, &[("min.insync.replicas", "2")])
            .gives(&orders(), Some(Durability::PowerLoss))
            .unwrap();
    }

    #[test]
    fn what_stands_in_a_configuration_is_read() {
        let defaults = config(&[]);
        assert_eq!((defaults.max_message_bytes, defaults.min_insync), (1_048_588, 1));
        assert_eq!((defaults.past, defaults.future, defaults.age), (None, None, None));
        let values = [
            ("cleanup.policy", "compact,delete"),
            ("retention.ms", "1000"),
            ("retention.bytes", "5"),
            ("message.timestamp.before.max.ms", "9223372036854775807"),
            ("message.timestamp.after.max.ms", "3600000"),
        ];
        let some = config(&values);
        assert!(some.compact);
        assert_eq!((some.age, some.bytes), (Some(Duration::from_secs(1)), Some(5)));
        assert_eq!((some.past, some.future), (None, Some(Duration::from_secs(3600))));
        let compact =
            config(&[("cleanup.policy", "compact"), ("retention.ms", "1000"), ("retention.bytes", "-1")]);
        assert_eq!((compact.age, compact.bytes), (None, None));
        let own =
            config(&[("message.timestamp.type", "LogAppendTime"), ("message.timestamp.after.max.ms", "1")]);
        assert_eq!(own.future, None);
    }

    #[test]
    fn keys_choose_their_partition_and_others_are_spread_where_there_is_a_leader() {
        let mut topic = described(1, 7, &[]);
        let keyed = Message::builder().key("foobar").payload("").build();
        assert_eq!(place(&topic, None, &keyed).unwrap(), partition_for_key(b"foobar", 7));
        assert_eq!(place(&topic, Some(6), &keyed).unwrap(), 6);
        let missing = place(&topic, Some(7), &keyed).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(missing.context().contains("partition 7; it has 7"), "{missing}");
        let without = Message::builder().payload("").build();
        assert_eq!(place(&topic, None, &without).unwrap(), 1);
        topic.partitions[1].led = false;
        let topic = Described::new(topic.id, topic.partitions, topic.config);
        assert_eq!(place(&topic, None, &without).unwrap(), 2);
        assert_eq!(place(&topic, Some(1), &without).unwrap(), 1);
        let leaderless = Described::new([1; 16], vec![PartitionFacts::default(); 3], topic.config);
        assert_eq!(place(&leaderless, None, &without).unwrap(), 1);
    }

    #[test]
    fn what_would_take_its_batch_with_it_is_refused_alone() {
        let topic =
            described(1, 1, &[("max.message.bytes", "1000"), ("message.timestamp.after.max.ms", "1000")]);
        let large = |size| {
            Message::builder().timestamp(Timestamp::from_millis(10_000_000)).payload(vec![0; size]).build()
        };
        assert_eq!(place(&topic, None, &large(topic.max_message())).unwrap(), 0);
        assert_eq!(
            place(&topic, None, &large(topic.max_message() + 1)).unwrap_err().kind(),
            ErrorKind::TooLarge
        );
        let at = |millis| Message::builder().payload("").timestamp(Timestamp::from_millis(millis)).build();
        place(&topic, None, &at(10_001_000)).unwrap();
        place(&topic, None, &at(1)).unwrap();
        let error = place(&topic, None, &at(10_001_001)).unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.context().contains("after.max.ms"), "{error}");
        let past = described(1, 1, &[("message.timestamp.before.max.ms", "1000")]);
        let error = place(&past, None, &at(9_998_999)).unwrap_err();
        assert!(error.context().contains("before.max.ms"), "{error}");
        let compact = described(1, 1, &[("cleanup.policy", "compact")]);
        let error = place(&compact, None, &at(10_000_000)).unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.context().contains("key"), "{error}");
    }

    #[test]
    fn what_holds_messages_up_is_named() {
        let mut topic = described(3, 2, &[("min.insync.replicas", "2")]);
        assert_eq!(topic.hindered(), None);
        topic.partitions[1].in_sync = 1;
        assert!(topic.hindered().unwrap().contains("partition 1 has 1 replicas in sync and needs 2"));
        topic.partitions[0].led = false;
        assert!(topic.hindered().unwrap().contains("partition 0 has no leader"));
        // The servers take a minimum that is more than the replicas for that many.
        assert_eq!(described(1, 1, &[("min.insync.replicas", "2")]).hindered(), None);
    }
}
