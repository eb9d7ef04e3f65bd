//! Measures a message bus: load at intended send times, latency, what was lost or out of order.
//!
//! # Where things are
//! Pure: [`pace`] (when a message is to be sent), [`keys`] and [`payload`] (what is sent, and the stamp in it), [`record`] (histograms),
//! [`integrity`] (lost, duplicated, reordered), [`ratio`] (two interleaved measurements beside each other).
//! What is told: [`report`] (JSON), [`html`] (a page), [`metric`] (figures by name, what must hold of them), [`compare`] (two reports),
//! [`figures`] (numbers for people). What acts: [`drive`] (publishes, consumes, handles), [`disk`] (what the disk gives), [`host`].
//!
//! Times are durations since the start of a run; only [`drive`] and [`disk`] ask a clock.

pub mod compare;
pub mod disk;
pub mod drive;
pub mod figures;
pub mod host;
pub mod html;
pub mod integrity;
pub mod keys;
pub mod metric;
pub mod pace;
pub mod payload;
pub mod ratio;
pub mod record;
pub mod report;

/// The sizes of payload that the disk is measured with, in bytes.
pub const DISK_SIZES: [u64; 2] = [64, 1024];
/// How many publishes are under way at a time while the disk is measured.
pub const DISK_AT_ONCE: [u64; 3] = [1, 64, 1024];
