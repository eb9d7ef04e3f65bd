//! How a store on disk is set up, and what that means for fjall.

use crate::Purpose;
use ::fjall::{
    KeyspaceCreateOptions,
    compaction::Leveled,
    config::{BlockSizePolicy, FilterPolicy, RestartIntervalPolicy},
};
use std::sync::Arc;

const MIB: u64 = 1024 * 1024;

/// How a store on disk is set up. The defaults are small: about 100 MiB resident under load.
#[derive(Clone, Debug)]
pub struct FjallSettings {
    /// How much of a keyspace is gathered in memory before it is written to a table, in bytes. Default: 16 MiB.
    pub memtable_bytes: u64,
    /// How much of all keyspaces together is gathered in memory, in bytes. When it is passed, the keyspace that has most is written to a
    /// table; when it is passed twice, commits wait. Default: 64 MiB.
    pub memory_bytes: u64,
    /// How much the journals may hold before tables are written, in bytes; at least 64 MiB. They take up to 128 MiB more while that is being
    /// done; beyond, commits wait a second at most each. Default: 128 MiB.
    pub journal_bytes: u64,
    /// The cache of blocks, in bytes. Default: 16 MiB.
    pub cache_bytes: u64,
    /// Threads that write and merge tables. Default: 2.
    pub workers: usize,
}

impl Default for FjallSettings {
    fn default() -> Self {
        Self {
            memtable_bytes: 16 * MIB,
            memory_bytes: 64 * MIB,
            journal_bytes: 128 * MIB,
            cache_bytes: 16 * MIB,
            workers: 2,
        }
    }
}

impl FjallSettings {
    /// How fjall keeps a keyspace.
    pub(super) fn options(&self, purpose: Purpose) -> KeyspaceCreateOptions {
        let options = KeyspaceCreateOptions::default().max_memtable_size(self.memtable_bytes);
        match purpose {
            Purpose::State => options,
            // It is read in order, so that filters answer nothing and larger blocks save index; and it goes as a whole, so that merging its
            // tables would be work for nothing. Merging begins before so many tables lie side by side that fjall holds writers up (20).
            Purpose::Log => options
                .filter_policy(FilterPolicy::disabled())
                .data_block_size_policy(BlockSizePolicy::all(16 * 1024))
                .data_block_restart_interval_policy(RestartIntervalPolicy::all(16))
                .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(12))),
        }
    }
}
