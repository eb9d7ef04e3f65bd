//! What a drill asks for, and what is counted of it.
//!
//! Not here: who judges and counts (`judge.rs`).

use super::again::RunsOut;
use ropeway_broker::Durability;

/// What a drill asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// What publishes must survive.
    pub(crate) stated: Durability,
    /// Whether dead-lettering and acking are one step.
    pub(crate) atomic: bool,
    /// Whether each ack says where the message lies.
    pub(crate) placed: bool,
    /// What may lie twice; `None`: nothing.
    pub(crate) again: Option<RunsOut>,
    /// Acks that were confirmed less than that many milliseconds before a server lost its end may be undone.
    pub(crate) undone: u64,
}

/// What was seen, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) published: u64,
    pub(crate) acked: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    /// Told as unknown, and found in the log.
    pub(crate) unknown_written: u64,
    /// Acked, gone, and not asked to survive what happened; or removed on purpose.
    pub(crate) given_up: u64,
    /// Lies in the log more than once, where that may be.
    pub(crate) twice: u64,
    pub(crate) completed: u64,
    /// Completed again.
    pub(crate) repeats: u64,
    /// Handlers that a member began in an epoch before that of an owner that had begun, and before it was told.
    pub(crate) late: u64,
    /// Two handlers of a key at once, the earlier one of a member that had lost its lease.
    pub(crate) overlaps: u64,
    pub(crate) settled: u64,
    pub(crate) dead: u64,
    pub(crate) kills: u64,
    /// Members that were fenced by a request of their own, and started again.
    pub(crate) fenced: u64,
    pub(crate) joins: u64,
    pub(crate) leaves: u64,
    pub(crate) lost_leases: u64,
    /// Gaps that members were told.
    pub(crate) gaps: u64,
}
