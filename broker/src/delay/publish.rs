//! Publishing for later: into the internal topic, with the outcomes that the topic itself would give.
//!
//! Not here: how the internal topic is found (`mod.rs`).

use super::{
    ground::Seen,
    job::Site,
    names::SHELVES,
    record::{Held, Record},
};
use crate::{Error, ErrorKind, Failed, Message, MessageId, Outcomes, Published, Target, partition_for_key};
use futures::future::join_all;

/// A batch whose outcomes come from two sides.
#[derive(Debug)]
pub(super) struct Split {
    /// Which of the batch are for later.
    is_later: Vec<bool>,
}

impl Split {
    /// What goes at once, and what later.
    pub(super) fn of(
        batch: Vec<Message>,
        is_later: impl Fn(&Message) -> bool,
    ) -> (Self, Vec<Message>, Vec<Message>) {
        let split = Self { is_later: batch.iter().map(is_later).collect() };
        let mut later = split.is_later.iter();
        let (later, direct) = batch.into_iter().partition(|_| later.next().copied().unwrap_or(false));
        (split, direct, later)
    }

    /// The outcomes in the batch's order.
    pub(super) fn join(self, direct: Outcomes, later: Outcomes) -> Outcomes {
        let (mut direct, mut later) = (direct.into_iter(), later.into_iter());
        let next = |is_later: bool| if is_later { later.next() } else { direct.next() };
        Outcomes(self.is_later.into_iter().filter_map(next).collect())
    }
}

/// Appends messages to the internal topic.
pub(super) async fn put_later(site: &Site, seen: Seen, to: &Target, batch: Vec<Message>) -> Outcomes {
    if let Some(partition) = to.partition.filter(|partition| *partition >= seen.partitions) {
        let (topic, has) = (&to.topic, seen.partitions);
        let why = format!("topic {topic:?} has no partition {partition}; it has {has}, from 0 on");
        return Outcomes::all_not_written(&Error::new(ErrorKind::NotFound, why), batch);
    }
    let mut outcomes: Vec<Option<Published>> = Vec::with_capacity(batch.len());
    let mut shelves: Vec<Vec<(usize, u32, Message)>> = (0..SHELVES).map(|_| Vec::new()).collect();
    for (index, message) in batch.into_iter().enumerate() {
        if let Err(error) = message.check(seen.max_message) {
            outcomes.push(Some(Published::not_written(error, message)));
            continue;
        }
        outcomes.push(None);
        let partition = partition_of(to, &message, seen.partitions);
        let shelf = site.names.shelf_of(message.id) as usize;
        if let Some(shelf) = shelves.get_mut(shelf) {
            shelf.push((index, partition, message));
        }
    }
    let puts =
        shelves.into_iter().enumerate().filter(|(_, shelf)| !shelf.is_empty()).map(|(number, shelf)| {
            // Called here, so that the appends are on their way together.
            let carriers = shelf.iter().map(|(_, partition, message)| carrier(site, to, *partition, message));
            let place = Target {
                topic: site.names.internal.clone(),
                partition: Some(number as u32),
                at_least: to.at_least,
            };
            let answer = site.ground.put(&place, carriers.collect());
            async move { (shelf, answer.await) }
        });
    for (shelf, told) in join_all(puts.collect::<Vec<_>>()).await {
        for ((index, partition, message), published) in shelf.into_iter().zip(told) {
            if let Some(outcome) = outcomes.get_mut(index) {
                *outcome = Some(outcome_of(published, partition, message));
            }
        }
    }
    Outcomes(outcomes.into_iter().flatten().collect())
}

/// The partition it would go to now.
fn partition_of(to: &Target, message: &Message, partitions: u32) -> u32 {
    let spread = |id: MessageId| partition_for_key(&id.as_u128().to_le_bytes(), partitions);
    to.partition.unwrap_or_else(|| {
        message.key.as_ref().map_or_else(|| spread(message.id), |key| partition_for_key(key, partitions))
    })
}

/// A message with a key follows its key when it is due, also where partitions were added by then.
fn carrier(site: &Site, to: &Target, partition: u32, message: &Message) -> Message {
    let partition = if message.key.is_some() { to.partition } else { Some(partition) };
    let held = Held { copy: None, sealed: false, partition, at_least: to.at_least, message: message.clone() };
    Record::Message(held).pack(site.ground.now())
}

fn outcome_of(published: Published, partition: u32, message: Message) -> Published {
    let failed = |failed: Box<Failed>, message| Box::new(Failed { error: failed.error, message });
    match published {
        Published::Acked { durability, .. } => Published::Acked { partition, position: None, durability },
        Published::NotWritten(why) => Published::NotWritten(failed(why, message)),
        Published::Unknown(why) => Published::Unknown(failed(why, message)),
    }
}
