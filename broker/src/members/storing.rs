//! Which acks and epochs are to be stored, when, and who is answered then.
//!
//! Pure. Not here: what is stored of a partition, and how often that is tried (the backend).

use super::{
    owner::{Flush, Owner, find},
    share::{Log, Share},
};
use crate::{Error, Owned, balance::TopicPartition};
use tokio::time::Instant;

impl<L: Log> Owner<L> {
    /// What is to be stored by now.
    pub(crate) fn to_store(&self, now: Instant) -> impl Iterator<Item = &Share<L>> {
        self.shares.values().filter(move |share| {
            !share.claimed
                || share.is_due(self.rules.ack_interval, now)
                || share.ending.is_some_and(|ending| !ending.committed)
                || self.is_awaited(share)
        })
    }

    /// Whether somebody waits until its acks, or its epoch, are stored.
    pub(crate) fn is_awaited(&self, share: &Share<L>) -> bool {
        let flushed = |flush: &Flush| flush.left.contains_key(&share.of);
        !share.confirms.is_empty() || self.flushes.iter().any(flushed)
    }

    /// When acks of these are to be stored that nobody waits for.
    pub(crate) fn acks_due(&self, of: impl Fn(&TopicPartition) -> bool) -> Option<Instant> {
        let dirty = self.shares.iter().filter(|(key, _)| of(key)).filter_map(|(_, share)| share.dirty);
        dirty.map(|since| since + self.rules.ack_interval).min()
    }

    /// Whether somebody waits for a flush.
    pub(crate) const fn is_flushing(&self) -> bool {
        !self.flushes.is_empty()
    }

    /// Acks of a partition are stored, up to these. [`Owner::answer_flushes`] tells who waits for it.
    pub(crate) fn saved(&mut self, of: &Owned, changes: u64) {
        for flush in &mut self.flushes {
            if flush.left.get(of).is_some_and(|wanted| *wanted <= changes) {
                flush.left.remove(of);
            }
        }
    }

    /// Tells who waits for what could not be stored, as [`Owner::saved`] does; it is tried again.
    pub(crate) fn refused(&mut self, of: &Owned, error: &Error) {
        for flush in &mut self.flushes {
            if flush.left.remove(of).is_some() {
                flush.failed.push((of.clone(), error.clone()));
            }
        }
        if let Ok(share) = find(&mut self.shares, of) {
            share.confirms.drain(..).for_each(|answer| _ = answer.send(Err(error.clone())));
        }
    }

    pub(crate) fn answer_flushes(&mut self) {
        let (done, left) =
            std::mem::take(&mut self.flushes).into_iter().partition(|flush| flush.left.is_empty());
        self.flushes = left;
        let done: Vec<Flush> = done;
        done.into_iter().for_each(|flush| _ = flush.answer.send(flush.failed));
    }
}
