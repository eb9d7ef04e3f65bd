//! What lies ready for a reader: the events that come of what was read, and how much they hold.
//!
//! Messages that follow each other make one batch. Shared by backends whose readers read ahead. Not here: what is read, and how much of it there is room for
//! (`redis/following.rs`, `kafka/following/`).

use crate::{Batch, Delivery, Event, Owned};

/// How much something holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Size {
    pub(crate) const fn add(&mut self, more: Self) {
        self.messages += more.messages;
        self.bytes += more.bytes;
    }

    pub(crate) const fn take(&mut self, less: Self) {
        self.messages -= less.messages;
        self.bytes -= less.bytes;
    }
}

/// What was read.
#[derive(Debug)]
pub(crate) enum Piece {
    Message(Delivery),
    /// An event of its own, and what it holds.
    Event(Event, Size),
}

/// What a reader is told of what was read of one partition, in order.
pub(crate) fn batched(of: &Owned, pieces: impl Iterator<Item = Piece>) -> Vec<(Event, Size)> {
    let mut events = Vec::new();
    let mut deliveries: Vec<Delivery> = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Message(delivery) => deliveries.push(delivery),
            Piece::Event(event, size) => {
                events.extend(batch(of, &mut deliveries));
                events.push((event, size));
            }
        }
    }
    events.extend(batch(of, &mut deliveries));
    events
}

/// What is gathered, if anything.
fn batch(of: &Owned, deliveries: &mut Vec<Delivery>) -> Option<(Event, Size)> {
    if deliveries.is_empty() {
        return None;
    }
    let deliveries = std::mem::take(deliveries);
    let bytes = deliveries.iter().map(|delivery| delivery.message.size()).sum();
    let size = Size { messages: deliveries.len(), bytes };
    Some((Event::Batch(Batch { of: of.clone(), deliveries }), size))
}
