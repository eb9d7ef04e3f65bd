//! Taking partitions over: where the group starts in each, and the script that makes a member its owner. All are asked for at once, and each comes to what
//! its own server answers.
//!
//! Not here: which partitions (`duty.rs`), where a group starts (`starts.rs`), what is owned then (`share.rs`).

use super::{Member, share::Taken, starts};
use crate::{
    Epoch, ErrorKind, Owned, Result, Topic,
    balance::TopicPartition,
    redis::{
        commands::Told, description::Description, failure::no_epoch, follow::Counts, group_admin::Starts,
        keys::PartitionKeys, scripts, topics::position,
    },
};
use futures::future::join_all;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A topic as it is now, and where the group starts in it.
struct Begin {
    description: Arc<Description>,
    starts: Starts,
}

/// A call of the script.
struct Call {
    life: Option<u64>,
    keys: PartitionKeys,
    names: [String; 3],
    args: [String; 5],
}

impl Member {
    /// What taking each of these over from that server came to, in order: nothing for what is not there any more, and for all where it is another one by now.
    ///
    /// # Errors
    /// What keeps it from all of them.
    pub(super) async fn take_over(
        &self,
        partitions: &[TopicPartition],
        home: u64,
    ) -> Result<Vec<Result<Option<Taken>>>> {
        let topics = self.shared.topics();
        let names: BTreeSet<&Topic> = partitions.iter().map(|(topic, _)| topic).collect();
        let names: Vec<&Topic> = names.into_iter().collect();
        let starts = starts::stored(topics, &self.keys.starts(), &names).await?;
        let begins = names.iter().zip(starts).map(|(topic, starts)| self.begin(topic, starts));
        let begins: BTreeMap<_, _> = names.iter().copied().zip(join_all(begins).await).collect();
        let calls = partitions.iter().map(|of| self.call(of, begins.get(&of.0)));
        let calls = join_all(calls).await;
        let made = calls.iter().filter_map(|call| call.as_ref().ok()?.as_ref());
        let made: Vec<_> = made.map(|call| (&call.names[..], &call.args[..])).collect();
        let answers = topics.commands.scripts_only(&scripts::TAKE_OVER, &made, Some(home)).await?;
        let Some(answers) = answers else { return Ok(partitions.iter().map(|_| Ok(None)).collect()) };
        let mut answers = answers.into_iter();
        let mut taken = |of: &TopicPartition, call: Result<Option<Call>>| {
            let Some((call, told)) = call?.and_then(|call| Some((call, answers.next()?))) else {
                return Ok(None);
            };
            let told = told?;
            match told.word() {
                "taken" => taken(&told, of, call).map(Some).ok_or_else(|| told.strange()),
                "epoch" => Err(no_epoch(topics.commands.server(), &call.names[2], told.text(1))),
                "life" | "none" => {
                    topics.suspect(&of.0);
                    Ok(None)
                }
                _ => Err(told.strange()),
            }
        };
        let taken = partitions.iter().zip(calls).map(|(of, call)| taken(of, call));
        Ok(taken.map(|taken| taken.map_err(|error| self.failed(error))).collect())
    }

    /// The topic, and where the group starts in it, which is stored again where that was lost; nothing, where it is not there.
    async fn begin(&self, topic: &Topic, starts: Starts) -> Result<Option<Begin>> {
        let topics = self.shared.topics();
        let description = match topics.ask_or_known(topic).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            described => described?,
        };
        if starts.life.is_empty() && description.life.is_some() {
            starts::again(topics, &self.group, topic, &description).await?;
        }
        Ok(Some(Begin { description, starts }))
    }

    /// How a partition is taken over; nothing, where it is not there.
    async fn call(
        &self,
        (topic, partition): &TopicPartition,
        begin: Option<&Result<Option<Begin>>>,
    ) -> Result<Option<Call>> {
        let begin = begin.map(Result::as_ref).transpose().map_err(Clone::clone)?;
        let Some(Begin { description, starts }) = begin.and_then(Option::as_ref) else { return Ok(None) };
        let topics = self.shared.topics();
        let keys = topics.partition(topic, description, *partition);
        let extent = match topics.extents(topic, std::slice::from_ref(&keys)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            extents => extents?.pop(),
        };
        let start = starts::place(starts, description, *partition);
        let read = extent.and_then(|extent| extent.added_before(start));
        let life = description.life;
        let text = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let args = [text(life), self.group.to_string(), self.name.clone(), start.to_string(), text(read)];
        Ok(Some(Call { life, names: self.partition_keys(&keys), keys, args }))
    }
}

/// What the script answered.
fn taken(told: &Told, of: &TopicPartition, call: Call) -> Option<Taken> {
    let place = |at: usize| told.items.get(at).and_then(position);
    Some(Taken {
        of: Owned { topic: of.0.clone(), partition: of.1, epoch: Epoch(told.text(1).parse().ok()?) },
        keys: call.keys,
        life: call.life,
        position: place(2)?,
        read: told.text(3).parse().ok(),
        map: told.items.get(4)?.bytes()?.to_vec(),
        resumed: told.text(5) != "started",
        before: if told.text(5) == "recreated" { place(10) } else { None },
        counts: Counts {
            last: place(7)?,
            added: told.text(8).parse().ok()?,
            length: told.text(9).parse().ok()?,
        },
    })
}
