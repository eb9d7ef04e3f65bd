//! Whether a connection still leads to the primary: all that were made before another one was named, or before the server said that it is a replica,
//! do not.
//!
//! Not here: who finds that out (`dialer.rs`), what becomes of such a connection (`node.rs`, `lane.rs`, `dedicated.rs`).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// How often the primary was found to be another one. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<AtomicU64>);

/// The time during which a connection was made; by default that of one whose server nobody replaces, which is never over.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Option<(Turns, u64)>);

impl Turns {
    /// That of connections that are made from now on.
    pub(super) fn now(&self) -> Turn {
        Turn(Some((self.clone(), self.0.load(Ordering::Acquire))))
    }

    /// No connection that was made before leads to the primary.
    pub(super) fn end(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Turn {
    /// Whether the connection does not lead to the primary any more.
    pub(super) fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(|(turns, number)| turns.0.load(Ordering::Acquire) != *number)
    }

    /// Ends it and all before it, once: others of the same time may find the same.
    pub(super) fn end(&self) {
        if let Some((turns, number)) = &self.0 {
            _ = turns.0.compare_exchange(*number, number + 1, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_find_of_the_same_time_ends_it_once() {
        let turns = Turns::default();
        let (first, second) = (turns.now(), turns.now());
        assert!(!first.is_over());
        first.end();
        let later = turns.now();
        second.end();
        assert!(first.is_over() && second.is_over() && !later.is_over());
        turns.end();
        assert!(later.is_over());
        let fixed = Turn::default();
        fixed.end();
        assert!(!fixed.is_over());
    }
}
