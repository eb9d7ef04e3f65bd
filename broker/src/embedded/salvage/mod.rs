//! What a directory of `embedded:DIR` holds that may be damaged: a full check of it, and every message that can still be read.
//!
//! Nothing in the directory is changed but its file `lock`; it is owned meanwhile. What is read is a copy in a scratch directory that shares
//! the tables by hard links where it can.
//! Not here: damage of files (`ropeway-store`), reading past what is damaged (`pages.rs`), topics and groups out of their records
//! (`records.rs`), messages (`messages.rs`), the verdict (`report.rs`).

mod messages;
mod pages;
mod records;
mod report;

pub use messages::{Found, Loss, LossKind};
pub use report::{CursorReport, DelayedReport, PartitionReport, Report, TopicReport};
pub use ropeway_store::{Damage, Report as StoreReport};

use super::core::store_error;
use crate::{Result, Topic};
use records::{Records, SegmentPlace};
use ropeway_store::{Keyspace, SalvagedStore};
use std::{collections::BTreeMap, path::Path};

/// What of a directory can be read.
#[derive(Debug)]
pub struct Salvaged {
    store: SalvagedStore,
    damage: StoreReport,
    records: Records,
    schedule: Option<Keyspace>,
    topics: Vec<SalvagedTopic>,
}

/// A topic, as far as it is known.
#[derive(Debug)]
pub struct SalvagedTopic {
    /// Its name; `life-<number>` where that is lost.
    pub name: Topic,
    /// Which life of the topic: the first number of its positions.
    pub life: u64,
    /// Whether its name is known.
    pub is_named: bool,
    /// How many partitions it has; where that is lost, as many as messages were found of.
    pub partitions: u32,
    /// How many delayed messages there should be; `None` where that is lost.
    pub delayed: Option<u64>,
    /// By number.
    segments: BTreeMap<u64, SegmentPlace>,
}

/// Reads every byte of the files in `dir` and tells all that is not as it was written. Takes as long as the disk needs to read it all.
/// Messages are not looked at: [`Salvaged::check`] does that.
///
/// # Errors
/// `NotFound` where there is no store; `Conflict` names the process that has the directory open; `Unsupported` for a format that this build does not
/// know; `Corrupt` where none can be told from what is there; `Unavailable` where the file system refuses.
pub fn check_files(dir: &Path) -> Result<StoreReport> {
    ropeway_store::check(dir).map_err(store_error)
}

impl Salvaged {
    /// Opens what can be read of `dir`, which is owned as long as this lives. `scratch`, an empty directory or one that does not exist, takes
    /// links to its tables (copies, where it lies on another file system) and copies of the rest; the caller removes it when this is gone.
    ///
    /// # Errors
    /// Those of [`check_files`]; `Unavailable` where `scratch` is not empty.
    pub fn open(dir: &Path, scratch: &Path) -> Result<Self> {
        let (store, damage) = ropeway_store::salvage(dir, scratch).map_err(store_error)?;
        let records = Records::load(&store)?;
        let mut salvaged = Self { store, damage, records, schedule: None, topics: Vec::new() };
        salvaged.find_topics()?;
        Ok(salvaged)
    }

    /// The topics, those whose names are known first. Topics whose names are lost are among them only where something is damaged: else they are
    /// what deleted ones left behind.
    #[must_use]
    pub fn topics(&self) -> &[SalvagedTopic] {
        &self.topics
    }

    /// What is damaged in the files, as far as it is seen without reading every record: [`check_files`] sees all.
    #[must_use]
    pub const fn damage(&self) -> &StoreReport {
        &self.damage
    }

    /// What is damaged among the records of topics, partitions and groups, in words: the first 100, and how many there are.
    #[must_use]
    pub fn problems(&self) -> (&[String], u64) {
        self.records.problems()
    }
}
