//! What may lie in the log twice: what was on its way when something of the same publisher ran out of time.
//!
//! Kafka's client library (2.12.1) then begins anew with all that is on its way, and what was written meanwhile is written a second time. Nothing else excuses a
//! message that lies twice: no kill, no cut, no server that stands still for less than a publish has.
//! Pure. Not here: who counts and flags (`judge.rs`).

use std::{collections::HashMap, time::Duration};

/// When publishes run out of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunsOut {
    /// A publish that is given up is on its way that many milliseconds, at the least.
    pub(crate) after: u64,
    /// What is under way at a server that does not answer may be given up that many milliseconds after it was answered, at the most.
    pub(crate) until: u64,
}

impl RunsOut {
    /// With that deadline of a publish: the library gives up a tenth and a second before it, and what is under way when its request is out of time.
    pub(crate) fn with(deadline: Duration) -> Self {
        let tenth = deadline.min(Duration::from_secs(20)) / 10;
        let after = deadline.saturating_sub(tenth + Duration::from_secs(1));
        Self { after: after.as_millis() as u64, until: deadline.as_millis() as u64 }
    }
}

/// When each publisher may have begun anew.
#[derive(Debug, Default)]
pub(super) struct Again {
    by: HashMap<u32, Vec<(u64, u64)>>,
}

impl Again {
    /// A publish was not acked.
    pub(super) fn failed(&mut self, rule: RunsOut, publisher: u32, invoked: u64, answered: u64) {
        let (from, to) = (invoked + rule.after, answered + rule.until);
        if answered < from {
            return;
        }
        let times = self.by.entry(publisher).or_default();
        match times.last_mut() {
            // Answers come one after the other, many at a time.
            Some(last) if from <= last.1 => *last = (last.0.min(from), last.1.max(to)),
            _ => times.push((from, to)),
        }
    }

    /// Whether what that publisher had on its way then may lie twice.
    pub(super) fn excuses(&self, publisher: u32, invoked: u64, answered: u64) -> bool {
        let times = self.by.get(&publisher).into_iter().flatten();
        times.into_iter().any(|(from, to)| invoked <= *to && *from <= answered)
    }
}
