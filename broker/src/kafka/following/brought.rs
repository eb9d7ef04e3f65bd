//! What one turn at the client brought, as far as there is room for it, and the events that come of it.
//!
//! Not here: what of it is told when (`mod.rs`).

use super::{
    super::{
        failure::BACKEND,
        follow::{Content, Doubt, Told},
    },
    MOST_BYTES, Place,
};
use crate::{
    Event, Owned,
    batched::{Piece, Size, batched},
};

/// How many bytes of keys and headers a record may have, on average, so that it does not matter that the client does not count them.
const BESIDE: usize = 16 * 1024;

/// What one turn at the client brought. It takes no more than there is room for.
#[derive(Debug)]
pub(in crate::kafka) struct Brought {
    room: Size,
    pub(super) arrived: Vec<Arrived>,
    /// How large the first one was for which there was no room. What follows it is not taken either: it is read again.
    pub(super) refused: Option<usize>,
    pub(super) doubts: Vec<(Place, Doubt)>,
    /// The client may have more that it has read ahead.
    pub(in crate::kafka) is_more: bool,
    largest: Option<usize>,
    /// What keys and headers take of what was added.
    beside: usize,
}

#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) place: Place,
    pub(super) offset: u64,
    pub(super) content: Content,
}

impl Brought {
    pub(in crate::kafka) const fn new(room: Size) -> Self {
        Self {
            room,
            arrived: Vec::new(),
            refused: None,
            doubts: Vec::new(),
            is_more: false,
            largest: None,
            beside: 0,
        }
    }

    /// Whether there is room for a record of so many bytes; it is taken by [`Self::add`] then.
    pub(in crate::kafka) fn has_room(&mut self, bytes: usize) -> bool {
        self.largest = self.largest.max(Some(bytes));
        if self.refused.is_some() {
            return false;
        }
        let alone = self.room.bytes == MOST_BYTES && self.arrived.is_empty();
        let fits = self.room.messages > 0 && (bytes <= self.room.bytes || alone);
        if fits {
            self.room.messages -= 1;
            self.room.bytes = self.room.bytes.saturating_sub(bytes);
        } else {
            self.refused = Some(bytes);
        }
        fits
    }

    /// How large the largest one was, with those for which there was no room; `None` where none came.
    pub(super) const fn largest(&self) -> Option<usize> {
        self.largest
    }

    /// Whether there is so much in keys and headers that the client does not know how much it has read ahead: it counts payloads alone.
    pub(super) fn is_uncounted(&self) -> bool {
        self.beside > BESIDE * self.arrived.len()
    }

    pub(in crate::kafka) fn add(&mut self, place: Place, offset: u64, content: Content) {
        let size = content.size();
        self.largest = self.largest.max(Some(size));
        self.beside += size - content.payload().min(size);
        self.arrived.push(Arrived { place, offset, content });
    }

    /// A partition cannot be read on before it is asked what it says of itself.
    pub(in crate::kafka) fn doubt(&mut self, place: Place, doubt: Doubt) {
        self.doubts.push((place, doubt));
    }
}

/// What a reader is told, in order.
pub(super) fn events(of: &Owned, told: Vec<Told>) -> Vec<(Event, Size)> {
    let piece = |told| match told {
        Told::Message(delivery) => Piece::Message(delivery),
        Told::Unreadable { at, raw, why } => {
            let size = Size { messages: 1, bytes: raw.as_ref().map_or(0, bytes::Bytes::len) };
            let why = why.on(BACKEND);
            Piece::Event(Event::Unreadable { of: of.clone(), position: at, raw, why }, size)
        }
        Told::Gap { from, to, why } => {
            Piece::Event(Event::Gap { of: of.clone(), from, to, why }, Size::default())
        }
        Told::CaughtUp => Piece::Event(Event::CaughtUp(of.clone()), Size::default()),
    };
    batched(of, told.into_iter().map(piece))
}
