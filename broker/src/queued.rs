//! What may wait to be acked by servers, in messages and bytes. Beyond that a publish is refused, never buffered.
//!
//! Not here: who waits (`kafka/publish/lane.rs`, `redis/publish.rs`), what a `Publisher` has in flight (`publisher/`).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The bound, and how much of it is taken.
#[derive(Debug)]
pub(crate) struct Queued {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    most_messages: usize,
    most_bytes: usize,
}

impl Queued {
    pub(crate) fn new(most_messages: usize, most_bytes: usize) -> Arc<Self> {
        let (messages, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { messages, bytes, most_messages, most_bytes })
    }

    /// Takes room; a batch that is larger than all of it fits where nothing else waits.
    pub(crate) fn hold(self: &Arc<Self>, messages: usize, bytes: usize) -> Option<Held> {
        let before = (
            self.messages.fetch_add(messages, Ordering::AcqRel),
            self.bytes.fetch_add(bytes, Ordering::AcqRel),
        );
        let held = Held { queued: Arc::clone(self), messages, bytes };
        let fits =
            before.0 + messages <= self.most_messages && before.1.saturating_add(bytes) <= self.most_bytes;
        (fits || before.0 == 0).then_some(held)
    }

    /// How much is taken, in messages and bytes.
    #[cfg(feature = "redis")]
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.messages.load(Ordering::Acquire), self.bytes.load(Ordering::Acquire))
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.load(Ordering::Acquire) == 0
    }

    /// The bound, for errors.
    pub(crate) const fn most(&self) -> (usize, usize) {
        (self.most_messages, self.most_bytes)
    }
}

/// Room that is taken, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    queued: Arc<Queued>,
    messages: usize,
    bytes: usize,
}

impl Held {
    /// A part of it, which is given back by itself.
    #[cfg(feature = "kafka")]
    pub(crate) fn part(&mut self, messages: usize, bytes: usize) -> Self {
        let (messages, bytes) = (messages.min(self.messages), bytes.min(self.bytes));
        self.messages -= messages;
        self.bytes -= bytes;
        Self { queued: Arc::clone(&self.queued), messages, bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.queued.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.queued.messages.fetch_sub(self.messages, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_what_is_given_back_makes_room() {
        for (room, second) in [(Queued::new(3, 1000), (2, 20)), (Queued::new(1000, 35), (2, 20))] {
            let first = room.hold(2, 20).unwrap();
            assert!(room.hold(second.0, second.1).is_none());
            assert!(!room.is_empty());
            drop(first);
            assert!(room.is_empty());
            // A batch larger than all of it is taken over alone.
            let alone = room.hold(9, 90).unwrap();
            assert!(room.hold(1, 1).is_none());
            drop(alone);
        }
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn a_part_is_given_back_by_itself_and_never_more_than_there_is() {
        let room = Queued::new(10, 100);
        let mut all = room.hold(10, 100).unwrap();
        drop(all.part(4, 40));
        assert!(room.hold(5, 10).is_none());
        let rest = all.part(99, 999);
        drop(all);
        assert!(room.hold(5, 10).is_none());
        drop(rest);
        assert!(room.is_empty());
        assert!(room.hold(10, 100).is_some());
    }
}
