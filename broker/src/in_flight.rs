//! How much more may be handed out: the share of a partition in what may be in flight.
//!
//! Pure. Every backend asks this, so that the bound means the same everywhere. Up to an eighth of the bound is kept for partitions that have
//! little in flight, so that no partition waits for ever for others that are stuck.
//! Not here: which acks free what was handed out (`ack_window.rs`).

use crate::Bound;

/// What may be in flight, for one member that owns a number of partitions.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    bound: Bound,
    /// The most of one partition.
    share: Bound,
    /// What of one partition may always be in flight.
    floor: Bound,
    /// The most of all, but for what the floors allow.
    common: Bound,
}

/// The least share of a partition, in messages.
const LEAST_MESSAGES: usize = 64;
/// The least share of a partition, in bytes.
const LEAST_BYTES: usize = 1024 * 1024;

impl InFlight {
    /// The bound of a member, shared by the partitions it owns: each gets at most max(2/n of it, 64 messages or 1 MiB), and what is kept for
    /// the others stays out of its reach.
    #[must_use]
    pub fn new(bound: Bound, owned: usize) -> Self {
        let bound = Bound { messages: bound.messages.max(1), bytes: bound.bytes.max(1) };
        let owned = owned.max(1);
        let floor =
            |all: usize| if owned == 1 { 0 } else { (all / 8 / owned).max(usize::from(all >= 2 * owned)) };
        let floor = Bound { messages: floor(bound.messages), bytes: floor(bound.bytes) };
        let common = Bound {
            messages: bound.messages - owned * floor.messages,
            bytes: bound.bytes - owned * floor.bytes,
        };
        let share = Bound {
            messages: (bound.messages.saturating_mul(2) / owned).max(LEAST_MESSAGES).min(common.messages),
            bytes: (bound.bytes.saturating_mul(2) / owned).max(LEAST_BYTES).min(common.bytes),
        };
        Self { bound, share, floor, common }
    }

    /// The most of one partition.
    #[must_use]
    pub const fn share(&self) -> Bound {
        self.share
    }

    /// What may be taken of one partition now, given what is in flight of all and of it.
    #[must_use]
    pub fn room(&self, total: Bound, of_partition: Bound) -> Room {
        let within = total.messages < self.bound.messages && total.bytes < self.bound.bytes;
        let room = |of: fn(Bound) -> usize| {
            let (total, own) = (of(total), of(of_partition));
            let of_common = of(self.common).saturating_sub(total).min(of(self.share).saturating_sub(own));
            let of_floor = of(self.floor).saturating_sub(own).min(of(self.bound).saturating_sub(total));
            of_common.max(of_floor)
        };
        Room {
            messages: room(|bound| bound.messages),
            bytes: room(|bound| bound.bytes),
            first_always: within && of_partition.messages == 0,
        }
    }
}

/// What may be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    messages: usize,
    bytes: usize,
    first_always: bool,
}

impl Room {
    /// Whether nothing may be taken.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.messages == 0 || (self.bytes == 0 && !self.first_always)
    }

    /// How many messages may be taken at the most.
    #[must_use]
    pub const fn messages(&self) -> usize {
        self.messages
    }

    /// How many bytes, unless a single message is larger.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a message of `size` bytes if it fits.
    pub fn take(&mut self, size: usize) -> bool {
        if self.is_empty() || (size > self.bytes && !self.first_always) {
            return false;
        }
        self.messages -= 1;
        self.bytes = self.bytes.saturating_sub(size);
        self.first_always = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: Bound = Bound { messages: 0, bytes: 0 };

    #[test]
    fn one_large_message_fits_once_and_holds_the_rest() {
        let in_flight = InFlight::new(Bound { messages: 10, bytes: 100 }, 1);
        let mut room = in_flight.room(NONE, NONE);
        assert!(room.take(5000));
        assert!(!room.take(1));
        let mut room = in_flight.room(Bound { messages: 1, bytes: 50 }, Bound { messages: 1, bytes: 50 });
        assert!(!room.take(51));
        assert!(room.take(50));
    }

    #[test]
    fn a_partition_takes_its_share_and_no_more() {
        let in_flight = InFlight::new(Bound { messages: 1000, bytes: usize::MAX }, 10);
        assert_eq!(in_flight.share().messages, 200);
        let used = Bound { messages: 200, bytes: 200 };
        assert!(in_flight.room(used, used).is_empty());
        assert_eq!(in_flight.room(used, NONE).messages(), 200);
    }

    #[test]
    fn stuck_partitions_leave_some_to_the_others() {
        for n in 2..40 {
            let in_flight = InFlight::new(Bound { messages: 1024, bytes: 64 << 20 }, n);
            let mut total = NONE;
            for _ in 1..n {
                // Messages of 1 byte, and one partition after the other takes all it gets, for ever.
                let mut room = in_flight.room(total, NONE);
                while room.take(1) {
                    total = Bound { messages: total.messages + 1, bytes: total.bytes + 1 };
                }
            }
            assert!(in_flight.room(total, NONE).messages() >= 1, "{n} partitions");
        }
    }

    proptest! {
        #[test]
        fn the_bound_is_passed_by_one_message_at_the_most(
            sizes in proptest::collection::vec(0usize..300, 1..200), messages in 1usize..50, bytes in 1usize..500,
        ) {
            let in_flight = InFlight::new(Bound { messages, bytes }, 3);
            let mut total = NONE;
            let mut each = [NONE; 3];
            for (i, size) in sizes.iter().enumerate() {
                let before = total.bytes;
                if in_flight.room(total, each[i % 3]).take(*size) {
                    total = Bound { messages: total.messages + 1, bytes: total.bytes + size };
                    each[i % 3] = Bound { messages: each[i % 3].messages + 1, bytes: each[i % 3].bytes + size };
                    prop_assert!(total.messages <= messages);
                    prop_assert!(total.bytes <= bytes || before < bytes);
                }
            }
        }
    }
}
