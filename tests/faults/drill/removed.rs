//! What was taken out of the log on purpose while it was used, and which gaps members were told.
//!
//! Pure. Not here: what follows for a message (`judge.rs`).

use super::judge::{At, Place};

/// What is not there any more, and what was told of it.
#[derive(Debug, Default)]
pub(super) struct Removed {
    /// Of a partition, or of all, what lies in that life before that offset.
    gone: Vec<(Option<u32>, At)>,
    /// Partition, and from where to where a gap is; where that was told.
    gaps: Vec<(u32, Option<At>, Option<At>)>,
}

impl Removed {
    /// Of a partition everything before that was purged.
    pub(super) fn purged(&mut self, partition: u32, before: At) {
        self.gone.push((Some(partition), before));
    }

    /// The topic was deleted, and made again: its positions began with that until then.
    pub(super) fn remade(&mut self, life: u64) {
        self.gone.push((None, (life, u64::MAX)));
    }

    /// A gap was told.
    pub(super) fn gap(&mut self, partition: u32, from: Option<At>, to: Option<At>) {
        self.gaps.push((partition, from, to));
    }

    /// Whether something was removed of a partition.
    pub(super) fn some_of(&self, partition: u32) -> bool {
        self.gone.iter().any(|(of, _)| of.is_none_or(|of| of == partition))
    }

    /// Whether what lay there was removed; of what lies nobody knows where, whether it may have been.
    pub(super) fn has(&self, partition: u32, place: Option<Place>) -> bool {
        let Some((_, (life, offset))) = place else { return self.some_of(partition) };
        let of_it = |of: &Option<u32>| of.is_none_or(|of| of == partition);
        self.gone.iter().any(|(of, (in_life, before))| of_it(of) && *in_life == life && offset < *before)
    }

    /// Whether a member was told that what lay there is missing, or none could be: with a topic Kafka forgets where its groups were, so that only
    /// who has a partition at that moment knows.
    pub(super) fn is_told(&self, (partition, (life, offset)): Place) -> bool {
        // A gap that begins in another topic of that name, and ends in this one, begins with this one.
        let begins = |from: &Option<At>, to: &Option<At>| match from {
            Some(from) if from.0 == life => from.1 <= offset,
            Some(_) => to.is_some_and(|to| to.0 == life),
            None => true,
        };
        let ends = |to: &Option<At>| to.is_none_or(|to| to.0 != life || offset < to.1);
        let is_remade = self.gone.iter().any(|(of, (in_life, _))| of.is_none() && *in_life == life);
        is_remade || self.gaps.iter().any(|(of, from, to)| *of == partition && begins(from, to) && ends(to))
    }
}
