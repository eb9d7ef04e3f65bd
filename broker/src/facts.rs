//! What a broker says about itself: capabilities, health, statistics.

/// What one can rely on beyond the contract. Few; durability and the largest message are facts of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The name of the backend, as in errors and metrics: `memory`, `embedded`, `kafka`, `pulsar`, `redis`.
    pub backend: &'static str,
    /// [`Control::forward`](crate::Control::forward) is one step.
    pub atomic_forward: bool,
    /// What was acked stays readable until retention removes it.
    pub replay: bool,
    /// [`Retention::compact`](crate::Retention::compact) works.
    pub compaction: bool,
    /// Other processes can use the same broker at the same time.
    pub shared_by_processes: bool,
}

/// Whether a broker works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered a real request.
    Up,
    /// It works in part, and this is what does not.
    Degraded(String),
    /// It does not work, and this is why.
    Down(String),
}

impl Health {
    /// Whether traffic should come here.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Up | Self::Degraded(_))
    }
}

/// Counters since the broker was opened by this process; all of this process only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Messages acked to publishers.
    pub published: u64,
    /// Messages given back as certainly not written.
    pub not_written: u64,
    /// Messages given back as perhaps written.
    pub unknown: u64,
    /// Writes to the disk or the memory that were made as one, such as the messages of several publishers and acks together; 0 where the
    /// backend cannot tell.
    pub commits: u64,
    /// Messages handed to consumers.
    pub delivered: u64,
    /// Messages handed to readers.
    pub read: u64,
    /// Messages acked by consumers.
    pub acked: u64,
    /// Records that were no messages.
    pub unreadable: u64,
    /// Gaps told.
    pub gaps: u64,
    /// Holes beyond positions of groups that had no place in what is stored of them (Kafka: 4 kB): what was acked behind them comes again
    /// to a later owner.
    pub left_out: u64,
    /// Partitions assigned.
    pub assigned: u64,
    /// Partitions that went.
    pub gone: u64,
    /// Consumers open now.
    pub consumers: u64,
    /// Readers open now.
    pub readers: u64,
}
