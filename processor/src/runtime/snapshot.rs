//! What a processor does right now, for people and tests.
//!
//! Not here: metrics (`metrics.rs`).

use crate::counter::Counter;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What a processor has done since its start and does right now.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)+
            /// Whether at least one partition is held, and of each everything was delivered that was there when its reading began.
            pub caught_up: bool,
        }

        /// Written by the driver, read by anybody.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
            pub(crate) caught_up: AtomicBool,
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.get(),)+ caught_up: self.caught_up.load(Relaxed) }
            }
        }
    };
}

counters! {
    /// Events taken in.
    delivered,
    /// Events that all their handlers are done with.
    handled,
    /// Failed attempts that were or will be repeated.
    retried,
    /// Events whose dead letter was written.
    dead_lettered,
    /// Events that no handler takes and that were ignored, as [`Unknown::Ignore`](crate::Unknown::Ignore) says.
    skipped,
    /// Events given up unfinished: their partition went, or the processor was shut down. Their next owner has them.
    given_up,
    /// Handlers that finished after their partition had gone.
    late,
    /// Times that a dead letter could not be written.
    letters_refused,
    /// Records that were no messages.
    unreadable,
    /// Times that messages were gone before they were seen.
    gaps,
    /// Partitions held now.
    partitions,
    /// Of them, those that wait because unfinished messages fill their share of what may be in flight.
    partitions_full,
    /// Events taken in and not over.
    in_flight,
    /// Events whose handlers run now.
    running,
    /// Events that wait for their next attempt, held ones included.
    waiting,
    /// Events held because their dead letter cannot be written.
    held,
    /// Keys with something to do, and events without key.
    keys,
}
