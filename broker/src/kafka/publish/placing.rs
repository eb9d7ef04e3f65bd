//! Where the messages of a batch go, and which of them are answered together.
//!
//! A server answers for one partition after the other. So a batch that is answered in parts has one for each partition, as long as a part has some messages:
//! each costs about as much as two of them. Pure. Not here: which partition a message goes to (`../facts.rs`), handing over (`lane.rs`).

use super::super::facts::Described;
use crate::{Error, Message, Target, Timestamp, Topic};

/// How many messages a part has on average, at the least.
const LEAST: usize = 32;

/// Where a record goes.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) at: u32,
    pub(super) partition: u32,
}

/// What is answered together: all messages of some partitions.
#[derive(Debug, Default)]
pub(super) struct Together {
    /// Where those go that go, in order.
    pub(super) placed: Vec<Placed>,
    /// Why the others do not, in order.
    pub(super) refused: Vec<(u32, Error)>,
}

impl Together {
    fn with_capacity(messages: usize) -> Self {
        Self { placed: Vec::with_capacity(messages), refused: Vec::new() }
    }

    /// Which messages, in order.
    pub(super) fn places(&self) -> Vec<u32> {
        let (go, stay) = (self.placed.iter().map(|placed| placed.at), self.refused.iter().map(|(at, _)| *at));
        let mut places: Vec<u32> = go.chain(stay).collect();
        places.sort_unstable();
        places
    }

    fn is_empty(&self) -> bool {
        self.placed.is_empty() && self.refused.is_empty()
    }
}

/// In how many parts a batch of so many messages is answered.
pub(super) fn parts(to: &Target, described: &Described, messages: usize) -> usize {
    match to.partition {
        Some(_) => 1,
        None => (messages / LEAST).clamp(1, described.count().max(1) as usize),
    }
}

/// Where each message goes, in so many parts; those that may not are refused.
pub(super) fn place(
    topic: &Topic,
    described: &Described,
    to: &Target,
    messages: &[Message],
    parts: usize,
    now: Timestamp,
    mut spread: impl FnMut() -> usize,
) -> Vec<Together> {
    let mut all: Vec<_> = (0..parts).map(|_| Together::with_capacity(room(messages.len(), parts))).collect();
    let gives = described.gives(topic, to.at_least);
    for (at, message) in (0..).zip(messages) {
        let place = match &gives {
            Ok(()) => described.place(topic, to.partition, message, now, &mut spread),
            Err(error) => Err(error.clone()),
        };
        let part = place.as_ref().map_or(0, |partition| *partition as usize % parts);
        let Some(together) = all.get_mut(part) else { continue };
        match place {
            Ok(partition) => together.placed.push(Placed { at, partition }),
            Err(error) => together.refused.push((at, error)),
        }
    }
    all.retain(|together| !together.is_empty());
    all
}

/// For how many messages a part has room at first: some more than its share, where there are others.
const fn room(messages: usize, parts: usize) -> usize {
    match parts {
        0 | 1 => messages,
        _ => messages / parts + messages / parts / 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind,
        kafka::facts::{PartitionFacts, TopicConfig},
        partition_for_key,
    };
    use proptest::prelude::*;

    fn described(partitions: usize) -> Described {
        let facts = PartitionFacts { led: true, replicas: 1, in_sync: 1 };
        Described::new([7; 16], vec![facts; partitions], TopicConfig::parse(|_| None))
    }

    #[test]
    fn there_are_as_many_parts_as_partitions_if_each_has_some_messages() {
        let to = Target::from(Topic::new("t").unwrap());
        for (partitions, messages, expected) in
            [(4, 1, 1), (4, 63, 1), (4, 64, 2), (4, 128, 4), (4, 5000, 4), (1, 5000, 1), (64, 500, 15)]
        {
            assert_eq!(parts(&to, &described(partitions), messages), expected, "{partitions} {messages}");
        }
        assert_eq!(parts(&Target { partition: Some(1), ..to }, &described(4), 5000), 1);
    }

    proptest! {
        #[test]
        fn each_message_is_in_one_part_and_those_of_a_partition_are_together_in_order(
            keys in proptest::collection::vec(proptest::option::of(0u8..40), 1..300), partitions in 1usize..9, parts in 1usize..9, large in 0usize..300,
        ) {
            let topic = Topic::new("t").unwrap();
            let described = described(partitions);
            let messages: Vec<_> = keys.iter().enumerate().map(|(i, key)| {
                let message = Message::builder().payload(vec![0; if i == large { 2_000_000 } else { 3 }]);
                match key { Some(key) => message.key(vec![*key]).build(), None => message.build() }
            }).collect();
            let to = Target::from(topic.clone());
            let mut next = 0;
            let all = place(&topic, &described, &to, &messages, parts, Timestamp::now(), || { next += 1; next });
            let mut seen: Vec<u32> = all.iter().flat_map(Together::places).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..messages.len() as u32).collect::<Vec<_>>());
            let mut of_partition = vec![None; partitions];
            for (number, part) in all.iter().enumerate() {
                prop_assert!(part.placed.is_sorted_by_key(|placed| placed.at) && part.refused.is_sorted_by_key(|(at, _)| *at));
                prop_assert!(part.places().is_sorted());
                for placed in &part.placed {
                    if let Some(key) = keys[placed.at as usize] {
                        prop_assert_eq!(placed.partition, partition_for_key(&[key], partitions as u32));
                    }
                    let of = of_partition[placed.partition as usize].get_or_insert(number);
                    prop_assert_eq!(*of, number, "one partition is never in two parts");
                }
                prop_assert!(part.refused.iter().all(|(at, error)| *at as usize == large && error.kind() == ErrorKind::TooLarge));
            }
        }
    }
}
