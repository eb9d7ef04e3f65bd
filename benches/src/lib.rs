//! Measures a message bus: load at intended send times, latency, what was lost or out of order.
//!
//! # Where things are
//! Pure: [`pace`] (when a message is to be sent), [`keys`] and [`payload`] (what is sent, and the stamp in it), [`record`] (histograms),
//! [`integrity`] (lost, duplicated, reordered), [`ratio`] (two interleaved measurements beside each other).
//!
//! Times are durations since the start of a run; nothing here asks a clock.

pub mod integrity;
pub mod keys;
pub mod pace;
pub mod payload;
pub mod ratio;
pub mod record;
