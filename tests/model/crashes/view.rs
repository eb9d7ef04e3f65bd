//! What a new process shows, held against what may be there.
//!
//! Not here: looking (`run.rs`).

use super::reference::{Id, Is, Place, Reference, Seen, Time};
use std::collections::BTreeMap;

/// What a broker shows.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The work topic; `None`: there is none.
    pub work: Option<Work>,
    /// What lies in the topic of what is forwarded, in order.
    pub out: Vec<Id>,
    /// Whether the group has a position in the topic.
    pub group: bool,
}

/// A topic.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub life: u64,
    pub delayed: u64,
    /// What lies in each partition, in order.
    pub content: BTreeMap<u32, Vec<(Place, Id)>>,
}

impl Reference {
    /// Settles what was open, or says what is wrong.
    pub(crate) fn look(&mut self, view: &View, now: Time) -> Seen {
        self.look_at_forwards(&view.out)?;
        let Some(work) = &view.work else {
            if self.life_is_open || self.life == 0 {
                self.died();
                return Ok(());
            }
            return Err("the topic is lost".into());
        };
        let partitions = u32::try_from(work.content.len()).unwrap_or(u32::MAX);
        if work.life != self.life {
            if !self.life_is_open {
                return Err(format!("the topic is in life {} instead of {}", work.life, self.life));
            }
            self.lives(work.life, partitions)?;
        }
        self.life_is_open = false;
        if partitions != self.partitions && Some(partitions) != self.grown.take() {
            return Err(format!("{partitions} partitions instead of {}", self.partitions));
        }
        (self.partitions, self.grown) = (partitions, None);
        self.look_at_group(view.group)?;
        self.age(now);
        for (partition, content) in &work.content {
            self.look_at_partition(*partition, content, now)?;
        }
        self.look_at_delayed(work.delayed)
    }

    fn look_at_partition(&mut self, partition: u32, content: &[(Place, Id)], now: Time) -> Seen {
        let mut at_once = None;
        for (place, id) in content {
            self.lies(*id, partition, *place, now)?;
            if self.records[*id].due.is_none() && at_once.replace(*id).is_some_and(|before| before > *id) {
                return Err(format!("{id} of p{partition} was published before what lies before it"));
            }
        }
        let first = content.first().map(|(place, _)| *place);
        let life = self.life;
        for (id, record) in self.records.iter_mut().enumerate() {
            let here = record.partition == partition && record.life == life && record.removed != Is::Yes;
            if !here || content.iter().any(|(_, found)| *found == id) {
                continue;
            }
            match record.place {
                // Removal takes what lies first.
                Some(place) if record.removed == Is::No || first.is_some_and(|first| first < place) => {
                    return Err(format!("{id} of p{partition} is lost: {record:?}"));
                }
                Some(_) => record.removed = Is::Yes,
                None if record.due.is_some() => {}
                None if record.written == Is::Yes && record.removed == Is::No => {
                    return Err(format!("{id} of p{partition} is lost: {record:?}"));
                }
                None => record.written = Is::No,
            }
        }
        Ok(())
    }

    /// So many delayed messages wait as may.
    fn look_at_delayed(&self, delayed: u64) -> Seen {
        let life = self.life;
        let waiting = self.records.iter().filter(|record| record.life == life && record.place.is_none());
        let waiting = waiting.filter(|r| r.due.is_some() && r.written != Is::No && r.cancelled != Is::Yes);
        let (mut least, mut most) = (0, 0);
        for record in waiting.filter(|record| record.removed != Is::Yes) {
            most += 1;
            least +=
                u64::from((record.written, record.cancelled, record.removed) == (Is::Yes, Is::No, Is::No));
        }
        if (least..=most).contains(&delayed) {
            return Ok(());
        }
        Err(format!("{delayed} delayed messages wait instead of {least} to {most}"))
    }

    /// Of each forward all is there and what it was made of is done, or nothing.
    fn look_at_forwards(&mut self, out: &[Id]) -> Seen {
        let mut expected: Vec<Id> = Vec::new();
        for forward in &mut self.forwards {
            let found = forward.out.iter().filter(|id| out.contains(*id)).count();
            let whole = found == forward.out.len();
            if found > 0 && !whole {
                return Err(format!("a part of a forward is there: {forward:?}"));
            }
            match forward.taken {
                Is::Yes if !whole => return Err(format!("a forward is lost: {forward:?}")),
                Is::No if whole => return Err(format!("a forward is there that was refused: {forward:?}")),
                Is::Perhaps => {
                    forward.taken = if whole { Is::Yes } else { Is::No };
                    for id in &forward.done {
                        self.records[*id].done = forward.taken;
                    }
                }
                _ => {}
            }
            if whole {
                expected.extend(&forward.out);
            }
        }
        if expected == out { Ok(()) } else { Err(format!("{out:?} was forwarded instead of {expected:?}")) }
    }
}
